//! Resources from files, folders and standard input.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_model::parse;

use crate::failure::{Failure, USAGE};
use crate::target::{Target, one};

/// A document and where it was read.
#[derive(Debug)]
pub struct Document {
    /// `FILE`, with `:NUMBER` if it has several documents.
    pub origin: String,
    /// What it is about.
    pub target: Target,
    /// As it was written.
    pub value: Value,
}

/// Reads files, folders (each `.yaml`, `.yml` and `.json` in them, by name) and `-` for standard input. Nothing has been
/// sent anywhere when one of them is wrong.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    for path in paths {
        for file in expand(path)? {
            documents.append(&mut one_file(&file)?);
        }
    }
    if documents.is_empty() {
        return Err(Failure::new("there is no resource in what was given").code(USAGE));
    }
    Ok(documents)
}

fn expand(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let known = |path: &PathBuf| path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|k| e == *k));
    let entries = fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let paths = entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>();
    let mut files: Vec<PathBuf> = paths?.into_iter().filter(known).collect();
    files.sort();
    Ok(files)
}

fn one_file(path: &Path) -> Result<Vec<Document>, Failure> {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let wrong = |error| Failure::new(format!("{name}: {error}"));
    let values = parse::documents(&text(path)?).map_err(wrong)?;
    let many = values.len() > 1;
    let document = |(index, value): (usize, Value)| {
        let origin = if many { format!("{name}, document {}", index + 1) } else { name.clone() };
        let target = about(&value).map_err(|failure| Failure::new(format!("{origin}: {}", failure.message)))?;
        Ok(Document { origin, target, value })
    };
    values.into_iter().enumerate().map(document).collect()
}

fn text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let limit = parse::MAX_DOCUMENT_BYTES as u64 + 1;
    let read = if path == Path::new("-") {
        io::stdin().take(limit).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    read.map_err(|error| unreadable(path, &error))?;
    Ok(text)
}

fn about(value: &Value) -> Result<Target, Failure> {
    let missing = |field: &str| Failure::new(format!("{field} is missing"));
    let kind = value["kind"].as_str().ok_or_else(|| missing("kind"))?;
    let name = value.pointer("/metadata/name").and_then(Value::as_str).ok_or_else(|| missing("metadata.name"))?;
    one(&format!("{kind}/{name}"))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_by_name_and_documents_numbered() {
        let folder = tempfile::tempdir().unwrap();
        let app = |name: &str| format!("apiVersion: weir.dev/v1\nkind: App\nmetadata: {{name: {name}}}\n");
        fs::write(folder.path().join("b.yml"), app("c")).unwrap();
        fs::write(folder.path().join("a.yaml"), format!("{}---\n{}", app("a"), app("b"))).unwrap();
        fs::write(folder.path().join("notes.txt"), "not yaml: [").unwrap();
        let read = read(&[folder.path().to_owned()]).unwrap();
        let names: Vec<_> = read.iter().map(|d| d.target.name.clone().unwrap()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(read[1].origin.ends_with("a.yaml, document 2"), "{}", read[1].origin);
    }

    #[test]
    fn what_is_wrong_names_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.yaml");
        fs::write(&file, "kind: Ap\nmetadata: {name: a}\n").unwrap();
        let failure = read(&[file]).unwrap_err();
        assert!(failure.message.ends_with("x.yaml: unknown kind \"Ap\", did you mean \"App\"?"), "{failure}");
    }
}
