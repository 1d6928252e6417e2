//! What a net plugin may call, with every check of what it reports: a slot is indicated only while
//! it holds a buffer, no more frames complete than are outstanding, no length exceeds a buffer. A
//! plugin that breaks a rule is marked; what it reported then changes nothing.
#![allow(unsafe_code)] // Called from code that was built elsewhere, with raw pointers.

use super::path::RxSlots;
use super::receive::{ETHERNET_HEADER, Receiver};
use super::transmit::TxFifo;
use crate::os::{LogLevel, NetOs, RxMeta, RxPiece};
use core::ffi::c_void;
use npa_abi::ABI;
use npa_abi::net::{
    RX_CSUM_PARTIAL, RX_CSUM_UNKNOWN, RX_DISCARD, RX_GSO_NONE, RX_GSO_TCPV4, RX_GSO_TCPV6,
    RX_SEGMENTS_MAX, RxFrame, RxSegment,
};
use npa_abi::plugin::{LOG_ERROR, ShellApi};

/// What the plugin may do during the present op.
pub(super) enum Call<'a> {
    /// Nothing but log.
    Other,
    /// Take receive buffers.
    AddBuffers {
        /// The receive queue.
        queue: u32,
    },
    /// Indicate up to `left` frames.
    CheckRx {
        /// The receive queue.
        queue: u32,
        /// Who takes the frames.
        receiver: &'a mut Receiver,
        /// Whether this is a VF's plugin.
        accelerated: bool,
        /// Frames indicated so far.
        indicated: &'a mut u32,
        /// Most frames.
        budget: u32,
    },
    /// Complete frames.
    CheckTx {
        /// The transmit queue.
        queue: u32,
        /// The frames; those outstanding are this plugin's.
        frames: &'a mut TxFifo,
        /// Frames completed so far.
        completed: &'a mut u32,
        /// Bytes of these.
        bytes: &'a mut u64,
    },
}

/// What the callbacks reach through the instance's context while an op runs.
pub(super) struct Scope<'a, O: NetOs> {
    os: &'a O,
    slots: &'a mut RxSlots,
    call: Call<'a>,
    broken: bool,
}

impl<'a, O: NetOs> Scope<'a, O> {
    pub(super) fn new(os: &'a O, slots: &'a mut RxSlots, call: Call<'a>) -> Self {
        Self { os, slots, call, broken: false }
    }

    /// Whether the plugin broke a rule.
    pub(super) const fn broken(&self) -> bool {
        self.broken
    }

    fn alloc(&mut self, queue: u32, slot: u32) -> u64 {
        let allowed = matches!(self.call, Call::AddBuffers { queue: own } if own == queue);
        if !allowed || !self.slots.is_free(slot) {
            self.broken = true;
            return 0;
        }
        match self.os.rx_alloc() {
            Some(buffer) => {
                self.slots.put(slot, buffer.handle);
                buffer.device_address
            }
            None => {
                self.slots.note_shortage();
                0
            }
        }
    }

    fn peek(&mut self, of: u32, slot: u32) -> *const u8 {
        let allowed = matches!(self.call, Call::CheckRx { queue, .. } if queue == of);
        let bytes = match self.slots.handle(slot) {
            Some(handle) if allowed => self.os.rx_data(handle, 0, self.slots.buffer_length()),
            _ => None,
        };
        match bytes {
            Some(bytes) => bytes.as_ptr(),
            None => {
                self.broken |= !allowed;
                core::ptr::null()
            }
        }
    }

    fn complete(&mut self, of: u32, count: u32) {
        let Call::CheckTx { queue, frames, completed, bytes } = &mut self.call else {
            self.broken = true;
            return;
        };
        if *queue != of || count > frames.outstanding() {
            self.broken = true;
            return;
        }
        for _ in 0..count {
            let Some((handle, length)) = frames.complete() else { break };
            **completed = completed.wrapping_add(1);
            **bytes = bytes.wrapping_add(u64::from(length));
            self.os.tx_done(handle, true);
        }
    }

    fn indicate(&mut self, of: u32, frame: &RxFrame, segments: &[RxSegment]) {
        let Call::CheckRx { queue, receiver, accelerated, indicated, budget } = &mut self.call
        else {
            self.broken = true;
            return;
        };
        if *queue != of || **indicated >= *budget {
            self.broken = true;
            return;
        }
        **indicated = indicated.wrapping_add(1);
        if let (0, [only]) = (frame.length, segments) {
            match self.slots.take(only.slot) {
                Some(handle) => {
                    if *accelerated {
                        self.os.rx_mark(handle, 0, self.slots.buffer_length());
                    }
                    receiver.count_error(*accelerated);
                    self.os.rx_free(handle);
                }
                None => self.broken = true,
            }
            return;
        }
        let Some(pieces) = self.slots.take_frame(segments, frame.length) else {
            self.broken = true;
            return;
        };
        let all = pieces.as_slice();
        if *accelerated {
            for piece in all {
                self.os.rx_mark(piece.handle, piece.offset, piece.length);
            }
        }
        if frame.flags & RX_DISCARD != 0 {
            receiver.discard(self.os, all);
            return;
        }
        if all.first().is_none_or(|first| first.length < ETHERNET_HEADER) {
            // Too short for its header: the sender's fault, not the plugin's.
            receiver.reject(self.os, *accelerated, all);
            return;
        }
        receiver.take(self.os, &meta(frame, *accelerated), pieces);
    }
}

