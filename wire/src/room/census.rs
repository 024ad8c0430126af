//! How many distinct members a room has: exact sets while they are small, a sketch when they are not.
//!
//! In: user ids. Out: a count; censuses of several edges add up without counting anybody twice. The
//! sketch is HyperLogLog (Flajolet et al. 2007) with 4,096 registers: a standard error of 1.6 %.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Members counted exactly; one more and the census becomes a sketch.
pub const MAX_EXACT: usize = 1000;
/// Registers of a sketch.
const REGISTERS: usize = 4096;
/// Bits of a hash that choose its register.
const INDEX_BITS: u32 = REGISTERS.trailing_zeros();

/// Distinct members, or a sketch of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Census {
    /// Hashes of their ids.
    Exact(BTreeSet<u64>),
    /// The registers.
    Sketch(Vec<u8>),
}

impl Default for Census {
    fn default() -> Self {
        Self::Exact(BTreeSet::new())
    }
}

impl Census {
    /// Counts a member.
    pub fn add(&mut self, uid: &str) {
        self.add_hash(hash(uid));
    }

    /// Counts the members of another census. One of another size, which no build sends, is ignored.
    pub fn unite(&mut self, other: &Self) {
        match other {
            Self::Exact(hashes) => hashes.iter().for_each(|&hash| self.add_hash(hash)),
            Self::Sketch(theirs) if theirs.len() == REGISTERS => {
                for (ours, theirs) in self.sketch().iter_mut().zip(theirs) {
                    *ours = (*ours).max(*theirs);
                }
            }
            Self::Sketch(_) => {}
        }
    }

    /// How many they are, or about how many.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Exact(hashes) => hashes.len() as u64,
            Self::Sketch(registers) => estimate(registers),
        }
    }

    fn add_hash(&mut self, hash: u64) {
        match self {
            Self::Exact(hashes) if hashes.len() < MAX_EXACT || hashes.contains(&hash) => {
                hashes.insert(hash);
            }
            Self::Exact(_) => note(self.sketch(), hash),
            Self::Sketch(registers) => note(registers, hash),
        }
    }

    /// The registers, made of the exact set if need be.
    fn sketch(&mut self) -> &mut Vec<u8> {
        if let Self::Exact(hashes) = self {
            let mut registers = vec![0; REGISTERS];
            hashes.iter().for_each(|&hash| note(&mut registers, hash));
            *self = Self::Sketch(registers);
        }
        match self {
            Self::Sketch(registers) => {
                // One that came over the wire may be of any length.
                registers.resize(REGISTERS, 0);
                registers
            }
            Self::Exact(_) => unreachable!("made a sketch above"),
        }
    }
}

fn note(registers: &mut [u8], hash: u64) {
    let index = (hash >> (64 - INDEX_BITS)) as usize;
    let rank = ((hash << INDEX_BITS).leading_zeros() + 1).min(64 - INDEX_BITS + 1);
    if let Some(register) = registers.get_mut(index) {
        *register = (*register).max(u8::try_from(rank).unwrap_or(u8::MAX));
    }
}

fn estimate(registers: &[u8]) -> u64 {
    let m = registers.len() as f64;
    if registers.is_empty() {
        return 0;
    }
    let sum: f64 = registers.iter().map(|&rank| 2_f64.powi(-i32::from(rank))).sum();
    let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
    let empty = registers.iter().filter(|&&rank| rank == 0).count();
    // Linear counting where registers are still empty (the same paper, section 4).
    let estimate = if raw <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw };
    estimate.round() as u64
}

/// The same on all nodes of all builds: FNV-1a, mixed by the finaliser of SplitMix64.
fn hash(uid: &str) -> u64 {
    let fnv = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(range: std::ops::Range<u32>) -> Census {
        let mut census = Census::default();
        range.for_each(|n| census.add(&format!("u{n}")));
        census
    }

    #[test]
    fn small_rooms_are_counted_exactly_across_edges() {
        let mut all = census(0..600);
        all.unite(&census(400..1000));
        assert_eq!(all.count(), 1000);
        assert!(matches!(all, Census::Exact(_)));
    }

    #[test]
    fn large_rooms_are_counted_within_the_error_of_a_sketch() {
        let mut all = Census::default();
        for edge in 0..10 {
            all.unite(&census(edge * 9_000..edge * 9_000 + 10_000));
        }
        let error = (all.count() as f64 - 91_000.0).abs() / 91_000.0;
        assert!(error < 0.05, "{} for 91000", all.count());
        let mut few = census(0..1100);
        few.unite(&census(0..900));
        assert!((1_050..1_150).contains(&few.count()), "{}", few.count());
    }

    #[test]
    fn a_sketch_of_another_length_harms_nothing() {
        let mut odd = Census::Sketch(vec![7; 3]);
        odd.add("a");
        let mut ours = census(0..3);
        ours.unite(&Census::Sketch(vec![9; 5]));
        assert_eq!(ours.count(), 3);
        assert!(odd.count() > 0);
    }
}
