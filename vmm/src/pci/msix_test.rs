use super::super::config_space::ConfigHeader;
use super::*;
use crate::vm::hypervisor::fake::FakeHypervisor;

struct Setup {
    fake: Arc<FakeHypervisor>,
    vectors: Arc<MsixVectors>,
    config: ConfigSpace,
    capability: MsixCapability,
}

fn setup(count: u16) -> Setup {
    let fake = Arc::new(FakeHypervisor::default());
    let router = Arc::new(IrqRouter::new(fake.clone()));
    let vectors = Arc::new(MsixVectors::new(router, count).unwrap());
    let mut config = ConfigSpace::new(ConfigHeader::default());
    let capability = MsixCapability::new(&mut config, vectors.clone(), 1, 0, 0x800);
    Setup { fake, vectors, config, capability }
}

impl Setup {
    fn control(&mut self, value: u16) {
        self.config.write(0x42, &value.to_le_bytes());
        self.capability.config_written(&self.config, 0x42, 2);
    }

    fn entry(&self, v: u64, address: u64, data: u32, control: u32) {
        self.vectors.table_write(v * ENTRY, &address.to_le_bytes());
        self.vectors.table_write(v * ENTRY + 8, &data.to_le_bytes());
        self.vectors.table_write(v * ENTRY + 12, &control.to_le_bytes());
    }

    fn pending(&self) -> u8 {
        let mut bits = [0];
        self.vectors.pba_read(0, &mut bits);
        bits[0]
    }
}

#[test]
fn capability_describes_the_table() {
    let setup = setup(5);
    assert_eq!(setup.config.u8(0x40), 0x11);
    assert_eq!(setup.config.u16(0x42), 4);
    assert_eq!(setup.config.u32(0x44), 1);
    assert_eq!(setup.config.u32(0x48), 0x801);
    assert_eq!((setup.vectors.table_len(), setup.vectors.pba_len()), (80, 8));
}

#[test]
fn a_vector_is_connected_when_enabled_and_unmasked() {
    let mut setup = setup(2);
    setup.entry(0, 0xfee0_1000, 0x31, 0);
    assert!(!setup.fake.has_irqfd(24));
    setup.control(CONTROL_ENABLE | CONTROL_MASK);
    assert!(!setup.fake.has_irqfd(24));
    setup.control(CONTROL_ENABLE);
    assert!(setup.fake.has_irqfd(24) && !setup.fake.has_irqfd(25));
    assert_eq!(setup.fake.message(24), Some(MsiMessage { address: 0xfee0_1000, data: 0x31 }));
    setup.control(0);
    assert!(!setup.fake.has_irqfd(24));
}

#[test]
fn a_masked_vector_keeps_its_event() {
    let mut setup = setup(1);
    setup.control(CONTROL_ENABLE);
    setup.entry(0, 0xfee0_0000, 0x31, 1);
    setup.vectors.trigger(0);
    assert_eq!(setup.pending(), 1);
    setup.entry(0, 0xfee0_0000, 0x31, 0);
    assert!(setup.fake.has_irqfd(24));
    // The irqfd would take it now; the fake leaves it in the counter.
    assert_eq!(setup.vectors.event(0).read().unwrap(), 1);
    assert_eq!(setup.pending(), 0);
}

#[test]
fn routes_are_set_only_when_the_message_changes() {
    let mut setup = setup(1);
    setup.control(CONTROL_ENABLE);
    setup.entry(0, 0xfee0_0000, 0x31, 0);
    let routings = setup.fake.routings();
    setup.entry(0, 0xfee0_0000, 0x31, 1);
    setup.entry(0, 0xfee0_0000, 0x31, 0);
    assert_eq!(setup.fake.routings(), routings);
    setup.vectors.table_write(8, &0x32u32.to_le_bytes());
    assert_eq!(setup.fake.message(24).unwrap().data, 0x32);
}

#[test]
fn enabling_forgets_old_events() {
    let mut setup = setup(1);
    setup.vectors.trigger(0);
    setup.control(CONTROL_ENABLE);
    assert_eq!(setup.pending(), 0);
}

#[test]
fn odd_accesses_are_harmless() {
    let setup = setup(1);
    let mut data = [0; 4];
    setup.vectors.table_read(0x1000, &mut data);
    assert_eq!(data, [0xff; 4]);
    setup.vectors.table_read(2, &mut data);
    assert_eq!(data, [0xff; 4]);
    setup.vectors.table_write(0x1000, &[0; 8]);
    setup.vectors.table_write(3, &[0; 1]);
    setup.vectors.trigger(77);
    let mut entry = [0; 8];
    setup.vectors.table_read(8, &mut entry);
    assert_eq!(entry, [0, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn reset_masks_and_disconnects() {
    let mut setup = setup(1);
    setup.control(CONTROL_ENABLE);
    setup.entry(0, 0xfee0_0000, 0x31, 0);
    setup.vectors.trigger(0);
    setup.vectors.reset();
    assert!(!setup.fake.has_irqfd(24));
    assert_eq!(setup.pending(), 0);
    assert!(!setup.vectors.is_deliverable(0));
}

#[test]
fn gsis_are_given_back() {
    let setup = setup(3);
    let router = setup.vectors.router.clone();
    let Setup { vectors, capability, .. } = setup;
    drop((vectors, capability));
    assert_eq!(router.allocate().unwrap(), 24);
}
