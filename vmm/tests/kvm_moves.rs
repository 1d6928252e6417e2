//! Saving, restoring and moving machines on a real /dev/kvm. What goes wrong on the way is in
//! `kvm_move_faults.rs`.

mod bare;
mod moves;

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use bare::{Code, Machine, SCRATCH, has_kvm};
use moves::{awaited, count, counting, counts, options, stands_still, started};
use vm_memory::{Bytes, GuestAddress};
use vmm::migration::{
    Endpoint, Listener, MigrateOptions, MigrationError, OnTimeout, Policy, Progress, migrate,
    receive, snapshot,
};
use vmm::vm::{RunState, Vm, VmError, VmExit};

fn copy_memory(from: &Vm, to: &Vm) {
    let (from, to) = (&from.device_context().memory, &to.device_context().memory);
    let mut page = vec![0; 4096];
    for range in from.ranges() {
        for at in (range.gpa..range.gpa + range.len).step_by(4096) {
            from.ram().read_slice(&mut page, GuestAddress(at)).unwrap();
            to.ram().write_slice(&page, GuestAddress(at)).unwrap();
        }
    }
}

#[test]
fn a_restored_machine_goes_on_where_the_saved_one_stopped() {
    if !has_kvm("a_restored_machine_goes_on_where_the_saved_one_stopped") {
        return;
    }
    let old = started();
    assert!(matches!(old.vm.save(), Err(VmError::NotHeld)));
    old.vm.suspend().unwrap();
    assert!(stands_still(&old.vm));
    let state = old.vm.save().unwrap();
    let new = counting();
    copy_memory(&old.vm, &new.vm);
    new.vm.restore(&state).unwrap();
    assert!(stands_still(&new.vm));
    assert!(matches!(new.vm.restore(&state), Err(VmError::Started)));
    let before = count(&new.vm);
    new.vm.unsuspend().unwrap();
    assert!(counts(&new.vm) && count(&new.vm) > before);
    assert!(stands_still(&old.vm));
    // The old one can go on too: saving changed nothing.
    old.vm.unsuspend().unwrap();
    assert!(counts(&old.vm));
}

#[test]
fn a_damaged_or_foreign_state_is_refused() {
    if !has_kvm("a_damaged_or_foreign_state_is_refused") {
        return;
    }
    let old = started();
    old.vm.suspend().unwrap();
    let state = old.vm.save().unwrap();
    for at in (0..state.len()).step_by(97) {
        let mut damaged = state.clone();
        damaged[at] ^= 0x10;
        assert!(counting().vm.restore(&damaged).is_err(), "byte {at}");
        if at % 8 == 0 {
            assert!(counting().vm.restore(&state[..at]).is_err(), "{at} bytes");
        }
    }
    let error = counting().vm.restore(b"").unwrap_err();
    assert!(error.to_string().contains("no VM state"), "{error}");
}

#[test]
fn a_pause_outlives_being_suspended() {
    if !has_kvm("a_pause_outlives_being_suspended") {
        return;
    }
    let machine = started();
    machine.vm.pause().unwrap();
    machine.vm.suspend().unwrap();
    machine.vm.unsuspend().unwrap();
    assert_eq!(machine.vm.state(), RunState::Paused);
    assert!(stands_still(&machine.vm));
    machine.vm.resume().unwrap();
    assert!(counts(&machine.vm));
}

#[test]
fn the_dirty_log_has_what_guest_and_vmm_wrote_and_nothing_else() {
    if !has_kvm("the_dirty_log_has_what_guest_and_vmm_wrote_and_nothing_else") {
        return;
    }
    let machine = started();
    machine.vm.start_dirty_log().unwrap();
    machine.vm.take_dirty().unwrap();
    assert!(counts(&machine.vm));
    let ram = machine.vm.device_context().memory.ram();
    ram.write_obj(1_u8, GuestAddress(0x80_0000)).unwrap();
    let pages: Vec<_> = machine.vm.take_dirty().unwrap().runs(1).map(|run| run.gpa).collect();
    assert_eq!(pages, [u64::from(SCRATCH), 0x80_0000]);
    machine.vm.suspend().unwrap();
    machine.vm.take_dirty().unwrap();
    assert!(machine.vm.take_dirty().unwrap().is_empty());
    machine.vm.stop_dirty_log().unwrap();
}

