//! The pool on a fake host: leases, orders of steps, failures, deaths, restarts.

use super::fake_host::{FakeHost, PF_MAC, VM_MAC};
use super::*;
use crate::lease::LeaseState;
use crate::ops::{
    AcquireRequest, Acquired, DeviceClass, Health, MacAddr, Reply, Request, RequestState, Ring,
    Rings,
};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// A process that lives until it is dropped, to hold leases.
pub(super) struct Vmm(Child);

impl Vmm {
    pub(super) fn start() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).spawn().unwrap())
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) struct Bench {
    pub(super) host: FakeHost,
    dir: TempDir,
    pub(super) pool: Pool,
    pub(super) vmm: Vmm,
}

impl Bench {
    pub(super) fn new(vfs: u32) -> Self {
        let host = FakeHost::default();
        let dir = tempfile::tempdir().unwrap();
        let pool = host.pool(vfs, &dir.path().join("store"));
        host.log();
        Self { host, dir, pool, vmm: Vmm::start() }
    }

    /// The daemon dies and is started again, with the store `name`.
    pub(super) fn restart_with(&mut self, vfs: u32, name: &str) {
        let (host, path) = (self.host.clone(), self.dir.path().join(name));
        // A dead daemon has no store open.
        let nothing = FakeHost::default().pool(0, &self.dir.path().join("nothing"));
        drop(std::mem::replace(&mut self.pool, nothing));
        self.pool = host.pool(vfs, &path);
    }

    pub(super) fn restart(&mut self, vfs: u32) {
        self.restart_with(vfs, "store");
    }

    pub(super) fn acquire(&self) -> Result<Acquired, OpError> {
        self.pool.acquire(&request(), self.vmm.pid())
    }

    pub(super) fn call(&self, request: Request) -> Result<Reply, OpError> {
        self.pool.carry_out(&request, self.vmm.pid())
    }

    pub(super) fn active(&self) -> LeaseId {
        let lease = self.acquire().unwrap().lease;
        self.call(Request::Init { lease, rings: Rings::default() }).unwrap();
        self.call(activate(lease)).unwrap();
        lease
    }

    pub(super) fn state(&self) -> LeaseState {
        self.pool.list()[0].state
    }
}

pub(super) fn request() -> AcquireRequest {
    AcquireRequest {
        vm: "vm1".into(),
        device: "net0".into(),
        class: DeviceClass::Net,
        mtu: 1500,
        queues: 1,
        profile: None,
        wait: false,
    }
}

pub(super) fn activate(lease: LeaseId) -> Request {
    Request::Activate { lease, mac: VM_MAC, port: "tap0".into() }
}

const PLACEHOLDER: MacAddr = MacAddr([0x02, 0x4e, 1, 2, 3, 0]);

