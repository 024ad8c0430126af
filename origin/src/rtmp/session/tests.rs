//! The session against encoders: `rml_rtmp`'s client, and messages written by hand.

use proptest::prelude::*;
use rml_rtmp::{
    handshake::{Handshake as ClientHandshake, HandshakeProcessResult, PeerType},
    sessions::{
        ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult,
        PublishRequestType, StreamMetadata,
    },
    time::RtmpTimestamp,
};

use super::*;
use crate::rtmp::chunk::Writer;

/// An encoder made of messages written by hand.
struct Encoder {
    now: Instant,
    session: Session,
    writer: Writer,
    answers: chunk::Reader,
}

impl Encoder {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            session: Session::after_handshake(now),
            writer: Writer::default(),
            answers: chunk::Reader::new(Limits::PUBLISHER),
        }
    }

    /// One that is connected to `live` and publishes `x`.
    fn publishing() -> Self {
        let mut encoder = Self::connected(&[]);
        let event = encoder.command("publish", 5.0, &[Amf0::Null, "x".into(), "live".into()]);
        assert!(matches!(event, Ok(Some(Event::PublishRequested { .. }))));
        encoder.session.accept_publish(encoder.now);
        assert_eq!(encoder.codes(), ["NetStream.Publish.Start"]);
        encoder
    }

    fn connected(members: &[(&str, Amf0)]) -> Self {
        let mut encoder = Self::new();
        let mut object = vec![("app".to_owned(), Amf0::from("live"))];
        object.extend(members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        assert_eq!(encoder.command("connect", 1.0, &[Amf0::Object(object)]).unwrap(), None);
        encoder.answers();
        encoder
    }

    fn message(
        &mut self,
        kind: u8,
        timestamp_ms: u32,
        payload: &[u8],
    ) -> Result<Option<Event>, Error> {
        let mut bytes = Vec::new();
        self.writer.write(&mut bytes, 4, timestamp_ms, kind, 1, payload);
        let mut input = &bytes[..];
        let event = self.session.receive(self.now, &mut input)?;
        assert!(input.is_empty());
        Ok(event)
    }

    fn command(
        &mut self,
        name: &str,
        transaction: f64,
        values: &[Amf0],
    ) -> Result<Option<Event>, Error> {
        let values = [&[Amf0::from(name), Amf0::from(transaction)], values].concat();
        self.message(kind::COMMAND_AMF0, 0, &written(&values))
    }

    /// The messages that were answered.
    fn answers(&mut self) -> Vec<Message> {
        let output = self.session.take_output();
        let mut input = &output[..];
        std::iter::from_fn(|| self.answers.next(&mut input).unwrap()).collect()
    }

    /// The commands that were answered: name, transaction and what follows.
    fn commands(&mut self) -> Vec<Vec<Amf0>> {
        let answers = self.answers().into_iter();
        answers
            .filter(|message| message.kind == kind::COMMAND_AMF0)
            .map(|message| media::amf0::read_all(&message.payload).unwrap())
            .collect()
    }

    /// The codes of the `onStatus` among the answers.
    fn codes(&mut self) -> Vec<String> {
        let status = |command: &Vec<Amf0>| command[0].as_str() == Some("onStatus");
        let code = |command: Vec<Amf0>| command[3].get("code")?.as_str().map(str::to_owned);
        self.commands().into_iter().filter(status).filter_map(code).collect()
    }
}

fn written(values: &[Amf0]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| media::amf0::write(&mut out, value));
    out
}

fn packet(result: ClientSessionResult) -> Vec<u8> {
    match result {
        ClientSessionResult::OutboundResponse(packet) => packet.bytes,
        other => panic!("expected bytes to send, got {other:?}"),
    }
}

/// Runs a session and `rml_rtmp`'s client against each other until both are quiet.
struct Pair {
    now: Instant,
    server: Session,
    client: ClientSession,
    events: Vec<Event>,
    client_events: Vec<ClientSessionEvent>,
    /// How many bytes the server is given at a time.
    split: usize,
}

