//! From single values to sections, and what the values must be together.
//!
//! In: [`Settings`], each value already right by itself. Out: the sections of
//! [`super::Config`], and the [`Problem`]s of values that do not fit each other.

use std::{
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use cluster::{access::MIN_SECRET_BYTES, placement::Distances};
use events::order::MIN_KEY_BYTES;
use wire::{NodeId, Region};

use super::{
    Config, VOTER_COUNTS,
    layers::{Place, Problem, Problems, Settings},
    sections::{
        Admin, Api, Auth, Cluster, ControlNode, EventStore, Events, Hls, Hooks, Http, Log,
        LogFormat, Node, Role, Room, Route, Rtmp, Secret, Tls, TxSecrets,
    },
    value::{Value, host_port},
};

/// Fills the sections and checks them together.
///
/// # Errors
/// Every value that has no meaning or does not fit another.
pub(super) fn compose(settings: Settings) -> Result<Config, Problems> {
    let mut read = Reader { settings: &settings, problems: Vec::new() };
    let config = Config {
        node: read.node(),
        cluster: read.cluster(),
        rtmp: Rtmp {
            listen: read.listen("rtmp.listen").expect("the key does not take off"),
            advertise: read.optional("rtmp.advertise"),
            max_connections: read.integer("rtmp.max_connections") as usize,
            max_connections_per_address: read.integer("rtmp.max_connections_per_address") as usize,
        },
        http: Http {
            listen: read.listen("http.listen").expect("the key does not take off"),
            tls: read.tls("http.tls.cert", "http.tls.key"),
            advertise: read.optional("http.advertise"),
            max_connections: read.integer("http.max_connections") as usize,
            max_connections_per_address: read.integer("http.max_connections_per_address") as u32,
            origins: read.list("http.origins"),
            flv_max_flush: read.duration("http.flv_max_flush"),
        },
        public_http: read.optional("public.http"),
        admin: Admin {
            listen: read.text("admin.listen"),
            require_token: read.flag("admin.require_token"),
            token: read.secret("admin.token"),
        },
        api: Api {
            listen: read.listen("api.listen"),
            tls: read.tls("api.tls.cert", "api.tls.key"),
        },
        hls: Hls {
            part: read.duration("hls.part"),
            segment: read.duration("hls.segment"),
            target_duration: read.duration("hls.target_duration"),
            max_target_duration: read.duration("hls.max_target_duration"),
            window: read.integer("hls.window") as u32,
        },
        route: Route { distances: read.distances(), redirect: read.flag("route.redirect") },
        room: read.room(),
        auth: read.auth(),
        hooks: read.hooks(),
        events: read.events(),
        log: read.log(),
        settings: settings.clone(),
    };
    read.agree(&config);
    if read.problems.is_empty() { Ok(config) } else { Err(Problems(read.problems)) }
}

/// Takes typed values out of the settings and collects what is wrong with their meaning.
struct Reader<'a> {
    settings: &'a Settings,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn room(&self) -> Room {
        Room {
            publish_grace: self.duration("room.publish_grace"),
            cache_bytes: self.integer("room.cache") as usize,
            max_tick: self.duration("room.max_tick"),
            chat_per_second: Some(self.integer("room.chat_per_second") as u32).filter(|n| *n > 0),
            open_gifts: self.flag("room.open_gifts"),
            max_guests_per_address: self.integer("room.max_guests_per_address") as u32,
            filter: self.path("room.filter"),
            shop_key: self.optional("room.shop_key").map(Secret::new),
        }
    }

    fn auth(&self) -> Auth {
        Auth {
            publish_open: self.text("auth.publish") == "open",
            allow_guests: self.flag("auth.allow_guests"),
            token_secret: self.secret("auth.token_secret"),
            jwks: self.path("auth.jwks"),
            issuer: self.optional("auth.issuer"),
            audience: self.optional("auth.audience"),
            tx_push: TxSecrets {
                key: self.secret("auth.tx_push_key"),
                backup: self.secret("auth.tx_push_backup_key"),
            },
            tx_play: TxSecrets {
                key: self.secret("auth.tx_play_key"),
                backup: self.secret("auth.tx_play_backup_key"),
            },
            tx_grace: self.duration("auth.tx_grace"),
        }
    }

    fn node(&mut self) -> Node {
        let id = self.optional("node.id").and_then(|id| self.parsed("node.id", NodeId::new(&id)));
        let region = Region::new(&self.text("node.region"));
        let mut roles = BTreeSet::new();
        for role in self.list("node.roles") {
            roles.extend(self.parsed("node.roles", role.parse::<Role>()));
        }
        if roles.is_empty() && self.problems.is_empty() {
            self.problem(
                "node.roles",
                "is empty; give at least one of control, origin, edge".into(),
            );
        }
        Node {
            id,
            region: self.parsed("node.region", region).unwrap_or_default(),
            data: self.path("node.data").unwrap_or_else(|| PathBuf::from("data")),
            roles,
            shutdown_grace: self.duration("node.shutdown_grace"),
        }
    }

    fn cluster(&mut self) -> Cluster {
        let mut control = Vec::new();
        for entry in self.list("cluster.control") {
            control.extend(self.parsed("cluster.control", control_node(&entry)));
        }
        Cluster {
            listen: self.listen("cluster.listen").expect("the key does not take off"),
            advertise: self.optional("cluster.advertise"),
            control,
            ca: self.path("cluster.ca"),
            cert: self.path("cluster.cert"),
            key: self.path("cluster.key"),
            ca_key: self.path("cluster.ca_key"),
        }
    }

    fn distances(&mut self) -> Distances {
        let mut distances = Distances::default();
        for entry in self.list("route.distances") {
            if let Some((one, other, far)) = self.parsed("route.distances", distance(&entry)) {
                distances.set(one, other, far);
            }
        }
        distances
    }

    fn hooks(&mut self) -> Hooks {
        let mut kinds = BTreeSet::new();
        for name in self.list("hooks.events") {
            let known = hooks::Kind::by_name(&name);
            let why = || format!("has {name:?}, which is no event");
            kinds.extend(self.parsed("hooks.events", known.ok_or_else(why)));
        }
        let url = self.optional("hooks.url");
        if let Some(Err(why)) = url.as_deref().map(hooks::Target::parse) {
            self.problem("hooks.url", format!("cannot be used: {why}"));
        }
        Hooks {
            url,
            secret: self.secret("hooks.secret"),
            kinds,
            srs: self.text("hooks.format") == "srs",
            timeout: self.duration("hooks.timeout"),
            fail_open: self.text("hooks.on_failure") == "allow",
            allow_private: self.flag("hooks.allow_private"),
            ca: self.path("hooks.ca"),
        }
    }

    fn events(&mut self) -> Events {
        let node = self.optional("events.node");
        let node = node.and_then(|id| self.parsed("events.node", NodeId::new(&id)));
        let store = match self.text("events.store") {
            text if text == "sqlite" => EventStore::Sqlite(None),
            text if text.starts_with("postgres://") || text.starts_with("postgresql://") => {
                EventStore::Postgres(Secret::new(text))
            }
            text => match text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
                Some(path) => EventStore::Sqlite(Some(self.base("events.store").join(path))),
                None => {
                    let form = "must be sqlite, sqlite:FILE or postgres://user@host/database";
                    self.problem("events.store", form.into());
                    EventStore::Sqlite(None)
                }
            },
        };
        let (ca, retention) = (self.path("events.ca"), self.duration("events.retention"));
        Events { store, node, ca, retention }
    }

    fn log(&mut self) -> Log {
        let filter = self.text("log.filter");
        let parsed = tracing_subscriber::EnvFilter::try_new(&filter);
        self.parsed("log.filter", parsed.map_err(|e| format!("is {filter:?}: {e}")));
        let format = match self.text("log.format").as_str() {
            "human" => LogFormat::Human,
            "json" => LogFormat::Json,
            _ => LogFormat::Auto,
        };
        Log { filter, format }
    }

    /// What single keys cannot know: how they fit together.
    fn agree(&mut self, config: &Config) {
        let Config { hls, cluster, api, .. } = config;
        if hls.part > hls.segment {
            self.problem("hls.part", "must not be longer than hls.segment".into());
        }
        if hls.segment > hls.max_target_duration {
            self.problem("hls.segment", "must not be longer than hls.max_target_duration".into());
        }
        if hls.target_duration > hls.max_target_duration {
            let what = "must not be longer than hls.max_target_duration";
            self.problem("hls.target_duration", what.into());
        }
        for (key, duration) in [
            ("hls.target_duration", hls.target_duration),
            ("hls.max_target_duration", hls.max_target_duration),
        ] {
            // EXT-X-TARGETDURATION is a decimal integer (RFC 8216bis section 4.4.3.1).
            if duration.subsec_nanos() != 0 {
                self.problem(key, "must be a whole number of seconds".into());
            }
        }
        for (key, url) in
            [("http.advertise", &config.http.advertise), ("public.http", &config.public_http)]
        {
            let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
            if url.as_ref().is_some_and(|url| !is_url(url)) {
                self.problem(key, "must start with http:// or https://".into());
            }
        }
        self.origins_agree(&config.http.origins);
        let voters = cluster.control.len();
        if voters > 0 && !VOTER_COUNTS.contains(&voters) {
            let what = format!("lists {voters} nodes; a cluster starts with 1, 3 or 5");
            self.problem("cluster.control", what);
        }
        let ids: BTreeSet<_> = cluster.control.iter().map(|node| &node.id).collect();
        if ids.len() < voters {
            self.problem("cluster.control", "lists a node twice".into());
        }
        if let (Some(id), true) = (&config.node.id, voters > 0) {
            let listed = ids.contains(id);
            if config.has(Role::Control) && !listed {
                let what = format!("does not list {id}, which has the role control");
                self.problem("cluster.control", what);
            }
            if listed && !config.has(Role::Control) {
                let what = format!("lacks control, but cluster.control lists {id}");
                self.problem("node.roles", what);
            }
        }
        if let Some(listen) = api.listen {
            if config.admin.token.is_none() {
                let what = "needs a token: set TIDEWATER_ADMIN__TOKEN in the environment";
                self.problem("api.listen", what.into());
            }
            if !listen.ip().is_loopback() && api.tls.is_none() {
                let what = "is not on loopback and needs api.tls.cert and api.tls.key";
                self.problem("api.listen", what.into());
            }
        }
        self.auth_agrees(&config.auth);
        self.ledger_agrees(config);
        if config.admin.listen.is_empty() {
            self.problem(
                "admin.listen",
                "is empty; it must be host:port, as in 127.0.0.1:8081".into(),
            );
        }
        if config.admin.require_token && config.admin.token.is_none() {
            let what = "needs a token: set TIDEWATER_ADMIN__TOKEN in the environment";
            self.problem("admin.require_token", what.into());
        }
    }

    fn origins_agree(&mut self, origins: &[String]) {
        for origin in origins {
            let is_origin = ["http://", "https://"].iter().any(|scheme| {
                let host = origin.strip_prefix(scheme);
                host.is_some_and(|host| !host.is_empty() && !host.contains('/'))
            });
            if !is_origin {
                let what = format!("has {origin:?}; an origin is as in https://example.org:8443");
                self.problem("http.origins", what);
            }
        }
    }

    fn auth_agrees(&mut self, auth: &Auth) {
        if let Some(secret) = &auth.token_secret
            && secret.reveal().len() < MIN_SECRET_BYTES
        {
            let found = secret.reveal().len();
            let what = format!("has {found} bytes; it must have {MIN_SECRET_BYTES} or more");
            self.problem("auth.token_secret", what);
        }
        for (key, secrets) in [("push", &auth.tx_push), ("play", &auth.tx_play)] {
            if secrets.key.is_none() && secrets.backup.is_some() {
                let what = format!("is only for a change of keys; set auth.tx_{key}_key too");
                self.problem(&format!("auth.tx_{key}_backup_key"), what);
            }
        }
    }

    /// What gifts need.
    fn ledger_agrees(&mut self, config: &Config) {
        if config.room.shop_key.as_ref().is_some_and(|key| key.reveal().len() < MIN_KEY_BYTES) {
            self.problem("room.shop_key", format!("must have at least {MIN_KEY_BYTES} bytes"));
        }
        if let EventStore::Postgres(url) = &config.events.store
            // Whether the CA's file can be read shows when the store starts.
            && config.events.ca.is_none()
            && let Err(why) = events::Server::new(url.reveal(), None)
        {
            self.problem("events.store", format!("is {why}"));
        }
    }

    fn tls(&mut self, cert: &'static str, key: &'static str) -> Option<Tls> {
        match (self.path(cert), self.path(key)) {
            (Some(cert), Some(key)) => Some(Tls { cert, key }),
            (None, None) => None,
            (Some(_), None) => {
                self.problem(cert, format!("needs {key} beside it"));
                None
            }
            (None, Some(_)) => {
                self.problem(key, format!("needs {cert} beside it"));
                None
            }
        }
    }

    fn text(&self, key: &str) -> String {
        match self.settings.get(key).0 {
            Value::Text(text) => text.clone(),
            other => unreachable!("{key} is text in the table, not {other:?}"),
        }
    }

    fn optional(&self, key: &str) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    fn secret(&self, key: &str) -> Option<Secret> {
        self.optional(key).map(Secret::new)
    }

    fn flag(&self, key: &str) -> bool {
        matches!(self.settings.get(key).0, Value::Flag(true))
    }

    fn integer(&self, key: &str) -> u64 {
        match self.settings.get(key).0 {
            Value::Integer(number) => *number,
            other => unreachable!("{key} is a number in the table, not {other:?}"),
        }
    }

    fn duration(&self, key: &str) -> Duration {
        match self.settings.get(key).0 {
            Value::Duration(duration) => *duration,
            other => unreachable!("{key} is a duration in the table, not {other:?}"),
        }
    }

    fn listen(&self, key: &str) -> Option<SocketAddr> {
        match self.settings.get(key).0 {
            Value::Listen(address) => *address,
            other => unreachable!("{key} is an address in the table, not {other:?}"),
        }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        match self.settings.get(key).0 {
            Value::Path(path) => path.clone(),
            other => unreachable!("{key} is a path in the table, not {other:?}"),
        }
    }

    fn list(&self, key: &str) -> Vec<String> {
        match self.settings.get(key).0 {
            Value::List(items) => items.clone(),
            other => unreachable!("{key} is a list in the table, not {other:?}"),
        }
    }

    fn base(&self, key: &str) -> PathBuf {
        match self.settings.get(key).1 {
            Place::File { path, .. } => path.parent().map(Path::to_owned).unwrap_or_default(),
            _ => std::env::current_dir().unwrap_or_default(),
        }
    }

    fn parsed<T>(&mut self, key: &str, result: Result<T, impl fmt::Display>) -> Option<T> {
        result.map_err(|why| self.problem(key, why.to_string())).ok()
    }

    fn problem(&mut self, key: &str, what: String) {
        let place = self.settings.get(key).1.clone();
        self.problems.push(Problem { place, what: format!("{key} {what}") });
    }
}

fn distance(entry: &str) -> Result<(Region, Region, u32), String> {
    let form = "write region/region=number, as in eu/us=80";
    let wrong = || format!("has {entry:?}; {form}");
    let (pair, far) = entry.split_once('=').ok_or_else(wrong)?;
    let (one, other) = pair.split_once('/').ok_or_else(wrong)?;
    let region = |name: &str| Region::new(name.trim()).map_err(|e| format!("has {entry:?}: {e}"));
    let far = far.trim().parse().map_err(|_| wrong())?;
    Ok((region(one)?, region(other)?, far))
}

fn control_node(entry: &str) -> Result<ControlNode, String> {
    let form = "write id@host:port, as in o1@10.0.0.1:7400";
    let (id, address) = entry.split_once('@').ok_or(format!("has {entry:?}; {form}"))?;
    let id = NodeId::new(id).map_err(|e| format!("has {entry:?}: {e}"))?;
    host_port(address).map_err(|_| format!("has {entry:?}; {form}"))?;
    Ok(ControlNode { id, address: address.to_owned() })
}
