//! Moves over wires that are cut or damaged, and from sources that mean no good: exactly one machine
//! runs afterwards, with every frame that came for it.

mod bare;
mod moves;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bare::{Machine, has_kvm};
use moves::{awaited, counting, expect_one, options, stands_still, started, through_a_wire};
use vmm::api::{Accelerated, ApiError, DeviceStatus, ErrorCode, FellBack, SwitchReport};
use vmm::migration::{
    Endpoint, Listener, MigrationError, MovingDevice, Progress, Report, migrate, receive,
};
use vmm::virtio::worker::CallError;
use vmm::virtio::{Arrival, Arrivals, Intake, PathCounters};
use vmm::vm::RunState;

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
    looks: Mutex<u64>,
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

    fn put_back(&self, arrivals: Vec<Arrival>) -> Result<(), CallError> {
        self.deliver(arrivals)
    }

    fn undelivered(&self) -> Result<usize, CallError> {
        Ok(0)
    }

    fn lost(&self) -> Result<Option<u64>, CallError> {
        // One for each look.
        let mut looks = self.looks.lock().unwrap();
        *looks += 1;
        Ok(Some(*looks))
    }

    fn open_after(&self, late: Vec<Arrival>, _: Vec<Arrival>) -> Result<(), CallError> {
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

    fn attach_when_free(&self) -> Result<(), ApiError> {
        unreachable!("nobody asks for it here")
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

    fn let_be(&self) {}

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
    let mut in_doubt = 0;
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
        match &outcome {
            Err(MigrationError::InDoubt) => in_doubt += 1,
            Err(_) => assert!(!arrived),
            // One of each card, if the destination could still say so.
            Ok(report) => assert!(arrived && matches!(report.frames_lost, None | Some(2))),
        }
        let here = if arrived { &other } else { &card };
        let mut there = here.delivered.lock().unwrap().clone();
        there.extend(here.collect().unwrap());
        assert_eq!(there, frames, "cut {back} bytes on");
        let intake = *here.intake.lock().unwrap();
        assert!(matches!(intake, None | Some(Intake::Open)), "deaf: {intake:?}");
    }
    assert!(in_doubt < 6, "most cuts leave no doubt");
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
