//! Sees to a Rust toolchain that can build freestanding code, core library included: rustup's
//! library source where rustup can get it, else Debian's packages.

use std::path::Path;
use std::process::Command;

use npa_plugin::build::{TARGET, Toolchain};

use crate::command::succeeds;
use crate::{Error, Progress, apt};

/// Debian's compiler, build tool and library source of matching versions.
const DEBIAN: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// Makes bare-metal Rust available.
///
/// # Errors
/// When neither way works; the message says what to install.
pub(crate) fn install(workspace: &Path, progress: &Progress) -> Result<(), Error> {
    // The shell's object needs the library compiled with its own flags; with the source there,
    // plugin images need no more.
    let usable = || Toolchain::locate(workspace, true);
    if usable().is_ok() {
        return Ok(());
    }
    if which::which("rustup").is_ok() {
        let rustup = |arguments: &[&str]| {
            succeeds(Command::new("rustup").current_dir(workspace).args(arguments))
        };
        let added = progress.step("rustup component add rust-src", || {
            let done =
                rustup(&["component", "add", "rust-src"]) && rustup(&["target", "add", TARGET]);
            Ok::<bool, Error>(done && usable().is_ok())
        })?;
        if added {
            return Ok(());
        }
        progress.note("rustup cannot get the library source here: taking Debian's packages");
    }
    apt::install(DEBIAN, None, progress)?;
    usable().map(drop).map_err(Error::freestanding("code for x86_64-unknown-none"))
}
