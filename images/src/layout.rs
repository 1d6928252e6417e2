//! Where things are: the one place that knows the cache folder's structure.

use std::path::{Path, PathBuf};

use crate::Series;

/// The folders of a workspace that this crate reads and writes.
#[derive(Debug, Clone)]
pub struct Layout {
    workspace: PathBuf,
}

impl Layout {
    /// The layout of the workspace whose root folder is given.
    pub fn new(workspace: impl Into<PathBuf>) -> Self {
        Self { workspace: workspace.into() }
    }

    /// The workspace's root.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// The cache: everything built or unpacked. Never under version control; may be deleted.
    pub fn cache(&self) -> PathBuf {
        self.workspace.join(".lab")
    }

    /// Unpacked kernel packages, one folder per kernel release.
    pub fn kernels(&self) -> PathBuf {
        self.cache().join("kernels")
    }

    /// What the lab host boots.
    pub fn host(&self) -> PathBuf {
        self.cache().join("host")
    }

    /// What guests boot, and plugin images: `$LAB_IMAGES` in the lab host.
    pub fn images(&self) -> PathBuf {
        self.cache().join("images")
    }

    /// Plugin images.
    pub fn plugins(&self) -> PathBuf {
        self.images().join("plugins")
    }

    /// A guest kernel's image.
    pub fn vmlinuz(&self, series: Series) -> PathBuf {
        self.images().join(format!("vmlinuz-{}", series.name()))
    }

    /// A guest's initramfs.
    pub fn initrd(&self, series: Series) -> PathBuf {
        self.images().join(format!("initrd-{}.img", series.name()))
    }

    /// The shell module of a kernel, and the folder in which it is built.
    pub fn shell_module(&self, series: Series) -> PathBuf {
        self.cache().join("shell").join(series.name())
    }

    /// Scratch space, on the same file system as the rest so that results can be renamed.
    pub fn scratch(&self) -> PathBuf {
        self.cache().join("tmp")
    }

    /// One folder per run of a lab host.
    pub fn runs(&self) -> PathBuf {
        self.cache().join("runs")
    }
}
