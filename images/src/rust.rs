//! Sees to a Rust toolchain that can build freestanding code (`x86_64-unknown-none`): rustup's
//! target where rustup can get it, else Debian's packages with the library's source.

use std::path::Path;
use std::process::Command;

use crate::command::{stdout, succeeds};
use crate::{Error, Progress, apt};

/// Target of everything that runs without an operating system below it.
pub(crate) const TARGET: &str = "x86_64-unknown-none";

/// Debian's compiler, build tool and library source of matching versions.
const DEBIAN: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// Makes bare-metal Rust available.
///
/// # Errors
/// When neither way works; the message says what to install.
pub(crate) fn install(progress: &Progress) -> Result<(), Error> {
    if has_target() || apt::missing(DEBIAN)?.is_empty() {
        return Ok(());
    }
    if which::which("rustup").is_ok() {
        let added = progress.step(&format!("rustup target add {TARGET}"), || {
            let done = succeeds(Command::new("rustup").args(["target", "add", TARGET]));
            Ok::<bool, Error>(done && has_target())
        })?;
        if added {
            return Ok(());
        }
        progress.note("rustup cannot get the target here: taking Debian's packages");
    }
    apt::install(DEBIAN, None, progress)?;
    if apt::missing(DEBIAN)?.is_empty() { Ok(()) } else { Err(Error::NoBareMetalRust) }
}

fn has_target() -> bool {
    stdout(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))
        .is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}