impl Pair {
    fn new(split: usize) -> Self {
        let now = Instant::now();
        let mut server = Session::new(now);
        let mut shake = ClientHandshake::new(PeerType::Client);
        let mut to_server = shake.generate_outbound_p0_and_p1().unwrap();
        loop {
            for mut part in to_server.chunks(split) {
                assert_eq!(server.receive(now, &mut part).unwrap(), None);
            }
            let output = server.take_output();
            if output.is_empty() {
                break;
            }
            to_server = match shake.process_bytes(&output).unwrap() {
                HandshakeProcessResult::InProgress { response_bytes } => response_bytes,
                HandshakeProcessResult::Completed { response_bytes, .. } => response_bytes,
            };
        }
        let (client, _) = ClientSession::new(ClientSessionConfig::new()).unwrap();
        Self { now, server, client, events: vec![], client_events: vec![], split }
    }

    fn send(&mut self, bytes: &[u8]) {
        for mut part in bytes.chunks(self.split) {
            loop {
                let event = self.server.receive(self.now, &mut part).unwrap();
                let decided = matches!(event, Some(Event::PublishRequested { .. }));
                self.events.extend(event);
                if decided {
                    self.server.accept_publish(self.now);
                } else if part.is_empty() {
                    break;
                }
            }
        }
        let output = self.server.take_output();
        if output.is_empty() {
            return;
        }
        for result in self.client.handle_input(&output).unwrap() {
            match result {
                ClientSessionResult::OutboundResponse(packet) => self.send(&packet.bytes),
                ClientSessionResult::RaisedEvent(event) => self.client_events.push(event),
                ClientSessionResult::UnhandleableMessageReceived(message) => {
                    // Set Peer Bandwidth, which that client does not know.
                    assert_eq!(message.type_id, kind::SET_PEER_BANDWIDTH);
                }
            }
        }
    }
}

#[test]
fn a_client_publishes_whatever_way_its_bytes_are_split() {
    for split in [1, 13, 1448, 100_000] {
        let mut pair = Pair::new(split);
        let connect = pair.client.request_connection("live".to_owned()).unwrap();
        pair.send(&packet(connect));
        let key = "x?token=s3cret".to_owned();
        let publish = pair.client.request_publishing(key, PublishRequestType::Live).unwrap();
        pair.send(&packet(publish));
        assert!(pair.client_events.contains(&ClientSessionEvent::PublishRequestAccepted));
        let mut metadata = StreamMetadata::new();
        metadata.video_width = Some(1280);
        let packet_of = pair.client.publish_metadata(&metadata).unwrap();
        pair.send(&packet(packet_of));
        let video = Bytes::from(vec![7; 20_000]);
        let times = [0, 40, 0xff_ffff, 0x7fff_ffff, 0xffff_ffff];
        for time in times {
            let time = RtmpTimestamp::new(time);
            let sent = pair.client.publish_video_data(video.clone(), time, false).unwrap();
            pair.send(&packet(sent));
            let sent = pair.client.publish_audio_data(video.slice(..300), time, true).unwrap();
            pair.send(&packet(sent));
        }
        let stop = pair.client.stop_publishing().unwrap();
        stop.into_iter().map(packet).for_each(|bytes| pair.send(&bytes));

        let mut events = pair.events.into_iter();
        let Some(Event::PublishRequested { address: Ok(address) }) = events.next() else {
            panic!("no publish request");
        };
        assert_eq!(address.room.as_str(), "live/x");
        assert_eq!(address.token.as_deref(), Some("s3cret"));
        let Some(Event::Metadata { payload, value, .. }) = events.next() else {
            panic!("no metadata");
        };
        assert_eq!(value.get("width"), Some(&Amf0::from(1280.0)));
        assert_eq!(payload, written(&["onMetaData".into(), value]));
        for timestamp_ms in times {
            let expected = Event::Video { timestamp_ms, payload: video.clone() };
            assert_eq!(events.next(), Some(expected));
            let expected = Event::Audio { timestamp_ms, payload: video.slice(..300) };
            assert_eq!(events.next(), Some(expected));
        }
        assert_eq!(events.next(), Some(Event::Unpublished));
        assert_eq!(events.next(), None);
    }
}

