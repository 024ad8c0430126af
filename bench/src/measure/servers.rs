//! The servers under measurement: started on their core, asked, and ended.
//!
//! In: the server's binary. Out: a running home and edge as separate processes with certificates of their
//! own, each on a loopback address of its own so that ports are as documented. They end with the value.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;

/// How long a process may take to become ready, and to end.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
const END_TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// One process, ended when dropped.
struct Process(Child);

impl Process {
    /// Starts `program` on `core` alone. It ends with us, also when we are killed.
    fn start(
        program: &Path,
        args: &[&str],
        core: usize,
        stdout: Stdio,
        log: Stdio,
    ) -> Result<Self> {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "taskset", "-c", &core.to_string()])
            .arg(program)
            .args(args)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log)
            .spawn()
            .context("setpriv and taskset (util-linux) start the server")?;
        Ok(Self(child))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(pid) = rustix::process::Pid::from_raw(self.0.id() as i32) else { return };
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + END_TIMEOUT;
        while Instant::now() < deadline {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            thread::park_timeout(POLL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A home and an edge.
pub(super) struct Cluster {
    // Fields drop in order: the edge ends before its home.
    edge: Process,
    home: Process,
    edge_ip: Ipv4Addr,
    home_ip: Ipv4Addr,
    _folder: Folder,
}

impl Cluster {
    /// Starts both and waits until they are ready.
    pub(super) fn start(binary: &Path, core: usize) -> Result<Self> {
        let folder = Folder::new()?;
        let [home_ip, edge_ip] = [fresh_address(), fresh_address()];
        let certs = folder.path("certs");
        certificates(binary, &["init", "--dir", &certs])?;
        for (id, ip) in [("o1", home_ip), ("e1", edge_ip)] {
            certificates(binary, &["node", "--dir", &certs, id, "--host", &ip.to_string()])?;
        }
        let start = |id: &str, ip: Ipv4Addr, roles: &str| {
            let config = folder.path(&format!("{id}.toml"));
            std::fs::write(&config, configuration(id, ip, roles, home_ip))?;
            let log = std::fs::File::create(folder.path(&format!("{id}.log")))?;
            let args = ["run", "--config", &config];
            let mut process = Process::start(binary, &args, core, Stdio::null(), log.into())?;
            wait_until_ready(&mut process, ip)
                .with_context(|| folder.read(&format!("{id}.log")))?;
            Ok::<_, anyhow::Error>(process)
        };
        let home = start("o1", home_ip, r#""control", "origin""#)?;
        let edge = start("e1", edge_ip, r#""edge""#)?;
        Ok(Self { edge, home, edge_ip, home_ip, _folder: folder })
    }

    pub(super) fn edge_url(&self) -> String {
        format!("http://{}:8080", self.edge_ip)
    }

    pub(super) fn rtmp_url(&self) -> String {
        format!("rtmp://{}:1935", self.home_ip)
    }

    /// The edge's process and the home's.
    pub(super) fn pids(&self) -> Vec<u32> {
        vec![self.edge.0.id(), self.home.0.id()]
    }

    /// Looks at the edge's upstream subscriptions from here on.
    pub(super) fn watch_upstreams(&self) -> Upstreams {
        let admin = SocketAddr::from((self.edge_ip, 8081));
        let most = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (Arc::clone(&most), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Relaxed) {
                let text = get(admin, "/metrics").unwrap_or_default();
                let line = text.lines().find_map(|l| l.strip_prefix("tidewater_edge_upstreams "));
                if let Some(value) = line.and_then(|v| v.trim().parse::<f64>().ok()) {
                    seen.fetch_max(value as u64, Relaxed);
                }
                thread::park_timeout(POLL);
            }
        });
        Upstreams { most, stop, thread }
    }
}

/// Watches the edge's upstream subscriptions.
pub(super) struct Upstreams {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Upstreams {
    /// The most there were at once.
    pub(super) fn most(self) -> f64 {
        self.stop.store(true, Relaxed);
        self.thread.thread().unpark();
        let _ = self.thread.join();
        self.most.load(Relaxed) as f64
    }
}

/// The bare send loop in a process of its own.
pub(super) struct SendLoop {
    process: Process,
    address: String,
}

impl SendLoop {
    pub(super) fn start(interval_ms: u64, kbits: u64, core: usize) -> Result<Self> {
        let own = std::env::current_exe()?;
        let (interval, bitrate) = (interval_ms.to_string(), kbits.to_string());
        let args = ["baseline", "--interval", &interval, "--bitrate", &bitrate];
        let mut process = Process::start(&own, &args, core, Stdio::piped(), Stdio::inherit())?;
        let stdout = process.0.stdout.take().context("stdout is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().to_owned();
        ensure!(!address.is_empty(), "the send loop did not start");
        Ok(Self { process, address })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

/// A folder that is removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path =
            std::env::temp_dir().join(format!("tidewater-bench-{:08x}", rand::random::<u32>()));
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn certificates(binary: &Path, args: &[&str]) -> Result<()> {
    let output = Command::new(binary).arg("certs").args(args).output();
    let output = output.with_context(|| binary.display().to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "certs {}: {said}", args.join(" "));
    Ok(())
}

/// An address of our own in 127.0.0.0/8, away from those of viewers.
fn fresh_address() -> Ipv4Addr {
    let mut rng = rand::rng();
    Ipv4Addr::new(127, 254, rng.random_range(1..255), rng.random_range(1..255))
}

fn configuration(id: &str, ip: Ipv4Addr, roles: &str, control: Ipv4Addr) -> String {
    format!(
        r#"
[node]
id = "{id}"
data = "data/{id}"
roles = [{roles}]
shutdown_grace = "1s"

[cluster]
listen = "{ip}:7400"
advertise = "{ip}:7400"
control = ["o1@{control}:7400"]
ca = "certs/ca.pem"
cert = "certs/{id}.pem"
key = "certs/{id}.key"

[rtmp]
listen = "{ip}:1935"

[http]
listen = "{ip}:8080"

[admin]
listen = "{ip}:8081"

[auth]
publish = "open"
allow_guests = true
"#
    )
}

fn wait_until_ready(process: &mut Process, ip: Ipv4Addr) -> Result<()> {
    let admin = SocketAddr::from((ip, 8081));
    let deadline = Instant::now() + READY_TIMEOUT;
    while Instant::now() < deadline {
        if let Some(status) = process.0.try_wait()? {
            bail!("the server ended: {status}");
        }
        if get(admin, "/readyz").is_ok() {
            return Ok(());
        }
        thread::park_timeout(POLL);
    }
    bail!("the server is not ready after {} s", READY_TIMEOUT.as_secs())
}

/// The body of a small document.
fn get(from: SocketAddr, path: &str) -> Result<String> {
    let mut socket = TcpStream::connect(from)?;
    socket.set_read_timeout(Some(HTTP_TIMEOUT))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {from}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP")?;
    ensure!(head.contains(" 200 "), "{}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}
