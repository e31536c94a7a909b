//! How the control plane is reached: address, token, connection.

use std::path::PathBuf;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use weir_trust::Trust;

use crate::tls;

/// A connection that sends the token with every call.
pub(crate) type Authorized = InterceptedService<Channel, Bearer>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The kernel asks after a silent peer. HTTP/2 pings would do too, but gRPC servers in Go by default end connections
/// which ping more often than every five minutes.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(10);
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
pub(crate) const KEEPALIVE_RETRIES: u32 = 3;
/// Longest token in bytes.
const MAX_TOKEN: u64 = 16 * 1024;

/// A secret; never shown.
#[derive(Clone, Default)]
pub struct Token(Option<MetadataValue<Ascii>>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Token(...)" } else { "Token(none)" })
    }
}

/// Why a token was not taken. Never tells the token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file could not be read.
    #[error("cannot read the token from {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It cannot stand in a header.
    #[error("the token from {0} is longer than 16 KiB or holds characters that cannot stand in a header")]
    Malformed(String),
}

impl Token {
    /// Calls go without a token.
    pub fn none() -> Self {
        Token(None)
    }

    /// A token given as text; white space around it is not part of it. Empty: none.
    ///
    /// # Errors
    /// If it cannot stand in a header; `source` says where it came from.
    pub fn new(text: &str, source: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Token(None));
        }
        let malformed = || TokenError::Malformed(source.to_owned());
        let mut value: MetadataValue<Ascii> = format!("Bearer {text}").parse().map_err(|_| malformed())?;
        if text.len() as u64 > MAX_TOKEN {
            return Err(malformed());
        }
        value.set_sensitive(true);
        Ok(Token(Some(value)))
    }

    /// From a file, or else from an environment variable; none if neither has one.
    ///
    /// # Errors
    /// If the file cannot be read, or what was found is not a token.
    pub fn load(file: Option<PathBuf>, variable: &str) -> Result<Self, TokenError> {
        match file {
            Some(path) => Self::new(&read(&path)?, &path.display().to_string()),
            None => Self::new(&std::env::var(variable).unwrap_or_default(), variable),
        }
    }
}

fn read(path: &PathBuf) -> Result<String, TokenError> {
    use std::io::Read;
    let error = |source| TokenError::Read { path: path.clone(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(error)?;
    file.take(MAX_TOKEN + 1).read_to_string(&mut text).map_err(error)?;
    Ok(text)
}

/// Adds the token to calls.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(Token);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// Connects to `http://HOST:PORT`, or to `https://HOST:PORT` if it is the one that is trusted.
///
/// # Errors
/// If the address is not understood, nothing answers there, or it is not the one that is trusted.
pub(crate) async fn connect(address: &str, token: &Token, trust: Option<&Trust>) -> Result<Authorized, String> {
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| format!("`{address}`: {error}"))?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
    let channel = match tls::connector(endpoint.uri(), trust)? {
        Some(secure) => endpoint.connect_with_connector(secure).await,
        None => {
            let endpoint = endpoint
                .tcp_nodelay(true)
                .tcp_keepalive(Some(KEEPALIVE))
                .tcp_keepalive_interval(Some(KEEPALIVE_INTERVAL))
                .tcp_keepalive_retries(Some(KEEPALIVE_RETRIES));
            endpoint.connect().await
        }
    };
    let channel = channel.map_err(|error| format!("cannot reach {address}: {}", causes(&error)))?;
    Ok(InterceptedService::new(channel, Bearer(token.clone())))
}

/// An error with what caused it, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::new(" s3cret\n", "test").unwrap();
        let mut bearer = Bearer(token);
        assert!(!format!("{bearer:?}").contains("s3cret"));
        let request = bearer.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer s3cret");
        assert!(!format!("{request:?}").contains("s3cret"));
        let error = Token::new("s3\u{7f}cret", "WEIR_TOKEN").unwrap_err().to_string();
        assert!(error.contains("WEIR_TOKEN") && !error.contains("cret from"), "{error}");
    }

    #[test]
    fn nothing_is_no_token() {
        assert!(Token::new("", "test").unwrap().0.is_none());
        assert!(Token::load(Some("/nonexistent".into()), "X").is_err());
    }
}
