//! What the session says to its peer.

use media::{
    amf0::{self, Amf0},
    codec::Codec,
};

use super::Session;
use crate::rtmp::message::kind;

/// Our chunk size. `ffmpeg` answers with the same one, and at this size most messages are one chunk.
const OUR_CHUNK_BYTES: u32 = 60_000;
/// How often the peer is to acknowledge, and how much may be under way: the usual value of servers.
const WINDOW_BYTES: u32 = 2_500_000;
/// The limit type "dynamic" of Set Peer Bandwidth (section 5.4.5).
const DYNAMIC: u8 = 2;
/// The FourCCs of enhanced RTMP and what they stand for.
const VIDEO_FOUR_CCS: [(&str, Codec); 4] =
    [("avc1", Codec::Avc), ("hvc1", Codec::Hevc), ("av01", Codec::Av1), ("vp09", Codec::Vp9)];
const AUDIO_FOUR_CCS: [(&str, Codec); 4] =
    [("mp4a", Codec::Aac), ("Opus", Codec::Opus), (".mp3", Codec::Mp3), ("fLaC", Codec::Flac)];
/// In the FourCC maps: the server passes this codec on (enhanced RTMP v2, "connect").
const CAN_FORWARD: f64 = 4.0;

/// The chunk streams we send on: protocol control, commands of the connection, those of a stream.
const CONTROL: u8 = 2;
const COMMANDS: u8 = 3;
const STREAM: u8 = 5;

impl Session {
    pub(super) fn answer_control(&mut self, kind: u8, payload: &[u8]) {
        self.writer.write(&mut self.output, CONTROL, 0, kind, 0, payload);
    }

    pub(super) fn answer_window_ack_size(&mut self) {
        self.answer_control(kind::WINDOW_ACK_SIZE, &WINDOW_BYTES.to_be_bytes());
    }

    pub(super) fn answer_ping(&mut self, time: [u8; 4]) {
        let [a, b, c, d] = time;
        self.answer_control(kind::USER_CONTROL, &[0, 7, a, b, c, d]);
    }

    pub(super) fn answer_stream_begin(&mut self, stream_id: u32) {
        let [a, b, c, d] = stream_id.to_be_bytes();
        self.answer_control(kind::USER_CONTROL, &[0, 0, a, b, c, d]);
    }

    /// Answers `connect` (section 7.2.1.1). An encoder that speaks enhanced RTMP is told which codecs
    /// are carried, in both objects, since its specification does not say in which.
    pub(super) fn answer_connect(&mut self, transaction: f64, enhanced: bool) {
        self.answer_window_ack_size();
        let [a, b, c, d] = WINDOW_BYTES.to_be_bytes();
        self.answer_control(kind::SET_PEER_BANDWIDTH, &[a, b, c, d, DYNAMIC]);
        self.writer.set_chunk_size(&mut self.output, OUR_CHUNK_BYTES);
        let mut properties =
            members([("fmsVer", Amf0::from("FMS/3,5,7,7009")), ("capabilities", Amf0::from(31.0))]);
        let mut information = members([
            ("level", Amf0::from("status")),
            ("code", Amf0::from("NetConnection.Connect.Success")),
            ("description", Amf0::from("Connected.")),
            ("objectEncoding", Amf0::from(0.0)),
        ]);
        if enhanced {
            properties.extend(enhancements());
            information.extend(enhancements());
        }
        let values = [Amf0::Object(properties), Amf0::Object(information)];
        self.answer_command("_result", transaction, &values);
    }

    pub(super) fn answer_result(&mut self, transaction: f64, value: Amf0) {
        self.answer_command("_result", transaction, &[Amf0::Null, value]);
    }

    pub(super) fn answer_error(&mut self, transaction: f64, code: &str, description: &str) {
        let status = status("error", code, description);
        self.answer_command("_error", transaction, &[Amf0::Null, status]);
    }

    /// `onFCPublish` and `onFCUnpublish`, which Flash Media Encoder waits for.
    pub(super) fn answer_fc(&mut self, name: &str, code: &str) {
        let status = status("status", code, "");
        self.answer_command(name, 0.0, &[Amf0::Null, status]);
    }

    pub(super) fn answer_status(&mut self, stream: u32, level: &str, code: &str, text: &str) {
        let values = [Amf0::Null, status(level, code, text)];
        self.command_to(STREAM, stream, "onStatus", 0.0, &values);
    }

    fn answer_command(&mut self, name: &str, transaction: f64, values: &[Amf0]) {
        self.command_to(COMMANDS, 0, name, transaction, values);
    }

    fn command_to(
        &mut self,
        chunk_stream: u8,
        stream_id: u32,
        name: &str,
        transaction: f64,
        values: &[Amf0],
    ) {
        let mut payload = Vec::with_capacity(256);
        amf0::write(&mut payload, &Amf0::from(name));
        amf0::write(&mut payload, &Amf0::from(transaction));
        values.iter().for_each(|value| amf0::write(&mut payload, value));
        let kind = kind::COMMAND_AMF0;
        self.writer.write(&mut self.output, chunk_stream, 0, kind, stream_id, &payload);
    }
}

fn members<const N: usize>(members: [(&str, Amf0); N]) -> amf0::Members {
    members.map(|(name, value)| (name.to_owned(), value)).into()
}

fn status(level: &str, code: &str, description: &str) -> Amf0 {
    Amf0::Object(members([
        ("level", Amf0::from(level)),
        ("code", Amf0::from(code)),
        ("description", Amf0::from(description)),
    ]))
}

/// What we carry, as enhanced RTMP says it: only codecs that are served, and none of the extras
/// (reconnect, multitrack, ModEx).
fn enhancements() -> amf0::Members {
    let carried = |table: [(&'static str, Codec); 4]| {
        table.into_iter().filter(|(_, codec)| codec.is_carried()).map(|(four_cc, _)| four_cc)
    };
    let map = |table| {
        let members = carried(table).map(|four_cc| (four_cc.to_owned(), Amf0::from(CAN_FORWARD)));
        Amf0::Object(members.collect())
    };
    let list = carried(VIDEO_FOUR_CCS).chain(carried(AUDIO_FOUR_CCS)).map(Amf0::from).collect();
    members([
        ("fourCcList", Amf0::StrictArray(list)),
        ("videoFourCcInfoMap", map(VIDEO_FOUR_CCS)),
        ("audioFourCcInfoMap", map(AUDIO_FOUR_CCS)),
        ("capsEx", Amf0::from(0.0)),
    ])
}
