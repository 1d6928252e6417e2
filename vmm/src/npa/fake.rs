//! A world without KVM, VFIO or a daemon: a pool of one VF, plugins that are nothing but a
//! header, and an emulated path that keeps books.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use npa_abi::image::{
    IMAGE_MAGIC, PciId, PluginHeader, REGION_DATA, Region as PluginRegion, RingNeed,
};
use npa_abi::shell_page::QueueDescriptor;
use npa_abi::{Class, PAGE_SIZE};
use pf_control::client::ClientError;
use pf_control::ops::{
    Acquired, LeaseId, MacAddr, OpError, PciAddress, PciIds, Region, RegionKind, Vectors,
};
use pf_control::vf_control::{Offloads, VfConfig, VfEvent, VfStats};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::hardware::{DeviceMemory, Plugin, PluginStore, PoolNews, Vf, VfGrant, VfOpener, VfPool};
use super::inject::InjectError;
use crate::vfio::VfError;
use crate::virtio::{DrainError, Drained, EmulatedPath, PathCounters, PathError, PathMode};

pub(super) const PAGE: u64 = PAGE_SIZE as u64;
pub(super) const VF: PciAddress = PciAddress { domain: 0, bus: 1, device: 0x10, function: 0 };

/// What the fakes did and how they shall behave.
#[derive(Default)]
pub(super) struct World {
    /// What was done, in order.
    pub(super) log: Vec<&'static str>,
    /// The daemon does not run.
    pub(super) daemon_away: bool,
    /// The daemon takes as long as this to take a VF back.
    pub(super) release_hangs: bool,
    /// The VF does not compute checksums.
    pub(super) no_offloads: bool,
    /// The step that fails.
    pub(super) fails: Option<&'static str>,
    /// Who holds the VF.
    pub(super) held: bool,
    pub(super) open: bool,
    pub(super) running: bool,
    pub(super) has_address: bool,
    pub(super) standby: bool,
    pub(super) wired: Vec<u16>,
    events: Vec<VfEvent>,
    signal: Option<EventFd>,
    /// The last acquire was one that waits.
    pub(super) waits: bool,
    /// What the pool says next.
    pub(super) news: Vec<PoolNews>,
}

pub(super) type SharedWorld = Arc<Mutex<World>>;

impl World {
    fn step(&mut self, step: &'static str) -> bool {
        self.log.push(step);
        self.fails != Some(step)
    }

    /// Nothing is held, and the emulated path serves.
    pub(super) fn assert_clean(&self) {
        assert!(!self.held, "the VF is not back: {:?}", self.log);
        assert!(!self.open && !self.has_address && !self.standby, "{:?}", self.log);
    }

    /// Something happens to the VF.
    pub(super) fn vf_event(&mut self, event: VfEvent) {
        self.events.insert(0, event);
        if let Some(signal) = &self.signal {
            signal.write(1).unwrap();
        }
    }
}

pub(super) struct FakePool(pub(super) SharedWorld);

impl FakePool {
    fn call(&self, step: &'static str, effect: impl FnOnce(&mut World)) -> Result<(), ClientError> {
        let mut world = self.0.lock().unwrap();
        if world.daemon_away {
            return Err(ClientError::NotRunning {
                socket: PathBuf::from("/run/pf-control"),
                source: std::io::ErrorKind::ConnectionRefused.into(),
            });
        }
        if !world.step(step) {
            let reason = "told to".to_owned();
            return Err(ClientError::Refused(OpError::Kernel { step: step.to_owned(), reason }));
        }
        effect(&mut world);
        Ok(())
    }
}

impl VfPool for FakePool {
    fn acquire(&self, wait: bool) -> Result<VfGrant, ClientError> {
        self.0.lock().unwrap().waits = wait;
        if self.0.lock().unwrap().held {
            return Err(ClientError::NoVfFree(OpError::NoVfFree { total: 1, held: 1 }));
        }
        self.call("acquire", |world| world.held = true)?;
        let region = |offset, length, kind, window_offset| Region {
            bar: 0,
            offset,
            length,
            kind,
            window_offset,
        };
        Ok(VfGrant {
            acquired: Acquired {
                lease: LeaseId(VF),
                vf: VF,
                iommu_group: 7,
                placeholder_mac: MacAddr([2, 0, 0, 0, 0, 1]),
                regions: vec![
                    region(0, PAGE, RegionKind::Control, None),
                    region(PAGE, 3 * PAGE, RegionKind::Data, Some(0)),
                ],
                vectors: Vectors { total: 3, plugin: vec![0, 1], control: Some(2) },
                plugin: "fake".to_owned(),
                pci_ids: PciIds {
                    vendor: 0x8086,
                    device: 0x10ca,
                    subsystem_vendor: 0,
                    subsystem: 0,
                },
                device_info: [0; 32],
                mtu: 1500,
            },
            config: VfConfig { mtu: 1500, multicast: Vec::new(), vlans: Vec::new() },
            device_info: [7; 32],
        })
    }

