//! OpenPGP: certificates that a line of keys holds, and the one signature packet that a commit carries.
//!
//! A key is pinned by its primary fingerprint; a certificate proves by itself which subkeys are its own. The mathematics and the policy
//! are sequoia's, at the host's time.
//!
//! - A signature does not carry its key. Who made it is looked for among the certificates at hand; whether that may sign is then asked
//!   of the certificate that the deciding file lists, and of no other copy.
//! - The date that a signature claims makes nothing valid, it can only make it refused.
//! - What is read of a signature is one packet in one armor, with nothing in it that is not signed but its key's id. Who has no key can
//!   write it in a few ways all the same (with a checksum or not, for one): a commit is known by what was signed, not by its id alone.
//! - What a repository says is hostile before its signature holds: certificates are small, of few packets, and of keys that are verified
//!   here; no other mathematics is reached.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sequoia_openpgp::cert::amalgamation::ValidAmalgamation as _;
use sequoia_openpgp::cert::amalgamation::key::PrimaryKey as _;
use sequoia_openpgp::crypto::mpi::PublicKey;
use sequoia_openpgp::packet::key::{KeyParts, KeyRole, PublicParts, UnspecifiedRole};
use sequoia_openpgp::packet::signature::subpacket::{Subpacket, SubpacketTag, SubpacketValue};
use sequoia_openpgp::packet::{Key, Signature};
use sequoia_openpgp::parse::{Dearmor, PacketParserBuilder, PacketParserResult, Parse as _};
use sequoia_openpgp::policy::{AsymmetricAlgorithm, HashAlgoSecurity, Policy as _, StandardPolicy};
use sequoia_openpgp::serialize::MarshalInto as _;
use sequoia_openpgp::types::{
    Curve, HashAlgorithm, RevocationStatus, RevocationType, SignatureType,
};
use sequoia_openpgp::{Cert, Fingerprint, Packet};

use super::fleet_policy::Reason;
use super::key::has_small_order;
use super::rule::{Refusal, Rule};

mod armor;

pub(super) use armor::is_armor;

/// The largest certificate: without photographs and what others say of it, none comes near.
const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;
/// The most packets of one: its parts are compared with each other.
const MAX_PACKETS: usize = 256;
/// The smallest RSA modulus, as for SSH keys, and the largest that is verified.
const RSA_BITS: std::ops::RangeInclusive<usize> = 3072..=4096;
/// How far ahead of the host's time a signature may be dated: clocks differ.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// A certificate: a primary key with what it says of itself and of its subkeys.
#[derive(Debug, Clone)]
pub(super) struct Certificate(Arc<Cert>);

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.primary() == other.primary()
    }
}

impl Eq for Certificate {}

