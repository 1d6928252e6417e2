//! The functions behind the ops table: from the calling convention to [`NetPlugin`] and back.

#![allow(unsafe_code)] // The boundary between shell and plugin.

use core::ptr::addr_of;

use npa_abi::net::{ARMED, NetOps, TxFrame, WORK_WAITS};
use npa_abi::plugin::{EntryCall, Instance, OK, Status};
use npa_abi::shell_page::QUEUES_MAX;
use npa_abi::{ABI, ABI_MIN, Class};

use super::{Armed, NetPlugin, RxSink, RxSource, SendFrames, state};
use crate::{Device, Error};

/// Fills the ops table of `call` with plugin `P`'s.
///
/// # Safety
/// `call` is null or valid, and its `ops` is null or valid for writes of `ops_size` bytes.
pub unsafe fn entry<P: NetPlugin>(call: *mut EntryCall) -> Status {
    if call.is_null() {
        return Error::Abi.status();
    }
    // SAFETY: `size` is the first field of every version of the structure.
    if (unsafe { addr_of!((*call).size).read() } as usize) < size_of::<EntryCall>() {
        return Error::Abi.status();
    }
    // SAFETY: valid by the caller's contract, and large enough.
    let call = unsafe { &*call };
    let speaks = (ABI_MIN..=ABI).contains(&call.abi) && call.class == Class::Net as u16;
    if !speaks || (call.ops_size as usize) < size_of::<NetOps>() || call.ops.is_null() {
        return Error::Abi.status();
    }
    let table = call.ops.cast::<NetOps>();
    // The functions' addresses are computed here, field by field, so that the image holds no
    // table of them and needs no relocation.
    // SAFETY: valid for writes of at least the table's size.
    unsafe {
        (*table).sw_init = Some(sw_init::<P>);
        (*table).reinit_rx_ring = Some(reinit_rx_ring::<P>);
        (*table).reinit_tx_ring = Some(reinit_tx_ring::<P>);
        (*table).enable_interrupt = Some(enable_interrupt::<P>);
        (*table).disable_interrupt = Some(disable_interrupt::<P>);
        (*table).add_frames_to_tx_ring = Some(add_frames_to_tx_ring::<P>);
        (*table).check_tx_ring = Some(check_tx_ring::<P>);
        (*table).check_rx_ring = Some(check_rx_ring::<P>);
        (*table).add_buffers_to_rx_ring = Some(add_buffers_to_rx_ring::<P>);
        (*table).quiesce = Some(quiesce::<P>);
        (*table).abi = call.abi.into();
        (*table).size = size_of::<NetOps>() as u32;
    }
    OK
}