#[test]
fn a_machine_moves_and_counts_on() {
    if !has_kvm("a_machine_moves_and_counts_on") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let meeting = folder.path().join("meeting");
    let destination = awaited(&meeting);
    let source = started();
    let report = migrate(&source.vm, &[], &options(&meeting), &Progress::default()).unwrap();
    let (moved, outcome) = destination.join().unwrap();
    outcome.unwrap();
    assert!(counts(&moved.vm) && stands_still(&source.vm));
    assert!(count(&moved.vm) >= count(&source.vm));
    assert!(report.verified && report.downtime_ms > 0.0 && !report.rounds.is_empty());
    // Memory is 16 MiB, nearly all of it zero.
    assert!(report.bytes < 1 << 20, "{} bytes", report.bytes);
    source.vm.hand_over();
    assert_eq!(source.vm.wait().unwrap(), VmExit::HandedOver);
}

#[test]
fn a_destination_unlike_the_source_is_refused_by_name_before_anything_is_sent() {
    if !has_kvm("a_destination_unlike_the_source_is_refused_by_name") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let meeting = folder.path().join("meeting");
    let listener = Listener::bind(Endpoint::Unix(meeting.clone()), None).unwrap();
    let destination = std::thread::spawn(move || {
        let machine = Machine::with_memory(Code::new().count_for_ever(SCRATCH), 32);
        receive(&machine.vm, &[], listener.wait(), &|| {}).err().unwrap().to_string()
    });
    let source = started();
    let error = migrate(&source.vm, &[], &options(&meeting), &Progress::default()).unwrap_err();
    assert!(error.to_string().contains("it has 32 MiB, not 16"), "{error}");
    assert!(destination.join().unwrap().contains("32 MiB"));
    assert!(counts(&source.vm));
}

#[test]
fn nobody_there_and_nonsense_there_are_told() {
    if !has_kvm("nobody_there_and_nonsense_there_are_told") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let meeting = folder.path().join("meeting");
    let source = started();
    let progress = Progress::default();
    let error = migrate(&source.vm, &[], &options(&meeting), &progress).unwrap_err();
    assert!(error.to_string().contains("--incoming"), "{error}");
    let listener = UnixListener::bind(&meeting).unwrap();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let error = migrate(&source.vm, &[], &options(&meeting), &progress).unwrap_err();
    other.join().unwrap();
    assert!(matches!(error, MigrationError::Channel { .. }), "{error}");
    assert!(counts(&source.vm));
    assert!(matches!(progress.cancel(), Err(MigrationError::NothingToCancel)));
    assert!(progress.last().unwrap().is_err());
}

#[test]
fn a_cancelled_move_leaves_the_machine() {
    if !has_kvm("a_cancelled_move_leaves_the_machine") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let meeting = folder.path().join("meeting");
    let destination = awaited(&meeting);
    let source = started();
    // So much to send, so slowly, that there is time.
    let ram = source.vm.device_context().memory.ram();
    ram.write_slice(&vec![7; 6 << 20], GuestAddress(0x80_0000)).unwrap();
    let options = MigrateOptions { bandwidth: Some(1_000_000), ..options(&meeting) };
    let progress = Progress::default();
    let outcome = std::thread::scope(|scope| {
        let moving = scope.spawn(|| migrate(&source.vm, &[], &options, &progress));
        while progress.view().phase != "copying" || progress.view().done_bytes == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let second = migrate(&source.vm, &[], &options, &progress);
        assert!(matches!(second, Err(MigrationError::Busy)));
        progress.cancel().unwrap();
        moving.join().unwrap()
    });
    assert!(matches!(outcome, Err(MigrationError::Cancelled)));
    let (moved, arrived) = destination.join().unwrap();
    let why = arrived.unwrap_err().to_string();
    assert!(why.contains("cancelled"), "{why}");
    assert!(counts(&source.vm) && stands_still(&moved.vm));
}

