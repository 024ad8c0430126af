//! This node's place in the node table: registration and heartbeats.
//!
//! In: the node's row and load. Out: [`Standing`]. A leader that does not know the node's
//! incarnation is told the row first; a node that was removed for good stays out until it is added.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use wire::control::{Answer, Ask, Refusal};

use super::Shared;
use super::link::To;
use crate::Error;
use crate::leases::{HEARTBEAT_EVERY, LEASE};

/// How long one heartbeat may take: a later answer is as good as none.
const BEAT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a node that was removed for good asks again.
const REMOVED_EVERY: Duration = Duration::from_secs(10);

/// Where a node stands with the control plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether a leader has the node in its table.
    pub is_registered: bool,
    /// Whether a leader answered within the last lease. A home that cannot reach the leader keeps
    /// its rooms but takes no new one.
    pub sees_leader: bool,
    /// Whether the node was removed from the cluster for good.
    pub is_removed: bool,
}

/// Registers and heartbeats for as long as the client lives.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut every = interval(HEARTBEAT_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_answer: Option<Instant> = None;
    loop {
        every.tick().await;
        match beat(&shared).await {
            Beat::Known => {
                last_answer = Some(Instant::now());
                note(&shared, |standing| {
                    *standing =
                        Standing { is_registered: true, sees_leader: true, is_removed: false };
                });
            }
            Beat::Unknown => register(&shared).await,
            Beat::Removed => {
                refuse_removed(&shared);
                tokio::time::sleep(REMOVED_EVERY).await;
            }
            Beat::Failed => {}
        }
        if last_answer.is_none_or(|at| at.elapsed() > LEASE) {
            note(&shared, |standing| standing.sees_leader = false);
        }
    }
}

/// How a heartbeat went.
enum Beat {
    Known,
    Unknown,
    Removed,
    Failed,
}

async fn beat(shared: &Shared) -> Beat {
    let ask = Ask::Heartbeat {
        node: shared.spec.id.clone(),
        incarnation: shared.spec.incarnation,
        load: shared.load.read(),
    };
    let line = &shared.line;
    // The next heartbeat is the retry, so that only a hint is followed here.
    for _ in 0..2 {
        let target = line.target(To::Leader);
        match timeout(BEAT_TIMEOUT, line.attempt(&target, ask.clone())).await {
            Ok(Ok(Ok(Answer::Beat { revision, .. }))) => {
                shared.leader_revision.store(revision, Ordering::Relaxed);
                line.note_leader(target);
                return Beat::Known;
            }
            Ok(Ok(Err(Refusal::Unregistered))) => return Beat::Unknown,
            Ok(Ok(Err(Refusal::Removed(_)))) => return Beat::Removed,
            Ok(Ok(Err(Refusal::NotLeader { hint }))) => {
                if !line.note_hint(&target, hint) {
                    return Beat::Failed;
                }
            }
            // An empty control node, or one that restarts: another one may know who leads.
            Ok(Ok(Err(Refusal::Unavailable(why)))) => {
                line.note_failure(&target, why);
                return Beat::Failed;
            }
            // The leader is there but cannot answer now.
            Ok(Ok(_)) => return Beat::Failed,
            Ok(Err(error)) => {
                tracing::debug!(node = %target.0, %error, "heartbeat failed");
                line.note_failure(&target, String::new());
                return Beat::Failed;
            }
            Err(_) => {
                line.note_failure(&target, String::new());
                return Beat::Failed;
            }
        }
    }
    Beat::Failed
}

async fn register(shared: &Shared) {
    let ask = Ask::Register { spec: shared.spec.clone() };
    match shared.line.ask(ask, To::Leader).await {
        Ok(_) => {
            tracing::info!(node = %shared.spec.id, "registered with the control plane");
            note(shared, |standing| {
                *standing = Standing { is_registered: true, sees_leader: true, is_removed: false };
            });
        }
        Err(Error::Refused(Refusal::Removed(_))) => refuse_removed(shared),
        Err(Error::Refused(refusal)) => {
            tracing::warn!(node = %shared.spec.id, %refusal, "the control plane refuses this node");
        }
        Err(error) => tracing::debug!(%error, "not registered yet"),
    }
}

fn refuse_removed(shared: &Shared) {
    if !shared.standing.borrow().is_removed {
        tracing::warn!(
            node = %shared.spec.id,
            "this node was removed from the cluster; `tidewater cluster add` takes it back"
        );
    }
    note(shared, |standing| {
        *standing = Standing { is_removed: true, ..Standing::default() };
    });
}

fn note(shared: &Shared, change: impl FnOnce(&mut Standing)) {
    shared.standing.send_if_modified(|standing| {
        let before = *standing;
        change(standing);
        *standing != before
    });
    let sees_leader = shared.standing.borrow().sees_leader;
    shared.line.metrics.leader_seen.set(i64::from(sees_leader));
}
