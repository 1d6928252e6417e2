//! The shell's side of the calls. A call against the contract is noted, not punished: unwinding
//! must not cross it.

use core::ffi::c_void;
use std::format;
use std::string::String;
use std::vec::Vec;

use npa_abi::ABI;
use npa_abi::net::{RX_DISCARD, RX_SEGMENTS_MAX, RxFrame};
use npa_abi::plugin::ShellApi;

use super::{Received, Shell};

pub(super) static API: ShellApi = ShellApi {
    size: size_of::<ShellApi>() as u32,
    abi: ABI as u32,
    alloc_rx_buffer,
    indicate_recv,
    complete_send,
    log,
    peek_rx_buffer,
};

impl Shell {
    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    fn slot(&mut self, queue: u32, slot: u32) -> Option<&mut Option<u64>> {
        self.slots.get_mut(queue as usize).and_then(|slots| slots.get_mut(slot as usize))
    }
}

/// # Safety
/// `context` is the bed's shell, and no other reference to it is in use.
unsafe fn shell<'a>(context: *mut c_void) -> &'a mut Shell {
    // SAFETY: by the caller's contract.
    unsafe { &mut *context.cast() }
}

unsafe extern "sysv64" fn alloc_rx_buffer(context: *mut c_void, queue: u32, slot: u32) -> u64 {
    // SAFETY: called inside an op, which has the bed alone.
    let shell = unsafe { shell(context) };
    match &mut shell.buffers {
        Some(0) => return 0,
        Some(left) => *left -= 1,
        None => {}
    }
    let (address, _) = shell.dma.allocate(shell.buffer_length as usize);
    match shell.slot(queue, slot) {
        Some(place @ None) => *place = Some(address),
        Some(Some(_)) => shell.violation(format!("slot {slot} of queue {queue} filled twice")),
        None => shell.violation(format!("no slot {slot} in queue {queue}")),
    }
    address
}

unsafe extern "sysv64" fn peek_rx_buffer(context: *mut c_void, queue: u32, slot: u32) -> *const u8 {
    // SAFETY: called inside an op, which has the bed alone.
    let shell = unsafe { shell(context) };
    match shell.slot(queue, slot) {
        Some(Some(address)) => {
            let address = *address;
            shell.dma.pointer(address)
        }
        _ => {
            shell.violation(format!("peek into empty slot {slot} of queue {queue}"));
            core::ptr::null()
        }
    }
}

unsafe extern "sysv64" fn indicate_recv(context: *mut c_void, queue: u32, frame: *const RxFrame) {
    // SAFETY: called inside an op, which has the bed alone; the frame is valid for the call.
    let (shell, frame) = unsafe { (shell(context), &*frame) };
    let count = usize::from(frame.segment_count);
    if count == 0 || count > RX_SEGMENTS_MAX {
        shell.violation(format!("{count} segments"));
        return;
    }
    // SAFETY: valid for that many during the call.
    let segments = unsafe { core::slice::from_raw_parts(frame.segments, count) };
    let mut bytes = Vec::new();
    for segment in segments {
        let Some(address) = shell.slot(queue, segment.slot).and_then(Option::take) else {
            shell.violation(format!("slot {} indicated without a buffer", segment.slot));
            continue;
        };
        match shell.dma.read(address + u64::from(segment.offset), segment.length as usize) {
            Some(piece) => bytes.extend(piece),
            None => shell.violation(format!("segment {segment:?} exceeds its buffer")),
        }
        shell.dma.free(address);
    }
    if bytes.len() != frame.length as usize && frame.flags & RX_DISCARD == 0 {
        shell.violation(format!("length {} of {} bytes", frame.length, bytes.len()));
    }
    shell.received.push(Received {
        bytes,
        segments: count,
        flags: frame.flags,
        vlan_tag: frame.vlan_tag,
        checksum: frame.checksum,
        gso_type: frame.gso_type,
        gso_size: frame.gso_size,
        csum_start: frame.csum_start,
        csum_offset: frame.csum_offset,
    });
}

unsafe extern "sysv64" fn complete_send(context: *mut c_void, queue: u32, count: u32) {
    // SAFETY: called inside an op, which has the bed alone.
    let shell = unsafe { shell(context) };
    shell.completed += count;
    for _ in 0..count {
        match shell.outstanding.get_mut(queue as usize).and_then(|frames| frames.pop_front()) {
            Some(address) => shell.dma.free(address),
            None => shell.violation(format!("completion on queue {queue} of nothing")),
        }
    }
}

unsafe extern "sysv64" fn log(_: *mut c_void, level: u32, text: *const u8, length: usize) {
    // SAFETY: valid for that many bytes during the call.
    let text = unsafe { core::slice::from_raw_parts(text, length) };
    std::eprintln!("plugin log {level}: {}", String::from_utf8_lossy(text));
}
