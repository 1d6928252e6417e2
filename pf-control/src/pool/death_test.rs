//! The daemon dies at every point of every operation, and the next one takes over: with the VMM
//! alive and asking again, and with the VMM dead as well.

use super::fake_host::{FakeHost, UPLINK_PORT};
use super::pool_test::{Vmm, activate, request};
use super::*;
use crate::ops::{MacAddr, Reply, Request, Rings};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

const OTHER_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 7]);

/// What the daemon is at when it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Acquire,
    Init,
    Activate,
    SetMac,
    Drain,
    Quiesce,
    Release,
    ReleaseOfActive,
    ReleaseOfFailed,
    Enable,
}

const ALL: [At; 10] = [
    At::Acquire,
    At::Init,
    At::Activate,
    At::SetMac,
    At::Drain,
    At::Quiesce,
    At::Release,
    At::ReleaseOfActive,
    At::ReleaseOfFailed,
    At::Enable,
];

/// Thrown where a daemon would be killed.
struct Killed;

fn die() {
    std::panic::resume_unwind(Box::new(Killed));
}

/// The VMM's calls up to the operation.
fn prepare(pool: &Pool, host: &FakeHost, pid: u32, at: At) {
    let call = |request: Request| pool.carry_out(&request, pid).map(drop);
    if matches!(at, At::Acquire | At::Enable) {
        if at == At::Enable {
            pool.set_maintenance("eth0", true).unwrap();
        }
        return;
    }
    let lease = pool.acquire(&request(), pid).unwrap().lease;
    host.world().open.insert(20, pid);
    if at == At::Init {
        return;
    }
    call(Request::Init { lease, rings: Rings::default() }).unwrap();
    if at == At::Activate {
        return;
    }
    if at == At::ReleaseOfFailed {
        host.world().broken.insert("uplink");
        call(activate(lease)).unwrap_err();
        host.world().broken.clear();
    } else {
        call(activate(lease)).unwrap();
    }
    if at == At::Release {
        call(Request::Quiesce { lease }).unwrap();
    }
    if matches!(at, At::Release | At::ReleaseOfActive | At::ReleaseOfFailed) {
        host.world().open.clear();
    }
}

fn operate(pool: &Pool, pid: u32, at: At) {
    let lease = pool.slots()[0].id();
    let request = match at {
        At::Acquire => Request::Acquire(request()),
        At::Init => Request::Init { lease, rings: Rings::default() },
        At::Activate => activate(lease),
        At::SetMac => Request::SetMac { lease, mac: OTHER_MAC },
        At::Quiesce => Request::Quiesce { lease },
        At::Release | At::ReleaseOfActive | At::ReleaseOfFailed => Request::Release { lease },
        At::Drain | At::Enable => {
            pool.set_maintenance("eth0", at == At::Drain).unwrap();
            return;
        }
    };
    pool.carry_out(&request, pid).unwrap();
}

/// Wherever the switch sends a VM's frames to the uplink, a VF is there to take them.
fn check_traffic(host: &FakeHost, what: &str) {
    let world = host.world();
    for (mac, (place, _)) in &world.fdb {
        // A function without an address takes what comes; its VMM has the gate.
        let taken = world.addressless || world.macs.values().any(|carried| carried == mac);
        assert!(place != UPLINK_PORT || taken, "{what}: frames for {mac} leave the host");
    }
}

/// Nothing is left of any VM.
fn check_clean(pool: &Pool, host: &FakeHost, what: &str) {
    check_traffic(host, what);
    for entry in pool.list() {
        assert_eq!((entry.state, entry.owner_pid), (LeaseState::Free, None), "{what}");
    }
    for slot in pool.slots() {
        assert_eq!(slot.mac().unwrap(), slot.placeholder().unwrap(), "{what}");
    }
    for (mac, (place, fixed)) in &host.world().fdb {
        assert!(!fixed && place != UPLINK_PORT, "{what}: {mac} is still held at {place}");
    }
    assert!(pool.store.leases().unwrap().is_empty(), "{what}: written down for ever");
}

/// Runs to the death at `point`, having passed it `spared` times; `None` if it never comes there.
fn run(at: At, point: FaultPoint, spared: u32, addressless: bool, vmm_dies: bool) -> Option<()> {
    let what = format!("{at:?}, {point}, {spared}, no address {addressless}, VMM dies {vmm_dies}");
    let host = FakeHost::default();
    let dir = tempfile::tempdir().unwrap();
    let store = &dir.path().join("store");
    let mut vmm = Vmm::start();
    let pid = vmm.pid();
    let pool = host.pool(1, store);
    host.world().addressless = addressless;
    prepare(&pool, &host, pid, at);
    drop(pool);
    // The same daemon, as far as anybody can see, but mortal from here on. Its start passes the
    // points of a reconciliation, which has a test of its own below.
    let pool = {
        let pool = host.pool(1, store);
        let Pool { mut host, slots, store, profiles, policies, maintenance, queue, changes } = pool;
        host.faults = FaultPoints::at(point, spared, die);
        Pool { host, slots, store, profiles, policies, maintenance, queue, changes }
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| operate(&pool, pid, at)));
    drop(pool);
    let payload = outcome.err()?;
    assert!(payload.is::<Killed>(), "{what}: {:?}", payload.downcast_ref::<String>());
    check_traffic(&host, &what);
    take_over(&host, store, &mut vmm, vmm_dies, at, &what);
    Some(())
}

