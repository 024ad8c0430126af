//! Writers for the boxes of a movie fragment (ISO/IEC 14496-12, 8.8), with their sizes known before.
//!
//! In: plain numbers. Out: bytes appended to a buffer whose capacity the caller has reserved. Written
//! by hand because a part is rendered several times a second and its length must be known up front.

use bytes::{BufMut, BytesMut};

/// A box's size and type.
pub(super) const HEADER: u32 = 8;

/// `mfhd`: header, version and flags, sequence number.
pub(super) const MFHD: u32 = HEADER + 8;

/// `tfdt` version 1: header, version and flags, 64-bit time.
pub(super) const TFDT: u32 = HEADER + 12;

/// `default-base-is-moof` (8.8.7.1): data offsets count from the `moof`.
const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
/// `default-sample-flags-present` (8.8.7.1).
const DEFAULT_SAMPLE_FLAGS: u32 = 0x20;

/// `sample_depends_on` 2, sync sample (8.8.3.1).
const SYNC: u32 = 0x0200_0000;
/// `sample_depends_on` 1, `sample_is_non_sync_sample` (8.8.3.1).
const NON_SYNC: u32 = 0x0101_0000;

/// What a run states per sample: audio needs no composition offset, and all its samples are sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Duration, size, flags and signed composition offset: `trun` version 1.
    Video,
    /// Duration and size; the flags stand once in `tfhd`.
    Audio,
}

impl Run {
    /// The size of `tfhd`.
    pub(super) fn tfhd_len(self) -> u32 {
        match self {
            Self::Video => HEADER + 8,
            Self::Audio => HEADER + 12,
        }
    }

    /// The size of `trun` without its samples.
    pub(super) fn trun_len(self) -> u32 {
        HEADER + 12
    }

    /// The bytes `trun` spends on one sample.
    pub(super) fn sample_len(self) -> u32 {
        match self {
            Self::Video => 16,
            Self::Audio => 8,
        }
    }
}

/// Begins a box of `len` bytes, its header included.
pub(super) fn header(out: &mut BytesMut, len: u32, kind: &[u8; 4]) {
    out.put_u32(len);
    out.put_slice(kind);
}

pub(super) fn mfhd(out: &mut BytesMut, sequence_number: u32) {
    header(out, MFHD, b"mfhd");
    out.put_u32(0);
    out.put_u32(sequence_number);
}

pub(super) fn tfhd(out: &mut BytesMut, run: Run, track_number: u32) {
    header(out, run.tfhd_len(), b"tfhd");
    match run {
        Run::Video => {
            out.put_u32(DEFAULT_BASE_IS_MOOF);
            out.put_u32(track_number);
        }
        Run::Audio => {
            out.put_u32(DEFAULT_BASE_IS_MOOF | DEFAULT_SAMPLE_FLAGS);
            out.put_u32(track_number);
            out.put_u32(SYNC);
        }
    }
}

pub(super) fn tfdt(out: &mut BytesMut, base_media_decode_time: u64) {
    header(out, TFDT, b"tfdt");
    out.put_u32(1 << 24);
    out.put_u64(base_media_decode_time);
}

/// Begins a `trun` of `count` samples; the caller appends each with [`sample`].
pub(super) fn trun(out: &mut BytesMut, run: Run, count: u32, data_offset: i32) {
    header(out, run.trun_len() + count * run.sample_len(), b"trun");
    // Version and tr_flags (8.8.8.1): data offset, duration, size; for video also flags and
    // composition offset, signed from version 1 on.
    out.put_u32(match run {
        Run::Video => 1 << 24 | 0xf01,
        Run::Audio => 0x301,
    });
    out.put_u32(count);
    out.put_i32(data_offset);
}

pub(super) fn sample(out: &mut BytesMut, run: Run, duration: u32, size: u32, key: bool, cts: i32) {
    out.put_u32(duration);
    out.put_u32(size);
    if run == Run::Video {
        out.put_u32(if key { SYNC } else { NON_SYNC });
        out.put_i32(cts);
    }
}
