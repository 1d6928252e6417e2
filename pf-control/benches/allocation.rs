//! How long the daemon takes to decide who gets which VF, and to write it down, on a host of eight
//! PFs with 500 VMs on it. The kernel's share (netlink, sysfs) is left out: a described host
//! answers at once.

use criterion::{Criterion, criterion_group, criterion_main};
use hdrhistogram::Histogram;
use pf_control::capability::Profiles;
use pf_control::inventory::{InventoryError, Occupancy, ProcessTable, Vf};
use pf_control::ops::{
    AcquireRequest, DeviceClass, LeaseId, MacAddr, Op, PciAddress, PciIds, Request, Rings, Vectors,
    limits,
};
use pf_control::pool::{FaultPoints, Host, Pool};
use pf_control::port::Policies;
use pf_control::state::Store;
use pf_control::switch::{Switch, SwitchError};
use pf_control::vendor::{Adapter, PfModule, Uplink, VendorError, VfDescription};
use serde::Deserialize;
use std::collections::HashMap;
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// VMs that hold a VF, the measured one included.
const VMS: usize = 500;
/// What an operator is promised, as the 99th percentile.
const PROMISE: Duration = Duration::from_millis(5);

/// What the histogram can hold, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

#[derive(Deserialize)]
struct Described {
    adapters: Vec<DescribedAdapter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct DescribedAdapter {
    address: PciAddress,
    interface: String,
    numa_node: u32,
    speed_mbit: u32,
    vfs: u32,
}

const IDS: PciIds = PciIds { vendor: 0x8086, device: 0x1592, subsystem_vendor: 0, subsystem: 0 };

struct Module {
    interface: String,
    adapter: Adapter,
    uplink: Uplink,
    macs: Mutex<HashMap<u32, MacAddr>>,
}

impl PfModule for Module {
    fn name(&self) -> &str {
        "described"
    }

    fn interface(&self) -> &str {
        &self.interface
    }
    fn adapter(&self) -> &Adapter {
        &self.adapter
    }
    fn describe(&self) -> VfDescription {
        VfDescription {
            class: DeviceClass::Net,
            plugin: "described".to_owned(),
            queues: 4,
            regions: Vec::new(),
            vectors: Vectors { total: 5, plugin: vec![0, 1, 2, 3], control: Some(4) },
            device_info: [0; 32],
        }
    }
    fn extra_ops(&self) -> &'static [Op] {
        &[]
    }
    fn uplink(&self) -> Result<Uplink, VendorError> {
        Ok(self.uplink)
    }
    fn vf_mac(&self, vf: u32) -> Result<Option<MacAddr>, VendorError> {
        let macs = self.macs.lock().map_err(|_| VendorError::Invalid("poisoned".into()))?;
        Ok(Some(macs.get(&vf).copied().unwrap_or(MacAddr([0; 6]))))
    }
    fn set_vf_mac(&self, vf: u32, mac: MacAddr) -> Result<(), VendorError> {
        let macs = self.macs.lock();
        macs.map_err(|_| VendorError::Invalid("poisoned".into()))?.insert(vf, mac);
        Ok(())
    }
    fn restore_defaults(&self, _: u32) -> Result<(), VendorError> {
        Ok(())
    }
    fn prepare_queues(&self, _: u32, _: &Rings) -> Result<(), VendorError> {
        Ok(())
    }
    fn reset(&self, _: &Vf) -> Result<(), VendorError> {
        Ok(())
    }
    fn set_default_vlan(&self, _: u32, _: u16, _: u8) -> Result<(), VendorError> {
        Ok(())
    }
    fn set_anti_spoof(&self, _: u32, _: bool) -> Result<(), VendorError> {
        Ok(())
    }
}

/// A switch and a VFIO that have nothing to say.
struct Quiet;

impl Switch for Quiet {
    fn check_port(&self, _: &str) -> Result<(), SwitchError> {
        Ok(())
    }
    fn forward_to_uplink(&self, _: MacAddr, _: u32) -> Result<(), SwitchError> {
        Ok(())
    }
    fn forward_to_port(&self, _: MacAddr, _: Option<&str>) -> Result<(), SwitchError> {
        Ok(())
    }
    fn forget(&self, _: MacAddr, _: u32) -> Result<(), SwitchError> {
        Ok(())
    }
}

impl Occupancy for Quiet {
    fn is_open(&self, _: u32) -> Result<bool, InventoryError> {
        Ok(false)
    }
    fn open(&self, _: u32) -> Result<OwnedFd, InventoryError> {
        Ok(std::fs::File::open("/dev/null").expect("it is always there").into())
    }

    fn holder(&self, _: u32) -> Option<u32> {
        None
    }
}

