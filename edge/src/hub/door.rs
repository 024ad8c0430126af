//! How members come in: the upgrade, the hello, the room.
//!
//! In: `GET /ws`. Out: a member on one of its room's shards, or a close code that says why not. Until its
//! hello a connection is a task of its own, for [`HELLO_TIMEOUT`] at most.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::timeout;
use wire::RoomId;
use wire::room::model::{Form, Hello};
use wire::room::{Client, Code, Role, Server, User};

use super::conductor::{Asker, Up, refusal};
use super::core::Entry;
use super::member::{Member, Parts, bounds};
use super::metrics::Ended;
use super::tick::{Manner, framed};
use super::{Considered, Hub, NotCarried, Shared, text};
use crate::http::connection::{Socket, Transport};
use crate::ws::frame::{self, Opcode, Status};
use crate::ws::message::{Message, Messages};
use crate::ws::{BadUpgrade, accept, deflate};

/// How long a client may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a visitor waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);
/// How long the last frame may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest secret of a guest, in bytes.
const MAX_SECRET: usize = 128;
/// The shortest secret of a guest, in bytes: guessed ones would be somebody else.
const MIN_SECRET: usize = 16;
/// When a node that cannot carry the room now is to be asked again, in milliseconds.
const AGAIN_MS: u32 = 2_000;

/// An upgrade that can be accepted.
pub(crate) struct Accepted {
    manner: Manner,
    head: Bytes,
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
    Ok(Accepted { manner: Manner { form, deflate: extension.is_some() }, head: head.into() })
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
    /// To be closed with a code of ours, for this reason.
    Code(Ended, String),
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
    let Accepted { manner, head } = accepted;
    let mut incoming = Messages::default();
    let mut ahead = std::mem::take(&mut socket.ahead).to_vec();
    let greeting = async {
        write(&mut socket.stream, &head).await.map_err(|_| Out::Gone)?;
        hello(&mut socket.stream, &mut incoming, &mut ahead, manner).await
    };
    let drain = shared.drain.clone();
    let hello = tokio::select! {
        greeting = timeout(HELLO_TIMEOUT, greeting) => greeting.unwrap_or_else(|_| {
            Err(Out::Code(Ended::BadFrame, "hello did not come in time".into()))
        }),
        () = drain.cancelled() => Err(Out::Status(Status::GoingAway)),
    };
    let out = match hello {
        Ok(hello) => match come_in(&shared, &hello, peer.ip()).await {
            Ok((hub, user)) => {
                // From here on the room's shards have it.
                return seat(&hub, user, hello, socket, (manner, incoming, ahead, peer.ip())).await;
            }
            Err(out) => out,
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
                return Err(Out::Code(Ended::TooLarge, "frame too large".into()));
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
                return Err(Out::Code(Ended::BadFrame, why.into()));
            }
        };
        return match Client::read(&payload, manner.form) {
            Ok(Some(Client::Hello(hello))) if hello.v == 1 => Ok(hello),
            Ok(Some(Client::Hello(_))) => {
                Err(Out::Code(Ended::BadFrame, "this server speaks version 1".into()))
            }
            Ok(_) => Err(Out::Code(Ended::BadFrame, "the first frame is a hello".into())),
            Err(error) => Err(Out::Code(Ended::BadFrame, error.0)),
        };
    }
}

/// Finds out who it is and opens the room.
async fn come_in(
    shared: &Arc<Shared>,
    hello: &Hello,
    address: IpAddr,
) -> Result<(Arc<Hub>, User), Out> {
    let room = RoomId::parse(&hello.room)
        .map_err(|error| Out::Code(Ended::BadFrame, format!("room: {error}")))?;
    let user = identify(shared, hello)?;
    let hub = shared.carry(&room, address).await.map_err(|why| match why {
        NotCarried::NoRoom => Out::Code(Ended::Gone, "the room is not open".into()),
        NotCarried::Unavailable => {
            Out::Code(Ended::Overloaded, "the room cannot be had now".into())
        }
    })?;
    let entry = hub.core.lock().admit(shared.now_unix_ms(), &user, address);
    match entry {
        Entry::In(is_new) => {
            if is_new {
                hub.tell_came(&user);
            }
            Ok((hub, user))
        }
        Entry::TooMany => Err(Out::Code(Ended::TooMany, "too many connections".into())),
        Entry::Banned => Err(Out::Code(Ended::Removed, "banned from the room".into())),
    }
}

