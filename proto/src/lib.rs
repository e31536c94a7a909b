//! Generated types of Weir's own wire protocols.
