//! Streams reach the service of their kind, in both directions, and bad ones cost themselves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wire::{
    Endpoint, Error, Limits, Metrics, Peer, Service, Stream, StreamKind,
    error::{CloseCode, ResetCode},
    service::Serving,
};

use crate::harness::{Cluster, Echo, Raw, echo, hello, until, within};

/// A service made of a closure.
struct Serve<F> {
    kinds: &'static [StreamKind],
    with: F,
}

impl<F> Serve<F>
where
    F: Fn(Arc<Peer>, Stream) -> Serving + Send + Sync + 'static,
{
    fn on(kinds: &'static [StreamKind], with: F) -> Arc<dyn Service> {
        Arc::new(Self { kinds, with })
    }
}

impl<F> Service for Serve<F>
where
    F: Fn(Arc<Peer>, Stream) -> Serving + Send + Sync + 'static,
{
    fn kinds(&self) -> &'static [StreamKind] {
        self.kinds
    }

    fn serve(self: Arc<Self>, peer: Arc<Peer>, stream: Stream) -> Serving {
        (self.with)(peer, stream)
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Question {
    number: u32,
    text: String,
}

#[tokio::test]
async fn streams_are_served_on_both_ends_of_one_connection() {
    let cluster = Cluster::new();
    let (subscriber, mut segments) = Echo::with_segments();
    // The home answers a subscription by opening segment streams towards the dialler.
    let home = Serve::on(&[StreamKind::Subscribe], |peer, mut stream| {
        Box::pin(async move {
            let question: Question = stream.receiver.read_message(100).await.unwrap().unwrap();
            for number in 0..question.number {
                let mut segment = peer.open_uni(StreamKind::Segment).await.unwrap();
                segment.set_priority(-1);
                let parts = [Bytes::from(number.to_string()), Bytes::from_static(b" of it")];
                segment.write_frame_parts(&parts).await.unwrap();
                segment.finish();
            }
            let (mut sender, _) = stream.both().unwrap();
            sender.write_message(&question).await.unwrap();
            sender.finish();
        })
    });
    let a = cluster.node_with("o1", hello("o1"), Limits::default(), vec![home]);
    let b = cluster.node_with("e1", hello("e1"), Limits::default(), vec![subscriber]);
    let peer = within(b.dial(&a)).await.unwrap();
    let (mut sender, mut receiver) = peer.open_bi(StreamKind::Subscribe).await.unwrap();
    let question = Question { number: 20, text: "all of it?".to_owned() };
    sender.write_message(&question).await.unwrap();
    sender.finish();
    let answer: Question = receiver.read_answer(100, Duration::from_secs(10)).await.unwrap();
    assert_eq!(answer, question);
    let mut seen = Vec::new();
    while seen.len() < 20 {
        seen.push(within(segments.recv()).await.unwrap());
    }
    seen.sort_by_key(|frame| frame.len());
    assert_eq!(seen.last().unwrap().len(), "19 of it".len());
}

#[tokio::test]
async fn serving_may_begin_after_the_first_dial_and_once() {
    let cluster = Cluster::new();
    let a = cluster.node("o1");
    let loopback = "127.0.0.1:0".parse().unwrap();
    let (identity, metrics) = (cluster.identity("e1"), Metrics::new());
    let late =
        Endpoint::bind(loopback, &identity, hello("e1"), Limits::default(), &metrics).unwrap();
    let peer = within(late.connect(&a.id, a.address)).await.unwrap();
    within(echo(&peer, "not serving yet")).await.unwrap();
    late.serve(vec![Echo::new()]).unwrap();
    let back = within(a.endpoint.connect(&late.node(), late.local_addr().unwrap())).await.unwrap();
    within(echo(&back, "serving")).await.unwrap();
    let again = late.serve(vec![]).unwrap_err();
    assert_eq!(again, Error::KindTaken { kind: StreamKind::Hello });
}

#[tokio::test]
async fn streams_nobody_serves_are_reset_and_counted() {
    let cluster = Cluster::new();
    let a = cluster.node("o1");
    let (_endpoint, raw) = Raw::greeted(&cluster, "e1", &a).await;
    let unknown = ResetCode::UnknownKind.number();
    let metric = "tidewater_wire_streams_refused_total";
    // An unknown kind; one nobody serves; a second hello; a one-way kind both ways.
    let cases = [(200u8, "unknown_kind"), (6, "no_service"), (0, "no_service"), (7, "wrong_way")];
    for (kind, _) in cases {
        let (mut send, mut recv) = raw.open_bi().await.unwrap();
        send.write_all(&[kind, 1, 2, 3]).await.unwrap();
        match within(recv.read_to_end(10)).await {
            Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => {
                assert_eq!(code.into_inner(), unknown, "kind {kind}");
            }
            other => panic!("kind {kind}: {other:?}"),
        }
    }
    assert_eq!(a.metric(metric, "unknown_kind"), 1.0);
    assert_eq!(a.metric(metric, "no_service"), 2.0);
    // A two-way kind one way.
    let mut send = raw.open_uni().await.unwrap();
    send.write_all(&[1]).await.unwrap();
    let stopped = within(send.stopped()).await.unwrap();
    assert_eq!(stopped.map(quinn::VarInt::into_inner), Some(unknown));
    assert_eq!(a.metric(metric, "wrong_way"), 2.0);
    // A stream that ends before its kind is nothing at all.
    let (mut send, mut recv) = raw.open_bi().await.unwrap();
    send.finish().unwrap();
    assert!(within(recv.read_to_end(10)).await.is_err());
    assert_eq!(a.metric(metric, ""), 5.0);

    let (mut send, mut recv) = raw.open_bi().await.unwrap();
    send.write_all(b"\x01\x05hello").await.unwrap();
    send.finish().unwrap();
    assert_eq!(within(recv.read_to_end(10)).await.unwrap(), b"\x05hello", "the link lives");
}

#[tokio::test]
async fn a_frame_over_its_limit_is_refused_before_its_bytes() {
    let cluster = Cluster::new();
    let (told, mut heard) = tokio::sync::mpsc::channel(8);
    let reader = Serve::on(&[StreamKind::Control], move |_, mut stream| {
        let told = told.clone();
        Box::pin(async move {
            let read = stream.receiver.read_message::<Question>(1000).await;
            let _ = told.send(read).await;
            // The way back stays open: only what the peer sends is refused.
            if let Some(sender) = &mut stream.sender {
                let _ = sender.stopped().await;
            }
        })
    });
    let a = cluster.node_with("o1", hello("o1"), Limits::default(), vec![reader]);
    let (_endpoint, raw) = Raw::greeted(&cluster, "e1", &a).await;
    let cases: [(&[u8], &str); 5] = [
        // 16 MiB declared, none sent: the reader does not wait for them.
        (b"\x01\xff\xff\xff\x07", "frame: 16777215 bytes are over the limit of 1000"),
        (b"\x01\xff\xff\xff\xff\xff\xff", "frame length: longer than 5 bytes"),
        (b"\x01\x81\x00x", "frame length: not in its shortest form"),
        (b"\x01\x02\x05\x09", "it::dispatch::Question: "),
        (b"\x01\x04\x05\x01aX", "it::dispatch::Question: 1 bytes too many"),
    ];
    for (bytes, expected) in cases {
        let (mut send, _recv) = raw.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let error = within(heard.recv()).await.unwrap().unwrap_err();
        assert!(error.to_string().starts_with(expected), "{bytes:?}: {error}");
        let stopped = within(send.stopped()).await.unwrap();
        let code = stopped.map(|code| ResetCode::from_number(code.into_inner()));
        assert_eq!(code, Some(ResetCode::BadMessage), "{bytes:?}");
    }
}

#[tokio::test]
async fn the_end_of_a_stream_is_told_from_its_loss() {
    let cluster = Cluster::new();
    let (told, mut heard) = tokio::sync::mpsc::channel(8);
    let reader = Serve::on(&[StreamKind::Control], move |_, mut stream| {
        let told = told.clone();
        Box::pin(async move {
            loop {
                let read = stream.receiver.read_frame(100).await;
                let is_last = !matches!(read, Ok(Some(_)));
                if told.send(read).await.is_err() || is_last {
                    return;
                }
            }
        })
    });
    let a = cluster.node_with("o1", hello("o1"), Limits::default(), vec![reader]);
    let b = cluster.node("e1");
    let peer = within(b.dial(&a)).await.unwrap();

    let (mut sender, _receiver) = peer.open_bi(StreamKind::Control).await.unwrap();
    sender.write_frame(Bytes::from_static(b"all")).await.unwrap();
    sender.finish();
    assert_eq!(within(heard.recv()).await.unwrap().unwrap().unwrap(), "all");
    assert_eq!(within(heard.recv()).await.unwrap(), Ok(None), "finished");

    let (mut sender, _receiver) = peer.open_bi(StreamKind::Control).await.unwrap();
    sender.write_frame(Bytes::from_static(b"some")).await.unwrap();
    assert_eq!(within(heard.recv()).await.unwrap().unwrap().unwrap(), "some");
    drop(sender);
    let lost = within(heard.recv()).await.unwrap();
    assert_eq!(lost, Err(Error::Reset(ResetCode::Cancelled)), "dropped");

    let (mut sender, _receiver) = peer.open_bi(StreamKind::Control).await.unwrap();
    sender.write_frame(Bytes::from_static(b"part")).await.unwrap();
    assert_eq!(within(heard.recv()).await.unwrap().unwrap().unwrap(), "part");
    sender.reset(ResetCode::OutOfWindow);
    let lost = within(heard.recv()).await.unwrap();
    assert_eq!(lost, Err(Error::Reset(ResetCode::OutOfWindow)), "reset with a reason");

    let (_endpoint, raw) = Raw::greeted(&cluster, "e2", &a).await;
    let (mut send, _recv) = raw.open_bi().await.unwrap();
    send.write_all(b"\x01\x09half").await.unwrap();
    send.finish().unwrap();
    let lost = within(heard.recv()).await.unwrap();
    assert_eq!(lost, Err(Error::Truncated { what: "frame" }), "torn");
}

#[tokio::test]
async fn a_read_that_is_given_up_loses_nothing() {
    let cluster = Cluster::new();
    let a = cluster.node("o1");
    let b = cluster.node("e1");
    let peer = within(b.dial(&a)).await.unwrap();
    let (mut sender, mut receiver) = peer.open_bi(StreamKind::Control).await.unwrap();
    let frame = Bytes::from(vec![7; 700_000]);
    let writing = tokio::spawn(async move {
        for _ in 0..3 {
            sender.write_frame(frame.clone()).await.unwrap();
        }
        sender.finish();
    });
    let mut frames = 0;
    within(async {
        loop {
            // Polled once and dropped, over and over, most often in the middle of a frame.
            let read = receiver.read_frame(1 << 20);
            let polled = tokio::select! {
                biased;
                read = read => Some(read),
                () = tokio::task::yield_now() => None,
            };
            match polled {
                Some(Ok(Some(frame))) => {
                    assert_eq!(frame.len(), 700_000);
                    frames += 1;
                }
                Some(Ok(None)) => break,
                Some(Err(error)) => panic!("{error}"),
                None => {}
            }
        }
    })
    .await;
    assert_eq!(frames, 3);
    within(writing).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_given_up() {
    let cluster = Cluster::new();
    let deaf = Serve::on(&[StreamKind::Control], |peer, stream| {
        Box::pin(async move {
            peer.closed().await;
            drop(stream);
        })
    });
    let a = cluster.node_with("o1", hello("o1"), Limits::default(), vec![deaf]);
    let b = cluster.node("e1");
    let peer = within(b.dial(&a)).await.unwrap();
    let (mut sender, _receiver) = peer.open_bi(StreamKind::Control).await.unwrap();
    sender.set_timeout(Duration::from_millis(50));
    let chunk = Bytes::from(vec![0; 1 << 20]);
    let error = within(async {
        loop {
            if let Err(error) = sender.write_frame(chunk.clone()).await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(!peer.is_closed());
}

#[tokio::test]
async fn a_service_that_panics_costs_its_stream_alone() {
    let cluster = Cluster::new();
    let faulty = Serve::on(&[StreamKind::Raft], |_, _| Box::pin(async { panic!("a bug") }));
    let a = cluster.node_with("o1", hello("o1"), Limits::default(), vec![faulty, Echo::new()]);
    let b = cluster.node("e1");
    let peer = within(b.dial(&a)).await.unwrap();
    let (_sender, mut receiver) = peer.open_bi(StreamKind::Raft).await.unwrap();
    let lost = within(receiver.read_frame(10)).await;
    assert_eq!(lost, Err(Error::Reset(ResetCode::Cancelled)));
    until("it is counted", || a.metric("tidewater_wire_services_failed_total", "") == 1.0).await;
    within(echo(&peer, "alive")).await.unwrap();
}

#[tokio::test]
async fn services_that_hold_on_are_bounded() {
    let cluster = Cluster::new();
    let started = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&started);
    // Lets go of the stream and stays: only the bound on tasks holds it back.
    let sticky = Serve::on(&[StreamKind::Control], move |_, stream| {
        counter.fetch_add(1, Ordering::Relaxed);
        drop(stream);
        Box::pin(std::future::pending())
    });
    let few = Limits { max_bidi_streams: 4, receive_window_bytes: 1 << 16, ..Limits::default() };
    let room = 4 + few.max_uni_streams() as usize;
    let a = cluster.node_with("o1", hello("o1"), few, vec![sticky]);
    let b = cluster.node("e1");
    let peer = within(b.dial(&a)).await.unwrap();
    for number in 0..room + 3 {
        let (_sender, mut receiver) = within(peer.open_bi(StreamKind::Control)).await.unwrap();
        let lost = within(receiver.read_frame(10)).await.unwrap_err();
        let expected = if number < room { ResetCode::Cancelled } else { ResetCode::Busy };
        assert_eq!(lost, Error::Reset(expected), "stream {number}");
    }
    assert_eq!(started.load(Ordering::Relaxed), room);
    assert_eq!(a.metric("tidewater_wire_streams_refused_total", "busy"), 3.0);
}

#[tokio::test]
async fn services_see_their_connection_end_and_cannot_outlive_it() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let cluster = Cluster::new();
    let (polite, stubborn) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (seen, dropped) = (Arc::clone(&polite), Arc::clone(&stubborn));
    let started = Arc::new(AtomicUsize::new(0));
    let (first, second) = (Arc::clone(&started), Arc::clone(&started));
    let reads = Serve::on(&[StreamKind::Control], move |_, mut stream| {
        let seen = Arc::clone(&seen);
        first.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let error = stream.receiver.read_frame(10).await.unwrap_err();
            assert!(error.is_peer_gone());
            seen.store(true, Ordering::Release);
        })
    });
    let hangs = Serve::on(&[StreamKind::Raft], move |_, stream| {
        let flag = Flag(Arc::clone(&dropped));
        second.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let _held = (stream, flag);
            std::future::pending::<()>().await;
        })
    });
    let a = cluster.node_with("o1", hello("o1"), Limits::default(), vec![reads, hangs]);
    let b = cluster.node("e1");
    let peer = within(b.dial(&a)).await.unwrap();
    let _first = peer.open_bi(StreamKind::Control).await.unwrap();
    let _second = peer.open_bi(StreamKind::Raft).await.unwrap();
    until("both are served", || started.load(Ordering::Relaxed) == 2).await;
    peer.close(CloseCode::Unneeded, "bye");
    until("the one that reads has ended", || polite.load(Ordering::Acquire)).await;
    until("the one that hangs was aborted", || stubborn.load(Ordering::Acquire)).await;
}
