//! `tidewater certs …`: the cluster's CA and the certificates of its nodes.
//!
//! Works on files alone, but for `node --join`, which asks a node that signs. How certificates look is
//! the wire crate's business.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context as _;
use clap::Subcommand;
use wire::{
    NodeId,
    identity::{
        authority::{Authority, Existing, NODE_VALIDITY, write_joined},
        enrol::JoinToken,
    },
};

use crate::enrol;

/// Where a token may stand instead of on the command line, which every user of a machine can read.
const TOKEN_VARIABLE: &str = "TIDEWATER_JOIN_TOKEN";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the cluster's CA: ca.pem for every node, ca.key to be kept away
    Init {
        /// Folder to write to
        #[arg(long, value_name = "DIR", default_value = "certs")]
        dir: PathBuf,
    },
    /// Issue the certificate of a node: ID.pem and ID.key
    Node {
        /// Folder with ca.pem and ca.key, and to write to
        #[arg(long, value_name = "DIR", default_value = "certs")]
        dir: PathBuf,
        /// The node's id, as in node.id
        #[arg(value_parser = NodeId::new)]
        id: NodeId,
        /// Further name or address in the certificate; may be repeated
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// Replace files that are there: how a certificate is renewed
        #[arg(long)]
        replace: bool,
        /// Get it from a node with cluster.ca_key instead of from ca.key here
        #[arg(long, value_name = "HOST:PORT")]
        join: Option<String>,
        /// What cluster token printed; else TIDEWATER_JOIN_TOKEN of the environment
        #[arg(long, value_name = "TOKEN", requires = "join")]
        token: Option<String>,
    },
}

pub(super) fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { dir } => {
            let (cert, key) = Authority::create(SystemTime::now())?.write(&dir)?;
            println!("{}  for every node", cert.display());
            println!(
                "{}  keep it off the nodes, but for one that shall sign (cluster.ca_key): who has it \
                 can join the cluster",
                key.display()
            );
            Ok(())
        }
        Command::Node { dir, id, hosts, replace, join, token } => {
            let existing = if replace { Existing::Replace } else { Existing::Keep };
            let (cert, key) = match join {
                Some(address) => joined(&dir, &id, hosts, existing, &address, token)?,
                None => {
                    let authority = load(&dir)?;
                    let issued = authority.issue(&id, &hosts, SystemTime::now(), NODE_VALIDITY)?;
                    issued.write(&dir, existing)?
                }
            };
            println!("{}\n{}", cert.display(), key.display());
            Ok(())
        }
    }
}

/// Gets the certificate from a node that signs. Files that would be in the way are looked for first: a
/// token is good once.
fn joined(
    dir: &Path,
    id: &NodeId,
    hosts: Vec<String>,
    existing: Existing,
    address: &str,
    token: Option<String>,
) -> anyhow::Result<(PathBuf, PathBuf)> {
    let token = token.or_else(|| std::env::var(TOKEN_VARIABLE).ok());
    let token = token.with_context(|| format!("give --token or set {TOKEN_VARIABLE}"))?;
    let token: JoinToken = token.parse()?;
    for end in ["pem", "key"] {
        let file = dir.join(format!("{id}.{end}"));
        anyhow::ensure!(
            existing == Existing::Replace || !file.exists(),
            "{} exists; move it away first, or say --replace",
            file.display()
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let joined = runtime.block_on(enrol::join(address, &token, id.clone(), hosts))?;
    let pair = (joined.cert_pem.as_str(), joined.key_pem.as_str());
    Ok(write_joined(dir, id, &joined.ca_pem, pair, existing)?)
}

fn load(dir: &Path) -> anyhow::Result<Authority> {
    let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
    anyhow::ensure!(
        cert.exists() && key.exists(),
        "there is no ca.pem and ca.key in {}; make them with: tidewater certs init --dir {}",
        dir.display(),
        dir.display(),
    );
    Ok(Authority::load(&cert, &key)?)
}
