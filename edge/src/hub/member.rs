//! One member's connection: what it is still to be sent, what it says, and when it ends.
//!
//! In: readiness of its socket, the room's window, answers. Out: bytes on the socket, requests to the
//! room's task. Driven by its shard: it owns no task, and between two things to do no buffer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use wire::room::model::{Accepted, Bye, Empty, Form};
use wire::room::relay::Whom;
use wire::room::{Client, Code, Server, User};

use super::conductor::refusal;
use super::core::PING_MS;
use super::metrics::Ended;
use super::pass::Pass;
use super::tick::{Gone, Manner, Window, framed};
use super::{Considered, Hub, Provenance, Want};
use crate::http::connection::Transport;
use crate::http::listener::{AddressGuard, Lease};
use crate::ws::frame::{self, Opcode};
use crate::ws::message::{Bounds, Message, Messages};

/// The longest frame of a client.
pub(crate) const MAX_FRAME: usize = 4 << 10;
/// The longest compressed message of a client, inflated.
const MAX_INFLATED: usize = 64 << 10;
/// Frames a client may send in [`FRAMES_WINDOW`].
const MAX_FRAMES: u32 = 120;
/// See [`MAX_FRAMES`].
const FRAMES_WINDOW: Duration = Duration::from_secs(60);
/// Answers that wait for a socket; one more and it is slow.
const MAX_ANSWERS: usize = 64;
/// How many ticks a member may be behind before it is sent the lean form.
const MAX_BEHIND: u64 = 2;
/// How long a member may be behind, or take nothing.
const MAX_LAG: Duration = Duration::from_secs(5);
/// How long a ping may go unanswered.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes the kernel keeps unsent for one member: what is more is lag, which is acted on here.
const NOTSENT_LOWAT_BYTES: u32 = 16 << 10;
/// Buffers in one `writev`.
const MAX_SLICES: usize = 16;
/// Bytes read of one member in its turn.
const READ_PER_TURN: usize = 16 << 10;

/// See the module.
pub(crate) struct Member {
    io: Transport,
    _lease: Lease,
    _share: Option<AddressGuard>,
    pub(crate) user: Arc<User>,
    pass: Pass,
    sid: String,
    from: Provenance,
    manner: Manner,
    incoming: Messages,
    /// The number of the next tick it is sent.
    cursor: u64,
    lean: bool,
    out: VecDeque<Bytes>,
    /// When the socket took bytes last, while some wait.
    blocked_since: Option<Instant>,
    heard: Instant,
    pinged: Option<Instant>,
    frames: (Instant, u32),
    /// The connection ends once `out` is sent, or the client has answered, or it is too late.
    closing: Option<Closing>,
}

#[derive(Debug, Clone, Copy)]
struct Closing {
    until: Instant,
    /// The client's close frame has come.
    answered: bool,
}

/// What one turn of a member found.
pub(crate) struct Turn<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) waker: &'a Waker,
    pub(crate) now: Instant,
    pub(crate) scratch: &'a mut [u8],
}

/// What a member wants of the room.
pub(crate) struct Request {
    pub(crate) user: User,
    pub(crate) from: Provenance,
    pub(crate) cid: String,
    pub(crate) want: Want,
}

/// What a member is made of.
pub(crate) struct Parts {
    pub(crate) io: Transport,
    pub(crate) lease: Lease,
    /// A guest's place in the share of its address.
    pub(crate) share: Option<AddressGuard>,
    pub(crate) user: Arc<User>,
    pub(crate) pass: Pass,
    pub(crate) sid: String,
    pub(crate) from: Provenance,
    pub(crate) manner: Manner,
    pub(crate) incoming: Messages,
    pub(crate) cursor: u64,
    /// The answer to the hello, as a frame.
    pub(crate) welcome: Bytes,
}

