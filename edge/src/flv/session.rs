//! Writes FLV to one TLS connection that has left hyper.
//!
//! TLS must see every byte in order per connection, so there is nothing to share below the chunks and
//! each such viewer has a task: the one that served its request.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::Seat;
use super::outlet::Outlet;
use crate::metrics::Close;

/// Bytes given to TLS at a time: one record (RFC 8446, 5.1).
const WRITE_BYTES: usize = 16 * 1024;

/// Serves `stream` until the stream or the viewer ends. `ahead` is what the viewer has sent already.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    ahead: Bytes,
    seat: Seat,
    mut outlet: Outlet,
) {
    let abort = seat.abort().clone();
    let served = async {
        match outlet.received(&ahead) {
            Some(why) => why,
            None => run(&mut stream, &seat, &mut outlet).await,
        }
    };
    let why = abort.run_until_cancelled(served).await.unwrap_or(Close::Shutdown);
    seat.metrics().flv_closed(why);
    let farewell = outlet.farewell(Some(why)).unwrap_or_default();
    let _ = timeout(seat.timeouts().write, async {
        stream.write_all(&farewell).await?;
        stream.shutdown().await
    })
    .await;
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    seat: &Seat,
    outlet: &mut Outlet,
) -> Close {
    let mut changes = seat.hub.changes();
    let sent = seat.metrics().sent_bytes(seat.protocol).clone();
    loop {
        changes.mark_unchanged();
        if let Some(why) = seat.revoked() {
            return why;
        }
        let end = outlet.fill(&seat.hub.ring(), Instant::now(), seat.metrics());
        while let Some(buffer) = outlet.front() {
            let piece = buffer.slice(..buffer.len().min(WRITE_BYTES));
            match timeout(seat.timeouts().write, stream.write(&piece)).await {
                Ok(Ok(n)) => {
                    outlet.advance(n, Instant::now());
                    sent.inc_by(n as u64);
                }
                Ok(Err(_)) => return Close::Left,
                Err(_) => return Close::Stuck,
            }
        }
        match timeout(seat.timeouts().write, stream.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Close::Left,
            Err(_) => return Close::Stuck,
        }
        if let Some(why) = end {
            return why;
        }
        let mut received = [0; 512];
        tokio::select! {
            biased;
            changed = changes.changed() => {
                if changed.is_err() {
                    return Close::Failed;
                }
            }
            read = stream.read(&mut received) => match read {
                Ok(0) | Err(_) => return Close::Left,
                Ok(n) => {
                    if let Some(why) = outlet.received(received.get(..n).unwrap_or_default()) {
                        return why;
                    }
                }
            },
        }
    }
}
