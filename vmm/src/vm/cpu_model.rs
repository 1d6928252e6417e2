//! What a guest is told of its CPUs, and whether another host's CPUs can stand in for them.

use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use super::cpuid;
use crate::state::Payload;

/// How far apart two time stamp counters may be that count as equally fast, in millionths; what
/// KVM's own default (`tsc_tolerance_ppm`) is, too.
const TSC_TOLERANCE_PPM: u64 = 250;

/// The CPUs of a VM: CPUID of each, and the speed of their time stamp counter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuModel {
    cpus: Vec<Vec<kvm_cpuid_entry2>>,
    /// kHz; 0 where KVM does not tell.
    tsc_khz: u32,
    /// Whether this host can give a guest a counter of another speed.
    tsc_scaling: bool,
}

impl Payload for CpuModel {
    const KIND: &'static str = "cpu-model";
    const VERSION: u16 = 1;
}

/// A register of a CPUID leaf with one feature per bit.
struct FeatureWord {
    leaf: u32,
    index: u32,
    register: char,
    /// Name of bit n, as /proc/cpuinfo spells it; empty for one without a name.
    names: &'static [&'static str],
}

/// Names of the bits 0 to 31 of the words that most features are in (Intel SDM volume 2, CPUID;
/// AMD APM volume 3, appendix E). Bits that have no name here are told by number.
const FEATURES: [FeatureWord; 13] = [
    word(
        1,
        0,
        'd',
        &[
            "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "", "sep",
            "mtrr", "pge", "mca", "cmov", "pat", "pse36", "pn", "clflush", "", "dts", "acpi",
            "mmx", "fxsr", "sse", "sse2", "ss", "ht", "tm", "ia64", "pbe",
        ],
    ),
    word(
        1,
        0,
        'c',
        &[
            "pni",
            "pclmulqdq",
            "dtes64",
            "monitor",
            "ds_cpl",
            "vmx",
            "smx",
            "est",
            "tm2",
            "ssse3",
            "cid",
            "sdbg",
            "fma",
            "cx16",
            "xtpr",
            "pdcm",
            "",
            "pcid",
            "dca",
            "sse4_1",
            "sse4_2",
            "x2apic",
            "movbe",
            "popcnt",
            "tsc_deadline_timer",
            "aes",
            "xsave",
            "osxsave",
            "avx",
            "f16c",
            "rdrand",
            "hypervisor",
        ],
    ),
    word(
        7,
        0,
        'b',
        &[
            "fsgsbase",
            "tsc_adjust",
            "sgx",
            "bmi1",
            "hle",
            "avx2",
            "",
            "smep",
            "bmi2",
            "erms",
            "invpcid",
            "rtm",
            "cqm",
            "",
            "mpx",
            "rdt_a",
            "avx512f",
            "avx512dq",
            "rdseed",
            "adx",
            "smap",
            "avx512ifma",
            "",
            "clflushopt",
            "clwb",
            "intel_pt",
            "avx512pf",
            "avx512er",
            "avx512cd",
            "sha_ni",
            "avx512bw",
            "avx512vl",
        ],
    ),
    word(
        7,
        0,
        'c',
        &[
            "prefetchwt1",
            "avx512vbmi",
            "umip",
            "pku",
            "ospke",
            "waitpkg",
            "avx512_vbmi2",
            "shstk",
            "gfni",
            "vaes",
            "vpclmulqdq",
            "avx512_vnni",
            "avx512_bitalg",
            "tme",
            "avx512_vpopcntdq",
            "",
            "la57",
            "",
            "",
            "",
            "",
            "",
            "rdpid",
            "",
            "bus_lock_detect",
            "cldemote",
            "",
            "movdiri",
            "movdir64b",
            "enqcmd",
        ],
    ),
    word(
        7,
        0,
        'd',
        &[
            "",
            "",
            "avx512_4vnniw",
            "avx512_4fmaps",
            "fsrm",
            "uintr",
            "",
            "",
            "avx512_vp2intersect",
            "",
            "md_clear",
            "",
            "",
            "",
            "serialize",
            "",
            "tsxldtrk",
            "",
            "",
            "",
            "ibt",
            "",
            "amx_bf16",
            "avx512_fp16",
            "amx_tile",
            "amx_int8",
            "ibrs",
            "stibp",
            "flush_l1d",
            "arch_capabilities",
            "",
            "ssbd",
        ],
    ),
    word(7, 1, 'a', &[]),
    word(
        0xd,
        0,
        'a',
        &[
            "",
            "",
            "avx state",
            "bndregs",
            "bndcsr",
            "opmask state",
            "zmm_hi256 state",
            "hi16_zmm state",
            "",
            "pku state",
        ],
    ),
    word(0xd, 1, 'a', &["xsaveopt", "xsavec", "xgetbv1", "xsaves"]),
    word(
        0x4000_0001,
        0,
        'a',
        &[
            "kvm clock",
            "kvm no port delay",
            "",
            "kvm clock2",
            "kvm async faults",
            "kvm steal time",
            "kvm pv eoi",
            "kvm pv unhalt",
        ],
    ),
    word(
        0x8000_0001,
        0,
        'd',
        &[
            "", "", "", "", "", "", "", "", "", "", "", "syscall", "", "", "", "", "", "", "", "",
            "nx", "", "mmxext", "", "", "fxsr_opt", "pdpe1gb", "rdtscp", "", "lm", "3dnowext",
            "3dnow",
        ],
    ),
    word(
        0x8000_0001,
        0,
        'c',
        &[
            "lahf_lm",
            "cmp_legacy",
            "svm",
            "extapic",
            "cr8_legacy",
            "abm",
            "sse4a",
            "misalignsse",
            "3dnowprefetch",
            "osvw",
            "ibs",
            "xop",
            "skinit",
            "wdt",
            "",
            "lwp",
            "fma4",
            "tce",
            "",
            "",
            "",
            "tbm",
            "topoext",
            "perfctr_core",
            "perfctr_nb",
            "",
            "bpext",
            "ptsc",
            "perfctr_llc",
            "mwaitx",
        ],
    ),
    word(0x8000_0007, 0, 'd', &["", "", "", "", "", "", "", "", "constant_tsc"]),
    word(
        0x8000_0008,
        0,
        'b',
        &["clzero", "", "xsaveerptr", "", "rdpru", "", "", "", "", "wbnoinvd"],
    ),
];

