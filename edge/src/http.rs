//! The viewer side of HTTP: every route in one table, and what holds for all of them.
//!
//! In: requests from [`connection`]s that [`listener`] accepted. Out: replies, always with CORS,
//! errors always as problem documents. A path is parsed into a [`Route`] here and nowhere else; a new
//! route is a variant, a line in [`Route::parse`] and one in [`answer`].
//!
//! GET, HEAD and OPTIONS only, but for what is said in a room: viewers read, and bodies of other requests
//! are not read at all.

mod accept;
pub(crate) mod body;
pub(crate) mod connection;
mod direct;
pub(crate) mod ending;
mod flv;
mod guard;
mod hls;
pub(crate) mod listener;
mod pages;
mod progress;
mod query;
mod range;
mod reply;
pub(crate) mod route;
mod sse;
mod stream;
mod talk;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use cluster::access::Pass;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use media::manifest::{Epoch, Msn, PartNumber};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::RoomId;

use crate::config::Timeouts;
use crate::flv::Stage;
use crate::hub;
use crate::metrics::{Metrics, Refusal};
use crate::room::registry::Rooms;
use connection::Conn;
use hls::Asset;
use query::canonical;
use reply::Reply;

/// What every request handler may use.
pub(crate) struct App {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stage: Arc<Stage>,
    /// The rooms' members, where there are homes to carry them to.
    pub(crate) hub: Option<Arc<hub::Shared>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) allow_guests: bool,
    /// Whose tokens let viewers in.
    pub(crate) access: Arc<cluster::access::Access>,
    /// Cancelled when the node shuts down.
    pub(crate) drain: CancellationToken,
    /// Whether viewers should go elsewhere.
    pub(crate) draining: watch::Sender<bool>,
    /// This node's name, where it has one.
    pub(crate) node: Option<String>,
    /// Whether viewers who begin at the wrong edge are redirected.
    pub(crate) redirect: bool,
    pub(crate) is_tls: bool,
    pub(crate) routes: route::Limiter,
}

impl App {
    pub(crate) fn refuse(&self, reason: Refusal) {
        self.metrics.refuse(reason);
    }
}

/// Who asks, and how.
pub(crate) struct Caller<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: Option<&'a str>,
    pub(crate) conn: &'a Arc<Conn>,
    /// Whether the request has a body, which is then on its way.
    pub(crate) has_body: bool,
    /// Whether the answer goes out without hyper, which can send from a shelf.
    pub(crate) direct: bool,
}

/// A request, whoever has read it.
struct Ask<'a> {
    method: &'a Method,
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
    has_body: bool,
    body: Option<Incoming>,
    direct: bool,
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Route<'a> {
    /// `/`
    RoomList,
    /// `/watch/{app}/{name}`
    Watch,
    /// `/assets/{path}`
    File(&'a str),
    /// `/healthz`
    Healthz,
    /// `/readyz`
    Readyz,
    /// HLS of a room.
    Hls(RoomId, Asset),
    /// `/{app}/{name}.flv`
    Flv(RoomId),
    /// `/ws`
    Talk,
    /// `/sse/{app}/{name}`
    Events(RoomId),
    /// `/route/{app}/{name}`
    Where(RoomId),
    /// Nothing, and why not.
    None(String),
}

impl<'a> Route<'a> {
    fn parse(path: &'a str) -> Self {
        let mut parts = path.strip_prefix('/').unwrap_or(path).splitn(5, '/');
        let fields = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
        match fields {
            [Some(""), None, ..] => Self::RoomList,
            [Some("healthz"), None, ..] => Self::Healthz,
            [Some("readyz"), None, ..] => Self::Readyz,
            [Some("ws"), None, ..] => Self::Talk,
            [Some("assets"), ..] => Self::File(path.strip_prefix("/assets/").unwrap_or_default()),
            [Some("watch"), Some(app), Some(name), None | Some(""), None] => {
                room(app, name, |_| Self::Watch)
            }
            [Some("sse"), Some(app), Some(name), None, None] => room(app, name, Self::Events),
            [Some("route"), Some(app), Some(name), None | Some(""), None] => {
                room(app, name, Self::Where)
            }
            [Some(app), Some(file), None, ..] => {
                if let Some(name) = file.strip_suffix(".m3u8") {
                    room(app, name, |room| Self::Hls(room, Asset::Multivariant))
                } else if let Some(name) = file.strip_suffix(".flv") {
                    room(app, name, Self::Flv)
                } else {
                    Self::nothing()
                }
            }
            [Some(app), Some(name), Some("main.m3u8"), None, _] => {
                room(app, name, |room| Self::Hls(room, Asset::Playlist))
            }
            [Some(app), Some(name), Some("main"), Some(file), None] => match media_file(file) {
                Some(asset) => room(app, name, |room| Self::Hls(room, asset)),
                None => Self::nothing(),
            },
            _ => Self::nothing(),
        }
    }

