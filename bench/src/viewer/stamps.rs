//! Follows the numbers of a publisher's frames.
//!
//! Pure. In: the stamps a viewer finds, in order. Out: how many frames are missing or come again.

use crate::stamp::Stamp;

/// What a stamp says about those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// It is the next, or the first.
    Next,
    /// So many are missing before it.
    Skipped(u32),
    /// It was there before.
    Repeated,
}

/// The last number seen.
#[derive(Debug, Default)]
pub(super) struct Sequence(Option<u32>);

impl Sequence {
    pub(super) fn follow(&mut self, stamp: Stamp) -> Order {
        let Some(last) = self.0 else {
            self.0 = Some(stamp.sequence);
            return Order::Next;
        };
        match stamp.sequence.wrapping_sub(last) {
            1 => self.0 = Some(stamp.sequence),
            ahead @ 2..=0x7fff_ffff => {
                self.0 = Some(stamp.sequence);
                return Order::Skipped(ahead - 1);
            }
            _ => return Order::Repeated,
        }
        Order::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_repeats_are_told_apart() {
        let mut sequence = Sequence::default();
        let mut follow = |number| sequence.follow(Stamp { micros: 0, sequence: number });
        assert_eq!(follow(u32::MAX), Order::Next);
        assert_eq!(follow(0), Order::Next, "numbers wrap");
        assert_eq!(follow(4), Order::Skipped(3));
        assert_eq!(follow(4), Order::Repeated);
        assert_eq!(follow(2), Order::Repeated);
        assert_eq!(follow(5), Order::Next);
    }
}