#[test]
fn the_commands_of_encoders_are_answered() {
    let mut encoder = Encoder::connected(&[]);
    let name = [Amf0::Null, "x".into()];
    encoder.command("releaseStream", 2.0, &name).unwrap();
    encoder.command("FCPublish", 3.0, &name).unwrap();
    encoder.command("createStream", 4.0, &[Amf0::Null]).unwrap();
    encoder.command("_checkbw", 5.0, &[Amf0::Null]).unwrap();
    encoder.command("getStreamLength", 6.0, &name).unwrap();
    encoder.command("makeCoffee", 7.0, &[Amf0::Null]).unwrap();
    encoder.command("makeCoffee", 0.0, &[Amf0::Null]).unwrap();
    let answered: Vec<_> = encoder
        .commands()
        .into_iter()
        .map(|command| {
            (
                command[0].as_str().unwrap().to_owned(),
                command[1].as_f64().unwrap(),
                command[3].clone(),
            )
        })
        .collect();
    let names: Vec<_> = answered.iter().map(|(name, id, _)| (name.as_str(), *id)).collect();
    let expected = [
        ("_result", 2.0),
        ("_result", 3.0),
        ("onFCPublish", 0.0),
        ("_result", 4.0),
        ("_result", 5.0),
        ("_result", 6.0),
        ("_error", 7.0),
    ];
    assert_eq!(names, expected);
    assert_eq!(answered[3].2, Amf0::from(1.0));
    assert_eq!(answered[6].2.get("code"), Some(&Amf0::from("NetConnection.Call.Failed")));
    assert_eq!(encoder.session.skipped_messages(), 2);
}

#[test]
fn connect_says_what_is_carried_to_those_who_ask() {
    let mut plain = Encoder::new();
    let object = Amf0::Object(vec![("flashVer".into(), "FMLE/3.0\n".into())]);
    plain.command("connect", 1.0, &[object]).unwrap();
    assert_eq!(plain.session.connect().unwrap().encoder, "FMLE/3.0");
    let answers = plain.answers();
    let kinds: Vec<_> = answers.iter().map(|answer| answer.kind).collect();
    // The reader has applied our Set Chunk Size itself.
    assert_eq!(kinds, [kind::WINDOW_ACK_SIZE, kind::SET_PEER_BANDWIDTH, kind::COMMAND_AMF0]);
    let result = media::amf0::read_all(&answers[2].payload).unwrap();
    assert_eq!(result[3].get("code"), Some(&"NetConnection.Connect.Success".into()));
    assert_eq!(result[3].get("fourCcList"), None);

    let mut enhanced = Encoder::new();
    let list = Amf0::StrictArray(vec!["av01".into(), "hvc1".into(), "nonsense".into()]);
    let map = Amf0::Object(vec![("hvc1".into(), 4.0.into()), ("vp09".into(), 4.0.into())]);
    let object = Amf0::Object(vec![
        ("fourCcList".into(), list),
        ("videoFourCcInfoMap".into(), map),
        ("capsEx".into(), 3.0.into()),
    ]);
    enhanced.command("connect", 1.0, &[object]).unwrap();
    let connect = enhanced.session.connect().unwrap();
    assert_eq!(connect.four_ccs, ["av01", "hvc1", "vp09"]);
    assert_eq!(connect.caps_ex, 3);
    let result = enhanced.commands().remove(0);
    for object in [&result[2], &result[3]] {
        let listed: Vec<_> = object.get("fourCcList").unwrap().items().cloned().collect();
        assert_eq!(listed, ["avc1".into(), "mp4a".into()]);
        let video = object.get("videoFourCcInfoMap").unwrap();
        assert_eq!(video.members().unwrap(), [("avc1".to_owned(), Amf0::from(4.0))]);
        assert_eq!(object.get("capsEx"), Some(&Amf0::from(0.0)));
    }
}

