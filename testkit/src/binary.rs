//! Where Weir's own programs are.

use std::path::PathBuf;

/// A program of this workspace: `weir`, `weir-proxy` or `weir-demo`.
///
/// `cargo xtask test` builds them and names their folder in `WEIR_BIN_DIR`; a test started by plain cargo takes
/// what was last built into the same target folder.
///
/// # Panics
/// If it has not been built, with the command to build it.
pub fn binary(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build --workspace --bins`, or the story through `cargo xtask test --story NAME`",
        path.display()
    );
    path
}

/// A test binary lies in `target/PROFILE/deps`, the programs one folder above.
fn folder() -> PathBuf {
    match std::env::var_os("WEIR_BIN_DIR") {
        Some(folder) => folder.into(),
        None => std::env::current_exe()
            .ok()
            .and_then(|own| Some(own.parent()?.parent()?.to_owned()))
            .expect("a test binary lies in target/PROFILE/deps"),
    }
}
