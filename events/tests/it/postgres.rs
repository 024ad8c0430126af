//! PostgreSQL: a real server of the test's own, the contract, and what happens while it is away.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use events::{Server, Store};
use wire::events::{Ask, EventKind, Refusal};

use crate::contract::{
    commit, event, gift, keeps_its_promises, keys_are_free_after_a_day, metrics, node, take_over,
    totals,
};

/// Who runs the server when the tests run as root, which PostgreSQL refuses: nobody.
const NOBODY: u32 = 65534;

/// A PostgreSQL server in a folder of its own, on a Unix socket.
struct Postgres {
    dir: tempfile::TempDir,
    bin: PathBuf,
    child: Child,
}

/// The folder with `initdb` and `postgres`: Debian's newest, or those of the path.
fn binaries() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = debian.map(|version| version.path().join("bin")).collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    found.into_iter().rev().find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
}

/// The server, or none where PostgreSQL is not installed. CI must have it.
async fn server() -> Option<Postgres> {
    let Some(bin) = binaries() else {
        assert!(std::env::var_os("TIDEWATER_STRICT").is_none(), "PostgreSQL is not installed");
        eprintln!("skipped: PostgreSQL is not installed (make setup)");
        return None;
    };
    let dir = tempfile::Builder::new().prefix("tide-pg-").tempdir_in("/tmp").unwrap();
    if is_root() {
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let made = program(&bin, "initdb", dir.path())
        .args(["--no-sync", "--auth=trust", "--username=tide", "--encoding=UTF8", "--locale=C"])
        .arg("--pgdata")
        .arg(dir.path().join("data"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let child = start(&bin, dir.path());
    Some(Postgres { dir, bin, child })
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

fn program(bin: &Path, name: &str, dir: &Path) -> Command {
    let mut command = Command::new(bin.join(name));
    command.current_dir(dir).stdin(Stdio::null()).env_remove("PGDATA");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn start(bin: &Path, dir: &Path) -> Child {
    program(bin, "postgres", dir)
        .arg("-D")
        .arg(dir.join("data"))
        .arg("-k")
        .arg(dir)
        .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=40"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Postgres {
    fn url(&self) -> String {
        let dir = self.dir.path().display().to_string().replace('/', "%2F");
        format!("postgres://tide@{dir}/postgres")
    }

    /// A store whose connection is up.
    async fn store(&self) -> Store {
        let server = Server::new(&self.url(), None).unwrap();
        let store = Store::postgres(server, Duration::ZERO, metrics()).unwrap();
        available(&store).await;
        store
    }

    async fn execute(&self, sql: &str) {
        let connecting = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await;
        let (client, connection) = connecting.unwrap();
        let driver = tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
        drop(client);
        driver.await.unwrap().unwrap();
    }

    /// Ends every process of the server at once, without a checkpoint: it recovers as from a crash.
    /// (SIGKILL would leave its other processes behind for a while, and they would bar the next.)
    fn quit(&mut self) {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args(["-QUIT", &pid]).status();
        if killed.is_ok_and(|status| status.success()) {
            let _ = self.child.wait();
        }
    }

    fn restart(&mut self) {
        self.child = start(&self.bin, self.dir.path());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.quit();
    }
}

/// Waits until the store takes something.
async fn available(store: &Store) {
    for _ in 0..600 {
        let event = event(EventKind::AUDIT, 1);
        if store.answer(&node(), Ask::Keep(vec![event])).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the store does not become available");
}

#[tokio::test]
async fn the_contract_holds() {
    let Some(postgres) = server().await else { return };
    let store = postgres.store().await;
    postgres.execute("DELETE FROM events").await;
    keeps_its_promises(&store).await;
    keys_are_free_after_a_day(&store, async |by_ms| {
        postgres.execute(&format!("UPDATE gifts SET at_ms = at_ms - {by_ms}")).await;
    })
    .await;
}

#[tokio::test]
async fn two_nodes_on_one_database_keep_a_gift_one() {
    let Some(postgres) = server().await else { return };
    let (one, two) = tokio::join!(postgres.store(), postgres.store());
    let asks = (0..400).map(async |n| {
        let client_id = format!("c{}", (n * 7) % 100);
        let store = if n % 2 == 0 { &one } else { &two };
        commit(store, gift("two", &client_id)).await
    });
    let mut ids = std::collections::BTreeSet::new();
    for answer in futures_util::future::join_all(asks).await {
        ids.insert(answer.unwrap().0.id);
    }
    assert_eq!(ids.len(), 100);
    let sums = totals(&one, Some("two")).await;
    assert_eq!((sums.rows, sums.duplicates), (100, 0));
    assert_eq!(take_over(&two, "two", 9).await.unwrap().len(), 100);
    assert!(matches!(commit(&one, gift("two", "late")).await, Err(Refusal::Stale { .. })));
}

#[tokio::test]
async fn while_the_server_is_away_gifts_are_refused_and_afterwards_taken() {
    let Some(mut postgres) = server().await else { return };
    let store = postgres.store().await;
    let (first, _) = commit(&store, gift("a", "c1")).await.unwrap();
    postgres.quit();
    let refused = commit(&store, gift("a", "c2")).await.unwrap_err();
    assert!(matches!(refused, Refusal::Unavailable { retry_ms: 1.., .. }), "{refused}");
    postgres.restart();
    available(&store).await;
    assert_eq!(commit(&store, gift("a", "c1")).await.unwrap(), (first, true));
    assert!(!commit(&store, gift("a", "c2")).await.unwrap().1);
    store.close().await;
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_without_its_password() {
    for (url, why) in [
        ("postgres://u:hush@h/d?sslmode=require", "needs events.ca"),
        ("postgres://u:hush@h/d?colour=red", "colour"),
        ("postgres:///d", "names no host"),
    ] {
        let error = Server::new(url, None).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("hush"), "{error}");
    }
    let missing = Server::new("postgres://u@h/d", Some(Path::new("/none.pem"))).unwrap_err();
    assert!(missing.to_string().starts_with("/none.pem"), "{missing}");
}