fn described_pool(state: &Path) -> Pool {
    let described: Described =
        toml::from_str(include_str!("eight-pfs.toml")).expect("the host's description");
    let mut vfs: Vec<(Vf, Arc<dyn PfModule>)> = Vec::new();
    for (port, described) in (1_u8..).zip(described.adapters) {
        let DescribedAdapter { address, interface, numa_node, speed_mbit, vfs: count } = described;
        let module: Arc<dyn PfModule> = Arc::new(Module {
            interface,
            adapter: Adapter {
                address,
                driver: "described".into(),
                ids: IDS,
                numa_node: Some(numa_node),
                switch: None,
            },
            uplink: Uplink {
                index: u32::from(port),
                mac: MacAddr([0x52, 0x54, 0, 0, 1, port]),
                mtu: 1500,
                link_up: true,
                speed_mbit: Some(speed_mbit),
            },
            macs: Mutex::default(),
        });
        for index in 0..count {
            let (device, function) = ((index / 8) as u8 + 1, (index % 8) as u8);
            let vf = Vf {
                address: PciAddress { device, function, ..address },
                index,
                iommu_group: 1000 * u32::from(port) + index,
                ids: IDS,
            };
            vfs.push((vf, Arc::clone(&module)));
        }
    }
    let host = Host {
        switch: Box::new(Quiet),
        occupancy: Box::new(Quiet),
        processes: ProcessTable::default(),
        faults: FaultPoints::default(),
    };
    let profiles = state.with_extension("toml");
    let text = "[profiles.far]\nclass = \"net\"\nnuma-node = 1\nmin-bandwidth-mbit = 50000\n";
    std::fs::write(&profiles, text).expect("a file for the profiles");
    let profiles = Profiles::load(&profiles).expect("the profiles");
    let store = Store::open(state, "boot").expect("a store");
    Pool::new(host, vfs, store, profiles, Policies::default()).expect("a pool")
}

fn request(device: usize) -> AcquireRequest {
    AcquireRequest {
        vm: format!("vm{device}"),
        device: "net0".into(),
        class: DeviceClass::Net,
        mtu: 1500,
        queues: 1,
        profile: None,
        wait: false,
    }
}

/// Processes that hold VFs, a few each; they end with this.
struct Vmms(Vec<Child>);

impl Vmms {
    fn start() -> Self {
        let count = VMS.div_ceil(limits::LEASES_PER_PROCESS);
        let sleeper = |_| Command::new("sleep").arg("infinity").spawn().expect("a process");
        Self((0..count).map(sleeper).collect())
    }

    /// The one of VM number `vm`.
    fn pid(&self, vm: usize) -> u32 {
        self.0[vm / limits::LEASES_PER_PROCESS].id()
    }
}

impl Drop for Vmms {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().and_then(|()| child.wait()).expect("its end");
        }
    }
}

fn acquire(pool: &Pool, request: &AcquireRequest, pid: u32) -> LeaseId {
    pool.acquire(request, pid).expect("a VF").lease
}

fn release(pool: &Pool, lease: LeaseId, pid: u32) {
    pool.carry_out(&Request::Release { lease }, pid).expect("a release");
}

fn allocation(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let pool = described_pool(&dir.path().join("state.db"));
    // The VFs that are left are the last ones looked at.
    let vmms = Vmms::start();
    for vm in 1..VMS {
        acquire(&pool, &request(vm), vmms.pid(vm));
    }
    let pid = vmms.pid(0);
    let mut group = criterion.benchmark_group("allocation, 8 PFs, 504 VFs, 500 VMs");
    for (name, profile) in [("any VF", None), ("a profile", Some("far".to_owned()))] {
        let request = AcquireRequest { profile, ..request(0) };
        let mut histogram = Histogram::<u64>::new_with_bounds(1, LONGEST, 3).expect("a histogram");
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut sum = Duration::ZERO;
                for _ in 0..rounds {
                    let began = Instant::now();
                    let lease = acquire(&pool, black_box(&request), pid);
                    let took = began.elapsed();
                    release(&pool, lease, pid);
                    sum += took;
                    histogram.saturating_record(took.as_nanos() as u64);
                }
                sum
            });
        });
        let at = |quantile| Duration::from_nanos(histogram.value_at_quantile(quantile));
        let verdict = if at(0.99) < PROMISE { "kept" } else { "BROKEN" };
        println!(
            "{name}: median {:?}, 99 % {:?} ({PROMISE:?} is promised: {verdict}), longest {:?}, {} decisions",
            at(0.5),
            at(0.99),
            at(1.0),
            histogram.len()
        );
    }
    group.finish();
}

criterion_group!(benches, allocation);
criterion_main!(benches);
