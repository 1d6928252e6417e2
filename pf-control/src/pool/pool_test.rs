//! The pool on a fake host: leases, orders of steps, failures, deaths, restarts.

use super::fake_host::{FakeHost, PF_MAC, VM_MAC};
use super::*;
use crate::lease::LeaseState;
use crate::ops::{AcquireRequest, Acquired, DeviceClass, MacAddr, Reply, Request, Ring, Rings};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// A process that lives until it is dropped, to hold leases.
struct Vmm(Child);

impl Vmm {
    fn start() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Bench {
    host: FakeHost,
    dir: TempDir,
    pool: Pool,
    vmm: Vmm,
}

impl Bench {
    fn new(vfs: u32) -> Self {
        let host = FakeHost::default();
        let dir = tempfile::tempdir().unwrap();
        let pool = host.pool(vfs, &dir.path().join("journal"));
        host.log();
        Self { host, dir, pool, vmm: Vmm::start() }
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn acquire(&self) -> Result<Acquired, OpError> {
        self.pool.acquire(&request(), self.vmm.pid())
    }

    fn call(&self, request: Request) -> Result<Reply, OpError> {
        self.pool.carry_out(&request, self.vmm.pid())
    }

    fn active(&self) -> LeaseId {
        let lease = self.acquire().unwrap().lease;
        self.call(Request::Init { lease, rings: Rings::default() }).unwrap();
        self.call(activate(lease)).unwrap();
        lease
    }

    fn state(&self) -> LeaseState {
        self.pool.list()[0].state
    }
}

fn request() -> AcquireRequest {
    AcquireRequest {
        vm: "vm1".into(),
        device: "net0".into(),
        class: DeviceClass::Net,
        mtu: 1500,
        queues: 1,
    }
}

fn activate(lease: LeaseId) -> Request {
    Request::Activate { lease, mac: VM_MAC, port: "tap0".into() }
}

const PLACEHOLDER: MacAddr = MacAddr([0x02, 0x4e, 1, 2, 3, 0]);

#[test]
fn fresh_vfs_are_put_under_their_placeholders() {
    let host = FakeHost::default();
    let dir = tempfile::tempdir().unwrap();
    let pool = host.pool(2, &dir.path().join("journal"));
    assert!(pool.list().iter().all(|entry| entry.state == LeaseState::Free));
    assert_eq!(host.world().macs[&0], PLACEHOLDER);
    assert_ne!(host.world().macs[&1], PLACEHOLDER);
}

#[test]
fn each_way_is_make_before_break() {
    let bench = Bench::new(1);
    let lease = bench.acquire().unwrap().lease;
    assert_eq!(bench.host.log(), [format!("mac 0 {PLACEHOLDER}"), "defaults 0".into()]);
    bench.call(Request::Init { lease, rings: Rings::default() }).unwrap();
    assert_eq!(bench.host.log(), ["queues 0"]);
    bench.call(activate(lease)).unwrap();
    assert_eq!(bench.host.log(), [format!("mac 0 {VM_MAC}"), format!("uplink {VM_MAC}")]);
    bench.call(Request::Quiesce { lease }).unwrap();
    assert_eq!(bench.host.log(), [format!("port {VM_MAC} tap0"), format!("mac 0 {PLACEHOLDER}")]);
    bench.call(Request::Release { lease }).unwrap();
    assert_eq!(bench.host.log(), [format!("forget {VM_MAC}")]);
    assert_eq!(bench.state(), LeaseState::Free);
}

#[test]
fn release_of_an_active_lease_quiesces_first_and_may_be_repeated() {
    let bench = Bench::new(1);
    let lease = bench.active();
    bench.host.log();
    bench.call(Request::Release { lease }).unwrap();
    let log = bench.host.log();
    assert_eq!(log[0], format!("port {VM_MAC} tap0"));
    assert_eq!(log[1], format!("mac 0 {PLACEHOLDER}"));
    bench.call(Request::Release { lease }).unwrap();
    assert_eq!(bench.host.log(), [""; 0]);
}

#[test]
fn repeated_activate_and_quiesce_do_nothing_again() {
    let bench = Bench::new(1);
    let lease = bench.active();
    bench.host.log();
    bench.call(activate(lease)).unwrap();
    assert!(bench.host.log().is_empty());
    let other = Request::Activate { lease, mac: MacAddr([2, 0, 0, 0, 0, 9]), port: "tap0".into() };
    assert!(matches!(bench.call(other), Err(OpError::WrongState { .. })));
    bench.call(Request::Quiesce { lease }).unwrap();
    bench.host.log();
    bench.call(Request::Quiesce { lease }).unwrap();
    assert!(bench.host.log().is_empty());
}

#[test]
fn out_of_order_calls_are_refused_and_change_nothing() {
    let bench = Bench::new(1);
    let lease = bench.acquire().unwrap().lease;
    bench.host.log();
    let error = bench.call(activate(lease)).unwrap_err();
    assert_eq!(
        error,
        OpError::WrongState { op: Op::Activate, state: LeaseState::Acquired },
        "{error}"
    );
    assert!(bench.call(Request::Quiesce { lease }).is_err());
    assert!(bench.host.log().is_empty());
}

#[test]
fn only_the_owner_may_use_a_lease() {
    let bench = Bench::new(1);
    let lease = bench.active();
    let thief = Vmm::start();
    for request in [Request::Quiesce { lease }, Request::Release { lease }] {
        let error = bench.pool.carry_out(&request, thief.pid()).unwrap_err();
        assert!(matches!(error, OpError::NotOwner { .. }), "{error}");
    }
    assert_eq!(bench.state(), LeaseState::Active);
}

#[test]
fn a_handle_that_names_nothing_is_refused() {
    let bench = Bench::new(1);
    let lease = LeaseId("0000:02:00.0".parse().unwrap());
    let error = bench.call(Request::Release { lease }).unwrap_err();
    assert!(matches!(error, OpError::NoSuchLease { .. }), "{error}");
}

#[test]
fn a_full_pool_is_told_from_an_unsuitable_one() {
    let bench = Bench::new(2);
    bench.acquire().unwrap();
    bench.acquire().unwrap();
    assert_eq!(bench.acquire(), Err(OpError::NoVfFree { total: 2, held: 2 }));
    for bad in [
        AcquireRequest { class: DeviceClass::Crypto, ..request() },
        AcquireRequest { mtu: 9000, ..request() },
        AcquireRequest { queues: 3, ..request() },
    ] {
        let error = bench.pool.acquire(&bad, bench.vmm.pid()).unwrap_err();
        assert!(matches!(error, OpError::Unsuitable { .. }), "{error}");
    }
    let none = AcquireRequest { queues: 0, ..request() };
    assert!(matches!(bench.pool.acquire(&none, bench.vmm.pid()), Err(OpError::Invalid { .. })));
}

#[test]
fn a_failed_acquire_leaves_the_vf_in_the_pool() {
    let bench = Bench::new(1);
    bench.host.world().broken.insert("defaults");
    let error = bench.acquire().unwrap_err();
    assert!(matches!(error, OpError::Kernel { .. }), "{error}");
    assert_eq!(bench.state(), LeaseState::Free);
    bench.host.world().broken.clear();
    bench.acquire().unwrap();
}

#[test]
fn half_an_activation_is_undone_and_only_release_leads_on() {
    let bench = Bench::new(1);
    let lease = bench.acquire().unwrap().lease;
    bench.call(Request::Init { lease, rings: Rings::default() }).unwrap();
    bench.host.world().broken.insert("uplink");
    assert!(matches!(bench.call(activate(lease)), Err(OpError::Kernel { .. })));
    assert_eq!(bench.host.world().macs[&0], PLACEHOLDER);
    assert_eq!(bench.state(), LeaseState::Failed);
    assert!(bench.pool.list()[0].fault.is_some());
    assert!(matches!(bench.call(activate(lease)), Err(OpError::WrongState { .. })));
    bench.call(Request::Release { lease }).unwrap();
    assert_eq!(bench.state(), LeaseState::Free);
}

#[test]
fn an_address_or_port_that_cannot_be_is_refused_before_anything_moves() {
    let bench = Bench::new(2);
    bench.active();
    let lease = bench.acquire().unwrap().lease;
    bench.call(Request::Init { lease, rings: Rings::default() }).unwrap();
    bench.host.log();
    let fresh = MacAddr([0x52, 0x54, 0, 0, 0, 7]);
    for (mac, port) in [
        (VM_MAC, "tap1"),
        (MacAddr([0xff; 6]), "tap1"),
        (MacAddr([0; 6]), "tap1"),
        (PF_MAC, "tap1"),
        (MacAddr([0x02, 0x4e, 1, 2, 3, 9]), "tap1"),
        (fresh, "eth0"),
        (fresh, "wlan0"),
    ] {
        let error = bench.call(Request::Activate { lease, mac, port: port.into() }).unwrap_err();
        assert!(matches!(error, OpError::Invalid { .. }), "{mac} {port}: {error}");
    }
    assert!(bench.host.log().is_empty());
    bench.call(Request::Activate { lease, mac: fresh, port: "tap1".into() }).unwrap();
}

#[test]
fn a_changed_address_is_taken_before_the_old_one_is_left() {
    let bench = Bench::new(1);
    let lease = bench.active();
    bench.host.log();
    let mac = MacAddr([0x52, 0x54, 0, 0, 0, 7]);
    bench.call(Request::SetMac { lease, mac }).unwrap();
    let log = bench.host.log();
    assert_eq!(
        log[..3],
        [format!("mac 0 {mac}"), format!("uplink {mac}"), format!("port {VM_MAC} tap0")]
    );
    bench.call(Request::Quiesce { lease }).unwrap();
    assert_eq!(bench.host.log()[0], format!("port {mac} tap0"));
}

#[test]
fn a_dead_owner_s_vf_goes_to_the_next_vm() {
    let mut bench = Bench::new(1);
    bench.active();
    bench.vmm.kill();
    bench.host.log();
    let next = Vmm::start();
    // No watcher runs here: the acquire itself finds the owner dead.
    bench.pool.acquire(&request(), next.pid()).unwrap();
    let log = bench.host.log();
    assert_eq!(log[0], format!("port {VM_MAC} tap0"));
    assert_eq!(log[1], format!("mac 0 {PLACEHOLDER}"));
    assert_eq!(bench.pool.list()[0].owner_pid, Some(next.pid()));
}

#[test]
fn a_vf_that_stays_open_is_not_given_on() {
    let bench = Bench::new(1);
    let lease = bench.active();
    let pid = bench.vmm.pid();
    bench.host.world().open.insert(20, pid);
    let started = Instant::now();
    let error = bench.call(Request::Release { lease }).unwrap_err();
    assert_eq!(error, OpError::StillOpen { holder: Some(pid) });
    assert!(started.elapsed() < CLOSE_DEADLINE + Duration::from_secs(1));
    assert_eq!(bench.state(), LeaseState::Failed);
    assert_eq!(bench.host.world().macs[&0], PLACEHOLDER, "isolated in any case");
    bench.host.world().open.clear();
    bench.call(Request::Release { lease }).unwrap();
    assert_eq!(bench.state(), LeaseState::Free);
}

#[test]
fn a_dead_owner_s_vf_that_cannot_be_cleaned_is_tried_again() {
    let mut bench = Bench::new(1);
    bench.active();
    bench.host.world().broken.insert("mac");
    bench.vmm.kill();
    bench.pool.reap();
    assert_eq!(bench.state(), LeaseState::Failed);
    bench.host.world().broken.clear();
    bench.pool.reap();
    assert_eq!(bench.state(), LeaseState::Free);
    assert_eq!(bench.host.world().macs[&0], PLACEHOLDER);
}

#[test]
fn a_restarted_daemon_adopts_what_lives() {
    let bench = Bench::new(2);
    let lease = bench.active();
    let pid = bench.vmm.pid();
    bench.host.world().open.insert(20, pid);
    let pool = bench.host.pool(2, &bench.journal());
    let entry = &pool.list()[0];
    assert_eq!((entry.state, entry.owner_pid), (LeaseState::Active, Some(pid)));
    assert_eq!(entry.vm.as_deref(), Some("vm1"));
    bench.host.log();
    pool.carry_out(&Request::Quiesce { lease }, pid).unwrap();
    assert_eq!(bench.host.log()[0], format!("port {VM_MAC} tap0"), "the port was remembered");
}

/// A function whose address no driver knows: the journal alone says that a VM is on it.
#[test]
fn a_restarted_daemon_adopts_a_function_that_has_no_address() {
    let bench = Bench::new(1);
    bench.host.world().addressless = true;
    let lease = bench.active();
    let pid = bench.vmm.pid();
    bench.host.world().open.insert(20, pid);
    let pool = bench.host.pool(1, &bench.journal());
    let entry = &pool.list()[0];
    assert_eq!((entry.state, entry.mac), (LeaseState::Active, VM_MAC));
    pool.carry_out(&Request::Quiesce { lease }, pid).unwrap();
    assert_eq!(pool.list()[0].mac, PLACEHOLDER);
}

#[test]
fn a_restarted_daemon_without_a_journal_believes_the_kernel() {
    let bench = Bench::new(1);
    let lease = bench.active();
    let pid = bench.vmm.pid();
    bench.host.world().open.insert(20, pid);
    let pool = bench.host.pool(1, &bench.dir.path().join("other"));
    assert_eq!(pool.list()[0].state, LeaseState::Active);
    bench.host.log();
    pool.carry_out(&Request::Quiesce { lease }, pid).unwrap();
    assert_eq!(bench.host.log()[0], format!("port {VM_MAC} all"), "flooded until learned");
}

#[test]
fn a_lease_that_was_not_opened_yet_is_adopted_by_the_journal() {
    let bench = Bench::new(1);
    bench.acquire().unwrap();
    let pool = bench.host.pool(1, &bench.journal());
    let entry = &pool.list()[0];
    assert_eq!((entry.state, entry.owner_pid), (LeaseState::Acquired, Some(bench.vmm.pid())));
}

#[test]
fn a_restarted_daemon_cleans_what_is_dead() {
    let mut bench = Bench::new(1);
    bench.active();
    bench.vmm.kill();
    bench.host.log();
    let pool = bench.host.pool(1, &bench.journal());
    assert_eq!(pool.list()[0].state, LeaseState::Free);
    assert_eq!(bench.host.world().macs[&0], PLACEHOLDER);
    assert!(!bench.host.world().fdb[&VM_MAC].1, "the entry is the switch's own again");
}

#[test]
fn a_garbled_journal_is_no_obstacle() {
    let bench = Bench::new(1);
    std::fs::write(bench.journal(), "{").unwrap();
    let pool = bench.host.pool(1, &bench.journal());
    assert_eq!(pool.list()[0].state, LeaseState::Free);
}

#[test]
fn what_the_module_does_not_serve_is_said_by_name() {
    let bench = Bench::new(1);
    let lease = bench.acquire().unwrap().lease;
    let error = bench.call(Request::SetMtu { lease, mtu: 9000 }).unwrap_err();
    assert_eq!(error, OpError::NotSupported { op: Op::SetMtu });
    let error = bench.call(Request::SetAntiSpoof { lease, enabled: false }).unwrap_err();
    assert_eq!(error, OpError::NotSupported { op: Op::SetAntiSpoof });
    let Ok(Reply::Supported(supported)) =
        bench.call(Request::IsSupported { class: DeviceClass::Net })
    else {
        panic!("is-supported is always served");
    };
    assert_eq!((supported.vfs, supported.free), (1, 0));
    assert!(supported.ops.contains(&Op::Acquire) && supported.ops.contains(&Op::SetMac));
    assert!(!supported.ops.contains(&Op::SetMtu));
}

#[test]
fn info_tells_state_address_and_port() {
    let bench = Bench::new(1);
    let lease = bench.active();
    let Ok(Reply::Info(info)) = bench.call(Request::GetInfo { lease }) else {
        panic!("info is always served to the owner");
    };
    assert_eq!((info.state, info.mac), (LeaseState::Active, VM_MAC));
    assert_eq!(info.port.as_deref(), Some("tap0"));
    assert_eq!(info.acquired.placeholder_mac, PLACEHOLDER);
}

#[test]
fn a_refused_init_does_not_replace_the_rings() {
    let bench = Bench::new(1);
    let lease = bench.active();
    let rings = Rings { tx: vec![Ring { address: 0, length: 128 }], rx: vec![] };
    assert!(bench.call(Request::Init { lease, rings }).is_err());
    assert_eq!(bench.pool.slots()[0].lease().rings, Rings::default());
}
