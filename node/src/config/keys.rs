//! Every configuration key there is: its name, what it takes, its default, whether a reload takes it.
//!
//! The one table that reading, checking, reloading and suggesting share. A key that is not here does
//! not exist. Defaults are written as `--set` would write them and go through the same reader.

use super::value::Kind;

/// One configuration key.
#[derive(Debug)]
pub struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default, as `--set` would write it.
    pub default: &'static str,
    /// Whether SIGHUP takes a new value over; otherwise it needs a restart.
    pub reload: bool,
    /// What it does, one line.
    pub about: &'static str,
}

/// The place of a key in [`KEYS`].
#[must_use]
pub fn position(name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.name == name)
}

/// All keys, by section.
pub const KEYS: &[Key] = &[
    key(
        "node.id",
        Kind::Text,
        "",
        "name of this node: a DNS label, the same as in its certificate",
    ),
    key("node.region", Kind::Text, "default", "where it stands; rooms gather inside a region"),
    key("node.data", Kind::Path, "data", "folder for what must survive a restart"),
    key("node.roles", Kind::List, "control, origin, edge", "what it does: control, origin, edge"),
    reloadable(
        "node.shutdown_grace",
        ms(0, HOUR_MS),
        "10s",
        "how long a stop waits for what is in flight",
    ),
    key("cluster.listen", Kind::Listen, "0.0.0.0:7400", "UDP address of the cluster's QUIC"),
    key(
        "cluster.advertise",
        Kind::HostPort,
        "",
        "host:port other nodes reach it at; default: its own entry in cluster.control, else the address it reaches them from",
    ),
    key(
        "cluster.control",
        Kind::List,
        "",
        "the control nodes, id@host:port each, the same list on all nodes; default: this node alone",
    ),
    key("cluster.ca", Kind::Path, "", "the cluster's CA certificate"),
    key("cluster.cert", Kind::Path, "", "this node's certificate"),
    key("cluster.key", Kind::Path, "", "this node's private key"),
    key(
        "cluster.ca_key",
        Kind::Path,
        "",
        "the CA's private key, on nodes that sign for certs node --join; they listen on the TCP port of cluster.listen too",
    ),
    key("rtmp.listen", Kind::Listen, "0.0.0.0:1935", "where publishers push"),
    key(
        "rtmp.advertise",
        Kind::HostPort,
        "",
        "host:port that publishers are told to push to; default: as the API was called, with the port of rtmp.listen",
    ),
    key(
        "rtmp.max_connections",
        Kind::Integer { min: 1, max: 1_000_000 },
        "4096",
        "RTMP connections at once; further ones wait",
    ),
    key(
        "rtmp.max_connections_per_address",
        Kind::Integer { min: 0, max: 1_000_000 },
        "256",
        "RTMP connections at once from one address; further ones are closed; 0 is no limit",
    ),
    key("http.listen", Kind::Listen, "0.0.0.0:8080", "where viewers connect"),
    key("http.tls.cert", Kind::Path, "", "certificate chain; with it, http.listen speaks TLS"),
    key("http.tls.key", Kind::Path, "", "private key of http.tls.cert"),
    key(
        "http.advertise",
        Kind::Text,
        "",
        "base URL under which viewers reach this edge, as in https://e1.example.org",
    ),
    key(
        "http.max_connections",
        Kind::Integer { min: 1, max: 10_000_000 },
        "100000",
        "viewer connections at once; further ones wait",
    ),
    key(
        "http.max_connections_per_address",
        Kind::Integer { min: 1, max: 10_000_000 },
        "1024",
        "viewer connections at once from one address, loopback aside; further ones are closed",
    ),
    key(
        "http.origins",
        Kind::List,
        "",
        "sites whose pages may connect to rooms, as in https://example.org; default: all",
    ),
    key(
        "http.flv_max_flush",
        ms(20, 2_000),
        "350ms",
        "longest an FLV chunk collects frames, on a full node; less is less delay and more CPU",
    ),
    reloadable(
        "public.http",
        Kind::Text,
        "",
        "base URL of the edges as apps hand it out, as in https://live.example.org; default: http.advertise, else as the API was called",
    ),
    key("admin.listen", Kind::HostPort, "127.0.0.1:8081", "metrics, health, API and console"),
    reloadable(
        "admin.require_token",
        Kind::Flag,
        "false",
        "ask loopback callers for the token too",
    ),
    reloadable(
        "admin.token",
        Kind::Secret,
        "",
        "bearer token of the admin API; better in the environment, TIDEWATER_ADMIN__TOKEN",
    ),
    key(
        "api.listen",
        Kind::ListenOrOff,
        "off",
        "the API alone, for back-ends; always asks for the token",
    ),
    key("api.tls.cert", Kind::Path, "", "certificate chain of api.listen; needed off loopback"),
    key("api.tls.key", Kind::Path, "", "private key of api.tls.cert"),
    key("hls.part", ms(50, 2_000), "200ms", "length of a part"),
    key("hls.segment", ms(500, 10_000), "1s", "a segment ends at the first key frame after this"),
    key("hls.target_duration", ms(1_000, 60_000), "2s", "least EXT-X-TARGETDURATION"),
    key("hls.max_target_duration", ms(1_000, 60_000), "10s", "most EXT-X-TARGETDURATION"),
    key("hls.window", Kind::Integer { min: 3, max: 100 }, "8", "least segments in the playlist"),
    key(
        "route.distances",
        Kind::List,
        "",
        "how far regions are from each other, as in eu/us=80, both ways, in any unit; unlisted pairs are farthest",
    ),
    key(
        "route.redirect",
        Kind::Flag,
        "false",
        "send viewers who begin at an edge that is not among the best for their room there (302)",
    ),
    key("room.publish_grace", ms(0, HOUR_MS), "10s", "how long a room waits for its publisher"),
    key(
        "room.cache",
        Kind::Bytes { min: 1 << 20 },
        "64MiB",
        "most media kept of one room, at its home and on each edge",
    ),
    key(
        "room.max_tick",
        ms(5, 2_000),
        "1s",
        "longest a room's messages are collected into one frame; larger rooms collect longer, at most this",
    ),
    key(
        "room.chat_per_second",
        Kind::Integer { min: 0, max: 1_000 },
        "0",
        "most messages a second shown to each member; 0: by the room's size, 200 down to 18",
    ),
    key("room.open_gifts", Kind::Flag, "false", "gifts without a shop order"),
    key(
        "room.max_guests_per_address",
        Kind::Integer { min: 0, max: 1_000_000 },
        "20",
        "guests in rooms at once from one address, loopback aside; 0 is no limit",
    ),
    key(
        "room.filter",
        Kind::Path,
        "",
        "words that may not be said, one a line; read again when it changes",
    ),
    key(
        "room.shop_key",
        Kind::Secret,
        "",
        "key that shops sign their orders with, at least 32 bytes; better in the environment, TIDEWATER_ROOM__SHOP_KEY",
    ),
    key(
        "auth.publish",
        Kind::OneOf(&["key", "open"]),
        "key",
        "who may push: holders of a key, or all",
    ),
    key("auth.allow_guests", Kind::Flag, "false", "watch, talk and open rooms without a token"),
    key(
        "auth.token_secret",
        Kind::Secret,
        "",
        "secret of 32 bytes or more that tokens are signed with by HS256; the same on all nodes; better in the environment",
    ),
    key("auth.jwks", Kind::Path, "", "file with the JWK set of an issuer of tokens"),
    key("auth.issuer", Kind::Text, "", "the iss that tokens must have; default: any"),
    key("auth.audience", Kind::Text, "", "the aud that tokens must name; default: any"),
    key("auth.tx_push_key", Kind::Secret, "", "signs push URLs by txSecret and txTime"),
    key("auth.tx_push_backup_key", Kind::Secret, "", "a second key, while keys are changed"),
    key("auth.tx_play_key", Kind::Secret, "", "signs play URLs by txSecret and txTime"),
    key("auth.tx_play_backup_key", Kind::Secret, "", "a second key, while keys are changed"),
    key("auth.tx_grace", ms(0, 24 * HOUR_MS), "0s", "how long after txTime a URL is still taken"),
    key(
        "hooks.url",
        Kind::Text,
        "",
        "where the application's back-end is asked and told; off unless set",
    ),
    key(
        "hooks.secret",
        Kind::Secret,
        "",
        "signs every request; better in the environment, TIDEWATER_HOOKS__SECRET",
    ),
    key(
        "hooks.events",
        Kind::List,
        "on_publish, on_unpublish, on_room_start, on_room_end",
        "what it is asked and told",
    ),
    key(
        "hooks.format",
        Kind::OneOf(&["tidewater", "srs"]),
        "tidewater",
        "the form of requests and answers",
    ),
    key("hooks.timeout", ms(100, 30_000), "3s", "how long it may take"),
    key(
        "hooks.on_failure",
        Kind::OneOf(&["deny", "allow"]),
        "deny",
        "what holds when it is asked and gives no answer",
    ),
    key(
        "hooks.allow_private",
        Kind::Flag,
        "false",
        "ask it on loopback and in private networks too",
    ),
    key("hooks.ca", Kind::Path, "", "certificates that sign its own; default: those of the system"),
    key("events.store", Kind::Secret, "sqlite", "sqlite, sqlite:FILE or postgres://…"),
    key(
        "events.node",
        Kind::Text,
        "",
        "node that keeps the store; default: the first of cluster.control, with PostgreSQL each of them",
    ),
    key(
        "events.ca",
        Kind::Path,
        "",
        "the CA of the PostgreSQL server's certificate; with it the connection is encrypted",
    ),
    key(
        "events.retention",
        ms(0, 10 * 365 * 24 * HOUR_MS),
        "90d",
        "how long events are kept, gifts aside; 0s is for ever",
    ),
    reloadable("log.filter", Kind::Text, "info", "what is logged, as in info,origin=debug"),
    key(
        "log.format",
        Kind::OneOf(&["auto", "human", "json"]),
        "auto",
        "auto: human on a terminal, else json",
    ),
];

