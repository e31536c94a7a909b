//! Processes of this machine.
//!
//! Each instance has a folder: the supervisor's socket, its locked pid file, its children's ids, and its logs. Whether
//! an instance runs is told by the lock alone, so nothing has to be remembered, and nothing can be remembered wrongly.

mod artifact;
mod place;
mod process;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use weir_model::instance::InstanceSpec;

use crate::provider::{Artifact, Launch, Placement, Provider, ProviderError};
use crate::supervisor::{self, CallError, Request, Status};

pub use artifact::{Verifier, sha256};
pub use process::{Children, ProcessId};

/// How long a supervisor may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether it does: another process's socket gives no event to wait on.
const LOOK: Duration = Duration::from_millis(10);
/// Name of the log in an instance's folder.
pub const LOG: &str = "supervisor.log";
/// A log that is longer is kept under `.1`, and a new one begun, at the instance's start and while it runs; bytes.
pub const MAX_LOG: u64 = 8 * 1024 * 1024;

/// Where and with what instances run.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Folder that holds a folder per instance; made if it is not there.
    pub folder: PathBuf,
    /// The `weir` program, whose `run` command is the supervisor.
    pub weir: PathBuf,
    /// URL at which proxies reach the control plane.
    pub control: String,
    /// By whom it is known, if that URL is `https`: a file of certificates, or a fingerprint.
    pub control_ca: Option<String>,
    /// Token with which proxies join; passed on in the environment, never written.
    pub token: Option<String>,
}

/// Runs instances as processes of this machine, each with a loopback address of its own.
#[derive(Debug)]
pub struct LocalProvider {
    options: LocalOptions,
    verifier: Verifier,
}

impl LocalProvider {
    /// A provider on `options.folder`.
    ///
    /// # Errors
    /// If the folder can't be made.
    pub fn new(options: LocalOptions) -> io::Result<LocalProvider> {
        DirBuilder::new().recursive(true).mode(0o700).create(&options.folder)?;
        let options = LocalOptions { folder: options.folder.canonicalize()?, ..options };
        Ok(LocalProvider { options, verifier: Verifier::default() })
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.options.folder.join(name)
    }

    async fn order(&self, name: &str, request: Request) -> Result<(), ProviderError> {
        supervisor::call(&self.folder(name), &request).await.map(drop).map_err(unreachable)
    }

