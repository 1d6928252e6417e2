//! The hypervisor's side: a virtio-net device with NPA registers, a VF behind it, and the host's
//! half of the switch, one step at a time.
#![allow(unsafe_code, reason = "reads and writes the shell page by address")]

use crate::device::{DeviceQueue, Nic};
use crate::image::{Fault, LANDING_LENGTH, LandingMemory, build, reinits};
use npa_abi::pci::{CAP_MAGIC, CAP_VENDOR_ID, VIRTIO_PCI_CAP_VENDOR_CFG};
use npa_abi::protocol::{Command, CommandStatus, HostView, State};
use npa_abi::shell_page::{REVOKED_OFFSET, ShellPage};
use npa_abi::{ABI, ABI_MIN, Class, register};
use sha2::{Digest, Sha256};
use virtio_net_plugin::{QueueLayout, VirtioInfo};

pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const QUEUE_SIZE: u16 = 256;
/// No merged frames: these would want longer buffers.
const VF_FEATURES: u64 = virtio_net_plugin::FEATURES & !(1 << 7 | 1 << 8);
pub(crate) const COMMON_BAR: u8 = 0;
pub(crate) const NPA_BAR: u8 = 4;
pub(crate) const NOTIFY_LENGTH: usize = 4096;
pub(crate) const WINDOW_OFFSET: u64 = 256 << 10;
pub(crate) const WINDOW_LENGTH: usize = 4096;

/// The registers of a queue while it is set up.
#[derive(Clone, Copy, Debug, Default)]
struct QueueSetup {
    size: u16,
    vector: u16,
    addresses: [u32; 6],
}

/// The hypervisor with its device.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) config: [u8; 256],
    status: u8,
    select: u32,
    features: [u32; 2],
    queue: u16,
    config_vector: u16,
    queues: [QueueSetup; 3],
    pub(crate) link_up: bool,
    /// The guest is asked to announce itself.
    pub(crate) announce: bool,
    commands: DeviceQueue,
    /// What it says to commands, if it says anything.
    pub(crate) answer: Option<u8>,
    /// Queues are broken: the device refuses features.
    pub(crate) stubborn: bool,
    pub(crate) emulated: Nic,
    pub(crate) vf: Nic,
    pub(crate) address_on_vf: bool,
    pub(crate) registered: bool,
    shell_page: u64,
    pub(crate) view: HostView,
    pub(crate) generation: u32,
    command_status: u32,
    pub(crate) guest_error: u32,
    pub(crate) resets: u32,
    image_length: u32,
    image_sha256: [u8; 32],
    fault: Fault,
    tx_drained: bool,
    releasing: bool,
    cleaned: bool,
    /// Frames that came out of either NIC, in order.
    pub(crate) sent: Vec<Vec<u8>>,
    /// The guest is to be interrupted.
    pub(crate) event: bool,
    /// Every answer is ones: the device is gone.
    gone: bool,
}

impl Host {
    pub(crate) fn new() -> Self {
        let mut host = Self {
            config: [0; 256],
            status: 0,
            select: 0,
            features: [0; 2],
            queue: 0,
            config_vector: 0xffff,
            queues: [QueueSetup::default(); 3],
            link_up: true,
            announce: false,
            commands: DeviceQueue::default(),
            answer: Some(0),
            stubborn: false,
            emulated: Nic::default(),
            vf: Nic::default(),
            address_on_vf: false,
            registered: false,
            shell_page: 0,
            view: HostView { state: State::Emulated, host_done: true },
            generation: 7,
            command_status: 0,
            guest_error: 0,
            resets: 0,
            image_length: 0,
            image_sha256: [0; 32],
            fault: Fault::None,
            tx_drained: false,
            releasing: false,
            cleaned: false,
            sent: Vec::new(),
            event: false,
            gone: false,
        };
        host.write_capabilities();
        host
    }