    fn open(&self, _lease: LeaseId) -> Result<OwnedFd, ClientError> {
        Ok(std::fs::File::open("/dev/null").unwrap().into())
    }

    fn check(&self, _lease: LeaseId) -> Result<(), ClientError> {
        self.call("check", |_| {})
    }

    fn init(&self, _lease: LeaseId, queues: &[QueueDescriptor]) -> Result<(), ClientError> {
        assert_eq!(queues.len(), 2);
        self.call("pf-init", |_| {})
    }

    fn activate(&self, _lease: LeaseId) -> Result<(), ClientError> {
        self.call("activate", |world| world.has_address = true)
    }

    fn quiesce(&self, _lease: LeaseId) -> Result<(), ClientError> {
        self.call("quiesce", |world| world.has_address = false)
    }

    fn release(&self, _lease: LeaseId) -> Result<(), ClientError> {
        assert!(!self.0.lock().unwrap().open, "released while open");
        // A test that fails meanwhile must not wait here for ever.
        let limit = Instant::now() + Duration::from_secs(20);
        while self.0.lock().unwrap().release_hangs && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.call("release", |world| {
            world.has_address = false;
            world.held = false;
        })
    }

    fn follow(
        &self,
        heard: &mut dyn FnMut(PoolNews) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        loop {
            let news = self.0.lock().unwrap().news.pop();
            if heard(news.unwrap_or(PoolNews::Silence)).is_break() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

pub(super) struct FakeOpener(pub(super) SharedWorld);

struct FakeVf {
    world: SharedWorld,
    bar: OwnedFd,
    signal: EventFd,
    looks: std::sync::atomic::AtomicU32,
}

impl VfOpener for FakeOpener {
    fn open(&mut self, grant: &VfGrant, _group: OwnedFd) -> Result<Box<dyn Vf>, VfError> {
        let mut world = self.0.lock().unwrap();
        if !world.step("open") {
            return Err(VfError::Missing { vf: grant.acquired.vf.to_string() });
        }
        world.open = true;
        let bar = rustix::fs::memfd_create("bar", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::pwrite(&bar, &[0x11; 4 * PAGE_SIZE], 0).unwrap();
        let signal = EventFd::new(EFD_NONBLOCK).unwrap();
        world.signal = Some(signal.try_clone().unwrap());
        world.events.clear();
        let looks = 3.into();
        Ok(Box::new(FakeVf { world: self.0.clone(), bar, signal, looks }))
    }
}

impl FakeVf {
    fn step(&self, step: &'static str, effect: impl FnOnce(&mut World)) -> Result<(), VfError> {
        let mut world = self.world.lock().unwrap();
        if !world.step(step) {
            return Err(VfError::Missing { vf: VF.to_string() });
        }
        effect(&mut world);
        Ok(())
    }
}

impl Vf for FakeVf {
    fn init(&mut self, _config: &VfConfig) -> Result<(), VfError> {
        self.step("init", |world| world.running = true)
    }

    fn describe(&self, words: &mut [u32; 32]) {
        words[31] = 0x7e11;
    }

    fn offloads(&self) -> Offloads {
        let checksum = !self.world.lock().unwrap().no_offloads;
        Offloads { checksum, ..Offloads::ALL }
    }

    fn ring_limits(&self) -> [u16; 2] {
        [512, 256]
    }

    fn start(&mut self, queues: &[QueueDescriptor]) -> Result<(), VfError> {
        assert_eq!(queues.len(), 2);
        self.step("start", |_| {})
    }

    fn admit(&mut self) -> Result<(), VfError> {
        self.step("admit", |_| {})
    }

    fn dismiss(&mut self) -> Result<(), VfError> {
        assert!(!self.world.lock().unwrap().has_address, "forwarding moves first");
        self.step("dismiss", |_| {})
    }

    fn data(&self, bar: u8, offset: u64, length: u64) -> Result<DeviceMemory<'_>, VfError> {
        self.step("data", |_| {})?;
        assert_eq!((bar, offset, length), (0, PAGE, 3 * PAGE));
        Ok(DeviceMemory { file: self.bar.as_fd(), offset })
    }

    fn wire(&mut self, vectors: &[(u16, &EventFd)]) -> Result<(), VfError> {
        let wired = vectors.iter().map(|(vector, _)| *vector).collect();
        self.step("wire", |world| world.wired = wired)
    }

    fn unwire(&mut self) -> Result<(), VfError> {
        self.step("unwire", |world| world.wired.clear())
    }

    fn stop(&mut self) {
        drop(self.step("stop", |world| world.running = false));
    }

    fn stats(&self) -> Option<VfStats> {
        let running = self.world.lock().unwrap().running;
        // Every look finds more.
        let rx_frames = self.looks.fetch_add(3, std::sync::atomic::Ordering::Relaxed);
        running.then(|| VfStats { rx_frames, ..VfStats::default() })
    }

    fn signals(&self) -> Vec<RawFd> {
        vec![self.signal.as_raw_fd()]
    }

    fn poll_event(&mut self) -> Option<VfEvent> {
        drop(self.signal.read());
        self.world.lock().unwrap().events.pop()
    }
}

impl Drop for FakeVf {
    fn drop(&mut self) {
        let mut world = self.world.lock().unwrap();
        world.log.push("close");
        world.open = false;
        world.running = false;
    }
}

/// A plugin of one page of 0x90 after its header.
pub(super) struct FakePlugin(pub(super) PluginHeader);

impl FakePlugin {
    pub(super) fn new() -> Self {
        let mut name = [0; 32];
        name[..4].copy_from_slice(b"fake");
        let mut version = [0; 16];
        version[..1].copy_from_slice(b"1");
        let role =
            RingNeed { per_entry: 16, fixed: 0, align: 128, min_entries: 64, max_entries: 1024 };
        let mut pci_ids = [PciId::default(); 8];
        pci_ids[0] = PciId { vendor: 0x8086, device: 0x10ca };
        let mut regions = [PluginRegion::default(); 6];
        regions[0] = PluginRegion {
            bar: 0,
            kind: REGION_DATA,
            reserved: 0,
            window_offset: 0,
            offset: PAGE,
            length: 3 * PAGE,
        };
        Self(PluginHeader {
            magic: IMAGE_MAGIC,
            header_size: size_of::<PluginHeader>() as u32,
            abi_min: 1,
            abi_max: 1,
            class: Class::Net as u16,
            licence: 3,
            role_vectors: [1, 0],
            name,
            version,
            image_length: PAGE_SIZE as u32,
            entry: 0x200,
            private_length: 64,
            role_count: 2,
            queues_per_role: 1,
            roles: [role; 2],
            vectors: 2,
            pci_id_count: 1,
            region_count: 1,
            reserved: 0,
            pci_ids,
            regions,
            sha256: [0; 32],
        })
    }
}

impl Plugin for FakePlugin {
    fn header(&self) -> &PluginHeader {
        &self.0
    }

    fn name(&self) -> &str {
        "fake"
    }

    fn version(&self) -> &str {
        "1"
    }

    fn relocate(&self, base: u64) -> Vec<u8> {
        let mut image = vec![0x90; PAGE_SIZE];
        image[..8].copy_from_slice(&IMAGE_MAGIC);
        image[8..16].copy_from_slice(&base.to_le_bytes());
        image
    }
}

pub(super) struct FakePlugins(pub(super) SharedWorld);

impl PluginStore for FakePlugins {
    fn load(&self, name: &str) -> Result<Box<dyn Plugin>, InjectError> {
        assert_eq!(name, "fake");
        match self.0.lock().unwrap().step("load-plugin") {
            true => Ok(Box::new(FakePlugin::new())),
            false => Err(InjectError::Unsigned { path: PathBuf::from("fake.npa") }),
        }
    }
}

pub(super) struct FakePath(pub(super) SharedWorld);

impl EmulatedPath for FakePath {
    fn offers(&self) -> Offloads {
        Offloads::ALL
    }

    fn mode(&self) -> PathMode {
        match self.0.lock().unwrap().standby {
            true => PathMode::Standby,
            false => PathMode::Serving,
        }
    }

    fn set_mode(&self, mode: PathMode) -> Result<(), PathError> {
        let mut world = self.0.lock().unwrap();
        world.log.push(match mode {
            PathMode::Standby => "standby",
            PathMode::Serving => "serve",
        });
        world.standby = mode == PathMode::Standby;
        Ok(())
    }

    fn drain(&self, _deadline: Duration) -> Result<Drained, DrainError> {
        let mut world = self.0.lock().unwrap();
        match world.step("drain") {
            true => Ok(Drained::default()),
            false => Err(DrainError::Deadline {
                unsent: 1,
                undelivered: false,
                moved: Drained::default(),
            }),
        }
    }

    fn counters(&self) -> PathCounters {
        PathCounters::default()
    }
}