    fn spawn(&self, launch: &Launch, folder: &Path) -> io::Result<Child> {
        let log = open_log(&folder.join(LOG))?;
        let mut command = Command::new(&self.options.weir);
        command.args(arguments(launch, folder, &self.options)).envs(&launch.env);
        command.env_remove("WEIR_TOKEN").env_remove("WEIR_ADMIN_TOKEN");
        if let Some(token) = &self.options.token {
            command.env("WEIR_TOKEN", token);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: setsid is async-signal-safe (signal-safety(7)) and touches no memory.
        unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(io::Error::from)) };
        command.spawn()
    }

    async fn wait_until_it_answers(&self, launch: &Launch, mut child: Child) -> Result<(), ProviderError> {
        let folder = self.folder(&launch.name);
        let deadline = Instant::now() + START_PATIENCE;
        let failed = |reason: String| ProviderError::Start { name: launch.name.clone(), reason };
        loop {
            if supervisor::call(&folder, &Request::Status).await.is_ok() {
                tokio::spawn(async move { child.wait().await });
                return Ok(());
            }
            if let Some(status) = child.try_wait().map_err(system)? {
                return Err(failed(format!("{status}: {}", last_line(&folder.join(LOG)))));
            }
            if Instant::now() > deadline {
                let _ = child.start_kill();
                return Err(failed("its supervisor does not answer".into()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[async_trait]
impl Provider for LocalProvider {
    async fn place(&self, name: &str, calls: &[String], taken: &[InstanceSpec]) -> Result<Placement, ProviderError> {
        let seed = format!("{}/{name}", self.options.folder.display());
        place::place(&seed, calls, taken, place::bindable)
            .ok_or_else(|| ProviderError::System("no loopback address is free".into()))
    }

    async fn names(&self) -> Result<Vec<String>, ProviderError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.options.folder).map_err(system)? {
            names.extend(entry.map_err(system)?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    async fn observe(&self, name: &str) -> Result<Option<Status>, ProviderError> {
        let folder = self.folder(name);
        if !supervisor::alive(&folder).map_err(system)? {
            return Ok(None);
        }
        match supervisor::call(&folder, &Request::Status).await {
            Ok(status) => Ok(Some(status)),
            Err(_) if !supervisor::alive(&folder).map_err(system)? => Ok(None),
            Err(error) => Err(unreachable(error)),
        }
    }

    async fn verify(&self, proxy: &Artifact) -> Result<(), ProviderError> {
        self.verifier.verify(proxy).await
    }

    async fn start(&self, launch: &Launch) -> Result<(), ProviderError> {
        let folder = self.folder(&launch.name);
        if supervisor::alive(&folder).map_err(system)? {
            return Ok(());
        }
        self.verify(&launch.proxy).await?;
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(system)?;
        process::end_leftovers(&folder).map_err(system)?;
        let child = self.spawn(launch, &folder).map_err(|error| {
            let reason = format!("{}: {error}", self.options.weir.display());
            ProviderError::Start { name: launch.name.clone(), reason }
        })?;
        self.wait_until_it_answers(launch, child).await
    }

    async fn drain(&self, name: &str) -> Result<(), ProviderError> {
        self.order(name, Request::Drain).await
    }

    async fn swap(&self, name: &str, proxy: &Artifact) -> Result<(), ProviderError> {
        self.verify(proxy).await?;
        self.order(name, Request::Swap(proxy.clone())).await
    }

    async fn stop(&self, name: &str) -> Result<(), ProviderError> {
        self.order(name, Request::Stop).await
    }

    async fn remove(&self, name: &str) -> Result<(), ProviderError> {
        let folder = self.folder(name);
        if !folder.exists() {
            return Ok(());
        }
        process::end_leftovers(&folder).map_err(system)?;
        fs::remove_dir_all(&folder).map_err(system)
    }
}

/// The command line of `weir run` for an instance.
fn arguments(launch: &Launch, folder: &Path, options: &LocalOptions) -> Vec<String> {
    let spec = &launch.spec;
    let mut flags = vec!["run".to_owned()];
    let mut flag = |name: &str, value: String| flags.extend([format!("--{name}"), value]);
    flag("instance", launch.name.clone());
    flag("app", spec.app.clone());
    flag("unit", spec.unit.clone());
    flag("zone", spec.zone.clone());
    flag("group", spec.group.clone());
    flag("stack", spec.stack.clone());
    flag("app-version", spec.app_version.clone());
    flag("protocol", protocol(spec).to_owned());
    if let Some(application) = spec.application() {
        flag("port", application.port().to_string());
        flag("app-address", application.ip().to_string());
    }
    flag("inbound", format!("{}:{}", spec.address, spec.port));
    flag("control", options.control.clone());
    if let Some(ca) = &options.control_ca {
        flag("control-ca", ca.clone());
    }
    flag("folder", folder.display().to_string());
    for upstream in &spec.upstreams {
        flag("upstream", format!("{}={}", upstream.app, upstream.listen));
    }
    let proxy = serde_json::to_string(&launch.proxy).expect("an artifact is plain data");
    flag("proxy-release", proxy);
    flags.push("--".to_owned());
    flags.extend(launch.command.iter().cloned());
    flags
}

fn protocol(spec: &InstanceSpec) -> &'static str {
    use weir_model::app::Protocol::*;
    match spec.protocol {
        Http1 => "http1",
        Http2 => "http2",
        Grpc => "grpc",
        Bolt => "bolt",
        Dubbo => "dubbo",
        Tcp => "tcp",
    }
}

/// Always appends: several processes write to it.
fn open_log(path: &Path) -> io::Result<fs::File> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > MAX_LOG) {
        fs::rename(path, path.with_added_extension("1"))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The last line of a log that says anything.
fn last_line(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it left no log").to_owned()
}

fn unreachable(error: CallError) -> ProviderError {
    ProviderError::Unreachable(error.to_string())
}

fn system(error: io::Error) -> ProviderError {
    ProviderError::System(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_kept_under_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("supervisor.log");
        open_log(&path).unwrap().set_len(MAX_LOG + 1).unwrap();
        assert_eq!(open_log(&path).unwrap().metadata().unwrap().len(), 0);
        assert_eq!(fs::metadata(folder.path().join("supervisor.log.1")).unwrap().len(), MAX_LOG + 1);
        open_log(&path).unwrap().set_len(MAX_LOG).unwrap();
        assert_eq!(open_log(&path).unwrap().metadata().unwrap().len(), MAX_LOG, "not long: it goes on");
    }
}
