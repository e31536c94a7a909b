//! The demo mesh's services and its load.

fn main() {}
