//! One connection after its hello: every stream the peer opens goes to the service of its kind.
//!
//! In: streams from quinn. Out: a task per stream, in a set that belongs to the connection. A
//! stream that no service wants, or beyond the limit, is reset and counted; it costs nothing else.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::{JoinError, JoinSet},
    time::timeout,
};
use tracing::Instrument;

use super::{Peer, Shared, read};
use crate::{
    Error,
    error::ResetCode,
    metrics::Metrics,
    service::{Stream, StreamKind},
    stream::{Receiver, Sender},
};

/// How long a stream may be open before its first byte.
pub const KIND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the tasks of a connection may go on after it has ended, before they are aborted.
pub const SERVICE_END_GRACE: Duration = Duration::from_secs(1);

/// Serves a connection until it has ended.
pub(super) async fn drive(shared: Arc<Shared>, peer: Arc<Peer>) {
    let direction = if peer.is_dialled() { "dialled" } else { "accepted" };
    let (node, address) = (peer.node(), peer.address());
    let span = tracing::debug_span!("peer", %node, %address);
    async {
        let up = shared.metrics.connections.with_label_values(&[direction]);
        let _up = Up::new(&up);
        // Named here too: at this level the span is not shown.
        tracing::info!(%node, %address, direction, version = peer.version(), "node connected");
        let mut tasks = JoinSet::new();
        let ended = dispatch(&shared, &peer, &mut tasks).await;
        tracing::info!(%node, %address, direction, why = %ended, "node disconnected");
        let all_ended = async {
            while let Some(task) = tasks.join_next().await {
                note_failure(&shared.metrics, task);
            }
        };
        if timeout(SERVICE_END_GRACE, all_ended).await.is_err() {
            tracing::debug!("services outlive their connection and are aborted");
            tasks.shutdown().await;
        }
    }
    .instrument(span)
    .await;
}

async fn dispatch(shared: &Arc<Shared>, peer: &Arc<Peer>, tasks: &mut JoinSet<()>) -> Error {
    let max_tasks = shared.limits.max_tasks();
    loop {
        let (sender, receiver) = tokio::select! {
            opened = peer.connection().accept_bi() => match opened {
                Ok((sender, receiver)) => (Some(Sender::new(sender)), Receiver::new(receiver)),
                Err(error) => return Error::from_connection(&error),
            },
            opened = peer.connection().accept_uni() => match opened {
                Ok(receiver) => (None, Receiver::new(receiver)),
                Err(error) => return Error::from_connection(&error),
            },
            Some(task) = tasks.join_next() => {
                note_failure(&shared.metrics, task);
                continue;
            }
        };
        if tasks.len() >= max_tasks {
            refuse(shared, sender, receiver, ResetCode::Busy, "busy");
            continue;
        }
        let serving = serve(Arc::clone(shared), Arc::clone(peer), sender, receiver);
        tasks.spawn(serving.in_current_span());
    }
}

/// Reads the kind of a stream and runs its service.
async fn serve(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    sender: Option<Sender>,
    mut receiver: Receiver,
) {
    let byte = match timeout(KIND_TIMEOUT, receiver.read_kind()).await {
        Ok(Ok(Some(byte))) => byte,
        // Given up by the peer before it began, or lost with the connection: nobody to tell.
        Ok(Ok(None) | Err(_)) => return,
        Err(_) => return refuse(&shared, sender, receiver, ResetCode::TimedOut, "no_kind"),
    };
    let Some(kind) = StreamKind::from_byte(byte) else {
        tracing::debug!(byte, "stream of an unknown kind");
        return refuse(&shared, sender, receiver, ResetCode::UnknownKind, "unknown_kind");
    };
    if kind.is_one_way() == sender.is_some() {
        tracing::debug!(%kind, "stream opened the wrong way");
        return refuse(&shared, sender, receiver, ResetCode::UnknownKind, "wrong_way");
    }
    let service = read(&shared.services).of(kind);
    let Some(service) = service else {
        tracing::debug!(%kind, "no service for the stream");
        return refuse(&shared, sender, receiver, ResetCode::UnknownKind, "no_service");
    };
    service.serve(peer, Stream { kind, sender, receiver }).await;
}

fn refuse(
    shared: &Shared,
    sender: Option<Sender>,
    mut receiver: Receiver,
    code: ResetCode,
    reason: &'static str,
) {
    shared.metrics.streams_refused.with_label_values(&[reason]).inc();
    receiver.stop(code);
    if let Some(mut sender) = sender {
        sender.reset(code);
    }
}

/// Counts a task that ended by a panic. Tasks are aborted on purpose only.
pub(super) fn note_failure(metrics: &Metrics, task: Result<(), JoinError>) {
    if let Err(error) = task
        && error.is_panic()
    {
        metrics.services_failed.inc();
        tracing::error!(%error, "a task of a link between nodes panicked");
    }
}

/// Counts a connection as up for as long as it is driven, aborted drivers included.
struct Up<'a> {
    gauge: &'a prometheus::IntGauge,
}

impl<'a> Up<'a> {
    fn new(gauge: &'a prometheus::IntGauge) -> Self {
        gauge.inc();
        Self { gauge }
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
