//! Builders, clock, peers, eventually.
