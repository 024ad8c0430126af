//! What to run: a preset file, the command line on top of it, and what both must hold to.
//!
//! In: TOML and arguments. Out: a checked [`Scenario`]. Every figure in a preset has the name of its
//! command line option, with underscores.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

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
        }
    }
}

/// How viewers come during the ramp.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Evenly.
    #[default]
    Even,
    /// Nine of ten within the middle tenth.
    Spike,
    /// As over a day: slowly, then many, then slowly.
    Diurnal,
}

impl Arrivals {
    /// When viewer `index` of `count` comes, as a share of the ramp.
    #[must_use]
    pub fn share(self, index: u32, count: u32) -> f64 {
        let x = (f64::from(index) + 0.5) / f64::from(count.max(1));
        match self {
            Self::Even => x,
            Self::Spike if (0.05..0.95).contains(&x) => 0.45 + (x - 0.05) / 9.0,
            Self::Spike if x < 0.05 => x * 9.0,
            Self::Spike => 1.0 - (1.0 - x) * 9.0,
            // The inverse of the share that has come by a time, (1 - cos πt) / 2.
            Self::Diurnal => (1.0 - 2.0 * x).acos() / std::f64::consts::PI,
        }
    }
}

/// Which room viewers choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Popularity {
    /// All rooms alike.
    #[default]
    Even,
    /// Room n in proportion to 1/n.
    Zipf,
}

impl Popularity {
    /// The room of viewer `index` of `count`, of `rooms`.
    #[must_use]
    pub fn room(self, index: u32, count: u32, rooms: usize) -> usize {
        match self {
            Self::Even => index as usize % rooms.max(1),
            Self::Zipf => {
                // Evenly spread points, in an order that does not follow arrival.
                let scattered = u64::from(index) * 2_654_435_761 % u64::from(count.max(1));
                let total: f64 = (1..=rooms).map(|n| 1.0 / n as f64).sum();
                let mut left = (scattered as f64 + 0.5) / f64::from(count.max(1)) * total;
                (0..rooms)
                    .find(|n| {
                        left -= 1.0 / (*n as f64 + 1.0);
                        left <= 0.0
                    })
                    .unwrap_or_default()
            }
        }
    }
}

/// What LL-HLS viewers do about parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Parts {
    /// Ask for the hinted part while the playlist is held, on a second connection.
    #[default]
    Hint,
    /// Ask for a part once the playlist lists it, on the same connection.
    Listed,
    /// Timed viewers ask for the hinted part, the others for playlists alone.
    None,
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
        let members = options.members.unwrap_or(0);
        ensure!(members == 0, "--members {members}: this build has no rooms to join yet");
        let over_http = [options.flv, options.wsflv, options.hls, options.llhls];
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
        let rooms = match publishers {
            0 | 1 => vec![stem],
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
        ];
        let viewers: Vec<_> =
            asked.into_iter().filter_map(|(p, n)| n.filter(|n| *n > 0).map(|n| (p, n))).collect();
        let total: u32 = viewers.iter().map(|(_, n)| n).sum();
        ensure!(total > 0 || publishers > 0, "nothing to do: no viewer and no publisher");
        let seconds = |name: &str, value: f64| {
            Duration::try_from_secs_f64(value).with_context(|| format!("--{name} {value}"))
        };
        let ramp = options.ramp.unwrap_or(f64::from(total) / ARRIVALS_PER_SECOND);
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
        assert!(refused("target = ['http://a']\nmembers = 5").contains("--members 5"));
        assert!(refused("rtmpplay = 1").contains("--play"));
        assert!(refused("target = ['http://a']\npublishers = 1").contains("--rtmp"));
        assert!(refused("target = ['http://a']\nflv = 1\nsecs = -1").contains("--secs -1"));
        assert!(toml::from_str::<Options>("flvs = 1").is_err());
    }

    #[test]
    fn arrivals_keep_their_order_and_fill_the_ramp() {
        for arrivals in [Arrivals::Even, Arrivals::Spike, Arrivals::Diurnal] {
            let times: Vec<f64> = (0..1000).map(|i| arrivals.share(i, 1000)).collect();
            assert!(times.windows(2).all(|w| w[0] <= w[1]), "{arrivals:?}");
            assert!(times[0] >= 0.0 && times[0] < 0.05 && times[999] > 0.95 && times[999] <= 1.0);
        }
        let middle =
            (0..1000).filter(|i| (0.44..0.56).contains(&Arrivals::Spike.share(*i, 1000))).count();
        assert!(middle >= 900, "{middle}");
    }

    #[test]
    fn heavy_tailed_rooms_differ_as_one_to_n() {
        let mut counts = [0_u32; 10];
        for viewer in 0..10_000 {
            counts[Popularity::Zipf.room(viewer, 10_000, 10)] += 1;
        }
        assert!(counts.windows(2).all(|w| w[0] >= w[1]), "{counts:?}");
        assert!(counts[0] > 9 * counts[9] && counts[9] > 0, "{counts:?}");
    }
}
