//! Unattended change: plan, check, judge, execute.

pub mod judge;
