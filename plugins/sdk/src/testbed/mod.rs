//! A shell made of plain memory, for a plugin's tests on the host: it allocates what the header
//! asks for, calls the ops as a real shell does, and checks that the plugin keeps the contract
//! (every slot filled and indicated once, nothing completed that was not sent).

#![allow(unsafe_code)] // Stands on the other side of the plugin's calls.

mod callbacks;
mod dma;

use std::boxed::Box;
use std::collections::VecDeque;
use std::string::String;
use std::vec;
use std::vec::Vec;

use npa_abi::image::PluginHeader;
use npa_abi::net::{NetOps, TxFrame, TxSegment};
use npa_abi::plugin::{Entry, EntryCall, Instance, QueueMemory, Status};
use npa_abi::register::DEVICE_INFO_WORDS;
use npa_abi::shell_page::QUEUES_MAX;
use npa_abi::{ABI, Class};

pub use dma::Dma;

/// How the instance is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Queue pairs.
    pub pairs: u16,
    /// Entries of every ring.
    pub entries: u32,
    /// Bytes in each receive buffer.
    pub buffer_length: u32,
    /// Length of the window in bytes.
    pub window_length: usize,
    /// Vectors wired.
    pub vectors: u32,
    /// What the plugin is told of the device.
    pub device_info: [u32; DEVICE_INFO_WORDS],
}

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The frame.
    pub bytes: Vec<u8>,
    /// Lengths of its segments; their sum is the frame's length.
    pub cuts: Vec<usize>,
    /// Flags and offload fields; pointers, lengths and counts are set by the bed.
    pub offload: Offload,
}

/// Offload fields of a frame to send, as in [`TxFrame`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // As in `TxFrame`.
pub struct Offload {
    pub flags: u16,
    pub mss: u16,
    pub vlan_tag: u16,
    pub l2_length: u16,
    pub l3_length: u16,
    pub l4_length: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
}

impl Sent {
    /// A frame in one piece without offloads.
    pub fn plain(bytes: &[u8]) -> Self {
        let cuts = vec![bytes.len()];
        Self { bytes: bytes.to_vec(), cuts, offload: Offload::default() }
    }
}

/// A frame that the plugin indicated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // As in `RxFrame`.
pub struct Received {
    /// The frame's bytes; empty for a damaged one.
    pub bytes: Vec<u8>,
    pub segments: usize,
    pub flags: u16,
    pub vlan_tag: u16,
    pub checksum: u8,
    pub gso_type: u8,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
}

/// What the callbacks work on.
#[derive(Debug, Default)]
struct Shell {
    dma: Dma,
    buffer_length: u32,
    /// By queue and slot: the buffer's address.
    slots: Vec<Vec<Option<u64>>>,
    /// By queue: frames outstanding, as the addresses of their memory.
    outstanding: Vec<VecDeque<u64>>,
    received: Vec<Received>,
    completed: u32,
    /// Buffers that may still be given out; `None` is no limit.
    buffers: Option<u32>,
    violations: Vec<String>,
}

/// A plugin instance and everything around it.
#[derive(Debug)]
pub struct Bed {
    instance: *mut Instance,
    shell: *mut Shell,
    ops: Ops,
    entries: u32,
    window: u64,
}

struct Ops(NetOps);

impl std::fmt::Debug for Ops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetOps").field("size", &self.0.size).finish_non_exhaustive()
    }
}

impl Bed {
    /// Enters the plugin and sets an instance up as `header` asks.
    ///
    /// # Panics
    /// When the entry refuses, or leaves an op unfilled.
    pub fn new(entry: Entry, header: &PluginHeader, setup: &Setup) -> Self {
        let queues = 2 * usize::from(setup.pairs);
        assert!(queues <= QUEUES_MAX);
        let mut shell = Box::new(Shell {
            buffer_length: setup.buffer_length,
            slots: vec![vec![None; setup.entries as usize]; queues],
            outstanding: vec![VecDeque::new(); queues],
            ..Shell::default()
        });
        let mut memories =
            [QueueMemory { base: std::ptr::null_mut(), device_address: 0, length: 0, entries: 0 };
                QUEUES_MAX];
        for (queue, memory) in memories.iter_mut().take(queues).enumerate() {
            let length = header.roles[queue % 2].bytes(setup.entries) as usize;
            let (device_address, base) = shell.dma.allocate(length);
            let (length, entries) = (length as u32, setup.entries);
            *memory = QueueMemory { base, device_address, length, entries };
        }
        let (window, window_base) = shell.dma.allocate(setup.window_length);
        let (_, private) = shell.dma.allocate(header.private_length as usize);
        let shell = Box::into_raw(shell);
        let instance = Box::into_raw(Box::new(Instance {
            size: size_of::<Instance>() as u32,
            abi: ABI,
            queue_count: queues as u16,
            shell: &callbacks::API,
            context: shell.cast(),
            window: window_base,
            window_length: setup.window_length as u64,
            private: private.cast(),
            private_length: header.private_length,
            buffer_length: setup.buffer_length,
            vector_count: setup.vectors,
            reserved: 0,
            device_info: setup.device_info,
            queues: memories,
        }));
        Self { instance, shell, ops: Ops(enter(entry)), entries: setup.entries, window }
    }

