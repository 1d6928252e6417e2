//! Against a tree of files that looks like sysfs.

use super::*;
use crate::inventory::{Occupancy, VfioNodes};
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// A PF `eth0` at 0000:01:00.0 with `vfs` VFs, all bound to `driver`.
fn tree(vfs: u32, driver: &str) -> (TempDir, Sysfs) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let pf = function(root, "0000:01:00.0", "0x10c9", "igb");
    for (name, text) in [
        ("sriov_totalvfs", "7"),
        ("sriov_numvfs", &vfs.to_string()),
        ("sriov_drivers_autoprobe", "1"),
    ] {
        fs::write(pf.join(name), text).unwrap();
    }
    fs::create_dir_all(root.join("class/net/eth0")).unwrap();
    fs::create_dir_all(root.join("class/net/lo")).unwrap();
    symlink("../../../bus/pci/devices/0000:01:00.0", root.join("class/net/eth0/device")).unwrap();
    for index in 0..vfs {
        let name = format!("0000:01:10.{}", 2 * index);
        let vf = function(root, &name, "0x10ca", driver);
        symlink(format!("../{name}"), pf.join(format!("virtfn{index}"))).unwrap();
        let group = root.join(format!("kernel/iommu_groups/{}", 20 + index));
        fs::create_dir_all(group.join("devices").join(&name)).unwrap();
        symlink(group, vf.join("iommu_group")).unwrap();
    }
    let sysfs = Sysfs::at(root);
    (dir, sysfs)
}

fn function(root: &Path, name: &str, device: &str, driver: &str) -> PathBuf {
    let path = root.join("bus/pci/devices").join(name);
    fs::create_dir_all(&path).unwrap();
    for (name, text) in [
        ("vendor", "0x8086\n"),
        ("device", device),
        ("subsystem_vendor", "0x8086\n"),
        ("subsystem_device", "0x0000\n"),
        ("driver_override", "\n"),
    ] {
        fs::write(path.join(name), text).unwrap();
    }
    if !driver.is_empty() {
        let drivers = root.join("bus/pci/drivers");
        fs::create_dir_all(drivers.join(driver)).unwrap();
        symlink(drivers.join(driver), path.join("driver")).unwrap();
    }
    path
}

fn nodes(dir: &TempDir) -> VfioNodes {
    VfioNodes::at(dir.path().join("dev/vfio"))
}

#[test]
fn a_pf_is_described() {
    let (_dir, sysfs) = tree(2, "vfio-pci");
    let pf = sysfs.pf("eth0").unwrap();
    assert_eq!(pf.address.to_string(), "0000:01:00.0");
    assert_eq!((pf.driver.as_str(), pf.total_vfs), ("igb", 7));
    assert_eq!((pf.ids.vendor, pf.ids.device), (0x8086, 0x10c9));
}

#[test]
fn a_missing_interface_and_one_without_sriov_are_told_apart() {
    let (_dir, sysfs) = tree(0, "");
    assert!(matches!(sysfs.pf("eth9"), Err(InventoryError::NoInterface { .. })));
    assert!(matches!(sysfs.pf("../net/eth0"), Err(InventoryError::NoInterface { .. })));
    assert!(matches!(sysfs.pf("lo"), Err(InventoryError::NotSriov { .. })));
}

#[test]
fn vfs_that_exist_and_are_bound_are_left_alone() {
    let (dir, sysfs) = tree(2, "vfio-pci");
    let pf = sysfs.pf("eth0").unwrap();
    let vfs = sysfs.provide_vfs(&pf, 2, &nodes(&dir)).unwrap();
    let seen: Vec<_> =
        vfs.iter().map(|vf| (vf.address.to_string(), vf.index, vf.iommu_group)).collect();
    assert_eq!(seen, [("0000:01:10.0".into(), 0, 20), ("0000:01:10.2".into(), 1, 21)]);
    let text = fs::read_to_string(dir.path().join("bus/pci/devices/0000:01:00.0/sriov_numvfs"));
    assert_eq!(text.unwrap(), "2");
}

#[test]
fn another_number_of_vfs_is_not_forced_on_a_used_one() {
    let (dir, sysfs) = tree(2, "igbvf");
    let pf = sysfs.pf("eth0").unwrap();
    let error = sysfs.provide_vfs(&pf, 4, &nodes(&dir)).unwrap_err();
    assert!(matches!(error, InventoryError::VfsInUse { present: 2, wanted: 4, .. }), "{error}");
}