#[test]
fn fresh_vfs_are_put_under_their_placeholders() {
    let host = FakeHost::default();
    let dir = tempfile::tempdir().unwrap();
    let pool = host.pool(2, &dir.path().join("store"));
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
    let stranger = Vmm::start();
    bench.acquire().unwrap();
    bench.pool.acquire(&request(), stranger.pid()).unwrap();
    let third = AcquireRequest { device: "net3".into(), ..request() };
    let refused = bench.pool.acquire(&third, bench.vmm.pid());
    assert_eq!(refused, Err(OpError::NoVfFree { total: 2, held: 2 }));
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
fn an_old_address_goes_the_emulated_way_before_the_vf_leaves_it() {
    let bench = Bench::new(1);
    let lease = bench.active();
    bench.host.log();
    let mac = MacAddr([0x52, 0x54, 0, 0, 0, 7]);
    bench.call(Request::SetMac { lease, mac }).unwrap();
    let log = bench.host.log();
    assert_eq!(
        log,
        [
            format!("port {VM_MAC} tap0"),
            format!("mac 0 {mac}"),
            format!("uplink {mac}"),
            format!("forget {VM_MAC}")
        ]
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
    let mut bench = Bench::new(2);
    let lease = bench.active();
    let pid = bench.vmm.pid();
    bench.host.world().open.insert(20, pid);
    bench.restart(2);
    let entry = &bench.pool.list()[0];
    assert_eq!((entry.state, entry.owner_pid), (LeaseState::Active, Some(pid)));
    assert_eq!(entry.vm.as_deref(), Some("vm1"));
    bench.host.log();
    bench.pool.carry_out(&Request::Quiesce { lease }, pid).unwrap();
    assert_eq!(bench.host.log()[0], format!("port {VM_MAC} tap0"), "the port was remembered");
}

/// A function whose address no driver knows: the store alone says that a VM is on it.
#[test]
fn a_restarted_daemon_adopts_a_function_that_has_no_address() {
    let mut bench = Bench::new(1);
    bench.host.world().addressless = true;
    let lease = bench.active();
    let pid = bench.vmm.pid();
    bench.host.world().open.insert(20, pid);
    bench.restart(1);
    let entry = &bench.pool.list()[0];
    assert_eq!((entry.state, entry.mac), (LeaseState::Active, VM_MAC));
    bench.pool.carry_out(&Request::Quiesce { lease }, pid).unwrap();
    assert_eq!(bench.pool.list()[0].mac, PLACEHOLDER);
}

#[test]
fn a_restarted_daemon_without_its_store_believes_the_kernel() {
    let mut bench = Bench::new(1);
    let lease = bench.active();
    let pid = bench.vmm.pid();
    bench.host.world().open.insert(20, pid);
    bench.restart_with(1, "other");
    assert_eq!(bench.pool.list()[0].state, LeaseState::Active);
    bench.host.log();
    bench.pool.carry_out(&Request::Quiesce { lease }, pid).unwrap();
    assert_eq!(bench.host.log()[0], format!("port {VM_MAC} all"), "flooded until learned");
}

#[test]
fn a_lease_that_was_not_opened_yet_is_adopted_by_the_store() {
    let mut bench = Bench::new(1);
    bench.acquire().unwrap();
    bench.restart(1);
    let entry = &bench.pool.list()[0];
    assert_eq!((entry.state, entry.owner_pid), (LeaseState::Acquired, Some(bench.vmm.pid())));
}

#[test]
fn a_restarted_daemon_cleans_what_is_dead() {
    let mut bench = Bench::new(1);
    bench.active();
    bench.vmm.kill();
    bench.host.log();
    bench.restart(1);
    assert_eq!(bench.pool.list()[0].state, LeaseState::Free);
    assert_eq!(bench.host.world().macs[&0], PLACEHOLDER);
    assert!(!bench.host.world().fdb[&VM_MAC].1, "the entry is the switch's own again");
}

#[test]
fn what_the_module_does_not_serve_is_said_by_name() {
    let bench = Bench::new(1);
    let lease = bench.acquire().unwrap().lease;
    let error = bench.call(Request::SetMtu { lease, mtu: 9000 }).unwrap_err();
    assert_eq!(error, OpError::NotSupported { op: Op::SetMtu });
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

#[test]
fn a_pf_in_maintenance_gives_no_vf_and_wants_those_that_are_held() {
    let mut bench = Bench::new(2);
    let lease = bench.active();
    let held = bench.pool.set_maintenance("eth0", true).unwrap();
    assert_eq!(held.iter().map(|entry| entry.vf).collect::<Vec<_>>(), [lease.0]);
    assert!(held[0].maintenance);
    assert_eq!(bench.acquire(), Err(OpError::NoVfFree { total: 2, held: 2 }));
    // Whoever holds one may still use it, and give it back.
    bench.call(Request::Quiesce { lease }).unwrap();
    bench.call(Request::Release { lease }).unwrap();
    assert!(bench.pool.set_maintenance("eth0", true).unwrap().is_empty());
    bench.restart(2);
    assert!(bench.pool.list().iter().all(|entry| entry.maintenance));
    assert!(bench.acquire().is_err());
    bench.pool.set_maintenance("eth0", false).unwrap();
    bench.acquire().unwrap();
    let error = bench.pool.set_maintenance("eth7", true).unwrap_err();
    assert!(error.to_string().contains("eth0"), "{error}");
}

#[test]
fn whoever_follows_hears_of_every_kind_of_change() {
    let mut bench = Bench::new(1);
    let mut changes = bench.pool.changes();
    let mut heard = |what: &str| {
        assert!(changes.has_changed().unwrap(), "{what}");
        changes.mark_unchanged();
    };
    let lease = bench.active();
    heard("activate");
    bench.pool.set_maintenance("eth0", true).unwrap();
    heard("maintenance");
    bench.call(Request::Quiesce { lease }).unwrap();
    heard("quiesce");
    bench.vmm.kill();
    bench.pool.reap();
    heard("death");
}

#[test]
fn whoever_asks_again_for_the_same_device_gets_the_same_vf() {
    let bench = Bench::new(3);
    let first = bench.acquire().unwrap();
    assert_eq!(bench.acquire().unwrap(), first, "the answer got lost");
    let other = AcquireRequest { device: "net1".into(), ..request() };
    let second = bench.pool.acquire(&other, bench.vmm.pid()).unwrap();
    assert_ne!(second.lease, first.lease);
    let stranger = Vmm::start();
    assert_ne!(bench.pool.acquire(&request(), stranger.pid()).unwrap().lease, first.lease);
    // With more done, nothing got lost: it is another VF that is asked for.
    let lease = first.lease;
    bench.call(Request::Init { lease, rings: Rings::default() }).unwrap();
    bench.call(Request::Init { lease, rings: Rings::default() }).unwrap();
    assert!(matches!(bench.acquire(), Err(OpError::NoVfFree { .. })));
}

#[test]
fn a_vf_whose_owner_never_heard_of_it_comes_back() {
    let mut bench = Bench::new(1);
    let lease = bench.acquire().unwrap().lease;
    bench.restart(1);
    bench.pool.reap();
    assert_eq!(bench.state(), LeaseState::Acquired, "its owner may still come");
    let overdue = Instant::now();
    bench.pool.slots()[0].lease().orphan_at = Some(overdue);
    bench.pool.reap();
    assert_eq!(bench.state(), LeaseState::Free);
    // One whose owner goes on with it is no orphan.
    bench.acquire().unwrap();
    bench.restart(1);
    bench.call(Request::Init { lease, rings: Rings::default() }).unwrap();
    assert_eq!(bench.pool.slots()[0].lease().orphan_at, None);
    bench.call(Request::Release { lease }).unwrap();
    // Nor one whose owner asks again.
    bench.acquire().unwrap();
    bench.restart(1);
    assert!(bench.pool.slots()[0].lease().orphan_at.is_some());
    bench.acquire().unwrap();
    assert_eq!(bench.pool.slots()[0].lease().orphan_at, None);
}

#[test]
fn who_waits_gets_the_vf_in_order_of_arrival() {
    let bench = Bench::new(1);
    let lease = bench.active();
    let waiting = AcquireRequest { wait: true, ..request() };
    let (first, mut second, third) = (Vmm::start(), Vmm::start(), Vmm::start());
    let ask = |vmm: &Vmm, request: &AcquireRequest| bench.pool.acquire(request, vmm.pid());
    for (ahead, vmm) in [&first, &second, &first, &third].into_iter().enumerate() {
        let ahead = [0, 1, 0, 2][ahead];
        assert_eq!(ask(vmm, &waiting), Err(OpError::Queued { ahead }));
    }
    let queue = bench.pool.waiting();
    assert_eq!(
        queue.iter().map(|entry| entry.pid).collect::<Vec<_>>(),
        [first.pid(), second.pid(), third.pid()]
    );
    bench.call(Request::Release { lease }).unwrap();
    // Who does not wait is behind all who do, and so is who came later.
    let hasty = Vmm::start();
    assert_eq!(ask(&hasty, &request()), Err(OpError::NoVfFree { total: 1, held: 1 }));
    assert_eq!(ask(&third, &waiting), Err(OpError::Queued { ahead: 2 }));
    let lease = ask(&first, &waiting).unwrap().lease;
    // The dead do not wait.
    second.kill();
    bench.pool.reap();
    assert_eq!(bench.pool.waiting().len(), 1);
    bench.pool.carry_out(&Request::Release { lease }, first.pid()).unwrap();
    ask(&third, &waiting).unwrap();
    assert!(bench.pool.waiting().is_empty());
}

#[test]
fn a_request_is_told_from_its_wait_to_its_end() {
    let bench = Bench::new(1);
    let waiting = AcquireRequest { wait: true, device: "net9".into(), ..request() };
    let state = |device: &str| {
        let requests = bench.pool.requests();
        requests.into_iter().find(|entry| entry.device == device).map(|entry| entry.state)
    };
    let lease = bench.acquire().unwrap().lease;
    assert_eq!(state("net0"), Some(RequestState::BindStarted));
    // Asked again, it is the same.
    assert_eq!(bench.acquire().unwrap().lease, lease);
    assert_eq!(bench.pool.requests().len(), 1);
    bench.pool.acquire(&waiting, bench.vmm.pid()).unwrap_err();
    assert_eq!(state("net9"), Some(RequestState::Initial));
    bench.call(Request::Init { lease, rings: Rings::default() }).unwrap();
    bench.call(activate(lease)).unwrap();
    assert_eq!(state("net0"), Some(RequestState::Bound));
    bench.call(Request::Quiesce { lease }).unwrap();
    assert_eq!(state("net0"), Some(RequestState::Unbound));
    bench.call(Request::Release { lease }).unwrap();
    assert_eq!((state("net0"), state("net9")), (None, Some(RequestState::Initial)));
    bench.pool.acquire(&waiting, bench.vmm.pid()).unwrap();
    assert_eq!(state("net9"), Some(RequestState::BindStarted));
}

#[test]
fn an_adapter_is_shown_with_its_link_and_its_health() {
    let bench = Bench::new(3);
    bench.active();
    let [adapter] = bench.pool.adapters().try_into().unwrap();
    assert_eq!((adapter.vfs, adapter.free, adapter.health), (3, 2, Health::Enabled));
    assert_eq!((adapter.link_up, adapter.speed_mbit), (true, Some(1000)));
    assert_eq!((adapter.numa_node, adapter.interface.as_str()), (Some(1), "eth0"));
    bench.host.world().unplugged = true;
    bench.pool.set_maintenance("eth0", true).unwrap();
    let [adapter] = bench.pool.adapters().try_into().unwrap();
    assert_eq!((adapter.link_up, adapter.health), (false, Health::Maintenance));
    assert!(bench.pool.list().iter().all(|entry| !entry.link_up));
    bench.host.world().broken.insert("link");
    let [adapter] = bench.pool.adapters().try_into().unwrap();
    assert_eq!((adapter.health, adapter.mac), (Health::Failed, None));
    assert!(adapter.fault.is_some());
    // The VFs are still known, and still theirs who hold them.
    assert_eq!(bench.pool.list().len(), 3);
    assert_eq!(bench.state(), LeaseState::Active);
}

#[test]
fn a_profile_decides_which_adapters_will_do() {
    let mut bench = Bench::new(1);
    let asks = |profile: &str, wait| AcquireRequest {
        profile: Some(profile.to_owned()),
        wait,
        ..request()
    };
    let ask = |bench: &Bench, request| bench.pool.acquire(&request, bench.vmm.pid());
    let error = ask(&bench, asks("fast", false)).unwrap_err();
    assert!(error.to_string().contains("'fast'"), "{error}");
    let path = bench.dir.path().join("profiles.toml");
    let text = "[profiles.fast]\nclass = \"net\"\nmin-bandwidth-mbit = 10000\n\
                [profiles.slow]\nclass = \"net\"\nmin-bandwidth-mbit = 1000\nsharing = false\n";
    std::fs::write(&path, text).unwrap();
    bench.host.world().profiles = Profiles::load(&path).unwrap();
    bench.restart(1);
    let error = ask(&bench, asks("fast", true)).unwrap_err();
    assert!(matches!(error, OpError::Unsuitable { .. }), "{error}");
    assert!(error.to_string().contains("eth0: its bandwidth is 1000 Mbit/s"), "{error}");
    let error = ask(&bench, asks("none", false)).unwrap_err();
    assert!(error.to_string().contains("fast, slow"), "{error}");
    ask(&bench, asks("slow", false)).unwrap();
    // What may not be shared is not waited for on a shared uplink.
    let next = Vmm::start();
    let refused = bench.pool.acquire(&asks("slow", true), next.pid());
    assert_eq!(refused, Err(OpError::NoVfFree { total: 1, held: 1 }));
}
