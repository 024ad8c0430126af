//! Runs a scenario: publishers, viewers, a window, a report.
//!
//! In: a [`Scenario`]. Out: a [`Report`]. Publishers and timed viewers have a thread of their own, so that
//! the crowd's work does not add to what they measure; both threads are meant to share one core.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::card::{Card, Shape};
use crate::member::{self, Member};
use crate::process::{self, OwnUsage, Usage};
use crate::publisher::{Habits, Publisher, Pushes};
use crate::report::{self, Expected, Own, Report, Row, Sample};
use crate::rtmp::PUBLISH_TIMEOUT;
use crate::scenario::{Protocol, Room, Scenario};
use crate::stats::{Tally, Window};
use crate::viewer::{Completed, Stage, Viewer};
use crate::{limits, net};

/// The test card.
const CARD: &[u8] = include_bytes!("../../node/assets/testcard.flv");
/// A home fixes its tracks one second after the first media; a little more, and rooms are there.
const SETTLE: Duration = Duration::from_secs(2);
/// How long viewers and publishers may take to leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A viewer of a stream that receives nothing for so long has stalled.
const STREAM_SILENCE: Duration = Duration::from_secs(5);
/// A viewer of HLS polls less often.
const POLL_SILENCE: Duration = Duration::from_secs(15);
/// A member of a room where nobody talks is pinged every 25 s (docs/rooms.md).
const PING_SILENCE: Duration = Duration::from_secs(40);
/// How far into the warm-up members begin to talk: all are there, and what that starts is over.
const TALK_WITHIN_WARMUP: f64 = 0.5;
/// How often progress is shown where nobody watches it.
const LOG_EVERY: u32 = 10;
/// Seconds of a run that are kept for its plots: a day.
const MAX_SAMPLES: usize = 86_400;
const FLV_PATH: &str = "/{app}/{name}.flv";
const HLS_PATH: &str = "/{app}/{name}.m3u8";

/// Runs `scenario` to its end.
///
/// # Errors
/// When it cannot be begun: a name that does not resolve, a process that is not there, a push that is
/// refused, too few open files. What goes wrong later is in the report.
pub fn run(scenario: &Scenario, show: Show) -> Result<Report> {
    let viewers: u64 = scenario.viewers.iter().map(|(p, n)| sockets(*p) * u64::from(*n)).sum();
    limits::allow_sockets(viewers + u64::from(scenario.publishers))?;
    let crowd = Builder::new_current_thread().enable_all().build()?;
    let timed = Builder::new_current_thread().enable_all().build()?;
    let crowd_handle = crowd.handle().clone();
    let stop = CancellationToken::new();
    let crowd_stop = stop.clone();
    let crowd_thread = thread::Builder::new().name("crowd".into()).spawn(move || {
        crowd.block_on(crowd_stop.cancelled());
        crowd.shutdown_timeout(LEAVE_TIMEOUT);
    })?;
    let run = Run { scenario, stop: stop.clone(), crowd: crowd_handle, show };
    let report = timed.block_on(run.go());
    stop.cancel();
    let _ = crowd_thread.join();
    report
}

/// Publishes what `scenario` says for as long as `work` takes; it is called once a viewer's window is full.
///
/// # Errors
/// When a push is refused, and as `work` says.
pub(crate) fn while_publishing<T>(
    scenario: &Scenario,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let timed = Builder::new_current_thread().enable_all().build()?;
    let stop = CancellationToken::new();
    let publishing = stop.clone();
    let (begin, began) = std::sync::mpsc::sync_channel(1);
    thread::scope(|scope| {
        scope.spawn(move || {
            timed.block_on(async {
                let run = Run {
                    scenario,
                    stop: publishing,
                    crowd: timed.handle().clone(),
                    show: Show::Nothing,
                };
                let publishers = run.publish(&Arc::default(), &Arc::default()).await;
                let publishers = match publishers {
                    Ok(publishers) => publishers,
                    Err(error) => return drop(begin.send(Err(error))),
                };
                sleep(scenario.warmup).await;
                let _ = begin.send(Ok(()));
                run.stop.cancelled().await;
                leave(publishers).await;
            });
        });
        let _stop = stop.drop_guard();
        began.recv().context("the publisher's thread ended")??;
        work()
    })
}

/// Sockets a viewer may have open at once.
fn sockets(protocol: Protocol) -> u64 {
    if protocol == Protocol::LlHls { 2 } else { 1 }
}

/// How a run shows its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Not at all.
    Nothing,
    /// Lines for people, on stderr.
    Lines,
    /// The same, and a JSON line a second on stdout.
    Json,
}

struct Run<'a> {
    scenario: &'a Scenario,
    stop: CancellationToken,
    crowd: tokio::runtime::Handle,
    show: Show,
}

