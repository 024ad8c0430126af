//! The reader against an encoder that may do all that the specification allows.

use proptest::{prelude::*, sample::Index};

use super::*;

/// A message as the test sends it: on which chunk stream, with which choices of its encoder.
#[derive(Debug, Clone)]
struct Sent {
    chunk_stream: u32,
    timestamp_ms: u32,
    kind: u8,
    stream_id: u32,
    payload: Vec<u8>,
    /// Whether to use the shortest header that says the same, rather than a full one.
    compress: bool,
}

/// Encodes chunk by chunk, so that the caller can interleave messages.
struct Encoder {
    chunk_bytes: usize,
    /// Whether type 3 headers repeat an extended time.
    repeats_time: bool,
    /// Per chunk stream: time, field, extended, length, kind, stream id of the last message.
    last: std::collections::HashMap<u32, (u32, u32, bool, usize, u8, u32)>,
    out: Vec<u8>,
}

impl Encoder {
    fn new(chunk_bytes: usize) -> Self {
        let mut encoder =
            Self { chunk_bytes, repeats_time: true, last: Default::default(), out: Vec::new() };
        Writer::default().set_chunk_size(&mut encoder.out, u32::try_from(chunk_bytes).unwrap());
        encoder
    }

    fn basic(&mut self, format: u8, id: u32) {
        match id {
            2..64 => self.out.push(format << 6 | id as u8),
            64..320 => self.out.extend([format << 6, (id - 64) as u8]),
            _ => {
                let [low, high] = ((id - 64) as u16).to_le_bytes();
                self.out.extend([format << 6 | 1, low, high]);
            }
        }
    }

    fn start(&mut self, sent: &Sent) {
        let length = sent.payload.len();
        let last = self.last.get(&sent.chunk_stream).copied().filter(|_| sent.compress);
        let (format, field) = match last {
            Some((time, field, _, last_length, kind, stream_id)) if stream_id == sent.stream_id => {
                let delta = sent.timestamp_ms.wrapping_sub(time);
                match (last_length, kind) == (length, sent.kind) {
                    true if delta == field => (3, delta),
                    true => (2, delta),
                    false => (1, delta),
                }
            }
            _ => (0, sent.timestamp_ms),
        };
        let extended =
            if format == 3 { last.is_some_and(|last| last.2) } else { field >= EXTENDED };
        self.basic(format, sent.chunk_stream);
        if format < 3 {
            self.out.extend(&field.min(EXTENDED).to_be_bytes()[1..]);
        }
        if format < 2 {
            self.out.extend(&(length as u32).to_be_bytes()[1..]);
            self.out.push(sent.kind);
        }
        if format == 0 {
            self.out.extend(sent.stream_id.to_le_bytes());
        }
        if extended {
            self.out.extend(field.to_be_bytes());
        }
        let state = (sent.timestamp_ms, field, extended, length, sent.kind, sent.stream_id);
        self.last.insert(sent.chunk_stream, state);
    }

    /// Sends the chunk of `sent` that starts at `from`; says where the next one does.
    fn chunk(&mut self, sent: &Sent, from: usize) -> usize {
        if from == 0 {
            self.start(sent);
        } else {
            self.basic(3, sent.chunk_stream);
            let (_, field, extended, ..) = self.last[&sent.chunk_stream];
            if extended && self.repeats_time {
                self.out.extend(field.to_be_bytes());
            }
        }
        let end = sent.payload.len().min(from + self.chunk_bytes);
        self.out.extend(&sent.payload[from..end]);
        end
    }

    fn message(&mut self, sent: &Sent) {
        let mut at = self.chunk(sent, 0);
        while at < sent.payload.len() {
            at = self.chunk(sent, at);
        }
    }
}

impl From<&Sent> for Message {
    fn from(sent: &Sent) -> Self {
        Self {
            timestamp_ms: sent.timestamp_ms,
            kind: sent.kind,
            stream_id: sent.stream_id,
            payload: Bytes::copy_from_slice(&sent.payload),
        }
    }
}

fn video(chunk_stream: u32, timestamp_ms: u32, payload: Vec<u8>) -> Sent {
    Sent { chunk_stream, timestamp_ms, kind: kind::VIDEO, stream_id: 1, payload, compress: true }
}

fn read(reader: &mut Reader, mut input: &[u8]) -> Result<Vec<Message>, Error> {
    let mut messages = Vec::new();
    while let Some(message) = reader.next(&mut input)? {
        messages.push(message);
    }
    assert!(input.is_empty());
    Ok(messages)
}

fn read_all(input: &[u8]) -> Result<Vec<Message>, Error> {
    read(&mut Reader::new(Limits::PUBLISHER), input)
}

