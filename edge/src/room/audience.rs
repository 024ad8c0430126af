//! How many HLS viewers a room has, although HLS has no sessions.
//!
//! In: a key for each playlist poll: the token, or else address and user agent. Out: how many
//! distinct keys were seen within a window of 10 to 20 s. Viewers behind one address with one kind of
//! player count as one; a viewer who changes address counts twice for a window.
//!
//! Memory is bounded: keys are kept as they are up to [`EXACT`] of a protocol, above that a
//! HyperLogLog takes over with a standard error of 1.6 %.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Protocol;

/// Distinct keys counted exactly.
const EXACT: usize = 4096;
/// A player polls at least this often: every target duration.
const GENERATION: Duration = Duration::from_secs(10);
/// Index bits of the HyperLogLog: 4096 registers of a byte.
const PRECISION: u32 = 12;

/// Viewers of one room by HLS and by LL-HLS.
#[derive(Debug, Default)]
pub(super) struct Audience {
    protocols: [Window; 2],
}

impl Audience {
    /// Notes a poll. `viewer` must be a well-mixed hash.
    ///
    /// A player of LL-HLS begins with a plain poll; it counts there no longer.
    pub(super) fn saw(&mut self, protocol: Protocol, viewer: u64, now: Instant) {
        if protocol == Protocol::LlHls {
            let plain = self.window(Protocol::Hls);
            plain.current.remove(viewer);
            plain.previous.remove(viewer);
        }
        let window = self.window(protocol);
        window.turn(now);
        window.current.insert(viewer);
    }

    /// Distinct viewers within the window.
    pub(super) fn count(&mut self, protocol: Protocol, now: Instant) -> u64 {
        let window = self.window(protocol);
        window.turn(now);
        window.current.union_count(&window.previous)
    }

    fn window(&mut self, protocol: Protocol) -> &mut Window {
        let [hls, llhls] = &mut self.protocols;
        if protocol == Protocol::LlHls { llhls } else { hls }
    }
}

/// This generation and the one before.
#[derive(Debug, Default)]
struct Window {
    current: Distinct,
    previous: Distinct,
    since: Option<Instant>,
}

impl Window {
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(*self.since.get_or_insert(now));
        if age >= GENERATION * 2 {
            self.previous = Distinct::default();
            self.current = Distinct::default();
            self.since = Some(now);
        } else if age >= GENERATION {
            self.previous = std::mem::take(&mut self.current);
            self.since = Some(now);
        }
    }
}

/// Keys are hashes already: they are not hashed again.
type Keys = HashSet<u64, BuildHasherDefault<AsItIs>>;

/// The hash of a key, which is the key.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        debug_assert!(false, "keys are whole numbers");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// A set that counts its distinct members.
#[derive(Debug)]
enum Distinct {
    Exact(Keys),
    Estimated(Box<Registers>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self::Exact(Keys::default())
    }
}

impl Distinct {
    fn insert(&mut self, key: u64) {
        match self {
            Self::Exact(keys) => {
                keys.insert(key);
                if keys.len() > EXACT {
                    *self = Self::Estimated(Box::new(self.registers()));
                }
            }
            Self::Estimated(registers) => registers.insert(key),
        }
    }

    /// Takes a member out; an estimate cannot.
    fn remove(&mut self, key: u64) {
        if let Self::Exact(keys) = self {
            keys.remove(&key);
        }
    }

    fn registers(&self) -> Registers {
        match self {
            Self::Exact(keys) => {
                let mut registers = Registers::default();
                keys.iter().for_each(|key| registers.insert(*key));
                registers
            }
            Self::Estimated(registers) => Registers::clone(registers),
        }
    }

    fn union_count(&self, other: &Self) -> u64 {
        if let (Self::Exact(a), Self::Exact(b)) = (self, other) {
            return a.union(b).count() as u64;
        }
        let mut union = self.registers();
        union.merge(&other.registers());
        union.estimate()
    }
}

/// HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007, figure 3) over 64-bit hashes, for which no
/// large-range correction is needed.
#[derive(Debug, Clone)]
struct Registers([u8; 1 << PRECISION]);

impl Default for Registers {
    fn default() -> Self {
        Self([0; 1 << PRECISION])
    }
}

impl Registers {
    fn insert(&mut self, hash: u64) {
        let index = usize::try_from(hash >> (u64::BITS - PRECISION)).unwrap_or(0);
        // The sentinel bit bounds the rank when all others are zero.
        let rest = hash << PRECISION | 1 << (PRECISION - 1);
        let rank = u8::try_from(rest.leading_zeros() + 1).unwrap_or(u8::MAX);
        if let Some(register) = self.0.get_mut(index) {
            *register = (*register).max(rank);
        }
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }

    fn estimate(&self) -> u64 {
        let m = self.0.len() as f64;
        let alpha = 0.7213 / (1.0 + 1.079 / m);
        let sum: f64 = self.0.iter().map(|r| (-f64::from(*r)).exp2()).sum();
        let raw = alpha * m * m / sum;
        let empty = self.0.iter().filter(|r| **r == 0).count();
        let corrected = if raw <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw };
        corrected.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        // splitmix64
        let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    #[test]
    fn polls_of_one_viewer_count_once_and_fade() {
        let mut audience = Audience::default();
        let start = Instant::now();
        for second in 0..9 {
            audience.saw(Protocol::LlHls, hash(1), start + Duration::from_secs(second));
            audience.saw(Protocol::LlHls, hash(2), start + Duration::from_secs(second));
        }
        audience.saw(Protocol::Hls, hash(3), start);
        audience.saw(Protocol::Hls, hash(4), start);
        audience.saw(Protocol::LlHls, hash(4), start);
        audience.saw(Protocol::LlHls, hash(2), start + Duration::from_secs(9));
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(audience.count(Protocol::LlHls, at(9)), 3);
        assert_eq!(audience.count(Protocol::Hls, at(9)), 1);
        assert_eq!(audience.count(Protocol::LlHls, at(15)), 3, "the generation before counts");
        assert_eq!(audience.count(Protocol::LlHls, at(26)), 0);
    }

    #[test]
    fn a_crowd_is_estimated_in_bounded_memory() {
        let mut audience = Audience::default();
        let start = Instant::now();
        for viewer in 0..EXACT as u64 {
            audience.saw(Protocol::Hls, hash(viewer), start);
        }
        assert_eq!(audience.count(Protocol::Hls, start), EXACT as u64);
        for crowd in [10_000_u64, 100_000] {
            for viewer in 0..crowd {
                audience.saw(Protocol::Hls, hash(viewer), start);
            }
            let count = audience.count(Protocol::Hls, start);
            let error = (count as f64 - crowd as f64).abs() / crowd as f64;
            assert!(error < 0.06, "{count} for {crowd}");
        }
        assert!(matches!(audience.protocols[0].current, Distinct::Estimated(_)));
    }
}
