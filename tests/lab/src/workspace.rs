//! Finds the workspace that a command on the build machine works on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Root folder of the workspace around the current folder.
pub(crate) fn root() -> Result<PathBuf> {
    let start = std::env::current_dir().context("cannot read the current folder")?;
    match start.ancestors().find(|folder| is_root(folder)) {
        Some(folder) => Ok(folder.to_path_buf()),
        None => bail!("no npa-kvm workspace around {}: run this inside one", start.display()),
    }
}

fn is_root(folder: &Path) -> bool {
    folder.join("tests/lab/Cargo.toml").is_file()
        && std::fs::read_to_string(folder.join("Cargo.toml"))
            .is_ok_and(|text| text.contains("[workspace]"))
}
