//! VFs from pf-control, for a network device: what the daemon must know that is particular to
//! networks (address, switch port, MTU) is added here and nowhere else.

use npa_abi::register::DEVICE_INFO_WORDS;
use npa_abi::shell_page::QueueDescriptor;
use pf_control::client::{Client, ClientError};
use pf_control::ops::{AcquireRequest, DeviceClass, LeaseId, MacAddr, Ring, Rings};
use pf_control::vf_control::VfConfig;

use super::hardware::{VfGrant, VfPool};

/// A network device as the daemon has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetEndpoint {
    /// The VM's name, for people.
    pub vm: String,
    /// The device's name in the VM.
    pub device: String,
    /// Its address.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u16,
    /// The switch port of its emulated path: the tap's name.
    pub port: String,
}

/// The pool of network VFs of one daemon, for one device.
pub struct NetPool {
    client: Client,
    endpoint: NetEndpoint,
}

impl NetPool {
    /// VFs from the daemon behind `client`.
    pub fn new(client: Client, endpoint: NetEndpoint) -> Self {
        Self { client, endpoint }
    }

    /// Words 0 to 7 of the device information, as `npa_abi::net::DeviceInfo` lays them out.
    fn class_words(&self) -> [u32; 2] {
        let [a, b, c, d, e, f] = self.endpoint.mac;
        let [low, high] = self.endpoint.mtu.to_le_bytes();
        [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, low, high])]
    }
}

impl VfPool for NetPool {
    fn acquire(&self) -> Result<VfGrant, ClientError> {
        let acquired = self.client.acquire(AcquireRequest {
            vm: self.endpoint.vm.clone(),
            device: self.endpoint.device.clone(),
            class: DeviceClass::Net,
            mtu: self.endpoint.mtu,
            queues: 1,
        })?;
        let mut device_info: [u32; DEVICE_INFO_WORDS] = acquired.device_info;
        device_info[..8].fill(0);
        device_info[..2].copy_from_slice(&self.class_words());
        let config = VfConfig { mtu: self.endpoint.mtu, multicast: Vec::new(), vlans: Vec::new() };
        Ok(VfGrant { acquired, config, device_info })
    }

    fn check(&self, lease: LeaseId) -> Result<(), ClientError> {
        self.client.get_info(lease).map(drop)
    }

    fn init(&self, lease: LeaseId, queues: &[QueueDescriptor]) -> Result<(), ClientError> {
        let ring = |queue: &QueueDescriptor| Ring { address: queue.base, length: queue.length };
        // Role 0 receives, role 1 transmits (`npa_abi::net`).
        let rings = Rings {
            rx: queues.iter().step_by(2).map(ring).collect(),
            tx: queues.iter().skip(1).step_by(2).map(ring).collect(),
        };
        self.client.init(lease, rings)
    }

    fn activate(&self, lease: LeaseId) -> Result<(), ClientError> {
        self.client.activate(lease, MacAddr(self.endpoint.mac), self.endpoint.port.as_str())
    }

    fn quiesce(&self, lease: LeaseId) -> Result<(), ClientError> {
        self.client.quiesce(lease)
    }

    fn release(&self, lease: LeaseId) -> Result<(), ClientError> {
        self.client.release(lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_words_are_laid_out_as_the_plugin_reads_them() {
        let endpoint = NetEndpoint {
            vm: "vm".to_owned(),
            device: "net0".to_owned(),
            mac: [0x52, 0x54, 0, 1, 2, 3],
            mtu: 1500,
            port: "tap0".to_owned(),
        };
        let pool = NetPool::new(Client::new("/nowhere"), endpoint);
        assert_eq!(pool.class_words(), [0x0100_5452, 1500 << 16 | 0x0302]);
    }
}