#[test]
fn the_example_of_the_specification_reads() {
    // Section 5.3.2.1: audio on chunk stream 3, headers of type 0, 2, 3, 3.
    let body = [7u8; 32];
    let mut bytes = b"\x03\0\x03\xe8\0\0\x20\x08\x39\x30\0\0".to_vec();
    bytes.extend(body);
    bytes.extend(b"\x83\0\0\x14");
    bytes.extend(body);
    for _ in 0..2 {
        bytes.push(0xc3);
        bytes.extend(body);
    }
    let messages = read_all(&bytes).unwrap();
    let times: Vec<_> = messages.iter().map(|message| message.timestamp_ms).collect();
    assert_eq!(times, [1000, 1020, 1040, 1060]);
    assert!(messages.iter().all(|message| {
        (message.kind, message.stream_id, &message.payload[..]) == (kind::AUDIO, 12345, &body)
    }));
}

#[test]
fn times_go_through_2_to_the_24_and_31_and_wrap() {
    for start in [0xff_fff0_u32, 0x7fff_fff0, 0xffff_fff0] {
        for compress in [false, true] {
            let mut encoder = Encoder::new(128);
            let sent: Vec<_> = (0..4)
                .map(|i: u32| {
                    let payload = vec![i as u8; 300 + i as usize / 2];
                    Sent { compress, ..video(6, start.wrapping_add(i * 7), payload) }
                })
                .collect();
            sent.iter().for_each(|message| encoder.message(message));
            let expected: Vec<_> = sent.iter().map(Message::from).collect();
            assert_eq!(read_all(&encoder.out).unwrap(), expected, "{start:#x} {compress}");
        }
    }
}

#[test]
fn a_delta_may_be_extended() {
    let mut encoder = Encoder::new(128);
    let sent = [video(6, 5, vec![1; 200]), video(6, 5 + 0x0200_0000, vec![2; 200])];
    sent.iter().for_each(|message| encoder.message(message));
    assert!(encoder.out.windows(4).any(|w| w == [0x86, 0xff, 0xff, 0xff]), "type 2, extended");
    assert_eq!(read_all(&encoder.out).unwrap()[1].timestamp_ms, 5 + 0x0200_0000);
}

#[test]
fn an_encoder_may_leave_out_the_repeated_extended_time() {
    for length in [129, 130, 131, 132, 400] {
        for split in 1..40 {
            let mut encoder = Encoder::new(128);
            encoder.repeats_time = false;
            let sent = [
                video(6, 0x0123_4567, vec![9; length]),
                Sent { compress: false, ..video(6, 0x0123_4587, vec![8; length]) },
            ];
            sent.iter().for_each(|message| encoder.message(message));
            // Whatever follows may be needed to tell a time from payload.
            encoder.message(&video(7, 0, vec![1; 3]));
            let mut reader = Reader::new(Limits::PUBLISHER);
            let mut messages = Vec::new();
            for bytes in encoder.out.chunks(split) {
                messages.extend(read(&mut reader, bytes).unwrap());
            }
            let expected: Vec<_> = sent.iter().map(Message::from).collect();
            assert_eq!(messages[..2], expected, "length {length}, split {split}");
        }
    }
}

#[test]
fn a_full_header_inside_a_message_goes_on_with_it() {
    let mut bytes = Vec::new();
    for part in [[1u8; 128], [2; 128]] {
        bytes.extend(b"\x06\0\0\x05\0\x01\0\x09\x01\0\0\0");
        bytes.extend(part);
    }
    let messages = read_all(&bytes).unwrap();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].payload, [[1u8; 128], [2; 128]].concat());
    // A header about something else is an error, not a guess.
    let mut other = bytes[..140].to_vec();
    other.extend(b"\x06\0\0\x05\0\x02\0\x09\x01\0\0\0");
    let error = read_all(&other).unwrap_err().to_string();
    assert_eq!(error, "chunk stream: 6 starts a message inside another one");
}

#[test]
fn librtmp_may_begin_a_chunk_stream_with_type_1() {
    let messages = read_all(b"\x42\0\0\x07\0\0\x06\x04\0\x07\0\0\0\0").unwrap();
    assert_eq!((messages[0].timestamp_ms, messages[0].stream_id), (7, 0));
    for bytes in [&b"\x82\0\0\0"[..], b"\xc2"] {
        assert_eq!(read_all(bytes).unwrap_err().reason(), "protocol");
    }
}

#[test]
fn abort_forgets_one_partial_message() {
    let mut encoder = Encoder::new(128);
    let (aborted, kept) = (video(6, 1, vec![1; 200]), video(7, 2, vec![2; 200]));
    encoder.chunk(&aborted, 0);
    let at = encoder.chunk(&kept, 0);
    Writer::default().write(&mut encoder.out, 2, 0, kind::ABORT, 0, &6u32.to_be_bytes());
    Writer::default().write(&mut encoder.out, 2, 0, kind::ABORT, 0, &60u32.to_be_bytes());
    encoder.chunk(&kept, at);
    let again = video(6, 3, vec![3; 200]);
    encoder.message(&again);
    let mut reader = Reader::new(Limits::PUBLISHER);
    let messages = read(&mut reader, &encoder.out).unwrap();
    assert_eq!(messages, [Message::from(&kept), Message::from(&again)]);
    assert_eq!(reader.partial_bytes(), 0);
}

