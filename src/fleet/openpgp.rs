//! OpenPGP certificates: the keys that package repositories are signed with, armored or binary (RFC 9580).
//!
//! A *certificate* is what people call a public key: the key itself, its names, its subkeys, and the signatures that bind them. What is
//! signed with it the package manager verifies; here it is only made sure that a file holds certificates and nothing else, and which.
//!
//! Invariant: pure, and any bytes yield certificates or a reason. Nothing secret passes: a private key is refused whatever it claims to be.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use crate::checksum::crc24;

/// Whole distributions sign with less.
pub(super) const MAX_BYTES: usize = 1 << 20;

const BEGIN: &str = "-----BEGIN PGP ";
const END: &str = "-----END PGP ";

/// What a key file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificates {
    /// The certificates without armor, one after the other, and nothing else.
    pub binary: Vec<u8>,
    /// The fingerprint of each, in hex: 40 digits of a version 4 key, 64 of a version 6 key.
    pub fingerprints: Vec<String>,
}

impl Certificates {
    /// The certificates as text, which is all that rpm reads.
    pub(super) fn armored(&self) -> String {
        const LINE: usize = 64;
        let mut text = format!("{BEGIN}PUBLIC KEY BLOCK-----\n\n");
        let body = STANDARD.encode(&self.binary);
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, behind) = rest.split_at(rest.len().min(LINE));
            text.push_str(line);
            text.push('\n');
            rest = behind;
        }
        let checksum = STANDARD.encode(crc24(&self.binary));
        text.push_str(&format!("={checksum}\n{END}PUBLIC KEY BLOCK-----\n"));
        text
    }
}

/// Why a file holds no certificates, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoCertificate {
    /// What it is instead, as the end of "it …".
    pub reason: String,
    /// What to do.
    pub hint: &'static str,
}

impl fmt::Display for NoCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

const EXPORT: &str = "write what 'gpg --export --armor KEY' prints";

fn no(reason: impl Into<String>) -> NoCertificate {
    NoCertificate {
        reason: reason.into(),
        hint: EXPORT,
    }
}

fn private() -> NoCertificate {
    NoCertificate {
        reason: "holds a private key".to_owned(),
        hint: "it is no secret any more once it is pushed: revoke it, take it out of the history, and write the public key of another",
    }
}

/// The certificates in `bytes`.
pub(super) fn parse_certificates(bytes: &[u8]) -> Result<Certificates, NoCertificate> {
    if bytes.len() > MAX_BYTES {
        return Err(no(format!("has more than {MAX_BYTES} bytes")));
    }
    if bytes.get(8..12) == Some(b"KBXf") {
        return Err(no(
            "is a keybox of GnuPG, which package managers cannot read",
        ));
    }
    // Every packet begins with a byte that is no text.
    let packets = match bytes.first() {
        None => return Err(no("is empty")),
        Some(first) if first & 0x80 != 0 => bytes.to_vec(),
        Some(_) => without_armor(bytes)?,
    };
    read_packets(&packets)
}

/// The packets in all the armored blocks of a text.
fn without_armor(bytes: &[u8]) -> Result<Vec<u8>, NoCertificate> {
    let text = std::str::from_utf8(bytes).map_err(|_| no("is neither text nor OpenPGP"))?;
    let mut packets = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    let mut is_found = false;
    while let Some(line) = lines.next() {
        let Some(label) = label(line, BEGIN) else {
            continue;
        };
        match label {
            "PUBLIC KEY BLOCK" => is_found = true,
            "PRIVATE KEY BLOCK" | "SECRET KEY BLOCK" => return Err(private()),
            other => {
                return Err(no(format!(
                    "holds a PGP {} and not a public key",
                    other.to_lowercase()
                )));
            }
        }
        // Headers, such as "Comment:", end with an empty line.
        if !lines.by_ref().any(|line| line.trim().is_empty()) {
            return Err(no("ends within its armor"));
        }
        let mut body = String::new();
        let mut checksum = None;
        let is_ended = lines.by_ref().any(|line| {
            if self::label(line, END) == Some(label) {
                return true;
            }
            match line.strip_prefix('=') {
                Some(sum) => checksum = Some(sum.to_owned()),
                None => body.push_str(line.trim()),
            }
            false
        });
        let block = STANDARD
            .decode(&body)
            .map_err(|_| no("has an armor with other characters than base64 in it"))?;
        if !is_ended {
            return Err(no("ends within its armor"));
        }
        if let Some(checksum) = checksum
            && STANDARD.decode(checksum).ok().as_deref() != Some(&crc24(&block))
        {
            return Err(no("has an armor whose checksum is wrong"));
        }
        packets.extend(block);
    }
    if is_found {
        Ok(packets)
    } else {
        Err(no("holds no OpenPGP key"))
    }
}

