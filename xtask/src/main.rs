//! The project's own commands: up, test, bench.

fn main() {}
