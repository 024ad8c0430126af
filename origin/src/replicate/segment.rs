//! The bytes of one segment on their way to one reader: frame records as they come, until the
//! segment is whole.

use media::feed::Feed;
use media::manifest::Msn;
use media::track::TrackId;
use wire::replica::FrameRecord;
use wire::stream::Sender;

use super::GONE;
use crate::error::Error;

/// Sends the frames of segment `msn` from index `next` on, following the segment while it grows,
/// and ends the stream. A segment whose bytes have left the feed resets the stream: the reader
/// learns from the manifest that it has left the window.
///
/// # Errors
/// When the stream or its connection ends first.
pub(super) async fn pump(
    feed: &Feed,
    msn: Msn,
    mut next: u32,
    sender: &mut Sender,
) -> Result<(), Error> {
    let mut activity = feed.activity();
    loop {
        activity.borrow_and_update();
        let Some(news) = feed.segment_frames(msn, next) else {
            sender.reset(GONE);
            return Ok(());
        };
        for frame in news.frames {
            let record = FrameRecord {
                track: match frame.track {
                    TrackId::Video => 0,
                    TrackId::Audio => 1,
                },
                key: frame.key,
                dts: frame.dts,
                cts: frame.cts,
                payload: frame.payload,
            };
            sender.write_frame_parts(&[record.header(), record.payload]).await?;
            next += 1;
        }
        if news.total.is_some_and(|total| next >= total) {
            sender.finish();
            return Ok(());
        }
        if activity.changed().await.is_err() {
            sender.reset(GONE);
            return Ok(());
        }
    }
}