/// `PUBLIC KEY BLOCK`.
fn label<'a>(line: &'a str, beginning: &str) -> Option<&'a str> {
    line.strip_prefix(beginning)?.strip_suffix("-----")
}

/// Takes the packets apart, and keeps those that are part of a certificate.
fn read_packets(mut rest: &[u8]) -> Result<Certificates, NoCertificate> {
    let mut found = Certificates {
        binary: Vec::new(),
        fingerprints: Vec::new(),
    };
    // Is the last certificate bound by a signature.
    let mut is_bound = true;
    while !rest.is_empty() {
        let Packet { tag, body, whole } =
            next_packet(rest).ok_or_else(|| no("holds something that is no OpenPGP packet"))?;
        rest = &rest[whole.len()..];
        match tag {
            5 | 7 => return Err(private()),
            6 => {
                if !is_bound {
                    return Err(no("holds a key without any signature on it"));
                }
                found.fingerprints.push(fingerprint(body)?);
                is_bound = false;
            }
            // A keyring's own notes of whom it trusts, markers and padding say nothing.
            10 | 12 | 21 => continue,
            _ if found.fingerprints.is_empty() => {
                return Err(no(
                    "holds OpenPGP data, but does not begin with a public key",
                ));
            }
            2 => is_bound = true,
            14 => {
                fingerprint(body)?;
            }
            13 | 17 => {}
            _ => return Err(no("holds other OpenPGP data beside public keys")),
        }
        found.binary.extend_from_slice(whole);
    }
    match (found.fingerprints.is_empty(), is_bound) {
        (true, _) => Err(no("holds no OpenPGP key")),
        (false, false) => Err(no("holds a key without any signature on it")),
        (false, true) => Ok(found),
    }
}

struct Packet<'a> {
    tag: u8,
    body: &'a [u8],
    whole: &'a [u8],
}

/// The packet that `bytes` begin with. Lengths that are told in parts, or not at all, are for messages.
fn next_packet(bytes: &[u8]) -> Option<Packet<'_>> {
    let first = *bytes.first().filter(|first| *first & 0x80 != 0)?;
    let number = |at: usize, count: usize| {
        let digits = bytes.get(at..at + count)?.iter();
        Some(digits.fold(0_usize, |number, byte| number << 8 | usize::from(*byte)))
    };
    let (tag, start, length) = if first & 0x40 != 0 {
        let (start, length) = match number(1, 1)? {
            length @ 0..192 => (2, length),
            high @ 192..224 => (3, ((high - 192) << 8) + number(2, 1)? + 192),
            255 => (6, number(2, 4)?),
            _ => return None,
        };
        (first & 0x3f, start, length)
    } else {
        let digits = match first & 0x03 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => return None,
        };
        ((first >> 2) & 0x0f, 1 + digits, number(1, digits)?)
    };
    let end = start.checked_add(length)?;
    Some(Packet {
        tag,
        body: bytes.get(start..end)?,
        whole: bytes.get(..end)?,
    })
}

