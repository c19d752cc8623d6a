//! Public keys: what counts as one, what is too weak, and whether a signature is theirs.
//!
//! Ed25519 and its security-key form, ECDSA P-256 and P-384, RSA of at least 3072 bits, and OpenPGP certificates. A *weak* key parses, so that it can be
//! named, but no signature of it holds.
//!
//! Invariant: the mathematics is ring's, for OpenPGP sequoia's; nothing here compares or computes with secret values, for there are none.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, EcdsaVerificationAlgorithm,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents,
    UnparsedPublicKey,
};

use super::fleet_policy::Reason;
use super::openpgp::Certificate;
use super::wire::{Malformed, Reader};
use crate::config;

const ED25519_NAME: &str = "ssh-ed25519";
const SK_ED25519_NAME: &str = "sk-ssh-ed25519@openssh.com";
const P256_NAME: &str = "ecdsa-sha2-nistp256";
const P384_NAME: &str = "ecdsa-sha2-nistp384";
const RSA_NAME: &str = "ssh-rsa";
const DSA_NAME: &str = "ssh-dss";
const OPENPGP_NAME: &str = "openpgp";

/// The types of key that an allowed signers file may hold.
pub(super) const SUPPORTED: &str = "ssh-ed25519, sk-ssh-ed25519@openssh.com, ecdsa-sha2-nistp256, ecdsa-sha2-nistp384, ssh-rsa, openpgp";

/// The smallest RSA modulus that is not weak, in bits.
const MIN_RSA_BITS: usize = 3072;
/// The largest one ring takes, in bits.
const MAX_RSA_BITS: usize = 8192;
/// The flag by which a security key says that somebody touched it.
const USER_PRESENT: u8 = 0x01;

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// As SSH encodes it, or the packet of an OpenPGP certificate's primary key; two keys are the same when these are.
    blob: Vec<u8>,
    material: Material,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Ed25519(Vec<u8>),
    SecurityKeyEd25519 {
        point: Vec<u8>,
        application: Vec<u8>,
    },
    EcdsaP256(Vec<u8>),
    EcdsaP384(Vec<u8>),
    Rsa {
        exponent: Vec<u8>,
        modulus: Vec<u8>,
    },
    Dsa,
    OpenPgp(Certificate),
}

/// Why bytes are no key that can be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// Not what the key's type says.
    Malformed(&'static str),
    /// A type this program does not verify: certificates, P-521, …
    Unsupported(String),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Malformed(cause) => write!(f, "the key is malformed: {cause}"),
            KeyError::Unsupported(name) => {
                write!(f, "unknown key type '{name}', expected one of {SUPPORTED}")
            }
        }
    }
}

impl std::error::Error for KeyError {}

