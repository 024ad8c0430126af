//! HLS and LL-HLS: playlists that block, parts that are waited for, segments made of shared parts.
//!
//! In: a request for a room's resource. Out: its answer, by RFC 8216bis (draft-pantos-hls-rfc8216bis-22)
//! section 6.2. What is said about a stream comes from its manifest alone; this file decides only when
//! to answer. A room's first request may be the one that opens it, and a viewer may have the request's
//! URL from another edge that is ahead of this one: both are held, not refused.

mod absent;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::HeaderValue;
use http::header::{CONTENT_ENCODING, USER_AGENT, VARY};
use media::feed::{Lookup, Part};
use media::fmp4;
use media::manifest::{Epoch, Manifest, Msn, PartNumber, Status};
use media::playlist::reload::{self, BadQuery, Decision, ReloadQuery};
use tokio::time::Instant;
use wire::RoomId;

use absent::Absent;

use super::body::Body;
use super::reply::{self, IMMUTABLE, Reply};
use super::{App, Caller, accept, range};
use crate::metrics::{Protocol, Refusal, Resource};
use crate::room::shelf::Name;
use crate::room::{Coding, Missed, OpenError, Room, Viewing, target_s};

/// How long the first requests of a known room wait for its first playlist.
pub(crate) const FIRST_HOLD: Duration = Duration::from_secs(10);

/// How long the bytes of something listed may take by themselves before they are fetched again: they
/// normally arrive together with their entry.
const FETCH_AFTER: Duration = Duration::from_millis(250);

/// How many times a request opens a room anew that was retired under it.
const MAX_REOPENINGS: usize = 3;

const PLAYLIST: HeaderValue = HeaderValue::from_static(media::playlist::CONTENT_TYPE);

/// What of a room is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asset {
    /// `{name}.m3u8`
    Multivariant,
    /// `main.m3u8`
    Playlist,
    /// An init segment, by its file name.
    Init(String),
    /// `s{msn}-{epoch}.m4s`
    Segment(Msn, Epoch),
    /// `p{epoch}-{part}.m4s`
    Part(Epoch, PartNumber),
}

impl Asset {
    fn resource(&self) -> Resource {
        match self {
            Self::Multivariant => Resource::Multivariant,
            Self::Playlist => Resource::Playlist,
            Self::Init(_) => Resource::Init,
            Self::Segment(..) => Resource::Segment,
            Self::Part(..) => Resource::Part,
        }
    }
}

/// Answers a request for `asset` of `room`.
pub(crate) async fn answer(app: &App, caller: &Caller<'_>, room: &RoomId, asset: &Asset) -> Reply {
    let began = Instant::now();
    let first_hold = began + FIRST_HOLD;
    for _ in 0..MAX_REOPENINGS {
        let viewing = match open(app, room).await {
            Ok(viewing) => viewing,
            Err(reply) => return reply,
        };
        let request = Request { app, caller, room: &viewing, first_hold };
        let answered = match asset {
            Asset::Multivariant => request.multivariant().await,
            Asset::Playlist => request.playlist().await,
            Asset::Init(name) => request.init(name).await,
            Asset::Segment(msn, epoch) => request.segment(*epoch, *msn).await,
            Asset::Part(epoch, number) => request.part(*epoch, *number).await,
        };
        if let Ok(reply) = answered {
            app.metrics.response(asset.resource()).observe(began.elapsed().as_secs_f64());
            return reply;
        }
    }
    app.refuse(Refusal::Unavailable);
    reply::unavailable(Duration::from_secs(1), "the room is moving; ask again")
}

/// Opens `room` for a request.
pub(crate) async fn open(app: &App, room: &RoomId) -> Result<Viewing, Reply> {
    app.rooms.view(room).await.map_err(|error| match error {
        OpenError::Unavailable { retry_after } => {
            app.refuse(Refusal::Unavailable);
            reply::unavailable(retry_after, &format!("{room} cannot be had now; ask again"))
        }
        OpenError::Unknown => {
            app.refuse(Refusal::UnknownRoom);
            reply::not_found(&format!("there is no room {room}, or nobody publishes to it"))
        }
    })
}