    fn write_capabilities(&mut self) {
        self.config[6] = 1 << 4;
        self.config[0x34] = 0x40;
        let virtio = |next: u8, kind: u8, offset: u32, length: u32, extra: u32| {
            let mut bytes = vec![9, next, 20, kind, COMMON_BAR, 0, 0, 0];
            for word in [offset, length, extra] {
                bytes.extend(word.to_le_bytes());
            }
            bytes
        };
        let mut npa = vec![9, 0, 24, VIRTIO_PCI_CAP_VENDOR_CFG];
        npa.extend(CAP_VENDOR_ID.to_le_bytes());
        npa.extend([NPA_BAR, 0]);
        for word in [CAP_MAGIC, 0, WINDOW_OFFSET as u32, WINDOW_LENGTH as u32] {
            npa.extend(word.to_le_bytes());
        }
        let all = [
            (0x40, virtio(0x60, 1, 0, 0x38, 0)),
            (0x60, virtio(0x80, 2, 0x1000, NOTIFY_LENGTH as u32, 4)),
            (0x80, virtio(0xa0, 4, 0x2000, 0x20, 0)),
            (0xa0, npa),
        ];
        for (at, bytes) in all {
            self.config[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }

    pub(crate) fn mmio_read(&self, bar: u8, offset: u64) -> u32 {
        if self.gone {
            return u32::MAX;
        }
        if bar == NPA_BAR {
            return self.npa_read(offset as u32);
        }
        let queue = self.queues.get(usize::from(self.queue));
        match offset {
            0x04 => self.offered()[self.select as usize & 1],
            0x10 => u32::from(self.config_vector),
            0x14 => u32::from(self.status),
            0x18 => queue.map_or(0, |_| u32::from(QUEUE_SIZE)),
            0x1a => queue.map_or(0xffff, |queue| u32::from(queue.vector)),
            0x1e => u32::from(self.queue),
            0x2000..0x2006 => u32::from(MAC[offset as usize - 0x2000]),
            0x2006 => u32::from(self.link_up) | u32::from(self.announce) << 1,
            0x200a => 1500 & 0xff,
            0x200b => 1500 >> 8,
            _ => 0,
        }
    }

    fn offered(&self) -> [u32; 2] {
        let features = virtio_net_plugin::FEATURES | 1 << 3 | 1 << 5 | 1 << 16 | 1 << 17 | 1 << 21;
        [features as u32, (features >> 32) as u32]
    }

    pub(crate) fn mmio_write(&mut self, bar: u8, offset: u64, value: u32) {
        if self.gone {
            return;
        }
        if bar == NPA_BAR {
            return self.npa_write(offset as u32, value);
        }
        match offset {
            0x00 | 0x08 => self.select = value,
            0x0c => self.features[self.select as usize & 1] = value,
            0x10 => self.config_vector = value as u16,
            0x14 if value == 0 => self.reset(),
            0x14 => {
                let value = value as u8;
                self.status = if self.stubborn { value & !8 } else { value };
            }
            0x16 => self.queue = value as u16,
            0x18 => self.setup(|queue| queue.size = value as u16),
            0x1a => self.setup(|queue| queue.vector = value as u16),
            0x20..0x38 => {
                self.setup(|queue| queue.addresses[(offset as usize - 0x20) / 4] = value);
            }
            0x1c => self.enable_queue(),
            _ => {}
        }
    }

    fn setup(&mut self, change: impl FnOnce(&mut QueueSetup)) {
        if let Some(queue) = self.queues.get_mut(usize::from(self.queue)) {
            change(queue);
        }
    }

    fn enable_queue(&mut self) {
        let setup = self.queues[usize::from(self.queue)];
        let nic = &mut self.emulated;
        let queue = match self.queue {
            0 => &mut nic.rx,
            1 => &mut nic.tx,
            _ => &mut self.commands,
        };
        let address =
            |at: usize| u64::from(setup.addresses[at]) | u64::from(setup.addresses[at + 1]) << 32;
        queue.entries = setup.size;
        (queue.descriptors, queue.driver, queue.device) = (address(0), address(2), address(4));
    }

    /// A device reset: the shell's registration ends with it, and a VF is taken away.
    fn reset(&mut self) {
        self.status = 0;
        self.emulated.reset();
        self.commands = DeviceQueue::default();
        self.announce = false;
        self.vf.reset();
        self.registered = false;
        self.address_on_vf = false;
        self.show(State::Emulated, true);
    }

    /// The device is pulled out, and the VF with it.
    pub(crate) fn vanish(&mut self) {
        self.vf.reset();
        self.gone = true;
    }

    fn show(&mut self, state: State, host_done: bool) {
        self.view = HostView { state, host_done };
        self.event = true;
    }

    fn npa_read(&self, offset: u32) -> u32 {
        match offset {
            register::MAGIC => register::MAGIC_VALUE,
            register::HOST_ABI => u32::from(ABI_MIN) | u32::from(ABI) << 16,
            register::CLASS => Class::Net as u32,
            register::COMMAND_STATUS => self.command_status,
            register::STATE => self.view.encode(),
            register::GENERATION => self.generation,
            register::LANDING_LENGTH => LANDING_LENGTH as u32,
            register::IMAGE_LENGTH => self.image_length,
            register::VF_VECTOR_BASE => 3,
            register::VF_VECTOR_COUNT => 2,
            register::WINDOW_LENGTH => WINDOW_LENGTH as u32,
            register::RESET_COUNT => self.resets,
            // No power of two: the shell takes the next one below.
            register::RING_LIMITS => 200 | 0xffff << 16,
            register::IMAGE_SHA256..0x60 => {
                let at = (offset - register::IMAGE_SHA256) as usize;
                u32::from_le_bytes(self.image_sha256[at..at + 4].try_into().unwrap())
            }
            register::DEVICE_INFO..0x100 => {
                let mut words = [0; 32];
                let mut doorbells = [0; 16];
                doorbells[1] = 4;
                VirtioInfo::new(VF_FEATURES, doorbells).write(&mut words);
                words[((offset - register::DEVICE_INFO) / 4) as usize]
            }
            _ => u32::MAX,
        }
    }

    fn npa_write(&mut self, offset: u32, value: u32) {
        match offset {
            register::SHELL_PAGE_LO => {
                self.shell_page = self.shell_page & !0xffff_ffff | u64::from(value);
            }
            register::SHELL_PAGE_HI => {
                self.shell_page = self.shell_page & 0xffff_ffff | u64::from(value) << 32;
            }
            register::GUEST_ERROR => self.guest_error = value,
            register::COMMAND => self.command_status = self.command(value) as u32,
            _ => {}
        }
    }

    fn command(&mut self, word: u32) -> CommandStatus {
        let (Some(command), generation) = Command::decode(word) else {
            return CommandStatus::Unknown;
        };
        let free = matches!(command, Command::Register | Command::Unregister);
        if !free && generation != self.generation as u16 {
            return CommandStatus::Stale;
        }
        match (command, self.view.state, self.view.host_done) {
            (Command::Register, State::Emulated, _) => self.registered = true,
            (Command::Unregister, State::Emulated | State::Failed, _) => {
                self.registered = false;
                self.show(State::Emulated, true);
            }
            (Command::Accept, State::Offered, _) => self.show(State::Loading, false),
            (Command::Ready, State::Loading, true) => {
                self.program_vf();
                self.show(State::Ready, false);
            }
            (Command::Switched, State::Ready, true) => self.show(State::Active, true),
            (Command::TxDrained, State::Quiescing, false) => self.tx_drained = true,
            (Command::Quiesced, State::Quiescing, true) => self.releasing = true,
            (Command::Cleaned, State::Failed, _) => self.cleaned = true,
            (Command::RequestDetach, State::Active, _) => drop(self.detach()),
            (
                Command::Fail,
                State::Offered | State::Loading | State::Ready | State::Active | State::Quiescing,
                _,
            ) => drop(self.revoke()),
            _ => return CommandStatus::WrongState,
        }
        CommandStatus::Ok
    }

    /// The VF's withheld registers: its queues are where the shell page says.
    fn program_vf(&mut self) {
        // SAFETY: the shell page is registered and stays there; the host's word is not read.
        let queues = unsafe { (&raw const (*(self.shell_page as *const ShellPage)).queues).read() };
        let nic = [&mut self.vf.rx, &mut self.vf.tx];
        for (queue, memory) in nic.into_iter().zip(queues) {
            let layout = QueueLayout::new(memory.entries);
            queue.entries = memory.entries as u16;
            queue.descriptors = memory.base + layout.descriptors;
            queue.driver = memory.base + layout.driver;
            queue.device = memory.base + layout.device;
        }
    }

    /// Offers a VF with an image that behaves as `fault` says. `false` if this is not the time.
    pub(crate) fn offer(&mut self, fault: Fault) -> bool {
        if !self.registered || self.view.state != State::Emulated {
            return false;
        }
        self.generation = self.generation.wrapping_add(1);
        self.fault = fault;
        (self.tx_drained, self.releasing, self.cleaned) = (false, false, false);
        self.guest_error = 0;
        self.show(State::Offered, true);
        true
    }

    pub(crate) fn detach(&mut self) -> bool {
        let active = self.view.state == State::Active;
        if active {
            self.show(State::Quiescing, false);
        }
        active
    }

    /// Takes the VF away by force.
    pub(crate) fn revoke(&mut self) -> bool {
        let attached = !matches!(self.view.state, State::Emulated | State::Failed);
        if attached {
            self.vf.reset();
            self.take_address_back();
            // SAFETY: the shell page is registered; the word is the host's.
            let word = unsafe {
                let at = (self.shell_page as usize + REVOKED_OFFSET) as *const u32;
                &*at.cast::<std::sync::atomic::AtomicU32>()
            };
            word.store(self.generation, std::sync::atomic::Ordering::Release);
            self.resets = self.resets.wrapping_add(1);
            self.show(State::Failed, true);
        }
        attached
    }

    /// The VF loses its rings and gets them again, as after a PF reset.
    pub(crate) fn reset_vf(&mut self) -> bool {
        let active = self.view.state == State::Active;
        if active {
            let both = reinits() + 2;
            self.vf.rx.restart(both);
            self.vf.tx.restart(both);
            self.resets = self.resets.wrapping_add(1);
            self.event = true;
        }
        active
    }

    /// Unicast goes to the emulated path again; what the VF had not delivered comes that way.
    fn take_address_back(&mut self) {
        self.address_on_vf = false;
        let unicast = self.vf.backlog.drain(..).filter(|frame| frame[0] & 1 == 0);
        for (index, frame) in unicast.enumerate() {
            self.emulated.backlog.insert(index, frame);
        }
    }

    /// Does the next piece of the host's half, if it is the host's turn. Answers whether it did.
    pub(crate) fn step(&mut self, landing: &LandingMemory) -> bool {
        if let Some(answer) = self.answer
            && let Some(command) = self.commands.take_command(answer)
        {
            assert_eq!(command, [3, 0]);
            self.announce &= answer != 0;
            return true;
        }
        match (self.view.state, self.view.host_done) {
            (State::Loading, false) => {
                let image = build(self.fault);
                self.image_length = image.len() as u32;
                self.image_sha256 = Sha256::digest(&image).into();
                landing.write(&image);
                self.show(State::Loading, true);
            }
            (State::Ready, false) => {
                self.address_on_vf = true;
                if self.emulated.receive(usize::MAX) {
                    return false;
                }
                self.show(State::Ready, true);
            }
            (State::Quiescing, false) if self.tx_drained => {
                self.address_on_vf = false;
                if self.vf.receive(usize::MAX) {
                    return false;
                }
                self.show(State::Quiescing, true);
            }
            (State::Quiescing, true) if self.releasing => {
                self.releasing = false;
                self.vf.reset();
                self.vf.backlog.clear();
                landing.write(&[0xcc; LANDING_LENGTH]);
                self.show(State::Emulated, true);
            }
            (State::Failed, _) if self.cleaned => {
                self.cleaned = false;
                landing.write(&[0xcc; LANDING_LENGTH]);
                self.show(State::Emulated, true);
            }
            _ => return false,
        }
        true
    }

    /// A frame for the guest comes in.
    pub(crate) fn incoming(&mut self, frame: Vec<u8>) {
        if frame[0] & 1 == 1 {
            if self.vf.rx.is_enabled() {
                self.vf.backlog.push_back(frame.clone());
            }
            self.emulated.backlog.push_back(frame);
        } else if self.address_on_vf {
            self.vf.backlog.push_back(frame);
        } else {
            self.emulated.backlog.push_back(frame);
        }
    }

    /// Has a NIC send up to `count` frames; answers how many it did.
    pub(crate) fn send(&mut self, over_vf: bool, count: usize) -> usize {
        let nic = if over_vf { &mut self.vf } else { &mut self.emulated };
        for done in 0..count {
            match nic.tx.take_frame() {
                Some(frame) => self.sent.push(frame),
                None => return done,
            }
        }
        count
    }
}