impl From<Malformed> for KeyError {
    fn from(Malformed(cause): Malformed) -> Self {
        KeyError::Malformed(cause)
    }
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureError {
    /// Not the encoding its algorithm has.
    Malformed(&'static str),
    /// An algorithm nobody should use any more.
    Weak(&'static str),
    /// Not by this key, or not over this message.
    Bad,
    /// By a security key that nobody touched.
    NoUserPresence,
}

impl From<Malformed> for SignatureError {
    fn from(Malformed(cause): Malformed) -> Self {
        SignatureError::Malformed(cause)
    }
}

impl PublicKey {
    /// Reads the key that SSH encodes as `blob`.
    pub fn parse(blob: &[u8]) -> Result<Self, KeyError> {
        let mut reader = Reader::new(blob);
        let name = reader.string()?;
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or(KeyError::Malformed("it names no type"))?;
        let material = match name {
            ED25519_NAME => Material::Ed25519(point(reader.string()?, 32)?),
            SK_ED25519_NAME => {
                let point = point(reader.string()?, 32)?;
                let application = reader.string()?.to_owned();
                if application != b"ssh:" && !application.starts_with(b"ssh:") {
                    return Err(KeyError::Malformed(
                        "its application does not start with 'ssh:'",
                    ));
                }
                Material::SecurityKeyEd25519 { point, application }
            }
            P256_NAME => Material::EcdsaP256(curve_point(&mut reader, b"nistp256", 65)?),
            P384_NAME => Material::EcdsaP384(curve_point(&mut reader, b"nistp384", 97)?),
            RSA_NAME => {
                let exponent = reader.positive()?.to_owned();
                let modulus = reader.positive()?.to_owned();
                Material::Rsa { exponent, modulus }
            }
            DSA_NAME => {
                for _ in 0..4 {
                    reader.positive()?;
                }
                Material::Dsa
            }
            other => return Err(KeyError::Unsupported(other.to_owned())),
        };
        reader.finish()?;
        Ok(PublicKey {
            blob: blob.to_owned(),
            material,
        })
    }

    /// Reads a key as people write it: its type and its base64.
    pub(super) fn parse_text(name: &str, base64: &str) -> Result<Self, KeyError> {
        if !is_type_name(name) {
            return Err(KeyError::Unsupported(name.to_owned()));
        }
        let blob = STANDARD
            .decode(base64)
            .map_err(|_| KeyError::Malformed("it is not base64"))?;
        if name == OPENPGP_NAME {
            let certificate = Certificate::parse(&blob).map_err(KeyError::Malformed)?;
            return Ok(PublicKey {
                blob: certificate.primary(),
                material: Material::OpenPgp(certificate),
            });
        }
        let key = PublicKey::parse(&blob)?;
        if key.type_name() != name {
            return Err(KeyError::Malformed(
                "it is of another type than its line says",
            ));
        }
        Ok(key)
    }

    /// The key's type, as SSH names it, or `openpgp`.
    pub fn type_name(&self) -> &'static str {
        match self.material {
            Material::Ed25519(_) => ED25519_NAME,
            Material::SecurityKeyEd25519 { .. } => SK_ED25519_NAME,
            Material::EcdsaP256(_) => P256_NAME,
            Material::EcdsaP384(_) => P384_NAME,
            Material::Rsa { .. } => RSA_NAME,
            Material::Dsa => DSA_NAME,
            Material::OpenPgp(_) => OPENPGP_NAME,
        }
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it; of OpenPGP `openpgp:…`, as gpg does.
    pub fn fingerprint(&self) -> String {
        match &self.material {
            Material::OpenPgp(certificate) => certificate.fingerprint(),
            _ => fingerprint(&self.blob),
        }
    }

    /// The OpenPGP certificate, if it is one.
    pub(super) fn certificate(&self) -> Option<&Certificate> {
        match &self.material {
            Material::OpenPgp(certificate) => Some(certificate),
            _ => None,
        }
    }

    /// Could it sign at `now`, as far as it says so itself.
    pub(super) fn can_sign(&self, now: Timestamp) -> bool {
        self.certificate()
            .is_none_or(|certificate| certificate.can_sign(now))
    }

    /// Why the key says itself that it no longer counts, if it does: only OpenPGP has a way to say so.
    pub(super) fn revocation(&self) -> Option<Reason> {
        self.certificate().and_then(Certificate::revocation)
    }

    /// Why no signature of this key may count, if so.
    pub(super) fn weakness(&self) -> Option<String> {
        match &self.material {
            Material::Ed25519(point) | Material::SecurityKeyEd25519 { point, .. } => {
                has_small_order(point).then(|| "has small order, so anybody can sign for it".into())
            }
            Material::Rsa { modulus, .. } => {
                let bits = bit_length(modulus);
                if bits < MIN_RSA_BITS {
                    Some(format!(
                        "is RSA with {bits} bits, at least {MIN_RSA_BITS} are needed"
                    ))
                } else if bits > MAX_RSA_BITS {
                    Some(format!(
                        "is RSA with {bits} bits, at most {MAX_RSA_BITS} are read"
                    ))
                } else {
                    None
                }
            }
            Material::Dsa => Some("is DSA".into()),
            Material::EcdsaP256(_) | Material::EcdsaP384(_) => None,
            Material::OpenPgp(certificate) => certificate.weakness(),
        }
    }

    /// Does `signature` (as SSH encodes it: algorithm, bytes, and what security keys add) by this key hold over `message`?
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let mut reader = Reader::new(signature);
        let algorithm = reader.string()?;
        let raw = reader.string()?;
        let flags_and_counter = match self.material {
            Material::SecurityKeyEd25519 { .. } => Some((reader.byte()?, reader.number()?)),
            _ => None,
        };
        reader.finish()?;
        match (&self.material, algorithm) {
            (Material::Rsa { .. } | Material::Dsa, b"ssh-rsa" | b"ssh-dss") => {
                return Err(SignatureError::Weak("uses SHA-1"));
            }
            (Material::Rsa { .. }, b"rsa-sha2-256" | b"rsa-sha2-512") => {}
            (Material::Rsa { .. } | Material::Dsa, _) => return Err(OTHER_ALGORITHM),
            (_, name) if name == self.type_name().as_bytes() => {}
            _ => return Err(OTHER_ALGORITHM),
        }
        let holds = match &self.material {
            Material::Ed25519(point) => {
                has_length(raw, 64)?;
                UnparsedPublicKey::new(&ED25519, point).verify(message, raw)
            }
            Material::SecurityKeyEd25519 { point, application } => {
                has_length(raw, 64)?;
                let (flags, counter) = flags_and_counter.ok_or(OTHER_ALGORITHM)?;
                // https://cvsweb.openbsd.org/src/usr.bin/ssh/PROTOCOL.u2f, "SSH U2F signatures"
                let mut signed = digest(&SHA256, application).as_ref().to_owned();
                signed.push(flags);
                signed.extend_from_slice(&counter.to_be_bytes());
                signed.extend_from_slice(digest(&SHA256, message).as_ref());
                let holds = UnparsedPublicKey::new(&ED25519, point).verify(&signed, raw);
                if holds.is_ok() && flags & USER_PRESENT == 0 {
                    return Err(SignatureError::NoUserPresence);
                }
                holds
            }
            Material::EcdsaP256(point) => {
                return verify_ecdsa(&ECDSA_P256_SHA256_FIXED, 32, point, message, raw);
            }
            Material::EcdsaP384(point) => {
                return verify_ecdsa(&ECDSA_P384_SHA384_FIXED, 48, point, message, raw);
            }
            Material::Rsa { exponent, modulus } => {
                has_length(raw, modulus.len())?;
                let parameters = match algorithm {
                    b"rsa-sha2-256" => &RSA_PKCS1_2048_8192_SHA256,
                    _ => &RSA_PKCS1_2048_8192_SHA512,
                };
                let key = RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                };
                key.verify(parameters, message, raw)
            }
            Material::Dsa => return Err(SignatureError::Weak("is DSA")),
            Material::OpenPgp(_) => return Err(OTHER_ALGORITHM),
        };
        holds.map_err(|_| SignatureError::Bad)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.type_name(), self.fingerprint())
    }
}