/// One request of an open room. A method's error means the room was retired under it.
struct Request<'a> {
    app: &'a App,
    caller: &'a Caller<'a>,
    room: &'a Room,
    /// Until when it waits for the room's first playlist.
    first_hold: Instant,
}

impl Request<'_> {
    async fn multivariant(&self) -> Result<Reply, Missed> {
        if let Some(refusal) = self.playable().await? {
            return Ok(refusal);
        }
        let rendering = self.room.playlists().of(self.room.feed());
        Ok(match self.room.playlists().multivariant(&rendering, self.caller.query) {
            Ok(text) => {
                let sent = self.app.metrics.sent_bytes(Protocol::Hls);
                let cache = rendering.ages().changing.clone();
                reply::ok(PLAYLIST, cache, Body::full(text).counted(sent))
            }
            Err(error) => self.broken("multivariant playlist", &error),
        })
    }

    async fn playlist(&self) -> Result<Reply, Missed> {
        let query = match ReloadQuery::parse(self.caller.query.unwrap_or_default()) {
            Ok(query) => query,
            Err(bad) => return Ok(self.bad_query(&bad)),
        };
        if let (None, Some(_)) = (query.msn, query.part) {
            return Ok(self.bad_query(&BadQuery::PartWithoutMsn));
        }
        if let Some(refusal) = self.playable().await? {
            return Ok(refusal);
        }
        let low_latency = query.msn.is_some();
        let protocol = if low_latency { Protocol::LlHls } else { Protocol::Hls };
        self.room.saw(protocol, self.viewer());
        let held = match self.block(query).await? {
            Ok(held) => held,
            Err(refusal) => return Ok(refusal),
        };
        let coding = self.coding();
        let rendering = self.room.playlists().of(self.room.feed());
        let rendered = rendering.media(query.form(), coding, &self.app.metrics.renderings);
        let text = match rendered {
            Ok(text) => text,
            Err(error) => return Ok(self.broken("media playlist", &error)),
        };
        if held {
            let waited = rendering.since().elapsed();
            self.app.metrics.wake_seconds.observe(waited.as_secs_f64());
        }
        let ages = rendering.ages();
        let age = if low_latency { &ages.numbered } else { &ages.changing };
        let body = Body::full(text).counted(self.app.metrics.sent_bytes(protocol));
        let mut reply = reply::ok(PLAYLIST, age.clone(), body);
        let headers = reply.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        if coding == Coding::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(reply)
    }

    /// Waits as the delivery directives ask. `Ok(true)` when it had to.
    async fn block(&self, query: ReloadQuery) -> Result<Result<bool, Reply>, Missed> {
        let manifest = self.room.feed().manifest();
        // An edge that has just opened the room may be behind the one the viewer comes from.
        let just_opened = self.room.is_younger_than(FIRST_HOLD);
        let decide = |manifest: &Manifest| match reload::block(manifest, query) {
            Decision::Now => Some(Ok(())),
            Decision::BadRequest(_) if just_opened => None,
            Decision::BadRequest(bad) => Some(Err(bad)),
            Decision::Wait { .. } => None,
        };
        let (decided, held) = match decide(&manifest) {
            Some(decided) => (decided, false),
            None => {
                let longest = Duration::from_secs(3 * target_s(&manifest));
                let deadline = Instant::now() + longest;
                match self.room.wait_for(deadline, |m| decide(m)).await {
                    Ok(decided) => (decided, true),
                    Err(Missed::Retired) => return Err(Missed::Retired),
                    Err(Missed::TimedOut) => {
                        self.app.refuse(Refusal::Unavailable);
                        let detail = format!(
                            "nothing new came in {} s, three target durations",
                            longest.as_secs()
                        );
                        return Ok(Err(reply::unavailable(Duration::from_secs(1), &detail)));
                    }
                }
            }
        };
        Ok(decided.map(|()| held).map_err(|bad| self.bad_query(&bad)))
    }

    async fn init(&self, name: &str) -> Result<Reply, Missed> {
        let feed = self.room.feed();
        let look = |_: &Arc<Manifest>| self.room.playlists().init(&feed.said(), name);
        let found = match look(&feed.manifest()) {
            Some(init) => Some(init),
            None => match self.room.wait_for(self.ahead_until(), look).await {
                Ok(init) => Some(init),
                Err(Missed::Retired) => return Err(Missed::Retired),
                Err(Missed::TimedOut) => None,
            },
        };
        Ok(match found {
            Some(init) => self.media(init.content_type, Protocol::Hls, None, vec![init.bytes]),
            None => reply::not_found("no segment of the playlist needs this init segment"),
        })
    }

    async fn part(&self, epoch: Epoch, number: PartNumber) -> Result<Reply, Missed> {
        let feed = self.room.feed();
        let find = || match feed.part(epoch, number) {
            Lookup::Ready(part) => Some(part),
            Lookup::Coming | Lookup::Unknown => None,
        };
        let absent = |m: &Manifest| match feed.part(epoch, number) {
            Lookup::Coming => absent::coming(&feed.said(), |s| {
                s.open.epoch == epoch && (s.open.first_part..s.next_part()).contains(&number)
            }),
            _ => absent::part(m, epoch, number),
        };
        match self.await_media(epoch, find, absent).await? {
            Ok(part) => Ok(self.parts(Protocol::LlHls, Name::Part(epoch, number), &[part])),
            Err(refusal) => Ok(refusal),
        }
    }

    async fn segment(&self, epoch: Epoch, msn: Msn) -> Result<Reply, Missed> {
        let feed = self.room.feed();
        let find = || match feed.segment(epoch, msn) {
            Lookup::Ready(parts) => Some(parts),
            Lookup::Coming | Lookup::Unknown => None,
        };
        let absent = |m: &Manifest| match feed.segment(epoch, msn) {
            Lookup::Coming => Absent::Coming(msn),
            _ => absent::segment(m, epoch, msn),
        };
        match self.await_media(epoch, find, absent).await? {
            Ok(parts) => Ok(self.parts(Protocol::Hls, Name::Segment(epoch, msn), &parts)),
            Err(refusal) => Ok(refusal),
        }
    }

    /// Waits for media that may not be here yet, by the rules for each way of being absent.
    async fn await_media<T>(
        &self,
        epoch: Epoch,
        find: impl Fn() -> Option<T>,
        absent: impl Fn(&Manifest) -> Absent,
    ) -> Result<Result<T, Reply>, Missed> {
        if let Some(found) = find() {
            return Ok(Ok(found));
        }
        if !self.told().await? {
            return Ok(Err(self.starting()));
        }
        // The manifest is always older than the look at the bytes: what is published in between is
        // ahead of it, never gone. Something waited for that is gone ends the wait too.
        let look = |m: &Arc<Manifest>| match find() {
            Some(found) => Some(Some(found)),
            None => matches!(absent(m), Absent::Gone).then_some(None),
        };
        let now = Instant::now();
        let manifest = self.room.feed().manifest();
        if let Some(found) = find() {
            return Ok(Ok(found));
        }
        let long = now + Duration::from_secs(3 * target_s(&manifest));
        let waited = match absent(&manifest) {
            Absent::Gone => Ok(None),
            Absent::Ahead => self.room.wait_for(self.ahead_until(), look).await,
            Absent::Next => self.room.wait_for(long, look).await,
            Absent::Coming(msn) => match self.room.wait_for(now + FETCH_AFTER, look).await {
                Err(Missed::TimedOut) => {
                    let fetched = self.room.fetch(epoch, msn);
                    match self.room.hold(long, fetched).await {
                        Ok(true) => self.room.wait_for(Instant::now() + FETCH_AFTER, look).await,
                        Ok(false) => self.room.wait_for(long, look).await,
                        Err(missed) => Err(missed),
                    }
                }
                waited => waited,
            },
        };
        match waited {
            Ok(Some(found)) => Ok(Ok(found)),
            Ok(None) => Ok(Err(self.gone())),
            Err(Missed::Retired) => Err(Missed::Retired),
            Err(Missed::TimedOut) => {
                let manifest = self.room.feed().manifest();
                Ok(find().ok_or_else(|| match absent(&manifest) {
                    Absent::Coming(_) | Absent::Next => {
                        self.app.refuse(Refusal::Unavailable);
                        reply::unavailable(Duration::from_secs(1), "its bytes have not come yet")
                    }
                    Absent::Ahead | Absent::Gone => self.gone(),
                }))
            }
        }
    }

    /// Waits until the room has a media playlist; the reply if it has none in time, or never will.
    async fn playable(&self) -> Result<Option<Reply>, Missed> {
        let playable = |m: &Arc<Manifest>| {
            (m.is_playable() || m.status() == Status::Ended).then(|| m.is_playable())
        };
        match self.room.wait_for(self.first_hold, playable).await {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(reply::not_found("the stream ended before it had a segment"))),
            Err(Missed::TimedOut) => Ok(Some(self.starting())),
            Err(Missed::Retired) => Err(Missed::Retired),
        }
    }

    /// Waits until the home has said what there is. Its bytes may be on the way.
    async fn told(&self) -> Result<bool, Missed> {
        let mut activity = self.room.feed().activity();
        let said = || {
            let said = self.room.feed().said();
            !said.segments().is_empty() || said.status() == Status::Ended
        };
        let told = async { while !said() && activity.changed().await.is_ok() {} };
        match self.room.hold(self.first_hold, told).await {
            Ok(()) => Ok(true),
            Err(Missed::TimedOut) => Ok(false),
            Err(Missed::Retired) => Err(Missed::Retired),
        }
    }

    /// Until when something is held that only an edge ahead of this one can have listed.
    fn ahead_until(&self) -> Instant {
        let constants = self.room.feed().manifest().header().constants;
        let part_target_ms = constants.map_or(500, |c| u64::from(c.part_target_ms));
        Instant::now() + 2 * Duration::from_millis(part_target_ms)
    }

    fn parts(&self, protocol: Protocol, name: Name, parts: &[Arc<Part>]) -> Reply {
        let content_type = parts.first().map_or("video/mp4", |p| fmp4::content_type(&p.config));
        match parts.iter().map(|p| p.fmp4()).collect::<Result<Vec<_>, _>>() {
            Ok(buffers) => self.media(content_type, protocol, Some(name), buffers),
            Err(error) => self.broken("part", &error),
        }
    }

    fn media(
        &self,
        content_type: &'static str,
        protocol: Protocol,
        name: Option<Name>,
        buffers: Vec<bytes::Bytes>,
    ) -> Reply {
        let name = name.filter(|_| self.caller.direct);
        let shelved = name.and_then(|name| self.room.shelf().ask(name, &buffers));
        let body = Body::list(buffers).counted(self.app.metrics.sent_bytes(protocol));
        let body = body.shelved(shelved);
        let reply = reply::ok(HeaderValue::from_static(content_type), IMMUTABLE, body);
        range::apply(self.caller.headers, reply)
    }

    fn coding(&self) -> Coding {
        if accept::gzip(self.caller.headers) { Coding::Gzip } else { Coding::Identity }
    }

    /// What tells this viewer from others, hashed: the token, else address and user agent.
    fn viewer(&self) -> u64 {
        use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
        // With a key of this process: nobody can choose viewers that fall together.
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let mut hasher = KEY.build_hasher();
        match super::query::Query::new(self.caller.query).get("token") {
            Some(token) => token.hash(&mut hasher),
            None => {
                self.caller.peer.ip().hash(&mut hasher);
                self.caller.headers.get(USER_AGENT).map(HeaderValue::as_bytes).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    fn bad_query(&self, bad: &BadQuery) -> Reply {
        self.app.refuse(Refusal::BadRequest);
        reply::bad_request(&bad.to_string())
    }

    fn starting(&self) -> Reply {
        self.app.refuse(Refusal::Unavailable);
        reply::unavailable(Duration::from_secs(1), "the stream is starting; ask again")
    }

    fn gone(&self) -> Reply {
        reply::not_found("not in the playlist, or no longer")
    }

    /// The home's segmenter never produces what cannot be rendered, so this is our bug.
    fn broken(&self, what: &'static str, error: &media::Error) -> Reply {
        tracing::error!(room = %self.room.id(), what, %error, "cannot be rendered");
        reply::problem(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            reply::NO_STORE,
            "the stream cannot be written in this form",
        )
    }
}
