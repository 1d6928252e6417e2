//! Debian's package tools: what is installed, installing what is not, and fetching packages
//! to unpack them here. The only part that changes the system, and only by apt.

mod sources;

use std::path::Path;
use std::process::Command;

use crate::command::{both, stdout};
use crate::{Error, Progress};

/// The Debian release that the lab is built from.
const CODENAME: &str = "bookworm";

/// What the lab needs from Debian's own suite, and why.
const TOOLS: &[&str] = &[
    "busybox-static", // userland of both images
    "dash",           // the images' shell
    "bash",           // scripts in the lab host
    "iperf3",         // throughput
    "iproute2",       // links, bridges, namespaces
    "ethtool",        // driver name, offloads, statistics
    "iputils-ping",   // reachability
    "tcpdump",        // looking at frames
    "kmod",           // depmod for the images, modprobe in them
    "xz-utils",       // Debian's modules are compressed
    "gcc-12",         // Debian 12's kernels are built with it, so must modules be
    "make",           // kbuild
    "bc",             // kbuild
    "libelf1",        // objtool
    "pahole",         // module BTF
    "binutils",       // linking plugin images and the shell's object
    "systemd",        // systemd-analyze, for the units that are packaged
    "util-linux",     // setpriv, for the lab host
];

/// What needs a newer version than Debian 12 has.
const BACKPORTS: &[&str] = &["qemu-system-x86"];

/// Installs what is missing.
///
/// # Errors
/// Not Debian 12, not root with something missing, no apt source to derive from, or apt's own.
pub(crate) fn install_tools(progress: &Progress) -> Result<(), Error> {
    install(&missing(TOOLS)?, None, progress)?;
    let mut backports = missing(BACKPORTS)?;
    if backports.is_empty()
        && let Err(Error::OldQemu { .. }) = check_qemu()
    {
        backports = BACKPORTS.to_vec();
    }
    if !backports.is_empty() {
        let suite = format!("{CODENAME}-backports");
        add_backports(progress)?;
        install(&backports, Some(&suite), progress)?;
    }
    check_qemu()
}

/// Installs `packages` from `suite` (or apt's choice) when there are any.
pub(crate) fn install(
    packages: &[&str],
    suite: Option<&str>,
    progress: &Progress,
) -> Result<(), Error> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    let suite_option = suite.map(|suite| format!("-t {suite} ")).unwrap_or_default();
    if !is_root() {
        let command = format!("apt-get install --no-install-recommends {suite_option}{list}");
        return Err(Error::NotRoot { command });
    }
    progress.step(&format!("apt-get install {suite_option}{list}"), || {
        let attempt = || {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command.args(["install", "-y", "--no-install-recommends"]);
            if let Some(suite) = suite {
                command.args(["-t", suite]);
            }
            both(command.args(packages))
        };
        // A stale package list names versions that are gone: refresh it and try once more.
        attempt().or_else(|_| update().and_then(|()| attempt()))
    })?;
    Ok(())
}

/// Which of `packages` are not installed.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>, Error> {
    check_debian()?;
    // dpkg-query fails when it knows one of them not at all, but prints the others.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(packages)
        .output()
        .map_err(|source| Error::Start { program: "dpkg-query".into(), source })?;
    let installed = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(packages
        .iter()
        .copied()
        .filter(|package| !installed.lines().any(|line| line == format!("{package} installed")))
        .collect())
}

/// Makes the backports suite known to apt, from where the machine gets Debian itself.
pub(crate) fn add_backports(progress: &Progress) -> Result<(), Error> {
    let suite = format!("{CODENAME}-backports");
    let Some(text) = sources::derive(Path::new("/etc/apt"), CODENAME, &suite)? else {
        return Ok(());
    };
    let file = Path::new("/etc/apt/sources.list.d/npa-kvm-backports.sources");
    if !is_root() {
        let command = format!("write this to {} and run apt-get update:\n{text}", file.display());
        return Err(Error::NotRoot { command });
    }
    progress.step(&format!("add {suite} to apt's sources"), || {
        std::fs::write(file, text).map_err(Error::io("write", file))?;
        update()
    })
}

/// Refreshes apt's lists.
pub(crate) fn update() -> Result<(), Error> {
    if !is_root() {
        return Err(Error::NotRoot { command: "apt-get update".into() });
    }
    both(Command::new("apt-get").args(["update", "-q"])).map(drop)
}

/// Names of packages that match a regular expression.
pub(crate) fn search(pattern: &str) -> Result<Vec<String>, Error> {
    let text = stdout(Command::new("apt-cache").args(["search", "--names-only", pattern]))?;
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// The names in a package's `Depends` field, first alternative of each.
pub(crate) fn depends(package: &str) -> Result<Vec<String>, Error> {
    let text = stdout(Command::new("apt-cache").args(["show", "--no-all-versions", package]))?;
    Ok(parse_depends(&text))
}

fn parse_depends(text: &str) -> Vec<String> {
    text.lines()
        .find_map(|line| line.strip_prefix("Depends: "))
        .unwrap_or_default()
        .split(',')
        .filter_map(|item| item.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Downloads packages into `folder` without installing them.
pub(crate) fn download(packages: &[String], folder: &Path) -> Result<(), Error> {
    both(Command::new("apt-get").arg("download").args(packages).current_dir(folder)).map(drop)
}

/// Unpacks a package file below `root`.
pub(crate) fn unpack(package: &Path, root: &Path) -> Result<(), Error> {
    both(Command::new("dpkg").arg("-x").arg(package).arg(root)).map(drop)
}

fn check_debian() -> Result<(), Error> {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if text.lines().any(|line| line == format!("VERSION_CODENAME={CODENAME}")) {
        return Ok(());
    }
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("unknown")
        .trim_matches('"')
        .to_owned();
    let packages = [TOOLS, BACKPORTS].concat().join(" ");
    Err(Error::NotDebian { found, packages })
}

fn check_qemu() -> Result<(), Error> {
    let text = stdout(Command::new("qemu-system-x86_64").arg("--version"))?;
    let found = qemu_version(&text).unwrap_or_default().to_owned();
    let major: u32 = found.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major >= 9 { Ok(()) } else { Err(Error::OldQemu { found }) }
}

fn qemu_version(text: &str) -> Option<&str> {
    text.split_whitespace().skip_while(|word| *word != "version").nth(1)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_takes_the_first_alternative_without_versions() {
        let text = "Package: a\nDepends: x (= 1), y | z, w (>= 2) | v\nSize: 3\n";
        assert_eq!(parse_depends(text), ["x", "y", "w"]);
        assert!(parse_depends("Package: a\n").is_empty());
    }

    #[test]
    fn qemu_prints_its_version() {
        let text = "QEMU emulator version 10.0.2 (Debian 1:10.0.2)\nCopyright";
        assert_eq!(qemu_version(text), Some("10.0.2"));
    }
}
