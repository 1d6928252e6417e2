//! Saving, restoring and moving machines on a real /dev/kvm, with everything that can go wrong on
//! the way: exactly one of them runs afterwards.

mod bare;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bare::{Code, Machine, SCRATCH, has_kvm};
use vm_memory::{Bytes, GuestAddress};
use vmm::api::{Accelerated, ApiError, DeviceStatus, ErrorCode, FellBack, SwitchReport};
use vmm::migration::{
    Endpoint, Fallback, Listener, MigrateOptions, MigrationError, MovingDevice, OnTimeout, Policy,
    Progress, Report, migrate, receive, snapshot,
};
use vmm::virtio::worker::CallError;
use vmm::virtio::{Arrival, Arrivals, Intake, PathCounters};
use vmm::vm::{RunState, Vm, VmError, VmExit};

/// A machine that counts for ever.
fn counting() -> Machine {
    Machine::new(Code::new().count_for_ever(SCRATCH))
}

fn count(vm: &Vm) -> u32 {
    vm.device_context().memory.ram().read_obj(GuestAddress(SCRATCH.into())).unwrap()
}

/// Whether the machine counts on.
fn counts(vm: &Vm) -> bool {
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

fn stands_still(vm: &Vm) -> bool {
    let before = count(vm);
    std::thread::sleep(Duration::from_millis(30));
    count(vm) == before
}

fn started() -> Machine {
    let machine = counting();
    machine.vm.start().unwrap();
    assert!(counts(&machine.vm));
    machine
}

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

fn options(to: &Path) -> MigrateOptions {
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
fn awaited(at: &Path) -> std::thread::JoinHandle<(Machine, Result<(), MigrationError>)> {
    let listener = Listener::bind(Endpoint::Unix(at.to_owned()), None).unwrap();
    std::thread::spawn(move || {
        let machine = counting();
        let outcome = receive(&machine.vm, &[], listener.wait(), &|| {}).map(drop);
        (machine, outcome)
    })
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

/// Passes on what goes from the source to the destination until `damage` is done, and everything
/// the other way.
fn through_a_wire(
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

/// Moves a machine over a wire that does `damage`; returns both machines and both outcomes, and
/// the bytes that were carried.
fn moved_over(
    damage: impl FnMut(u64, &mut Vec<u8>) -> bool + Send + 'static,
) -> (Machine, Result<Report, MigrationError>, Machine, Result<(), MigrationError>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let (front, back) = (folder.path().join("front"), folder.path().join("back"));
    let destination = awaited(&back);
    let (wire, carried) = through_a_wire(&front, back, damage);
    let source = started();
    let outcome = migrate(&source.vm, &[], &options(&front), &Progress::default());
    wire.join().unwrap();
    let (moved, arrived) = destination.join().unwrap();
    (source, outcome, moved, arrived, carried.load(Ordering::Relaxed))
}

/// A destination that has heard less than this goes on waiting for a VM.
const PREAMBLE: u64 = 11;

/// Exactly one of the two runs: the source if the move failed.
fn expect_one(source: &Machine, outcome: &Result<Report, MigrationError>, moved: &Machine) {
    match outcome {
        Ok(_) => {
            assert!(counts(&moved.vm), "nobody runs after a move");
            assert!(stands_still(&source.vm), "both run after a move");
        }
        Err(error) => {
            assert!(counts(&source.vm), "nobody runs after: {error}");
            assert!(stands_still(&moved.vm), "both run after: {error}");
        }
    }
}

#[test]
fn a_stream_that_is_cut_anywhere_leaves_one_machine() {
    if !has_kvm("a_stream_that_is_cut_anywhere_leaves_one_machine") {
        return;
    }
    let (source, outcome, moved, arrived, whole) = moved_over(|_, _| true);
    arrived.unwrap();
    expect_one(&source, &outcome, &moved);
    assert!(outcome.is_ok());
    // *Go* and what follows are the last few messages.
    let cuts = (PREAMBLE..whole.saturating_sub(32)).step_by((whole / 24) as usize);
    let ends = (1..=4).map(|back| whole - 16 * back - 8);
    for cut in cuts.chain(ends) {
        let (source, outcome, moved, arrived, _) = moved_over(move |carried, bytes| {
            let left = cut.saturating_sub(carried) as usize;
            let all = left > bytes.len();
            bytes.truncate(left);
            all
        });
        expect_one(&source, &outcome, &moved);
        assert_eq!(outcome.is_ok(), arrived.is_ok(), "cut after {cut} bytes of {whole}");
    }
}

/// A card to which frames came that its guest has not got.
#[derive(Default)]
struct Card {
    intake: Mutex<Option<Intake>>,
    waiting: Mutex<Vec<Arrival>>,
    delivered: Mutex<Vec<Arrival>>,
}

impl Arrivals for Card {
    fn id(&self) -> &str {
        "net0"
    }

    fn set_intake(&self, intake: Intake) -> Result<(), CallError> {
        *self.intake.lock().unwrap() = Some(intake);
        Ok(())
    }

    fn collect(&self) -> Result<Vec<Arrival>, CallError> {
        Ok(std::mem::take(&mut *self.waiting.lock().unwrap()))
    }

    fn deliver(&self, arrivals: Vec<Arrival>) -> Result<(), CallError> {
        self.delivered.lock().unwrap().extend(arrivals);
        Ok(())
    }

    fn open_after(&self, late: Vec<Arrival>) -> Result<(), CallError> {
        self.set_intake(Intake::Open)?;
        self.deliver(late)
    }

    fn announce(&self) -> Result<(), CallError> {
        Ok(())
    }
}

impl Accelerated for Card {
    fn id(&self) -> &str {
        "net0"
    }

    fn status(&self) -> DeviceStatus {
        DeviceStatus::emulated("net0", "net", PathCounters::default())
    }

    fn attach(&self) -> Result<SwitchReport, ApiError> {
        Err(ApiError::new(ErrorCode::NotAccelerated, "no"))
    }

    fn detach(&self) -> Result<SwitchReport, ApiError> {
        Err(ApiError::new(ErrorCode::NotAccelerated, "no"))
    }

    fn fall_back(&self) -> Result<FellBack, ApiError> {
        Ok(FellBack { had_vf: false, logged: true })
    }

    fn marks_writes(&self) -> bool {
        true
    }

    fn log_began(&self) {}

    fn take_up(&self) -> Result<bool, ApiError> {
        Ok(false)
    }
}

fn moving(card: &Arc<Card>) -> [MovingDevice; 1] {
    [MovingDevice { accelerated: card.clone(), arrivals: card.clone() }]
}

/// Frames that came in the stop are with whichever guest runs, once and in order, and its card
/// takes more.
#[test]
fn frames_that_came_in_the_stop_are_where_the_guest_is() {
    if !has_kvm("frames_that_came_in_the_stop_are_where_the_guest_is") {
        return;
    }
    let frames: Vec<Arrival> = (0xa1..0xa6).map(|tag| vec![tag; 80]).collect();
    // From before the hand-over to after it.
    for back in (0..1200).step_by(60) {
        let folder = tempfile::tempdir().unwrap();
        let (front, behind) = (folder.path().join("front"), folder.path().join("back"));
        let listener = Listener::bind(Endpoint::Unix(behind.clone()), None).unwrap();
        let destination = std::thread::spawn(move || {
            let (machine, card) = (counting(), Arc::new(Card::default()));
            let outcome = receive(&machine.vm, &moving(&card), listener.wait(), &|| {});
            (machine, card, outcome.is_ok())
        });
        // How long the stream is depends on the state's numbers, so the cut is counted from the
        // frames, which are a good part of its end.
        let mark = frames[0].clone();
        let mut since = None;
        let (wire, _) = through_a_wire(&front, behind, move |_, bytes| {
            let found = bytes.windows(mark.len()).position(|window| window == mark);
            let from = match (since, found) {
                (Some(seen), _) => -i64::try_from(seen).unwrap(),
                (None, Some(at)) => at as i64,
                (None, None) => return true,
            };
            let left = (from + back - 100).clamp(0, bytes.len() as i64) as usize;
            since = Some((bytes.len() as i64 - from) as u64);
            let all = left == bytes.len();
            bytes.truncate(left);
            all
        });
        let (source, card) = (started(), Arc::new(Card::default()));
        *card.waiting.lock().unwrap() = frames.clone();
        let options = options(&front);
        let outcome = migrate(&source.vm, &moving(&card), &options, &Progress::default());
        wire.join().unwrap();
        let (moved, other, arrived) = destination.join().unwrap();
        expect_one(&source, &outcome, &moved);
        assert_eq!(outcome.is_ok(), arrived);
        let here = if arrived { &other } else { &card };
        let mut there = here.delivered.lock().unwrap().clone();
        there.extend(here.collect().unwrap());
        assert_eq!(there, frames, "cut {back} bytes on");
        let intake = *here.intake.lock().unwrap();
        assert!(matches!(intake, None | Some(Intake::Open)), "deaf: {intake:?}");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_seen_and_the_machine_stays() {
    if !has_kvm("a_flipped_bit_anywhere_is_seen_and_the_machine_stays") {
        return;
    }
    let (_, _, _, _, whole) = moved_over(|_, _| true);
    for at in (PREAMBLE..whole - 64).step_by((whole / 24) as usize) {
        let (source, outcome, moved, arrived, _) = moved_over(move |carried, bytes| {
            if let Some(byte) = at.checked_sub(carried).and_then(|at| bytes.get_mut(at as usize)) {
                *byte ^= 4;
            }
            true
        });
        expect_one(&source, &outcome, &moved);
        assert!(outcome.is_err() && arrived.is_err(), "bit flipped at {at} of {whole}");
    }
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

/// A message as it goes over the wire (`vmm::migration::channel`).
fn message(kind: u8, number: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    let checksum = crc32fast::hash(&[&bytes, body].concat());
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A source that knows the protocol and means no good.
#[test]
fn a_hostile_source_gets_an_error_and_no_machine() {
    if !has_kvm("a_hostile_source_gets_an_error_and_no_machine") {
        return;
    }
    let pages =
        |gpa: u64, len: usize| message(2, 1, &[&gpa.to_le_bytes()[..], &vec![0xee; len]].concat());
    let zeroes =
        |gpa: u64, len: u64| message(3, 1, &[gpa.to_le_bytes(), len.to_le_bytes()].concat());
    let cases = [
        ("pages behind the end of RAM", pages(16 << 20, 4096)),
        ("pages across the end of RAM", pages((16 << 20) - 4096, 8192)),
        ("pages at the end of everything", pages(u64::MAX - 4095, 4096)),
        ("half a page", pages(0x1000, 2048)),
        ("pages off their boundaries", pages(0x1001, 4096)),
        ("no pages", pages(0x1000, 0)),
        ("an address cut short", message(2, 1, &[0; 7])),
        ("zeroes without end", zeroes(0, !4095)),
        ("zeroes that wrap", zeroes(0x1000, u64::MAX - 0xfff)),
        ("zeroes of nothing", zeroes(0x1000, 0)),
        ("a state before the end of memory", message(8, 1, b"npastate")),
        ("an end of memory that is none", message(7, 1, &[0xff; 20])),
        ("go before anything", message(11, 1, &[])),
        ("what only a destination says", message(12, 1, &[])),
        ("a second greeting", message(1, 1, &[0x80])),
        ("an unknown kind", message(99, 1, &[])),
        ("words for a terminal", message(15, 1, b"\x1b[2J\x07gone")),
    ];
    for (what, bad) in cases {
        let folder = tempfile::tempdir().unwrap();
        let meeting = folder.path().join("meeting");
        let destination = awaited(&meeting);
        let mut stream = UnixStream::connect(&meeting).unwrap();
        stream.write_all(b"npamove\0\x01\0").unwrap();
        let mut head = [0; 26];
        stream.read_exact(&mut head).unwrap();
        let len = u32::from_le_bytes(head[14..18].try_into().unwrap());
        let mut hello = vec![0; len as usize];
        stream.read_exact(&mut hello).unwrap();
        // Its own greeting fits in every respect.
        stream.write_all(&message(1, 0, &hello)).unwrap();
        stream.write_all(&bad).unwrap();
        let (machine, outcome) = destination.join().unwrap();
        let error = outcome.expect_err(what).to_string();
        assert!(!error.contains('\x1b'), "{what}: {error}");
        assert!(stands_still(&machine.vm) && machine.vm.state() == RunState::Paused, "{what}");
    }
}
