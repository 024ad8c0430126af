//! How members come in: the upgrade, the hello, the room.
//!
//! In: `GET /ws`. Out: a member on one of its room's shards, or a close code that says why not. Until its
//! hello a connection is a task of its own, for [`HELLO_TIMEOUT`] at most.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::timeout;
use wire::RoomId;
use wire::events::ClientKind;
use wire::room::model::{Accepted as Done, Bye, Form, Hello};
use wire::room::relay::Whom;
use wire::room::{Client, Code, Server, User};

use super::conductor::{Asker, Up, refusal};
use super::core::Entry;
use super::member::{Member, Parts, bounds};
use super::metrics::Ended;
use super::pass::{Papers, Pass, Stranger, identify};
use super::tick::{Manner, framed};
use super::{Considered, Hub, NotCarried, Provenance, Shared};
use crate::http::connection::{Socket, Transport};
use crate::http::listener::AddressGuard;
use crate::ws::frame::{self, Opcode, Status};
use crate::ws::message::{Message, Messages};
use crate::ws::{BadUpgrade, accept, deflate};

/// How long a client may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a visitor waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);
/// How long the last frame may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// When a node that cannot carry the room now is to be asked again, in milliseconds.
const AGAIN_MS: u32 = 2_000;

/// An upgrade that can be accepted.
pub(crate) struct Accepted {
    manner: Manner,
    head: Bytes,
    /// The token of the request's Authorization header.
    bearer: Option<String>,
    client: ClientKind,
}

/// Reads an upgrade request.
///
/// # Errors
/// [`BadUpgrade`].
pub(crate) fn upgrade(headers: &HeaderMap) -> Result<Accepted, BadUpgrade> {
    let key = accept(headers)?;
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let offered = offered.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',').map(str::trim));
    let known = offered.into_iter().find_map(|name| form(name).map(|form| (name, form)));
    let extension = deflate::accept(headers);
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {key}\r\n"
    );
    if let Some((name, _)) = known {
        head.push_str(&format!("sec-websocket-protocol: {name}\r\n"));
    }
    if let Some(extension) = extension {
        head.push_str(&format!("sec-websocket-extensions: {extension}\r\n"));
    }
    head.push_str("\r\n");
    let form = known.map_or(Form::Json, |(_, form)| form);
    let manner = Manner { form, deflate: extension.is_some() };
    let (bearer, client) = (bearer(headers).map(str::to_owned), client_kind(headers));
    Ok(Accepted { manner, head: head.into(), bearer, client })
}

/// The token of an Authorization header (RFC 6750, 2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The kind of program that asks, as far as it says.
pub(crate) fn client_kind(headers: &HeaderMap) -> ClientKind {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let agent = agent.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| agent.contains(word));
    if has(&["miniprogram", "micromessenger"]) {
        ClientKind::MINI_PROGRAM
    } else if has(&["bot", "curl", "python"]) {
        ClientKind::BOT
    } else if has(&["mozilla"]) {
        ClientKind::WEB
    } else if has(&["okhttp", "cfnetwork", "dalvik", "dart"]) {
        ClientKind::APP
    } else {
        ClientKind::OTHER
    }
}

/// Whether the request comes from a page of a site that may not connect (RFC 6455, 10.2). What is no
/// browser sends no Origin.
pub(crate) fn is_foreign(shared: &Shared, headers: &HeaderMap) -> bool {
    let origins = &shared.terms.origins;
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let origin = origin.to_str().unwrap_or_default();
    !origins.is_empty() && !origins.iter().any(|known| known.eq_ignore_ascii_case(origin))
}

fn form(name: &str) -> Option<Form> {
    match name {
        "tidewater.v1.json" => Some(Form::Json),
        "tidewater.v1.pb" => Some(Form::Protobuf),
        _ => None,
    }
}

/// Why nobody came in.
enum Out {
    /// The client left, or did not speak WebSocket.
    Gone,
    /// To be closed with a status of RFC 6455.
    Status(Status),
    /// To be closed with a code of ours.
    Turned(Turned),
    /// The client said goodbye with this code.
    Closed(u16),
}

