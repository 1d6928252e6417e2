//! Everything that two sides of the split driver share: the NPA registers, the shell page, the
//! plugin image header, the plugin and shell call tables, and the codes that cross them.
//!
//! This is the only place where such a number is written. All types are `repr(C)`, fixed-width
//! and little endian (the target is x86-64 only); there are no dependencies and no behaviour
//! beyond encoding and decoding. The C header for vendors is generated from this crate.
//!
//! The three contracts, by module:
//! - guest to hypervisor: [`pci`] (how the NPA BAR is found), [`register`] and [`protocol`]
//!   (states, commands, who does what when), [`shell_page`] (memory that both sides read);
//! - vendor to hypervisor and shell: [`image`] (the plugin header at offset 0 of the blob);
//! - shell to plugin: [`plugin`] (entry, instance, callbacks) and one module per device class,
//!   so far [`net`].
#![no_std]

pub mod image;
pub mod net;
pub mod pci;
pub mod plugin;
pub mod protocol;
pub mod register;
pub mod shell_page;

/// The ABI version of this crate. A shell, a plugin and a hypervisor work together when their
/// `[min, max]` ranges overlap; each range of this crate is `[ABI_MIN, ABI]`. The number grows
/// when a structure, register or rule changes meaning; additions behind a `size` field do not
/// change it.
pub const ABI: u16 = 1;

/// The oldest ABI version that this crate still speaks.
pub const ABI_MIN: u16 = 1;

/// Size of a page, in bytes: the granularity of landings, window regions and the register page.
pub const PAGE_SIZE: usize = 4096;

/// Device class of an accelerated device or plugin. The switch, the landing and the injection
/// carry it but never act on it.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A network interface; see [`net`].
    Net = 1,
    /// A look-aside crypto device.
    Crypto = 2,
}

impl Class {
    /// Decodes a class code; `None` for a code that this ABI does not define.
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::Net),
            2 => Some(Self::Crypto),
            _ => None,
        }
    }
}
