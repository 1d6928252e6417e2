//! The store over deaths, reboots, damage and a second daemon.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

fn store(dir: &TempDir) -> Result<Store, StateError> {
    Store::open(&dir.path().join("state.db"), "boot 1")
}

fn vf(function: u8) -> PciAddress {
    format!("0000:01:10.{function}").parse().unwrap()
}

fn record() -> LeaseRecord {
    LeaseRecord {
        state: LeaseState::Active,
        pid: Some(42),
        start_time: Some(1 << 40),
        vm: Some("vm'1\"; DROP TABLE lease".into()),
        device: None,
        mac: Some(MacAddr([0x52, 0x54, 0, 1, 2, 3])),
        port: Some("tap0".into()),
    }
}

#[test]
fn what_was_written_is_there_for_the_next_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(&dir).unwrap();
    for state in LeaseState::ALL {
        first.record(vf(0), Some(&LeaseRecord { state, ..record() })).unwrap();
        assert_eq!(first.leases().unwrap()[&vf(0)].state, state);
    }
    first.record(vf(0), Some(&record())).unwrap();
    first.record(vf(2), Some(&record())).unwrap();
    first.record(vf(2), None).unwrap();
    assert!(first.set_maintenance("eth0", true).unwrap());
    assert!(!first.set_maintenance("eth0", true).unwrap(), "not new");
    drop(first);
    let next = store(&dir).unwrap();
    assert_eq!(next.leases().unwrap(), BTreeMap::from([(vf(0), record())]));
    assert_eq!(next.maintenance().unwrap(), BTreeSet::from(["eth0".to_owned()]));
    assert!(next.set_maintenance("eth0", false).unwrap());
    assert!(next.maintenance().unwrap().is_empty());
}

#[test]
fn leases_end_with_their_boot_and_maintenance_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(&dir).unwrap();
    first.record(vf(0), Some(&record())).unwrap();
    first.set_maintenance("eth0", true).unwrap();
    drop(first);
    let next = Store::open(&dir.path().join("state.db"), "boot 2").unwrap();
    assert!(next.leases().unwrap().is_empty());
    assert_eq!(next.maintenance().unwrap().len(), 1);
}

#[test]
fn a_second_daemon_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(&dir).unwrap();
    let error = store(&dir).unwrap_err();
    assert!(matches!(error, StateError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("--state"));
    first.record(vf(0), Some(&record())).unwrap();
}

#[test]
fn damage_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let aside = dir.path().join("state.db.unreadable");
    fs::write(&path, "{ \"version\": 1 } and then something that no database begins with").unwrap();
    assert!(store(&dir).unwrap().leases().unwrap().is_empty());
    assert!(fs::read_to_string(&aside).unwrap().starts_with("{ \"version\""));
    // A later version is not understood either.
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    store(&dir).unwrap().record(vf(0), Some(&record())).unwrap();
    assert!(fs::read(&aside).unwrap().starts_with(b"SQLite format 3"));
    // Pages in the middle.
    let mut bytes = fs::read(&path).unwrap();
    let length = bytes.len();
    bytes[100..length].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    assert!(store(&dir).unwrap().leases().unwrap().is_empty());
}

#[test]
fn a_record_without_sense_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).unwrap();
    store.record(vf(0), Some(&record())).unwrap();
    store.record(vf(2), Some(&record())).unwrap();
    let change = "UPDATE lease SET state = 'dancing' WHERE vf = ?1";
    store.connection().execute(change, [vf(2).to_string()]).unwrap();
    let leases = store.leases().unwrap();
    assert_eq!(leases.keys().collect::<Vec<_>>(), [&vf(0)]);
}

#[test]
fn only_its_owner_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let _store = store(&dir).unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
    }
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let error = Store::open(Path::new("/nowhere/state.db"), "boot").unwrap_err();
    assert!(error.to_string().contains("/nowhere/state.db"), "{error}");
}
