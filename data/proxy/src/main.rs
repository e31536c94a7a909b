//! The sidecar proxy: `weir-proxy`.

fn main() {}