/// The fingerprint of the key in `body`.
fn fingerprint(body: &[u8]) -> Result<String, NoCertificate> {
    let version = body.first().copied().unwrap_or_default();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let (hash, prefix): (_, &[u8]) = match (version, length) {
        (4, [0, 0, high, low]) => (&SHA1_FOR_LEGACY_USE_ONLY, &[0x99, high, low]),
        (6, [a, b, c, d]) => (&SHA256, &[0x9B, a, b, c, d]),
        (version, _) => {
            return Err(no(format!(
                "holds a key of version {version}, where package managers know 4 and 6"
            )));
        }
    };
    // Version, four bytes of time, an algorithm, and at least something of the key.
    if body.len() < 7 {
        return Err(no("holds a key that is cut off"));
    }
    let hash = digest(hash, &[prefix, body].concat());
    let digits = hash.as_ref().iter().map(|byte| format!("{byte:02X}"));
    Ok(digits.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ED25519: &[u8] = include_bytes!("fixtures/ed25519.asc");
    const ED25519_BINARY: &[u8] = include_bytes!("fixtures/ed25519.gpg");
    const RSA: &[u8] = include_bytes!("fixtures/rsa-with-subkey.asc");
    const VERSION_6: &[u8] = include_bytes!("fixtures/version-6.asc");
    const SIGNATURE: &[u8] = include_bytes!("fixtures/signature.asc");

    #[track_caller]
    fn check(bytes: &[u8], expected: &[&str]) {
        let found = parse_certificates(bytes).unwrap();
        assert_eq!(found.fingerprints, expected);
    }

    #[track_caller]
    fn refusal(bytes: impl AsRef<[u8]>) -> String {
        parse_certificates(bytes.as_ref()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_armored_is_read_again() {
        for bytes in [ED25519, RSA, VERSION_6] {
            let found = parse_certificates(bytes).unwrap();
            let armored = found.armored();
            assert!(armored.lines().all(|line| line.len() <= 64), "{armored}");
            assert_eq!(parse_certificates(armored.as_bytes()), Ok(found));
        }
    }

    const A: &str = "5CEF75DEEA6D4906D2F95D288F960B9E3C1853ED";
    const B: &str = "6AC329051CF298B87288612279828F66A7B6482E";

    #[test]
    fn a_certificate_has_the_fingerprint_that_gnupg_and_the_standard_say() {
        check(ED25519, &[A]);
        check(ED25519_BINARY, &[A]);
        check(RSA, &[B]);
        let version_6 = "CB186C4F0609A697E4D52DFA6C722B0C1F1E27C18A56708F6525EC27BAD9ACC9";
        check(VERSION_6, &[version_6]);
    }

    #[test]
    fn several_certificates_in_one_file_are_all_kept() {
        let both = [ED25519, b"\nand another\n", RSA].concat();
        check(&both, &[A, B]);
        let found = parse_certificates(&both).unwrap();
        assert!(found.binary.starts_with(ED25519_BINARY));
        check(&found.binary, &[A, B]);
        let windows = String::from_utf8(both).unwrap().replace('\n', "\r\n");
        check(windows.as_bytes(), &[A, B]);
    }

    #[test]
    fn the_armor_may_be_gone_and_the_certificate_stays_the_same() {
        let found = parse_certificates(ED25519).unwrap();
        assert_eq!(found.binary, ED25519_BINARY);
    }

    #[test]
    fn a_private_key_is_refused_in_any_dress() {
        assert_eq!(ED25519_BINARY[0], 0x98, "a public key of the old format");
        let secret = [&[0x94], &ED25519_BINARY[1..]].concat();
        assert_eq!(refusal(&secret), "holds a private key");
        let after_a_public_one = [ED25519_BINARY, &secret].concat();
        assert_eq!(refusal(&after_a_public_one), "holds a private key");
        let armored = String::from_utf8(ED25519.to_vec()).unwrap();
        let private = armored.replace("PUBLIC", "PRIVATE");
        assert_eq!(refusal(&private), "holds a private key");
        let dressed = format!(
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{}\n-----END PGP PUBLIC KEY BLOCK-----\n",
            STANDARD.encode(&secret)
        );
        assert_eq!(refusal(dressed), "holds a private key");
    }

    #[test]
    fn what_is_no_certificate_is_refused_with_what_it_is() {
        let told = [
            refusal(""),
            refusal("ssh-ed25519 AAAA a@b\n"),
            refusal(b"\x00\x01\xff"),
            refusal(SIGNATURE),
            refusal(&ED25519[..ED25519.len() / 2]),
            refusal(&ED25519_BINARY[..100]),
            refusal(&ED25519_BINARY[..53]),
            refusal([ED25519_BINARY, b"\xcb\x01a"].concat()),
            refusal([ED25519_BINARY, b"\n"].concat()),
            refusal([&[0x98, 51, 3], &ED25519_BINARY[3..53]].concat()),
            refusal([b"\x00\x00\x00\x20\x01\x01\x00\x02KBXf", &[0; 20][..]].concat()),
            refusal(String::from_utf8_lossy(ED25519).replace("u1Vc", "u1Vd")),
            refusal(vec![0x98; MAX_BYTES + 1]),
        ];
        insta::assert_snapshot!(told.join("\n"), @r#"
        is empty
        holds no OpenPGP key
        is neither text nor OpenPGP
        holds a PGP signature and not a public key
        ends within its armor
        holds something that is no OpenPGP packet
        holds a key without any signature on it
        holds other OpenPGP data beside public keys
        holds something that is no OpenPGP packet
        holds a key of version 3, where package managers know 4 and 6
        is a keybox of GnuPG, which package managers cannot read
        has an armor whose checksum is wrong
        has more than 1048576 bytes
        "#);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_none_that_pass_are_secret(
            cut in 0usize..229,
            flips in proptest::collection::vec((0usize..229, any::<u8>()), 0..6),
            tail in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = ED25519_BINARY[cut..].to_vec();
            for (at, byte) in flips {
                let length = bytes.len();
                if length > 0 {
                    bytes[at % length] = byte;
                }
            }
            bytes.extend(tail);
            if let Ok(found) = parse_certificates(&bytes) {
                prop_assert!(!found.fingerprints.is_empty());
                let again = parse_certificates(&found.binary);
                prop_assert_eq!(again.as_ref(), Ok(&found));
                let mut rest = &found.binary[..];
                while let Some(packet) = next_packet(rest) {
                    prop_assert!(![5, 7].contains(&packet.tag));
                    rest = &rest[packet.whole.len()..];
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "(-----(BEGIN|END) PGP (PUBLIC|PRIVATE) KEY BLOCK-----\n|\n|[A-Za-z0-9+/=]{0,12}\n|Comment: \\PC{0,5}\n){0,12}") {
            let _ = parse_certificates(text.as_bytes());
        }
    }
}
