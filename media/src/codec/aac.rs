//! AAC: the `AudioSpecificConfig` and what it means for clocks and players.
//!
//! In: `AudioSpecificConfig`s (ISO/IEC 14496-3, 1.6.2.1) as FLV tags carry them. Out: a [`Track`] and
//! its codec string. Access units are never decoded.
//!
//! With spectral band replication announced in the configuration, a decoder puts out twice the core's
//! rate and twice its samples per frame; the track then runs on the output rate. Where it is only
//! implicit in the access units nothing here can know, the track runs on the core's rate, and the time
//! per frame is the same.

use bytes::Bytes;

use super::Codec;
use super::bits::BitReader;
use crate::error::Error;
use crate::track::{Params, Track, TrackId};

/// The largest configuration accepted. Real ones have 2 to 10 bytes, with a program configuration
/// element up to about 60.
pub const MAX_CONFIG_BYTES: usize = 512;

/// The sample rates accepted, in Hz: those of the standard's table and what encoders write
/// explicitly near it.
pub const SAMPLE_RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;

const CONFIG: &str = "AAC AudioSpecificConfig";

/// `samplingFrequencyIndex` (ISO/IEC 14496-3, Table 1.18); 13 and 14 are reserved, 15 is explicit.
const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

/// Output channels by `channelConfiguration` (ISO/IEC 14496-3, Table 1.19); 0 is told by the program
/// configuration element, zeros here are reserved.
const CHANNELS: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 8, 0, 0, 0, 7, 8, 24, 8, 0];

/// Audio object types (ISO/IEC 14496-3, Table 1.17).
mod object_type {
    pub(super) const MAIN: u8 = 1;
    pub(super) const LC: u8 = 2;
    pub(super) const SSR: u8 = 3;
    pub(super) const LTP: u8 = 4;
    pub(super) const SBR: u8 = 5;
    pub(super) const PS: u8 = 29;
    pub(super) const ESCAPE: u8 = 31;
}

/// An `AudioSpecificConfig`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioConfig {
    /// The configuration as it came.
    pub config: Bytes,
    /// The core's audio object type: 1 to 4.
    pub core_object_type: u8,
    /// Whether spectral band replication is announced (HE-AAC).
    pub sbr: bool,
    /// Whether parametric stereo is announced (HE-AAC v2).
    pub ps: bool,
    /// Samples per second a decoder puts out, as far as the configuration tells.
    pub sample_rate: u32,
    /// Channels a decoder puts out.
    pub channels: u8,
    /// Samples per frame at `sample_rate`: 1024 or 960, twice that with band replication.
    pub frame_samples: u16,
}

impl AudioConfig {
    /// Reads a configuration. Trailing bytes are tolerated.
    ///
    /// # Errors
    /// Names what is truncated, reserved or out of range; [`Error::Unsupported`] names object types
    /// outside AAC Main, LC, SSR, LTP and the HE profiles.
    pub fn parse(config: &Bytes) -> Result<Self, Error> {
        if config.len() > MAX_CONFIG_BYTES {
            return Err(Error::TooLarge {
                what: "AAC AudioSpecificConfig bytes",
                found: config.len() as u64,
                limit: MAX_CONFIG_BYTES as u64,
            });
        }
        let mut r = BitReader::new(config, CONFIG);
        let outer = object_type(&mut r)?;
        let core_rate = sample_rate(&mut r)?;
        let layout = r.bits(4)? as usize;
        let ps = outer == object_type::PS;
        let sbr = ps || outer == object_type::SBR;
        let (core, extension_rate) = if sbr {
            let extension_rate = sample_rate(&mut r)?;
            (object_type(&mut r)?, Some(extension_rate))
        } else {
            (outer, None)
        };
        if !matches!(
            core,
            object_type::MAIN | object_type::LC | object_type::SSR | object_type::LTP
        ) {
            return Err(unsupported(core));
        }
        let specific = GaSpecific::read(&mut r, layout)?;
        let mut parsed = Self {
            config: config.clone(),
            core_object_type: core,
            sbr,
            ps,
            sample_rate: core_rate,
            channels: specific.channels,
            frame_samples: specific.frame_samples,
        };
        let extension_rate = extension_rate.or_else(|| parsed.read_sync_extension(&mut r));
        if let Some(rate) = extension_rate {
            parsed.apply_sbr(core_rate, rate)?;
        }
        if parsed.ps && parsed.channels == 1 {
            parsed.channels = 2;
        }
        Ok(parsed)
    }

    /// The audio track this configuration describes; its clock ticks once per output sample.
    #[must_use]
    pub fn track(&self) -> Track {
        Track {
            id: TrackId::Audio,
            codec: Codec::Aac,
            timescale: self.sample_rate,
            config: self.config.clone(),
            params: Params::Audio {
                sample_rate: self.sample_rate,
                channels: self.channels,
                frame_samples: self.frame_samples,
            },
        }
    }

