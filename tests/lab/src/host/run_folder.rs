//! The folder of one run: what the lab host sees (`share`, read-only, and `out`, writable) and
//! what was recorded about it. Programs are copied and images linked, so that a build going on
//! meanwhile changes nothing under a running lab host.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::agent::Order;
use crate::setup::Setup;

/// Folders of past runs that are kept.
const KEPT: usize = 20;

/// Paths of one run.
#[derive(Debug, Clone)]
pub(crate) struct RunFolder {
    root: PathBuf,
    out: PathBuf,
}

impl RunFolder {
    /// Makes the folder. `out` overrides where results go.
    pub(crate) fn create(setup: &Setup, out: Option<&Path>) -> Result<Self> {
        let runs = setup.layout.runs();
        fs::create_dir_all(&runs).with_context(|| format!("cannot create {}", runs.display()))?;
        prune(&runs)?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let root = runs.join(format!("{seconds}-{}", std::process::id()));
        let out = out.map_or_else(|| root.join("out"), Path::to_path_buf);
        for folder in [&root.join("share/bin"), &out] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let folder = Self { root, out: fs::canonicalize(out)? };
        for (name, path) in setup.binaries.all() {
            let to = folder.share().join("bin").join(name);
            fs::copy(&path, &to).with_context(|| format!("cannot copy {}", path.display()))?;
        }
        link_all(&setup.images.guest, &folder.share().join("images"))?;
        Ok(folder)
    }

    /// Writes what the agent is to run.
    pub(crate) fn order(&self, order: &Order, script: Option<&Path>) -> Result<()> {
        let text = serde_json::to_string_pretty(order)?;
        fs::write(self.share().join("run.json"), text).context("cannot write run.json")?;
        if let Some(script) = script {
            fs::copy(script, self.share().join("script"))
                .with_context(|| format!("cannot read the script {}", script.display()))?;
        }
        Ok(())
    }

    /// What the lab host sees as `/lab`.
    pub(crate) fn share(&self) -> PathBuf {
        self.root.join("share")
    }

    /// What the lab host sees as `/out`.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// The console's record.
    pub(crate) fn console_log(&self) -> PathBuf {
        self.root.join("console.log")
    }

    /// What QEMU itself printed.
    pub(crate) fn qemu_log(&self) -> PathBuf {
        self.root.join("qemu.log")
    }

    /// Removes the programs and images, which are no record of anything.
    pub(crate) fn drop_share(&self) {
        let _ = fs::remove_dir_all(self.share());
    }
}

/// Links every file below `from` into `to`, except keys.
fn link_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            link_all(&path, &to)?;
        } else if path.extension().is_none_or(|kind| kind != "key") {
            fs::hard_link(&path, to).with_context(|| format!("cannot link {}", path.display()))?;
        }
    }
    Ok(())
}

/// Removes the oldest runs; names sort by time.
fn prune(runs: &Path) -> Result<()> {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(runs)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    folders.sort();
    let many = folders.len().saturating_sub(KEPT);
    for folder in &folders[..many] {
        let _ = fs::remove_dir_all(folder);
    }
    Ok(())
}
