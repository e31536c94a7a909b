//! A control plane of its own for a story, and the CLI pointed at it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::wait::{LONG, eventually};
use crate::{Process, binary, http, net};

/// The first administrator's token; stories run on loopback and forget it.
const TOKEN: &str = "weir-story-admin-token-0123456789abcdef";

/// A running `weir control` on free addresses with a data folder of its own. Dropping it ends it and everything that
/// it started, instances included.
pub struct Weir {
    process: Process,
    folder: TempDir,
    flags: Vec<String>,
    api: SocketAddr,
    xds: SocketAddr,
}

/// What the CLI answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Exit code; 0 is success.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Weir {
    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// If it is not built or does not become ready, like all that stories are told with.
    pub fn start() -> Weir {
        Weir::start_with(&[])
    }

    /// The same with further flags of `weir control`.
    ///
    /// # Panics
    /// As [`Weir::start`].
    pub fn start_with(flags: &[&str]) -> Weir {
        Weir::start_at([net::free_address(), net::free_address()], flags)
    }

    /// The same on chosen addresses, of the API and of xDS.
    ///
    /// # Panics
    /// As [`Weir::start`].
    pub fn start_at([api, xds]: [SocketAddr; 2], flags: &[&str]) -> Weir {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut command = control(folder.path(), api, xds, &flags);
        let process = Process::spawn("weir control", &mut command);
        let mut weir = Weir { process, folder, flags, api, xds };
        weir.wait_ready();
        weir
    }

    /// Ends the control plane alone with SIGKILL; what it started runs on.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends the control plane alone with SIGTERM and waits for its end.
    ///
    /// # Panics
    /// If it does not end, or not with success.
    pub fn stop(&mut self) {
        self.process.terminate();
        let status = self.process.wait_exit(crate::LONG);
        assert!(status.success(), "weir control ended with {status}");
    }

    /// Starts it again on the same data and addresses after [`Weir::kill`] or [`Weir::stop`], and waits until ready.
    pub fn start_again(&mut self) {
        self.spawn_again();
        self.wait_ready();
    }

    /// The same without waiting, for stories that kill it while it starts.
    pub fn spawn_again(&mut self) {
        let mut command = control(self.folder.path(), self.api, self.xds, &self.flags);
        self.process.spawn_again(&mut command);
    }

    fn wait_ready(&mut self) {
        if !self.is_tls() {
            self.process.wait_http(self.api, "/readyz");
            return;
        }
        eventually("the control plane answers over TLS", LONG, || {
            let ended = self.process.exited();
            assert!(ended.is_none(), "the control plane ended: {ended:?}");
            let answer = self.cli(&["get", "apps"]);
            if answer.code == 0 { Ok(()) } else { Err(answer.stderr) }
        });
    }

    fn is_tls(&self) -> bool {
        self.flags.iter().any(|flag| flag == "--tls" || flag == "--tls-cert")
    }

    fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }

    /// Certificates that verify its ports when they are TLS.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("control-ca.pem")
    }

    /// The control plane's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        self.folder.path()
    }

    /// Where the HTTP API listens.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where xDS and the control stream listen.
    pub fn xds(&self) -> SocketAddr {
        self.xds
    }

    /// URL at which proxies reach it.
    pub fn control(&self) -> String {
        format!("{}://{}", self.scheme(), self.xds)
    }

    /// The administrator's token.
    pub fn token(&self) -> &'static str {
        TOKEN
    }

    /// The `weir` command with server and token set, for what [`Weir::cli`] does not cover, e.g. `weir run`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("weir"));
        command.args(arguments).envs(self.environment()).stdin(Stdio::null());
        command
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let folder = self.folder.path().display().to_string();
        let ca = |name| self.is_tls().then(|| (name, self.ca_file().display().to_string()));
        let always = [
            ("WEIR_SERVER", format!("{}://{}", self.scheme(), self.api)),
            ("WEIR_TOKEN", TOKEN.to_owned()),
            // A login of the person who runs the tests must not be found.
            ("HOME", folder.clone()),
            // What a killed program leaves behind goes with the data folder.
            ("TMPDIR", folder),
        ];
        always.into_iter().chain(ca("WEIR_CA")).chain(ca("WEIR_CONTROL_CA")).collect()
    }

    /// Runs `weir ARGUMENTS` to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn cli(&self, arguments: &[&str]) -> Answer {
        let output = self.command(arguments).output().expect("the weir command starts");
        Answer {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it and gives what it printed.
    ///
    /// # Panics
    /// If it does not succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let answer = self.cli(arguments);
        assert!(answer.code == 0, "weir {}: {answer:?}", arguments.join(" "));
        answer.stdout
    }

    /// `weir apply -f` of these resources.
    ///
    /// # Panics
    /// If they are refused.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> String {
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        std::fs::write(file.path(), yaml).expect("a temporary file can be written");
        self.ok(&["apply", "-f", &file.path().to_string_lossy()])
    }

    /// `GET` of an API path with the token.
    ///
    /// # Errors
    /// As [`http::get`].
    pub fn get(&self, path: &str) -> std::io::Result<http::Response> {
        let bearer = format!("Bearer {TOKEN}");
        http::send(self.api, "GET", path, &[("Authorization", &bearer)], b"")
    }
}

fn control(data: &Path, api: SocketAddr, xds: SocketAddr, flags: &[String]) -> Command {
    let mut command = Command::new(binary("weir"));
    command.arg("control").arg("--data").arg(data);
    command.args(["--api", &api.to_string(), "--xds", &xds.to_string()]);
    command.args(flags).env("WEIR_ADMIN_TOKEN", TOKEN);
    command
}
