//! SSH signatures: the armor as Git stores it, and the structure inside (OpenSSH's PROTOCOL.sshsig).
//!
//! Invariant: there is exactly one text for one signature. Whoever has no key must not be able to write a signed commit
//! differently, because that would give it another id.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Algorithm, SHA256, SHA512, digest};

use super::key::{KeyError, PublicKey, SignatureError};
use super::rule::{Refusal, Rule, escape};
use super::wire::{Malformed, Reader, put_string};

const BEGIN: &[u8] = b"-----BEGIN SSH SIGNATURE-----";
const END: &[u8] = b"-----END SSH SIGNATURE-----";
const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
/// What Git signs in.
const NAMESPACE: &[u8] = b"git";
/// The longest line of base64 in the armor.
const MAX_LINE: usize = 76;

/// One signature, with the key it claims to be by.
#[derive(Debug, Clone)]
pub(super) struct Signature {
    pub(super) key: PublicKey,
    hash: Hash,
    signature: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn name(self) -> &'static [u8] {
        match self {
            Hash::Sha256 => b"sha256",
            Hash::Sha512 => b"sha512",
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Hash::Sha256 => &SHA256,
            Hash::Sha512 => &SHA512,
        }
    }
}

impl Signature {
    /// Reads the value of a commit's signature header, without the spaces that continue it.
    pub(super) fn parse(armor: &[u8]) -> Result<Self, Refusal> {
        let blob = decode_armor(armor)?;
        let mut reader = Reader::new(&blob);
        if reader.bytes(MAGIC.len()).map_err(malformed)? != MAGIC {
            return Err(malformed(Malformed("it does not start with 'SSHSIG'")));
        }
        if reader.number().map_err(malformed)? != VERSION {
            return Err(malformed(Malformed("its version is not 1")));
        }
        let key = reader.string().map_err(malformed)?;
        let namespace = reader.string().map_err(malformed)?;
        let reserved = reader.string().map_err(malformed)?;
        let hash = reader.string().map_err(malformed)?;
        let signature = reader.string().map_err(malformed)?.to_owned();
        reader.finish().map_err(malformed)?;
        let key = PublicKey::parse(key).map_err(|error| match error {
            KeyError::Malformed(cause) => malformed(Malformed(cause)),
            KeyError::Unsupported(name) => Refusal::new(
                Rule::UnsupportedFormat,
                format!("its signature is by a key of type '{name}', which is not supported"),
            ),
        })?;
        if namespace != NAMESPACE {
            return Err(Refusal::new(
                Rule::WrongNamespace,
                format!(
                    "its signature is for the namespace '{}', not 'git'",
                    escape(namespace)
                ),
            )
            .signed_by(key.fingerprint()));
        }
        if !reserved.is_empty() {
            return Err(malformed(Malformed("its reserved field is not empty")));
        }
        let hash = match hash {
            b"sha256" => Hash::Sha256,
            b"sha512" => Hash::Sha512,
            _ => {
                return Err(malformed(Malformed(
                    "its hash is neither sha256 nor sha512",
                )));
            }
        };
        Ok(Signature {
            key,
            hash,
            signature,
        })
    }

    /// Does it hold over `payload`?
    pub(super) fn verify(&self, payload: &[u8]) -> Result<(), SignatureError> {
        let mut message = MAGIC.to_owned();
        put_string(&mut message, NAMESPACE);
        put_string(&mut message, b"");
        put_string(&mut message, self.hash.name());
        put_string(
            &mut message,
            digest(self.hash.algorithm(), payload).as_ref(),
        );
        self.key.verify(&message, &self.signature)
    }
}

fn malformed(Malformed(cause): Malformed) -> Refusal {
    Refusal::new(
        Rule::MalformedSignature,
        format!("its signature is malformed: {cause}"),
    )
}

