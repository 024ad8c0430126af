//! Records of real encoders, and what a hostile one may send.

use proptest::prelude::*;

use super::*;

/// Records by libx264 through ffmpeg's FLV muxer.
const BASELINE: &str =
    "0142c00dffe100176742c00dda05067e7c0440000003004000000f03c50aa801000468ce0fc8";
const HIGH: &str = "01640028ffe1001b67640028acd940780227e5c044000003000400000300c83c60c65801000668ebe3c\
                    b22c0fdf8f800";
const MAIN: &str = "014d401effe10017674d401eeca05017fcb808800001f480007530078b16cb01000568ebe3cb20";
const HIGH_422: &str = "017a0015ffe1001a677a0015bcd941519e222f0110000003001000000640f162d96001000668ebe3c\
                        b22c0fef8f800";
const INTERLACED: &str = "0164001effe100186764001eacd940b424d8088000000300800000190f8a14cb01000668fba3cb2\
                          2c0fdf8f800";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn unit(nals: &[&[u8]]) -> Bytes {
    let mut out = BytesMut::new();
    for nal in nals {
        out.put_u32(nal.len() as u32);
        out.put_slice(nal);
    }
    out.freeze()
}

#[test]
fn real_records_are_read() {
    for (hex, size, name) in [
        (BASELINE, (320, 180), "avc1.42c00d"),
        (HIGH, (1920, 1080), "avc1.640028"),
        (MAIN, (640, 360), "avc1.4d401e"),
        (HIGH_422, (322, 182), "avc1.7a0015"),
        (INTERLACED, (720, 576), "avc1.64001e"),
    ] {
        let record = bytes(hex);
        let config = DecoderConfig::parse(&record).unwrap();
        assert_eq!((config.width, config.height), size, "{name}");
        assert_eq!(rfc6381(&record).unwrap(), name);
        assert_eq!((&config.record[..], config.length_size), (&record[..], 4), "{name}");
        assert_eq!(config.frame_rate_milli, None, "{name}: libx264 promises no rate to FLV");
        assert_eq!(config.track().params, Params::Video { width: size.0, height: size.1 });
    }
}

#[test]
fn a_promised_frame_rate_is_read() {
    let rate_of = |num_units_in_tick: u32, time_scale: u32, fixed: u8| {
        // VUI: no aspect, overscan, signal, chroma; timing; no HRDs, pic_struct, restrictions.
        let vui = format!("1 0000 1 {num_units_in_tick:032b} {time_scale:032b} {fixed} 0000 1");
        sps::parse(&sps_of(40, 22, 30, &vui)).unwrap().frame_rate_milli
    };
    assert_eq!(rate_of(1, 50, 1), Some(25_000));
    assert_eq!(rate_of(1001, 60_000, 1), Some(29_970));
    assert_eq!(rate_of(1, 50, 0), None, "not fixed");
    assert_eq!(rate_of(0, 50, 1), None);
    assert_eq!(rate_of(1, u32::MAX, 1), None, "absurd");
}

#[test]
fn records_are_normalised() {
    let plain = bytes(MAIN);
    let mut odd = plain.clone();
    odd[4] = 0x01; // two-byte lengths, reserved bits clear
    odd[5] &= 0x1f;
    odd.extend_from_slice(&[0, 0, 0, 7, 9]);
    let config = DecoderConfig::parse(&odd).unwrap();
    assert_eq!((&config.record[..], config.length_size), (&plain[..], 2));
    // A high profile's extension that is not whole counts as absent.
    let high = bytes(HIGH);
    let cut = DecoderConfig::parse(&high[..high.len() - 1]).unwrap();
    assert_eq!(cut.record, high[..high.len() - 4]);
}

#[test]
fn every_truncation_of_the_needed_part_is_an_error() {
    let record = bytes(MAIN);
    for len in 0..record.len() {
        let error = DecoderConfig::parse(&record[..len]).unwrap_err();
        assert!(matches!(error.reason(), "truncated" | "invalid"), "{len}: {error}");
    }
}

