//! What the black-box tests stand on: real processes of the real binary, publishers, players, oracles.
//!
//! [`process`] starts `tidewater` and waits for it; [`addr`] gives each test addresses of its own, so
//! that tests run side by side without free-port races; [`publisher`] pushes RTMP; [`http`] asks like
//! a browser; [`hls`] and [`flv`] watch and check every rule a player relies on; [`member`] and [`events`]
//! talk in rooms; [`tool`] runs ffmpeg
//! and friends. Nothing here knows the inside of the system: what it sees is sockets.

pub mod addr;
pub mod events;
pub mod flv;
pub mod hls;
pub mod http;
pub mod member;
pub mod process;
pub mod publisher;
pub mod raw;
pub mod tool;

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How long a condition may take on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until `look` finds something, for at most [`PATIENCE`].
///
/// # Errors
/// Says what was awaited when the time is over.
pub async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Option<T>>,
{
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() > give_up {
            bail!("waited {PATIENCE:?} in vain: {what}");
        }
        sleep(Duration::from_millis(20)).await;
    }
}
