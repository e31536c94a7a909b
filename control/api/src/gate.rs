//! Who is it, and may it do that: every request passes here before its handler.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use weir_model::Kind;
use weir_model::token::TokenRole;

use crate::error::{ApiError, Result};
use crate::login::Login;
use crate::shared::Shared;

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing.
    Open,
    /// Any login.
    Known,
    /// To read: viewers and administrators.
    Read,
    /// To write: administrators.
    Write,
}

/// The peer's address; the server puts it on every request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub SocketAddr);

/// One route's gate.
#[derive(Clone)]
pub(crate) struct Gate {
    pub shared: Arc<Shared>,
    pub access: Access,
    pub route: &'static str,
}

/// Lets the request through with its [`Login`], or refuses it; counts it either way.
pub(crate) async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let (start, method) = (Instant::now(), request.method().clone());
    let peer = request.extensions().get::<Peer>().copied();
    let ask = Ask { access: gate.access, method: method.clone(), path: request.uri().path().to_owned() };
    let response = match admit(&gate, &ask, request.headers(), peer).await {
        Ok(login) => {
            request.extensions_mut().insert(login);
            next.run(request).await
        }
        Err(refusal) => refuse(refusal),
    };
    gate.shared.metrics.request(method.as_str(), gate.route, response.status().as_u16(), start.elapsed());
    response
}

/// What is asked for.
struct Ask {
    access: Access,
    method: Method,
    path: String,
}

async fn admit(gate: &Gate, ask: &Ask, headers: &HeaderMap, peer: Option<Peer>) -> Result<Login> {
    if gate.access == Access::Open {
        return Ok(Login::new("anonymous", TokenRole::Viewer));
    }
    let login = identify(&gate.shared, headers, peer).await?;
    if allowed(login.role, ask) {
        return Ok(login);
    }
    let (actor, role) = (&login.actor, login.role);
    Err(ApiError::forbidden(format!("{actor} has the role {role:?}, which does not allow this; an Admin may do it")))
}

fn allowed(role: TokenRole, ask: &Ask) -> bool {
    match ask.access {
        Access::Open | Access::Known => true,
        Access::Read => matches!(role, TokenRole::Admin | TokenRole::Viewer) || is_for_ci(role, ask),
        Access::Write => role == TokenRole::Admin || is_for_ci(role, ask),
    }
}

/// CI registers Releases and looks at them; it changes none that is there.
fn is_for_ci(role: TokenRole, ask: &Ask) -> bool {
    let releases = format!("/apis/weir.dev/v1/{}", Kind::Release.plural());
    let below = ask.path.strip_prefix(&releases).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    role == TokenRole::Ci && below && (ask.method == Method::GET || ask.method == Method::POST)
}

async fn identify(shared: &Shared, headers: &HeaderMap, peer: Option<Peer>) -> Result<Login> {
    match bearer(headers)? {
        Some(token) => {
            let login = shared.logins.authenticate(token, Timestamp::now()).await?;
            login.ok_or_else(|| ApiError::unauthorized("the token is not known, revoked or expired"))
        }
        None if shared.options.insecure_loopback => loopback(headers, peer),
        None => {
            Err(ApiError::unauthorized("a token is needed: `weir login`, or the header Authorization: Bearer TOKEN"))
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, token) = token.ok_or_else(|| ApiError::unauthorized("Authorization must be of the form: Bearer TOKEN"))?;
    Ok(Some(token.trim()))
}

/// Without a token: only from this machine, and not by way of a browser that another site tricks into asking
/// (a foreign `Origin`, or a name of its own that it points at loopback).
fn loopback(headers: &HeaderMap, peer: Option<Peer>) -> Result<Login> {
    let near = peer.is_some_and(|Peer(peer)| peer.ip().is_loopback());
    let host = headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if near && loopback_host(host) && !headers.contains_key(ORIGIN) {
        return Ok(Login::new("user/loopback", TokenRole::Admin));
    }
    Err(ApiError::unauthorized("without a token only programs on this machine are let in, under a loopback name"))
}

fn loopback_host(host: &str) -> bool {
    let address = |h: &str| h.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let socket = host.parse::<SocketAddr>().is_ok_and(|s| s.ip().is_loopback());
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    socket || address(host) || name == "localhost"
}

fn refuse(refusal: ApiError) -> Response {
    let unknown = refusal.code == 401;
    let mut response = refusal.into_response();
    if unknown {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"weir\""));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_loopback() {
        for yes in ["127.0.0.1:15000", "localhost:15000", "localhost", "[::1]:80", "127.9.9.9"] {
            assert!(loopback_host(yes), "{yes}");
        }
        for no in ["", "evil.example:15000", "10.0.0.1:15000", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert!(!loopback_host(no), "{no}");
        }
    }

    #[test]
    fn roles_allow_what_they_say() {
        use Access::*;
        use TokenRole::*;
        let ask = |access| Ask { access, method: Method::GET, path: "/apis/weir.dev/v1/apps".into() };
        let may = |role| [Open, Known, Read, Write].map(|access| allowed(role, &ask(access)));
        assert_eq!(may(Admin), [true, true, true, true]);
        assert_eq!(may(Viewer), [true, true, true, false]);
        assert_eq!(may(Proxy), [true, true, false, false]);
        assert_eq!(may(Ci), [true, true, false, false]);
    }

    #[test]
    fn ci_registers_releases_and_nothing_else() {
        let may = |access, method, path: &str| allowed(TokenRole::Ci, &Ask { access, method, path: path.into() });
        assert!(may(Access::Write, Method::POST, "/apis/weir.dev/v1/releases"));
        assert!(may(Access::Read, Method::GET, "/apis/weir.dev/v1/releases/proxy-1"));
        assert!(!may(Access::Write, Method::PATCH, "/apis/weir.dev/v1/releases/proxy-1"));
        assert!(!may(Access::Write, Method::DELETE, "/apis/weir.dev/v1/releases/proxy-1"));
        assert!(!may(Access::Write, Method::POST, "/apis/weir.dev/v1/releasetrains"));
        assert!(!may(Access::Write, Method::POST, "/apis/weir.dev/v1/changes"));
    }
}
