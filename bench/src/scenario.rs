//! What to run: a preset file, the command line on top of it, and what both must hold to.
//!
//! In: TOML and arguments. Out: a checked [`Scenario`]. Every figure in a preset has the name of its
//! command line option, with underscores.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

mod crowd;
mod talk;

pub use crowd::{Arrivals, Parts, Popularity};
pub use talk::{Form, Talk};

/// How media or messages reach a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// FLV over HTTP.
    Flv,
    /// FLV over WebSocket.
    WsFlv,
    /// HLS by whole segments.
    Hls,
    /// HLS by parts and blocking reload.
    LlHls,
    /// RTMP play, which servers of other makes have.
    Rtmp,
    /// A room's interaction over WebSocket.
    Ws,
}

impl Protocol {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flv => "flv",
            Self::WsFlv => "wsflv",
            Self::Hls => "hls",
            Self::LlHls => "llhls",
            Self::Rtmp => "rtmp",
            Self::Ws => "ws",
        }
    }
}

/// The options of `bench run`; each overrides what the preset says.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where viewers ask: http://HOST:PORT, or with /APP/NAME to watch one room. Repeat for more edges
    #[arg(long, value_name = "URL")]
    pub target: Vec<String>,
    /// Where publishers push: rtmp://HOST[:PORT]
    #[arg(long, value_name = "URL")]
    pub rtmp: Option<String>,
    /// The room; with several publishers, the stem of their names
    #[arg(long, value_name = "APP/NAME")]
    pub room: Option<String>,
    /// HTTP-FLV viewers
    #[arg(long, value_name = "N")]
    pub flv: Option<u32>,
    /// WS-FLV viewers
    #[arg(long, value_name = "N")]
    pub wsflv: Option<u32>,
    /// HLS viewers
    #[arg(long, value_name = "N")]
    pub hls: Option<u32>,
    /// LL-HLS viewers
    #[arg(long, value_name = "N")]
    pub llhls: Option<u32>,
    /// RTMP play viewers, at --play
    #[arg(long, value_name = "N")]
    pub rtmpplay: Option<u32>,
    /// Where RTMP viewers play: rtmp://HOST[:PORT]; by default where publishers push
    #[arg(long, value_name = "URL")]
    pub play: Option<String>,
    /// Room members
    #[arg(long, value_name = "N")]
    pub members: Option<u32>,
    /// Rooms that members and viewers are spread over while nobody publishes
    #[arg(long, value_name = "N")]
    pub rooms: Option<u32>,
    /// How members speak
    #[arg(long, value_enum)]
    pub form: Option<Form>,
    /// Path of the members' WebSocket on servers of other makes
    #[arg(long, value_name = "PATH")]
    pub ws_path: Option<String>,
    /// Messages a second in each room
    #[arg(long, value_name = "N")]
    pub chat_rate: Option<f64>,
    /// Instead of a rate: messages of a room on their way at a time; the next follows when one has arrived
    #[arg(long, value_name = "N")]
    pub chat_window: Option<u32>,
    /// Bytes of a message's text
    #[arg(long, value_name = "N")]
    pub chat_bytes: Option<usize>,
    /// Frames of likes a second in each room, of ten likes each
    #[arg(long, value_name = "N")]
    pub like_rate: Option<f64>,
    /// Gifts a second in each room
    #[arg(long, value_name = "N")]
    pub gift_rate: Option<f64>,
    /// Each member loses its connection every so many seconds, and resumes
    #[arg(long, value_name = "S")]
    pub resume_every: Option<f64>,
    /// So many seconds into the measurement all members lose their connection at once
    #[arg(long, value_name = "S")]
    pub storm_after: Option<f64>,
    /// And come back within so many, each at a moment of its own
    #[arg(long, value_name = "S")]
    pub storm_spread: Option<f64>,
    /// Publishers; 0 watches a room that somebody else publishes
    #[arg(long, value_name = "N")]
    pub publishers: Option<u32>,
    /// Seconds to measure, after all viewers came and the warm-up is over
    #[arg(long, value_name = "S")]
    pub secs: Option<f64>,
    /// Seconds between the last viewer's arrival and measuring
    #[arg(long, value_name = "S")]
    pub warmup: Option<f64>,
    /// Seconds in which viewers arrive; by default one for each thousand
    #[arg(long, value_name = "S")]
    pub ramp: Option<f64>,
    /// How viewers arrive
    #[arg(long, value_enum)]
    pub arrivals: Option<Arrivals>,
    /// Which rooms viewers choose
    #[arg(long, value_enum)]
    pub popularity: Option<Popularity>,
    /// What LL-HLS viewers do about parts
    #[arg(long, value_enum)]
    pub parts: Option<Parts>,
    /// Every so manieth viewer is parsed and timed
    #[arg(long, value_name = "N")]
    pub timed_every: Option<u32>,
    /// Video and audio of a publisher, kbit/s
    #[arg(long, value_name = "KBITS")]
    pub bitrate: Option<u64>,
    /// Frames from key frame to key frame (pictures then no longer decode cleanly)
    #[arg(long, value_name = "FRAMES")]
    pub gop: Option<usize>,
    /// Publishers send frames up to so many milliseconds late
    #[arg(long, value_name = "MS")]
    pub jitter: Option<u64>,
    /// Publishers drop their connection every so many seconds
    #[arg(long, value_name = "S")]
    pub flap_every: Option<f64>,
    /// And come back after so many
    #[arg(long, value_name = "S")]
    pub flap_gap: Option<f64>,
    /// Query of the stream key, for example token=…
    #[arg(long, value_name = "QUERY")]
    pub publish_query: Option<String>,
    /// Query of every viewer request
    #[arg(long, value_name = "QUERY")]
    pub view_query: Option<String>,
    /// The FLV to push instead of the test card
    #[arg(long, value_name = "FILE")]
    pub card: Option<PathBuf>,
    /// Path of FLV on servers of other makes, with {app} and {name}
    #[arg(long, value_name = "PATH")]
    pub flv_path: Option<String>,
    /// Path of the first HLS playlist on servers of other makes, with {app} and {name}
    #[arg(long, value_name = "PATH")]
    pub hls_path: Option<String>,
    /// Do not hold playlists against the rules of LL-HLS: for servers of other makes
    #[arg(long)]
    pub lenient: bool,
    /// A process of the server, for its CPU and memory; repeat for more
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
}

