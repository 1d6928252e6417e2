//! What can go wrong while building.

use std::io;
use std::path::{Path, PathBuf};

use crate::image::ImageError;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No compiler for freestanding code was found.
    #[error(
        "no Rust toolchain for freestanding code: run `rustup target add x86_64-unknown-none`, \
         or on Debian `apt-get install rustc-web cargo-web rust-web-src`"
    )]
    NoToolchain,
    /// No compiler with its library's source was found.
    #[error(
        "no Rust toolchain with library source: run `rustup component add rust-src`, \
         or on Debian `apt-get install rustc-web cargo-web rust-web-src`"
    )]
    NoLibrarySource,
    /// A program could not be started.
    #[error("cannot run `{program}`: install it (Debian packages binutils, rustc-web, cargo-web)")]
    Start {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The compiler found errors.
    #[error("{package} does not compile for x86_64-unknown-none:\n{log}")]
    Compile {
        /// The package.
        package: String,
        /// What cargo printed.
        log: String,
    },
    /// Cargo built something, but not what was asked for.
    #[error("{package} has no library (or program) that can be linked")]
    NoProduct {
        /// The package.
        package: String,
    },
    /// The linker found errors.
    #[error("{program} failed:\n{log}")]
    Link {
        /// `ld` or `objcopy`.
        program: &'static str,
        /// What it printed.
        log: String,
    },
    /// The archive cannot be read.
    #[error("cannot read the archive {path}: {reason}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The package exports nothing.
    #[error("{package} exports no `no_mangle` function: nothing would be left after linking")]
    NothingExported {
        /// The package.
        package: String,
    },
    /// The linked file has no place for the header's derived fields.
    #[error("the linked image has no plugin header: does the crate use `net_plugin!`?")]
    NoHeader,
    /// The built image breaks rules.
    #[error("the built image is refused:{}", list(.findings))]
    Refused {
        /// Every rule that it breaks.
        findings: Vec<ImageError>,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl BuildError {
    /// Wraps an I/O error with what was tried.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

fn list(findings: &[ImageError]) -> String {
    findings.iter().map(|finding| format!("\n  - {finding}")).collect()
}
