//! Debian's kernels: the newest of each series, with modules and with headers to build against,
//! unpacked into the cache. Nothing is installed in the system, and no kernel is built.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::command::both;
use crate::{Error, Layout, Progress, apt, cache};

/// A kernel series that guests are tested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Series {
    /// Debian 12's own kernel.
    #[serde(rename = "6.1")]
    V6_1,
    /// The kernel of Debian 12's backports; also the lab host's.
    #[serde(rename = "6.12")]
    V6_12,
}

impl Series {
    /// Every series.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// The name in file names and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }
}

impl std::str::FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|series| series.name() == text)
            .ok_or_else(|| format!("unknown kernel {text}: choose 6.1 or 6.12"))
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// An unpacked kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kernel {
    /// Its series.
    pub series: Series,
    /// What `uname -r` prints, such as `6.1.0-1-amd64`.
    pub release: String,
    /// Root of the unpacked packages.
    root: PathBuf,
}

impl Kernel {
    /// The compressed kernel (bzImage).
    pub fn vmlinuz(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// The folder to build modules against (kbuild's `-C`).
    pub fn headers(&self) -> PathBuf {
        self.root.join(format!("usr/src/linux-headers-{}", self.release))
    }

    /// The folder with the modules and their indexes.
    pub(crate) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }

    fn is_complete(&self) -> bool {
        self.vmlinuz().is_file()
            && self.headers().join("Makefile").is_file()
            && self.modules().join("modules.dep").is_file()
    }
}

/// Resolves, fetches and unpacks the kernel of one series, or returns the one already there.
/// With `renew`, looks for a newer one.
///
/// # Errors
/// When apt knows no such kernel, cannot fetch it, or its packages have another structure.
pub(crate) fn obtain(
    layout: &Layout,
    series: Series,
    renew: bool,
    progress: &Progress,
) -> Result<Kernel, Error> {
    let record = layout.kernels().join(format!("{}.json", series.name()));
    if !renew && let Some(kernel) = recorded(&record) {
        return Ok(kernel);
    }
    let release = resolve(series, progress)?;
    let kernel = Kernel { series, root: layout.kernels().join(&release), release: release.clone() };
    if !kernel.is_complete() {
        progress.step(&format!("fetch and unpack kernel {release} and its headers"), || {
            fetch(layout, &kernel)
        })?;
    }
    let text = serde_json::to_string_pretty(&kernel).map_err(|source| Error::Io {
        what: "write",
        path: record.clone(),
        source: source.into(),
    })?;
    fs::write(&record, text).map_err(Error::io("write", &record))?;
    Ok(kernel)
}

fn recorded(record: &Path) -> Option<Kernel> {
    let text = fs::read_to_string(record).ok()?;
    serde_json::from_str::<Kernel>(&text).ok().filter(Kernel::is_complete)
}

fn resolve(series: Series, progress: &Progress) -> Result<String, Error> {
    if let Some(release) = newest_known(series)? {
        return Ok(release);
    }
    if series == Series::V6_12 {
        apt::add_backports(progress)?;
    }
    progress.step("apt-get update", apt::update)?;
    newest_known(series)?.ok_or(Error::NoKernel { series: series.name() })
}

fn newest_known(series: Series) -> Result<Option<String>, Error> {
    let pattern = series.name().replace('.', "\\.");
    let images = apt::search(&format!("^linux-image-{pattern}\\..*-amd64$"))?;
    let headers = apt::search(&format!("^linux-headers-{pattern}\\..*-amd64$"))?;
    Ok(newest(&images, &headers))
}

/// The newest release that has both an image and headers, without Debian's other flavours.
fn newest(images: &[String], headers: &[String]) -> Option<String> {
    images
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|release| {
            let flavour = release.trim_end_matches("-amd64");
            !flavour.ends_with("-cloud") && !flavour.ends_with("-rt") && release.ends_with("-amd64")
        })
        .filter(|release| headers.iter().any(|name| name == &format!("linux-headers-{release}")))
        .max_by_key(|release| numbers(release))
        .map(str::to_owned)
}

