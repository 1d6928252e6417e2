//! What every device owes to whoever holds, saves and restores it, tried on every device.

use rustix::net::{SendFlags, send};
use tempfile::NamedTempFile;
use vm_memory::{Bytes, GuestAddress};

use super::block::Block;
use super::device::VirtioDevice;
use super::fake_driver::{EVENT_IDX, FakeDriver, NEEDS_RESET};
use super::net;
use super::rng::Rng;
use crate::pci::PciDevice;
use crate::state::{Archive, ArchiveBuilder, StateError};

const HEADER: u64 = 0x40_0000;
const DATA: u64 = 0x41_0000;
const STATUS: u64 = 0x42_0000;

/// A device under its contract: how equal ones are made, and one piece of its work.
struct Subject {
    name: &'static str,
    make: Box<dyn Fn() -> Box<dyn VirtioDevice>>,
    /// Offers work on queue 0, which the device answers with one used chain.
    offer: Box<dyn Fn(&mut FakeDriver)>,
}

fn subjects() -> Vec<Subject> {
    let image = NamedTempFile::new().unwrap();
    std::fs::write(image.path(), [7; 4096]).unwrap();
    let rng = Subject {
        name: "rng",
        make: Box::new(|| Box::new(Rng::new().unwrap())),
        offer: Box::new(|driver| {
            driver.add(0, &[(DATA, 32, true)]);
        }),
    };
    let block = Subject {
        name: "block",
        make: Box::new(move || Box::new(Block::open(image.path(), true).unwrap())),
        offer: Box::new(|driver| {
            driver.ram().write_slice(&[0; 16], GuestAddress(HEADER)).unwrap();
            driver.add(0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
        }),
    };
    let (socket, peer) = net::tests::wire();
    let net = Subject {
        name: "net",
        // All cards are on one wire, as taps of one bridge are.
        make: Box::new(move || {
            let backend = net::tests::Wire::new(socket.try_clone().unwrap());
            Box::new(net::Net::new("contract", backend, net::tests::STATION, 1500).unwrap())
        }),
        offer: Box::new(move |driver| {
            driver.add(0, &[(DATA, 2048, true)]);
            send(&peer, &net::tests::framed(&net::tests::unicast(1, 64)), SendFlags::empty())
                .unwrap();
        }),
    };
    vec![rng, block, net]
}

impl Subject {
    fn started(&self) -> FakeDriver {
        let mut driver = FakeDriver::new((self.make)());
        driver.start(EVENT_IDX | 1 << 15, 64);
        driver
    }

    fn works(&self, driver: &mut FakeDriver) {
        (self.offer)(driver);
        driver.kick(0);
        driver.used(0);
    }
}

fn is_idle(driver: &mut FakeDriver) -> bool {
    std::thread::sleep(std::time::Duration::from_millis(30));
    driver.try_used(0).is_none()
}

fn saved(driver: &FakeDriver) -> Vec<u8> {
    let mut state = ArchiveBuilder::default();
    driver.function.save("1", &mut state).unwrap();
    state.finish()
}

#[test]
fn a_device_that_holds_starts_nothing_and_then_goes_on() {
    for subject in subjects() {
        let mut driver = subject.started();
        subject.works(&mut driver);
        driver.function.suspend().unwrap();
        // Once more is as good as once.
        driver.function.suspend().unwrap();
        (subject.offer)(&mut driver);
        driver.kick(0);
        assert!(is_idle(&mut driver), "{} did not hold", subject.name);
        driver.function.resume();
        driver.used(0);
        driver.function.resume();
        subject.works(&mut driver);
    }
}

#[test]
fn a_device_that_does_not_run_holds_and_stays_as_it_is() {
    for subject in subjects() {
        let mut driver = FakeDriver::new((subject.make)());
        driver.function.suspend().unwrap();
        driver.function.resume();
        assert_eq!(driver.status(), 0);
        driver.start(EVENT_IDX, 64);
        subject.works(&mut driver);
    }
}

#[test]
fn an_equal_device_goes_on_where_the_saved_one_stopped() {
    for subject in subjects() {
        let mut driver = subject.started();
        for _ in 0..70 {
            // More than the ring has entries, so that positions wrap.
            subject.works(&mut driver);
        }
        driver.function.suspend().unwrap();
        (subject.offer)(&mut driver);
        let state = saved(&driver);
        assert_eq!(state, saved(&driver), "saving {} changes it", subject.name);
        let config = driver.function.config().bar_address(&driver.function.config().bars()[0]);
        let mut moved = driver.moved((subject.make)());
        let mut archive = Archive::parse(&state).unwrap();
        moved.function.restore("1", &mut archive).unwrap();
        archive.finish().unwrap();
        assert_eq!(moved.function.config().bar_address(&moved.function.config().bars()[0]), config);
        assert!(is_idle(&mut moved), "{} did not hold after a restore", subject.name);
        moved.function.resume();
        // No doorbell is rung: it may have been rung at the old device.
        moved.used(0);
        subject.works(&mut moved);
    }
}

#[test]
fn a_restored_device_raises_its_vectors_once_lest_one_was_on_its_way() {
    for subject in subjects() {
        let mut driver = subject.started();
        subject.works(&mut driver);
        driver.wait_for("interrupt", |driver| driver.interrupted(1));
        driver.function.suspend().unwrap();
        let state = saved(&driver);
        let mut moved = driver.moved((subject.make)());
        moved.function.restore("1", &mut Archive::parse(&state).unwrap()).unwrap();
        assert!(moved.interrupted(1), "{}", subject.name);
    }
}

#[test]
fn a_device_is_reset_while_it_holds() {
    for subject in subjects() {
        let mut driver = subject.started();
        driver.function.suspend().unwrap();
        driver.function.reset();
        driver.function.resume();
        assert_eq!(driver.status(), 0);
        driver.start(EVENT_IDX, 64);
        subject.works(&mut driver);
    }
}

#[test]
fn a_broken_device_stays_broken_elsewhere() {
    for subject in subjects() {
        let mut driver = subject.started();
        driver.set_avail_index(0, 1000);
        driver.kick(0);
        driver.wait_for("reset request", |driver| driver.status() & NEEDS_RESET != 0);
        driver.function.suspend().unwrap();
        let state = saved(&driver);
        let mut moved = driver.moved((subject.make)());
        moved.function.restore("1", &mut Archive::parse(&state).unwrap()).unwrap();
        moved.function.resume();
        assert!(moved.status() & NEEDS_RESET != 0, "{}", subject.name);
        moved.start(EVENT_IDX, 64);
        subject.works(&mut moved);
    }
}

#[test]
fn another_device_s_state_is_refused() {
    let all = subjects();
    for (from, to) in all.iter().zip(all.iter().cycle().skip(1)) {
        let mut driver = from.started();
        driver.function.suspend().unwrap();
        let state = saved(&driver);
        assert_ne!((from.make)().identity(), (to.make)().identity());
        let mut other = FakeDriver::new((to.make)());
        let error = other.function.restore("1", &mut Archive::parse(&state).unwrap()).unwrap_err();
        assert!(matches!(error, StateError::Unsuitable { .. }), "{error}");
    }
}
