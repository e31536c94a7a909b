//! Unattended change: plan, check, judge, execute.
