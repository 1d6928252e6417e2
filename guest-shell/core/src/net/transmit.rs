//! Frames to send: a ring of descriptors, first in first out, kept until they are complete so that
//! they can be given to another path. `head..submitted` are with a path, `submitted..tail` wait.
//! Never decides which path sends.

use crate::memory::Table;
use crate::os::{NetOs, TxHandle};
use npa_abi::net::{TX_SEGMENTS_MAX, TxFrame, TxSegment};

/// The frames. Positions are counters that wrap; the capacity is a power of two.
pub(super) struct TxFifo {
    frames: Table<TxFrame>,
    segments: Table<[TxSegment; TX_SEGMENTS_MAX]>,
    handles: Table<Option<TxHandle>>,
    mask: u32,
    head: u32,
    submitted: u32,
    tail: u32,
}

impl TxFifo {
    /// Room for `capacity` frames, a power of two; `None` without memory.
    pub(super) fn new(os: &impl NetOs, capacity: u32) -> Option<Self> {
        if !capacity.is_power_of_two() {
            return None;
        }
        let length = capacity as usize;
        let frames = Table::new(os, length)?;
        let Some(segments) = Table::new(os, length) else {
            frames.free(os);
            return None;
        };
        let Some(handles) = Table::new(os, length) else {
            frames.free(os);
            segments.free(os);
            return None;
        };
        let mask = capacity.wrapping_sub(1);
        Some(Self { frames, segments, handles, mask, head: 0, submitted: 0, tail: 0 })
    }

    const fn capacity(&self) -> u32 {
        self.mask.wrapping_add(1)
    }

    const fn index(&self, position: u32) -> usize {
        (position & self.mask) as usize
    }

    /// Frames with a path.
    pub(super) const fn outstanding(&self) -> u32 {
        self.submitted.wrapping_sub(self.head)
    }

    /// Frames that no path has.
    pub(super) const fn waiting(&self) -> u32 {
        self.tail.wrapping_sub(self.submitted)
    }

    /// Room for further frames.
    pub(super) const fn room(&self) -> u32 {
        self.capacity().wrapping_sub(self.tail.wrapping_sub(self.head))
    }

    /// Whether at least a quarter is free: when to wake the stack.
    pub(super) const fn has_ample_room(&self) -> bool {
        self.room() >= self.capacity() / 4
    }

    /// Whether so many are taken that it is time to look for completions while sending. Senders
    /// are often bounded by what is outstanding (a socket's send buffer holds some 250 small
    /// frames), and a look costs less than the interrupt that would else tell.
    pub(super) const fn wants_reaping(&self) -> bool {
        const MANY: u32 = 128;
        let taken = self.capacity() - self.room();
        taken >= MANY || taken > self.capacity() / 2
    }

    /// Appends a copy of `frame` with its `segments`; `false` when full or with no or too many
    /// segments.
    pub(super) fn push(
        &mut self,
        frame: &TxFrame,
        segments: &[TxSegment],
        handle: TxHandle,
    ) -> bool {
        if self.room() == 0 || segments.is_empty() || segments.len() > TX_SEGMENTS_MAX {
            return false;
        }
        let index = self.index(self.tail);
        let stored = self.segments.address(index);
        let (Some(row), Some(slot), Some(name)) = (
            self.segments.as_mut_slice().get_mut(index),
            self.frames.as_mut_slice().get_mut(index),
            self.handles.as_mut_slice().get_mut(index),
        ) else {
            return false;
        };
        for (to, from) in row.iter_mut().zip(segments) {
            *to = *from;
        }
        *slot = TxFrame { segments: stored.cast(), segment_count: segments.len() as u16, ..*frame };
        *name = Some(handle);
        self.tail = self.tail.wrapping_add(1);
        true
    }

    /// The next waiting frames that lie together.
    pub(super) fn waiting_run(&self) -> &[TxFrame] {
        let begin = self.index(self.submitted);
        let end = begin.saturating_add(self.waiting() as usize).min(self.capacity() as usize);
        self.frames.as_slice().get(begin..end).unwrap_or(&[])
    }

    /// The first `count` of the waiting frames are with a path now.
    pub(super) fn mark_submitted(&mut self, count: u32) {
        self.submitted = self.submitted.wrapping_add(count.min(self.waiting()));
    }

    /// No path has any frame any more: all wait again. Answers how many came back.
    pub(super) fn rewind(&mut self) -> u32 {
        let back = self.outstanding();
        self.submitted = self.head;
        back
    }

    /// The oldest outstanding frame is complete: takes it out. `None` without one.
    pub(super) fn complete(&mut self) -> Option<(TxHandle, u32)> {
        if self.outstanding() == 0 { None } else { self.pop() }
    }

    /// Takes out the oldest frame, wherever it is; for giving up. `None` when empty.
    pub(super) fn pop(&mut self) -> Option<(TxHandle, u32)> {
        if self.head == self.tail {
            return None;
        }
        let index = self.index(self.head);
        if self.head == self.submitted {
            self.submitted = self.submitted.wrapping_add(1);
        }
        self.head = self.head.wrapping_add(1);
        let handle = self.handles.as_mut_slice().get_mut(index)?.take()?;
        let length = self.frames.as_slice().get(index)?.length;
        Some((handle, length))
    }

    /// Frees the memory; the frames must have been taken out.
    pub(super) fn free(self, os: &impl NetOs) {
        self.frames.free(os);
        self.segments.free(os);
        self.handles.free(os);
    }
}
