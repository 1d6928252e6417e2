use std::io::Write;

use linux_loader::loader::bootparam::boot_params;
use tempfile::NamedTempFile;

use super::*;

const MIB: usize = 1 << 20;

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A bzImage of one setup sector and `code` bytes, protocol 2.15.
fn bzimage(code: usize) -> Vec<u8> {
    let mut image = vec![0x90; 1024 + code];
    image[..1024].fill(0);
    image[0x1f1] = 1;
    image[0x1f4..0x1f8].copy_from_slice(&(code as u32 / 16).to_le_bytes());
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    image[0x211] = 1;
    image[0x214..0x218].copy_from_slice(&0x10_0000_u32.to_le_bytes());
    image[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    image[0x236..0x238].copy_from_slice(&1_u16.to_le_bytes());
    image[0x238..0x23c].copy_from_slice(&255_u32.to_le_bytes());
    image[0x258..0x260].copy_from_slice(&0x10_0000_u64.to_le_bytes());
    image[0x260..0x264].copy_from_slice(&(MIB as u32).to_le_bytes());
    image
}

/// An ELF executable with one segment at 2 MiB.
fn elf() -> Vec<u8> {
    let mut image = vec![0; 0x80];
    image[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    image[16..18].copy_from_slice(&2_u16.to_le_bytes());
    image[18..20].copy_from_slice(&62_u16.to_le_bytes());
    image[24..32].copy_from_slice(&0x20_0010_u64.to_le_bytes());
    image[32] = 64;
    image[54] = 56;
    image[56] = 1;
    image[64] = 1;
    image[72..80].copy_from_slice(&0x78_u64.to_le_bytes());
    image[88..96].copy_from_slice(&0x20_0000_u64.to_le_bytes());
    image[96..104].copy_from_slice(&8_u64.to_le_bytes());
    image[104..112].copy_from_slice(&8_u64.to_le_bytes());
    image[0x78..].copy_from_slice(b"kernel!!");
    image
}

fn load(kernel: &[u8], initrd: Option<&[u8]>, cmdline: &str) -> Result<Loaded, BootError> {
    let kernel = file(kernel);
    let initrd = initrd.map(file);
    let layout = Layout::new(16, 36).unwrap();
    let memory = Memory::new(&layout).unwrap();
    let source = BootSource::open(BootConfig {
        kernel: kernel.path().to_owned(),
        initrd: initrd.as_ref().map(|file| file.path().to_owned()),
        cmdline: cmdline.to_owned(),
    })?;
    let start = source.load(&memory, &layout, b"RSD PTR ")?;
    let params = memory.ram().read_obj(GuestAddress(start.zero_page)).unwrap();
    Ok(Loaded { memory, start, params })
}

struct Loaded {
    memory: Memory,
    start: BootRegisters,
    params: boot_params,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "loaded, entry {:#x}", self.start.entry)
    }
}

fn error(kernel: &[u8], initrd: Option<&[u8]>) -> String {
    load(kernel, initrd, "").unwrap_err().to_string()
}

#[test]
fn bzimage_with_initrd() {
    let initrd = [b"070701".as_slice(), &[7; 5000]].concat();
    let loaded = load(&bzimage(4096), Some(&initrd), "console=ttyS0").unwrap();
    assert_eq!(loaded.start.entry, 0x10_0200);
    let header = loaded.params.hdr;
    let (image, size) = (header.ramdisk_image, header.ramdisk_size);
    assert_eq!((image, size), (16 * MIB as u32 - 0x2000, 5006));
    let mut text = [0; 14];
    loaded.memory.ram().read_slice(&mut text, GuestAddress(header.cmd_line_ptr.into())).unwrap();
    assert_eq!(&text, b"console=ttyS0\0");
    let rsdp = loaded.params.acpi_rsdp_addr;
    assert_eq!(loaded.memory.ram().read_obj::<[u8; 8]>(GuestAddress(rsdp)).unwrap(), *b"RSD PTR ");
}

#[test]
fn elf_kernel() {
    let loaded = load(&elf(), None, "").unwrap();
    assert_eq!(loaded.start.entry, 0x20_0010);
    let text: [u8; 8] = loaded.memory.ram().read_obj(GuestAddress(0x20_0000)).unwrap();
    assert_eq!(&text, b"kernel!!");
    let flag = loaded.params.hdr.boot_flag;
    assert_eq!(flag, 0xaa55);
}

#[test]
fn the_reset_vector_pulls_the_reset_line() {
    let loaded = load(&elf(), None, "").unwrap();
    let code: [u8; 9] = loaded.memory.ram().read_obj(GuestAddress(0xf_fff0)).unwrap();
    assert_eq!(code, [0xb0, 6, 0xba, 0xf9, 0x0c, 0xee, 0xf4, 0xeb, 0xfd]);
}

#[test]
fn a_missing_kernel_names_the_option() {
    let config = BootConfig { kernel: "/does/not/exist".into(), ..Default::default() };
    let error = BootSource::open(config).err().unwrap().to_string();
    assert!(error.contains("/does/not/exist") && error.contains("--kernel"), "{error}");
}

#[test]
fn a_directory_is_no_kernel() {
    let config = BootConfig { kernel: "/".into(), ..Default::default() };
    assert!(matches!(BootSource::open(config), Err(BootError::NotAFile { .. })));
}

#[test]
fn what_is_no_kernel_is_refused() {
    for bytes in [b"".as_slice(), b"hello", &[0; 4096]] {
        assert!(error(bytes, None).contains("neither a bzimage nor"), "{}", error(bytes, None));
    }
    let mut arm = elf();
    arm[18] = 183;
    assert!(error(&arm, None).contains("neither a bzimage nor"));
}

#[test]
fn truncated_kernels_are_corrupt() {
    let message = error(&bzimage(8192)[..4096], None);
    assert!(message.contains("corrupt") && message.contains("4096 bytes of 9216"), "{message}");
    assert!(error(&elf()[..100], None).contains("corrupt"));
}

#[test]
fn a_32_bit_kernel_is_refused() {
    let mut image = bzimage(4096);
    image[0x236] = 0;
    assert!(error(&image, None).contains("64-bit entry"));
}

#[test]
fn a_kernel_larger_than_memory() {
    assert!(error(&bzimage(16 * MIB), None).contains("larger --memory"));
}

#[test]
fn bad_initrds() {
    assert!(error(&bzimage(4096), Some(b"")).contains("initrd"));
    assert!(error(&bzimage(4096), Some(b"not a cpio")).contains("build it again"));
    let mut large = vec![0; 15 * MIB];
    large[..6].copy_from_slice(b"070701");
    assert!(error(&bzimage(4096), Some(&large)).contains("larger --memory"));
}

#[test]
fn an_overlong_command_line_is_refused() {
    let message = load(&bzimage(4096), None, &"x".repeat(256)).unwrap_err().to_string();
    assert!(message.contains("at most 255"), "{message}");
    assert!(load(&bzimage(4096), None, "a\0b").is_err());
}
