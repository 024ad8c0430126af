//! PostgreSQL as the store: two connections, one that writes and one that reads.
//!
//! In: batches and queries. Out: rows in the database, answers. A connection that is lost is made
//! anew beside the loop, so that while the server is away everybody is refused at once and nothing
//! waits. Several nodes may write to one database: the keys of [`crate::schema`] make a gift one.

mod reader;
mod tls;
mod writer;

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls, Row};
use tokio_util::task::AbortOnDropHandle;

use self::tls::Tls;
use crate::Error;
use crate::intake::{Intake, Job};
use crate::rows::Columns;
use crate::schema;
use crate::store::Context;

/// How long connecting, migrating included, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a transaction or a query may take before its connection is given up.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(8);
/// The first pause before a failed connection is tried again; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// See [`FIRST_PAUSE`].
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// The advisory lock under which one node migrates: `tide` and a number.
const MIGRATION_LOCK: i64 = 0x7469_6465_0000_0001;

/// Where the database is.
#[derive(Clone)]
pub struct Server {
    config: Config,
    tls: Option<Tls>,
}

impl Server {
    /// Reads `postgres://user:password@host/database?…` as libpq does; `ca` is the file with the
    /// certificate that the server's is signed with, for connections that are encrypted.
    ///
    /// # Errors
    /// [`Error::Url`] or [`Error::Authority`] name what is wrong, without the password.
    pub fn new(url: &str, ca: Option<&Path>) -> Result<Self, Error> {
        let mut config: Config =
            url.parse().map_err(|error: tokio_postgres::Error| Error::Url(chain(&error)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(Error::Url("it names no host".to_owned()));
        }
        let tls = ca.map(Tls::new).transpose()?;
        match (&tls, config.get_ssl_mode()) {
            (None, SslMode::Require) => {
                let why = "sslmode=require needs events.ca, the CA of the server's certificate";
                return Err(Error::Url(why.to_owned()));
            }
            // Whoever names a CA does not want to go without.
            (Some(_), SslMode::Prefer) => {
                config.ssl_mode(SslMode::Require);
            }
            _ => {}
        }
        config.connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(STATEMENT_TIMEOUT);
        if config.get_application_name().is_none() {
            config.application_name("tidewater");
        }
        Ok(Self { config, tls })
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

/// Starts both tasks.
pub(crate) fn start(
    server: &Server,
    intake: Intake,
    queries: mpsc::Receiver<Job>,
    context: Context,
) -> Vec<JoinHandle<()>> {
    let metrics = context.metrics.clone();
    let writing = tokio::spawn(writer::run(Line::new(server.clone()), intake, context));
    let reading = tokio::spawn(reader::run(Line::new(server.clone()), queries, metrics));
    vec![writing, reading]
}

/// A connection, or the task that is making one.
struct Line {
    server: Server,
    state: State,
    pause: Duration,
}

enum State {
    Up(Client, #[expect(dead_code, reason = "ends with the connection")] AbortOnDropHandle<()>),
    Coming(AbortOnDropHandle<Result<(Client, AbortOnDropHandle<()>), String>>),
}

impl Line {
    fn new(server: Server) -> Self {
        let coming = State::Coming(connecting(&server, Duration::ZERO));
        Self { server, state: coming, pause: FIRST_PAUSE }
    }

    /// The connection, if it is up.
    fn client(&mut self) -> Option<&mut Client> {
        if matches!(&self.state, State::Up(client, _) if client.is_closed()) {
            self.lose();
        }
        match &mut self.state {
            State::Up(client, _) => Some(client),
            State::Coming(_) => None,
        }
    }

    /// Waits until a try to connect has ended; pending while the connection is up. Cancel-safe.
    async fn settled(&mut self) -> Result<(), String> {
        let State::Coming(task) = &mut self.state else { return std::future::pending().await };
        match task.await.unwrap_or_else(|panic| Err(panic.to_string())) {
            Ok((client, driver)) => {
                self.state = State::Up(client, driver);
                self.pause = FIRST_PAUSE;
                Ok(())
            }
            Err(why) => {
                self.state = State::Coming(connecting(&self.server, self.pause));
                self.pause = (self.pause * 2).min(MAX_PAUSE);
                Err(why)
            }
        }
    }

    /// Gives the connection up and makes another.
    fn lose(&mut self) {
        self.state = State::Coming(connecting(&self.server, Duration::ZERO));
    }
}

type Connected = Result<(Client, AbortOnDropHandle<()>), String>;

fn connecting(server: &Server, pause: Duration) -> AbortOnDropHandle<Connected> {
    let server = server.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        sleep(pause).await;
        match timeout(CONNECT_TIMEOUT, connect(&server)).await {
            Ok(connected) => connected,
            Err(_) => Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
        }
    }))
}

async fn connect(server: &Server) -> Connected {
    let text = |error: tokio_postgres::Error| chain(&error);
    let (mut client, driver) = match &server.tls {
        Some(tls) => {
            let (client, connection) = server.config.connect(tls.clone()).await.map_err(text)?;
            (client, tokio::spawn(async move { end(connection.await) }))
        }
        None => {
            let (client, connection) = server.config.connect(NoTls).await.map_err(text)?;
            (client, tokio::spawn(async move { end(connection.await) }))
        }
    };
    let driver = AbortOnDropHandle::new(driver);
    migrate(&mut client).await?;
    Ok((client, driver))
}

fn end(ended: Result<(), tokio_postgres::Error>) {
    if let Err(error) = ended {
        tracing::debug!(error = chain(&error), "connection to PostgreSQL ended");
    }
}

async fn migrate(client: &mut Client) -> Result<(), String> {
    let started = Instant::now();
    let migrated: Result<Option<i64>, tokio_postgres::Error> = async {
        let transaction = client.transaction().await?;
        // Released with the transaction; other nodes that start now wait and find it done.
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
        transaction.batch_execute(schema::VERSION_TABLE).await?;
        let version = transaction.query_opt(schema::READ_VERSION, &[]).await?;
        let found: i64 = version.map_or(0, |row| row.get(0));
        for (version, sql) in
            schema::after(found, "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
        {
            transaction.batch_execute(&sql).await?;
            transaction.execute(schema::DELETE_VERSION, &[]).await?;
            transaction.execute(schema::WRITE_VERSION, &[&version]).await?;
            tracing::info!(version, took = ?started.elapsed(), "event store migrated");
        }
        transaction.commit().await?;
        Ok(Some(found))
    }
    .await;
    match migrated {
        Ok(Some(found)) if found > schema::VERSION => Err(format!(
            "the database has schema {found}; this build knows up to {}, upgrade it",
            schema::VERSION
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(chain(&error)),
    }
}

/// An error with its causes: what PostgreSQL says stands in the last of them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl Columns for Row {
    type Error = tokio_postgres::Error;

    fn text(&self, at: usize) -> Result<String, Self::Error> {
        self.try_get(at)
    }

    fn number(&self, at: usize) -> Result<i64, Self::Error> {
        self.try_get(at)
    }

    fn optional(&self, at: usize) -> Result<Option<i64>, Self::Error> {
        self.try_get(at)
    }
}