#[test]
fn nothing_is_read_while_a_publish_is_undecided() {
    let mut encoder = Encoder::connected(&[]);
    encoder.command("publish", 2.0, &[Amf0::Null, "x".into()]).unwrap();
    assert_eq!(encoder.session.poll_deadline(), None);
    let mut bytes = Vec::new();
    encoder.writer.write(&mut bytes, 4, 7, kind::AUDIO, 1, b"a");
    let mut input = &bytes[..];
    assert_eq!(encoder.session.receive(encoder.now, &mut input).unwrap(), None);
    assert_eq!(input.len(), bytes.len());
    encoder.session.accept_publish(encoder.now);
    let event = encoder.session.receive(encoder.now, &mut input).unwrap();
    let payload = Bytes::from_static(b"a");
    assert_eq!(event, Some(Event::Audio { timestamp_ms: 7, payload }));
}

#[test]
fn a_refused_publish_hears_why_and_nothing_more_is_read() {
    let mut encoder = Encoder::connected(&[]);
    encoder.command("publish", 2.0, &[Amf0::Null, "x".into()]).unwrap();
    encoder.session.close("NetStream.Publish.BadName", "it is taken");
    let status = encoder.commands().remove(0);
    assert_eq!(status[3].get("level"), Some(&"error".into()));
    assert_eq!(status[3].get("description"), Some(&"it is taken".into()));
    let mut garbage = &[0xff; 100_000][..];
    assert_eq!(encoder.session.receive(encoder.now, &mut garbage).unwrap(), None);
    assert!(garbage.is_empty());
    assert_eq!(encoder.session.poll_deadline(), None);
}

#[test]
fn each_way_to_end_a_publish_ends_it_once_and_another_may_follow() {
    let unpublish: [(&str, Vec<Amf0>); 5] = [
        ("deleteStream", vec![Amf0::Null, 1.0.into()]),
        ("deleteStream", vec![Amf0::Null]),
        ("closeStream", vec![Amf0::Null]),
        ("FCUnpublish", vec![Amf0::Null, "x".into()]),
        ("publish", vec![Amf0::Null, Amf0::Boolean(false)]),
    ];
    for (name, values) in unpublish {
        let mut encoder = Encoder::publishing();
        let other = [Amf0::Null, 9.0.into()];
        assert_eq!(encoder.command("deleteStream", 0.0, &other).unwrap(), None, "another stream");
        let ended = encoder.command(name, 6.0, &values).unwrap();
        assert_eq!(ended, Some(Event::Unpublished), "{name}");
        assert_eq!(encoder.command(name, 7.0, &values).unwrap(), None, "{name}");
        assert_eq!(encoder.message(kind::VIDEO, 0, b"late").unwrap(), None);
        assert_eq!(encoder.session.skipped_messages(), 1);
        let event = encoder.command("publish", 8.0, &[Amf0::Null, "y".into()]).unwrap();
        assert!(matches!(event, Some(Event::PublishRequested { address: Ok(_) })), "{name}");
    }
}

#[test]
fn a_second_publish_beside_the_first_and_play_are_refused() {
    let mut encoder = Encoder::publishing();
    encoder.command("publish", 6.0, &[Amf0::Null, "y".into()]).unwrap();
    assert_eq!(encoder.codes(), ["NetStream.Publish.BadName"]);
    encoder.command("play", 7.0, &[Amf0::Null, "x".into()]).unwrap();
    assert_eq!(encoder.codes(), ["NetStream.Play.Failed"]);
    assert!(encoder.session.is_publishing());
}

