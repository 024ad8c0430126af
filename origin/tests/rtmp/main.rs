//! The RTMP listener over real sockets: pushes of `ffmpeg` and of a client made by hand, and all the
//! ways in which they end.
//!
//! `ffmpeg` must be installed (`make setup` does).

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod pusher;

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use media::amf0::{self, Amf0};
use origin::{
    metrics::Metrics,
    rtmp::{
        Config, End, IngestMessage, Intake, Listener, Publication, PublishRequest, Publishes,
        Refusal,
    },
};
use prometheus::{IntCounterVec, Opts, Registry};
use pusher::Pusher;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Nothing here takes long; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Rooms that hand every publish to the test. What happens depends on the name of the room.
struct Rooms {
    opened: mpsc::Sender<(PublishRequest, Intake)>,
}

impl Publishes for Rooms {
    async fn open(&self, request: PublishRequest) -> Result<Publication, Refusal> {
        let (publication, intake) = Publication::new();
        let name = request.room.name().to_owned();
        let busy = Refusal::busy(&request.room);
        self.opened.send((request, intake)).await.unwrap();
        match name.as_str() {
            "busy" => Err(busy),
            "panic" => panic!("asked for by the test"),
            "held" => std::future::pending().await,
            _ => Ok(publication),
        }
    }
}

struct Server {
    address: SocketAddr,
    opened: mpsc::Receiver<(PublishRequest, Intake)>,
    metrics: Arc<Metrics>,
    refused: IntCounterVec,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        let options = Opts::new("tidewater_refused_total", "Refused peers.");
        let refused = IntCounterVec::new(options, &["role", "reason"]).unwrap();
        let metrics = Arc::new(Metrics::register(&Registry::new(), refused.clone()).unwrap());
        let (sender, opened) = mpsc::channel(16);
        let rooms = Arc::new(Rooms { opened: sender });
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..config };
        let listener = Listener::bind(config, rooms, Arc::clone(&metrics)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(listener.run(shutdown.clone()));
        Self { address, opened, metrics, refused, shutdown, running }
    }

    async fn opened(&mut self) -> (PublishRequest, Intake) {
        timeout(PATIENCE, self.opened.recv()).await.expect("a publish").expect("a server")
    }

    fn refused(&self, reason: &str) -> u64 {
        self.refused.with_label_values(&["origin", reason]).get()
    }

    async fn eventually(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

/// All that came of a push.
#[derive(Default)]
struct Received {
    video: Vec<(u32, Bytes)>,
    audio: Vec<(u32, Bytes)>,
    metadata: Vec<Amf0>,
    end: Option<End>,
}

impl Received {
    async fn all_of(intake: &mut Intake) -> Self {
        let mut received = Self::default();
        while let Some(message) = timeout(PATIENCE, intake.recv()).await.expect("the end") {
            match message {
                IngestMessage::Video { timestamp_ms, payload } => {
                    received.video.push((timestamp_ms, payload));
                }
                IngestMessage::Audio { timestamp_ms, payload } => {
                    received.audio.push((timestamp_ms, payload));
                }
                IngestMessage::Metadata { payload, .. } => {
                    let mut values = amf0::read_all(&payload).unwrap();
                    assert_eq!(values[0].as_str(), Some("onMetaData"));
                    received.metadata.push(values.remove(1));
                }
                IngestMessage::Numbered { .. } => panic!("no encoder sends this"),
            }
        }
        received.end = Some(intake.end());
        received
    }
}

/// Two seconds of picture at 25 fps.
const PICTURE: &str = "-f lavfi -i testsrc=size=320x180:rate=25:duration=2";
/// Two seconds of tone.
const TONE: &str = "-f lavfi -i sine=sample_rate=48000:duration=2";
/// What OBS does by default: B-frames and long GOPs.
const H264: &str = "-c:v libx264 -preset veryfast -bf 2 -g 250 -pix_fmt yuv420p";
const AAC: &str = "-c:a aac";

/// Runs ffmpeg with a push to `path`.
async fn ffmpeg(address: SocketAddr, options: &[&str], path: &str) -> Output {
    let options = options.iter().flat_map(|options| options.split(' '));
    let url = format!("rtmp://{address}/{path}");
    let ffmpeg = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-loglevel", "verbose"])
        .args(options)
        .args(["-f", "flv", &url])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, ffmpeg).await.expect("ffmpeg ends");
    output.expect("ffmpeg is installed; `make setup` installs it")
}

