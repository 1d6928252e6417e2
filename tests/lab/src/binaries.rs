//! Builds our programs for the lab host and says where they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use images::Progress;
use serde::Deserialize;

/// Packages whose programs (of the same names) run in the lab host. `lab` itself is the
/// running program.
pub(crate) const PROGRAMS: [&str; 5] = ["vmm", "pf-control", "npa-plugin", "stream", "hostile"];

/// One that runs on hosts of a cluster, and is only packaged here. Built with the others, whose
/// libraries it shares.
const PACKAGED: &str = "npa-device-plugin";

/// Those that run in guests too, and are in the guest's image.
pub(crate) const GUEST_PROGRAMS: [&str; 2] = ["stream", "hostile"];

/// Where programs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// Optimized; what figures are taken with.
    Release,
    /// Quick to build.
    Dev,
}

/// The folder with the programs, and their paths.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Path of one program.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Paths of all programs that exist, `lab` included.
    pub(crate) fn all(&self) -> Vec<(String, PathBuf)> {
        // Stays readable when a build replaces the file meanwhile.
        let lab = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
        let mut all = vec![("lab".to_owned(), lab)];
        for name in PROGRAMS {
            let path = self.path(name);
            if path.is_file() {
                all.push((name.to_owned(), path));
            }
        }
        all
    }
}

/// Builds the programs (or, without `build`, takes what is there).
pub(crate) fn provide(
    workspace: &Path,
    profile: Profile,
    build: bool,
    progress: &Progress,
) -> Result<Binaries> {
    if build {
        progress.loud_step(&format!("build {}, {PACKAGED}", PROGRAMS.join(", ")), || {
            let mut command = Command::new("cargo");
            command.current_dir(workspace).arg("build");
            if !progress.is_terminal() {
                command.arg("--quiet");
            }
            if profile == Profile::Release {
                command.arg("--release");
            }
            for name in PROGRAMS.into_iter().chain([PACKAGED]) {
                command.args(["-p", name]);
            }
            let status = command.status().context("cannot start cargo")?;
            if status.success() {
                Ok(())
            } else {
                bail!("cargo build failed ({status}); --no-build takes what is there")
            }
        })?;
    }
    let folder = target_folder(workspace)?.join(match profile {
        Profile::Release => "release",
        Profile::Dev => "debug",
    });
    let binaries = Binaries { folder };
    for name in GUEST_PROGRAMS {
        let path = binaries.path(name);
        if !path.is_file() {
            bail!("{} does not exist: leave out --no-build", path.display());
        }
    }
    Ok(binaries)
}

#[derive(Deserialize)]
struct Metadata {
    target_directory: PathBuf,
}

fn target_folder(workspace: &Path) -> Result<PathBuf> {
    let output = Command::new("cargo")
        .current_dir(workspace)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cannot start cargo")?;
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cannot read cargo's metadata")?;
    Ok(metadata.target_directory)
}
