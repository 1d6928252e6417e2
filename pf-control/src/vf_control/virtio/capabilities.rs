//! Where a virtio PCI function keeps its registers (virtio 1.2, 4.1.4), read from its configuration
//! space, and which of its pages a guest may have. Nothing that stands there is trusted.

use std::ops::Range;

use crate::ops::{Region, RegionKind};

/// Page size of register regions.
const PAGE: u64 = 4096;
/// Status register: a capability list is there (PCI 3.0, 6.2.3), and where it begins (6.7).
const STATUS: u16 = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const POINTER: u16 = 0x34;
/// Most capabilities that fit below 0x100.
const CAPABILITIES_MAX: usize = 48;
/// Capability ids: vendor-specific, which virtio's are, and MSI-X (PCI 3.0, 6.8.2).
const VENDOR: u8 = 0x09;
const MSIX: u8 = 0x11;
/// Kinds of virtio capabilities (4.1.4).
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const ISR: u8 = 3;
const DEVICE: u8 = 4;
/// Bytes of the common configuration up to `queue_device` (4.1.4.3).
const COMMON_LENGTH: u32 = 0x38;

/// Why a function's registers cannot be used, or divided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A part is missing.
    #[error("it has no virtio {0} capability: is it a virtio function that is not legacy only?")]
    Missing(&'static str),
    /// A part is not where registers can be.
    #[error("its {part} is said to be {length:#x} bytes at {offset:#x} of BAR {bar}")]
    Place {
        /// Which.
        part: &'static str,
        /// BAR.
        bar: u8,
        /// Offset in bytes.
        offset: u32,
        /// Bytes.
        length: u32,
    },
    /// Parts that only the host may touch are in several BARs.
    #[error("its configuration is spread over several BARs")]
    Spread,
    /// The guest would get more than doorbells.
    #[error("its doorbells share a page with its configuration, which no guest may touch")]
    Mixed,
    /// Its queues cannot interrupt.
    #[error("it has {0} MSI-X vectors, and two queues need one each")]
    Vectors(u16),
}

/// A range of a BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// BAR, 0 to 5.
    pub bar: u8,
    /// Offset in bytes.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
}

