//! The numbers of QUIC: windows, streams, timers, and the socket under it.
//!
//! In: [`Limits`] and an [`Identity`]. Out: quinn's configurations and a bound socket.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, ServerConfig,
    TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use ring::{
    hkdf, hmac,
    rand::{SecureRandom, SystemRandom},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, identity::Identity};

/// Silence after which a connection is probed, so that it does not idle out.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Silence after which a connection is given up. A node that dies is noticed sooner by others:
/// placement goes by heartbeats, and a node that restarts says so at once.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(6);
/// How long an accepted connection may take for its TLS handshake, and then again for its hello.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// First guess at the path's datagram size, in bytes: fits in every common tunnel (1,420 bytes of
/// `WireGuard`, 1,450 of VXLAN) with IPv6 and UDP headers. Discovery goes up from here.
const INITIAL_MTU: u16 = 1350;
/// Socket buffers asked for, in bytes: some 20 ms of 1 Gbit/s, which rides out a busy scheduler.
/// The kernel may give less (`net.core.rmem_max`, `net.core.wmem_max`).
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Life of the token that proves an address under load (RFC 9000 section 8.1.2).
const RETRY_TOKEN_LIFE: Duration = Duration::from_secs(5);
/// Connection attempts waiting to be looked at; beyond, they are dropped without an answer. Looking
/// takes no time, and refuses with an answer, so that this bounds memory only.
const MAX_INCOMING: usize = 1024;
/// Bytes kept for one connection attempt before it is looked at.
const INCOMING_BUFFER_BYTES: u64 = 64 << 10;
/// The same for all attempts together.
const INCOMING_BUFFERS_BYTES: u64 = 4 << 20;
/// Least time between two stateless resets sent, so that stray packets cost little.
const MIN_RESET_INTERVAL: Duration = Duration::from_millis(5);
/// Length of a connection id.
const CONNECTION_ID_BYTES: usize = 8;
/// The smallest segment worth counting on, in bytes: what the stream limit is made from.
const SMALL_SEGMENT_BYTES: u64 = 16 << 10;

/// Bounds of an endpoint. What is over a bound waits, if the peer can wait for it (streams, bytes),
/// or is refused and counted (connections).
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections accepted from all nodes; more are refused.
    pub max_connections: usize,
    /// Connections accepted from one node; more are refused. Above 1, because a node that restarts
    /// may dial again before its old connection has timed out.
    pub max_connections_per_node: usize,
    /// Accepted connections between first packet and hello; more are refused.
    pub max_handshakes: usize,
    /// Handshakes at which an attempt must first prove its address (a QUIC Retry).
    pub retry_above: usize,
    /// Two-way streams a dialler may have open here: subscriptions, fetches, requests.
    pub max_bidi_streams: u32,
    /// Bytes a peer may send on all streams before they are read.
    pub receive_window_bytes: u32,
    /// Bytes a peer may send on one stream before they are read.
    pub stream_receive_window_bytes: u32,
    /// Bytes written here and not yet acknowledged, over all streams of a connection.
    pub send_window_bytes: u64,
    /// See [`IDLE_TIMEOUT`]; here so that a test need not wait for it.
    pub idle_timeout: Duration,
    /// See [`KEEP_ALIVE`].
    pub keep_alive: Duration,
    /// See [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_connections_per_node: 8,
            max_handshakes: 256,
            retry_above: 32,
            max_bidi_streams: 4096,
            receive_window_bytes: 64 << 20,
            stream_receive_window_bytes: 8 << 20,
            send_window_bytes: 32 << 20,
            idle_timeout: IDLE_TIMEOUT,
            keep_alive: KEEP_ALIVE,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

impl Limits {
    /// One-way streams a node that was dialled may have open here: as many small segments as fill
    /// the receive window, so that the byte budget is what bounds them.
    #[must_use]
    pub fn max_uni_streams(&self) -> u32 {
        let streams = u64::from(self.receive_window_bytes) / SMALL_SEGMENT_BYTES;
        u32::try_from(streams).unwrap_or(u32::MAX).max(16)
    }

    /// Tasks serving one connection's streams at once; a stream beyond is reset as busy.
    pub(super) fn max_tasks(&self) -> usize {
        (self.max_bidi_streams as usize).saturating_add(self.max_uni_streams() as usize)
    }

    fn transport(&self, bidi_streams: u32, uni_streams: u32) -> Result<TransportConfig, Error> {
        let idle = IdleTimeout::try_from(self.idle_timeout)
            .map_err(|error| Error::Transport { why: format!("idle timeout: {error}") })?;
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(bidi_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(uni_streams))
            .receive_window(VarInt::from_u32(self.receive_window_bytes))
            .stream_receive_window(VarInt::from_u32(self.stream_receive_window_bytes))
            .send_window(self.send_window_bytes)
            // Streams of one priority go in the order they were written: a segment that is begun
            // is finished before the next, which is what a player needs.
            .send_fairness(false)
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(idle))
            .initial_mtu(INITIAL_MTU)
            .datagram_receive_buffer_size(None)
            .congestion_controller_factory(Arc::new(CubicConfig::default()));
        Ok(transport)
    }
}

/// Streams for which a side has no use today: two-way ones of the node dialled, one-way ones of the
/// dialler. Few, because quinn sets memory aside for each stream a peer might open.
const OTHER_WAY_STREAMS: u32 = 128;

