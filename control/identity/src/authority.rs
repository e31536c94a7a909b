//! Which signer signs now, and which roots are told.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::Options;
use crate::error::IdentityError;
use crate::leaf::{self, Leaf};
use crate::roots::{Kept, Root, needed};
use crate::signer::{OwnSigner, Signer};

/// The certificate authority: one per control plane process.
pub struct Authority {
    options: Options,
    kept: Kept,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

struct State {
    /// Signs. `None` until the root of `next` is known.
    current: Option<Signer>,
    /// Its root is told already; it signs once everybody knows it.
    next: Option<Signer>,
    /// Oldest first.
    roots: Vec<Root>,
    version: u64,
}

/// The roots that verify leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// PEM, one root or several.
    pub roots: String,
    /// Grows with each change in this process.
    pub version: u64,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Authority {
    /// Begins with the operator's own signer, or makes one. `kept`: the file with the roots of former processes.
    ///
    /// # Errors
    /// [`IdentityError`]: the options or the given signer are of no use, or the file is not.
    pub fn start(
        options: Options,
        own: Option<&OwnSigner>,
        kept: Option<PathBuf>,
        now: Timestamp,
    ) -> Result<Authority, IdentityError> {
        options.validate()?;
        let kept = Kept::new(kept);
        let before = needed(kept.load(options.leaf_ttl, now)?, now);
        let signer = match own {
            Some(own) => Signer::of(own, now)?,
            None => Signer::make(&options.trust_domain, options.signer_ttl, now)?,
        };
        // Nobody has a certificate yet, or all know this root: it may sign at once.
        let known = before.is_empty() || before.iter().any(|root| root.pem == signer.root);
        let mut state = State { current: None, next: None, roots: before, version: 1 };
        state.add_root(&signer);
        kept.save(&state.roots)?;
        *(if known { &mut state.current } else { &mut state.next }) = Some(signer);
        Ok(Authority { options, kept, state: Mutex::new(state), changes: watch::Sender::new(0) })
    }

    /// What it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The roots that verify everything that is in use.
    pub fn bundle(&self) -> Bundle {
        let state = self.lock();
        Bundle { roots: state.roots.iter().map(|root| root.pem.as_str()).collect(), version: state.version }
    }

    /// Changes whenever there are other roots or another signer.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A certificate for an instance; `None`: not before everybody knows the root that would verify it.
    ///
    /// # Errors
    /// [`IdentityError::Make`].
    pub fn issue(&self, app: &str, unit: &str, now: Timestamp) -> Result<Option<Leaf>, IdentityError> {
        let state = self.lock();
        let Some(signer) = &state.current else { return Ok(None) };
        leaf::issue(signer, &self.options.identity(app, unit), self.options.leaf_ttl, now).map(Some)
    }

    /// A certificate for the control plane's own ports, which are reached by `names`. It is signed at once, by a new signer
    /// if need be: whoever verifies it is not told of roots by the mesh.
    ///
    /// # Errors
    /// [`IdentityError::Make`]; a name that can't stand in a certificate among others.
    pub fn issue_server(&self, names: &[String], now: Timestamp) -> Result<Leaf, IdentityError> {
        let state = self.lock();
        let signer = state.current.as_ref().or(state.next.as_ref());
        let signer = signer.ok_or_else(|| IdentityError::Given("there is nothing to sign with".to_owned()))?;
        leaf::issue_server(signer, names, self.options.leaf_ttl, now)
    }

    /// True while a new signer waits for its root to be known everywhere.
    pub fn waits(&self) -> bool {
        self.lock().next.is_some()
    }

    /// Everybody who verifies leaves has the bundle of this version: its newest root may sign.
    ///
    /// # Errors
    /// [`IdentityError::File`]; it is as before then.
    pub fn roots_are_known(&self, version: u64, now: Timestamp) -> Result<(), IdentityError> {
        let mut state = self.lock();
        if state.version != version || state.next.is_none() {
            return Ok(());
        }
        // The key before it goes; its root stays until its last leaf has run out.
        let retired = state.current.as_ref().map(|signer| signer.root.clone());
        let mut roots = state.roots.clone();
        for root in roots.iter_mut().filter(|root| retired.as_ref() == Some(&root.pem)) {
            root.until = root.until.min(now + self.options.leaf_ttl);
        }
        self.kept.save(&roots)?;
        state.roots = roots;
        state.current = state.next.take();
        drop(state);
        self.changed();
        Ok(())
    }

    /// What the passing of time asks for: another signer when this one is half through its life, and roots that nobody
    /// needs any longer leave the bundle.
    ///
    /// # Errors
    /// [`IdentityError`]; what was before stays, and it can be tried again.
    pub fn turn(&self, now: Timestamp) -> Result<(), IdentityError> {
        let mut state = self.lock();
        let due = state.current.as_ref().and_then(|s| s.replace_at).is_some_and(|at| now >= at);
        let make = || Signer::make(&self.options.trust_domain, self.options.signer_ttl, now);
        let next = if due && state.next.is_none() { Some(make()?) } else { None };
        let mut roots = needed(state.roots.clone(), now);
        roots.extend(next.iter().map(|signer| Root { pem: signer.root.clone(), until: signer.not_after }));
        if roots.iter().map(|r| &r.pem).eq(state.roots.iter().map(|r| &r.pem)) {
            return Ok(());
        }
        self.kept.save(&roots)?;
        state.roots = roots;
        state.version += 1;
        state.next = next.or(state.next.take());
        drop(state);
        self.changed();
        Ok(())
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add_root(&mut self, signer: &Signer) {
        self.roots.retain(|root| root.pem != signer.root);
        self.roots.push(Root { pem: signer.root.clone(), until: signer.not_after });
    }
}
