//! Waits for the VM that another host moves here, beside the thread that serves the VM.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Failure;
use super::moving::Mover;
use crate::migration::{Listener, MigrationError, receive};
use crate::sandbox::{self, Role};
use crate::vm::Vm;

/// An expected VM.
pub(super) struct ExpectedVm {
    failure: Arc<Mutex<Option<MigrationError>>>,
}

impl ExpectedVm {
    /// Why the VM did not come, if it did not.
    pub(super) fn failure(&self) -> Option<Failure> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure
            .take()
            .map(|error| format!("the VM did not come: {}", crate::api::chain(&error)).into())
    }
}

/// Takes the first VM that comes to `listener`; if that fails, ends `vm`, which then is of no use.
///
/// # Errors
/// When the host has no thread left.
pub(super) fn expect(
    vm: Arc<Vm>,
    mover: Arc<Mover>,
    listener: Listener,
    incoming: Arc<AtomicBool>,
) -> std::io::Result<ExpectedVm> {
    let failure = Arc::new(Mutex::new(None));
    let expected = ExpectedVm { failure: Arc::clone(&failure) };
    tracing::info!(at = %listener.endpoint(), "waiting for a VM");
    std::thread::Builder::new().name("incoming".to_owned()).spawn(move || {
        sandbox::enter(Role::Operator);
        let channel = listener.wait();
        // One VM, and no other after it.
        drop(listener);
        let here = || incoming.store(false, Ordering::Release);
        let arrived = receive(&vm, mover.devices(), channel, &here);
        if let Err(error) = arrived {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            vm.stop();
        }
    })?;
    Ok(expected)
}
