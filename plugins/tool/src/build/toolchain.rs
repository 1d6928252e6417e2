//! Finds a Rust toolchain that can compile for [`TARGET`]. Never installs anything: it says what
//! is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::BuildError;

/// Target of everything that runs without an operating system below it.
pub const TARGET: &str = "x86_64-unknown-none";

/// Where Debian's `rustc-web` and `cargo-web` put their programs.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// Variables by which an outer cargo or rustup would steer the inner one.
const OUTER: &[&str] = &[
    "CARGO",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MAKEFLAGS",
    "CARGO_TARGET_DIR",
    "MAKEFLAGS",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

/// How the standard library's freestanding part comes to [`TARGET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreLibrary {
    /// The toolchain has it compiled.
    Installed,
    /// It is compiled from the toolchain's library source.
    FromSource,
}

/// A compiler and build tool for freestanding code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    cargo: PathBuf,
    rustc: Option<PathBuf>,
    core: CoreLibrary,
}

impl Toolchain {
    /// Finds a toolchain: first the default one with the target installed (unless the core
    /// library is wanted `from_source`), then the default one with its library source, then
    /// Debian's packages.
    ///
    /// # Errors
    /// [`BuildError::NoToolchain`] or [`BuildError::NoLibrarySource`] when there is none; the
    /// message says what to install.
    pub fn locate(workspace: &Path, from_source: bool) -> Result<Self, BuildError> {
        let own = |core| Self { cargo: PathBuf::from("cargo"), rustc: None, core };
        let rustc = Path::new("rustc");
        if !from_source && has_target(workspace, rustc) {
            return Ok(own(CoreLibrary::Installed));
        }
        if has_source(workspace, rustc) {
            return Ok(own(CoreLibrary::FromSource));
        }
        let rustc = PathBuf::from(DEBIAN_RUSTC);
        let cargo = PathBuf::from(DEBIAN_CARGO);
        if rustc.is_file() && cargo.is_file() && has_source(workspace, &rustc) {
            return Ok(Self { cargo, rustc: Some(rustc), core: CoreLibrary::FromSource });
        }
        Err(if from_source { BuildError::NoLibrarySource } else { BuildError::NoToolchain })
    }

    /// How this toolchain provides the core library.
    pub fn core(&self) -> CoreLibrary {
        self.core
    }

    /// A cargo command of this toolchain in `workspace`, free of what an outer cargo has set.
    pub(super) fn cargo(&self, workspace: &Path) -> Command {
        let mut command = clean(&self.cargo, workspace);
        if let Some(rustc) = &self.rustc {
            command.env("RUSTC", rustc).env_remove("RUSTUP_TOOLCHAIN");
        }
        // Branch protection and building the core library are not yet stable options.
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    }
}

fn clean(program: &Path, workspace: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace);
    for name in OUTER {
        command.env_remove(name);
    }
    command
}

fn has_target(workspace: &Path, rustc: &Path) -> bool {
    printed(workspace, rustc, &["--print", "target-libdir", "--target", TARGET])
        .is_some_and(|folder| folder.is_dir())
}

fn has_source(workspace: &Path, rustc: &Path) -> bool {
    printed(workspace, rustc, &["--print", "sysroot"])
        .is_some_and(|root| root.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file())
}

fn printed(workspace: &Path, rustc: &Path, arguments: &[&str]) -> Option<PathBuf> {
    let output = clean(rustc, workspace).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}
