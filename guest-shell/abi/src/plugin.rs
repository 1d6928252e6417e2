//! The calls between shell and plugin that every class shares. The calling convention is
//! `sysv64` on every guest operating system. Nothing here may sleep, and no function is called
//! from two CPUs at once for the same queue; different queues may be served in parallel.

use crate::register::DEVICE_INFO_WORDS;
use crate::shell_page::QUEUES_MAX;
use core::ffi::c_void;

/// Answer of an entry or op: zero or positive is success with the meaning written at the op.
pub type Status = i32;

/// Done.
pub const OK: Status = 0;
/// The ops table or instance handed in is too small or of an ABI that the plugin does not speak.
pub const ERR_ABI: Status = -1;
/// The instance does not fit: queue count or size, window length, private memory.
pub const ERR_CONFIG: Status = -2;
/// The device does not answer as it must (reads ones, never finishes a reset).
pub const ERR_DEVICE: Status = -3;
/// No such queue or vector.
pub const ERR_QUEUE: Status = -4;

/// Log levels of [`ShellApi::log`].
pub const LOG_ERROR: u32 = 0;
/// See [`LOG_ERROR`].
pub const LOG_INFO: u32 = 1;

/// Type of the image's entry function: fills the ops table. It may keep nothing: all state is
/// in the instance that each op is given. Answers [`OK`], [`ERR_ABI`] or [`ERR_CONFIG`].
pub type Entry = unsafe extern "sysv64" fn(call: *mut EntryCall) -> Status;

/// Argument of [`Entry`].
#[repr(C)]
pub struct EntryCall {
    /// Size of this structure in bytes.
    pub size: u32,
    /// ABI version that the shell speaks in all calls that follow.
    pub abi: u16,
    /// Class whose ops are wanted, a [`crate::Class`] code.
    pub class: u16,
    /// The class's ops table to fill, zeroed: [`crate::net::NetOps`] for net.
    pub ops: *mut c_void,
    /// Bytes behind `ops`.
    pub ops_size: u32,
    /// Zero.
    pub reserved: u32,
}

/// Memory of one queue, allocated by the shell, zeroed, DMA-able, contiguous.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct QueueMemory {
    /// Virtual address; null for a queue that is not there.
    pub base: *mut u8,
    /// The same memory's address for the device.
    pub device_address: u64,
    /// Length in bytes, as the header's [`crate::image::RingNeed`] asks.
    pub length: u32,
    /// Number of entries, a power of two.
    pub entries: u32,
}

/// One device as a plugin sees it: the first argument of every op. The shell owns it; the plugin
/// owns what `private` and the queues' memory hold.
#[repr(C)]
pub struct Instance {
    /// Size of this structure in bytes.
    pub size: u32,
    /// ABI version spoken.
    pub abi: u16,
    /// Number of queues; queue `q` has role `q % role_count`.
    pub queue_count: u16,
    /// The shell's callbacks.
    pub shell: *const ShellApi,
    /// First argument of every callback.
    pub context: *mut c_void,
    /// The VF window, uncached device memory; reads ones once the VF is gone.
    pub window: *mut u8,
    /// Length of the window in bytes.
    pub window_length: u64,
    /// Private memory as the header asks, zeroed before `sw_init`, 64-byte aligned.
    pub private: *mut c_void,
    /// Length of `private` in bytes.
    pub private_length: u32,
    /// Bytes in each receive buffer (net) or zero.
    pub buffer_length: u32,
    /// Vectors that the shell wired, numbered from 0.
    pub vector_count: u32,
    /// Zero.
    pub reserved: u32,
    /// What the hypervisor tells of this VF; words 0-7 belong to the class
    /// ([`crate::net::DeviceInfo`]), the others to the vendor.
    pub device_info: [u32; DEVICE_INFO_WORDS],
    /// Queue memory, by queue index.
    pub queues: [QueueMemory; QUEUES_MAX],
}

/// The shell's callbacks. Each is legal only inside an op of the same instance.
#[repr(C)]
pub struct ShellApi {
    /// Size of this structure in bytes.
    pub size: u32,
    /// ABI version spoken.
    pub abi: u32,
    /// Net: takes a receive buffer for ring slot `slot` (below the queue's entries) of `queue` and
    /// answers its device address, or 0 when there is none. The shell remembers which buffer is in
    /// which slot until the slot is indicated or the queue is reinitialised. Legal inside
    /// `add_buffers_to_rx_ring`.
    pub alloc_rx_buffer:
        unsafe extern "sysv64" fn(context: *mut c_void, queue: u32, slot: u32) -> u64,
    /// Net: hands a received frame, with its slots' buffers, to the shell. The frame structure
    /// belongs to the caller again on return. Legal inside `check_rx_ring`.
    pub indicate_recv: unsafe extern "sysv64" fn(
        context: *mut c_void,
        queue: u32,
        frame: *const crate::net::RxFrame,
    ),
    /// Net: the `count` oldest outstanding frames of `queue` are sent. Legal inside
    /// `check_tx_ring`.
    pub complete_send: unsafe extern "sysv64" fn(context: *mut c_void, queue: u32, count: u32),
    /// Writes `length` bytes of UTF-8 at `text` to the guest's log, rate-limited, with the
    /// plugin's name before it.
    pub log:
        unsafe extern "sysv64" fn(context: *mut c_void, level: u32, text: *const u8, length: usize),
    /// Net: answers the virtual address of the buffer in ring slot `slot` of `queue`, made visible
    /// to the CPU, or null for a slot without one. Its `buffer_length` bytes may be read, never
    /// written, until the slot is indicated or the op returns. For devices that put metadata
    /// before the frame, or hand a sender its own frames. Legal inside `check_rx_ring`.
    pub peek_rx_buffer:
        unsafe extern "sysv64" fn(context: *mut c_void, queue: u32, slot: u32) -> *const u8,
}
