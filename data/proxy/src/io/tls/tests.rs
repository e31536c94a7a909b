use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::*;

/// Both ends' configurations; made once, since keys are dear.
static CONFIGS: LazyLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = params.self_signed(&key).unwrap().der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let versions = [&rustls::version::TLS13];
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let server = server.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).unwrap();
    (Arc::new(server), Arc::new(client.with_root_certificates(roots).with_no_client_auth()))
});

/// Two ends and what was decrypted at each.
struct Pair {
    ends: [Tls; 2],
    received: [Vec<u8>; 2],
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Pair {
    fn new() -> Self {
        let (server, client) = &*CONFIGS;
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let client = Session::Client(UnbufferedClientConnection::new(client.clone(), name).unwrap());
        let server = Session::Server(UnbufferedServerConnection::new(server.clone()).unwrap());
        let pool = Rc::new(BufferPool::default());
        let ends = [client, server].map(|session| Tls::new(session, pool.clone(), Buf::default()));
        Pair { ends, received: Default::default() }
    }

    /// Carries up to `chunk` bytes from one end to the other, changed by `spoil`; false if there is nothing to carry.
    fn carry(&mut self, from: usize, chunk: usize, spoil: &mut dyn FnMut(&mut [u8])) -> io::Result<bool> {
        let outgoing = self.ends[from].outgoing();
        let mut bytes = outgoing.filled()[..outgoing.len().min(chunk)].to_vec();
        outgoing.consume(bytes.len());
        self.ends[from].release();
        spoil(&mut bytes);
        let carried = !bytes.is_empty();
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            let taken = self.ends[1 - from].incoming()?.put(left);
            left = &left[taken..];
            self.take(1 - from, chunk)?;
        }
        Ok(carried)
    }

    /// What came is looked at, by a reader who takes at most `room` bytes at a time.
    fn take(&mut self, end: usize, room: usize) -> io::Result<()> {
        if self.ends[end].session().is_handshaking() {
            return self.ends[end].shake().map(drop).map_err(invalid);
        }
        let received = &mut self.received[end];
        loop {
            let mut left = room.max(1);
            let taken = self.ends[end].open(&mut |bytes| {
                let taken = bytes.len().min(left);
                left -= taken;
                received.extend_from_slice(&bytes[..taken]);
                taken
            })?;
            if taken == 0 {
                self.ends[end].release();
                return Ok(());
            }
        }
    }

    /// Carries both ways until nothing is left to carry.
    fn settle(&mut self, chunk: usize, spoil: &mut dyn FnMut(&mut [u8])) -> io::Result<()> {
        while self.carry(CLIENT, chunk, spoil)? | self.carry(SERVER, chunk, spoil)? {}
        Ok(())
    }

    fn shaken(chunk: usize) -> Self {
        let mut pair = Pair::new();
        assert!(!pair.ends[CLIENT].shake().unwrap());
        pair.settle(chunk, &mut |_| {}).unwrap();
        assert!(pair.ends.iter().all(|end| !end.session().is_handshaking()));
        pair
    }

    fn write(&mut self, end: usize, mut bytes: &[u8], chunk: usize) -> io::Result<()> {
        while !bytes.is_empty() {
            let (first, second) = bytes.split_at(bytes.len() / 3);
            let sealed = self.ends[end].seal(&[io::IoSlice::new(first), io::IoSlice::new(second)])?;
            bytes = &bytes[sealed..];
            while self.carry(end, chunk, &mut |_| {})? {}
        }
        Ok(())
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_however_it_is_cut(chunk in 1_usize..20_000, sizes in prop::collection::vec(0_usize..40_000, 1..4)) {
        let mut pair = Pair::shaken(chunk);
        let mut written = [Vec::new(), Vec::new()];
        for (number, size) in sizes.into_iter().enumerate() {
            let (end, bytes) = (number % 2, pattern(size));
            pair.write(end, &bytes, chunk).unwrap();
            written[1 - end].extend(bytes);
        }
        prop_assert!(pair.received == written);
        // Nothing under way: nothing held.
        for end in &pair.ends {
            prop_assert!(!end.incoming.is_allocated() && !end.outgoing.is_allocated() && end.rest.capacity() == 0);
        }
        pair.ends[CLIENT].seal_end().unwrap();
        pair.settle(chunk, &mut |_| {}).unwrap();
        prop_assert!(pair.ends[SERVER].has_ended() && !pair.ends[CLIENT].has_ended());
    }

    #[test]
    fn spoilt_bytes_end_a_connection_and_nothing_else(at in 0_usize..6_000, with in 1_u8.., chunk in 1_usize..3_000) {
        let mut pair = Pair::new();
        let mut passed = 0;
        let mut spoil = |bytes: &mut [u8]| {
            if let Some(byte) = at.checked_sub(passed).and_then(|at| bytes.get_mut(at)) {
                *byte ^= with;
            }
            passed += bytes.len();
        };
        let told = pair.ends[CLIENT].shake().is_ok();
        prop_assert!(told);
        let mut carried = pair.settle(chunk, &mut spoil);
        for end in [CLIENT, SERVER] {
            if carried.is_ok() && !pair.ends[end].session().is_handshaking() && pair.ends[end].seal(&[io::IoSlice::new(&pattern(3_000))]).is_ok() {
                carried = pair.settle(chunk, &mut spoil);
            }
        }
        // Nothing but what was written arrives, and whatever is asked of a broken end is answered.
        prop_assert!(pair.received.iter().all(|received| pattern(3_000).starts_with(received)));
        for end in &mut pair.ends {
            let _ = (end.shake(), end.open(&mut |_| 0), end.seal(&[io::IoSlice::new(b"x")]), end.seal_end());
        }
    }

    #[test]
    fn garbage_is_refused_within_bounds(garbage in prop::collection::vec(any::<u8>(), 1..2_000), repeats in 1_usize..60) {
        let mut pair = Pair::new();
        let mut refused = false;
        for _ in 0..repeats {
            let Ok(room) = pair.ends[SERVER].incoming() else { refused = true; break };
            room.put(&garbage);
            refused |= pair.ends[SERVER].shake().is_err();
        }
        let held = pair.ends[SERVER].incoming.len();
        prop_assert!(refused || held <= MAX_INCOMING);
    }
}

#[test]
fn an_end_that_is_not_announced_is_no_end() {
    let mut pair = Pair::shaken(1_000);
    pair.ends[SERVER].set_silent(true);
    assert!(!pair.ends[SERVER].says_goodbye() && pair.ends[CLIENT].says_goodbye());
    assert!(!pair.ends[CLIENT].has_ended());
}
