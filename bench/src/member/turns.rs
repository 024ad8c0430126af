//! Whose turn it is to say something in a room.
//!
//! In: the room's rates, how many members it has, what has arrived. Out: when one member is due. By a rate,
//! message k of a room is due k / rate after the talk began, whether or not those before it arrived, and is
//! stamped with that time: a server that stops is not spared (coordinated omission). By a window, the
//! next message follows when one has arrived at every member that is timed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// When one member does something again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    begin: Instant,
    /// In the whole room.
    rate: f64,
    members: u64,
    /// The next one of the whole room that is this member's.
    next: u64,
}

impl Schedule {
    /// For member `rank` of `members`; none where nothing is to be done.
    pub(super) fn new(begin: Instant, rate: f64, rank: u32, members: u32) -> Option<Self> {
        let (next, members) = (u64::from(rank), u64::from(members.max(1)));
        (rate > 0.0).then_some(Self { begin, rate, members, next })
    }

    /// When the next is due.
    pub(super) fn due(&self) -> Instant {
        self.begin + Duration::from_secs_f64(self.next as f64 / self.rate)
    }

    /// Takes the next: its number in the room.
    pub(super) fn take(&mut self) -> u64 {
        let number = self.next;
        self.next += self.members;
        number
    }
}

/// A room's messages on their way, where a window decides.
#[derive(Debug)]
pub(crate) struct Flight {
    /// One for each member: its turn has come.
    turns: Vec<Notify>,
    /// The number of the message after the newest.
    next: AtomicU64,
    /// Where a message has yet to arrive so often.
    missing: Mutex<HashMap<u64, u32>>,
    /// Members that say what has arrived.
    witnesses: u32,
}

impl Flight {
    /// Of a room with so many members, of which so many look at what they are sent.
    pub(super) fn new(members: u32, witnesses: u32) -> Self {
        Self {
            turns: (0..members).map(|_| Notify::new()).collect(),
            next: AtomicU64::new(0),
            missing: Mutex::default(),
            witnesses,
        }
    }

    /// Lets one more message off.
    pub(super) fn release(&self) {
        let number = self.next.fetch_add(1, Relaxed);
        let count = self.turns.len().max(1) as u64;
        if let Some(turn) = self.turns.get((number % count) as usize) {
            turn.notify_one();
        }
    }

    /// Waits for this member's turn.
    pub(super) async fn turn(&self, rank: u32) {
        match self.turns.get(rank as usize) {
            Some(turn) => turn.notified().await,
            None => std::future::pending().await,
        }
    }

    /// A message has been sent.
    pub(super) fn sent(&self, number: u64) {
        self.lock().insert(number, self.witnesses);
    }

    /// It has arrived at one who looks.
    pub(super) fn arrived(&self, number: u64) {
        let mut missing = self.lock();
        let Some(left) = missing.get_mut(&number) else { return };
        *left -= 1;
        if *left == 0 {
            missing.remove(&number);
            drop(missing);
            self.release();
        }
    }

    /// It will not arrive, or not everywhere.
    pub(super) fn give_up(&self, number: u64) {
        if self.lock().remove(&number).is_some() {
            self.release();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, u32>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_room_keeps_its_rate_and_everybody_has_a_turn() {
        let begin = Instant::now();
        let mut due: Vec<(u64, Duration)> = Vec::new();
        for rank in 0..3 {
            let mut schedule = Schedule::new(begin, 10.0, rank, 3).unwrap();
            for _ in 0..2 {
                let at = schedule.due() - begin;
                due.push((schedule.take(), at));
            }
        }
        due.sort_unstable();
        let expected = (0..6).map(|k| (k, Duration::from_secs_f64(k as f64 / 10.0)));
        assert_eq!(due, expected.collect::<Vec<_>>());
        assert!(Schedule::new(begin, 0.0, 0, 3).is_none());
    }

    #[tokio::test]
    async fn the_next_message_follows_when_all_witnesses_have_one() {
        let flight = Flight::new(3, 2);
        flight.release();
        flight.turn(0).await;
        flight.sent(7);
        flight.arrived(7);
        flight.arrived(9);
        assert_eq!(flight.next.load(Relaxed), 1, "one witness has yet to see it");
        flight.arrived(7);
        flight.turn(1).await;
        flight.sent(8);
        flight.give_up(8);
        flight.give_up(8);
        flight.turn(2).await;
        assert_eq!(flight.next.load(Relaxed), 3);
    }
}
