//! The checksum that ends an OpenPGP armor (RFC 9580, 6.1): it tells a damaged copy, and nothing about who made it.

/// CRC-24 of `bytes`, in three bytes.
pub fn crc24(bytes: &[u8]) -> [u8; 3] {
    let mut crc = 0x00B7_04CE_u32;
    for byte in bytes {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0186_4CFB;
            }
        }
    }
    let [_, high, middle, low] = crc.to_be_bytes();
    [high, middle, low]
}
