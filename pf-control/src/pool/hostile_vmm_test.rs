//! What a VMM tries that a guest has taken over, or that is broken.

use super::pool_test::{Bench, Vmm, request};
use super::*;
use crate::lease::LeaseState;
use crate::ops::{AcquireRequest, Request, limits};

#[test]
fn a_name_that_an_operator_should_not_see_is_refused() {
    let bench = Bench::new(1);
    for name in [String::new(), "x".repeat(65), "vm\u{1b}[2J".into(), "a\nb".into()] {
        let as_vm = AcquireRequest { vm: name.clone(), ..request() };
        let as_device = AcquireRequest { device: name, ..request() };
        for bad in [as_vm, as_device] {
            let error = bench.pool.acquire(&bad, bench.vmm.pid()).unwrap_err();
            assert!(matches!(error, OpError::Invalid { .. }), "{error}");
        }
    }
}

#[test]
fn a_dead_process_s_number_opens_nothing() {
    let mut bench = Bench::new(1);
    let lease = bench.active();
    bench.vmm.kill();
    // Whoever has that number now is somebody else; the watcher has not come round yet.
    let error = bench.call(Request::Quiesce { lease }).unwrap_err();
    assert!(matches!(error, OpError::NoSuchLease { .. }), "{error}");
    assert_eq!(bench.state(), LeaseState::Active);
}

#[test]
fn a_process_holds_so_many_vfs_and_no_more() {
    let bench = Bench::new(limits::LEASES_PER_PROCESS as u32 + 2);
    let asks = |number: usize| AcquireRequest { device: format!("net{number}"), ..request() };
    let leases: Vec<_> = (0..limits::LEASES_PER_PROCESS)
        .map(|number| bench.pool.acquire(&asks(number), bench.vmm.pid()).unwrap().lease)
        .collect();
    let error = bench.pool.acquire(&asks(100), bench.vmm.pid()).unwrap_err();
    assert!(matches!(error, OpError::Invalid { .. }), "{error}");
    // What was asked before is answered as before, and others are served.
    assert_eq!(bench.pool.acquire(&asks(0), bench.vmm.pid()).unwrap().lease, leases[0]);
    let other = Vmm::start();
    bench.pool.acquire(&asks(0), other.pid()).unwrap();
    bench.call(Request::Release { lease: leases[3] }).unwrap();
    bench.pool.acquire(&asks(100), bench.vmm.pid()).unwrap();
}
