//! Certificates for nodes that have none: the side that signs, and the side that asks.
//!
//! In: newcomers' TLS connections on the TCP port of `cluster.listen`, on nodes with `cluster.ca_key`.
//! Out: certificates, each after the control plane has used a join token up for it. A newcomer shows no
//! certificate, so nothing but a valid token and a proven key counts, and everything is bounded. What is
//! said is in [`wire::identity::enrol`].
//!
//! Files are read anew for each newcomer: a renewed certificate or another CA counts at once.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration, time::SystemTime};

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BytesMut};
use cluster::{Client, Error as ClusterError, NewKey};
use rustls_pki_types::ServerName;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::task::AbortOnDropHandle;
use wire::{
    Identity, IdentityFiles, NodeId,
    frame::{FrameDecoder, decode_message, encode_message},
    identity::{
        authority::{Authority, NODE_VALIDITY},
        enrol::{
            self, JoinToken, MAX_JOIN_BYTES, MAX_JOIN_HOSTS, NewKeyPair, ProvenKey, Reply, Request,
        },
    },
};

/// Newcomers served at a time; one more is let go at once and counts as a network fault to it.
const MAX_NEWCOMERS: usize = 16;
/// How long one newcomer may take in all.
const NEWCOMER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long accepting rests after it failed, so that a lack of descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a node that signs needs.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    /// This node.
    pub(crate) node: NodeId,
    /// Its own identity, and the CA's certificate.
    pub(crate) files: IdentityFiles,
    /// The CA's private key.
    pub(crate) ca_key: PathBuf,
}

impl Signer {
    fn load(&self) -> anyhow::Result<(Authority, Identity)> {
        let authority = Authority::load(&self.files.ca, &self.ca_key)?;
        Ok((authority, self.files.load(&self.node)?))
    }

    /// Whether the CA's key is there and is the key of the CA: by signing with it.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let (authority, _) = self.load().context("cluster.ca_key")?;
        authority.identity(&self.node).map(drop).with_context(|| {
            format!(
                "cluster.ca_key: {} is not the key of {}",
                self.ca_key.display(),
                self.files.ca.display()
            )
        })
    }
}

/// Listens for newcomers on the TCP port `address` and serves them until dropped.
///
/// # Errors
/// When it cannot listen, or the CA's key is no good.
pub(crate) async fn serve(
    signer: Signer,
    address: SocketAddr,
    client: Client,
) -> anyhow::Result<AbortOnDropHandle<()>> {
    signer.check()?;
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "cluster.listen: cannot listen for newcomers on {address}/tcp (cluster.ca_key is set)"
        )
    })?;
    tracing::info!(%address, "signing certificates for nodes with a join token");
    let (signer, places) = (Arc::new(signer), Arc::new(Semaphore::new(MAX_NEWCOMERS)));
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let (socket, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a newcomer");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::debug!(%from, "too many newcomers at a time; let go");
                continue;
            };
            let (signer, client) = (Arc::clone(&signer), client.clone());
            tokio::spawn(async move {
                let _place = place;
                match timeout(NEWCOMER_TIMEOUT, welcome(&signer, &client, socket)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(%from, error = format!("{error:#}"), "newcomer");
                    }
                    Err(_) => tracing::debug!(%from, "newcomer took too long"),
                }
            });
        }
    })))
}

async fn welcome(signer: &Arc<Signer>, client: &Client, socket: TcpStream) -> anyhow::Result<()> {
    let own = Arc::clone(signer);
    let loaded = tokio::task::spawn_blocking(move || own.load());
    let (authority, identity) = loaded.await?.inspect_err(|error| {
        tracing::warn!(error = format!("{error:#}"), "cannot sign for a newcomer");
    })?;
    let tls = enrol::server_config(&identity, &signer.files.ca)?;
    let mut stream = TlsAcceptor::from(Arc::new(tls)).accept(socket).await?;
    let request: Request = read(&mut stream).await?;
    let reply = match certify(&authority, client, &request).await {
        Ok(cert) => {
            tracing::info!(node = %request.node, token = %request.token, "certificate issued for a join token");
            Reply::Certificate { cert, ca: authority.cert_pem().to_owned() }
        }
        Err(error) => {
            let why = format!("{error:#}");
            tracing::info!(node = %request.node, token = %request.token, why, "newcomer refused");
            Reply::Refused(why)
        }
    };
    write(&mut stream, &reply).await?;
    Ok(stream.shutdown().await?)
}

