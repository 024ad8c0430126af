//! Nodes as separate processes: their addresses, certificates and configurations.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tests::addr;
use tests::process::Tidewater;

/// A node's place: its id, its addresses, its configuration file.
pub(crate) struct Place {
    pub(crate) id: &'static str,
    ip: Ipv4Addr,
    pub(crate) config: PathBuf,
}

impl Place {
    fn new(dir: &Path, id: &'static str) -> Self {
        Self { id, ip: addr::fresh(), config: dir.join(format!("{id}.toml")) }
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    pub(crate) async fn start(&self) -> Result<Tidewater> {
        Tidewater::run(&self.config, self.at(8081)).await
    }

    /// Runs a command at this node: exit code, standard output, standard error.
    pub(crate) async fn command(&self, args: &[&str]) -> Result<(Option<i32>, String, String)> {
        let admin = format!("admin.listen={}", self.at(8081));
        Tidewater::command(&[args, &["--set", &admin]].concat()).await
    }

    /// As [`Place::command`] with `--json`, which must succeed.
    pub(crate) async fn json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let (code, out, err) = self.command(&[args, &["--json"]].concat()).await?;
        ensure!(code == Some(0), "{args:?} at {}: {err}", self.id);
        Ok(serde_json::from_str(&out)?)
    }

    /// `host:port` of its QUIC endpoint.
    pub(crate) fn quic(&self) -> String {
        self.at(7400).to_string()
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.config.with_file_name("data").join(self.id)
    }

    /// Writes its configuration anew, with another list of control nodes.
    pub(crate) fn listing(&self, control: &[&Place]) -> Result<()> {
        self.write(control)
    }

    /// Sets `line` at the end of a section of its configuration.
    pub(crate) fn set(&self, section: &str, line: &str) -> Result<()> {
        let head = format!("[{section}]\n");
        let text = std::fs::read_to_string(&self.config)?;
        ensure!(text.contains(&head), "there is no {head}");
        Ok(std::fs::write(&self.config, text.replace(&head, &format!("{head}{line}\n")))?)
    }

    fn write(&self, control: &[&Place]) -> Result<()> {
        let (id, ip) = (self.id, self.ip);
        let named = control.iter().map(|c| format!("\"{}@{}:7400\"", c.id, c.ip));
        let control = named.collect::<Vec<_>>().join(", ");
        let roles = if id.starts_with('o') { r#""control", "origin""# } else { r#""edge""# };
        let text = format!(
            r#"
[node]
id = "{id}"
region = "eu"
data = "data/{id}"
roles = [{roles}]

[cluster]
listen = "{ip}:7400"
advertise = "{ip}:7400"
control = [{control}]
ca = "certs/ca.pem"
cert = "certs/{id}.pem"
key = "certs/{id}.key"

[rtmp]
listen = "{ip}:1935"

[http]
listen = "{ip}:8080"
advertise = "http://{ip}:8080"

[admin]
listen = "{ip}:8081"

[auth]
publish = "open"
allow_guests = true
"#
        );
        Ok(std::fs::write(&self.config, text)?)
    }
}

/// Writes certificates and configurations: nodes whose names begin with `o` are control and origin,
/// the others edges.
pub(crate) async fn lay_out<const N: usize>(
    dir: &Path,
    ids: [&'static str; N],
) -> Result<[Place; N]> {
    let certs = dir.join("certs");
    let certs = certs.to_str().unwrap_or_default();
    let done = Tidewater::command(&["certs", "init", "--dir", certs]).await?;
    ensure!(done.0 == Some(0), "{done:?}");
    let places = ids.map(|id| Place::new(dir, id));
    let voters = ids.iter().take_while(|id| id.starts_with('o')).count();
    for place in &places {
        let ip = place.ip.to_string();
        let args = ["certs", "node", "--dir", certs, place.id, "--host", &ip];
        let done = Tidewater::command(&args).await?;
        ensure!(done.0 == Some(0), "{done:?}");
        let voters: Vec<&Place> = places.iter().take(voters).collect();
        place.write(&voters)?;
        let path = place.config.to_str().unwrap_or_default();
        let checked = Tidewater::command(&["check-config", path]).await?;
        ensure!(checked.0 == Some(0), "{checked:?}");
    }
    Ok(places)
}