const fn word(
    leaf: u32,
    index: u32,
    register: char,
    names: &'static [&'static str],
) -> FeatureWord {
    FeatureWord { leaf, index, register, names }
}

impl FeatureWord {
    fn of(&self, entries: &[kvm_cpuid_entry2]) -> u32 {
        find(entries, self.leaf, self.index).map_or(0, |entry| match self.register {
            'a' => entry.eax,
            'b' => entry.ebx,
            'c' => entry.ecx,
            _ => entry.edx,
        })
    }

    fn name(&self, bit: usize) -> String {
        match self.names.get(bit) {
            Some(name) if !name.is_empty() => (*name).to_owned(),
            _ => {
                let Self { leaf, index, register, .. } = self;
                format!("bit {bit} of e{register}x in CPUID leaf {leaf:#x}.{index}")
            }
        }
    }
}

fn find(entries: &[kvm_cpuid_entry2], leaf: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
    entries.iter().find(|entry| entry.function == leaf && entry.index == index)
}

impl CpuModel {
    /// The CPUs of a VM of `count` vCPUs on a host whose KVM says `supported`.
    pub(super) fn new(supported: &[kvm_cpuid_entry2], count: u8, tsc_deadline: bool) -> Self {
        let cpus =
            (0..count).map(|index| cpuid::entries(supported, index, count, tsc_deadline)).collect();
        Self { cpus, tsc_khz: 0, tsc_scaling: false }
    }

    /// The same, with the speed of the time stamp counter that `vcpu` has, and whether this host
    /// can give it another (`KVM_CAP_TSC_CONTROL`).
    pub(super) fn with_clock(self, vcpu: &VcpuFd, tsc_scaling: bool) -> Self {
        Self { tsc_khz: vcpu.get_tsc_khz().unwrap_or(0), tsc_scaling, ..self }
    }

    /// CPUID of each CPU.
    pub(super) fn cpus(&self) -> &[Vec<kvm_cpuid_entry2>] {
        &self.cpus
    }

    /// Speed of the time stamp counter in kHz, 0 when unknown.
    pub fn tsc_khz(&self) -> u32 {
        self.tsc_khz
    }

