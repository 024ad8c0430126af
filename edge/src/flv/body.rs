//! HTTP-FLV as the body of a hyper response: what HTTP/2 viewers get, whose connection cannot be taken
//! from hyper.
//!
//! hyper asks for bytes only while the viewer's window is open, so a viewer who takes nothing is not
//! seen from here: a [`watchdog`] per such viewer ends its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::outlet::Outlet;
use super::{Hub, Seat};
use crate::http::connection::Conn;
use crate::metrics::Close;

/// How often a watchdog looks while its viewer has this long.
const LOOKS_PER_LIMIT: u32 = 5;
/// Everything that was made was taken.
const NOTHING_OWED: u64 = u64::MAX;

struct Served {
    seat: Seat,
    outlet: Outlet,
    /// Change count of the hub when hyper last took something; [`NOTHING_OWED`] while it waits.
    owed_since: Arc<AtomicU64>,
    end: Option<Close>,
    _watchdog: AbortOnDropHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.seat.metrics().flv_closed(self.end.unwrap_or(Close::Left));
    }
}

/// The tags for one viewer, until the stream ends.
pub(crate) fn stream(seat: Seat, outlet: Outlet, conn: &Arc<Conn>) -> BoxStream<'static, Bytes> {
    let owed_since = Arc::new(AtomicU64::new(NOTHING_OWED));
    let limit = seat.timeouts().write;
    let hub = Arc::clone(&seat.hub);
    let watchdog = watchdog(hub, Arc::clone(&owed_since), Arc::clone(conn), limit);
    let served = Served {
        seat,
        outlet,
        owed_since,
        end: None,
        _watchdog: AbortOnDropHandle::new(tokio::spawn(watchdog)),
    };
    unfold(served, |mut served| async move {
        let bytes = next(&mut served).await?;
        Some((bytes, served))
    })
    .boxed()
}

async fn next(served: &mut Served) -> Option<Bytes> {
    let mut changes = served.seat.hub.changes();
    loop {
        let version = *changes.borrow_and_update();
        served.end = served.end.or_else(|| served.seat.revoked());
        if served.outlet.is_empty() && served.end.is_none() {
            let ring = served.seat.hub.ring();
            served.end = served.outlet.fill(&ring, Instant::now(), served.seat.metrics());
        }
        if let Some(bytes) = served.outlet.front().cloned() {
            served.outlet.advance(bytes.len(), Instant::now());
            // Taken: whether the next is, remains to be seen.
            served.owed_since.store(version, Ordering::Relaxed);
            return Some(bytes);
        }
        if served.end.is_some() {
            return None;
        }
        served.owed_since.store(NOTHING_OWED, Ordering::Relaxed);
        changes.changed().await.ok()?;
    }
}

/// Ends the connection when its viewer has taken nothing for `limit` although there was
/// something to take.
async fn watchdog(hub: Arc<Hub>, owed_since: Arc<AtomicU64>, conn: Arc<Conn>, limit: Duration) {
    let mut stuck: Option<(u64, Instant)> = None;
    loop {
        tokio::time::sleep(limit / LOOKS_PER_LIMIT).await;
        let owed = owed_since.load(Ordering::Relaxed);
        let version = *hub.changes().borrow();
        let now = Instant::now();
        stuck = match stuck {
            _ if owed == NOTHING_OWED || owed == version => None,
            Some((since, at)) if since == owed => Some((since, at)),
            _ => Some((owed, now)),
        };
        if stuck.is_some_and(|(_, at)| now - at >= limit) {
            conn.condemn();
            return;
        }
    }
}
