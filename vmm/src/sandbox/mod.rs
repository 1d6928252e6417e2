//! What a `vmm` that a guest has taken over could still do: as little as can be arranged.
//!
//! Before it opens anything it gives up all capabilities for good and sees no files but those of its
//! configuration (Landlock); before a thread serves a guest it gives up all system calls but those
//! of its role (seccomp). Devices for which it would need a right come from pf-control as open files.

mod filter;
mod heap;
mod paths;
mod policy;
mod privilege;
mod report;

use std::sync::OnceLock;

use clap::ValueEnum;
use serde::Deserialize;

use crate::config::Configuration;
use filter::Filters;
pub use policy::Role;

/// How much of the sandbox is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxMode {
    /// All of it; a kernel that cannot do it is an error
    #[default]
    On,
    /// Without the limits on files, for kernels that lack Landlock
    NoLandlock,
    /// System calls that a filter forbids are carried out, and written to the kernel's log
    Log,
    /// None at all: for debugging
    Off,
}

/// Why `vmm` does not run as it is to.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The user is root.
    #[error(
        "vmm does not run as root: a guest that broke out would be root; run it as a user of its own \
         that may open /dev/kvm, or say --allow-root"
    )]
    Root,
    /// Rights could not be given up.
    #[error("cannot give up the rights of this process ({step})")]
    Privilege {
        /// What was tried.
        step: &'static str,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
    /// The kernel has no Landlock, or too old a one.
    #[error(
        "this kernel does not limit which files a process may open (Landlock is not built in, or not \
         among lsm= of its command line); `--sandbox no-landlock` goes on without that"
    )]
    NoLandlock,
    /// A rule of Landlock's was refused.
    #[error("cannot limit which files this process may open")]
    Landlock(#[from] landlock::RulesetError),
    /// A filter could not be made.
    #[error("cannot make the system call filters")]
    Filter(#[from] seccompiler::BackendError),
    /// The reporter could not be installed.
    #[error("cannot catch SIGSYS")]
    Report(#[source] std::io::Error),
}

/// The filters of the process, once it is confined.
static FILTERS: OnceLock<Filters> = OnceLock::new();

/// Refuses root, unless `allow_root`.
///
/// # Errors
/// [`SandboxError::Root`].
pub fn refuse_root(allow_root: bool) -> Result<(), SandboxError> {
    match rustix::process::geteuid().is_root() && !allow_root {
        true => Err(SandboxError::Root),
        false => Ok(()),
    }
}

/// Confines this thread, and all that it will start, to what `configuration` needs. To be called
/// while there is no other thread. Threads then call [`enter`].
///
/// # Errors
/// [`SandboxError`]; the process must not go on.
pub fn confine(configuration: &Configuration) -> Result<(), SandboxError> {
    let mode = configuration.sandbox;
    if mode == SandboxMode::Off {
        tracing::warn!("vmm runs without its sandbox");
        return Ok(());
    }
    privilege::give_up()?;
    if mode != SandboxMode::NoLandlock {
        paths::limit_to(configuration)?;
    }
    heap::settle();
    let filters = Filters::compile(mode == SandboxMode::Log)?;
    report::install().map_err(SandboxError::Report)?;
    // A process is confined once.
    let _ = FILTERS.set(filters);
    Ok(())
}

/// Limits the calling thread, and all that it starts, to the system calls of its role. A process
/// that is not confined goes on as it is.
///
/// A thread that cannot be limited ends the process: there is nobody to whom it could be left.
pub fn enter(role: Role) {
    let Some(filters) = FILTERS.get() else { return };
    report::remember_name();
    if let Err(error) = filters.apply(role) {
        tracing::error!(?role, %error, "a thread cannot be confined");
        std::process::exit(1);
    }
}

#[cfg(test)]
mod sandbox_test;
