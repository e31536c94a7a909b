//! Control-plane mode: configuration by xDS, registration and health over the control stream.
//!
//! The life of a proxy here: connect; receive a complete configuration; check itself; only then accept traffic; register;
//! follow. When asked to stop: say goodbye and wait until callers know, drain, go. The control plane may vanish at any
//! point: what is served stays as it is, and both streams come back by themselves.

mod applier;
mod flags;
mod windows;

use std::collections::HashSet;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use weir_client::registration::{
    Hello, Parting, Registration, RegistrationOptions, SelfCheck, Upstream as UpstreamReport,
};
use weir_client::xds::{self, Node, XdsOptions, XdsStatus};
use weir_client::{Token, TokenError};

use crate::selfcheck::{self, Expectations};
use crate::{DrainOptions, DrainReport, Proxy, Readiness};
use applier::Observed;
pub use flags::{ControlFlags, Upstream};
use windows::Windows;

/// A listening socket of the proxy's own stays open for this long when it drains: a request which chose this instance just
/// before its caller learned better may still be connecting. Inherited sockets outlive the proxy and need no grace.
const OWN_SOCKET_GRACE: Duration = Duration::from_millis(500);

/// Why control-plane mode could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No address was given.
    #[error("--control, --instance and --app are needed to take the configuration from a control plane")]
    Incomplete,
    /// The token is unusable.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Runs a started proxy (with an [empty](crate::Snapshot::empty) configuration) from the control plane until `stop`
/// resolves and it has drained. Asked by [`Proxy::ask_to_leave`], it drains the same way before `stop`. `inherited` names the listeners whose sockets the parent process handed over.
///
/// # Errors
/// If the flags are incomplete or the token is unusable; nothing has begun then.
pub async fn run(
    proxy: Proxy,
    flags: ControlFlags,
    inherited: HashSet<String>,
    stop: impl Future<Output = ()>,
) -> Result<DrainReport, ControlError> {
    let identity = Identity::new(&proxy, &flags)?;
    let token = Token::load(flags.token_file.clone(), &flags.token_env)?;
    selfcheck::raise_descriptor_limit();
    let grace = if inherited.is_empty() { OWN_SOCKET_GRACE } else { Duration::ZERO };
    let (sink, Observed { checks, tls }) =
        applier::spawn(proxy.clone(), expectations(&flags, inherited), flags.log_requests);
    let (status, statuses) = watch::channel(XdsStatus::default());
    let options = XdsOptions {
        address: identity.address.clone(),
        token: token.clone(),
        trust: flags.control_ca.clone(),
        node: identity.node(),
        is_sotw: flags.xds_sotw,
    };
    let (address, trust) = (identity.address.clone(), flags.control_ca.clone());
    let following = tokio::spawn(xds::run(options, sink, status));
    let showing = tokio::spawn(show_waiting(proxy.clone(), identity.address.clone(), statuses, checks.clone()));
    let registration =
        tokio::spawn(register(proxy.clone(), identity, RegistrationOptions { address, token, trust, tls }, checks));
    let mut stop = pin!(stop);
    let asked = tokio::select! {
        () = &mut stop => false,
        () = proxy.asked_to_leave() => true,
    };
    let drain = DrainOptions { grace, deadline: proxy.drain_time(), ..Default::default() };
    let report = leave(&proxy, Duration::from_millis(flags.goodbye_timeout_ms), drain, registration).await;
    if asked {
        stop.await;
    }
    // Until here the configuration was followed: what the application still calls must stay right while it drains.
    following.abort();
    showing.abort();
    Ok(report)
}

/// Says goodbye, waits within bounds until callers know, and drains.
async fn leave(
    proxy: &Proxy,
    patience: Duration,
    drain: DrainOptions,
    registration: tokio::task::JoinHandle<Registration>,
) -> DrainReport {
    let registration = match registration.is_finished() {
        true => registration.await.ok(),
        false => {
            registration.abort();
            None
        }
    };
    if let Some(registration) = &registration {
        match registration.goodbye("stopping", patience).await {
            Parting::Unpublished(detail) => tracing::info!(%detail, "callers know: draining"),
            Parting::TimedOut(detail) => tracing::warn!(%detail, "callers may not know: draining all the same"),
        }
    }
    let report = proxy.drain(drain).await;
    if let Some(registration) = registration {
        registration.close().await;
    }
    report
}

fn expectations(flags: &ControlFlags, inherited: HashSet<String>) -> Expectations {
    Expectations {
        inherited,
        upstreams: flags.upstreams.iter().map(|upstream| (upstream.app.clone(), upstream.listen)).collect(),
        has_application: flags.inbound.is_some() && flags.app_port != 0,
    }
}

/// Tells by `/ready` what is awaited until the first self-check has run.
async fn show_waiting(
    proxy: Proxy,
    address: String,
    mut statuses: watch::Receiver<XdsStatus>,
    checks: watch::Receiver<Option<SelfCheck>>,
) {
    while checks.borrow().is_none() {
        let text = waiting(&address, &statuses.borrow_and_update());
        // Between the look at the checks and this line the state may have moved on: never overwrite a verdict.
        if matches!(proxy.readiness(), Readiness::Starting(_)) {
            proxy.set_readiness(Readiness::Starting(text));
        }
        if statuses.changed().await.is_err() {
            return;
        }
    }
}

