//! Guests of a few instructions for tests on a real /dev/kvm, and the VM around them. They run
//! in 64-bit mode with the first 4 GiB mapped one to one, as the boot protocol leaves them.

#![allow(dead_code)] // Each test binary uses a part.

use std::io::Write;
use std::path::{Path, PathBuf};

use vmm::boot::BootConfig;
use vmm::serial::SerialTarget;
use vmm::vm::{Vm, VmConfig};

/// First serial port.
pub(crate) const COM1: u16 = 0x3f8;
/// Configuration space of the device in slot 1.
pub(crate) const SLOT1: u32 = 0xe000_8000;
/// The first 32-bit BAR of a machine.
pub(crate) const BAR: u32 = 0xc000_0000;
/// The local APIC.
pub(crate) const LAPIC: u32 = 0xfee0_0000;
/// RAM that nothing else uses.
pub(crate) const SCRATCH: u32 = 0x30_0000;
/// Where the code is.
const CODE: u64 = 0x20_0000;

/// Whether there is a usable KVM; says on stderr that `test` is skipped when not.
pub(crate) fn has_kvm(test: &str) -> bool {
    match std::fs::File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => true,
        Err(error) => {
            eprintln!("npa-skip: {test}: /dev/kvm: {error}");
            false
        }
    }
}

/// Machine code under construction.
#[derive(Default)]
pub(crate) struct Code(Vec<u8>);

impl Code {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn emit(mut self, parts: &[&[u8]]) -> Self {
        self.0.extend(parts.concat());
        self
    }

    /// Goes on with `code`.
    pub(crate) fn then(self, code: Self) -> Self {
        self.emit(&[&code.0])
    }

    /// `out port, value`.
    pub(crate) fn out(self, port: u16, value: u8) -> Self {
        self.emit(&[&[0xb0, value]]).out_al(port)
    }

    /// `out port, al`.
    pub(crate) fn out_al(self, port: u16) -> Self {
        self.emit(&[&[0x66, 0xba], &port.to_le_bytes(), &[0xee]])
    }

    /// `in al, port`.
    pub(crate) fn in_al(self, port: u16) -> Self {
        self.emit(&[&[0x66, 0xba], &port.to_le_bytes(), &[0xec]])
    }

    /// Stores 32 bits.
    pub(crate) fn store(self, address: u32, value: u32) -> Self {
        self.emit(&[&[0xbf], &address.to_le_bytes(), &[0xc7, 0x07], &value.to_le_bytes()])
    }

    /// Loads 32 bits into eax.
    pub(crate) fn load(self, address: u32) -> Self {
        self.emit(&[&[0xbf], &address.to_le_bytes(), &[0x8b, 0x07]])
    }

    /// Waits until one of `bits` is set in the 32 bits at `address`.
    pub(crate) fn wait_for(self, address: u32, bits: u32) -> Self {
        // mov edi; again: mov eax, [rdi]; test eax, bits; jz again
        let bits = bits.to_le_bytes();
        self.emit(&[&[0xbf], &address.to_le_bytes(), &[0x8b, 0x07, 0xa9], &bits, &[0x74, 0xf7]])
    }

    /// Runs `then` unless the 32 bits at `address` are zero.
    pub(crate) fn unless_zero(self, address: u32, then: Self) -> Self {
        let len = u8::try_from(then.0.len()).unwrap();
        // test eax, eax; jz over
        self.load(address).emit(&[&[0x85, 0xc0, 0x74, len], &then.0])
    }

    /// Increments the 32 bits at `address` for ever.
    pub(crate) fn count_for_ever(self, address: u32) -> Self {
        // mov edi; again: inc dword [rdi]; jmp again
        self.emit(&[&[0xbf], &address.to_le_bytes(), &[0xff, 0x07, 0xeb, 0xfc]])
    }

    /// Writes to each page of `len` bytes from `address` on, again and again.
    pub(crate) fn write_for_ever(self, address: u32, len: u32) -> Self {
        // start: mov edi, address; again: inc dword [rdi]; add edi, 4096; cmp edi, end; jb again;
        // jmp start
        let end = (address + len).to_le_bytes();
        self.emit(&[
            &[0xbf],
            &address.to_le_bytes(),
            &[0xff, 0x07, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x81, 0xff],
            &end,
            &[0x72, 0xf0, 0xeb, 0xe9],
        ])
    }

    /// No interrupt descriptors, then an invalid instruction: a triple fault.
    pub(crate) fn triple_fault(self) -> Self {
        // push 0; push 0; lidt [rsp]; ud2
        self.emit(&[&[0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b]])
    }

    /// Powers off by the ACPI sleep control register.
    pub(crate) fn power_off(self) -> Self {
        self.out(0x600, 5 << 2 | 1 << 5)
    }

    /// Resets by the reset control register.
    pub(crate) fn reset(self) -> Self {
        self.out(0xcf9, 6)
    }

    /// The code as an ELF executable.
    fn elf(self) -> Vec<u8> {
        let len = self.0.len() as u64;
        let mut image = vec![0; 120];
        image[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(16, &[2, 0, 62, 0]);
        put(24, &CODE.to_le_bytes());
        put(32, &[64]);
        put(54, &[56, 0, 1]);
        put(64, &[1]);
        put(72, &120_u64.to_le_bytes());
        put(88, &CODE.to_le_bytes());
        put(96, &len.to_le_bytes());
        put(104, &len.to_le_bytes());
        image.extend(self.0);
        image
    }
}

/// A machine with `code` as its kernel and the serial console in a file.
pub(crate) struct Machine {
    pub(crate) vm: Vm,
    folder: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new(code: Code) -> Self {
        Self::make(code, 16, None)
    }

    /// With so many MiB of memory.
    pub(crate) fn with_memory(code: Code, memory_mib: u64) -> Self {
        Self::make(code, memory_mib, None)
    }

    /// With the contents of memory from a file.
    pub(crate) fn from_memory(code: Code, file: &Path) -> Self {
        Self::make(code, 16, Some(file.to_owned()))
    }

    fn make(code: Code, memory_mib: u64, memory_from: Option<PathBuf>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel");
        std::fs::File::create(&kernel).unwrap().write_all(&code.elf()).unwrap();
        let serial = SerialTarget::File(folder.path().join("serial"));
        let boot = BootConfig { kernel, initrd: None, cmdline: String::new() };
        let vm = Vm::new(VmConfig { boot, cpus: 1, memory_mib, serial, memory_from }).unwrap();
        Self { vm, folder }
    }

    /// Ends the machine; returns what its guest wrote to the console.
    pub(crate) fn console(self) -> Vec<u8> {
        let path: &Path = self.folder.path();
        drop(self.vm);
        std::fs::read(path.join("serial")).unwrap()
    }
}
