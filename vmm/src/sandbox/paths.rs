//! Which files the process may open: those of its configuration, and what of the system it reads.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::SandboxError;
use crate::config::Configuration;
use crate::migration::Endpoint;
use crate::serial::SerialTarget;

/// The newest version of Landlock whose limits are asked for; older kernels set those that they know.
const NEWEST: ABI = ABI::V6;

/// Of the system: device and network attributes, and what resolving a host's name for a move reads.
const READ: [&str; 8] = [
    "/dev/urandom",
    "/sys/devices",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/proc/self",
];
/// Devices that every user may open, or that this one is given.
const DEVICES: [&str; 3] = ["/dev/kvm", "/dev/null", "/dev/vfio/vfio"];

/// What may be done below one path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    path: PathBuf,
    access: BitFlags<AccessFs>,
}

impl Grant {
    fn new(path: impl Into<PathBuf>, access: impl Into<BitFlags<AccessFs>>) -> Self {
        Self { path: path.into(), access: access.into() }
    }

    /// To make, in the path's folder, the file that the path names.
    fn beside(path: &Path, access: impl Into<BitFlags<AccessFs>>) -> Self {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        Self::new(folder.unwrap_or(Path::new(".")), access)
    }
}

/// Limits this thread and its future children to what `configuration` names.
pub(super) fn limit_to(configuration: &Configuration) -> Result<(), SandboxError> {
    if let SerialTarget::File(path) = &configuration.serial {
        // There from now on, so that its folder need not be written to. Who opens it tells errors.
        let _ = OpenOptions::new().append(true).create(true).open(path);
    }
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let status = grants(configuration).iter().try_fold(ruleset, add)?.restrict_self()?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(SandboxError::NoLandlock),
        _ => Ok(()),
    }
}

/// A path that does not exist is not granted: whoever opens it says so.
fn add(ruleset: RulesetCreated, grant: &Grant) -> Result<RulesetCreated, RulesetError> {
    let Ok(file) = PathFd::new(&grant.path) else { return Ok(ruleset) };
    let access = match grant.path.is_dir() {
        true => grant.access,
        false => grant.access & AccessFs::from_file(NEWEST),
    };
    ruleset.add_rule(PathBeneath::new(file, access))
}

fn grants(configuration: &Configuration) -> Vec<Grant> {
    let read = BitFlags::from(AccessFs::ReadFile) | AccessFs::ReadDir;
    let write = read | AccessFs::WriteFile;
    let device = write | AccessFs::IoctlDev;
    let socket = AccessFs::MakeSock | AccessFs::RemoveFile;
    let folder = AccessFs::from_all(NEWEST)
        & !(AccessFs::Execute
            | AccessFs::MakeBlock
            | AccessFs::MakeChar
            | AccessFs::MakeFifo
            | AccessFs::MakeSym
            | AccessFs::IoctlDev);

    let Configuration { kernel, initrd, plugins, restore, .. } = configuration;
    let Configuration { tls_cert, tls_key, tls_ca, .. } = configuration;
    let files = [Some(kernel), initrd.as_ref(), plugins.as_ref(), restore.as_ref()];
    let certificates = [tls_cert.as_ref(), tls_key.as_ref(), tls_ca.as_ref()];
    let named = files.into_iter().chain(certificates).flatten();
    let mut grants: Vec<_> = named.map(|path| Grant::new(path, read)).collect();

    grants.extend(READ.map(|path| Grant::new(path, read)));
    grants.extend(DEVICES.map(|path| Grant::new(path, device)));
    if configuration.pf_control.is_none() {
        grants.push(Grant::new("/dev/net/tun", device));
    }
    for disk in &configuration.disks {
        grants.push(Grant::new(&disk.path, if disk.read_only { read } else { write }));
    }
    match &configuration.serial {
        SerialTarget::Socket(path) => grants.push(Grant::beside(path, socket)),
        SerialTarget::File(path) => grants.push(Grant::new(path, write)),
        SerialTarget::Stdio | SerialTarget::None => {}
    }
    if let Some(Endpoint::Unix(path)) = &configuration.incoming {
        grants.push(Grant::beside(path, socket));
    }
    grants.extend(configuration.api_socket.iter().map(|path| Grant::beside(path, socket)));
    grants.extend(configuration.snapshots.iter().map(|path| Grant::new(path, folder)));
    grants
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn granted(settings: Settings) -> Vec<Grant> {
        let settings = Settings { kernel: Some("/boot/k".into()), ..settings };
        grants(&settings.resolve().unwrap())
    }

    fn access(grants: &[Grant], path: &str) -> Option<BitFlags<AccessFs>> {
        grants.iter().find(|grant| grant.path == Path::new(path)).map(|grant| grant.access)
    }

    #[test]
    fn what_the_configuration_names_is_granted_and_no_more_than_is_needed() {
        let grants = granted(Settings {
            disks: vec!["path=/d/rw".parse().unwrap(), "path=/d/ro,readonly".parse().unwrap()],
            serial: Some(SerialTarget::Socket("/s/serial".into())),
            api_socket: Some("api".into()),
            snapshots: Some("/snapshots".into()),
            pf_control: Some("/p/socket".into()),
            ..Settings::default()
        });
        let has = |path: &str, right: AccessFs| access(&grants, path).unwrap().contains(right);
        assert!(has("/boot/k", AccessFs::ReadFile) && !has("/boot/k", AccessFs::WriteFile));
        assert!(has("/d/rw", AccessFs::WriteFile) && !has("/d/ro", AccessFs::WriteFile));
        assert!(has("/s", AccessFs::MakeSock) && !has("/s", AccessFs::MakeReg));
        assert!(has(".", AccessFs::MakeSock) && !has(".", AccessFs::ReadFile));
        assert!(has("/snapshots", AccessFs::MakeDir) && !has("/snapshots", AccessFs::Execute));
        assert_eq!(access(&grants, "/dev/net/tun"), None, "taps come from pf-control");
        assert!(grants.iter().all(|grant| !grant.access.contains(AccessFs::Execute)));
    }

    #[test]
    fn without_a_daemon_taps_are_opened_here() {
        let grants = granted(Settings::default());
        assert!(access(&grants, "/dev/net/tun").unwrap().contains(AccessFs::IoctlDev));
    }
}