impl Options {
    /// Reads a preset.
    ///
    /// # Errors
    /// When the file cannot be read or has a key that does not exist.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// These options, and where they are silent those of `preset`.
    #[must_use]
    pub fn over(self, preset: Self) -> Self {
        let either = |own: Vec<_>, other| if own.is_empty() { other } else { own };
        Self {
            target: either(self.target, preset.target),
            rtmp: self.rtmp.or(preset.rtmp),
            room: self.room.or(preset.room),
            flv: self.flv.or(preset.flv),
            wsflv: self.wsflv.or(preset.wsflv),
            hls: self.hls.or(preset.hls),
            llhls: self.llhls.or(preset.llhls),
            rtmpplay: self.rtmpplay.or(preset.rtmpplay),
            play: self.play.or(preset.play),
            members: self.members.or(preset.members),
            rooms: self.rooms.or(preset.rooms),
            form: self.form.or(preset.form),
            ws_path: self.ws_path.or(preset.ws_path),
            chat_rate: self.chat_rate.or(preset.chat_rate),
            chat_window: self.chat_window.or(preset.chat_window),
            chat_bytes: self.chat_bytes.or(preset.chat_bytes),
            like_rate: self.like_rate.or(preset.like_rate),
            gift_rate: self.gift_rate.or(preset.gift_rate),
            resume_every: self.resume_every.or(preset.resume_every),
            storm_after: self.storm_after.or(preset.storm_after),
            storm_spread: self.storm_spread.or(preset.storm_spread),
            publishers: self.publishers.or(preset.publishers),
            secs: self.secs.or(preset.secs),
            warmup: self.warmup.or(preset.warmup),
            ramp: self.ramp.or(preset.ramp),
            arrivals: self.arrivals.or(preset.arrivals),
            popularity: self.popularity.or(preset.popularity),
            parts: self.parts.or(preset.parts),
            timed_every: self.timed_every.or(preset.timed_every),
            bitrate: self.bitrate.or(preset.bitrate),
            gop: self.gop.or(preset.gop),
            jitter: self.jitter.or(preset.jitter),
            flap_every: self.flap_every.or(preset.flap_every),
            flap_gap: self.flap_gap.or(preset.flap_gap),
            publish_query: self.publish_query.or(preset.publish_query),
            view_query: self.view_query.or(preset.view_query),
            card: self.card.or(preset.card),
            flv_path: self.flv_path.or(preset.flv_path),
            hls_path: self.hls_path.or(preset.hls_path),
            lenient: self.lenient || preset.lenient,
            pid: if self.pid.is_empty() { preset.pid } else { self.pid },
        }
    }
}