/// Pushes with ffmpeg and gives all that arrived.
async fn pushed(options: &[&str], path: &str) -> (PublishRequest, Received) {
    let mut server = Server::start().await;
    let push = ffmpeg(server.address, options, path);
    let receive = async {
        let (request, mut intake) = server.opened().await;
        (request, Received::all_of(&mut intake).await)
    };
    let (output, received) = tokio::join!(push, receive);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server.eventually("no publisher left", |server| server.metrics.publishers.get() == 0).await;
    assert!(server.metrics.received_bytes.get() > 3073);
    received
}

#[tokio::test]
async fn ffmpeg_pushes_picture_and_sound() {
    let options = [PICTURE, TONE, H264, AAC];
    let (request, received) = pushed(&options, "live/x?token=s3cret").await;
    assert_eq!(request.room.as_str(), "live/x");
    assert_eq!(request.token.as_deref(), Some("s3cret"));
    assert!(request.encoder.starts_with("FMLE/3.0 (compatible; Lavf"), "{}", request.encoder);
    assert_eq!(received.end, Some(End::Unpublished));
    let metadata = &received.metadata[0];
    assert_eq!(metadata.get("width"), Some(&Amf0::from(320.0)));
    assert_eq!(metadata.get("audiosamplerate"), Some(&Amf0::from(48_000.0)));
    // Tag bodies: the AVC configuration first, then 50 frames, of which the first is a key frame.
    assert_eq!(received.video[0].1[..5], [0x17, 0, 0, 0, 0]);
    let frames: Vec<_> = received.video.iter().filter(|(_, body)| body[1] == 1).collect();
    assert_eq!(frames.len(), 50);
    let steps = frames.windows(2).all(|pair| pair[1].0 - pair[0].0 == 40);
    assert!(steps, "decode times are 40 ms apart");
    let offsets = frames.iter().any(|(_, body)| body[2..5] != frames[0].1[2..5]);
    assert!(offsets, "B-frames have composition times of their own");
    // The AAC configuration, then 2 s of 1024 samples at 48 kHz, and the encoder's priming.
    assert_eq!(received.audio[0].1[..2], [0xaf, 0]);
    let frames = received.audio.iter().filter(|(_, body)| body[1] == 1).count();
    assert!((94..=96).contains(&frames), "{frames} audio frames");
}

#[tokio::test]
async fn ffmpeg_pushes_sound_alone_with_the_token_in_the_app() {
    let (request, received) = pushed(&[TONE, AAC], "live?token=s3cret/x").await;
    assert_eq!(request.room.as_str(), "live/x");
    assert_eq!(request.token.as_deref(), Some("s3cret"));
    assert!(received.video.is_empty());
    assert!(received.audio.len() > 94);
}

#[tokio::test]
async fn ffmpeg_pushes_picture_alone() {
    let (request, received) = pushed(&[PICTURE, H264], "live/x").await;
    assert_eq!(request.room.as_str(), "live/x");
    assert_eq!(request.token, None);
    assert!(received.audio.is_empty());
    assert!(received.video.len() > 50);
}

#[tokio::test]
async fn ffmpeg_is_told_that_a_room_is_busy() {
    let mut server = Server::start().await;
    let push = ffmpeg(server.address, &[TONE, AAC], "live/busy");
    let (output, _) = tokio::join!(push, server.opened());
    assert!(!output.status.success());
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("live/busy is being published by another encoder"), "{log}");
    assert_eq!(server.refused("busy"), 1);
}

#[tokio::test]
async fn a_refused_push_hears_the_code_and_is_disconnected() {
    let server = Server::start().await;
    for (app, key, reason) in [
        ("live", "busy", "busy"),
        ("live", "bad name", "bad_name"),
        ("api", "x", "bad_name"),
        ("a/b", "c", "bad_name"),
        ("live", "", "bad_name"),
    ] {
        let before = server.refused(reason);
        let mut pusher = Pusher::connect(server.address, app).await;
        pusher.request(key).await;
        let code = timeout(PATIENCE, pusher.refused()).await.unwrap();
        assert_eq!(code, "NetStream.Publish.BadName", "{app} {key}");
        server.eventually("counted", |server| server.refused(reason) == before + 1).await;
    }
}

