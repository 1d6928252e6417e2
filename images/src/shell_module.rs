//! The guest's shell module: its Rust half, one object for every kernel, and the module itself,
//! built against each kernel's headers.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, Key};
use crate::kbuild::{self, External};
use crate::{Error, Kernel, Layout, Progress, plugins};

/// A built shell module.
#[derive(Debug, Clone)]
pub struct ShellModule {
    /// The module file.
    pub file: PathBuf,
    /// What the build printed.
    pub log: String,
}

/// The module's source folder.
fn source(layout: &Layout) -> PathBuf {
    layout.workspace().join("guest-shell/linux/module")
}

/// Builds the module for `kernel` unless it is current. `object` is the shell's prelinked
/// freestanding object.
///
/// # Errors
/// When the build fails, or prints a warning (the compiler's, objtool's or modpost's).
pub fn build(
    layout: &Layout,
    kernel: &Kernel,
    object: &Path,
    progress: &Progress,
) -> Result<ShellModule, Error> {
    let home = layout.shell_module(kernel.series);
    let mut key = Key::new("shell module 1");
    key.text(&kernel.release).sources(&source(layout))?.content(object)?;
    let module = External {
        what: "the shell module",
        source: &source(layout),
        variables: &[format!("SHELL_CORE_OBJ={}", object.display())],
        home: &home,
        key: &key.finish(),
    };
    let log = kbuild::build(layout, kernel, &module, progress)?;
    Ok(ShellModule { file: home.join("npa_shell.ko"), log })
}

/// Builds the shell's Rust half, one relocatable object for every kernel, unless it is current.
///
/// # Errors
/// When it does not compile or link.
pub fn object(layout: &Layout, progress: &Progress) -> Result<PathBuf, Error> {
    let output = layout.cache().join("shell/core.o");
    let flags = source(layout).join("rustflags");
    let flags = fs::read_to_string(&flags).map_err(Error::io("read", &flags))?;
    let mut key = Key::new("shell object 1");
    plugins::freestanding_sources(layout, &mut key)?;
    let key = key.finish();
    if cache::is_current(&output, &key) {
        return Ok(output);
    }
    progress.loud_step("shell core (freestanding object)", || {
        let scratch = cache::scratch(&layout.scratch(), "shell-object")?;
        let made = scratch.join("core.o");
        let flags: Vec<&str> =
            flags.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        npa_plugin::build::build_object(layout.workspace(), "shell-linux", &flags, &[], &made)
            .map_err(Error::freestanding("the shell's object"))?;
        cache::commit(&made, &output, &key)?;
        fs::remove_dir_all(&scratch).map_err(Error::io("remove", &scratch))
    })?;
    Ok(output)
}
