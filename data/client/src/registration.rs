//! The control stream: who the proxy is, how it fares, and that it wants to leave.
//!
//! One task keeps the stream. Each stream begins with a [`Hello`]; then goes one [`Health`] window per second. If the
//! stream is lost, it is opened again with growing, jittered pauses; windows of the time between are not kept, since the
//! control plane judges by what is fresh. [`Registration::goodbye`] asks for the instance to be unpublished and waits,
//! within bounds, until callers know.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weir_proto::control::command::Command as CommandKind;
use weir_proto::control::proxy_control_client::ProxyControlClient;
use weir_proto::control::report::Report as ReportKind;
use weir_proto::control::{Command, Goodbye, Report};
use weir_trust::Trust;

pub use weir_proto::control::{
    Check, EndpointTraffic, Health, Hello, PeerConnections, SelfCheck, TlsState, Traffic, Upstream,
};

use crate::backoff::Backoff;
use crate::channel::{self, Authorized, Token};

/// Windows are sent this often.
const PERIOD: Duration = Duration::from_secs(1);
/// Reports not yet written; when the peer does not read, windows are dropped rather than kept.
const MAX_UNSENT: usize = 8;
/// An orderly end takes at most this long.
const CLOSING: Duration = Duration::from_secs(1);
/// Commands are small.
const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// How the control plane is reached.
#[derive(Debug, Clone)]
pub struct RegistrationOptions {
    /// `http://HOST:PORT`.
    pub address: String,
    /// Sent with every stream.
    pub token: Token,
    /// By whom an address that is `https` is known.
    pub trust: Option<Trust>,
    /// The certificate in use, as it changes; it is told with every hello, too.
    pub tls: watch::Receiver<Option<TlsState>>,
}

impl RegistrationOptions {
    async fn connect(&self) -> Result<Authorized, String> {
        channel::connect(&self.address, &self.token, self.trust.as_ref()).await
    }
}

/// How the stream fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrationStatus {
    /// The control plane has welcomed this proxy on the current stream.
    pub is_welcome: bool,
    /// Version of the control plane, once welcomed.
    pub control_plane_version: String,
    /// Why it is not welcome, or why the last stream ended.
    pub last_error: String,
}

/// What came of a goodbye.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parting {
    /// Callers know that the instance is gone; the control plane's words.
    Unpublished(String),
    /// The wait was over first; what was awaited, in words.
    TimedOut(String),
}

/// Handle of the task that keeps the stream; the task ends when this is dropped or [closed](Registration::close).
#[derive(Debug)]
pub struct Registration {
    task: JoinHandle<()>,
    leave: mpsc::Sender<Leave>,
    status: watch::Receiver<RegistrationStatus>,
}

/// The wish to leave, and where to tell that callers know.
#[derive(Debug)]
struct Leave {
    reason: String,
    /// `None` once it was told.
    told: Option<oneshot::Sender<String>>,
}

impl Registration {
    /// Starts. `hello` may change, which opens a new stream with the new one; `health` is asked once a second while
    /// there is a stream, and gives the window since it was last asked.
    pub fn spawn(
        options: RegistrationOptions,
        hello: watch::Receiver<Hello>,
        health: impl FnMut() -> Health + Send + 'static,
    ) -> Self {
        let (leave, leaving) = mpsc::channel(1);
        let (sender, status) = watch::channel(RegistrationStatus::default());
        let keeper =
            Keeper { options, hello, health, leaving, leave: None, status: sender, backoff: Backoff::default() };
        Registration { task: tokio::spawn(keeper.run()), leave, status }
    }

    /// How it goes; the receiver also tells of changes.
    pub fn status(&self) -> watch::Receiver<RegistrationStatus> {
        self.status.clone()
    }

