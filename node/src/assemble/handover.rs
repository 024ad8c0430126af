//! A stop is a drain: the rooms of a node go to other homes before the node does.
//!
//! In: the rooms at home here, when the node is told to stop. Out: a drain asked of the control plane,
//! and the wait until the last room has moved. Without another origin, without a leader or over
//! [`HAND_OVER_TIME`] the node leaves all the same, and its rooms are placed anew when it is missed.
//!
//! The drain ends with the next start of the node, as every drain does.

use std::time::Duration;

use cluster::Client;
use origin::Rooms;
use tokio::time::{Instant, sleep, timeout_at};
use wire::control::Roles;

/// How long a stop waits for its rooms to move. Twice what a move of sixteen rooms takes.
const HAND_OVER_TIME: Duration = Duration::from_secs(2);
/// How often it is looked whether rooms are left.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Moves `rooms` to other nodes, until `deadline` at the latest.
pub(super) async fn hand_over(client: &Client, rooms: &Rooms, deadline: Instant) {
    let count = rooms.all().len();
    if count == 0 || !has_another_origin(client) {
        return;
    }
    let node = client.node();
    let begun = Instant::now();
    let deadline = deadline.min(begun + HAND_OVER_TIME);
    match timeout_at(deadline, client.drain(node, true)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return tracing::warn!(%node, %error, "rooms are not handed over"),
        Err(_) => return tracing::warn!(%node, "rooms are not handed over: nobody leads"),
    }
    while !rooms.all().is_empty() {
        if Instant::now() >= deadline {
            let left = rooms.all().len();
            return tracing::warn!(%node, left, "rooms are left that have not moved in time");
        }
        sleep(LOOK_EVERY).await;
    }
    tracing::info!(%node, rooms = count, elapsed = ?begun.elapsed(), "rooms handed over");
}

fn has_another_origin(client: &Client) -> bool {
    let nodes = client.nodes();
    let nodes = nodes.borrow();
    let others = nodes.up().filter(|row| row.spec.id != *client.node());
    others.map(|row| &row.spec).any(|spec| spec.roles.has(Roles::ORIGIN))
}