#[tokio::test]
async fn a_kick_reaches_the_encoder_and_a_dropped_intake_is_one() {
    let mut server = Server::start().await;
    let pusher = Pusher::publish(server.address, "live", "x").await;
    let (_, mut intake) = server.opened().await;
    assert_eq!(server.metrics.publishers.get(), 1);
    intake.kick(Refusal::kicked("enough"));
    assert_eq!(timeout(PATIENCE, pusher.refused()).await.unwrap(), "NetStream.Publish.Rejected");
    assert_eq!(Received::all_of(&mut intake).await.end, Some(End::Kicked));
    assert_eq!(server.refused("kicked"), 1);

    let pusher = Pusher::publish(server.address, "live", "y").await;
    let (_, intake) = server.opened().await;
    drop(intake);
    assert_eq!(timeout(PATIENCE, pusher.refused()).await.unwrap(), "NetStream.Publish.Rejected");
    server.eventually("no publisher left", |server| server.metrics.publishers.get() == 0).await;
}

#[tokio::test]
async fn an_encoder_that_goes_away_ends_its_push() {
    let mut server = Server::start().await;
    let mut pusher = Pusher::publish(server.address, "live", "x").await;
    pusher.video(1, Bytes::from_static(b"v")).await;
    drop(pusher);
    let (_, mut intake) = server.opened().await;
    let received = Received::all_of(&mut intake).await;
    assert_eq!(received.video, [(1, Bytes::from_static(b"v"))]);
    assert_eq!(received.end, Some(End::Disconnected));
    assert_eq!(server.metrics.publishers.get(), 0);
}

#[tokio::test]
async fn an_encoder_that_goes_away_while_its_room_is_sought_is_noticed() {
    let mut server = Server::start().await;
    let mut pusher = Pusher::connect(server.address, "live").await;
    pusher.request("held").await;
    let (_, mut intake) = server.opened().await;
    drop(pusher);
    // The other end was in the future that is dropped.
    assert_eq!(timeout(PATIENCE, intake.recv()).await.unwrap(), None);
    let gone = |server: &Server| server.metrics.rtmp_connections.get() == 0;
    server.eventually("no connection left", gone).await;
    assert_eq!(server.refused("unavailable"), 0, "noticed, not timed out");
}

#[tokio::test]
async fn a_panic_costs_one_connection() {
    let mut server = Server::start().await;
    let mut other = Pusher::publish(server.address, "live", "x").await;
    let (_, mut intake) = server.opened().await;
    let mut pusher = Pusher::connect(server.address, "live").await;
    pusher.request("panic").await;
    timeout(PATIENCE, pusher.closed()).await.unwrap();
    other.video(7, Bytes::from_static(b"v")).await;
    let message = timeout(PATIENCE, intake.recv()).await.unwrap();
    assert!(matches!(message, Some(IngestMessage::Video { timestamp_ms: 7, .. })));
    let gone = |server: &Server| server.metrics.rtmp_connections.get() == 1;
    server.eventually("its connection is not counted any more", gone).await;
}

#[tokio::test]
async fn other_protocols_and_broken_bytes_are_counted_and_dropped() {
    let server = Server::start().await;
    let hello = [&[3][..], &[0; 3072]].concat();
    let garbage = [&hello[..], &[0xff; 100]].concat();
    // A chunk size of 16 MiB.
    let chunk_size = [&hello[..], b"\x02\0\0\0\0\0\x04\x01\0\0\0\0\x01\0\0\0"].concat();
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "not_rtmp"),
        (b"\x16\x03\x01\x02\0\x01", "not_rtmp"),
        (&garbage, "protocol"),
        (&chunk_size, "too_large"),
    ] {
        let before = server.refused(reason);
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // Reset or closed, both are fine.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
        server.eventually(reason, |server| server.refused(reason) == before + 1).await;
    }
}

