//! Control-plane mode: the proxy takes its configuration by xDS and reports over the control stream.

mod flags;

pub use flags::{ControlFlags, Upstream};
