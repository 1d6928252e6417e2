//! One path: a plugin instance, its ops, and the buffers in its receive ring. Knows nothing of the
//! other path.

use super::callbacks::{Call, Pieces};
use super::calls::{NetCalls, Op};
use super::receive::Receiver;
use super::stats::PathStats;
use super::transmit::TxFifo;
use crate::memory::Table;
use crate::os::{NetOs, RxHandle, RxPiece};
use crate::plugin::InstanceMemory;
use npa_abi::net::{RX_SEGMENTS_MAX, RxSegment, WORK_WAITS};
use npa_abi::plugin::Status;

/// The receive queue of the one queue pair.
pub(super) const RX_QUEUE: u32 = 0;
/// The transmit queue.
pub(super) const TX_QUEUE: u32 = 1;

/// Which buffer is in which slot of a receive ring.
pub(super) struct RxSlots {
    handles: Table<Option<RxHandle>>,
    buffer_length: u32,
    filled: u32,
    shortages: u64,
}

impl RxSlots {
    /// All slots free; `None` without memory.
    pub(super) fn new(os: &impl NetOs, entries: u32, buffer_length: u32) -> Option<Self> {
        let handles = Table::new(os, entries as usize)?;
        Some(Self { handles, buffer_length, filled: 0, shortages: 0 })
    }

    /// Whether `slot` exists and holds no buffer.
    pub(super) fn is_free(&self, slot: u32) -> bool {
        matches!(self.handles.as_slice().get(slot as usize), Some(None))
    }

    /// The buffer in `slot`.
    pub(super) fn handle(&self, slot: u32) -> Option<RxHandle> {
        *self.handles.as_slice().get(slot as usize)?
    }

    /// Bytes of each buffer.
    pub(super) const fn buffer_length(&self) -> u32 {
        self.buffer_length
    }

    /// Puts a buffer into a free slot.
    pub(super) fn put(&mut self, slot: u32, handle: RxHandle) {
        if let Some(place) = self.handles.as_mut_slice().get_mut(slot as usize) {
            *place = Some(handle);
            self.filled = self.filled.wrapping_add(1);
        }
    }

    /// Takes the buffer out of `slot`; `None` if there is none.
    pub(super) fn take(&mut self, slot: u32) -> Option<RxHandle> {
        let handle = self.handles.as_mut_slice().get_mut(slot as usize)?.take()?;
        self.filled = self.filled.wrapping_sub(1);
        Some(handle)
    }

    /// A buffer was wanted and there was none.
    pub(super) fn note_shortage(&mut self) {
        self.shortages = self.shortages.wrapping_add(1);
    }

    /// Takes out all buffers of a frame of `length` bytes, or none if anything is wrong with it:
    /// an empty or repeated slot, a piece outside its buffer, pieces that do not sum up.
    pub(super) fn take_frame(&mut self, segments: &[RxSegment], length: u32) -> Option<Pieces> {
        let mut sum = 0u32;
        for (index, segment) in segments.iter().enumerate() {
            let end = segment.offset.checked_add(segment.length)?;
            sum = sum.checked_add(segment.length)?;
            let earlier = segments.get(..index).unwrap_or(&[]);
            let occupied = self.handle(segment.slot).is_some();
            if segment.length == 0
                || end > self.buffer_length
                || !occupied
                || earlier.iter().any(|other| other.slot == segment.slot)
            {
                return None;
            }
        }
        let (first, rest) = segments.split_first()?;
        if sum != length || rest.len() >= RX_SEGMENTS_MAX {
            return None;
        }
        let mut pieces = Pieces::new(self.take_piece(first)?);
        for segment in rest {
            // Cannot fail: checked above.
            let piece = self.take_piece(segment)?;
            pieces.push(piece);
        }
        Some(pieces)
    }

    fn take_piece(&mut self, segment: &RxSegment) -> Option<RxPiece> {
        let handle = self.take(segment.slot)?;
        Some(RxPiece { handle, offset: segment.offset, length: segment.length })
    }

    /// Frees every buffer. No device may write there any more.
    fn empty(&mut self, os: &impl NetOs) {
        for place in self.handles.as_mut_slice() {
            if let Some(handle) = place.take() {
                os.rx_free(handle);
            }
        }
        self.filled = 0;
    }

    fn entries(&self) -> u32 {
        self.handles.as_slice().len() as u32
    }
}

/// The plugin broke a rule or answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault;

/// One path.
pub(super) struct NetPath {
    calls: NetCalls,
    instance: InstanceMemory,
    slots: RxSlots,
    accelerated: bool,
    fault: bool,
}

impl NetPath {
    /// A path whose plugin has not been called yet.
    pub(super) fn new(
        calls: NetCalls,
        instance: InstanceMemory,
        slots: RxSlots,
        accelerated: bool,
    ) -> Self {
        Self { calls, instance, slots, accelerated, fault: false }
    }

    /// Whether the plugin broke a rule; it is never called again then.
    pub(super) const fn has_fault(&self) -> bool {
        self.fault
    }

    /// Initialises the plugin's software state.
    pub(super) fn sw_init<O: NetOs>(&mut self, os: &O) -> Result<(), Fault> {
        self.run(os, Call::Other, Op::SwInit).map(drop)
    }

    /// Sets up both rings, empty. Buffers that were in the receive ring are freed.
    pub(super) fn reinit<O: NetOs>(&mut self, os: &O) -> Result<(), Fault> {
        self.run(os, Call::Other, Op::ReinitRx(RX_QUEUE))?;
        self.slots.empty(os);
        self.run(os, Call::Other, Op::ReinitTx(TX_QUEUE)).map(drop)
    }

