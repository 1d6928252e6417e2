//! A fake PF, switch and VFIO for the pool's tests. They write down what was asked of them, in
//! order, and refuse on command.

use super::{FaultPoints, Host, Pool};
use crate::capability::Profiles;
use crate::inventory::{InventoryError, Occupancy, ProcessTable, Vf};
use crate::netlink::NetlinkError;
use crate::ops::{DeviceClass, MacAddr, Op, PciIds, Rings, Vectors};
use crate::port::Policies;
use crate::state::Store;
use crate::switch::{Switch, SwitchError};
use crate::vendor::{Adapter, PfModule, Uplink, VendorError, VfDescription, VfSettings};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) const PF_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 1, 2, 3]);
pub(crate) const VM_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
pub(crate) const UPLINK: u32 = 2;
/// What the fake switch calls it.
pub(crate) const UPLINK_PORT: &str = "uplink";

#[derive(Default)]
pub(crate) struct World {
    /// What was asked, in order.
    pub(crate) log: Vec<String>,
    /// VF addresses.
    pub(crate) macs: HashMap<u32, MacAddr>,
    /// The kernel does not know them.
    pub(crate) addressless: bool,
    /// Forwarding entries: where, and whether fixed.
    pub(crate) fdb: HashMap<MacAddr, (String, bool)>,
    /// Open groups and who has them open.
    pub(crate) open: HashMap<u32, u32>,
    /// The operator's profiles.
    pub(crate) profiles: Profiles,
    /// The operator's policies.
    pub(crate) policies: Policies,
    /// What VFs are set to, where it is not the default.
    pub(crate) settings: HashMap<u32, VfSettings>,
    /// The uplink has no carrier.
    pub(crate) unplugged: bool,
    /// Steps that fail, by their first word in the log.
    pub(crate) broken: HashSet<&'static str>,
}

#[derive(Clone, Default)]
pub(crate) struct FakeHost(Arc<Mutex<World>>);

impl FakeHost {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// A pool of `vfs` VFs on this host; IOMMU groups count from 20.
    pub(crate) fn pool(&self, vfs: u32, store: &std::path::Path) -> Pool {
        self.mortal_pool(vfs, store, FaultPoints::default())
    }

    /// The same, of a daemon that dies at a point.
    pub(crate) fn mortal_pool(
        &self,
        vfs: u32,
        store: &std::path::Path,
        faults: FaultPoints,
    ) -> Pool {
        let module: Arc<dyn PfModule> = Arc::new(FakePfModule {
            host: self.clone(),
            adapter: Adapter {
                address: "0000:01:00.0".parse().unwrap(),
                driver: "fake".into(),
                ids: PciIds { vendor: 0x8086, device: 0x10c9, subsystem_vendor: 0, subsystem: 0 },
                numa_node: Some(1),
                switch: None,
            },
        });
        let vf = |index: u32| Vf {
            address: format!("0000:01:{:02x}.{}", 0x10 + index / 4, index % 4 * 2).parse().unwrap(),
            index,
            iommu_group: 20 + index,
            ids: PciIds { vendor: 0x8086, device: 0x10ca, subsystem_vendor: 0, subsystem: 0 },
        };
        let host = Host {
            switch: Box::new(self.clone()),
            occupancy: Box::new(self.clone()),
            processes: ProcessTable::default(),
            faults,
        };
        let vfs = (0..vfs).map(|index| (vf(index), Arc::clone(&module))).collect();
        let (profiles, policies) = {
            let world = self.world();
            (world.profiles.clone(), world.policies.clone())
        };
        Pool::new(host, vfs, Store::open(store, "boot").unwrap(), profiles, policies).unwrap()
    }

    fn ask(&self, step: &'static str, rest: String) -> io::Result<()> {
        let mut world = self.world();
        world.log.push(format!("{step} {rest}"));
        if world.broken.contains(step) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    /// The log since the last call.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.world().log)
    }
}

fn netlink(source: io::Error) -> NetlinkError {
    NetlinkError { request: "fake".into(), source }
}

struct FakePfModule {
    host: FakeHost,
    adapter: Adapter,
}

impl PfModule for FakePfModule {
    fn name(&self) -> &str {
        "fake"
    }

    fn interface(&self) -> &str {
        "eth0"
    }

    fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    fn describe(&self) -> VfDescription {
        VfDescription {
            class: DeviceClass::Net,
            plugin: "fake".to_owned(),
            queues: 2,
            regions: Vec::new(),
            vectors: Vectors { total: 3, plugin: vec![0, 1], control: Some(2) },
            device_info: [0; 32],
        }
    }

    fn extra_ops(&self) -> &'static [Op] {
        &[Op::SetMac]
    }

    fn uplink(&self) -> Result<Uplink, VendorError> {
        if self.host.world().broken.contains("link") {
            return Err(netlink(io::Error::from_raw_os_error(19)).into());
        }
        let link_up = !self.host.world().unplugged;
        let speed_mbit = link_up.then_some(1000);
        Ok(Uplink { index: UPLINK, mac: PF_MAC, mtu: 1500, link_up, speed_mbit })
    }

    fn vf_mac(&self, vf: u32) -> Result<Option<MacAddr>, VendorError> {
        let world = self.host.world();
        let mac = world.macs.get(&vf).copied().unwrap_or(MacAddr([0; 6]));
        Ok((!world.addressless).then_some(mac))
    }

    fn set_vf_mac(&self, vf: u32, mac: MacAddr) -> Result<(), VendorError> {
        self.host.ask("mac", format!("{vf} {mac}")).map_err(netlink)?;
        self.host.world().macs.insert(vf, mac);
        Ok(())
    }

    fn apply(&self, vf: u32, settings: &VfSettings) -> Result<(), VendorError> {
        let mut world = self.host.world();
        if world.broken.contains("apply") {
            return Err(netlink(io::Error::from_raw_os_error(22)).into());
        }
        match *settings == VfSettings::default() {
            true => world.settings.remove(&vf),
            false => world.settings.insert(vf, *settings),
        };
        Ok(())
    }

    fn restore_defaults(&self, vf: u32) -> Result<(), VendorError> {
        self.host.world().settings.remove(&vf);
        Ok(self.host.ask("defaults", vf.to_string()).map_err(netlink)?)
    }

    fn prepare_queues(&self, vf: u32, _rings: &Rings) -> Result<(), VendorError> {
        Ok(self.host.ask("queues", vf.to_string()).map_err(netlink)?)
    }

    fn reset(&self, vf: &Vf) -> Result<(), VendorError> {
        Ok(self.host.ask("reset", vf.index.to_string()).map_err(netlink)?)
    }

    fn set_default_vlan(&self, _: u32, _: u16, _: u8) -> Result<(), VendorError> {
        Err(VendorError::NotSupported(Op::SetDefaultVlan))
    }

    fn set_anti_spoof(&self, _: u32, _: bool) -> Result<(), VendorError> {
        Err(VendorError::NotSupported(Op::SetAntiSpoof))
    }
}

impl Switch for FakeHost {
    fn check_port(&self, port: &str) -> Result<(), SwitchError> {
        if port.starts_with("tap") {
            return Ok(());
        }
        Err(SwitchError::NotAPort { port: port.into(), bridge: "br0".into() })
    }

    fn forward_to_uplink(&self, mac: MacAddr, _uplink: u32) -> Result<(), SwitchError> {
        self.ask("uplink", mac.to_string()).map_err(netlink)?;
        self.world().fdb.insert(mac, (UPLINK_PORT.into(), true));
        Ok(())
    }

    fn forward_to_port(&self, mac: MacAddr, port: Option<&str>) -> Result<(), SwitchError> {
        let name = port.unwrap_or("all");
        self.ask("port", format!("{mac} {name}")).map_err(netlink)?;
        let mut world = self.world();
        match port {
            Some(port) => world.fdb.insert(mac, (port.into(), true)),
            None => world.fdb.remove(&mac),
        };
        Ok(())
    }

    fn forget(&self, mac: MacAddr, _uplink: u32) -> Result<(), SwitchError> {
        self.ask("forget", mac.to_string()).map_err(netlink)?;
        if let Some(entry) = self.world().fdb.get_mut(&mac) {
            entry.1 = false;
        }
        Ok(())
    }
}

impl Occupancy for FakeHost {
    fn is_open(&self, group: u32) -> Result<bool, InventoryError> {
        Ok(self.world().open.contains_key(&group))
    }

    fn open(&self, _group: u32) -> Result<OwnedFd, InventoryError> {
        Ok(std::fs::File::open("/dev/null").unwrap().into())
    }

    fn holder(&self, group: u32) -> Option<u32> {
        self.world().open.get(&group).copied()
    }
}
