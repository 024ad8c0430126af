//! Breaks a real cluster, again and again, and prints what each failure cost its viewers.
//!
//! In: the namespaces that `scripts/faults.sh` has laid out, one a node, this process beside them.
//! Out: one row a failure: what is promised, and the longest gap in HTTP-FLV and the longest time a
//! playlist stood still, p50 and p99 over `RUNS` runs, with every refusal and lowered number counted.
//! Three nodes are control and origin, two edges stand in one region, the third in another.
//!
//! It prints measurements and asserts nothing about time: the reader compares. It fails if a number
//! was lowered or the cluster did not come back.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tests::publisher::Publisher;
use tests::{flv, http};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// The nodes and the last byte of their addresses in 10.77.0.0/24.
const NODES: [(&str, u8); 6] =
    [("o1", 11), ("o2", 12), ("o3", 13), ("e1", 21), ("e2", 22), ("e3", 23)];
/// How long an encoder waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(1);
/// How long an HTTP-FLV player sees nothing before it tries another edge.
const PLAYER_PATIENCE: Duration = Duration::from_secs(3);
/// How often the playlist is read.
const POLL: Duration = Duration::from_millis(100);
/// How long viewers are watched after a failure.
const AFTERMATH: Duration = Duration::from_secs(7);
/// How long a fault that ends lasts.
const SPELL: Duration = Duration::from_secs(5);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// One kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    HomeDies,
    HomeAndIngestDie,
    LeaderDies,
    EdgeDies,
    HomeStops,
    HomeIsMute,
    DiskFull,
    Drain,
    Rolling,
}

impl Fault {
    const ALL: [Self; 9] = [
        Self::HomeDies,
        Self::HomeAndIngestDie,
        Self::LeaderDies,
        Self::EdgeDies,
        Self::HomeStops,
        Self::HomeIsMute,
        Self::DiskFull,
        Self::Drain,
        Self::Rolling,
    ];

    /// Its short name, what happens, and what viewers are promised.
    const fn told(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::HomeDies => ("home", "kill -9 the home, ingest elsewhere", "≤ 3 s"),
            Self::HomeAndIngestDie => {
                ("ingest", "kill -9 home and ingest, encoder back after 1 s", "≤ 3 s")
            }
            Self::LeaderDies => ("leader", "kill -9 the Raft leader", "nothing; new leader ≤ 2 s"),
            Self::EdgeDies => ("edge", "kill -9 an edge, its viewers go to another", "≤ 3 s"),
            Self::HomeStops => ("stop", "SIGSTOP the home 5 s, ingest elsewhere", "≤ 3 s"),
            Self::HomeIsMute => ("mute", "drop all the home sends 5 s, ingest elsewhere", "≤ 3 s"),
            Self::DiskFull => ("disk", "the leader's disk is full 5 s", "nothing"),
            Self::Drain => ("drain", "drain the home, ingest elsewhere", "≤ 1 s"),
            Self::Rolling => ("rolling", "restart all six nodes one by one", "no error, ≤ 1 s"),
        }
    }
}

/// A node in its namespace.
struct Node {
    id: &'static str,
    ip: Ipv4Addr,
    child: Option<Child>,
}

/// The cluster, and where its files are.
struct Lab {
    work: PathBuf,
    binary: PathBuf,
    nodes: Vec<Node>,
}

impl Lab {
    fn at(&self, id: &str, port: u16) -> SocketAddr {
        let found = NODES.iter().find(|(name, _)| *name == id).map_or(0, |(_, host)| *host);
        (Ipv4Addr::new(10, 77, 0, found), port).into()
    }