/// Runs `body` on the device behind `instance`.
///
/// # Safety
/// `instance` is null or as [`Device::new`] asks.
unsafe fn with<F>(instance: *mut Instance, body: F) -> Status
where
    F: FnOnce(&Device<'_>) -> Result<Status, Error>,
{
    if instance.is_null() {
        return Error::Config.status();
    }
    // SAFETY: by the caller's contract.
    let device = unsafe { Device::new(&instance) };
    match body(&device) {
        Ok(status) => status,
        Err(error) => error.status(),
    }
}

/// A count as a status: never negative.
fn count(number: u32) -> Status {
    Status::try_from(number).unwrap_or(Status::MAX)
}

fn armed(state: Armed) -> Status {
    match state {
        Armed::Idle => ARMED,
        Armed::WorkWaits => WORK_WAITS,
    }
}

// Each function's contract is that of its declaration in `npa_abi::net::NetOps`: the instance is
// valid, and no two ops on one queue run at once.

unsafe extern "sysv64" fn sw_init<P: NetPlugin>(instance: *mut Instance) -> Status {
    // SAFETY: by this function's contract.
    unsafe {
        with(instance, |device| {
            let (size, abi) = ((*instance).size as usize, (*instance).abi);
            if size < size_of::<Instance>() || !(ABI_MIN..=ABI).contains(&abi) {
                return Err(Error::Abi);
            }
            if device.queue_count() as usize > QUEUES_MAX {
                return Err(Error::Config);
            }
            state::initialise::<P>(device).map(|()| OK)
        })
    }
}

unsafe extern "sysv64" fn reinit_rx_ring<P: NetPlugin>(
    instance: *mut Instance,
    queue: u32,
) -> Status {
    // SAFETY: by this function's contract.
    unsafe {
        with(instance, |device| {
            let (plugin, rx) = state::rx::<P>(device, queue)?;
            plugin.reinit_rx(device, rx).map(|()| OK)
        })
    }
}

unsafe extern "sysv64" fn reinit_tx_ring<P: NetPlugin>(
    instance: *mut Instance,
    queue: u32,
) -> Status {
    // SAFETY: by this function's contract.
    unsafe {
        with(instance, |device| {
            let (plugin, tx) = state::tx::<P>(device, queue)?;
            plugin.reinit_tx(device, tx).map(|()| OK)
        })
    }
}

unsafe extern "sysv64" fn enable_interrupt<P: NetPlugin>(
    instance: *mut Instance,
    queue: u32,
) -> Status {
    // SAFETY: by this function's contract.
    unsafe {
        with(instance, |device| {
            if queue.is_multiple_of(2) {
                let (plugin, rx) = state::rx::<P>(device, queue)?;
                Ok(armed(plugin.arm_rx(device, rx)))
            } else {
                let (plugin, tx) = state::tx::<P>(device, queue)?;
                Ok(armed(plugin.arm_tx(device, tx)))
            }
        })
    }
}

unsafe extern "sysv64" fn disable_interrupt<P: NetPlugin>(
    instance: *mut Instance,
    queue: u32,
) -> Status {
    // SAFETY: by this function's contract.
    unsafe {
        with(instance, |device| {
            if queue.is_multiple_of(2) {
                let (plugin, rx) = state::rx::<P>(device, queue)?;
                plugin.disarm_rx(device, rx);
            } else {
                let (plugin, tx) = state::tx::<P>(device, queue)?;
                plugin.disarm_tx(device, tx);
            }
            Ok(OK)
        })
    }
}

unsafe extern "sysv64" fn add_frames_to_tx_ring<P: NetPlugin>(
    instance: *mut Instance,
    queue: u32,
    frames: *const TxFrame,
    number: u32,
) -> Status {
    // SAFETY: by this function's contract.
    unsafe {
        with(instance, |device| {
            let (plugin, tx) = state::tx::<P>(device, queue)?;
            Ok(count(plugin.send(device, tx, &SendFrames::new(frames, number))))
        })
    }
}

unsafe extern "sysv64" fn check_tx_ring<P: NetPlugin>(
    instance: *mut Instance,
    queue: u32,
) -> Status {
    // SAFETY: by this function's contract.
    unsafe {
        with(instance, |device| {
            let (plugin, tx) = state::tx::<P>(device, queue)?;
            let done = plugin.reap(device, tx);
            if done > 0 {
                let (shell, context) = device.shell();
                (shell.complete_send)(context, queue, done);
            }
            Ok(count(done))
        })
    }
}

unsafe extern "sysv64" fn check_rx_ring<P: NetPlugin>(
    instance: *mut Instance,
    queue: u32,
    budget: u32,
) -> Status {
    // SAFETY: by this function's contract.
    unsafe {
        with(instance, |device| {
            let (plugin, rx) = state::rx::<P>(device, queue)?;
            let (shell, context) = device.shell();
            let buffer_length = device.buffer_length();
            let mut sink = RxSink { shell, context, queue, buffer_length, indicated: 0 };
            plugin.receive(device, rx, budget, &mut sink);
            Ok(count(sink.indicated))
        })
    }
}

unsafe extern "sysv64" fn add_buffers_to_rx_ring<P: NetPlugin>(
    instance: *mut Instance,
    queue: u32,
    number: u32,
) -> Status {
    // SAFETY: by this function's contract.
    unsafe {
        with(instance, |device| {
            let (plugin, rx) = state::rx::<P>(device, queue)?;
            let (shell, context) = device.shell();
            let mut source = RxSource { shell, context, queue };
            Ok(count(plugin.refill(device, rx, number, &mut source)))
        })
    }
}

unsafe extern "sysv64" fn quiesce<P: NetPlugin>(instance: *mut Instance) -> Status {
    // SAFETY: by this function's contract.
    unsafe {
        with(instance, |device| {
            let (plugin, _) = state::shared::<P>(device)?;
            plugin.quiesce(device).map(|()| OK)
        })
    }
}
