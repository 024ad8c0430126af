//! Watches by RTMP play, for servers of other makes that have it.
//!
//! In: RTMP messages. Out: as for FLV, whose tags the messages are.

use super::flv::Timed;
use super::{Trouble, Viewer, now};
use crate::rtmp::play::Play;

pub(super) async fn watch(viewer: &Viewer, began: &mut bool) -> Result<(), Trouble> {
    let (app, name) = &viewer.stage.rtmp;
    let play = Play::connect(viewer.to, viewer.source, app, name).await;
    let mut play = play.map_err(|error| Trouble::Rtmp(format!("{error:#}")))?;
    let ended = |error: anyhow::Error| Trouble::Rtmp(format!("{error:#}"));
    if !viewer.timed {
        loop {
            viewer.received(play.count().await.map_err(ended)?, began);
        }
    }
    let mut timed = Timed::new(viewer);
    let mut buffer = Vec::new();
    loop {
        let (count, tags) = play.next(&mut buffer).await.map_err(ended)?;
        let at = now();
        viewer.received(count, began);
        for tag in &tags {
            timed.tag(tag, at)?;
        }
    }
}