impl Part {
    fn pages(&self) -> Range<u64> {
        let (start, end) =
            (u64::from(self.offset), u64::from(self.offset) + u64::from(self.length));
        start / PAGE * PAGE..end.next_multiple_of(PAGE)
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Common configuration.
    pub common: Part,
    /// Doorbells.
    pub notify: Part,
    /// Bytes from one `queue_notify_off` to the next.
    pub multiplier: u32,
    /// Device configuration.
    pub device: Part,
    /// Interrupt status; nobody reads it, but no guest may either.
    pub isr: Part,
    /// Vectors in the MSI-X table.
    pub vectors: u16,
}

impl Layout {
    /// Reads it; `read(offset, bytes)` reads configuration space.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn read(read: impl Fn(u16, &mut [u8])) -> Result<Self, LayoutError> {
        let byte = |at: u16| {
            let mut byte = [0];
            read(at, &mut byte);
            byte[0]
        };
        let half = |at: u16| {
            let mut half = [0; 2];
            read(at, &mut half);
            u16::from_le_bytes(half)
        };
        let word = |at: u16| {
            let mut word = [0; 4];
            read(at, &mut word);
            u32::from_le_bytes(word)
        };
        let mut parts: [Option<Part>; 5] = [None; 5];
        let (mut multiplier, mut vectors) = (0, 0);
        let mut at = if half(STATUS) & STATUS_CAPABILITIES == 0 { 0 } else { byte(POINTER) & 0xfc };
        for _ in 0..CAPABILITIES_MAX {
            if at < 0x40 {
                break;
            }
            let here = u16::from(at);
            match byte(here) {
                MSIX => vectors = (half(here + 2) & 0x7ff) + 1,
                // A driver takes the first of each kind that it can use (4.1.4.1).
                VENDOR if here <= 0x100 - 20 => {
                    let (kind, bar) = (byte(here + 3), byte(here + 4));
                    let part = Part { bar, offset: word(here + 8), length: word(here + 12) };
                    if let Some(place @ None) = parts.get_mut(usize::from(kind)) {
                        *place = Some(part);
                        if kind == NOTIFY {
                            multiplier = word(here + 16);
                        }
                    }
                }
                _ => {}
            }
            at = byte(here + 1) & 0xfc;
        }
        let part = |kind: u8, name: &'static str, least: u32| {
            let part = parts[usize::from(kind)].ok_or(LayoutError::Missing(name))?;
            let Part { bar, offset, length } = part;
            let sound = bar <= 5
                && length >= least
                && offset.is_multiple_of(4)
                && offset.checked_add(length).is_some();
            if sound {
                Ok(part)
            } else {
                Err(LayoutError::Place { part: name, bar, offset, length })
            }
        };
        Ok(Self {
            common: part(COMMON, "common configuration", COMMON_LENGTH)?,
            notify: part(NOTIFY, "notification", 2)?,
            isr: part(ISR, "interrupt status", 1)?,
            device: part(DEVICE, "device configuration", 8)?,
            multiplier,
            vectors,
        })
    }

    /// How its pages are divided: doorbells for the guest, the rest for the host.
    ///
    /// # Errors
    /// [`LayoutError`] if they cannot be.
    pub fn regions(&self) -> Result<Vec<Region>, LayoutError> {
        let control = [self.common, self.isr, self.device];
        if control.iter().any(|part| part.bar != self.common.bar) {
            return Err(LayoutError::Spread);
        }
        if self.vectors < 2 {
            return Err(LayoutError::Vectors(self.vectors));
        }
        let bells = self.notify.pages();
        let mixed = |part: &Part| {
            let pages = part.pages();
            part.bar == self.notify.bar && pages.start < bells.end && bells.start < pages.end
        };
        if control.iter().any(mixed) {
            return Err(LayoutError::Mixed);
        }
        let mut regions: Vec<Region> = Vec::new();
        for part in control {
            let pages = part.pages();
            let region = Region {
                bar: part.bar,
                offset: pages.start,
                length: pages.end - pages.start,
                kind: RegionKind::Control,
                window_offset: None,
            };
            if !regions.contains(&region) {
                regions.push(region);
            }
        }
        regions.push(Region {
            bar: self.notify.bar,
            offset: bells.start,
            length: bells.end - bells.start,
            kind: RegionKind::Data,
            window_offset: Some(0),
        });
        Ok(regions)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A capability: kind, BAR, offset, length.
    type Capability = (u8, u8, u32, u32);

    /// A configuration space with these.
    pub(crate) fn config(parts: &[Capability], vectors: u16) -> [u8; 256] {
        let mut config = [0; 256];
        config[usize::from(STATUS)] = STATUS_CAPABILITIES as u8;
        config[usize::from(POINTER)] = 0x40;
        config[0x40..0x42].copy_from_slice(&[MSIX, 0x50]);
        config[0x42..0x44].copy_from_slice(&(vectors.wrapping_sub(1) & 0x7ff).to_le_bytes());
        for (index, &(kind, bar, offset, length)) in parts.iter().enumerate() {
            let at = 0x50 + 0x18 * index;
            let next = if index + 1 < parts.len() { at + 0x18 } else { 0 };
            config[at..at + 5].copy_from_slice(&[VENDOR, next as u8, 20, kind, bar]);
            config[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
            config[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
            config[at + 16..at + 20].copy_from_slice(&4u32.to_le_bytes());
        }
        config
    }

    /// As QEMU's device models lay it out.
    pub(crate) const USUAL: [Capability; 4] = [
        (COMMON, 4, 0, 0x1000),
        (ISR, 4, 0x1000, 0x1000),
        (DEVICE, 4, 0x2000, 0x1000),
        (NOTIFY, 4, 0x3000, 0x1000),
    ];

    fn layout(config: &[u8; 256]) -> Result<Layout, LayoutError> {
        Layout::read(|at, bytes| {
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = config.get(usize::from(at) + index).copied().unwrap_or(0xff);
            }
        })
    }

    #[test]
    fn the_guest_gets_doorbells_and_nothing_else() {
        let layout = layout(&config(&USUAL, 3)).unwrap();
        assert_eq!((layout.multiplier, layout.vectors), (4, 3));
        let regions = layout.regions().unwrap();
        assert_eq!(regions.len(), 4);
        for region in regions {
            let is_bell = region.offset == 0x3000;
            assert_eq!(region.kind == RegionKind::Data, is_bell);
            assert_eq!(region.window_offset, is_bell.then_some(0));
            assert_eq!(region.length, 0x1000);
        }
    }

    #[test]
    fn a_layout_that_cannot_be_divided_is_refused() {
        let refused = |change: &dyn Fn(&mut [Capability; 4]), vectors| {
            let mut parts = USUAL;
            change(&mut parts);
            layout(&config(&parts, vectors)).and_then(|layout| layout.regions()).unwrap_err()
        };
        assert_eq!(refused(&|parts| parts[3].2 = 0x2800, 3), LayoutError::Mixed);
        assert_eq!(refused(&|parts| parts[0].3 = 0x4000, 3), LayoutError::Mixed);
        assert_eq!(refused(&|parts| parts[1].1 = 2, 3), LayoutError::Spread);
        assert_eq!(refused(&|_| {}, 1), LayoutError::Vectors(1));
        assert!(matches!(refused(&|parts| parts[0].1 = 6, 3), LayoutError::Place { .. }));
        assert!(matches!(refused(&|parts| parts[0].3 = 0x30, 3), LayoutError::Place { .. }));
        assert!(matches!(refused(&|parts| parts[2].2 = u32::MAX, 3), LayoutError::Place { .. }));
        assert!(matches!(refused(&|parts| parts[2].0 = 5, 3), LayoutError::Missing(_)));
        assert!(matches!(layout(&[0; 256]), Err(LayoutError::Missing(_))));
        assert!(matches!(layout(&[0xff; 256]), Err(LayoutError::Missing(_))));
    }

    /// Whatever the function says, reading ends, and no page is both the guest's and the host's.
    #[test]
    fn rubbish_is_survived() {
        let mut seed = 0x9e37_79b9_u32;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed
        };
        let mut divided = 0;
        for round in 0..20_000 {
            let mut config = config(&USUAL, 3);
            for _ in 0..1 + round % 6 {
                let at = 0x34 + random() as usize % (256 - 0x34);
                config[at] = random() as u8;
            }
            let Ok(regions) = layout(&config).and_then(|layout| layout.regions()) else { continue };
            divided += 1;
            let of = |kind| regions.iter().filter(move |region| region.kind == kind);
            for bell in of(RegionKind::Data) {
                for own in of(RegionKind::Control).filter(|own| own.bar == bell.bar) {
                    let apart = bell.offset + bell.length <= own.offset
                        || own.offset + own.length <= bell.offset;
                    assert!(apart, "{regions:?}");
                }
            }
        }
        assert!(divided > 1_000);
    }
}
