//! The Store trait, the in-memory store and the behaviour suite.
