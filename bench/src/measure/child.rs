//! Processes under measurement and what they need: a core, a folder, an address; all gone when dropped.
//!
//! In: a program and its arguments. Out: a running process that is ready. Knows no server in particular.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use rand::Rng;

/// How long a process may take to become ready, and to end.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(20);
const END_TIMEOUT: Duration = Duration::from_secs(15);
pub(super) const POLL: Duration = Duration::from_millis(100);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// One process, ended when dropped.
pub(super) struct Process(Child);

impl Process {
    /// Starts `program` on `core` alone. It ends with us, also when we are killed.
    pub(super) fn start(
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

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// What it prints, where that is piped; only once.
    pub(super) fn stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Waits until `is_ready`.
    pub(super) fn wait_until(&mut self, is_ready: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                bail!("the server ended: {status}");
            }
            if is_ready() {
                return Ok(());
            }
            thread::park_timeout(POLL);
        }
        bail!("the server is not ready after {} s", READY_TIMEOUT.as_secs())
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

/// A folder that is removed with the value.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Self> {
        let path =
            std::env::temp_dir().join(format!("tidewater-bench-{:08x}", rand::random::<u32>()));
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub(super) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<String> {
        let path = self.path(name);
        std::fs::write(&path, bytes).with_context(|| path.clone())?;
        Ok(path)
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An address of our own in 127.0.0.0/8, away from those of viewers.
pub(super) fn fresh_address() -> Ipv4Addr {
    let mut rng = rand::rng();
    Ipv4Addr::new(127, 254, rng.random_range(1..255), rng.random_range(1..255))
}

/// The body of a document.
pub(super) fn get(from: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let mut socket = TcpStream::connect(from)?;
    socket.set_read_timeout(Some(HTTP_TIMEOUT))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {from}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let head = memmem::find(&answer, b"\r\n\r\n").context("no HTTP")?;
    let body = answer.split_off(head + 4);
    let status = String::from_utf8_lossy(&answer);
    let status = status.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "{status}");
    Ok(body)
}