#[test]
fn too_many_vfs_are_refused() {
    let (dir, sysfs) = tree(0, "");
    let pf = sysfs.pf("eth0").unwrap();
    let error = sysfs.provide_vfs(&pf, 8, &nodes(&dir)).unwrap_err();
    assert!(matches!(error, InventoryError::TooManyVfs { total: 7, .. }), "{error}");
}

#[test]
fn a_vf_without_iommu_group_says_what_to_enable() {
    let (dir, sysfs) = tree(1, "vfio-pci");
    fs::remove_file(dir.path().join("bus/pci/devices/0000:01:10.0/iommu_group")).unwrap();
    let pf = sysfs.pf("eth0").unwrap();
    let error = sysfs.provide_vfs(&pf, 1, &nodes(&dir)).unwrap_err();
    assert!(error.to_string().contains("intel_iommu=on"), "{error}");
}

#[test]
fn a_vf_in_a_shared_group_is_refused() {
    let (dir, sysfs) = tree(1, "vfio-pci");
    fs::create_dir_all(dir.path().join("kernel/iommu_groups/20/devices/0000:01:11.0")).unwrap();
    let error = sysfs.vf("0000:01:10.0".parse().unwrap(), 0).unwrap_err();
    assert!(matches!(error, InventoryError::SharedGroup { group: 20, .. }), "{error}");
}

#[test]
fn without_the_vfio_driver_the_error_names_the_module() {
    let (dir, sysfs) = tree(1, "");
    let pf = sysfs.pf("eth0").unwrap();
    let error = sysfs.provide_vfs(&pf, 1, &nodes(&dir)).unwrap_err();
    assert!(matches!(error, InventoryError::NoVfio), "{error}");
}

#[test]
fn a_vf_that_vfio_does_not_take_is_reported() {
    let (dir, sysfs) = tree(1, "");
    fs::create_dir_all(dir.path().join("bus/pci/drivers/vfio-pci")).unwrap();
    let pf = sysfs.pf("eth0").unwrap();
    let error = sysfs.provide_vfs(&pf, 1, &nodes(&dir)).unwrap_err();
    assert!(matches!(error, InventoryError::NotBound { driver: None, .. }), "{error}");
    let device = dir.path().join("bus/pci/devices/0000:01:10.0");
    assert_eq!(fs::read_to_string(device.join("driver_override")).unwrap(), "vfio-pci");
    let probe = fs::read_to_string(dir.path().join("bus/pci/drivers_probe")).unwrap();
    assert_eq!(probe, "0000:01:10.0");
}

#[test]
fn a_function_on_its_own_is_taken_unless_the_host_uses_it() {
    let (dir, sysfs) = tree(1, "vfio-pci");
    let address = "0000:01:10.0".parse().unwrap();
    let function = sysfs.provide_function(address, 0x80).unwrap();
    assert_eq!((function.index, function.iommu_group), (0x80, 20));
    let absent = sysfs.provide_function("0000:09:00.0".parse().unwrap(), 0x80).unwrap_err();
    assert!(matches!(absent, InventoryError::NoFunction { .. }), "{absent}");
    let net = dir.path().join("bus/pci/devices/0000:01:10.0/virtio3/net/eth7");
    fs::create_dir_all(&net).unwrap();
    fs::write(net.join("flags"), "0x1002\n").unwrap();
    sysfs.provide_function(address, 0x80).unwrap();
    fs::write(net.join("flags"), "0x1003\n").unwrap();
    let used = sysfs.provide_function(address, 0x80).unwrap_err();
    assert!(used.to_string().contains("'eth7', which is up"), "{used}");
}

#[test]
fn a_group_node_is_open_only_while_the_kernel_says_busy() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = VfioNodes::at(dir.path());
    assert!(!nodes.is_open(20).unwrap());
    fs::write(nodes.path(20), "").unwrap();
    assert!(!nodes.is_open(20).unwrap());
}

#[test]
fn a_configuration_space_without_capabilities_is_told_as_a_lack_of_rights() {
    let (dir, sysfs) = tree(1, "vfio-pci");
    let address: PciAddress = "0000:01:10.0".parse().unwrap();
    let path = dir.path().join("bus/pci/devices/0000:01:10.0/config");
    fs::write(&path, [0; 64]).unwrap();
    let error = sysfs.config(address).unwrap_err().to_string();
    assert!(error.contains("CAP_SYS_ADMIN") && error.contains("0000:01:10.0"), "{error}");
    fs::write(&path, [0; 256]).unwrap();
    assert_eq!(sysfs.config(address).unwrap().len(), 256);
}
