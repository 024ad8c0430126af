//! A network that delays, loses, doubles, reorders and cuts.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;

/// Which of all simulated nodes.
pub(super) type Index = usize;

/// The network between all simulated nodes.
#[derive(Debug, Default)]
pub(super) struct Net {
    /// Directed pairs that nothing passes.
    cut: BTreeSet<(Index, Index)>,
    /// Directed pairs that are up and down by turns.
    flapping: BTreeSet<(Index, Index)>,
    /// Share of packets lost, doubled and delayed much, in percent.
    pub(super) loss: u32,
    pub(super) doubled: u32,
    pub(super) late: u32,
}

/// How long a flapping link stays up, and then down.
const FLAP: Duration = Duration::from_millis(230);
/// The shortest way.
const MIN_DELAY_US: u64 = 200;
/// The longest way of an ordinary packet, and of a late one.
const MAX_DELAY_US: u64 = 3_000;
const MAX_LATE_US: u64 = 120_000;

impl Net {
    /// Cuts what goes from each of `from` to each of `to`.
    pub(super) fn cut(&mut self, from: &[Index], to: &[Index]) {
        self.cut.extend(pairs(from, to));
    }

    /// Makes what goes from each of `from` to each of `to` flap.
    pub(super) fn flap(&mut self, from: &[Index], to: &[Index]) {
        self.flapping.extend(pairs(from, to));
    }

    /// Makes the network whole.
    pub(super) fn heal(&mut self) {
        *self = Self::default();
    }

    /// Makes all links whole again, and leaves the rest as it is.
    pub(super) fn mend(&mut self) {
        self.cut.clear();
        self.flapping.clear();
    }

    /// Whether anything passes from one node to another at `now`.
    pub(super) fn passes(&self, from: Index, to: Index, now: Duration) -> bool {
        let is_down = (now.as_millis() / FLAP.as_millis()) % 2 == 1;
        let flaps = is_down && self.flapping.contains(&(from, to));
        !flaps && !self.cut.contains(&(from, to))
    }

    /// When a packet sent now arrives: never, once or twice.
    pub(super) fn arrivals(
        &self,
        from: Index,
        to: Index,
        now: Duration,
        rng: &mut StdRng,
    ) -> Vec<Duration> {
        // Drawn whatever happens, so that a cut does not shift all later draws more than it must.
        let (lost, doubled) = (rng.random_range(0..100), rng.random_range(0..100));
        let mut delay = || {
            let late = rng.random_range(0..100) < self.late;
            let most = if late { MAX_LATE_US } else { MAX_DELAY_US };
            now + Duration::from_micros(rng.random_range(MIN_DELAY_US..=most))
        };
        let (first, second) = (delay(), delay());
        if lost < self.loss || !self.passes(from, to, now) {
            Vec::new()
        } else if doubled < self.doubled {
            vec![first, second]
        } else {
            vec![first]
        }
    }
}

fn pairs<'a>(from: &'a [Index], to: &'a [Index]) -> impl Iterator<Item = (Index, Index)> + 'a {
    from.iter().flat_map(move |a| to.iter().filter(move |b| a != *b).map(move |b| (*a, *b)))
}
