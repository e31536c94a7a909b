//! The house stands as its plan says: the arrows between the crates, the length of files, nothing left undone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use weir_testkit::peers::checkout;

/// A file longer than this is two.
const MAX_LINES: usize = 600;

/// Files that may be longer, and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// What each crate may use of ours in what it ships. A crate missing here is an error, so that a new one is placed
/// on purpose. Development dependencies are free, but for the wall between control/ and data/.
const ARROWS: &[(&str, &[&str])] = &[
    ("weir-model", &[]),
    ("weir-proto", &[]),
    ("weir-trust", &[]),
    ("weir-codec", &[]),
    ("weir-config", &[]),
    ("weir-h2", &[]),
    ("weir-client", &["weir-config", "weir-proto", "weir-trust", "weir-model"]),
    ("weir-proxy", &["weir-codec", "weir-config", "weir-client", "weir-h2", "weir-proto", "weir-model"]),
    ("weir-store", &["weir-model"]),
    ("weir-store-sql", &["weir-store", "weir-model"]),
    ("weir-reconcile", &["weir-store", "weir-model"]),
    ("weir-registry", &["weir-store", "weir-reconcile", "weir-proto", "weir-model"]),
    ("weir-change", &["weir-store", "weir-reconcile", "weir-model"]),
    ("weir-instance", &["weir-store", "weir-reconcile", "weir-model"]),
    ("weir-identity", &[]),
    ("weir-xds", &["weir-identity", "weir-store", "weir-reconcile", "weir-proto", "weir-model"]),
    ("weir-api", &["weir-store", "weir-reconcile", "weir-model"]),
    (
        "weir-server",
        &[
            "weir-api",
            "weir-change",
            "weir-identity",
            "weir-instance",
            "weir-model",
            "weir-reconcile",
            "weir-registry",
            "weir-store",
            "weir-store-sql",
            "weir-trust",
            "weir-xds",
        ],
    ),
    ("weir-cli", &["weir-server", "weir-instance", "weir-sim", "weir-trust", "weir-model"]),
    ("weir-demo", &["weir-model"]),
    ("weir-testkit", &["weir-model"]),
    ("weir-tests", &["weir-testkit", "weir-model"]),
    ("weir-bench", &["weir-client", "weir-config", "weir-testkit"]),
    ("weir-sim", &["weir-change", "weir-store", "weir-model"]),
    ("xtask", &[]),
];

/// One crate of the workspace.
struct Member {
    name: String,
    folder: PathBuf,
    /// Names of our crates that it ships with.
    ships: BTreeSet<String>,
    /// The same and what its own tests use.
    all: BTreeSet<String>,
}

#[test]
fn crates_use_only_what_the_plan_allows() {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for member in members() {
        match allowed.get(member.name.as_str()) {
            None => wrong.push(format!("{} has no line in ARROWS", member.name)),
            Some(may) => wrong.extend(
                member
                    .ships
                    .iter()
                    .filter(|used| !may.contains(&used.as_str()))
                    .map(|used| format!("{} must not use {used}", member.name)),
            ),
        }
    }
    assert_none(&wrong, "see the arrows in ARCHITECTURE.md; domains meet in the store");
}

#[test]
fn control_and_data_never_import_each_other() {
    let members = members();
    let side = |name: &str| {
        let member = members.iter().find(|member| member.name == name)?;
        let top = member.folder.strip_prefix(checkout()).ok()?.iter().next()?;
        top.to_str().filter(|top| ["control", "data"].contains(top))
    };
    let mut wrong = Vec::new();
    for member in &members {
        for used in &member.all {
            let sides = (side(&member.name), side(used));
            if matches!(sides, (Some(own), Some(other)) if own != other) {
                wrong.push(format!("{} uses {used}", member.name));
            }
        }
    }
    assert_none(&wrong, "not even in tests: they speak xDS and the control stream");
}

#[test]
fn the_plan_names_no_crate_that_is_gone() {
    let names: BTreeSet<_> = members().into_iter().map(|member| member.name).collect();
    let gone: Vec<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).filter(|name| !names.contains(name)).collect();
    assert_none(&gone, "take its line out of ARROWS");
}

#[test]
fn files_stay_short() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        let excused = LONG_FILES.iter().any(|(file, _)| *file == path);
        if lines > MAX_LINES && !excused {
            wrong.push(format!("{path} has {lines} lines"));
        }
    }
    assert_none(&wrong, "split it by meaning, or give the reason in LONG_FILES");
}

#[test]
fn nothing_is_left_undone() {
    let marks = ["todo!(", "unimplemented!(", "#[ignore", "FIXME"];
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| path != OWN_PATH) {
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(*mark)) {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(&wrong, "finish it, or take it out");
}

#[test]
fn every_crate_says_what_it_is() {
    let mut wrong = Vec::new();
    for member in members() {
        let root = ["src/lib.rs", "src/main.rs"]
            .map(|file| member.folder.join(file))
            .into_iter()
            .find(|file| file.is_file())
            .expect("a crate has a root");
        let documented = read(&root).starts_with("//!");
        let manifest = read(&member.folder.join("Cargo.toml"));
        if !documented {
            wrong.push(format!("{} does not begin with //!", root.display()));
        }
        if !manifest.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{} does not take the workspace's lints", member.name));
        }
    }
    assert_none(&wrong, "module docs tell the story; lints ask for docs on public items");
}

const OWN_PATH: &str = "tests/tests/stories/house.rs";

fn members() -> Vec<Member> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(checkout())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("cargo lists packages");
    packages.iter().map(member).collect()
}

fn member(package: &Value) -> Member {
    let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
    let ours = |shipped_only: bool| {
        let dependencies = package["dependencies"].as_array().expect("a list");
        dependencies
            .iter()
            .filter(|dependency| dependency["path"].is_string())
            .filter(|dependency| !shipped_only || dependency["kind"] != "dev")
            .filter_map(|dependency| Some(dependency["name"].as_str()?.to_owned()))
            .collect()
    };
    Member {
        name: package["name"].as_str().expect("a name").to_owned(),
        folder: manifest.parent().expect("a folder").to_owned(),
        ships: ours(true),
        all: ours(false),
    }
}

/// Every Rust source file that is ours, by its path in the checkout, with its text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(checkout(), &mut found);
    assert!(found.len() > 20, "the checkout has sources");
    found
        .into_iter()
        .map(|file| {
            let path = file.strip_prefix(checkout()).expect("below the checkout");
            (path.display().to_string(), read(&file))
        })
        .collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let entry = entry.expect("a readable entry");
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let skipped = name.starts_with('.') || ["target", "node_modules", "generated"].contains(&&*name);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !skipped {
                collect(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[track_caller]
fn assert_none(wrong: &[String], advice: &str) {
    assert!(wrong.is_empty(), "{}\n{advice}", wrong.join("\n"));
}
