//! The admin endpoint: small, on loopback, on the main thread, apart from the workers.
//!
//! One request per connection, answered and closed. It uses the proxy's own parser, and so needs no HTTP library.

mod pages;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use weir_codec::http1::{parse_request, slots};

use crate::Proxy;
use crate::http1::reason_phrase;
use pages::Page;

/// Longest request head taken (bytes).
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Most header fields taken.
const MAX_HEADERS: usize = 64;
/// A connection lasts no longer than this.
const LIMIT: Duration = Duration::from_secs(10);

/// Opens the endpoint and serves it in the background, as long as the runtime lives. The address it got is returned.
///
/// # Errors
/// If the address cannot be bound.
pub async fn serve(proxy: Proxy, address: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let actual = listener.local_addr()?;
    tokio::spawn(accept(proxy, listener));
    Ok(actual)
}

async fn accept(proxy: Proxy, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(timeout(LIMIT, answer(proxy.clone(), stream)));
            }
            Err(error) => {
                tracing::warn!(%error, "the admin endpoint cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(proxy: Proxy, mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = Vec::new();
    let page = loop {
        if let Some(page) = page(&proxy, &bytes) {
            break page;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        page.status,
        reason_phrase(page.status),
        page.content_type,
        page.body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(page.body.as_bytes()).await?;
    stream.shutdown().await
}

/// The page that was asked for; `None` while the request's head is not complete.
fn page(proxy: &Proxy, bytes: &[u8]) -> Option<Page> {
    let mut slots = slots::<MAX_HEADERS>();
    match parse_request(bytes, &mut slots, MAX_HEAD_BYTES) {
        Ok(None) => None,
        Ok(Some(head)) => Some(pages::find(proxy, head.method, head.path)),
        Err(reject) => Some(Page::text(reject.status(), format!("{reject}\n"))),
    }
}
