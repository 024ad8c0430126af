//! What agents do of their own accord: heartbeats, questions, fetches.

use std::time::Duration;

use rand::Rng as _;
use wire::Epoch;
use wire::control::{Ask, KeyId, Roles};

use super::super::net::Index;
use super::{BEAT, BUSY_AFTER, Event, Packet, ROOMS, World, agent_index, hash_of, key_room, room};

impl World {
    pub(super) fn beat(&mut self, a: Index) {
        let jitter = self.jitter(20);
        self.schedule_in(BEAT + jitter, Event::Beat(a));
        if !self.agents[a].is_up {
            return;
        }
        let ask = self.agents[a].heartbeat();
        self.ask(a, ask);
        self.keep_watch(a);
    }

    pub(super) fn act(&mut self, a: Index) {
        let pause = Duration::from_millis(self.rng.random_range(80..350));
        self.schedule_in(pause, Event::Act(a));
        let is_over = self.now > self.heal_at + BUSY_AFTER;
        if !self.agents[a].is_up || is_over {
            return;
        }
        if self.agents[a].roles == Roles::default() {
            if self.rng.random_range(0..4) == 0 && !self.is_healed {
                self.operate();
            } else if self.is_healed {
                self.add_missing();
            }
            return;
        }
        if !self.agents[a].is_registered {
            return;
        }
        let room = room(self.rng.random_range(0..ROOMS));
        let back = self.rng.random_range(0..4);
        let held = self.agents[a].held.get(&room).cloned();
        let known = self.agents[a].known.get(&room).and_then(|known| known.placement.clone());
        let ask = match (self.rng.random_range(0..10), held) {
            (0..=3, _) if self.agents[a].is_origin() => {
                Ask::Claim { room, ingest: self.agents[a].id.clone() }
            }
            (4, Some(held)) => Ask::Release { room, epoch: held.epoch, next_msn: held.next_msn },
            (5 | 6, Some(held)) => Ask::Confirm { room, epoch: held.epoch },
            (5..=7, None) if known.is_some() => {
                let epoch = known.map_or(Epoch(0), |grant| grant.epoch);
                Ask::Confirm { room, epoch }
            }
            (7 | 8, _) => {
                let key = self.checker.fresh_key();
                Ask::CreateKey { id: KeyId(key), room: key_room(key), hash: hash_of(key) }
            }
            _ => {
                let Some(key) = self.checker.recent_key(back) else { return };
                Ask::CheckKey { room: key_room(key), hash: hash_of(key) }
            }
        };
        self.ask(a, ask);
    }

    pub(super) fn fetch(&mut self, a: Index) {
        if !self.agents[a].is_up {
            return;
        }
        let known: Vec<_> =
            self.agents[a].known.values().filter_map(|known| known.placement.clone()).collect();
        for grant in known {
            if let Some(home) = self.agents.iter().position(|agent| agent.id == grant.home) {
                let packet = Packet::Fetch { room: grant.room, epoch: grant.epoch };
                self.send(agent_index(a), agent_index(home), self.now, packet);
            }
        }
    }
}
