//! A world without KVM, VFIO or a daemon: a pool of one VF, plugins that are nothing but a
//! header, an emulated path that keeps books, and a guest that follows a script.

use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use npa_abi::image::{
    IMAGE_MAGIC, PciId, PluginHeader, REGION_DATA, Region as PluginRegion, RingNeed,
};
use npa_abi::protocol::{Command, CommandStatus, GuestError, HostView, State};
use npa_abi::register as at;
use npa_abi::shell_page::{
    LANDING_FILL, LANDING_LENGTH_DEFAULT, QueueDescriptor, REVOKED_OFFSET, SHELL_PAGE_MAGIC,
    ShellPage,
};
use npa_abi::{Class, PAGE_SIZE};
use pf_control::client::ClientError;
use pf_control::ops::{
    Acquired, LeaseId, MacAddr, OpError, PciAddress, PciIds, Region, RegionKind, Vectors,
};
use pf_control::vf_control::{Offloads, VfConfig, VfEvent, VfStats};
use sha2::{Digest, Sha256};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device::{Acceleration, AccelerationConfig, NpaExtension, accelerate};
use super::hardware::{DeviceMemory, Plugin, PluginStore, Vf, VfGrant, VfOpener, VfPool};
use super::inject::InjectError;
use super::{Hardware, Timing};
use crate::interrupts::IrqRouter;
use crate::pci::MsixVectors;
use crate::vfio::VfError;
use crate::virtio::pci::{Connection, PciExtension};
use crate::virtio::{
    DrainError, Drained, EmulatedPath, Interrupts, PathCounters, PathError, PathMode,
};
use crate::vm::hypervisor::fake::FakeHypervisor;
use crate::vm::{GuestRam, MemorySlots};

const PAGE: u64 = PAGE_SIZE as u64;
const VF: PciAddress = PciAddress { domain: 0, bus: 1, device: 0x10, function: 0 };

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

struct FakePool(SharedWorld);

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
    fn acquire(&self) -> Result<VfGrant, ClientError> {
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
}

struct FakeOpener(SharedWorld);

struct FakeVf {
    world: SharedWorld,
    bar: OwnedFd,
    signal: EventFd,
    looks: std::sync::atomic::AtomicU32,
}

