//! The store's tables, and how its file is opened.

use super::StateError;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The tables' version, in the file's `user_version`.
const VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE boot (id TEXT NOT NULL) STRICT;
    CREATE TABLE lease (
        vf TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        pid INTEGER,
        start_time INTEGER,
        vm TEXT,
        device TEXT,
        mac TEXT,
        port TEXT
    ) STRICT;
    CREATE TABLE maintenance (pf TEXT PRIMARY KEY) STRICT;
";

pub(super) const PUT_LEASE: &str = "INSERT OR REPLACE INTO lease
    (vf, state, pid, start_time, vm, device, mac, port) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
pub(super) const DROP_LEASE: &str = "DELETE FROM lease WHERE vf = ?1";
pub(super) const GET_LEASES: &str =
    "SELECT vf, state, pid, start_time, vm, device, mac, port FROM lease";
pub(super) const PUT_MAINTENANCE: &str = "INSERT OR IGNORE INTO maintenance (pf) VALUES (?1)";
pub(super) const DROP_MAINTENANCE: &str = "DELETE FROM maintenance WHERE pf = ?1";
pub(super) const GET_MAINTENANCE: &str = "SELECT pf FROM maintenance";

/// Opens the file, makes what is missing, and forgets the leases of another boot.
pub(super) fn open(path: &Path, boot: &str) -> Result<Connection, StateError> {
    // SQLite would make it readable to everybody.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| StateError::Create { path: path.to_owned(), source })?;
    let failed = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StateError::InUse { path: path.to_owned() }
        }
        _ => StateError::Access { path: path.to_owned(), verb: "read", source },
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    configure(&connection).map_err(failed)?;
    let transaction = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(failed)?;
    let version = transaction
        .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
        .map_err(failed)?;
    match version {
        0 => transaction
            .execute_batch(TABLES)
            .and_then(|()| transaction.pragma_update(None, "user_version", VERSION))
            .map_err(failed)?,
        VERSION => {}
        version => return Err(StateError::Version { path: path.to_owned(), version }),
    }
    let same = "SELECT EXISTS (SELECT 1 FROM boot WHERE id = ?1)";
    let same: bool = transaction.query_row(same, [boot], |row| row.get(0)).map_err(failed)?;
    if !same {
        transaction
            .execute_batch("DELETE FROM lease; DELETE FROM boot;")
            .and_then(|()| transaction.execute("INSERT INTO boot (id) VALUES (?1)", [boot]))
            .map_err(failed)?;
    }
    transaction.commit().map_err(failed)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // Held until the connection is closed, or its process is dead.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // Waits for the disk at checkpoints only.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.busy_timeout(std::time::Duration::ZERO)
}

/// Moves an unreadable file out of the way, over an earlier one.
pub(super) fn set_aside(path: &Path) -> Result<(), StateError> {
    let beside = |suffix: &str| -> PathBuf {
        let mut name = OsString::from(path);
        name.push(suffix);
        name.into()
    };
    let missing_is_fine = |outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    };
    fs::rename(path, beside(".unreadable"))
        // A log belongs to its file.
        .and_then(|()| missing_is_fine(fs::remove_file(beside("-wal"))))
        .and_then(|()| missing_is_fine(fs::remove_file(beside("-shm"))))
        .map_err(|source| StateError::Create { path: path.to_owned(), source })
}
