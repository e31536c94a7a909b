//! A steady load: requests leave when they are due, whether or not the ones before have been answered.
//!
//! Such an open loop shows what users would see: while something is slow, requests pile up and their latencies count
//! from the moment at which they were due.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::client::Client;
use crate::stats::{Line, Stats};

/// A steady load.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where requests go, in turn; may be repeated.
    #[arg(long = "to", value_name = "ADDR:PORT", required = true)]
    to: Vec<SocketAddr>,
    /// Host header.
    #[arg(long, default_value = "front")]
    host: String,
    /// Path.
    #[arg(long, default_value = "/")]
    path: String,
    /// Requests per second.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Stop after so many seconds; without it: at SIGTERM or SIGINT.
    #[arg(long)]
    seconds: Option<u64>,
    /// Longest wait for an answer, seconds.
    #[arg(long, default_value_t = 15)]
    timeout: u64,
    /// Requests in flight beyond which new ones fail with `overload`.
    #[arg(long, default_value_t = 5000)]
    max_in_flight: u64,
    /// Write the lines to this file rather than to standard output.
    #[arg(long)]
    output: Option<PathBuf>,
}

struct Load {
    clients: Vec<Client>,
    path: String,
    max_in_flight: u64,
    stats: Mutex<Stats>,
}

/// Sends until told to stop, writes a JSON line each second and a last one when all is answered.
pub async fn run(args: Args) -> io::Result<()> {
    let mut output: Box<dyn Write> = match &args.output {
        Some(path) => Box::new(File::create(path)?),
        None => Box::new(io::stdout()),
    };
    let timeout = Duration::from_secs(args.timeout);
    let clients = args.to.iter().map(|to| Client::new(*to, args.host.clone(), timeout)).collect();
    let load = Arc::new(Load { clients, path: args.path, max_in_flight: args.max_in_flight, stats: Mutex::default() });
    let begin = Instant::now();
    send(&load, args.rate, args.seconds, begin, &mut output).await?;
    let deadline = Instant::now() + timeout;
    while load.lock().in_flight() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let last = load.lock().line(begin.elapsed().as_secs(), true);
    write(&mut output, &last)
}

async fn send(
    load: &Arc<Load>,
    rate: u32,
    seconds: Option<u64>,
    begin: Instant,
    output: &mut Box<dyn Write>,
) -> io::Result<()> {
    let mut due = interval(Duration::from_secs(1) / rate);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut second = tokio::time::interval_at(begin + Duration::from_secs(1), Duration::from_secs(1));
    let mut terminated = signal(SignalKind::terminate())?;
    let mut number = 0;
    loop {
        tokio::select! {
            biased;
            _ = terminated.recv() => return Ok(()),
            interrupted = tokio::signal::ctrl_c() => return interrupted,
            _ = second.tick() => {
                let elapsed = begin.elapsed().as_secs();
                let line = load.lock().line(elapsed, false);
                write(output, &line)?;
                if seconds.is_some_and(|seconds| elapsed >= seconds) {
                    return Ok(());
                }
            }
            at = due.tick() => {
                tokio::spawn(load.clone().request(number, at));
                number += 1;
            }
        }
    }
}

impl Load {
    async fn request(self: Arc<Self>, number: usize, due: Instant) {
        {
            let mut stats = self.lock();
            stats.sent();
            if stats.in_flight() > self.max_in_flight {
                return stats.failed("overload");
            }
        }
        let client = &self.clients[number % self.clients.len()];
        let result = client.get(&self.path, None).await;
        let micros = due.elapsed().as_micros() as u64;
        match result {
            Ok(answer) => self.lock().answered(answer.response.status, answer.repeated, micros),
            Err(failure) => self.lock().failed(failure.word()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(output: &mut Box<dyn Write>, line: &Line) -> io::Result<()> {
    writeln!(output, "{}", serde_json::to_string(line)?)?;
    output.flush()
}
