//! A registered shell's link to the hypervisor: observations one way, commands the other.

use super::{Registers, RevokedWord, SharedPage};
use crate::os::{LandingRange, Os};
use npa_abi::protocol::{Command, CommandStatus, GuestError, HostView};
use npa_abi::register::{self, DEVICE_INFO_WORDS};
use npa_abi::shell_page::QueueDescriptor;
use npa_abi::{ABI, ABI_MIN, Class};

/// Why the shell could not register. The device goes on emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The host speaks no ABI version of this shell.
    WrongAbi,
    /// The host's device is of another class.
    WrongClass,
    /// No memory for the shell page, or the landing is too long for it.
    NoPage,
    /// The landing is shorter than the host wants.
    ShortLanding,
    /// The host refused the registration.
    Refused(CommandStatus),
}

impl LinkError {
    /// What happened, for the log.
    pub const fn message(self) -> &'static str {
        match self {
            Self::WrongAbi => "host speaks another abi version",
            Self::WrongClass => "device is of another class",
            Self::NoPage => "no memory for the shell page",
            Self::ShortLanding => "landing is shorter than the host wants",
            Self::Refused(_) => "host refused the registration",
        }
    }
}

/// Registers and shell page of a device whose shell is known to the host.
#[derive(Debug)]
pub struct Link {
    registers: Registers,
    page: SharedPage,
}

impl Link {
    /// Registers the shell. Answers the link and the generation that was current before.
    ///
    /// # Errors
    /// See [`LinkError`]; nothing is left allocated then.
    pub fn register(
        os: &impl Os,
        registers: Registers,
        class: Class,
        landing: &LandingRange<'_>,
    ) -> Result<(Self, u32), LinkError> {
        let range = registers.read(os, register::HOST_ABI);
        let (host_min, host_max) = (range as u16, (range >> 16) as u16);
        let version = ABI.min(host_max);
        if version < host_min || version < ABI_MIN {
            return Err(LinkError::WrongAbi);
        }
        if registers.read(os, register::CLASS) != class as u32 {
            return Err(LinkError::WrongClass);
        }
        if landing.length < registers.read(os, register::LANDING_LENGTH) as usize {
            return Err(LinkError::ShortLanding);
        }
        let page = SharedPage::new(os, landing).ok_or(LinkError::NoPage)?;
        let generation = registers.read(os, register::GENERATION);
        let address = page.device_address();
        registers.write(os, register::GUEST_ABI, u32::from(version));
        registers.write(os, register::SHELL_PAGE_LO, address as u32);
        registers.write(os, register::SHELL_PAGE_HI, (address >> 32) as u32);
        let link = Self { registers, page };
        match link.command(os, Command::Register, generation) {
            CommandStatus::Ok => Ok((link, generation)),
            status => {
                link.page.free(os);
                Err(LinkError::Refused(status))
            }
        }
    }

    /// Reads the state register; `None` when the device does not answer.
    pub fn observe(&self, os: &impl Os) -> Option<HostView> {
        HostView::decode(self.registers.read(os, register::STATE))
    }

    /// The present offer.
    pub fn generation(&self, os: &impl Os) -> u32 {
        self.registers.read(os, register::GENERATION)
    }

    /// Resets that the guest must notice, since the device began.
    pub fn resets(&self, os: &impl Os) -> u32 {
        self.registers.read(os, register::RESET_COUNT)
    }

    /// The generation whose VF was revoked by force, or 0. A memory read.
    pub fn revoked(&self) -> u32 {
        self.page.revoked_word().read()
    }

    /// The same word, for the data path; to be given up before [`Link::free`].
    pub fn revoked_word(&self) -> RevokedWord {
        self.page.revoked_word()
    }

    /// Gives a command; the verdict is valid at once.
    pub fn command(&self, os: &impl Os, command: Command, generation: u32) -> CommandStatus {
        self.registers.write(os, register::COMMAND, command.encode(generation));
        let status = self.registers.read(os, register::COMMAND_STATUS);
        CommandStatus::from_code(status).unwrap_or(CommandStatus::Unknown)
    }

    /// Writes the reason of the [`Command::Fail`] that follows.
    pub fn tell_error(&self, os: &impl Os, error: GuestError) {
        self.registers.write(os, register::GUEST_ERROR, error as u32);
    }

    /// Fills in the shell page's queue part.
    pub fn set_queues(&self, queues: &[QueueDescriptor]) {
        self.page.set_queues(queues);
    }

    /// Bytes of the landed image.
    pub fn image_length(&self, os: &impl Os) -> u32 {
        self.registers.read(os, register::IMAGE_LENGTH)
    }

    /// SHA-256 of the image as the host wrote it to the landing.
    pub fn image_sha256(&self, os: &impl Os) -> [u8; 32] {
        let mut digest = [0; 32];
        for (bytes, offset) in digest.chunks_exact_mut(4).zip((0..).step_by(4)) {
            let word = self.registers.read(os, register::IMAGE_SHA256.saturating_add(offset));
            for (to, from) in bytes.iter_mut().zip(word.to_le_bytes()) {
                *to = from;
            }
        }
        digest
    }

    /// What the hypervisor tells the plugin of its VF.
    pub fn device_info(&self, os: &impl Os) -> [u32; DEVICE_INFO_WORDS] {
        let mut words = [0; DEVICE_INFO_WORDS];
        for (word, offset) in words.iter_mut().zip((0..).step_by(4)) {
            *word = self.registers.read(os, register::DEVICE_INFO.saturating_add(offset));
        }
        words
    }

    /// Most entries that the VF's rings can have, by role.
    pub fn ring_limits(&self, os: &impl Os) -> [u32; 2] {
        let limits = self.registers.read(os, register::RING_LIMITS);
        [limits & 0xffff, limits >> 16]
    }

    /// First MSI-X vector of the VF and how many there are.
    pub fn vectors(&self, os: &impl Os) -> (u32, u32) {
        (
            self.registers.read(os, register::VF_VECTOR_BASE),
            self.registers.read(os, register::VF_VECTOR_COUNT),
        )
    }

    /// BAR, offset and length in bytes of what the present VF fills of the window.
    pub fn window(&self, os: &impl Os) -> (u8, u64, u64) {
        let (bar, offset, length) = self.registers.window();
        (bar, offset, length.min(u64::from(self.registers.read(os, register::WINDOW_LENGTH))))
    }

    /// Frees the shell page, after the host has forgotten it (unregistered or device reset).
    pub fn free(self, os: &impl Os) {
        self.page.free(os);
    }
}
