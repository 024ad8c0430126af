//! Asks one URL over HTTP/1.1, with or without TLS.
//!
//! In: bodies. Out: status and body of the answer, at most [`MAX_ANSWER_BYTES`] of it. The name is resolved
//! for every request and the address that is connected to is the one that was judged, so a name that
//! changes its address in between leads nowhere else. Redirects are not followed: they are answers like any
//! other. Time-outs are the callers'.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::reach::is_public;
use crate::{Error, SIGNATURE_HEADER};

/// Longest answer that is read: a decision is a line; a set of keys is some kilobytes.
pub const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Where systems keep the certificates they trust: Debian and its kin, Fedora and its kin, Alpine.
const SYSTEM_CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A URL taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    path: String,
    is_tls: bool,
}

impl Target {
    /// Reads an `http:` or `https:` URL.
    ///
    /// # Errors
    /// [`Error::Url`] says what is wrong.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let wrong = Error::Url("the URL must be http:// or https://, with a host");
        let Ok(uri) = url.parse::<http::Uri>() else { return Err(wrong) };
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong),
        };
        let Some(authority) = uri.authority() else { return Err(wrong) };
        if authority.as_str().contains('@') {
            return Err(Error::Url("the URL must not hold a user and password"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong);
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        Ok(Self { host, port, path, is_tls })
    }

    fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.port, self.is_tls) {
            (443, true) | (80, false) => host,
            (port, _) => format!("{host}:{port}"),
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// Asks one target.
pub(crate) struct Client {
    target: Target,
    allow_private: bool,
    tls: Option<TlsConnector>,
}

impl Client {
    pub(crate) fn new(
        target: Target,
        allow_private: bool,
        ca: Option<&Path>,
    ) -> Result<Self, Error> {
        let tls = target.is_tls.then(|| connector(ca)).transpose()?;
        Ok(Self { target, allow_private, tls })
    }

    /// POSTs a JSON body.
    pub(crate) async fn post(
        &self,
        event: &str,
        signature: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Answer, Error> {
        let mut request = self.request("POST").header("tidewater-event", event);
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(signature) = signature {
            request = request.header(SIGNATURE_HEADER, signature);
        }
        self.send(request, body.into()).await
    }

    fn request(&self, method: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(&self.target.path)
            .header(header::HOST, self.target.authority())
            .header(header::USER_AGENT, concat!("tidewater/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
    }

    async fn send(&self, request: http::request::Builder, body: Bytes) -> Result<Answer, Error> {
        let request = request.body(Full::new(body));
        let request = request.map_err(|_| Error::Url("the URL cannot be asked"))?;
        let socket = self.connect().await?;
        match &self.tls {
            None => exchange(socket, request).await,
            Some(tls) => {
                let name = ServerName::try_from(self.target.host.clone())
                    .map_err(|_| Error::Url("the host of the URL is no name that TLS knows"))?;
                let stream = tls.connect(name, socket).await.map_err(Error::Connect)?;
                exchange(stream, request).await
            }
        }
    }

    async fn connect(&self) -> Result<TcpStream, Error> {
        let Target { host, port, .. } = &self.target;
        let found =
            tokio::net::lookup_host((host.as_str(), *port)).await.map_err(Error::Resolve)?;
        let none = std::io::Error::new(std::io::ErrorKind::NotFound, "it has no address");
        let mut last = Error::Resolve(none);
        for address in found {
            if !self.allow_private && !is_public(address.ip()) {
                last = Error::Private(address.ip());
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = Error::Connect(error),
            }
        }
        Err(last)
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Error> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| Error::Body(error.to_string()))?.to_bytes();
        Ok(Answer { status, body })
    };
    tokio::pin!(answered, connection);
    // The connection is driven here, so that nothing outlives the question.
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => {
            ended?;
            answered.await
        }
    }
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, Error> {
    let system = || SYSTEM_CERTIFICATES.iter().map(Path::new).find(|path| path.exists());
    let Some(path) = ca.or_else(system) else {
        let why = "there are none on this system; name a file with hooks.ca".to_owned();
        return Err(Error::Certificates { path: SYSTEM_CERTIFICATES[0].to_owned(), why });
    };
    let wrong = |why: String| Error::Certificates { path: path.display().to_string(), why };
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(error.to_string()))?;
    let (added, _) = roots.add_parsable_certificates(found);
    if added == 0 {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("https://app.example/hooks?a=1").unwrap();
        let Target { host, port, path, is_tls } = &target;
        assert_eq!(
            (host.as_str(), *port, path.as_str(), *is_tls),
            ("app.example", 443, "/hooks?a=1", true)
        );
        assert_eq!(target.authority(), "app.example");
        let target = Target::parse("http://[::1]:9000").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("::1", 9000, "/"));
        assert_eq!(target.authority(), "[::1]:9000");
        for foul in ["", "app.example", "ftp://a", "http://", "https://user:secret@app.example/"] {
            let error = Target::parse(foul).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
