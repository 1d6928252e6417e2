//! The four rules that NPA's call order lays on whoever holds a device, each with a failure of
//! every kind that can break it: what fails after acquire releases; what fails after activate
//! quiesces; a device that was closed is opened again; on the way back only "closed" and
//! "released" are certain.

use super::fake_host::{FakeHost, VM_MAC};
use super::pool_test::{Bench, Vmm, activate, request};
use super::*;
use crate::ops::{Request, Rings};

/// What is asked of the host on the way to an active VF, as the fake host calls it.
const WAY_THERE: [&str; 4] = ["mac", "defaults", "queues", "uplink"];

fn mac_of(host: &FakeHost) -> bool {
    host.world().macs.values().any(|mac| *mac == VM_MAC)
}

#[test]
fn a_failure_after_acquire_leads_to_release_and_nothing_else() {
    for broken in WAY_THERE {
        let bench = Bench::new(1);
        let Ok(acquired) = bench.acquire() else { panic!("the host works so far") };
        let lease = acquired.lease;
        bench.host.world().broken.insert(broken);
        let way = [Request::Init { lease, rings: Rings::default() }, activate(lease)];
        let failed = way.into_iter().find_map(|request| bench.call(request).err());
        // "defaults" is of the acquire only.
        assert_eq!(failed.is_some(), broken != "defaults", "{broken}");
        bench.host.world().broken.clear();
        if failed.is_some() {
            assert_eq!(bench.state(), LeaseState::Failed, "{broken}");
            assert!(bench.pool.list()[0].fault.is_some(), "{broken}");
            for request in [
                Request::Init { lease, rings: Rings::default() },
                activate(lease),
                Request::Quiesce { lease },
            ] {
                let error = bench.call(request).unwrap_err();
                assert!(matches!(error, OpError::WrongState { .. }), "{broken}: {error}");
            }
        }
        bench.call(Request::Release { lease }).unwrap();
        assert_eq!(bench.state(), LeaseState::Free);
        assert!(!mac_of(&bench.host), "{broken}");
    }
}

#[test]
fn a_failed_acquire_holds_nothing() {
    for broken in ["mac", "defaults"] {
        let bench = Bench::new(1);
        bench.host.world().broken.insert(broken);
        bench.acquire().unwrap_err();
        bench.host.world().broken.clear();
        bench.pool.reap();
        assert_eq!(bench.state(), LeaseState::Free, "{broken}");
        bench.acquire().unwrap();
    }
}

#[test]
fn a_failure_of_or_after_activate_quiesces_first() {
    // The activation itself fails at its last step: it is undone at once, the address last.
    let bench = Bench::new(1);
    let lease = bench.acquire().unwrap().lease;
    bench.call(Request::Init { lease, rings: Rings::default() }).unwrap();
    bench.host.world().broken.insert("uplink");
    bench.host.log();
    bench.call(activate(lease)).unwrap_err();
    let log = bench.host.log();
    let at = |step: &str| log.iter().rposition(|line| line.starts_with(step));
    assert!(at("uplink") < at("port") && at("port") < at("mac"), "{log:?}");
    assert!(!mac_of(&bench.host));

    // The VMM fails later and releases without a quiesce: the address is back before the VF is
    // anybody else's.
    let bench = Bench::new(1);
    let lease = bench.active();
    bench.host.log();
    bench.call(Request::Release { lease }).unwrap();
    let log = bench.host.log();
    let at = |step: &str| log.iter().position(|line| line.starts_with(step));
    assert!(at("port") < at("mac") && at("mac") < at("forget"), "{log:?}");
}

#[test]
fn a_device_that_was_closed_can_be_opened_again() {
    // Closed for good, and opened by the same process and by another.
    let mut bench = Bench::new(1);
    for _ in 0..3 {
        let lease = bench.active();
        bench.call(Request::Quiesce { lease }).unwrap();
        bench.call(Request::Release { lease }).unwrap();
    }
    bench.active();
    bench.vmm.kill();
    let next = Vmm::start();
    bench.pool.acquire(&request(), next.pid()).unwrap();
    // A failed one too, once it is released.
    let bench = Bench::new(1);
    let lease = bench.active();
    bench.host.world().broken.insert("port");
    bench.call(Request::Quiesce { lease }).unwrap_err();
    bench.host.world().broken.clear();
    bench.call(Request::Release { lease }).unwrap();
    bench.active();
}

#[test]
fn on_the_way_back_only_closed_and_released_are_certain() {
    // Whatever else fails, the VF is not given on while it is open, and it is once all is well.
    for broken in ["port", "mac", "reset", "forget"] {
        for quiesced in [false, true] {
            let bench = Bench::new(1);
            let lease = bench.active();
            let pid = bench.vmm.pid();
            bench.host.world().open.insert(20, pid);
            if quiesced {
                bench.call(Request::Quiesce { lease }).unwrap();
            }
            bench.host.world().broken.insert(broken);
            bench.call(Request::Release { lease }).unwrap_err();
            let what = format!("{broken}, quiesced {quiesced}");
            let next = Vmm::start();
            bench.pool.acquire(&request(), next.pid()).expect_err(&what);
            bench.host.world().open.clear();
            bench.host.world().broken.clear();
            bench.call(Request::Release { lease }).expect(&what);
            assert_eq!(bench.state(), LeaseState::Free, "{what}");
            assert!(!mac_of(&bench.host), "{what}");
            bench.pool.acquire(&request(), next.pid()).expect(&what);
        }
    }
}
