//! A driver's replica of the state: committed entries go in, answers and changes come out.

use wire::control::{Answer, Refusal};

use crate::command::Stamped;
use crate::planted::{Bug, is_planted};
use crate::raft::ready::{Fault, Machine};
use crate::state::{Changes, Conf, State};
use crate::storage::Identity;

/// What committed entries are applied to, and what that led to since the last step.
pub(super) struct Replica {
    pub(super) state: State,
    pub(super) changes: Changes,
    /// Results of entries, under the context they were proposed with.
    pub(super) outcomes: Vec<(u128, Result<Answer, Refusal>)>,
    /// Reads that may be answered once an index is applied.
    pub(super) readable: Vec<(u64, u64)>,
    /// Whether there was a state before this start.
    pub(super) is_restarted: bool,
}

impl Replica {
    pub(super) fn default_for(identity: Identity) -> Self {
        Self {
            state: State::blank(identity.cluster),
            changes: Changes::default(),
            outcomes: Vec::new(),
            readable: Vec::new(),
            is_restarted: false,
        }
    }
}

impl Machine for Replica {
    fn restore(&mut self, data: &[u8]) -> Result<(), Fault> {
        self.state = State::decode(data)?;
        self.changes = Changes { all: true, ..Changes::default() };
        Ok(())
    }

    fn apply(&mut self, index: u64, context: &[u8], data: &[u8]) -> Result<(), Fault> {
        if data.is_empty() {
            self.state.pass(index);
            return Ok(());
        }
        let stamped = Stamped::decode(data).map_err(|error| Fault::Entry { index, error })?;
        if self.is_restarted && is_planted(Bug::ApplyTwice) {
            let _ = self.state.apply(index, stamped.clone(), &mut self.changes);
        }
        let result = self.state.apply(index, stamped, &mut self.changes);
        if let Ok(context) = context.try_into() {
            self.outcomes.push((u128::from_be_bytes(context), result));
        }
        Ok(())
    }

    fn configure(&mut self, index: u64, conf: Conf) {
        self.state.configure(index, conf);
    }

    fn read_ready(&mut self, index: u64, context: &[u8]) {
        if let Ok(context) = context.try_into() {
            self.readable.push((index, u64::from_be_bytes(context)));
        }
    }
}
