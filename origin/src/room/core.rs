//! The synchronous heart of a room: life, ingest and segmenter joined, publishing into the feed.
//!
//! In: what the room's task received, with the time. Out: decisions for the task, and entries and
//! frames in the feed. No await, no socket; the wall clock is read once per input, for the
//! PROGRAM-DATE-TIME anchor.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cluster::Grant;
use media::feed::Feed;
use media::manifest::{Entry, Epoch, Manifest};
use media::segmenter::{Identity, Now, Output, Segmenter};
use tracing::{debug, error, info, warn};
use wire::RoomId;

use super::life::{Life, Phase, PublishId, Verdict};
use super::{Config, Metrics, State};
use crate::ingest::{Event, Ingest};
use crate::rtmp::IngestMessage;

/// What the task must do about pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// This push publishes from now on.
    Accept {
        /// The push.
        id: PublishId,
        /// The incumbent that lost its place.
        replaces: Option<PublishId>,
        /// The first of its messages that is wanted, where it goes on with a stream taken over.
        from: Option<u64>,
    },
    /// This push is refused.
    Refuse {
        /// The push.
        id: PublishId,
    },
}

pub(super) struct Core {
    room: RoomId,
    life: Life,
    ingest: Ingest,
    segmenter: Segmenter,
    feed: Feed,
    metrics: Arc<Metrics>,
    next_id: PublishId,
    /// The names of the pushes that contend, and of the one accepted.
    names: Vec<(PublishId, u64)>,
    /// The accepted push, and where it is.
    push: Push,
    outputs: Vec<Output>,
    verdicts: Vec<Verdict>,
}

/// The accepted push.
#[derive(Debug, Default)]
struct Push {
    /// Its name, see [`media::manifest::Mark`].
    name: u64,
    /// The first message asked of it.
    from: Option<u64>,
    /// Whether its first numbered message is known: what comes before only configures.
    has_begun: bool,
    /// The number of the next message.
    next: u64,
}

/// What an earlier home left, as a subscriber of it had it.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    /// Its manifest, as far as the bytes are there.
    pub(crate) manifest: Manifest,
    /// How long ago the last part came.
    pub(crate) age_ms: u64,
}

