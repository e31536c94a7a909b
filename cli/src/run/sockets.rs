//! The listening sockets: bound once, and kept while proxies come and go.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait while no proxy accepts; the kernel caps it at net.core.somaxconn (4096 on Debian).
const BACKLOG: i32 = 4096;

/// A listening socket and the listener it is for.
#[derive(Debug)]
pub struct Listening {
    /// Name of the proxy's listener.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The socket.
    pub socket: OwnedFd,
}

/// All sockets of an instance: `inbound`, then `outbound|APP` for each upstream.
pub fn open(inbound: SocketAddr, upstreams: &[(String, SocketAddr)]) -> Result<Vec<Listening>, String> {
    let inbound = std::iter::once(("inbound".to_owned(), inbound));
    let outbound = upstreams.iter().map(|(app, listen)| (format!("outbound|{app}"), *listen));
    inbound.chain(outbound).map(|(name, address)| listen(name, address)).collect()
}

fn listen(name: String, address: SocketAddr) -> Result<Listening, String> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Listening { name: name.clone(), address, socket: socket.into() })
    };
    open().map_err(|error: std::io::Error| format!("{name}: cannot listen on {address}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_named_as_the_proxys_listeners() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let sockets = open(any, &[("stock".into(), any)]).unwrap();
        let names: Vec<&str> = sockets.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["inbound", "outbound|stock"]);
        assert_ne!(sockets[0].address.port(), 0);
    }

    #[test]
    fn an_address_in_use_is_named() {
        let held = open("127.0.0.1:0".parse().unwrap(), &[]).unwrap();
        let error = open(held[0].address, &[]).unwrap_err();
        assert!(error.contains(&held[0].address.to_string()), "{error}");
    }
}
