//! What was rendered of a room's manifest: each form at most once, shared by all who ask for it.
//!
//! In: the published manifest. Out: playlists in each {form} × {coding}, and init segments by name.
//! A rendering belongs to one published manifest and goes when the next is rendered. Bytes depend on
//! the manifest alone, compressed ones too, so every edge answers alike.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderValue;
use media::feed::Feed;
use media::manifest::{Config, MAX_CONFIGS, Manifest};
use media::playlist::{self, Form};
use media::{Error, fmp4};
use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::time::Instant;
use wire::RoomId;

use crate::gzip::gzip;

/// How a playlist is coded for the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
}

/// The renderings of one room.
#[derive(Debug)]
pub(crate) struct Playlists {
    room: RoomId,
    newest: Mutex<Option<Arc<Rendering>>>,
    inits: Mutex<Vec<Init>>,
}

/// The playlists of one published manifest.
#[derive(Debug)]
pub(crate) struct Rendering {
    manifest: Arc<Manifest>,
    /// When somebody first asked for it: with waiters, when it was published.
    since: Instant,
    media: [OnceLock<Result<Bytes, Error>>; 4],
    multivariant: OnceLock<Result<Bytes, Error>>,
    ages: Ages,
}

/// How long caches may keep playlists (RFC 8216bis, appendix B.1).
#[derive(Debug, Clone)]
pub(crate) struct Ages {
    /// Half a target duration: for what changes under its URL.
    pub(crate) changing: HeaderValue,
    /// Six target durations: for what was asked for by its number.
    pub(crate) numbered: HeaderValue,
}

impl Ages {
    fn of(manifest: &Manifest) -> Self {
        let target_s = target_s(manifest);
        let age = |age_s: u64| {
            HeaderValue::from_str(&format!("max-age={age_s}")).expect("digits make a header value")
        };
        Self { changing: age(target_s.div_ceil(2)), numbered: age(target_s * 6) }
    }
}

/// An init segment that a listed segment needs, or lately needed.
#[derive(Debug, Clone)]
pub(crate) struct Init {
    config: Arc<Config>,
    name: String,
    pub(crate) bytes: Bytes,
    pub(crate) content_type: &'static str,
}

impl Playlists {
    pub(super) fn new(room: RoomId) -> Self {
        Self { room, newest: Mutex::new(None), inits: Mutex::new(Vec::new()) }
    }

    /// The renderings of what `feed` has published now.
    pub(crate) fn of(&self, feed: &Feed) -> Arc<Rendering> {
        let mut newest = self.newest.lock();
        // Read under the lock, so that an older manifest never takes a newer one's place.
        let manifest = feed.manifest();
        if let Some(rendering) = newest.as_ref().filter(|r| Arc::ptr_eq(&r.manifest, &manifest)) {
            return Arc::clone(rendering);
        }
        self.note_inits(&manifest);
        let rendering = Arc::new(Rendering {
            ages: Ages::of(&manifest),
            manifest,
            since: Instant::now(),
            media: Default::default(),
            multivariant: OnceLock::new(),
        });
        *newest = Some(Arc::clone(&rendering));
        rendering
    }

    /// The multivariant playlist for a request with this query.
    pub(crate) fn multivariant(
        &self,
        rendering: &Rendering,
        query: Option<&str>,
    ) -> Result<Bytes, Error> {
        let render = |query| {
            playlist::multivariant(&rendering.manifest, self.room.name(), query).map(Bytes::from)
        };
        match query {
            Some(query) => render(Some(query)),
            None => rendering.multivariant.get_or_init(|| render(None)).clone(),
        }
    }

    /// The init segment with this name, if the manifest needs it or lately did.
    pub(crate) fn init(&self, manifest: &Manifest, name: &str) -> Option<Init> {
        self.note_inits(manifest);
        self.inits.lock().iter().find(|i| i.name == name).cloned()
    }

    /// Renders the init segments of configurations not met before.
    fn note_inits(&self, manifest: &Manifest) {
        let mut inits = self.inits.lock();
        let configs = manifest.segments().iter().map(|s| &s.config).chain(manifest.config());
        for config in configs {
            if inits.iter().any(|i| Arc::ptr_eq(&i.config, config)) {
                continue;
            }
            let Ok(bytes) = fmp4::init(config) else { continue };
            if inits.len() >= MAX_CONFIGS {
                inits.remove(0);
            }
            inits.push(Init {
                config: Arc::clone(config),
                name: fmp4::init_name(&bytes),
                bytes,
                content_type: fmp4::content_type(config),
            });
        }
    }
}

impl Rendering {
    /// The media playlist. `renderings` counts those that had to be made.
    pub(crate) fn media(
        &self,
        form: Form,
        coding: Coding,
        renderings: &IntCounter,
    ) -> Result<Bytes, Error> {
        let index = usize::from(form == Form::Delta) * 2 + usize::from(coding == Coding::Gzip);
        self.media[index]
            .get_or_init(|| match coding {
                Coding::Identity => {
                    renderings.inc();
                    playlist::media(&self.manifest, form).map(Bytes::from)
                }
                Coding::Gzip => {
                    let text = self.media(form, Coding::Identity, renderings)?;
                    Ok(gzip(&text))
                }
            })
            .clone()
    }

    pub(crate) fn ages(&self) -> &Ages {
        &self.ages
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }
}

/// The target duration, or the default one while there is none, in seconds.
pub(crate) fn target_s(manifest: &Manifest) -> u64 {
    manifest.header().constants.map_or(2, |c| u64::from(c.target_duration_s)).max(1)
}
