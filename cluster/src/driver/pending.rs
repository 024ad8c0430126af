//! Questions that cannot be answered yet: proposals not committed, reads not confirmed, and what
//! waits for a new leader to learn what its predecessors committed.
//!
//! In: questions and the moment they came. Out: who gets an answer, or none in time. Each table is
//! bounded; a further question is refused as overloaded.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use wire::NodeId;
use wire::control::{Ask, Refusal};

use super::Token;
use crate::raft::Node;
use crate::scheduler::Subject;
use crate::storage::Disk;

/// Most proposals not committed yet.
const MAX_PROPOSALS: usize = 16_384;
/// Most questions waiting for a confirmation of leadership.
const MAX_READS: usize = 65_536;
/// Most questions waiting for a leader to settle.
const MAX_PARKED: usize = 16_384;
/// How long a question waits for a majority.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who is told how a proposal ended.
#[derive(Debug)]
pub(super) enum Waiting {
    /// Whoever asked.
    Asker(Token),
    /// The leader itself.
    Scheduler(Subject),
}

/// Proposals under way, by the context that travels with their entries.
#[derive(Debug)]
pub(super) struct Proposals {
    /// Differs between starts, so that an entry of an earlier life is not taken for a present one.
    life: u64,
    next: u64,
    waiting: BTreeMap<u128, (Waiting, Duration)>,
}

impl Proposals {
    pub(super) fn new(life: u64) -> Self {
        Self { life, next: 0, waiting: BTreeMap::new() }
    }

    /// A context for the next proposal.
    pub(super) fn reserve(&mut self) -> Result<u128, Refusal> {
        if self.waiting.len() >= MAX_PROPOSALS {
            return Err(Refusal::Overloaded(format!("{MAX_PROPOSALS} proposals are pending")));
        }
        self.next += 1;
        Ok((u128::from(self.life) << 64) | u128::from(self.next))
    }

    pub(super) fn insert(&mut self, context: u128, waiting: Waiting, now: Duration) {
        self.waiting.insert(context, (waiting, now + PATIENCE));
    }

    pub(super) fn remove(&mut self, context: u128) -> Option<Waiting> {
        self.waiting.remove(&context).map(|(waiting, _)| waiting)
    }

    /// Those who have waited for too long.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Waiting> {
        // Contexts count up, so the oldest come first.
        let mut expired = Vec::new();
        while let Some(first) = self.waiting.first_entry()
            && first.get().1 <= now
        {
            expired.push(first.remove().0);
        }
        expired
    }

    /// The askers of all proposals, which are given up.
    pub(super) fn give_up(&mut self) -> Vec<Token> {
        let waiting = std::mem::take(&mut self.waiting).into_values();
        waiting
            .filter_map(|(waiting, _)| match waiting {
                Waiting::Asker(token) => Some(token),
                Waiting::Scheduler(_) => None,
            })
            .collect()
    }
}

type Read = (Token, Ask, Duration);

/// Reads: those that wait for the next confirmation, and the round under way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: Vec<Read>,
    /// One round at a time; what comes meanwhile shares the next one.
    round: Option<(u64, Vec<Read>)>,
    /// A confirmed round and the index its answers need.
    confirmed: VecDeque<(u64, Vec<Read>)>,
    rounds: u64,
}

impl Reads {
    pub(super) fn insert(&mut self, token: Token, ask: Ask, now: Duration) -> Result<(), Refusal> {
        let under_way = self.round.as_ref().map_or(0, |(_, reads)| reads.len());
        if self.waiting.len() + under_way >= MAX_READS {
            return Err(Refusal::Overloaded(format!("{MAX_READS} reads are pending")));
        }
        self.waiting.push((token, ask, now + PATIENCE));
        Ok(())
    }

    /// Begins a round, if one is due and Raft takes it: it drops reads silently before that.
    pub(super) fn issue<D: Disk>(&mut self, node: &mut Node<D>) {
        if self.round.is_none() && !self.waiting.is_empty() && node.is_settled_leader() {
            self.rounds += 1;
            self.round = Some((self.rounds, std::mem::take(&mut self.waiting)));
            node.read_index(self.rounds.to_be_bytes().to_vec());
        }
    }

    /// The reads that may be answered, now that entries up to `applied` are.
    pub(super) fn ready(
        &mut self,
        readable: impl Iterator<Item = (u64, u64)>,
        applied: u64,
    ) -> Vec<(Token, Ask)> {
        for (index, number) in readable {
            if let Some((_, reads)) = self.round.take_if(|(round, _)| *round == number) {
                self.confirmed.push_back((index, reads));
            }
        }
        let mut done = Vec::new();
        while let Some((_, reads)) = self.confirmed.pop_front_if(|(index, _)| *index <= applied) {
            done.extend(reads.into_iter().map(|(token, ask, _)| (token, ask)));
        }
        done
    }

    pub(super) fn expire(&mut self, now: Duration) -> Vec<Token> {
        let mut expired = Vec::new();
        let mut sweep = |reads: &mut Vec<Read>| {
            reads.retain(|(token, _, deadline)| {
                let keep = now < *deadline;
                if !keep {
                    expired.push(*token);
                }
                keep
            });
        };
        sweep(&mut self.waiting);
        if let Some((_, reads)) = &mut self.round {
            sweep(reads);
        }
        // A round nobody waits for any more makes room for the next: its messages may be lost.
        let _ = self.round.take_if(|(_, reads)| reads.is_empty());
        expired
    }

    pub(super) fn give_up(&mut self) -> Vec<Token> {
        let reads = std::mem::take(&mut self.waiting).into_iter();
        let round = self.round.take().into_iter().flat_map(|(_, reads)| reads);
        let confirmed =
            std::mem::take(&mut self.confirmed).into_iter().flat_map(|(_, reads)| reads);
        reads.chain(round).chain(confirmed).map(|(token, _, _)| token).collect()
    }
}

/// Questions that wait until a new leader knows all that was committed before its term.
#[derive(Debug, Default)]
pub(super) struct Parked {
    asks: VecDeque<(Token, NodeId, Ask, Duration)>,
}

impl Parked {
    pub(super) fn insert(
        &mut self,
        token: Token,
        peer: NodeId,
        ask: Ask,
        now: Duration,
    ) -> Result<(), Refusal> {
        if self.asks.len() >= MAX_PARKED {
            return Err(Refusal::Overloaded(format!("{MAX_PARKED} questions wait for the leader")));
        }
        self.asks.push_back((token, peer, ask, now + PATIENCE));
        Ok(())
    }

    pub(super) fn take(&mut self) -> Vec<(Token, NodeId, Ask)> {
        let asks = std::mem::take(&mut self.asks).into_iter();
        asks.map(|(token, peer, ask, _)| (token, peer, ask)).collect()
    }

    pub(super) fn expire(&mut self, now: Duration) -> Vec<Token> {
        let mut expired = Vec::new();
        while let Some((token, ..)) = self.asks.pop_front_if(|(.., deadline)| *deadline <= now) {
            expired.push(token);
        }
        expired
    }

    pub(super) fn give_up(&mut self) -> impl Iterator<Item = Token> + use<> {
        std::mem::take(&mut self.asks).into_iter().map(|(token, ..)| token)
    }
}