impl VfOpener for FakeOpener {
    fn open(&mut self, grant: &VfGrant) -> Result<Box<dyn Vf>, VfError> {
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

struct FakePlugins(SharedWorld);

impl PluginStore for FakePlugins {
    fn load(&self, name: &str) -> Result<Box<dyn Plugin>, InjectError> {
        assert_eq!(name, "fake");
        match self.0.lock().unwrap().step("load-plugin") {
            true => Ok(Box::new(FakePlugin::new())),
            false => Err(InjectError::Unsigned { path: PathBuf::from("fake.npa") }),
        }
    }
}

struct FakePath(SharedWorld);

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

pub(super) const RAM: u64 = 8 << 20;
pub(super) const SHELL: u64 = 0x10_0000;
pub(super) const BASE: u64 = 0xffff_ffff_c012_3000;
const LANDING: u64 = 0x20_0000;
const RINGS: u64 = 0x40_0000;
pub(super) const NOTIFY_VECTOR: u16 = 0;

/// Short, so that tests of deadlines end soon, and long enough for a busy machine.
pub(super) fn timing() -> Timing {
    let short = Duration::from_millis(150);
    Timing {
        accept: short,
        load: short,
        switch: short,
        drain: short,
        quiesce: short,
        path_drain: short,
        retry: Duration::from_millis(20),
        reset: Duration::from_secs(2),
    }
}

/// A guest with its device.
pub(super) struct Guest {
    pub(super) world: SharedWorld,
    pub(super) ram: GuestRam,
    pub(super) extension: NpaExtension,
    pub(super) acceleration: Acceleration,
    pub(super) hypervisor: Arc<FakeHypervisor>,
    vectors: Arc<MsixVectors>,
    /// The guest does nothing in this state.
    pub(super) deaf_in: Option<HostView>,
    /// The guest fails in this state.
    pub(super) fails_in: Option<HostView>,
}

impl Guest {
    pub(super) fn new() -> Self {
        Self::with_timing(timing())
    }

    pub(super) fn with_timing(timing: Timing) -> Self {
        let world = SharedWorld::default();
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
        let hypervisor = Arc::new(FakeHypervisor::default());
        let hardware = Hardware {
            pool: Arc::new(FakePool(world.clone())),
            opener: Box::new(FakeOpener(world.clone())),
            plugins: Box::new(FakePlugins(world.clone())),
            path: Arc::new(FakePath(world.clone())),
        };
        let config = AccelerationConfig { timing, ..AccelerationConfig::new("net0", Class::Net) };
        let slots = Arc::new(MemorySlots::new(hypervisor.clone()));
        let (acceleration, mut extension) =
            accelerate(config, hardware, ram.clone(), slots).unwrap();
        let router = Arc::new(IrqRouter::new(hypervisor.clone()));
        let vectors = Arc::new(MsixVectors::new(router, 6).unwrap());
        let interrupts = Arc::new(Interrupts::new(vectors.clone(), 2));
        interrupts.set_config_vector(NOTIFY_VECTOR);
        extension.connected(Connection {
            vectors: vectors.clone(),
            first_extra: 3,
            extra: 3,
            interrupts,
        });
        extension.bar_placed(Some(0x8_0000_0000));
        let guest = Self {
            world,
            ram,
            extension,
            acceleration,
            hypervisor,
            vectors,
            deaf_in: None,
            fails_in: None,
        };
        guest.fill_shell_page();
        guest
    }

    /// A guest whose shell is registered.
    pub(super) fn registered() -> Self {
        let mut guest = Self::new();
        assert_eq!(guest.register(), CommandStatus::Ok);
        guest
    }

    pub(super) fn put<T: vm_memory::ByteValued>(&self, field: usize, value: T) {
        self.ram.write_obj(value, GuestAddress(SHELL + field as u64)).unwrap();
    }

    fn fill_shell_page(&self) {
        self.put(offset_of!(ShellPage, magic), SHELL_PAGE_MAGIC);
        self.put(offset_of!(ShellPage, size), 4096_u32);
        self.put(offset_of!(ShellPage, landing_base), BASE);
        self.put(offset_of!(ShellPage, landing_length), LANDING_LENGTH_DEFAULT);
        for index in 0..u64::from(LANDING_LENGTH_DEFAULT) / PAGE {
            let page = LANDING + index * PAGE;
            self.put(offset_of!(ShellPage, landing_pages) + index as usize * 8, page);
            self.ram.write_slice(&[LANDING_FILL; PAGE_SIZE], GuestAddress(page)).unwrap();
        }
        self.put(offset_of!(ShellPage, queue_count), 2_u32);
        for index in 0..2 {
            let queue = offset_of!(ShellPage, queues) + index * size_of::<QueueDescriptor>();
            self.put(queue, RINGS + index as u64 * 4 * PAGE);
            self.put(queue + 8, 4096_u32);
            self.put(queue + 12, 256_u32);
        }
    }

    pub(super) fn read(&mut self, register: u32) -> u32 {
        let mut data = [0; 4];
        self.extension.bar_read(register.into(), &mut data);
        u32::from_le_bytes(data)
    }

    pub(super) fn write(&mut self, register: u32, value: u32) {
        self.extension.bar_write(register.into(), &value.to_le_bytes());
    }

    pub(super) fn register(&mut self) -> CommandStatus {
        self.write(at::GUEST_ABI, 1);
        self.write(at::SHELL_PAGE_LO, SHELL as u32);
        self.write(at::SHELL_PAGE_HI, 0);
        self.command(Command::Register)
    }

    pub(super) fn command(&mut self, command: Command) -> CommandStatus {
        let generation = self.read(at::GENERATION);
        self.command_of(command, generation)
    }

    pub(super) fn command_of(&mut self, command: Command, generation: u32) -> CommandStatus {
        self.write(at::COMMAND, command.encode(generation));
        CommandStatus::from_code(self.read(at::COMMAND_STATUS)).unwrap()
    }

    pub(super) fn view(&mut self) -> HostView {
        HostView::decode(self.read(at::STATE)).unwrap()
    }

    /// Does what a shell does in the state that it sees.
    pub(super) fn act(&mut self) {
        let view = self.view();
        if self.deaf_in == Some(view) {
            return;
        }
        let failing = self.fails_in == Some(view);
        let status = match (view.state, view.host_done) {
            _ if failing => {
                self.write(at::GUEST_ERROR, GuestError::PluginFailed as u32);
                self.command(Command::Fail)
            }
            (State::Offered, _) => self.command(Command::Accept),
            (State::Loading, true) => {
                self.check_landing();
                self.command(Command::Ready)
            }
            (State::Ready, true) => {
                assert!(self.world.lock().unwrap().has_address);
                self.command(Command::Switched)
            }
            (State::Quiescing, false) => self.command(Command::TxDrained),
            (State::Quiescing, true) => {
                assert!(!self.world.lock().unwrap().has_address);
                self.command(Command::Quiesced)
            }
            (State::Failed, _) => self.command(Command::Cleaned),
            _ => return,
        };
        // The host may have moved on between the look and the command.
        assert!(matches!(status, CommandStatus::Ok | CommandStatus::WrongState), "{status:?}");
    }

    fn check_landing(&mut self) {
        let length = self.read(at::IMAGE_LENGTH) as usize;
        let mut image = vec![0; length];
        self.ram.read_slice(&mut image, GuestAddress(LANDING)).unwrap();
        assert_eq!(image[..8], IMAGE_MAGIC);
        assert_eq!(image[8..16], BASE.to_le_bytes());
        let digest: Vec<u8> =
            (0..8).flat_map(|word| self.read(at::IMAGE_SHA256 + 4 * word).to_le_bytes()).collect();
        assert_eq!(digest, Sha256::digest(&image)[..]);
        assert_eq!(self.read(at::VF_VECTOR_COUNT), 2);
        assert_eq!(self.read(at::WINDOW_LENGTH), 3 * PAGE as u32);
        assert_eq!(self.read(at::DEVICE_INFO), 7);
    }

    pub(super) fn landing_byte(&self) -> u8 {
        self.ram.read_obj(GuestAddress(LANDING)).unwrap()
    }

    pub(super) fn revoked_word(&self) -> u32 {
        self.ram.read_obj(GuestAddress(SHELL + REVOKED_OFFSET as u64)).unwrap()
    }

    /// Whether the guest was interrupted since the last call.
    pub(super) fn take_interrupt(&self) -> bool {
        self.vectors.event(NOTIFY_VECTOR).read().is_ok()
    }

    /// Runs the guest while `operate` runs on a thread of its own.
    pub(super) fn during<T: Send + 'static>(
        &mut self,
        operate: impl FnOnce(Acceleration) -> T + Send + 'static,
    ) -> T {
        let acceleration = self.acceleration.clone();
        let operator = std::thread::spawn(move || operate(acceleration));
        let limit = Instant::now() + Duration::from_secs(20);
        while !operator.is_finished() {
            assert!(Instant::now() < limit, "stuck: {:?}", self.world.lock().unwrap().log);
            self.act();
            std::thread::sleep(Duration::from_micros(200));
        }
        operator.join().unwrap()
    }

    /// Runs the guest until it sees `state`.
    pub(super) fn until(&mut self, state: State) {
        let limit = Instant::now() + Duration::from_secs(20);
        while self.view().state != state {
            assert!(Instant::now() < limit, "stuck in {:?}", self.view());
            self.act();
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until `condition` holds, with the guest doing nothing.
    pub(super) fn wait(&self, condition: impl Fn(&World) -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !condition(&self.world.lock().unwrap()) {
            assert!(Instant::now() < limit, "{:?}", self.world.lock().unwrap().log);
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub(super) fn take_log(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.world.lock().unwrap().log)
    }
}
