//! What a cluster counts: VFs of a class that fit a profile.

use std::path::Path;
use std::str::FromStr;

use pf_control::lease::LeaseState;
use pf_control::ops::{AdapterEntry, DeviceClass, VfEntry};

use crate::v1beta1::{
    ContainerAllocateResponse, Device, DeviceSpec, Mount, NumaNode, TopologyInfo,
};

/// The kubelet's words for health.
const HEALTHY: &str = "Healthy";
const UNHEALTHY: &str = "Unhealthy";

/// Devices that a VMM opens by itself.
const DEVICES: [&str; 2] = ["/dev/kvm", "/dev/vfio/vfio"];

/// A resource of the cluster's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name, `DOMAIN/NAME`.
    pub name: String,
    /// The profile that its VFs fit; any network VF without.
    pub profile: Option<String>,
}

/// A text that names no resource.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` names no resource; write DOMAIN/NAME or DOMAIN/NAME=PROFILE, like npa-kvm.io/net=fast"
)]
pub struct ParseResourceError(String);

impl FromStr for Resource {
    type Err = ParseResourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, profile) = match text.split_once('=') {
            Some((name, profile)) => (name, Some(profile)),
            None => (text, None),
        };
        let plain = |part: &str| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !part.is_empty() && part.bytes().all(letter)
        };
        let valid = name.split_once('/').is_some_and(|(domain, name)| plain(domain) && plain(name))
            && profile.is_none_or(|profile| !profile.is_empty());
        match valid {
            true => Ok(Self { name: name.to_owned(), profile: profile.map(str::to_owned) }),
            false => Err(ParseResourceError(text.to_owned())),
        }
    }
}

impl Resource {
    /// The name of its socket beside the kubelet's.
    pub fn endpoint(&self) -> String {
        format!("{}.sock", self.name.replace('/', "_"))
    }

    /// Whether a VF is one of it. One that fits for the moment no more, as its link is down, still is.
    fn has(&self, vf: &VfEntry) -> bool {
        vf.class == DeviceClass::Net
            && self.profile.as_ref().is_none_or(|profile| vf.profiles.contains(profile))
    }

    /// Its VFs as the kubelet is told of them; all of them are unhealthy while the daemon is away.
    pub fn devices(&self, vfs: &[VfEntry], adapters: &[AdapterEntry], there: bool) -> Vec<Device> {
        let device = |vf: &VfEntry| {
            let adapter = adapters.iter().find(|adapter| adapter.interface == vf.pf);
            let node = adapter.and_then(|adapter| adapter.numa_node);
            Device {
                id: vf.vf.to_string(),
                health: if there && serves(vf) { HEALTHY } else { UNHEALTHY }.to_owned(),
                topology: node
                    .map(|node| TopologyInfo { nodes: vec![NumaNode { id: node.into() }] }),
            }
        };
        vfs.iter().filter(|vf| self.has(vf)).map(device).collect()
    }

    /// What a container that was given VFs of it gets: devices, the daemon's socket, and the names
    /// of both for its `vmm`.
    pub fn container(&self, socket: &Path) -> ContainerAllocateResponse {
        let path = socket.display().to_string();
        let device = |path: &str| DeviceSpec {
            container_path: path.to_owned(),
            host_path: path.to_owned(),
            permissions: "rw".to_owned(),
        };
        let mut envs = vec![("NPA_PF_CONTROL".to_owned(), path.clone())];
        envs.extend(self.profile.iter().map(|name| ("NPA_PROFILE".to_owned(), name.clone())));
        ContainerAllocateResponse {
            envs: envs.into_iter().collect(),
            mounts: vec![Mount { container_path: path.clone(), host_path: path, read_only: false }],
            devices: DEVICES.map(device).into(),
            annotations: Default::default(),
        }
    }
}

/// Whether a VF can be given to a VM, now or when its present one gives it back.
fn serves(vf: &VfEntry) -> bool {
    vf.link_up && !vf.maintenance && vf.state != LeaseState::Failed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vf(index: u32, profiles: &[&str]) -> VfEntry {
        VfEntry {
            vf: format!("0000:01:10.{index}").parse().unwrap(),
            pf: "eth0".into(),
            index,
            class: DeviceClass::Net,
            plugin: "igbvf".into(),
            iommu_group: index,
            state: LeaseState::Free,
            mac: pf_control::ops::MacAddr([2, 0, 0, 0, 0, 1]),
            owner_pid: None,
            vm: None,
            device: None,
            fault: None,
            maintenance: false,
            link_up: true,
            profiles: profiles.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn a_resource_is_a_name_and_perhaps_a_profile() {
        let plain: Resource = "npa-kvm.io/net".parse().unwrap();
        assert_eq!(
            (plain.profile.as_deref(), plain.endpoint().as_str()),
            (None, "npa-kvm.io_net.sock")
        );
        let fast: Resource = "npa-kvm.io/fast=fast".parse().unwrap();
        assert_eq!(fast.profile.as_deref(), Some("fast"));
        for bad in ["", "net", "a/b/c", "/net", "npa/", "a b/c", "a/b=", "../x/y"] {
            assert!(bad.parse::<Resource>().is_err(), "{bad}");
        }
    }

    #[test]
    fn vfs_that_fit_count_and_are_healthy_while_they_serve() {
        let fast: Resource = "npa-kvm.io/fast=fast".parse().unwrap();
        let held = VfEntry { state: LeaseState::Active, ..vf(1, &["fast"]) };
        let vfs = [
            vf(0, &["fast"]),
            held,
            VfEntry { maintenance: true, ..vf(2, &["fast"]) },
            VfEntry { state: LeaseState::Failed, ..vf(3, &["fast", "x"]) },
            VfEntry { link_up: false, ..vf(4, &["fast"]) },
            vf(5, &["slow"]),
            VfEntry { class: DeviceClass::Crypto, ..vf(6, &["fast"]) },
        ];
        let told = |there| -> Vec<_> {
            let devices = fast.devices(&vfs, &[], there);
            devices.into_iter().map(|device| (device.id, device.health)).collect()
        };
        let expected = [
            ("0000:01:10.0", HEALTHY),
            ("0000:01:10.1", HEALTHY),
            ("0000:01:10.2", UNHEALTHY),
            ("0000:01:10.3", UNHEALTHY),
            ("0000:01:10.4", UNHEALTHY),
        ];
        let texts = |(id, health): (&str, &str)| (id.to_owned(), health.to_owned());
        assert_eq!(told(true), expected.map(texts));
        assert!(told(false).iter().all(|(_, health)| health == UNHEALTHY));
    }

    #[test]
    fn a_container_gets_the_daemon_and_no_device_of_a_vf() {
        let fast: Resource = "npa-kvm.io/fast=fast".parse().unwrap();
        let given = fast.container(Path::new("/run/npa/pf-control.sock"));
        assert_eq!(given.envs["NPA_PF_CONTROL"], "/run/npa/pf-control.sock");
        assert_eq!(given.envs["NPA_PROFILE"], "fast");
        assert_eq!(given.mounts[0].host_path, "/run/npa/pf-control.sock");
        let devices: Vec<_> = given.devices.iter().map(|device| &device.host_path).collect();
        assert_eq!(devices, ["/dev/kvm", "/dev/vfio/vfio"]);
    }
}
