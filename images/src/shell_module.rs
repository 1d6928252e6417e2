//! The guest's shell module, built against each kernel's headers in a scratch copy of its
//! folder, so that the source tree stays clean.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Key};
use crate::command::both;
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
    let module = ShellModule { file: home.join("npa_shell.ko"), log: String::new() };
    let mut key = Key::new("shell module 1");
    key.text(&kernel.release).sources(&source(layout))?.content(object)?;
    let key = key.finish();
    if cache::is_current(&home, &key) {
        let log = home.join("build.log");
        let log = fs::read_to_string(&log).map_err(Error::io("read", &log))?;
        return Ok(ShellModule { log, ..module });
    }
    progress.step(&format!("shell module for {}", kernel.release), || {
        let scratch = cache::scratch(&layout.scratch(), &format!("shell-{}", kernel.series))?;
        for file in cache::files(&source(layout))? {
            let to = scratch.join(file.strip_prefix(source(layout)).unwrap_or(&file));
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
            }
            fs::copy(&file, &to).map_err(Error::io("copy", &file))?;
        }
        let log = both(
            Command::new("make")
                .arg("-C")
                .arg(&scratch)
                .arg(format!("KDIR={}", kernel.headers().display()))
                .arg(format!("SHELL_CORE_OBJ={}", object.display())),
        )?;
        let warnings = warnings(&log);
        if !warnings.is_empty() {
            let release = kernel.release.clone();
            return Err(Error::Warnings { what: "the shell module", release, warnings });
        }
        let build_log = scratch.join("build.log");
        fs::write(&build_log, &log).map_err(Error::io("write", &build_log))?;
        cache::commit(&scratch, &home, &key)?;
        Ok(ShellModule { log, ..module })
    })
}

/// Lines of a build's output that warn of something.
fn warnings(log: &str) -> String {
    log.lines()
        .filter(|line| {
            let line = line.to_ascii_lowercase();
            line.contains("warning") || line.contains("objtool:")
        })
        .collect::<Vec<_>>()
        .join("\n")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_compiler_objtool_and_modpost_are_found() {
        let log = "  CC [M] a.o\na.c:1:2: warning: unused\na.o: warning: objtool: x\n\
                   WARNING: modpost: missing MODULE_DESCRIPTION()\n  LD [M] a.ko\n";
        assert_eq!(warnings(log).lines().count(), 3);
        assert!(warnings("  CC [M] a.o\n").is_empty());
    }
}
