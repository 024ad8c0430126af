//! Rooms: grants, moves, removal, and the numbers that only go up.
//!
//! In: commands from [`State::apply`]. Out: grants. An epoch is the index of the entry that made
//! it, so that no two grants ever share one. Every placement names the epoch it was decided
//! against, so that of two decisions made at once the second finds the first.

use std::collections::BTreeMap;
use std::ops::Bound;

use wire::control::{Answer, Grant, Refusal, Roles};
use wire::{Epoch, NodeId, Region, RoomId};

use crate::planted::{Bug, is_planted};

use super::{Changes, MAX_ROOMS, MSN_PER_SECOND, MSN_SPARE, Room, State};

/// How far above what the clock says a node may say that numbers have come: 136 years of segments. A
/// number beyond is a fault of that node and must not push all rooms to the end of the range.
const MAX_MSN_RUN: u64 = 1 << 32;

impl State {
    /// The grant of a room, if it is active.
    #[must_use]
    pub fn grant(&self, room: &RoomId) -> Option<Grant> {
        self.rooms.get(room).map(|placed| self.grant_of(room, placed))
    }

    /// The placement of a room, if it is active.
    #[must_use]
    pub fn room(&self, room: &RoomId) -> Option<&Room> {
        self.rooms.get(room)
    }

