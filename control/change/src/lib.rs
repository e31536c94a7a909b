//! Unattended change: plan, check, judge, execute.

pub mod check;
pub mod defence;
pub mod execute;
pub mod explain;
pub mod fleet;
pub mod judge;
pub mod plan;
pub mod preview;
pub mod report;
pub mod slo;
pub mod train;
pub mod windows;
pub mod world;
