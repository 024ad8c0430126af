//! The RTMP port: accepts connections within limits and owns their tasks.
//!
//! In: sockets. Out: one task per connection ([`super::connection`]). A panic there costs that
//! connection only.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span, warn};

use super::{Publishes, connection::Connection};
use crate::metrics::Metrics;

/// How long [`Publishes::open`] may take: 5 s for placement to settle, 3 s against an incumbent, and
/// some slack. After that the encoder is told to try again.
pub const OPEN_TIME: Duration = Duration::from_secs(10);
/// How long accepting pauses after it failed, doubled up to the second value: it fails when the
/// process or the system is out of sockets, which passes only when others close theirs.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The `[rtmp]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// How many connections may be open. At the limit no more are accepted; they wait in the
    /// system's queue.
    pub max_connections: usize,
    /// How many connections one address may have; an IPv6 /64 counts as one. 0 is no limit, for
    /// listeners behind a TCP load balancer. Over the limit a connection is closed at once.
    pub max_connections_per_ip: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 1935)),
            max_connections: 4096,
            max_connections_per_ip: 256,
        }
    }
}

/// A bound RTMP port.
#[derive(Debug)]
pub struct Listener<P> {
    tcp: TcpListener,
    config: Config,
    publishes: Arc<P>,
    metrics: Arc<Metrics>,
}

/// The connections of a running listener.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// Whose task is whose, also for those that panic.
    owners: HashMap<task::Id, IpAddr>,
    per_address: HashMap<IpAddr, usize>,
    accepted: u64,
}

impl<P: Publishes> Listener<P> {
    /// Binds the port.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(
        config: Config,
        publishes: Arc<P>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let tcp = TcpListener::bind(config.listen).await?;
        Ok(Self { tcp, config, publishes, metrics })
    }

    /// Where it listens, with the real port.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Accepts until `shutdown` is cancelled; then tells all encoders to go elsewhere and returns
    /// once their connections are closed, which takes some seconds at most. Dropping the future
    /// closes all connections at once.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut connections = Connections::default();
        let mut pause: Option<(Instant, Duration)> = None;
        loop {
            let full = connections.tasks.len() >= self.config.max_connections;
            let paused_until = pause.map(|(until, _)| until).filter(|at| *at > Instant::now());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = connections.tasks.join_next_with_id() => connections.ended(ended),
                () = sleep_until(paused_until.unwrap_or_else(Instant::now)),
                    if paused_until.is_some() => {}
                accepted = self.tcp.accept(), if !full && paused_until.is_none() => match accepted {
                    Ok((stream, peer)) => {
                        pause = None;
                        self.start(&mut connections, stream, peer, &shutdown);
                    }
                    // The peer gave up while it waited.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        let length = pause.map_or(ACCEPT_PAUSE.0, |(_, length)| {
                            (2 * length).min(ACCEPT_PAUSE.1)
                        });
                        warn!(%error, pause_ms = length.as_millis(), "cannot accept RTMP connections");
                        pause = Some((Instant::now() + length, length));
                    }
                },
            }
        }
        drop(self.tcp);
        while let Some(ended) = connections.tasks.join_next_with_id().await {
            connections.ended(ended);
        }
    }

    fn start(
        &self,
        connections: &mut Connections,
        stream: TcpStream,
        peer: SocketAddr,
        shutdown: &CancellationToken,
    ) {
        let address = counted_as(peer.ip());
        let open = connections.per_address.get(&address).copied().unwrap_or_default();
        let limit = self.config.max_connections_per_ip;
        if limit > 0 && open >= limit {
            self.metrics.refuse("too_many_connections");
            debug!(%peer, limit, "connection refused; raise rtmp.max_connections_per_ip if needed");
            return;
        }
        connections.accepted += 1;
        let span = info_span!("rtmp", conn = connections.accepted, %peer);
        let connection = Connection {
            stream,
            peer,
            publishes: Arc::clone(&self.publishes),
            metrics: Arc::clone(&self.metrics),
            shutdown: shutdown.clone(),
        };
        let task = connections.tasks.spawn(connection.run().instrument(span));
        connections.owners.insert(task.id(), address);
        connections.per_address.insert(address, open + 1);
        if connections.tasks.len() == self.config.max_connections {
            let limit = self.config.max_connections;
            warn!(limit, "all RTMP connections are taken; raise rtmp.max_connections");
        }
    }
}

impl Connections {
    fn ended(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        if let Some(address) = self.owners.remove(&id)
            && let Some(open) = self.per_address.get_mut(&address)
        {
            *open -= 1;
            if *open == 0 {
                self.per_address.remove(&address);
            }
        }
        if let Err(error) = ended
            && error.is_panic()
        {
            error!(%error, "an RTMP connection panicked; please report this");
        }
    }
}

/// What connections are counted by: a host has one IPv4 address, but a whole IPv6 /64.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_counts_as_one_and_mapped_addresses_as_ipv4() {
        let counted = |text: &str| counted_as(text.parse().unwrap()).to_string();
        assert_eq!(counted("192.0.2.7"), "192.0.2.7");
        assert_eq!(counted("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