/// Who says hello. A guest's name in the room is made of its secret, so that nobody else has it.
fn identify(shared: &Shared, hello: &Hello) -> Result<User, Out> {
    let unauthorised = |why: &str| Out::Code(Ended::Unauthorised, why.to_owned());
    if hello.token.is_some() {
        return Err(unauthorised("this token is not known here"));
    }
    if !shared.allow_guests {
        return Err(unauthorised("a token is needed: guests are not allowed"));
    }
    let secret = match &hello.guest {
        Some(secret) if (MIN_SECRET..=MAX_SECRET).contains(&secret.len()) => secret.clone(),
        Some(_) => {
            let why = format!("guest: a secret has {MIN_SECRET} to {MAX_SECRET} bytes");
            return Err(Out::Code(Ended::BadFrame, why));
        }
        None => format!("{:032x}", rand::random::<u128>()),
    };
    let mut digest = sha1_smol::Sha1::new();
    digest.update(b"tidewater guest\n");
    digest.update(secret.as_bytes());
    let hex = digest.digest().to_string();
    let id = format!("g{}", hex.get(..16).unwrap_or_default());
    let n = hello.n.as_deref().and_then(text::name);
    let n = n.unwrap_or_else(|| format!("guest-{}", hex.get(..4).unwrap_or_default()));
    Ok(User { id, n, r: Role::Guest.into(), lv: None })
}

/// Somebody in a room who has no socket of its own: counted for as long as this lives.
pub(crate) struct Visitor {
    pub(crate) hub: Arc<Hub>,
    pub(crate) user: User,
    address: IpAddr,
}

/// Lets somebody in who has no socket.
///
/// # Errors
/// Why the room is not carried, or what is wrong with the visitor.
pub(crate) async fn visit(
    shared: &Arc<Shared>,
    room: &RoomId,
    hello: &Hello,
    address: IpAddr,
) -> Result<Visitor, Result<NotCarried, String>> {
    let said = |out| match out {
        Out::Code(Ended::Gone, _) => Ok(NotCarried::NoRoom),
        Out::Code(Ended::Overloaded, _) => Ok(NotCarried::Unavailable),
        Out::Code(_, why) => Err(why),
        _ => Err(String::new()),
    };
    let hello = Hello { room: room.as_str().to_owned(), ..hello.clone() };
    let (hub, user) = come_in(shared, &hello, address).await.map_err(said)?;
    Ok(Visitor { hub, user, address })
}

impl Visitor {
    /// Says something; nothing is answered to likes.
    pub(crate) async fn say(&self, said: Client) -> Option<Server> {
        let refused = |cid, code, retry_ms| {
            self.hub.shared.metrics.refuse(code);
            Some(refusal(cid, code, retry_ms))
        };
        let (cid, what) = match self.hub.consider(&self.user, said) {
            Considered::Pass(cid, what) => (cid, what),
            Considered::Refuse(cid, code, retry_ms) => return refused(cid, code, retry_ms),
            Considered::Done | Considered::Wrong => return None,
        };
        let (asker, answer) = oneshot::channel();
        let (user, address) = (self.user.clone(), self.address);
        let up = Up::Say { asker: Asker::Once(asker), user, address, cid: cid.clone(), what };
        let sent = self.hub.ups.try_send(up).is_ok();
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) if sent => Some(answer),
            _ => refused(cid, Code::Unavailable, Some(AGAIN_MS)),
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.hub.core.lock().leave(self.hub.now_ms(), &self.user.id);
    }
}

async fn seat(
    hub: &Arc<Hub>,
    user: User,
    hello: Hello,
    socket: Socket,
    (manner, incoming, ahead, address): (Manner, Messages, Vec<u8>, IpAddr),
) {
    let sid = format!("{:016x}", rand::random::<u64>());
    let (welcome, cursor) = hub.welcome(&sid, &user, hello.pos.as_ref());
    let welcome = framed(&Server::Welcome(Box::new(welcome)), manner);
    let user = Arc::new(user);
    let (io, lease) = (socket.stream, socket.lease);
    let parts = Parts { io, lease, user, sid, address, manner, incoming, cursor, welcome };
    hub.shards.join(hub, Box::new(Member::new(parts)), ahead).await;
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
        Out::Code(why, reason) => {
            shared.metrics.ended(why);
            let code = why.code().unwrap_or(1000);
            if why == Ended::Overloaded {
                let after_ms = Some(AGAIN_MS / 2 + rand::random::<u32>() % AGAIN_MS);
                let edges = shared.homes.others();
                let bye = wire::room::model::Bye { code: u32::from(code), after_ms, edges };
                last.extend_from_slice(&framed(&Server::Bye(bye), manner));
            }
            last.extend(frame::close_with(code, &reason));
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
pub(super) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
