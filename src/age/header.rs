//! The header: the key of the file, wrapped for each recipient.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
use zeroize::Zeroizing;

use super::key::shared;
use super::{Closed, Identity, Recipient, derive, random};

/// The first line.
pub const VERSION: &[u8] = b"age-encryption.org/v1\n";
const LABEL: &[u8] = b"age-encryption.org/v1/X25519";
const KIND: &str = "X25519";
const COLUMNS: usize = 64;
/// How many recipients are tried.
const MOST_RECIPIENTS: usize = 4096;

/// The header of a file with this key.
pub fn write(file_key: &[u8; 16], recipients: &[Recipient]) -> Result<Vec<u8>, &'static str> {
    let mut header = VERSION.to_vec();
    for recipient in recipients {
        let secret = Zeroizing::new(random()?);
        let share = x25519(*secret, X25519_BASEPOINT_BYTES);
        let shared = shared(*secret, recipient.0).ok_or("a recipient is no key")?;
        let mut body = file_key.to_vec();
        wrapping(&shared, &share, recipient)
            .seal_in_place_append_tag(zero_nonce(), Aad::empty(), &mut body)
            .map_err(|_| "it cannot be encrypted")?;
        let share = STANDARD_NO_PAD.encode(share);
        let body = STANDARD_NO_PAD.encode(body);
        header.extend_from_slice(format!("-> {KIND} {share}\n{body}\n").as_bytes());
    }
    header.extend_from_slice(b"---");
    let tag = hmac::sign(&authentication(file_key), &header);
    let tag = STANDARD_NO_PAD.encode(tag);
    header.extend_from_slice(format!(" {tag}\n").as_bytes());
    Ok(header)
}

/// The key of a file, and what follows its header.
pub fn read<'a>(
    sealed: &'a [u8],
    identity: &Identity,
) -> Result<(Zeroizing<[u8; 16]>, &'a [u8]), Closed> {
    let malformed = |why| Err(Closed::Malformed(why));
    let Some(mut rest) = sealed.strip_prefix(VERSION) else {
        return malformed("it is not in the format of age");
    };
    let mut found = None;
    let mut count = 0;
    while let Some(after) = rest.strip_prefix(b"-> ") {
        let Some((line, mut after)) = line(after) else {
            return malformed("its header has no end");
        };
        let words: Vec<&str> = line.split(' ').collect();
        let is_word =
            |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
        if !words.iter().all(is_word) {
            return malformed("its header has a line that cannot be read");
        }
        let mut body = String::new();
        loop {
            let Some((line, next)) = self::line(after) else {
                return malformed("its header has no end");
            };
            if line.len() > COLUMNS {
                return malformed("its header has a line that is too long");
            }
            body.push_str(line);
            after = next;
            if line.len() < COLUMNS {
                break;
            }
        }
        let Ok(body) = STANDARD_NO_PAD.decode(body) else {
            return malformed("its header has letters that are no base64");
        };
        rest = after;
        count += 1;
        if count > MOST_RECIPIENTS {
            return malformed("it is for too many recipients");
        }
        if let [KIND, share] = words[..]
            && found.is_none()
        {
            found = unwrap(share, body, identity).map_err(Closed::Malformed)?;
        }
    }
    let signed = sealed.len() - rest.len();
    let Some((line, payload)) = rest.strip_prefix(b"--- ").and_then(line) else {
        return malformed("its header has no end");
    };
    let file_key = found.ok_or(Closed::ForOthers)?;
    let tag = STANDARD_NO_PAD.decode(line);
    let signed = &sealed[..signed + b"---".len()];
    let is_whole =
        tag.is_ok_and(|tag| hmac::verify(&authentication(&file_key), signed, &tag).is_ok());
    match is_whole {
        true => Ok((file_key, payload)),
        false => malformed("its header was changed"),
    }
}

/// The first line of `bytes` without its end, and what follows.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&bytes[..end]).ok()?;
    Some((line, &bytes[end + 1..]))
}

/// The key of the file, where it is wrapped for `identity`.
fn unwrap(
    share: &str,
    mut body: Vec<u8>,
    identity: &Identity,
) -> Result<Option<Zeroizing<[u8; 16]>>, &'static str> {
    let share = STANDARD_NO_PAD.decode(share).ok();
    let share: Option<[u8; 32]> = share.and_then(|share| share.try_into().ok());
    let share = share.ok_or("its header has a share of another length")?;
    if body.len() != 32 {
        return Err("its header has a key of another length");
    }
    let shared = identity
        .agree(share)
        .ok_or("its header has a share that is no key")?;
    let key = wrapping(&shared, &share, &identity.recipient());
    let opened = key.open_in_place(zero_nonce(), Aad::empty(), &mut body);
    Ok(opened.ok().map(|opened| {
        let key: &[u8; 16] = (&*opened).try_into().expect("32 bytes less a tag of 16");
        Zeroizing::new(*key)
    }))
}

fn wrapping(shared: &[u8; 32], share: &[u8; 32], recipient: &Recipient) -> LessSafeKey {
    let salt = [*share, recipient.0].concat();
    cipher(&derive(&salt, shared, LABEL))
}

fn authentication(file_key: &[u8; 16]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*derive(&[], file_key, b"header"))
}

pub(super) fn cipher(key: &[u8; 32]) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key has 32 bytes");
    LessSafeKey::new(key)
}

/// Each of these keys encrypts once.
fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