#[test]
fn metadata_comes_in_three_forms_and_broken_one_is_passed_over() {
    let value = Amf0::EcmaArray(vec![("width".into(), 2.0.into())]);
    let tag = written(&["onMetaData".into(), value.clone()]);
    let set = [written(&["@setDataFrame".into()]), tag.clone()].concat();
    let amf3 = [&[0][..], &tag].concat();
    let mut encoder = Encoder::publishing();
    for (kind, sent) in [(kind::DATA_AMF0, &tag), (kind::DATA_AMF0, &set), (kind::DATA_AMF3, &amf3)]
    {
        let event = encoder.message(kind, 3, sent).unwrap();
        let payload = Bytes::from(tag.clone());
        let value = value.clone();
        assert_eq!(event, Some(Event::Metadata { timestamp_ms: 3, payload, value }));
    }
    let broken = [
        &b""[..],
        b"\x02\0\x0donMetaData",
        b"\x02\0\x0aonMetaData\x42",
        b"\x02\0\x0aonMetaData",
        b"\x02\0\x0aonTextData\x05",
        b"\x05",
    ];
    for sent in broken {
        assert_eq!(encoder.message(kind::DATA_AMF0, 0, sent).unwrap(), None, "{sent:?}");
    }
    assert_eq!(encoder.session.skipped_messages(), broken.len() as u64);
    let bomb = [&b"\x02\0\x0aonMetaData"[..], &b"\x0a\0\0\0\x01".repeat(100)].concat();
    let error = encoder.message(kind::DATA_AMF0, 0, &bomb).unwrap_err();
    assert_eq!(error.to_string(), "amf0 nesting depth: 17 is over the limit of 16");
}

#[test]
fn pings_and_acknowledgements_are_answered() {
    let mut encoder = Encoder::publishing();
    encoder.message(kind::USER_CONTROL, 0, &[0, 6, 1, 2, 3, 4]).unwrap();
    encoder.message(kind::USER_CONTROL, 0, &[0, 3, 0, 0, 0, 1, 0, 0, 0, 9]).unwrap();
    assert_eq!(encoder.answers()[0].payload[..], [0, 7, 1, 2, 3, 4]);
    encoder.message(kind::WINDOW_ACK_SIZE, 0, &1000u32.to_be_bytes()).unwrap();
    encoder.message(kind::VIDEO, 0, &[0; 1000]).unwrap();
    assert_eq!(encoder.answers()[0].kind, kind::ACKNOWLEDGEMENT);
    let before = encoder.session.received.bytes;
    encoder.message(kind::VIDEO, 0, &[0; 900]).unwrap();
    assert_eq!(encoder.answers(), []);
    encoder.message(kind::VIDEO, 0, &[0; 100]).unwrap();
    let answer = encoder.answers().remove(0);
    assert_eq!(answer.kind, kind::ACKNOWLEDGEMENT);
    let sequence = u64::from(u32::from_be_bytes(*answer.payload.first_chunk().unwrap()));
    assert_eq!(sequence, encoder.session.received.bytes);
    assert!(sequence >= before + 1000);
    encoder.session.received.bytes = (1 << 32) + 4;
    encoder.message(kind::VIDEO, 0, b"").unwrap();
    let wrapped = u32::from_be_bytes(*encoder.answers()[0].payload.first_chunk().unwrap());
    assert_eq!(wrapped, 4 + 12, "what was received, modulo 2^32");
}