/// The numbers in a release, in order: Debian counts up in one of them with every upload.
fn numbers(release: &str) -> Vec<u64> {
    release
        .trim_end_matches("-amd64")
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

fn fetch(layout: &Layout, kernel: &Kernel) -> Result<(), Error> {
    let scratch = cache::scratch(&layout.scratch(), &kernel.release)?;
    let packages = scratch.join("packages");
    let root = scratch.join("root");
    for folder in [&packages, &root] {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    let headers = format!("linux-headers-{}", kernel.release);
    let mut names: Vec<String> = apt::depends(&headers)?
        .into_iter()
        .filter(|name| name.starts_with("linux-headers-") || name.starts_with("linux-kbuild-"))
        .collect();
    names.push(headers);
    names.push(format!("linux-image-{}", kernel.release));
    // A stale list names files that are gone: refresh it and try once more.
    apt::download(&names, &packages)
        .or_else(|_| apt::update().and_then(|()| apt::download(&names, &packages)))?;
    for package in cache::files(&packages)? {
        apt::unpack(&package, &root)?;
    }
    // Debian makes the module index at installation.
    both(std::process::Command::new("depmod").arg("-b").arg(&root).arg(&kernel.release))?;
    let unpacked = Kernel { root: root.clone(), ..kernel.clone() };
    relocate_headers(&unpacked.headers(), &kernel.root)?;
    if kernel.root.exists() {
        fs::remove_dir_all(&kernel.root).map_err(Error::io("remove", &kernel.root))?;
    }
    fs::rename(&root, &kernel.root).map_err(Error::io("create", &kernel.root))?;
    fs::remove_dir_all(&scratch).map_err(Error::io("remove", &scratch))?;
    if kernel.is_complete() {
        return Ok(());
    }
    Err(Error::Package {
        package: kernel.release.clone(),
        what: "kernel image, headers or modules are not where Debian puts them".into(),
    })
}

/// The headers' Makefile includes another one by its path in an installed system: point it to
/// where it will be (`home`).
fn relocate_headers(headers: &Path, home: &Path) -> Result<(), Error> {
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile).map_err(Error::io("read", &makefile))?;
    let installed = "/usr/src/";
    if !text.contains(installed) {
        return Err(Error::Package {
            package: headers.display().to_string(),
            what: "its Makefile does not include the common headers by their path".into(),
        });
    }
    let text = text.replace(installed, &format!("{}/usr/src/", home.display()));
    fs::write(&makefile, text).map_err(Error::io("write", &makefile))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(prefix: &str, releases: &[&str]) -> Vec<String> {
        releases.iter().map(|release| format!("{prefix}{release}")).collect()
    }

    #[test]
    fn the_newest_release_wins_by_number_not_by_text() {
        let releases =
            ["6.12.9+deb12-amd64", "6.12.90+deb12-amd64", "6.12.90+deb12.1-amd64", "6.12.89-amd64"];
        let images = names("linux-image-", &releases);
        let headers = names("linux-headers-", &releases);
        assert_eq!(newest(&images, &headers).as_deref(), Some("6.12.90+deb12.1-amd64"));
    }

    #[test]
    fn abi_numbers_count_too() {
        let releases = ["6.1.0-9-amd64", "6.1.0-10-amd64"];
        let images = names("linux-image-", &releases);
        let headers = names("linux-headers-", &releases);
        assert_eq!(newest(&images, &headers).as_deref(), Some("6.1.0-10-amd64"));
    }

    #[test]
    fn other_flavours_and_kernels_without_headers_are_left_out() {
        let images = names(
            "linux-image-",
            &["6.1.0-12-cloud-amd64", "6.1.0-12-rt-amd64", "6.1.0-11-amd64", "6.1.0-10-amd64"],
        );
        let headers = names("linux-headers-", &["6.1.0-12-cloud-amd64", "6.1.0-10-amd64"]);
        assert_eq!(newest(&images, &headers).as_deref(), Some("6.1.0-10-amd64"));
        assert_eq!(newest(&[], &headers), None);
    }

    #[test]
    fn a_series_is_parsed_from_its_name() {
        assert_eq!("6.12".parse(), Ok(Series::V6_12));
        assert!("6.2".parse::<Series>().unwrap_err().contains("6.1 or 6.12"));
    }
}
