//! `weir up`: all of Weir on one machine, and with `--demo` a mesh on which an unattended change can be watched.
//!
//! It starts a control plane of its own (`weir control`), applies the demo's resources ([`mesh`]), waits until every
//! instance serves, sends a steady load through the edge ([`load`]), runs a good change and then a bad one and tells
//! what happens ([`drive`], [`screen`]), and reports ([`report`]). It is a client like any other: everything it does,
//! `weir apply` and `weir get` could do, and all it knows comes from the API and from what the load counts.
//!
//! Ctrl-C stops everything it started. If it is killed instead, the kernel tells the control plane and the load, which
//! do the same. If the control plane is killed as well, instances run on under their supervisors and serve; the next
//! `weir up` takes them over, and `weir up --down` stops them.

mod api;
mod children;
mod demo;
mod drive;
mod leftovers;
mod load;
mod mesh;
mod report;
mod screen;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use api::Api;
use children::Control;
use screen::Screen;

/// Arguments of `weir up`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  weir up --demo                                   watch a change without a person on a mesh of twenty instances
  weir up --demo-exit --report report.json         the same for a script: exits with 0 only if nothing was lost
  weir up --data ~/weir                            a control plane; then: weir run --app hello --port 8000 -- ...
  weir up --down                                   stop what an earlier run left when it was killed")]
pub struct Args {
    /// Start the demo mesh with live traffic, and change it.
    #[arg(long)]
    pub demo: bool,
    /// Like --demo, but stop everything and exit after the report: 0 if the good change lost nothing and the bad one
    /// was rolled back, otherwise 1.
    #[arg(long)]
    pub demo_exit: bool,
    /// Write the demo's report to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Requests per second of the demo's load.
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u32).range(20..=20_000), value_name = "N")]
    pub rate: u32,
    /// Instances of each app in each of the two units.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=50), value_name = "N")]
    pub replicas: u32,
    /// Folder for all data; what is there already is used.
    #[arg(long, default_value = "weir-data", value_name = "DIR", env = "WEIR_DATA")]
    pub data: PathBuf,
    /// Where the HTTP API listens.
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "ADDR:PORT")]
    pub api: SocketAddr,
    /// Where proxies reach the control plane.
    #[arg(long, default_value = "127.0.0.1:15010", value_name = "ADDR:PORT")]
    pub xds: SocketAddr,
    /// Stop the instances that an earlier run left in the data folder, and exit.
    #[arg(long, conflicts_with_all = ["demo", "demo_exit", "report"])]
    pub down: bool,
}

/// Runs it until interrupted, or until the demo has ended where that was asked for. Must be the only thread of the
/// process: children get a signal when the thread that started them ends.
pub fn main(args: Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(run(args)));
    ended.unwrap_or_else(|message| {
        eprintln!("weir up: {message}");
        ExitCode::FAILURE
    })
}

async fn run(mut args: Args) -> Result<ExitCode, String> {
    args.demo |= args.demo_exit;
    args.report.as_deref().map_or(Ok(()), refuse_unwritable)?;
    let mut screen = Screen::new();
    let instances = leftovers::Instances::of(&args.data);
    if args.down {
        refuse_served(&args.data)?;
        return down(&mut screen, &instances).await;
    }
    tell_leftovers(&mut screen, &instances)?;
    let mut control = Control::start(&args)?;
    let mut interrupts = Interrupts::new().map_err(|error| error.to_string())?;
    let api = Api::new(args.api, control.token())?;
    let work = work(&args, &mut screen, &api);
    let ended = tokio::select! {
        ended = work => ended,
        () = interrupts.next() => Ok(ExitCode::SUCCESS),
        reason = control.ends() => Err(reason),
    };
    screen.clear();
    let stopping = stop(&mut screen, control, &instances);
    tokio::select! {
        () = stopping => {}
        () = interrupts.next() => screen.line("interrupted again: `weir up --down` stops what still runs"),
    }
    ended
}

/// The demo, or a control plane for others to use.
async fn work(args: &Args, screen: &mut Screen, api: &Api) -> Result<ExitCode, String> {
    api.wait_until_ready().await?;
    screen.line(&format!("control plane   http://{}   data in {}", args.api, args.data.display()));
    if args.demo {
        return demo::run(args, screen, api).await;
    }
    screen.line(&format!(
        "\nWeir runs. Try:\n  export WEIR_SERVER=http://{} WEIR_TOKEN={}\n  weir check\n  \
         weir run --control http://{} --app hello --port 8000 -- python3 -m http.server 8000 --bind 127.0.0.1\n  \
         weir get instances\nCtrl-C stops it.",
        args.api,
        api.token(),
        args.xds,
    ));
    std::future::pending().await
}

/// Before the demo runs for minutes, not after.
fn refuse_unwritable(report: &Path) -> Result<(), String> {
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(report);
    opened.map(drop).map_err(|error| format!("--report {}: {error}", report.display()))
}

/// A control plane that runs would start again what is stopped here.
fn refuse_served(data: &Path) -> Result<(), String> {
    let served = weir_server::served_by(data).map_err(|error| format!("{}: {error}", data.display()))?;
    served.map_or(Ok(()), |holder| {
        let folder = data.display();
        Err(format!(
            "{holder} serves from {folder} and would start them again: end it first, Ctrl-C stops them in order"
        ))
    })
}

async fn down(screen: &mut Screen, instances: &leftovers::Instances) -> Result<ExitCode, String> {
    let stopped = instances.stop_all().await;
    screen.line(&format!("{stopped} instances of {} were stopped", instances.folder().display()));
    Ok(ExitCode::SUCCESS)
}

fn tell_leftovers(screen: &mut Screen, instances: &leftovers::Instances) -> Result<(), String> {
    let running = instances.running().map_err(|error| format!("{}: {error}", instances.folder().display()))?.len();
    if running > 0 {
        screen.line(&format!("{running} instances run on from an earlier start: the control plane takes them over"));
    }
    Ok(())
}

/// The control plane stops the instances before itself, so that callers can be told; if it is dead, we do.
async fn stop(screen: &mut Screen, control: Control, instances: &leftovers::Instances) {
    screen.line("stopping: instances, then the control plane");
    control.stop().await;
    instances.stop_all().await;
    screen.line("stopped");
}

/// Ctrl-C and SIGTERM.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn new() -> io::Result<Interrupts> {
        Ok(Interrupts { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
