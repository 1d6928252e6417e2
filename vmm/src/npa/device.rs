//! An accelerated device: ties registers, window, switch and control thread together and gives
//! them a place on the PCI function of the emulated device. Knows nothing of its class but the
//! code that it shows.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use npa_abi::pci::{
    CAP_ID_VENDOR, CAP_MAGIC, CAP_VENDOR_ID, DEAD_BYTE, NPA_BAR, NPA_BAR_SIZE,
    REGISTER_PAGE_OFFSET, VIRTIO_PCI_CAP_VENDOR_CFG, WINDOW_OFFSET, WINDOW_SIZE,
};
use npa_abi::shell_page::{FEATURE_MARKS, LANDING_LENGTH_DEFAULT};
use npa_abi::{Class, PAGE_SIZE};

use super::actions::Hardware;
use super::control::Control;
use super::core::{Core, Timing};
use super::hardware::VfPool;
use super::outcome::{SwitchError, pool_ready};
use super::pursuit::Pursuit;
use super::registers::RegisterWrite;
use super::switch::{Phase, SwitchEvent};
use super::window::{Window, WindowError};
use crate::api::FellBack;
use crate::pci::BarKind;
use crate::state::{Archive, ArchiveBuilder, StateError};
use crate::virtio::pci::{BarSpec, Connection, PciExtension};
use crate::vm::{GuestRam, MemorySlots};

/// What is particular to one accelerated device.
#[derive(Clone, Debug)]
pub struct AccelerationConfig {
    /// Name of the device, as `net0`.
    pub id: String,
    /// What it is.
    pub class: Class,
    /// Deadlines.
    pub timing: Timing,
    /// Bytes of landing asked of the guest, whole pages, at most 256 KiB.
    pub landing_length: u32,
}

impl AccelerationConfig {
    /// The defaults for device `id`.
    pub fn new(id: impl Into<String>, class: Class) -> Self {
        Self {
            id: id.into(),
            class,
            timing: Timing::default(),
            landing_length: LANDING_LENGTH_DEFAULT,
        }
    }
}

/// Why an accelerated device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AccelerationError {
    /// No window.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// No thread or eventfd.
    #[error("cannot start the control thread")]
    Thread(#[source] io::Error),
}

/// The operator's side of an accelerated device. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Acceleration {
    pub(super) core: Arc<Core>,
    pool: Arc<dyn VfPool>,
}

/// The guest's side of an accelerated device: the NPA BAR and capability.
pub struct NpaExtension {
    core: Arc<Core>,
    window: Arc<Mutex<Window>>,
    // Dropped first, so that the thread has ended when the rest goes.
    _control: Control,
}

/// Makes an accelerated device on guest memory `ram`.
///
/// # Errors
/// [`AccelerationError`].
pub fn accelerate(
    config: AccelerationConfig,
    hardware: Hardware,
    ram: GuestRam,
    slots: Arc<MemorySlots>,
) -> Result<(Acceleration, NpaExtension), AccelerationError> {
    let AccelerationConfig { id, class, timing, landing_length } = config;
    let core = Core::new(id, class as u16, landing_length, timing, ram)
        .map_err(AccelerationError::Thread)?;
    let core = Arc::new(core);
    let window = Arc::new(Mutex::new(Window::new(slots)?));
    let pool = Arc::clone(&hardware.pool);
    let control = Control::spawn(Arc::clone(&core), hardware, Arc::clone(&window))
        .map_err(AccelerationError::Thread)?;
    let extension = NpaExtension { core: Arc::clone(&core), window, _control: control };
    Ok((Acceleration { core, pool }, extension))
}

impl Acceleration {
    /// The device's name.
    pub fn id(&self) -> &str {
        &self.core.id
    }

    /// Puts the device on a VF. Returns once the VF carries the traffic.
    ///
    /// # Errors
    /// [`SwitchError`]; the device is then on its emulated path and no VF is held.
    pub fn attach(&self) -> Result<(), SwitchError> {
        self.core.request(SwitchEvent::Attach, |_| false)
    }