/// Writes to more pages than a slow connection carries.
fn busy() -> Machine {
    Machine::new(Code::new().write_for_ever(0x80_0000, 4 << 20))
}

#[test]
fn a_guest_that_writes_too_fast_stays_or_is_forced_as_its_owner_says() {
    if !has_kvm("a_guest_that_writes_too_fast_stays_or_is_forced_as_its_owner_says") {
        return;
    }
    for on_timeout in [OnTimeout::Cancel, OnTimeout::Force] {
        let folder = tempfile::tempdir().unwrap();
        let meeting = folder.path().join("meeting");
        let destination = awaited(&meeting);
        let source = busy();
        source.vm.start().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let policy = Policy {
            downtime_target: Duration::from_millis(1),
            timeout: Duration::from_secs(1),
            on_timeout,
            throttle: false,
        };
        let options = MigrateOptions { policy, bandwidth: Some(8_000_000), ..options(&meeting) };
        let outcome = migrate(&source.vm, &[], &options, &Progress::default());
        let (_, arrived) = destination.join().unwrap();
        match on_timeout {
            OnTimeout::Cancel => {
                let error = outcome.unwrap_err();
                assert!(matches!(error, MigrationError::NotConverging { .. }), "{error}");
                assert!(arrived.is_err());
                assert_eq!(source.vm.state(), RunState::Running);
            }
            OnTimeout::Force => assert!(outcome.unwrap().verified && arrived.is_ok()),
        }
    }
}

/// A connection that would need far longer than was allowed for the first pass alone.
#[test]
fn time_is_up_within_a_pass_too() {
    if !has_kvm("time_is_up_within_a_pass_too") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let meeting = folder.path().join("meeting");
    let destination = awaited(&meeting);
    let source = started();
    let ram = source.vm.device_context().memory.ram();
    ram.write_slice(&vec![7; 8 << 20], GuestAddress(0x80_0000)).unwrap();
    let policy = Policy { timeout: Duration::from_secs(1), ..Policy::default() };
    let options = MigrateOptions { policy, bandwidth: Some(500_000), ..options(&meeting) };
    let error = migrate(&source.vm, &[], &options, &Progress::default()).unwrap_err();
    assert!(matches!(error, MigrationError::TooSlow { .. }), "{error}");
    let (moved, arrived) = destination.join().unwrap();
    let why = arrived.unwrap_err().to_string();
    assert!(why.contains("still being copied"), "{why}");
    assert!(counts(&source.vm) && stands_still(&moved.vm));
}

#[test]
fn a_snapshot_restores_as_often_as_it_is_wanted() {
    if !has_kvm("a_snapshot_restores_as_often_as_it_is_wanted") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("snapshot");
    let source = started();
    let progress = Progress::default();
    snapshot::save(&source.vm, &[], &saved, false, &progress).unwrap();
    assert!(counts(&source.vm));
    let again = snapshot::save(&source.vm, &[], &saved, false, &progress).unwrap_err();
    assert!(matches!(again, MigrationError::Exists(_)), "{again}");
    let before = count(&source.vm);
    for _ in 0..2 {
        let code = Code::new().count_for_ever(SCRATCH);
        let restored = Machine::from_memory(code, &snapshot::memory_file(&saved));
        let first = count(&restored.vm);
        assert!(first > 0 && first <= before);
        snapshot::restore(&restored.vm, &[], &saved).unwrap();
        assert!(counts(&restored.vm) && count(&restored.vm) > first);
    }
    // A machine that ends with its snapshot.
    let last = folder.path().join("last");
    snapshot::save(&source.vm, &[], &last, true, &progress).unwrap();
    assert!(stands_still(&source.vm));
}
