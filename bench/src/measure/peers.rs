//! Servers of other makes, as Debian and npm carry them, configured to do their best.
//!
//! In: where they are installed (`scripts/compare.sh`). Out: running processes with a core of their own.
//! Each is given what its own documentation recommends for this load: nginx a worker, `sendfile`,
//! `tcp_nopush` and its cache of open files, nothing logged.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::child::{Folder, Process, fresh_address, get};

/// Where Debian's packages have nginx and its RTMP module.
const NGINX: &str = "usr/sbin/nginx";
const NGINX_RTMP: &str = "usr/lib/nginx/modules/ngx_rtmp_module.so";
const NGINX_NCHAN: &str = "usr/lib/nginx/modules/ngx_nchan_module.so";
const ENV: &str = "/usr/bin/env";
const NODE_MEDIA_SERVER: &str = "node_modules/node-media-server/bin/app.js";

/// Whether nginx with its RTMP module is installed in `folder`.
pub(super) fn has_nginx(folder: &Path) -> bool {
    folder.join(NGINX).exists() && folder.join(NGINX_RTMP).exists()
}

/// Whether node-media-server is installed in `folder`.
pub(super) fn has_node_media_server(folder: &Path) -> bool {
    folder.join(NODE_MEDIA_SERVER).exists()
}

/// Whether nginx with nchan is installed in `folder`.
pub(super) fn has_nchan(folder: &Path) -> bool {
    folder.join(NGINX).exists() && folder.join(NGINX_NCHAN).exists()
}

/// What is installed, with versions.
pub(super) fn versions(folder: &Path) -> Vec<String> {
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let debian = std::fs::read_to_string(folder.join("debian-versions")).unwrap_or_default();
    let mut versions: Vec<String> = debian.lines().map(str::to_owned).collect();
    for name in ["node-media-server", "ws"] {
        let package = folder.join(format!("node_modules/{name}/package.json"));
        let package = std::fs::read(package).unwrap_or_default();
        let package: serde_json::Value = serde_json::from_slice(&package).unwrap_or_default();
        if let Some(version) = package["version"].as_str() {
            let node = said("node", &["--version"]).unwrap_or_default();
            versions.push(format!("{name} {version} on Node {}", node.trim_start_matches('v')));
        }
    }
    let python = std::fs::read_to_string(folder.join("python-versions")).unwrap_or_default();
    versions.extend(python.lines().map(str::to_owned));
    if versions.is_empty() { vec!["No other servers".into()] } else { versions }
}

/// nginx, serving files or RTMP.
pub(super) struct Nginx {
    // Ends before its folder goes.
    process: Process,
    ip: Ipv4Addr,
    _folder: Folder,
}

impl Nginx {
    /// Serves `files`, each by its path.
    pub(super) fn files(
        (installed, core): (&Path, usize),
        files: &[(&str, &[u8])],
    ) -> Result<Self> {
        let this = Self::start((installed, core), ("", "", ""), |folder| {
            for (path, bytes) in files {
                folder.write(path.trim_start_matches('/'), bytes)?;
            }
            Ok(())
        })?;
        Ok(this)
    }

    /// Takes pushes and plays them; `with_hls` to write HLS of them too.
    pub(super) fn rtmp((installed, core): (&Path, usize), with_hls: bool) -> Result<Self> {
        let hls = if with_hls {
            "hls on; hls_path HERE; hls_fragment 1s; hls_playlist_length 8s;"
        } else {
            ""
        };
        let rtmp = format!(
            "rtmp {{ access_log off; server {{ listen IP:1935; chunk_size 65536; \
             application live {{ live on; wait_key on; {hls} }} }} }}"
        );
        Self::start((installed, core), (NGINX_RTMP, "", &rtmp), |_| Ok(()))
    }

    /// Repeats what is said on `/ws` to everybody there, by nchan.
    pub(super) fn room((installed, core): (&Path, usize)) -> Result<Self> {
        // Nothing kept, nothing confirmed, no pings: what members are sent is messages alone.
        let room = "location = /ws { nchan_pubsub websocket; nchan_channel_id room; \
                    nchan_store_messages off; nchan_websocket_ping_interval 0; }";
        Self::start((installed, core), (NGINX_NCHAN, room, ""), |_| Ok(()))
    }