/// The next daemon, up to a clean pool.
fn take_over(host: &FakeHost, store: &Path, vmm: &mut Vmm, vmm_dies: bool, at: At, what: &str) {
    let pid = vmm.pid();
    if vmm_dies {
        vmm.kill();
        host.world().open.clear();
        let pool = host.pool(1, store);
        pool.reap();
        check_clean(&pool, host, what);
        return;
    }
    let pool = host.pool(1, store);
    check_traffic(host, what);
    let lease = pool.slots()[0].id();
    if pool.list()[0].state != LeaseState::Free {
        let thief = Vmm::start();
        let stolen = pool.acquire(&request(), thief.pid());
        assert!(matches!(stolen, Err(OpError::NoVfFree { .. })), "{what}: held by two");
        assert_eq!(pool.list()[0].owner_pid, Some(pid), "{what}: the VMM's lease is another's");
    }
    let state = pool.list()[0].state;
    // The step is finished or undone: what the VMM does next, it may do.
    match at {
        At::Activate if state == LeaseState::Initialised => {
            pool.carry_out(&activate(lease), pid).unwrap();
        }
        At::Activate | At::SetMac | At::Drain => {
            assert_eq!(state, LeaseState::Active, "{what}");
            pool.carry_out(&Request::Quiesce { lease }, pid).unwrap();
        }
        At::Quiesce => {
            let Reply::Done = pool.carry_out(&Request::Quiesce { lease }, pid).unwrap() else {
                panic!("{what}");
            };
        }
        _ => {}
    }
    check_traffic(host, what);
    host.world().open.clear();
    pool.carry_out(&Request::Release { lease }, pid).unwrap();
    check_clean(&pool, host, what);
    if at == At::Drain {
        // Asked again, as an operator does whose command broke off.
        pool.set_maintenance("eth0", true).unwrap();
        assert!(pool.acquire(&request(), pid).is_err(), "{what}");
    }
    pool.set_maintenance("eth0", false).unwrap();
    pool.acquire(&request(), pid).unwrap();
}

#[test]
fn a_daemon_may_die_anywhere() {
    let mut reached = BTreeSet::new();
    for at in ALL {
        for point in FaultPoint::all() {
            for case in 0..4 {
                let (addressless, vmm_dies) = (case & 1 != 0, case & 2 != 0);
                if addressless && at == At::SetMac {
                    // Where the kernel knows no address, none can be set.
                    continue;
                }
                let deaths = (0..).map_while(|n| run(at, point, n, addressless, vmm_dies)).count();
                if deaths != 0 {
                    reached.insert(point);
                }
            }
        }
    }
    let missed: Vec<_> = FaultPoint::all().filter(|point| !reached.contains(point)).collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
}

/// A daemon that dies while it takes over from a dead one.
#[test]
fn a_daemon_may_die_while_it_takes_over() {
    let mut deaths = 0;
    for at in ALL {
        for point in FaultPoint::all() {
            for (spared, vmm_dies) in [(0, false), (0, true), (1, false), (1, true)] {
                let what = format!("taking over after {at:?}, {point}, {spared}, {vmm_dies}");
                let host = FakeHost::default();
                let dir = tempfile::tempdir().unwrap();
                let store = &dir.path().join("store");
                let mut vmm = Vmm::start();
                let pool = host.pool(1, store);
                prepare(&pool, &host, vmm.pid(), at);
                drop(pool);
                if vmm_dies {
                    vmm.kill();
                    host.world().open.clear();
                }
                let faults = FaultPoints::at(point, spared, die);
                let start = || drop(host.mortal_pool(1, store, faults));
                if catch_unwind(AssertUnwindSafe(start)).is_err() {
                    deaths += 1;
                    check_traffic(&host, &what);
                    if vmm_dies {
                        let pool = host.pool(1, store);
                        pool.reap();
                        check_clean(&pool, &host, &what);
                    } else {
                        let next = if at == At::Activate { At::Init } else { At::Enable };
                        take_over(&host, store, &mut vmm, false, next, &what);
                    }
                }
            }
        }
    }
    assert!(deaths > 20, "{deaths}");
}
