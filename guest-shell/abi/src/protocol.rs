//! The switch protocol between the shell and the hypervisor.
//!
//! The state register is *level*, not edge: the guest acts on what it reads there, whenever and
//! however often it is interrupted. Each state has a host half and, once
//! [`HostView::host_done`] is set, a guest half:
//!
//! | state | host half | guest half, closed by |
//! |---|---|---|
//! | `Emulated` | - | may [`Command::Register`] and [`Command::Unregister`] |
//! | `Offered` | acquires the VF and verifies the plugin before it shows this state | decides on the offer, then [`Command::Accept`] |
//! | `Loading` | writes the landing, maps the window, wires the vectors | checks and enters the plugin, allocates the queue memory that its header asks for, sets up and fills the rings, holds VF receive, then [`Command::Ready`] |
//! | `Ready` | moves address and forwarding to the VF, drains the emulated receive path into the guest's ring | drains emulated receive, releases VF receive, drains emulated transmit, sends on the VF, then [`Command::Switched`] |
//! | `Active` | - | may [`Command::RequestDetach`] |
//! | `Quiescing` | waits for [`Command::TxDrained`], then moves address and forwarding back | (host not done) sends on the emulated path once all VF transmits completed, holds emulated receive, [`Command::TxDrained`]; (host done) drains VF receive, quiesces the plugin, releases emulated receive, [`Command::Quiesced`] |
//! | `Failed` | has already taken the VF away, by force if need be | gives up the plugin, resubmits what did not complete, [`Command::Cleaned`] |
//!
//! The guest frees what a VF could write to only once it sees that the host has taken the VF away:
//! `Emulated` after [`Command::Quiesced`], `Failed`, or the revoked word.
//!
//! A command that does not fit the state, or names another generation, is refused with a
//! [`CommandStatus`] and changes nothing. Every guest half has a deadline
//! ([`crate::register::DEADLINE_MS`]); when it passes, or the VF is lost, the host revokes: dead page, VF reset,
//! addresses back, the revoked word in the shell page, `Failed`.

/// State of the switch, on both sides.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// The emulated path carries everything; no VF.
    Emulated = 0,
    /// A VF and a verified plugin wait for the guest to accept them.
    Offered = 1,
    /// The plugin is being written, or runs its set-up.
    Loading = 2,
    /// Both paths work; traffic is about to move to the VF.
    Ready = 3,
    /// The VF carries the traffic.
    Active = 4,
    /// Traffic moves back to the emulated path.
    Quiescing = 5,
    /// The last attach failed or the VF was revoked; the emulated path carries everything.
    Failed = 6,
}

impl State {
    /// All states, in order of their codes.
    pub const ALL: [Self; 7] = [
        Self::Emulated,
        Self::Offered,
        Self::Loading,
        Self::Ready,
        Self::Active,
        Self::Quiescing,
        Self::Failed,
    ];

    /// Decodes a state code; `None` for a code that this ABI does not define.
    pub const fn from_code(code: u8) -> Option<Self> {
        if (code as usize) < Self::ALL.len() { Some(Self::ALL[code as usize]) } else { None }
    }

    /// Name as the documentation and the status output spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emulated => "emulated",
            Self::Offered => "offered",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Quiescing => "quiescing",
            Self::Failed => "failed",
        }
    }
}

/// The state register's content: bits 0-7 the state, bit 8 whether the host's half is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostView {
    /// The state.
    pub state: State,
    /// The host's half of this state is done and the guest's has begun. Always set in
    /// `Emulated`, `Offered`, `Active` and `Failed`.
    pub host_done: bool,
}

impl HostView {
    const HOST_DONE: u32 = 1 << 8;

    /// Encodes the register.
    pub const fn encode(self) -> u32 {
        self.state as u32 | if self.host_done { Self::HOST_DONE } else { 0 }
    }

    /// Decodes the register; `None` for what no host of this ABI writes (all ones after a
    /// surprise removal, say).
    pub const fn decode(word: u32) -> Option<Self> {
        if word & !(Self::HOST_DONE | 0xff) != 0 {
            return None;
        }
        match State::from_code(word as u8) {
            Some(state) => Some(Self { state, host_done: word & Self::HOST_DONE != 0 }),
            None => None,
        }
    }
}