    /// Takes the device off its VF. Returns once the VF is back in its pool.
    ///
    /// # Errors
    /// [`SwitchError::PoolAway`] before anything was changed; [`SwitchError::Forced`] when the
    /// guest did not take part, and the VF is back all the same.
    pub fn detach(&self) -> Result<(), SwitchError> {
        let waited = {
            let mut state = self.core.lock();
            state.pursuit = Pursuit::default();
            std::mem::take(&mut state.wants_vf)
        };
        loop {
            match self.detach_until(|_| false) {
                // It waited for one, and does no more.
                Err(SwitchError::NotAttached) if waited => return Ok(()),
                // An attempt is under way that nobody asked for just now.
                Err(SwitchError::Busy) if waited => self.core.wait_for_rest()?,
                outcome => return outcome,
            }
        }
    }

    fn detach_until(&self, far_enough: impl Fn(Phase) -> bool) -> Result<(), SwitchError> {
        let (phase, lease) = {
            let state = self.core.lock();
            (state.switch.phase(), state.lease)
        };
        if phase == Phase::Active {
            pool_ready(self.pool.as_ref(), lease)?;
        }
        self.core.request(SwitchEvent::Detach, far_enough)
    }
}

impl Acceleration {
    /// Whether the guest marks what a VF writes to its memory, so that a log of what its CPUs
    /// write is complete once the VF has been quiesced.
    pub fn marks_writes(&self) -> bool {
        let state = self.core.lock();
        let registration = state.registration.as_ref();
        registration.is_some_and(|registration| registration.features() & FEATURE_MARKS != 0)
    }

    /// A log of what the guest's CPUs write has begun.
    pub fn log_began(&self) {
        self.core.lock().unmarked = false;
    }

