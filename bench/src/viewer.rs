//! A viewer: arrives, watches, and comes back when it is thrown out.
//!
//! In: where and what to watch. Out: counts and times in a [`Tally`]. One in [`crate::scenario::TIMED_EVERY`]
//! reads, checks and times everything; the others take the bytes off their sockets and see that they
//! keep coming. Each protocol is a file of its own below.

mod flv;
mod hls;
mod llhls;
mod rtmp;
mod stamps;
mod ws;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::http;
use crate::scenario::{Parts, Protocol};
use crate::stamp::now_micros;
use crate::stats::Tally;
pub(crate) use llhls::Completed;

/// How long a viewer who was thrown out waits before it comes back.
const RETURN_AFTER: Duration = Duration::from_secs(1);

/// What all viewers of a room share.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Path of FLV, query included.
    pub(crate) flv: String,
    /// Path of the first HLS playlist, query included.
    pub(crate) hls: String,
    /// App and name for RTMP, query included.
    pub(crate) rtmp: (String, String),
    /// When parts were complete, as timed viewers find out.
    pub(crate) completed: Completed,
}

/// One viewer.
#[derive(Debug)]
pub(crate) struct Viewer {
    /// Which it is of its protocol.
    pub(crate) index: u32,
    /// Whether it looks at what it is sent.
    pub(crate) timed: bool,
    /// The edge.
    pub(crate) to: SocketAddr,
    /// Its name, for the `Host` field.
    pub(crate) host: String,
    /// From which address.
    pub(crate) source: Option<IpAddr>,
    /// What it watches.
    pub(crate) stage: Arc<Stage>,
    /// When it arrives.
    pub(crate) arrives: Instant,
    /// What it does about parts.
    pub(crate) parts: Parts,
    /// Whether playlists are held against the rules of LL-HLS.
    pub(crate) strict: bool,
    /// Where it counts.
    pub(crate) tally: Arc<Tally>,
}

/// Why a viewer could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The server did not answer as it should.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// RTMP failed.
    #[error("RTMP: {0}")]
    Rtmp(String),
    /// What it sent is not what it should be.
    #[error("{0}")]
    Media(String),
    /// The stream ended while measuring.
    #[error("the stream ended")]
    Ended,
}

impl From<media::Error> for Trouble {
    fn from(error: media::Error) -> Self {
        Self::Media(error.to_string())
    }
}

impl Viewer {
    /// Watches until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let watch = async {
            sleep_until(self.arrives).await;
            let mut began = false;
            loop {
                let watched = match self.tally.protocol {
                    Protocol::Flv | Protocol::WsFlv => flv::watch(&self, &mut began).await,
                    Protocol::Hls => hls::watch(&self, &mut began).await,
                    Protocol::LlHls => llhls::watch(&self, &mut began).await,
                    Protocol::Rtmp => rtmp::watch(&self, &mut began).await,
                    // Members are no viewers: see `crate::member`.
                    Protocol::Ws => Err(Trouble::Ended),
                };
                if let Err(trouble) = watched {
                    self.tally.error(&trouble.to_string());
                }
                sleep(RETURN_AFTER).await;
            }
        };
        stop.run_until_cancelled(watch).await;
    }

    fn client(&self) -> http::Client {
        http::Client::new(self.to, self.source, &self.host)
    }

    /// Counts bytes of media or playlists; the first ones of all say how long the viewer waited.
    fn received(&self, bytes: usize, began: &mut bool) {
        if !*began && bytes > 0 {
            *began = true;
            self.tally.started.fetch_add(1, Relaxed);
            self.tally.first_byte.record(self.arrives.elapsed().as_micros() as u64);
        }
        self.tally.received(self.index, bytes);
    }

    /// Records how old a frame is at `now`.
    fn aged(&self, now: u64, sent: u64) {
        if self.tally.window.is_open() {
            self.tally.latency.record(now.saturating_sub(sent));
        }
    }
}

/// The wall clock, where a stamp is compared with it.
fn now() -> u64 {
    now_micros()
}
