//! The control queue, and the wish that the driver announces itself.

use super::*;
use crate::pci::PciDevice;
use crate::virtio::Arrivals;
use crate::virtio::fake_driver::{MEMORY_MIB, NEEDS_RESET};

const CONTROL: u16 = 2;
const CTRL_VQ: u64 = 1 << 17;
const GUEST_ANNOUNCE: u64 = 1 << 21;
const STATUS: u64 = 1 << 16;
/// Link up, and up with a wish.
const UP: u64 = 1;
const WISH: u64 = 3;
/// Where the status word is in the function's memory.
const STATUS_WORD: u64 = 0x2006;
const ANSWER: u64 = 0x800;

fn started(features: u64) -> Setup {
    let mut setup = setup();
    setup.driver.start(features | STATUS | MRG_RXBUF, 256);
    setup
}

impl Setup {
    /// Gives a command and returns what the device answers.
    fn command(&mut self, bytes: &[u8]) -> u8 {
        let ram = self.driver.ram();
        ram.write_slice(bytes, GuestAddress(buffer(0))).unwrap();
        ram.write_slice(&[0xff], GuestAddress(buffer(0) + ANSWER)).unwrap();
        let command = (buffer(0), bytes.len() as u32, false);
        let head = self.driver.add(CONTROL, &[command, (buffer(0) + ANSWER, 1, true)]);
        self.driver.kick(CONTROL);
        assert_eq!(self.driver.used(CONTROL), (head, 1));
        self.read_ram(buffer(0) + ANSWER, 1)[0]
    }

    fn status_word(&mut self) -> u64 {
        self.driver.read(STATUS_WORD, 2)
    }
}

#[test]
fn a_driver_that_announces_is_asked_until_it_has() {
    let mut setup = started(CTRL_VQ | GUEST_ANNOUNCE);
    assert_eq!(setup.status_word(), UP);
    setup.driver.write(0x10, 0, 2);
    setup.handle.announce().unwrap();
    // The network hears of it at once, whatever the driver does.
    setup.departed();
    assert!(setup.driver.interrupted(0));
    assert_eq!(setup.status_word(), WISH);
    assert_eq!(setup.command(&[3, 0]), 0);
    assert_eq!(setup.status_word(), UP);
    // And again, with a driver that is moved on before it has answered.
    setup.handle.announce().unwrap();
    setup.driver.function.suspend().unwrap();
    setup.driver.function.resume();
    assert_eq!(setup.status_word(), WISH);
    assert_eq!(setup.command(&[3, 0]), 0);
    assert_eq!(setup.status_word(), UP);
}

/// As after a move: the card is told before the VM runs.
#[test]
fn a_driver_that_is_held_is_asked_when_it_goes_on() {
    for (features, expected) in [(CTRL_VQ | GUEST_ANNOUNCE, WISH), (CTRL_VQ, UP)] {
        let mut setup = started(features);
        setup.driver.write(0x10, 0, 2);
        setup.driver.function.suspend().unwrap();
        setup.handle.announce().unwrap();
        assert!(!setup.driver.interrupted(0));
        setup.driver.function.resume();
        assert_eq!(setup.status_word(), expected);
        assert_eq!(setup.driver.interrupted(0), expected == WISH);
    }
}

#[test]
fn a_driver_that_does_not_announce_is_not_asked() {
    for features in [0, CTRL_VQ, GUEST_ANNOUNCE] {
        let mut setup = started(features);
        setup.handle.announce().unwrap();
        setup.departed();
        assert_eq!(setup.status_word(), UP, "features {features:#x}");
    }
}

#[test]
fn a_wish_ends_with_its_driver() {
    let mut setup = started(CTRL_VQ | GUEST_ANNOUNCE);
    setup.handle.announce().unwrap();
    setup.driver.start(STATUS | CTRL_VQ | GUEST_ANNOUNCE, 256);
    assert_eq!(setup.status_word(), UP);
}

#[test]
fn what_is_not_offered_is_refused_and_changes_nothing() {
    let mut setup = started(CTRL_VQ | GUEST_ANNOUNCE);
    setup.handle.announce().unwrap();
    for command in [&[0, 0, 1][..], &[1, 0, 1, 2, 3, 4, 5, 6], &[3, 1], &[4, 0, 1, 0], &[255, 255]]
    {
        assert_eq!(setup.command(command), 1, "{command:?}");
    }
    assert_eq!(setup.status_word(), WISH);
}

#[test]
fn a_broken_command_stops_the_card_and_a_reset_helps() {
    let at = buffer(0);
    let broken = [
        ("no room for an answer", &[(at, 2, false)][..]),
        ("an answer to nothing", &[(at, 1, true)]),
        ("half a command", &[(at, 1, false), (at + ANSWER, 1, true)]),
        ("a command outside memory", &[(MEMORY_MIB << 20, 2, false), (at + ANSWER, 1, true)]),
        ("an answer outside memory", &[(at, 2, false), (MEMORY_MIB << 20, 1, true)]),
    ];
    for (name, buffers) in broken {
        let mut setup = started(CTRL_VQ | GUEST_ANNOUNCE);
        setup.driver.add(CONTROL, buffers);
        setup.driver.kick(CONTROL);
        setup.driver.wait_for(name, |driver| driver.status() & NEEDS_RESET != 0);
        setup.driver.start(STATUS | CTRL_VQ | GUEST_ANNOUNCE, 256);
        assert_eq!(setup.command(&[3, 0]), 0, "{name}");
    }
}
