//! Nodes of one cluster on free ports, a service to talk to, and raw QUIC peers for foul play.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prometheus::Registry;
use wire::{
    Endpoint, Hello, Identity, Limits, Metrics, NodeId, Peer, Region, Service, Stream, StreamKind,
    control::Roles,
    hello::{ALPN, VersionRange, WIRE_VERSIONS},
    identity::authority::{Authority, Issued, NODE_VALIDITY},
    service::Serving,
};

/// How long anything may take before a test calls it hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn node_id(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

pub(crate) fn hello(id: &str) -> Hello {
    Hello {
        wire: WIRE_VERSIONS,
        node: node_id(id),
        roles: Roles::ORIGIN,
        region: Region::default(),
        software: "0.1.0".to_owned(),
        cluster: None,
        render: VersionRange { oldest: 1, newest: 1 },
    }
}

/// Runs a test's body and fails it rather than hang.
pub(crate) async fn within<T>(body: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, body).await.expect("hung")
}

/// Waits until `condition` holds, looking again whenever other tasks have run.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) struct Cluster {
    pub(crate) authority: Authority,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self { authority: Authority::create(SystemTime::now()).unwrap() }
    }

    pub(crate) fn identity(&self, id: &str) -> Identity {
        self.authority.identity(&node_id(id)).unwrap()
    }

    pub(crate) fn issue(&self, id: &str, hosts: &[&str], now: SystemTime) -> Issued {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        self.authority.issue(&node_id(id), &hosts, now, NODE_VALIDITY).unwrap()
    }

    /// A node with the echo service and ordinary limits.
    pub(crate) fn node(&self, id: &str) -> Node {
        self.node_with(id, hello(id), Limits::default(), vec![Echo::new()])
    }

    pub(crate) fn node_with(
        &self,
        id: &str,
        hello: Hello,
        limits: Limits,
        services: Vec<Arc<dyn Service>>,
    ) -> Node {
        Node::start(&self.identity(id), hello, limits, services)
    }
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) endpoint: Endpoint,
    pub(crate) address: SocketAddr,
    registry: Registry,
}

impl Node {
    pub(crate) fn start(
        identity: &Identity,
        hello: Hello,
        limits: Limits,
        services: Vec<Arc<dyn Service>>,
    ) -> Self {
        let (metrics, registry) = (Metrics::new(), Registry::new());
        metrics.register(&registry).unwrap();
        let loopback = "127.0.0.1:0".parse().unwrap();
        let endpoint = Endpoint::bind(loopback, identity, hello, limits, &metrics).unwrap();
        endpoint.serve(services).unwrap();
        let address = endpoint.local_addr().unwrap();
        Self { id: endpoint.node(), endpoint, address, registry }
    }

    pub(crate) async fn dial(&self, other: &Node) -> Result<Arc<Peer>, wire::Error> {
        self.endpoint.connect(&other.id, other.address).await
    }

    /// The sum of a metric over all labels that contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let text =
            prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let values = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Sends every frame back, on Control streams. One-way Segment streams go to a channel.
pub(crate) struct Echo {
    pub(crate) streams: AtomicUsize,
    segments: tokio::sync::mpsc::Sender<Bytes>,
}

impl Echo {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_segments().0
    }

    pub(crate) fn with_segments() -> (Arc<Self>, tokio::sync::mpsc::Receiver<Bytes>) {
        let (segments, received) = tokio::sync::mpsc::channel(64);
        (Arc::new(Self { streams: AtomicUsize::new(0), segments }), received)
    }
}

impl Service for Echo {
    fn kinds(&self) -> &'static [StreamKind] {
        &[StreamKind::Control, StreamKind::Segment]
    }

    fn serve(self: Arc<Self>, _: Arc<Peer>, mut stream: Stream) -> Serving {
        Box::pin(async move {
            self.streams.fetch_add(1, Ordering::Relaxed);
            while let Ok(Some(frame)) = stream.receiver.read_frame(1 << 20).await {
                let done = match &mut stream.sender {
                    Some(sender) => sender.write_frame(frame).await.is_ok(),
                    None => self.segments.send(frame).await.is_ok(),
                };
                if !done {
                    return;
                }
            }
            if let Some(sender) = &mut stream.sender {
                sender.finish();
            }
        })
    }
}

/// Says `text` on a stream of its own and expects it back.
pub(crate) async fn echo(peer: &Peer, text: &'static str) -> Result<(), wire::Error> {
    let (mut sender, mut receiver) = peer.open_bi(StreamKind::Control).await?;
    sender.write_frame(Bytes::from_static(text.as_bytes())).await?;
    sender.finish();
    let answer = receiver.read_frame(100).await?.expect("an answer");
    assert_eq!(answer, text);
    assert_eq!(receiver.read_frame(100).await?, None);
    Ok(())
}

/// A QUIC peer that is no [`Endpoint`]: its TLS and its bytes are the test's.
pub(crate) struct Raw;

/// A certificate and its key, for a [`Raw`] peer.
pub(crate) type RawCert = (String, String);

impl Raw {
    pub(crate) fn cert(issued: &Issued) -> RawCert {
        (issued.cert_pem().to_owned(), issued.key_pem().to_owned())
    }

    /// Dials `address` as `name`, with the certificate given or none, and `alpn`.
    pub(crate) async fn dial(
        ca_pem: &str,
        cert: Option<&RawCert>,
        alpn: &[u8],
        address: SocketAddr,
        name: &str,
    ) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots(ca_pem));
        let mut tls = match cert {
            Some(cert) => builder.with_client_auth_cert(chain(&cert.0), key(&cert.1)).unwrap(),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![alpn.to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let connection = endpoint.connect_with(config, address, name).unwrap().await?;
        Ok((endpoint, connection))
    }

    /// Dials `node` as a well-certified node `id` and says hello.
    pub(crate) async fn greeted(
        cluster: &Cluster,
        id: &str,
        node: &Node,
    ) -> (quinn::Endpoint, quinn::Connection) {
        let cert = Self::cert(&cluster.issue(id, &[], SystemTime::now()));
        let ca = cluster.authority.cert_pem();
        let dialled = Self::dial(ca, Some(&cert), ALPN, node.address, node.id.as_str()).await;
        let (endpoint, connection) = dialled.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let message = wire::frame::encode_message("hello", &hello(id)).unwrap();
        send.write_all(&[0]).await.unwrap();
        send.write_all(&message).await.unwrap();
        send.finish().unwrap();
        assert!(!recv.read_to_end(4096).await.unwrap().is_empty(), "the node's hello");
        (endpoint, connection)
    }

    /// Listens with the certificate given, demanding none.
    pub(crate) fn listen(cert: &RawCert) -> quinn::Endpoint {
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain(&cert.0), key(&cert.1))
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(pem: &str) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(chain(pem).remove(0)).unwrap();
    roots
}

fn chain(pem: &str) -> Vec<rustls_pki_types::CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}

fn key(pem: &str) -> rustls_pki_types::PrivateKeyDer<'static> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap()
}
