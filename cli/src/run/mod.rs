//! `weir run`: a program and its proxy under one supervisor.
//!
//! The supervisor owns the listening sockets and hands them to each proxy it starts, so connections that arrive while
//! one proxy replaces another wait in the kernel's backlog instead of being refused. It starts the program, waits until
//! its port accepts, then starts the proxy; it restarts a proxy that dies; it takes orders (`status`, `swap`, `drain`,
//! `stop`) on a unix socket, see `weir_instance::supervisor`. When it ends, the proxy leaves first: callers are told,
//! what is in flight finishes, then the program gets SIGTERM. Its exit code is the program's.
//!
//! Children never outlive it. After an orderly end they are gone; if it is killed itself, the kernel sends them SIGTERM
//! (`PR_SET_PDEATHSIG`, prctl(2)), and `children.json` in its folder lets a successor kill what ignores that.

mod admin;
pub mod args;
mod folder;
mod log;
mod orders;
mod program;
mod proxy;
mod sockets;
pub mod spawn;
mod supervisor;

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::context::Context;
use crate::output::color;

pub use args::Args;

impl Args {
    /// Takes from the remembered login what was not given.
    fn know(&mut self, login: &Context) {
        self.token = self.token.take().or_else(|| login.token_for_host(&self.control));
        self.control_ca = self.control_ca.take().or_else(|| login.ca_for_host(&self.control));
    }
}

/// Runs the supervisor until its program ends or it is told to stop. Must be the only thread of the process: children
/// get a signal when the thread that started them ends.
pub fn main(mut args: Args) -> ExitCode {
    // A variable that is set to nothing says nothing.
    args.token = args.token.filter(|token| !token.trim().is_empty());
    if args.token.is_none() || args.control_ca.is_none() {
        match Context::load() {
            Ok(login) => args.know(&login),
            Err(failure) => eprintln!("weir run: the remembered login is of no use: {failure}"),
        }
    }
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let _ = log.with_ansi(color::stderr().on()).try_init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(|e| e.to_string()).and_then(|runtime| runtime.block_on(supervisor::run(args)));
    ended.unwrap_or_else(|message| {
        eprintln!("weir run: {message}");
        ExitCode::FAILURE
    })
}
