//! Where a plugin's state lies in the instance's private memory: the shared part first, then the
//! receive queues' states, then the transmit queues'.

#![allow(unsafe_code)] // Private memory is raw; only this module knows its layout.

use core::mem::{align_of, size_of};

use super::NetPlugin;
use crate::{Device, Error};

/// The shell aligns private memory to this, in bytes.
const ALIGN: usize = 64;

/// Marks initialised private memory; the shell zeroes it before `sw_init`.
const READY: u32 = u32::from_le_bytes(*b"init");

/// The shared part.
struct Shared<P> {
    ready: u32,
    pairs: u32,
    plugin: P,
}

const fn round_up(length: usize, align: usize) -> usize {
    length.div_ceil(align) * align
}

const fn rx_offset<P: NetPlugin>() -> usize {
    assert!(align_of::<Shared<P>>() <= ALIGN && align_of::<P::Rx>() <= ALIGN);
    assert!(align_of::<P::Tx>() <= ALIGN);
    round_up(size_of::<Shared<P>>(), ALIGN)
}

const fn rx_stride<P: NetPlugin>() -> usize {
    round_up(size_of::<P::Rx>(), ALIGN)
}

const fn tx_stride<P: NetPlugin>() -> usize {
    round_up(size_of::<P::Tx>(), ALIGN)
}

/// Bytes of private memory for `pairs` queue pairs.
pub(super) const fn length<P: NetPlugin>(pairs: usize) -> usize {
    rx_offset::<P>() + pairs * (rx_stride::<P>() + tx_stride::<P>())
}

fn rx_place<P: NetPlugin>(base: *mut u8, pair: usize) -> *mut P::Rx {
    base.wrapping_add(rx_offset::<P>() + pair * rx_stride::<P>()).cast()
}

fn tx_place<P: NetPlugin>(base: *mut u8, pairs: usize, pair: usize) -> *mut P::Tx {
    let start = rx_offset::<P>() + pairs * rx_stride::<P>();
    base.wrapping_add(start + pair * tx_stride::<P>()).cast()
}

/// Makes all state. Nothing in it is dropped: a second `sw_init` overwrites the first.
///
/// # Safety
/// No other op of the instance runs.
pub(super) unsafe fn initialise<P: NetPlugin>(device: &Device<'_>) -> Result<(), Error> {
    let queues = device.queue_count();
    let pairs = (queues / 2) as usize;
    let (base, room) = device.private();
    let most = usize::from(P::IMAGE.queues_per_role);
    if !queues.is_multiple_of(2) || pairs == 0 || pairs > most || room < length::<P>(pairs) {
        return Err(Error::Config);
    }
    if base.is_null() || !aligned(base) {
        return Err(Error::Config);
    }
    let shared = base.cast::<Shared<P>>();
    let plugin = P::new(device)?;
    for pair in 0..pairs {
        let queue = 2 * pair as u32;
        let memory = device.queue(queue).ok_or(Error::Config)?;
        let rx = plugin.new_rx(device, queue, memory)?;
        let memory = device.queue(queue + 1).ok_or(Error::Config)?;
        let tx = plugin.new_tx(device, queue + 1, memory)?;
        // SAFETY: the place lies inside private memory, whose length and alignment were checked.
        unsafe { rx_place::<P>(base, pair).write(rx) };
        // SAFETY: as before.
        unsafe { tx_place::<P>(base, pairs, pair).write(tx) };
    }
    // SAFETY: as before.
    unsafe { shared.write(Shared { ready: READY, pairs: pairs as u32, plugin }) };
    Ok(())
}

fn aligned(base: *mut u8) -> bool {
    (base as usize).is_multiple_of(ALIGN)
}

/// The shared state and the number of queue pairs.
///
/// # Safety
/// `sw_init` does not run at the same time.
pub(super) unsafe fn shared<'a, P: NetPlugin>(
    device: &Device<'a>,
) -> Result<(&'a P, usize), Error> {
    let (base, room) = device.private();
    if base.is_null() || room < size_of::<Shared<P>>() || !aligned(base) {
        return Err(Error::Config);
    }
    let shared = base.cast::<Shared<P>>();
    // SAFETY: only an integer is read, which is zero until it says that the rest is there.
    if unsafe { core::ptr::addr_of!((*shared).ready).read() } != READY {
        return Err(Error::Config);
    }
    // SAFETY: initialised, and changed by `sw_init` only.
    let shared = unsafe { &*shared };
    Ok((&shared.plugin, shared.pairs as usize))
}

/// The state of receive queue `queue`.
///
/// # Safety
/// No other op on this queue runs.
pub(super) unsafe fn rx<'a, P: NetPlugin>(
    device: &Device<'a>,
    queue: u32,
) -> Result<(&'a P, &'a mut P::Rx), Error> {
    // SAFETY: `sw_init` is an op on all queues, so it does not run.
    let (plugin, pairs) = unsafe { shared::<P>(device)? };
    let pair = (queue / 2) as usize;
    if !queue.is_multiple_of(2) || pair >= pairs {
        return Err(Error::Queue);
    }
    // SAFETY: initialised by `sw_init`, and used by one op at a time.
    Ok((plugin, unsafe { &mut *rx_place::<P>(device.private().0, pair) }))
}

/// The state of transmit queue `queue`.
///
/// # Safety
/// No other op on this queue runs.
pub(super) unsafe fn tx<'a, P: NetPlugin>(
    device: &Device<'a>,
    queue: u32,
) -> Result<(&'a P, &'a mut P::Tx), Error> {
    // SAFETY: `sw_init` is an op on all queues, so it does not run.
    let (plugin, pairs) = unsafe { shared::<P>(device)? };
    let pair = (queue / 2) as usize;
    if queue.is_multiple_of(2) || pair >= pairs {
        return Err(Error::Queue);
    }
    // SAFETY: initialised by `sw_init`, and used by one op at a time.
    Ok((plugin, unsafe { &mut *tx_place::<P>(device.private().0, pairs, pair) }))
}
