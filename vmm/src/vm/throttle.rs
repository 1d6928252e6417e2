//! Slows a guest down by holding all its vCPUs for a part of the time, so that memory can be copied
//! faster than the guest writes it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use super::machine::Vm;
use super::run_state::{RunEvent, RunState};

/// One turn of holding and running.
const TURN: Duration = Duration::from_millis(20);

/// How much a guest is to be slowed down, until it is dropped or ended.
#[derive(Debug, Default)]
pub struct Throttle {
    percent: AtomicU8,
    ended: AtomicBool,
}

impl Throttle {
    /// Holds the vCPUs for `percent` of the time, at most 99, from now on.
    pub fn set(&self, percent: u8) {
        self.percent.store(percent.min(99), Ordering::Relaxed);
    }

    /// Lets [`Vm::slow_down`] return.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

impl Vm {
    /// Slows the guest down as `throttle` says until it ends. Whoever pauses or stops the VM
    /// meanwhile has his way.
    pub fn slow_down(&self, throttle: &Throttle) {
        while !throttle.ended.load(Ordering::Acquire) {
            let percent = u32::from(throttle.percent.load(Ordering::Relaxed));
            let held = TURN * percent / 100;
            if percent > 0 {
                let lifecycle = self.lifecycle.lock().unwrap();
                if lifecycle.state == RunState::Running {
                    self.hold();
                }
                drop(lifecycle);
                std::thread::sleep(held);
                let lifecycle = self.lifecycle.lock().unwrap();
                let wanted = lifecycle.state == RunState::Running && lifecycle.suspended.is_none();
                if wanted && self.pending.load(Ordering::SeqCst) == 0 {
                    self.control.apply(RunEvent::Resume);
                }
            }
            std::thread::sleep(TURN - held);
        }
    }
}
