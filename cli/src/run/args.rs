//! The command line of `weir run`, and what follows from it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_instance::Artifact;
use weir_model::validate::Validator;

/// Of the time to finish, this is left for the proxy to end.
pub const LAST_STEPS: Duration = Duration::from_secs(3);

/// Arguments of `weir run`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  weir run --app stock --port 9001 -- python3 -m http.server 9001 --bind 127.0.0.1
  weir run --app orders --unit east --port 8000 --upstream stock=127.0.0.1:15001 -- ./my-program
  weir run --app edge --upstream front=127.0.0.1:8080      only a proxy: a way in from outside

The program finds in its environment: PORT, WEIR_APP, WEIR_INSTANCE, and WEIR_UPSTREAM_<APP> with the URL of each
upstream. It must listen on 127.0.0.1 at --port. The exit code is the program's.")]
pub struct Args {
    /// The app that the program is a copy of.
    #[arg(long)]
    pub app: String,
    /// Deployment unit.
    #[arg(long, default_value = "default")]
    pub unit: String,
    /// Zone within the unit.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub zone: String,
    /// Group of instances within the app.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub group: String,
    /// What the program is built on, e.g. java or python.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub stack: String,
    /// Version of the program, for others to see.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub app_version: String,
    /// What the program speaks: http1, http2, grpc, bolt, dubbo or tcp.
    #[arg(long, default_value = "http1", value_parser = ["http1", "http2", "grpc", "bolt", "dubbo", "tcp"], hide_possible_values = true)]
    pub protocol: String,
    /// A label of the instance, for selectors; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// Port on 127.0.0.1 at which the program listens.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub port: u16,
    /// Address at which the program listens, where its Instance says so.
    #[arg(long, default_value = "127.0.0.1", hide = true)]
    pub app_address: IpAddr,
    /// Where callers reach the proxy; port 0: any free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR:PORT")]
    pub inbound: SocketAddr,
    /// An app that the program calls, and the local address at which the proxy offers it; may be repeated.
    #[arg(long = "upstream", value_name = "APP=ADDR:PORT", value_parser = parse_upstream)]
    pub upstreams: Vec<(String, SocketAddr)>,
    /// The control plane.
    #[arg(long, env = "WEIR_CONTROL", default_value = "http://127.0.0.1:15010", value_name = "URL")]
    pub control: String,
    /// By whom a control plane at https:// is known: a PEM file, or sha256:HEX as `weir control` prints it [default: that of
    /// `weir login`].
    #[arg(long, env = "WEIR_CONTROL_CA", value_name = "FILE|FINGERPRINT")]
    pub control_ca: Option<String>,
    /// Token with which the proxy joins [default: that of `weir login`].
    #[arg(long, env = "WEIR_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// The proxy program [default: weir-proxy beside this program, or in PATH].
    #[arg(long, value_name = "PATH", conflicts_with = "proxy_release")]
    pub proxy: Option<PathBuf>,
    /// The proxy's release as JSON: {"version", "path", "sha256", "args", "env"}.
    #[arg(long, value_name = "JSON", value_parser = parse_release, hide = true)]
    pub proxy_release: Option<Artifact>,
    /// Name of this instance, unique in the mesh [default: made up].
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Folder for the supervisor's socket and pid file [default: one of its own below the temporary folder].
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// How long the proxy may take when it is replaced or stopped, seconds: to tell callers, then to finish requests
    /// [default: as long as the longest requests of its apps may take, see drainMs of the App; 45 at least].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub drain_seconds: Option<u64>,
    /// The proxy exports spans by OTLP (gRPC) to this collector, e.g. http://127.0.0.1:4317.
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
    /// Share of traces begun here that are exported, 0 to 1 [default: 0.01]; a caller's own decision is kept.
    #[arg(long, value_name = "SHARE", requires = "otlp")]
    pub otlp_ratio: Option<f64>,
    /// The proxy appends one JSON line per request to this file.
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// The program and its arguments; none: only a proxy.
    #[arg(last = true)]
    pub program: Vec<String>,
}

fn parse_upstream(text: &str) -> Result<(String, SocketAddr), String> {
    let (app, listen) = text.split_once('=').ok_or("use APP=ADDR:PORT, e.g. stock=127.0.0.1:15001")?;
    let listen = listen.parse().map_err(|_| format!("`{listen}` is not ADDR:PORT, e.g. 127.0.0.1:15001"))?;
    if app.is_empty() { Err("the app before = is empty".to_owned()) } else { Ok((app.to_owned(), listen)) }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("use KEY=VALUE, e.g. team=pay".to_owned()),
    }
}

