//! The functions that the C layer calls, as `module/core.h` declares them. Each checks what it is
//! given no further than the C layer's promises there go.
#![allow(unsafe_code, reason = "exports functions to C")]

use core::ffi::c_void;
use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

use npa_abi::net::TxSegment;
use shell_core::log::LogLine;
use shell_core::net::{Facts, NetShell, Transmit};
use shell_core::os::{LogLevel, Os, TxHandle};
use shell_core::switch::ShellState;

use crate::capability;
use crate::kernel::Kernel;
use crate::seam::{self, Info, NpaDev, TxFrame};
use crate::statistics;
use crate::switch_times::SwitchTimes;

/// MSI-X vectors of the two virtqueues: first and count.
const QUEUE_VECTORS: (u32, u32) = (1, 2);

/// `struct npa_core`: one device. It stays where `npa_core_probe` put it.
pub struct NpaCore {
    shell: NetShell<Kernel>,
    times: SwitchTimes,
    /// Index in [`ShellState::ALL`] of the state that was seen last.
    seen: AtomicU8,
}

impl NpaCore {
    fn new(kernel: Kernel) -> Self {
        Self { shell: NetShell::new(kernel), times: SwitchTimes::new(), seen: AtomicU8::new(0) }
    }

    /// Notes where the switch stands now, for its durations.
    fn observe(&self) {
        let Some(state) = self.shell.switch_state() else { return };
        let index = ShellState::ALL.iter().position(|other| *other == state).unwrap_or(0) as u8;
        let before = self.seen.swap(index, Ordering::Relaxed);
        let before = ShellState::ALL.get(usize::from(before)).copied().unwrap_or(state);
        self.times.observe(before, state, self.shell.os().now_ns());
    }
}

fn info(facts: &Facts) -> Info {
    let offloads = &facts.offloads;
    let flags = [
        (offloads.tx_checksum, seam::INFO_CSUM),
        (offloads.tx_tso4, seam::INFO_TSO4),
        (offloads.tx_tso6, seam::INFO_TSO6),
        (offloads.rx_checksum, seam::INFO_RXCSUM),
        (offloads.rx_merged, seam::INFO_RXMERGED),
        (facts.link_up, seam::INFO_LINK_UP),
    ];
    Info {
        mac: facts.mac,
        mtu: facts.mtu,
        rx_entries: facts.rx_entries,
        tx_entries: facts.tx_entries,
        flags: flags.iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag),
    }
}

/// Copies `text` to a zero-terminated field of `size` bytes.
///
/// # Safety
/// `field` has room for `size` bytes.
unsafe fn copy_text(text: &[&str], field: *mut u8, size: usize) {
    if size == 0 {
        return;
    }
    // SAFETY: the caller vouches for the room.
    let field = unsafe { core::slice::from_raw_parts_mut(field, size) };
    field.fill(0);
    let bytes = text.iter().flat_map(|part| part.bytes());
    for (to, from) in field.iter_mut().take(size.saturating_sub(1)).zip(bytes) {
        *to = from;
    }
}

/// See `module/core.h`.
///
/// # Safety
/// `words` holds [`capability::WORDS`] words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npa_core_is_ours(words: *const [u32; capability::WORDS]) -> bool {
    // SAFETY: the caller vouches for it.
    capability::is_ours(unsafe { *words })
}

/// See `module/core.h`.
///
/// # Safety
/// `dev` is a device of the C layer that outlives the core, `info` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npa_core_probe(dev: *mut NpaDev, info_out: *mut Info) -> *mut NpaCore {
    let Some(dev) = NonNull::new(dev) else { return core::ptr::null_mut() };
    // SAFETY: the caller vouches for the device.
    let kernel = unsafe { Kernel::new(dev) };
    let Some(memory) = kernel.memory_alloc(size_of::<NpaCore>()) else {
        return core::ptr::null_mut();
    };
    const { assert!(align_of::<NpaCore>() <= 64) };
    let place = memory.cast::<NpaCore>();
    // SAFETY: the memory is ours, long enough and aligned to 64 bytes.
    let core = unsafe {
        place.write(NpaCore::new(kernel));
        place.as_ref()
    };
    let os = core.shell.os();
    let (first, count) = QUEUE_VECTORS;
    if os.wire_vectors(first, count).is_err() {
        os.log(LogLevel::Error, "no interrupt vectors for the queues");
        os.memory_free(memory, size_of::<NpaCore>());
        return core::ptr::null_mut();
    }
    match core.shell.start() {
        Ok(facts) => {
            if !facts.accelerable {
                os.log(LogLevel::Info, "stays on its emulated path");
            }
            core.observe();
            // SAFETY: the caller vouches for the place.
            unsafe { info_out.write(info(&facts)) };
            place.as_ptr()
        }
        Err(error) => {
            LogLine::new("cannot drive the device: ")
                .text(error.message())
                .write(os, LogLevel::Error);
            os.unwire_vectors(first, count);
            os.memory_free(memory, size_of::<NpaCore>());
            core::ptr::null_mut()
        }
    }
}

