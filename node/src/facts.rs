//! What the roles of this process know, for the admin API.
//!
//! In: each role's own registries, asked when someone asks. Out: one answer per room, and why the
//! process is not ready. Placement is not here: who is home under which epoch comes from the control
//! plane.

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

/// A running role, as far as the admin API asks it. Answers at once, from memory.
pub trait RoleFacts: Send + Sync + 'static {
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

    /// Why this role should be sent nobody now, for the operator.
    fn not_ready(&self) -> Option<String> {
        None
    }
}

/// All roles of this process. Clones share the list.
#[derive(Clone, Default)]
pub struct Facts {
    roles: Arc<RwLock<Vec<Arc<dyn RoleFacts>>>>,
}

impl Facts {
    /// Asks `role` too from now on.
    pub fn add(&self, role: Arc<dyn RoleFacts>) {
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

    /// Why this process should be sent nobody now; empty when it may.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        self.roles.read().iter().filter_map(|role| role.not_ready()).collect()
    }
}
