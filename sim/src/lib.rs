//! A simulated fleet under the real planner, checker, judge and executor.
//!
//! [`shape`] says which apps run where, [`mesh`] makes instances of it that serve, fail, die and are upgraded, second by
//! second, on a virtual clock, from one seed. [`flaw`] is what a version does wrong and [`background`] what fails by
//! itself. [`run`] takes one change through it with `weir-change`'s own step function, killing it at any moment if wanted;
//! [`law`] watches from outside what must never happen. [`peers`] are published judges, to compare with. [`campaign`]
//! runs thousands of changes, [`report`] and [`figures`] show what they found, [`large`] plans hundreds of thousands of
//! instances, and [`inventory`] is a user's own fleet.

pub mod background;
pub mod campaign;
pub mod command;
pub mod dice;
pub mod figures;
pub mod flaw;
pub mod inventory;
pub mod large;
pub mod latency;
pub mod law;
pub mod mesh;
pub mod peers;
pub mod report;
pub mod run;
pub mod shape;
