//! The NPA register page: offsets in bytes from its start. Every register is 32 bits wide and
//! takes aligned 32-bit accesses only; any other read gives ones and any other write is ignored.
//! Reading a register never has a side effect. While the shell is not registered the page can be
//! read, and only [`GUEST_ABI`], [`SHELL_PAGE_LO`], [`SHELL_PAGE_HI`] and [`COMMAND`] take writes.

/// Read only: [`MAGIC_VALUE`].
pub const MAGIC: u32 = 0x000;
/// Read only: the host's ABI range, oldest version in the low half, newest in the high half.
pub const HOST_ABI: u32 = 0x004;
/// Read only: device class, a [`crate::Class`] code.
pub const CLASS: u32 = 0x008;
/// Read and write: the ABI version that the shell chose, before [`crate::protocol::Command::Register`].
pub const GUEST_ABI: u32 = 0x00c;
/// Read and write: guest physical address of the [`crate::shell_page::ShellPage`], low half.
pub const SHELL_PAGE_LO: u32 = 0x010;
/// Read and write: high half of the shell page's address.
pub const SHELL_PAGE_HI: u32 = 0x014;
/// Write only: a [`crate::protocol::Command`] code in bits 0-15 and the low 16 bits of
/// [`GENERATION`] in bits 16-31. Reads as zero.
pub const COMMAND: u32 = 0x018;
/// Read only: a [`crate::protocol::CommandStatus`] code for the last command. Valid at once after
/// the write: a command is judged synchronously, the work it starts is not.
pub const COMMAND_STATUS: u32 = 0x01c;
/// Read only: the switch's state, see [`crate::protocol::HostView`].
pub const STATE: u32 = 0x020;
/// Read only: counts offers, from 1; 0 until the first one. Wraps.
pub const GENERATION: u32 = 0x024;
/// Read and write: a [`crate::protocol::GuestError`] code, written before
/// [`crate::protocol::Command::Fail`]. The host only reports it.
pub const GUEST_ERROR: u32 = 0x028;
/// Read only: milliseconds that the guest has for its part of the current state; 0 if unbounded.
pub const DEADLINE_MS: u32 = 0x02c;
/// Read only: bytes of landing that the host wants, a multiple of the page size.
pub const LANDING_LENGTH: u32 = 0x030;
/// Read only: bytes of the image in the landing, a multiple of the page size; 0 while there is none.
pub const IMAGE_LENGTH: u32 = 0x034;
/// Read only: MSI-X table index of the VF's first vector.
pub const VF_VECTOR_BASE: u32 = 0x038;
/// Read only: number of MSI-X vectors behind [`VF_VECTOR_BASE`] that the present VF drives.
pub const VF_VECTOR_COUNT: u32 = 0x03c;
/// Read only, 8 registers: SHA-256 of the [`IMAGE_LENGTH`] bytes as they were written to the
/// landing (after relocation), digest byte 0 in the lowest byte of the first register.
pub const IMAGE_SHA256: u32 = 0x040;
/// Read only, [`DEVICE_INFO_WORDS`] registers: what the plugin is told of its VF, copied by the
/// shell to [`crate::plugin::Instance::device_info`] as it is.
pub const DEVICE_INFO: u32 = 0x080;
/// Read only: bytes of the window that the present VF fills, from its start.
pub const WINDOW_LENGTH: u32 = 0x100;
/// Read only: counts forced revokes and VF resets that the guest must notice; never falls.
pub const RESET_COUNT: u32 = 0x104;
/// Read only: most entries that the present VF's rings can have, of role 0 in bits 0-15 and of role
/// 1 in bits 16-31; 0xffff where only the plugin's header limits them.
pub const RING_LIMITS: u32 = 0x108;

/// Number of [`DEVICE_INFO`] registers.
pub const DEVICE_INFO_WORDS: usize = 32;

/// One past the last register, in bytes.
pub const END: u32 = 0x10c;

/// Value of [`MAGIC`]: "NPAK", little endian.
pub const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"NPAK");
