//! An edge: finds the home, subscribes with what it has, and fills its feed from two kinds of streams.

use std::collections::{BTreeMap, VecDeque};

use media::feed::{Feed, Limits, LogCursor};
use media::frame::Frame;
use media::manifest::{Entry, Epoch, Header, Msn, RENDER_VERSION};
use rand::Rng as _;

use super::{World, epoch};

/// Without a sign of life for so long a link is dead.
const BEATS_MS: u64 = 1_000;
/// What a packet takes at most.
const LATENCY_MS: std::ops::Range<u64> = 5..60;

/// An edge process.
pub(super) struct Edge {
    pub(super) incarnation: u64,
    pub(super) feed: Option<Feed>,
    /// When it hears of the newest grant.
    pub(super) hear_at_ms: u64,
    /// It tries nothing before.
    pub(super) rest_until_ms: u64,
    /// A node it does not reach, and until when.
    pub(super) cut: Option<(usize, u64)>,
    link: Option<Link>,
    last_part_ms: u64,
    subscribers: usize,
}

/// What an edge says it has.
#[derive(Debug, Clone)]
pub(super) struct Resume {
    pub(super) head: (Epoch, Msn, u32),
    pub(super) last_part_ms: u64,
    pub(super) subscribers: usize,
    epoch: Epoch,
    have: (Epoch, Msn, u32),
}

/// A subscription at a home.
struct Link {
    node: usize,
    epoch: u64,
    heard_ms: u64,
    /// The edge knows of a home that this one, by its donor, does not: what they say may not agree.
    is_ahead: bool,
    cursor: LogCursor,
    entries: VecDeque<(u64, Vec<Entry>)>,
    streams: BTreeMap<Msn, Stream>,
}

/// The bytes of one segment under way.
struct Stream {
    epoch: Epoch,
    /// The next frame to send, and the next one to arrive.
    next: u32,
    arrived: u32,
    under_way: VecDeque<(u64, Frame)>,
}

impl Edge {
    pub(super) fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            feed: None,
            hear_at_ms: 0,
            rest_until_ms: 0,
            cut: None,
            link: None,
            last_part_ms: 0,
            subscribers: 1,
        }
    }

    pub(super) fn reaches(&self, node: usize, now_ms: u64) -> bool {
        self.cut.is_none_or(|(cut, until_ms)| cut != node || until_ms <= now_ms)
    }

    fn resume(&self) -> Option<Resume> {
        let feed = self.feed.as_ref()?;
        let (msn, frames) = feed.resume_point()?;
        let said = feed.said();
        let opened = said.segment(msn).map_or(said.header().epoch, |segment| segment.open.epoch);
        let head = feed.manifest().head();
        Some(Resume {
            head: (said.header().epoch, head.msn, head.parts),
            last_part_ms: self.last_part_ms,
            subscribers: self.subscribers,
            epoch: said.header().epoch,
            have: (opened, msn, frames),
        })
    }
}

fn empty_feed() -> Feed {
    let header = Header {
        epoch: epoch(0),
        generation: 0,
        render_version: RENDER_VERSION,
        constants: None,
        bandwidth_bps: 0,
        average_bandwidth_bps: 0,
        frame_rate_milli: None,
    };
    Feed::new(header, Limits::default())
}

impl Stream {
    fn new(epoch: Epoch, from: u32) -> Self {
        Self { epoch, next: from, arrived: from, under_way: VecDeque::new() }
    }
}

impl World {
    /// One step of an edge.
    pub(super) fn follow(&mut self, index: usize) -> Result<(), String> {
        let now_ms = self.now_ms;
        let knows = self.edges[index].hear_at_ms <= now_ms;
        let newest = self.placement.epoch;
        if let Some(link) = &self.edges[index].link {
            let home = self.nodes[link.node].home.as_ref();
            let is_served = home.is_some_and(|home| home.epoch == link.epoch);
            let is_dead = now_ms > link.heard_ms + BEATS_MS;
            let has_moved = knows && link.epoch < newest;
            // A home that gives up says so; one that is dead does not.
            let is_told = self.nodes[link.node].is_up && !is_served;
            if is_dead || has_moved || is_told {
                self.edges[index].link = None;
            }
        }
        if self.edges[index].link.is_none()
            && (now_ms < self.edges[index].rest_until_ms || !self.subscribe(index)?)
        {
            return Ok(());
        }
        self.carry(index);
        self.arrive(index)
    }

