//! A guest: the shell on the fake operating system, and a stack that numbers what it sends and
//! checks what it receives.

use crate::host::MAC;
use crate::image::Fault;
use crate::os::FakeOs;
use npa_abi::net::{TxFrame, TxSegment};
use npa_abi::protocol::State;
use shell_core::net::{NetShell, Transmit};
use shell_core::os::TxHandle;
use shell_core::switch::ShellState;
use std::num::NonZeroUsize;

const PEER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const UNICAST: u16 = 0x88b5;
const GROUP: u16 = 0x88b6;

fn frame(to: [u8; 6], from: [u8; 6], kind: u16, number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(to);
    bytes.extend(from);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes.resize(60 + (number % 700) as usize, number as u8);
    bytes
}

fn number(bytes: &[u8]) -> (u16, u64) {
    (
        u16::from_be_bytes(bytes[12..14].try_into().unwrap()),
        u64::from_be_bytes(bytes[14..22].try_into().unwrap()),
    )
}

/// A running guest.
pub(crate) struct Guest {
    pub(crate) shell: NetShell<FakeOs>,
    pub(crate) next_out: u64,
    next_unicast: u64,
    next_group: u64,
}

/// Rounds after which a guest that makes no progress is stuck.
const STUCK: u32 = 20_000;

impl Guest {
    pub(crate) fn start() -> Self {
        Self::start_on(FakeOs::new())
    }

    pub(crate) fn start_on(os: FakeOs) -> Self {
        let shell = NetShell::new(os);
        let facts = shell.start().expect("start");
        assert_eq!(facts.mac, MAC);
        assert_eq!(facts.mtu, 1500);
        assert!(facts.link_up && facts.offloads.tx_checksum);
        shell.open();
        Self { shell, next_out: 0, next_unicast: 0, next_group: 0 }
    }

    pub(crate) fn os(&self) -> &FakeOs {
        self.shell.os()
    }

    /// Sends a burst; stops where the shell says so.
    pub(crate) fn send(&mut self, count: usize) {
        for index in 0..count {
            if self.os().world().stopped {
                break;
            }
            let bytes = frame(PEER, MAC, UNICAST, self.next_out).into_boxed_slice();
            let base = bytes.as_ptr() as usize;
            let cut = bytes.len() as u32 / 3 + 1;
            let segments = [
                TxSegment { address: base as u64, length: cut, reserved: 0 },
                TxSegment {
                    address: base as u64 + u64::from(cut),
                    length: bytes.len() as u32 - cut,
                    reserved: 0,
                },
            ];
            let describe = TxFrame {
                segments: std::ptr::null(),
                segment_count: 0,
                flags: 0,
                length: bytes.len() as u32,
                mss: 0,
                vlan_tag: 0,
                l2_length: 14,
                l3_length: 0,
                l4_length: 0,
                csum_start: 0,
                csum_offset: 0,
                reserved: 0,
                headers: std::ptr::null(),
            };
            self.os().world().tx_frames.insert(base, bytes);
            let handle = TxHandle(NonZeroUsize::new(base).unwrap());
            match self.shell.transmit(&describe, &segments, handle, index + 1 < count) {
                Transmit::Taken => self.next_out += 1,
                Transmit::Busy => {
                    let mut world = self.os().world();
                    assert!(world.stopped, "busy without a stop");
                    world.tx_frames.remove(&base);
                    break;
                }
            }
        }
    }

    pub(crate) fn unicast(&mut self, count: usize) {
        for _ in 0..count {
            let bytes = frame(MAC, PEER, UNICAST, self.next_unicast);
            self.os().world().host.incoming(bytes);
            self.next_unicast += 1;
        }
    }

    pub(crate) fn group(&mut self) {
        let bytes = frame([0xff; 6], PEER, GROUP, self.next_group);
        self.os().world().host.incoming(bytes);
        self.next_group += 1;
    }

