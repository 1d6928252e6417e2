//! Registers of an 82576 virtual function that the plugin uses (Intel 82576 datasheet, chapter
//! 8.26), as offsets in the window: the window begins with page 1 of BAR 0. Page 0, with reset
//! and mailbox, is not in it.

/// Where the window begins in BAR 0, in bytes.
const WINDOW: usize = 0x1000;

/// Extended interrupt mask set.
pub(crate) const EIMS: usize = 0x1524 - WINDOW;
/// Extended interrupt mask clear.
pub(crate) const EIMC: usize = 0x1528 - WINDOW;
/// Extended interrupt auto clear.
pub(crate) const EIAC: usize = 0x152c - WINDOW;
/// Extended interrupt auto mask.
pub(crate) const EIAM: usize = 0x1530 - WINDOW;
/// Which vector the causes of queue pair 0 go to.
pub(crate) const IVAR0: usize = 0x1700 - WINDOW;
/// Which vector the mailbox goes to.
pub(crate) const IVAR_MISC: usize = 0x1740 - WINDOW;

/// Interrupt throttle of `vector`.
pub(crate) const fn eitr(vector: u32) -> usize {
    0x1680 - WINDOW + 4 * vector as usize
}

/// Receive descriptor base, low half.
pub(crate) const RDBAL: usize = 0x2800 - WINDOW;
/// High half.
pub(crate) const RDBAH: usize = 0x2804 - WINDOW;
/// Receive ring length in bytes, a multiple of 128.
pub(crate) const RDLEN: usize = 0x2808 - WINDOW;
/// Split and replication receive control.
pub(crate) const SRRCTL: usize = 0x280c - WINDOW;
/// Receive head.
pub(crate) const RDH: usize = 0x2810 - WINDOW;
/// Receive tail: the doorbell.
pub(crate) const RDT: usize = 0x2818 - WINDOW;
/// Receive descriptor control.
pub(crate) const RXDCTL: usize = 0x2828 - WINDOW;

/// Transmit descriptor base, low half.
pub(crate) const TDBAL: usize = 0x3800 - WINDOW;
/// High half.
pub(crate) const TDBAH: usize = 0x3804 - WINDOW;
/// Transmit ring length in bytes, a multiple of 128.
pub(crate) const TDLEN: usize = 0x3808 - WINDOW;
/// Transmit head.
pub(crate) const TDH: usize = 0x3810 - WINDOW;
/// Transmit tail: the doorbell.
pub(crate) const TDT: usize = 0x3818 - WINDOW;
/// Transmit descriptor control.
pub(crate) const TXDCTL: usize = 0x3828 - WINDOW;
/// Head write-back address, low half; bit 0 enables it.
pub(crate) const TDWBAL: usize = 0x3838 - WINDOW;
/// High half.
pub(crate) const TDWBAH: usize = 0x383c - WINDOW;

/// `RXDCTL`, `TXDCTL`: the queue is enabled.
pub(crate) const QUEUE_ENABLE: u32 = 1 << 25;
/// `RXDCTL`: prefetch, host and write-back thresholds of 16, 8 and 1 descriptors. A write-back
/// threshold of 1 works around an erratum that withholds single descriptors.
pub(crate) const RX_THRESHOLDS: u32 = 1 << 16 | 8 << 8 | 16;
/// `SRRCTL`: one buffer per descriptor, and frames are dropped rather than held when there is
/// none. The buffer's length in KiB goes to the low bits.
pub(crate) const RX_ONE_BUFFER: u32 = 0x8200_0000;
/// `IVAR`: the entry is valid.
pub(crate) const IVAR_VALID: u32 = 0x80;
/// `EITR`: leaves the running interval alone.
pub(crate) const EITR_KEEP_COUNT: u32 = 1 << 31;

/// Vector of the transmit queue. Some devices never clear an `IVAR` bit that was set once, so the
/// numbers are the same in every driver: 0, 1, 2.
pub(crate) const TX_VECTOR: u32 = 0;
/// Vector of the receive queue.
pub(crate) const RX_VECTOR: u32 = 1;
/// Vector of the mailbox, which the hypervisor owns.
pub(crate) const MAILBOX_VECTOR: u32 = 2;

/// What a register of a device that is gone reads.
pub(crate) const GONE: u32 = u32::MAX;

/// Most reads of a register while waiting for it. A read takes about a microsecond in hardware,
/// which is given 10 ms; a device that is gone costs no more.
pub(crate) const ATTEMPTS: u32 = 10_000;