impl Certificate {
    /// Reads exactly one certificate, without armor.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() > MAX_CERTIFICATE_BYTES {
            return Err("it is larger than 64 KiB: export it with --export-options export-clean");
        }
        let broken = |_| "it is not one OpenPGP certificate";
        let mut packets: Vec<Packet> = Vec::new();
        let mut rest = PacketParserBuilder::from_bytes(bytes)
            .and_then(|builder| builder.dearmor(Dearmor::Disabled).build())
            .map_err(broken)?;
        while let PacketParserResult::Some(parser) = rest {
            if packets.len() == MAX_PACKETS {
                return Err(
                    "it has more than 256 packets: export it with --export-options export-clean",
                );
            }
            let (packet, next) = parser.next().map_err(broken)?;
            packets.push(packet);
            rest = next;
        }
        let cert = Cert::from_packets(packets.into_iter()).map_err(broken)?;
        if cert.is_tsk() {
            return Err("it holds a private key");
        }
        Ok(Certificate(Arc::new(cert)))
    }

    /// The primary key's packet: two certificates are of one key when these are the same.
    pub(super) fn primary(&self) -> Vec<u8> {
        // Writing into memory does not fail, and no two keys are without a packet.
        self.0.primary_key().key().to_vec().unwrap_or_default()
    }

    /// The primary key: `openpgp:` and what gpg prints.
    pub(super) fn fingerprint(&self) -> String {
        shown(&self.0.fingerprint())
    }

    /// Why nothing of it may count, if so.
    pub(super) fn weakness(&self) -> Option<String> {
        weakness(self.0.primary_key().key())
    }

    /// Whether it revokes itself, whatever date that has.
    pub(super) fn revocation(&self) -> Option<Reason> {
        let primary = self.0.primary_key();
        let reasons = primary
            .self_revocations()
            .map(|signature| match is_soft(signature) {
                true => Reason::Retired,
                false => Reason::Compromised,
            });
        reasons.max()
    }

    /// Could any key of it sign at `now`.
    pub(super) fn can_sign(&self, now: Timestamp) -> bool {
        let time = SystemTime::from(now);
        let policy = policy_at(time);
        let Ok(valid) = self.0.with_policy(&policy, time) else {
            return false;
        };
        let mut keys = valid.keys().alive().revoked(false).for_signing();
        self.revocation().is_none()
            && valid.alive().is_ok()
            && keys.any(|key| weakness(key.key()).is_none())
    }

    /// Why what was `made` counts no longer, if so: the certificate, its subkey or the signature has ended.
    pub(super) fn lapsed(&self, made: &Made, now: Timestamp) -> Result<Option<String>, Refusal> {
        let refused = |rule, detail| Err(Refusal::new(rule, detail).signed_by(self.fingerprint()));
        let (name, issuer) = (self.fingerprint(), shown(&made.key.fingerprint()));
        let time = SystemTime::from(now);
        match self.revocation() {
            None => {}
            // As if the policy said so.
            Some(Reason::Retired) => return Ok(Some("retired its key itself".to_owned())),
            Some(Reason::Compromised) => {
                let detail = format!("signer '{name}' revoked its key itself");
                return refused(Rule::KeyRevoked, detail);
            }
        }
        let primary = self.0.primary_key().key().creation_time();
        if [primary, made.key.creation_time()]
            .iter()
            .any(|created| *created > time + SKEW)
        {
            let detail = format!("the key '{issuer}' of signer '{name}' is from later than now");
            return refused(Rule::KeyNotYetValid, detail);
        }
        let dated = made.signature.signature_creation_time();
        if dated.is_none_or(|dated| dated > time + SKEW) {
            let detail = format!("the signature of '{name}' is dated later than now");
            return refused(Rule::KeyNotYetValid, detail);
        }
        // A key that was made a moment ago, by a clock that is ahead of ours.
        let time = time.max(primary).max(made.key.creation_time());
        let policy = policy_at(time);
        let strength = HashAlgoSecurity::CollisionResistance;
        if let Err(error) = policy.signature(&made.signature, strength) {
            let detail = format!("the signature of '{name}' does not count: {error}");
            return refused(Rule::UnsupportedFormat, detail);
        }
        let valid = match self.0.with_policy(&policy, time) {
            Ok(valid) => valid,
            Err(error) => {
                let detail = format!("the certificate of signer '{name}' does not count: {error}");
                return refused(Rule::WeakKey, detail);
            }
        };
        let key = valid
            .keys()
            .find(|own| own.key().parts_as_public().role_as_unspecified() == &made.key)
            .filter(sequoia_openpgp::cert::amalgamation::key::ValidKeyAmalgamation::for_signing);
        let Some(key) = key else {
            let detail = format!("'{issuer}' is no key of '{name}' that may sign");
            return refused(Rule::UnknownKey, detail);
        };
        match key.revocation_status() {
            RevocationStatus::NotAsFarAsWeKnow => {}
            RevocationStatus::Revoked(by) if by.iter().all(|signature| is_soft(signature)) => {
                return Ok(Some(format!("retired its key '{issuer}'")));
            }
            _ => {
                let detail = format!("the key '{issuer}' of '{name}' is revoked");
                return refused(Rule::KeyRevoked, detail);
            }
        }
        let ends = [
            valid.primary_key().key_expiration_time(),
            key.key_expiration_time(),
            made.signature.signature_expiration_time(),
        ];
        match ends.into_iter().flatten().min().filter(|end| *end <= time) {
            Some(end) => {
                let end = Timestamp::try_from(end).unwrap_or(Timestamp::UNIX_EPOCH);
                Ok(Some(format!("expired at {end}")))
            }
            None if valid.alive().is_ok() && key.alive().is_ok() => Ok(None),
            None => refused(
                Rule::KeyExpired,
                format!("the key '{issuer}' of '{name}' is not alive"),
            ),
        }
    }
}

