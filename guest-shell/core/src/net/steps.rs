//! What the switch's steps mean for a network interface.

use super::built_in::{EMPTY_OPS, RING_ENTRIES, VF_RECEIVE_ENTRIES, api};
use super::calls::NetCalls;
use super::path::{Fault, NetPath, RxSlots};
use super::paths::{Delivery, Paths, Route, VfPath};
use super::shell::PluginLabel;
use crate::handshake::Link;
use crate::landing::{Expected, Image, check, image_bytes};
use crate::locked::PathCell;
use crate::log::LogLine;
use crate::os::{LogLevel, NetOs};
use crate::plugin::{InstanceMemory, Layout, Place, enter_landed};
use crate::switch::{Progress, ShellState, Steps};
use npa_abi::Class;
use npa_abi::image::ROLES_MAX;
use npa_abi::protocol::GuestError;

/// Queues of an instance: one pair.
const QUEUES: u16 = 2;

/// Budget of the polls with which a closed interface is moved on.
const CLOSED_BUDGET: u32 = 64;

/// MSI-X vectors wired for the present VF: first and count.
pub(super) type WiredVectors = Option<(u32, u32)>;

/// The steps of one event call.
pub(super) struct NetSteps<'a, O: NetOs> {
    pub(super) os: &'a O,
    pub(super) paths: &'a PathCell<Option<Paths>>,
    pub(super) link: &'a Link,
    pub(super) vectors: &'a mut WiredVectors,
}

impl<O: NetOs> NetSteps<'_, O> {
    fn with<R>(&self, work: impl FnOnce(&mut Paths) -> R) -> Option<R> {
        self.paths.with(self.os, |paths| paths.as_mut().map(work))
    }

    fn begin(&self, work: impl FnOnce(&mut Paths)) -> Progress {
        self.with(work);
        self.os.schedule_poll();
        Progress::Pending
    }

    fn try_load(&mut self, generation: u32) -> Result<(), GuestError> {
        let os = self.os;
        let landing = os.landing().ok_or(GuestError::Refused)?;
        let length = self.link.image_length(os);
        let bytes = image_bytes(&landing, length).ok_or(GuestError::BadImage)?;
        let expected = Expected { class: Class::Net, sha256: self.link.image_sha256(os) };
        let image = check(bytes, &expected)?;
        if image.role_count != QUEUES {
            return Err(GuestError::BadImage);
        }
        let mut ops = EMPTY_OPS;
        let code = enter_landed(&landing, image.entry, image.length, Class::Net, &mut ops)
            .map_err(|_| GuestError::PluginFailed)?;
        let calls = NetCalls::check(&ops, code).ok_or(GuestError::PluginFailed)?;
        self.wire(&image)?;
        let mut path = self.build(&image, calls)?;
        self.with(|paths| paths.receiver.vf_appears(os.now_ns()));
        let outcome = bring_up(os, &mut path);
        // Installed even if that failed: the VF may write to its memory until it is taken away.
        let label = PluginLabel { name: image.name, version: image.version };
        let revoked = self.link.revoked_word();
        let vf = VfPath::new(path, generation, revoked, label, outcome.is_ok());
        self.with(|paths| paths.install(vf));
        outcome?;
        LogLine::new("npa: plugin ")
            .text(label.name())
            .text(" ")
            .text(label.version())
            .text(" loaded")
            .write(os, LogLevel::Info);
        Ok(())
    }

    fn wire(&mut self, image: &Image) -> Result<(), GuestError> {
        let (first, count) = self.link.vectors(self.os);
        if count < u32::from(image.role_count).min(u32::from(image.vectors)) {
            return Err(GuestError::NoVectors);
        }
        self.os.wire_vectors(first, count).map_err(|_| GuestError::NoVectors)?;
        *self.vectors = Some((first, count));
        Ok(())
    }

    /// Allocates the instance and tells the host where its queues are.
    fn build(&self, image: &Image, calls: NetCalls) -> Result<NetPath, GuestError> {
        let os = self.os;
        let mut entries = [0; ROLES_MAX];
        let wanted = [VF_RECEIVE_ENTRIES, RING_ENTRIES];
        let limits = self.link.ring_limits(os);
        let roles = entries.iter_mut().zip(&image.roles).zip(wanted.into_iter().zip(limits));
        for ((entry, role), (wanted, limit)) in roles {
            // A range that is empty or no power of two was refused with the image; a device that
            // cannot have the plugin's least is the host's to refuse.
            let limit = limit.checked_ilog2().map_or(0, |bits| 1 << bits);
            *entry = wanted.min(role.max_entries.into()).min(limit).max(role.min_entries.into());
        }
        let layout = Layout {
            private_length: image.private_length,
            queue_count: QUEUES,
            role_count: image.role_count,
            roles: image.roles,
            entries,
        };
        let (bar, offset, window_length) = self.link.window(os);
        let window = os.bar_memory(bar, offset, window_length).ok_or(GuestError::PluginFailed)?;
        let buffer_length = os.rx_buffer_length();
        let place = Place {
            window,
            window_length,
            buffer_length,
            vector_count: self.link.vectors(os).1,
            device_info: self.link.device_info(os),
        };
        let instance =
            InstanceMemory::new(os, &layout, &place, api::<O>()).ok_or(GuestError::NoMemory)?;
        let Some(slots) = RxSlots::new(os, entries[0], buffer_length) else {
            instance.free(os);
            return Err(GuestError::NoMemory);
        };
        let descriptors = instance.descriptors();
        self.link.set_queues(descriptors.get(..usize::from(QUEUES)).unwrap_or(&[]));
        Ok(NetPath::new(calls, instance, slots, true))
    }
}

