//! Viewers of both kinds who watch on while nodes come and go, and what they count.
//!
//! In: edges and a room. Out: errors where a rule is broken, and the longest times without news for the
//! test to print. Pushes and questions about a room that several tests share are here, too.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::process::Tidewater;
use tests::publisher::Publisher;
use tests::{eventually, flv, hls};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::places::Place;

/// Media time between two frames of the test card is 40 ms: more means that one is missing.
const MAX_FRAME_STEP_MS: u32 = 70;
/// Frames a second of the test card.
const FRAME_RATE: u64 = 25;
/// How long an encoder waits before it connects again.
const RECONNECT: Duration = Duration::from_millis(500);

/// Pushes for two minutes, or until the server ends it.
pub(crate) fn keep_pushing(mut publisher: Publisher) -> JoinHandle<Result<()>> {
    tokio::spawn(async move { publisher.send(Duration::from_secs(120)).await })
}

/// Pushes, and when the connection ends pushes again to the next origin, as an encoder does.
pub(crate) fn push_anywhere(origins: Vec<SocketAddr>, name: &'static str) -> JoinHandle<()> {
    tokio::spawn(async move {
        for origin in origins.iter().cycle() {
            if let Ok(mut publisher) = Publisher::connect(*origin, "live", name).await {
                // The end of a push is what the next one is for.
                let _ = publisher.send(Duration::from_secs(300)).await;
            }
            sleep(RECONNECT).await;
        }
    })
}

/// What `room show --json` says, asked at this node.
pub(crate) async fn room(place: &Place, room: &str) -> Option<serde_json::Value> {
    let admin = format!("admin.listen={}", place.at(8081));
    let args = ["room", "show", room, "--json", "--set", &admin];
    let (code, out, _) = Tidewater::command(&args).await.ok()?;
    (code == Some(0)).then(|| serde_json::from_str(&out).ok())?
}

/// Waits until the room is live under a home for which `is_it` holds, as this node sees it.
pub(crate) async fn home(at: &Place, name: &str, is_it: impl Fn(&str) -> bool) -> Result<String> {
    eventually("the room has such a home", async || {
        let told = room(at, name).await?;
        let home = told["home"].as_str()?.to_owned();
        is_it(&home).then_some(home)
    })
    .await
}

/// An LL-HLS viewer who takes each request to the next edge, and an HTTP-FLV viewer of the first one.
pub(crate) struct Crowd {
    pub(crate) hls: hls::Viewer,
    pub(crate) flv: flv::Viewer,
    parts: Wait,
    frames: Wait,
}

/// The longest wait for something, and since when the next one is waited for.
struct Wait {
    longest: Duration,
    since: Instant,
    count: u64,
}

impl Wait {
    fn new(count: u64) -> Self {
        Self { longest: Duration::ZERO, since: Instant::now(), count }
    }

    fn saw(&mut self, count: u64) {
        if count > self.count {
            self.longest = self.longest.max(self.since.elapsed());
            (self.since, self.count) = (Instant::now(), count);
        }
    }
}

impl Crowd {
    pub(crate) async fn gather(edges: &[SocketAddr], room: &str) -> Result<Self> {
        let mut hls = hls::Viewer::new(edges, room);
        hls.start().await?;
        let mut flv = flv::Viewer::connect(edges[0], &format!("/{room}.flv")).await?;
        flv.watch(|seen| seen.video > 0).await?;
        let (parts, frames) = (Wait::new(hls.tally.parts), Wait::new(flv.seen().video));
        Ok(Self { hls, flv, parts, frames })
    }

    /// Watches `segments` more, both ways at once; the list keeps every rule meanwhile.
    pub(crate) async fn watch(&mut self, segments: u64) -> Result<()> {
        let until = self.hls.tally.segments + segments;
        let last_frame = self.flv.seen().video + segments * FRAME_RATE;
        let (parts, frames) = (&mut self.parts, &mut self.frames);
        let hls = self.hls.watch(|tally, _| {
            parts.saw(tally.parts);
            tally.segments >= until
        });
        let flv = self.flv.watch(|seen| {
            frames.saw(seen.video);
            seen.video > last_frame
        });
        let (_, seen) = tokio::try_join!(hls, flv)?;
        ensure!(!seen.ended, "an FLV viewer was let go");
        Ok(())
    }

    /// Counts waits from here on.
    pub(crate) fn forget_gaps(&mut self) {
        self.parts = Wait::new(self.hls.tally.parts);
        self.frames = Wait::new(self.flv.seen().video);
    }

    /// The longest waits, for the test to print.
    pub(crate) fn gaps(&self) -> String {
        format!(
            "{:.2} s without a new part, {:.2} s without a frame",
            self.parts.longest.as_secs_f64(),
            self.frames.longest.as_secs_f64()
        )
    }

    /// Whether nobody has met a discontinuity since `before`, nor missed a frame.
    pub(crate) fn saw_no_seam(&self, before: u64) -> Result<()> {
        ensure!(self.hls.tally.discontinuities == before, "{:?}", self.hls.tally);
        let step_ms = self.flv.seen().largest_gap_ms;
        ensure!(step_ms < MAX_FRAME_STEP_MS, "{step_ms} ms between two frames: some are missing");
        Ok(())
    }
}
