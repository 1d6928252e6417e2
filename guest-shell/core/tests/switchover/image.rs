//! The landing and a plugin image: a header and, for the entry and each op, a jump to a function of
//! this test, so that the shell's checks of code addresses see what they expect.
#![allow(unsafe_code, reason = "maps executable memory and plays a plugin")]

use npa_abi::image::{IMAGE_MAGIC, Licence, PluginHeader};
use npa_abi::net::{NetOps, RxFrame, RxSegment};
use npa_abi::plugin::{ERR_DEVICE, EntryCall, Instance, OK, Status};
use npa_abi::{ABI, Class, PAGE_SIZE};
use std::cell::Cell;

pub(crate) const LANDING_LENGTH: usize = 16 * PAGE_SIZE;
const STUBS: usize = 0x400;
const STUB: usize = 16;
/// Stubs behind the entry's: the ops in their order in `NetOps`.
const OPS: usize = 10;

thread_local! {
    static LANDING: Cell<usize> = const { Cell::new(0) };
    static REINITS: Cell<u32> = const { Cell::new(0) };
}

/// Rings that a landed plugin has set up so far.
pub(crate) fn reinits() -> u32 {
    REINITS.get()
}

/// How a plugin misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not.
    None,
    /// Its entry refuses.
    Entry,
    /// An op is missing.
    MissingOp,
    /// An op lies outside the image.
    OutsideOp,
    /// `sw_init` refuses.
    SwInit,
    /// Completes a frame that it was never given.
    CompletesTooMany,
    /// Says that it took more frames than there were.
    TakesTooMany,
    /// Indicates a slot that it has no buffer in.
    EmptySlot,
    /// Indicates a slot beyond the ring.
    WildSlot,
    /// Indicates a frame longer than its buffer.
    TooLong,
    /// Indicates a frame whose pieces do not sum up.
    WrongSum,
    /// Fills a slot twice.
    FillsTwice,
    /// Does not quiesce.
    Quiesce,
}

impl Fault {
    /// Faults that show while an attach is set up.
    pub(crate) const AT_LOAD: [Self; 5] =
        [Self::Entry, Self::MissingOp, Self::OutsideOp, Self::SwInit, Self::FillsTwice];
    /// Faults that show while frames are moved.
    pub(crate) const IN_SERVICE: [Self; 6] = [
        Self::CompletesTooMany,
        Self::TakesTooMany,
        Self::EmptySlot,
        Self::WildSlot,
        Self::TooLong,
        Self::WrongSum,
    ];
}

/// An executable mapping, filled with `int3`.
#[derive(Debug)]
pub(crate) struct LandingMemory {
    base: usize,
}

impl LandingMemory {
    pub(crate) fn new() -> Self {
        // SAFETY: a fresh anonymous mapping, which nobody else knows.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                LANDING_LENGTH,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        LANDING.set(base as usize);
        let landing = Self { base: base as usize };
        landing.write(&[0xcc; LANDING_LENGTH]);
        landing
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base as *mut u8
    }

    pub(crate) fn write(&self, bytes: &[u8]) {
        assert!(bytes.len() <= LANDING_LENGTH);
        // SAFETY: within the mapping; nothing in it runs at this time.
        unsafe { self.base().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }
}

impl Drop for LandingMemory {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no function of it is called any more.
        unsafe { libc::munmap(self.base as *mut libc::c_void, LANDING_LENGTH) };
    }
}

