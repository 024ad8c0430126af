//! An encoder and the ingest node it pushes to, which carries the push to whichever home there is.

use std::collections::VecDeque;

use rand::Rng as _;

use super::super::core::Decision;
use super::super::life::PublishId;
use super::{Card, NODES, World};
use crate::contribute::replay::Replay;
use crate::rtmp::IngestMessage;

/// The length of the card's loop.
const LOOP_MS: u64 = 16_000;
/// How long an encoder waits before it connects again.
const RECONNECT_MS: u64 = 1_000;
/// What a message takes on its way to the home.
const LATENCY_MS: std::ops::Range<u64> = 1..30;
/// A past younger than this, of the same push and with a donor, goes on without a discontinuity: the
/// ingest keeps eight seconds, of which a death and its settling take some.
const PROMISED_MS: u64 = 5_000;

/// Sends the card in real time, again and again.
pub(super) struct Encoder {
    card: Card,
    /// The node it pushes to.
    pub(super) node: usize,
    connect_at_ms: u64,
    pushes: u64,
}

/// A push on its way.
pub(super) struct Relay {
    name: u64,
    started_ms: u64,
    sent: usize,
    replay: Replay,
    /// When it hears of the newest grant.
    pub(super) hear_at_ms: u64,
    link: Option<Link>,
}

/// The way to a home.
struct Link {
    node: usize,
    epoch: u64,
    id: PublishId,
    is_accepted: bool,
    from: Option<u64>,
    under_way: VecDeque<(u64, IngestMessage)>,
}

impl Encoder {
    pub(super) fn new(card: Card, node: usize) -> Self {
        Self { card, node, connect_at_ms: 0, pushes: 0 }
    }

    /// Its connection has ended.
    pub(super) fn lost(&mut self, now_ms: u64) {
        self.connect_at_ms = now_ms + RECONNECT_MS;
    }
}

impl World {
    /// One step of the encoder, its ingest node and the way to the home.
    pub(super) fn push(&mut self) -> Result<(), String> {
        if self.relay.is_none() {
            self.connect();
        }
        let now_ms = self.now_ms;
        let ingest = self.encoder.node;
        let Some(relay) = &mut self.relay else { return Ok(()) };
        let fresh = relay.read(&self.encoder.card, now_ms);
        if let Some(link) = relay.link.as_mut().filter(|link| link.is_accepted) {
            for message in fresh {
                let last = link.under_way.back().map_or(0, |(at_ms, _)| *at_ms);
                let at_ms = last.max(now_ms + self.rng.random_range(LATENCY_MS));
                link.under_way.push_back((at_ms, message));
            }
        }
        self.lose_home(ingest)?;
        self.find_home(ingest)?;
        self.deliver(ingest)
    }

    fn connect(&mut self) {
        if self.now_ms < self.encoder.connect_at_ms {
            return;
        }
        let start = self.encoder.node;
        let Some(node) = (0..NODES).map(|i| (start + i) % NODES).find(|i| self.is_heard(*i)) else {
            return;
        };
        self.encoder.node = node;
        self.encoder.pushes += 1;
        self.relay = Some(Relay {
            name: self.encoder.pushes,
            started_ms: self.now_ms,
            sent: 0,
            replay: Replay::default(),
            hear_at_ms: 0,
            link: None,
        });
    }

    fn is_cut(&self, ingest: usize, node: usize) -> bool {
        ingest != node && self.nodes[node].ingest_cut_until_ms > self.now_ms
    }

    /// Drops the way to a home that is gone, or is the home no more.
    fn lose_home(&mut self, ingest: usize) -> Result<(), String> {
        let Some(relay) = &self.relay else { return Ok(()) };
        let Some(link) = &relay.link else { return Ok(()) };
        let (node, epoch, is_accepted) = (link.node, link.epoch, link.is_accepted);
        let is_there = self.nodes[node].home.as_ref().is_some_and(|home| home.epoch == epoch);
        let has_moved = relay.hear_at_ms <= self.now_ms && epoch < self.placement.epoch;
        if is_there && !has_moved {
            return Ok(());
        }
        if let Some(relay) = &mut self.relay {
            relay.link = None;
        }
        // A home that lives on sees its push end.
        if is_there && is_accepted && !self.is_cut(ingest, node) {
            self.with_core(node, |core, now_ms, out| core.left(now_ms, out))?;
        }
        Ok(())
    }