const OTHER_ALGORITHM: SignatureError =
    SignatureError::Malformed("its algorithm does not fit the key");

/// Is `name` a type of key that a line may start with?
pub(super) fn is_type_name(name: &str) -> bool {
    [
        ED25519_NAME,
        SK_ED25519_NAME,
        P256_NAME,
        P384_NAME,
        RSA_NAME,
        DSA_NAME,
        OPENPGP_NAME,
    ]
    .contains(&name)
}

/// Is `text` a fingerprint that a key can have.
pub(super) fn is_fingerprint(text: &str) -> bool {
    config::is_fingerprint(text)
        && text
            .strip_prefix("SHA256:")
            .is_none_or(|base64| STANDARD_NO_PAD.decode(base64).is_ok())
}

/// `SHA256:…` of the key that SSH encodes as `blob`.
pub(super) fn fingerprint(blob: &[u8]) -> String {
    let hash = digest(&SHA256, blob);
    format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
}

fn point(bytes: &[u8], length: usize) -> Result<Vec<u8>, KeyError> {
    if bytes.len() == length {
        Ok(bytes.to_owned())
    } else {
        Err(KeyError::Malformed("its point has the wrong length"))
    }
}

fn curve_point(reader: &mut Reader<'_>, curve: &[u8], length: usize) -> Result<Vec<u8>, KeyError> {
    if reader.string()? != curve {
        return Err(KeyError::Malformed("it names another curve than its type"));
    }
    let bytes = point(reader.string()?, length)?;
    if bytes[0] != 0x04 {
        return Err(KeyError::Malformed("its point is not uncompressed"));
    }
    Ok(bytes)
}