/// Makes the certificate first and uses the token up then: what cannot be made costs no token.
async fn certify(
    authority: &Authority,
    client: &Client,
    request: &Request,
) -> anyhow::Result<String> {
    ensure!(
        request.hosts.len() <= MAX_JOIN_HOSTS,
        "a certificate has at most {MAX_JOIN_HOSTS} further names"
    );
    let key = ProvenKey::of(&request.csr)?;
    let (node, hosts) = (&request.node, &request.hosts);
    let cert = authority.certify(node, hosts, &key, SystemTime::now(), NODE_VALIDITY)?;
    let token = NewKey { id: request.token, key: request.secret.clone() };
    match client.redeem_join_token(&token, node, &key.der()).await {
        Ok(()) => Ok(cert),
        Err(ClusterError::Refused(refusal)) => Err(refusal.into()),
        Err(error) => Err(anyhow::Error::from(error).context("the control plane does not answer")),
    }
}

/// What a newcomer has got.
#[derive(Debug)]
pub(crate) struct Joined {
    /// The CA's certificate, PEM.
    pub(crate) ca_pem: String,
    /// Its own, PEM.
    pub(crate) cert_pem: String,
    /// Its private key, PEM. It has never left this process.
    pub(crate) key_pem: String,
}

/// Asks the signing node at `address` for a certificate of `node`.
///
/// # Errors
/// Who could not be reached or trusted, or why the answer is no.
pub(crate) async fn join(
    address: &str,
    token: &JoinToken,
    node: NodeId,
    hosts: Vec<String>,
) -> anyhow::Result<Joined> {
    let asked = async {
        let socket = TcpStream::connect(address).await.with_context(|| {
            format!("cannot reach {address} (tcp): is it a node with cluster.ca_key?")
        })?;
        let pair = NewKeyPair::generate()?;
        let connector = TlsConnector::from(Arc::new(enrol::client_config(token.ca)?));
        // The name is of no account: the node is judged by the CA's fingerprint in the token.
        let name = ServerName::IpAddress(socket.peer_addr()?.ip().into());
        let tls = connector.connect(name, socket).await;
        let mut stream = tls.with_context(|| format!("cannot trust {address}"))?;
        let request = Request {
            node,
            hosts,
            csr: pair.csr().to_vec(),
            token: token.id,
            secret: token.secret.clone(),
        };
        write(&mut stream, &request).await?;
        match read(&mut stream).await.with_context(|| format!("no answer from {address}"))? {
            Reply::Certificate { cert, ca } => {
                Ok(Joined { ca_pem: ca, cert_pem: cert, key_pem: pair.key_pem() })
            }
            Reply::Refused(why) => bail!("{address} says: {why}"),
        }
    };
    timeout(NEWCOMER_TIMEOUT, asked)
        .await
        .with_context(|| format!("{address} did not answer within {NEWCOMER_TIMEOUT:?}"))?
}

async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<T> {
    let (mut frames, mut buffer) = (FrameDecoder::default(), BytesMut::new());
    loop {
        ensure!(stream.read_buf(&mut buffer).await? > 0, "the connection was closed");
        let mut input = buffer.split().freeze();
        if let Some(frame) = frames.push(&mut input, MAX_JOIN_BYTES)? {
            ensure!(!input.has_remaining(), "more than one message");
            return Ok(decode_message("join message", &frame)?);
        }
    }
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> anyhow::Result<()> {
    stream.write_all(&encode_message("join message", message)?).await?;
    Ok(stream.flush().await?)
}
