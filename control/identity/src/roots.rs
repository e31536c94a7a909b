//! Roots of trust: certificates only, kept in a file over a restart, each until the last leaf that it may have signed
//! has run out.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use crate::error::IdentityError;
use crate::signer::{certificates, end};

/// Most roots kept; the oldest go first. A process that is started anew each second must not grow the bundle for ever.
const MAX_ROOTS: usize = 32;
/// Largest file read.
const MAX_BYTES: u64 = 1 << 20;

/// One root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The certificate.
    pub pem: String,
    /// No leaf of it is valid any more after this.
    pub until: Timestamp,
}

/// Where roots are kept between processes.
#[derive(Debug)]
pub struct Kept {
    path: Option<PathBuf>,
}

impl Kept {
    /// In a file; `None`: nowhere.
    pub fn new(path: Option<PathBuf>) -> Kept {
        Kept { path }
    }

    /// Roots of former processes. What signed until the end of the last one may have signed at its very end.
    pub fn load(&self, leaf_ttl: Duration, now: Timestamp) -> Result<Vec<Root>, IdentityError> {
        let Some(path) = &self.path else { return Ok(Vec::new()) };
        let text = match read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(IdentityError::File { path: path.clone(), source }),
        };
        let latest = now + leaf_ttl;
        let mut roots = Vec::new();
        for block in text.split(NOTE).skip(1) {
            let noted: Option<Timestamp> = block.lines().next().and_then(|line| line.trim().parse().ok());
            for pem in certificates(block)? {
                let until = noted.unwrap_or(latest).min(latest).min(end(&pem)?);
                roots.push(Root { pem, until });
            }
        }
        Ok(roots)
    }

    /// Replaces what is kept, durably: a root must not be lost while a leaf of it is in use.
    pub fn save(&self, roots: &[Root]) -> Result<(), IdentityError> {
        let Some(path) = &self.path else { return Ok(()) };
        write(path, &text(roots)).map_err(|source| IdentityError::File { path: path.clone(), source })
    }
}

/// Precedes each certificate; readers of PEM skip it.
const NOTE: &str = "# needed until ";

fn text(roots: &[Root]) -> String {
    let mut text =
        String::from("# Roots of the mesh's certificates, written by weir. Certificates only: no key is ever kept.\n");
    for root in roots {
        text.push_str(&format!("{NOTE}{}\n{}", root.until, root.pem));
    }
    text
}

fn read(path: &Path) -> io::Result<String> {
    use io::Read;
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Those still needed: without the ones that have run out, and the newest where there are too many.
pub fn needed(mut roots: Vec<Root>, now: Timestamp) -> Vec<Root> {
    roots.retain(|root| root.until > now);
    let surplus = roots.len().saturating_sub(MAX_ROOTS);
    roots.drain(..surplus);
    roots
}
