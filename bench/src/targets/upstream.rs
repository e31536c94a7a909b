//! What all targets forward to, on the load's core.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use weir_testkit::{Process, TempDir, net};

use super::{Programs, nginx, pinned};
use crate::cases::{Case, HUGE, LARGE, MESSAGE};
use crate::certificate::Certificate;
use crate::load::LOAD_CORE;
use crate::rpc::Protocol;

/// An upstream listens within this.
const PATIENCE: Duration = Duration::from_secs(20);

/// The upstreams of a run, and its files.
pub struct Upstreams {
    /// HTTP/1.1.
    pub h1: SocketAddr,
    /// HTTP/2 in clear text.
    pub h2: SocketAddr,
    /// What targets show and clients trust.
    pub certificate: Certificate,
    /// A gRPC message, framed.
    pub message: PathBuf,
    many: SocketAddr,
    bolt: SocketAddr,
    dubbo: SocketAddr,
    _processes: [Process; 4],
    _folder: TempDir,
}

impl Upstreams {
    /// Starts them and waits until they answer.
    ///
    /// # Errors
    /// If their files cannot be written.
    pub fn start(programs: &Programs) -> Result<Upstreams, String> {
        let failed = |error: std::io::Error| format!("upstream: {error}");
        let folder = TempDir::new().map_err(failed)?;
        let path = folder.path();
        // The worker of a root master runs as another user and must get at the files.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let message = framed(MESSAGE);
        for (name, bytes) in [("large", vec![b'x'; LARGE]), ("huge", vec![b'x'; HUGE]), ("unary", message)] {
            fs::write(path.join(name), bytes).map_err(failed)?;
        }
        let (h1, h2, many) = (net::free_address(), net::free_address(), net::free_address_on_localhost());
        let arguments = nginx::serve(h1, h2, path).map_err(failed)?;
        let mut nginx = pinned(LOAD_CORE, "upstream nginx", &programs.nginx, &arguments);
        nginx.wait_http(h1, Case::H1Large.path());
        let mut own = serve("upstream", many, &[]).map_err(failed)?;
        own.wait_http(many, Case::H1Small.path());
        let (bolt, dubbo) = (net::free_address_on_localhost(), net::free_address_on_localhost());
        let bolts = serve("upstream of Bolt", bolt, &["--rpc=bolt"]).map_err(failed)?;
        let dubbos = serve("upstream of Dubbo", dubbo, &["--rpc=dubbo"]).map_err(failed)?;
        wait_tcp(&[bolt, dubbo])?;
        Ok(Upstreams {
            h1,
            h2,
            certificate: Certificate::make(path)?,
            message: path.join("unary"),
            many,
            bolt,
            dubbo,
            _processes: [nginx, own, bolts, dubbos],
            _folder: folder,
        })
    }

    /// The server of that protocol.
    pub fn rpc(&self, protocol: Protocol) -> SocketAddr {
        match protocol {
            Protocol::Bolt => self.bolt,
            Protocol::Dubbo => self.dubbo,
        }
    }

    /// So many addresses that all answer.
    pub fn many(&self, count: usize) -> Vec<SocketAddr> {
        let host = |number: usize| Ipv4Addr::new(127, 32 + (number >> 16) as u8, (number >> 8) as u8, number as u8);
        (1..=count).map(|number| SocketAddr::from((host(number), self.many.port()))).collect()
    }
}

/// Starts this program's own upstream.
fn serve(name: &str, at: SocketAddr, flags: &[&str]) -> std::io::Result<Process> {
    let port = format!("--port={}", at.port());
    let arguments: Vec<_> = ["serve", &port].iter().chain(flags).map(|&argument| argument.to_owned()).collect();
    Ok(pinned(LOAD_CORE, name, &std::env::current_exe()?, &arguments))
}

/// Waits until they take connections.
///
/// # Errors
/// The first that does not.
pub fn wait_tcp(addresses: &[SocketAddr]) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    for address in addresses {
        while let Err(error) = TcpStream::connect(address) {
            if Instant::now() > until {
                return Err(format!("upstream at {address}: {error}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// A gRPC message: not compressed, its length, its bytes.
fn framed(bytes: usize) -> Vec<u8> {
    let prefix = [&[0][..], &(bytes as u32).to_be_bytes()].concat();
    [prefix, vec![b'x'; bytes]].concat()
}