#[test]
fn aggregates_are_taken_apart_and_amf3_commands_read() {
    let mut encoder = Encoder::publishing();
    let tag =
        |kind: u8, ms: u8, payload: u8| [kind, 0, 0, 1, 0, 0, ms, 0, 0, 0, 0, payload, 0, 0, 0, 12];
    let payload = [tag(9, 100, 1), tag(8, 120, 2)].concat();
    let mut bytes = Vec::new();
    encoder.writer.write(&mut bytes, 4, 5000, kind::AGGREGATE, 1, &payload);
    let mut input = &bytes[..];
    let mut next = || encoder.session.receive(encoder.now, &mut input).unwrap();
    let payload = |byte: u8| Bytes::from(vec![byte]);
    assert_eq!(next(), Some(Event::Video { timestamp_ms: 5000, payload: payload(1) }));
    assert_eq!(next(), Some(Event::Audio { timestamp_ms: 5020, payload: payload(2) }));
    assert_eq!(next(), None);
    let inner = tag(kind::AGGREGATE, 0, 0);
    assert_eq!(encoder.message(kind::AGGREGATE, 0, &inner).unwrap_err().reason(), "protocol");

    let mut encoder = Encoder::publishing();
    let close = written(&["closeStream".into(), 0.0.into(), Amf0::Null]);
    let event = encoder.message(kind::COMMAND_AMF3, 0, &[&[0][..], &close].concat()).unwrap();
    assert_eq!(event, Some(Event::Unpublished));
}

#[test]
fn deadlines_follow_the_phases() {
    let start = Instant::now();
    let mut session = Session::new(start);
    assert_eq!(session.poll_deadline(), Some(start + HANDSHAKE_TIME));
    let late = start + Duration::from_secs(4);
    let hello = [&[3][..], &[0; 3072]].concat();
    session.receive(late, &mut &hello[..]).unwrap();
    assert_eq!(session.poll_deadline(), Some(late + PUBLISH_TIME));
    assert!(session.on_deadline(start + HANDSHAKE_TIME).is_ok());
    let error = session.on_deadline(late + PUBLISH_TIME).unwrap_err();
    assert_eq!(error.to_string(), "no publish within 10 s");

    let mut encoder = Encoder::publishing();
    encoder.now += Duration::from_secs(7);
    encoder.message(kind::DATA_AMF0, 0, b"\x05").unwrap();
    let start = encoder.now - Duration::from_secs(7);
    assert_eq!(encoder.session.poll_deadline(), Some(start + MEDIA_TIME), "data is no media");
    encoder.message(kind::AUDIO, 0, b"").unwrap();
    assert_eq!(encoder.session.poll_deadline(), Some(encoder.now + MEDIA_TIME));
    encoder.now += Duration::from_secs(9);
    encoder.session.delivered(encoder.now);
    assert_eq!(
        encoder.session.poll_deadline(),
        Some(encoder.now + MEDIA_TIME),
        "the room was slow"
    );
    let error = encoder.session.on_deadline(encoder.now + MEDIA_TIME).unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.reason()),
        ("no audio or video within 10 s", "timeout")
    );
}

#[test]
fn what_is_wrong_with_a_command_is_said() {
    let object = Amf0::Object(vec![]);
    let connect = |values: &[Amf0]| {
        let mut encoder = Encoder::connected(&[]);
        encoder.command("connect", 1.0, values).unwrap_err().to_string()
    };
    assert_eq!(connect(&[object]), "command message: connect for the second time");
    let fresh = |name: &str, values: &[Amf0]| {
        Encoder::new().command(name, 1.0, values).unwrap_err().to_string()
    };
    assert_eq!(fresh("connect", &[]), "command message: connect without its object");
    assert_eq!(fresh("publish", &[]), "command message: \"publish\" before connect");
    let raw = |payload: &[u8]| {
        Encoder::new().message(kind::COMMAND_AMF0, 0, payload).unwrap_err().to_string()
    };
    assert_eq!(raw(b"\x05"), "command message: does not start with a name");
    assert_eq!(raw(b""), "command message: does not start with a name");
    assert_eq!(raw(b"\x02\xff\xff"), "amf0 string: 65535 is over the limit of 16384");
    let control = |payload: &[u8]| {
        Encoder::new().message(kind::USER_CONTROL, 0, payload).unwrap_err().to_string()
    };
    assert_eq!(control(b"\0"), "user control message: 1 bytes; 2 are needed");
    assert_eq!(control(b"\0\x06\0"), "user control message: a ping request has no time");
    let window = Encoder::new().message(kind::WINDOW_ACK_SIZE, 0, b"\0").unwrap_err();
    assert_eq!(window.to_string(), "window acknowledgement size: 1 bytes; 4 are needed");
}

