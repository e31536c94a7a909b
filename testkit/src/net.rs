//! Addresses that nobody else uses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A free loopback address for a process that is told where to listen.
///
/// A port found free can be taken by another before it is used: by a test beside this one, or by any outgoing
/// connection as its own port. On Linux all of 127.0.0.0/8 is loopback, so each call takes a host address of its
/// own (from the process id and a counter) where nobody else looks.
pub fn free_address() -> SocketAddr {
    let host = fresh_host();
    let listener = TcpListener::bind((host, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address")
}

/// An address nothing listens on: connecting to it is refused.
pub fn closed_address() -> SocketAddr {
    free_address()
}

fn fresh_host() -> Ipv4Addr {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    host(std::process::id(), call)
}

/// 127.64.0.0 to 127.127.255.255: 14 bits of the process, 8 of the call. The last byte is neither 0 nor 255.
fn host(process: u32, call: u32) -> Ipv4Addr {
    let process = process % (1 << 14);
    let call = (call % 254) as u8 + 1;
    Ipv4Addr::new(127, 64 + (process >> 8) as u8, process as u8, call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_differ_by_process_and_call() {
        assert_eq!(host(0, 0), Ipv4Addr::new(127, 64, 0, 1));
        assert_eq!(host(0x3fff, 253), Ipv4Addr::new(127, 127, 255, 254));
        assert_ne!(host(1, 0), host(2, 0));
        assert_ne!(free_address(), free_address());
    }

    #[test]
    fn a_closed_address_refuses() {
        let refused = std::net::TcpStream::connect(closed_address());
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