fn waiting(address: &str, status: &XdsStatus) -> String {
    match status {
        XdsStatus { last_rejection, .. } if !last_rejection.is_empty() => {
            format!("the configuration from {address} was refused: {last_rejection}")
        }
        XdsStatus { is_connected: false, last_error, .. } if !last_error.is_empty() => {
            format!("no configuration from {address}: {last_error}; trying again")
        }
        XdsStatus { warming, .. } if !warming.is_empty() => {
            format!("waiting for what is needed by {}", warming.join(", "))
        }
        _ => format!("waiting for the configuration from {address}"),
    }
}

/// Registers once there is a self-check to tell of, and keeps the registration's hello in step with it.
async fn register(
    proxy: Proxy,
    identity: Identity,
    options: RegistrationOptions,
    mut checks: watch::Receiver<Option<SelfCheck>>,
) -> Registration {
    let first = loop {
        if let Some(report) = checks.borrow_and_update().clone() {
            break report;
        }
        if checks.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let (sender, hellos) = watch::channel(identity.hello(first));
    let mut windows = Windows::begin(proxy);
    let registration = Registration::spawn(options, hellos, move || windows.next());
    tokio::spawn(async move {
        while checks.changed().await.is_ok() {
            if let Some(report) = checks.borrow_and_update().clone() {
                let hello = identity.hello(report);
                sender.send_if_modified(|current| update_verdict(current, hello));
            }
        }
        // The applier has gone, and with it the xDS client; the registration lives on to say goodbye.
        sender.closed().await;
    });
    registration
}

/// Only another verdict is worth another hello: timings differ with each run of the checks.
fn update_verdict(current: &mut Hello, next: Hello) -> bool {
    let verdict = |hello: &Hello| hello.self_check.as_ref().map(selfcheck::failures);
    let changed = verdict(current) != verdict(&next);
    if changed {
        *current = next;
    }
    changed
}

/// Who this proxy is, from its flags.
struct Identity {
    address: String,
    flags: ControlFlags,
    instance: String,
    app: String,
    release: String,
    drill: String,
}

impl Identity {
    fn new(proxy: &Proxy, flags: &ControlFlags) -> Result<Self, ControlError> {
        let needed =
            |value: &Option<String>| value.clone().filter(|text| !text.is_empty()).ok_or(ControlError::Incomplete);
        Ok(Identity {
            address: needed(&flags.control)?,
            instance: needed(&flags.instance)?,
            app: needed(&flags.app)?,
            flags: flags.clone(),
            release: proxy.release().to_owned(),
            drill: proxy.drill().map(|drill| drill.to_string()).unwrap_or_default(),
        })
    }

    fn node(&self) -> Node {
        let flags = &self.flags;
        Node {
            instance: self.instance.clone(),
            app: self.app.clone(),
            unit: flags.unit.clone(),
            zone: flags.zone.clone(),
            inbound: flags.inbound,
            application: (flags.app_port != 0).then(|| SocketAddr::new(flags.app_address, flags.app_port)),
            upstreams: flags.upstreams.iter().map(|upstream| (upstream.app.clone(), upstream.listen)).collect(),
            intercept_inbound: flags.intercept_inbound,
            intercept_outbound: flags.intercept_outbound,
            version: self.release.clone(),
            tls: !flags.no_tls,
        }
    }

    fn hello(&self, self_check: SelfCheck) -> Hello {
        let flags = &self.flags;
        Hello {
            instance: self.instance.clone(),
            app: self.app.clone(),
            unit: flags.unit.clone(),
            zone: flags.zone.clone(),
            group: flags.group.clone(),
            tier: flags.tier,
            stack: flags.stack.clone(),
            // The registry wants an address of every instance; port 0 says that nobody is to call it.
            address: flags.inbound.map_or(Ipv4Addr::LOCALHOST.into(), |inbound| inbound.ip()).to_string(),
            port: flags.inbound.map_or(0, |inbound| inbound.port().into()),
            app_port: flags.app_port.into(),
            protocols: flags.protocols.clone(),
            upstreams: flags.upstreams.iter().map(upstream).collect(),
            proxy_version: self.release.clone(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            drill: self.drill.clone(),
            app_version: flags.app_version.clone(),
            pid: std::process::id(),
            self_check: Some(self_check),
            labels: flags.labels.iter().cloned().collect(),
            supervisor: flags.supervisor.clone(),
            tls_capable: !flags.no_tls,
            leaving: String::new(),
            admin: flags.admin.map(|admin| admin.to_string()).unwrap_or_default(),
            restarts: flags.restarts,
            tls: None,
        }
    }
}

fn upstream(upstream: &Upstream) -> UpstreamReport {
    UpstreamReport { app: upstream.app.clone(), listen: upstream.listen.to_string() }
}

#[cfg(test)]
mod tests;
