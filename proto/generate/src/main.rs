//! Compiles `proto/proto/*.proto` into `proto/src/generated/`, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = proto.join("proto");
    let descriptors = protox::compile(["weir_control.proto", "weir_proxy.proto"].map(|file| sources.join(file)), [&sources])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .out_dir(proto.join("src/generated"))
        .compile_fds(descriptors)?;
    Ok(())
}
