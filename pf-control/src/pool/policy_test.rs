//! What an operator's policy allows is done at the PF, and what it does not is refused before anything
//! has changed.

use super::fake_host::VM_MAC;
use super::pool_test::{Bench, activate};
use super::*;
use crate::lease::LeaseState;
use crate::ops::{MacAddr, Request, Rings};
use crate::vendor::VfSettings;

/// What the VM of port tap0 may, and nobody else.
const STRICT: &str = r#"
[ports.tap0]
macs = ["52:54:00:aa:bb:cc", "52:54:00:aa:bb:dd"]
trust = true
max-tx-mbit = 100
"#;

fn bench(policy: &str) -> Bench {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), policy).unwrap();
    let mut bench = Bench::new(1);
    bench.host.world().policies = Policies::load(file.path()).unwrap();
    bench.restart(1);
    bench
}

fn initialised(bench: &Bench) -> LeaseId {
    let lease = bench.acquire().unwrap().lease;
    bench.call(Request::Init { lease, rings: Rings::default() }).unwrap();
    lease
}

#[test]
fn a_vf_is_set_as_its_port_says_before_it_has_the_address_and_only_for_so_long() {
    let bench = bench(STRICT);
    let lease = initialised(&bench);
    assert!(bench.host.world().settings.is_empty());
    bench.call(activate(lease)).unwrap();
    let expected = VfSettings { trust: true, max_tx_mbit: 100, ..VfSettings::default() };
    assert_eq!(bench.host.world().settings[&0], expected);
    bench.call(Request::Release { lease }).unwrap();
    bench.acquire().unwrap();
    assert!(bench.host.world().settings.is_empty(), "the next one has what nobody has asked for");
}

#[test]
fn another_address_or_port_is_refused_and_nothing_has_moved() {
    let bench = bench(STRICT);
    let lease = initialised(&bench);
    bench.host.log();
    let stranger = MacAddr([0x52, 0x54, 0, 0xaa, 0xbb, 0xee]);
    for (mac, port) in [(stranger, "tap0"), (VM_MAC, "tap1")] {
        let asked = Request::Activate { lease, mac, port: port.into() };
        let error = bench.call(asked).unwrap_err();
        assert!(matches!(&error, OpError::Policy { port: its, .. } if its == port), "{error}");
    }
    assert!(bench.host.log().is_empty());
    assert_eq!(bench.state(), LeaseState::Initialised);
    // The VM may still do what it is allowed to.
    bench.call(activate(lease)).unwrap();
    let error = bench.call(Request::SetMac { lease, mac: stranger }).unwrap_err();
    assert!(matches!(error, OpError::Policy { .. }), "{error}");
    let other = MacAddr([0x52, 0x54, 0, 0xaa, 0xbb, 0xdd]);
    bench.call(Request::SetMac { lease, mac: other }).unwrap();
    assert!(bench.pool.check_policy("tap0").is_ok() && bench.pool.check_policy("tap1").is_err());
}

#[test]
fn a_vmm_does_not_free_itself_of_checks() {
    let bench = Bench::new(1);
    let lease = initialised(&bench);
    let off = Request::SetAntiSpoof { lease, enabled: false };
    let vlan = Request::SetDefaultVlan { lease, vlan: 5, priority: 0 };
    for early in [&off, &vlan] {
        let error = bench.call(early.clone()).unwrap_err();
        assert!(matches!(error, OpError::Invalid { .. }), "no port is known yet: {error}");
    }
    bench.call(activate(lease)).unwrap();
    for closed in [off, vlan] {
        let error = bench.call(closed).unwrap_err();
        assert!(matches!(error, OpError::Policy { .. }), "{error}");
    }
    // What is allowed reaches the module, which serves neither.
    for open in [
        Request::SetAntiSpoof { lease, enabled: true },
        Request::SetDefaultVlan { lease, vlan: 0, priority: 0 },
    ] {
        let error = bench.call(open).unwrap_err();
        assert!(matches!(error, OpError::NotSupported { .. }), "{error}");
    }
}

#[test]
fn a_vf_that_cannot_be_set_so_is_not_used() {
    let bench = bench(STRICT);
    let lease = initialised(&bench);
    bench.host.world().broken.insert("apply");
    let error = bench.call(activate(lease)).unwrap_err();
    assert!(error.to_string().contains("as its port's policy says"), "{error}");
    assert_eq!(bench.state(), LeaseState::Initialised);
    bench.host.world().broken.clear();
    bench.call(activate(lease)).unwrap();
}
