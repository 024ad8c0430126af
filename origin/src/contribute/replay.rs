//! The messages of a push that were sent last, kept for a home that has lost them. Pure.
//!
//! In: every message of the publisher, in order, with the time. Out: its number; and, when another
//! home takes the room over, what to send it: the configurations in force before the first message
//! it wants, then that message and all after it.

use std::collections::VecDeque;

use media::flv::{Body, audio, video};

use crate::rtmp::IngestMessage;

/// How long a message is kept, in milliseconds: a death is noticed, the room placed again and its
/// new home settled well within.
pub(crate) const KEPT_MS: u64 = 8_000;

/// Payload bytes kept; over it the oldest messages leave first.
pub(crate) const KEPT_BYTES: usize = 16 << 20;

/// Messages kept, for those that are hardly longer than what it costs to keep them: more than two
/// thousand a second. Over it the oldest leave first.
pub(crate) const KEPT_MESSAGES: usize = 16_384;

/// The last messages of one push.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The number of the next message.
    next: u64,
    /// The configurations before the oldest message kept.
    before: Preamble,
}

#[derive(Debug)]
struct Kept {
    at_ms: u64,
    message: IngestMessage,
    part: Option<Slot>,
    /// Whether a stream with video can begin here.
    is_key: bool,
}

impl Replay {
    /// Takes the next message.
    pub(crate) fn push(&mut self, now_ms: u64, message: IngestMessage) {
        self.next += 1;
        self.bytes += message.payload_bytes();
        let (part, is_key) = inspect(&message);
        self.kept.push_back(Kept { at_ms: now_ms, message, part, is_key });
        while self.kept.len() > KEPT_MESSAGES
            || self.bytes > KEPT_BYTES
            || self.kept.front().is_some_and(|oldest| oldest.at_ms + KEPT_MS < now_ms)
        {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.message.payload_bytes();
            self.before.note(&oldest);
        }
    }

    /// What a home is sent that wants the messages from number `from` on, or from the newest that a
    /// stream can begin with: the configurations before it, its number, it and those after it. Where
    /// `from` is not kept any more, the oldest that is.
    pub(crate) fn from(&self, from: Option<u64>) -> Vec<IngestMessage> {
        let first = self.next - self.kept.len() as u64;
        let from = from.unwrap_or_else(|| self.newest_start(first)).clamp(first, self.next);
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        let mut preamble = self.before.clone();
        self.kept.iter().take(skip).for_each(|kept| preamble.note(kept));
        let mut out = preamble.into_messages();
        out.push(IngestMessage::Numbered { next: from });
        out.extend(self.kept.iter().skip(skip).map(|kept| kept.message.clone()));
        out
    }

    /// Where a home without a past begins: at the newest key frame; at the start of the push if it has
    /// only begun; else, where there is no video, with what comes next.
    fn newest_start(&self, first: u64) -> u64 {
        match self.kept.iter().rposition(|kept| kept.is_key) {
            Some(index) => first + index as u64,
            None if first == 0 => 0,
            None => self.next,
        }
    }
}

/// What a home must hear before media makes sense to it.
#[derive(Debug, Default, Clone)]
struct Preamble([Option<IngestMessage>; 3]);

/// A place in a [`Preamble`].
#[derive(Debug, Clone, Copy)]
enum Slot {
    Metadata,
    Video,
    Audio,
}

impl Preamble {
    fn note(&mut self, kept: &Kept) {
        if let Some(slot) = kept.part {
            self.0[slot as usize] = Some(kept.message.clone());
        }
    }

    fn into_messages(self) -> Vec<IngestMessage> {
        self.0.into_iter().flatten().collect()
    }
}

/// Which part of the preamble a message is, and whether a stream with video can begin with it.
fn inspect(message: &IngestMessage) -> (Option<Slot>, bool) {
    let (body, slot) = match message {
        IngestMessage::Metadata { .. } => return (Some(Slot::Metadata), false),
        IngestMessage::Video { payload, .. } if !payload.is_empty() => {
            (video::parse(payload), Slot::Video)
        }
        IngestMessage::Audio { payload, .. } if !payload.is_empty() => {
            (audio::parse(payload), Slot::Audio)
        }
        _ => return (None, false),
    };
    match body {
        Ok(Body::SequenceHeader { .. }) => (Some(slot), false),
        Ok(Body::Frame { key_flag, .. }) => (None, key_flag && matches!(slot, Slot::Video)),
        _ => (None, false),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn video(tag: [u8; 2], timestamp_ms: u32, len: usize) -> IngestMessage {
        let mut payload = tag.to_vec();
        payload.resize(len.max(6), 0);
        IngestMessage::Video { timestamp_ms, payload: Bytes::from(payload) }
    }

    const HEADER: [u8; 2] = [0x17, 0];
    const KEY: [u8; 2] = [0x17, 1];
    const FRAME: [u8; 2] = [0x27, 1];

    /// A header, then a key frame each second and 9 others.
    fn push(replay: &mut Replay, frames: u32, len: usize) {
        replay.push(0, video(HEADER, 0, 20));
        for i in 0..frames {
            let tag = if i % 10 == 0 { KEY } else { FRAME };
            replay.push(u64::from(i) * 100, video(tag, i * 100, len));
        }
    }

    #[test]
    fn what_is_wanted_comes_after_its_configuration_and_its_number() {
        let mut replay = Replay::default();
        push(&mut replay, 35, 10);
        let sent = replay.from(Some(8));
        assert_eq!(sent[..2], [video(HEADER, 0, 20), IngestMessage::Numbered { next: 8 }]);
        assert_eq!(sent[2], video(FRAME, 700, 10));
        assert_eq!(sent.len(), 2 + 28);
        let fresh = replay.from(None);
        assert_eq!(fresh[1..3], [IngestMessage::Numbered { next: 31 }, video(KEY, 3_000, 10)]);
        assert_eq!(replay.from(Some(1_000))[1], IngestMessage::Numbered { next: 36 });
    }

    #[test]
    fn the_oldest_leave_by_age_and_by_bytes_and_their_configurations_stay() {
        let mut replay = Replay::default();
        push(&mut replay, 200, 10);
        let IngestMessage::Numbered { next } = replay.from(Some(0))[1] else { panic!() };
        assert_eq!(next, 201 - 81, "eight seconds of them");
        let mut replay = Replay::default();
        push(&mut replay, 70, KEPT_BYTES / 4);
        let sent = replay.from(Some(0));
        assert_eq!(sent[0], video(HEADER, 0, 20));
        assert_eq!(sent.len(), 2 + 4);
    }

    #[test]
    fn messages_of_no_length_leave_by_their_number() {
        let mut replay = Replay::default();
        (0..=KEPT_MESSAGES).for_each(|_| replay.push(0, video(FRAME, 0, 0)));
        assert_eq!(replay.from(Some(0))[0], IngestMessage::Numbered { next: 1 });
    }

    #[test]
    fn without_a_key_frame_a_push_begins_at_its_start_or_now() {
        let mut replay = Replay::default();
        replay.push(0, video(HEADER, 0, 20));
        assert_eq!(replay.from(None).len(), 2);
        for i in 0..100 {
            replay.push(i * 200, video(FRAME, 0, 10));
        }
        assert_eq!(replay.from(None)[1], IngestMessage::Numbered { next: 101 });
    }
}
