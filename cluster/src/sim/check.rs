//! What must hold, checked as it happens.
//!
//! In: what members believe, what was asked and answered, what edges saw. Out: the first promise
//! that was broken. Knows nothing of how the cluster works, only of what it promises.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};

use wire::control::{Answer, Ask, Grant, KeyId};
use wire::{Epoch, NodeId, RoomId};

/// A promise that was broken, in words.
pub(super) type Violation = String;

/// All that is known of a run.
#[derive(Debug, Default)]
pub(super) struct Checker {
    leaders: BTreeMap<u64, NodeId>,
    digests: BTreeMap<u64, u64>,
    homes: BTreeMap<(RoomId, Epoch), (NodeId, u64)>,
    acknowledged: BTreeMap<RoomId, Grant>,
    /// The highest epoch for which a removal of the room was asked.
    released: BTreeMap<RoomId, Epoch>,
    keys: BTreeSet<KeyId>,
    next_key: u64,
    contents: BTreeMap<(RoomId, Epoch, u64), u64>,
}

/// What had to be true of an answer when its question was asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Expectation {
    /// The highest epoch of the room that was acknowledged.
    epoch: Option<Epoch>,
    /// Whether the key had been acknowledged.
    has_key: bool,
}

impl Checker {
    /// A member says that it leads.
    pub(super) fn leads(&mut self, term: u64, node: &NodeId) -> Result<(), Violation> {
        match self.leaders.insert(term, node.clone()) {
            Some(other) if other != *node => {
                Err(format!("term {term} has two leaders, {other} and {node}"))
            }
            _ => Ok(()),
        }
    }

    /// A member has applied everything up to a revision.
    pub(super) fn applied(
        &mut self,
        node: &NodeId,
        revision: u64,
        state: &[u8],
    ) -> Result<(), Violation> {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let digest = hasher.finish();
        match self.digests.insert(revision, digest) {
            Some(other) if other != digest => {
                Err(format!("{node} differs from another member at revision {revision}"))
            }
            _ => Ok(()),
        }
    }

    /// A grant was seen anywhere.
    pub(super) fn granted(&mut self, grant: &Grant) -> Result<(), Violation> {
        let place = (grant.room.clone(), grant.epoch);
        let holds = (grant.home.clone(), grant.msn_base);
        let older = self.homes.range((grant.room.clone(), Epoch(0))..place.clone()).next_back();
        if let Some((_, (_, base))) = older
            && *base >= grant.msn_base
        {
            return Err(format!("{} starts no higher than an epoch before", short(grant)));
        }
        match self.homes.insert(place, holds.clone()) {
            Some(other) if other != holds => {
                Err(format!("{} was granted to {} as well", short(grant), other.0))
            }
            _ => Ok(()),
        }
    }

    /// A question is being asked.
    pub(super) fn asked(&mut self, ask: &Ask) -> Expectation {
        match ask {
            Ask::Release { room, epoch, .. } => {
                let known = self.released.entry(room.clone()).or_default();
                *known = (*known).max(*epoch);
                Expectation::default()
            }
            Ask::Claim { room, .. } | Ask::Confirm { room, .. } => {
                let epoch = self.acknowledged.get(room).map(|grant| grant.epoch);
                Expectation { epoch, ..Expectation::default() }
            }
            Ask::CheckKey { hash, .. } => {
                let mut id = [0; 8];
                id.copy_from_slice(&hash.0[..8]);
                let has_key = self.keys.contains(&KeyId(u64::from_be_bytes(id)));
                Expectation { has_key, ..Expectation::default() }
            }
            _ => Expectation::default(),
        }
    }

    /// A question was answered.
    pub(super) fn answered(
        &mut self,
        ask: &Ask,
        expected: &Expectation,
        answer: &Answer,
    ) -> Result<(), Violation> {
        match (ask, answer) {
            (Ask::Claim { .. } | Ask::Place { .. }, Answer::Grant(grant)) => {
                self.granted(grant)?;
                if expected.epoch.is_some_and(|epoch| epoch > grant.epoch) {
                    return Err(format!("{} was answered after a higher epoch", short(grant)));
                }
                let known = self.acknowledged.get(&grant.room);
                if known.is_none_or(|known| known.epoch < grant.epoch) {
                    self.acknowledged.insert(grant.room.clone(), grant.clone());
                }
            }
            (Ask::Confirm { room, epoch }, Answer::Bool(true))
                if expected.epoch.is_some_and(|known| known > *epoch) =>
            {
                return Err(format!("{room} epoch {epoch} was confirmed after a higher one"));
            }
            (Ask::CreateKey { id, .. }, Answer::Done) => drop(self.keys.insert(*id)),
            (Ask::CheckKey { .. }, Answer::Bool(false)) if expected.has_key => {
                return Err("an acknowledged key was not found".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// A home made a segment, or an edge got one.
    pub(super) fn content(
        &mut self,
        room: &RoomId,
        epoch: Epoch,
        msn: u64,
        content: u64,
    ) -> Result<(), Violation> {
        match self.contents.insert((room.clone(), epoch, msn), content) {
            Some(other) if other != content => {
                Err(format!("{room} s{msn}-{epoch} has two contents"))
            }
            _ => Ok(()),
        }
    }

    /// Everything has come to rest: what was acknowledged must be there.
    pub(super) fn rested(
        &self,
        grant_of: impl Fn(&RoomId) -> Option<Grant>,
    ) -> Result<(), Violation> {
        for (room, acknowledged) in &self.acknowledged {
            let epoch = acknowledged.epoch;
            let may_be_gone = self.released.get(room).is_some_and(|released| *released >= epoch);
            match grant_of(room) {
                Some(grant) if grant.epoch >= epoch => {}
                None if may_be_gone => {}
                found => {
                    let found = found.map(|grant| grant.epoch);
                    return Err(format!(
                        "{} was acknowledged and is lost; found {found:?}",
                        short(acknowledged)
                    ));
                }
            }
        }
        Ok(())
    }

    /// A key that is new.
    pub(super) fn fresh_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// One of the keys acknowledged last.
    pub(super) fn recent_key(&self, back: usize) -> Option<u64> {
        self.keys.iter().rev().nth(back).map(|id| id.0)
    }

    pub(super) fn leaders(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub(super) fn grants(&self) -> u64 {
        self.homes.len() as u64
    }
}

fn short(grant: &Grant) -> String {
    format!("{} epoch {} at {}", grant.room, grant.epoch, grant.home)
}
