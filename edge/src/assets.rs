//! The web pages that are built into the binary: `web/dist`, or plain pages where there is none.
//!
//! In: paths. Out: files with their media type, compressed once where that helps. Files under
//! `assets/` have their content's hash in their names.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use dashmap::DashMap;
use rust_embed::RustEmbed;

use crate::gzip::gzip;

/// What `npm run build` made, if it was run before this crate was built.
#[derive(RustEmbed)]
#[folder = "../web/dist"]
#[allow_missing = true]
struct Dist;

const FALLBACK_INDEX: &str = include_str!("../../web/fallback/index.html");
const FALLBACK_WATCH: &str = include_str!("../../web/fallback/watch.html");

/// Files worth compressing, compressed. As many entries as there are files, and only in builds that
/// embed them: elsewhere a file may change.
static GZIPPED: LazyLock<DashMap<String, Bytes>> = LazyLock::new(DashMap::new);

/// A file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) bytes: Bytes,
    pub(crate) content_type: &'static str,
}

/// The room list page.
pub(crate) fn index() -> File {
    page("index.html", FALLBACK_INDEX)
}

/// The player page.
pub(crate) fn watch() -> File {
    page("watch.html", FALLBACK_WATCH)
}

/// The file under `assets/` with this path.
pub(crate) fn asset(path: &str) -> Option<File> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    if path.contains("..") || !path.bytes().all(plain) {
        return None;
    }
    let bytes = get(&format!("assets/{path}"))?;
    Some(File { bytes, content_type: content_type(path) })
}

/// The compressed form of a file under `assets/`, where it is smaller.
pub(crate) fn gzipped(path: &str, file: &File) -> Option<Bytes> {
    let is_text = file.content_type.starts_with("text/")
        || file.content_type.ends_with("json")
        || file.content_type.starts_with("image/svg");
    if !is_text || cfg!(debug_assertions) {
        return None;
    }
    let packed = GZIPPED.entry(path.to_owned()).or_insert_with(|| gzip(&file.bytes)).clone();
    Some(packed).filter(|p| p.len() < file.bytes.len())
}

fn page(name: &str, fallback: &'static str) -> File {
    let bytes = get(name).unwrap_or(Bytes::from_static(fallback.as_bytes()));
    File { bytes, content_type: content_type(name) }
}

fn get(path: &str) -> Option<Bytes> {
    Some(match Dist::get(path)?.data {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    })
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
