//! The NPA register page: decodes accesses, knows no state of its own beyond what the guest may
//! write before it registers. Total over every offset, size and value; never acts on anything.

use npa_abi::protocol::{Command, CommandStatus, HostView};
use npa_abi::register as at;
use npa_abi::register::DEVICE_INFO_WORDS;

/// What the registers show, all of it taken at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterView {
    /// Class code of the device.
    pub class: u16,
    /// What the guest wrote to the writable registers.
    pub guest: GuestRegisters,
    /// Verdict on the last command.
    pub command_status: CommandStatus,
    /// State of the switch.
    pub state: HostView,
    /// Number of the present offer.
    pub generation: u32,
    /// Milliseconds for the guest's half, 0 where there is none.
    pub deadline_ms: u32,
    /// Bytes of landing wanted.
    pub landing_length: u32,
    /// MSI-X index of the VF's first vector.
    pub vector_base: u16,
    /// Forced revokes.
    pub reset_count: u32,
    /// What belongs to the present offer.
    pub offer: OfferRegisters,
}

/// Registers that the guest writes and reads back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestRegisters {
    /// ABI version chosen.
    pub abi: u32,
    /// Guest physical address of the shell page.
    pub shell_page: u64,
    /// Last error code.
    pub error: u32,
}

/// Registers that describe the present offer; all zero without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfferRegisters {
    /// Bytes of the image in the landing, 0 before it is written.
    pub image_length: u32,
    /// SHA-256 of these bytes.
    pub image_sha256: [u8; 32],
    /// MSI-X vectors that the VF drives.
    pub vector_count: u16,
    /// Bytes of the window that the VF fills.
    pub window_length: u32,
    /// What the plugin is told.
    pub device_info: [u32; DEVICE_INFO_WORDS],
    /// Most entries of its rings, as the register shows them.
    pub ring_limits: u32,
}

/// A guest's write, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterWrite {
    /// The command register.
    Command {
        /// The command, if the code is known.
        command: Option<Command>,
        /// Low half of the generation that it names.
        generation: u16,
    },
    /// The chosen ABI version.
    GuestAbi(u32),
    /// Low half of the shell page's address.
    ShellPageLow(u32),
    /// High half of the shell page's address.
    ShellPageHigh(u32),
    /// An error code.
    GuestError(u32),
    /// Nothing that takes writes, or a misaligned or odd-sized write.
    Nothing,
}

impl RegisterView {
    /// A guest's read at `offset` of the page. What is no aligned 32-bit read of a register gives
    /// ones.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Ok(offset) = u32::try_from(offset) else { return };
        if let Ok(word) = <&mut [u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
            && let Some(value) = self.word(offset)
        {
            *word = value.to_le_bytes();
        }
    }

    fn word(&self, offset: u32) -> Option<u32> {
        let index = |first: u32| ((offset - first) / 4) as usize;
        Some(match offset {
            at::MAGIC => at::MAGIC_VALUE,
            at::HOST_ABI => u32::from(npa_abi::ABI_MIN) | u32::from(npa_abi::ABI) << 16,
            at::CLASS => self.class.into(),
            at::GUEST_ABI => self.guest.abi,
            at::SHELL_PAGE_LO => self.guest.shell_page as u32,
            at::SHELL_PAGE_HI => (self.guest.shell_page >> 32) as u32,
            at::COMMAND => 0,
            at::COMMAND_STATUS => self.command_status as u32,
            at::STATE => self.state.encode(),
            at::GENERATION => self.generation,
            at::GUEST_ERROR => self.guest.error,
            at::DEADLINE_MS => self.deadline_ms,
            at::LANDING_LENGTH => self.landing_length,
            at::IMAGE_LENGTH => self.offer.image_length,
            at::VF_VECTOR_BASE => self.vector_base.into(),
            at::VF_VECTOR_COUNT => self.offer.vector_count.into(),
            at::IMAGE_SHA256..at::DEVICE_INFO => {
                let bytes = self.offer.image_sha256.chunks_exact(4).nth(index(at::IMAGE_SHA256))?;
                u32::from_le_bytes(bytes.try_into().ok()?)
            }
            at::DEVICE_INFO..at::WINDOW_LENGTH => {
                *self.offer.device_info.get(index(at::DEVICE_INFO))?
            }
            at::WINDOW_LENGTH => self.offer.window_length,
            at::RESET_COUNT => self.reset_count,
            at::RING_LIMITS => self.offer.ring_limits,
            _ => return None,
        })
    }
}