/// See `module/core.h`.
///
/// # Safety
/// `core` came from [`npa_core_probe`] and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npa_core_remove(core: *mut NpaCore) {
    let Some(place) = NonNull::new(core) else { return };
    // SAFETY: the caller vouches for the core.
    let core = unsafe { place.as_ref() };
    core.shell.stop();
    let os = core.shell.os();
    let (first, count) = QUEUE_VECTORS;
    os.unwire_vectors(first, count);
    // The shell holds nothing after `stop`; only its own memory is left.
    os.memory_free(place.cast(), size_of::<NpaCore>());
}

/// See `module/core.h`.
///
/// # Safety
/// `core` came from [`npa_core_probe`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npa_core_open(core: &NpaCore) {
    core.shell.open();
}

/// See `module/core.h`.
///
/// # Safety
/// `core` came from [`npa_core_probe`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npa_core_close(core: &NpaCore) {
    core.shell.close();
}

/// See `module/core.h`.
///
/// # Safety
/// `core` came from [`npa_core_probe`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npa_core_event(core: &NpaCore) -> bool {
    let again = core.shell.on_event();
    core.observe();
    again
}

/// See `module/core.h`.
///
/// # Safety
/// `core` came from [`npa_core_probe`], `done` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npa_core_poll(core: &NpaCore, budget: u32, done: &mut u32) -> bool {
    let poll = core.shell.poll(budget);
    *done = poll.done;
    poll.again
}

/// See `module/core.h`.
///
/// # Safety
/// `core` came from [`npa_core_probe`]; the frame names `segment_count` segments and `handle` is
/// given back once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npa_core_xmit(
    core: &NpaCore,
    handle: *mut c_void,
    frame: &TxFrame,
    more: bool,
) -> bool {
    let Some(handle) = NonZeroUsize::new(handle.expose_provenance()) else { return false };
    // SAFETY: the caller vouches for the segments.
    let segments: &[TxSegment] =
        unsafe { core::slice::from_raw_parts(frame.segments, usize::from(frame.segment_count)) };
    let described = npa_abi::net::TxFrame {
        segments: frame.segments,
        segment_count: frame.segment_count,
        flags: frame.flags,
        length: frame.length,
        mss: frame.mss,
        vlan_tag: 0,
        l2_length: frame.l2_length,
        l3_length: frame.l3_length,
        l4_length: frame.l4_length,
        csum_start: frame.csum_start,
        csum_offset: frame.csum_offset,
        reserved: 0,
        headers: frame.headers,
    };
    core.shell.transmit(&described, segments, TxHandle(handle), more) == Transmit::Taken
}

/// See `module/core.h`.
///
/// # Safety
/// `core` came from [`npa_core_probe`]; `text` has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npa_core_driver(core: &NpaCore, text: *mut u8, size: usize) {
    let label = core.shell.plugin();
    // SAFETY: the caller vouches for the room.
    unsafe { copy_text(&[label.name(), " ", label.version()], text, size) }
}

/// See `module/core.h`.
#[unsafe(no_mangle)]
pub extern "C" fn npa_core_stat_count() -> u32 {
    statistics::COUNT as u32
}

/// See `module/core.h`.
///
/// # Safety
/// `text` has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npa_core_stat_name(index: u32, text: *mut u8, size: usize) {
    // SAFETY: the caller vouches for the room.
    unsafe { copy_text(&[statistics::name(index as usize)], text, size) }
}

/// See `module/core.h`.
///
/// # Safety
/// `core` came from [`npa_core_probe`]; `values` has room for `count` values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npa_core_stats(core: &NpaCore, values: *mut u64, count: u32) {
    // SAFETY: the caller vouches for the room.
    let values = unsafe { core::slice::from_raw_parts_mut(values, count as usize) };
    statistics::write(&core.shell.stats(), &core.times, values);
}
