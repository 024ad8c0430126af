//! What each fuzz target does with its input: hand it to the parser as a stranger's bytes, then hold the
//! result against what the parser promises. Shared by the targets and by the test that replays their
//! corpora.

use std::time::Instant;

use media::amf0::{self, Amf0};
use origin::rtmp::{
    Error,
    chunk::Writer,
    message::{Limits, kind},
    session::{Event, MAX_OUTPUT_BYTES, Session},
};

/// Where in its life a session meets the input, by the lower bits of the second byte.
const WITH_HANDSHAKE: u8 = 1;
const PUBLISHING: u8 = 2;
const REFUSING: u8 = 4;

/// An RTMP connection. The first byte is the size of the pieces in which the input arrives, the second
/// chooses where it begins; the rest is what the peer sends.
pub(crate) fn rtmp_session(data: &[u8]) {
    let [step, mode, stream @ ..] = data else { return };
    let (whole, whole_result) = run(*mode, stream, stream.len().max(1));
    let (pieces, pieces_result) = run(*mode, stream, usize::from(*step) + 1);
    // How the bytes arrive is nothing the peer says. Only limits on bytes may hit a little sooner or
    // later, so one run may see a little more than the other before its error.
    let common = whole.len().min(pieces.len());
    assert_eq!(whole[..common], pieces[..common]);
    if whole_result.is_ok() && pieces_result.is_ok() {
        assert_eq!(whole.len(), pieces.len());
    }
}

/// Feeds a session in pieces and answers for the shell. Events are kept as text, since a number that is
/// not one is unequal to itself.
fn run(mode: u8, stream: &[u8], step: usize) -> (Vec<String>, Result<(), Error>) {
    let now = Instant::now();
    let mut session = match mode & WITH_HANDSHAKE {
        0 => Session::after_handshake(now),
        _ => Session::new(now),
    };
    let mut limit = Limits::STRANGER.partial_bytes;
    let mut events = Vec::new();
    if mode & (WITH_HANDSHAKE | PUBLISHING) == PUBLISHING {
        let mut input = &publish()[..];
        while !session.is_publishing() {
            session.receive(now, &mut input).expect("a proper publish");
            session.accept_publish(now);
        }
        limit = Limits::PUBLISHER.partial_bytes;
    }
    for mut piece in stream.chunks(step) {
        loop {
            match session.receive(now, &mut piece) {
                Ok(Some(event)) => {
                    if let Event::PublishRequested { .. } = event {
                        if mode & REFUSING == 0 {
                            session.accept_publish(now);
                            limit = Limits::PUBLISHER.partial_bytes;
                        } else {
                            session.close("NetStream.Publish.BadName", "taken");
                        }
                    }
                    events.push(format!("{event:?}"));
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.reason().is_empty() && error.to_string().len() < 1000);
                    return (events, Err(error));
                }
            }
            // A buffer of answers doubles as it grows.
            assert!(session.held_bytes() <= limit + 2 * MAX_OUTPUT_BYTES);
            session.take_output();
        }
        assert!(piece.is_empty());
        session.take_output();
    }
    (events, Ok(()))
}

/// What an encoder sends until it may publish.
fn publish() -> Vec<u8> {
    let object = Amf0::Object(vec![("app".to_owned(), Amf0::from("live"))]);
    let mut bytes = Vec::new();
    for (name, value) in [("connect", object), ("publish", Amf0::Null)] {
        let mut payload = Vec::new();
        for value in [Amf0::from(name), Amf0::from(1.0), value, Amf0::from("x")] {
            amf0::write(&mut payload, &value);
        }
        Writer::default().write(&mut bytes, 3, 0, kind::COMMAND_AMF0, 1, &payload);
    }
    bytes
}

/// AMF0 values.
pub(crate) fn amf0(data: &[u8]) {
    let Ok(values) = amf0::read_all(data) else { return };
    assert!(values.len() <= amf0::MAX_VALUES);
    let written = written(&values);
    match amf0::read_all(&written) {
        Ok(again) => assert_eq!(self::written(&again), written),
        // Text that was no UTF-8 grows when it is made so.
        Err(error) => assert_eq!(error.reason(), "too_large"),
    }
}

fn written(values: &[Amf0]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| amf0::write(&mut out, value));
    out
}
