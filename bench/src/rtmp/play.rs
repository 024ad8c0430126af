//! The playing side of RTMP, for servers that have one.
//!
//! In: an address, an app and a stream's name. Out: its messages as FLV tags, which they are but for the
//! header, or only how many bytes came.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use media::flv::TagKind;
use media::flv::reader::Tag;
use rml_rtmp::sessions::ClientSessionEvent;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::{Link, PUBLISH_TIMEOUT, Refused};
use crate::net;

/// What one read asks for while messages are looked at.
const READ_BYTES: usize = 64 * 1024;

/// A connection that plays.
pub(crate) struct Play(Link);

impl Play {
    /// Connects and plays `app/name`.
    ///
    /// # Errors
    /// [`Refused`] when the server says no.
    pub(crate) async fn connect(
        to: SocketAddr,
        source: Option<IpAddr>,
        app: &str,
        name: &str,
    ) -> Result<Self> {
        let connect = async {
            let mut link = Link::connect(to, source, app).await?;
            let play = link.session.request_playback(name.to_owned())?;
            link.carry_out(vec![play]).await?;
            loop {
                for event in link.events().await? {
                    match event {
                        ClientSessionEvent::PlaybackRequestAccepted => return Ok(Self(link)),
                        ClientSessionEvent::UnhandleableOnStatusCode { code }
                            if code.contains("Failed") || code.contains("NotFound") =>
                        {
                            bail!(Refused(code));
                        }
                        _ => {}
                    }
                }
            }
        };
        timeout(PUBLISH_TIMEOUT, connect).await.context("play takes too long")?
    }

    /// Waits for bytes and returns how many came with the messages they complete.
    ///
    /// # Errors
    /// When the connection ends or the server does not speak RTMP.
    pub(crate) async fn next(&mut self, buffer: &mut Vec<u8>) -> Result<(usize, Vec<Tag>)> {
        buffer.resize(READ_BYTES, 0);
        let count = self.0.socket.read(buffer).await?;
        let mut tags = Vec::new();
        for event in self.0.take(&buffer[..count]).await? {
            let (kind, timestamp, body) = match event {
                ClientSessionEvent::VideoDataReceived { timestamp, data } => {
                    (TagKind::Video, timestamp, data)
                }
                ClientSessionEvent::AudioDataReceived { timestamp, data } => {
                    (TagKind::Audio, timestamp, data)
                }
                _ => continue,
            };
            tags.push(Tag { kind, timestamp_ms: timestamp.value, body });
        }
        Ok((count, tags))
    }

    /// Waits for bytes and only counts them. Servers are not acknowledged: none that is measured waits
    /// for it.
    ///
    /// # Errors
    /// When the connection ends.
    pub(crate) async fn count(&self) -> Result<usize> {
        let count = net::discard(&self.0.socket, usize::MAX).await?;
        ensure!(count > 0, "the server closed the connection");
        Ok(count)
    }
}
