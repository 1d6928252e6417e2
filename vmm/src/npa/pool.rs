//! VFs from pf-control, for a network device: what the daemon must know that is particular to
//! networks (address, switch port, MTU) is added here and nowhere else.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use npa_abi::register::DEVICE_INFO_WORDS;
use npa_abi::shell_page::QueueDescriptor;
use pf_control::client::{Client, ClientError};
use pf_control::lease::LeaseState;
use pf_control::ops::{AcquireRequest, DeviceClass, LeaseId, MacAddr, Ring, Rings, VfEntry};
use pf_control::vf_control::VfConfig;

use super::hardware::{PoolNews, VfGrant, VfPool};

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
    /// RAM of the VM in bytes, which its VF reaches.
    pub memory: u64,
    /// The profile that its VF must fit.
    pub profile: Option<String>,
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

/// How long the daemon may be away in the middle of a switch: time for whoever supervises it to
/// start it again.
const ABSENCE_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two looks for it.
const ABSENCE_LOOK: Duration = Duration::from_millis(50);

/// Asks again while the daemon is away: the next one has taken up what the former one was at,
/// and answers as that would have. `begun` says whether it may have begun with it; a daemon that
/// was away from the start is an error at once.
fn insist<T>(
    mut begun: bool,
    mut ask: impl FnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let limit = Instant::now() + ABSENCE_LIMIT;
    loop {
        let answer = ask();
        begun |= matches!(answer, Err(ClientError::Died { .. }));
        let away = matches!(answer, Err(ClientError::Died { .. } | ClientError::NotRunning { .. }));
        if !(begun && away) || Instant::now() >= limit {
            return answer;
        }
        std::thread::sleep(ABSENCE_LOOK);
    }
}

impl VfPool for NetPool {
    fn acquire(&self, wait: bool) -> Result<VfGrant, ClientError> {
        let acquired = insist(false, || {
            self.client.acquire(AcquireRequest {
                vm: self.endpoint.vm.clone(),
                device: self.endpoint.device.clone(),
                class: DeviceClass::Net,
                mtu: self.endpoint.mtu,
                queues: 1,
                profile: self.endpoint.profile.clone(),
                wait,
            })
        })?;
        let mut device_info: [u32; DEVICE_INFO_WORDS] = acquired.device_info;
        device_info[..8].fill(0);
        device_info[..2].copy_from_slice(&self.class_words());
        let config = VfConfig { mtu: self.endpoint.mtu, multicast: Vec::new(), vlans: Vec::new() };
        Ok(VfGrant { acquired, config, device_info })
    }

    fn open(&self, lease: LeaseId) -> Result<OwnedFd, ClientError> {
        insist(true, || self.client.open_group(lease, self.endpoint.memory))
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
        insist(true, || self.client.init(lease, rings.clone()))
    }

    fn activate(&self, lease: LeaseId) -> Result<(), ClientError> {
        let NetEndpoint { mac, port, .. } = &self.endpoint;
        insist(true, || self.client.activate(lease, MacAddr(*mac), port.as_str()))
    }

    fn quiesce(&self, lease: LeaseId) -> Result<(), ClientError> {
        insist(true, || self.client.quiesce(lease))
    }

    fn release(&self, lease: LeaseId) -> Result<(), ClientError> {
        self.client.release(lease)
    }

    fn follow(
        &self,
        heard: &mut dyn FnMut(PoolNews) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.client.follow(|entry| news(entry.as_ref(), heard))
    }
}

/// Tells what a VF's entry means for us. The daemon shows whose VFs are others' to nobody but
/// root, so these are sorted out here as well.
fn news(
    entry: Option<&VfEntry>,
    heard: &mut dyn FnMut(PoolNews) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let Some(entry) = entry.filter(|entry| entry.class == DeviceClass::Net) else {
        return heard(PoolNews::Silence);
    };
    let ours = entry.owner_pid == Some(std::process::id());
    if !ours && entry.owner_pid.is_some() {
        return heard(PoolNews::Silence);
    }
    heard(PoolNews::WantedBack(LeaseId(entry.vf), ours && entry.maintenance))?;
    match entry.state == LeaseState::Free && !entry.maintenance {
        true => heard(PoolNews::Free),
        false => ControlFlow::Continue(()),
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
            memory: 1 << 20,
            profile: None,
        };
        let pool = NetPool::new(Client::new("/nowhere"), endpoint);
        assert_eq!(pool.class_words(), [0x0100_5452, 1500 << 16 | 0x0302]);
    }

    #[test]
    fn a_daemon_that_died_in_the_middle_is_waited_for() {
        let died = || ClientError::Died { call: "x".to_owned(), reason: "y".to_owned() };
        let away = || ClientError::NotRunning {
            socket: "/nowhere".into(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        for begun in [false, true] {
            let mut answers = vec![Ok(7), Err(away()), Err(away()), Err(died())];
            assert_eq!(insist(begun, || answers.pop().unwrap()).unwrap(), 7);
        }
        let mut answers = vec![Ok(7), Err(away())];
        assert_eq!(insist(true, || answers.pop().unwrap()).unwrap(), 7);
        let mut asked = 0;
        let answer: Result<(), _> = insist(false, || {
            asked += 1;
            Err(away())
        });
        assert!(answer.is_err());
        assert_eq!(asked, 1, "a daemon that is away from the start is an error at once");
    }

    #[test]
    fn an_entry_means_what_concerns_us() {
        let entry = |state, owner_pid, maintenance| VfEntry {
            vf: "0000:01:10.0".parse().unwrap(),
            pf: "eth0".to_owned(),
            index: 0,
            class: DeviceClass::Net,
            plugin: "igbvf".to_owned(),
            iommu_group: 7,
            state,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            owner_pid,
            vm: None,
            device: None,
            fault: None,
            maintenance,
            link_up: true,
            profiles: Vec::new(),
        };
        let told = |entry: Option<VfEntry>| {
            let mut told = Vec::new();
            let mut heard = |news| {
                told.push(news);
                ControlFlow::Continue(())
            };
            assert!(news(entry.as_ref(), &mut heard).is_continue());
            told
        };
        let lease = LeaseId("0000:01:10.0".parse().unwrap());
        let own = Some(std::process::id());
        let (active, free) = (LeaseState::Active, LeaseState::Free);
        let wanted = |back| PoolNews::WantedBack(lease, back);
        assert_eq!(told(Some(entry(active, own, true))), [wanted(true)]);
        assert_eq!(told(Some(entry(active, own, false))), [wanted(false)]);
        assert_eq!(told(Some(entry(active, Some(1), true))), [PoolNews::Silence]);
        assert_eq!(told(Some(entry(free, None, true))), [wanted(false)]);
        assert_eq!(told(Some(entry(free, None, false))), [wanted(false), PoolNews::Free]);
        let failed = LeaseState::Failed;
        assert_eq!(told(Some(entry(failed, None, false))), [wanted(false)]);
        let crypto = VfEntry { class: DeviceClass::Crypto, ..entry(free, None, false) };
        assert_eq!(told(Some(crypto)), [PoolNews::Silence]);
        assert_eq!(told(None), [PoolNews::Silence]);
    }
}
