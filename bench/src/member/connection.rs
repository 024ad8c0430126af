//! One connection of a member: the upgrade, the hello, then frames one way and talk the other.
//!
//! In: a member and what it remembers. Out: counts, times, and why the connection ended. Reads go into one
//! buffer for all members of a thread: an idle connection owns none.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use wire::room::model::{Batch, Empty, Form as Wire, Give, Hello, Like, Position, Say, Welcome};
use wire::room::{Body, Client, Server};

use super::frames::{Frames, Kind, masked};
use super::glance::{Mark, Seen, glance, messages};
use super::{Left, Member, Memory};
use crate::http;
use crate::scenario::Form;
use crate::stamp::now_micros;
use crate::viewer::Trouble;

/// The head lines that ask for the upgrade. The key is the one of RFC 6455, 1.3: no secret.
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// What one read takes: a tick of a large room and more.
const READ_BYTES: usize = 64 << 10;
/// How long a welcome may take.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(15);
/// Messages that wait for their answer; the oldest is forgotten.
const MAX_ASKED: usize = 16;
/// How long a message of a window may take to arrive before the next is let off all the same.
const FLIGHT_TIMEOUT: Duration = Duration::from_secs(2);
/// Likes in a frame.
const LIKES: u32 = 10;
/// Opcodes (RFC 6455, 5.2).
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// A message that waits for its answer.
#[derive(Debug)]
struct Asked {
    cid: String,
    due: u64,
    number: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    frames: Frames,
    asked: VecDeque<Asked>,
    /// The message of a window that was sent last, and until when it may take.
    flying: Option<(u64, Instant)>,
    /// To be sent once what was read has been looked at.
    out: Vec<u8>,
    closed: Option<(u16, String)>,
    sent: u64,
}

impl Connection {
    /// Connects and upgrades.
    pub(super) async fn open(member: &Member) -> Result<Self, Trouble> {
        let client = http::Client::new(member.to, member.source, &member.host);
        let protocol = match member.stage.talk.form {
            Form::Json => "Sec-WebSocket-Protocol: tidewater.v1.json\r\n",
            Form::Pb => "Sec-WebSocket-Protocol: tidewater.v1.pb\r\n",
            Form::Plain => "",
        };
        let lines = format!("{UPGRADE}{protocol}");
        let (socket, ahead) =
            client.stream(&member.stage.talk.path, &lines, 101).await?.into_parts();
        let mut connection = Self {
            socket,
            frames: Frames::default(),
            asked: VecDeque::new(),
            flying: None,
            out: Vec::new(),
            closed: None,
            sent: 0,
        };
        // A server may speak first.
        connection.frames.push(&ahead, |_, _| Ok(()))?;
        Ok(connection)
    }

    /// Says hello and waits for the welcome; returns it and what came right behind it.
    pub(super) async fn hello(
        &mut self,
        member: &Member,
        from: Option<&Position>,
    ) -> Result<(Welcome, Vec<Vec<u8>>), Trouble> {
        let stage = &member.stage;
        let hello = Client::Hello(Hello {
            v: 1,
            room: stage.room.clone(),
            guest: Some(format!("bench {:016x} {:08}", stage.run, member.index)),
            n: Some(format!("m{}", member.index)),
            pos: from.cloned(),
            ..Hello::default()
        });
        self.say(member, &hello);
        self.flush().await?;
        let welcome = async {
            let (mut welcome, mut behind) = (None, Vec::new());
            loop {
                self.socket.readable().await.map_err(http::Error::Broken)?;
                self.take(member, |_, kind, payload| {
                    if kind != Kind::Data {
                        return Ok(());
                    }
                    if welcome.is_some() {
                        behind.push(payload.to_vec());
                        return Ok(());
                    }
                    let seen = glance(payload, stage.talk.form, true).map_err(Trouble::Media)?;
                    if let Seen::Said(Server::Welcome(came)) = seen {
                        welcome = Some(*came);
                    }
                    Ok(())
                })?;
                if let Some(welcome) = welcome {
                    return Ok((welcome, behind));
                }
                self.flush().await?;
            }
        };
        timeout(WELCOME_TIMEOUT, welcome)
            .await
            .unwrap_or_else(|_| Err(Trouble::Media("no welcome in time".into())))
    }

