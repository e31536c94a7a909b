//! From a path to connections: files, lock, tables, the recent past.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlSafeStr, SqliteConnection, SqlitePool};
use weir_store::history::{Change, History, Verb};
use weir_store::{Error, Result};

use crate::{from_json, signed, unavailable, unsigned};

/// Connections that read at the same time; further readers wait.
const READERS: u32 = 4;
/// How long SQLite waits for somebody else's lock on the file (a backup, a person with a shell).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Permissions of everything that is made: the owner's only, since token hashes and configuration are in it.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

pub(crate) struct Opened {
    pub writer: SqliteConnection,
    /// To open the writer's connection again.
    pub writing: SqliteConnectOptions,
    pub readers: SqlitePool,
    pub history: Arc<History>,
    pub lock: FileLock,
}

/// Keeps other processes out, until it is dropped or the process dies in whatever way.
pub(crate) struct FileLock(#[expect(dead_code, reason = "held for its lock")] File);

pub(crate) async fn open(path: &Path, keep_changes: usize) -> Result<Opened> {
    let said = |error: Error| Error::Unavailable(format!("{}: {}", path.display(), bare(error)));
    let lock = prepare_files(path).map_err(|error| said(unavailable(error)))?;
    connect(path, keep_changes, lock).await.map_err(said)
}

fn bare(error: Error) -> String {
    match error {
        Error::Unavailable(text) => text,
        other => other.to_string(),
    }
}

fn prepare_files(path: &Path) -> io::Result<FileLock> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    }
    let lock = private_file(&with_suffix(path, ".lock"))?;
    lock.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => {
            io::Error::other("another process has this store open; stop it, or use another data folder")
        }
        std::fs::TryLockError::Error(error) => error,
    })?;
    // SQLite gives its -wal and -shm files the permissions of this one.
    private_file(path)?;
    Ok(FileLock(lock))
}

fn private_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

async fn connect(path: &Path, keep_changes: usize, lock: FileLock) -> Result<Opened> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).disable_statement_logging();
    let writing = options
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // Cut the log back to this after a checkpoint, in bytes.
        .pragma("journal_size_limit", "67108864");
    let mut writer = writing.connect().await.map_err(unavailable)?;
    migrator().run(&mut writer).await.map_err(migration_failed)?;
    release_leases(&mut writer).await?;
    let history = recent_past(&mut writer, keep_changes).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .test_before_acquire(false)
        .connect_lazy_with(options.read_only(true));
    Ok(Opened { writer, writing, readers, history, lock })
}

fn migrator() -> Migrator {
    let initial = include_str!("../migrations/0001_initial.sql");
    let migrations = [(1, "initial", initial)];
    let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(migrations.into_iter().map(migration).collect())
}

fn migration_failed(error: MigrateError) -> Error {
    match error {
        MigrateError::VersionMissing(version) => Error::Unavailable(format!(
            "a newer Weir has written it (table version {version}); start that one, or restore a backup of before"
        )),
        other => unavailable(other),
    }
}

/// Whoever held a lease in this file is dead: the lock was free.
async fn release_leases(writer: &mut SqliteConnection) -> Result<()> {
    sqlx::query("UPDATE leases SET holder = '' WHERE holder <> ''").execute(writer).await.map_err(unavailable)?;
    Ok(())
}

/// The changes on disk as the history that watchers read.
async fn recent_past(writer: &mut SqliteConnection, keep: usize) -> Result<Arc<History>> {
    let head: i64 =
        sqlx::query_scalar("SELECT version FROM store").fetch_one(&mut *writer).await.map_err(unavailable)?;
    let keep = signed(keep as u64);
    let oldest: Option<i64> = sqlx::query_scalar("SELECT min(version) FROM changes WHERE version > ?")
        .bind(head.saturating_sub(keep))
        .fetch_one(&mut *writer)
        .await
        .map_err(unavailable)?;
    let floor = oldest.map_or(head, |oldest| oldest - 1);
    let history = History::new(unsigned(floor), usize::try_from(keep).unwrap_or(usize::MAX));
    push_changes(writer, unsigned(floor), &history).await?;
    Ok(history)
}

/// Brings `history` up to what is on disk after `from`.
pub(crate) async fn push_changes(connection: &mut SqliteConnection, from: u64, history: &History) -> Result<()> {
    let query = "SELECT verb, object, labels_before FROM changes WHERE version > ? ORDER BY version";
    let mut rows = sqlx::query_as::<_, (String, String, Option<String>)>(query).bind(signed(from)).fetch(connection);
    while let Some((verb, object, labels_before)) = rows.try_next().await.map_err(unavailable)? {
        let verb = Verb::from_name(&verb).ok_or_else(|| unavailable("a damaged row in the store: unknown verb"))?;
        let labels_before = labels_before.as_deref().map(from_json).transpose()?;
        history.push(Change { verb, object: Arc::new(from_json(&object)?), labels_before });
    }
    Ok(())
}
