//! The configuration of a node, composed for all roles and checked as a whole.
//!
//! In: built-in defaults < file < `TIDEWATER_SECTION__KEY` environment < `--set section.key=value`.
//! Out: one [`Config`] that every role's own settings are taken from, or all [`Problems`] at once,
//! each with its file and line. Sections of roles a node lacks are checked and then ignored.
//!
//! Reads the configuration file and nothing else: whether certificates exist or ports are free shows
//! when a role starts.

pub mod keys;
pub mod layers;
mod reader;
mod sections;
pub mod suggest;
pub mod value;

use std::path::{Path, PathBuf};

use keys::{DEV_DEFAULTS, KEYS, NOT_IN_DEV};
use layers::{Layers, Settings};
pub use layers::{Place, Problem, Problems};
pub use sections::{
    Admin, Api, Auth, Cluster, ControlNode, EventStore, Events, Hls, Hooks, Http, Log, LogFormat,
    Node, Role, Room, Route, Rtmp, Secret, Tls, TxSecrets,
};

/// Largest configuration file that is read, in bytes; a larger one is not a configuration.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Numbers of control nodes that a cluster can be founded with (DESIGN section 5).
pub const VOTER_COUNTS: [usize; 3] = [1, 3, 5];

/// Where the configuration is read from. Kept, so that a reload reads the same places again.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment, all of it.
    pub env: Vec<(String, String)>,
    /// The `--set` arguments in order: key, value.
    pub set: Vec<(String, String)>,
    /// `--roles`, which goes over `node.roles`.
    pub roles: Option<String>,
    /// Whether the defaults are those of `tidewater dev`.
    pub dev: bool,
}

/// The whole configuration. Fields are named as their keys.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[node]`
    pub node: Node,
    /// `[cluster]`
    pub cluster: Cluster,
    /// `[rtmp]`
    pub rtmp: Rtmp,
    /// `[http]`
    pub http: Http,
    /// `public.http`: the base URL of the edges, as apps hand it out.
    pub public_http: Option<String>,
    /// `[admin]`
    pub admin: Admin,
    /// `[api]`
    pub api: Api,
    /// `[hls]`
    pub hls: Hls,
    /// `[route]`
    pub route: Route,
    /// `[room]`
    pub room: Room,
    /// `[auth]`
    pub auth: Auth,
    /// `[hooks]`
    pub hooks: Hooks,
    /// `[events]`
    pub events: Events,
    /// `[log]`
    pub log: Log,
    settings: Settings,
}

/// A key whose value a reload found different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `section.key`.
    pub key: &'static str,
    /// Whether it is in force now; otherwise it needs a restart.
    pub applied: bool,
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let working_dir = std::env::current_dir().unwrap_or_default();
        let mut layers = Layers::new(if sources.dev { DEV_DEFAULTS } else { &[] }, &working_dir);
        if let Some(path) = &sources.file {
            match read_file(path) {
                Ok(text) => layers.file(path, &text),
                Err(why) => {
                    let what = format!("cannot read the configuration {}: {why}", path.display());
                    return Err(Problems(vec![Problem { place: Place::Default, what }]));
                }
            }
        }
        layers.env(sources.env.iter().cloned());
        for (key, value) in &sources.set {
            layers.set(key, value, &format!("--set {key}"));
        }
        if let Some(roles) = &sources.roles {
            layers.set("node.roles", roles, "--roles");
        }
        if sources.dev {
            refuse_in_dev(&mut layers);
        }
        reader::compose(layers.finish()?)
    }

    /// What changed against `old`, and whether a running node takes it over.
    #[must_use]
    pub fn changes_from(&self, old: &Self) -> Vec<Change> {
        let differing = self.settings.differing(&old.settings);
        differing.map(|at| Change { key: KEYS[at].name, applied: KEYS[at].reload }).collect()
    }

    /// This configuration with only what a reload can take over from `new`.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let taken = (0..KEYS.len()).filter(|at| KEYS[*at].reload);
        Self {
            settings: self.settings.with(&new.settings, taken),
            node: Node { shutdown_grace: new.node.shutdown_grace, ..self.node.clone() },
            public_http: new.public_http.clone(),
            admin: Admin { listen: self.admin.listen.clone(), ..new.admin.clone() },
            log: Log { format: self.log.format, ..new.log.clone() },
            ..self.clone()
        }
    }

    /// Whether `key` has a value of its own, and not the default.
    #[must_use]
    pub fn is_set(&self, key: &str) -> bool {
        *self.settings.get(key).1 != Place::Default
    }

    /// Whether this node has `role`.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.node.roles.contains(&role)
    }

    /// The keys that leave something open to anyone on this node, for warnings.
    #[must_use]
    pub fn open_doors(&self) -> Vec<&'static str> {
        let doors = [
            (self.auth.publish_open && self.has(Role::Origin), "auth.publish=open"),
            (self.auth.allow_guests && self.has(Role::Edge), "auth.allow_guests=true"),
            (self.room.open_gifts && self.has(Role::Edge), "room.open_gifts=true"),
        ];
        doors.into_iter().filter(|(open, _)| *open).map(|(_, door)| door).collect()
    }
}

fn refuse_in_dev(layers: &mut Layers) {
    for key in NOT_IN_DEV {
        match layers.place(key) {
            None | Some(Place::Default) => {}
            Some(place) => {
                let place = place.clone();
                layers
                    .problem(place, format!("{key} is chosen by tidewater dev; it cannot be set"));
            }
        }
    }
}

fn read_file(path: &Path) -> std::io::Result<String> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > MAX_FILE_BYTES {
        let why = format!("{bytes} bytes is too large for a configuration");
        return Err(std::io::Error::other(why));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests;