    pub(crate) fn host_step(&self) -> bool {
        let os = self.os();
        os.world().host.step(&os.landing)
    }

    pub(crate) fn event(&self) -> bool {
        {
            let mut world = self.os().world();
            world.event_wanted = false;
            world.host.event = false;
        }
        self.shell.on_event()
    }

    /// Runs, driven by interrupts only, until nothing moves any more.
    pub(crate) fn settle(&self) {
        let mut call_event = true;
        let mut again = true;
        for _ in 0..STUCK {
            let mut moved = self.host_step();
            {
                let mut world = self.os().world();
                let host = &mut world.host;
                moved |= host.send(false, usize::MAX) + host.send(true, usize::MAX) != 0;
                for nic in [&mut host.emulated, &mut host.vf] {
                    let before = nic.backlog.len();
                    nic.receive(usize::MAX);
                    moved |= nic.backlog.len() != before;
                    again |= nic.take_interrupt();
                }
                again |= std::mem::take(&mut world.poll_wanted);
                call_event |= world.event_wanted || world.host.event;
            }
            moved |= again || call_event;
            if std::mem::take(&mut call_event) {
                call_event = self.event();
            }
            if std::mem::take(&mut again) {
                again = self.shell.poll(64).again;
            }
            if !moved {
                return;
            }
        }
        panic!("stuck: {:?} {:?}", self.shell.switch_state(), self.os().world().host.view);
    }

    /// Settles until an attach has succeeded.
    pub(crate) fn attach(&self) {
        assert!(self.os().world().host.offer(Fault::None));
        self.settle();
        assert_eq!(self.shell.switch_state(), Some(ShellState::Active));
        assert_eq!(self.os().world().host.view.state, State::Active);
        assert!(self.os().world().host.address_on_vf);
    }

    pub(crate) fn detach(&self) {
        assert!(self.os().world().host.detach());
        self.settle();
        assert_eq!(self.shell.switch_state(), Some(ShellState::Emulated));
        let world = self.os().world();
        assert_eq!(world.host.view.state, State::Emulated);
        let unmarked = world.host.vf.unmarked.len();
        assert_eq!(unmarked, 0, "buffers that the VF wrote and nobody marked");
    }

    /// What was sent came out: all of it, and unless `forced`, once and in order.
    pub(crate) fn check_sent(&self, forced: bool) {
        let world = self.os().world();
        let mut seen: Vec<u64> = world.host.sent.iter().map(|bytes| number(bytes).1).collect();
        for (bytes, number) in world.host.sent.iter().zip(&seen) {
            assert_eq!(*bytes, frame(PEER, MAC, UNICAST, *number), "content");
        }
        if forced {
            seen.sort_unstable();
            seen.dedup();
        }
        assert_eq!(seen, (0..self.next_out).collect::<Vec<_>>(), "sent frames");
        assert!(world.tx_frames.is_empty(), "{} not completed", world.tx_frames.len());
    }

    /// What came in was delivered, once, and unless `forced` in order.
    pub(crate) fn check_received(&self, forced: bool) {
        let world = self.os().world();
        let of = |kind: u16| -> Vec<u64> {
            let numbers = world.delivered.iter().map(|bytes| number(bytes));
            numbers.filter(|(of, _)| *of == kind).map(|(_, number)| number).collect()
        };
        let mut unicast = of(UNICAST);
        if forced {
            unicast.sort_unstable();
        }
        assert_eq!(unicast, (0..self.next_unicast).collect::<Vec<_>>(), "unicast frames");
        let mut group = of(GROUP);
        group.sort_unstable();
        assert_eq!(group, (0..self.next_group).collect::<Vec<_>>(), "group frames");
    }

    /// Stops and checks that nothing is left.
    pub(crate) fn stop(self) {
        self.shell.close();
        self.shell.stop();
        assert_eq!(self.os().leaks(), None);
        assert!(!self.os().world().host.registered);
    }
}
