//! The first phase of a caller's connection where TLS is taken: told apart by its first byte, then secured.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;
use weir_config::TlsMode;

use super::{HandshakeFailure, Security, ServerTls, identity_of};
use crate::io::Buf;
use crate::stats::{Link, LinkKey, Refusal};
use crate::worker::{Connection, Worker, count_refusal};

/// Content type of a handshake record, the first byte of TLS (RFC 8446 section 5.1). No protocol served here begins so.
pub(crate) const HANDSHAKE: u8 = 0x16;

/// Secures a connection that begins with TLS, and lets one that does not in as it is, if that is allowed; `first` then
/// holds what was read from it, as it does before: a byte at least. False if there is nothing to serve.
pub(crate) async fn admit(connection: &mut Connection, first: &mut Buf) -> bool {
    let view = connection.listener.view();
    let Some(tls) = &view.compiled.tls else { return true };
    if first.filled().first() == Some(&HANDSHAKE) {
        return match secure(connection, tls, std::mem::take(first)).await {
            Ok(()) => true,
            Err(failure) => {
                connection.worker.stats.inbound_handshakes.count(failure);
                note_refused(&connection.worker);
                false
            }
        };
    }
    if tls.mode == TlsMode::Strict {
        count_refusal(&connection.worker, Refusal::PlaintextRefused);
        note_refused(&connection.worker);
        return false;
    }
    connection.link = Some(Link::open(&connection.worker.stats.links, caller(""), false));
    true
}

fn caller(identity: &str) -> LinkKey {
    LinkKey { inbound: true, identity: identity.into(), ..Default::default() }
}

fn note_refused(worker: &Worker) {
    worker.stats.links.at(caller("")).refused.inc();
}

/// Counts a handshake under way.
struct Shaking(Rc<Worker>);

impl Drop for Shaking {
    fn drop(&mut self) {
        self.0.handshakes.set(self.0.handshakes.get() - 1);
    }
}

async fn secure(connection: &mut Connection, tls: &ServerTls, received: Buf) -> Result<(), HandshakeFailure> {
    let Connection { worker, stream, timer, peer, .. } = connection;
    if worker.handshakes.get() >= tls.max_handshakes {
        return Err(HandshakeFailure::Limit);
    }
    worker.handshakes.set(worker.handshakes.get() + 1);
    let _shaking = Shaking(worker.clone());
    let (generation, session) = tls.session().ok_or(HandshakeFailure::NotReady)?;
    let deadline = Instant::now() + tls.handshake_timeout;
    let securing = Box::pin(stream.secure(session, &worker.buffers, received));
    let secured = timer.limit(Some(deadline), securing).await.map_err(|_| HandshakeFailure::Timeout)?;
    secured.map_err(|unsecured| {
        tracing::debug!(%peer, ?unsecured, "TLS handshake failed");
        HandshakeFailure::from(&unsecured)
    })?;
    let shown = stream.peer_certificate();
    let identity: Arc<str> = shown.as_ref().and_then(|shown| identity_of(shown)).unwrap_or_default().into();
    connection.security = Security::Tls(generation);
    connection.link = Some(Link::open(&worker.stats.links, caller(&identity), true).certified(shown.is_some()));
    Ok(())
}
