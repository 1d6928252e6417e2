//! Saves a VM to a folder, and restores it from one. Memory is written while the guest runs, like
//! in a move; only what it changed meanwhile is written in a short stop. On restore, memory is
//! mapped, and read page by page as the guest needs it.
//!
//! The folder has two files: `memory`, all of RAM in ascending order, with holes for zeroes, and
//! `state`, an archive as of [`crate::state`]. It appears whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{FlockOperation, flock};

use super::MovingDevice;
use super::error::MigrationError;
use super::pages::{self, PageSink};
use super::precopy::{Convergence, Decision, OnTimeout, Policy, Round};
use super::progress::{Progress, Report, RoundReport, ms};
use super::source::take_up;
use crate::state::MAX_LENGTH;
use crate::virtio::Intake;
use crate::vm::{PageSet, RamRange, Vm};

/// Name of the file with memory.
const MEMORY: &str = "memory";
/// Name of the file with the state.
const STATE: &str = "state";

/// The file with the memory of the snapshot in `folder`.
pub fn memory_file(folder: &Path) -> PathBuf {
    folder.join(MEMORY)
}

/// Saves `vm` to `folder`, which must not exist. The VM goes on afterwards, or, if it is to end,
/// stays held.
///
/// # Errors
/// [`MigrationError`]; the VM goes on, and nothing is left in `folder`.
pub fn save(
    vm: &Vm,
    devices: &[MovingDevice],
    folder: &Path,
    ends: bool,
    progress: &Progress,
) -> Result<Report, MigrationError> {
    let to = folder.display().to_string();
    progress.begin(to.clone())?;
    let mut saving = Saving { vm, progress, report: Report { to, ..Report::default() } };
    let began = Instant::now();
    let outcome = Partial::new(folder, vm.device_context().memory.ranges()).and_then(|partial| {
        saving.all(devices, &partial, ends)?;
        progress.phase("syncing", false);
        partial.finish()
    });
    let outcome = match outcome {
        Ok(()) => {
            saving.report.total_ms = ms(began.elapsed());
            Ok(saving.report)
        }
        Err(error) => {
            if let Err(error) = vm.unsuspend() {
                tracing::warn!(error = crate::api::chain(&error), "the VM does not go on");
            }
            Err(error)
        }
    };
    if let Err(error) = vm.stop_dirty_log() {
        tracing::warn!(error = crate::api::chain(&error), "dirty log");
    }
    if !ends || outcome.is_err() {
        take_up(devices);
    }
    progress.end(&outcome);
    outcome
}

/// Lets `vm`, whose memory is the snapshot's and which was not started, go on where the snapshot in
/// `folder` was taken.
///
/// # Errors
/// [`MigrationError`]; `vm` is then of no use any more.
pub fn restore(vm: &Vm, devices: &[MovingDevice], folder: &Path) -> Result<(), MigrationError> {
    let path = folder.join(STATE);
    let failed = |source| MigrationError::File { what: "read", path: path.clone(), source };
    let file = File::open(&path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let mut state = vec![0; len.min(MAX_LENGTH as u64 + 1) as usize];
    file.read_exact_at(&mut state, 0).map_err(failed)?;
    vm.restore(&state)?;
    for device in devices {
        let told = device
            .arrivals
            .set_intake(Intake::Discard)
            .and_then(|()| device.arrivals.set_intake(Intake::Open))
            .and_then(|()| device.arrivals.announce());
        told.map_err(|source| MigrationError::Device {
            device: device.arrivals.id().to_owned(),
            source,
        })?;
    }
    vm.unsuspend()?;
    take_up(devices);
    Ok(())
}

struct Saving<'a> {
    vm: &'a Vm,
    progress: &'a Progress,
    report: Report,
}

impl Saving<'_> {
    fn all(
        &mut self,
        devices: &[MovingDevice],
        partial: &Partial,
        ends: bool,
    ) -> Result<(), MigrationError> {
        self.progress.phase("falling-back", true);
        let mut fell_back = None;
        for device in devices {
            let started = Instant::now();
            let fell = device.accelerated.fall_back().map_err(|source| {
                MigrationError::Fallback { device: device.arrivals.id().to_owned(), source }
            })?;
            if fell.had_vf {
                fell_back = fell_back.or(Some(started));
            }
            self.progress.check()?;
        }
        self.progress.phase("copying", true);
        let memory = &self.vm.device_context().memory;
        let mut sink = FileSink {
            file: &partial.memory,
            path: partial.folder.join(MEMORY),
            ranges: memory.ranges(),
            progress: self.progress,
            first: true,
            began: Instant::now(),
            written: 0,
        };
        self.vm.start_dirty_log()?;
        let began = Instant::now();
        let rest = self.copy(&mut sink)?;
        self.report.precopy_ms = ms(began.elapsed());

        let stopped = Instant::now();
        self.report.brownout_ms = fell_back.map_or(0.0, |since| ms(stopped - since));
        self.vm.suspend()?;
        self.progress.phase("stopped", true);
        self.report.stop.hold_ms = ms(stopped.elapsed());
        let mut last = self.vm.take_dirty()?;
        last.merge(&rest);
        let started = Instant::now();
        let copied = pages::copy(memory.ram(), &last, &mut sink)?;
        self.report.last_pages = copied.pages + copied.zeroes;
        self.report.stop.memory_ms = ms(started.elapsed());
        let started = Instant::now();
        let state = self.vm.save()?;
        self.report.stop.state_ms = ms(started.elapsed());
        if !ends {
            self.vm.unsuspend()?;
        }
        self.report.downtime_ms = ms(stopped.elapsed());
        self.report.bytes = sink.written + state.len() as u64;
        partial.write_state(&state)
    }

    /// Writes memory until little enough is left; returns what that is.
    fn copy(&mut self, sink: &mut FileSink<'_>) -> Result<PageSet, MigrationError> {
        // A snapshot that its owner waits for is worth a longer stop.
        let policy = Policy { on_timeout: OnTimeout::Force, ..Policy::default() };
        let mut convergence = Convergence::new(policy);
        let memory = &self.vm.device_context().memory;
        let mut pages = PageSet::all(memory.ranges());
        let began = Instant::now();
        loop {
            self.progress.round(convergence.rounds() + 1, pages.bytes(), convergence.rate());
            let (started, before) = (Instant::now(), sink.written);
            let copied = pages::copy(memory.ram(), &pages, sink)?;
            sink.first = false;
            let dirty = self.vm.take_dirty()?;
            let took = started.elapsed();
            self.report.rounds.push(RoundReport {
                ms: ms(took),
                pages: copied.pages,
                zero_pages: copied.zeroes,
                dirty_pages: dirty.len(),
            });
            let round = Round { sent: sink.written - before, took, dirty: dirty.bytes() };
            match convergence.after(round, began.elapsed()) {
                Decision::Stop | Decision::GiveUp => return Ok(dirty),
                Decision::Again | Decision::Slower(_) => pages = dirty,
            }
        }
    }
}

