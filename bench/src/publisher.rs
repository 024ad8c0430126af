//! A publisher: pushes the card in real time, jittering and flapping on demand.
//!
//! In: a [`Card`] and where to push it. Out: frames that carry the time they were sent; counts of
//! publishers that are live and of pushes lost. A stamp is the moment a frame is handed to the socket,
//! unless the frame before it blocked past this one's time: then it is the time the frame was due,
//! so that what the server holds up counts as latency.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use media::flv::TagKind;
use rand::Rng;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::card::Card;
use crate::rtmp::Push;
use crate::stamp::{Stamp, now_micros};
use crate::stats::{Times, Window};

/// How long a publisher waits before it pushes again after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// How pushes behave.
#[derive(Debug, Clone, Copy, Default)]
pub struct Habits {
    /// Frames are sent up to this much later than they are due, in order.
    pub jitter: Duration,
    /// The connection is dropped without a word every so often; zero never.
    pub flap_every: Duration,
    /// And comes back after so long.
    pub flap_gap: Duration,
}

/// What all publishers did together.
#[derive(Debug, Default)]
pub struct Pushes {
    /// Publishers that are sending now.
    pub live: AtomicU64,
    /// Pushes refused, or ended by the server.
    pub lost: AtomicU64,
    /// Bytes of media sent.
    pub bytes: AtomicU64,
    /// How much later than due frames were sent, jitter not counted.
    pub late: Times,
}

/// One publisher.
#[derive(Debug)]
pub struct Publisher {
    /// Where it pushes.
    pub to: SocketAddr,
    /// From which address.
    pub source: Option<IpAddr>,
    /// The first part of the room's name.
    pub app: String,
    /// The second, with a query if a token is needed.
    pub key: String,
    /// What it pushes.
    pub card: Arc<Card>,
    /// How it behaves.
    pub habits: Habits,
    /// Where it counts.
    pub pushes: Arc<Pushes>,
    /// When measuring goes on.
    pub window: Arc<Window>,
}

impl Publisher {
    /// Pushes until `stop`; comes back after every failure. The first failure is printed.
    pub async fn run(self, stop: CancellationToken) {
        let mut sequence = 0;
        let mut told = false;
        while !stop.is_cancelled() {
            let pushed = self.push(&mut sequence, &stop).await;
            if let Err(error) = pushed {
                self.pushes.lost.fetch_add(1, Relaxed);
                if !told && !self.window.is_over() {
                    eprintln!("bench: push of {}/{}: {error:#}", self.app, self.key);
                    told = true;
                }
            }
            let gap = if self.habits.flap_every.is_zero() { RETRY } else { self.habits.flap_gap };
            let _ = stop.run_until_cancelled(sleep(gap)).await;
        }
    }

    /// One connection, to its flap or to the end.
    async fn push(&self, sequence: &mut u32, stop: &CancellationToken) -> Result<()> {
        let connect = Push::connect(self.to, self.source, &self.app, &self.key);
        let Some(push) = stop.run_until_cancelled(connect).await else { return Ok(()) };
        let mut push = push?;
        let live = Live::begin(&self.pushes);
        for header in &self.card.headers {
            push.send(header.kind, header.body.clone(), 0).await?;
        }
        let started = Instant::now();
        let began_micros = now_micros();
        let flap = self.habits.flap_every;
        for index in 0.. {
            let (frame, at_ms) = self.card.frame(index);
            let due = started + Duration::from_millis(at_ms);
            if !flap.is_zero() && due > started + flap {
                return Ok(());
            }
            let was_due = due <= Instant::now() && index > 0;
            if self.wait(&mut push, due + self.jitter(), stop).await?.is_break() {
                break;
            }
            if self.window.is_open() {
                self.pushes.late.record(due.elapsed().as_micros() as u64);
            }
            let micros = if was_due { began_micros + at_ms * 1000 } else { now_micros() };
            let body = frame.body(Stamp { micros, sequence: *sequence });
            if frame.kind == TagKind::Video {
                *sequence = sequence.wrapping_add(1);
            }
            self.pushes.bytes.fetch_add(body.len() as u64, Relaxed);
            push.send(frame.kind, body, at_ms).await?;
        }
        drop(live);
        // Ended on purpose: whether the server still listens is of no interest.
        let _ = push.finish().await;
        Ok(())
    }

    /// Answers the server until `until`.
    async fn wait(
        &self,
        push: &mut Push,
        until: Instant,
        stop: &CancellationToken,
    ) -> Result<std::ops::ControlFlow<()>> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(std::ops::ControlFlow::Break(())),
                () = sleep_until(until) => return Ok(std::ops::ControlFlow::Continue(())),
                readable = push.readable() => readable?,
            }
            push.answer().await?;
        }
    }

    fn jitter(&self) -> Duration {
        if self.habits.jitter.is_zero() {
            return Duration::ZERO;
        }
        self.habits.jitter.mul_f64(rand::rng().random::<f64>())
    }
}

/// While it lives, one more publisher is live.
struct Live<'a>(&'a Pushes);

impl<'a> Live<'a> {
    fn begin(pushes: &'a Pushes) -> Self {
        pushes.live.fetch_add(1, Relaxed);
        Self(pushes)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Relaxed);
    }
}
