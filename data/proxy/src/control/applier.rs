//! Between what the control plane sends and what the proxy serves: the gate of the start-up self-check.
//!
//! ```text
//! ## Checking => (Checking | Serving)   a configuration came, or it is time to check again
//! ## Serving  => Serving                every configuration is put into force at once
//! ```
//!
//! While checking, configurations are taken but nothing is accepted; the newest waits for the checks to pass.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use weir_client::registration::{SelfCheck, TlsState};
use weir_client::xds::{ApplyError as Refusal, Sink};
use weir_config::ProxyConfig;

use crate::selfcheck::{self, Expectations};
use crate::{ApplyError, CertificateInfo, Proxy, Readiness, Snapshot};

/// A failed self-check is repeated after this.
const CHECK_AGAIN: Duration = Duration::from_secs(2);

type Outcome = Result<(), Refusal>;

/// A configuration and where to tell that it is in force.
struct Job {
    snapshot: Arc<Snapshot>,
    done: oneshot::Sender<Outcome>,
}

/// The end that the xDS client writes to.
pub(super) struct ProxySink {
    proxy: Proxy,
    jobs: mpsc::Sender<Job>,
    log_requests: bool,
}

impl Sink for ProxySink {
    async fn apply(&mut self, mut config: ProxyConfig) -> Outcome {
        for listener in &mut config.listeners {
            listener.access_log |= self.log_requests;
        }
        let snapshot = Snapshot::compile(config).map_err(|error| rejected(error.to_string()))?;
        let (done, outcome) = oneshot::channel();
        self.jobs.send(Job { snapshot, done }).await.map_err(|_| Refusal::Stopping)?;
        outcome.await.map_err(|_| Refusal::Stopping)?
    }

    fn rejected(&mut self, _message: &str) {
        self.proxy.note_config_rejected();
    }
}

fn rejected(message: String) -> Refusal {
    Refusal::Rejected { message, listeners: Vec::new() }
}

/// What came of the configurations that were put into force.
pub(super) struct Observed {
    /// The latest self-check, once there is one.
    pub(super) checks: watch::Receiver<Option<SelfCheck>>,
    /// The certificate that the inbound listener answers TLS with, once there is one.
    pub(super) tls: watch::Receiver<Option<TlsState>>,
}

/// Starts the applier. `log_requests`: every listener writes the access log.
pub(super) fn spawn(proxy: Proxy, expected: Expectations, log_requests: bool) -> (ProxySink, Observed) {
    let (jobs, queue) = mpsc::channel(1);
    let (report, checks) = watch::channel(None);
    let (tls_state, tls) = watch::channel(None);
    let applier = Applier {
        proxy: proxy.clone(),
        expected,
        queue,
        report,
        tls: TlsInUse::new(tls_state),
        state: State::Checking(None),
    };
    tokio::spawn(applier.run());
    (ProxySink { proxy, jobs, log_requests }, Observed { checks, tls })
}

enum State {
    /// No traffic; the newest configuration, if one came.
    Checking(Option<Arc<Snapshot>>),
    Serving,
}

struct Applier {
    proxy: Proxy,
    expected: Expectations,
    queue: mpsc::Receiver<Job>,
    report: watch::Sender<Option<SelfCheck>>,
    tls: TlsInUse,
    state: State,
}

impl Applier {
    async fn run(mut self) {
        loop {
            let is_repeating = matches!(self.state, State::Checking(Some(_)));
            tokio::select! {
                job = self.queue.recv() => match job {
                    Some(job) => self.job(job).await,
                    None => return,
                },
                () = tokio::time::sleep(CHECK_AGAIN), if is_repeating => self.check_again().await,
            }
        }
    }

    async fn job(&mut self, job: Job) {
        let outcome = match self.state {
            State::Checking(_) => self.check(job.snapshot).await,
            State::Serving => self.switch(job.snapshot).await,
        };
        // The client may have gone meanwhile; then nobody waits for the answer.
        let _ = job.done.send(outcome);
    }

    async fn check_again(&mut self) {
        if let State::Checking(Some(snapshot)) = &self.state {
            let snapshot = snapshot.clone();
            if let Err(refusal) = self.check(snapshot).await {
                tracing::warn!(%refusal, "the configuration cannot be put into force");
            }
        }
    }

    /// ## Checking => (Checking | Serving)
    async fn check(&mut self, snapshot: Arc<Snapshot>) -> Outcome {
        let report = selfcheck::run(&self.proxy, snapshot.config(), &self.expected).await;
        if !report.passed {
            let failures = selfcheck::failures(&report);
            tracing::error!(%failures, "the self-check failed: no traffic is taken");
            self.proxy.set_readiness(Readiness::Failed(failures));
            self.state = State::Checking(Some(snapshot));
            self.report.send_replace(Some(report));
            return Ok(());
        }
        self.switch(snapshot).await?;
        tracing::info!(checks = report.checks.len(), "the self-check passed: serving");
        self.state = State::Serving;
        self.proxy.set_readiness(Readiness::Ready);
        self.report.send_replace(Some(report));
        Ok(())
    }

    async fn switch(&mut self, snapshot: Arc<Snapshot>) -> Outcome {
        let certificate = snapshot.inbound_certificate().cloned();
        self.proxy.apply(snapshot).await.map(|_| self.tls.note(certificate)).map_err(|error| {
            let ApplyError::Bind(failures) = &error;
            let listeners = failures.iter().map(|failure| failure.listener.clone()).collect();
            Refusal::Rejected { message: error.to_string(), listeners }
        })
    }
}

/// The certificate in use, as the control plane is told of it: every worker answers with it.
struct TlsInUse {
    state: watch::Sender<Option<TlsState>>,
    fingerprint: String,
    generation: u64,
}

impl TlsInUse {
    fn new(state: watch::Sender<Option<TlsState>>) -> Self {
        TlsInUse { state, fingerprint: String::new(), generation: 0 }
    }

    fn note(&mut self, certificate: Option<CertificateInfo>) {
        let Some(certificate) = certificate.filter(|certificate| certificate.fingerprint != self.fingerprint) else {
            return;
        };
        self.generation += 1;
        self.fingerprint = certificate.fingerprint;
        tracing::info!(identity = %certificate.identity, generation = self.generation, "a certificate is in use");
        self.state.send_replace(Some(TlsState {
            generation: self.generation,
            identity: certificate.identity,
            not_after_unix_s: certificate.not_after_unix_s,
        }));
    }
}
