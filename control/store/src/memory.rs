//! The in-memory store, for tests and simulations.
