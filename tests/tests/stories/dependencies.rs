//! What Weir is built on: licences that allow it, one registry, every choice explained, versions named in one place.

use std::fs;
use std::process::Command;

use serde_json::Value;
use weir_testkit::peers::checkout;

/// Licences under which we may ship a dependency. `OR` needs one of them, `AND` all.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const DECISIONS: &str = "docs/decisions/0002-dependencies.md";

/// Small ones that need no paragraph: each does one well-known thing that everybody would take from there.
const SELF_EXPLANATORY: &[&str] = &["bytes", "http", "futures", "async-trait", "thiserror", "tempfile", "tokio-stream"];

#[test]
fn licences_allow_shipping() {
    let metadata = metadata(&["--filter-platform", &host()]);
    let packages = metadata["packages"].as_array().expect("cargo lists packages");
    assert!(packages.len() > 50, "cargo resolved the dependencies");
    let refused: Vec<_> = packages
        .iter()
        .filter(|package| package["source"].is_string())
        .map(|package| (text(&package["name"]), text(&package["license"])))
        .filter(|(_, licence)| !allowed(licence))
        .collect();
    assert!(refused.is_empty(), "these licences are not among those allowed: {refused:?}");
}

#[test]
fn everything_comes_from_the_registry() {
    let lock = read("Cargo.lock");
    let registry = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let foreign: Vec<_> = lock.lines().filter(|line| line.starts_with("source") && *line != registry).collect();
    assert!(foreign.is_empty(), "a moving or private source cannot be rebuilt by others: {foreign:?}");
}

#[test]
fn versions_are_named_once() {
    let metadata = metadata(&["--no-deps"]);
    let packages = metadata["packages"].as_array().expect("cargo lists packages");
    let mut wrong = Vec::new();
    for manifest in packages.iter().map(|package| text(&package["manifest_path"])) {
        let manifest_text = fs::read_to_string(&manifest).expect("a manifest can be read");
        let own = |line: &&str| line.contains("version = \"") || line.contains(" = \"") && is_requirement(line);
        let lines = dependency_lines(&manifest_text).filter(own).map(|line| format!("{manifest}: {line}"));
        wrong.extend(lines);
    }
    assert!(wrong.is_empty(), "name the version in the workspace's Cargo.toml:\n{}", wrong.join("\n"));
}

#[test]
fn every_choice_is_explained_and_used() {
    let root = read("Cargo.toml");
    let decisions = read(DECISIONS);
    let metadata = metadata(&["--no-deps"]);
    let used: Vec<String> = metadata["packages"]
        .as_array()
        .expect("cargo lists packages")
        .iter()
        .flat_map(|package| package["dependencies"].as_array().expect("a list"))
        .map(|dependency| text(&dependency["name"]))
        .collect();
    let mut wrong = Vec::new();
    for name in workspace_dependencies(&root).filter(|name| !name.starts_with("weir-")) {
        let explained = decisions.contains(&format!("`{name}`")) || SELF_EXPLANATORY.contains(&name);
        if !explained {
            wrong.push(format!("{name} is not explained in {DECISIONS}"));
        }
        if !used.iter().any(|have| have == name) {
            wrong.push(format!("{name} is used by no crate: take it out of Cargo.toml"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An SPDX expression without parentheses inside parentheses, and the old way with a slash for OR.
fn allowed(licence: &str) -> bool {
    let licence = licence.replace(" / ", " OR ").replace('/', " OR ");
    licence.split(" AND ").all(|all| {
        let one = all.trim_matches(|sign| sign == '(' || sign == ')');
        one.split(" OR ").any(|any| LICENCES.contains(&any.trim_matches(|sign| sign == '(' || sign == ')')))
    })
}

/// Lines below `[dependencies]`, `[dev-dependencies]` and the like.
fn dependency_lines(manifest: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    manifest.lines().filter(move |line| {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
            return false;
        }
        inside && !line.trim().is_empty() && !line.starts_with('#')
    })
}

/// `name = "1.2"`: a requirement without a table around it.
fn is_requirement(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(_, value)| value.starts_with('"'))
}

fn workspace_dependencies(root: &str) -> impl Iterator<Item = &str> {
    let section = root.split("[workspace.dependencies]").nth(1).expect("the section is there");
    let section = section.split("\n[").next().unwrap_or(section);
    section.lines().filter_map(|line| Some(line.split_once(" = ")?.0.trim())).filter(|name| !name.starts_with('#'))
}

fn metadata(flags: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--format-version", "1"])
        .args(flags)
        .current_dir(checkout())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

fn host() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn read(path: &str) -> String {
    fs::read_to_string(checkout().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn licence_expressions_are_understood() {
    for good in ["MIT OR Apache-2.0", "MIT/GPL-3.0", "(MIT OR Apache-2.0) AND Unicode-3.0", "Zlib"] {
        assert!(allowed(good), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND AGPL-3.0"] {
        assert!(!allowed(bad), "{bad}");
    }
}
