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

/// A free port of 127.0.0.1, for programs that listen only there. Prefer [`free_address`].
///
/// The port lies below those that the kernel gives to outgoing connections (32768 and up), and each call tries another
/// one, beginning at a place that depends on the process.
///
/// # Panics
/// If none is free.
pub fn free_address_on_localhost() -> SocketAddr {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let candidates = std::iter::repeat_with(|| port(std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed)));
    candidates
        .take(PORTS as usize)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a port below the ephemeral ones is free")
}

/// Ports tried on 127.0.0.1: 12000 and up.
const PORTS: u32 = 20_000;

/// Processes that follow each other begin 61 ports apart.
fn port(process: u32, call: u32) -> u16 {
    12_000 + (process.wrapping_mul(61).wrapping_add(call) % PORTS) as u16
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
    fn ports_lie_below_the_ephemeral_ones() {
        assert!((0..40_000).all(|call| (12_000..32_000).contains(&port(u32::MAX, call))));
        assert_ne!(free_address_on_localhost(), free_address_on_localhost());
    }

    #[test]
    fn a_closed_address_refuses() {
        let refused = std::net::TcpStream::connect(closed_address());
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
