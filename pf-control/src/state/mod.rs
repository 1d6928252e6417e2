//! What the daemon must still know after its own death: who holds which VF, and which PFs are
//! in maintenance. Kept in SQLite (WAL).
//!
//! The leases only add names and ports to what the kernel knows, and are believed only as far as
//! the kernel agrees; so they end with the boot that they were made in, and a commit need not wait
//! for the disk: what matters is that it outlives the process. Maintenance is an operator's word,
//! outlives reboots, and is on the disk when it is acknowledged.

mod error;
mod schema;

pub use error::StateError;

use crate::lease::LeaseState;
use crate::ops::{MacAddr, PciAddress};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is kept of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Where it stands.
    pub state: LeaseState,
    /// The process that holds it.
    pub pid: Option<u32>,
    /// When that started, in clock ticks since boot: tells it from a later one of that number.
    pub start_time: Option<u64>,
    /// The VM's name, as it told.
    pub vm: Option<String>,
    /// Its device's.
    pub device: Option<String>,
    /// The VM's address.
    pub mac: Option<MacAddr>,
    /// The switch port of its emulated path.
    pub port: Option<String>,
}

/// The daemon's store: one file, for one daemon at a time.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens the store at `path`, which need not exist, for the boot named `boot`. A file that is
    /// damaged, or of another version, is set aside as `<path>.unreadable`: the kernel knows what
    /// matters most.
    ///
    /// # Errors
    /// [`StateError`], when another daemon has it or it cannot be written.
    pub fn open(path: &Path, boot: &str) -> Result<Self, StateError> {
        let connection = match schema::open(path, boot) {
            Err(error) if error.is_unreadable() => {
                tracing::warn!(error = crate::ops::with_causes(&error), "a new store is begun");
                schema::set_aside(path)?;
                schema::open(path, boot)?
            }
            outcome => outcome?,
        };
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    /// Writes down a VF's lease, or that it has none.
    ///
    /// # Errors
    /// [`StateError`]; what was written before is still there.
    pub fn record(&self, vf: PciAddress, lease: Option<&LeaseRecord>) -> Result<(), StateError> {
        let connection = self.connection();
        let outcome = match lease {
            Some(lease) => connection.prepare_cached(schema::PUT_LEASE).and_then(|mut put| {
                put.execute(params![
                    vf.to_string(),
                    lease.state.to_string(),
                    lease.pid,
                    // Clock ticks since boot: 63 bits are enough for any uptime.
                    lease.start_time.and_then(|ticks| i64::try_from(ticks).ok()),
                    lease.vm,
                    lease.device,
                    lease.mac.map(|mac| mac.to_string()),
                    lease.port,
                ])
            }),
            None => connection
                .prepare_cached(schema::DROP_LEASE)
                .and_then(|mut drop| drop.execute([vf.to_string()])),
        };
        outcome.map(drop).map_err(|source| self.failed("written", source))
    }

    /// The leases that were written down since the boot. One that makes no sense is left out.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn leases(&self) -> Result<BTreeMap<PciAddress, LeaseRecord>, StateError> {
        let connection = self.connection();
        let read = || -> rusqlite::Result<Vec<(String, Option<LeaseRecord>)>> {
            let mut statement = connection.prepare(schema::GET_LEASES)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, lease(row).ok())))?;
            rows.collect()
        };
        let rows = read().map_err(|source| self.failed("read", source))?;
        let leases = rows.into_iter().filter_map(|(vf, lease)| {
            let read = vf.parse().ok().zip(lease);
            if read.is_none() {
                tracing::warn!(vf, "the store's record of this VF makes no sense");
            }
            read
        });
        Ok(leases.collect())
    }

    /// Writes down that a PF is in maintenance, or no longer, and waits for the disk. Answers
    /// whether that is new.
    ///
    /// # Errors
    /// [`StateError`]; then nothing has changed.
    pub fn set_maintenance(&self, pf: &str, on: bool) -> Result<bool, StateError> {
        let connection = self.connection();
        let statement = if on { schema::PUT_MAINTENANCE } else { schema::DROP_MAINTENANCE };
        let write = || {
            let changed = connection.execute(statement, [pf])?;
            // Moves the log into the file, and waits for the disk.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).optional()?;
            Ok(changed != 0)
        };
        write().map_err(|source| self.failed("written", source))
    }

    /// The PFs in maintenance, by their interfaces' names.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn maintenance(&self) -> Result<BTreeSet<String>, StateError> {
        let connection = self.connection();
        let read = || -> rusqlite::Result<BTreeSet<String>> {
            let mut statement = connection.prepare(schema::GET_MAINTENANCE)?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        read().map_err(|source| self.failed("read", source))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A statement that was cut short by a panic is rolled back by SQLite.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, verb: &'static str, source: rusqlite::Error) -> StateError {
        StateError::Access { path: self.path.clone(), verb, source }
    }
}

/// A record from its row, or an error where it makes no sense.
fn lease(row: &Row<'_>) -> rusqlite::Result<LeaseRecord> {
    let state: String = row.get(1)?;
    let state = LeaseState::ALL.into_iter().find(|known| known.to_string() == state);
    let mac: Option<String> = row.get(6)?;
    let mac = mac.map(|mac| mac.parse().map_err(|_| rusqlite::Error::InvalidQuery)).transpose()?;
    let ticks: Option<i64> = row.get(3)?;
    Ok(LeaseRecord {
        state: state.ok_or(rusqlite::Error::InvalidQuery)?,
        pid: row.get(2)?,
        start_time: ticks.and_then(|ticks| ticks.try_into().ok()),
        vm: row.get(4)?,
        device: row.get(5)?,
        mac,
        port: row.get(7)?,
    })
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;
