//! Media messages as the publisher sent them → tracks and access units. Pure.
//!
//! In: FLV tag bodies, out of RTMP or a contribution link. Out: checked codec configurations and
//! samples for [`media::segmenter`]. Keeps only what later messages need to be read by: the
//! configurations. Timestamps pass through untouched; the timeline is the segmenter's.

use media::Error;
use media::amf0::{self, Amf0};
use media::codec::{Codec, aac, avc};
use media::flv::{Body, audio, video};
use media::segmenter::Sample;
use media::track::{Track, TrackId};

use crate::rtmp::IngestMessage as Message;

/// Frame rates a publisher may hint at; anything else is noise.
const FRAME_RATES: std::ops::RangeInclusive<f64> = 1.0..=240.0;

/// Video of so long, by its own timestamps, without one key frame is never going to be seen: three
/// times the longest key-frame interval that is served whole (`hls.max_target_duration`).
const KEY_FRAME_PATIENCE_MS: u32 = 30_000;

/// What a message turned out to be.
#[derive(Debug)]
pub(crate) enum Event {
    /// A codec configuration. The same one may come again.
    Track {
        /// The track it configures.
        track: Track,
        /// Frames per second as the stream or its metadata claim.
        frame_rate: Option<f64>,
    },
    /// An access unit; its number in the push is the caller's to know.
    Sample(Sample),
    /// Of no use; the text says why.
    Ignored(&'static str),
    /// Noted.
    Nothing,
}

/// Reads the messages of one push.
#[derive(Debug, Default)]
pub(crate) struct Ingest {
    frame_rate: Option<f64>,
    avc_length_size: Option<u8>,
    has_aac: bool,
    key_frame: KeyFrame,
}

/// Whether decoding of the video can start anywhere.
#[derive(Debug, Default)]
enum KeyFrame {
    /// No frame has come.
    #[default]
    NoVideo,
    /// Frames have come since this timestamp, none of them a key frame.
    AwaitedSince(u32),
    /// One has come.
    Seen,
}

impl Ingest {
    /// Reads the next message.
    ///
    /// # Errors
    /// When a configuration cannot be read or names a codec that is not carried. The push cannot
    /// be served and ends. A single broken access unit is only ignored.
    pub(crate) fn take(&mut self, message: Message) -> Result<Event, Error> {
        match message {
            Message::Metadata { payload, .. } => {
                // Hints only: metadata that cannot be read hints at nothing.
                for value in amf0::read_all(&payload).unwrap_or_default() {
                    self.note(&value);
                }
                Ok(Event::Nothing)
            }
            Message::Video { timestamp_ms, payload } => {
                if payload.is_empty() {
                    return Ok(Event::Ignored("an empty video message"));
                }
                self.video(timestamp_ms, video::parse(&payload)?)
            }
            Message::Audio { timestamp_ms, payload } => {
                if payload.is_empty() {
                    return Ok(Event::Ignored("an empty audio message"));
                }
                self.audio(timestamp_ms, audio::parse(&payload)?)
            }
            Message::Numbered { .. } => Ok(Event::Nothing),
        }
    }

    fn note(&mut self, values: &Amf0) {
        let claimed = values.get("framerate").or_else(|| values.get("videoframerate"));
        let claimed = claimed.and_then(Amf0::as_f64);
        if let Some(rate) = claimed.filter(|rate| FRAME_RATES.contains(rate)) {
            self.frame_rate = Some(rate);
        }
    }

    fn video(&mut self, timestamp_ms: u32, body: Body) -> Result<Event, Error> {
        match body {
            Body::SequenceHeader { codec: Codec::Avc, config } => {
                let config = avc::DecoderConfig::parse(&config)?;
                self.avc_length_size = Some(config.length_size);
                let promised = config.frame_rate_milli.map(|milli| f64::from(milli) / 1000.0);
                Ok(Event::Track { track: config.track(), frame_rate: promised.or(self.frame_rate) })
            }
            Body::Frame { codec: Codec::Avc, cts_ms, payload, .. } => {
                let Some(length_size) = self.avc_length_size else {
                    return Ok(Event::Ignored("a video frame before its configuration"));
                };
                let Ok(payload) = avc::with_four_byte_lengths(&payload, length_size) else {
                    return Ok(Event::Ignored("a broken video frame"));
                };
                match avc::AccessUnit::inspect(&payload) {
                    Ok(unit) if unit.has_picture() => {
                        let key = unit.is_key();
                        self.key_frame.note(key, timestamp_ms)?;
                        let track = TrackId::Video;
                        let sample = Sample { track, timestamp_ms, cts_ms, key, payload, piece: 0 };
                        Ok(Event::Sample(sample))
                    }
                    Ok(_) => Ok(Event::Ignored("a video message without a picture")),
                    Err(_) => Ok(Event::Ignored("a broken video frame")),
                }
            }
            other => rest(other, "video"),
        }
    }

