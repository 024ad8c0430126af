//! Follows the file with the words that may not be said.
//!
//! In: `room.filter`, looked at every [`LOOK_EVERY`]. Out: new rules for all rooms. A file that cannot
//! be read changes nothing and is said so once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tracing::{info, warn};

use super::core::Rules;
use super::filter::Filter;
use super::metrics::Metrics;

/// How often it is looked whether the file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The largest list that is read.
const MAX_LIST_BYTES: u64 = 32 << 20;

/// Reads the list whenever it changes, for as long as somebody follows the rules.
pub(super) async fn follow(file: PathBuf, rules: watch::Sender<Rules>, metrics: Arc<Metrics>) {
    let mut seen = None;
    let mut complained = false;
    loop {
        let path = file.clone();
        let read = tokio::task::spawn_blocking(move || read(&path, seen)).await;
        match read {
            Ok(Ok(Some((stamp, filter)))) => {
                info!(phrases = filter.len(), left_out = filter.left_out(), "word filter read");
                metrics.phrases(filter.len());
                seen = Some(stamp);
                complained = false;
                let filter = Arc::new(filter);
                rules.send_modify(|rules| rules.filter = filter);
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) if !complained => {
                warn!(file = %file.display(), %error, "room.filter cannot be read; unchanged");
                complained = true;
            }
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// When a file was changed last, and how long it is.
type Stamp = (SystemTime, u64);

fn read(file: &Path, seen: Option<Stamp>) -> std::io::Result<Option<(Stamp, Filter)>> {
    let found = std::fs::metadata(file)?;
    let stamp = (found.modified()?, found.len());
    if seen == Some(stamp) {
        return Ok(None);
    }
    if found.len() > MAX_LIST_BYTES {
        return Err(std::io::Error::other("larger than 32 MiB"));
    }
    Ok(Some((stamp, Filter::new(&std::fs::read_to_string(file)?))))
}
