//! KVM's own statistics of a vCPU, read from its binary statistics file (KVM_GET_STATS_FD,
//! Linux 5.14; Documentation/virt/kvm/api.rst 4.133). Costs the guest nothing.
#![allow(unsafe_code)] // One ioctl that kvm-ioctls does not wrap.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl;

vmm_sys_util::ioctl_io_nr!(KVM_GET_STATS_FD, 0xae, 0xce);

/// The statistic "exits" of one vCPU.
pub(super) struct ExitStat {
    file: File,
    offset: u64,
}

impl ExitStat {
    /// Finds the statistic.
    ///
    /// # Errors
    /// ENOTTY when the kernel has no statistics files, ENOENT when it does not count exits.
    pub(super) fn of(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: the ioctl takes no argument and returns a new descriptor or an error.
        let fd = unsafe { ioctl(&vcpu.as_raw_fd(), KVM_GET_STATS_FD()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just created and has no other owner.
        let file = unsafe { File::from_raw_fd(fd) };
        let offset = find(&file, b"exits")?;
        Ok(Self { file, offset })
    }

    /// Exits so far, all reasons.
    pub(super) fn read(&self) -> io::Result<u64> {
        let mut value = [0; 8];
        self.file.read_exact_at(&mut value, self.offset)?;
        Ok(u64::from_ne_bytes(value))
    }
}

/// struct kvm_stats_header: flags, name_size, num_desc, id_offset, desc_offset, data_offset.
const HEADER: usize = 24;
/// struct kvm_stats_desc without the name: flags, exponent and size, offset, bucket_size.
const DESCRIPTOR: usize = 16;

/// Where the value of the statistic called `name` is in the file.
fn find(file: &File, name: &[u8]) -> io::Result<u64> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    let (name_size, count) = (word(&header, 4) as usize, word(&header, 8) as usize);
    let (descriptors, data) = (u64::from(word(&header, 16)), u64::from(word(&header, 20)));
    let size = DESCRIPTOR + name_size;
    let mut all = vec![0; size * count];
    file.read_exact_at(&mut all, descriptors)?;
    all.chunks_exact(size)
        .find(|descriptor| descriptor[DESCRIPTOR..].split(|byte| *byte == 0).next() == Some(name))
        .map(|descriptor| data + u64::from(word(descriptor, 8)))
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn descriptor(name: &str, offset: u32) -> Vec<u8> {
        let mut bytes = vec![0; DESCRIPTOR + 16];
        bytes[8..12].copy_from_slice(&offset.to_ne_bytes());
        bytes[DESCRIPTOR..DESCRIPTOR + name.len()].copy_from_slice(name.as_bytes());
        bytes
    }

    #[test]
    fn finds_a_statistic_by_its_whole_name() {
        let mut file = tempfile::tempfile().unwrap();
        for field in [0_u32, 16, 3, 24, 32, 128] {
            file.write_all(&field.to_ne_bytes()).unwrap();
        }
        file.write_all(&[0; 8]).unwrap();
        for (name, offset) in [("io_exits", 0), ("exits", 8), ("exits_x", 16)] {
            file.write_all(&descriptor(name, offset)).unwrap();
        }
        assert_eq!(find(&file, b"exits").unwrap(), 136);
        assert!(find(&file, b"halts").is_err());
    }
}
