//! What each fuzz target does with its input: parse as a stranger's bytes, then hold the result
//! against what the parser promises. Shared by the targets and by the test that replays their corpora.

use std::fmt::Debug;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use wire::{
    ClusterId, Hello, NodeId, Region, RoomId,
    contribute::{self, Piece},
    control::{self, Roles},
    events,
    frame::{FrameDecoder, decode_message, encode_message, length_prefix},
    hello::{MAX_SOFTWARE_BYTES, VersionRange},
    inquiry,
    replica::{self, FrameRecord},
    room::{Client, Item, model::Form, relay},
};

/// The limit of a frame in the target `frame`: small enough that inputs reach it.
const FRAME_LIMIT: usize = 4096;

/// A stream of frames in pieces as a connection would give them; the first byte sets their size.
pub(crate) fn frame(data: &[u8]) {
    let Some((step, stream)) = data.split_first() else { return };
    let mut decoder = FrameDecoder::default();
    let mut again = Vec::new();
    for piece in stream.chunks(usize::from(*step) + 1) {
        let mut input = Bytes::copy_from_slice(piece);
        while !input.is_empty() {
            match decoder.push(&mut input, FRAME_LIMIT) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= FRAME_LIMIT);
                    again.extend_from_slice(&length_prefix(frame.len()).expect("a legal length"));
                    again.extend_from_slice(&frame);
                }
                Ok(None) => assert!(input.is_empty(), "a decoder that waits has eaten all"),
                Err(_) => return,
            }
        }
    }
    assert!(stream.starts_with(&again), "frames have one form, and nothing is lost between them");
    assert_eq!(decoder.is_inside_frame(), again.len() < stream.len());
}

/// The first frame of a peer.
pub(crate) fn hello(data: &[u8]) {
    let node = NodeId::new("e1").expect("a node id");
    let ours = Hello {
        wire: VersionRange { oldest: 1, newest: 2 },
        node: node.clone(),
        roles: Roles::ORIGIN,
        region: Region::default(),
        software: String::new(),
        cluster: Some(ClusterId::from_bits(1)),
        render: VersionRange { oldest: 1, newest: 1 },
    };
    let Ok((theirs, version)) = ours.meet(data, &node) else { return };
    assert!((1..=2).contains(&version) && theirs.wire.oldest <= version);
    assert_eq!(theirs.node, node);
    assert!(theirs.software.len() <= MAX_SOFTWARE_BYTES);
    assert!(theirs.cluster.is_none_or(|cluster| cluster == ClusterId::from_bits(1)));
    survives(&theirs);
}

/// Messages of control, watch and raft streams; the first byte chooses.
pub(crate) fn control(data: &[u8]) {
    let Some((which, frame)) = data.split_first() else { return };
    match which % 5 {
        0 => message::<control::Request>(frame),
        1 => message::<control::Response>(frame),
        2 => message::<control::WatchAsk>(frame),
        3 => message::<control::WatchEvent>(frame),
        _ => message::<control::RaftFrame>(frame),
    }
}

/// Messages of subscribe, fetch, segment and donate streams; the first byte chooses.
pub(crate) fn replica(data: &[u8]) {
    let Some((which, frame)) = data.split_first() else { return };
    match which % 9 {
        0 => message::<replica::Subscribe>(frame),
        1 => message::<replica::FromHome>(frame),
        2 => message::<replica::FromEdge>(frame),
        3 => message::<replica::Fetch>(frame),
        4 => message::<replica::FetchReply>(frame),
        5 => message::<replica::SegmentHeader>(frame),
        6 => message::<replica::Donate>(frame),
        7 => message::<replica::Donated>(frame),
        _ => {
            let frame = Bytes::copy_from_slice(frame);
            let Ok(record) = FrameRecord::decode(frame.clone()) else { return };
            assert!(record.payload.len() < frame.len());
            let again = Bytes::from([record.header(), record.payload.clone()].concat());
            assert_eq!(FrameRecord::decode(again), Ok(record));
        }
    }
}

/// Messages of contribute streams; the first byte chooses.
pub(crate) fn contribute(data: &[u8]) {
    let Some((which, frame)) = data.split_first() else { return };
    match which % 3 {
        0 => message::<contribute::Contribute>(frame),
        1 => message::<contribute::Reply>(frame),
        _ => {
            let frame = Bytes::copy_from_slice(frame);
            let Ok(piece) = Piece::decode(frame.clone()) else { return };
            // A piece has one form only.
            assert_eq!([piece.header(), piece.payload].concat(), frame);
        }
    }
}

/// Messages of events streams; the first byte chooses.
pub(crate) fn events(data: &[u8]) {
    let Some((which, frame)) = data.split_first() else { return };
    if which % 2 == 1 {
        return message::<events::Response>(frame);
    }
    message::<events::Request>(frame);
    if let Ok(request) = decode_message::<events::Request>("request", frame)
        && request.ask.check().is_ok()
        && let events::Ask::Commit(gift) = request.ask
    {
        assert!(gift.count > 0 && !gift.user.is_empty() && !gift.client_id.is_empty());
        assert!(gift.detail.as_str().len() <= 3072 && !gift.detail.as_str().contains('\0'));
    }
}

/// What nodes ask each other for an operator, and the answers; the first byte chooses.
pub(crate) fn inquiry(data: &[u8]) {
    let Some((which, frame)) = data.split_first() else { return };
    match which % 2 {
        0 => message::<inquiry::Inquiry>(frame),
        _ => message::<inquiry::Finding>(frame),
    }
}

/// What members, edges and homes say in a room.
pub(crate) fn room(data: &[u8]) {
    let Some((kind, frame)) = data.split_first() else { return };
    match kind % 6 {
        0 => message::<relay::Enter>(frame),
        1 => message::<relay::ToHome>(frame),
        2 => message::<relay::FromHome>(frame),
        3 => {
            if let Ok(Some(said)) = Client::read(frame, Form::Json) {
                assert_eq!(Client::read(&said.write(Form::Json), Form::Json), Ok(Some(said)));
            }
        }
        4 => {
            if let Ok(Some(said)) = Client::read(frame, Form::Protobuf) {
                let again = Client::read(&said.write(Form::Protobuf), Form::Protobuf);
                assert_eq!(again, Ok(Some(said)));
            }
        }
        _ => {
            if let Ok(item) = Item::decode_shared(frame) {
                assert_eq!(Item::decode_shared(&item.encode_shared()), Ok(item));
            }
        }
    }
}

/// Names as text from anywhere.
pub(crate) fn id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(room) = RoomId::parse(text) {
        assert_eq!(room.as_str(), text);
        assert_eq!(format!("{}/{}", room.app(), room.name()), text);
    }
    if let Ok(node) = NodeId::new(text) {
        assert_eq!(node.as_str(), text);
    }
    if let Ok(cluster) = text.parse::<ClusterId>() {
        assert_eq!(cluster.to_string(), text.to_ascii_lowercase());
    }
    let _ = Region::new(text);
}

fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(frame: &[u8]) {
    if let Ok(message) = decode_message::<T>("message", frame) {
        survives(&message);
    }
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T) {
    let mut bytes = encode_message("message", message).expect("what was read can be written");
    let frame = FrameDecoder::default().push(&mut bytes, usize::MAX);
    let frame = frame.expect("our own frame").expect("all of it");
    assert_eq!(decode_message::<T>("message", &frame).as_ref(), Ok(message));
}
