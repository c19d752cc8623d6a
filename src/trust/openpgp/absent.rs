//! What there is of OpenPGP in a program that was built without it: no certificate can be read, and so no signature holds.

use jiff::Timestamp;

use super::fleet_policy::Reason;
use super::rule::{Refusal, Rule};

/// There is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Certificate {}

/// There is none.
#[derive(Debug, Clone)]
pub(super) enum Made {}

/// There is none.
#[derive(Debug)]
pub(super) enum Block {}

pub(super) fn is_armor(armor: &[u8]) -> bool {
    armor.starts_with(b"-----BEGIN PGP SIGNATURE-----\n")
}

impl Certificate {
    pub(super) fn parse(_: &[u8]) -> Result<Self, &'static str> {
        Err("this limpet was built without OpenPGP")
    }

    pub(super) fn primary(&self) -> Vec<u8> {
        match *self {}
    }

    pub(super) fn fingerprint(&self) -> String {
        match *self {}
    }

    pub(super) fn weakness(&self) -> Option<String> {
        match *self {}
    }

    pub(super) fn revocation(&self) -> Option<Reason> {
        match *self {}
    }

    pub(super) fn can_sign(&self, _: Timestamp) -> bool {
        match *self {}
    }

    pub(super) fn lapsed(&self, _: &Made, _: Timestamp) -> Result<Option<String>, Refusal> {
        match *self {}
    }
}

impl Made {
    pub(super) fn fingerprint(&self) -> String {
        match *self {}
    }
}

impl Block {
    pub(super) fn parse(_: &[u8]) -> Result<Self, Refusal> {
        Err(Refusal::new(
            Rule::UnsupportedFormat,
            "it is signed with OpenPGP, and this limpet was built without that",
        ))
    }

    pub(super) fn issuer(&self) -> String {
        match *self {}
    }

    pub(super) fn by(&self, _: &Certificate, _: &[u8], _: &str) -> Option<Result<Made, Refusal>> {
        match *self {}
    }
}
