//! The handshake with the shell in an archive. A device is saved only while its emulated path
//! carries the traffic and no guest takes part in a switch, so there is no VF, no offer and no plugin in
//! it: only what the guest told the host, and what it was told last.

use npa_abi::PAGE_SIZE;
use npa_abi::protocol::CommandStatus;
use npa_abi::shell_page::LANDING_PAGES_MAX;
use serde::{Deserialize, Serialize};

use super::core::Core;
use super::landing::{Landing, Registration, Residue, is_ram_page};
use super::registers::GuestRegisters;
use super::switch::{Phase, Switch};
use crate::state::{Payload, StateError};
use crate::vm::GuestRam;

/// A phase in which a device can be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RestPhase {
    Unregistered,
    Emulated,
    Failed,
}

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HandshakeState {
    phase: RestPhase,
    generation: u32,
    resets: u32,
    abi: u32,
    shell_page: u64,
    guest_error: u32,
    command_status: u32,
    /// Registered shell page, its features, base of the landing, and the landing's pages.
    registration: Option<(u64, u64, u64, Vec<u64>)>,
    /// Pages and digest of what was written to a landing last.
    residue: Option<(Vec<u64>, [u8; 32])>,
    /// Whether the device was on a VF before it had to give it up to be saved.
    wants_vf: bool,
}

impl Payload for HandshakeState {
    const KIND: &'static str = "npa";
    const VERSION: u16 = 1;
}

impl RestPhase {
    fn of(phase: Phase) -> Option<Self> {
        match phase {
            Phase::Unregistered => Some(Self::Unregistered),
            Phase::Emulated | Phase::Closing => Some(Self::Emulated),
            Phase::Failed { held: false } => Some(Self::Failed),
            _ => None,
        }
    }

    fn phase(self) -> Phase {
        match self {
            Self::Unregistered => Phase::Unregistered,
            Self::Emulated => Phase::Emulated,
            Self::Failed => Phase::Failed { held: false },
        }
    }
}

/// Whether all of `pages` are different pages of RAM, and a landing's number of them.
fn are_pages(ram: &GuestRam, pages: &[u64]) -> bool {
    let mut sorted = pages.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.len() == pages.len()
        && pages.len() <= LANDING_PAGES_MAX
        && pages.iter().all(|page| is_ram_page(ram, *page))
}

impl Core {
    pub(super) fn save(&self, instance: &str) -> Result<HandshakeState, StateError> {
        let state = self.lock();
        let phase = state.switch.phase();
        let Some(rest) = RestPhase::of(phase) else {
            let reason = format!("{} is {phase}; detach it first", self.id);
            return Err(StateError::unsaveable::<HandshakeState>(instance, reason));
        };
        Ok(HandshakeState {
            phase: rest,
            generation: state.switch.generation(),
            resets: state.switch.resets(),
            abi: state.guest.abi,
            shell_page: state.guest.shell_page,
            guest_error: state.guest.error,
            command_status: state.command_status as u32,
            registration: state.registration.as_ref().map(|registration| {
                let landing = registration.landing();
                let (page, features) = (registration.page(), registration.features());
                (page, features, landing.base(), landing.pages().to_vec())
            }),
            residue: state.residue.as_ref().map(|left| (left.pages().to_vec(), *left.sha256())),
            wants_vf: state.wants_vf,
        })
    }

    /// Takes a handshake over. What the other side says of guest memory is checked as if the
    /// guest had said it: nothing outside RAM is ever touched because of it.
    pub(super) fn restore(&self, instance: &str, saved: HandshakeState) -> Result<(), StateError> {
        let refuse = |reason: &str| Err(StateError::unsuitable::<HandshakeState>(instance, reason));
        let registered = saved.phase != RestPhase::Unregistered;
        if registered != saved.registration.is_some() {
            return refuse("phase and registration contradict one another");
        }
        let Some(command_status) = CommandStatus::from_code(saved.command_status) else {
            return refuse("its command status does not exist");
        };
        let registration = match saved.registration {
            Some((page, features, base, pages)) => {
                let whole = pages.len() * PAGE_SIZE == self.landing_length as usize;
                let distinct = are_pages(&self.ram, &pages)
                    && are_pages(&self.ram, &[page])
                    && !pages.contains(&page);
                let sound = base.is_multiple_of(PAGE_SIZE as u64)
                    && base.checked_add(self.landing_length.into()).is_some();
                if !whole || !distinct || !sound {
                    return refuse("its landing is not in RAM, or has another length");
                }
                Some(Registration::new(page, Landing::new(base, pages), features))
            }
            None => None,
        };
        let residue = match saved.residue {
            Some((pages, _)) if !are_pages(&self.ram, &pages) => {
                return refuse("what is left in its landing is not in RAM");
            }
            residue => residue.map(|(pages, sha256)| Residue::new(pages, sha256)),
        };
        let mut state = self.lock();
        state.switch = Switch::at(saved.phase.phase(), saved.generation, saved.resets);
        state.guest = GuestRegisters {
            abi: saved.abi,
            shell_page: saved.shell_page,
            error: saved.guest_error,
        };
        state.command_status = command_status;
        state.registration = registration;
        state.residue = residue;
        state.wants_vf = saved.wants_vf;
        Ok(())
    }
}

#[cfg(test)]
impl HandshakeState {
    /// Registers another page.
    pub(super) fn set_page(&mut self, page: u64) {
        if let Some((registered, ..)) = &mut self.registration {
            *registered = page;
        }
    }
}