    fn find_home(&mut self, ingest: usize) -> Result<(), String> {
        let Some(relay) = &self.relay else { return Ok(()) };
        if relay.link.is_some() || !self.is_heard(ingest) {
            return Ok(());
        }
        let (name, node) = (relay.name, self.placement.home);
        if !self.nodes[node].is_up || self.is_cut(ingest, node) {
            return Ok(());
        }
        if self.want(node, None) != Ok(true) {
            return Ok(());
        }
        let Some(home) = &self.nodes[node].home else { return Ok(()) };
        let (epoch, opened_ms) = (home.epoch, home.opened_ms);
        // The link stands before the challenge: the verdict may come with it.
        let link =
            Link { node, epoch, id: 0, is_accepted: false, from: None, under_way: VecDeque::new() };
        if let Some(relay) = &mut self.relay {
            relay.link = Some(link);
        }
        let now_ms = self.now_ms;
        let mut decisions = Vec::new();
        let Some(home) = &mut self.nodes[node].home else { return Ok(()) };
        let id = home.core.challenge(now_ms - opened_ms, name, &mut decisions);
        if let Some(link) = self.relay.as_mut().and_then(|relay| relay.link.as_mut()) {
            link.id = id;
        }
        decisions.into_iter().try_for_each(|decision| self.decided(node, epoch, decision))
    }

    /// What a home has decided about pushes.
    pub(super) fn decided(
        &mut self,
        node: usize,
        epoch: u64,
        decision: Decision,
    ) -> Result<(), String> {
        let now_ms = self.now_ms;
        let past = self.nodes[node].home.as_ref().and_then(|home| home.past);
        let Some(relay) = &mut self.relay else { return Ok(()) };
        let (name, is_young) = (relay.name, past.is_some_and(|(_, age)| age < PROMISED_MS));
        let is_own = |link: &&mut Link| link.node == node && link.epoch == epoch;
        let Some(link) = relay.link.as_mut().filter(is_own) else { return Ok(()) };
        match decision {
            Decision::Accept { id, from, .. } if id == link.id => {
                link.is_accepted = true;
                link.from = from;
                let sent = relay.replay.from(from);
                let whole = sent.iter().find_map(|message| match message {
                    IngestMessage::Numbered { next } => Some(from.is_some_and(|f| *next <= f)),
                    _ => None,
                });
                let is_whole = whole.unwrap_or(false);
                let is_promised = past.is_some_and(|(push, _)| push == name) && is_young;
                if is_promised && !is_whole {
                    return Err(format!(
                        "push {name} could go on at o{node} under {epoch}, and does not: {past:?}, {from:?}"
                    ));
                }
                link.under_way = sent.into_iter().map(|message| (now_ms + 1, message)).collect();
                if past.is_some() {
                    self.checker.taken_over();
                }
                self.checker.begins(epoch, is_whole);
                Ok(())
            }
            Decision::Refuse { id } if id == link.id => {
                self.relay = None;
                self.encoder.lost(now_ms);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Messages reach the home.
    fn deliver(&mut self, ingest: usize) -> Result<(), String> {
        loop {
            let now_ms = self.now_ms;
            let Some(link) = self.relay.as_ref().and_then(|relay| relay.link.as_ref()) else {
                return Ok(());
            };
            let node = link.node;
            if self.is_cut(ingest, node) || !link.is_accepted {
                return Ok(());
            }
            let Some(link) = self.relay.as_mut().and_then(|relay| relay.link.as_mut()) else {
                return Ok(());
            };
            if link.under_way.front().is_none_or(|(at_ms, _)| *at_ms > now_ms) {
                return Ok(());
            }
            let Some((_, message)) = link.under_way.pop_front() else { return Ok(()) };
            let taken =
                self.with_core(node, |core, now_ms, out| core.message(now_ms, message, out))?;
            if let Some(Err(error)) = taken {
                return Err(format!("the card is refused: {error}"));
            }
        }
    }
}

impl Relay {
    /// What the encoder has sent by now, kept for other homes, too.
    fn read(&mut self, card: &Card, now_ms: u64) -> Vec<IngestMessage> {
        let mut fresh = Vec::new();
        loop {
            let round = (self.sent / card.len()) as u64;
            let (at_ms, message) = &card[self.sent % card.len()];
            if self.started_ms + round * LOOP_MS + at_ms > now_ms {
                return fresh;
            }
            self.sent += 1;
            let later = |stamp_ms: u32| stamp_ms.wrapping_add((round * LOOP_MS) as u32);
            let message = match message.clone() {
                IngestMessage::Video { timestamp_ms, payload } => {
                    IngestMessage::Video { timestamp_ms: later(timestamp_ms), payload }
                }
                IngestMessage::Audio { timestamp_ms, payload } => {
                    IngestMessage::Audio { timestamp_ms: later(timestamp_ms), payload }
                }
                other => other,
            };
            self.replay.push(now_ms - self.started_ms, message.clone());
            fresh.push(message);
        }
    }
}