/// What `tidewater dev` assumes instead: everything on loopback, everything open.
pub const DEV_DEFAULTS: &[(&str, &str)] = &[
    ("cluster.listen", "127.0.0.1:7400"),
    ("rtmp.listen", "127.0.0.1:1935"),
    ("http.listen", "127.0.0.1:8080"),
    ("auth.publish", "open"),
    ("auth.allow_guests", "true"),
    ("room.open_gifts", "true"),
];

/// Keys that mean nothing to `tidewater dev`, which names its nodes and makes their certificates.
pub const NOT_IN_DEV: &[&str] = &[
    "node.id",
    "node.roles",
    "cluster.advertise",
    "cluster.control",
    "cluster.ca",
    "cluster.cert",
    "cluster.key",
    "cluster.ca_key",
];

const HOUR_MS: u64 = 3_600_000;

const fn key(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Key {
    Key { name, kind, default, reload: false, about }
}

const fn reloadable(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
) -> Key {
    Key { name, kind, default, reload: true, about }
}

const fn ms(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration { min_ms, max_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sections_and_keys_once_each() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(key.name.contains('.'), "{}", key.name);
            assert_eq!(position(key.name), Some(at), "{} stands twice", key.name);
            assert!(!key.about.is_empty() && !key.about.ends_with('.'), "{}", key.name);
        }
        for name in DEV_DEFAULTS.iter().map(|(name, _)| name).chain(NOT_IN_DEV) {
            assert!(position(name).is_some(), "{name}");
        }
    }
}
