//! The control plane that `weir up` runs.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use super::Args;
use crate::run::spawn;

/// How long it may take to end after SIGTERM, with all instances.
const STOP_PATIENCE: Duration = Duration::from_secs(90);

/// `weir control` as a child.
pub struct Control {
    child: Child,
    token: String,
    log: PathBuf,
}

impl Control {
    /// Starts it on the data folder; its log is `control.log` there. The administrator's token is that of the
    /// environment or a new one, and is passed on in the environment only.
    pub fn start(args: &Args) -> Result<Control, String> {
        let told = |error: std::io::Error| format!("{}: {error}", args.data.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&args.data).map_err(told)?;
        let log = args.data.join("control.log");
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&log).map_err(told)?;
        let token = match std::env::var("WEIR_ADMIN_TOKEN") {
            Ok(token) => token.trim().to_owned(),
            Err(_) => weir_server::login::mint().map_err(told)?,
        };
        let program = std::env::current_exe().map_err(told)?;
        let mut command = spawn::child(program.as_os_str());
        command.arg("control").arg("--stop-instances").arg("--data").arg(&args.data);
        command.args(["--api", &args.api.to_string(), "--xds", &args.xds.to_string()]);
        command.env("WEIR_ADMIN_TOKEN", &token).env_remove("WEIR_TOKEN");
        command.stdout(file.try_clone().map_err(told)?).stderr(file);
        let child = command.spawn().map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        Ok(Control { child, token, log })
    }

    /// The administrator's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Resolves when it ends by itself, with the reason.
    pub async fn ends(&mut self) -> String {
        let status = self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.lines().rev().find(|line| line.contains("error")).or(text.lines().last()).unwrap_or_default();
        format!("the control plane has ended ({status}): {last}\n  -> its whole log is {}", self.log.display())
    }

    /// Ends it in order.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}
