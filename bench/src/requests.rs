//! Asks for one document over and over on kept connections: what a server's requests cost it.
//!
//! In: a path, a number of connections and a process to watch. Out: requests, bytes, the server's
//! CPU-seconds and the times of a closed loop, each connection asking as soon as it has been answered.
//! Of an answer the head is read; the body is counted without being copied.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::process::{self, Usage};
use crate::report::{MAX_BUSY, Own, Quantiles};
use crate::{limits, net};

/// What is asked, of whom, how.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// The server.
    pub(crate) to: SocketAddr,
    /// The document.
    pub(crate) path: String,
    /// Connections, one request at a time on each.
    pub(crate) connections: u32,
    /// Before measuring.
    pub(crate) warmup: Duration,
    /// While measuring.
    pub(crate) measure: Duration,
    /// The server's process.
    pub(crate) pid: u32,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    /// Requests answered in full.
    pub(crate) requests: u64,
    /// Bytes of bodies.
    pub(crate) bytes: u64,
    /// The server's CPU-seconds.
    pub(crate) cpu_s: f64,
    /// From a request to its last byte.
    pub(crate) times: Option<Quantiles>,
    /// Why the figures cannot be believed.
    pub(crate) problems: Vec<String>,
}

/// The answer to any request takes no longer, or the run has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of an answer to be looked at: heads are shorter.
const LOOK_BYTES: usize = 2 * 1024;

/// Asks until the time is over.
///
/// # Errors
/// When an answer is not a 200 with a length, or the server is not there.
pub(crate) fn ask(load: &Load) -> Result<Answered> {
    limits::allow_sockets(u64::from(load.connections))?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(load))
}

/// Readings and counts that all connections share.
#[derive(Default)]
struct Counts {
    requests: std::cell::Cell<u64>,
    bytes: std::cell::Cell<u64>,
    times: std::cell::RefCell<Option<Histogram<u64>>>,
    failed: std::cell::RefCell<Option<anyhow::Error>>,
}

async fn run(load: &Load) -> Result<Answered> {
    let counts = Rc::new(Counts::default());
    for number in 0..load.connections {
        let (load, counts) = (load.clone(), Rc::clone(&counts));
        tokio::task::spawn_local(async move {
            let source = net::source(load.to, number);
            let asked = async {
                let mut socket = net::connect(load.to, source).await?;
                keep_asking(&mut socket, &load, &counts).await
            };
            if let Err(error) = asked.await {
                counts.failed.borrow_mut().get_or_insert(error);
            }
        });
    }
    sleep(load.warmup).await;
    *counts.times.borrow_mut() = Some(Histogram::new_with_bounds(1, 60_000_000, 3)?);
    let before = reading(load, &counts)?;
    sleep(load.measure).await;
    let after = reading(load, &counts)?;
    if let Some(error) = counts.failed.borrow_mut().take() {
        return Err(error.context(load.path.clone()));
    }
    let own = Own::between(before.own, after.own, after.at - before.at);
    let times = counts.times.borrow().as_ref().and_then(Quantiles::of);
    let cpu_s = after.server.cpu.saturating_sub(before.server.cpu).as_secs_f64();
    let mut problems = Vec::new();
    let requests = after.requests - before.requests;
    if requests == 0 {
        problems.push("partial: no request was answered".to_owned());
    }
    // A closed loop asks no faster than it can: a busy core costs requests, not truth, as long as the
    // server's own CPU is what is counted. A core taken away by something else is another matter.
    if own.waited > 1.0 - MAX_BUSY {
        let waited = own.waited * 100.0;
        problems.push(format!("invalid: the load generator waited {waited:.0} % for its core"));
    }
    Ok(Answered { requests, bytes: after.bytes - before.bytes, cpu_s, times, problems })
}

struct Reading {
    at: Instant,
    requests: u64,
    bytes: u64,
    server: Usage,
    own: process::OwnUsage,
}

fn reading(load: &Load, counts: &Counts) -> Result<Reading> {
    Ok(Reading {
        at: Instant::now(),
        requests: counts.requests.get(),
        bytes: counts.bytes.get(),
        server: process::usage(load.pid)?,
        own: process::own_usage(),
    })
}

async fn keep_asking(socket: &mut TcpStream, load: &Load, counts: &Counts) -> Result<()> {
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", load.path, load.to);
    let mut look = vec![0; LOOK_BYTES];
    loop {
        let asked = Instant::now();
        socket.write_all(request.as_bytes()).await?;
        let answer = answer(socket, &mut look);
        let body = timeout(ANSWER_TIMEOUT, answer).await.context("no answer in time")??;
        counts.requests.set(counts.requests.get() + 1);
        counts.bytes.set(counts.bytes.get() + body as u64);
        if let Some(times) = counts.times.borrow_mut().as_mut() {
            times.saturating_record(asked.elapsed().as_micros() as u64);
        }
    }
}

/// Takes one answer; returns the length of its body.
async fn answer(socket: &mut TcpStream, look: &mut [u8]) -> Result<usize> {
    let mut count = 0;
    let (head, body) = loop {
        let got = socket.read(&mut look[count..]).await?;
        ensure!(got > 0, "closed early");
        count += got;
        match length(&look[..count])? {
            Some(length) => break length,
            None => ensure!(count < look.len(), "a head too long"),
        }
    };
    while count < head + body {
        let got = net::discard(socket, head + body - count).await?;
        ensure!(got > 0, "closed early");
        count += got;
    }
    ensure!(count == head + body, "bytes behind an answer");
    Ok(body)
}

/// Lengths of the head and the body, once the head is whole.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else { return Ok(None) };
    ensure!(response.code == Some(200), "HTTP {}", response.code.unwrap_or_default());
    let body = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let Some(body) = body else { bail!("no Content-Length") };
    Ok(Some((head, std::str::from_utf8(body.value)?.trim().parse()?)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers every request of one connection with what `answer` says.
    fn server(answer: impl Fn(u32) -> String + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut buffer = [0; 1024];
            for number in 0.. {
                let Ok(1..) = peer.read(&mut buffer) else { return };
                if peer.write_all(answer(number).as_bytes()).is_err() {
                    return;
                }
            }
        });
        to
    }

    fn load(to: SocketAddr) -> Load {
        let pid = std::process::id();
        let (warmup, measure) = (Duration::from_millis(20), Duration::from_millis(50));
        Load { to, path: "/x".into(), connections: 1, warmup, measure, pid }
    }

    #[test]
    fn answers_are_counted_by_their_bodies() {
        let to = server(|_| "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".into());
        let answered = ask(&load(to)).unwrap();
        assert!(answered.requests > 0);
        assert_eq!(answered.bytes, answered.requests * 5);
        assert!(answered.times.unwrap().samples >= answered.requests);
    }

    #[test]
    fn one_bad_answer_fails_the_run() {
        let good = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let to = server(move |number| match number {
            3 => "HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nhello".into(),
            _ => good.into(),
        });
        assert!(format!("{:#}", ask(&load(to)).unwrap_err()).contains("503"));
    }
}