    /// All grants of rooms after `after`, in the order of their names.
    pub fn grants(&self, after: Option<&RoomId>) -> impl Iterator<Item = Grant> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rooms = self.rooms.range::<RoomId, _>((from, Bound::Unbounded));
        rooms.map(|(room, placed)| self.grant_of(room, placed))
    }

    /// How many rooms are active.
    #[must_use]
    pub fn room_count(&self) -> usize {
        self.rooms.len()
    }

    /// The rooms that a node is home of.
    pub fn rooms_of(&self, home: &NodeId) -> impl ExactSizeIterator<Item = &RoomId> + '_ {
        static NONE: std::collections::BTreeSet<RoomId> = std::collections::BTreeSet::new();
        self.homes.get(home).unwrap_or(&NONE).iter()
    }

    fn grant_of(&self, room: &RoomId, placed: &Room) -> Grant {
        // A home stays in the table while it has rooms (`forget` and `remove_node` see to it).
        let home_addr = self
            .nodes
            .get(&placed.home)
            .map_or_else(|| ([0, 0, 0, 0], 0).into(), |node| node.spec.addr);
        Grant {
            room: room.clone(),
            home: placed.home.clone(),
            home_addr,
            epoch: placed.epoch,
            generation: placed.generation,
            msn_base: placed.msn_base,
        }
    }

    /// The lowest media sequence number for an activation now. Well above `last`, the base of the
    /// grant before; above all numbers of removed rooms; and above what a room can have used since its
    /// own activation, as time outruns segments.
    fn next_msn_base(&self, last: Option<u64>) -> u64 {
        let by_clock = self.clock_s.saturating_mul(MSN_PER_SECOND);
        let above_last = last.map_or(0, |base| base.saturating_add(MSN_SPARE));
        by_clock.max(self.msn_floor).max(above_last)
    }

    /// Takes note that numbers below `floor` are in use, unless that cannot be.
    pub(super) fn raise_msn_floor(&mut self, floor: u64) {
        let believable = self.next_msn_base(None).saturating_add(MAX_MSN_RUN);
        if floor <= believable {
            self.msn_floor = self.msn_floor.max(floor);
        }
    }

    pub(super) fn place(
        &mut self,
        room: RoomId,
        home: NodeId,
        ingest: Option<NodeId>,
        replaces: Option<Epoch>,
        changes: &mut Changes,
    ) -> Result<Answer, Refusal> {
        let current = self.rooms.get(&room);
        if current.map(|placed| placed.epoch) != replaces {
            // Someone was faster. Whoever wanted the room placed finds it placed.
            return match self.grant(&room) {
                Some(grant) => Ok(Answer::Grant(grant)),
                None => Err(Refusal::StaleEpoch { current: None }),
            };
        }
        match self.nodes.get(&home) {
            None => return Err(Refusal::UnknownNode(home)),
            Some(node) if !node.spec.roles.has(Roles::ORIGIN) => return Err(Refusal::NoHome),
            Some(_) => {}
        }
        if current.is_none() && self.rooms.len() >= MAX_ROOMS {
            return Err(Refusal::Overloaded(format!("the cluster has {MAX_ROOMS} rooms")));
        }
        let placed = Room {
            epoch: Epoch(self.revision),
            generation: current.map_or(self.revision, |placed| placed.generation),
            msn_base: self.next_msn_base(current.map(|placed| placed.msn_base)),
            ingest: ingest.or_else(|| current.and_then(|placed| placed.ingest.clone())),
            hubs: current.map_or_else(BTreeMap::new, |placed| placed.hubs.clone()),
            home: home.clone(),
        };
        let grant = self.grant_of(&room, &placed);
        if let Some(old) = self.rooms.insert(room.clone(), placed) {
            self.unlist_home(&old.home, &room);
        }
        self.homes.entry(home).or_default().insert(room.clone());
        changes.rooms.insert(room);
        Ok(Answer::Grant(grant))
    }

    /// Grants every room of a home anew, to the same home.
    pub(super) fn renew(&mut self, home: &NodeId, changes: &mut Changes) {
        for room in self.homes.get(home).cloned().unwrap_or_default() {
            let Some(last) = self.rooms.get(&room).map(|placed| placed.msn_base) else { continue };
            let msn_base = self.next_msn_base(Some(last));
            if let Some(placed) = self.rooms.get_mut(&room) {
                placed.epoch = Epoch(self.revision);
                placed.msn_base = msn_base;
            }
            changes.rooms.insert(room);
        }
    }

    pub(super) fn release(
        &mut self,
        room: &RoomId,
        epoch: Epoch,
        next_msn: u64,
        changes: &mut Changes,
    ) -> Result<Answer, Refusal> {
        match self.rooms.get(room) {
            None => Ok(Answer::Done),
            Some(placed) if placed.epoch == epoch || is_planted(Bug::IgnoreEpoch) => {
                Ok(self.remove_room(room, next_msn, changes))
            }
            Some(placed) => Err(Refusal::StaleEpoch { current: Some(placed.epoch) }),
        }
    }

    pub(super) fn remove_room(
        &mut self,
        room: &RoomId,
        next_msn: u64,
        changes: &mut Changes,
    ) -> Answer {
        if let Some(placed) = self.rooms.remove(room) {
            self.msn_floor = self.msn_floor.max(placed.msn_base.saturating_add(MSN_SPARE));
            self.raise_msn_floor(next_msn);
            self.unlist_home(&placed.home, room);
            changes.rooms.insert(room.clone());
        }
        Answer::Done
    }

    pub(super) fn set_hub(
        &mut self,
        room: &RoomId,
        region: Region,
        hub: Option<NodeId>,
        changes: &mut Changes,
    ) -> Result<Answer, Refusal> {
        if let Some(hub) = &hub
            && !self.nodes.contains_key(hub)
        {
            return Err(Refusal::UnknownNode(hub.clone()));
        }
        let placed = self.rooms.get_mut(room).ok_or_else(|| Refusal::UnknownRoom(room.clone()))?;
        let changed = match hub {
            Some(hub) => placed.hubs.insert(region, hub.clone()) != Some(hub),
            None => placed.hubs.remove(&region).is_some(),
        };
        if changed {
            changes.rooms.insert(room.clone());
        }
        Ok(Answer::Done)
    }

    fn unlist_home(&mut self, home: &NodeId, room: &RoomId) {
        if let Some(rooms) = self.homes.get_mut(home) {
            rooms.remove(room);
            if rooms.is_empty() {
                self.homes.remove(home);
            }
        }
    }
}