    /// Whether counters of this speed and of `host`'s can be taken for one another.
    fn same_clock(&self, host: &Self) -> bool {
        let (ours, theirs) = (u64::from(self.tsc_khz), u64::from(host.tsc_khz));
        ours == 0 || theirs == 0 || ours.abs_diff(theirs) * 1_000_000 <= ours * TSC_TOLERANCE_PPM
    }

    /// What a guest on these CPUs would miss on those of `host`, each in words.
    pub fn missing_on(&self, host: &Self) -> Vec<String> {
        let (Some(ours), Some(theirs)) = (self.cpus.first(), host.cpus.first()) else {
            return vec!["any CPU".to_owned()];
        };
        let mut missing = Vec::new();
        let (maker, other) = (vendor(ours), vendor(theirs));
        if maker != other {
            missing.push(format!("a CPU of {maker} (it has one of {other})"));
        }
        for word in &FEATURES {
            let lacking = word.of(ours) & !word.of(theirs);
            missing.extend((0..32).filter(|bit| lacking >> bit & 1 != 0).map(|bit| word.name(bit)));
        }
        let bits = |entries| find(entries, 0x8000_0008, 0).map_or(36, |entry| entry.eax & 0xff);
        if bits(ours) != bits(theirs) {
            // The address map depends on them.
            missing.push(format!("{} physical address bits (it has {})", bits(ours), bits(theirs)));
        }
        if !host.tsc_scaling && !self.same_clock(host) {
            let (ours, theirs) = (self.tsc_khz, host.tsc_khz);
            missing.push(format!("a time stamp counter of {ours} kHz (it has {theirs})"));
        }
        missing
    }
}

fn vendor(entries: &[kvm_cpuid_entry2]) -> String {
    let Some(leaf) = find(entries, 0, 0) else { return "no maker".to_owned() };
    let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat();
    String::from_utf8_lossy(&name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn maker(name: &[u8; 12]) -> kvm_cpuid_entry2 {
        let at = |i: usize| u32::from_le_bytes([name[i], name[i + 1], name[i + 2], name[i + 3]]);
        leaf(0, [7, at(0), at(8), at(4)])
    }

    fn model(features: u32) -> CpuModel {
        let supported = [
            maker(b"GenuineIntel"),
            leaf(1, [0; 4]),
            leaf(7, [0, features, 0, 0]),
            leaf(0x8000_0008, [0x3027, 0, 0, 0]),
        ];
        CpuModel { tsc_khz: 2_000_000, ..CpuModel::new(&supported, 2, true) }
    }

    #[test]
    fn a_host_with_more_will_do_and_one_with_less_is_told_what_it_lacks() {
        let (small, large) = (model(1 << 5), model(1 << 5 | 1 << 16 | 1 << 6));
        assert!(small.missing_on(&large).is_empty());
        let missing = large.missing_on(&small);
        assert_eq!(missing, ["bit 6 of ebx in CPUID leaf 0x7.0", "avx512f"]);
    }

    #[test]
    fn other_makers_and_address_widths_are_named() {
        let mut host = model(0);
        host.cpus[0][0] = maker(b"AuthenticAMD");
        host.cpus[0][3].eax = 0x3024;
        let missing = model(0).missing_on(&host);
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert_eq!(missing[0], "a CPU of GenuineIntel (it has one of AuthenticAMD)");
        assert_eq!(missing[1], "39 physical address bits (it has 36)");
        assert_eq!(model(0).missing_on(&CpuModel { cpus: Vec::new(), ..model(0) }), ["any CPU"]);
    }

    #[test]
    fn clocks_within_tolerance_are_the_same() {
        let with = |tsc_khz| CpuModel { tsc_khz, ..model(0) };
        assert!(with(2_000_000).same_clock(&with(2_000_500)));
        assert!(!with(2_000_000).same_clock(&with(2_000_501)));
        assert!(with(0).same_clock(&with(1)));
        let missing = with(2_000_000).missing_on(&with(3_000_000));
        assert_eq!(missing, ["a time stamp counter of 2000000 kHz (it has 3000000)"]);
        let scaling = CpuModel { tsc_scaling: true, ..with(3_000_000) };
        assert!(with(2_000_000).missing_on(&scaling).is_empty());
    }

    #[test]
    fn no_word_has_more_than_32_names() {
        assert!(FEATURES.iter().all(|word| word.names.len() <= 32));
    }
}