    fn nothing() -> Self {
        Self::None("there is nothing of this name".into())
    }
}

fn room<'a>(app: &str, name: &str, route: impl FnOnce(RoomId) -> Route<'a>) -> Route<'a> {
    match RoomId::new(app, name) {
        Ok(room) => route(room),
        Err(error) => Route::None(error.to_string()),
    }
}

/// Reads the name of a file under `main/`. A number has one spelling.
fn media_file(file: &str) -> Option<Asset> {
    if file.starts_with("init-") && file.ends_with(".mp4") {
        return Some(Asset::Init(file.to_owned()));
    }
    let stem = file.strip_suffix(".m4s")?;
    let kind = stem.chars().next()?;
    let (first, second) = stem.strip_prefix(kind)?.split_once('-')?;
    let (first, second) = (canonical(first)?, canonical(second)?);
    match kind {
        's' => Some(Asset::Segment(Msn(first), Epoch(second))),
        'p' => Some(Asset::Part(Epoch(first), PartNumber(second))),
        _ => None,
    }
}

/// Answers a request that hyper has read.
pub(crate) async fn answer(app: &App, conn: &Arc<Conn>, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let ask = Ask {
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
        has_body: !body.is_end_stream(),
        body: Some(body),
        direct: false,
    };
    respond(app, conn, ask).await
}

/// Answers a request, whoever has read it.
async fn respond(app: &App, conn: &Arc<Conn>, ask: Ask<'_>) -> Reply {
    let method = ask.method;
    if method == Method::OPTIONS {
        return reply::options();
    }
    let route = Route::parse(ask.path);
    let talks = matches!(route, Route::Events(_)) && method == Method::POST;
    if method != Method::GET && method != Method::HEAD && !talks {
        app.refuse(Refusal::Method);
        return finish(method, reply::method_not_allowed(method));
    }
    let caller = Caller {
        peer: conn.peer(),
        method,
        headers: ask.headers,
        query: ask.query,
        conn,
        has_body: ask.has_body,
        direct: ask.direct,
    };
    let path = ask.path;
    let reply = match route {
        Route::Hls(ref room, _) | Route::Flv(ref room) if !app.allow_guests => {
            let is_tls = conn.is_tls();
            match guard::admit(&app.access, room, caller.query, caller.headers, is_tls) {
                Ok(admitted) => {
                    let lasts = matches!(route, Route::Flv(_));
                    let pass = lasts.then(|| admitted.pass(&app.access, room));
                    admitted.mark(media(app, &caller, path, (&route, pass)).await)
                }
                Err(denied) => {
                    app.refuse(Refusal::Unauthorized);
                    reply::unauthorized(&denied.to_string())
                }
            }
        }
        Route::Hls(..) | Route::Flv(_) => media(app, &caller, path, (&route, None)).await,
        Route::Where(room) => route::answer(app, &caller, &room),
        Route::Events(room) if talks => match ask.body {
            Some(body) => sse::say(app, &caller, &room, body).await,
            None => reply::bad_request("say something in the body"),
        },
        Route::Events(room) if method == Method::HEAD => reply::not_found(room.as_str()),
        Route::Events(room) => sse::listen(app, &caller, &room).await,
        Route::Talk => talk::answer(app, &caller).await,
        Route::RoomList => pages::room_list(app, caller.headers),
        Route::Watch => pages::watch(),
        Route::File(path) => pages::file(path, caller.headers),
        Route::Healthz => pages::healthz(),
        Route::Readyz => pages::readyz(app),
        Route::None(why) => reply::not_found(&why),
    };
    if reply.status().is_client_error() || reply.status().is_server_error() {
        // Without the query, which may hold a token.
        let status = reply.status().as_u16();
        tracing::debug!(peer = %conn.peer(), path, status, "request refused");
    }
    let mut reply = finish(method, reply);
    let stays = reply.status() == StatusCode::SWITCHING_PROTOCOLS;
    if !stays && *app.draining.borrow() {
        // Whoever comes back comes through what sends viewers to edges.
        if conn.is_http1() {
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        } else {
            conn.dismiss();
        }
    }
    reply
}