/// Readings at one end of the window.
struct Reading {
    at: Instant,
    bytes: Vec<u64>,
    server: Vec<Usage>,
    own: OwnUsage,
}

impl Run<'_> {
    async fn go(self) -> Result<Report> {
        let scenario = self.scenario;
        let window = Arc::new(Window::default());
        let pushes = Arc::new(Pushes::default());
        self.usages()?;
        let publishers = self.publish(&pushes, &window).await?;
        // Memory of the server with its rooms and without their viewers.
        let first = self.usages()?;
        let tallies: Vec<_> = scenario
            .viewers
            .iter()
            .map(|(protocol, count)| Arc::new(Tally::new(*protocol, *count, Arc::clone(&window))))
            .collect();
        let begin = Instant::now();
        let viewers = self.watch(&tallies, begin).await?;
        let opens = begin + scenario.ramp + scenario.warmup;
        let mut progress = Progress::new(&self, &tallies, &pushes, begin);
        progress.until(opens, "arriving").await;
        window.open();
        let before = self.read(&tallies)?;
        progress.until(before.at + scenario.measure, "measuring").await;
        let samples = progress.samples;
        let after = self.read(&tallies)?;
        window.close();
        let live = pushes.live.load(Relaxed);
        self.stop.cancel();
        leave(publishers).await;
        leave(viewers).await;
        let servers =
            report::servers(&scenario.options.pid, (&first, &before.server, &after.server));
        let cpu_s = (!servers.is_empty()).then(|| servers.iter().map(|s| s.cpu_s).sum());
        let ends = before.bytes.iter().zip(&after.bytes);
        let rows = tallies.iter().zip(ends).map(|(t, (b, a))| Row::new(t, *b, *a, cpu_s)).collect();
        let wall = after.at - before.at;
        let mut report = Report {
            rows,
            window: wall,
            servers,
            own: Own::between(before.own, after.own, wall),
            publishers: (scenario.publishers, live, pushes.lost.load(Relaxed)),
            late_ms: report::lateness(&pushes),
            samples,
            measured_s: ((before.at - begin).as_secs_f64(), (after.at - begin).as_secs_f64()),
            load: process::load(),
            problems: Vec::new(),
        };
        report.judge(Expected {
            stamps: scenario.publishers > 0,
            lost_pushes: scenario.options.flap_every.is_some(),
            chat: scenario.talk.chats(),
        });
        Ok(report)
    }

    /// Starts the publishers and waits until all are live.
    async fn publish(&self, pushes: &Arc<Pushes>, window: &Arc<Window>) -> Result<JoinSet<()>> {
        let mut set = JoinSet::new();
        let Some(rtmp) = &self.scenario.rtmp else { return Ok(set) };
        let to = net::resolve(rtmp).await?;
        let options = &self.scenario.options;
        let read;
        let flv = match &options.card {
            Some(path) => {
                read = std::fs::read(path).with_context(|| path.display().to_string())?;
                &read[..]
            }
            None => CARD,
        };
        let shape =
            Shape { bits_per_second: options.bitrate.map(|kbit| kbit * 1000), gop: options.gop };
        let card = Arc::new(Card::read(flv, shape).context("the card")?);
        let seconds = |value: Option<f64>| Duration::from_secs_f64(value.unwrap_or(0.0).max(0.0));
        let habits = Habits {
            jitter: Duration::from_millis(options.jitter.unwrap_or(0)),
            flap_every: seconds(options.flap_every),
            flap_gap: seconds(options.flap_gap),
        };
        for (index, room) in (0..self.scenario.publishers).zip(&self.scenario.rooms) {
            let publisher = Publisher {
                to,
                source: net::source(to, index),
                app: room.app.clone(),
                key: room.path("{name}", options.publish_query.as_deref().unwrap_or("")),
                card: Arc::clone(&card),
                habits,
                pushes: Arc::clone(pushes),
                window: Arc::clone(window),
            };
            set.spawn(publisher.run(self.stop.clone()));
        }
        let wanted = u64::from(self.scenario.publishers);
        let all_live = async {
            while pushes.live.load(Relaxed) < wanted {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let came = timeout(PUBLISH_TIMEOUT, all_live).await;
        let live = pushes.live.load(Relaxed);
        ensure!(came.is_ok(), "only {live} of {wanted} publishers were accepted at {rtmp}");
        sleep(SETTLE).await;
        Ok(set)
    }

    /// Sends the viewers in.
    async fn watch(&self, tallies: &[Arc<Tally>], begin: Instant) -> Result<JoinSet<()>> {
        let scenario = self.scenario;
        let options = &scenario.options;
        let mut targets = Vec::new();
        for host in &scenario.targets {
            targets.push((net::resolve(host).await?, host));
        }
        let play = match &scenario.play {
            Some(host) => Some((net::resolve(host).await?, host)),
            None => None,
        };
        let stages: Vec<_> = scenario.rooms.iter().map(|room| Arc::new(self.stage(room))).collect();
        let mut set = JoinSet::new();
        let mut number = 0;
        for tally in tallies {
            if tally.protocol == Protocol::Ws {
                number = self.join(tally, (begin, &targets, number), &mut set);
                continue;
            }
            for index in 0..tally.wanted {
                let (to, host) = match play {
                    Some(play) if tally.protocol == Protocol::Rtmp => play,
                    _ => targets[number as usize % targets.len()],
                };
                let room = options.popularity.unwrap_or_default();
                let room = room.room(index, tally.wanted, stages.len());
                let share = options.arrivals.unwrap_or_default().share(index, tally.wanted);
                let viewer = Viewer {
                    index,
                    timed: scenario.is_timed(index),
                    to,
                    host: host.clone(),
                    source: net::source(to, number),
                    stage: Arc::clone(&stages[room]),
                    arrives: begin + scenario.ramp.mul_f64(share),
                    parts: options.parts.unwrap_or_default(),
                    strict: !options.lenient,
                    tally: Arc::clone(tally),
                };
                number += 1;
                if viewer.timed {
                    set.spawn(viewer.run(self.stop.clone()));
                } else {
                    set.spawn_on(viewer.run(self.stop.clone()), &self.crowd);
                }
            }
        }
        Ok(set)
    }

    /// Sends the members in; returns the number of the next viewer.
    fn join(
        &self,
        tally: &Arc<Tally>,
        (begin, targets, mut number): (Instant, &[(SocketAddr, &String)], u32),
        set: &mut JoinSet<()>,
    ) -> u32 {
        let scenario = self.scenario;
        let popularity = scenario.options.popularity.unwrap_or_default();
        let arrivals = scenario.options.arrivals.unwrap_or_default();
        let chosen: Vec<usize> = (0..tally.wanted)
            .map(|index| popularity.room(index, tally.wanted, scenario.rooms.len()))
            .collect();
        let opens = begin + scenario.ramp + scenario.warmup;
        let talk_from = begin + scenario.ramp + scenario.warmup.mul_f64(TALK_WITHIN_WARMUP);
        let run = rand::random();
        let in_room = |room: usize| (0..).zip(&chosen).filter(move |(_, r)| **r == room);
        let stages: Vec<_> = (0..scenario.rooms.len())
            .map(|room| {
                let timed = in_room(room).filter(|(index, _)| scenario.is_timed(*index)).count();
                let count = (in_room(room).count() as u32, timed as u32);
                let name = scenario.rooms[room].path("{app}/{name}", "");
                let times = (begin, opens, talk_from);
                Arc::new(member::Stage::new((name, run), scenario.talk.clone(), count, times))
            })
            .collect();
        let mut ranks = vec![0; stages.len()];
        for (index, room) in (0..).zip(chosen) {
            let (to, host) = targets[number as usize % targets.len()];
            let member = Member {
                index,
                rank: ranks[room],
                timed: scenario.is_timed(index),
                to,
                host: host.clone(),
                source: net::source(to, number),
                stage: Arc::clone(&stages[room]),
                arrives: begin + scenario.ramp.mul_f64(arrivals.share(index, tally.wanted)),
                tally: Arc::clone(tally),
            };
            ranks[room] += 1;
            number += 1;
            if member.timed {
                set.spawn(member.run(self.stop.clone()));
            } else {
                set.spawn_on(member.run(self.stop.clone()), &self.crowd);
            }
        }
        for stage in stages {
            let stop = self.stop.clone();
            set.spawn(async move {
                let _ = stop.run_until_cancelled(stage.start()).await;
            });
        }
        number
    }

    fn stage(&self, room: &Room) -> Stage {
        let options = &self.scenario.options;
        let query = options.view_query.as_deref().unwrap_or("");
        Stage {
            flv: room.path(options.flv_path.as_deref().unwrap_or(FLV_PATH), query),
            hls: room.path(options.hls_path.as_deref().unwrap_or(HLS_PATH), query),
            rtmp: (room.app.clone(), room.path("{name}", query)),
            completed: Completed::default(),
        }
    }

    fn read(&self, tallies: &[Arc<Tally>]) -> Result<Reading> {
        Ok(Reading {
            at: Instant::now(),
            bytes: tallies.iter().map(|t| t.bytes().iter().sum()).collect(),
            server: self.usages()?,
            own: process::own_usage(),
        })
    }

    fn usages(&self) -> Result<Vec<Usage>> {
        self.scenario.options.pid.iter().map(|pid| process::usage(*pid)).collect()
    }
}

/// Watches a run, second by second.
struct Progress<'a> {
    run: &'a Run<'a>,
    tallies: &'a [Arc<Tally>],
    pushes: &'a Pushes,
    begin: Instant,
    silence: Vec<Silence<'a>>,
    bytes: u64,
    cpu: Duration,
    at: Instant,
    samples: Vec<Sample>,
}