/// What made a signature that holds.
#[derive(Debug, Clone)]
pub(super) struct Made {
    signature: Box<Signature>,
    key: Key<PublicParts, UnspecifiedRole>,
}

impl Made {
    /// The key, which may be a subkey: `openpgp:` and what gpg prints.
    pub(super) fn fingerprint(&self) -> String {
        shown(&self.key.fingerprint())
    }
}

/// The signature that a commit carries.
#[derive(Debug)]
pub(super) struct Block {
    signature: Signature,
    issuer: Fingerprint,
}

impl Block {
    /// Reads the value of a commit's signature header, of which there is one text for each form of packet.
    pub(super) fn parse(armor: &[u8]) -> Result<Self, Refusal> {
        let packet = armor::decode(armor).map_err(malformed)?;
        let body =
            armor::only_signature(&packet).ok_or_else(|| malformed("it is not one signature"))?;
        let signature =
            Signature::from_bytes(body).map_err(|_| malformed("its packet cannot be read"))?;
        if !matches!(signature.version(), 4 | 6) {
            return Err(malformed("its version is neither 4 nor 6"));
        }
        if signature.to_vec().ok().as_deref() != Some(body) {
            return Err(malformed("its packet is not written the one way"));
        }
        // Of a text, line ends are not signed.
        if signature.typ() != SignatureType::Binary {
            return Err(malformed("it is not one over bytes"));
        }
        let hashed = signature.hashed_area();
        if hashed.subpackets(SubpacketTag::IssuerFingerprint).count() != 1 {
            return Err(malformed("it does not name its key once"));
        }
        let issuer = signature.issuer_fingerprints().next().cloned();
        let issuer = issuer.ok_or_else(|| malformed("it does not name its key"))?;
        let is_its_id = |loose: &Subpacket| {
            let value = SubpacketValue::Issuer((&issuer).into());
            *loose.value() == value && !loose.critical()
        };
        let loose: Vec<&Subpacket> = signature.unhashed_area().iter().collect();
        if !matches!(loose.as_slice(), []) && !matches!(loose.as_slice(), [only] if is_its_id(only))
        {
            return Err(malformed(
                "it has more than its key's id outside of what is signed",
            ));
        }
        Ok(Block { signature, issuer })
    }

    /// The key that it says made it.
    pub(super) fn issuer(&self) -> String {
        shown(&self.issuer)
    }

    /// Does it hold over `payload`, which is a `noun`, by a key of `certificate`; None where that has no such key.
    pub(super) fn by(
        &self,
        certificate: &Certificate,
        payload: &[u8],
        noun: &str,
    ) -> Option<Result<Made, Refusal>> {
        // A subkey for signing is bound by itself as well: anybody could write another's key into a certificate of theirs.
        let mut keys = certificate.0.keys().filter(|own| {
            let may_sign =
                |binding: &Signature| binding.key_flags().is_some_and(|flags| flags.for_signing());
            own.primary() || own.self_signatures().any(may_sign)
        });
        let key = keys.find(|own| own.key().fingerprint() == self.issuer)?;
        let key = key.key().parts_as_public().role_as_unspecified();
        let holds = self.holds(certificate, key, payload, noun);
        let named = holds.map_err(|(rule, detail)| {
            Refusal::new(rule, detail).signed_by(certificate.fingerprint())
        });
        Some(named.map(|()| Made {
            signature: Box::new(self.signature.clone()),
            key: key.clone(),
        }))
    }

