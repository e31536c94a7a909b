//! Who is at the other end of a connection, and whether others may read along.

use std::net::SocketAddr;

use tonic::Request;

/// The other end of a connection. A server whose connections may be encrypted puts it on every request, as the
/// `ConnectInfo` of its streams; without it a request is taken for one over plain TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its address, where there is one.
    pub address: Option<SocketAddr>,
    /// The connection is TLS.
    pub is_encrypted: bool,
}

impl Peer {
    /// Who sent a request.
    pub(crate) fn of<T>(request: &Request<T>) -> Peer {
        let plain = || Peer { address: request.remote_addr(), is_encrypted: false };
        request.extensions().get().copied().unwrap_or_else(plain)
    }

    /// A key may be sent to it: nobody between here and there reads along.
    pub(crate) fn is_private(self) -> bool {
        self.is_encrypted || self.address.is_some_and(|address| address.ip().to_canonical().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_over_tls_or_stay_on_the_machine() {
        let private = |address: &str, is_encrypted| Peer { address: address.parse().ok(), is_encrypted }.is_private();
        assert!(private("127.0.0.1:1", false) && private("[::ffff:127.0.0.1]:1", false) && private("10.0.0.1:1", true));
        assert!(!private("10.0.0.1:1", false) && !private("", false));
    }

    #[test]
    fn what_the_server_says_of_a_connection_holds() {
        let mut request = Request::new(());
        assert!(!Peer::of(&request).is_private());
        request.extensions_mut().insert(Peer { address: None, is_encrypted: true });
        assert!(Peer::of(&request).is_private());
    }
}
