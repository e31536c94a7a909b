//! Stories: what the user gets, against real peers.