    fn node(&mut self, id: &str) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.id == id).context("a node of the table")
    }

    fn write_config(&self, id: &str, ip: Ipv4Addr) -> Result<()> {
        let is_origin = id.starts_with('o');
        let roles = if is_origin { r#""control", "origin""# } else { r#""edge""# };
        let region = if id == "e3" { "us" } else { "eu" };
        let control: Vec<String> = NODES[..3]
            .iter()
            .map(|(name, host)| format!("\"{name}@10.77.0.{host}:7400\""))
            .collect();
        let control = control.join(", ");
        let text = format!(
            r#"
[node]
id = "{id}"
region = "{region}"
data = "data/{id}"
roles = [{roles}]
shutdown_grace = "2s"
[cluster]
listen = "{ip}:7400"
control = [{control}]
ca = "certs/ca.pem"
cert = "certs/{id}.pem"
key = "certs/{id}.key"
[http]
advertise = "http://{ip}:8080"
[auth]
publish = "open"
allow_guests = true
"#
        );
        Ok(fs::write(self.work.join(format!("{id}.toml")), text)?)
    }

    /// Starts a node in its namespace; `ip netns exec` becomes the node, so its pid is the node's.
    fn start(&mut self, id: &'static str) -> Result<()> {
        let log = self.work.join(format!("{id}.log"));
        let log = fs::File::options().create(true).append(true).open(log)?;
        let child = Command::new("ip")
            .args(["netns", "exec", &format!("tw-{id}")])
            .arg(&self.binary)
            .args(["run", "--config"])
            .arg(self.work.join(format!("{id}.toml")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.node(id)?.child = Some(child);
        Ok(())
    }

    async fn kill(&mut self, id: &str) -> Result<()> {
        let mut child = self.node(id)?.child.take().context("it runs")?;
        Ok(child.kill().await?)
    }

    /// Ends a node well and starts it again.
    async fn restart(&mut self, id: &'static str) -> Result<()> {
        self.signal(id, "TERM").await?;
        let mut child = self.node(id)?.child.take().context("it runs")?;
        timeout(PATIENCE, child.wait()).await.with_context(|| format!("{id} does not end"))??;
        self.start(id)
    }

    async fn signal(&mut self, id: &str, signal: &str) -> Result<()> {
        let child = self.node(id)?.child.as_ref().and_then(Child::id);
        let pid = child.context("it runs")?.to_string();
        run("kill", &[&format!("-{signal}"), &pid]).await.map(drop)
    }

    /// A command of the binary at a node, in its namespace.
    async fn command(&self, at: &str, args: &[&str]) -> Result<String> {
        let ns = format!("tw-{at}");
        let binary = self.binary.to_str().context("a path")?;
        run("ip", &[&["netns", "exec", &ns, binary], args].concat()).await
    }

    async fn status(&self) -> Result<serde_json::Value> {
        let out = self.command("e3", &["cluster", "status", "--json"]).await?;
        Ok(serde_json::from_str(&out)?)
    }

    async fn leader(&self) -> Option<String> {
        Some(self.status().await.ok()?["leader"].as_str()?.to_owned())
    }

    /// Waits until every node is up and one leads.
    async fn whole(&self) -> Result<String> {
        let begun = Instant::now();
        let mut last = serde_json::Value::Null;
        while begun.elapsed() < PATIENCE {
            if let Ok(status) = self.status().await {
                let rows = status["nodes"].as_array().cloned().unwrap_or_default();
                let up = rows.iter().filter(|node| node["state"] == "up").count();
                if let (true, Some(leader)) = (up == NODES.len(), status["leader"].as_str()) {
                    return Ok(leader.to_owned());
                }
                last = status;
            }
            sleep(POLL).await;
        }
        bail!("the cluster did not come back: {last}")
    }

    async fn ready(&self, id: &str) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let told = self.command(id, &["cluster", "status", "--json"]).await.ok();
            let row = told.and_then(|told| serde_json::from_str(&told).ok());
            let up = row.is_some_and(|status: serde_json::Value| {
                let rows = status["nodes"].as_array().cloned().unwrap_or_default();
                rows.iter().any(|node| node["id"] == id && node["state"] == "up")
            });
            if up {
                return Ok(());
            }
            sleep(POLL).await;
        }
        bail!("{id} does not come back")
    }
}

async fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).kill_on_drop(true).output();
    let output = timeout(PATIENCE, output).await.with_context(|| format!("{args:?} hangs"))??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {args:?}: {error}");
    Ok(text)
}

