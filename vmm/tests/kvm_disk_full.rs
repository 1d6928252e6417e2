//! A snapshot that cannot be written. Alone in its process, whose limits it changes.

mod bare;

use std::path::Path;
use std::time::{Duration, Instant};

use bare::{Code, Machine, SCRATCH, has_kvm};
use vm_memory::{Bytes, GuestAddress};
use vmm::migration::{Progress, snapshot};
use vmm::vm::Vm;

fn count(vm: &Vm) -> u32 {
    vm.device_context().memory.ram().read_obj(GuestAddress(SCRATCH.into())).unwrap()
}

/// Whether the machine counts on.
fn counts(vm: &Vm) -> bool {
    let (before, started) = (count(vm), Instant::now());
    while count(vm) == before && started.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(1));
    }
    count(vm) != before
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_machine_and_folder_as_they_were() {
    if !has_kvm("a_snapshot_that_cannot_be_written_leaves_machine_and_folder_as_they_were") {
        return;
    }
    let source = Machine::new(Code::new().count_for_ever(SCRATCH));
    source.vm.start().unwrap();
    let progress = Progress::default();
    let nowhere = Path::new("/proc/npa-snapshot");
    let error = snapshot::save(&source.vm, &[], nowhere, true, &progress).unwrap_err();
    assert!(error.to_string().contains("cannot create"), "{error}");
    assert!(counts(&source.vm));
    let folder = tempfile::tempdir().unwrap();
    let full = folder.path().join("full");
    // One that was killed left this.
    std::fs::create_dir(folder.path().join("full.partial")).unwrap();
    let limit = FileSizeLimit::new(1 << 20);
    let outcome = snapshot::save(&source.vm, &[], &full, true, &progress);
    drop(limit);
    assert!(outcome.is_err());
    assert!(counts(&source.vm));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Lets this process write files of so many bytes only.
struct FileSizeLimit(rustix::process::Rlimit);

impl FileSizeLimit {
    fn new(bytes: u64) -> Self {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        // The signal's default would end the process instead of failing the write.
        vmm_sys_util::signal::register_signal_handler(libc::SIGXFSZ, ignore).unwrap();
        let before = getrlimit(Resource::Fsize);
        let limit = Rlimit { current: Some(bytes), maximum: before.maximum };
        setrlimit(Resource::Fsize, limit).unwrap();
        Self(before)
    }
}

impl Drop for FileSizeLimit {
    fn drop(&mut self) {
        rustix::process::setrlimit(rustix::process::Resource::Fsize, self.0).unwrap();
    }
}

extern "C" fn ignore(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