impl RegisterWrite {
    /// A guest's write of `data` at `offset` of the page.
    pub fn decode(offset: u64, data: &[u8]) -> Self {
        let (Ok(offset), Ok(bytes)) = (u32::try_from(offset), <[u8; 4]>::try_from(data)) else {
            return Self::Nothing;
        };
        let value = u32::from_le_bytes(bytes);
        match offset {
            at::COMMAND => {
                let (command, generation) = Command::decode(value);
                Self::Command { command, generation }
            }
            at::GUEST_ABI => Self::GuestAbi(value),
            at::SHELL_PAGE_LO => Self::ShellPageLow(value),
            at::SHELL_PAGE_HI => Self::ShellPageHigh(value),
            at::GUEST_ERROR => Self::GuestError(value),
            _ => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use npa_abi::protocol::State;
    use proptest::prelude::*;

    use super::*;

    fn view() -> RegisterView {
        RegisterView {
            class: 1,
            guest: GuestRegisters { abi: 1, shell_page: 0x1_2345_6000, error: 7 },
            command_status: CommandStatus::Stale,
            state: HostView { state: State::Ready, host_done: true },
            generation: 9,
            deadline_ms: 500,
            landing_length: 65536,
            vector_base: 3,
            reset_count: 2,
            offer: OfferRegisters {
                image_length: 8192,
                image_sha256: std::array::from_fn(|i| i as u8),
                vector_count: 2,
                window_length: 0x3000,
                device_info: std::array::from_fn(|i| i as u32 * 3),
                ring_limits: 0x0100_0400,
            },
        }
    }

    fn read(offset: u32) -> u32 {
        let mut data = [0; 4];
        view().read(offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn every_register_shows_its_value() {
        assert_eq!(read(at::MAGIC), at::MAGIC_VALUE);
        assert_eq!(read(at::STATE), 0x103);
        assert_eq!(read(at::SHELL_PAGE_LO), 0x2345_6000);
        assert_eq!(read(at::SHELL_PAGE_HI), 1);
        assert_eq!(read(at::COMMAND), 0);
        assert_eq!(read(at::COMMAND_STATUS), 3);
        assert_eq!(read(at::IMAGE_SHA256), 0x0302_0100);
        assert_eq!(read(at::IMAGE_SHA256 + 28), 0x1f1e_1d1c);
        assert_eq!(read(at::IMAGE_SHA256 + 32), u32::MAX);
        assert_eq!(read(at::DEVICE_INFO + 31 * 4), 93);
        assert_eq!(read(at::WINDOW_LENGTH), 0x3000);
        assert_eq!(read(at::RESET_COUNT), 2);
        assert_eq!(read(at::RING_LIMITS), 0x0100_0400);
        assert_eq!(read(at::END), u32::MAX);
    }

    #[test]
    fn all_words_below_the_end_but_the_gap_are_registers() {
        let words = (0..at::END).step_by(4).filter(|&offset| view().word(offset).is_none());
        let gap: Vec<_> = (at::IMAGE_SHA256 + 32..at::DEVICE_INFO).step_by(4).collect();
        assert_eq!(words.collect::<Vec<_>>(), gap);
    }

    #[test]
    fn a_command_is_split() {
        let word = Command::Accept.encode(0x1_0002);
        assert_eq!(
            RegisterWrite::decode(at::COMMAND.into(), &word.to_le_bytes()),
            RegisterWrite::Command { command: Some(Command::Accept), generation: 2 }
        );
    }

    proptest! {
        #[test]
        fn odd_accesses_read_ones_and_write_nothing(
            offset in any::<u64>(),
            data in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut answer = data.clone();
            view().read(offset, &mut answer);
            let register = data.len() == 4
                && offset < u64::from(at::END)
                && offset.is_multiple_of(4);
            if !register {
                prop_assert!(answer.iter().all(|&byte| byte == 0xff));
                prop_assert_eq!(RegisterWrite::decode(offset, &data), RegisterWrite::Nothing);
            }
        }
    }
}