    /// Takes part until the connection ends.
    pub(super) async fn live(
        &mut self,
        member: &Member,
        memory: &mut Memory,
    ) -> Result<Left, Trouble> {
        let flies = member.stage.talk.chat_window > 0;
        let mut set_for = self.due(member, memory);
        let alarm = sleep_until(set_for.unwrap_or_else(Instant::now));
        tokio::pin!(alarm);
        loop {
            let due = self.due(member, memory);
            if due != set_for {
                set_for = due;
                if let Some(due) = due {
                    alarm.as_mut().reset(due);
                }
            }
            tokio::select! {
                biased;
                readable = self.socket.readable() => {
                    readable.map_err(http::Error::Broken)?;
                    let memory = &mut *memory;
                    self.take(member, |this, kind, payload| this.frame(member, memory, kind, payload))?;
                }
                () = member.stage.flight.turn(member.rank), if flies => {
                    self.chat_of_window(member);
                }
                () = &mut alarm, if set_for.is_some() => {
                    if let Some(left) = self.alarm(member, memory) {
                        self.give_up(member);
                        return Ok(left);
                    }
                }
            }
            self.flush().await?;
        }
    }

    /// Messages that were never answered.
    pub(super) fn unanswered(&self) -> usize {
        self.asked.len()
    }

    /// When something is to be done next.
    fn due(&self, member: &Member, memory: &Memory) -> Option<Instant> {
        let storm = member.stage.storm_at.filter(|_| !memory.stormed);
        let schedules = [&memory.chats, &memory.likes, &memory.gifts];
        let talk = schedules.into_iter().flatten().map(|schedule| schedule.due());
        let flying = self.flying.map(|(_, until)| until);
        talk.chain(storm).chain(memory.lose_at).chain(flying).min()
    }

    /// Does what is due.
    fn alarm(&mut self, member: &Member, memory: &mut Memory) -> Option<Left> {
        let now = Instant::now();
        if !memory.stormed && member.stage.storm_at.is_some_and(|at| at <= now) {
            return Some(Left::Storm);
        }
        if memory.lose_at.is_some_and(|at| at <= now) {
            return Some(Left::Lost);
        }
        if self.flying.is_some_and(|(_, until)| until <= now) {
            self.give_up(member);
        }
        if let Some(chats) = memory.chats.as_mut().filter(|chats| chats.due() <= now) {
            // The time it was due, not now: what waits here waits for everybody.
            let late = now - chats.due();
            let number = chats.take();
            self.chat(member, number, now_micros().saturating_sub(late.as_micros() as u64));
        }
        if let Some(likes) = memory.likes.as_mut().filter(|likes| likes.due() <= now) {
            likes.take();
            self.say(member, &Client::Like(Like { n: LIKES }));
            member.tally.count(&member.room().likes, u64::from(LIKES));
        }
        if let Some(gifts) = memory.gifts.as_mut().filter(|gifts| gifts.due() <= now) {
            let number = gifts.take();
            let c = format!("{:x}g{number}", member.stage.run);
            self.ask(c.clone(), now_micros(), None);
            self.say(member, &Client::Gift(Give { c, g: "rose".into(), n: 1, auth: None }));
            member.tally.count(&member.room().gifts, 1);
        }
        None
    }

    /// This member's turn has come.
    fn chat_of_window(&mut self, member: &Member) {
        self.give_up(member);
        self.sent += 1;
        let number = self.sent << 32 | u64::from(member.rank);
        member.stage.flight.sent(number);
        self.flying = Some((number, Instant::now() + FLIGHT_TIMEOUT));
        self.chat(member, number, now_micros());
    }

    /// What was sent last will not arrive.
    fn give_up(&mut self, member: &Member) {
        if let Some((number, _)) = self.flying.take() {
            member.stage.flight.give_up(number);
        }
    }

    fn chat(&mut self, member: &Member, number: u64, due: u64) {
        let talk = &member.stage.talk;
        let text = Mark { micros: due, number }.text(talk.chat_bytes);
        member.tally.count(&member.room().sent, 1);
        if talk.form == Form::Plain {
            return masked(TEXT, text.as_bytes(), &mut self.out);
        }
        let c = format!("{:x}c{number}", member.stage.run);
        self.ask(c.clone(), due, Some(number));
        self.say(member, &Client::Chat(Say { c, x: text, pts: None }));
    }

    fn ask(&mut self, cid: String, due: u64, number: Option<u64>) {
        if self.asked.len() >= MAX_ASKED {
            self.asked.pop_front();
        }
        self.asked.push_back(Asked { cid, due, number });
    }

    fn say(&mut self, member: &Member, said: &Client) {
        let (opcode, wire) = match member.stage.talk.form {
            Form::Pb => (BINARY, Wire::Protobuf),
            Form::Json | Form::Plain => (TEXT, Wire::Json),
        };
        masked(opcode, &said.write(wire), &mut self.out);
    }