    /// Fills the receive ring as far as buffers go; answers how many were added.
    pub(super) fn fill<O: NetOs>(&mut self, os: &O) -> Result<u32, Fault> {
        let free = self.slots.entries().saturating_sub(self.slots.filled);
        let before = self.slots.filled;
        self.run(os, Call::AddBuffers { queue: RX_QUEUE }, Op::AddBuffers(RX_QUEUE, free))?;
        Ok(self.slots.filled.saturating_sub(before))
    }

    /// Whether so many slots are free that a refill is worth its doorbell.
    pub(super) fn wants_buffers(&self) -> bool {
        self.slots.entries().saturating_sub(self.slots.filled) >= self.slots.entries() / 8
    }

    /// Whether the ring holds less than half of its buffers.
    pub(super) fn is_starved(&self) -> bool {
        self.slots.filled < self.slots.entries() / 2
    }

    /// Entries of the receive ring.
    pub(super) fn rx_entries(&self) -> u32 {
        self.slots.entries()
    }

    /// Times a buffer was wanted and not to be had, since the last call.
    pub(super) fn take_shortages(&mut self) -> u64 {
        core::mem::take(&mut self.slots.shortages)
    }

    /// Hands up to `budget` received frames to `receiver`; answers how many.
    pub(super) fn check_rx<O: NetOs>(
        &mut self,
        os: &O,
        receiver: &mut Receiver,
        budget: u32,
    ) -> Result<u32, Fault> {
        let mut indicated = 0;
        let call = Call::CheckRx {
            queue: RX_QUEUE,
            receiver,
            accelerated: self.accelerated,
            indicated: &mut indicated,
            budget,
        };
        self.run(os, call, Op::CheckRx(RX_QUEUE, budget))?;
        Ok(indicated)
    }

    /// Completes frames that were sent; answers how many.
    pub(super) fn check_tx<O: NetOs>(
        &mut self,
        os: &O,
        frames: &mut TxFifo,
        stats: &mut PathStats,
    ) -> Result<u32, Fault> {
        let (mut completed, mut bytes) = (0, 0);
        let call =
            Call::CheckTx { queue: TX_QUEUE, frames, completed: &mut completed, bytes: &mut bytes };
        let outcome = self.run(os, call, Op::CheckTx(TX_QUEUE));
        stats.tx_frames = stats.tx_frames.wrapping_add(u64::from(completed));
        stats.tx_bytes = stats.tx_bytes.wrapping_add(bytes);
        outcome.map(|_| completed)
    }

    /// Hands waiting frames to the plugin as far as its ring goes.
    pub(super) fn submit<O: NetOs>(
        &mut self,
        os: &O,
        frames: &mut TxFifo,
        stats: &mut PathStats,
    ) -> Result<(), Fault> {
        // Twice, because the waiting frames may wrap around the end of the table.
        for _ in 0..2 {
            let run = frames.waiting_run();
            let count = run.len() as u32;
            if count == 0 || self.fault {
                break;
            }
            let (status, broken) =
                self.calls.add_frames(os, &mut self.instance, &mut self.slots, TX_QUEUE, run);
            let taken = self.judge(status, broken)?;
            if taken > count {
                self.fault = true;
                return Err(Fault);
            }
            stats.tx_bursts = stats.tx_bursts.wrapping_add(1);
            frames.mark_submitted(taken);
            if taken < count {
                break;
            }
        }
        Ok(())
    }

    /// Arms an interrupt; answers whether work waits already.
    pub(super) fn arm<O: NetOs>(&mut self, os: &O, queue: u32) -> Result<bool, Fault> {
        let status = self.run(os, Call::Other, Op::EnableInterrupt(queue))?;
        Ok(status == WORK_WAITS as u32)
    }

    /// Disarms an interrupt.
    fn disarm<O: NetOs>(&mut self, os: &O, queue: u32) -> Result<(), Fault> {
        self.run(os, Call::Other, Op::DisableInterrupt(queue)).map(drop)
    }

    /// Stops the device's DMA and interrupts, takes the frames that came until then, and marks the
    /// rings, which the device wrote; the last call. Buffers that are left hold no frame, and what
    /// they do hold is nobody's.
    pub(super) fn quiesce<O: NetOs>(
        &mut self,
        os: &O,
        receiver: &mut Receiver,
    ) -> Result<(), Fault> {
        self.disarm(os, RX_QUEUE)?;
        self.disarm(os, TX_QUEUE)?;
        self.run(os, Call::Other, Op::Quiesce)?;
        self.check_rx(os, receiver, self.slots.entries())?;
        self.instance.mark();
        Ok(())
    }

    /// Frees everything. No device may write there any more.
    pub(super) fn free(mut self, os: &impl NetOs) {
        self.slots.empty(os);
        self.slots.handles.free(os);
        self.instance.free(os);
    }

    fn run<O: NetOs>(&mut self, os: &O, call: Call<'_>, op: Op) -> Result<u32, Fault> {
        if self.fault {
            return Err(Fault);
        }
        let (status, broken) = self.calls.call(os, &mut self.instance, &mut self.slots, call, op);
        self.judge(status, broken)
    }

    fn judge(&mut self, status: Status, broken: bool) -> Result<u32, Fault> {
        match u32::try_from(status) {
            Ok(status) if !broken => Ok(status),
            _ => {
                self.fault = true;
                Err(Fault)
            }
        }
    }
}
