//! Which pages of guest RAM were written since the last look: KVM's log of what the guest wrote,
//! together with vm-memory's of what this process wrote. What a device writes by DMA is in
//! neither: a guest on a VF has to mark it (`npa_abi::shell_page::FEATURE_MARKS`).

use vm_memory::GuestMemoryBackend;

use super::error::{VmError, kvm};
use super::hypervisor::SlotFlags;
use super::machine::Vm;
use super::memory::RamRange;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// A set of pages of guest RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageSet {
    ranges: Vec<Bits>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bits {
    /// Guest physical address of the first page.
    gpa: u64,
    /// Pages.
    pages: u64,
    /// One bit per page, from the lowest of each word up; none beyond the last page.
    words: Vec<u64>,
}

/// Consecutive pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Guest physical address of the first.
    pub gpa: u64,
    /// How many.
    pub pages: u64,
}

impl PageRun {
    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE
    }
}

impl PageSet {
    /// No page of `ranges`.
    pub fn none(ranges: &[RamRange]) -> Self {
        let bits = |range: &RamRange| {
            let pages = range.len / PAGE;
            Bits { gpa: range.gpa, pages, words: vec![0; pages.div_ceil(64) as usize] }
        };
        Self { ranges: ranges.iter().map(bits).collect() }
    }

    /// All pages of `ranges`.
    pub fn all(ranges: &[RamRange]) -> Self {
        let mut set = Self::none(ranges);
        for bits in &mut set.ranges {
            bits.words.fill(u64::MAX);
            bits.trim();
        }
        set
    }

    /// Adds the pages of range number `range` whose bit is set; what is beyond its end is ignored.
    pub fn add(&mut self, range: usize, words: &[u64]) {
        let bits = &mut self.ranges[range];
        for (mine, more) in bits.words.iter_mut().zip(words) {
            *mine |= more;
        }
        bits.trim();
    }

    /// Adds the pages of `other`, which is a set of the same ranges.
    pub fn merge(&mut self, other: &Self) {
        for (range, bits) in other.ranges.iter().enumerate() {
            self.add(range, &bits.words);
        }
    }

    /// How many pages there are.
    pub fn len(&self) -> u64 {
        let words = self.ranges.iter().flat_map(|bits| &bits.words);
        words.map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.iter().all(|bits| bits.words.iter().all(|word| *word == 0))
    }

    /// Bytes in the pages.
    pub fn bytes(&self) -> u64 {
        self.len() * PAGE
    }

    /// The pages in ascending order, in runs of at most `longest` pages.
    pub fn runs(&self, longest: u64) -> impl Iterator<Item = PageRun> {
        self.ranges.iter().flat_map(move |bits| bits.runs(longest))
    }
}

impl Bits {
    fn trim(&mut self) {
        let used = self.pages % 64;
        if used != 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << used) - 1;
        }
    }

    fn has(&self, page: u64) -> bool {
        self.words[(page / 64) as usize] >> (page % 64) & 1 != 0
    }

    /// The first page from `from` on that is in the set.
    fn next(&self, from: u64) -> Option<u64> {
        let mut page = from;
        while page < self.pages {
            let word = self.words[(page / 64) as usize] >> (page % 64);
            if word != 0 {
                return Some(page + u64::from(word.trailing_zeros()));
            }
            page = (page / 64 + 1) * 64;
        }
        None
    }

    fn runs(&self, longest: u64) -> impl Iterator<Item = PageRun> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = self.next(at)?;
            let limit = self.pages.min(first + longest);
            at = (first..limit).find(|page| !self.has(*page)).unwrap_or(limit);
            Some(PageRun { gpa: self.gpa + first * PAGE, pages: at - first })
        })
    }
}

impl Vm {
    /// Begins to log what is written to guest RAM.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn start_dirty_log(&self) -> Result<(), VmError> {
        self.set_dirty_log(SlotFlags::LOG_DIRTY)?;
        for region in self.context.memory.ram().iter() {
            region.bitmap().get_and_reset();
        }
        Ok(())
    }

    /// Ends [`Vm::start_dirty_log`].
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn stop_dirty_log(&self) -> Result<(), VmError> {
        self.set_dirty_log(SlotFlags::empty())
    }

    fn set_dirty_log(&self, flags: SlotFlags) -> Result<(), VmError> {
        for slot in &self.ram_slots {
            self.context.memory_slots.set_flags(*slot, flags)?;
        }
        Ok(())
    }

    /// The pages written since the start of the log, or since the last call.
    ///
    /// # Errors
    /// When KVM does not tell.
    pub fn take_dirty(&self) -> Result<PageSet, VmError> {
        let memory = &self.context.memory;
        let mut dirty = PageSet::none(memory.ranges());
        let slots = self.ram_slots.iter().zip(memory.ranges()).zip(memory.ram().iter());
        for (index, ((slot, range), region)) in slots.enumerate() {
            let slot = self.context.memory_slots.kvm_slot(*slot);
            let guest = self
                .vm
                .get_dirty_log(slot, range.len as usize)
                .map_err(kvm("tell which pages the guest wrote"))?;
            dirty.add(index, &guest);
            dirty.add(index, &region.bitmap().get_and_reset());
        }
        Ok(dirty)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges() -> Vec<RamRange> {
        let range = |gpa, pages| RamRange { gpa, len: pages * PAGE, host: 0, file_offset: 0 };
        vec![range(0, 130), range(1 << 32, 3)]
    }

    #[test]
    fn all_pages_are_two_runs() {
        let all = PageSet::all(&ranges());
        assert_eq!((all.len(), all.bytes()), (133, 133 * 4096));
        let runs: Vec<_> = all.runs(1000).collect();
        assert_eq!(runs, [PageRun { gpa: 0, pages: 130 }, PageRun { gpa: 1 << 32, pages: 3 }]);
        assert_eq!(all.runs(50).count(), 4);
    }

    #[test]
    fn bits_beyond_the_end_are_no_pages() {
        let mut set = PageSet::none(&ranges());
        assert!(set.is_empty());
        set.add(1, &[u64::MAX, u64::MAX]);
        assert_eq!(set.len(), 3);
    }

    proptest! {
        #[test]
        fn runs_are_the_set(words in prop::collection::vec(any::<u64>(), 3), longest in 1_u64..70) {
            let mut set = PageSet::none(&ranges());
            set.add(0, &words);
            let mut copy = PageSet::none(&ranges());
            let mut last_end = 0;
            for run in set.runs(longest) {
                prop_assert!(run.pages >= 1 && run.pages <= longest && run.gpa >= last_end);
                last_end = run.gpa + run.bytes();
                for page in run.gpa / PAGE..last_end / PAGE {
                    let mut word = vec![0; 3];
                    word[(page / 64) as usize] = 1 << (page % 64);
                    copy.add(0, &word);
                }
            }
            prop_assert_eq!(copy, set);
        }
    }
}