    /// Makes the device emulated, and keeps it so until [`Acceleration::take_up`]: for whatever
    /// cannot be done with a VF. Waits for a switch that is under way. A guest that does not take
    /// part loses the VF by force. The VF may not be back in its pool yet: neither the guest nor
    /// whatever is to be done with it depends on that.
    ///
    /// # Errors
    /// [`SwitchError`]; the device then is as it was, and may be attached again.
    pub fn fall_back(&self) -> Result<FellBack, SwitchError> {
        {
            let mut state = self.core.lock();
            state.reserved = true;
            state.pursuit = Pursuit::default();
        }
        let outcome = loop {
            match self.detach_until(Phase::is_settled) {
                Ok(()) | Err(SwitchError::Forced(_)) => break Ok(true),
                Err(SwitchError::NotAttached) => break Ok(false),
                Err(SwitchError::Busy) => match self.core.wait_for_rest() {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        let marks = self.marks_writes();
        let mut state = self.core.lock();
        match outcome {
            Ok(had_vf) => {
                // A device that waits for its VF already goes on waiting.
                state.wants_vf |= had_vf;
                Ok(FellBack { had_vf, logged: !state.unmarked && (marks || !had_vf) })
            }
            Err(error) => {
                state.reserved = false;
                Err(error)
            }
        }
    }

    /// Ends [`Acceleration::fall_back`] and gives nothing.
    pub fn let_be(&self) {
        self.core.lock().reserved = false;
    }

    /// Ends [`Acceleration::fall_back`]: a device that had a VF, here or where its state comes
    /// from, gets one if there is one. Answers whether it did.
    ///
    /// # Errors
    /// [`SwitchError`] of the attach; the device works on, emulated. It is tried again by itself,
    /// ever more rarely, unless the guest refused; and it gets a VF where it moves to.
    pub fn take_up(&self) -> Result<bool, SwitchError> {
        let wanted = {
            let mut state = self.core.lock();
            state.reserved = false;
            std::mem::take(&mut state.wants_vf)
        };
        if wanted {
            // The VF of before may still be on its way back. Until it is, nothing else attaches.
            let rested = self.core.wait_for_rest();
            self.core.lock().wants_vf = true;
            let attached = rested.and_then(|()| self.attach());
            if let Err(error) = attached {
                let mut state = self.core.lock();
                // The operator may have attached it meanwhile.
                state.wants_vf &= state.switch.phase() != Phase::Active;
                // One that was refused before anything began has put nothing off.
                if error.may_pass() && state.pursuit.due().is_none() {
                    state.pursuit.put_off(Instant::now(), self.core.timing.retry);
                    self.core.wake();
                }
                return Err(error);
            }
        }
        Ok(wanted)
    }

    /// Puts the device on a VF as soon as it can have one: at once, when one becomes free, when the
    /// guest's shell is there. Does not wait for that. [`Acceleration::detach`] ends the wish.
    ///
    /// # Errors
    /// [`SwitchError::AlreadyAttached`].
    pub fn attach_when_free(&self) -> Result<(), SwitchError> {
        let mut state = self.core.lock();
        if state.switch.phase() == Phase::Active {
            return Err(SwitchError::AlreadyAttached);
        }
        state.wants_vf = true;
        if !state.reserved {
            state.pursuit = Pursuit::default();
            state.pursuit.put_off(Instant::now(), Duration::ZERO);
        }
        drop(state);
        self.core.wake();
        Ok(())
    }
}

impl NpaExtension {
    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PciExtension for NpaExtension {
    fn capability(&self) -> Vec<u8> {
        // `npa_abi::pci::NpaCapability`, field by field.
        let mut bytes = vec![CAP_ID_VENDOR, 0, 0, VIRTIO_PCI_CAP_VENDOR_CFG];
        bytes.extend_from_slice(&CAP_VENDOR_ID.to_le_bytes());
        bytes.extend_from_slice(&[NPA_BAR, 0]);
        for word in
            [CAP_MAGIC, REGISTER_PAGE_OFFSET as u32, WINDOW_OFFSET as u32, WINDOW_SIZE as u32]
        {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes[2] = bytes.len() as u8;
        bytes
    }

    fn bar(&self) -> BarSpec {
        let kind = BarKind::Memory64 { prefetchable: true };
        BarSpec { index: NPA_BAR, kind, size: NPA_BAR_SIZE }
    }

    fn connected(&mut self, connection: Connection) {
        if self.core.connection.set(connection).is_err() {
            tracing::error!(device = self.core.id, "connected twice");
        }
    }

    fn bar_read(&mut self, offset: u64, data: &mut [u8]) {
        match offset.checked_sub(REGISTER_PAGE_OFFSET) {
            Some(at) if at < PAGE_SIZE as u64 => self.core.view().read(at, data),
            _ => data.fill(DEAD_BYTE),
        }
    }

    fn bar_write(&mut self, offset: u64, data: &[u8]) {
        if let Some(at) = offset.checked_sub(REGISTER_PAGE_OFFSET)
            && at < PAGE_SIZE as u64
        {
            self.core.write(RegisterWrite::decode(at, data));
        }
    }

    fn bar_placed(&mut self, base: Option<u64>) {
        // Out of reach of the guest's arithmetic: a BAR is placed where it fits.
        let gpa = base.and_then(|base| base.checked_add(WINDOW_OFFSET));
        if let Err(error) = self.window().place(gpa) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(device = self.core.id, error, "the VF window reads ones");
        }
    }

    fn identity(&self) -> String {
        let length = self.core.landing_length;
        format!("replaceable data path with {length} bytes of landing")
    }

    fn save(&self, slot: &str, state: &mut ArchiveBuilder) -> Result<(), StateError> {
        state.put(slot, &self.core.save(slot)?)
    }

    fn restore(&mut self, slot: &str, state: &mut Archive) -> Result<(), StateError> {
        self.core.restore(slot, state.take(slot)?)
    }

    fn device_status_changed(&mut self, _status: u8) {}

    fn reset(&mut self) {
        self.core.reset();
    }
}
