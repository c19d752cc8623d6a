//! The payload: chunks that can be neither changed nor exchanged nor cut off.

use ring::aead::{Aad, Nonce};
use zeroize::Zeroizing;

use super::header::cipher;
use super::{MAX_BYTES, derive};

const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
const NONCE: usize = 16;

fn nonce(counter: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&counter.to_be_bytes());
    nonce[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(nonce)
}

/// Appends `plain`, encrypted with the key of the file.
pub fn write(
    file_key: &[u8; 16],
    salt: [u8; NONCE],
    plain: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    out.extend_from_slice(&salt);
    let key = cipher(&derive(&salt, file_key, b"payload"));
    let count = plain.len().div_ceil(CHUNK).max(1);
    for index in 0..count {
        let mut chunk = plain.chunks(CHUNK).nth(index).unwrap_or_default().to_vec();
        let nonce = nonce(index as u64, index + 1 == count);
        key.seal_in_place_append_tag(nonce, Aad::empty(), &mut chunk)
            .map_err(|_| "it cannot be encrypted")?;
        out.extend_from_slice(&chunk);
    }
    Ok(())
}

/// What was encrypted.
pub fn read(file_key: &[u8; 16], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let (salt, sealed) = sealed.split_at_checked(NONCE).ok_or("it is cut off")?;
    if sealed.len() > MAX_BYTES + MAX_BYTES / CHUNK * TAG + TAG {
        return Err("it has more than 1 MiB");
    }
    let key = cipher(&derive(salt, file_key, b"payload"));
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
    let count = sealed.len().div_ceil(CHUNK + TAG).max(1);
    for index in 0..count {
        let chunk = sealed.chunks(CHUNK + TAG).nth(index).unwrap_or_default();
        let mut chunk = Zeroizing::new(chunk.to_vec());
        let nonce = nonce(index as u64, index + 1 == count);
        let opened = key
            .open_in_place(nonce, Aad::empty(), &mut chunk)
            .map_err(|_| "it is damaged or cut off")?;
        if opened.is_empty() && index > 0 {
            return Err("its last part is empty");
        }
        plain.extend_from_slice(opened);
    }
    Ok(plain)
}