impl Core {
    /// The room under a grant, going on with its past where there is one to go on with.
    pub(super) fn new(
        grant: &Grant,
        past: Option<&Past>,
        config: &Config,
        metrics: Arc<Metrics>,
    ) -> Self {
        let identity = Identity {
            epoch: Epoch(grant.epoch.0),
            generation: grant.generation,
            msn_base: grant.msn_base,
        };
        let grace_ms = u64::try_from(config.publish_grace.as_millis()).unwrap_or(u64::MAX);
        let taken = past.and_then(|past| {
            let (settings, age_ms) = (config.segmenter, past.age_ms);
            Segmenter::take_over(settings, identity, &past.manifest, age_ms)
        });
        let (segmenter, entries, life) = match taken {
            Some((segmenter, entries)) => {
                metrics.taken_over();
                (segmenter, entries, Life::taken_over(0, grace_ms))
            }
            None => {
                let segmenter = Segmenter::new(config.segmenter, identity);
                (segmenter, Vec::new(), Life::new(0, grace_ms))
            }
        };
        let feed = Feed::new(segmenter.header(), config.feed);
        if let Err(error) = feed.apply(entries) {
            error!(%error, "a stream taken over contradicts itself; please report this");
        }
        Self {
            room: grant.room.clone(),
            life,
            ingest: Ingest::default(),
            feed,
            segmenter,
            names: Vec::new(),
            push: Push::default(),
            metrics,
            next_id: 1,
            outputs: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    pub(super) fn room(&self) -> &RoomId {
        &self.room
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(super) fn is_closed(&self) -> bool {
        self.life.phase() == Phase::Closed
    }

    pub(super) fn state(&self) -> State {
        match self.life.phase() {
            Phase::Live { .. } => State::Live,
            Phase::Grace { .. } => State::Grace,
            Phase::Idle { .. } | Phase::Ended { .. } | Phase::Closed => State::Idle,
        }
    }

    pub(super) fn advice(&self) -> Option<&'static str> {
        self.segmenter.advice()
    }

    /// When [`Self::poll`] has something to do, in milliseconds of the room's clock.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        match (self.life.deadline_ms(), self.segmenter.deadline_ms()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// A push of this name wants the room; returns what it is decided under. The push that has the
    /// room and comes again has lost its way here and takes its own place.
    pub(super) fn challenge(
        &mut self,
        now_ms: u64,
        name: u64,
        out: &mut Vec<Decision>,
    ) -> PublishId {
        if matches!(self.life.phase(), Phase::Live { .. }) && self.push.name == name {
            self.left(now_ms, out);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.names.push((id, name));
        self.life.challenge(now_ms, id, &mut self.verdicts);
        self.settle(out);
        id
    }

    pub(super) fn withdraw(&mut self, id: PublishId) {
        self.names.retain(|(named, _)| *named != id);
        self.life.withdraw(id);
    }

    /// The incumbent sent something.
    ///
    /// # Errors
    /// What is wrong with its media, when it cannot be served; the push must end.
    pub(super) fn message(
        &mut self,
        now_ms: u64,
        message: IngestMessage,
        out: &mut Vec<Decision>,
    ) -> Result<(), media::Error> {
        if let IngestMessage::Numbered { next } = message {
            self.number(now_ms, next);
            return Ok(());
        }
        let piece = self.push.next;
        self.push.next += 1;
        let event = self.ingest.take(message)?;
        match event {
            Event::Track { track, frame_rate } => self.segmenter.configure(track, frame_rate),
            Event::Sample(mut sample) => {
                sample.piece = piece;
                self.segmenter.push(clock(now_ms), sample, &mut self.outputs);
                self.publish();
            }
            Event::Ignored(what) => {
                debug!(what, "ignored");
                self.metrics.ignored();
            }
            Event::Nothing => {}
        }
        self.life.media(now_ms, &mut self.verdicts);
        self.settle(out);
        Ok(())
    }

    /// The incumbent's next message has this number: it begins, or goes on where an earlier home
    /// left it.
    fn number(&mut self, now_ms: u64, next: u64) {
        self.push.next = next;
        if std::mem::replace(&mut self.push.has_begun, true) {
            return;
        }
        let is_whole = self.push.from.is_some_and(|from| next <= from);
        if is_whole && self.segmenter.go_on(&mut self.outputs) {
            self.metrics.gone_on();
            info!(from = next, "the push goes on without a discontinuity");
        } else {
            self.segmenter.identify(self.push.name);
            self.segmenter.begin(clock(now_ms), &mut self.outputs);
        }
        self.publish();
    }

    /// The room has another home: the open segment is sealed and the room closes. What the stream was
    /// stays for the next home to take over.
    pub(super) fn fence(&mut self, out: &mut Vec<Decision>) {
        self.segmenter.gone(&mut self.outputs);
        self.publish();
        self.close(out);
    }

    /// The incumbent ended.
    pub(super) fn left(&mut self, now_ms: u64, out: &mut Vec<Decision>) {
        if let Phase::Live { .. } = self.life.phase() {
            self.segmenter.gone(&mut self.outputs);
            self.publish();
            info!("publisher gone; its return is awaited");
        }
        self.life.left(now_ms, &mut self.verdicts);
        self.settle(out);
    }

    pub(super) fn stop(&mut self, now_ms: u64, out: &mut Vec<Decision>) {
        if let Phase::Live { .. } = self.life.phase() {
            self.segmenter.gone(&mut self.outputs);
            self.publish();
        }
        self.life.stop(now_ms, &mut self.verdicts);
        self.settle(out);
    }

    /// Whether members keep the room open.
    pub(super) fn hold(&mut self, now_ms: u64, held: bool) {
        self.life.hold(now_ms, held);
    }

    pub(super) fn close(&mut self, out: &mut Vec<Decision>) {
        self.life.close(&mut self.verdicts);
        self.settle(out);
    }

    /// What the time alone decides.
    pub(super) fn poll(&mut self, now_ms: u64, out: &mut Vec<Decision>) {
        self.segmenter.tick(clock(now_ms), &mut self.outputs);
        self.publish();
        self.life.poll(now_ms, &mut self.verdicts);
        self.settle(out);
    }

    fn settle(&mut self, out: &mut Vec<Decision>) {
        for verdict in std::mem::take(&mut self.verdicts) {
            match verdict {
                Verdict::Accept { id, replaces } => {
                    if let Some(silent) = replaces {
                        warn!(silent, "a silent publisher is replaced");
                        self.metrics.replaced();
                        self.segmenter.gone(&mut self.outputs);
                    }
                    self.publish();
                    self.ingest = Ingest::default();
                    let named = self.names.iter().find(|(named, _)| *named == id);
                    let name = named.map_or(0, |(_, name)| *name);
                    self.names.retain(|(named, _)| *named != id);
                    let wanted = self.segmenter.wants().filter(|(publish, _)| *publish == name);
                    let from = wanted.map(|(_, from)| from);
                    self.push = Push { name, from, ..Push::default() };
                    out.push(Decision::Accept { id, replaces, from });
                }
                Verdict::Refuse { id } => {
                    self.names.retain(|(named, _)| *named != id);
                    out.push(Decision::Refuse { id });
                }
                Verdict::End => {
                    info!("the stream is over");
                    self.segmenter.end(&mut self.outputs);
                    self.publish();
                }
                Verdict::Close => info!("room closed"),
            }
        }
    }

    /// Moves the segmenter's outputs into the feed: entries between two frames as one batch.
    fn publish(&mut self) {
        let mut batch: Vec<Entry> = Vec::new();
        let feed = &self.feed;
        let flush = |batch: &mut Vec<Entry>| {
            if !batch.is_empty()
                && let Err(error) = feed.apply(std::mem::take(batch))
            {
                error!(%error, "the segmenter contradicts itself; please report this");
            }
        };
        for output in self.outputs.drain(..) {
            match output {
                Output::Entry(entry) => batch.push(entry),
                Output::Frame { msn, frame } => {
                    flush(&mut batch);
                    if let Err(error) = feed.push_next(msn, frame) {
                        error!(%error, "a frame was not taken; please report this");
                    }
                }
            }
        }
        flush(&mut batch);
    }
}

fn clock(mono_ms: u64) -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono_ms, unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use media::feed::Lookup;
    use media::flv::TagKind;
    use media::flv::reader::Reader;
    use media::manifest::Status;
    use media::playlist::check::Checker;
    use media::playlist::{self, Form};
    use wire::{Epoch, NodeId};

    use super::*;

    /// The demo's test card: 16 s of 30 fps H.264 with a key frame a second, and 48 kHz AAC.
    fn card() -> Vec<IngestMessage> {
        let mut reader = Reader::new();
        reader.push(include_bytes!("../../../node/assets/testcard.flv"));
        let mut messages = Vec::new();
        while let Some(tag) = reader.next_tag().unwrap() {
            let (timestamp_ms, payload) = (tag.timestamp_ms, tag.body);
            messages.push(match tag.kind {
                TagKind::Video => IngestMessage::Video { timestamp_ms, payload },
                TagKind::Audio => IngestMessage::Audio { timestamp_ms, payload },
                TagKind::Script => IngestMessage::Metadata { timestamp_ms, payload },
            });
        }
        messages
    }

    fn time(message: &IngestMessage) -> u64 {
        let (IngestMessage::Video { timestamp_ms, .. }
        | IngestMessage::Audio { timestamp_ms, .. }
        | IngestMessage::Metadata { timestamp_ms, .. }) = message
        else {
            panic!("{message:?}")
        };
        u64::from(*timestamp_ms)
    }

    fn core() -> Core {
        let grant = Grant {
            room: RoomId::new("live", "card").unwrap(),
            home: NodeId::new("o1").unwrap(),
            home_addr: "127.0.0.1:1".parse().unwrap(),
            epoch: Epoch(5),
            generation: 5,
            msn_base: 1_000,
        };
        let config = Config {
            segmenter: media::segmenter::Settings::default(),
            feed: media::feed::Limits::default(),
            publish_grace: Duration::from_secs(10),
            ledger: None,
            hooks: None,
            region: wire::Region::default(),
        };
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap());
        Core::new(&grant, None, &config, metrics)
    }

    #[test]
    fn a_pushed_card_becomes_a_list_that_keeps_every_rule() {
        let (mut core, mut out) = (core(), Vec::new());
        core.challenge(0, 9, &mut out);
        assert_eq!(out, [Decision::Accept { id: 1, replaces: None, from: None }]);
        core.message(0, IngestMessage::Numbered { next: 0 }, &mut out).unwrap();
        let mut checker = Checker::new();
        let mut head = core.feed().manifest().head();
        for message in card() {
            core.message(time(&message), message, &mut out).unwrap();
            let manifest = core.feed().manifest();
            if manifest.is_playable() && manifest.head() != head {
                head = manifest.head();
                let text = playlist::media(&manifest, Form::Full).unwrap();
                checker.observe(&text).unwrap_or_else(|found| panic!("{found:?} in\n{text}"));
            }
        }
        assert_eq!(checker.short_parts(), 0);
        assert!(checker.observed() > 70, "{} lists", checker.observed());
        let manifest = core.feed().manifest();
        for segment in manifest.segments().iter().filter(|s| s.duration.is_some()) {
            let found = core.feed().segment(segment.open.epoch, segment.open.msn);
            let Lookup::Ready(parts) = found else { panic!("{found:?}") };
            assert!(parts.iter().all(|part| part.fmp4().is_ok()));
            assert_eq!(segment.duration, Some(90_000), "one second exactly");
        }
        core.left(16_000, &mut out);
        assert_eq!(core.feed().manifest().status(), Status::Grace);
        core.poll(26_000, &mut out);
        assert_eq!(core.feed().manifest().status(), Status::Ended);
        let manifest = core.feed().manifest();
        let text = playlist::media(&manifest, Form::Full).unwrap();
        checker.observe(&text).unwrap_or_else(|found| panic!("{found:?} in\n{text}"));
        assert!(text.contains("#EXT-X-ENDLIST"));
    }

    #[test]
    fn media_that_cannot_be_served_ends_the_push_by_name() {
        let (mut core, mut out) = (core(), Vec::new());
        core.challenge(0, 9, &mut out);
        let payload = bytes::Bytes::from_static(b"\x90hvc1\x01\x02\x03");
        let message = IngestMessage::Video { timestamp_ms: 0, payload };
        let error = core.message(1, message, &mut out).unwrap_err();
        assert_eq!(error.to_string(), "video: h265 is not supported");
    }
}
