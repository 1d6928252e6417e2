//! The checksum of POSIX `cksum`, which every guest with busybox can compute.

/// CRC-32 with polynomial 0x04c11db7, the length appended (POSIX.1-2017, cksum).
pub(super) fn cksum(bytes: &[u8]) -> u32 {
    let mut length = bytes.len();
    let tail = std::iter::from_fn(|| {
        (length > 0).then(|| {
            let byte = (length & 0xff) as u8;
            length >>= 8;
            byte
        })
    });
    !bytes.iter().copied().chain(tail).fold(0, step)
}

fn step(crc: u32, byte: u8) -> u32 {
    (0..8).fold(crc ^ (u32::from(byte) << 24), |crc, _| {
        if crc & 0x8000_0000 == 0 { crc << 1 } else { (crc << 1) ^ 0x04c1_1db7 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_standard_tool() {
        // From cksum(1) of GNU coreutils.
        assert_eq!(cksum(b""), 4_294_967_295);
        assert_eq!(cksum(b"123456789"), 930_766_865);
        assert_eq!(cksum(b"hello\n"), 3_015_617_425);
    }
}
