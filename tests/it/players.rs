//! Encoders and players that people use: ffmpeg and GStreamer push, ffmpeg reads everything.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::process::{Ready, Tidewater};
use tests::publisher::Publisher;
use tests::{eventually, flv, hls, http, tool};

/// How long a player may take to find its feet and read a few seconds.
const LIMIT: Duration = Duration::from_secs(60);

async fn start() -> Result<(tempfile::TempDir, Tidewater, Ready)> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &["--edges", "2"]).await?;
    Ok((data, node, ready))
}

/// ffmpeg's arguments for a test picture and tone with these options, pushed to `to`.
fn push<'a>(to: &'a str, inputs: &[&'a str], options: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["-hide_banner", "-loglevel", "error", "-re"];
    args.extend_from_slice(inputs);
    args.extend_from_slice(options);
    args.extend(["-f", "flv", to]);
    args
}

const VIDEO: [&str; 4] = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30"];
const AUDIO: [&str; 4] = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"];

/// What ffprobe finds behind a URL: codec names by line.
async fn probe(url: &str) -> Result<String> {
    let args = ["-loglevel", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", url];
    Ok(tool::run("ffprobe", &args, LIMIT).await?.0)
}

/// Decodes three seconds; ffmpeg must not complain.
async fn decode(url: &str) -> Result<()> {
    let args = ["-loglevel", "warning", "-i", url, "-t", "3", "-f", "null", "-"];
    let (_, complaints) = tool::run("ffmpeg", &args, LIMIT).await?;
    // A live list has neither its beginning nor its end; everything else is a fault.
    let faults: Vec<_> = complaints
        .lines()
        .filter(|line| !line.contains("skipping") && !line.contains("Opening"))
        .collect();
    ensure!(faults.is_empty(), "{url}: {}", faults.join("\n"));
    Ok(())
}

async fn wait_for_playlist(edge: SocketAddr, room: &str) -> Result<()> {
    eventually("a media playlist", async || {
        let answer = http::get(edge, &format!("/{room}/main.m3u8")).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_pushes_as_obs_does_and_reads_hls_and_flv() -> Result<()> {
    let (_data, node, ready) = start().await?;
    let url = format!("rtmp://{}/live/obs", ready.rtmp);
    // OBS's defaults: key frame every 250 frames at most, B-frames, 48 kHz stereo.
    let obs = "-c:v libx264 -preset veryfast -g 250 -bf 2 -b:v 800k -c:a aac -ac 2 -b:a 128k";
    let options: Vec<_> = obs.split(' ').collect();
    let inputs = [VIDEO, AUDIO].concat();
    let mut encoder = tool::start("ffmpeg", &push(&url, &inputs, &options))?;
    let edge = ready.http[0];
    wait_for_playlist(edge, "live/obs").await?;
    let master = http::get(edge, "/live/obs.m3u8").await?.text();
    ensure!(master.contains("RESOLUTION=320x180"), "{master}");
    let found = probe(&format!("http://{edge}/live/obs.m3u8")).await?;
    ensure!(found.contains("h264") && found.contains("aac"), "{found}");
    decode(&format!("http://{edge}/live/obs.m3u8")).await?;
    decode(&format!("http://{}/live/obs.flv", ready.http[1])).await?;
    encoder.kill().await?;
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audio_only_and_video_only_play() -> Result<()> {
    let (_data, node, ready) = start().await?;
    let audio = format!("rtmp://{}/live/radio", ready.rtmp);
    let video = format!("rtmp://{}/live/mute", ready.rtmp);
    let mut radio = tool::start("ffmpeg", &push(&audio, &AUDIO, &["-c:a", "aac"]))?;
    let options = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "30", "-an"];
    let mut mute = tool::start("ffmpeg", &push(&video, &VIDEO, &options))?;
    for (room, present, absent) in [("live/radio", "aac", "h264"), ("live/mute", "h264", "aac")] {
        wait_for_playlist(ready.http[0], room).await?;
        let mut viewer = hls::Viewer::new(&ready.http, room);
        viewer.watch(|tally, _| tally.segments >= 3 && tally.parts >= 10).await?;
        for url in [format!("{room}.m3u8"), format!("{room}.flv")] {
            let found = probe(&format!("http://{}/{url}", ready.http[0])).await?;
            ensure!(found.contains(present) && !found.contains(absent), "{url}: {found}");
        }
    }
    radio.kill().await?;
    mute.kill().await?;
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gstreamer_pushes() -> Result<()> {
    let (_data, node, ready) = start().await?;
    let location = format!("location=rtmp://{}/live/gst", ready.rtmp);
    let pipeline = format!(
        "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1 \
         ! x264enc tune=zerolatency key-int-max=25 speed-preset=ultrafast ! h264parse \
         ! flvmux name=mux streamable=true ! rtmp2sink {location} \
         audiotestsrc is-live=true ! audioconvert ! avenc_aac ! aacparse ! mux."
    );
    let words: Vec<_> = pipeline.split_whitespace().collect();
    let mut encoder = tool::start("gst-launch-1.0", &[&["-q"], words.as_slice()].concat())?;
    wait_for_playlist(ready.http[0], "live/gst").await?;
    let mut viewer = hls::Viewer::new(&ready.http, "live/gst");
    viewer.watch(|tally, _| tally.segments >= 3).await?;
    let mut flv = flv::Viewer::connect(ready.http[1], "/live/gst.flv").await?;
    flv.watch(|seen| seen.video > 50 && seen.audio > 50).await?;
    encoder.kill().await?;
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_plays_every_protocol() -> Result<()> {
    let (_data, node, ready) = start().await?;
    let mut publisher = Publisher::connect(ready.rtmp, "live", "page").await?;
    let pushing = tokio::spawn(async move { publisher.send(Duration::from_secs(180)).await });
    wait_for_playlist(ready.http[0], "live/page").await?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../web/e2e/watch.mjs");
    let base = format!("http://{}", ready.http[0]);
    for protocol in ["llhls", "hls", "flv", "wsflv"] {
        let args = [script, "--base", &base, "--room", "live/page", "--protocol", protocol];
        let args = [&args[..], &["--seconds", "8"]].concat();
        let (said, _) = tool::run("node", &args, LIMIT).await?;
        let seen: serde_json::Value = serde_json::from_str(said.trim())?;
        ensure!(seen["ok"] == true && seen["stats"]["protocol"] == protocol, "{said}");
    }
    pushing.abort();
    node.kill().await
}
