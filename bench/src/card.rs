//! The test card as a publisher sends it: real H.264 and AAC, looped without an encoder.
//!
//! In: an FLV file, and the bit rate and key-frame interval wanted. Out: an endless sequence of RTMP
//! message bodies with room for a [`Stamp`](crate::stamp::Stamp) in every picture. The bit rate is
//! reached by SEI filling, key frames taking [`KEY_WEIGHT`] times an inter frame's share; the
//! key-frame interval by repeating or passing over key frames, after which the pictures no longer
//! decode cleanly, which no relay notices.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use media::codec::avc;
use media::flv::reader::{Reader, Tag};
use media::flv::{Body, TagKind, video};

use crate::stamp::{self, Stamp};

/// What a key frame gets of the filling, in shares of an inter frame.
const KEY_WEIGHT: usize = 5;
/// Frame type, codec, packet type, composition time: what precedes the NAL units (FLV, E.4.3.1).
const VIDEO_HEADER: usize = 5;
/// `nal_unit_type` of an access unit delimiter: the one NAL unit that must stay in front.
const DELIMITER: u8 = 9;

/// What to make of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Video and audio together, in bits per second; none leaves the card as it is.
    pub bits_per_second: Option<u64>,
    /// Frames from one key frame to the next; none leaves the card as it is.
    pub gop: Option<usize>,
}

/// A loop of frames.
#[derive(Debug)]
pub struct Card {
    /// Sequence headers, to be sent first.
    pub headers: Vec<Tag>,
    frames: Vec<Frame>,
    loop_ms: u64,
}

/// One frame of the loop.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Audio or video.
    pub kind: TagKind,
    /// Whether it is a key frame of video.
    pub key: bool,
    at_ms: u64,
    body: Vec<u8>,
    /// Where the digits of the stamp stand, in video.
    stamp_at: Option<usize>,
}

impl Frame {
    /// The message body, stamped.
    #[must_use]
    pub fn body(&self, stamp: Stamp) -> Bytes {
        let mut body = self.body.clone();
        if let Some(digits) = self.stamp_at.and_then(|at| body.get_mut(at..)) {
            stamp.write(digits);
        }
        body.into()
    }
}

impl Card {
    /// Reads an FLV file.
    ///
    /// # Errors
    /// When it is no FLV with H.264, or cannot be brought into `shape`.
    pub fn read(flv: &[u8], shape: Shape) -> Result<Self> {
        let mut reader = Reader::new();
        reader.push(flv);
        let mut headers = Vec::new();
        let mut frames = Vec::new();
        while let Some(tag) = reader.next_tag()? {
            match tag.kind {
                TagKind::Script => {}
                TagKind::Audio if tag.body.get(1) == Some(&0) => headers.push(tag),
                TagKind::Audio => frames.push(Frame::audio(&tag)),
                TagKind::Video => match video::parse(&tag.body)? {
                    Body::SequenceHeader { .. } => headers.push(tag),
                    Body::Frame { payload, .. } => frames.push(Frame::video(&tag, &payload)?),
                    _ => {}
                },
            }
        }
        frames.sort_by_key(|frame| frame.at_ms);
        let loop_ms = loop_ms(&frames).context("the card needs two video frames at least")?;
        if let Some(gop) = shape.gop {
            frames = with_gop(&frames, gop)?;
        }
        let mut card = Self { headers, frames, loop_ms };
        card.stamp();
        if let Some(bits) = shape.bits_per_second {
            card.fill(bits)?;
        }
        Ok(card)
    }

    /// Frame `index` of the endless loop, and when it is due after the start, in milliseconds.
    #[must_use]
    pub fn frame(&self, index: u64) -> (&Frame, u64) {
        let count = self.frames.len() as u64;
        let frame = &self.frames[(index % count) as usize];
        (frame, index / count * self.loop_ms + frame.at_ms)
    }

    /// The bit rate of media, in bits per second.
    #[must_use]
    pub fn bits_per_second(&self) -> u64 {
        let bytes: usize = self.frames.iter().map(|f| f.body.len()).sum();
        bytes as u64 * 8 * 1000 / self.loop_ms
    }

    fn stamp(&mut self) {
        for frame in self.frames.iter_mut().filter(|f| f.kind == TagKind::Video) {
            let at = behind_delimiter(&frame.body);
            frame.body.splice(at..at, stamp::blank());
            frame.stamp_at = Some(at + stamp::DIGITS_AT);
        }
    }

    fn fill(&mut self, bits_per_second: u64) -> Result<()> {
        let have = self.bits_per_second();
        ensure!(
            bits_per_second >= have,
            "the card has {} kbit/s already; it cannot be sent at {}",
            have / 1000,
            bits_per_second / 1000
        );
        let missing = ((bits_per_second - have) * self.loop_ms / 8000) as usize;
        let weight = |f: &Frame| if f.key { KEY_WEIGHT } else { 1 };
        let video = || self.frames.iter().filter(|f| f.kind == TagKind::Video);
        let shares: usize = video().map(weight).sum();
        for frame in self.frames.iter_mut().filter(|f| f.kind == TagKind::Video) {
            let filler = stamp::filler(missing * weight(frame) / shares);
            // Behind the stamp: SEI comes before the first slice (H.264, 7.4.1.2.3).
            let at = frame.stamp_at.unwrap_or_default() + stamp::STAMP_BYTES - stamp::DIGITS_AT;
            frame.body.splice(at..at, filler);
        }
        Ok(())
    }
}