impl<'a> Progress<'a> {
    fn new(
        run: &'a Run<'a>,
        tallies: &'a [Arc<Tally>],
        pushes: &'a Pushes,
        begin: Instant,
    ) -> Self {
        let usages = run.usages().unwrap_or_default();
        Self {
            run,
            tallies,
            pushes,
            begin,
            silence: tallies.iter().map(|t| Silence::new(t, run.scenario.talk.chats())).collect(),
            bytes: 0,
            cpu: usages.iter().map(|u| u.cpu).sum(),
            at: Instant::now(),
            samples: Vec::new(),
        }
    }

    /// Waits until `until`, shows how it goes, and notices viewers that receive nothing.
    async fn until(&mut self, until: Instant, what: &str) {
        let on_terminal = std::io::stderr().is_terminal();
        for second in 1_u32.. {
            let next = (Instant::now() + Duration::from_secs(1)).min(until);
            sleep_until(next).await;
            for silence in &mut self.silence {
                silence.look(self.run.scenario);
            }
            let sample = self.sample();
            let over = next >= until;
            if self.run.show == Show::Json {
                println!("{}", serde_json::json!({ "progress": { "phase": what, "now": sample } }));
            }
            let is_due = on_terminal || over || second.is_multiple_of(LOG_EVERY);
            if self.run.show != Show::Nothing && is_due {
                let line = format!(
                    "{what} {:>4} s left: {} publishers, {} viewers, {:.0} Mbit/s, {} stalls, {} errors",
                    until.saturating_duration_since(next).as_secs(),
                    sample.publishers,
                    sample.viewers,
                    sample.mbit,
                    sample.stalls,
                    sample.errors,
                );
                match (on_terminal, over) {
                    (true, false) => eprint!("\r{line}\x1b[K"),
                    (true, true) => eprintln!("\r{line}\x1b[K"),
                    (false, _) => eprintln!("{line}"),
                }
            }
            if over {
                return;
            }
        }
    }