    /// Tries to subscribe. Returns whether there is a link now.
    fn subscribe(&mut self, index: usize) -> Result<bool, String> {
        let node = self.placement.home;
        let pause = self.rng.random_range(20..120);
        self.edges[index].rest_until_ms = self.now_ms + pause;
        let edge = &self.edges[index];
        let is_reached = self.nodes[node].is_up && edge.reaches(node, self.now_ms);
        if !is_reached || edge.hear_at_ms > self.now_ms {
            return Ok(false);
        }
        let resume = edge.resume();
        let candidate = resume.clone().map(|resume| (index, edge.incarnation, resume));
        if self.want(node, candidate) != Ok(true) {
            return Ok(false);
        }
        let count = self.edges.iter().filter(|edge| edge.link.is_some()).count() + 1;
        let Some(home) = &self.nodes[node].home else { return Ok(false) };
        let feed = self.edges[index].feed.clone();
        if feed.as_ref().is_some_and(|feed| feed.said().header().epoch.0 > home.epoch) {
            return Ok(false);
        }
        let (dump, cursor) = home.core.feed().attach();
        let mut streams = BTreeMap::new();
        for open in dump.iter().filter_map(opened) {
            let have = resume.as_ref().filter(|resume| open.1 <= resume.epoch).map(|r| r.have);
            match have {
                Some((_, msn, _)) if open.0 < msn => {}
                Some((epoch, msn, frames)) if open.0 == msn && open.1 == epoch => {
                    streams.insert(open.0, Stream::new(open.1, frames));
                }
                _ => drop(streams.insert(open.0, Stream::new(open.1, 0))),
            }
        }
        let at_ms = self.now_ms + self.rng.random_range(LATENCY_MS);
        let (epoch, heard_ms) = (home.epoch, self.now_ms);
        let is_ahead = resume.is_some_and(|resume| resume.epoch.0 > home.past_epoch);
        let entries = VecDeque::from([(at_ms, dump)]);
        let edge = &mut self.edges[index];
        edge.subscribers = count;
        edge.link = Some(Link { node, epoch, heard_ms, is_ahead, cursor, entries, streams });
        Ok(true)
    }

    /// What the home has for the edge goes on its way.
    fn carry(&mut self, index: usize) {
        let (now_ms, rng) = (self.now_ms, &mut self.rng);
        let edge = &mut self.edges[index];
        let Some(link) = &mut edge.link else { return };
        let is_cut = edge.cut.is_some_and(|(cut, until)| cut == link.node && until > now_ms);
        let Some(home) = &self.nodes[link.node].home else { return };
        if is_cut {
            return;
        }
        link.heard_ms = now_ms;
        let feed = home.core.feed();
        for batch in feed.batches_since(&mut link.cursor).unwrap_or_default() {
            for (msn, epoch) in batch.iter().filter_map(opened) {
                link.streams.insert(msn, Stream::new(epoch, 0));
            }
            let last = link.entries.back().map_or(0, |(at_ms, _)| *at_ms);
            let at_ms = last.max(now_ms + rng.random_range(LATENCY_MS));
            link.entries.push_back((at_ms, batch.to_vec()));
        }
        link.streams.retain(|msn, stream| {
            let Some(found) = feed.segment_frames(*msn, stream.next) else { return false };
            for frame in found.frames {
                let last = stream.under_way.back().map_or(0, |(at_ms, _)| *at_ms);
                let at_ms = last.max(now_ms + rng.random_range(LATENCY_MS));
                stream.under_way.push_back((at_ms, frame));
                stream.next += 1;
            }
            !stream.under_way.is_empty() || found.total.is_none_or(|total| stream.next < total)
        });
    }

    /// What has come is put into the edge's feed.
    fn arrive(&mut self, index: usize) -> Result<(), String> {
        let now_ms = self.now_ms;
        let edge = &mut self.edges[index];
        let Some(link) = &mut edge.link else { return Ok(()) };
        let is_cut = edge.cut.is_some_and(|(cut, until)| cut == link.node && until > now_ms);
        if is_cut {
            return Ok(());
        }
        let feed = edge.feed.get_or_insert_with(empty_feed);
        while link.entries.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms) {
            let Some((_, batch)) = link.entries.pop_front() else { break };
            if batch.iter().any(|entry| matches!(entry, Entry::Part(_))) {
                edge.last_part_ms = now_ms;
            }
            if let Err(error) = feed.apply(batch) {
                if !link.is_ahead {
                    return Err(format!("edge {index} gives its feed up: {error}"));
                }
                // Its readers are let go, and start over with another.
                let (incarnation, hear_at_ms) = (edge.incarnation + 1, edge.hear_at_ms);
                *edge = Edge { hear_at_ms, cut: edge.cut, ..Edge::new(incarnation) };
                self.checker.gave_up();
                return Ok(());
            }
        }
        for (msn, stream) in &mut link.streams {
            while let Some((at_ms, frame)) = stream.under_way.front() {
                if *at_ms > now_ms {
                    break;
                }
                let taken = feed.push_of(stream.epoch, *msn, stream.arrived, frame.clone());
                let taken = taken.map_err(|error| {
                    format!("edge {index}, frame {} of {msn:?}: {error}", stream.arrived)
                })?;
                if !taken {
                    // Its segment is not opened here yet: the entry is under way.
                    break;
                }
                stream.under_way.pop_front();
                stream.arrived += 1;
            }
        }
        Ok(())
    }
}

fn opened(entry: &Entry) -> Option<(Msn, Epoch)> {
    match entry {
        Entry::Open(open) => Some((open.msn, open.epoch)),
        _ => None,
    }
}