    fn holds(
        &self,
        certificate: &Certificate,
        key: &Key<PublicParts, UnspecifiedRole>,
        payload: &[u8],
        noun: &str,
    ) -> Result<(), (Rule, String)> {
        let name = certificate.fingerprint();
        if let Some(weak) = certificate.weakness().or_else(|| weakness(key)) {
            return Err((Rule::WeakKey, format!("the key of signer '{name}' {weak}")));
        }
        let hash = self.signature.hash_algo();
        if !is_strong(hash) {
            let detail = format!("the signature of '{name}' uses {hash}");
            return Err((Rule::WeakKey, detail));
        }
        self.signature.verify_message(key, payload).map_err(|_| {
            let detail = format!(
                "its signature is not by '{}' over this {noun}",
                self.issuer()
            );
            (Rule::BadSignature, detail)
        })?;
        let digest = self.signature.computed_digest().unwrap_or_default();
        if !digest.starts_with(self.signature.digest_prefix()) {
            return Err((
                Rule::MalformedSignature,
                "its signature is malformed: its check bytes are wrong".into(),
            ));
        }
        Ok(())
    }
}

fn malformed(cause: &str) -> Refusal {
    Refusal::new(
        Rule::MalformedSignature,
        format!("its signature is malformed: {cause}"),
    )
}

fn shown(fingerprint: &Fingerprint) -> String {
    format!("openpgp:{fingerprint:X}")
}

/// Does a revocation say that the key was given up, and not that somebody else may have it.
fn is_soft(revocation: &Signature) -> bool {
    let reason = revocation.reason_for_revocation();
    reason.is_some_and(|(reason, _)| reason.revocation_type() == RevocationType::Soft)
}

fn is_strong(hash: HashAlgorithm) -> bool {
    use HashAlgorithm::{SHA3_256, SHA3_512, SHA256, SHA384, SHA512};
    matches!(hash, SHA256 | SHA384 | SHA512 | SHA3_256 | SHA3_512)
}

/// Why no signature of a key may count, if so. What is not listed here is verified by nobody, and not even tried.
fn weakness<P: KeyParts, R: KeyRole>(key: &Key<P, R>) -> Option<String> {
    let small_order = |point: &[u8]| {
        has_small_order(point).then(|| "has small order, so anybody can sign for it".to_owned())
    };
    match key.mpis() {
        PublicKey::RSA { n, .. } if RSA_BITS.contains(&n.bits()) => None,
        PublicKey::RSA { n, .. } => {
            let (bits, least, most) = (n.bits(), RSA_BITS.start(), RSA_BITS.end());
            Some(format!(
                "is RSA with {bits} bits, {least} to {most} are taken"
            ))
        }
        PublicKey::ECDSA {
            curve: Curve::NistP256 | Curve::NistP384 | Curve::NistP521,
            ..
        } => None,
        PublicKey::EdDSA {
            curve: Curve::Ed25519,
            q,
        } => small_order(q.value().strip_prefix(&[0x40]).unwrap_or_default()),
        PublicKey::Ed25519 { a } => small_order(a),
        _ => Some(format!(
            "is of a kind that does not count ({}): Ed25519, NIST curves and RSA do",
            key.pk_algo()
        )),
    }
}

/// What sequoia would refuse at `time`, and what limpet does besides, whoever else still takes it.
fn policy_at(time: SystemTime) -> StandardPolicy<'static> {
    let mut policy = StandardPolicy::at(time);
    for hash in [
        HashAlgorithm::MD5,
        HashAlgorithm::SHA1,
        HashAlgorithm::RipeMD,
    ] {
        policy.reject_hash(hash);
    }
    for algorithm in [
        AsymmetricAlgorithm::RSA1024,
        AsymmetricAlgorithm::DSA1024,
        AsymmetricAlgorithm::DSA2048,
        AsymmetricAlgorithm::DSA3072,
        AsymmetricAlgorithm::DSA4096,
    ] {
        policy.reject_asymmetric_algo(algorithm);
    }
    policy
}
