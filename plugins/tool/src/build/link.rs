//! Links with binutils' `ld`, which every machine with a C compiler has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use goblin::archive::Archive;
use goblin::elf::Elf;
use goblin::elf::section_header::SHN_UNDEF;
use goblin::elf::sym::{STB_GLOBAL, STT_FUNC, STT_OBJECT};
use npa_abi::image::ENTRY_SYMBOL;

use super::{BuildError, LINKER_SCRIPT};

/// Links a plugin image at address 0.
pub(super) fn image(inputs: &[PathBuf], out: &Path) -> Result<(), BuildError> {
    let script = beside(out, "ld");
    std::fs::write(&script, LINKER_SCRIPT).map_err(BuildError::io("write", &script))?;
    let mut ld = Command::new("ld");
    ld.args(["-m", "elf_x86_64", "-pie", "--no-dynamic-linker", "--gc-sections"]);
    ld.args(["--build-id=none", "--hash-style=sysv", "--fatal-warnings"]);
    ld.args(["-z", "norelro", "-z", "notext", "-z", "noexecstack", "-z", "max-page-size=4096"]);
    ld.args(["-z", "nodynamic-undefined-weak"]);
    ld.args(["-u", ENTRY_SYMBOL, "-T"]).arg(&script).arg("-o").arg(out).args(inputs);
    let linked = run("ld", &mut ld);
    std::fs::remove_file(&script).map_err(BuildError::io("remove", &script))?;
    linked
}

/// Links an archive to one relocatable object that exports what `package`'s own objects export
/// unmangled.
pub(super) fn object(archive: &Path, package: &str, out: &Path) -> Result<(), BuildError> {
    let exports = exports(archive, package)?;
    if exports.is_empty() {
        return Err(BuildError::NothingExported { package: package.to_owned() });
    }
    let mut ld = Command::new("ld");
    ld.args(["-m", "elf_x86_64", "-r", "--gc-sections", "--build-id=none", "--fatal-warnings"]);
    for name in &exports {
        ld.args(["-u", name]);
    }
    run("ld", ld.arg("-o").arg(out).arg(archive))?;
    let mut objcopy = Command::new("objcopy");
    for name in &exports {
        objcopy.arg(format!("--keep-global-symbol={name}"));
    }
    objcopy.args(["--remove-section=.eh_frame", "--remove-section=.rela.eh_frame"]);
    objcopy.args(["--remove-section=.comment", "--remove-section=.llvm_addrsig"]);
    run("objcopy", objcopy.arg(out))
}

/// Unmangled functions and objects that the objects of `package` in `archive` define.
fn exports(archive: &Path, package: &str) -> Result<BTreeSet<String>, BuildError> {
    let bytes = std::fs::read(archive).map_err(BuildError::io("read", archive))?;
    let bad = |reason: goblin::error::Error| BuildError::Archive {
        path: archive.to_owned(),
        reason: reason.to_string(),
    };
    let parsed = Archive::parse(&bytes).map_err(bad)?;
    let own = package.replace('-', "_");
    let mut names = BTreeSet::new();
    for member in parsed.members() {
        if !member.starts_with(&own) {
            continue;
        }
        let elf = Elf::parse(parsed.extract(member, &bytes).map_err(bad)?).map_err(bad)?;
        for symbol in &elf.syms {
            let name = elf.strtab.get_at(symbol.st_name).unwrap_or_default();
            let mangled = name.starts_with("_R") || name.starts_with("_ZN");
            if symbol.st_bind() == STB_GLOBAL
                && matches!(symbol.st_type(), STT_FUNC | STT_OBJECT)
                && symbol.st_shndx != SHN_UNDEF as usize
                && !mangled
            {
                names.insert(name.to_owned());
            }
        }
    }
    Ok(names)
}

/// A scratch file next to `path`.
pub(super) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

fn run(program: &'static str, command: &mut Command) -> Result<(), BuildError> {
    let output = command.output().map_err(|source| BuildError::Start { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(BuildError::Link { program, log: String::from_utf8_lossy(&output.stderr).into_owned() })
}