#[test]
fn the_chunk_size_may_change_inside_a_message() {
    let mut encoder = Encoder::new(128);
    let mut writer = Writer::default();
    let sent = video(6, 1, (0..=255).collect());
    let mut at = encoder.chunk(&sent, 0);
    for size in [1, MAX_CHUNK_BYTES] {
        writer.set_chunk_size(&mut encoder.out, size as u32);
        encoder.chunk_bytes = size;
        at = encoder.chunk(&sent, at);
    }
    assert_eq!(at, 256);
    assert_eq!(read_all(&encoder.out).unwrap(), [Message::from(&sent)]);
}

#[test]
fn chunk_sizes_out_of_range_are_refused() {
    for (size, message) in [
        (0u32, "set chunk size: 0 bytes; at least 1 is needed"),
        (65_537, "chunk size: 65537 is over the limit of 65536"),
        (0x7fff_ffff, "chunk size: 2147483647 is over the limit of 65536"),
    ] {
        let mut bytes = Vec::new();
        Writer::default().write(&mut bytes, 2, 0, kind::SET_CHUNK_SIZE, 0, &size.to_be_bytes());
        assert_eq!(read_all(&bytes).unwrap_err().to_string(), message);
    }
    let mut short = Vec::new();
    Writer::default().write(&mut short, 2, 0, kind::SET_CHUNK_SIZE, 0, &[0, 0, 1]);
    assert_eq!(read_all(&short).unwrap_err().to_string(), "set chunk size: 3 bytes; 4 are needed");
}

/// A full header that declares a message, without its payload.
fn declares(chunk_stream: u8, kind: u8, length: u32) -> Vec<u8> {
    let [_, a, b, c] = length.to_be_bytes();
    vec![chunk_stream, 0, 0, 0, a, b, c, kind, 1, 0, 0, 0]
}

#[test]
fn each_kind_of_message_has_its_limit() {
    for (limits, kind, limit) in [
        (Limits::PUBLISHER, kind::VIDEO, 8 << 20),
        (Limits::PUBLISHER, kind::AGGREGATE, 8 << 20),
        (Limits::PUBLISHER, kind::AUDIO, 64 << 10),
        (Limits::PUBLISHER, kind::COMMAND_AMF0, 16 << 10),
        (Limits::PUBLISHER, 99, 16 << 10),
        (Limits::STRANGER, kind::VIDEO, 16 << 10),
        (Limits::STRANGER, kind::COMMAND_AMF0, 16 << 10),
    ] {
        let mut reader = Reader::new(limits);
        assert!(read(&mut reader, &declares(6, kind, limit)).is_ok());
        assert_eq!(reader.partial_bytes(), 0, "declaring allocates nothing");
        let mut reader = Reader::new(limits);
        let error = read(&mut reader, &declares(6, kind, limit + 1)).unwrap_err();
        assert!(error.to_string().ends_with(&format!("over the limit of {limit}")), "{error}");
    }
}

#[test]
fn partial_messages_are_bounded_in_number_and_bytes() {
    let mut reader = Reader::new(Limits::PUBLISHER);
    for chunk_stream in 3..7 {
        read(&mut reader, &declares(chunk_stream, kind::VIDEO, 8 << 20)).unwrap();
        read(&mut reader, &[0; 128]).unwrap();
    }
    let error = read(&mut reader, &declares(7, kind::VIDEO, 1)).unwrap_err();
    assert_eq!(error.to_string(), "incomplete messages: 5 is over the limit of 4");

    let mut reader = Reader::new(Limits::PUBLISHER);
    let mut set_size = Vec::new();
    Writer::default().set_chunk_size(&mut set_size, 65_536);
    read(&mut reader, &set_size).unwrap();
    let limit = Limits::PUBLISHER.partial_bytes;
    let error = (0..1000)
        .flat_map(|round| (3u8..7).map(move |id| (round, id)))
        .find_map(|(round, id)| {
            let mut bytes =
                if round == 0 { declares(id, kind::VIDEO, 8 << 20) } else { vec![0xc0 | id] };
            bytes.extend([0; 65_536]);
            let result = read(&mut reader, &bytes);
            assert!(reader.partial_bytes() <= limit);
            result.err()
        })
        .unwrap();
    assert!(error.to_string().starts_with("bytes of incomplete messages: "), "{error}");
}

