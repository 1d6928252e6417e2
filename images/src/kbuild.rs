//! Builds external kernel modules, each in a scratch copy of its folder, so that the source tree
//! stays clean. Such a folder has a Makefile that takes `KDIR`, the kernel's headers.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cache;
use crate::command::both;
use crate::{Error, Kernel, Layout, Progress};

/// A module to build.
pub(crate) struct External<'a> {
    /// For messages: "the shell module".
    pub(crate) what: &'static str,
    /// Its folder of sources.
    pub(crate) source: &'a Path,
    /// More variables for make, `NAME=VALUE`.
    pub(crate) variables: &'a [String],
    /// The folder that it is built to, all of its output with it.
    pub(crate) home: &'a Path,
    /// What the output depends on, finished.
    pub(crate) key: &'a str,
}

/// Builds `module` for `kernel` unless it is current, and returns what its build printed.
///
/// # Errors
/// When the build fails, or prints a warning (the compiler's, objtool's or modpost's).
pub(crate) fn build(
    layout: &Layout,
    kernel: &Kernel,
    module: &External<'_>,
    progress: &Progress,
) -> Result<String, Error> {
    let &External { what, source, variables, home, key } = module;
    if cache::is_current(home, key) {
        let log = home.join("build.log");
        return fs::read_to_string(&log).map_err(Error::io("read", &log));
    }
    let title = what.trim_start_matches("the ");
    progress.step(&format!("{title} for {}", kernel.release), || {
        let name = format!("{}-{}", title.replace(' ', "-"), kernel.series);
        let scratch = cache::scratch(&layout.scratch(), &name)?;
        for file in cache::files(source)? {
            let to = scratch.join(file.strip_prefix(source).unwrap_or(&file));
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
                .args(variables),
        )?;
        let warnings = warnings(&log);
        if !warnings.is_empty() {
            let release = kernel.release.clone();
            return Err(Error::Warnings { what, release, warnings });
        }
        let build_log = scratch.join("build.log");
        fs::write(&build_log, &log).map_err(Error::io("write", &build_log))?;
        cache::commit(&scratch, home, key)?;
        Ok(log)
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
