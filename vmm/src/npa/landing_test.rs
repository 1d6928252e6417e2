use npa_abi::shell_page::LANDING_LENGTH_DEFAULT;

use super::*;

const RAM: u64 = 4 << 20;
const SHELL: u64 = 0x10_0000;
const BASE: u64 = 0xffff_ffff_c012_3000;
const LENGTH: u32 = LANDING_LENGTH_DEFAULT;
const PAGES: usize = LENGTH as usize / PAGE_SIZE;

fn landing_page(index: usize) -> u64 {
    // Not contiguous and not ascending, as a module's frames are.
    0x20_0000 + ((index as u64 * 7) % 16) * 2 * PAGE
}

/// RAM with a valid shell page and a filled landing.
fn guest() -> GuestRam {
    let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
    put(&ram, offset_of!(ShellPage, magic), SHELL_PAGE_MAGIC);
    put(&ram, offset_of!(ShellPage, size), 4096_u32);
    put(&ram, offset_of!(ShellPage, landing_base), BASE);
    put(&ram, offset_of!(ShellPage, landing_length), LENGTH);
    for index in 0..PAGES {
        put_page(&ram, index, landing_page(index));
        fill(&ram, landing_page(index), LANDING_FILL);
    }
    ram
}

fn put<T: vm_memory::ByteValued>(ram: &GuestRam, field: usize, value: T) {
    ram.write_obj(value, GuestAddress(SHELL + field as u64)).unwrap();
}

fn put_page(ram: &GuestRam, index: usize, address: u64) {
    put(ram, offset_of!(ShellPage, landing_pages) + index * 8, address);
}

fn put_queue(ram: &GuestRam, index: usize, base: u64, length: u32, entries: u32) {
    let at = offset_of!(ShellPage, queues) + index * size_of::<QueueDescriptor>();
    put(ram, at, base);
    put(ram, at + 8, length);
    put(ram, at + 12, entries);
}

fn fill(ram: &GuestRam, page: u64, byte: u8) {
    ram.write_slice(&[byte; PAGE_SIZE], GuestAddress(page)).unwrap();
}

fn register(ram: &GuestRam) -> Result<Registration, ShellPageError> {
    Registration::read(ram, SHELL, LENGTH, None)
}

#[test]
fn a_valid_page_is_taken() {
    let registration = register(&guest()).unwrap();
    assert_eq!(registration.landing().base(), BASE);
    assert_eq!(registration.landing().length(), LENGTH as usize);
}

#[test]
fn pages_outside_ram_are_refused() {
    let ram = guest();
    for page in [RAM, RAM - 1, SHELL + 8, u64::MAX, u64::MAX - 4095, 1 << 52] {
        let error = Registration::read(&ram, page, LENGTH, None).unwrap_err();
        assert_eq!(error, ShellPageError::NotRam(page));
        put_page(&ram, 3, page);
        let error = register(&ram).unwrap_err();
        assert_eq!(error, ShellPageError::LandingPage { index: 3, address: page });
    }
}

#[test]
fn wrong_headers_are_refused() {
    for (field, value) in [(offset_of!(ShellPage, magic), 0), (offset_of!(ShellPage, size), 8192)] {
        let ram = guest();
        put::<u32>(&ram, field, value);
        assert_eq!(register(&ram), Err(ShellPageError::Header));
    }
}

#[test]
fn misshapen_landings_are_refused() {
    for base in [BASE + 1, u64::MAX - 4095] {
        let ram = guest();
        put(&ram, offset_of!(ShellPage, landing_base), base);
        assert!(register(&ram).unwrap_err().is_landing());
    }
    for length in [0, LENGTH - 1, LENGTH + 4096, u32::MAX] {
        let ram = guest();
        put(&ram, offset_of!(ShellPage, landing_length), length);
        assert!(matches!(register(&ram), Err(ShellPageError::LandingShape { .. })));
    }
}

#[test]
fn overlaps_are_refused() {
    for other in [SHELL, landing_page(2)] {
        let ram = guest();
        put_page(&ram, 9, other);
        assert_eq!(register(&ram), Err(ShellPageError::Overlap { index: 9, address: other }));
    }
}

#[test]
fn a_landing_must_hold_its_fill_or_what_we_left() {
    let ram = guest();
    let landing = register(&ram).unwrap().landing;
    let residue = landing.write(&ram, &[0x90; 5000]).unwrap();
    assert_eq!(register(&ram), Err(ShellPageError::Fill { index: 0 }));
    assert!(Registration::read(&ram, SHELL, LENGTH, Some(&residue)).is_ok());
    fill(&ram, landing_page(4), 0);
    assert!(Registration::read(&ram, SHELL, LENGTH, Some(&residue)).is_err());
}

#[test]
fn the_image_is_written_in_page_order_and_the_rest_filled() {
    let ram = guest();
    let landing = register(&ram).unwrap().landing;
    let image: Vec<u8> = (0..2 * PAGE_SIZE + 100).map(|i| (i / 100) as u8).collect();
    landing.write(&ram, &image).unwrap();
    let mut content = vec![0; PAGE_SIZE];
    ram.read_slice(&mut content, GuestAddress(landing_page(1))).unwrap();
    assert_eq!(content, image[PAGE_SIZE..2 * PAGE_SIZE]);
    ram.read_slice(&mut content, GuestAddress(landing_page(2))).unwrap();
    assert_eq!(content[..100], image[2 * PAGE_SIZE..]);
    assert!(content[100..].iter().all(|&byte| byte == LANDING_FILL));
    landing.restore(&ram).unwrap();
    assert!(register(&ram).is_ok());
    assert!(landing.write(&ram, &vec![0; LENGTH as usize + 1]).is_err());
}

#[test]
fn what_the_guest_changes_later_does_not_matter() {
    let ram = guest();
    let registration = register(&ram).unwrap();
    for index in 0..PAGES {
        put_page(&ram, index, 0x30_0000);
    }
    registration.landing().write(&ram, &[1; 100]).unwrap();
    let mut byte = [0];
    ram.read_slice(&mut byte, GuestAddress(0x30_0000)).unwrap();
    assert_eq!(byte, [0]);
}

#[test]
fn queues_are_checked() {
    let ram = guest();
    let registration = register(&ram).unwrap();
    let queues = |count: usize| {
        put(&ram, offset_of!(ShellPage, queue_count), count as u32);
        registration.read_queues(&ram, 2..=2, |_, queue| queue.length >= queue.entries * 16)
    };
    put_queue(&ram, 0, 0x8_0000, 4096, 256);
    put_queue(&ram, 1, 0x9_0000, 4096, 256);
    assert_eq!(queues(2).unwrap()[1].base, 0x9_0000);
    for count in [0, 1, 3, 17, u32::MAX as usize] {
        assert!(queues(count).is_err());
    }
    for (base, length, entries) in
        [(RAM - 4095, 4096, 256), (u64::MAX, 4096, 256), (0, 4095, 256), (0, 4096, 3), (0, 0, 1)]
    {
        put_queue(&ram, 1, base, length, entries);
        assert_eq!(queues(2), Err(ShellPageError::Queue { index: 1 }));
    }
}

#[test]
fn the_revoked_word_is_written() {
    let ram = guest();
    register(&ram).unwrap().set_revoked(&ram, 77).unwrap();
    let word: u32 = ram.read_obj(GuestAddress(SHELL + REVOKED_OFFSET as u64)).unwrap();
    assert_eq!(word, 77);
}