/// The virtio-net plugin's ops in the order of `NetOps`.
fn real_ops() -> NetOps {
    // SAFETY: all zero is `None` in every op.
    let mut ops: NetOps = unsafe { std::mem::zeroed() };
    let mut call = EntryCall {
        size: size_of::<EntryCall>() as u32,
        abi: ABI,
        class: Class::Net as u16,
        ops: (&raw mut ops).cast(),
        ops_size: size_of::<NetOps>() as u32,
        reserved: 0,
    };
    // SAFETY: a valid call.
    assert_eq!(unsafe { virtio_net_plugin::entry(&raw mut call) }, OK);
    ops
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// An image of one page that behaves as `fault` says.
pub(crate) fn build(fault: Fault) -> Vec<u8> {
    let mut header = virtio_net_plugin::HEADER;
    header.image_length = PAGE_SIZE as u32;
    header.entry = STUBS as u32;
    header.vectors = 2;
    assert_eq!(header.magic, IMAGE_MAGIC);
    assert!(Licence::from_code(header.licence).is_some());
    // SAFETY: the header is plain integers without padding.
    let header = unsafe {
        std::slice::from_raw_parts((&raw const header).cast::<u8>(), size_of::<PluginHeader>())
    };
    let mut bytes = vec![0xcc; PAGE_SIZE];
    put(&mut bytes, 0, header);
    let ops = real_ops();
    let entry: usize = match fault {
        Fault::Entry => refusing_entry as *const () as usize,
        Fault::MissingOp => missing_op_entry as *const () as usize,
        Fault::OutsideOp => outside_op_entry as *const () as usize,
        _ => entry as *const () as usize,
    };
    let address = |op: Option<unsafe extern "sysv64" fn(*mut Instance, u32) -> Status>| {
        op.map_or(0, |op| op as usize)
    };
    let mut targets = [
        entry,
        ops.sw_init.map_or(0, |op| op as usize),
        reinit_rx_ring as *const () as usize,
        reinit_tx_ring as *const () as usize,
        address(ops.enable_interrupt),
        address(ops.disable_interrupt),
        ops.add_frames_to_tx_ring.map_or(0, |op| op as usize),
        address(ops.check_tx_ring),
        ops.check_rx_ring.map_or(0, |op| op as usize),
        ops.add_buffers_to_rx_ring.map_or(0, |op| op as usize),
        ops.quiesce.map_or(0, |op| op as usize),
    ];
    match fault {
        Fault::SwInit => targets[1] = failing as *const () as usize,
        Fault::TakesTooMany => targets[6] = takes_too_many as *const () as usize,
        Fault::CompletesTooMany => targets[7] = completes_too_many as *const () as usize,
        Fault::EmptySlot => targets[8] = empty_slot as *const () as usize,
        Fault::WildSlot => targets[8] = wild_slot as *const () as usize,
        Fault::TooLong => targets[8] = too_long as *const () as usize,
        Fault::WrongSum => targets[8] = wrong_sum as *const () as usize,
        Fault::FillsTwice => targets[9] = fills_twice as *const () as usize,
        Fault::Quiesce => targets[10] = failing as *const () as usize,
        Fault::None | Fault::Entry | Fault::MissingOp | Fault::OutsideOp => {}
    }
    assert_eq!(targets.len(), OPS + 1);
    for (index, target) in targets.into_iter().enumerate() {
        // endbr64; movabs rax, target; jmp rax
        let mut stub = vec![0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0xb8];
        stub.extend(target.to_le_bytes());
        stub.extend([0xff, 0xe0]);
        assert_eq!(stub.len(), STUB);
        put(&mut bytes, STUBS + index * STUB, &stub);
    }
    bytes
}

/// The image's entry: fills the table with addresses in the landing.
unsafe extern "sysv64" fn entry(call: *mut EntryCall) -> Status {
    let landing = LANDING.get();
    let stub = |index: usize| landing + STUBS + (index + 1) * STUB;
    // SAFETY: the shell's call is valid; the addresses are those of the stubs, whose targets have
    // the right types.
    unsafe {
        let ops = (*call).ops.cast::<NetOps>();
        (*ops).size = size_of::<NetOps>() as u32;
        (*ops).abi = ABI.into();
        let first = (&raw mut (*ops).sw_init).cast::<usize>();
        for index in 0..OPS {
            first.add(index).write(stub(index));
        }
    }
    OK
}

unsafe extern "sysv64" fn reinit_rx_ring(instance: *mut Instance, queue: u32) -> Status {
    REINITS.set(REINITS.get() + 1);
    // SAFETY: the shell's call, passed on.
    real_ops().reinit_rx_ring.map_or(ERR_DEVICE, |op| unsafe { op(instance, queue) })
}

unsafe extern "sysv64" fn reinit_tx_ring(instance: *mut Instance, queue: u32) -> Status {
    REINITS.set(REINITS.get() + 1);
    // SAFETY: the shell's call, passed on.
    real_ops().reinit_tx_ring.map_or(ERR_DEVICE, |op| unsafe { op(instance, queue) })
}

unsafe extern "sysv64" fn refusing_entry(_: *mut EntryCall) -> Status {
    ERR_DEVICE
}

unsafe extern "sysv64" fn missing_op_entry(call: *mut EntryCall) -> Status {
    // SAFETY: the shell's call is valid.
    unsafe {
        entry(call);
        (*(*call).ops.cast::<NetOps>()).check_rx_ring = None;
    }
    OK
}

unsafe extern "sysv64" fn outside_op_entry(call: *mut EntryCall) -> Status {
    // SAFETY: the shell's call is valid.
    unsafe {
        entry(call);
        (*(*call).ops.cast::<NetOps>()).quiesce = real_ops().quiesce;
    }
    OK
}

unsafe extern "sysv64" fn failing(_: *mut Instance) -> Status {
    ERR_DEVICE
}

unsafe extern "sysv64" fn takes_too_many(
    _: *mut Instance,
    _: u32,
    _: *const npa_abi::net::TxFrame,
    count: u32,
) -> Status {
    count as Status + 1
}

unsafe extern "sysv64" fn completes_too_many(instance: *mut Instance, queue: u32) -> Status {
    // SAFETY: the shell's instance is valid.
    unsafe { ((*(*instance).shell).complete_send)((*instance).context, queue, 1000) };
    1000
}

unsafe fn indicate(instance: *mut Instance, slot: u32, offset: u32, length: u32, whole: u32) {
    let segments = [RxSegment { slot, offset, length }];
    // SAFETY: all zero is a valid frame.
    let mut frame: RxFrame = unsafe { std::mem::zeroed() };
    frame.segments = segments.as_ptr();
    frame.segment_count = 1;
    frame.length = whole;
    // SAFETY: the shell's instance is valid, the frame is for the call.
    unsafe {
        ((*(*instance).shell).indicate_recv)((*instance).context, 0, &raw const frame);
    }
}

unsafe extern "sysv64" fn empty_slot(instance: *mut Instance, _: u32, budget: u32) -> Status {
    if budget == 0 {
        return 0;
    }
    // SAFETY: the shell's instance is valid.
    unsafe {
        indicate(instance, 0, 0, 64, 64);
        indicate(instance, 0, 0, 64, 64);
    }
    2
}

unsafe extern "sysv64" fn wild_slot(instance: *mut Instance, _: u32, _: u32) -> Status {
    // SAFETY: the shell's instance is valid.
    unsafe { indicate(instance, 0xffff_fff0, 0, 64, 64) };
    1
}

unsafe extern "sysv64" fn too_long(instance: *mut Instance, _: u32, _: u32) -> Status {
    // SAFETY: the shell's instance is valid.
    unsafe { indicate(instance, 0, 0xffff_fff0, 64, 64) };
    1
}

unsafe extern "sysv64" fn wrong_sum(instance: *mut Instance, _: u32, _: u32) -> Status {
    // SAFETY: the shell's instance is valid.
    unsafe { indicate(instance, 0, 0, 64, 1000) };
    1
}

unsafe extern "sysv64" fn fills_twice(instance: *mut Instance, queue: u32, _: u32) -> Status {
    // SAFETY: the shell's instance is valid.
    unsafe {
        let (shell, context) = ((*instance).shell, (*instance).context);
        ((*shell).alloc_rx_buffer)(context, queue, 3);
        ((*shell).alloc_rx_buffer)(context, queue, 3);
    }
    2
}
