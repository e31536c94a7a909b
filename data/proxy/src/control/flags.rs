//! The command line of control-plane mode.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use weir_client::Trust;

/// Flags with which a proxy takes its configuration from a control plane instead of a file.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Control plane")]
pub struct ControlFlags {
    /// Address of the control plane, e.g. http://127.0.0.1:15010 [default: WEIR_CONTROL, unless there is --config]
    #[arg(long, value_name = "URL", requires_all = ["instance", "app"])]
    pub control: Option<String>,
    /// By whom a control plane at https:// is known: a PEM file, or sha256:HEX as `weir control` prints it
    #[arg(long, value_name = "FILE|FINGERPRINT", env = "WEIR_CONTROL_CA")]
    pub control_ca: Option<Trust>,
    /// Name of this instance; unique in the mesh
    #[arg(long, value_name = "NAME", env = "WEIR_INSTANCE")]
    pub instance: Option<String>,
    /// The app this instance belongs to
    #[arg(long, value_name = "APP")]
    pub app: Option<String>,
    /// Deployment unit
    #[arg(long, value_name = "UNIT", default_value = "default")]
    pub unit: String,
    /// Zone within the unit
    #[arg(long, value_name = "ZONE", default_value = "")]
    pub zone: String,
    /// Group of instances within the app, e.g. a gray group
    #[arg(long, value_name = "GROUP", default_value = "")]
    pub group: String,
    /// Tier: how much depends on it, 0 the least
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub tier: u32,
    /// Stack: what the app is built on, e.g. java or python
    #[arg(long, value_name = "STACK", default_value = "")]
    pub stack: String,
    /// Where callers reach this instance; without it nobody calls it, as with the edge of a mesh
    #[arg(long, value_name = "ADDR:PORT")]
    pub inbound: Option<SocketAddr>,
    /// Port of the application behind the proxy; 0: there is none
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub app_port: u16,
    /// Address at which the application listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub app_address: IpAddr,
    /// A service this app calls and the local address at which the proxy offers it; may be repeated
    #[arg(long = "upstream", value_name = "APP=ADDR:PORT")]
    pub upstreams: Vec<Upstream>,
    /// Where `weir-proxy intercept` turns connections from other hosts round to
    #[arg(long, value_name = "ADDR:PORT", requires = "inbound")]
    pub intercept_inbound: Option<SocketAddr>,
    /// Where `weir-proxy intercept` turns connections to other hosts round to
    #[arg(long, value_name = "ADDR:PORT")]
    pub intercept_outbound: Option<SocketAddr>,
    /// A protocol the app speaks: http1, http2, grpc, bolt, dubbo or tcp; may be repeated
    #[arg(long = "protocol", value_name = "PROTOCOL", default_value = "http1")]
    pub protocols: Vec<String>,
    /// Version of the application, for others to see
    #[arg(long, value_name = "VERSION", default_value = "")]
    pub app_version: String,
    /// A label of the instance; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// Environment variable that holds the token for the control plane
    #[arg(long, value_name = "VARIABLE", default_value = "WEIR_TOKEN")]
    pub token_env: String,
    /// File that holds the token for the control plane; wins over --token-env
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Neither take nor speak TLS, whatever the control plane wants: as a proxy that has no certificate
    #[arg(long)]
    pub no_tls: bool,
    /// Unix socket of the supervisor of this instance, for others to see
    #[arg(long, value_name = "SOCKET", default_value = "")]
    pub supervisor: String,
    /// Ask for the whole state of each resource type at each change, as control planes without delta xDS need
    #[arg(long)]
    pub xds_sotw: bool,
    /// On SIGTERM, wait at most this long for callers to learn that the instance leaves (milliseconds)
    #[arg(long, value_name = "MS", default_value_t = 12_000)]
    pub goodbye_timeout_ms: u64,
    /// On SIGTERM, finish requests for at most this long (milliseconds) [default: as the configuration says, or 30,000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=86_400_000))]
    pub drain_timeout_ms: Option<u64>,
    /// Export spans by OTLP (gRPC) to this collector, e.g. http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
    /// Log requests on every listener, whatever the control plane asks for; set where the user named an access log.
    #[arg(skip)]
    pub log_requests: bool,
    /// Where the admin endpoint is, for others to see.
    #[arg(skip)]
    pub admin: Option<SocketAddr>,
    /// Times the supervisor had to start the proxy again because it ended unasked; set by the supervisor
    #[arg(long, value_name = "N", env = "WEIR_PROXY_RESTARTS", default_value_t = 0, hide = true)]
    pub restarts: u32,
    /// Share of traces begun here that are exported, 0 to 1; a caller's own decision is kept
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub otlp_ratio: f64,
}

impl ControlFlags {
    /// With the environment's control plane (`WEIR_CONTROL`) unless the command line names one. Clap is not asked to do
    /// so: for it a variable that happens to be set would contradict a `--config` given by hand.
    pub fn or(mut self, environment: Option<String>) -> Self {
        self.control = self.control.or(environment.filter(|url| !url.is_empty()));
        self
    }
}

/// A service this app calls, and where the proxy offers it locally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Name of the app called.
    pub app: String,
    /// Local address of the outbound listener.
    pub listen: SocketAddr,
}

impl std::str::FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (app, listen) = text.split_once('=').ok_or("use APP=ADDR:PORT, e.g. stock=127.0.0.1:15001")?;
        let listen = listen.parse().map_err(|_| format!("`{listen}` is not ADDR:PORT, e.g. 127.0.0.1:15001"))?;
        if app.is_empty() {
            return Err("the app before = is empty".into());
        }
        Ok(Upstream { app: app.to_owned(), listen })
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("use KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        control: ControlFlags,
    }

    #[test]
    fn a_full_line_is_understood() {
        let line = Line::try_parse_from([
            "weir-proxy",
            "--control",
            "http://127.0.0.1:15010",
            "--instance",
            "order-1",
            "--app",
            "order",
            "--inbound",
            "127.0.0.2:8080",
            "--app-port",
            "9000",
            "--upstream",
            "stock=127.0.0.1:15001",
            "--label",
            "team=a",
        ]);
        let flags = line.unwrap_or_else(|error| panic!("{error}")).control;
        assert_eq!(flags.upstreams[0], Upstream { app: "stock".into(), listen: ([127, 0, 0, 1], 15001).into() });
        assert_eq!(flags.labels, [("team".to_owned(), "a".to_owned())]);
    }

    #[test]
    fn the_command_line_wins_over_the_environment() {
        let flags = |line: &[&str]| Line::try_parse_from([&["weir-proxy"], line].concat()).unwrap().control;
        let environment = || Some("http://127.0.0.1:2".to_owned());
        let given = ["--control", "http://127.0.0.1:1", "--instance", "i", "--app", "a"];
        assert_eq!(flags(&given).or(environment()).control.as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(flags(&[]).or(environment()).control, environment());
        assert_eq!(flags(&[]).or(Some(String::new())).control, None);
    }

    #[test]
    fn an_identity_is_required_with_a_control_plane() {
        assert!(Line::try_parse_from(["weir-proxy", "--control", "http://127.0.0.1:1"]).is_err());
        assert!(Line::try_parse_from(["weir-proxy"]).is_ok());
    }

    #[test]
    fn an_upstream_without_an_address_is_refused() {
        for wrong in ["stock", "stock=", "=127.0.0.1:1", "stock=localhost"] {
            assert!(wrong.parse::<Upstream>().is_err(), "{wrong}");
        }
    }
}
