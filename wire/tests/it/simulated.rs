//! QUIC over a simulated network: what [`wire::Endpoint::bind_abstract`] stands on in a simulation.
//!
//! In: a turmoil host. Out: an [`Under`] whose packets, clock and timers are the simulation's. Seeded,
//! so that what QUIC draws by lot repeats too. Needs nothing else of these tests, so that simulations
//! of other crates can include this file.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Instant,
};

use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use wire::endpoint::Under;

/// Binds a simulated UDP port of the current host.
pub(crate) async fn under(port: u16, seed: [u8; 32]) -> io::Result<Under> {
    let io = turmoil::net::UdpSocket::bind(("0.0.0.0", port)).await?;
    let socket = Arc::new(Socket { io: Arc::new(io), readable: Mutex::default() });
    Ok(Under { socket, runtime: Arc::new(Clock), seed: Some(seed) })
}

type Readable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

struct Socket {
    io: Arc<turmoil::net::UdpSocket>,
    readable: Mutex<Option<Readable>>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated UDP socket")
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // A packet to nowhere is lost, as on a real network.
        let _ = self.io.try_send_to(transmit.contents, transmit.destination);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.io.try_recv_from(&mut buffers[0]) {
                Ok((length, from)) => {
                    let mut received = RecvMeta::default();
                    (received.addr, received.len, received.stride) = (from, length, length);
                    meta[0] = received;
                    return Poll::Ready(Ok(1));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut readable = self.readable.lock().unwrap();
                    let waiting = readable.get_or_insert_with(|| {
                        let io = Arc::clone(&self.io);
                        Box::pin(async move { io.readable().await })
                    });
                    let ready = ready!(waiting.as_mut().poll(cx));
                    *readable = None;
                    ready?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug)]
struct Clock;

impl Runtime for Clock {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::other("a simulation has no real sockets"))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}
