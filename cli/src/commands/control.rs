//! `weir control`: the control plane in the foreground.

use std::io::{self, IsTerminal, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use weir_server::{AuthorityFiles, Config, IdentityOptions, Server, Storage, Tls};

use crate::commands::wait::duration;

use crate::failure::{Failure, Outcome, USAGE};
use crate::output::color;

/// Longest token read from standard input, in bytes.
const MAX_INPUT: u64 = 4096;

/// Arguments of `weir control`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir control                                   on the defaults; the first start prints an administrator's token
  weir control --data /var/lib/weir --log-json
  weir control --insecure-loopback               no token for programs on this machine: for trying things out
  weir control --api 0.0.0.0:15000 --xds 0.0.0.0:15010 --tls --tls-name weir.example
  pass weir/admin | weir control --admin-token-stdin

The first token is printed once to standard output and stored only as a hash; `weir login` remembers it for the other
commands. Under systemd, where the output is a log, it must be chosen: WEIR_ADMIN_TOKEN or --admin-token-stdin.
It stops on SIGTERM and SIGINT; proxies serve on meanwhile with what they have.")]
pub struct Args {
    /// Folder for the database and the instances' files; made if it is not there.
    #[arg(long, default_value = "weir-data", value_name = "DIR", env = "WEIR_DATA")]
    data: PathBuf,
    /// Where the HTTP API listens.
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "ADDR:PORT")]
    api: SocketAddr,
    /// Where xDS and the control stream of the proxies listen.
    #[arg(long, default_value = "127.0.0.1:15010", value_name = "ADDR:PORT")]
    xds: SocketAddr,
    /// The administrator's token, to choose it oneself; it replaces the one before.
    #[arg(long, env = "WEIR_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    admin_token: Option<String>,
    /// Read the administrator's token from standard input.
    #[arg(long, conflicts_with = "admin_token")]
    admin_token_stdin: bool,
    /// Let programs on this machine do everything without a token. For trying things out only.
    #[arg(long)]
    insecure_loopback: bool,
    /// Run no instances on this machine; Workloads stay as they are.
    #[arg(long)]
    no_instances: bool,
    /// Told to stop, stop the instances of this machine as well; otherwise they run on, and the next start finds them.
    #[arg(long)]
    stop_instances: bool,
    /// First part of the identities in certificates: `spiffe://DOMAIN/app/APP/unit/UNIT`.
    #[arg(long, default_value = "weir", value_name = "DOMAIN")]
    trust_domain: String,
    /// How long certificates of proxies live; each is replaced at half of it.
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = duration)]
    cert_ttl: std::time::Duration,
    /// Certificate of your own authority (PEM; the one that signs first, its root last). Without it one is made in memory.
    #[arg(long, requires = "ca_key", value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// Its key (PEM, PKCS #8); read, never written.
    #[arg(long, requires = "ca_cert", value_name = "FILE")]
    ca_key: Option<PathBuf>,
    /// TLS on both ports, with a certificate of the mesh's authority; proxies elsewhere than on this machine then get theirs.
    #[arg(long)]
    tls: bool,
    /// A further name or address by which the ports are reached, for that certificate; may be repeated.
    #[arg(long = "tls-name", value_name = "NAME", requires = "tls")]
    tls_names: Vec<String>,
    /// TLS on both ports with your own certificate (PEM, with what is between it and its root). Read again when it changes.
    #[arg(long, requires = "tls_key", conflicts_with = "tls", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM); read, never written.
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Keep everything in memory; it is gone at the end.
    #[arg(long)]
    in_memory: bool,
    /// Write the log as JSON, one object a line.
    #[arg(long)]
    log_json: bool,
    /// What to log, e.g. `debug` or `weir_xds=debug,info`.
    #[arg(long, env = "WEIR_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

/// Runs the control plane until it is told to stop.
pub fn main(args: Args) -> Outcome {
    start_log(&args)?;
    let config = config(args)?;
    keep_memory_private();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

fn start_log(args: &Args) -> Result<(), Failure> {
    let bad = |error| Failure::new(format!("--log {:?}: {error}", args.log)).code(USAGE);
    let filter = EnvFilter::try_new(&args.log).map_err(bad)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if args.log_json {
        log.json().init();
    } else {
        log.with_ansi(color::stderr().on()).init();
    }
    Ok(())
}

/// There will be private keys in memory: no core dump, and no debugger of the same user, shall read them.
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a core dump of this process would hold private keys");
    }
}

fn config(args: Args) -> Result<Config, Failure> {
    let supervisor = if args.no_instances { None } else { Some(std::env::current_exe()?) };
    let admin_token =
        if args.admin_token_stdin { Some(from_stdin()?) } else { args.admin_token.map(|t| t.trim().to_owned()) };
    Ok(Config {
        data: args.data,
        api: args.api,
        xds: args.xds,
        storage: if args.in_memory { Storage::Memory } else { Storage::Sqlite },
        admin_token,
        may_mint_admin: !output_is_a_log(),
        insecure_loopback: args.insecure_loopback,
        supervisor,
        stop_instances: args.stop_instances,
        identity: IdentityOptions {
            trust_domain: args.trust_domain,
            leaf_ttl: args.cert_ttl,
            ..IdentityOptions::default()
        },
        tls: match (args.tls, args.tls_cert, args.tls_key) {
            (true, ..) => Tls::Authority { names: args.tls_names },
            (false, Some(certificate), Some(key)) => Tls::Files { certificate, key },
            _ => Tls::Off,
        },
        authority: args.ca_cert.zip(args.ca_key).map(|(certificates, key)| AuthorityFiles { certificates, key }),
    })
}

/// Under a service manager standard output is a log, and no log shall hold a token.
fn output_is_a_log() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some() && !io::stdout().is_terminal()
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin().take(MAX_INPUT).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

async fn serve(config: Config) -> Outcome {
    let insecure = config.insecure_loopback;
    if config.tls == Tls::Off && !(config.api.ip().is_loopback() && config.xds.ip().is_loopback()) {
        tracing::warn!(
            "it listens beyond this machine, and tokens travel there in the clear: use --tls, or a network you trust"
        );
    }
    let mut server = Server::start(config).await.map_err(|error| Failure::new(error.to_string()))?;
    greet(&server, insecure);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let broken = tokio::select! {
        broken = server.broken() => Some(broken),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    // A second signal does not wait for what is still open.
    tokio::select! {
        () = server.stop() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    match broken {
        Some(broken) => Err(Failure::new(broken)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Tells where it listens, and the token once: to the terminal, never to the log.
fn greet(server: &Server, insecure: bool) {
    let scheme = if server.trust().is_some() { "https" } else { "http" };
    println!("API      {scheme}://{}   (metrics at /metrics, document at /openapi.json)", server.api());
    println!("proxies  {scheme}://{}   (xDS and registration)", server.xds());
    if let Some(trust) = server.trust() {
        let file = trust.file.as_ref().map(|file| format!("{}, or ", file.display())).unwrap_or_default();
        println!("trust    {file}{}   (--ca of weir, --control-ca of proxies)", trust.fingerprint);
    }
    if let Some(token) = server.first_admin_token() {
        println!("\nAdministrator's token, shown this once and kept only as a hash:\n\n    {token}\n");
        println!("Remember it on this machine:  weir login --server {scheme}://{}\n", server.api());
    }
    if insecure {
        println!("{}", color::stdout().yellow("Programs on this machine need no token (--insecure-loopback)."));
    }
}
