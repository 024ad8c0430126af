//! The binary under test as a process: started, awaited, signalled, and never left behind.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::{PATIENCE, eventually, http};

/// The line `tidewater dev --json` prints once it is ready.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// Where encoders push.
    pub rtmp: SocketAddr,
    /// Where viewers ask, one address per edge.
    pub http: Vec<SocketAddr>,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The QUIC endpoint of the first node.
    pub cluster: SocketAddr,
}

/// A running `tidewater`.
#[derive(Debug)]
pub struct Tidewater {
    child: Child,
    log: Log,
    readers: Vec<JoinHandle<()>>,
}

/// What a process has said on standard error.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().map(|lines| lines.clone()).unwrap_or_default()
    }

    /// Whether a line contains all of `words`.
    #[must_use]
    pub fn has(&self, words: &[&str]) -> bool {
        self.lines().iter().any(|line| words.iter().all(|word| line.contains(word)))
    }
}

/// The binary under test, built beside the test itself.
///
/// # Panics
/// If it was not built: `cargo build -p node` does.
#[must_use]
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let target = test.ancestors().nth(2).expect("tests are in target/PROFILE/deps");
    let binary = target.join("tidewater");
    assert!(binary.exists(), "{} is missing: run cargo build -p node", binary.display());
    binary
}

impl Tidewater {
    /// Starts the binary with `args`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("start tidewater")?;
        let log = Log::default();
        let stderr = child.stderr.take().context("stderr is piped")?;
        let readers = vec![tokio::spawn(collect(stderr, log.clone()))];
        Ok(Self { child, log, readers })
    }

    /// Starts a whole cluster in one process, with `extra` arguments, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; its log is part of the error.
    pub async fn dev(data: &Path, extra: &[&str]) -> Result<(Self, Ready)> {
        let ip = crate::addr::fresh();
        let mut args: Vec<String> = ["dev", "--json", "--data"].map(String::from).to_vec();
        args.push(data.display().to_string());
        for key in ["rtmp", "http", "admin", "cluster"] {
            args.extend(["--set".to_owned(), format!("{key}.listen={ip}:0")]);
        }
        args.extend(extra.iter().map(|arg| (*arg).to_owned()));
        let mut process = Self::start(args)?;
        let stdout = process.child.stdout.take().context("stdout is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = match timeout(PATIENCE, lines.next_line()).await {
            Ok(Ok(Some(line))) => line,
            other => {
                bail!("no ready line ({other:?}); its log:\n{}", process.log.lines().join("\n"))
            }
        };
        let ready = serde_json::from_str(&line).with_context(|| format!("ready line {line}"))?;
        Ok((process, ready))
    }

    /// Starts one node from a configuration file and waits for its admin listener to say ready.
    ///
    /// # Errors
    /// When it does not become ready; its log is part of the error.
    pub async fn run(config: &Path, admin: SocketAddr) -> Result<Self> {
        let mut node =
            Self::start([OsStr::new("run"), OsStr::new("--config"), config.as_os_str()])?;
        let ready = eventually("a node becomes ready", async || {
            let answer = http::get(admin, "/readyz").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        if let Err(error) = ready {
            let ended = node.child.try_wait()?;
            bail!("{error}; exit {ended:?}; its log:\n{}", node.log.lines().join("\n"));
        }
        Ok(node)
    }

    /// What it has said on standard error.
    #[must_use]
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal by name, for example `TERM`.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid().context("the process has ended")?;
        let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
        ensure!(status.await?.success(), "kill -{name} {pid} failed");
        Ok(())
    }

    /// Asks it to leave and waits; returns its exit code.
    ///
    /// # Errors
    /// When it does not leave in time.
    pub async fn terminate(mut self) -> Result<Option<i32>> {
        self.signal("TERM").await?;
        let ended = timeout(PATIENCE, self.child.wait()).await;
        let status = ended.with_context(|| format!("{:?}", self.log.lines()))??;
        for reader in self.readers.drain(..) {
            let _ = timeout(Duration::from_secs(1), reader).await;
        }
        Ok(status.code())
    }

    /// Ends it without a word, as a power cut would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Runs a command of the binary to its end: exit code, standard output, standard error.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time.
    pub async fn command(args: &[&str]) -> Result<(Option<i32>, String, String)> {
        let output = Command::new(binary()).args(args).kill_on_drop(true).output();
        let output = timeout(PATIENCE, output).await.context("a command does not end")??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
    }
}

async fn collect(stderr: impl AsyncRead + Unpin, log: Log) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(mut kept) = log.0.lock() {
            kept.push(line);
        }
    }
}