/// Calls the plugin for the first time: state, rings, buffers.
fn bring_up<O: NetOs>(os: &O, path: &mut NetPath) -> Result<(), GuestError> {
    let broken = |_: Fault| GuestError::PluginFailed;
    path.sw_init(os).map_err(broken)?;
    path.reinit(os).map_err(broken)?;
    match path.fill(os).map_err(broken)? {
        0 => Err(GuestError::NoMemory),
        _ => Ok(()),
    }
}

impl<O: NetOs> Steps for NetSteps<'_, O> {
    fn prepare(&mut self) -> Progress {
        match self.os.landing() {
            Some(_) => Progress::Done,
            None => Progress::Failed(GuestError::Refused),
        }
    }

    fn load(&mut self, generation: u32) -> Progress {
        match self.try_load(generation) {
            Ok(()) => Progress::Done,
            Err(error) => Progress::Failed(error),
        }
    }

    fn switch_to_vf(&mut self) -> Progress {
        self.begin(Paths::begin_switch)
    }

    fn drain_transmit(&mut self) -> Progress {
        self.begin(Paths::begin_return)
    }

    fn drain_receive(&mut self) -> Progress {
        self.begin(Paths::begin_drain_receive)
    }

    fn progress(&mut self, state: ShellState) -> Progress {
        let os = self.os;
        let done = self.with(|paths| {
            if !paths.receiver.is_open() {
                // Nobody else polls.
                paths.poll(os, CLOSED_BUDGET);
            }
            if paths.vf_has_fault() {
                return Progress::Failed(GuestError::PluginFailed);
            }
            let done = match state {
                ShellState::Switching => paths.position() == (Route::Vf, Delivery::Both),
                ShellState::DrainingTransmit => {
                    paths.position() == (Route::Emulated, Delivery::EmulatedHeld)
                }
                ShellState::DrainingReceive => paths.vf_is_quiesced(),
                _ => true,
            };
            if done { Progress::Done } else { Progress::Pending }
        });
        done.unwrap_or(Progress::Failed(GuestError::Unspecified))
    }

    fn fault(&mut self) -> Option<GuestError> {
        self.with(|paths| paths.vf_has_fault())
            .filter(|fault| *fault)
            .map(|_| GuestError::PluginFailed)
    }

    fn reinit_rings(&mut self) -> Result<(), GuestError> {
        let os = self.os;
        match self.with(|paths| paths.reinit_vf(os)) {
            Some(Err(_)) => Err(GuestError::PluginFailed),
            _ => Ok(()),
        }
    }

    fn stop_plugin(&mut self) {
        let os = self.os;
        self.with(|paths| paths.stop_vf(os));
    }

    fn give_up(&mut self) {
        let os = self.os;
        let vf = self.with(|paths| paths.remove_vf(os)).flatten();
        // What was salvaged waits to be handed on; what waited to be sent may need its interrupt.
        os.schedule_poll();
        if let Some((first, count)) = self.vectors.take() {
            os.unwire_vectors(first, count);
        }
        if let Some(vf) = vf {
            vf.free(os);
        }
    }
}
