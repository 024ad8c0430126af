//! What each fuzz target does with its input: parse as a stranger's bytes, then hold the result against
//! what the parser promises. Shared by the targets and by the test that replays their corpora.

use bytes::{Bytes, BytesMut};
use media::codec::aac::AudioConfig;
use media::codec::avc::{self, DecoderConfig};
use media::flv::reader::Reader;
use media::flv::{Body, audio, video, writer};
use media::fmp4;
use media::frame::Frame;
use media::manifest::{
    self, Config, Constants, Epoch, Header, Manifest, PartNumber, RENDER_VERSION, TrackTimes,
};
use media::playlist::{self, Form, reload};
use media::track::{Track, TrackId};

/// Bodies of audio and video messages; the first byte chooses.
pub(crate) fn flv(data: &[u8]) {
    let Some((which, body)) = data.split_first() else { return };
    let body = Bytes::copy_from_slice(body);
    let parsed = if which & 1 == 0 { video::parse(&body) } else { audio::parse(&body) };
    let Ok(Body::Frame { payload, cts_ms, .. }) = parsed else { return };
    assert!(!payload.is_empty() && payload.len() < body.len());
    assert!((-0x80_0000..0x80_0000).contains(&cts_ms));
    for length_size in [1, 2, 4] {
        if let Ok(wide) = avc::with_four_byte_lengths(&payload, length_size) {
            assert!(wide.len() <= payload.len() * 5 / 2 + 4);
            assert!(length_size == 4 || avc::AccessUnit::inspect(&wide).is_ok());
        }
    }
    let _ = avc::is_key(&payload);
}

/// A whole FLV stream, in pieces as a socket would give them.
pub(crate) fn flv_stream(data: &[u8]) {
    let mut reader = Reader::new();
    let Some((step, stream)) = data.split_first() else { return };
    for piece in stream.chunks(usize::from(*step) + 1) {
        reader.push(piece);
        loop {
            match reader.next_tag() {
                Ok(Some(tag)) => {
                    let _ = (video::parse(&tag.body), audio::parse(&tag.body));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// H.264 configuration records.
pub(crate) fn avc_config(data: &[u8]) {
    let Ok(config) = DecoderConfig::parse(data) else { return };
    assert!(u32::from(config.width) <= avc::MAX_SIDE && u32::from(config.height) <= avc::MAX_SIDE);
    assert!(config.record.len() <= avc::MAX_RECORD_BYTES);
    let again = DecoderConfig::parse(&config.record).expect("a normalised record is a record");
    assert_eq!(again, DecoderConfig { length_size: 4, ..config.clone() });
    render(config.track());
}

/// AAC configurations.
pub(crate) fn aac_config(data: &[u8]) {
    let Ok(config) = AudioConfig::parse(&Bytes::copy_from_slice(data)) else { return };
    assert!(config.sample_rate > 0 && config.channels > 0 && config.frame_samples > 0);
    assert!(config.rfc6381().starts_with("mp4a.40."));
    render(config.track());
}

/// What the parsers accept, every renderer must be able to write.
fn render(track: Track) {
    let id = track.id;
    let config = Config { id: 1, tracks: vec![track] };
    assert!(media::codec::rfc6381(&config.tracks[0]).is_ok());
    let init = fmp4::init(&config).expect("an accepted configuration has an init segment");
    assert!(init.len() < 2 * avc::MAX_RECORD_BYTES);
    let payload = Bytes::from_static(&[0, 0, 0, 1, 0x65]);
    let frame = Frame { track: id, dts: 0, cts: 0, key: true, payload };
    let end = TrackTimes { video: Some(1), audio: Some(1) };
    let frames = [frame];
    let part = fmp4::part(&config, PartNumber(1), TrackTimes::default(), end, &frames);
    assert!(part.is_ok());
    let mut out = BytesMut::new();
    writer::write_preamble(&mut out, &config, None, 0).expect("and FLV headers");
    assert_eq!(out.len(), writer::preamble_len(&config, None));
    assert_eq!(config.track(TrackId::Video).is_some(), out[4] & 1 == 1);
}

/// Manifest entries as another node sends them: each after a 16-bit length. What decodes encodes to the
/// same bytes; what applies renders; nothing panics.
pub(crate) fn manifest_entry(mut data: &[u8]) {
    let mut manifest = Manifest::new(Header {
        epoch: Epoch(1),
        generation: 0,
        render_version: RENDER_VERSION,
        constants: Some(Constants { target_duration_s: 2, part_target_ms: 210 }),
        bandwidth_bps: 0,
        average_bandwidth_bps: 0,
        frame_rate_milli: None,
    });
    while let Some((len, rest)) = data.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(rest.len());
        let (entry, after) = rest.split_at(len);
        data = after;
        let Ok(entry) = manifest::decode(entry) else { continue };
        let bytes = manifest::encode(&entry).expect("what was decoded can be encoded");
        assert_eq!(manifest::decode(&bytes).as_ref(), Ok(&entry));
        let _ = manifest.apply(&entry);
    }
    check(&manifest);
}

/// A dump rebuilds what viewers see, and replayed over the manifest it came from changes none of it.
///
/// Not held yet: which configuration is the newest, when one is told or used again after a later one. A
/// manifest keeps the order they were first told in, a dump does not carry it, and the map hint shows it.
fn check(manifest: &Manifest) {
    let dump = manifest.dump();
    let mut copy = Manifest::new(manifest.header().clone());
    // A hostile home can lower its part target after the parts: such a dump is refused, not rebuilt.
    let rebuilt = dump.iter().all(|entry| copy.apply(entry).is_ok());
    let mut replayed = manifest.clone();
    for entry in &dump {
        let _ = replayed.apply(entry);
    }
    for form in [Form::Full, Form::Delta] {
        let text = playlist::media(manifest, form);
        assert!(manifest.is_playable() || text.is_err());
        let again = playlist::media(&replayed, form);
        assert_eq!(again, text, "a dump replayed over its manifest changed it");
        if rebuilt {
            let copied = playlist::media(&copy, form).map(without_map_hint);
            let text = text.map(without_map_hint);
            assert_eq!(copied, text, "a dump lost something");
        }
    }
    let _ = playlist::multivariant(manifest, "c", None);
    for (msn, part) in [(None, None), (Some(0), Some(0)), (Some(u64::MAX), Some(u64::MAX))] {
        let _ = reload::block(manifest, reload::ReloadQuery { msn, part, skip: false });
    }
    let newest = manifest.last().map_or(0, |s| s.open.msn.0);
    let query = reload::ReloadQuery { msn: Some(newest), part: Some(5), skip: false };
    let _ = reload::block(manifest, query);
}

fn without_map_hint(text: String) -> String {
    text.lines().filter(|line| !line.starts_with("#EXT-X-PRELOAD-HINT:TYPE=MAP")).collect()
}