    /// The RFC 6381 name, `mp4a.40.N` with the object type a player must be able to decode.
    #[must_use]
    pub fn rfc6381(&self) -> String {
        let object_type = match (self.ps, self.sbr) {
            (true, _) => object_type::PS,
            (false, true) => object_type::SBR,
            (false, false) => self.core_object_type,
        };
        format!("mp4a.40.{object_type}")
    }

    /// The backward-compatible way to announce band replication: an extension behind the core's
    /// configuration, which old decoders do not read (ISO/IEC 14496-3, 1.6.6.2.2). What cannot be
    /// read there counts as absent, as it does for an old decoder.
    fn read_sync_extension(&mut self, r: &mut BitReader<'_>) -> Option<u32> {
        const SYNC_SBR: u32 = 0x2b7;
        const SYNC_PS: u32 = 0x548;
        if r.left() < 16 || r.bits(11).ok()? != SYNC_SBR {
            return None;
        }
        if object_type(r).ok()? != object_type::SBR || !r.flag().ok()? {
            return None;
        }
        let rate = sample_rate(r).ok()?;
        self.sbr = true;
        self.ps = r.left() >= 12 && r.bits(11) == Ok(SYNC_PS) && r.flag() == Ok(true);
        Some(rate)
    }

    fn apply_sbr(&mut self, core_rate: u32, rate: u32) -> Result<(), Error> {
        if rate == core_rate * 2 {
            self.frame_samples *= 2;
        } else if rate != core_rate {
            // A decoder doubles the rate, or with downsampled SBR keeps it; nothing else exists.
            let why = format!("band replication from {core_rate} to {rate} Hz");
            return Err(Error::invalid(CONFIG, why));
        }
        self.sample_rate = rate;
        Ok(())
    }
}

/// The RFC 6381 name of an `AudioSpecificConfig`.
///
/// # Errors
/// As [`AudioConfig::parse`].
pub fn rfc6381(config: &Bytes) -> Result<String, Error> {
    AudioConfig::parse(config).map(|c| c.rfc6381())
}

fn object_type(r: &mut BitReader<'_>) -> Result<u8, Error> {
    let short = r.bits(5)? as u8;
    if short == object_type::ESCAPE { Ok(32 + r.bits(6)? as u8) } else { Ok(short) }
}

fn sample_rate(r: &mut BitReader<'_>) -> Result<u32, Error> {
    let index = r.bits(4)?;
    let rate = match index {
        15 => r.bits(24)?,
        _ => *RATES.get(index as usize).ok_or_else(|| {
            Error::invalid(CONFIG, format!("sampling frequency index {index} is reserved"))
        })?,
    };
    if SAMPLE_RATES.contains(&rate) {
        Ok(rate)
    } else {
        Err(Error::invalid(CONFIG, format!("a sample rate of {rate} Hz")))
    }
}

fn unsupported(object_type: u8) -> Error {
    let name = match object_type {
        0 => "no object type".into(),
        6 | 20 => "AAC scalable".into(),
        17 => "ER AAC LC".into(),
        19 => "ER AAC LTP".into(),
        23 => "AAC-LD".into(),
        39 => "AAC-ELD".into(),
        42 => "xHE-AAC".into(),
        34 => "MP3 in AudioSpecificConfig".into(),
        other => format!("audio object type {other}"),
    };
    Error::Unsupported { what: CONFIG, name }
}

/// `GASpecificConfig` (ISO/IEC 14496-3, 4.4.1).
struct GaSpecific {
    frame_samples: u16,
    channels: u8,
}

impl GaSpecific {
    fn read(r: &mut BitReader<'_>, layout: usize) -> Result<Self, Error> {
        let frame_samples = if r.flag()? { 960 } else { 1024 };
        if r.flag()? {
            r.skip(14)?; // coreCoderDelay
        }
        let _extension = r.flag()?;
        let channels = match layout {
            0 => program_channels(r)?,
            layout => CHANNELS[layout],
        };
        if channels == 0 {
            return Err(Error::invalid(CONFIG, format!("channel configuration {layout}")));
        }
        Ok(Self { frame_samples, channels })
    }
}

