//! Registers and mailbox message codes of the 82576 VF that control needs. Numbers only.

/// Device control.
pub(crate) const CTRL: u32 = 0x0000;
/// CTRL: reset the function.
pub(crate) const CTRL_RST: u32 = 1 << 26;

/// Device status.
pub(crate) const STATUS: u32 = 0x0008;
/// STATUS: link up.
pub(crate) const STATUS_LU: u32 = 1 << 1;

/// Mailbox memory, 16 words.
pub(crate) const VMBMEM: u32 = 0x0800;
/// Words in the mailbox memory.
pub(crate) const VMBMEM_WORDS: usize = 16;

/// Mailbox control.
pub(crate) const V2PMAILBOX: u32 = 0x0c40;
/// V2PMAILBOX: a message for the PF is in the mailbox.
pub(crate) const REQ: u32 = 1 << 0;
/// V2PMAILBOX: the PF's message was taken.
pub(crate) const ACK: u32 = 1 << 1;
/// V2PMAILBOX: the VF owns the mailbox memory.
pub(crate) const VFU: u32 = 1 << 2;
/// V2PMAILBOX: the PF wrote a message (clear on read).
pub(crate) const PFSTS: u32 = 1 << 4;
/// V2PMAILBOX: the PF took the VF's message (clear on read).
pub(crate) const PFACK: u32 = 1 << 5;
/// V2PMAILBOX: a reset of the PF is going on.
pub(crate) const RSTI: u32 = 1 << 6;
/// V2PMAILBOX: a reset of the PF is over (clear on read).
pub(crate) const RSTD: u32 = 1 << 7;

/// Counters: good frames received.
pub(crate) const VFGPRC: u32 = 0x0f10;
/// Good frames sent.
pub(crate) const VFGPTC: u32 = 0x0f14;
/// Good bytes received.
pub(crate) const VFGORC: u32 = 0x0f18;
/// Good bytes sent.
pub(crate) const VFGOTC: u32 = 0x0f34;
/// Multicast frames received.
pub(crate) const VFMPRC: u32 = 0x0f3c;

/// Extended interrupt mask set; write one to enable. Lies in the interrupt page.
pub(crate) const VTEIMS: u32 = 0x1524;
/// The vector of the mailbox.
pub(crate) const MAILBOX_VECTOR: u32 = 2;

/// Message: the VF has been reset.
pub(crate) const MSG_RESET: u32 = 1;
/// Message: replace the multicast hashes; their number in bits 16-23.
pub(crate) const MSG_MULTICAST: u32 = 3;
/// Message: add (bit 16 set) or remove a VLAN.
pub(crate) const MSG_VLAN: u32 = 4;
/// MSG_VLAN: add.
pub(crate) const VLAN_ADD: u32 = 1 << 16;
/// Message: largest frame to receive, in bytes.
pub(crate) const MSG_LPE: u32 = 5;
/// Message: promiscuous modes.
pub(crate) const MSG_PROMISC: u32 = 6;
/// MSG_PROMISC: every multicast frame.
pub(crate) const PROMISC_MULTICAST: u32 = 2 << 16;
/// The code in a message's first word.
pub(crate) const MSG_CODE: u32 = 0xffff;

/// Reply: done.
pub(crate) const MSG_ACK: u32 = 1 << 31;
/// Reply: refused.
pub(crate) const MSG_NACK: u32 = 1 << 30;
/// From the PF: it counts this VF as ready (clear to send).
pub(crate) const MSG_CTS: u32 = 1 << 29;

/// Multicast hashes that fit in a message.
pub(crate) const MULTICAST_HASHES: usize = 30;

/// Queue pairs of a VF.
pub(crate) const QUEUES: u32 = 2;
/// Receive descriptor control of the first queue, 0x100 apart: zero disables it.
pub(crate) const RXDCTL: u32 = 0x2828;
/// Transmit descriptor control of the first queue, 0x100 apart: zero disables it.
pub(crate) const TXDCTL: u32 = 0x3828;
