//! The file tree of an image, put together in memory: programs of this machine with the
//! libraries that they need, busybox's applets, links, and generated files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpio::{self, Entry};
use crate::command::{both, stdout};
use crate::{Error, Layout};

/// One folder for all programs and one for all libraries, as Debian 13 has it: paths that
/// name another one are followed through links.
const MERGED: &[(&str, &str)] =
    &[("bin", "usr/bin"), ("sbin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];

/// An image's file tree.
pub(super) struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// A tree with a root's usual folders and nothing in them.
    pub(super) fn new() -> Self {
        let mut tree = Self { entries: BTreeMap::new() };
        for folder in ["dev", "etc", "proc", "run", "sys", "usr/bin", "usr/lib", "usr/lib64"] {
            tree.folder(folder, 0o755);
        }
        tree.folder("root", 0o700);
        tree.folder("tmp", 0o1777);
        for (name, target) in MERGED {
            tree.entries.insert((*name).to_owned(), Entry::Link((*target).to_owned()));
        }
        tree.entries.insert("usr/sbin".to_owned(), Entry::Link("bin".to_owned()));
        tree
    }

    /// Adds a folder and those above it.
    pub(super) fn folder(&mut self, path: &str, mode: u32) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::Folder(mode));
    }

    /// Adds a file with the given content.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::File(mode, content.into()));
    }

    /// Adds a copy of a file of this machine.
    pub(super) fn copy(&mut self, from: &Path, path: &str) -> Result<(), Error> {
        let content = fs::read(from).map_err(Error::io("read", from))?;
        let mode = fs::metadata(from).map_err(Error::io("look at", from))?.permissions().mode();
        self.file(path, mode & 0o777, content);
        Ok(())
    }

    /// Adds a program of this machine with the libraries that it needs.
    pub(super) fn program(&mut self, from: &Path) -> Result<(), Error> {
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        self.copy(from, &format!("usr/bin/{name}"))?;
        self.libraries(from)
    }

    /// Adds the libraries that a program needs, at the paths where it looks for them.
    pub(super) fn libraries(&mut self, program: &Path) -> Result<(), Error> {
        for library in libraries_of(program)? {
            let path = merged(&library);
            if !self.entries.contains_key(&path) {
                self.copy(&library, &path)?;
            }
        }
        Ok(())
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::Link(target.to_owned()));
    }

    /// Adds a program of ours without its debugging information.
    pub(super) fn stripped(&mut self, layout: &Layout, program: &Path) -> Result<(), Error> {
        let scratch = crate::cache::scratch(&layout.scratch(), "strip")?;
        let name = program.file_name().unwrap_or_default();
        let small = scratch.join(name);
        both(Command::new("strip").arg("-o").arg(&small).arg(program))?;
        self.copy(&small, &format!("usr/bin/{}", name.to_string_lossy()))?;
        fs::remove_dir_all(&scratch).map_err(Error::io("remove", &scratch))
    }

    /// Adds busybox and a link for each of its applets that no real program provides. The shell
    /// is dash: busybox's own would run its applets rather than the programs on PATH.
    pub(super) fn busybox(&mut self) -> Result<(), Error> {
        self.program(&find_program("dash")?)?;
        self.link("usr/bin/sh", "dash");
        let busybox = find_program("busybox")?;
        self.copy(&busybox, "usr/bin/busybox")?;
        for applet in stdout(Command::new(&busybox).arg("--list"))?.lines() {
            let path = format!("usr/bin/{applet}");
            self.entries.entry(path).or_insert_with(|| Entry::Link("busybox".to_owned()));
        }
        Ok(())
    }

    /// Adds every file below a folder of this machine at `path`.
    pub(super) fn folder_of(&mut self, from: &Path, path: &str) -> Result<(), Error> {
        for file in crate::cache::files(from)? {
            let relative = file.strip_prefix(from).unwrap_or(&file);
            self.copy(&file, &format!("{path}/{}", relative.display()))?;
        }
        Ok(())
    }

    /// Writes the archive.
    pub(super) fn write(&self, to: &Path) -> Result<(), Error> {
        let file = fs::File::create(to).map_err(Error::io("create", to))?;
        let mut out = BufWriter::new(file);
        cpio::write(&self.entries, &mut out).map_err(Error::io("write", to))?;
        out.flush().map_err(Error::io("write", to))
    }

    fn parents(&mut self, path: &str) {
        for (position, _) in path.match_indices('/') {
            self.entries.entry(path[..position].to_owned()).or_insert_with(|| Entry::Folder(0o755));
        }
    }
}

/// Where a program of this machine is.
pub(crate) fn find_program(name: &str) -> Result<PathBuf, Error> {
    // Not every user has the administrator's folders on PATH.
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    which::which_in(name, Some(path), "/").map_err(|_| Error::NoProgram(name.to_owned()))
}

/// The libraries, and the loader, that a program needs.
pub(crate) fn libraries_of(program: &Path) -> Result<Vec<PathBuf>, Error> {
    let text = match stdout(Command::new("ldd").arg(program)) {
        Ok(text) => text,
        // ldd fails on a static program, and says so where it cannot be seen from here.
        Err(Error::Command { output, .. }) if output.contains("not a dynamic executable") => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    parse_ldd(&text).map_err(|library| Error::Package {
        package: program.display().to_string(),
        what: format!("library {library} not found"),
    })
}

/// Paths in ldd's output; an error names a library that the loader does not find.
fn parse_ldd(text: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let (name, path) = line.split_once(" => ").unwrap_or((line, line));
        if path.starts_with("not found") {
            return Err(name.to_owned());
        }
        if path.starts_with('/')
            && let Some(path) = path.split(' ').next()
        {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

/// A library's path inside an image, where `/lib` is a link to `/usr/lib`.
fn merged(path: &Path) -> String {
    let path = path.to_string_lossy();
    let path = path.trim_start_matches('/');
    for (from, to) in MERGED {
        if let Some(rest) = path.strip_prefix(&format!("{from}/")) {
            return format!("{to}/{rest}");
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_gives_libraries_and_the_loader_but_not_the_vdso() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let found = parse_ldd(text).unwrap();
        assert_eq!(
            found,
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert_eq!(parse_ldd("\tlibx.so => not found\n"), Err("libx.so".to_owned()));
        assert!(parse_ldd("\tstatically linked\n").unwrap().is_empty());
    }

    #[test]
    fn library_paths_follow_the_merged_folders() {
        assert_eq!(merged(Path::new("/lib/x/libc.so.6")), "usr/lib/x/libc.so.6");
        assert_eq!(merged(Path::new("/lib64/ld.so")), "usr/lib64/ld.so");
        assert_eq!(merged(Path::new("/usr/lib/x/libz.so")), "usr/lib/x/libz.so");
    }

    #[test]
    fn folders_above_a_file_are_made() {
        let mut tree = Tree::new();
        tree.file("opt/a/b", 0o644, "x");
        assert_eq!(tree.entries.get("opt/a"), Some(&Entry::Folder(0o755)));
        assert_eq!(tree.entries.get("bin"), Some(&Entry::Link("usr/bin".to_owned())));
    }
}
