//! The init segment: `ftyp` and a `moov` without samples, which every part of a configuration needs.
//!
//! In: a [`Config`]. Out: its bytes. mp4-atom writes the boxes; nothing in them comes from a clock.

use bytes::Bytes;
use mp4_atom::{
    Atom, Audio, Avc1, Avcc, Codec as SampleEntry, Dinf, Dref, DrefEntry, Encode, FixedPoint, Ftyp,
    Hdlr, Mdhd, Mdia, Minf, Moov, Mp4a, Mvex, Mvhd, Smhd, Stbl, Stco, Stsd, Tkhd, Trak, Trex, Url,
    Visual, Vmhd, esds,
};

use super::track_number;
use crate::codec::Codec;
use crate::error::Error;
use crate::manifest::Config;
use crate::track::{Params, Track, VIDEO_TIMESCALE};

const INIT: &str = "fmp4 init segment";

/// Renders the init segment of a configuration.
///
/// # Errors
/// When a track's codec is not carried or its configuration record cannot be read.
pub fn init(config: &Config) -> Result<Bytes, Error> {
    if config.tracks.is_empty() {
        return Err(Error::invalid(INIT, "no tracks"));
    }
    let traks = config.tracks.iter().map(trak).collect::<Result<Vec<_>, _>>()?;
    let last = config.tracks.iter().map(|t| track_number(t.id)).max().unwrap_or(0);
    let moov = Moov {
        mvhd: Mvhd {
            timescale: VIDEO_TIMESCALE,
            next_track_id: last + 1,
            rate: FixedPoint::new(1, 0),
            volume: FixedPoint::new(1, 0),
            ..Mvhd::default()
        },
        mvex: Some(Mvex {
            mehd: None,
            trex: config
                .tracks
                .iter()
                .map(|t| Trex {
                    track_id: track_number(t.id),
                    default_sample_description_index: 1,
                    ..Trex::default()
                })
                .collect(),
        }),
        trak: traks,
        ..Moov::default()
    };
    // iso6 brings tfdt, default-base-is-moof and signed composition offsets (14496-12, annex E).
    let ftyp = Ftyp {
        major_brand: b"iso6".into(),
        minor_version: 0,
        compatible_brands: vec![b"iso6".into(), b"mp41".into()],
    };
    let mut out = Vec::with_capacity(2048);
    ftyp.encode(&mut out).and_then(|()| moov.encode(&mut out)).map_err(|e| failed(&e))?;
    Ok(Bytes::from(out))
}

fn failed(error: &mp4_atom::Error) -> Error {
    Error::invalid(INIT, error.to_string())
}

fn trak(track: &Track) -> Result<Trak, Error> {
    let (entry, width, height) = match (track.codec, track.params) {
        (Codec::Avc, Params::Video { width, height }) => {
            (avc1(&track.config, width, height)?, width, height)
        }
        (Codec::Aac, Params::Audio { sample_rate, channels, .. }) => {
            (mp4a(track, sample_rate, channels), 0, 0)
        }
        (codec, _) => {
            return Err(Error::Unsupported { what: INIT, name: codec.name().into() });
        }
    };
    let video = track.codec.is_video();
    let data_here = Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url::default())] } };
    Ok(Trak {
        tkhd: Tkhd {
            track_id: track_number(track.id),
            enabled: true,
            in_movie: true,
            volume: FixedPoint::new(u8::from(!video), 0),
            width: width.into(),
            height: height.into(),
            ..Tkhd::default()
        },
        mdia: Mdia {
            mdhd: Mdhd { timescale: track.timescale, language: "und".into(), ..Mdhd::default() },
            hdlr: Hdlr {
                handler: if video { b"vide".into() } else { b"soun".into() },
                name: if video { "video".into() } else { "audio".into() },
            },
            minf: Minf {
                vmhd: video.then(Vmhd::default),
                smhd: (!video).then(Smhd::default),
                dinf: data_here,
                stbl: Stbl {
                    stsd: Stsd { codecs: vec![entry] },
                    stco: Some(Stco::default()),
                    ..Stbl::default()
                },
                ..Minf::default()
            },
        },
        ..Trak::default()
    })
}

fn avc1(record: &Bytes, width: u16, height: u16) -> Result<SampleEntry, Error> {
    let avcc = Avcc::decode_body(&mut &record[..]).map_err(|e| failed(&e))?;
    let visual = Visual { data_reference_index: 1, width, height, ..Visual::default() };
    Ok(SampleEntry::Avc1(Avc1 { visual, avcc, ..Avc1::default() }))
}

fn mp4a(track: &Track, sample_rate: u32, channels: u8) -> SampleEntry {
    SampleEntry::Mp4a(Mp4a {
        audio: Audio {
            data_reference_index: 1,
            channel_count: u16::from(channels),
            sample_size: 16,
            // 16.16 fixed point has no room for rates above 65,535 Hz: decoders then go by the
            // configuration record.
            sample_rate: u16::try_from(sample_rate).unwrap_or(0).into(),
        },
        esds: mp4_atom::Esds {
            es_desc: esds::EsDescriptor {
                // 14496-14, 3.1.2: 0 in files; the track's own id is used.
                es_id: 0,
                dec_config: esds::DecoderConfig {
                    object_type_indication: 0x40, // audio, 14496-3
                    stream_type: 5,               // audio stream
                    dec_specific: Some(esds::DecoderSpecific {
                        raw: track.config.to_vec(),
                        ..esds::DecoderSpecific::default()
                    }),
                    ..esds::DecoderConfig::default()
                },
                ..esds::EsDescriptor::default()
            },
        },
        btrt: None,
        taic: None,
    })
}
