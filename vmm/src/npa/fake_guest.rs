//! A guest that follows a script, with its device in the world of [`super::fake`].

use std::mem::offset_of;
use std::sync::Arc;
use std::time::{Duration, Instant};

use npa_abi::image::IMAGE_MAGIC;
use npa_abi::protocol::{Command, CommandStatus, GuestError, HostView, State};
use npa_abi::register as at;
use npa_abi::shell_page::{
    LANDING_FILL, LANDING_LENGTH_DEFAULT, QueueDescriptor, REVOKED_OFFSET, SHELL_PAGE_MAGIC,
    ShellPage,
};
use npa_abi::{Class, PAGE_SIZE};
use sha2::{Digest, Sha256};
use vm_memory::{Bytes, GuestAddress};

use super::device::{Acceleration, AccelerationConfig, NpaExtension, accelerate};
use super::fake::*;
use super::{Hardware, Timing};
use crate::interrupts::IrqRouter;
use crate::pci::MsixVectors;
use crate::virtio::Interrupts;
use crate::virtio::pci::{Connection, PciExtension};
use crate::vm::hypervisor::fake::FakeHypervisor;
use crate::vm::{GuestRam, MemorySlots};

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
