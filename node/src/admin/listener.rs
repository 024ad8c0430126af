//! The sockets of `admin.listen` and `api.listen`.
//!
//! In: connections, cleartext or TLS. Out: requests with their [`Caller`] attached, answered by the
//! router. At most [`MAX_CONNECTIONS`] at once; further ones wait in the kernel's backlog. Slow heads
//! are closed after [`HEAD_TIMEOUT`].

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::guard::Caller;

/// Connections at once on one listener.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// How long a request's head, and a TLS handshake, may take.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after `accept` failed, as it does when the process has no descriptor left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `stop`, then finishes the requests in flight.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit.expect("never closed"),
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
                connections.spawn(async move {
                    if let Err(error) = connection(socket, peer, tls, router, stop).await {
                        tracing::debug!(%peer, %error, "admin connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin accept failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<tokio_rustls::TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let caller = Caller { peer, local: socket.local_addr()? };
    match tls {
        None => http(socket, caller, router, stop).await,
        Some(tls) => {
            let socket = tokio::time::timeout(HEAD_TIMEOUT, tls.accept(socket)).await??;
            http(socket, caller, router, stop).await
        }
    }
}

async fn http(
    socket: impl AsyncRead + AsyncWrite + Unpin,
    caller: Caller,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let service = TowerToHyperService::new(router.layer(Extension(caller)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    result.map_err(io::Error::other)
}
