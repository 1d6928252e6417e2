//! A second owner on the function.

use std::sync::{Arc, Mutex};

use crate::pci::{BarKind, PciDevice};
use crate::state::{Archive, ArchiveBuilder, StateError};
use crate::virtio::fake_driver::FakeDriver;
use crate::virtio::pci::{BarSpec, Connection, PciExtension};
use crate::virtio::rng::Rng;

#[derive(Debug, PartialEq)]
enum Seen {
    Write(u64, Vec<u8>),
    Placed(Option<u64>),
    Status(u8),
    Reset,
}

#[derive(Clone, Default)]
struct Recorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    connection: Arc<Mutex<Option<Connection>>>,
}

impl Recorder {
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl PciExtension for Recorder {
    fn capability(&self) -> Vec<u8> {
        vec![9, 0, 8, 9, 0xf4, 0x1a, 0xaa, 0xbb]
    }

    fn bar(&self) -> BarSpec {
        BarSpec { index: 4, kind: BarKind::Memory64 { prefetchable: true }, size: 0x8_0000 }
    }

    fn connected(&mut self, connection: Connection) {
        *self.connection.lock().unwrap() = Some(connection);
    }

    fn bar_read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }

    fn bar_write(&mut self, offset: u64, data: &[u8]) {
        self.seen.lock().unwrap().push(Seen::Write(offset, data.to_vec()));
    }

    fn bar_placed(&mut self, base: Option<u64>) {
        self.seen.lock().unwrap().push(Seen::Placed(base));
    }

    fn identity(&self) -> String {
        "recorder".to_owned()
    }

    fn save(&self, _slot: &str, _state: &mut ArchiveBuilder) -> Result<(), StateError> {
        Ok(())
    }

    fn restore(&mut self, _slot: &str, _state: &mut Archive) -> Result<(), StateError> {
        Ok(())
    }

    fn device_status_changed(&mut self, status: u8) {
        self.seen.lock().unwrap().push(Seen::Status(status));
    }

    fn reset(&mut self) {
        self.seen.lock().unwrap().push(Seen::Reset);
    }
}

#[test]
fn an_extension_has_its_bar_capability_and_vectors() {
    let recorder = Recorder::default();
    let rng = Box::new(Rng::new().unwrap());
    let mut driver = FakeDriver::with_extension(rng, 3, Some(Box::new(recorder.clone())));

    let config = driver.function.config();
    let mut at = u16::from(config.u8(0x34));
    while config.u8(at + 1) != 0 {
        at = u16::from(config.u8(at + 1));
    }
    let mut capability = [0; 8];
    config.read(at, &mut capability);
    assert_eq!(capability, [9, 0, 8, 9, 0xf4, 0x1a, 0xaa, 0xbb]);

    let connection = recorder.connection.lock().unwrap().clone().unwrap();
    assert_eq!((connection.first_extra, connection.extra), (2, 3));
    assert_eq!(connection.vectors.count(), 5);

    let mut data = [0; 4];
    driver.function.bar_read(4, 0x21, &mut data);
    assert_eq!(data, [0x21; 4]);
    driver.function.bar_write(4, 0x40, &[1, 2]);
    driver.function.bar_placed(4, Some(0x4000_0000));
    assert_eq!(recorder.take(), [Seen::Write(0x40, vec![1, 2]), Seen::Placed(Some(0x4000_0000))]);

    driver.start(0, 64);
    let statuses =
        [Seen::Reset, Seen::Status(1), Seen::Status(3), Seen::Status(0xb), Seen::Status(0xf)];
    assert_eq!(recorder.take(), statuses);
    connection.interrupts.set_config_vector(0);
    connection.interrupts.raise_config();
    assert!(driver.interrupted(0));
}

#[test]
fn without_an_extension_its_bar_is_nobodys() {
    let mut driver = FakeDriver::new(Box::new(Rng::new().unwrap()));
    let mut data = [0; 4];
    driver.function.bar_read(4, 0, &mut data);
    assert_eq!(data, [0xff; 4]);
    driver.function.bar_write(4, 0, &data);
    driver.function.bar_placed(4, Some(0x1000));
}
