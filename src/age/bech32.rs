//! Keys as words that tell a mistyped letter: Bech32 (BIP 173).

const LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM_LETTERS: usize = 6;

fn checksum(prefix: &str, values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    let high = prefix.bytes().map(|byte| byte >> 5);
    let low = prefix.bytes().map(|byte| byte & 31);
    let all = high.chain([0]).chain(low).chain(values);
    all.fold(1, |sum, value| {
        let top = sum >> 25;
        let shifted = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        GENERATOR
            .iter()
            .enumerate()
            .filter(|(bit, _)| top >> bit & 1 == 1)
            .fold(shifted, |sum, (_, generator)| sum ^ generator)
    })
}

/// `bytes` with the lower-case `prefix`.
pub fn write(prefix: &str, bytes: &[u8; 32]) -> String {
    let mut values = Vec::with_capacity(52);
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in bytes {
        buffer = buffer << 8 & 0xfff | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            values.push((buffer >> bits & 31) as u8);
        }
    }
    if bits > 0 {
        values.push((buffer << (5 - bits) & 31) as u8);
    }
    let sum = checksum(prefix, values.iter().copied().chain([0; CHECKSUM_LETTERS])) ^ 1;
    let sums = (0..CHECKSUM_LETTERS).map(|index| (sum >> (5 * (5 - index)) & 31) as u8);
    values.extend(sums);
    let letters = values
        .iter()
        .map(|value| char::from(LETTERS[usize::from(*value)]));
    format!("{prefix}1{}", letters.collect::<String>())
}

/// The 32 bytes of `text`, whose prefix is the lower-case `prefix`; in one case.
pub fn read(prefix: &str, text: &str) -> Option<[u8; 32]> {
    let is_mixed = text.bytes().any(|byte| byte.is_ascii_lowercase())
        && text.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_mixed || !text.is_ascii() {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let letters = text.strip_prefix(prefix)?.strip_prefix('1')?;
    let value = |letter: u8| LETTERS.iter().position(|known| *known == letter);
    let values: Vec<u8> = letters
        .bytes()
        .map(|letter| value(letter).map(|value| value as u8))
        .collect::<Option<_>>()?;
    if values.len() != 52 + CHECKSUM_LETTERS || checksum(prefix, values.iter().copied()) != 1 {
        return None;
    }
    let mut bytes = [0; 32];
    let mut filled = bytes.iter_mut();
    let (mut buffer, mut bits) = (0_u32, 0);
    for value in &values[..52] {
        buffer = buffer << 5 & 0xfff | u32::from(*value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            *filled.next()? = (buffer >> bits & 255) as u8;
        }
    }
    // What is left over says nothing.
    (buffer & ((1 << bits) - 1) == 0).then_some(bytes)
}
