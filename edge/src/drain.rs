//! An edge whose viewers should go elsewhere while it goes on serving those who stay.
//!
//! In: the operator's drain of the node, and its end. Out: `/readyz` says no, connections end with their
//! next answer (`Connection: close`, GOAWAY), and FLV ends room by room over [`SPREAD`], so that players
//! come back through whatever sends them to an edge. Nobody is refused: whoever has no other edge
//! stays.
//!
//! A shutdown is something else: see [`crate::Edge::shutdown`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::room::registry::Rooms;

/// Over how long the viewers of all rooms are sent away.
pub(crate) const SPREAD: Duration = Duration::from_secs(10);
/// The longest pause between two rooms.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Tells an edge that it drains. Clones are the same handle.
#[derive(Debug, Clone)]
pub struct Drain {
    pub(crate) sender: watch::Sender<bool>,
}

impl Drain {
    /// Begins or ends the drain. Saying the same again changes nothing.
    pub fn set(&self, draining: bool) {
        self.sender.send_if_modified(|now| std::mem::replace(now, draining) != draining);
    }
}

/// Ends the FLV of every room, one after the other, each time a drain begins. Never returns.
pub(crate) async fn depart(rooms: Arc<Rooms>, mut draining: watch::Receiver<bool>) {
    while draining.wait_for(|draining| *draining).await.is_ok() {
        let open = rooms.all_open();
        tracing::info!(rooms = open.len(), "draining: viewers are sent elsewhere");
        let pause = (SPREAD / u32::try_from(open.len()).unwrap_or(u32::MAX).max(1)).min(MAX_PAUSE);
        for room in open {
            room.dismiss();
            tokio::select! {
                () = sleep(pause) => {}
                _ = draining.wait_for(|draining| !*draining) => break,
            }
        }
        if draining.wait_for(|draining| !*draining).await.is_err() {
            break;
        }
        tracing::info!("the drain is over");
    }
    std::future::pending::<()>().await;
}
