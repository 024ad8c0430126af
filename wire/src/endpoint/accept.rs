//! Accepting connections: admission, handshake, hello, and then one driver per connection.
//!
//! In: connection attempts from quinn. Out: [`Peer`]s driven by [`super::dispatch`], or refusals,
//! counted by reason. Under a flood of attempts peers must prove their address first (Retry), and
//! what is over the limits is refused unread.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use quinn::{Connection, Incoming};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use super::{Peer, Shared, certified_node, dispatch, read, read_hello, refuse};
use crate::{
    Error, NodeId,
    error::CloseCode,
    hello::Hello,
    service::StreamKind,
    stream::{Receiver, Sender},
};

/// Accepts until the endpoint is closed, then waits for the connections to end.
pub(super) async fn run(quinn: quinn::Endpoint, shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(shared.limits.max_handshakes));
    let refusals = Arc::new(Throttle::default());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = quinn.accept() => {
                let Some(incoming) = incoming else { break };
                if let Some((incoming, permit)) = admit(&shared, &handshakes, incoming) {
                    let serving = serve(Arc::clone(&shared), Arc::clone(&refusals), incoming, permit);
                    connections.spawn(serving);
                }
            }
            Some(ended) = connections.join_next() => {
                dispatch::note_failure(&shared.metrics, ended);
            }
        }
    }
    while let Some(ended) = connections.join_next().await {
        dispatch::note_failure(&shared.metrics, ended);
    }
}

/// Lets an attempt in, sends it away to prove its address, or refuses it; all without waiting.
fn admit(
    shared: &Shared,
    handshakes: &Arc<Semaphore>,
    incoming: Incoming,
) -> Option<(Incoming, OwnedSemaphorePermit)> {
    let limits = &shared.limits;
    let running = limits.max_handshakes.saturating_sub(handshakes.available_permits());
    if running >= limits.retry_above && incoming.may_retry() && !incoming.remote_address_validated()
    {
        shared.metrics.retries.inc();
        // Cannot fail: it was asked just before whether it may.
        let _ = incoming.retry();
        return None;
    }
    let Ok(permit) = Arc::clone(handshakes).try_acquire_owned() else {
        shared.metrics.connections_refused.with_label_values(&["too_many_handshakes"]).inc();
        incoming.refuse();
        return None;
    };
    Some((incoming, permit))
}

/// One accepted connection, from its first packet to its end.
async fn serve(
    shared: Arc<Shared>,
    refusals: Arc<Throttle>,
    incoming: Incoming,
    permit: OwnedSemaphorePermit,
) {
    let address = incoming.remote_address();
    let met = meet(&shared, incoming).await;
    drop(permit);
    match met {
        // Held until the connection has ended: it counts for as long.
        Ok((peer, _place)) => dispatch::drive(shared, Arc::new(peer)).await,
        Err(error) => {
            shared.metrics.connections_refused.with_label_values(&[error.reason()]).inc();
            // An operator who adds a node looks for this line; a flood must not fill the log.
            if refusals.allows(Instant::now()) {
                tracing::info!(%address, reason = error.reason(), %error, "node refused");
            } else {
                tracing::debug!(%address, reason = error.reason(), %error, "node refused");
            }
        }
    }
}

async fn meet(shared: &Arc<Shared>, incoming: Incoming) -> Result<(Peer, Place), Error> {
    let connecting = incoming.accept().map_err(|error| Error::from_connection(&error))?;
    let after = shared.limits.handshake_timeout;
    let connection = match timeout(after, connecting).await {
        Ok(connected) => connected.map_err(|error| Error::from_connection(&error))?,
        Err(_) => {
            return Err(Error::TimedOut { what: "TLS handshake", after });
        }
    };
    let answered = match timeout(after, answer(shared, &connection)).await {
        Ok(answered) => answered,
        Err(_) => Err(Error::TimedOut { what: "hello", after }),
    };
    let (hello, version, place) = answered.inspect_err(|error| refuse(&connection, error))?;
    Ok((Peer::new(hello, version, false, connection), place))
}

/// The accepting half of the hello: reads the dialler's, then says its own.
async fn answer(
    shared: &Arc<Shared>,
    connection: &Connection,
) -> Result<(Hello, u16, Place), Error> {
    let certified = certified_node(connection)?;
    let place = Place::take(shared, &certified)?;
    let opened = connection.accept_bi().await.map_err(|error| Error::from_connection(&error))?;
    let (mut sender, mut receiver) = (Sender::new(opened.0), Receiver::new(opened.1));
    if receiver.read_kind().await? != Some(StreamKind::Hello.byte()) {
        return Err(Error::invalid("hello", "the first stream is of another kind"));
    }
    let frame = read_hello(&mut receiver).await?;
    let ours = read(&shared.hello).clone();
    let (hello, version) = ours.meet(&frame, &certified)?;
    sender.write_message(&ours).await?;
    sender.finish();
    Ok((hello, version, place))
}

/// A connection's place under the limits; given back when dropped.
struct Place {
    shared: Arc<Shared>,
    node: NodeId,
}

impl Place {
    fn take(shared: &Arc<Shared>, node: &NodeId) -> Result<Self, Error> {
        let limits = &shared.limits;
        let mut accepted = shared.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |reason| Error::Refused { code: CloseCode::TooManyConnections, reason };
        if accepted.values().sum::<usize>() >= limits.max_connections {
            return Err(refused(format!("{} connections are up", limits.max_connections)));
        }
        let of_node = accepted.entry(node.clone()).or_default();
        if *of_node >= limits.max_connections_per_node {
            return Err(refused(format!("{of_node} connections of {node} are up")));
        }
        *of_node += 1;
        Ok(Self { shared: Arc::clone(shared), node: node.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut accepted = self.shared.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = accepted.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                accepted.remove(&self.node);
            }
        }
    }
}

/// Lets one event through per second.
struct Throttle {
    started: Instant,
    /// The last second since `started` that had one, plus 1.
    last: AtomicU64,
}

impl Throttle {
    fn allows(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.started).as_secs() + 1;
        self.last.fetch_max(second, Ordering::Relaxed) < second
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self { started: Instant::now(), last: AtomicU64::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_throttle_lets_one_through_per_second() {
        let throttle = Throttle::default();
        let at = |ms| throttle.started + Duration::from_millis(ms);
        let passed: Vec<_> = [0, 1, 999, 1000, 1001, 500, 5000]
            .into_iter()
            .filter(|ms| throttle.allows(at(*ms)))
            .collect();
        assert_eq!(passed, [0, 1000, 5000]);
    }
}
