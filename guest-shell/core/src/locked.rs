//! The two cells through which the shell's state is reached, and with them all its aliasing rules:
//!
//! - [`PathCell`]: what the data path and the control side share. Reached only between
//!   [`Os::path_lock`] and [`Os::path_unlock`], and never from within itself.
//! - [`ControlCell`]: what only the control side uses. Its calls come one at a time; a second one
//!   is turned away, not waited for.
#![allow(unsafe_code)] // Interior mutability behind the operating system's lock.

use crate::os::Os;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// State behind the path lock.
pub(crate) struct PathCell<T> {
    value: UnsafeCell<T>,
}

// SAFETY: `with` hands out the value only under the operating system's lock.
unsafe impl<T: Send> Sync for PathCell<T> {}

impl<T> PathCell<T> {
    /// Wraps `value`.
    pub(crate) const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value) }
    }

    /// Runs `work` on the value with the path lock held.
    pub(crate) fn with<O: Os, R>(&self, os: &O, work: impl FnOnce(&mut T) -> R) -> R {
        let _guard = LockGuard::new(os);
        // SAFETY: the lock is held until `_guard` goes, and the operating system's services do
        // not call the shell while it is (see `crate::os`), so this is the only reference.
        work(unsafe { &mut *self.value.get() })
    }
}

struct LockGuard<'a, O: Os>(&'a O);

impl<'a, O: Os> LockGuard<'a, O> {
    fn new(os: &'a O) -> Self {
        os.path_lock();
        Self(os)
    }
}

impl<O: Os> Drop for LockGuard<'_, O> {
    fn drop(&mut self) {
        self.0.path_unlock();
    }
}

/// State of the control side.
pub(crate) struct ControlCell<T> {
    busy: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `try_with` hands out the value to one caller at a time.
unsafe impl<T: Send> Sync for ControlCell<T> {}

impl<T> ControlCell<T> {
    /// Wraps `value`.
    pub(crate) const fn new(value: T) -> Self {
        Self { busy: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Runs `work` on the value; `None` if another call is doing so.
    pub(crate) fn try_with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.busy.swap(true, Ordering::Acquire) {
            return None;
        }
        let _guard = BusyGuard(&self.busy);
        // SAFETY: the flag was clear and is ours until `_guard` goes.
        Some(work(unsafe { &mut *self.value.get() }))
    }
}

struct BusyGuard<'a>(&'a AtomicBool);

impl Drop for BusyGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