    async fn flush(&mut self) -> Result<(), Trouble> {
        if !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            self.socket.write_all(&out).await.map_err(http::Error::Broken)?;
        }
        Ok(())
    }

    /// Takes what the socket has.
    fn take(
        &mut self,
        member: &Member,
        mut act: impl FnMut(&mut Self, Kind, &[u8]) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut taken = None;
            let read = self.socket.try_io(Interest::READABLE, || {
                let count = (&*SockRef::from(&self.socket)).read(scratch)?;
                taken = Some(count);
                if count > 0 && count < scratch.len() {
                    // The socket is empty: saying so spares the system call that would find out.
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            let count = match (taken, read) {
                (Some(count), _) => count,
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                (None, Err(error)) => return Err(http::Error::Broken(error).into()),
                (None, Ok(())) => return Ok(()),
            };
            member.tally.received(member.index, count);
            let mut frames = std::mem::take(&mut self.frames);
            let pushed = frames.push(scratch.get(..count).unwrap_or_default(), |kind, payload| {
                self.control(kind, payload)?;
                act(self, kind, payload)
            });
            self.frames = frames;
            pushed?;
            match self.closed.take() {
                Some((code, reason)) => {
                    member.room().closes.count(&code.to_string());
                    let reason =
                        if reason.is_empty() { String::new() } else { format!(": {reason}") };
                    Err(Trouble::Media(format!("closed with {code}{reason}")))
                }
                None if count == 0 => Err(Trouble::Ended),
                None => Ok(()),
            }
        })
    }

    /// What every WebSocket client does.
    fn control(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Trouble> {
        match kind {
            Kind::Ping => masked(PONG, payload, &mut self.out),
            Kind::Close => {
                masked(CLOSE, payload.get(..2).unwrap_or_default(), &mut self.out);
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                let reason = payload.get(2..).unwrap_or_default();
                self.closed = Some((code, String::from_utf8_lossy(reason).into_owned()));
            }
            Kind::Data | Kind::Pong => {}
        }
        Ok(())
    }

    /// A frame came.
    pub(super) fn frame(
        &mut self,
        member: &Member,
        memory: &mut Memory,
        kind: Kind,
        payload: &[u8],
    ) -> Result<(), Trouble> {
        if kind != Kind::Data {
            return Ok(());
        }
        let (tally, room) = (&member.tally, member.room());
        tally.count(&room.frames, 1);
        let seen = glance(payload, member.stage.talk.form, member.timed).map_err(Trouble::Media)?;
        match seen {
            Seen::Batch { offset, messages } => {
                tally.count(&room.deliveries, messages);
                if let Some(position) = &mut memory.position {
                    position.o = offset;
                }
            }
            Seen::Said(Server::B(batch)) => look_at(member, memory, &batch),
            Seen::Said(said) => self.said(member, said),
            Seen::Plain => {
                tally.count(&room.deliveries, 1);
                if member.timed {
                    let mark = std::str::from_utf8(payload).ok().and_then(Mark::read);
                    mark.into_iter().for_each(|mark| arrived(member, mark));
                }
            }
            Seen::Other => {}
        }
        Ok(())
    }

    /// Anything but a batch.
    fn said(&mut self, member: &Member, said: Server) {
        let (tally, room) = (&member.tally, member.room());
        let answered = match said {
            Server::Ping(_) => return self.say(member, &Client::Pong(Empty {})),
            Server::Ok(accepted) => {
                tally.count(if accepted.o.is_some() { &room.accepted } else { &room.local }, 1);
                (accepted.c, true)
            }
            Server::Held(held) => {
                tally.count(&room.held, 1);
                (held.c, false)
            }
            Server::Err(refused) => {
                room.refused.count(&refused.code);
                (refused.c.unwrap_or_default(), false)
            }
            Server::Welcome(_) | Server::B(_) | Server::Bye(_) | Server::Who(_) => return,
        };
        let (cid, placed) = answered;
        let Some(at) = self.asked.iter().position(|asked| asked.cid == cid) else { return };
        let Some(asked) = self.asked.remove(at) else { return };
        if placed && tally.window.is_open() {
            room.ack.record(now_micros().saturating_sub(asked.due));
        }
        if !placed && self.flying.is_some_and(|(number, _)| asked.number == Some(number)) {
            self.give_up(member);
        }
    }
}

/// A batch that was read in full.
fn look_at(member: &Member, memory: &mut Memory, batch: &Batch) {
    member.tally.count(&member.room().deliveries, messages(batch));
    if let Some(position) = &mut memory.position {
        position.o = batch.o;
        batch.e.iter().for_each(|epoch| position.e.clone_from(epoch));
    }
    if !member.timed {
        return;
    }
    member.found(memory.follower.batch(batch));
    for item in &batch.m {
        if let Some(Body::Chat(chat)) = &item.body {
            Mark::read(&chat.x).into_iter().for_each(|mark| arrived(member, mark));
        }
    }
}

/// A message came to a member that is timed.
fn arrived(member: &Member, mark: Mark) {
    if member.stage.talk.chat_window > 0 {
        member.stage.flight.arrived(mark.number);
    }
    if member.tally.window.is_open() {
        member.tally.latency.record(now_micros().saturating_sub(mark.micros));
    }
}