/// What the viewers of one run have seen since the fault.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// The longest time without a video frame.
    flv: Duration,
    flv_again: u32,
    /// The longest time in which no edge's playlist grew.
    playlist: Duration,
    refusals: u32,
    lowered: u32,
    /// How long it took until another one led.
    led: Option<Duration>,
}

type Shared = Arc<Mutex<Seen>>;

fn note(shared: &Shared, change: impl FnOnce(&mut Seen)) {
    change(&mut shared.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Plays HTTP-FLV and, when it ends or hangs, tries the next edge.
async fn watch_flv(edges: Vec<SocketAddr>, room: String, seen: Shared) {
    let path = format!("/{room}.flv");
    let mut last = None;
    for edge in edges.iter().cycle() {
        if let Ok(Ok(mut viewer)) =
            timeout(PLAYER_PATIENCE, flv::Viewer::connect(*edge, &path)).await
        {
            loop {
                let before = viewer.seen().video;
                let more = viewer.watch(|seen| seen.video > before);
                let Ok(Ok(now)) = timeout(PLAYER_PATIENCE, more).await else { break };
                if now.ended {
                    break;
                }
                let now = Instant::now();
                let gap = last.map_or(Duration::ZERO, |last| now - last);
                last = Some(now);
                note(&seen, |seen| seen.flv = seen.flv.max(gap));
            }
        }
        note(&seen, |seen| seen.flv_again += 1);
        sleep(POLL).await;
    }
}

/// Reads the playlist of the edges in turn. One that cannot be reached is tried no more for a while,
/// as a player does; one that answers must answer 200 and never a lower number.
async fn watch_playlist(edges: Vec<SocketAddr>, room: String, seen: Shared) {
    let path = format!("/{room}/main.m3u8");
    let mut newest = (0, 0);
    let mut lowest = vec![0; edges.len()];
    let mut grown = Instant::now();
    loop {
        for (edge, lowest) in edges.iter().zip(&mut lowest) {
            sleep(POLL).await;
            let answer = timeout(PLAYER_PATIENCE, http::get(*edge, &path)).await;
            let Ok(Ok(answer)) = answer else { continue };
            if answer.status != 200 {
                note(&seen, |seen| seen.refusals += 1);
                continue;
            }
            let text = answer.text();
            let first: u64 = text
                .lines()
                .find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:")?.trim().parse().ok())
                .unwrap_or(0);
            let count =
                |tag: &str| text.lines().filter(|line| line.starts_with(tag)).count() as u64;
            let last_extinf = text.rfind("#EXTINF").unwrap_or(0);
            let tail = text[last_extinf..].matches("#EXT-X-PART:").count() as u64;
            let head = (first + count("#EXTINF"), tail);
            note(&seen, |seen| seen.lowered += u32::from(first < *lowest));
            *lowest = first.max(*lowest);
            if head > newest {
                newest = head;
                grown = Instant::now();
            }
            note(&seen, |seen| seen.playlist = seen.playlist.max(grown.elapsed()));
        }
    }
}

/// Pushes, and when the connection ends pushes again to the next origin, as an encoder does.
fn push(origins: Vec<SocketAddr>, name: String) -> JoinHandle<()> {
    tokio::spawn(async move {
        for origin in origins.iter().cycle() {
            if let Ok(Ok(mut publisher)) =
                timeout(PATIENCE, Publisher::connect(*origin, "live", &name)).await
            {
                let _ = publisher.send(Duration::from_secs(600)).await;
            }
            sleep(RECONNECT).await;
        }
    })
}

/// Who plays which part in a run.
struct Cast {
    leader: &'static str,
    home: &'static str,
    ingest: &'static str,
}

fn cast(fault: Fault, leader: &str) -> Cast {
    let origins = ["o1", "o2", "o3"];
    let leader = origins.into_iter().find(|id| *id == leader).unwrap_or("o1");
    let others: Vec<&'static str> = origins.into_iter().filter(|id| *id != leader).collect();
    match fault {
        // The leader neither holds nor feeds the room.
        Fault::LeaderDies | Fault::DiskFull | Fault::EdgeDies => {
            Cast { leader, home: others[0], ingest: others[1] }
        }
        Fault::HomeAndIngestDie => Cast { leader, home: others[0], ingest: others[0] },
        _ => Cast { leader, home: others[0], ingest: others[1] },
    }
}

async fn one_run(lab: &mut Lab, fault: Fault, number: usize) -> Result<Seen> {
    let leader = lab.whole().await?;
    let Cast { leader, home, ingest } = cast(fault, &leader);
    let name = format!("{}-{number}", fault.told().0);
    let room = format!("live/{name}");
    // The room comes to live where it is first pushed, and stays there when the push moves.
    let mut first = Publisher::connect(lab.at(home, 1935), "live", &name).await?;
    first.send(Duration::from_secs(2)).await?;
    first.finish().await?;
    let mut origins = vec![ingest];
    origins.extend(["o1", "o2", "o3"].into_iter().filter(|id| *id != ingest));
    let pushing = push(origins.iter().map(|id| lab.at(id, 1935)).collect(), name);
    let edges = |ids: &[&str]| ids.iter().map(|id| lab.at(id, 8080)).collect::<Vec<_>>();
    let seen = Shared::default();
    let flv = tokio::spawn(watch_flv(edges(&["e1", "e2"]), room.clone(), Arc::clone(&seen)));
    let polled = if fault == Fault::EdgeDies { vec!["e2", "e3"] } else { vec!["e2", "e1", "e3"] };
    let hls = tokio::spawn(watch_playlist(edges(&polled), room.clone(), Arc::clone(&seen)));
    // Until all of them have something to lose.
    sleep(Duration::from_secs(3)).await;
    note(&seen, |seen| *seen = Seen::default());
    let struck = strike(lab, fault, &Cast { leader, home, ingest }).await;
    let mut outcome = *seen.lock().unwrap_or_else(PoisonError::into_inner);
    for task in [flv, hls, pushing] {
        task.abort();
    }
    outcome.led = struck?;
    for node in NODES.map(|(id, _)| id) {
        if lab.node(node)?.child.is_none() {
            lab.start(node)?;
        }
    }
    Ok(outcome)
}

/// Does it, and waits until what follows has been seen.
async fn strike(lab: &mut Lab, fault: Fault, cast: &Cast) -> Result<Option<Duration>> {
    let mut led = None;
    match fault {
        Fault::HomeDies | Fault::HomeAndIngestDie => lab.kill(cast.home).await?,
        Fault::EdgeDies => lab.kill("e1").await?,
        Fault::LeaderDies => {
            lab.kill(cast.leader).await?;
            let begun = Instant::now();
            while led.is_none() && begun.elapsed() < PATIENCE {
                let leads = lab.leader().await.is_some_and(|leader| leader != cast.leader);
                led = leads.then(|| begun.elapsed());
            }
        }
        Fault::HomeStops => {
            lab.signal(cast.home, "STOP").await?;
            sleep(SPELL).await;
            lab.signal(cast.home, "CONT").await?;
        }
        Fault::HomeIsMute => {
            mute(cast.home, "add").await?;
            sleep(SPELL).await;
            mute(cast.home, "del").await?;
        }
        Fault::DiskFull => {
            let ballast = lab.work.join("data").join(cast.leader).join("ballast");
            // Fails when nothing more fits, which is what is wanted.
            let fill = format!("if=/dev/zero of={} bs=64k", ballast.display());
            let _ = Command::new("dd").args(fill.split(' ')).stderr(Stdio::null()).status().await;
            sleep(SPELL).await;
            fs::remove_file(ballast)?;
        }
        Fault::Drain => {
            lab.command("e3", &["cluster", "drain", cast.home]).await?;
        }
        Fault::Rolling => {
            let leader_last = |id: &&str| (id.starts_with('o'), *id == cast.leader);
            let mut ids = NODES.map(|(id, _)| id);
            ids.sort_by_key(leader_last);
            for id in ids {
                lab.command("e3", &["cluster", "drain", id]).await.or_else(ignore_last_origin)?;
                lab.restart(id).await?;
                lab.ready(id).await?;
            }
        }
    }
    sleep(AFTERMATH).await;
    if fault == Fault::Drain {
        lab.command("e3", &["cluster", "drain", cast.home, "--undo"]).await?;
    }
    Ok(led)
}

/// A drain that found no other place leaves the restart to do what it can.
fn ignore_last_origin(error: anyhow::Error) -> Result<String> {
    eprintln!("drain: {error:#}");
    Ok(String::new())
}

/// Loses all that a node sends to the others; what they send still arrives.
async fn mute(id: &str, verb: &str) -> Result<()> {
    for (other, host) in NODES {
        if other != id {
            let target = format!("10.77.0.{host}/32");
            let ns = format!("tw-{id}");
            run("ip", &["-n", &ns, "route", verb, "blackhole", &target]).await?;
        }
    }
    Ok(())
}

fn percentiles(mut values: Vec<Duration>) -> String {
    values.sort_unstable();
    let at = |share: f64| {
        let place = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len());
        format!("{:.2}", values[place - 1].as_secs_f64())
    };
    format!("{} / {} s", at(0.5), at(0.99))
}

fn row(fault: Fault, runs: &[Seen]) -> String {
    let (_, what, promise) = fault.told();
    let flv = percentiles(runs.iter().map(|seen| seen.flv).collect());
    let playlist = percentiles(runs.iter().map(|seen| seen.playlist).collect());
    let refusals: u32 = runs.iter().map(|seen| seen.refusals).sum();
    let again: u32 = runs.iter().map(|seen| seen.flv_again).sum();
    let lowered: u32 = runs.iter().map(|seen| seen.lowered).sum();
    let led: Vec<Duration> = runs.iter().filter_map(|seen| seen.led).collect();
    let led = if led.is_empty() { String::new() } else { format!("; leader {}", percentiles(led)) };
    let count = runs.len();
    format!(
        "| {what} | {promise} | {count} | {flv}{led} | {playlist} | {again} | {refusals} | {lowered} |"
    )
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let (binary, work) = (args.next(), args.next());
    let binary = PathBuf::from(binary.context("usage: faults BINARY FOLDER [FAULT…]")?);
    let work = PathBuf::from(work.context("usage: faults BINARY FOLDER [FAULT…]")?);
    let wanted: Vec<String> = args.filter_map(|arg| arg.into_string().ok()).collect();
    let runs: usize = std::env::var("RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let nodes =
        NODES.map(|(id, host)| Node { id, ip: Ipv4Addr::new(10, 77, 0, host), child: None });
    let mut lab = Lab { work, binary, nodes: nodes.into() };
    certificates(&lab).await?;
    for (id, ip) in lab.nodes.iter().map(|node| (node.id, node.ip)).collect::<Vec<_>>() {
        lab.write_config(id, ip)?;
        lab.start(id)?;
    }
    lab.whole().await?;
    println!(
        "| failure | promise | runs | longest FLV gap, p50 / p99 | longest still playlist, p50 / p99 | FLV reconnects | playlists refused | numbers lowered |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut lowered = 0;
    for fault in Fault::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == fault.told().0) {
            continue;
        }
        let mut seen = Vec::new();
        for number in 0..runs {
            let run = one_run(&mut lab, fault, number).await;
            let run = run.with_context(|| format!("{fault:?}, run {number}"))?;
            eprintln!("{fault:?} {number}: {run:?}");
            seen.push(run);
        }
        lowered += seen.iter().map(|seen| seen.lowered).sum::<u32>();
        println!("{}", row(fault, &seen));
    }
    lab.whole().await?;
    ensure!(lowered == 0, "media sequence numbers were lowered {lowered} times");
    Ok(())
}

async fn certificates(lab: &Lab) -> Result<()> {
    let binary = lab.binary.to_str().context("a path")?;
    let certs = lab.work.join("certs");
    let certs: &str = Path::to_str(&certs).context("a path")?;
    run(binary, &["certs", "init", "--dir", certs]).await?;
    for (id, host) in NODES {
        let ip = format!("10.77.0.{host}");
        run(binary, &["certs", "node", "--dir", certs, id, "--host", &ip]).await?;
    }
    Ok(())
}
