//! A net plugin's ops, checked to be all there, and safe calls of them.
#![allow(unsafe_code)] // Calls code that was built elsewhere, with raw pointers.

use crate::os::NetOs;
use crate::plugin::{Code, InstanceMemory};
use npa_abi::ABI;
use npa_abi::net::{NetOps, TxFrame};
use npa_abi::plugin::{Instance, Status};

use super::callbacks::{Call, Scope};
use super::path::RxSlots;

type Plain = unsafe extern "sysv64" fn(*mut Instance) -> Status;
type OfQueue = unsafe extern "sysv64" fn(*mut Instance, u32) -> Status;
type OfQueueCount = unsafe extern "sysv64" fn(*mut Instance, u32, u32) -> Status;
type AddFrames = unsafe extern "sysv64" fn(*mut Instance, u32, *const TxFrame, u32) -> Status;

/// The ops of a plugin, every one present and within the plugin's code.
#[derive(Clone, Copy)]
pub(super) struct NetCalls {
    sw_init: Plain,
    reinit_rx_ring: OfQueue,
    reinit_tx_ring: OfQueue,
    enable_interrupt: OfQueue,
    disable_interrupt: OfQueue,
    add_frames_to_tx_ring: AddFrames,
    check_tx_ring: OfQueue,
    check_rx_ring: OfQueueCount,
    add_buffers_to_rx_ring: OfQueueCount,
    quiesce: Plain,
}

/// An op without arguments of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// `sw_init`
    SwInit,
    /// `reinit_rx_ring`
    ReinitRx(u32),
    /// `reinit_tx_ring`
    ReinitTx(u32),
    /// `enable_interrupt`
    EnableInterrupt(u32),
    /// `disable_interrupt`
    DisableInterrupt(u32),
    /// `check_tx_ring`
    CheckTx(u32),
    /// `check_rx_ring` with a budget
    CheckRx(u32, u32),
    /// `add_buffers_to_rx_ring` with a count
    AddBuffers(u32, u32),
    /// `quiesce`
    Quiesce,
}

impl NetCalls {
    /// Checks the table that an entry filled; `None` if it is too short, of another ABI, or an op
    /// is missing or not in the plugin's code.
    pub(super) fn check(ops: &NetOps, code: Code) -> Option<Self> {
        if (ops.size as usize) < size_of::<NetOps>() || ops.abi != u32::from(ABI) {
            return None;
        }
        macro_rules! op {
            ($name:ident) => {
                ops.$name.filter(|op| code.contains(*op as usize))?
            };
        }
        Some(Self {
            sw_init: op!(sw_init),
            reinit_rx_ring: op!(reinit_rx_ring),
            reinit_tx_ring: op!(reinit_tx_ring),
            enable_interrupt: op!(enable_interrupt),
            disable_interrupt: op!(disable_interrupt),
            add_frames_to_tx_ring: op!(add_frames_to_tx_ring),
            check_tx_ring: op!(check_tx_ring),
            check_rx_ring: op!(check_rx_ring),
            add_buffers_to_rx_ring: op!(add_buffers_to_rx_ring),
            quiesce: op!(quiesce),
        })
    }

    /// Calls `op`. The plugin may call back as `call` allows; whether it broke a rule while it did
    /// is the second answer.
    pub(super) fn call<O: NetOs>(
        &self,
        os: &O,
        instance: &mut InstanceMemory,
        slots: &mut RxSlots,
        call: Call<'_>,
        op: Op,
    ) -> (Status, bool) {
        let mut scope = Scope::new(os, slots, call);
        let status = instance.call(&mut scope, |instance| {
            // SAFETY: the instance is live and not otherwise used during the call; the op comes
            // from a checked table; its callbacks find `scope` through the instance's context.
            unsafe {
                match op {
                    Op::SwInit => (self.sw_init)(instance),
                    Op::ReinitRx(queue) => (self.reinit_rx_ring)(instance, queue),
                    Op::ReinitTx(queue) => (self.reinit_tx_ring)(instance, queue),
                    Op::EnableInterrupt(queue) => (self.enable_interrupt)(instance, queue),
                    Op::DisableInterrupt(queue) => (self.disable_interrupt)(instance, queue),
                    Op::CheckTx(queue) => (self.check_tx_ring)(instance, queue),
                    Op::CheckRx(queue, budget) => (self.check_rx_ring)(instance, queue, budget),
                    Op::AddBuffers(queue, count) => {
                        (self.add_buffers_to_rx_ring)(instance, queue, count)
                    }
                    Op::Quiesce => (self.quiesce)(instance),
                }
            }
        });
        (status, scope.broken())
    }

    /// Calls `add_frames_to_tx_ring` with `frames`.
    pub(super) fn add_frames<O: NetOs>(
        &self,
        os: &O,
        instance: &mut InstanceMemory,
        slots: &mut RxSlots,
        queue: u32,
        frames: &[TxFrame],
    ) -> (Status, bool) {
        let mut scope = Scope::new(os, slots, Call::Other);
        let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        let status = instance.call(&mut scope, |instance| {
            // SAFETY: as above; the frames and the segments they point to outlive the call.
            unsafe { (self.add_frames_to_tx_ring)(instance, queue, frames.as_ptr(), count) }
        });
        (status, scope.broken())
    }
}