/// Counts the channels of a `program_config_element` (ISO/IEC 14496-3, 4.4.1.1) and reads to its end.
fn program_channels(r: &mut BitReader<'_>) -> Result<u8, Error> {
    r.skip(4 + 2 + 4)?; // element_instance_tag, object_type, sampling_frequency_index
    let [front, side, back] = [r.bits(4)?, r.bits(4)?, r.bits(4)?];
    let [lfe, data, coupling] = [r.bits(2)?, r.bits(3)?, r.bits(4)?];
    for mixdown_bits in [4, 4, 3] {
        if r.flag()? {
            r.skip(mixdown_bits)?;
        }
    }
    let mut channels = lfe;
    for _ in 0..front + side + back {
        channels += if r.flag()? { 2 } else { 1 };
        r.skip(4)?;
    }
    r.skip((lfe * 4 + data * 4 + coupling * 5) as usize)?;
    r.align();
    let comment = r.bits(8)? as usize;
    r.skip(comment * 8)?;
    // At most 3 + 2 × 45.
    Ok(channels as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<AudioConfig, Error> {
        AudioConfig::parse(&Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn lc_as_every_encoder_writes_it() {
        let c = parse(&[0x12, 0x10]).unwrap();
        assert_eq!((c.sample_rate, c.channels, c.frame_samples), (44_100, 2, 1024));
        assert_eq!(c.rfc6381(), "mp4a.40.2");
        assert_eq!(c.track().timescale, 44_100);
        let c = parse(&[0x11, 0x88]).unwrap();
        assert_eq!((c.sample_rate, c.channels), (48_000, 1));
        // ffmpeg adds "no band replication" behind the core's configuration.
        let c = parse(&[0x12, 0x10, 0x56, 0xe5, 0x00]).unwrap();
        assert_eq!((c.sbr, c.sample_rate, c.frame_samples), (false, 44_100, 1024));
    }

    #[test]
    fn short_frames_and_explicit_rates() {
        let c = parse(&[0x12, 0x14]).unwrap();
        assert_eq!(c.frame_samples, 960);
        // 00010 1111 (24 bits of 48000) 0010 000
        let c = parse(&[0x17, 0x80, 0x5d, 0xc0, 0x10]).unwrap();
        assert_eq!((c.sample_rate, c.channels), (48_000, 2));
        assert!(matches!(parse(&[0x17, 0x80, 0, 0, 0x10]), Err(Error::Invalid { .. })));
    }

    #[test]
    fn band_replication_announced_in_front() {
        // AOT 5, core 24 kHz, stereo, extension 48 kHz, AOT 2.
        let c = parse(&[0x2b, 0x11, 0x88, 0x00]).unwrap();
        assert_eq!((c.sbr, c.sample_rate, c.channels, c.frame_samples), (true, 48_000, 2, 2048));
        assert_eq!(c.rfc6381(), "mp4a.40.5");
        // AOT 29 (HE-AAC v2), core 22.05 kHz mono, extension 44.1 kHz.
        let c = parse(&[0xeb, 0x8a, 0x08, 0x00]).unwrap();
        assert_eq!((c.ps, c.sample_rate, c.channels, c.frame_samples), (true, 44_100, 2, 2048));
        assert_eq!(c.rfc6381(), "mp4a.40.29");
    }

    #[test]
    fn band_replication_announced_behind() {
        // LC 24 kHz stereo, sync 0x2b7, AOT 5, present, 48 kHz.
        let c = parse(&[0x13, 0x10, 0x56, 0xe5, 0x98]).unwrap();
        assert_eq!((c.sbr, c.ps, c.sample_rate, c.frame_samples), (true, false, 48_000, 2048));
        assert_eq!(c.rfc6381(), "mp4a.40.5");
        // The same, mono, with parametric stereo behind it: 0x548 and one bit.
        let c = parse(&[0x13, 0x08, 0x56, 0xe5, 0x9d, 0x48, 0x80]).unwrap();
        assert_eq!((c.ps, c.channels), (true, 2));
    }

    #[test]
    fn implicit_band_replication_runs_on_the_core() {
        let c = parse(&[0x13, 0x10]).unwrap();
        assert_eq!((c.sbr, c.sample_rate, c.frame_samples), (false, 24_000, 1024));
    }

    #[test]
    fn channels_told_by_a_program_element() {
        // LC 48 kHz, layout 0, then a PCE: one front pair, one front single, one back pair, one LFE.
        let mut bits = "00010 0011 0000 0 0 0".replace(' ', "");
        bits.push_str(&"0000 01 0011 0010 0000 0001 01 000 0000 0 0 0".replace(' ', ""));
        bits.push_str(&"0 0000 1 0000 1 0001 0000".replace(' ', ""));
        while !bits.len().is_multiple_of(8) {
            bits.push('0');
        }
        bits.push_str("00000000");
        let bytes: Vec<u8> = bits
            .as_bytes()
            .chunks(8)
            .map(|c| c.iter().fold(0, |v, b| v << 1 | (b - b'0')))
            .collect();
        assert_eq!(parse(&bytes).unwrap().channels, 6);
        assert_eq!(parse(&bytes[..bytes.len() - 1]), Err(Error::Truncated { what: CONFIG }));
    }

    #[test]
    fn what_is_refused_says_why() {
        let text = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
        assert!(text(&[]).contains("truncated"));
        assert!(text(&[0x12]).contains("truncated"));
        assert!(text(&[0x16, 0x90]).contains("index 13"));
        assert!(text(&[0x12, 0x40]).contains("channel configuration 8"));
        assert!(text(&[0xf9, 0x46, 0x40, 0x00]).contains("xHE-AAC is not supported"));
        // Band replication from 24 to 44.1 kHz.
        assert!(text(&[0x2b, 0x12, 0x08, 0x00]).contains("24000 to 44100"));
        assert_eq!(parse(&[0; 600]).unwrap_err().reason(), "too_large");
    }
}
