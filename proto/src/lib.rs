//! Generated types of Weir's own wire protocols. The source is `proto/proto/`; `cargo run --manifest-path
//! proto/generate/Cargo.toml` writes `src/generated/` anew. xDS comes from the crate `envoy-types`.

/// The control stream between a proxy and the control plane: registration, health, goodbye.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod control {
    include!("generated/weir.control.v1.rs");
}

/// What a listener of weir-proxy needs beyond Envoy's own types.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proxy {
    include!("generated/weir.proxy.v1.rs");

    /// Type URL of [`RpcProxy`] in a filter's typed configuration.
    pub const RPC_PROXY: &str = "type.googleapis.com/weir.proxy.v1.RpcProxy";
    /// Key in the metadata of clusters and listeners under which Weir's own settings stand. A cluster's field `protocol`:
    /// `bolt` or `dubbo`. A listener's field `drainMs`: how long its requests get to finish when the proxy goes.
    pub const METADATA: &str = "weir.dev";
}
