//! What is barred: pushes to rooms, and tokens that were given out.
//!
//! In: commands from [`State::apply`]. Out: the table, and what of it changed, for those who watch. A bar
//! that has ended goes with the next command that sets one; until then whoever applies it looks at its
//! time.

use wire::control::{Answer, Bar, Barred, Refusal};

use super::{Changes, State};
use crate::command::CLOCK_START_UNIX_S;

/// Most bars; a further one is refused as overloaded. Every node holds them all, some 5 MiB.
pub const MAX_BARS: usize = 20_000;
/// Ended bars that go with one command: more than one command makes.
const MAX_FORGOTTEN: usize = 64;

impl State {
    /// All bars after `after`, in order.
    pub fn bars(&self) -> impl Iterator<Item = (&Barred, &Bar)> + '_ {
        self.bars.iter()
    }

    /// The bar on something, if there is one.
    #[must_use]
    pub fn bar(&self, on: &Barred) -> Option<&Bar> {
        self.bars.get(on)
    }

    pub(super) fn set_bar(
        &mut self,
        on: Barred,
        bar: Option<Bar>,
        changes: &mut Changes,
    ) -> Result<Answer, Refusal> {
        on.check().map_err(Refusal::Invalid)?;
        if bar.as_ref().is_some_and(|bar| bar.reason.len() > wire::control::MAX_BARRED_BYTES) {
            return Err(Refusal::Invalid("the reason is too long".to_owned()));
        }
        self.forget_ended(changes);
        let is_new = !self.bars.contains_key(&on);
        if bar.is_some() && is_new && self.bars.len() >= MAX_BARS {
            return Err(Refusal::Overloaded(format!("the cluster has {MAX_BARS} bars")));
        }
        let before = match bar {
            Some(bar) => {
                self.bar_ends.insert((bar.until_unix_s, on.clone()));
                let until = bar.until_unix_s;
                self.bars.insert(on.clone(), bar).filter(|old| old.until_unix_s != until)
            }
            None => self.bars.remove(&on),
        };
        if let Some(before) = before {
            self.bar_ends.remove(&(before.until_unix_s, on.clone()));
        }
        changes.bars.insert(on);
        Ok(Answer::Done)
    }

    fn forget_ended(&mut self, changes: &mut Changes) {
        let now_s = self.clock_s.saturating_add(CLOCK_START_UNIX_S);
        for _ in 0..MAX_FORGOTTEN {
            if self.bar_ends.first().is_none_or(|(until, _)| *until >= now_s) {
                return;
            }
            if let Some((_, on)) = self.bar_ends.pop_first() {
                self.bars.remove(&on);
                changes.bars.insert(on);
            }
        }
    }
}