fn parse_release(text: &str) -> Result<Artifact, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl Args {
    /// Names what was left open, and refuses what makes no sense.
    pub fn complete(mut self) -> Result<Args, String> {
        if !self.program.is_empty() && self.port == 0 {
            return Err("--port is missing: on which port of 127.0.0.1 does the program listen?".into());
        }
        if self.program.is_empty() && self.port != 0 {
            return Err("--port is given, but no program: put it after --, e.g. -- ./my-program".into());
        }
        let mut rules = Validator::new();
        rules.name("--app", &self.app);
        self.instance.iter().for_each(|name| rules.name("--instance", name));
        for (flag, name) in [("--unit", &self.unit), ("--zone", &self.zone), ("--group", &self.group)] {
            if !name.is_empty() {
                rules.name(flag, name);
            }
        }
        rules.labels("--label", &self.labels.iter().cloned().collect());
        rules.finish().map_err(|invalid| invalid.to_string())?;
        if self.instance.is_none() {
            self.instance = Some(format!("{}-{}", self.app, made_up()));
        }
        Ok(self)
    }

    /// Name of the instance; known once [`Args::complete`].
    pub fn name(&self) -> &str {
        self.instance.as_deref().unwrap_or(&self.app)
    }

    /// The first proxy to run.
    pub fn first_proxy(&self) -> Result<Artifact, String> {
        if let Some(release) = &self.proxy_release {
            return Ok(release.clone());
        }
        let path = match &self.proxy {
            Some(path) => path.clone(),
            None => find("weir-proxy").ok_or("cannot find weir-proxy beside this program or in PATH: use --proxy")?,
        };
        let path = path.canonicalize().map_err(|error| format!("--proxy {}: {error}", path.display()))?;
        Ok(Artifact {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            path: path.display().to_string(),
            ..Artifact::default()
        })
    }

    /// Environment for the program.
    pub fn program_env(&self) -> Vec<(String, String)> {
        let fixed = [("PORT", self.port.to_string()), ("WEIR_APP", self.app.clone())];
        let mut env: Vec<_> = fixed.map(|(key, value)| (key.to_owned(), value)).into();
        env.push(("WEIR_INSTANCE".to_owned(), self.name().to_owned()));
        let upstream = |(app, listen): &(String, SocketAddr)| (upstream_variable(app), format!("http://{listen}"));
        env.extend(self.upstreams.iter().map(upstream));
        env
    }

    /// How long the proxy may wait for callers to learn that it leaves, and then finish requests, where that was said: in
    /// the proportion of its own defaults (12 and 30 s), with something left for it to end before it is killed.
    fn leaving(&self) -> Option<[Duration; 2]> {
        let all = Duration::from_secs(self.drain_seconds?);
        let usable = all - LAST_STEPS.min(all / 5);
        Some([usable * 2 / 7, usable * 5 / 7])
    }

    /// Arguments for a proxy that finds its callers at `inbound`.
    pub fn proxy_args(
        &self,
        artifact: &Artifact,
        inbound: SocketAddr,
        admin: SocketAddr,
        folder: &Path,
    ) -> Vec<String> {
        let mut args = Vec::new();
        let mut flag = |name: &str, value: String| {
            if !value.is_empty() {
                args.extend([format!("--{name}"), value]);
            }
        };
        flag("control", self.control.clone());
        flag("control-ca", self.control_ca.clone().unwrap_or_default());
        flag("instance", self.name().to_owned());
        flag("app", self.app.clone());
        flag("unit", self.unit.clone());
        flag("zone", self.zone.clone());
        flag("group", self.group.clone());
        flag("stack", self.stack.clone());
        flag("app-version", self.app_version.clone());
        flag("protocol", self.protocol.clone());
        flag("inbound", inbound.to_string());
        flag("app-port", self.port.to_string());
        flag("app-address", self.app_address.to_string());
        flag("release", artifact.version.clone());
        flag("admin", admin.to_string());
        flag("supervisor", folder.join(weir_instance::supervisor::SOCKET).display().to_string());
        let leaving = self.leaving().into_iter().flatten();
        for (name, time) in ["goodbye-timeout-ms", "drain-timeout-ms"].into_iter().zip(leaving) {
            if !artifact.args.iter().any(|arg| arg.trim_start_matches("--").split('=').next() == Some(name)) {
                flag(name, time.as_millis().to_string());
            }
        }
        flag("otlp", self.otlp.clone().unwrap_or_default());
        flag("otlp-ratio", self.otlp_ratio.map(|share| share.to_string()).unwrap_or_default());
        flag("access-log", self.access_log.as_ref().map(|path| path.display().to_string()).unwrap_or_default());
        for (app, listen) in &self.upstreams {
            flag("upstream", format!("{app}={listen}"));
        }
        for (key, value) in &self.labels {
            flag("label", format!("{key}={value}"));
        }
        args.extend(artifact.args.iter().cloned());
        args
    }
}