    /// Asks to be unpublished and waits until callers know, or until `patience` is over. Every later stream begins with
    /// the goodbye again: who has left is not to be published a second time.
    pub async fn goodbye(&self, reason: &str, patience: Duration) -> Parting {
        let (told, heard) = oneshot::channel();
        let asked = self.leave.send(Leave { reason: reason.to_owned(), told: Some(told) });
        let answer = async {
            asked.await.ok()?;
            heard.await.ok()
        };
        match tokio::time::timeout(patience, answer).await {
            Ok(Some(detail)) => Parting::Unpublished(detail),
            Ok(None) => Parting::TimedOut("the control stream has ended".into()),
            Err(_) if self.status.borrow().is_welcome => Parting::TimedOut("callers have not all acknowledged".into()),
            Err(_) => Parting::TimedOut(format!("no control plane: {}", self.status.borrow().last_error)),
        }
    }

    /// Ends the stream in order, so that the control plane knows it for meant and not for a breakdown.
    pub async fn close(self) {
        drop(self.leave);
        // Whoever does not answer in time is left without.
        let _ = tokio::time::timeout(CLOSING, self.task).await;
    }
}

/// Begins the words of a refusal by the registry.
const REFUSED: &str = "refused: ";

struct Keeper<F> {
    options: RegistrationOptions,
    hello: watch::Receiver<Hello>,
    health: F,
    leaving: mpsc::Receiver<Leave>,
    leave: Option<Leave>,
    status: watch::Sender<RegistrationStatus>,
    backoff: Backoff,
}

/// Why a stream was left.
enum End {
    /// It broke, or the control plane refused.
    Lost(String),
    /// The hello has changed: open another at once.
    Changed,
    /// The handle is gone.
    Dropped,
}

/// What wakes the keeper.
enum Event {
    Tick,
    Command(Result<Option<Command>, tonic::Status>),
    Changed(bool),
    Leave(Option<Leave>),
    Tls,
}

impl<F: FnMut() -> Health + Send> Keeper<F> {
    async fn run(mut self) {
        loop {
            match self.stream().await {
                Ok(never) => match never {},
                Err(End::Dropped) => return,
                Err(End::Changed) => continue,
                Err(End::Lost(reason)) => self.lost(reason),
            }
            let pause = self.backoff.next(fastrand::f64());
            if self.pause(pause).await.is_err() {
                return;
            }
        }
    }

    fn lost(&self, reason: String) {
        let (address, again) = (&self.options.address, self.status.borrow().last_error == reason);
        match advice(&reason) {
            // Once, not with every try: what was refused is tried again until somebody has acted.
            Some(advice) if !again => tracing::error!(control_plane = %address, %reason, "refused: {advice}"),
            Some(_) => tracing::debug!(control_plane = %address, %reason, "refused again"),
            None => tracing::warn!(control_plane = %address, %reason, "no control stream"),
        }
        self.status.send_modify(|status| *status = RegistrationStatus { last_error: reason, ..Default::default() });
    }

