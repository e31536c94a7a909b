//! Control-plane mode: configuration from xDS, registration and health over the control stream.