/// The frame's facts, with those left out that do not fit its length.
fn meta(frame: &RxFrame, accelerated: bool) -> RxMeta {
    let mut meta = RxMeta {
        length: frame.length,
        flags: frame.flags,
        vlan_tag: frame.vlan_tag,
        checksum: frame.checksum,
        gso_type: frame.gso_type,
        gso_size: frame.gso_size,
        csum_start: frame.csum_start,
        csum_offset: frame.csum_offset,
        header_length: frame.header_length,
        hash: frame.hash,
        accelerated,
    };
    let field_end =
        u32::from(meta.csum_start).saturating_add(u32::from(meta.csum_offset)).saturating_add(2);
    if meta.checksum > RX_CSUM_PARTIAL
        || (meta.checksum == RX_CSUM_PARTIAL
            && (field_end > meta.length || u32::from(meta.csum_start) < ETHERNET_HEADER))
    {
        meta.checksum = RX_CSUM_UNKNOWN;
    }
    let merged = meta.gso_type == RX_GSO_TCPV4 || meta.gso_type == RX_GSO_TCPV6;
    if !merged || meta.gso_size == 0 {
        meta.gso_type = RX_GSO_NONE;
        meta.gso_size = 0;
    }
    if u32::from(meta.header_length) > meta.length {
        meta.header_length = 0;
    }
    meta
}

/// The callbacks for an operating system `O`.
pub(super) const fn shell_api<O: NetOs>() -> ShellApi {
    ShellApi {
        size: size_of::<ShellApi>() as u32,
        abi: ABI as u32,
        alloc_rx_buffer: alloc_rx_buffer::<O>,
        indicate_recv: indicate_recv::<O>,
        complete_send: complete_send::<O>,
        log: log::<O>,
        peek_rx_buffer: peek_rx_buffer::<O>,
    }
}

/// The scope of the op that is under way, or `None` outside of one.
///
/// # Safety
/// `context` is null or the address that `InstanceMemory::call` put into the instance, for the
/// same `O`, and the op is still under way.
unsafe fn scope<'a, O: NetOs>(context: *mut c_void) -> Option<&'a mut Scope<'a, O>> {
    // SAFETY: by the function's contract this is the exclusively borrowed scope of the call.
    unsafe { context.cast::<Scope<'a, O>>().as_mut() }
}

unsafe extern "sysv64" fn alloc_rx_buffer<O: NetOs>(
    context: *mut c_void,
    queue: u32,
    slot: u32,
) -> u64 {
    // SAFETY: the plugin passes the context that the instance held when its op was called.
    match unsafe { scope::<O>(context) } {
        Some(scope) => scope.alloc(queue, slot),
        None => 0,
    }
}

unsafe extern "sysv64" fn peek_rx_buffer<O: NetOs>(
    context: *mut c_void,
    queue: u32,
    slot: u32,
) -> *const u8 {
    // SAFETY: as above.
    match unsafe { scope::<O>(context) } {
        Some(scope) => scope.peek(queue, slot),
        None => core::ptr::null(),
    }
}

unsafe extern "sysv64" fn complete_send<O: NetOs>(context: *mut c_void, queue: u32, count: u32) {
    // SAFETY: as above.
    if let Some(scope) = unsafe { scope::<O>(context) } {
        scope.complete(queue, count);
    }
}

unsafe extern "sysv64" fn indicate_recv<O: NetOs>(
    context: *mut c_void,
    queue: u32,
    frame: *const RxFrame,
) {
    // SAFETY: as above.
    let Some(scope) = (unsafe { scope::<O>(context) }) else { return };
    // SAFETY: the plugin hands in a frame that it keeps valid during the call.
    let Some(frame) = (unsafe { frame.as_ref() }) else {
        scope.broken = true;
        return;
    };
    let count = usize::from(frame.segment_count);
    if count == 0 || count > RX_SEGMENTS_MAX || frame.segments.is_null() {
        scope.broken = true;
        return;
    }
    // SAFETY: the frame says that this many segments are there, which the contract makes valid
    // during the call.
    let segments = unsafe { core::slice::from_raw_parts(frame.segments, count) };
    scope.indicate(queue, frame, segments);
}

unsafe extern "sysv64" fn log<O: NetOs>(
    context: *mut c_void,
    level: u32,
    text: *const u8,
    length: usize,
) {
    /// Longest line taken from a plugin, in bytes.
    const LINE_MAX: usize = 256;
    // SAFETY: as above.
    let Some(scope) = (unsafe { scope::<O>(context) }) else { return };
    if text.is_null() {
        return;
    }
    // SAFETY: the plugin vouches for `length` bytes at `text` during the call.
    let bytes = unsafe { core::slice::from_raw_parts(text, length.min(LINE_MAX)) };
    let level = if level == LOG_ERROR { LogLevel::Error } else { LogLevel::Info };
    let text = match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => bytes
            .get(..error.valid_up_to())
            .and_then(|valid| core::str::from_utf8(valid).ok())
            .unwrap_or("npa: plugin log line is not text"),
    };
    scope.os.log(level, text);
}

/// The pieces of one received frame.
pub(super) struct Pieces {
    all: [RxPiece; RX_SEGMENTS_MAX],
    count: usize,
}

impl Pieces {
    /// Begins with `first`.
    pub(super) const fn new(first: RxPiece) -> Self {
        Self { all: [first; RX_SEGMENTS_MAX], count: 1 }
    }

    /// Appends a piece; `false` when full.
    pub(super) fn push(&mut self, piece: RxPiece) -> bool {
        match self.all.get_mut(self.count) {
            Some(place) => {
                *place = piece;
                self.count = self.count.wrapping_add(1);
                true
            }
            None => false,
        }
    }

    /// The pieces.
    pub(super) fn as_slice(&self) -> &[RxPiece] {
        self.all.get(..self.count).unwrap_or(&[])
    }
}