    /// Waits, still hearing the wish to leave.
    async fn pause(&mut self, pause: Duration) -> Result<(), End> {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                leave = self.leaving.recv() => self.leave = Some(leave.ok_or(End::Dropped)?),
            }
        }
    }

    async fn stream(&mut self) -> Result<std::convert::Infallible, End> {
        let channel = self.options.connect().await.map_err(End::Lost)?;
        let mut client = ProxyControlClient::new(channel).max_decoding_message_size(MAX_COMMAND_BYTES);
        let (reports, unsent) = mpsc::channel(MAX_UNSENT);
        let mut hello = self.hello.borrow_and_update().clone();
        hello.tls = self.options.tls.borrow_and_update().clone();
        hello.leaving = self.leave.as_ref().map(|leave| leave.reason.clone()).unwrap_or_default();
        send(&reports, ReportKind::Hello(hello)).await?;
        self.say_goodbye(&reports).await?;
        let opened = client.open(ReceiverStream::new(unsent)).await;
        let mut commands = opened.map_err(|status| End::Lost(words(&status)))?.into_inner();
        let end = self.converse(&reports, &mut commands).await;
        if let Err(End::Dropped) = end {
            // What happened last, as when requests had to be cut, is told too.
            report(&reports, (self.health)());
            drop(reports);
            finish(&mut commands).await;
        }
        end
    }

    async fn converse(
        &mut self,
        reports: &mpsc::Sender<Report>,
        commands: &mut Streaming<Command>,
    ) -> Result<std::convert::Infallible, End> {
        let mut ticks = tokio::time::interval_at(Instant::now() + PERIOD, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let event = tokio::select! {
                _ = ticks.tick() => Event::Tick,
                command = commands.message() => Event::Command(command),
                changed = self.hello.changed() => Event::Changed(changed.is_ok()),
                leave = self.leaving.recv() => Event::Leave(leave),
                Ok(()) = self.options.tls.changed() => Event::Tls,
            };
            match event {
                Event::Tick => report(reports, (self.health)()),
                Event::Tls => self.tell_tls(reports).await?,
                Event::Command(Ok(Some(command))) => self.command(command)?,
                Event::Command(Ok(None)) => return Err(End::Lost("the control plane closed the stream".into())),
                Event::Command(Err(status)) => return Err(End::Lost(words(&status))),
                Event::Changed(true) => return Err(End::Changed),
                Event::Changed(false) | Event::Leave(None) => return Err(End::Dropped),
                Event::Leave(leave) => {
                    self.leave = leave;
                    self.say_goodbye(reports).await?;
                }
            }
        }
    }

    async fn tell_tls(&mut self, reports: &mpsc::Sender<Report>) -> Result<(), End> {
        let state = self.options.tls.borrow_and_update().clone();
        match state {
            Some(state) => send(reports, ReportKind::Tls(state)).await,
            None => Ok(()),
        }
    }

    async fn say_goodbye(&mut self, reports: &mpsc::Sender<Report>) -> Result<(), End> {
        match &self.leave {
            Some(leave) => send(reports, ReportKind::Goodbye(Goodbye { reason: leave.reason.clone() })).await,
            None => Ok(()),
        }
    }

    /// A command that this build does not know is skipped: a newer control plane may say more.
    fn command(&mut self, command: Command) -> Result<(), End> {
        match command.command {
            Some(CommandKind::Welcome(welcome)) => {
                self.backoff.reset();
                self.status.send_modify(|status| {
                    status.is_welcome = true;
                    status.control_plane_version = welcome.control_plane_version;
                    status.last_error.clear();
                });
            }
            Some(CommandKind::Unpublished(unpublished)) => {
                if let Some(told) = self.leave.as_mut().and_then(|leave| leave.told.take()) {
                    // Nobody listens if the patience was over first.
                    let _ = told.send(unpublished.detail);
                }
            }
            Some(CommandKind::Refused(refused)) => return Err(End::Lost(format!("{REFUSED}{}", refused.reason))),
            None => tracing::debug!("a command that this version does not know is ignored"),
        }
        Ok(())
    }
}

/// Waits, within bounds, for the other side to end the stream too.
async fn finish(commands: &mut Streaming<Command>) {
    let ended = async { while let Ok(Some(_)) = commands.message().await {} };
    // A control plane that keeps its side open is left so.
    let _ = tokio::time::timeout(CLOSING, ended).await;
}

async fn send(reports: &mpsc::Sender<Report>, report: ReportKind) -> Result<(), End> {
    let ended = |_| End::Lost("the stream takes no more reports".into());
    reports.send(Report { report: Some(report) }).await.map_err(ended)
}

/// A window that the stream has no room for is dropped: the next is fresher.
fn report(reports: &mpsc::Sender<Report>, health: Health) {
    if reports.try_send(Report { report: Some(ReportKind::Health(health)) }).is_err() {
        tracing::debug!("a health window is dropped: the control plane reads too slowly");
    }
}

/// What a person has to do, where trying again does not help by itself.
fn advice(reason: &str) -> Option<&'static str> {
    let denied = [tonic::Code::Unauthenticated, tonic::Code::PermissionDenied];
    if denied.iter().any(|code| reason.starts_with(code.description())) {
        return Some("the token does not let it join; make one by `weir token create NAME --role proxy`");
    }
    reason.starts_with(REFUSED).then_some("correct what it says of itself and start it again")
}

fn words(status: &tonic::Status) -> String {
    format!("{}: {}", status.code().description(), status.message())
}

#[cfg(test)]
mod tests;
