//! What a proxy runs on: listeners, route tables and clusters, in the proxy's own plain terms.
//!
//! Two sources produce a [`ProxyConfig`]: a YAML file (`weir-proxy --config`, used standalone and by the benchmarks)
//! and xDS (`data/client`). Neither protobuf nor sockets are known here. A configuration is [validated](validate) as a
//! whole; the proxy then compiles it once into an immutable snapshot which every worker shares.
//!
//! Times carry their unit in their name, sizes are bytes. Every limit has a default; none is "unlimited".

mod health;
mod load;
mod tls;
mod types;
mod validate;

pub use health::*;
pub use load::{LoadError, from_yaml, load};
pub use tls::*;
pub use types::*;
pub use validate::{ConfigError, validate};
