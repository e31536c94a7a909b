//! An upstream of our own, for what nginx cannot be: thousands of endpoints at one socket, or a server of Bolt or Dubbo.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use clap::Args;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::cases::SMALL;
use crate::rpc::Protocol;

/// A request's head is not longer than this (bytes).
const MAX_HEAD: usize = 8 * 1024;
/// Asks for the connection's end with the answer.
const CLOSE: &[u8] = b"connection: close";
/// Connections that the kernel holds for us.
const BACKLOG: i32 = 4_096;

/// Where to listen.
#[derive(Args)]
pub struct Options {
    /// On this port of every loopback address, and of no other.
    #[arg(long)]
    port: u16,
    /// Speak this instead of HTTP/1.1.
    #[arg(long)]
    rpc: Option<Protocol>,
}

/// Serves until it is killed.
pub fn run(options: &Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let served = runtime.and_then(|runtime| runtime.block_on(serve(options.port, options.rpc)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: upstream on port {}: {error}", options.port);
            ExitCode::FAILURE
        }
    }
}

/// All of 127.0.0.0/8 is on the loopback device, and a socket bound to that device is reached by nothing else.
fn listener(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(b"lo"))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn serve(port: u16, rpc: Option<Protocol>) -> io::Result<()> {
    let listener = listener(port)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A connection that breaks shows in the load's own errors.
        tokio::spawn(async move {
            drop(match rpc {
                Some(protocol) => crate::rpc::answer(stream, protocol).await,
                None => answer(stream).await,
            })
        });
    }
}

/// One request at a time, without a body; always the same answer.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {SMALL}\r\n\r\n{}", "x".repeat(SMALL));
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 || head.len() > MAX_HEAD {
            return Ok(());
        }
        if head.ends_with(b"\r\n\r\n") {
            stream.write_all(response.as_bytes()).await?;
            if head.windows(CLOSE.len()).any(|field| field.eq_ignore_ascii_case(CLOSE)) {
                return Ok(());
            }
            head.clear();
        }
    }
}
