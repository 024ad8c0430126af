//! The servers under measurement: started on their core, asked, and ended.
//!
//! In: the server's binary. Out: a running home and edge as separate processes with certificates of their
//! own, each on a loopback address of its own so that ports are as documented. They end with the value.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};

use super::child::{Folder, POLL, Process, fresh_address, get};

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
    ///
    /// `settings` are given to both as `--set`.
    pub(super) fn start(binary: &Path, core: usize, settings: &[&str]) -> Result<Self> {
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
            let mut args = vec!["run", "--config", &config];
            args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
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

    pub(super) fn edge_address(&self) -> SocketAddr {
        SocketAddr::from((self.edge_ip, 8080))
    }

    pub(super) fn rtmp_url(&self) -> String {
        format!("rtmp://{}:1935", self.home_ip)
    }

    /// The edge's process and the home's.
    pub(super) fn pids(&self) -> Vec<u32> {
        vec![self.edge.id(), self.home.id()]
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
                let text = String::from_utf8_lossy(&text);
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
        let stdout = process.stdout().context("stdout is piped")?;
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
        self.process.id()
    }
}

fn certificates(binary: &Path, args: &[&str]) -> Result<()> {
    let output = Command::new(binary).arg("certs").args(args).output();
    let output = output.with_context(|| binary.display().to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "certs {}: {said}", args.join(" "));
    Ok(())
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
    process.wait_until(|| get(admin, "/readyz").is_ok())
}
