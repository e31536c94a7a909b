//! Connections to a control plane that is TLS itself.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use weir_trust::Trust;

use crate::channel::{KEEPALIVE, KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES};

/// What gRPC speaks (RFC 9113 section 3.2).
const H2: &[u8] = b"h2";
const HTTPS_PORT: u16 = 443;

type Opening = Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

/// Opens connections by TCP, then TLS.
#[derive(Clone)]
pub(crate) struct Secure(TlsConnector);

/// How an address is connected to; `None`: in plaintext.
///
/// # Errors
/// If it is to be TLS, and nothing says by whom.
pub(crate) fn connector(address: &Uri, trust: Option<&Trust>) -> Result<Option<Secure>, String> {
    match (address.scheme_str(), trust) {
        (Some("https"), Some(trust)) => {
            let config = trust.client(&[H2]).map_err(|error| error.to_string())?;
            Ok(Some(Secure(TlsConnector::from(config))))
        }
        (Some("https"), None) => Err(format!(
            "{address} is TLS, and nothing says whom to trust: give --control-ca the file or the fingerprint that \
             `weir control` prints"
        )),
        (_, Some(_)) => Err(format!("{address} is not TLS, but --control-ca says that it should be: use https://")),
        (_, None) => Ok(None),
    }
}

impl Service<Uri> for Secure {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Opening;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Opening {
        let tls = self.0.clone();
        Box::pin(async move { open(&tls, &address).await.map(TokioIo::new) })
    }
}

async fn open(tls: &TlsConnector, address: &Uri) -> io::Result<TlsStream<TcpStream>> {
    let host = address.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TcpStream::connect((host, address.port_u16().unwrap_or(HTTPS_PORT))).await?;
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    tls.connect(name, stream).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_and_trust_come_together() {
        let trust: Trust = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let asked =
            |address: &'static str, trust| connector(&Uri::from_static(address), trust).map(|found| found.is_some());
        assert_eq!(asked("http://127.0.0.1:1", None), Ok(false));
        assert_eq!(asked("https://127.0.0.1:1", Some(&trust)), Ok(true));
        assert!(asked("https://127.0.0.1:1", None).unwrap_err().contains("--control-ca"));
        assert!(asked("http://127.0.0.1:1", Some(&trust)).unwrap_err().contains("https://"));
    }
}
