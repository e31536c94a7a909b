//! What every store must do, as one suite run on each.