impl Member {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { io, lease, share, user, pass, sid, from, manner, incoming, cursor, welcome } =
            parts;
        let now = Instant::now();
        let tcp = match &io {
            Transport::Tcp(tcp) => tcp,
            Transport::Tls(tls) => tls.get_ref().0,
        };
        // Without it lag is seen later: in the kernel's buffers first.
        let _ = SockRef::from(tcp).set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES);
        Self {
            io,
            _lease: lease,
            _share: share,
            user,
            pass,
            sid,
            from,
            manner,
            incoming,
            cursor,
            lean: false,
            out: VecDeque::from([welcome]),
            blocked_since: None,
            heard: now,
            pinged: None,
            frames: (now, 0),
            closing: None,
        }
    }

    /// Reads what has come and writes what is due. Requests go to `say`. Returns why it is over.
    pub(crate) fn serve(
        &mut self,
        turn: &mut Turn<'_>,
        say: &mut dyn FnMut(Request),
    ) -> Option<Ended> {
        if let Some(ended) = self.receive(turn, say) {
            return Some(ended);
        }
        self.flush(turn)
    }

    /// Sends an answer.
    pub(crate) fn answer(&mut self, turn: &mut Turn<'_>, said: &Server) -> Option<Ended> {
        if self.closing.is_none() {
            self.push(framed(said, Manner { deflate: false, ..self.manner }));
        }
        if self.out.len() > MAX_ANSWERS {
            return Some(Ended::Slow);
        }
        self.flush(turn)
    }

    /// Whether one of these is this member.
    pub(crate) fn is_meant(&self, whom: &[Whom]) -> bool {
        whom.iter().any(|whom| whom.is(&self.user.id, self.from.address))
    }

    /// Whether it is this connection of this user.
    pub(crate) fn is_session(&self, sid: &str, uid: &str) -> bool {
        self.sid == sid && self.user.id == uid
    }

    /// What the time alone decides, once a second.
    pub(crate) fn tend(&mut self, turn: &mut Turn<'_>) -> Option<Ended> {
        if self.closing.is_some_and(|closing| turn.now >= closing.until) {
            return Some(Ended::Left);
        }
        if self.blocked_since.is_some_and(|since| turn.now - since >= MAX_LAG) {
            return Some(Ended::Slow);
        }
        let now_s = turn.hub.shared.now_unix_ms() / 1000;
        if self.pass.until_s.is_some_and(|until| now_s > until) {
            return self.end(turn, Ended::Unauthorised, None);
        }
        let silent = turn.now - self.heard;
        match self.pinged {
            Some(at) if turn.now - at >= PONG_TIMEOUT => {
                return self.end(turn, Ended::Silent, None);
            }
            None if silent >= Duration::from_millis(u64::from(PING_MS)) => {
                self.pinged = Some(turn.now);
                return self.answer(turn, &Server::Ping(Empty {}));
            }
            _ => {}
        }
        None
    }

    /// Says goodbye with a code, and where and when to come again.
    pub(crate) fn end(
        &mut self,
        turn: &mut Turn<'_>,
        why: Ended,
        bye: Option<(u32, Vec<String>)>,
    ) -> Option<Ended> {
        if self.closing.is_some() {
            return None;
        }
        turn.hub.shared.metrics.ended(why);
        let code = why.code().unwrap_or(1000);
        if let Some((after_ms, edges)) = bye {
            let bye = Bye { code: u32::from(code), after_ms: Some(after_ms), edges };
            let manner = Manner { deflate: false, ..self.manner };
            self.push(framed(&Server::Bye(bye), manner));
        }
        self.close(turn, code, reason(why))
    }

    /// Names this connection, and by it when it comes again.
    pub(crate) fn sid(&self) -> &str {
        &self.sid
    }

    /// Whether its end is counted already.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    fn close(&mut self, turn: &mut Turn<'_>, code: u16, reason: &str) -> Option<Ended> {
        self.push(frame::close_with(code, reason).into());
        self.closing = Some(Closing { until: turn.now + CLOSE_TIMEOUT, answered: false });
        self.flush(turn)
    }

    fn push(&mut self, bytes: Bytes) {
        self.out.push_back(bytes);
    }

    fn receive(&mut self, turn: &mut Turn<'_>, say: &mut dyn FnMut(Request)) -> Option<Ended> {
        let mut cx = Context::from_waker(turn.waker);
        let mut left = READ_PER_TURN;
        loop {
            let mut buffer = ReadBuf::new(turn.scratch);
            let read = match &mut self.io {
                Transport::Tcp(tcp) => Pin::new(tcp).poll_read(&mut cx, &mut buffer),
                Transport::Tls(tls) => Pin::new(tls).poll_read(&mut cx, &mut buffer),
            };
            match read {
                Poll::Pending => return None,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Some(Ended::Left),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Poll::Ready(Err(_)) => return Some(Ended::Left),
            }
            let length = buffer.filled().len();
            let received = turn.scratch.get(..length).unwrap_or_default().to_vec();
            if let Some(ended) = self.take(&received, turn, say) {
                return Some(ended);
            }
            left = left.saturating_sub(length);
            if left == 0 {
                // The rest has its turn after the others.
                turn.waker.wake_by_ref();
                return None;
            }
        }
    }

    /// Takes bytes the client sent.
    pub(crate) fn take(
        &mut self,
        mut bytes: &[u8],
        turn: &mut Turn<'_>,
        say: &mut dyn FnMut(Request),
    ) -> Option<Ended> {
        let bounds = bounds(self.manner.deflate);
        while self.closing.is_none_or(|closing| !closing.answered) {
            let message = match self.incoming.next(&mut bytes, bounds) {
                Ok(Some(message)) => message,
                Ok(None) => return None,
                Err(_) if self.closing.is_some() => return Some(Ended::Left),
                Err(frame::Status::TooBig) => return self.end(turn, Ended::TooLarge, None),
                Err(status) => {
                    turn.hub.shared.metrics.ended(Ended::Protocol);
                    return self.close(turn, status as u16, "");
                }
            };
            if self.closing.is_some() && !matches!(message, Message::Close(_)) {
                continue;
            }
            if let Some(ended) = self.message(message, turn, say) {
                return Some(ended);
            }
        }
        None
    }

    fn message(
        &mut self,
        message: Message,
        turn: &mut Turn<'_>,
        say: &mut dyn FnMut(Request),
    ) -> Option<Ended> {
        self.heard = turn.now;
        self.pinged = None;
        if turn.now - self.frames.0 >= FRAMES_WINDOW {
            self.frames = (turn.now, 0);
        }
        self.frames.1 += 1;
        if self.frames.1 > MAX_FRAMES && !matches!(message, Message::Close(_)) {
            let after_ms = 10_000;
            return self.end(turn, Ended::Overloaded, Some((after_ms, Vec::new())));
        }
        let payload = match (message, self.manner.form) {
            (Message::Close(code), _) => {
                if let Some(closing) = &mut self.closing {
                    closing.answered = true;
                } else {
                    turn.hub.shared.metrics.ended(Ended::Left);
                    self.push(frame::close_with(code, "").into());
                    self.closing =
                        Some(Closing { until: turn.now + CLOSE_TIMEOUT, answered: true });
                }
                return None;
            }
            (Message::Ping(payload), _) => {
                let pong = frame::control(Opcode::Pong, &payload);
                // Of pings that came together the newest is answered (RFC 6455, 5.5.3). The front of the queue
                // may be half sent.
                let waits = |last: &Bytes| last.first() == pong.first();
                if self.out.len() > 1 && self.out.back().is_some_and(waits) {
                    self.out.pop_back();
                }
                self.push(pong.into());
                return (self.out.len() > MAX_ANSWERS).then_some(Ended::Slow);
            }
            (Message::Pong, _) => return None,
            (Message::Text(payload), Form::Json) | (Message::Binary(payload), Form::Protobuf) => {
                payload
            }
            _ => return self.fail(turn, "JSON comes in text frames, Protobuf in binary ones"),
        };
        match Client::read(&payload, self.manner.form) {
            Ok(Some(said)) => self.said(said, turn, say),
            Ok(None) => None,
            Err(error) => self.fail(turn, &error.0),
        }
    }

    /// A frame that cannot be read.
    fn fail(&mut self, turn: &mut Turn<'_>, why: &str) -> Option<Ended> {
        turn.hub.shared.metrics.ended(Ended::BadFrame);
        self.close(turn, 4001, why)
    }

    fn said(
        &mut self,
        said: Client,
        turn: &mut Turn<'_>,
        say: &mut dyn FnMut(Request),
    ) -> Option<Ended> {
        let (cid, want) = match turn.hub.consider(&self.user, self.pass, said) {
            Considered::Pass(cid, want) => (cid, want),
            Considered::Refuse(cid, code, retry_ms) => {
                return self.refuse(turn, cid, code, retry_ms);
            }
            Considered::Answer(answer) => return self.answer(turn, &answer),
            Considered::Renew(cid, token) => return self.renew(turn, cid, &token),
            Considered::Done => return None,
            Considered::Wrong => return self.fail(turn, "hello comes once"),
        };
        say(Request { user: User::clone(&self.user), from: self.from, cid, want });
        None
    }

    /// A newer token takes the place of the one before; another leaves everything as it is.
    fn renew(&mut self, turn: &mut Turn<'_>, c: String, token: &str) -> Option<Ended> {
        match turn.hub.renew(&self.user, token) {
            Some(pass) => {
                self.pass = pass;
                self.answer(turn, &Server::Ok(Accepted { c, ..Accepted::default() }))
            }
            None => self.refuse(turn, c, Code::Unauthorised, None),
        }
    }

    /// Answers that something is refused here.
    pub(crate) fn refuse(
        &mut self,
        turn: &mut Turn<'_>,
        cid: String,
        code: Code,
        retry_ms: Option<u32>,
    ) -> Option<Ended> {
        turn.hub.shared.metrics.refuse(code);
        self.answer(turn, &refusal(cid, code, retry_ms))
    }

    /// Writes what is due, as much as the socket takes.
    pub(crate) fn flush(&mut self, turn: &mut Turn<'_>) -> Option<Ended> {
        let mut cx = Context::from_waker(turn.waker);
        loop {
            if self.out.is_empty() {
                self.blocked_since = None;
                if let Some(closing) = self.closing {
                    // The peer that asked for the end has its answer; the other's is waited for.
                    let flushed = self.poll_flush(&mut cx);
                    return (closing.answered && flushed).then_some(Ended::Left);
                }
                match self.next_tick(turn) {
                    Ok(true) => {}
                    Ok(false) => {
                        self.poll_flush(&mut cx);
                        return None;
                    }
                    Err(Gone) => return self.end(turn, Ended::Slow, None),
                }
            }
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.out.len().min(MAX_SLICES);
            slices.iter_mut().zip(&self.out).for_each(|(slot, bytes)| *slot = IoSlice::new(bytes));
            let written = match &mut self.io {
                Transport::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(&mut cx, &slices[..count]),
                Transport::Tls(tls) => Pin::new(tls).poll_write_vectored(&mut cx, &slices[..count]),
            };
            match written {
                Poll::Ready(Ok(0)) => return Some(Ended::Left),
                Poll::Ready(Ok(written)) => {
                    turn.hub.shared.metrics.sent_bytes.inc_by(written as u64);
                    self.blocked_since = None;
                    self.advance(written);
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(_)) => return Some(Ended::Left),
                Poll::Pending => {
                    let since = *self.blocked_since.get_or_insert(turn.now);
                    return (turn.now - since >= MAX_LAG).then_some(Ended::Slow);
                }
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.io {
            Transport::Tcp(_) => true,
            Transport::Tls(tls) => Pin::new(tls).poll_flush(cx).is_ready(),
        }
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(front) = self.out.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.out.pop_front();
        }
    }

    /// Takes the next ticks of the window; false if there are none.
    fn next_tick(&mut self, turn: &Turn<'_>) -> Result<bool, Gone> {
        let window = turn.hub.window.read();
        let window: &Window = &window;
        let behind = window.next().saturating_sub(self.cursor);
        self.lean = behind > if self.lean { 0 } else { MAX_BEHIND };
        let metrics = &turn.hub.shared.metrics;
        let mut taken = false;
        while self.out.len() < MAX_SLICES {
            let Some(tick) = window.get(self.cursor)? else { break };
            if turn.now.saturating_duration_since(tick.at) >= MAX_LAG {
                return Err(Gone);
            }
            self.out.push_back(tick.frame(self.manner, self.lean).clone());
            metrics.frames.inc();
            metrics.lean_frames.inc_by(u64::from(self.lean));
            self.cursor += 1;
            taken = true;
        }
        Ok(taken)
    }
}

/// What a client may send in one message.
pub(crate) fn bounds(deflate: bool) -> Bounds {
    Bounds { payload: MAX_FRAME, inflated: if deflate { MAX_INFLATED } else { MAX_FRAME }, deflate }
}

/// The words of a close frame.
fn reason(why: Ended) -> &'static str {
    match why {
        Ended::Left | Ended::Protocol | Ended::BadFrame => "",
        Ended::TooLarge => "frame too large",
        Ended::Unauthorised => "the token has expired",
        Ended::Gone => "the room is not open",
        Ended::Removed => "removed from the room",
        Ended::Slow => "too far behind",
        Ended::Silent => "no sign of life",
        Ended::TooMany => "too many connections",
        Ended::Draining => "go to another edge",
        Ended::Overloaded => "too many frames",
        Ended::Replaced => "another connection has taken its place",
    }
}