/// `WEIR_UPSTREAM_` and the app's name as shells like it.
fn upstream_variable(app: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("WEIR_UPSTREAM_{}", app.chars().map(letter).collect::<String>())
}

/// The program beside this one, or in PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(std::env::split_paths(&path).map(|dir| dir.join(name))).find(|path| path.is_file())
}

/// Six letters and digits that no other instance is likely to have.
fn made_up() -> String {
    let mut number = fastrand::u64(..);
    let mut digit = || {
        let digit = char::from_digit((number % 36) as u32, 36).unwrap_or('0');
        number /= 36;
        digit
    };
    (0..6).map(|_| digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Line::try_parse_from([&["run"], words].concat()).unwrap_or_else(|error| panic!("{error}")).args
    }

    #[test]
    fn the_program_learns_its_place() {
        let args = args(&["--app", "orders", "--port", "8000", "--upstream", "my-stock=127.0.0.1:15001", "--", "x"]);
        let env = args.complete().unwrap().program_env();
        assert!(env.contains(&("PORT".into(), "8000".into())));
        assert!(env.contains(&("WEIR_UPSTREAM_MY_STOCK".into(), "http://127.0.0.1:15001".into())));
    }

    #[test]
    fn a_program_without_a_port_is_refused_and_so_is_a_port_without_a_program() {
        assert!(args(&["--app", "a", "--", "x"]).complete().unwrap_err().contains("--port is missing"));
        assert!(args(&["--app", "a", "--port", "1"]).complete().unwrap_err().contains("no program"));
        assert!(args(&["--app", "edge"]).complete().is_ok());
    }

    #[test]
    fn names_are_checked_before_they_become_paths() {
        for wrong in ["../etc", "/tmp/x", "A", ""] {
            assert!(
                args(&["--app", "a", "--instance", wrong]).complete().unwrap_err().contains("--instance"),
                "{wrong}"
            );
            assert!(args(&["--app", wrong]).complete().unwrap_err().contains("--app"), "{wrong}");
        }
        assert!(args(&["--app", "a", "--instance", "a-1"]).complete().is_ok());
        assert!(args(&["--app", "a", "--unit", "East 1"]).complete().unwrap_err().contains("--unit"));
        assert!(Line::try_parse_from(["run", "--app", "a", "--protocol", "foo"]).is_err());
    }

    #[test]
    fn the_proxy_knows_how_long_it_may_take() {
        let any: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let flags = |seconds: &str, own: &[&str]| {
            let artifact = Artifact { args: own.iter().map(|arg| (*arg).to_owned()).collect(), ..Artifact::default() };
            let args = args(&["--app", "a", "--drain-seconds", seconds]).complete().unwrap();
            args.proxy_args(&artifact, any, any, Path::new("/f")).join(" ")
        };
        assert!(flags("45", &[]).contains("--goodbye-timeout-ms 12000 --drain-timeout-ms 30000"));
        assert!(flags("10", &[]).contains("--goodbye-timeout-ms 2285 --drain-timeout-ms 5714"));
        assert!(flags("0", &[]).contains("--drain-timeout-ms 0"));
        let unsaid = args(&["--app", "a"]).proxy_args(&Artifact::default(), any, any, Path::new("/f")).join(" ");
        assert!(!unsaid.contains("timeout-ms"), "it derives the time by itself: {unsaid}");
        let own = flags("45", &["--drain-timeout-ms=5"]);
        assert!(!own.contains("30000") && own.contains("12000"), "a release's own argument stands: {own}");
    }

    #[test]
    fn what_is_told_of_requests_goes_where_was_said() {
        let any: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let said = ["--app", "a", "--otlp", "http://127.0.0.1:4317", "--otlp-ratio", "1", "--access-log", "/var/log/a"];
        let flags = args(&said).proxy_args(&Artifact::default(), any, any, Path::new("/f")).join(" ");
        assert!(flags.contains("--otlp http://127.0.0.1:4317 --otlp-ratio 1 --access-log /var/log/a"), "{flags}");
        assert!(Line::try_parse_from(["run", "--app", "a", "--otlp-ratio", "1"]).is_err(), "a share of nothing");
    }

    #[test]
    fn a_release_brings_its_own_arguments_and_nothing_empty_is_passed() {
        let args = args(&["--app", "a"]).complete().unwrap();
        let artifact =
            Artifact { version: "C".into(), args: vec!["--drill".into(), "x".into()], ..Artifact::default() };
        let any: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let flags = args.proxy_args(&artifact, any, any, Path::new("/f")).join(" ");
        assert!(flags.ends_with("--drill x") && flags.contains("--release C"), "{flags}");
        assert!(!flags.contains("--zone"), "{flags}");
    }
}