/// Serves a socket that has left hyper until it is a member or is gone.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    mut socket: Socket,
    peer: SocketAddr,
    accepted: Accepted,
) {
    let Accepted { manner, head, bearer, client } = accepted;
    let from = Provenance { address: peer.ip(), client };
    let mut incoming = Messages::default();
    let mut ahead = std::mem::take(&mut socket.ahead).to_vec();
    let greeting = async {
        write(&mut socket.stream, &head).await.map_err(|_| Out::Gone)?;
        hello(&mut socket.stream, &mut incoming, &mut ahead, manner).await
    };
    let drain = shared.drain.clone();
    let hello = tokio::select! {
        greeting = timeout(HELLO_TIMEOUT, greeting) => greeting.unwrap_or_else(|_| {
            Err(Out::Turned(Turned::new(Ended::BadFrame, "hello did not come in time")))
        }),
        () = drain.cancelled() => Err(Out::Status(Status::GoingAway)),
    };
    let out = match hello {
        Ok(hello) => match come_in(&shared, &hello, bearer.as_deref(), from).await {
            // From here on the room's shards have it.
            Ok(come) => return seat(come, &hello, socket, (manner, incoming, ahead)).await,
            Err(turned) => Out::Turned(turned),
        },
        Err(out) => out,
    };
    turn_away(&shared, socket, manner, out).await;
}

async fn hello(
    stream: &mut Transport,
    incoming: &mut Messages,
    ahead: &mut Vec<u8>,
    manner: Manner,
) -> Result<Hello, Out> {
    loop {
        let mut input = &ahead[..];
        let message = incoming.next(&mut input, bounds(manner.deflate));
        let left = input.len();
        ahead.drain(..ahead.len() - left);
        let payload = match (message, manner.form) {
            (Ok(None), _) => {
                let mut buffer = [0; 1024];
                match read(stream, &mut buffer).await {
                    Ok(0) | Err(_) => return Err(Out::Gone),
                    Ok(n) => ahead.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                }
                continue;
            }
            (Err(Status::TooBig), _) => {
                return Err(bad(Ended::TooLarge, "frame too large"));
            }
            (Err(status), _) => return Err(Out::Status(status)),
            (Ok(Some(Message::Close(code))), _) => return Err(Out::Closed(code)),
            (Ok(Some(Message::Ping(payload))), _) => {
                let pong = frame::control(Opcode::Pong, &payload);
                write(stream, &pong).await.map_err(|_| Out::Gone)?;
                continue;
            }
            (Ok(Some(Message::Pong)), _) => continue,
            (Ok(Some(Message::Text(payload))), Form::Json)
            | (Ok(Some(Message::Binary(payload))), Form::Protobuf) => payload,
            (Ok(Some(_)), _) => {
                let why = "JSON comes in text frames, Protobuf in binary ones";
                return Err(bad(Ended::BadFrame, why));
            }
        };
        return match Client::read(&payload, manner.form) {
            Ok(Some(Client::Hello(hello))) if hello.v == 1 => Ok(hello),
            Ok(Some(Client::Hello(_))) => Err(bad(Ended::BadFrame, "this server speaks version 1")),
            Ok(_) => Err(bad(Ended::BadFrame, "the first frame is a hello")),
            Err(error) => Err(bad(Ended::BadFrame, &error.0)),
        };
    }
}

fn bad(why: Ended, reason: &str) -> Out {
    Out::Turned(Turned::new(why, reason))
}

/// Why somebody is turned away.
#[derive(Debug)]
pub(crate) struct Turned {
    pub(crate) why: Ended,
    /// In words, for whoever came.
    pub(crate) reason: String,
}

impl Turned {
    fn new(why: Ended, reason: &str) -> Self {
        Self { why, reason: reason.to_owned() }
    }
}

/// Somebody who has come in. Until it leaves it is counted in its room.
struct Come {
    hub: Arc<Hub>,
    user: Arc<User>,
    pass: Pass,
    from: Provenance,
    /// A guest's place in the share of its address.
    share: Option<AddressGuard>,
}

