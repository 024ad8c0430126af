//! Sockets: where they connect from, and how bytes nobody looks at are taken off them.
//!
//! In: addresses. Out: connected sockets. Each viewer of a loopback target comes from an address of its
//! own in 127.0.0.0/8, as a crowd does, and so that no address runs out of ports.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// What a connection may take: longer, and a viewer would have left.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most one read takes off a socket.
const DISCARD_BYTES: usize = 1 << 20;
/// Addresses per third octet, the ones a network might reserve left out.
const HOSTS: u32 = 250;

thread_local! {
    /// Never written: the kernel only wants to know how long it is.
    static NOWHERE: RefCell<Vec<MaybeUninit<u8>>> =
        RefCell::new(vec![MaybeUninit::uninit(); DISCARD_BYTES]);
}

/// The address the viewer with this number connects from; none where the target is not on loopback.
#[must_use]
pub(crate) fn source(target: SocketAddr, viewer: u32) -> Option<IpAddr> {
    if !matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
        return None;
    }
    let [b, c, d] = [viewer / (HOSTS * HOSTS) % HOSTS, viewer / HOSTS % HOSTS, viewer % HOSTS];
    Some(Ipv4Addr::new(127, b as u8 + 1, c as u8, d as u8 + 1).into())
}

/// Connects, from `source` if there is one.
///
/// # Errors
/// As the system says, or `TimedOut` after [`CONNECT_TIMEOUT`].
pub(crate) async fn connect(to: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = timeout(CONNECT_TIMEOUT, socket.connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Waits for bytes and takes up to `limit` of them off the socket without copying them
/// (`MSG_TRUNC`, tcp(7)); 0 at the end of the stream.
///
/// # Errors
/// As the system says.
pub(crate) async fn discard(stream: &TcpStream, limit: usize) -> io::Result<usize> {
    let limit = limit.min(DISCARD_BYTES);
    loop {
        stream.readable().await?;
        let mut taken = None;
        let read = stream.try_io(Interest::READABLE, || {
            let count = NOWHERE.with_borrow_mut(|nowhere| {
                SockRef::from(stream).recv_with_flags(&mut nowhere[..limit], libc::MSG_TRUNC)
            })?;
            taken = Some(count);
            if count > 0 && count < limit {
                // The socket is empty: saying so spares the system call that would find out.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        match (taken, read) {
            (Some(count), _) => return Ok(count),
            (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

/// The first address behind `host:port`.
///
/// # Errors
/// When the name has none.
pub(crate) async fn resolve(host_port: &str) -> Result<SocketAddr> {
    let mut found = tokio::net::lookup_host(host_port)
        .await
        .with_context(|| format!("cannot resolve {host_port}"))?;
    found.next().with_context(|| format!("{host_port} has no address"))
}

/// An `http://` or `rtmp://` address taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// `host:port`.
    pub(crate) authority: String,
    /// What follows, with its slash; empty when nothing does.
    pub(crate) path: String,
}

impl Url {
    /// Reads `scheme://host[:port][/path]`.
    ///
    /// # Errors
    /// When it is of another scheme or has no host.
    pub(crate) fn parse(text: &str, scheme: &str, default_port: u16) -> Result<Self> {
        let rest = text
            .strip_prefix(scheme)
            .and_then(|rest| rest.strip_prefix("://"))
            .with_context(|| format!("{text}: only {scheme}:// addresses are spoken here"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        ensure!(!authority.is_empty(), "{text}: there is no host");
        let has_port = authority.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
        let authority =
            if has_port { authority.to_owned() } else { format!("{authority}:{default_port}") };
        Ok(Self { authority, path: path.trim_end_matches('/').to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn every_viewer_has_an_address_of_its_own() {
        let target = SocketAddr::from(([127, 0, 0, 1], 80));
        let mut seen = std::collections::BTreeSet::new();
        for viewer in 0..100_000 {
            assert!(seen.insert(source(target, viewer).unwrap()), "viewer {viewer}");
        }
        assert_eq!(source(SocketAddr::from(([192, 0, 2, 1], 80)), 0), None);
    }

    #[test]
    fn addresses_are_taken_apart() {
        let url = Url::parse("http://edge:81/live/a/", "http", 80).unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("edge:81", "/live/a"));
        let url = Url::parse("rtmp://[::1]", "rtmp", 1935).unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("[::1]:1935", ""));
        assert!(Url::parse("https://edge", "http", 80).is_err());
        assert!(Url::parse("http:///x", "http", 80).is_err());
    }

    #[tokio::test]
    async fn discarding_counts_every_byte_and_sees_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            for _ in 0..3 {
                peer.write_all(&[7; 200_000]).await.unwrap();
                peer.read_exact(&mut byte).await.unwrap();
            }
        });
        let mut stream = connect(to, source(to, 5)).await.unwrap();
        for _ in 0..3 {
            let mut count = 0;
            while count < 200_000 {
                count += discard(&stream, 200_000 - count).await.unwrap();
            }
            stream.write_all(b"x").await.unwrap();
        }
        assert_eq!(discard(&stream, usize::MAX).await.unwrap(), 0);
        server.await.unwrap();
    }
}