impl Frame {
    fn audio(tag: &Tag) -> Self {
        let (at_ms, body) = (u64::from(tag.timestamp_ms), tag.body.to_vec());
        Self { kind: TagKind::Audio, key: false, at_ms, body, stamp_at: None }
    }

    fn video(tag: &Tag, payload: &[u8]) -> Result<Self> {
        let (at_ms, body) = (u64::from(tag.timestamp_ms), tag.body.to_vec());
        let key = avc::is_key(payload)?;
        Ok(Self { kind: TagKind::Video, key, at_ms, body, stamp_at: None })
    }
}

/// The end of the last video frame, if frames come at an even pace.
fn loop_ms(frames: &[Frame]) -> Option<u64> {
    let video: Vec<u64> =
        frames.iter().filter(|f| f.kind == TagKind::Video).map(|f| f.at_ms).collect();
    let (first, last) = (*video.first()?, *video.last()?);
    let gaps = video.len() as u64 - 1;
    (gaps > 0).then(|| last + (last - first + gaps / 2) / gaps)
}

/// The loop with a key frame every `gop` frames, at the times it had.
fn with_gop(frames: &[Frame], gop: usize) -> Result<Vec<Frame>> {
    let video = || frames.iter().filter(|f| f.kind == TagKind::Video);
    let count = video().count();
    ensure!(
        gop > 0 && count.is_multiple_of(gop),
        "a key frame every {gop} frames does not fit the card's loop of {count} frames"
    );
    let mut keys = video().filter(|f| f.key).cycle();
    let mut inters = video().filter(|f| !f.key).cycle();
    let mut out = Vec::with_capacity(frames.len());
    let mut index = 0;
    for frame in frames {
        if frame.kind != TagKind::Video {
            out.push(frame.clone());
            continue;
        }
        let source = if index % gop == 0 { keys.next() } else { inters.next() };
        let source = source.context("the card needs key frames and others")?;
        out.push(Frame { at_ms: frame.at_ms, ..source.clone() });
        index += 1;
    }
    Ok(out)
}

/// Where NAL units may be inserted.
fn behind_delimiter(body: &[u8]) -> usize {
    let nals = body.get(VIDEO_HEADER..).unwrap_or_default();
    let first = nals.split_first_chunk::<{ stamp::LENGTH_BYTES }>();
    match first {
        Some((length, [head, ..])) if head & 0x1f == DELIMITER => {
            VIDEO_HEADER + stamp::LENGTH_BYTES + u32::from_be_bytes(*length) as usize
        }
        _ => VIDEO_HEADER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLV: &[u8] = include_bytes!("../../node/assets/testcard.flv");

    fn video(card: &Card) -> Vec<&Frame> {
        card.frames.iter().filter(|f| f.kind == TagKind::Video).collect()
    }

    #[test]
    fn the_loop_is_seamless_and_stamped() {
        let card = Card::read(FLV, Shape::default()).unwrap();
        assert_eq!(card.headers.len(), 2);
        assert_eq!(card.loop_ms, 16_000);
        let count = card.frames.len() as u64;
        assert_eq!(card.frame(count).1, 16_000);
        assert_eq!(card.frame(2 * count + 1).1, 32_000 + card.frame(1).1);
        let stamp = Stamp { micros: 1_795_305_600_123_456, sequence: 9 };
        for frame in video(&card) {
            assert_eq!(stamp::find(&frame.body(stamp)).collect::<Vec<_>>(), [stamp]);
        }
    }

    #[test]
    fn every_nal_unit_stays_whole() {
        let shape = Shape { bits_per_second: Some(2_000_000), gop: Some(60) };
        let card = Card::read(FLV, shape).unwrap();
        for frame in video(&card) {
            let mut rest = &frame.body[VIDEO_HEADER..];
            while let Some((length, tail)) = rest.split_first_chunk::<4>() {
                rest = &tail[u32::from_be_bytes(*length) as usize..];
            }
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn bit_rate_and_key_frames_are_as_asked() {
        for (bits, gop) in [(700_000, 30), (2_000_000, 60), (6_000_000, 15)] {
            let shape = Shape { bits_per_second: Some(bits), gop: Some(gop) };
            let card = Card::read(FLV, shape).unwrap();
            let found = card.bits_per_second();
            assert!(found.abs_diff(bits) < bits / 100, "{found} for {bits}");
            let keys = video(&card).iter().map(|f| f.key).collect::<Vec<_>>();
            assert!(keys.iter().enumerate().all(|(i, key)| *key == (i % gop == 0)));
            let first = &video(&card)[0].body[VIDEO_HEADER..];
            assert!(avc::is_key(first).unwrap(), "the key frame is one by its bytes");
        }
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        let too_few = Shape { bits_per_second: Some(100_000), gop: None };
        assert!(
            Card::read(FLV, too_few).unwrap_err().to_string().contains("cannot be sent at 100")
        );
        let odd = Shape { bits_per_second: None, gop: Some(7) };
        assert!(Card::read(FLV, odd).unwrap_err().to_string().contains("480 frames"));
        assert!(Card::read(b"GIF89a, not FLV at all", Shape::default()).is_err());
    }
}