#[test]
fn limits_are_named() {
    let mut long = bytes(MAIN)[..6].to_vec();
    long.extend_from_slice(&[0x40, 0x01]);
    long.push(0x67);
    long.resize(6 + 2 + 0x4001, 1);
    let error = DecoderConfig::parse(&long).unwrap_err().to_string();
    assert_eq!(error, "AVC parameter set bytes: 16385 is over the limit of 16384");
    let error = DecoderConfig::parse(&vec![1; MAX_RECORD_BYTES + 1]).unwrap_err();
    assert_eq!(error.reason(), "too_large");
    for (at, value, text) in [
        (0, 2, "version 2"),
        (4, 0xfe, "lengths of 3 bytes"),
        (5, 0xe0, "no SPS"),
        (8, 0x68, "is NAL unit type 8"),
    ] {
        let mut record = bytes(MAIN);
        record[at] = value;
        if at == 5 {
            record.truncate(6);
            record.push(0);
        }
        let error = DecoderConfig::parse(&record).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

/// Writes a baseline SPS for a picture of `width` x `height` macroblocks.
fn sps_of(width: u32, height: u32, level: u8, tail: &str) -> Vec<u8> {
    let ue = |v: u32| {
        let bits = u32::BITS - (v + 1).leading_zeros();
        format!("{}{:b}", "0".repeat(bits as usize - 1), v + 1)
    };
    let mut bits = String::new();
    for value in [0, 0, 2, 1] {
        bits.push_str(&ue(value)); // id, frame number, order count type 2, one reference frame
    }
    bits.push('0');
    bits.push_str(&ue(width - 1));
    bits.push_str(&ue(height - 1));
    bits.push_str("1 1 0");
    bits.push_str(tail);
    bits.retain(|c| c != ' ');
    while !bits.len().is_multiple_of(8) {
        bits.push('0');
    }
    let mut nal = vec![0x67, 0x42, 0xc0, level];
    for byte in bits.as_bytes().chunks(8).map(|c| c.iter().fold(0u8, |v, b| v << 1 | (b - b'0'))) {
        if nal.ends_with(&[0, 0]) && byte <= 3 {
            nal.push(3); // emulation prevention
        }
        nal.push(byte);
    }
    nal
}

#[test]
fn absurd_pictures_are_refused_by_name() {
    let wide = sps::parse(&sps_of(8192 / 16 + 1, 1, 62, "0 1")).unwrap_err();
    assert_eq!(wide.to_string(), "AVC picture side in samples: 8208 is over the limit of 8192");
    let big = sps::parse(&sps_of(60_000, 60_000, 62, "0 1")).unwrap_err();
    assert!(big.to_string().starts_with("AVC picture size in macroblocks: 36"), "{big}");
    assert_eq!(sps::parse(&sps_of(512, 272, 62, "0 1")).unwrap().height, 4352);
}

#[test]
fn a_level_too_low_for_the_picture_refuses_nobody() {
    let picture = sps::parse(&sps_of(120, 68, 10, "0 1")).unwrap();
    assert_eq!((picture.width, picture.height), (1920, 1088));
}

#[test]
fn broken_video_usability_information_refuses_nobody() {
    // VUI present, then nothing but the end.
    let picture = sps::parse(&sps_of(40, 22, 30, "1 1")).unwrap();
    assert_eq!((picture.width, picture.height, picture.frame_rate_milli), (640, 352, None));
}

#[test]
fn access_units_speak_for_themselves() {
    let idr = unit(&[&[0x09, 0x10], &[0x67, 1], &[0x68, 1], &[0x06, 5], &[0x65, 0x88]]);
    assert_eq!(is_key(&idr), Ok(true));
    let inter = unit(&[&[0x41, 0x9a]]);
    assert_eq!(is_key(&inter), Ok(false));
    assert!(AccessUnit::inspect(&inter).unwrap().has_picture());
    let headers = AccessUnit::inspect(&unit(&[&[0x67, 1], &[0x68, 1], &[]])).unwrap();
    assert!(headers.has(7) && headers.has(8) && !headers.has_picture());
    assert_eq!(is_key(&[]), Ok(false));
}

#[test]
fn a_length_past_the_end_is_an_error() {
    let mut bad = unit(&[&[0x65, 1, 2]]).to_vec();
    bad[3] = 4;
    let error = is_key(&bad).unwrap_err().to_string();
    assert_eq!(error, "AVC access unit: a NAL unit of 4 bytes where 3 are left");
    assert_eq!(is_key(&[0, 0, 1]), Err(Error::Truncated { what: "AVC NAL unit length" }));
    let mut huge = nal_units(&[0xff; 9], 4);
    assert!(huge.next().unwrap().is_err());
    assert!(huge.next().is_none(), "the walk ends at an error");
}

#[test]
fn short_lengths_are_widened() {
    let four = unit(&[&[0x65, 1, 2], &[0x41]]);
    assert_eq!(with_four_byte_lengths(&four, 4).unwrap().as_ptr(), four.as_ptr());
    let one = Bytes::from_static(&[3, 0x65, 1, 2, 0, 1, 0x41]);
    assert_eq!(with_four_byte_lengths(&one, 1).unwrap(), four);
    let two = Bytes::from_static(&[0, 3, 0x65, 1, 2, 0, 1, 0x41]);
    assert_eq!(with_four_byte_lengths(&two, 2).unwrap(), four);
}

proptest! {
    #[test]
    fn no_record_panics(mut record in proptest::collection::vec(any::<u8>(), 0..200), real: bool) {
        if real {
            // Damage a real one, so that the deep paths are reached.
            let mut good = bytes(HIGH);
            for pair in record.chunks_exact(2).take(4) {
                let at = usize::from(pair[0]) % good.len();
                good[at] = pair[1];
            }
            record = good;
        }
        if let Ok(config) = DecoderConfig::parse(&record) {
            let again = DecoderConfig::parse(&config.record).unwrap();
            prop_assert_eq!(&again.record, &config.record);
            prop_assert_eq!(again.length_size, 4);
        }
    }

    #[test]
    fn no_access_unit_panics(payload in proptest::collection::vec(any::<u8>(), 0..200), size in 0usize..3) {
        let payload = Bytes::from(payload);
        let _ = is_key(&payload);
        if let Ok(wide) = with_four_byte_lengths(&payload, [1, 2, 4][size]) {
            if size < 2 {
                prop_assert!(wide.len() <= payload.len() * 5 / 2 + 4);
            }
            prop_assert!(is_key(&wide).is_ok() || size == 2);
        }
    }
}
