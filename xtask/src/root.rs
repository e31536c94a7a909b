//! Where things are: the checkout, its target folder, and the peers installed below it.

use std::path::{Path, PathBuf};

/// The top folder of the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the checkout")
}

/// Cargo's target folder: `CARGO_TARGET_DIR`, else `target/`.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => checkout().join(folder),
        None => checkout().join("target"),
    }
}

/// What is installed for the tests and is not Debian's: the Python environment, the Node modules.
pub fn peers() -> PathBuf {
    target().join("peers")
}

/// The Python environment with the peers of `tests/peers/requirements.txt`.
pub fn venv() -> PathBuf {
    peers().join("venv")
}