#[tokio::test]
async fn addresses_and_the_listener_have_their_limits() {
    let config = Config { max_connections_per_ip: 2, max_connections: 3, ..Config::default() };
    let server = Server::with(config).await;
    let first = Pusher::connect(server.address, "live").await;
    let _second = Pusher::connect(server.address, "live").await;
    let mut third = TcpStream::connect(server.address).await.unwrap();
    let closed = timeout(PATIENCE, third.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "over the limit of its address");
    assert_eq!(server.refused("too_many_connections"), 1);
    drop(first);
    server.eventually("one left", |server| server.metrics.rtmp_connections.get() == 1).await;
    Pusher::connect(server.address, "live").await;

    let config = Config { max_connections_per_ip: 0, max_connections: 1, ..Config::default() };
    let server = Server::with(config).await;
    let first = Pusher::connect(server.address, "live").await;
    let waiting = Pusher::connect(server.address, "live");
    tokio::pin!(waiting);
    // It connects, since the system's queue takes it, but nobody talks to it before the first left.
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("accepted over the limit"),
        () = server.eventually("one", |server| server.metrics.rtmp_connections.get() == 1) => {}
    }
    drop(first);
    timeout(PATIENCE, waiting).await.expect("accepted once there is room");
}

#[tokio::test(start_paused = true)]
async fn silent_peers_are_dropped() {
    // Time jumps whenever all wait.
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(server.refused("timeout"), 1);
}

#[tokio::test]
async fn a_slow_room_slows_the_encoder_and_loses_nothing() {
    const MESSAGES: u32 = 48;
    const BYTES: usize = 1 << 20;
    let mut server = Server::start().await;
    let mut pusher = Pusher::publish(server.address, "live", "x").await;
    let (_, mut intake) = server.opened().await;
    let push = tokio::spawn(async move {
        for timestamp_ms in 0..MESSAGES {
            pusher.video(timestamp_ms, Bytes::from(vec![timestamp_ms as u8; BYTES])).await;
        }
        pusher.unpublish().await;
        // Kept: closing with unread acknowledgements would reset the connection.
        pusher
    });
    let full = origin::rtmp::publication::QUEUE_BYTES as u64;
    server.eventually("full", |server| server.metrics.received_bytes.get() > full).await;
    assert!(!push.is_finished(), "more than the queue and the sockets hold");
    let received = Received::all_of(&mut intake).await;
    drop(push.await.unwrap());
    assert_eq!(received.end, Some(End::Unpublished));
    assert_eq!(received.video.len(), MESSAGES as usize);
    let in_order = (0..).zip(&received.video).all(|(expected, (timestamp_ms, payload))| {
        *timestamp_ms == expected && payload.len() == BYTES && payload[0] == expected as u8
    });
    assert!(in_order);
}

#[tokio::test]
async fn shutdown_tells_encoders_and_ends() {
    let mut server = Server::start().await;
    let pusher = Pusher::publish(server.address, "live", "x").await;
    let mut idle = Pusher::connect(server.address, "live").await;
    let (_, mut intake) = server.opened().await;
    server.shutdown.cancel();
    assert_eq!(timeout(PATIENCE, pusher.refused()).await.unwrap(), "NetStream.Publish.Rejected");
    timeout(PATIENCE, idle.closed()).await.unwrap();
    assert_eq!(Received::all_of(&mut intake).await.end, Some(End::ShuttingDown));
    timeout(PATIENCE, server.running).await.expect("run() returns").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is closed");
    assert_eq!(server.refused.with_label_values(&["origin", "shutting_down"]).get(), 0);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_slow_room() {
    let mut server = Server::start().await;
    let mut pusher = Pusher::publish(server.address, "live", "x").await;
    let (_, mut intake) = server.opened().await;
    let push = tokio::spawn(async move {
        // More than the queue and the sockets hold, so it ends with the connection.
        for timestamp_ms in 0.. {
            if !pusher.try_video(timestamp_ms, Bytes::from(vec![0; 1 << 20])).await {
                break;
            }
        }
    });
    let full = origin::rtmp::publication::QUEUE_BYTES as u64;
    server.eventually("full", |server| server.metrics.received_bytes.get() > full).await;
    server.shutdown.cancel();
    timeout(PATIENCE, server.running).await.expect("run() returns").unwrap();
    push.await.unwrap();
    assert_eq!(Received::all_of(&mut intake).await.end, Some(End::ShuttingDown));
}
