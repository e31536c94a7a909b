//! The proxy's side of the control plane: xDS and the control stream.
