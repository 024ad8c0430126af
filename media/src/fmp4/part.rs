//! One part: a movie fragment with a track run per track that has samples, and their bytes.
//!
//! In: the frames of a part in arrival order and the manifest's word on where it starts and ends. Out:
//! one buffer of exactly the right size, into which each payload is copied once.

use bytes::{BufMut, Bytes, BytesMut};

use super::boxes::{self, Run};
use super::track_number;
use crate::error::Error;
use crate::frame::Frame;
use crate::manifest::{Config, PartNumber, TrackTimes};
use crate::track::TrackId;

const PART: &str = "fmp4 part";

/// Renders a part: `moof` and `mdat`.
///
/// `start` and `end` are where the part begins and ends on each track's clock, as the manifest says.
/// A track's decode time is that of its first frame; samples last until the track's next one, the last
/// until `end`. `mfhd` carries the low 32 bits of `number`.
///
/// # Errors
/// When the frames contradict the configuration or the manifest (an unknown track, a decode time that
/// goes back or lies outside of `start` to `end`), or there are none, or they pass 2 GiB.
pub fn part(
    config: &Config,
    number: PartNumber,
    start: TrackTimes,
    end: TrackTimes,
    frames: &[Frame],
) -> Result<Bytes, Error> {
    let runs = runs(config, start, frames)?;
    let moof_len: u32 =
        boxes::HEADER + boxes::MFHD + runs.iter().map(TrackRun::traf_len).sum::<u32>();
    let payload_len: u64 = runs.iter().map(|run| run.bytes).sum();
    let len = u64::from(moof_len) + u64::from(boxes::HEADER) + payload_len;
    let limit = i32::MAX as u64; // data_offset is a signed 32-bit number
    if len > limit {
        return Err(Error::TooLarge { what: "fmp4 part bytes", found: len, limit });
    }
    let mut out = BytesMut::with_capacity(len as usize);
    boxes::header(&mut out, moof_len, b"moof");
    boxes::mfhd(&mut out, number.0 as u32);
    let mut data_offset = moof_len + boxes::HEADER;
    for run in &runs {
        run.write(&mut out, data_offset as i32, end, frames)?;
        data_offset += run.bytes as u32;
    }
    boxes::header(&mut out, boxes::HEADER + payload_len as u32, b"mdat");
    for run in &runs {
        for frame in run.frames(frames) {
            out.put_slice(&frame.payload);
        }
    }
    debug_assert_eq!(out.len() as u64, len);
    Ok(out.freeze())
}

/// The samples of one track in a part.
struct TrackRun {
    track: TrackId,
    kind: Run,
    count: u32,
    bytes: u64,
    first_dts: u64,
}

/// The runs of the tracks that have samples, in the order of the configuration.
fn runs(config: &Config, start: TrackTimes, frames: &[Frame]) -> Result<Vec<TrackRun>, Error> {
    if frames.is_empty() {
        return Err(Error::invalid(PART, "no frames"));
    }
    if let Some(stray) = frames.iter().find(|f| config.track(f.track).is_none()) {
        let why = format!("a frame of track {:?}, which the configuration lacks", stray.track);
        return Err(Error::invalid(PART, why));
    }
    let mut runs = Vec::with_capacity(config.tracks.len());
    for track in &config.tracks {
        let mut run = TrackRun {
            track: track.id,
            kind: if track.codec.is_video() { Run::Video } else { Run::Audio },
            count: 0,
            bytes: 0,
            first_dts: 0,
        };
        for frame in run.frames(frames) {
            if run.count == 0 {
                run.first_dts = frame.dts;
            }
            run.count += 1;
            run.bytes += frame.payload.len() as u64;
        }
        if run.count == 0 {
            continue;
        }
        if let Some(start) = start.get(track.id).filter(|start| run.first_dts < *start) {
            let why = format!("{:?} starts at {}, before {start}", track.id, run.first_dts);
            return Err(Error::invalid(PART, why));
        }
        runs.push(run);
    }
    Ok(runs)
}

impl TrackRun {
    fn frames<'a>(&self, frames: &'a [Frame]) -> impl Iterator<Item = &'a Frame> + use<'a> {
        let track = self.track;
        frames.iter().filter(move |f| f.track == track)
    }

    fn traf_len(&self) -> u32 {
        boxes::HEADER
            + self.kind.tfhd_len()
            + boxes::TFDT
            + self.kind.trun_len()
            + self.count * self.kind.sample_len()
    }

    fn write(
        &self,
        out: &mut BytesMut,
        data_offset: i32,
        end: TrackTimes,
        frames: &[Frame],
    ) -> Result<(), Error> {
        let end = end.get(self.track).ok_or_else(|| {
            Error::invalid(PART, format!("the manifest gives no end of {:?}", self.track))
        })?;
        boxes::header(out, self.traf_len(), b"traf");
        boxes::tfhd(out, self.kind, track_number(self.track));
        boxes::tfdt(out, self.first_dts);
        boxes::trun(out, self.kind, self.count, data_offset);
        let mut samples = self.frames(frames).peekable();
        while let Some(frame) = samples.next() {
            let until = samples.peek().map_or(end, |next| next.dts);
            let duration = until.checked_sub(frame.dts).and_then(|d| u32::try_from(d).ok());
            let Some(duration) = duration else {
                let why = format!("{:?} goes from {} to {until}", self.track, frame.dts);
                return Err(Error::invalid(PART, why));
            };
            // The sum of all sizes was held under 2 GiB.
            let size = frame.payload.len() as u32;
            boxes::sample(out, self.kind, duration, size, frame.key, frame.cts);
        }
        Ok(())
    }
}
