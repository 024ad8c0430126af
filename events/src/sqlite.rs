//! SQLite as the store: two threads, one that writes and one that reads.
//!
//! In: batches and queries. Out: rows on the disk, answers. WAL with `synchronous = FULL`: a commit
//! has been fsynced when it returns, and readers never wait for the writer. A failed transaction
//! closes the file; it is opened again when there is something to do, at most every
//! [`REOPEN_PAUSE`], and what comes in between is refused at once.

mod reader;
mod writer;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Row};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Error;
use crate::intake::{Intake, Job};
use crate::rows::Columns;
use crate::schema;
use crate::store::Context;

/// How long a transaction waits for another process that has the file locked: a backup, a shell.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);
/// The least time between two tries to open a file that failed.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);
/// What the WAL is cut back to after a checkpoint, in bytes.
const WAL_LIMIT_BYTES: i64 = 64 << 20;
/// `tide` in ASCII: marks the file as ours for `file(1)` and for us.
const APPLICATION_ID: i32 = 0x7469_6465;

/// Starts both threads.
pub(crate) fn start(
    path: &Path,
    intake: Intake,
    queries: mpsc::Receiver<Job>,
    context: Context,
) -> Result<Vec<JoinHandle<()>>, Error> {
    let file = |why: String| Error::File { path: path.to_owned(), why };
    if path.is_dir() {
        return Err(file("is a folder; name a file".to_owned()));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| file(e.to_string()))?;
    }
    let connection = match open(path) {
        Ok(connection) => {
            context.metrics.up.set(1);
            Some(connection)
        }
        Err(OpenError::Newer(version)) => {
            let known = schema::VERSION;
            let why = format!("has schema {version}; this build knows up to {known}, upgrade it");
            return Err(file(why));
        }
        Err(OpenError::Sqlite(error)) if is_for_good(&error) => {
            return Err(file(error.to_string()));
        }
        Err(OpenError::Sqlite(error)) => {
            tracing::warn!(path = %path.display(), %error, "event store not available");
            None
        }
    };
    let file = || File { path: path.to_owned(), connection: None, failed: None };
    let (mut written, read) = (file(), file());
    written.connection = connection;
    let runtime = Handle::current();
    let metrics = context.metrics.clone();
    let writing = {
        let runtime = runtime.clone();
        tokio::task::spawn_blocking(move || writer::run(&runtime, written, intake, &context))
    };
    let reading =
        tokio::task::spawn_blocking(move || reader::run(&runtime, read, queries, &metrics));
    Ok(vec![writing, reading])
}

/// The file and, while all is well, its connection.
struct File {
    path: PathBuf,
    connection: Option<Connection>,
    failed: Option<Instant>,
}

impl File {
    /// The connection, opened if the last failure is long enough ago.
    fn connection(&mut self) -> Result<&mut Connection, String> {
        if self.connection.is_none() {
            if self.failed.is_some_and(|at| at.elapsed() < REOPEN_PAUSE) {
                return Err("the file has just failed".to_owned());
            }
            match open(&self.path) {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => {
                    self.failed = Some(Instant::now());
                    return Err(error.to_string());
                }
            }
        }
        Ok(self.connection.as_mut().expect("opened above"))
    }

    /// Closes the file after a failure. A lock held by another process is none of the file's.
    fn note_failure(&mut self, error: &rusqlite::Error) {
        let busy = [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked];
        if !error.sqlite_error_code().is_some_and(|code| busy.contains(&code)) {
            self.connection = None;
            self.failed = Some(Instant::now());
        }
    }
}

/// Why a file is not open.
enum OpenError {
    Sqlite(rusqlite::Error),
    Newer(i64),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(error) => error.fmt(f),
            Self::Newer(version) => {
                write!(f, "the file has schema {version}, newer than this build")
            }
        }
    }
}

/// Opens the file, makes it what it must be, and migrates it.
fn open(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
    connection.set_prepared_statement_cache_capacity(32);
    migrate(&mut connection)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let read = |connection: &Connection| {
        connection.query_row(schema::READ_VERSION, [], |row| row.get::<_, i64>(0))
    };
    // The usual case writes nothing, so that a full disk does not keep the file from being read.
    if let Ok(version) = read(connection) {
        match version {
            schema::VERSION => return Ok(()),
            version if version > schema::VERSION => return Err(OpenError::Newer(version)),
            _ => {}
        }
    }
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.execute_batch(schema::VERSION_TABLE)?;
    let version = match read(&transaction) {
        Ok(version) => version,
        Err(rusqlite::Error::QueryReturnedNoRows) => 0,
        Err(error) => return Err(error.into()),
    };
    for (version, sql) in schema::after(version, "INTEGER PRIMARY KEY AUTOINCREMENT") {
        transaction.execute_batch(&sql)?;
        transaction.execute(schema::DELETE_VERSION, [])?;
        transaction.execute(schema::WRITE_VERSION, [version])?;
        tracing::info!(version, "event store migrated");
    }
    Ok(transaction.commit()?)
}

/// Whether trying again cannot help: the configuration names the wrong file.
fn is_for_good(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::NotADatabase)
}

impl Columns for Row<'_> {
    type Error = rusqlite::Error;

    fn text(&self, at: usize) -> Result<String, Self::Error> {
        self.get(at)
    }

    fn number(&self, at: usize) -> Result<i64, Self::Error> {
        self.get(at)
    }

    fn optional(&self, at: usize) -> Result<Option<i64>, Self::Error> {
        self.get(at)
    }
}
