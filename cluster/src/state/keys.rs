//! Publish keys: hashes of secrets, each for one room, and the terms of those that have some.
//!
//! In: commands from [`State::apply`], questions of the leader. Out: whether a secret opens a room. Time
//! comes in with the commands and questions.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use wire::RoomId;
use wire::control::{Answer, KeyId, KeyInFull, KeyInfo, KeyTerms, KeyVerdict, Refusal, SecretHash};

use super::{MAX_KEYS, MAX_KEYS_PER_ROOM, State};
use crate::command::CLOCK_START_UNIX_S;

/// A key that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) room: RoomId,
    pub(super) hash: SecretHash,
    pub(super) created_s: u64,
}

/// The terms of a key, and the push that has used it if it is for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    pub(super) terms: KeyTerms,
    pub(super) used_by: Option<u64>,
}

/// What is to be done about a push that brings a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// This is the answer.
    Judged(KeyVerdict),
    /// The key is for one push; the answer comes once it is used up.
    Uses(KeyId),
}

impl State {
    /// Up to `limit` keys after `after`, of one room or of all.
    #[must_use]
    pub fn keys(&self, room: Option<&RoomId>, after: Option<KeyId>, limit: usize) -> Vec<KeyInfo> {
        let from = after.map_or(Some(0), |id| id.0.checked_add(1));
        let Some(from) = from.map(KeyId) else { return Vec::new() };
        let info = |(id, key): (&KeyId, &Key)| KeyInfo {
            id: *id,
            room: key.room.clone(),
            created_unix_s: key.created_s.saturating_add(CLOCK_START_UNIX_S),
        };
        match room {
            None => self.keys.range(from..).take(limit).map(info).collect(),
            Some(room) => {
                let ids = self.room_keys.get(room).into_iter().flat_map(|ids| ids.range(from..));
                ids.filter_map(|id| self.keys.get_key_value(id)).take(limit).map(info).collect()
            }
        }
    }

    /// Whether a secret with this hash opens the room on no terms. Compares with every key of the room,
    /// each in constant time.
    #[must_use]
    pub fn opens(&self, room: &RoomId, hash: &SecretHash) -> bool {
        let ids = self.room_keys.get(room).into_iter().flatten();
        let keys = ids.filter(|id| !self.terms.contains_key(id)).filter_map(|id| self.keys.get(id));
        keys.fold(false, |found, key| found | (key.hash == *hash))
    }

    /// As [`State::keys`], with their terms.
    #[must_use]
    pub fn keys_in_full(
        &self,
        room: Option<&RoomId>,
        after: Option<KeyId>,
        limit: usize,
    ) -> Vec<KeyInFull> {
        let in_full = |info: KeyInfo| match self.terms.get(&info.id) {
            None => KeyInFull { info, terms: KeyTerms::default(), is_used: false },
            Some(Terms { terms, used_by }) => {
                KeyInFull { info, terms: terms.clone(), is_used: used_by.is_some() }
            }
        };
        self.keys(room, after, limit).into_iter().map(in_full).collect()
    }

    /// What a secret with this hash does for the push `push` from `address` at `now_s`, in seconds since
    /// 1970. Compares with every key of the room, each in constant time.
    #[must_use]
    pub fn opening(
        &self,
        room: &RoomId,
        hash: &SecretHash,
        (now_s, address, push): (u64, IpAddr, u64),
    ) -> Opening {
        let ids = self.room_keys.get(room).into_iter().flatten();
        // All of them are looked at; of twins, which nobody makes, the last one counts.
        let found = ids.fold(None, |found, id| match self.keys.get(id) {
            Some(key) if key.hash == *hash => Some(id),
            _ => found,
        });
        let Some(id) = found else { return Opening::Judged(KeyVerdict::Unknown) };
        let Some(Terms { terms, used_by }) = self.terms.get(id) else {
            return Opening::Judged(KeyVerdict::Opens);
        };
        match (terms.judge(now_s, address), used_by) {
            (KeyVerdict::Opens, Some(by)) if terms.once && *by != push => {
                Opening::Judged(KeyVerdict::Used)
            }
            (KeyVerdict::Opens, None) if terms.once => Opening::Uses(*id),
            (verdict, _) => Opening::Judged(verdict),
        }
    }

    pub(super) fn create_key(
        &mut self,
        id: KeyId,
        room: RoomId,
        hash: SecretHash,
    ) -> Result<Answer, Refusal> {
        if let Some(key) = self.keys.get(&id) {
            return if key.room == room && key.hash == hash {
                Ok(Answer::Done)
            } else {
                Err(Refusal::Conflict(format!("publish key {id} exists")))
            };
        }
        if self.keys.len() >= MAX_KEYS {
            return Err(Refusal::Overloaded(format!("the cluster has {MAX_KEYS} publish keys")));
        }
        let of_room = self.room_keys.get(&room).map_or(0, |ids| ids.len());
        if of_room >= MAX_KEYS_PER_ROOM {
            return Err(Refusal::Overloaded(format!(
                "room {room} has {MAX_KEYS_PER_ROOM} publish keys"
            )));
        }
        self.room_keys.entry(room.clone()).or_default().insert(id);
        self.keys.insert(id, Key { room, hash, created_s: self.clock_s });
        Ok(Answer::Done)
    }

    pub(super) fn store_key(
        &mut self,
        id: KeyId,
        room: RoomId,
        hash: SecretHash,
        (terms, replaces): (KeyTerms, Option<(KeyId, u32)>),
    ) -> Result<Answer, Refusal> {
        terms.check().map_err(Refusal::Invalid)?;
        let is_repeat = self.keys.contains_key(&id);
        if let Some((old, _)) = replaces
            && !is_repeat
            && self.keys.get(&old).is_none_or(|key| key.room != room)
        {
            return Err(Refusal::UnknownKey(old));
        }
        self.create_key(id, room, hash)?;
        if is_repeat {
            return Ok(Answer::Done);
        }
        if terms != KeyTerms::default() {
            self.terms.insert(id, Terms { terms, used_by: None });
        }
        if let Some((old, overlap_s)) = replaces {
            let now_s = self.clock_s.saturating_add(CLOCK_START_UNIX_S);
            let until_s = now_s.saturating_add(overlap_s.into());
            let old = self
                .terms
                .entry(old)
                .or_insert_with(|| Terms { terms: KeyTerms::default(), used_by: None });
            let until = old.terms.until_unix_s.get_or_insert(until_s);
            *until = (*until).min(until_s);
        }
        Ok(Answer::Done)
    }

    pub(super) fn use_key(&mut self, id: KeyId, push: u64) -> Result<Answer, Refusal> {
        if !self.keys.contains_key(&id) {
            return Ok(Answer::Key(KeyVerdict::Unknown));
        }
        match self.terms.get_mut(&id) {
            Some(Terms { terms, used_by }) if terms.once => {
                let by = *used_by.get_or_insert(push);
                let verdict = if by == push { KeyVerdict::Opens } else { KeyVerdict::Used };
                Ok(Answer::Key(verdict))
            }
            _ => Ok(Answer::Key(KeyVerdict::Opens)),
        }
    }

    pub(super) fn revoke_key(&mut self, id: KeyId) -> Result<Answer, Refusal> {
        let key = self.keys.remove(&id).ok_or(Refusal::UnknownKey(id))?;
        self.terms.remove(&id);
        if let Some(ids) = self.room_keys.get_mut(&key.room) {
            ids.remove(&id);
            if ids.is_empty() {
                self.room_keys.remove(&key.room);
            }
        }
        Ok(Answer::Done)
    }
}