    fn shell(&self) -> &Shell {
        // SAFETY: lives as long as the bed; callbacks run only inside ops, which take `&mut`.
        unsafe { &*self.shell }
    }

    fn shell_mut(&mut self) -> &mut Shell {
        // SAFETY: as for `shell`.
        unsafe { &mut *self.shell }
    }

    /// Memory as the device sees it.
    pub fn dma(&mut self) -> &mut Dma {
        &mut self.shell_mut().dma
    }

    /// Reads the window's register at `offset`, as the device.
    pub fn register(&self, offset: usize) -> u32 {
        let bytes = self.shell().dma.word(self.window + offset as u64).expect("in the window");
        u32::from_le_bytes(bytes)
    }

    /// Writes the window's register at `offset`, as the device.
    pub fn set_register(&mut self, offset: usize, value: u32) {
        let place = self.window + offset as u64;
        assert!(self.dma().write(place, &value.to_le_bytes()));
    }

    /// Maps the dead page over the window: everything reads ones.
    pub fn kill_window(&mut self, length: usize) {
        let window = self.window;
        assert!(self.dma().write(window, &vec![0xff; length]));
    }

    /// The device address and length of a queue's memory.
    pub fn queue_memory(&self, queue: usize) -> (u64, u32) {
        // SAFETY: lives as long as the bed.
        let memory = unsafe { &(*self.instance).queues[queue] };
        (memory.device_address, memory.length)
    }

    /// Number of entries of every ring.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Calls `sw_init`.
    pub fn sw_init(&mut self) -> Status {
        // SAFETY: the instance is whole, and no other op runs.
        unsafe { self.ops.0.sw_init.expect("filled")(self.instance) }
    }

    /// Takes back what is outstanding on `queue`, then calls `reinit_rx_ring` or `reinit_tx_ring`.
    pub fn reinit(&mut self, queue: u32) -> Status {
        self.take_back(queue as usize);
        let ops = &self.ops.0;
        let op = if queue.is_multiple_of(2) { ops.reinit_rx_ring } else { ops.reinit_tx_ring };
        // SAFETY: the instance is whole, and no other op runs.
        unsafe { op.expect("filled")(self.instance, queue) }
    }

    fn take_back(&mut self, queue: usize) {
        let shell = self.shell_mut();
        let buffers: Vec<u64> = match shell.slots.get_mut(queue) {
            Some(slots) => slots.iter_mut().filter_map(Option::take).collect(),
            None => return,
        };
        let frames: Vec<u64> = shell.outstanding[queue].drain(..).collect();
        buffers.into_iter().chain(frames).for_each(|address| shell.dma.free(address));
    }

    /// Calls `add_frames_to_tx_ring`; frames taken are outstanding from then on.
    pub fn send(&mut self, queue: u32, frames: &[Sent]) -> Status {
        let mut segments: Vec<Vec<TxSegment>> = Vec::new();
        let mut addresses = Vec::new();
        let mut descriptions = Vec::new();
        for frame in frames {
            assert_eq!(frame.cuts.iter().sum::<usize>(), frame.bytes.len());
            let (address, base) = self.dma().allocate(frame.bytes.len());
            assert!(self.dma().write(address, &frame.bytes));
            let mut at = address;
            let mut list = Vec::new();
            for &cut in &frame.cuts {
                list.push(TxSegment { address: at, length: cut as u32, reserved: 0 });
                at += cut as u64;
            }
            let o = &frame.offload;
            descriptions.push(TxFrame {
                segments: list.as_ptr(),
                segment_count: list.len() as u16,
                flags: o.flags,
                length: frame.bytes.len() as u32,
                mss: o.mss,
                vlan_tag: o.vlan_tag,
                l2_length: o.l2_length,
                l3_length: o.l3_length,
                l4_length: o.l4_length,
                csum_start: o.csum_start,
                csum_offset: o.csum_offset,
                reserved: 0,
                headers: base,
            });
            segments.push(list);
            addresses.push(address);
        }
        let (first, count) = (descriptions.as_ptr(), descriptions.len() as u32);
        // SAFETY: instance and frames are whole, and no other op runs.
        let taken = unsafe {
            self.ops.0.add_frames_to_tx_ring.expect("filled")(self.instance, queue, first, count)
        };
        let kept = usize::try_from(taken).unwrap_or(0);
        assert!(kept <= frames.len(), "more taken than given");
        let (kept, left) = addresses.split_at(kept);
        self.shell_mut().outstanding[queue as usize].extend(kept);
        left.iter().for_each(|&address| self.dma().free(address));
        taken
    }

