//! Generated types of Weir's own wire protocols. The source is `proto/proto/`; `cargo run --manifest-path
//! proto/generate/Cargo.toml` writes `src/generated/` anew. xDS comes from the crate `envoy-types`.

/// The control stream between a proxy and the control plane: registration, health, goodbye.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod control {
    include!("generated/weir.control.v1.rs");
}