/// Where a viewer who begins here should go instead, if anywhere: with the multivariant playlist, or
/// FLV, which has no asset.
fn sent_on(
    app: &App,
    caller: &Caller<'_>,
    path: &str,
    room: &RoomId,
    asset: Option<&Asset>,
) -> Option<Reply> {
    let begins = asset.is_none_or(|asset| *asset == Asset::Multivariant);
    begins.then(|| route::redirect(app, caller, path, room)).flatten()
}

/// Answers a request for a room's stream by someone who may watch it.
async fn media(
    app: &App,
    caller: &Caller<'_>,
    path: &str,
    (route, pass): (&Route<'_>, Option<Pass>),
) -> Reply {
    match route {
        Route::Hls(room, asset) => match sent_on(app, caller, path, room, Some(asset)) {
            Some(reply) => reply,
            None => hls::answer(app, caller, room, asset).await,
        },
        Route::Flv(room) => match sent_on(app, caller, path, room, None) {
            Some(reply) => reply,
            None => flv::answer(app, caller, room, pass).await,
        },
        _ => reply::not_found("there is nothing of this name"),
    }
}

fn finish(method: &Method, reply: Reply) -> Reply {
    if method == Method::HEAD { reply::without_body(reply) } else { reply }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demo() -> RoomId {
        RoomId::parse("live/demo").unwrap()
    }

    #[test]
    fn every_url_of_a_room_is_routed() {
        let hls = |asset| Route::Hls(demo(), asset);
        for (path, route) in [
            ("/", Route::RoomList),
            ("/healthz", Route::Healthz),
            ("/readyz", Route::Readyz),
            ("/ws", Route::Talk),
            ("/sse/live/demo", Route::Events(demo())),
            ("/assets/a/b.js", Route::File("a/b.js")),
            ("/route/live/demo", Route::Where(demo())),
            ("/watch/live/demo", Route::Watch),
            ("/watch/live/demo/", Route::Watch),
            ("/live/demo.m3u8", hls(Asset::Multivariant)),
            ("/live/demo/main.m3u8", hls(Asset::Playlist)),
            ("/live/demo/main/init-0a.mp4", hls(Asset::Init("init-0a.mp4".into()))),
            ("/live/demo/main/s7-3.m4s", hls(Asset::Segment(Msn(7), Epoch(3)))),
            ("/live/demo/main/p3-70.m4s", hls(Asset::Part(Epoch(3), PartNumber(70)))),
            ("/live/demo.flv", Route::Flv(demo())),
        ] {
            assert_eq!(Route::parse(path), route, "{path}");
        }
    }

    #[test]
    fn everything_else_is_nothing() {
        for path in [
            "",
            "//",
            "/live",
            "/live/",
            "/live/demo",
            "/live/.m3u8",
            "/live/demo.m3u8/",
            "/live/demo.m3u8/main.m3u8",
            "/live/demo/other.m3u8",
            "/live/demo/main/",
            "/live/demo/main/x7-3.m4s",
            "/live/demo/main/s7.m4s",
            "/live/demo/main/s07-3.m4s",
            "/live/demo/main/s+7-3.m4s",
            "/live/demo/main/s7-3.mp4",
            "/live/demo/main/é7-3.m4s",
            "/live/demo/main/s7-3.m4s/x",
            "/live/demo/main/p1-99999999999999999999999.m4s",
            "/watch/demo",
            "/watch/live/demo/x",
            "/healthz/x",
            "/api/demo.m3u8",
            "/ws/",
            "/route/live",
            "/live/de%6do.m3u8",
        ] {
            let route = Route::parse(path);
            let nothing = matches!(route, Route::None(_)) || path.is_empty();
            assert!(nothing, "{path}: {route:?}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_something_or_nothing(path in "(/(live|main|watch|[a-zé%.-]{0,6}|[sp][0-9]{0,25}-[0-9]{0,25}\\.m4s)){0,7}") {
            if let Route::Hls(room, _) | Route::Flv(room) = Route::parse(&path) {
                prop_assert!(path.contains(room.app()) && path.contains(room.name()));
            }
        }
    }
}
