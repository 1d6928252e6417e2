//! What the guest does: start the interface, then poll, send and report for ever.

use crate::machine::{Boot, Clock, Function, Memory, print};
use crate::options::Options;
use crate::os::{BareOs, outgoing};
use crate::traffic::{FRAME_LENGTH, frame};
use npa_abi::net::{TxFrame, TxSegment};
use shell_core::log::LogLine;
use shell_core::net::{Facts, NetShell, Transmit};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// How often the event function is called without being asked for: there are no interrupts.
const EVENT_NS: u64 = 5 * MILLISECOND;

/// Frames received per poll.
const BUDGET: u32 = 64;

/// Runs the guest.
pub(crate) fn run(boot: &Boot) -> ! {
    print("bare: up\n");
    let mut buffer = [0; crate::machine::COMMAND_LINE_MAX];
    let options = Options::parse(boot.command_line(&mut buffer));
    let clock = Clock::new();
    let (start, end) = boot.free_memory();
    let mut memory = Memory::new(start, end);
    let Some(function) = Function::find_nic(boot, &mut memory) else {
        rest("bare: no virtio network device\n");
    };
    let shell = NetShell::new(BareOs::new(function, clock, memory));
    match shell.start() {
        Ok(facts) => {
            shell.open();
            print(if facts.accelerable { "bare: ready, registered\n" } else { "bare: ready\n" });
            Guest { shell: &shell, clock, options, facts, sent: 0 }.serve()
        }
        Err(error) => {
            print("bare: ");
            print(error.message());
            rest("\n");
        }
    }
}

/// Says why and does nothing any more.
fn rest(text: &str) -> ! {
    print(text);
    loop {
        core::hint::spin_loop();
    }
}

struct Guest<'a> {
    shell: &'a NetShell<BareOs>,
    clock: Clock,
    options: Options,
    facts: Facts,
    sent: u64,
}

impl Guest<'_> {
    fn serve(mut self) -> ! {
        let (mut next_event, mut next_report, mut next_frame) = (0, SECOND, 0);
        loop {
            let now = self.clock.now_ns();
            if self.shell.os().event.take() || now >= next_event {
                let again = self.shell.on_event();
                next_event = now + if again { MILLISECOND } else { EVENT_NS };
            }
            self.shell.poll(BUDGET);
            if now >= next_frame && self.wants_to_send() {
                self.send();
                // Late frames are caught up with, but not by more than a second's worth.
                next_frame =
                    (next_frame + SECOND / self.options.rate).max(now.saturating_sub(SECOND));
            }
            if now >= next_report {
                self.report(now);
                next_report = now + SECOND;
            }
        }
    }

    fn wants_to_send(&self) -> bool {
        let open = self.options.frames == 0 || self.sent < self.options.frames;
        open && !self.shell.os().stopped.get()
    }

    fn send(&mut self) {
        let bytes = frame(self.options.peer, self.facts.mac, self.sent);
        let os = self.shell.os();
        let Some((handle, address)) = outgoing(os, &bytes) else { return };
        let segments = [TxSegment { address, length: FRAME_LENGTH as u32, reserved: 0 }];
        let describe = TxFrame {
            segments: core::ptr::null(),
            segment_count: 0,
            flags: 0,
            length: FRAME_LENGTH as u32,
            mss: 0,
            vlan_tag: 0,
            l2_length: 14,
            l3_length: 0,
            l4_length: 0,
            csum_start: 0,
            csum_offset: 0,
            reserved: 0,
            headers: core::ptr::null(),
        };
        match self.shell.transmit(&describe, &segments, handle, false) {
            Transmit::Taken => self.sent += 1,
            Transmit::Busy => shell_core::os::NetOs::tx_done(os, handle, false),
        }
    }

    fn report(&self, now: u64) {
        let received = self.shell.os().received.borrow();
        let state = self.shell.switch_state().map_or("busy", |state| state.name());
        let plugin = self.shell.plugin();
        let line = LogLine::new("bare: t=")
            .number(now / SECOND)
            .text(" state=")
            .text(state)
            .text(" plugin=")
            .text(plugin.name())
            .text(" sent=")
            .number(self.sent)
            .text(" complete=")
            .number(self.shell.os().sent.get())
            .text(" received=")
            .number(received.frames)
            .text(" lost=")
            .number(received.lost())
            .text(" duplicated=")
            .number(received.duplicated)
            .text(" reordered=")
            .number(received.reordered);
        print(line.as_str());
        print("\n");
    }
}
