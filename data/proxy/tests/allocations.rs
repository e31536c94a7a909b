//! The steady HTTP/1 path allocates nothing: once connections and pools are warm, a request costs no call to the
//! allocator.
//!
//! The only test of this binary, since it counts for the whole process: caller and upstream are plain threads that
//! allocate nothing themselves. Workers tick four times a second, and may allocate then; so rounds are counted until one
//! has nothing at all.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir_proxy::{Options, Proxy, Snapshot};

/// Requests in a round.
const REQUESTS: usize = 20;
/// Rounds before the test gives up.
const ROUNDS: usize = 500;

/// Counts calls for memory.
struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps what `alloc` asks of it.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps what `dealloc` asks of it.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const REQUEST: &[u8] = b"GET /api/x?y=z HTTP/1.1\r\nhost: app\r\nuser-agent: test\r\naccept: */*\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nserver: test\r\n\r\nhello";

/// Answers each request with the same bytes, from a thread that allocates nothing.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut chunk = [0; 4096];
        while read_to(&mut stream, &mut chunk, b"\r\n\r\n") {
            stream.write_all(RESPONSE).unwrap();
        }
    });
    address
}

/// Reads until what was read ends so; false if the peer has closed.
fn read_to(stream: &mut TcpStream, chunk: &mut [u8], end: &[u8]) -> bool {
    let mut filled = 0;
    while !chunk[..filled].ends_with(end) {
        match stream.read(&mut chunk[filled..]).unwrap() {
            0 => return false,
            read => filled += read,
        }
    }
    true
}

fn round(stream: &mut TcpStream) -> u64 {
    let (before, mut chunk) = (CALLS.load(Ordering::Relaxed), [0; 4096]);
    for _ in 0..REQUESTS {
        stream.write_all(REQUEST).unwrap();
        assert!(read_to(stream, &mut chunk, b"hello"));
    }
    CALLS.load(Ordering::Relaxed) - before
}

async fn proxy(upstream: SocketAddr) -> Proxy {
    let text = format!(
        "listeners: [{{name: in, bind: '127.0.0.1:0', routes: table}}]
routeTables: [{{name: table, hosts: [{{name: all, domains: ['*'], routes: [
  {{matches: {{path: {{prefix: /api/}}}}, action: {{forward: {{clusters: [{{cluster: up}}]}}}}}}]}}]}}]
clusters: [{{name: up, endpoints: [{{address: '{upstream}'}}]}}]"
    );
    let config = weir_config::from_yaml(&text).unwrap();
    Proxy::start(Options::default(), Snapshot::compile(config).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_request_on_warm_connections_allocates_nothing() {
    let proxy = proxy(upstream()).await;
    let mut stream = TcpStream::connect(proxy.local_addr("in").unwrap()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut fewest = u64::MAX;
    for _ in 0..ROUNDS {
        fewest = fewest.min(round(&mut stream));
        if fewest == 0 {
            break;
        }
    }
    assert_eq!(fewest, 0, "allocations in the best of {ROUNDS} rounds of {REQUESTS} requests");
}
