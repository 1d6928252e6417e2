//! `cargo lab packages`: Debian packages of the programs that run on a host, and whether they hold
//! what they have to.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use cargo_deb::config::{BuildOptions, DebugSymbolOptions};
use cargo_deb::listener::Listener;
use cargo_deb::{CargoDeb, OutputPath};
use images::Progress;

use crate::binaries::{self, Profile};
use crate::workspace;

/// Crates with a package, and what is in it that nothing else would miss.
const PACKAGES: [(&str, &[&str]); 3] = [
    (
        "pf-control",
        &[
            "./usr/bin/pf-control",
            "./usr/lib/systemd/system/pf-control.service",
            "./usr/lib/sysusers.d/npa-vmm.conf",
            "./etc/npa/pf-control.conf",
        ],
    ),
    (
        "vmm",
        &[
            "./usr/bin/vmm",
            "./usr/lib/systemd/system/vmm@.service",
            "./usr/lib/sysusers.d/npa-vmm-user.conf",
        ],
    ),
    (
        "npa-device-plugin",
        &["./usr/bin/npa-device-plugin", "./usr/lib/systemd/system/npa-device-plugin.service"],
    ),
];

/// Options of `cargo lab packages`.
#[derive(Debug, clap::Args)]
pub(crate) struct PackagesArguments {
    /// Folder for the packages (default: target/debian)
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Builds the packages and names them.
pub(crate) fn run(arguments: &PackagesArguments) -> Result<ExitCode> {
    let root = workspace::root()?;
    let out = arguments.out.clone().unwrap_or_else(|| root.join("target/debian"));
    for package in build(&root, &out)? {
        println!("{}", package.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the programs and the packages into the folder `out`; answers their paths.
pub(crate) fn build(root: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let out = &out.canonicalize()?;
    binaries::provide(root, Profile::Release, true, &Progress::default())?;
    PACKAGES.into_iter().map(|(name, files)| package(root, out, name, files)).collect()
}

fn package(root: &Path, out: &Path, name: &str, files: &[&str]) -> Result<PathBuf> {
    // In a folder of its own, so that it is known by what it is and not by its version.
    let folder = tempfile::tempdir_in(out)?;
    let manifest = root.join("Cargo.toml");
    let options = BuildOptions {
        manifest_path: Some(&manifest),
        selected_package_name: Some(name),
        // The symbols are ten times the program.
        debug: DebugSymbolOptions { strip_override: Some(true), ..DebugSymbolOptions::default() },
        ..BuildOptions::default()
    };
    let output = OutputPath { path: folder.path(), is_dir: true };
    CargoDeb { options, no_build: true, deb_output: Some(output), ..CargoDeb::default() }
        .process(&Warnings)
        .with_context(|| format!("no package of {name}"))?;
    let made = std::fs::read_dir(folder.path())?.next().context("no package was made")??;
    let path = out.join(made.file_name());
    std::fs::rename(made.path(), &path)?;
    verify(&path, files).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Fails unless the package holds `files`, and its units are understood by systemd.
fn verify(package: &Path, files: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut unpack = Command::new("dpkg-deb");
    run_tool(unpack.arg("--raw-extract").arg(package).arg(folder.path()))?;
    for file in files {
        ensure!(folder.path().join(file).is_file(), "it lacks {file}");
    }
    let scripts = folder.path().join("DEBIAN");
    for script in ["postinst", "postrm"] {
        let script = scripts.join(script);
        ensure!(script.is_file(), "it lacks {}", script.display());
        run_tool(Command::new("sh").arg("-n").arg(script))?;
    }
    // With the package as the root, so that programs and units are looked for in it.
    let units = files.iter().filter(|file| file.ends_with(".service"));
    for unit in units {
        let name = Path::new(unit).file_name().context("no name")?.to_string_lossy();
        let instance = name.replace("@.", "@example.");
        let copy = folder.path().join(&instance);
        let text = std::fs::read_to_string(folder.path().join(unit))?;
        // The programs are where they will be only once it is installed.
        std::fs::write(
            &copy,
            text.replace("/usr/bin/", &format!("{}/usr/bin/", folder.path().display())),
        )?;
        run_tool(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(copy))?;
    }
    Ok(())
}

/// Runs a tool, which must succeed and say nothing.
fn run_tool(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {program}: install it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !said.trim().is_empty() {
        bail!("{program} says: {}", said.trim());
    }
    Ok(())
}

/// Tells warnings, and nothing else: paths are told once the package is in its place.
struct Warnings;

impl Listener for Warnings {
    fn warning(&self, text: String) {
        eprintln!("warning: {text}");
    }

    fn info(&self, _: String) {}

    fn generated_archive(&self, _: &Path) {}
}