    /// Calls `check_tx_ring`.
    pub fn reap(&mut self, queue: u32) -> Status {
        let before = self.shell().completed;
        // SAFETY: the instance is whole, and no other op runs.
        let done = unsafe { self.ops.0.check_tx_ring.expect("filled")(self.instance, queue) };
        if done >= 0 {
            assert_eq!(self.shell().completed - before, done as u32, "answer and callback differ");
        }
        done
    }

    /// Calls `check_rx_ring` and answers what was indicated.
    pub fn receive(&mut self, queue: u32, budget: u32) -> Vec<Received> {
        // SAFETY: the instance is whole, and no other op runs.
        let count =
            unsafe { self.ops.0.check_rx_ring.expect("filled")(self.instance, queue, budget) };
        let received = std::mem::take(&mut self.shell_mut().received);
        assert_eq!(count, received.len() as Status, "answer and callbacks differ");
        received
    }

    /// Calls `add_buffers_to_rx_ring`.
    pub fn refill(&mut self, queue: u32, count: u32) -> Status {
        // SAFETY: the instance is whole, and no other op runs.
        unsafe { self.ops.0.add_buffers_to_rx_ring.expect("filled")(self.instance, queue, count) }
    }

    /// Calls `enable_interrupt`.
    pub fn arm(&mut self, queue: u32) -> Status {
        // SAFETY: the instance is whole, and no other op runs.
        unsafe { self.ops.0.enable_interrupt.expect("filled")(self.instance, queue) }
    }

    /// Calls `disable_interrupt`.
    pub fn disarm(&mut self, queue: u32) -> Status {
        // SAFETY: the instance is whole, and no other op runs.
        unsafe { self.ops.0.disable_interrupt.expect("filled")(self.instance, queue) }
    }

    /// Calls `quiesce`.
    pub fn quiesce(&mut self) -> Status {
        // SAFETY: the instance is whole, and no other op runs.
        unsafe { self.ops.0.quiesce.expect("filled")(self.instance) }
    }

    /// Frames sent and not completed.
    pub fn outstanding(&self, queue: usize) -> usize {
        self.shell().outstanding[queue].len()
    }

    /// Slots of `queue` that hold a buffer.
    pub fn filled(&self, queue: usize) -> usize {
        self.shell().slots[queue].iter().flatten().count()
    }

    /// Lets only `count` more buffers be had.
    pub fn limit_buffers(&mut self, count: u32) {
        self.shell_mut().buffers = Some(count);
    }

    /// What the plugin did against the contract, so far.
    pub fn violations(&self) -> &[String] {
        &self.shell().violations
    }
}

fn enter(entry: Entry) -> NetOps {
    let mut ops = NetOps {
        size: 0,
        abi: 0,
        sw_init: None,
        reinit_rx_ring: None,
        reinit_tx_ring: None,
        enable_interrupt: None,
        disable_interrupt: None,
        add_frames_to_tx_ring: None,
        check_tx_ring: None,
        check_rx_ring: None,
        add_buffers_to_rx_ring: None,
        quiesce: None,
    };
    let mut call = EntryCall {
        size: size_of::<EntryCall>() as u32,
        abi: ABI,
        class: Class::Net as u16,
        ops: std::ptr::from_mut(&mut ops).cast(),
        ops_size: size_of::<NetOps>() as u32,
        reserved: 0,
    };
    // SAFETY: the call is whole.
    let status = unsafe { entry(&mut call) };
    assert_eq!(status, npa_abi::plugin::OK, "the entry refuses");
    assert_eq!(ops.size as usize, size_of::<NetOps>());
    ops
}

impl Drop for Bed {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `new`, and used by nobody any more.
        drop(unsafe { Box::from_raw(self.instance) });
        // SAFETY: as before.
        drop(unsafe { Box::from_raw(self.shell) });
    }
}