/// The bytes inside the armor, which must be the one way to write them (but for the length of the lines, which differs between
/// programs: ssh-keygen uses 70, others 64 or 76).
fn decode_armor(armor: &[u8]) -> Result<Vec<u8>, Refusal> {
    let malformed = |cause| Err(malformed(Malformed(cause)));
    let mut lines = armor.split(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    if first != BEGIN {
        if let Some(format) = other_format(first) {
            return Err(Refusal::new(
                Rule::UnsupportedFormat,
                format!("its signature is {format}, only SSH signatures are supported"),
            ));
        }
        return malformed("it does not start with '-----BEGIN SSH SIGNATURE-----'");
    }
    let mut lines: Vec<&[u8]> = lines.collect();
    if lines.pop() != Some(END) {
        return malformed("it does not end with '-----END SSH SIGNATURE-----'");
    }
    let Some((last, full)) = lines.split_last() else {
        return malformed("it is empty");
    };
    let width = full.first().map_or(last.len(), |line| line.len());
    if width > MAX_LINE || last.is_empty() || last.len() > width {
        return malformed("its lines are not of one length");
    }
    if full.iter().any(|line| line.len() != width) {
        return malformed("its lines are not of one length");
    }
    let text = lines.concat();
    // The engine is strict: no other alphabet, full padding, no stray bits. Encoding again proves it.
    match STANDARD.decode(&text) {
        Ok(blob) if STANDARD.encode(&blob).as_bytes() == text => Ok(blob),
        _ => malformed("it is not base64"),
    }
}

/// The name of the format whose armor starts with `line`.
fn other_format(line: &[u8]) -> Option<&'static str> {
    match line {
        b"-----BEGIN PGP SIGNATURE-----" | b"-----BEGIN PGP MESSAGE-----" => Some("OpenPGP"),
        b"-----BEGIN SIGNED MESSAGE-----" | b"-----BEGIN PKCS7-----" => Some("X.509"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{Key, armor, message};
    use super::*;

    fn armored(blob: &[u8]) -> String {
        format!(
            "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----",
            STANDARD.encode(blob)
        )
    }

    #[test]
    fn what_git_and_ssh_keygen_wrote_is_read() {
        let key = Key::new(1);
        let mut signature = Vec::new();
        put_string(&mut signature, b"ssh-ed25519");
        put_string(&mut signature, &key.sign(&message("payload")));
        let text = armor(&key.blob(), &signature);
        let parsed = Signature::parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.key.fingerprint(), key.fingerprint());
        assert_eq!(parsed.verify(b"payload"), Ok(()));
        assert_eq!(parsed.verify(b"other"), Err(SignatureError::Bad));
    }

    #[test]
    fn each_field_must_be_what_it_has_to_be() {
        #[track_caller]
        fn check(fields: [&[u8]; 5], version: u8, tail: &[u8], expected: &str) {
            let mut blob = [MAGIC, &[0, 0, 0, version]].concat();
            for field in fields {
                put_string(&mut blob, field);
            }
            blob.extend_from_slice(tail);
            let text = STANDARD.encode(&blob);
            let lines: Vec<&str> = text
                .as_bytes()
                .chunks(MAX_LINE)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            let text = format!(
                "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----",
                lines.join("\n")
            );
            match Signature::parse(text.as_bytes()) {
                Ok(_) => assert_eq!("good", expected),
                Err(refusal) => assert_eq!(format!("{}: {refusal}", refusal.rule), expected),
            }
        }
        let key = Key::new(1).blob();
        let mut certificate = Vec::new();
        put_string(&mut certificate, b"ssh-ed25519-cert-v01@openssh.com");
        let malformed =
            |cause: &str| format!("malformed-signature: its signature is malformed: {cause}");
        check([&key, b"git", b"", b"sha512", b""], 1, b"", "good");
        check([&key, b"git", b"", b"sha256", b""], 1, b"", "good");
        check(
            [&key, b"git", b"", b"sha512", b""],
            2,
            b"",
            &malformed("its version is not 1"),
        );
        check(
            [&key, b"git", b"x", b"sha512", b""],
            1,
            b"",
            &malformed("its reserved field is not empty"),
        );
        check(
            [&key, b"git", b"", b"sha1", b""],
            1,
            b"",
            &malformed("its hash is neither sha256 nor sha512"),
        );
        check(
            [&key, b"git", b"", b"sha512", b""],
            1,
            b"\0",
            &malformed("something follows its end"),
        );
        check(
            [&key[1..], b"git", b"", b"sha512", b""],
            1,
            b"",
            &malformed("it ends too early"),
        );
        check(
            [&key, b"git\n", b"", b"sha512", b""],
            1,
            b"",
            "wrong-namespace: its signature is for the namespace 'git\\n', not 'git'",
        );
        check(
            [&certificate, b"git", b"", b"sha512", b""],
            1,
            b"",
            "unsupported-format: its signature is by a key of type 'ssh-ed25519-cert-v01@openssh.com', which is not supported",
        );
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes: Vec<u8>, blob: Vec<u8>) {
            let _ = Signature::parse(&bytes);
            let _ = Signature::parse(armored(&blob).as_bytes());
            let _ = Signature::parse(armored(&[MAGIC, &[0, 0, 0, 1], &blob].concat()).as_bytes());
        }

        #[test]
        fn two_texts_of_one_width_are_never_one_signature(blob in proptest::collection::vec(any::<u8>(), 1..40), at: usize, byte in 0x20u8..0x7f) {
            let text = STANDARD.encode(&blob);
            let mut other = text.clone().into_bytes();
            let at = at % other.len();
            other[at] = byte;
            if other != text.as_bytes() {
                let wrap = |text: &[u8]| [BEGIN, b"\n", text, b"\n", END].concat();
                let decoded = decode_armor(&wrap(text.as_bytes()));
                prop_assert_eq!(decoded.unwrap(), blob.clone());
                if let Ok(decoded) = decode_armor(&wrap(&other)) {
                    prop_assert_ne!(decoded, blob);
                }
            }
        }
    }
}