#[test]
fn chunk_streams_are_bounded() {
    let mut reader = Reader::new(Limits::PUBLISHER);
    let error = (3u32..)
        .find_map(|id| {
            let mut encoder = Encoder::new(128);
            encoder.message(&video(id, 0, vec![]));
            read(&mut reader, &encoder.out).err()
        })
        .unwrap();
    assert_eq!(error.to_string(), "chunk streams: 17 is over the limit of 16");
    assert_eq!(reader.streams.len(), MAX_CHUNK_STREAMS);
}

#[test]
fn a_message_has_a_buffer_of_its_own_without_slack() {
    let mut encoder = Encoder::new(4096);
    encoder.message(&video(6, 0, vec![5; 100_000]));
    let mut reader = Reader::new(Limits::PUBLISHER);
    for bytes in encoder.out.chunks(1000) {
        for message in read(&mut reader, bytes).unwrap() {
            let buffer = Vec::from(message.payload);
            assert_eq!((buffer.len(), buffer.capacity()), (100_000, 100_000));
        }
        assert!(reader.partial_bytes() <= 100_000);
    }
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let time = prop_oneof![
        0..200_000u32,
        0xff_ff00..0x100_0100u32,
        0x7fff_ff00..0x8000_0100u32,
        0xffff_ff00..=u32::MAX,
        any::<u32>(),
    ];
    let chunk_stream = prop_oneof![Just(3u32), Just(4), Just(63), Just(64), Just(319), Just(320)];
    let kind = prop_oneof![Just(kind::VIDEO), Just(kind::AUDIO), Just(kind::DATA_AMF0)];
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(any::<u8>(), 120..140),
        prop::collection::vec(any::<u8>(), 0..3000),
    ];
    (chunk_stream, time, kind, 0..3u32, payload, any::<bool>()).prop_map(
        |(chunk_stream, timestamp_ms, kind, stream_id, payload, compress)| Sent {
            chunk_stream,
            timestamp_ms,
            kind,
            stream_id,
            payload,
            compress,
        },
    )
}

proptest! {
    #[test]
    fn whatever_is_sent_is_read(
        sent in prop::collection::vec(any_sent(), 1..20),
        chunk_bytes in prop_oneof![1..300usize, Just(4096), Just(MAX_CHUNK_BYTES)],
        schedule in prop::collection::vec(any::<Index>(), 1..64),
        splits in prop::collection::vec(1..400usize, 1..16),
    ) {
        // Up to MAX_PARTIAL_MESSAGES at a time, each on its own chunk stream, chunk by chunk.
        let mut encoder = Encoder::new(chunk_bytes);
        let mut waiting: std::collections::VecDeque<_> = sent.iter().collect();
        let mut active: Vec<(&Sent, usize)> = Vec::new();
        let mut expected = Vec::new();
        let mut turns = schedule.iter().cycle();
        while !(waiting.is_empty() && active.is_empty()) {
            while active.len() < MAX_PARTIAL_MESSAGES
                && waiting.front().is_some_and(|next| {
                    active.iter().all(|(other, _)| other.chunk_stream != next.chunk_stream)
                })
            {
                active.extend(waiting.pop_front().map(|next| (next, 0)));
            }
            let turn = turns.next().unwrap().index(active.len());
            let (message, at) = &mut active[turn];
            *at = encoder.chunk(message, *at);
            if *at == message.payload.len() {
                expected.push(Message::from(*message));
                active.remove(turn);
            }
        }
        let mut reader = Reader::new(Limits::PUBLISHER);
        let mut messages = Vec::new();
        let mut rest = &encoder.out[..];
        for split in splits.iter().cycle() {
            let (head, tail) = rest.split_at(rest.len().min(*split));
            messages.extend(read(&mut reader, head).unwrap());
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(messages, expected);
        prop_assert_eq!(reader.partial_bytes(), 0);
    }

    #[test]
    fn any_bytes_read_or_err_within_bounds(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        split in 1..64usize,
    ) {
        let mut reader = Reader::new(Limits::STRANGER);
        for part in bytes.chunks(split) {
            if read(&mut reader, part).is_err() {
                break;
            }
            prop_assert!(reader.partial_bytes() <= Limits::STRANGER.partial_bytes);
        }
    }

    #[test]
    fn what_the_writer_writes_is_read(
        messages in prop::collection::vec(any_sent(), 1..8),
        chunk_bytes in 1..5000u32,
    ) {
        let mut out = Vec::new();
        let mut writer = Writer::default();
        writer.set_chunk_size(&mut out, chunk_bytes);
        for sent in &messages {
            writer.write(&mut out, 5, sent.timestamp_ms, sent.kind, sent.stream_id, &sent.payload);
        }
        let expected: Vec<_> = messages.iter().map(Message::from).collect();
        prop_assert_eq!(read_all(&out).unwrap(), expected);
    }
}
