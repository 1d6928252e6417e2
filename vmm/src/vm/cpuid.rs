//! What a guest's CPUID instruction says: what KVM supports, less what a migratable VM should
//! not see, with the topology of this VM (one socket, no hyper-threads).

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use kvm_ioctls::VcpuFd;

/// Leaf 0x4000_0001, eax (Documentation/virt/kvm/x86/cpuid.rst): the KVM features that guests
/// are offered. Left out: asynchronous page faults, which write to guest memory unasked, and
/// those that need the VMM's help.
const KVM_FEATURES: u32 = 1 << 0 // clocksource
    | 1 << 1 // no delay after port accesses
    | 1 << 3 // clocksource, newer registers
    | 1 << 5 // steal time
    | 1 << 6 // end of interrupt without exit
    | 1 << 7 // paravirtual spinlock wake-up
    | 1 << 9 // TLB flush of preempted vCPUs
    | 1 << 11 // interprocessor interrupts by hypercall
    | 1 << 13 // yield to a preempted vCPU
    | 1 << 24; // clocksource is stable

/// Physical address bits that KVM gives its guests (leaf 0x8000_0008, eax).
pub(super) fn physical_bits(supported: &CpuId) -> u8 {
    /// What a CPU without that leaf has.
    const WITHOUT_LEAF: u8 = 36;
    supported
        .as_slice()
        .iter()
        .find(|entry| entry.function == 0x8000_0008)
        .map_or(WITHOUT_LEAF, |entry| entry.eax as u8)
}

/// The entries for vCPU `index` of `count`; APIC ids are vCPU numbers.
pub(super) fn entries(
    supported: &[kvm_cpuid_entry2],
    index: u8,
    count: u8,
    tsc_deadline: bool,
) -> Vec<kvm_cpuid_entry2> {
    let is_amd = supported.iter().any(|entry| entry.function == 0 && entry.ebx == AMD_EBX);
    let topology = Topology { id: u32::from(index), count: u32::from(count), is_amd, tsc_deadline };
    let mut entries: Vec<_> =
        supported.iter().filter(|entry| !matches!(entry.function, 0xb | 0x1f)).copied().collect();
    entries.iter_mut().for_each(|entry| topology.adjust(entry));
    let highest = supported.iter().find(|entry| entry.function == 0).map_or(0, |entry| entry.eax);
    if highest >= 0xb {
        entries.extend(topology.extended());
    }
    entries
}

/// "Auth", of "AuthenticAMD", as leaf 0 returns it in ebx.
const AMD_EBX: u32 = u32::from_le_bytes(*b"Auth");

struct Topology {
    id: u32,
    count: u32,
    is_amd: bool,
    tsc_deadline: bool,
}

impl Topology {
    /// Bits of an APIC id.
    fn id_bits(&self) -> u32 {
        u32::BITS - (self.count - 1).leading_zeros()
    }

