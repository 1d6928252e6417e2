//! Frames on their way between shell and plugin.

#![allow(unsafe_code)] // Calls the shell and reads what it points to.

use core::ffi::c_void;
use core::marker::PhantomData;

use npa_abi::net::{RX_CSUM_UNKNOWN, RX_DISCARD, RX_GSO_NONE};
use npa_abi::net::{RxFrame, RxSegment, TX_SEGMENTS_MAX, TxFrame, TxSegment};
use npa_abi::plugin::ShellApi;

/// The frames of one `add_frames_to_tx_ring`.
#[derive(Clone, Copy, Debug)]
pub struct SendFrames<'a> {
    first: *const TxFrame,
    count: u32,
    call: PhantomData<&'a TxFrame>,
}

impl<'a> SendFrames<'a> {
    /// Wraps the frames.
    ///
    /// # Safety
    /// `first` is null or points to `count` frames, valid with their segments while the result is
    /// used.
    pub(super) unsafe fn new(first: *const TxFrame, count: u32) -> Self {
        Self { first, count: if first.is_null() { 0 } else { count }, call: PhantomData }
    }

    /// The frames in order.
    pub fn iter(&self) -> impl Iterator<Item = SendFrame<'a>> + use<'a> {
        let first = self.first;
        (0..self.count as usize).map(move |index| {
            // SAFETY: below the count, valid by `new`'s contract.
            SendFrame(unsafe { &*first.add(index) })
        })
    }
}

/// A frame to send.
#[derive(Clone, Copy, Debug)]
pub struct SendFrame<'a>(&'a TxFrame);

impl<'a> SendFrame<'a> {
    /// Its description.
    pub fn describe(&self) -> &'a TxFrame {
        self.0
    }

    /// Its pieces: 1 to [`TX_SEGMENTS_MAX`]; none for a malformed frame.
    pub fn segments(&self) -> &'a [TxSegment] {
        let count = usize::from(self.0.segment_count);
        if self.0.segments.is_null() || count > TX_SEGMENTS_MAX {
            return &[];
        }
        // SAFETY: not null, and valid for that many by the contract of `SendFrames::new`.
        unsafe { core::slice::from_raw_parts(self.0.segments, count) }
    }
}

impl SendFrame<'_> {
    /// The frame's headers, for a plugin that must change a copy; empty where the shell cannot
    /// tell them.
    pub fn headers(&self) -> &[u8] {
        let frame = self.0;
        let length = usize::from(frame.l2_length)
            + usize::from(frame.l3_length)
            + usize::from(frame.l4_length);
        let first = self.segments().first().map_or(0, |segment| segment.length as usize);
        if frame.headers.is_null() || length > first {
            return &[];
        }
        // SAFETY: not null, and readable for that many bytes by the contract of `TxFrame`.
        unsafe { core::slice::from_raw_parts(frame.headers, length) }
    }
}

/// Takes received frames to the shell.
pub struct RxSink<'a> {
    pub(super) shell: &'a ShellApi,
    pub(super) context: *mut c_void,
    pub(super) queue: u32,
    pub(super) buffer_length: u32,
    pub(super) indicated: u32,
}

impl RxSink<'_> {
    /// Frames indicated so far, damaged and discarded ones included.
    pub fn indicated(&self) -> u32 {
        self.indicated
    }

    /// The first `N` bytes of the buffer in `slot`; `None` without a buffer, or when it is
    /// shorter.
    pub fn peek<const N: usize>(&self, slot: u32) -> Option<[u8; N]> {
        if N > self.buffer_length as usize {
            return None;
        }
        // SAFETY: legal inside `check_rx_ring`, which is where a sink exists.
        let start = unsafe { (self.shell.peek_rx_buffer)(self.context, self.queue, slot) };
        // SAFETY: the buffer may be read for its length, and `[u8; N]` needs no alignment.
        (!start.is_null()).then(|| unsafe { start.cast::<[u8; N]>().read_volatile() })
    }

    /// Hands over `frame`, whose pieces are `segments` (`segments` and `segment_count` of `frame`
    /// are set here).
    pub fn indicate(&mut self, mut frame: RxFrame, segments: &[RxSegment]) {
        frame.segments = segments.as_ptr();
        frame.segment_count = segments.len() as u16;
        self.indicated += 1;
        // SAFETY: legal inside `check_rx_ring`; frame and segments are valid for the call.
        unsafe { (self.shell.indicate_recv)(self.context, self.queue, &frame) }
    }

    /// Gives the buffer in `slot` back: a damaged frame.
    pub fn damaged(&mut self, slot: u32) {
        self.indicate(plain(0, 0), &[RxSegment { slot, offset: 0, length: 0 }]);
    }

    /// Gives the buffers of all `segments` back: a frame that should not have come.
    pub fn discard(&mut self, length: u32, segments: &[RxSegment]) {
        self.indicate(plain(length, RX_DISCARD), segments);
    }
}

/// A frame without any metadata, of `length` bytes with `flags`; its pieces are set by
/// [`RxSink::indicate`].
pub const fn plain(length: u32, flags: u16) -> RxFrame {
    RxFrame {
        segments: core::ptr::null(),
        segment_count: 0,
        flags,
        length,
        vlan_tag: 0,
        checksum: RX_CSUM_UNKNOWN,
        gso_type: RX_GSO_NONE,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
        header_length: 0,
        hash: 0,
    }
}

/// Gives empty receive buffers.
pub struct RxSource<'a> {
    pub(super) shell: &'a ShellApi,
    pub(super) context: *mut c_void,
    pub(super) queue: u32,
}

impl RxSource<'_> {
    /// Takes a buffer for `slot` and answers its device address; `None` when there is none.
    pub fn take(&mut self, slot: u32) -> Option<u64> {
        // SAFETY: legal inside `add_buffers_to_rx_ring`, which is where a source exists.
        let address = unsafe { (self.shell.alloc_rx_buffer)(self.context, self.queue, slot) };
        (address != 0).then_some(address)
    }
}
