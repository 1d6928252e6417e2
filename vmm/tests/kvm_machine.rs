//! The machine on a real /dev/kvm: console, power, reset, pausing.

mod bare;

use std::time::Duration;

use bare::{COM1, Code, Machine, SCRATCH, has_kvm};
use vm_memory::{Bytes, GuestAddress};
use vmm::vm::{RunState, VmError, VmExit};

fn scratch(machine: &Machine) -> u32 {
    let memory = &machine.vm.device_context().memory;
    memory.ram().read_obj(GuestAddress(SCRATCH.into())).unwrap()
}

#[test]
fn a_guest_prints_and_powers_off() {
    if !has_kvm("a_guest_prints_and_powers_off") {
        return;
    }
    let machine = Machine::new(Code::new().out(COM1, b'h').out(COM1, b'i').power_off());
    machine.vm.start().unwrap();
    assert_eq!(machine.vm.wait().unwrap(), VmExit::PowerOff);
    assert_eq!(machine.vm.exits().io, 3);
    assert!(machine.vm.kvm_exits().is_none_or(|exits| exits >= 3));
    assert_eq!(machine.vm.state(), RunState::Stopped);
    assert!(matches!(machine.vm.resume(), Err(VmError::Stopped)));
    assert_eq!(machine.console(), b"hi");
}

#[test]
fn what_is_not_there_reads_ones() {
    if !has_kvm("what_is_not_there_reads_ones") {
        return;
    }
    let code = Code::new()
        .load(0xd000_0000)
        .out_al(COM1)
        .in_al(0x71)
        .out_al(COM1)
        .store(0xd000_0000, 1)
        .out(0x80, 1)
        .power_off();
    let machine = Machine::new(code);
    machine.vm.start().unwrap();
    assert_eq!(machine.vm.wait().unwrap(), VmExit::PowerOff);
    assert_eq!(machine.vm.exits().mmio, 2);
    assert_eq!(machine.console(), [0xff, 0xff]);
}

/// Resets in the first round and powers off in the second; RAM outlives the reset.
fn second_round(reset: Code) -> Code {
    let off = Code::new().out(COM1, b'2').power_off();
    let code = Code::new().unless_zero(SCRATCH, off).store(SCRATCH, 1).out(COM1, b'1');
    code.then(reset)
}

#[test]
fn a_guest_resets_the_machine() {
    if !has_kvm("a_guest_resets_the_machine") {
        return;
    }
    for reset in [Code::new().reset(), Code::new().out(0x64, 0xfe), Code::new().triple_fault()] {
        let machine = Machine::new(second_round(reset));
        machine.vm.start().unwrap();
        assert_eq!(machine.vm.wait().unwrap(), VmExit::PowerOff);
        assert_eq!(machine.console(), b"12");
    }
}

#[test]
fn a_paused_guest_does_nothing() {
    if !has_kvm("a_paused_guest_does_nothing") {
        return;
    }
    let machine = Machine::new(Code::new().count_for_ever(SCRATCH));
    machine.vm.start().unwrap();
    let moves = || {
        let before = scratch(&machine);
        (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            scratch(&machine) != before
        })
    };
    for _ in 0..3 {
        assert!(moves());
        machine.vm.pause().unwrap();
        assert_eq!(machine.vm.state(), RunState::Paused);
        let held = scratch(&machine);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(scratch(&machine), held);
        machine.vm.resume().unwrap();
    }
    machine.vm.stop();
    assert_eq!(machine.vm.wait().unwrap(), VmExit::Stopped);
}

#[test]
fn a_machine_that_never_started_ends_cleanly() {
    if !has_kvm("a_machine_that_never_started_ends_cleanly") {
        return;
    }
    assert_eq!(Machine::new(Code::new()).console(), b"");
}
