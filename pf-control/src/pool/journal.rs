//! The journal: who holds which VF, kept in a file for the daemon that comes after a crash.
//!
//! It only adds names and ports to what the kernel knows, and is believed only as far as the
//! kernel agrees.

use super::Slot;
use crate::lease::LeaseState;
use crate::ops::{MacAddr, PciAddress};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// A journal that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the journal {}", path.display())]
pub struct JournalError {
    path: PathBuf,
    source: io::Error,
}

/// What is kept of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) state: LeaseState,
    pub(super) pid: Option<u32>,
    pub(super) start_time: Option<u64>,
    pub(super) vm: Option<String>,
    pub(super) device: Option<String>,
    pub(super) mac: Option<MacAddr>,
    pub(super) port: Option<String>,
}

/// The file's form.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    leases: BTreeMap<PciAddress, Entry>,
}

/// The form's version; another one is not read.
const VERSION: u32 = 1;

/// The file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// One writer at a time.
    writing: Mutex<()>,
}

impl Journal {
    /// The journal at `path`, which need not exist. Its directory must not outlive a reboot.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writing: Mutex::new(()) }
    }

    /// Replaces the file in one step.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn write<'a>(&self, slots: impl Iterator<Item = &'a Slot>) -> Result<(), JournalError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let leases = slots.filter_map(entry).collect();
        let document = Document { version: VERSION, leases };
        let fresh = self.path.with_extension("new");
        serde_json::to_vec_pretty(&document)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&fresh, text))
            .and_then(|()| fs::rename(&fresh, &self.path))
            .map_err(|source| JournalError { path: self.path.clone(), source })
    }

    /// What a former daemon wrote; nothing when there is no file or it cannot be understood.
    pub(super) fn read(&self) -> BTreeMap<PciAddress, Entry> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "the journal is not readable");
                return BTreeMap::new();
            }
        };
        match serde_json::from_slice::<Document>(&text) {
            Ok(document) if document.version == VERSION => document.leases,
            Ok(document) => {
                tracing::warn!(version = document.version, "the journal is of another version");
                BTreeMap::new()
            }
            Err(error) => {
                tracing::warn!(%error, "the journal is garbled");
                BTreeMap::new()
            }
        }
    }
}

fn entry(slot: &Slot) -> Option<(PciAddress, Entry)> {
    let lease = slot.lease();
    if lease.state == LeaseState::Free && lease.owner.is_none() {
        return None;
    }
    let entry = Entry {
        state: lease.state,
        pid: lease.owner.as_ref().map(|owner| owner.pid),
        start_time: lease.owner.as_ref().map(|owner| owner.start_time),
        vm: lease.vm.clone(),
        device: lease.device.clone(),
        mac: lease.mac,
        port: lease.port.clone(),
    };
    Some((slot.vf.address, entry))
}