/// A folder in the making, which goes away unless it is finished.
struct Partial {
    folder: PathBuf,
    target: PathBuf,
    memory: File,
    finished: std::cell::Cell<bool>,
}

impl Partial {
    fn new(target: &Path, ram: &[RamRange]) -> Result<Self, MigrationError> {
        if target.exists() {
            return Err(MigrationError::Exists(target.to_owned()));
        }
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let folder = target.with_file_name(name);
        let failed =
            |what, path: PathBuf| move |source| MigrationError::File { what, path, source };
        // Left by one that was killed.
        let _ = std::fs::remove_dir_all(&folder);
        let create = || -> io::Result<File> {
            std::fs::create_dir(&folder)?;
            std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
            let memory = File::options().create_new(true).write(true).open(folder.join(MEMORY))?;
            flock(&memory, FlockOperation::NonBlockingLockExclusive)?;
            memory.set_len(ram.iter().map(|range| range.len).sum())?;
            Ok(memory)
        };
        let memory = create().map_err(|error| {
            let _ = std::fs::remove_dir_all(&folder);
            match error.kind() {
                io::ErrorKind::PermissionDenied => MigrationError::Forbidden(target.to_owned()),
                _ => failed("create", folder.clone())(error),
            }
        })?;
        let finished = std::cell::Cell::new(false);
        Ok(Self { folder, target: target.to_owned(), memory, finished })
    }

    fn write_state(&self, state: &[u8]) -> Result<(), MigrationError> {
        let path = self.folder.join(STATE);
        let write = || -> io::Result<()> {
            let mut file = File::create_new(&path)?;
            file.write_all(state)?;
            file.sync_all()
        };
        write().map_err(|source| MigrationError::File { what: "write", path: path.clone(), source })
    }

    /// Makes it durable and gives it its name.
    fn finish(&self) -> Result<(), MigrationError> {
        let finish = || -> io::Result<()> {
            self.memory.sync_all()?;
            std::fs::rename(&self.folder, &self.target)?;
            match self.target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                Some(parent) => File::open(parent)?.sync_all(),
                None => File::open(".")?.sync_all(),
            }
        };
        finish().map_err(|source| MigrationError::File {
            what: "finish",
            path: self.target.clone(),
            source,
        })?;
        self.finished.set(true);
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished.get()
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            tracing::warn!(%error, folder = %self.folder.display(), "a partial snapshot is left");
        }
    }
}

/// Writes pages to their places in a file.
struct FileSink<'a> {
    file: &'a File,
    path: PathBuf,
    ranges: &'a [RamRange],
    progress: &'a Progress,
    /// The file has holes where nothing was written yet.
    first: bool,
    began: Instant,
    written: u64,
}

impl FileSink<'_> {
    /// Where the page at `gpa` is in the file.
    fn position(&self, gpa: u64) -> Result<u64, MigrationError> {
        let mut start = 0;
        for range in self.ranges {
            if (range.gpa..range.gpa + range.len).contains(&gpa) {
                return Ok(start + gpa - range.gpa);
            }
            start += range.len;
        }
        Err(MigrationError::NotRam { gpa, len: 0 })
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), MigrationError> {
        let position = self.position(gpa)?;
        self.file.write_all_at(bytes, position).map_err(|source| MigrationError::File {
            what: "write",
            path: self.path.clone(),
            source,
        })?;
        self.written += bytes.len() as u64;
        let rate = self.written as f64 / self.began.elapsed().as_secs_f64().max(1e-6);
        self.progress.done(bytes.len() as u64, rate);
        self.progress.check()
    }
}

impl PageSink for FileSink<'_> {
    fn pages(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), MigrationError> {
        self.write(gpa, bytes)
    }

    fn zeroes(&mut self, gpa: u64, len: u64) -> Result<(), MigrationError> {
        if self.first {
            self.progress.done(len, 0.0);
            return self.progress.check();
        }
        self.write(gpa, &vec![0; len as usize])
    }
}
