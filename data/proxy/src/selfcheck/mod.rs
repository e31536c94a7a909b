//! The start-up self-check: what must hold before the proxy takes traffic.