fn has_length(raw: &[u8], length: usize) -> Result<(), SignatureError> {
    if raw.len() == length {
        Ok(())
    } else {
        Err(SignatureError::Malformed("it has the wrong length"))
    }
}

fn verify_ecdsa(
    algorithm: &'static EcdsaVerificationAlgorithm,
    width: usize,
    point: &[u8],
    message: &[u8],
    raw: &[u8],
) -> Result<(), SignatureError> {
    let mut reader = Reader::new(raw);
    let (r, s) = (reader.positive()?, reader.positive()?);
    reader.finish()?;
    if r.len() > width || s.len() > width {
        return Err(SignatureError::Malformed("its numbers are too large"));
    }
    let mut fixed = vec![0; 2 * width];
    fixed[width - r.len()..width].copy_from_slice(r);
    fixed[2 * width - s.len()..].copy_from_slice(s);
    UnparsedPublicKey::new(algorithm, point)
        .verify(message, &fixed)
        .map_err(|_| SignatureError::Bad)
}

fn bit_length(number: &[u8]) -> usize {
    match number {
        [] => 0,
        [first, ..] => number.len() * 8 - first.leading_zeros() as usize,
    }
}

/// The points of Curve25519 whose order divides 8, as they are encoded; the sign bit is not compared. For such a key there are
/// signatures that hold over any message, and ring does not look (neither does OpenSSH). The list is libsodium's
/// (`ge25519_has_small_order`), with the encodings that are not canonical.
pub(super) fn has_small_order(point: &[u8]) -> bool {
    const ORDER_8: [u8; 32] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ];
    const OTHER_ORDER_8: [u8; 32] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ];
    let mut encoded = [0; 32];
    if point.len() != encoded.len() {
        return false;
    }
    encoded.copy_from_slice(point);
    encoded[31] &= 0x7f;
    let (first, rest) = (encoded[0], &encoded[1..31]);
    let is_zero_or_one = first <= 1 && rest.iter().all(|&byte| byte == 0) && encoded[31] == 0;
    // p - 1, p and p + 1, where p = 2^255 - 19
    let is_around_p = (0xec..=0xee).contains(&first)
        && rest.iter().all(|&byte| byte == 0xff)
        && encoded[31] == 0x7f;
    is_zero_or_one || is_around_p || encoded == ORDER_8 || encoded == OTHER_ORDER_8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::super::fixture::Key;
    use super::super::wire::put_string;
    use super::*;

    fn strings(parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in parts {
            put_string(&mut out, part);
        }
        out
    }

    /// A big number as SSH writes it.
    fn positive(bytes: &[u8]) -> Vec<u8> {
        let first = bytes.iter().position(|&byte| byte != 0).unwrap();
        let mut number = bytes[first..].to_vec();
        if number[0] & 0x80 != 0 {
            number.insert(0, 0);
        }
        number
    }

    #[test]
    fn a_security_key_must_have_been_touched() {
        let key = Key::new(1);
        let blob = strings(&[SK_ED25519_NAME.as_bytes(), key.point(), b"ssh:"]);
        let public = PublicKey::parse(&blob).unwrap();
        let sign = |flags: u8, claimed: u8| {
            let mut signed = digest(&SHA256, b"ssh:").as_ref().to_owned();
            signed.extend([flags, 0, 0, 0, 7]);
            signed.extend_from_slice(digest(&SHA256, b"message").as_ref());
            let mut signature = strings(&[SK_ED25519_NAME.as_bytes(), &key.sign(&signed)]);
            signature.extend([claimed, 0, 0, 0, 7]);
            signature
        };
        #[track_caller]
        fn check(key: &PublicKey, signature: &[u8], expected: Result<(), SignatureError>) {
            assert_eq!(key.verify(b"message", signature), expected);
        }
        check(&public, &sign(1, 1), Ok(()));
        check(&public, &sign(5, 5), Ok(())); // verified by PIN, too
        check(&public, &sign(0, 0), Err(SignatureError::NoUserPresence));
        check(&public, &sign(4, 4), Err(SignatureError::NoUserPresence));
        check(&public, &sign(0, 1), Err(SignatureError::Bad));
        let longer = [sign(1, 1), vec![0]].concat();
        check(
            &public,
            &longer,
            Err(SignatureError::Malformed("something follows its end")),
        );
        // A plain key's signature has no flags, and the other way round.
        let plain = PublicKey::parse(&key.blob()).unwrap();
        check(
            &plain,
            &sign(1, 1),
            Err(SignatureError::Malformed("something follows its end")),
        );
    }

    #[test]
    fn a_security_key_is_for_ssh() {
        let key = Key::new(1);
        for (application, is_good) in [("ssh:", true), ("ssh:fleet", true), ("https://x", false)] {
            let blob = strings(&[
                SK_ED25519_NAME.as_bytes(),
                key.point(),
                application.as_bytes(),
            ]);
            assert_eq!(PublicKey::parse(&blob).is_ok(), is_good, "{application}");
        }
    }

    #[test]
    fn a_signature_has_one_scalar() {
        // S + L verifies in OpenSSH 9.2, and would give every signed commit a second id.
        const L: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let key = Key::new(1);
        let public = PublicKey::parse(&key.blob()).unwrap();
        let mut raw = key.sign(b"message");
        let signature = |raw: &[u8]| strings(&[ED25519_NAME.as_bytes(), raw]);
        assert_eq!(public.verify(b"message", &signature(&raw)), Ok(()));
        let mut carry = 0;
        for (byte, add) in raw[32..].iter_mut().zip(L) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert_eq!(
            public.verify(b"message", &signature(&raw)),
            Err(SignatureError::Bad)
        );
    }

    #[test]
    fn keys_that_anybody_can_sign_for_are_weak() {
        let identity = [&[1][..], &[0; 31]].concat();
        let zero = [0; 32].to_vec();
        let p_minus_one = [&[0xec][..], &[0xff; 30], &[0x7f]].concat();
        let p_with_sign = [&[0xed][..], &[0xff; 31]].concat();
        for point in [identity, zero, p_minus_one, p_with_sign] {
            let key = PublicKey::parse(&strings(&[ED25519_NAME.as_bytes(), &point])).unwrap();
            assert!(key.weakness().is_some(), "{point:x?}");
        }
        for seed in 0..32 {
            let key = PublicKey::parse(&Key::new(seed).blob()).unwrap();
            assert_eq!(key.weakness(), None);
        }
    }

    #[test]
    fn short_rsa_is_weak() {
        for (bits, is_weak) in [
            (2048, true),
            (3071, true),
            (3072, false),
            (4096, false),
            (8193, true),
        ] {
            let mut modulus = vec![0xff; usize::div_ceil(bits, 8)];
            modulus[0] = 0xff >> ((8 - bits % 8) % 8);
            let blob = strings(&[RSA_NAME.as_bytes(), &[1, 0, 1], &positive(&modulus)]);
            let key = PublicKey::parse(&blob).unwrap();
            assert_eq!(key.weakness().is_some(), is_weak, "{bits}");
        }
    }

    #[test]
    fn sha1_is_weak_and_algorithms_do_not_cross() {
        let blob = strings(&[RSA_NAME.as_bytes(), &[1, 0, 1], &[0x7f; 384]]);
        let rsa = PublicKey::parse(&blob).unwrap();
        let check = |key: &PublicKey, algorithm: &str, expected| {
            let signature = strings(&[algorithm.as_bytes(), &[1; 384]]);
            assert_eq!(key.verify(b"message", &signature), Err(expected));
        };
        check(&rsa, "ssh-rsa", SignatureError::Weak("uses SHA-1"));
        check(&rsa, "rsa-sha2-512", SignatureError::Bad);
        check(&rsa, "ssh-ed25519", OTHER_ALGORITHM);
        let ed25519 = PublicKey::parse(&Key::new(1).blob()).unwrap();
        check(&ed25519, "rsa-sha2-512", OTHER_ALGORITHM);
        check(
            &ed25519,
            "ssh-ed25519",
            SignatureError::Malformed("it has the wrong length"),
        );
    }

    #[test]
    fn ecdsa_numbers_are_strict_and_of_any_length() {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
                .unwrap();
        let blob = strings(&[
            P256_NAME.as_bytes(),
            b"nistp256",
            pair.public_key().as_ref(),
        ]);
        let key = PublicKey::parse(&blob).unwrap();
        // Numbers with leading zeros come up once in 256 times.
        for round in 0..600u32 {
            let message = round.to_be_bytes();
            let raw = pair.sign(&random, &message).unwrap();
            let (r, s) = raw.as_ref().split_at(32);
            let numbers = strings(&[&positive(r), &positive(s)]);
            let signature = strings(&[P256_NAME.as_bytes(), &numbers]);
            assert_eq!(key.verify(&message, &signature), Ok(()));
            let padded = strings(&[&[&[0], r].concat(), &positive(s)]);
            let signature = strings(&[P256_NAME.as_bytes(), &padded]);
            let is_canonical = r[0] & 0x80 != 0;
            assert_eq!(key.verify(&message, &signature).is_ok(), is_canonical);
        }
    }

    #[test]
    fn a_key_is_of_the_type_its_line_says() {
        let text = STANDARD.encode(Key::new(1).blob());
        assert!(PublicKey::parse_text("ssh-ed25519", &text).is_ok());
        assert!(PublicKey::parse_text("ssh-rsa", &text).is_err());
        assert!(PublicKey::parse_text("ssh-ed25519", &text[..40]).is_err());
        let certificate = PublicKey::parse_text("ssh-ed25519-cert-v01@openssh.com", &text);
        insta::assert_snapshot!(certificate.unwrap_err(), @"unknown key type 'ssh-ed25519-cert-v01@openssh.com', expected one of ssh-ed25519, sk-ssh-ed25519@openssh.com, ecdsa-sha2-nistp256, ecdsa-sha2-nistp384, ssh-rsa, openpgp");
    }

    proptest! {
        #[test]
        fn reading_a_key_or_a_signature_never_panics(name in 0..7usize, tail: Vec<u8>, signature: Vec<u8>) {
            let names: [&[u8]; 7] = [
                ED25519_NAME.as_bytes(), SK_ED25519_NAME.as_bytes(), P256_NAME.as_bytes(),
                P384_NAME.as_bytes(), RSA_NAME.as_bytes(), DSA_NAME.as_bytes(), b"",
            ];
            let mut blob = strings(&[names[name]]);
            blob.extend(tail);
            if let Ok(key) = PublicKey::parse(&blob) {
                let _ = key.weakness();
                let _ = key.verify(b"message", &signature);
            }
        }
    }
}
