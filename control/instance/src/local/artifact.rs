//! Is an executable what its Release says?

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::provider::{Artifact, ProviderError};

/// Files whose hashes are remembered; beyond that they are computed again.
const MAX_REMEMBERED: usize = 64;

/// What identifies a file's content without reading it: device, inode, size, change time with nanoseconds.
type Identity = (u64, u64, u64, i64, i64);

/// Checks artifacts; remembers the hashes of files that have not changed since.
#[derive(Debug, Default)]
pub struct Verifier {
    remembered: Mutex<HashMap<Identity, String>>,
}

impl Verifier {
    /// The executable is there, may be executed, and hashes to what is asked for.
    ///
    /// # Errors
    /// [`ProviderError::Artifact`], saying what is wrong.
    pub async fn verify(&self, artifact: &Artifact) -> Result<(), ProviderError> {
        let wrong = |reason: String| ProviderError::Artifact { version: artifact.version.clone(), reason };
        let meta = fs::metadata(&artifact.path).map_err(|error| wrong(format!("{}: {error}", artifact.path)))?;
        if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
            return Err(wrong(format!("{} is not an executable file", artifact.path)));
        }
        let Some(wanted) = &artifact.sha256 else { return Ok(()) };
        let found = self.hash(&artifact.path, &meta).await.map_err(|e| wrong(format!("{}: {e}", artifact.path)))?;
        if found.eq_ignore_ascii_case(wanted) {
            return Ok(());
        }
        Err(wrong(format!("{} hashes to {found}, the Release says {wanted}: register what is there", artifact.path)))
    }

    async fn hash(&self, path: &str, meta: &fs::Metadata) -> io::Result<String> {
        let identity = (meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec());
        let known = self.lock().get(&identity).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let path = path.to_owned();
        let hash = tokio::task::spawn_blocking(move || sha256(&path)).await.map_err(io::Error::other)??;
        let mut remembered = self.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(identity, hash.clone());
        Ok(hash)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, String>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SHA-256 of a file in hex.
///
/// # Errors
/// If it can't be read.
pub fn sha256(path: &str) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => hasher.update(&chunk[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(text: &str) -> (tempfile::TempDir, Artifact) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let sha256 = Some(sha256(&path).unwrap());
        (folder, Artifact { version: "B".into(), path, sha256, ..Artifact::default() })
    }

    #[tokio::test]
    async fn what_was_registered_passes_and_what_was_changed_does_not() {
        let (_folder, artifact) = program("#!/bin/true\n");
        let verifier = Verifier::default();
        verifier.verify(&artifact).await.unwrap();
        verifier.verify(&artifact).await.unwrap();
        fs::write(&artifact.path, "#!/bin/false\n").unwrap();
        let error = verifier.verify(&artifact).await.unwrap_err().to_string();
        assert!(error.contains("release B") && error.contains("hashes to"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_or_dead_file_is_told() {
        let missing = Artifact { path: "/nowhere/at/all".into(), ..Artifact::default() };
        assert!(Verifier::default().verify(&missing).await.unwrap_err().to_string().contains("/nowhere"));
        let (folder, artifact) = program("x");
        fs::set_permissions(&artifact.path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Verifier::default().verify(&artifact).await.unwrap_err();
        assert!(error.to_string().contains("not an executable"), "{error} in {folder:?}");
    }
}