/// Finds out who it is and opens the room.
async fn come_in(
    shared: &Arc<Shared>,
    hello: &Hello,
    bearer: Option<&str>,
    from: Provenance,
) -> Result<Come, Turned> {
    let turned = |why, reason: &str| Err(Turned::new(why, reason));
    let room = match RoomId::parse(&hello.room) {
        Ok(room) => room,
        Err(error) => return turned(Ended::BadFrame, &format!("room: {error}")),
    };
    if shared.is_draining() {
        return turned(Ended::Draining, "go to another edge");
    }
    let token = hello.token.as_deref().or(bearer);
    let papers = Papers { token, guest: hello.guest.as_deref(), name: hello.n.as_deref() };
    let terms = &shared.terms;
    let now_s = shared.now_unix_ms() / 1000;
    let known = identify(&terms.access, terms.allow_guests, &room, papers, now_s);
    let (user, pass) = match known {
        Ok(known) => known,
        Err(Stranger::BadSecret) => {
            return turned(Ended::BadFrame, &Stranger::BadSecret.to_string());
        }
        Err(stranger) => return turned(Ended::Unauthorised, &stranger.to_string()),
    };
    let share = match pass.is_guest {
        true => match terms.guests.enter(from.address) {
            Some(share) => Some(share),
            None => return turned(Ended::TooMany, "too many guests at one address"),
        },
        false => None,
    };
    let hub = match shared.carry(&room, (from.address, pass)).await {
        Ok(hub) => hub,
        Err(NotCarried::NoRoom) => return turned(Ended::Gone, "the room is not open"),
        Err(NotCarried::Unavailable) => {
            return turned(Ended::Overloaded, "the room cannot be had now");
        }
    };
    let user = Arc::new(user);
    let replaced = hello.sid.as_deref().filter(|_| hub.core.lock().is_connected(&user.id));
    let now_unix_ms = shared.now_unix_ms();
    let entry = hub.core.lock().admit(now_unix_ms, &user, from, replaced.is_some());
    match entry {
        Entry::In(is_new) => {
            if is_new {
                hub.came(&user, from);
            }
            if let Some(sid) = replaced {
                hub.shards.replace(sid, &user.id);
            }
            Ok(Come { hub, user, pass, from, share })
        }
        Entry::TooMany => turned(Ended::TooMany, "too many connections"),
        Entry::Banned => turned(Ended::Removed, "banned from the room"),
    }
}

/// Somebody in a room who has no socket of its own: counted for as long as this lives.
pub(crate) struct Visitor {
    pub(crate) hub: Arc<Hub>,
    pub(crate) user: Arc<User>,
    pub(crate) pass: Pass,
    from: Provenance,
    _share: Option<AddressGuard>,
}

/// Lets somebody in who has no socket.
///
/// # Errors
/// Why not.
pub(crate) async fn visit(
    shared: &Arc<Shared>,
    room: &RoomId,
    hello: &Hello,
    bearer: Option<&str>,
    from: Provenance,
) -> Result<Visitor, Turned> {
    let hello = Hello { room: room.as_str().to_owned(), ..hello.clone() };
    let Come { hub, user, pass, from, share } = come_in(shared, &hello, bearer, from).await?;
    Ok(Visitor { hub, user, pass, from, _share: share })
}

