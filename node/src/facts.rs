//! What the roles of this process know, for the admin API.
//!
//! In: the handles of running roles, asked when someone asks. Out: one answer per room, and why the
//! process should be sent nobody. Placement is not here: who is home under which epoch comes from the
//! control plane.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use wire::RoomId;

/// A role's own word on why it should be sent nobody now; `None` when it may.
pub type NotReady = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// How often a process that starts looks whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// All roles of this process. Clones share the lists.
#[derive(Clone, Default)]
pub struct Facts {
    origins: Arc<RwLock<Vec<origin::Rooms>>>,
    not_ready: Arc<RwLock<Vec<NotReady>>>,
}

impl Facts {
    /// Asks this origin about rooms from now on.
    pub fn add_origin(&self, rooms: origin::Rooms) {
        self.origins.write().push(rooms);
    }

    /// Asks this before the process is called ready.
    pub fn add_condition(&self, not_ready: NotReady) {
        self.not_ready.write().push(not_ready);
    }

    /// What the home of `room` knows of it, if the home is in this process.
    #[must_use]
    pub fn room(&self, room: &RoomId) -> Option<origin::RoomReport> {
        self.origins.read().iter().find_map(|rooms| rooms.get(room))
    }

    /// The origin of this process, if it has one.
    #[must_use]
    pub fn origin(&self) -> Option<origin::Rooms> {
        self.origins.read().first().cloned()
    }

    /// Ends the stream of `room` at once and tells its publisher why; whether its home is in this process.
    pub async fn stop(&self, room: &RoomId, why: &str) -> bool {
        let origins = self.origins.read().clone();
        for origin in origins {
            if origin.stop(room, why).await {
                return true;
            }
        }
        false
    }

    /// Why this process should be sent nobody now; empty when it may.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        self.not_ready.read().iter().filter_map(|condition| condition()).collect()
    }

    /// Waits until nothing stands against being ready, for at most `limit`; whether it came to that.
    pub async fn ready_within(&self, limit: Duration) -> bool {
        let ready = async {
            while !self.not_ready().is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(limit, ready).await.is_ok()
    }
}
