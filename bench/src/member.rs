//! A member of a room: comes in, reads, talks, loses its connection, comes back where it was.
//!
//! In: where, and what to do ([`crate::scenario::Talk`]). Out: counts and times in a [`Tally`]. One in
//! [`crate::scenario::TIMED_EVERY`] reads all it is sent, times it and follows the room's order; the others
//! cut frames, count messages and see that they keep coming. They speak the protocol of
//! docs/rooms.md, or bare messages to servers of other makes that repeat what they are sent.

mod connection;
mod follow;
mod frames;
mod glance;
mod turns;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use wire::room::model::Position;

use self::connection::Connection;
use self::follow::Follower;
use self::frames::Kind;
use self::turns::{Flight, Schedule};
use crate::scenario::{Form, Talk};
use crate::stats::{RoomTally, Tally};
use crate::viewer::Trouble;

/// How long a member who was thrown out waits before it comes back: half of it to all of it.
const RETURN_AFTER: Duration = Duration::from_secs(1);
/// Over how long the first messages of a window are let off.
const MAX_WINDOW_START: Duration = Duration::from_millis(1);

/// What the members of a room share.
#[derive(Debug)]
pub(crate) struct Stage {
    /// `app/name`.
    pub(crate) room: String,
    /// What they do.
    pub(crate) talk: Talk,
    /// How many there are.
    pub(crate) members: u32,
    /// When the run began.
    pub(crate) begin: Instant,
    /// When talking begins.
    pub(crate) talk_from: Instant,
    /// When all lose their connection.
    pub(crate) storm_at: Option<Instant>,
    /// Makes guests of this run other users than those of the last.
    pub(crate) run: u64,
    flight: Flight,
}

impl Stage {
    /// Of a room with so many members, of which so many are timed.
    pub(crate) fn new(
        (room, run): (String, u64),
        talk: Talk,
        (members, timed): (u32, u32),
        (begin, opens, talk_from): (Instant, Instant, Instant),
    ) -> Self {
        let storm_at = talk.storm.map(|(after, _)| opens + after);
        let flight = Flight::new(members, timed);
        Self { room, talk, members, begin, talk_from, storm_at, run, flight }
    }

    /// Lets the first messages of a window off when talking begins.
    pub(crate) async fn start(self: Arc<Self>) {
        sleep_until(self.talk_from + MAX_WINDOW_START).await;
        (0..self.talk.chat_window).for_each(|_| self.flight.release());
    }
}

/// One member.
#[derive(Debug)]
pub(crate) struct Member {
    /// Which it is of all.
    pub(crate) index: u32,
    /// Which it is in its room.
    pub(crate) rank: u32,
    /// Whether it reads all it is sent.
    pub(crate) timed: bool,
    /// The edges, and where in them to begin.
    pub(crate) to: SocketAddr,
    /// Its name, for the `Host` field.
    pub(crate) host: String,
    /// From which address.
    pub(crate) source: Option<IpAddr>,
    /// Its room.
    pub(crate) stage: Arc<Stage>,
    /// When it arrives.
    pub(crate) arrives: Instant,
    /// Where it counts.
    pub(crate) tally: Arc<Tally>,
}

/// Why a connection is over.
enum Left {
    /// It was to end.
    Lost,
    /// All are to end at once.
    Storm,
}

/// What a member keeps from one connection to the next.
#[derive(Debug, Default)]
struct Memory {
    follower: Follower,
    position: Option<Position>,
    began: bool,
    stormed: bool,
    chats: Option<Schedule>,
    likes: Option<Schedule>,
    gifts: Option<Schedule>,
    /// When this connection is to be lost.
    lose_at: Option<Instant>,
}

impl Member {
    /// Takes part until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.take_part()).await;
    }

    async fn take_part(&self) {
        let stage = &self.stage;
        let schedule = |rate| Schedule::new(stage.talk_from, rate, self.rank, stage.members);
        let mut memory = Memory {
            chats: schedule(stage.talk.chat_rate),
            likes: schedule(stage.talk.like_rate),
            gifts: schedule(stage.talk.gift_rate),
            ..Memory::default()
        };
        sleep_until(self.arrives).await;
        loop {
            let pause = match self.connected(&mut memory).await {
                Ok(Left::Lost) => Duration::ZERO,
                Ok(Left::Storm) => {
                    memory.stormed = true;
                    let spread = stage.talk.storm.map_or(Duration::ZERO, |(_, spread)| spread);
                    spread.mul_f64(rand::rng().random())
                }
                Err(trouble) => {
                    self.tally.error(&trouble.to_string());
                    RETURN_AFTER.mul_f64(rand::rng().random_range(0.5..1.0))
                }
            };
            sleep(pause).await;
        }
    }

    /// One connection, from its first packet to its end.
    async fn connected(&self, memory: &mut Memory) -> Result<Left, Trouble> {
        let came = Instant::now();
        let mut connection = Connection::open(self).await?;
        memory.lose_at = self.stage.talk.resume_every.map(|every| {
            // Not all at once: from half of it to one and a half.
            came + every.mul_f64(rand::rng().random_range(0.5..1.5))
        });
        let resumes = memory.position.is_some();
        if self.stage.talk.form != Form::Plain {
            let (welcome, behind) = connection.hello(self, memory.position.as_ref()).await?;
            memory.position.clone_from(&welcome.pos);
            let found = memory.follower.welcome(&welcome);
            if self.timed && resumes {
                self.found(found);
            }
            if resumes {
                let outcome = match welcome.recovered {
                    true => &self.room().recovered,
                    false => &self.room().not_recovered,
                };
                outcome.fetch_add(1, Relaxed);
            }
            for payload in &behind {
                connection.frame(self, memory, Kind::Data, payload)?;
            }
        }
        let took = came.elapsed().as_micros() as u64;
        match resumes {
            true => self.room().resume.record(took),
            false => self.room().connect.record(took),
        }
        self.room().came(self.stage.begin.elapsed());
        if !std::mem::replace(&mut memory.began, true) {
            self.tally.started.fetch_add(1, Relaxed);
            self.tally.first_byte.record(self.arrives.elapsed().as_micros() as u64);
        }
        let left = connection.live(self, memory).await;
        let unanswered = connection.unanswered() as u64;
        self.tally.count(&self.room().unanswered, unanswered);
        left
    }

    fn room(&self) -> &RoomTally {
        self.tally.room.as_deref().expect("a tally of members has one of rooms")
    }

    fn found(&self, found: follow::Found) {
        let (tally, room) = (&self.tally, self.room());
        tally.count(&room.shed, found.shed);
        tally.count(&room.lost, found.lost);
        tally.count(&room.duplicated, found.duplicated);
        if found.lost + found.duplicated > 0 {
            tally.error("a message was lost or came twice");
        }
    }
}