    fn audio(&mut self, timestamp_ms: u32, body: Body) -> Result<Event, Error> {
        match body {
            Body::SequenceHeader { codec: Codec::Aac, config } => {
                let config = aac::AudioConfig::parse(&config)?;
                self.has_aac = true;
                Ok(Event::Track { track: config.track(), frame_rate: None })
            }
            Body::Frame { codec: Codec::Aac, payload, .. } if self.has_aac => {
                Ok(Event::Sample(Sample {
                    track: TrackId::Audio,
                    timestamp_ms,
                    cts_ms: 0,
                    key: true,
                    payload,
                    piece: 0,
                }))
            }
            Body::Frame { .. } => Ok(Event::Ignored("an audio frame before its configuration")),
            other => rest(other, "audio"),
        }
    }
}

impl KeyFrame {
    /// Notes a frame.
    ///
    /// # Errors
    /// When a key frame has been awaited for too long.
    fn note(&mut self, key: bool, timestamp_ms: u32) -> Result<(), Error> {
        match self {
            _ if key => *self = Self::Seen,
            Self::Seen => {}
            Self::NoVideo => *self = Self::AwaitedSince(timestamp_ms),
            Self::AwaitedSince(since) => {
                let waited_ms = timestamp_ms.wrapping_sub(*since);
                // Over half the range is a step back (RTMP 1.0 section 5.3.1: modulo 2^32).
                if waited_ms > KEY_FRAME_PATIENCE_MS && waited_ms < 1 << 31 {
                    let why = format!(
                        "no key frame in {} s; set the encoder's key-frame interval to 1-2 s",
                        waited_ms / 1000
                    );
                    return Err(Error::Invalid { what: "video", why });
                }
            }
        }
        Ok(())
    }
}

fn rest(body: Body, what: &'static str) -> Result<Event, Error> {
    match body {
        Body::EndOfSequence => Ok(Event::Nothing),
        Body::Ignored(why) => Ok(Event::Ignored(why)),
        Body::Unsupported { codec } => Err(Error::Unsupported { what, name: codec.to_owned() }),
        _ => Ok(Event::Ignored("a body of no known kind")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn video(bytes: &[u8]) -> Message {
        Message::Video { timestamp_ms: 5, payload: Bytes::copy_from_slice(bytes) }
    }

    fn audio(bytes: &[u8]) -> Message {
        Message::Audio { timestamp_ms: 5, payload: Bytes::copy_from_slice(bytes) }
    }

    #[test]
    fn aac_is_read_after_its_configuration() {
        let mut ingest = Ingest::default();
        assert!(matches!(ingest.take(audio(&[0xaf, 1, 0x21])), Ok(Event::Ignored(_))));
        let config = ingest.take(audio(&[0xaf, 0, 0x11, 0x90])).unwrap();
        let Event::Track { track, .. } = config else { panic!("{config:?}") };
        assert_eq!((track.id, track.timescale), (TrackId::Audio, 48_000));
        let frame = ingest.take(audio(&[0xaf, 1, 0x21])).unwrap();
        assert!(matches!(frame, Event::Sample(Sample { timestamp_ms: 5, .. })));
    }

    #[test]
    fn a_codec_that_is_not_carried_ends_the_push_by_name() {
        let mut ingest = Ingest::default();
        let error = ingest.take(video(b"\x90hvc1\x01\x02")).unwrap_err();
        assert_eq!(error.to_string(), "video: h265 is not supported");
    }

    #[test]
    fn a_broken_configuration_ends_the_push_and_a_broken_frame_does_not() {
        let mut ingest = Ingest::default();
        assert!(ingest.take(video(&[0x17, 0, 0, 0, 0, 1, 2])).is_err());
        ingest.avc_length_size = Some(4);
        let broken = ingest.take(video(&[0x27, 1, 0, 0, 0, 0, 0, 0, 9, 1])).unwrap();
        assert!(matches!(broken, Event::Ignored("a broken video frame")));
    }

    #[test]
    fn video_without_a_key_frame_ends_the_push_by_name() {
        let mut awaited = KeyFrame::default();
        let start = u32::MAX - 5_000;
        for ms in (0..=30_000).step_by(40) {
            awaited.note(false, start.wrapping_add(ms)).unwrap();
        }
        awaited.note(false, start - 90_000).unwrap();
        let error = awaited.note(false, start.wrapping_add(30_040)).unwrap_err();
        let said = "video: no key frame in 30 s; set the encoder's key-frame interval to 1-2 s";
        assert_eq!(error.to_string(), said);
        awaited.note(true, start.wrapping_add(30_080)).unwrap();
        awaited.note(false, start.wrapping_add(90_000)).unwrap();
    }

    #[test]
    fn an_absurd_frame_rate_hint_is_not_noted() {
        let mut ingest = Ingest::default();
        let hint = |rate| {
            let value = Amf0::Object(vec![("framerate".to_owned(), Amf0::Number(rate))]);
            let mut payload = Vec::new();
            amf0::write(&mut payload, &value);
            Message::Metadata { timestamp_ms: 0, payload: payload.into() }
        };
        ingest.take(hint(f64::NAN)).unwrap();
        ingest.take(hint(1e9)).unwrap();
        assert_eq!(ingest.frame_rate, None);
        ingest.take(hint(25.0)).unwrap();
        assert_eq!(ingest.frame_rate, Some(25.0));
    }
}