    fn start(
        (installed, core): (&Path, usize),
        (module, locations, rtmp): (&str, &str, &str),
        fill: impl FnOnce(&Folder) -> Result<()>,
    ) -> Result<Self> {
        let installed = std::path::absolute(installed)?;
        let folder = Folder::new()?;
        let ip = fresh_address();
        let here = folder.path("");
        fill(&folder)?;
        folder.write("ready", "yes")?;
        let module = match module {
            "" => String::new(),
            path => format!("load_module {};", installed.join(path).display()),
        };
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let rtmp = rtmp.replace("HERE", &here).replace("IP", &ip.to_string());
        let configuration = format!(
            r#"
{module}
{user}
daemon off;
worker_processes 1;
pid {here}nginx.pid;
error_log {here}error.log error;
worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    open_file_cache max=100 inactive=60s;
    open_file_cache_valid 60s;
    client_body_temp_path {here}body;
    proxy_temp_path {here}proxy;
    fastcgi_temp_path {here}fastcgi;
    uwsgi_temp_path {here}uwsgi;
    scgi_temp_path {here}scgi;
    types {{
        application/vnd.apple.mpegurl m3u8;
        video/mp4 m4s mp4;
    }}
    server {{
        listen {ip}:8080 backlog=4096;
        root {here};
        add_header Access-Control-Allow-Origin *;
        add_header Cache-Control "public, max-age=31536000, immutable";
        {locations}
    }}
}}
{rtmp}
"#
        );
        let path = folder.write("nginx.conf", configuration)?;
        let log = std::fs::File::create(folder.path("nginx.log"))?;
        let args = ["-p", &here, "-c", &path, "-e", &folder.path("error.log")];
        let program = installed.join(NGINX);
        let mut process = Process::start(&program, &args, core, Stdio::null(), log.into())?;
        let address = SocketAddr::from((ip, 8080));
        process
            .wait_until(|| get(address, "/ready").is_ok())
            .with_context(|| folder.read("nginx.log") + &folder.read("error.log"))?;
        Ok(Self { process, ip, _folder: folder })
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((self.ip, 8080))
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub(super) fn rtmp_url(&self) -> String {
        format!("rtmp://{}:1935", self.ip)
    }

    /// The worker: all that works.
    pub(super) fn pid(&self) -> Result<u32> {
        crate::process::child_of(self.process.id()).context("nginx has no worker")
    }
}

/// node-media-server: RTMP in, HTTP-FLV out.
pub(super) struct NodeMediaServer {
    process: Process,
    ip: Ipv4Addr,
    _folder: Folder,
}

impl NodeMediaServer {
    /// Starts what is installed in `installed`.
    pub(super) fn start(core: usize, installed: &Path) -> Result<Self> {
        let folder = Folder::new()?;
        let ip = fresh_address();
        let config = folder.write(
            "config.json",
            format!(
                r#"{{"bind":"{ip}","auth":{{"play":false,"publish":false,"secret":"x"}},
                "rtmp":{{"port":1935}},"http":{{"port":8000}},"store":{{"path":"./data"}},
                "record":{{"auto":false,"path":"./record"}},"webadmin":{{"enable":false}}}}"#
            ),
        )?;
        let script = std::path::absolute(installed.join(NODE_MEDIA_SERVER))?;
        let args = ["node", &script.display().to_string(), "--config", &config];
        let log = std::fs::File::create(folder.path("log"))?;
        let program = Path::new(ENV);
        let mut process = Process::start(program, &args, core, Stdio::null(), log.into())?;
        let address = SocketAddr::from((ip, 8000));
        process
            .wait_until(|| std::net::TcpStream::connect(address).is_ok())
            .with_context(|| folder.read("log"))?;
        Ok(Self { process, ip, _folder: folder })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}:8000", self.ip)
    }

    pub(super) fn rtmp_url(&self) -> String {
        format!("rtmp://{}:1935", self.ip)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }
}
