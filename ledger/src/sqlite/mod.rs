//! The store in one SQLite file: write-ahead log, fsync at every commit, one connection that writes.

mod attempts;
mod convert;
mod rows;

use crate::limits::{LOCK_WAIT, WAL_PAGES};
use crate::store::{Known, Result, StoreError};
use rusqlite::{Connection, OpenFlags};
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Migrations in order, each with the `user_version` that it leads to.
const MIGRATIONS: &[(u32, &str)] = &[(1, include_str!("schema.sql")), (2, include_str!("schema_2.sql"))];
/// Statements kept compiled: all there are.
const STATEMENTS: usize = 64;

/// A connection to the ledger's database.
pub struct SqliteStore {
    connection: Connection,
    /// Budgets that were looked up. Only the writer may keep them: nobody else changes them.
    known: Option<HashMap<String, Arc<Known>>>,
    /// Held as long as the writer lives, so that two ledgers never share a data directory.
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens the database in `data_dir` for writing, makes it where there is none, and migrates it.
    pub fn open(data_dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(data_dir).map_err(|source| failed("make its data directory", source))?;
        let lock = lock(data_dir)?;
        let connection = Connection::open(file(data_dir)).map_err(|source| failed("open its file", source))?;
        Self::prepare(connection, Some(lock))
    }

    /// A database in memory, for tests and benches.
    pub fn in_memory() -> Result<Self> {
        let connection = Connection::open_in_memory().map_err(|source| failed("open in memory", source))?;
        Self::prepare(connection, None)
    }

    /// Opens the database in `data_dir` for reading.
    pub fn open_reader(data_dir: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(file(data_dir), flags).map_err(|source| failed("open for reading", source))?;
        connection.busy_timeout(LOCK_WAIT).map_err(|source| failed("set its lock wait", source))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Self { connection, known: None, _lock: None })
    }

    /// Folds the log into the database, so that the next start has nothing to replay.
    pub fn checkpoint(&mut self) -> Result<()> {
        let fold = |_: &rusqlite::Row<'_>| Ok(());
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], fold)
            .map_err(|source| failed("fold its log", source))
    }

    fn prepare(mut connection: Connection, lock: Option<File>) -> Result<Self> {
        let set_up = |connection: &Connection| -> rusqlite::Result<()> {
            connection.busy_timeout(LOCK_WAIT)?;
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)
        };
        set_up(&connection).map_err(|source| failed("set its journal mode", source))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        migrate(&mut connection)?;
        Ok(Self { connection, known: Some(HashMap::new()), _lock: lock })
    }

    /// Runs `sql` once, without rows.
    fn run(&self, sql: &str, doing: &'static str) -> Result<()> {
        let run = || self.connection.prepare_cached(sql)?.execute([]).map(|_| ());
        run().map_err(|source: rusqlite::Error| failed(doing, source))
    }

    fn forget_budgets(&mut self) {
        if let Some(known) = &mut self.known {
            known.clear();
        }
    }
}

/// Where the database lies.
#[must_use]
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("ledger.sqlite")
}

fn lock(data_dir: &Path) -> Result<File> {
    let path = data_dir.join("ledger.lock");
    let lock = File::create(path).map_err(|source| failed("make its lock file", source))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(failed("lock its data directory", std::io::Error::other("another ledger is using it")))
        }
        Err(TryLockError::Error(source)) => Err(failed("lock its data directory", source)),
    }
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let failing = |source| failed("migrate its schema", source);
    let version: u32 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|source| failed("read its version", source))?;
    let latest = MIGRATIONS.last().map_or(0, |(latest, _)| *latest);
    if version > latest {
        let newer = format!("its version {version} is newer than this ledger's {latest}: use the newer image");
        return Err(failed("read its version", std::io::Error::other(newer)));
    }
    for (to, migration) in MIGRATIONS.iter().filter(|(to, _)| *to > version) {
        let transaction = connection.transaction().map_err(failing)?;
        transaction.execute_batch(migration).map_err(failing)?;
        transaction.pragma_update(None, "user_version", to).map_err(failing)?;
        transaction.commit().map_err(failing)?;
    }
    Ok(())
}

fn failed(doing: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError { doing, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use quartermaster_core::units::{Millis, NanoUsd};

    #[test]
    fn a_database_is_migrated_once_and_never_backwards() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(SqliteStore::open(dir.path()).expect("a new database"));
        let again = SqliteStore::open(dir.path()).expect("the same database");
        let mode: String = again.connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("a mode");
        let synchronous: i64 = again.connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).expect("a level");
        assert_eq!((mode.as_str(), synchronous), ("wal", 2));
        again.connection.pragma_update(None, "user_version", 99).expect("set");
        drop(again);
        let error = SqliteStore::open(dir.path()).err().expect("a newer database");
        assert!(error.to_string().contains("newer"), "{error}");
    }

    #[test]
    fn what_version_1_wrote_counts_as_metered_to_the_end_of_its_hour() {
        let connection = Connection::open_in_memory().expect("a database");
        connection.execute_batch(MIGRATIONS[0].1).expect("version 1");
        connection.pragma_update(None, "user_version", 1).expect("set");
        connection.execute("INSERT INTO spend VALUES ('p', 7200000, 'n', 'm', 'v', 'c', 5)", []).expect("a row");
        let mut store = SqliteStore::prepare(connection, None).expect("version 2");
        let metered = store.metered(Millis(0), 10).expect("rows");
        assert_eq!((metered[0].until, metered[0].nano_usd), (Millis(10_800_000), NanoUsd(5)));
    }

    #[test]
    fn two_ledgers_never_share_a_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = SqliteStore::open(dir.path()).expect("the first");
        let error = SqliteStore::open(dir.path()).err().expect("the second is refused");
        assert!(error.to_string().contains("another ledger"), "{error}");
        drop(first);
        SqliteStore::open(dir.path()).expect("after the first is gone");
    }

    #[test]
    fn usage_rows_are_append_only_for_everybody() {
        let store = SqliteStore::in_memory().expect("a store");
        let insert = "INSERT INTO usage VALUES (1,'a',0,'[]',0,0,1,1,'','','','','',0,0,0,'')";
        store.connection.execute(insert, []).expect("a row");
        for change in ["UPDATE usage SET tokens = 2", "DELETE FROM usage"] {
            let error = store.connection.execute(change, []).expect_err("refused");
            assert!(error.to_string().contains("never"), "{error}");
        }
    }
}
