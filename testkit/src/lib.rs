//! What stories and benchmarks are told with.
//!
//! A story looks at the system from outside: it spawns the real binaries and real peers as [`Process`]es, talks to
//! them over loopback sockets ([`http`]), and waits for what should come about with [`eventually`], always with a
//! deadline. Everything here blocks and uses only the standard library, so that it serves any test and adds no
//! second runtime beside the one under test.
//!
//! - [`Process`]: a child with captured output; it and all that it started are gone when it is dropped.
//! - [`Weir`]: a control plane on free addresses with its own data folder, and the CLI pointed at it.
//! - [`binary`]: where Weir's own programs are.
//! - [`net`]: addresses that nobody else uses. [`peers`]: nginx, Envoy, Python, Node, or a failure that says what
//!   to install: a missing peer never skips a test.

mod binary;
pub mod http;
pub mod net;
pub mod peers;
mod process;
mod wait;
mod weir;

pub use binary::binary;
pub use process::Process;
pub use rustix::process::Signal;
pub use wait::{LONG, eventually};
pub use weir::{Answer, Weir};

/// Re-exported so that stories need no dependency of their own for a folder that goes away.
pub use tempfile::TempDir;