/// A room's name in its two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// What stands before the slash.
    pub app: String,
    /// What stands behind it.
    pub name: String,
}

impl Room {
    fn parse(text: &str) -> Result<Self> {
        let Some((app, name)) = text.split_once('/') else { bail!("room {text}: write app/name") };
        ensure!(!app.is_empty() && !name.is_empty(), "room {text}: write app/name");
        Ok(Self { app: app.to_owned(), name: name.to_owned() })
    }

    /// The path this pattern gives.
    #[must_use]
    pub fn path(&self, pattern: &str, query: &str) -> String {
        let path = pattern.replace("{app}", &self.app).replace("{name}", &self.name);
        if query.is_empty() { path } else { format!("{path}?{query}") }
    }
}

/// A checked scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Edges, as `host:port`.
    pub targets: Vec<String>,
    /// The origin, as `host:port`; present if there are publishers.
    pub rtmp: Option<String>,
    /// Where RTMP is played, as `host:port`; present if somebody does.
    pub play: Option<String>,
    /// Rooms to watch; publisher n pushes to room n.
    pub rooms: Vec<Room>,
    /// How many publishers there are: none, or one for each room.
    pub publishers: u32,
    /// How many viewers each protocol has; none with zero.
    pub viewers: Vec<(Protocol, u32)>,
    /// How long to measure.
    pub measure: Duration,
    /// How long to wait before.
    pub warmup: Duration,
    /// How long viewers take to arrive.
    pub ramp: Duration,
    /// What members do.
    pub talk: Talk,
    /// The rest, as given.
    pub options: Options,
}

const DEFAULT_ROOM: &str = "live/bench";
const DEFAULT_SECS: f64 = 20.0;
const DEFAULT_WARMUP: f64 = 3.0;
/// Viewers that arrive within a second unless a ramp is set.
const ARRIVALS_PER_SECOND: f64 = 1000.0;
/// Every so manieth viewer is timed unless said otherwise.
pub const TIMED_EVERY: u32 = 50;