    fn adjust(&self, entry: &mut kvm_cpuid_entry2) {
        match entry.function {
            0x1 => {
                entry.ebx = entry.ebx & 0xffff | self.id << 24 | self.count << 16;
                set_bit(&mut entry.ecx, 31, true);
                set_bit(&mut entry.ecx, 24, self.tsc_deadline);
                set_bit(&mut entry.ecx, 5, false); // VMX
                set_bit(&mut entry.edx, 28, self.count > 1); // several logical CPUs
            }
            // Cores per package in all subleaves; caches of level 3 are shared by all.
            0x4 if !self.is_amd => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level >= 3 { self.count - 1 } else { 0 };
                entry.eax = entry.eax & 0x3fff | sharing << 14 | (self.count - 1).min(63) << 26;
            }
            // No performance counters: their state would have to migrate.
            0xa | 0x8000_0022 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            0x4000_0001 => entry.eax &= KVM_FEATURES,
            0x8000_0001 => {
                set_bit(&mut entry.ecx, 2, false); // SVM
                set_bit(&mut entry.ecx, 23, false); // performance counter extensions
                // Multi-core processors report "legacy" multi-core sharing.
                set_bit(&mut entry.ecx, 1, self.is_amd && self.count > 1);
            }
            0x8000_0008 if self.is_amd => {
                entry.ecx = (self.count - 1) | self.id_bits() << 12;
            }
            0x8000_000a => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            0x8000_001d => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level >= 3 { self.count - 1 } else { 0 };
                entry.eax = entry.eax & !(0xfff << 14) | sharing << 14;
            }
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (self.id, self.id & 0xff, 0),
            _ => {}
        }
    }

    /// Leaf 0xb: threads per core, cores per package, end of list.
    fn extended(&self) -> [kvm_cpuid_entry2; 3] {
        let level = |index, shift, count, kind: u32| kvm_cpuid_entry2 {
            function: 0xb,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: count,
            ecx: kind << 8 | index,
            edx: self.id,
            ..Default::default()
        };
        [level(0, 0, 1, 1), level(1, self.id_bits(), self.count, 2), level(2, 0, 0, 0)]
    }
}

/// Tells a vCPU, which must not have run, what its CPUID instruction says.
pub(super) fn set(vcpu: &VcpuFd, entries: &[kvm_cpuid_entry2]) -> Result<(), kvm_ioctls::Error> {
    let entries = CpuId::from_entries(entries).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))?;
    vcpu.set_cpuid2(&entries)
}

fn set_bit(register: &mut u32, bit: u32, on: bool) {
    *register = *register & !(1 << bit) | u32::from(on) << bit;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn amd() -> Vec<kvm_cpuid_entry2> {
        vec![
            leaf(0, [0xd, AMD_EBX, 0, 0]),
            leaf(1, [0x80_0f12, 0x0708_0800, 1 << 5, 0]),
            leaf(0xb, [0, 0, 0, 0]),
            leaf(0x4000_0001, [u32::MAX, 0, 0, 0]),
            leaf(0x8000_0001, [0, 0, 1 << 2, 0]),
            leaf(0x8000_0008, [0x3024, 0, 0, 0]),
            leaf(0x8000_001e, [7, 7, 7, 7]),
        ]
    }

    fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries.iter().find(|e| e.function == function && e.index == index).unwrap()
    }

    #[test]
    fn each_vcpu_has_its_own_id() {
        for id in 0..4 {
            let entries = entries(&amd(), id, 4, true);
            assert_eq!(find(&entries, 1, 0).ebx, u32::from(id) << 24 | 4 << 16 | 0x0800);
            assert_eq!(find(&entries, 0xb, 1).edx, u32::from(id));
            assert_eq!(find(&entries, 0xb, 1).ebx, 4);
            assert_eq!(find(&entries, 0xb, 1).eax, 2);
            assert_eq!(find(&entries, 0x8000_001e, 0).eax, u32::from(id));
            assert_eq!(find(&entries, 0x8000_0008, 0).ecx, 3 | 2 << 12);
        }
    }

    #[test]
    fn hypervisor_yes_nesting_no() {
        let entries = entries(&amd(), 0, 1, true);
        let features = find(&entries, 1, 0);
        assert_eq!(features.ecx, 1 << 31 | 1 << 24);
        assert_eq!(features.edx & 1 << 28, 0);
        assert_eq!(find(&entries, 0x8000_0001, 0).ecx, 0);
        assert_eq!(find(&entries, 0x4000_0001, 0).eax, KVM_FEATURES);
    }

    #[test]
    fn a_lone_vcpu_needs_no_id_bits() {
        assert_eq!(find(&entries(&amd(), 0, 1, false), 0xb, 1).eax, 0);
    }

    #[test]
    fn address_bits() {
        let cpuid = CpuId::from_entries(&amd()).unwrap();
        assert_eq!(physical_bits(&cpuid), 36);
    }
}