#[test]
fn strangers_are_bounded() {
    let mut encoder = Encoder::connected(&[]);
    let error = encoder.message(kind::VIDEO, 0, &[0; 16 * 1024 + 1]).unwrap_err();
    assert_eq!(error.to_string(), "video message bytes: 16385 is over the limit of 16384");

    let mut encoder = Encoder::connected(&[]);
    let error =
        (0..100_000).find_map(|_| encoder.message(kind::VIDEO, 0, &[0; 4096]).err()).unwrap();
    assert!(error.to_string().starts_with("bytes before publishing: "), "{error}");

    let mut encoder = Encoder::connected(&[]);
    let error = (0..100_000)
        .find_map(|_| {
            let result = encoder.command("createStream", 2.0, &[]).err();
            encoder.session.take_output();
            result
        })
        .unwrap();
    assert_eq!(error.to_string(), "message streams: 17 is over the limit of 16");

    // Who asks and does not read the answers.
    let mut encoder = Encoder::connected(&[]);
    let error = (0..100_000)
        .find_map(|_| encoder.message(kind::USER_CONTROL, 0, &[0, 6, 0, 0, 0, 0]).err())
        .unwrap();
    assert!(error.to_string().starts_with("bytes of unsent answers: "), "{error}");
    assert!(encoder.session.held_bytes() <= 2 * MAX_OUTPUT_BYTES);
}

#[test]
fn an_amf_bomb_before_connect_costs_an_error() {
    let mut session = Session::after_handshake(Instant::now());
    let bomb = b"\x03\0\x01a".repeat(100_000);
    let mut bytes = Vec::new();
    Writer::default().write(&mut bytes, 3, 0, kind::COMMAND_AMF0, 0, &bomb);
    let error = session.receive(Instant::now(), &mut &bytes[..]).unwrap_err();
    assert_eq!(error.reason(), "too_large");
    assert!(session.held_bytes() == 0, "refused by its declared length");
    let mut bytes = Vec::new();
    let bomb = &bomb[..16_000];
    Writer::default().write(&mut bytes, 3, 0, kind::COMMAND_AMF0, 0, bomb);
    let error = Session::after_handshake(Instant::now())
        .receive(Instant::now(), &mut &bytes[..])
        .unwrap_err();
    assert_eq!(error.to_string(), "amf0 nesting depth: 17 is over the limit of 16");
}

#[test]
fn tokens_are_not_in_debug_output() {
    let mut encoder = Encoder::connected(&[("tcUrl", "rtmp://h/live?token=s3cret".into())]);
    let event = encoder.command("publish", 2.0, &[Amf0::Null, "x?token=s3cret".into()]).unwrap();
    assert!(!format!("{event:?} {:?}", encoder.session).contains("s3cret"));
}

proptest! {
    #[test]
    fn any_bytes_give_events_or_an_error_within_bounds(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        split in 1..200usize,
        publishing: bool,
    ) {
        let mut encoder = if publishing { Encoder::publishing() } else { Encoder::connected(&[]) };
        'input: for mut part in bytes.chunks(split) {
            loop {
                match encoder.session.receive(encoder.now, &mut part) {
                    Ok(None) if part.is_empty() => break,
                    Ok(Some(Event::PublishRequested { .. })) => {
                        encoder.session.accept_publish(encoder.now);
                    }
                    Ok(_) => {}
                    Err(_) => break 'input,
                }
                encoder.session.take_output();
            }
        }
        prop_assert!(encoder.session.held_bytes() <= 64 * 1024);
    }
}