/// What the guest writes to the command register.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// The shell page is filled in and stays valid until [`Command::Unregister`] or a device
    /// reset. The host copies and checks its landing part now and never reads that part again.
    /// Generation is ignored.
    Register = 1,
    /// The shell leaves; legal in `Emulated` and `Failed`. Generation is ignored.
    Unregister = 2,
    /// Guest half of `Offered` done: the landing may be written.
    Accept = 3,
    /// Guest half of `Loading` done: rings live, receive filled, VF receive held.
    Ready = 4,
    /// Guest half of `Ready` done: the VF carries transmit and receive.
    Switched = 5,
    /// First guest half of `Quiescing` done: no transmit is outstanding on the VF.
    TxDrained = 6,
    /// Last guest half of `Quiescing` done: the plugin is quiesced and will not be called again.
    Quiesced = 7,
    /// The guest cannot go on with this offer; the reason is in the guest error register. Legal
    /// in every state from `Offered` to `Quiescing`.
    Fail = 8,
    /// After `Failed`: the plugin's memory is given up and will not be called again.
    Cleaned = 9,
    /// The guest asks to be taken off the VF (driver unload, suspend); legal in `Active`.
    RequestDetach = 10,
}

impl Command {
    /// All commands, in order of their codes from 1.
    pub const ALL: [Self; 10] = [
        Self::Register,
        Self::Unregister,
        Self::Accept,
        Self::Ready,
        Self::Switched,
        Self::TxDrained,
        Self::Quiesced,
        Self::Fail,
        Self::Cleaned,
        Self::RequestDetach,
    ];

    /// Decodes a command code; `None` for a code that this ABI does not define.
    pub const fn from_code(code: u16) -> Option<Self> {
        if code >= 1 && (code as usize) <= Self::ALL.len() {
            Some(Self::ALL[code as usize - 1])
        } else {
            None
        }
    }

    /// The command register's word for this command in `generation`.
    pub const fn encode(self, generation: u32) -> u32 {
        (self as u32) | (generation << 16)
    }

    /// Splits a command register word into the command (if known) and the generation's low half.
    pub const fn decode(word: u32) -> (Option<Self>, u16) {
        (Self::from_code(word as u16), (word >> 16) as u16)
    }
}

/// Verdict on the last command.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandStatus {
    /// Taken.
    Ok = 0,
    /// No such command.
    Unknown = 1,
    /// The command does not fit the present state.
    WrongState = 2,
    /// The command names another generation than the present offer.
    Stale = 3,
    /// The shell chose an ABI version outside the host's range.
    WrongAbi = 4,
    /// The shell page is misaligned or not in RAM, or its magic or size is wrong.
    BadShellPage = 5,
    /// The landing is outside RAM, misaligned, overlaps itself or the shell page, has the wrong
    /// length, or does not hold its fill pattern.
    BadLanding = 6,
    /// The queue descriptors do not fit what the plugin's header asks for, or lie outside RAM.
    BadQueues = 7,
    /// The shell is not registered.
    NotRegistered = 8,
}

impl CommandStatus {
    /// Decodes a status code; `None` for a code that this ABI does not define.
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::Ok,
            1 => Self::Unknown,
            2 => Self::WrongState,
            3 => Self::Stale,
            4 => Self::WrongAbi,
            5 => Self::BadShellPage,
            6 => Self::BadLanding,
            7 => Self::BadQueues,
            8 => Self::NotRegistered,
            _ => return None,
        })
    }
}

/// Why the guest gave [`Command::Fail`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestError {
    /// No reason was given.
    Unspecified = 0,
    /// Not enough memory for queues, private state or receive buffers.
    NoMemory = 1,
    /// The landed image's magic, size, class or entry is wrong.
    BadImage = 2,
    /// The landed image's ABI range does not include the shell's version.
    WrongAbi = 3,
    /// The landed image's licence is not one that this kernel may run.
    WrongLicence = 4,
    /// The landed image's SHA-256 is not the one in the registers.
    WrongHash = 5,
    /// The plugin's entry or an op answered with an error, or left an op unfilled.
    PluginFailed = 6,
    /// The guest's owner switched injection off (module parameter).
    Refused = 7,
    /// The device's vectors could not be wired in the guest.
    NoVectors = 8,
}

impl GuestError {
    /// Decodes an error code; codes that this ABI does not define are `Unspecified`.
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::NoMemory,
            2 => Self::BadImage,
            3 => Self::WrongAbi,
            4 => Self::WrongLicence,
            5 => Self::WrongHash,
            6 => Self::PluginFailed,
            7 => Self::Refused,
            8 => Self::NoVectors,
            _ => Self::Unspecified,
        }
    }
}
