//! Addresses for instances of this machine.
//!
//! On Linux all of 127.0.0.0/8 is loopback. Each instance gets an address of its own in 127.16.0.0/12, for its proxy's
//! listeners and for its application, so ports never collide, neither within a mesh nor between meshes of one machine.
//! Where the search begins follows from the instance's name and the provider's folder; what is taken by others is found
//! by trying to bind it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use weir_model::instance::{InstanceSpec, Upstream};

use crate::provider::Placement;

/// Port of every inbound listener.
const INBOUND: u16 = 8080;
/// Port of the first outbound listener; the next have the next ones.
const OUTBOUND: u16 = 15001;
/// Port of every application.
const APPLICATION: u16 = 9000;
/// Addresses in 127.16.0.0/12.
const ADDRESSES: u64 = 1 << 20;
/// Candidates that are tried.
const TRIES: u64 = 10_000;

/// Addresses for an instance, such that `free` holds for each; `None` if there are none.
pub fn place(
    seed: &str,
    calls: &[String],
    taken: &[InstanceSpec],
    free: impl Fn(SocketAddr) -> bool,
) -> Option<Placement> {
    let begin = hash(seed);
    let address = free_address(begin, calls.len(), taken, &free)?;
    let upstream = |(index, app): (usize, &String)| {
        let listen = SocketAddr::new(address, OUTBOUND + u16::try_from(index).ok()?);
        Some(Upstream { app: app.clone(), listen })
    };
    Some(Placement {
        address,
        port: INBOUND,
        application: SocketAddr::new(address, APPLICATION),
        upstreams: calls.iter().enumerate().map(upstream).collect::<Option<_>>()?,
    })
}

/// True if nobody has it: it can be bound at this moment.
pub fn bindable(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

fn free_address(begin: u64, calls: usize, taken: &[InstanceSpec], free: impl Fn(SocketAddr) -> bool) -> Option<IpAddr> {
    let taken: HashSet<IpAddr> = taken.iter().map(|spec| spec.address).collect();
    let candidates = (0..TRIES).map(|step| address(begin.wrapping_add(step)));
    let ports = || (0..calls).map(|index| OUTBOUND + index as u16).chain([INBOUND, APPLICATION]);
    candidates
        .filter(|candidate| !taken.contains(candidate))
        .find(|candidate| ports().all(|port| free(SocketAddr::new(*candidate, port))))
}

/// The n-th address of 127.16.0.0/12; the last byte is neither 0 nor 255.
fn address(n: u64) -> IpAddr {
    let n = (n % ADDRESSES) as u32;
    let last = (n & 0xff).clamp(1, 254);
    IpAddr::V4(Ipv4Addr::from((127 << 24) | (16 << 16) | (n & !0xff) | last))
}

/// FNV-1a, then mixed: neighbouring names begin far apart.
fn hash(text: &str) -> u64 {
    let fnv = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (fnv ^ (fnv >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (fnv >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::spec;

    fn taken(placement: &Placement) -> InstanceSpec {
        InstanceSpec { address: placement.address, ..spec("A") }
    }

    #[test]
    fn nothing_is_given_twice() {
        let calls = ["order".to_owned(), "stock".to_owned()];
        let first = place("mesh/front-1", &calls, &[], |_| true).unwrap();
        let second = place("mesh/front-1", &calls, &[taken(&first)], |_| true).unwrap();
        assert_ne!(first.address, second.address);
        assert_eq!(first.upstreams[1].listen, SocketAddr::new(first.address, 15002));
    }

    #[test]
    fn what_somebody_else_has_is_left_to_them() {
        let first = place("mesh/other-1", &[], &[], |_| true).unwrap();
        let next = place("mesh/other-1", &[], &[], |address| address != first.application).unwrap();
        assert_ne!(next.address, first.address);
        assert_eq!(place("mesh/other-1", &[], &[], |_| false), None);
    }

    #[test]
    fn addresses_stay_in_their_range() {
        for n in [0, 255, 256, ADDRESSES - 1, u64::MAX] {
            let IpAddr::V4(v4) = address(n) else { panic!("not IPv4") };
            let [first, second, _, last] = v4.octets();
            assert!(first == 127 && (16..32).contains(&second) && (1..255).contains(&last), "{v4}");
        }
    }
}
