//! Why an image is refused. One variant per rule, so that a caller can tell them apart.

use npa_abi::image::{PCI_IDS_MAX, REGIONS_MAX};

/// A rule that an image breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The bytes are not an ELF file, or end too early.
    #[error("not a whole ELF file ({0}): build it again with `npa-plugin build`")]
    NotElf(String),
    /// The file is larger than any plugin with its debug information.
    #[error("the file has {length} bytes, more than {limit}: strip its debug information")]
    FileTooLarge {
        /// Length of the file in bytes.
        length: usize,
        /// Most bytes that are read.
        limit: usize,
    },
    /// Other class, byte order, machine or type.
    #[error("not a position-independent ELF64 for x86-64: build it for x86_64-unknown-none")]
    WrongTarget,
    /// Not exactly one loadable segment.
    #[error("{0} loadable ranges instead of one: link it with the SDK's npa-plugin.ld")]
    LoadableRanges(usize),
    /// A segment that needs a loader.
    #[error("segment type {0:#x} needs a dynamic loader: link it with the SDK's npa-plugin.ld")]
    ForeignSegment(u32),
    /// The range does not begin at address 0.
    #[error("linked at {0:#x} instead of 0: link it with the SDK's npa-plugin.ld")]
    NotLinkedAtZero(u64),
    /// The range is not executable.
    #[error("the loadable range is not readable and executable")]
    NotExecutable,
    /// Memory size and file size of the range differ.
    #[error("{0} bytes of zeroed data: state belongs in the instance's private memory")]
    ZeroedData(u64),
    /// The range is outside the file.
    #[error("the file is truncated: the image is not all there; copy it again")]
    Truncated,
    /// The range is not a whole number of pages.
    #[error("the image's length {0} is not a multiple of the page size")]
    NotPageRounded(u64),
    /// The image does not fit.
    #[error(
        "the image has {length} bytes, the landing {landing}: raise the landing's length or make the plugin smaller"
    )]
    TooLarge {
        /// Length of the image in bytes.
        length: u64,
        /// Length of the landing in bytes.
        landing: u64,
    },
    /// A segment is writable.
    #[error("the loadable range is writable: state belongs in the instance's private memory")]
    WritableSegment,
    /// A section is writable.
    #[error("section {0} is writable: state belongs in the instance's private memory")]
    WritableSection(String),
    /// A section that is to be loaded lies elsewhere than in the range.
    #[error("section {0} is not inside the loadable range")]
    StraySection(String),
    /// No section is executable.
    #[error("no executable section: the image has no code")]
    NoCode,
    /// A symbol is not defined.
    #[error("undefined symbol {0}: a plugin imports nothing; use the shell's callbacks")]
    UndefinedSymbol(String),
    /// A relocation of another kind than `R_X86_64_RELATIVE`.
    #[error("relocation type {kind} at {offset:#x}: only R_X86_64_RELATIVE is allowed")]
    ForeignRelocation {
        /// The relocation's type (System V ABI, AMD64 supplement).
        kind: u32,
        /// Where it applies, in bytes from the image's start.
        offset: u64,
    },
    /// A relocation writes or points outside the image, or into the header.
    #[error("relocation at {0:#x} reaches outside the image or into its header")]
    RelocationRange(u64),
    /// The magic is wrong.
    #[error("no plugin header at the image's start: does the crate use `net_plugin!`?")]
    BadMagic,
    /// The header has another size.
    #[error("the header says {0} bytes: build the plugin against this version of the SDK")]
    HeaderSize(u32),
    /// The ABI ranges do not overlap.
    #[error(
        "the plugin speaks ABI {min} to {max}, the host {host_min} to {host_max}: build it against a matching SDK"
    )]
    WrongAbi {
        /// Oldest version that the plugin speaks.
        min: u16,
        /// Newest version that the plugin speaks.
        max: u16,
        /// Oldest version that the host speaks.
        host_min: u16,
        /// Newest version that the host speaks.
        host_max: u16,
    },
    /// The class is unknown.
    #[error("device class {0} is unknown to this host")]
    UnknownClass(u16),
    /// The licence code is not acceptable.
    #[error("licence code {0} is not compatible with GPL-2.0: such a plugin may not be injected")]
    WrongLicence(u16),
    /// The name is malformed.
    #[error("the plugin's name must be 1 to 31 of a-z, 0-9 and '-', zero-padded")]
    BadName,
    /// The version is malformed.
    #[error("the plugin's version must be 1 to 15 printable ASCII characters, zero-padded")]
    BadVersion,
    /// The header's length is not the image's.
    #[error(
        "the header says {header} bytes, the image has {image}: build it with `npa-plugin build`"
    )]
    LengthMismatch {
        /// Length by the header.
        header: u32,
        /// Length of the loadable range.
        image: u64,
    },
    /// Private memory is too large.
    #[error("{0} bytes of private memory are more than 64 KiB")]
    PrivateTooLarge(u32),
    /// Roles or queues do not fit the class.
    #[error("{roles} queue roles of {queues} queues do not fit the class")]
    BadQueues {
        /// Number of roles.
        roles: u16,
        /// Queues per role.
        queues: u16,
    },
    /// The ring needs of a role are not sane.
    #[error(
        "the ring needs of role {0} are wrong (entries and alignment are powers of two; at most 4096 entries and 4 MiB)"
    )]
    BadRing(u16),
    /// A vector is out of range.
    #[error("{0} vectors do not cover the queues' vectors, or are more than 32")]
    BadVectors(u16),
    /// The PCI id list is malformed.
    #[error("the PCI ids must be 1 to {PCI_IDS_MAX}, each a real vendor")]
    BadPciIds,
    /// Too many regions.
    #[error("{0} regions are more than {REGIONS_MAX}")]
    TooManyRegions(u16),
    /// A region is malformed.
    #[error(
        "region {0} is wrong: BAR 0-5, data or trap, page-aligned, not empty, inside the window"
    )]
    BadRegion(u16),
    /// Two regions share window pages.
    #[error("regions {0} and {1} overlap in the window")]
    RegionsOverlap(u16, u16),
    /// A reserved field is not zero.
    #[error("a reserved header field is not zero")]
    ReservedNotZero,
    /// The entry is not in the code.
    #[error("the entry {0:#x} is not inside the image's code")]
    EntryOutside(u32),
    /// The entry does not begin with `endbr64`.
    #[error("the entry {0:#x} does not begin with endbr64: compile with branch protection")]
    EntryNotEndbr(u32),
    /// The hash does not fit.
    #[error(
        "the image's SHA-256 is not the one in its header: the file was changed; get it again from its vendor"
    )]
    WrongHash,
    /// A panic path survived.
    #[error(
        "panic path: {caller} calls {callee}; replace what may panic (indexing, division, unwrap)"
    )]
    PanicPath {
        /// The function that may panic.
        caller: String,
        /// What it calls.
        callee: String,
    },
    /// An instruction breaks a lint rule.
    #[error("{rule}: `{instruction}` at {place}")]
    Instruction {
        /// The rule and what to do.
        rule: super::lint::Rule,
        /// The instruction as text.
        instruction: String,
        /// Function and offset, or the offset alone.
        place: String,
    },
}
