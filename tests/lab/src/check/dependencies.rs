//! Checks what we depend on: rust-vmm's crates share types, so each must be there once; and
//! every licence must be one that we can live with.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::licence;

/// Names, or beginnings of names, of rust-vmm's crates.
const RUST_VMM: &[&str] = &[
    "acpi_tables",
    "event-manager",
    "kvm-bindings",
    "kvm-ioctls",
    "linux-loader",
    "seccompiler",
    "vfio",
    "vhost",
    "virtio-",
    "vm-allocator",
    "vm-device",
    "vm-memory",
    "vm-superio",
    "vmm-sys-util",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<String>,
    /// Where it comes from; nothing for the workspace's own.
    source: Option<String>,
}

/// What is wrong, one list per check: versions, licences.
pub(super) fn check(metadata: &str) -> Result<[Vec<String>; 2], serde_json::Error> {
    let metadata: Metadata = serde_json::from_str(metadata)?;
    Ok([versions(&metadata.packages), licences(&metadata.packages)])
}

fn versions(packages: &[Package]) -> Vec<String> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages.iter().filter(|package| package.source.is_some()) {
        if RUST_VMM.iter().any(|start| package.name.starts_with(start)) {
            found.entry(&package.name).or_default().push(&package.version);
        }
    }
    found
        .into_iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, versions)| {
            format!(
                "{name} is there {} times ({}): `cargo tree -i {name}` shows why",
                versions.len(),
                versions.join(", ")
            )
        })
        .collect()
}

fn licences(packages: &[Package]) -> Vec<String> {
    packages
        .iter()
        .filter_map(|package| match (&package.license, &package.license_file) {
            (Some(expression), _) if licence::is_allowed(expression) => None,
            (Some(expression), _) => {
                Some(format!("{} {}: licence {expression}", package.name, package.version))
            }
            (None, Some(file)) => {
                Some(format!("{} {}: own licence in {file}", package.name, package.version))
            }
            (None, None) => Some(format!("{} {}: no licence", package.name, package.version)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(packages: &[(&str, &str, Option<&str>)]) -> String {
        let packages: Vec<_> = packages
            .iter()
            .map(|(name, version, license)| {
                serde_json::json!({"name": name, "version": version, "license": license,
                    "license_file": null, "source": "registry"})
            })
            .collect();
        serde_json::json!({ "packages": packages }).to_string()
    }

    #[test]
    fn a_second_version_of_a_rust_vmm_crate_is_found() {
        let text = metadata(&[
            ("vm-memory", "0.18.0", Some("MIT")),
            ("vm-memory", "0.16.0", Some("MIT")),
            ("syn", "1.0.0", Some("MIT")),
            ("syn", "2.0.0", Some("MIT")),
        ]);
        let [versions, licences] = check(&text).unwrap();
        assert_eq!(versions.len(), 1);
        assert!(versions[0].contains("vm-memory"));
        assert!(licences.is_empty());
    }

    #[test]
    fn an_unknown_or_missing_licence_is_found() {
        let text = metadata(&[("a", "1.0.0", Some("AGPL-3.0-only")), ("b", "1.0.0", None)]);
        let [versions, licences] = check(&text).unwrap();
        assert!(versions.is_empty());
        assert_eq!(licences.len(), 2);
    }
}
