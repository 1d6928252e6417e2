//! The crate's one error type. A message says what failed and, where the user can do
//! something, what.

use std::path::{Path, PathBuf};

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The operation, as a verb.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: is it installed?")]
    Start {
        /// The program's name.
        program: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("`{command}` failed ({status}):\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// The machine is no Debian, so packages have to be installed by hand.
    #[error("this is not a Debian 12 machine ({found}); install these by hand: {packages}")]
    NotDebian {
        /// What it is.
        found: String,
        /// What the lab needs, in Debian's names.
        packages: String,
    },
    /// Packages are missing and this user may not install them.
    #[error("packages are missing; run as root: {command}")]
    NotRoot {
        /// The command that installs them.
        command: String,
    },
    /// apt has no source from which the backports suite can be derived.
    #[error(
        "no apt source for {suite} with component main found; add {suite}-backports to apt's \
         sources by hand (QEMU >= 8 and Linux 6.12 come from there)"
    )]
    NoAptSource {
        /// The suite looked for.
        suite: String,
    },
    /// QEMU is too old for x2APIC mode of a CPU that it emulates.
    #[error("qemu {found} is too old: x2APIC mode of an emulated CPU needs 9.0 or newer")]
    OldQemu {
        /// The installed version.
        found: String,
    },
    /// No kernel package of a series is known to apt.
    #[error("apt knows no linux-image-{series}*-amd64 with headers; run `apt-get update`")]
    NoKernel {
        /// The series, like `6.12`.
        series: &'static str,
    },
    /// A package does not hold what it should.
    #[error("{package}: {what}")]
    Package {
        /// The package or folder.
        package: String,
        /// What is wrong.
        what: String,
    },
    /// A kernel module named by an image does not exist.
    #[error("kernel {release} has no module {module}")]
    NoModule {
        /// The kernel's release.
        release: String,
        /// The module's name.
        module: String,
    },
    /// A program that an image needs is not installed.
    #[error("program {0} not found; run `cargo lab prepare`")]
    NoProgram(String),
    /// A build printed warnings, and none is allowed.
    #[error("building {what} for {release} printed warnings:\n{warnings}")]
    Warnings {
        /// What was built.
        what: &'static str,
        /// For which kernel.
        release: String,
        /// The lines.
        warnings: String,
    },
    /// A freestanding build failed.
    #[error("cannot build {what}")]
    Freestanding {
        /// What was being built.
        what: String,
        /// The builder's reason.
        #[source]
        source: Box<npa_plugin::build::BuildError>,
    },
}

impl Error {
    /// Wraps a system error with the operation and the path.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { what, path, source }
    }

    /// Wraps an error of the freestanding builder.
    pub(crate) fn freestanding(what: &str) -> impl FnOnce(npa_plugin::build::BuildError) -> Self {
        let what = what.to_owned();
        move |source| Self::Freestanding { what, source: Box::new(source) }
    }
}
