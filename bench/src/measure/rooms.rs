//! What rooms are held against: the bare repeaters of this binary, and rooms as one builds them on npm ws, on picows
//! and with nginx's nchan.
//!
//! In: where the others are installed (`scripts/compare.sh`). Out: running processes with a core of their own, which
//! repeat each message to everybody who is connected.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::cases::Peer;
use super::child::{Folder, Process, fresh_address};
use super::peers::{self, Nginx};

const ENV: &str = "/usr/bin/env";
const WS: &str = include_str!("../../peers/ws.cjs");
const PICOWS: &str = include_str!("../../peers/room.py");
const WS_INSTALLED: &str = "node_modules/ws/package.json";
const PICOWS_INSTALLED: &str = "python/picows/__init__.py";
const PORT: u16 = 8000;

/// A server that repeats messages.
pub(super) struct Repeater {
    url: String,
    pid: u32,
    // Fields drop in order: a process ends before its folder goes.
    _process: Option<Process>,
    _nginx: Option<Nginx>,
    _folder: Option<Folder>,
}

impl Repeater {
    /// Starts it; none if it is not installed.
    pub(super) fn start(peer: Peer, (installed, core): (&Path, usize)) -> Result<Option<Self>> {
        match peer {
            Peer::Repeater { by } => Self::own(by, core).map(Some),
            Peer::Ws if !installed.join(WS_INSTALLED).exists() => Ok(None),
            Peer::Ws => {
                let modules = std::path::absolute(installed.join("node_modules"))?;
                let found = format!("NODE_PATH={}", modules.display());
                Self::script((WS, "ws.cjs"), &[&found, "node"], core).map(Some)
            }
            Peer::Picows if !installed.join(PICOWS_INSTALLED).exists() => Ok(None),
            Peer::Picows => {
                let packages = std::path::absolute(installed.join("python"))?;
                let found = format!("PYTHONPATH={}", packages.display());
                Self::script((PICOWS, "room.py"), &[&found, "python3"], core).map(Some)
            }
            Peer::Nchan if !peers::has_nchan(installed) => Ok(None),
            Peer::Nchan => {
                let nginx = Nginx::room((installed, core))?;
                let (url, pid) = (nginx.url(), nginx.pid()?);
                Ok(Some(Self { url, pid, _process: None, _nginx: Some(nginx), _folder: None }))
            }
            _ => Ok(None),
        }
    }

    /// One of this binary's.
    fn own(by: &str, core: usize) -> Result<Self> {
        let own = std::env::current_exe()?;
        let args = ["repeater", "--by", by];
        let mut process = Process::start(&own, &args, core, Stdio::piped(), Stdio::inherit())?;
        let stdout = process.stdout().context("stdout is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(!line.trim().is_empty(), "the repeater did not start");
        let url = format!("http://{}", line.trim());
        let pid = process.id();
        Ok(Self { url, pid, _process: Some(process), _nginx: None, _folder: None })
    }

    /// A script of ours on somebody else's server.
    fn script((text, name): (&str, &str), with: &[&str], core: usize) -> Result<Self> {
        let folder = Folder::new()?;
        let script = folder.write(name, text)?;
        let address = SocketAddr::from((fresh_address(), PORT));
        let (host, port) = (address.ip().to_string(), PORT.to_string());
        let args = [with, &[&script, &host, &port]].concat();
        let log = std::fs::File::create(folder.path("log"))?;
        let program = Path::new(ENV);
        let mut process = Process::start(program, &args, core, Stdio::null(), log.into())?;
        process
            .wait_until(|| TcpStream::connect(address).is_ok())
            .with_context(|| folder.read("log"))?;
        let (url, pid) = (format!("http://{address}"), process.id());
        Ok(Self { url, pid, _process: Some(process), _nginx: None, _folder: Some(folder) })
    }

    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }
}