impl Visitor {
    /// Says something; nothing is answered to likes.
    pub(crate) async fn say(&self, said: Client) -> Option<Server> {
        let refused = |cid, code, retry_ms| {
            self.hub.shared.metrics.refuse(code);
            Some(refusal(cid, code, retry_ms))
        };
        let (cid, want) = match self.hub.consider(&self.user, self.pass, said) {
            Considered::Pass(cid, want) => (cid, want),
            Considered::Refuse(cid, code, retry_ms) => return refused(cid, code, retry_ms),
            Considered::Answer(answer) => return Some(answer),
            // Each request brings its own.
            Considered::Renew(c, _) => return Some(Server::Ok(Done { c, ..Done::default() })),
            Considered::Done | Considered::Wrong => return None,
        };
        let (asker, answer) = oneshot::channel();
        let (asker, user, from) = (Asker::Once(asker), User::clone(&self.user), self.from);
        let up = Up::Ask { asker, user, from, cid: cid.clone(), want };
        let sent = self.hub.ups.try_send(up).is_ok();
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) if sent => Some(answer),
            _ => refused(cid, Code::Unavailable, Some(AGAIN_MS)),
        }
    }

    /// Whether one of these is this visitor.
    pub(crate) fn is_meant(&self, whom: &[Whom]) -> bool {
        whom.iter().any(|whom| whom.is(&self.user.id, self.from.address))
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.hub.core.lock().leave(self.hub.now_ms(), &self.user.id);
    }
}

async fn seat(
    come: Come,
    hello: &Hello,
    socket: Socket,
    (manner, incoming, ahead): (Manner, Messages, Vec<u8>),
) {
    let Come { hub, user, pass, from, share } = come;
    let sid = format!("{:016x}", rand::random::<u64>());
    let (welcome, cursor) = hub.welcome(&sid, (&user, pass), hello.pos.as_ref());
    let welcome = framed(&Server::Welcome(Box::new(welcome)), manner);
    let (io, lease) = (socket.stream, socket.lease);
    let parts =
        Parts { io, lease, share, user, pass, sid, from, manner, incoming, cursor, welcome };
    hub.shards.join(&hub, Box::new(Member::new(parts)), ahead).await;
}

/// The frame that says goodbye, when to come again, and where to.
pub(crate) fn bye(shared: &Shared, why: Ended, after_ms: u32) -> Server {
    let code = u32::from(why.code().unwrap_or(1000));
    Server::Bye(Bye { code, after_ms: Some(after_ms), edges: shared.homes.others() })
}

async fn turn_away(shared: &Shared, mut socket: Socket, manner: Manner, out: Out) {
    let mut last = Vec::new();
    match out {
        Out::Gone => return shared.metrics.ended(Ended::Left),
        Out::Closed(code) => {
            shared.metrics.ended(Ended::Left);
            last = frame::close_with(code, "");
        }
        Out::Status(status) => {
            shared.metrics.ended(Ended::Protocol);
            last = frame::close(status);
        }
        Out::Turned(Turned { why, reason }) => {
            shared.metrics.ended(why);
            if matches!(why, Ended::Overloaded | Ended::Draining) {
                let after_ms = AGAIN_MS / 2 + rand::random::<u32>() % AGAIN_MS;
                last.extend_from_slice(&framed(&bye(shared, why, after_ms), manner));
            }
            last.extend(frame::close_with(why.code().unwrap_or(1000), &reason));
        }
    }
    // The client's answer is waited for: closing before it is read would lose our frame (RFC 6455, 7.1.1).
    let _ = timeout(CLOSE_TIMEOUT, async {
        write(&mut socket.stream, &last).await?;
        let mut ignored = [0; 1024];
        while read(&mut socket.stream, &mut ignored).await? > 0 {}
        Ok::<_, std::io::Error>(())
    })
    .await;
}

async fn read(stream: &mut Transport, buffer: &mut [u8]) -> std::io::Result<usize> {
    async fn from(mut io: impl AsyncRead + Unpin, buffer: &mut [u8]) -> std::io::Result<usize> {
        io.read(buffer).await
    }
    match stream {
        Transport::Tcp(tcp) => from(tcp, buffer).await,
        Transport::Tls(tls) => from(tls, buffer).await,
    }
}

async fn write(stream: &mut Transport, bytes: &[u8]) -> std::io::Result<()> {
    async fn to(mut io: impl AsyncWrite + Unpin, bytes: &[u8]) -> std::io::Result<()> {
        io.write_all(bytes).await?;
        io.flush().await
    }
    match stream {
        Transport::Tcp(tcp) => to(tcp, bytes).await,
        Transport::Tls(tls) => to(tls, bytes).await,
    }
}

/// The wall clock, in milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
