//! The few things of a sequence parameter set that matter to players: picture size and frame rate.
//!
//! In: an SPS NAL unit of a configuration record. Out: [`Picture`]. h264-reader parses; this file
//! decides what to refuse. Encoders in phones often write VUI parameters that break a rule nobody
//! enforces, and declare a level too low for their picture: decoders play both, so neither refuses a
//! publisher here.

use h264_reader::nal::sps::{FrameMbsFlags, SeqParameterSet, SpsError};
use h264_reader::rbsp::{BitRead, BitReader, BitReaderError, Integer, Primitive, decode_nal};

use super::{MAX_MACROBLOCKS, MAX_SIDE, SPS};
use crate::error::Error;

/// The level written over the declared one while parsing, so that picture sizes are held against
/// the largest level instead: 6.2 (`level_idc` 62).
const LARGEST_LEVEL_IDC: u8 = 62;

/// A fixed frame rate outside this many frames per 1000 seconds is no promise worth repeating.
const FRAME_RATE_MILLI: std::ops::RangeInclusive<u32> = 1_000..=300_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) width: u16,
    pub(super) height: u16,
    pub(super) frame_rate_milli: Option<u32>,
}

/// Reads the SPS in `nal`, its header byte included.
pub(super) fn parse(nal: &[u8]) -> Result<Picture, Error> {
    // No NAL unit ends in a zero byte (ISO/IEC 14496-10, 7.4.1); some encoders pad with them.
    let used = nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if used == 0 {
        return Err(Error::Truncated { what: SPS });
    }
    let rbsp = decode_nal(&nal[..used]).map_err(|e| Error::invalid(SPS, e.to_string()))?;
    let mut rbsp = rbsp.into_owned();
    let level = rbsp.get_mut(2).ok_or(Error::Truncated { what: SPS })?;
    *level = LARGEST_LEVEL_IDC;
    let sps = SeqParameterSet::from_bits(BitReader::new(rbsp.as_slice()))
        .or_else(|_| SeqParameterSet::from_bits(WithoutVui(BitReader::new(rbsp.as_slice()))))
        .map_err(|e| refusal(&e))?;
    let (width, height) = dimensions(&sps)?;
    Ok(Picture { width, height, frame_rate_milli: fixed_frame_rate(&sps) })
}

fn refusal(error: &SpsError) -> Error {
    match error {
        SpsError::FieldValueTooLarge { name: "pic_size_in_map_units", value } => {
            too_many_macroblocks(u64::from(*value))
        }
        SpsError::RbspReaderError(BitReaderError::ReaderError(..)) => {
            Error::Truncated { what: SPS }
        }
        other => Error::invalid(SPS, format!("{other:?}")),
    }
}

fn too_many_macroblocks(found: u64) -> Error {
    Error::TooLarge {
        what: "AVC picture size in macroblocks",
        found,
        limit: u64::from(MAX_MACROBLOCKS),
    }
}

fn dimensions(sps: &SeqParameterSet) -> Result<(u16, u16), Error> {
    // Checked before h264-reader computes with them, and before cropping can hide them.
    let fields = match sps.frame_mbs_flags {
        FrameMbsFlags::Frames => 1,
        FrameMbsFlags::Fields { .. } => 2,
    };
    let sides = [
        u64::from(sps.pic_width_in_mbs_minus1) * 16 + 16,
        (u64::from(sps.pic_height_in_map_units_minus1) * 16 + 16) * fields,
    ];
    if let Some(found) = sides.into_iter().find(|side| *side > u64::from(MAX_SIDE)) {
        let what = "AVC picture side in samples";
        return Err(Error::TooLarge { what, found, limit: u64::from(MAX_SIDE) });
    }
    let macroblocks = sides[0] / 16 * (sides[1] / 16);
    if macroblocks > u64::from(MAX_MACROBLOCKS) {
        return Err(too_many_macroblocks(macroblocks));
    }
    let (width, height) =
        sps.pixel_dimensions().map_err(|e| Error::invalid(SPS, format!("{e:?}")))?;
    match (u16::try_from(width), u16::try_from(height)) {
        (Ok(width), Ok(height)) if width > 0 && height > 0 => Ok((width, height)),
        _ => Err(Error::invalid(SPS, format!("a picture of {width}x{height}"))),
    }
}

fn fixed_frame_rate(sps: &SeqParameterSet) -> Option<u32> {
    let timing = sps.vui_parameters.as_ref()?.timing_info.as_ref()?;
    if !timing.fixed_frame_rate_flag || timing.num_units_in_tick == 0 {
        return None;
    }
    // A frame lasts two ticks (ISO/IEC 14496-10, E.2.1).
    let tick = u64::from(timing.num_units_in_tick) * 2;
    let milli = (u64::from(timing.time_scale) * 1000 + tick / 2) / tick;
    u32::try_from(milli).ok().filter(|rate| FRAME_RATE_MILLI.contains(rate))
}

/// Reads an SPS as if it ended before its VUI parameters, whose rules real encoders break.
struct WithoutVui<R>(R);

impl<R: BitRead> BitRead for WithoutVui<R> {
    fn read_bit(&mut self, name: &'static str) -> Result<bool, BitReaderError> {
        if name == "vui_parameters_present_flag" {
            return Ok(false);
        }
        self.0.read_bit(name)
    }

    fn finish_rbsp(self) -> Result<(), BitReaderError> {
        Ok(())
    }

    fn read_ue(&mut self, name: &'static str) -> Result<u32, BitReaderError> {
        self.0.read_ue(name)
    }

    fn read_se(&mut self, name: &'static str) -> Result<i32, BitReaderError> {
        self.0.read_se(name)
    }

    fn read<const BITS: u32, I: Integer>(
        &mut self,
        name: &'static str,
    ) -> Result<I, BitReaderError> {
        self.0.read::<BITS, I>(name)
    }

    fn read_var<I: Integer>(
        &mut self,
        bit_count: u32,
        name: &'static str,
    ) -> Result<I, BitReaderError> {
        self.0.read_var(bit_count, name)
    }

    fn read_to<V: Primitive>(&mut self, name: &'static str) -> Result<V, BitReaderError> {
        self.0.read_to(name)
    }

    fn skip(&mut self, bit_count: u32, name: &'static str) -> Result<(), BitReaderError> {
        self.0.skip(bit_count, name)
    }

    fn byte_aligned(&self) -> bool {
        self.0.byte_aligned()
    }

    fn has_more_rbsp_data(&mut self, name: &'static str) -> Result<bool, BitReaderError> {
        self.0.has_more_rbsp_data(name)
    }

    fn finish_sei_payload(self) -> Result<(), BitReaderError> {
        self.0.finish_sei_payload()
    }
}