/// What stays the same for an endpoint while its identity changes.
pub(super) struct TransportFactory {
    accepted: Arc<TransportConfig>,
    dialled: Arc<TransportConfig>,
    /// Proofs of address stay good over a change of identity.
    token_key: Arc<hkdf::Prk>,
}

impl TransportFactory {
    pub(super) fn new(limits: &Limits) -> Result<Self, Error> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]);
        Ok(Self {
            accepted: Arc::new(limits.transport(limits.max_bidi_streams, OTHER_WAY_STREAMS)?),
            dialled: Arc::new(limits.transport(OTHER_WAY_STREAMS, limits.max_uni_streams())?),
            token_key: Arc::new(salt.extract(&random_secret()?)),
        })
    }

    pub(super) fn server(&self, identity: &Identity) -> Result<ServerConfig, Error> {
        let tls = identity.server_config().map_err(unusable)?;
        let crypto = QuicServerConfig::try_from(tls).map_err(unusable)?;
        let token_key = Arc::clone(&self.token_key);
        let mut config = ServerConfig::new(Arc::new(crypto), token_key);
        config
            .transport_config(Arc::clone(&self.accepted))
            // A node does not change its address; a packet from another one is a forgery.
            .migration(false)
            .retry_token_lifetime(RETRY_TOKEN_LIFE)
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BUFFER_BYTES)
            .incoming_buffer_size_total(INCOMING_BUFFERS_BYTES);
        Ok(config)
    }

    pub(super) fn client(&self, identity: &Identity) -> Result<ClientConfig, Error> {
        let tls = identity.client_config().map_err(unusable)?;
        let crypto = QuicClientConfig::try_from(tls).map_err(unusable)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::clone(&self.dialled));
        Ok(config)
    }
}

/// The endpoint's own configuration. Its stateless resets (RFC 9000 section 10.3) are derived from
/// the node's key, not from chance: after a crash and restart the node can tell its old peers at
/// once that their connections are gone, instead of leaving them to time out.
pub(super) fn endpoint_config(
    identity: &Identity,
    seed: Option<[u8; 32]>,
) -> Result<EndpointConfig, Error> {
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, reset_secret(identity).as_ref());
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    let id_key = hmac::Key::new(hmac::HMAC_SHA256, &seed.map_or_else(random_secret, Ok)?);
    // quinn's own generator ignores packets with ids of the former life instead of resetting them.
    config.cid_generator(move || Box::new(ConnectionIds { key: id_key.clone(), made: 0 }));
    config.min_reset_interval(MIN_RESET_INTERVAL);
    config.rng_seed(seed);
    Ok(config)
}

fn reset_secret(identity: &Identity) -> hmac::Tag {
    identity.derived_secret(b"tidewater stateless reset 1")
}

fn random_secret() -> Result<[u8; 32], Error> {
    let mut secret = [0; 32];
    match SystemRandom::new().fill(&mut secret) {
        Ok(()) => Ok(secret),
        Err(_) => Err(Error::Transport { why: "no random bytes".to_owned() }),
    }
}

/// Connection ids that nobody can guess or link: a counter under a keyed hash.
struct ConnectionIds {
    key: hmac::Key,
    made: u64,
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.made += 1;
        let tag = hmac::sign(&self.key, &self.made.to_be_bytes());
        ConnectionId::new(&tag.as_ref()[..CONNECTION_ID_BYTES])
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A UDP socket with large buffers; IPv6 ones take IPv4 too.
pub(super) fn bind_socket(address: SocketAddr) -> Result<std::net::UdpSocket, Error> {
    let failed = |error: std::io::Error| Error::Listen { address, why: error.to_string() };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(failed)?;
    if address.is_ipv6() {
        socket.set_only_v6(false).map_err(failed)?;
    }
    // Less than asked for is no reason not to start.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    if let (Ok(receive), Ok(send)) = (socket.recv_buffer_size(), socket.send_buffer_size())
        && receive.min(send) < SOCKET_BUFFER_BYTES
    {
        tracing::info!(
            receive_bytes = receive,
            send_bytes = send,
            wanted_bytes = SOCKET_BUFFER_BYTES,
            "small UDP buffers; raise net.core.rmem_max and net.core.wmem_max for many rooms"
        );
    }
    socket.bind(&address.into()).map_err(failed)?;
    Ok(socket.into())
}

fn unusable(error: impl std::fmt::Display) -> Error {
    Error::Identity { why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_follow_from_the_byte_budget() {
        assert_eq!(Limits::default().max_uni_streams(), 4096);
        let small = Limits { receive_window_bytes: 1 << 10, ..Limits::default() };
        assert_eq!(small.max_uni_streams(), 16);
    }

    #[test]
    fn connection_ids_differ_and_follow_the_seed() {
        let ids = |seed: u8| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &[seed; 32]);
            let mut ids = ConnectionIds { key, made: 0 };
            [ids.generate_cid(), ids.generate_cid()]
        };
        assert_ne!(ids(1)[0], ids(1)[1]);
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
    }

    #[test]
    fn a_taken_address_is_named() {
        let first = bind_socket("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind_socket(address).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}: Address")), "{error}");
    }
}