impl Scenario {
    /// Checks `options`.
    ///
    /// # Errors
    /// Which option is missing or contradicts another.
    pub fn new(options: Options) -> Result<Self> {
        let over_http = [options.flv, options.wsflv, options.hls, options.llhls, options.members];
        let needs_target = over_http.iter().any(|n| n.unwrap_or(0) > 0);
        ensure!(
            !needs_target || !options.target.is_empty(),
            "--target: say where viewers ask, http://HOST:PORT"
        );
        let mut targets = Vec::new();
        let mut watched = None;
        for target in &options.target {
            let url = crate::net::Url::parse(target, "http", 80)?;
            if !url.path.is_empty() {
                watched = Some(url.path.trim_start_matches('/').to_owned());
            }
            targets.push(url.authority);
        }
        let publishers = options.publishers.unwrap_or(0);
        let rtmp = match (&options.rtmp, publishers) {
            (_, 0) => None,
            (None, _) => bail!("--publishers: say where they push, --rtmp rtmp://HOST:PORT"),
            (Some(url), _) => Some(crate::net::Url::parse(url, "rtmp", 1935)?.authority),
        };
        let play = match (&options.play, &options.rtmp, options.rtmpplay.unwrap_or(0)) {
            (_, _, 0) => None,
            (None, None, _) => bail!("--rtmpplay: say where they play, --play rtmp://HOST:PORT"),
            (Some(url), _, _) | (None, Some(url), _) => {
                Some(crate::net::Url::parse(url, "rtmp", 1935)?.authority)
            }
        };
        let stem = options.room.clone().or(watched).unwrap_or_else(|| DEFAULT_ROOM.to_owned());
        let stem = Room::parse(&stem)?;
        let spread = options.rooms.unwrap_or(1);
        ensure!(spread > 0, "--rooms 0");
        ensure!(spread == 1 || publishers == 0, "--rooms: each publisher has a room of its own");
        let rooms = match publishers.max(spread) {
            1 => vec![stem],
            n => (0..n)
                .map(|i| Room { app: stem.app.clone(), name: format!("{}-{i}", stem.name) })
                .collect(),
        };
        let asked = [
            (Protocol::Flv, options.flv),
            (Protocol::WsFlv, options.wsflv),
            (Protocol::Hls, options.hls),
            (Protocol::LlHls, options.llhls),
            (Protocol::Rtmp, options.rtmpplay),
            (Protocol::Ws, options.members),
        ];
        let viewers: Vec<_> =
            asked.into_iter().filter_map(|(p, n)| n.filter(|n| *n > 0).map(|n| (p, n))).collect();
        let total: u32 = viewers.iter().map(|(_, n)| n).sum();
        ensure!(total > 0 || publishers > 0, "nothing to do: no viewer and no publisher");
        let seconds = |name: &str, value: f64| {
            Duration::try_from_secs_f64(value).with_context(|| format!("--{name} {value}"))
        };
        let ramp = options.ramp.unwrap_or(f64::from(total) / ARRIVALS_PER_SECOND);
        let talk = Talk::new(&options, rooms.len() as u32)?;
        Ok(Self {
            targets,
            rtmp,
            play,
            rooms,
            publishers,
            viewers,
            measure: seconds("secs", options.secs.unwrap_or(DEFAULT_SECS))?,
            warmup: seconds("warmup", options.warmup.unwrap_or(DEFAULT_WARMUP))?,
            ramp: seconds("ramp", ramp)?,
            talk,
            options,
        })
    }

    /// Whether viewer `index` of a protocol is parsed and timed.
    #[must_use]
    pub fn is_timed(&self, index: u32) -> bool {
        index.is_multiple_of(self.options.timed_every.unwrap_or(TIMED_EVERY).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        toml::from_str(text).unwrap()
    }

    fn refused(text: &str) -> String {
        Scenario::new(options(text)).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_is_over_the_preset() {
        let preset = options("target = ['http://a']\nflv = 10\nsecs = 5\npid = [1]");
        let own = Options { flv: Some(20), pid: vec![2, 3], ..Options::default() };
        let scenario = Scenario::new(own.over(preset)).unwrap();
        assert_eq!(scenario.viewers, [(Protocol::Flv, 20)]);
        assert_eq!(scenario.measure, Duration::from_secs(5));
        assert_eq!(scenario.options.pid, [2, 3]);
        assert_eq!(scenario.targets, ["a:80"]);
    }

    #[test]
    fn rooms_follow_publishers() {
        let text = "target = ['http://a/live/x']\nrtmp = 'rtmp://o'\npublishers = ";
        let rooms = |n: u32| Scenario::new(options(&format!("{text}{n}\nhls = 1"))).unwrap().rooms;
        assert_eq!(rooms(0)[0].name, "x");
        assert_eq!(rooms(1)[0].name, "x");
        assert_eq!(rooms(3)[2].path("/{app}/{name}.flv", "t=1"), "/live/x-2.flv?t=1");
    }

    #[test]
    fn what_cannot_be_run_is_said() {
        assert!(refused("flv = 1").contains("--target"));
        assert!(refused("target = ['https://a']\nflv = 1").contains("http://"));
        assert!(refused("target = ['http://a']").contains("nothing to do"));
        assert!(refused("members = 5").contains("--target"));
        assert!(refused("target = ['http://a']\nmembers = 5\nchat_rate = 9").contains("--members"));
        assert!(refused("rtmpplay = 1").contains("--play"));
        assert!(refused("target = ['http://a']\npublishers = 1").contains("--rtmp"));
        assert!(refused("target = ['http://a']\nflv = 1\nsecs = -1").contains("--secs -1"));
        assert!(toml::from_str::<Options>("flvs = 1").is_err());
    }
}
