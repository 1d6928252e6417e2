//! Machines that count, and a wire between two of them that can be damaged.

#![allow(dead_code)] // Each test binary uses a part.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};
use vmm::migration::{
    Endpoint, Fallback, Listener, MigrateOptions, MigrationError, Policy, Report, receive,
};
use vmm::vm::Vm;

use crate::bare::{Code, Machine, SCRATCH};

/// A machine that counts for ever.
pub(crate) fn counting() -> Machine {
    Machine::new(Code::new().count_for_ever(SCRATCH))
}

pub(crate) fn count(vm: &Vm) -> u32 {
    vm.device_context().memory.ram().read_obj(GuestAddress(SCRATCH.into())).unwrap()
}

/// Whether the machine counts on.
pub(crate) fn counts(vm: &Vm) -> bool {
    let before = count(vm);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        if count(vm) != before {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

pub(crate) fn stands_still(vm: &Vm) -> bool {
    let before = count(vm);
    std::thread::sleep(Duration::from_millis(30));
    count(vm) == before
}

pub(crate) fn started() -> Machine {
    let machine = counting();
    machine.vm.start().unwrap();
    assert!(counts(&machine.vm));
    machine
}

pub(crate) fn options(to: &Path) -> MigrateOptions {
    MigrateOptions {
        to: Endpoint::Unix(to.to_owned()),
        identity: None,
        policy: Policy::default(),
        fallback: Fallback::Late,
        bandwidth: None,
        verify: true,
    }
}

/// Waits for a machine at `at`; the thread returns it with how that ended.
pub(crate) fn awaited(at: &Path) -> std::thread::JoinHandle<(Machine, Result<(), MigrationError>)> {
    let listener = Listener::bind(Endpoint::Unix(at.to_owned()), None).unwrap();
    std::thread::spawn(move || {
        let machine = counting();
        let outcome = receive(&machine.vm, &[], listener.wait(), &|| {}).map(drop);
        (machine, outcome)
    })
}

/// Passes on what goes from the source to the destination until `damage` is done, and everything
/// the other way.
pub(crate) fn through_a_wire(
    front: &Path,
    back: PathBuf,
    mut damage: impl FnMut(u64, &mut Vec<u8>) -> bool + Send + 'static,
) -> (std::thread::JoinHandle<()>, Arc<AtomicU64>) {
    let listener = UnixListener::bind(front).unwrap();
    let carried = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&carried);
    let wire = std::thread::spawn(move || {
        let (mut from, _) = listener.accept().unwrap();
        let mut to = UnixStream::connect(back).unwrap();
        let (mut answers, mut asker) = (to.try_clone().unwrap(), from.try_clone().unwrap());
        let backwards = std::thread::spawn(move || {
            // Ends with either end.
            let _ = std::io::copy(&mut answers, &mut asker);
            let _ = asker.shutdown(std::net::Shutdown::Both);
        });
        let mut buffer = vec![0; 1 << 16];
        loop {
            let len = from.read(&mut buffer).unwrap_or(0);
            let mut bytes = buffer[..len].to_vec();
            let goes_on = len > 0 && damage(counter.load(Ordering::Relaxed), &mut bytes);
            counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if to.write_all(&bytes).is_err() || !goes_on {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
        let _ = from.shutdown(std::net::Shutdown::Both);
        backwards.join().unwrap();
    });
    (wire, carried)
}

/// Exactly one of the two runs: the source if the move failed. In doubt, which is what a connection
/// that was reset leaves, none but the destination; if it does not, the operator lets the source go on.
pub(crate) fn expect_one(
    source: &Machine,
    outcome: &Result<Report, MigrationError>,
    moved: &Machine,
) {
    match outcome {
        Ok(_) => {
            assert!(counts(&moved.vm), "nobody runs after a move");
            assert!(stands_still(&source.vm), "both run after a move");
        }
        Err(MigrationError::InDoubt) => {
            assert!(stands_still(&source.vm), "in doubt, and it runs");
            if stands_still(&moved.vm) {
                source.vm.unsuspend().unwrap();
                assert!(counts(&source.vm), "nobody runs");
            }
        }
        Err(error) => {
            assert!(counts(&source.vm), "nobody runs after: {error}");
            assert!(stands_still(&moved.vm), "both run after: {error}");
        }
    }
}