    /// What has happened since the last one.
    fn sample(&mut self) -> Sample {
        let sum = |f: &dyn Fn(&Tally) -> u64| self.tallies.iter().map(|t| f(t)).sum::<u64>();
        let bytes: u64 = self.tallies.iter().flat_map(|t| t.bytes()).sum();
        let usages = self.run.usages().unwrap_or_default();
        let cpu: Duration = usages.iter().map(|u| u.cpu).sum();
        let now = Instant::now();
        let passed = (now - self.at).as_secs_f64().max(1e-3);
        let sample = Sample {
            at_s: (now - self.begin).as_secs_f64(),
            mbit: (bytes - self.bytes) as f64 * 8e-6 / passed,
            viewers: sum(&|t| t.started.load(Relaxed)),
            publishers: self.pushes.live.load(Relaxed),
            stalls: sum(&|t| t.stalls.load(Relaxed)),
            errors: sum(&Tally::errors),
            server_cores: cpu.saturating_sub(self.cpu).as_secs_f64() / passed,
            server_rss: usages.iter().map(|u| u.rss).sum(),
        };
        (self.bytes, self.cpu, self.at) = (bytes, cpu, now);
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push(sample);
        }
        sample
    }
}

/// Looks for viewers that are not parsed and receive nothing.
struct Silence<'a> {
    tally: &'a Tally,
    patience: Duration,
    since: Instant,
    bytes: Vec<u64>,
}

impl<'a> Silence<'a> {
    fn new(tally: &'a Tally, chats: bool) -> Self {
        let patience = match tally.protocol {
            Protocol::Hls => POLL_SILENCE,
            Protocol::Ws if !chats => PING_SILENCE,
            _ => STREAM_SILENCE,
        };
        Self { tally, patience, since: Instant::now(), bytes: tally.bytes() }
    }

    fn look(&mut self, scenario: &Scenario) {
        if self.since.elapsed() < self.patience {
            return;
        }
        let bytes = self.tally.bytes();
        let pairs = (0..).zip(bytes.iter().zip(&self.bytes));
        let silent = pairs.filter(|(index, (now, before))| {
            !scenario.is_timed(*index) && **before > 0 && now == before
        });
        self.tally.count(&self.tally.stalls, silent.count() as u64);
        self.bytes = bytes;
        self.since = Instant::now();
    }
}

/// Waits for tasks that have been told to end.
async fn leave(mut tasks: JoinSet<()>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(LEAVE_TIMEOUT, all).await.is_err() {
        tasks.abort_all();
    }
}
