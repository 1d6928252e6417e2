//! Kernel modules for an image: the named ones with all that they depend on, unpacked, and the
//! index that modprobe reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::both;
use crate::{Error, Kernel};

/// What a module's index says: file and dependencies by module name.
struct Index {
    files: BTreeMap<String, String>,
    depends: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

/// Makes `root/lib/modules/RELEASE` with `names`, their dependencies, the `extra` files
/// and an index. `root` must not exist yet or be empty.
///
/// # Errors
/// When the kernel has no module of a name (built into the kernel is fine).
pub(super) fn stage(
    kernel: &Kernel,
    names: &[&str],
    extra: &[PathBuf],
    root: &Path,
) -> Result<(), Error> {
    let source = kernel.modules();
    let read = |name: &str| {
        let path = source.join(name);
        fs::read_to_string(&path).map_err(Error::io("read", &path))
    };
    let index = Index::parse(&read("modules.dep")?, &read("modules.builtin")?);
    let home = root.join("lib/modules").join(&kernel.release);
    fs::create_dir_all(&home).map_err(Error::io("create", &home))?;
    let wanted = index
        .closure(names)
        .map_err(|module| Error::NoModule { release: kernel.release.clone(), module })?;
    for file in wanted {
        place(&source.join(&file), &home.join(&file))?;
    }
    let ours = home.join("extra");
    fs::create_dir_all(&ours).map_err(Error::io("create", &ours))?;
    for file in extra {
        // A guest's memory is no place for debugging information.
        let to = ours.join(file.file_name().unwrap_or_default());
        both(Command::new("strip").arg("--strip-debug").arg("-o").arg(&to).arg(file))?;
    }
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        let to = home.join(name);
        fs::copy(source.join(name), &to).map_err(Error::io("create", &to))?;
    }
    both(Command::new("depmod").arg("-b").arg(root).arg(&kernel.release)).map(drop)
}

/// Copies a module, unpacking it when it is compressed.
fn place(from: &Path, to: &Path) -> Result<(), Error> {
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    if from.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new("xz")
            .args(["-dc"])
            .arg(from)
            .output()
            .map_err(|source| Error::Start { program: "xz".into(), source })?;
        if !output.status.success() {
            return Err(Error::Package {
                package: from.display().to_string(),
                what: "not a valid xz file".into(),
            });
        }
        let to = to.with_extension("");
        return fs::write(&to, output.stdout).map_err(Error::io("write", &to));
    }
    fs::copy(from, to).map(drop).map_err(Error::io("copy", from))
}

impl Index {
    fn parse(dep: &str, builtin: &str) -> Self {
        let mut index = Self {
            files: BTreeMap::new(),
            depends: BTreeMap::new(),
            builtin: builtin.lines().map(module_name).collect(),
        };
        for line in dep.lines() {
            if let Some((file, depends)) = line.split_once(':') {
                let name = module_name(file);
                let depends = depends.split_whitespace().map(module_name).collect();
                index.files.insert(name.clone(), file.to_owned());
                index.depends.insert(name, depends);
            }
        }
        index
    }

    /// Files of the named modules and of what they depend on; an error names an unknown one.
    fn closure(&self, names: &[&str]) -> Result<BTreeSet<String>, String> {
        let mut files = BTreeSet::new();
        let mut queue: Vec<String> = names.iter().map(|name| name.replace('-', "_")).collect();
        while let Some(name) = queue.pop() {
            let Some(file) = self.files.get(&name) else {
                if self.builtin.contains(&name) {
                    continue;
                }
                return Err(name);
            };
            if files.insert(file.clone()) {
                queue.extend(self.depends.get(&name).into_iter().flatten().cloned());
            }
        }
        Ok(files)
    }
}

/// The module's name: the file's, with `_` for `-` and without extensions.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/a/kvm-amd.ko.xz: kernel/a/kvm.ko.xz kernel/b/irqbypass.ko.xz\n\
                       kernel/a/kvm.ko.xz: kernel/b/irqbypass.ko.xz\n\
                       kernel/b/irqbypass.ko.xz:\n";

    #[test]
    fn the_closure_has_dependencies_once() {
        let index = Index::parse(DEP, "kernel/drivers/virtio_pci.ko\n");
        let files = index.closure(&["kvm_amd", "virtio-pci"]).unwrap();
        assert_eq!(
            files.into_iter().collect::<Vec<_>>(),
            ["kernel/a/kvm-amd.ko.xz", "kernel/a/kvm.ko.xz", "kernel/b/irqbypass.ko.xz"]
        );
    }

    #[test]
    fn an_unknown_module_is_an_error_by_name() {
        let index = Index::parse(DEP, "");
        assert_eq!(index.closure(&["nothing"]), Err("nothing".to_owned()));
    }
}
