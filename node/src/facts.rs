//! What the roles of this process know about rooms, for the admin API.
//!
//! In: each role's own registry, asked when someone asks. Out: one answer per room. Placement is not
//! here: who is home under which epoch comes from the control plane.

use std::sync::Arc;

use parking_lot::RwLock;
use wire::{NodeId, RoomId};

use crate::admin::view::RoomState;

/// What a home knows about a room it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeFacts {
    /// What goes on.
    pub state: RoomState,
    /// The node its publisher is connected to, if there is one.
    pub ingest: Option<NodeId>,
}

/// A role that knows something about rooms.
pub trait RoomFacts: Send + Sync + 'static {
    /// What this role knows as the home of `room`; `None` if it does not hold it.
    fn home(&self, room: &RoomId) -> Option<HomeFacts> {
        let _ = room;
        None
    }

    /// How many viewers of `room` this role serves.
    fn viewers(&self, room: &RoomId) -> u64 {
        let _ = room;
        0
    }
}

/// All roles of this process. Clones share the list.
#[derive(Clone, Default)]
pub struct Facts {
    roles: Arc<RwLock<Vec<Arc<dyn RoomFacts>>>>,
}

impl Facts {
    /// Asks `role` too from now on.
    pub fn add(&self, role: Arc<dyn RoomFacts>) {
        self.roles.write().push(role);
    }

    /// What the home knows about `room`, if it is in this process.
    #[must_use]
    pub fn home(&self, room: &RoomId) -> Option<HomeFacts> {
        self.roles.read().iter().find_map(|role| role.home(room))
    }

    /// Viewers of `room` in this process.
    #[must_use]
    pub fn viewers(&self, room: &RoomId) -> u64 {
        self.roles.read().iter().map(|role| role.viewers(room)).sum()
    }
}
