//! The rules a revision can break, and the refusal that says which one, where, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::git::{ObjectError, ObjectId};
use crate::model::{Class, Failure};

/// A rule by name; the words of `limpet verify --json`. Rules that nothing can break yet belong to the policy in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the names are the meaning
pub enum Rule {
    Unsigned,
    AnchorMismatch,
    StateMissing,
    MalformedCommit,
    MalformedSignature,
    MalformedTree,
    BadSignature,
    WrongNamespace,
    UnknownKey,
    KeyExpired,
    KeyNotYetValid,
    KeyRevoked,
    WeakKey,
    NoUserPresence,
    UnsupportedFormat,
    OutOfScope,
    PolicyInvalid,
    WrongFleet,
    WrongChannel,
    WrongTag,
    Shallow,
    TooManyCommits,
    PendingApproval,
    SignersFileInvalid,
    RevokedFileMissing,
    HashMismatch,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Rule; 26] = [
        Rule::Unsigned,
        Rule::AnchorMismatch,
        Rule::StateMissing,
        Rule::MalformedCommit,
        Rule::MalformedSignature,
        Rule::MalformedTree,
        Rule::BadSignature,
        Rule::WrongNamespace,
        Rule::UnknownKey,
        Rule::KeyExpired,
        Rule::KeyNotYetValid,
        Rule::KeyRevoked,
        Rule::WeakKey,
        Rule::NoUserPresence,
        Rule::UnsupportedFormat,
        Rule::OutOfScope,
        Rule::PolicyInvalid,
        Rule::WrongFleet,
        Rule::WrongChannel,
        Rule::WrongTag,
        Rule::Shallow,
        Rule::TooManyCommits,
        Rule::PendingApproval,
        Rule::SignersFileInvalid,
        Rule::RevokedFileMissing,
        Rule::HashMismatch,
    ];

    /// Can the verdict change by waiting.
    pub fn depends_on_time(self) -> bool {
        matches!(self, Rule::KeyNotYetValid | Rule::KeyExpired)
    }

    /// The word shown to people and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Unsigned => "unsigned",
            Rule::AnchorMismatch => "anchor-mismatch",
            Rule::StateMissing => "state-missing",
            Rule::MalformedCommit => "malformed-commit",
            Rule::MalformedSignature => "malformed-signature",
            Rule::MalformedTree => "malformed-tree",
            Rule::BadSignature => "bad-signature",
            Rule::WrongNamespace => "wrong-namespace",
            Rule::UnknownKey => "unknown-key",
            Rule::KeyExpired => "key-expired",
            Rule::KeyNotYetValid => "key-not-yet-valid",
            Rule::KeyRevoked => "key-revoked",
            Rule::WeakKey => "weak-key",
            Rule::NoUserPresence => "no-user-presence",
            Rule::UnsupportedFormat => "unsupported-format",
            Rule::OutOfScope => "out-of-scope",
            Rule::PolicyInvalid => "policy-invalid",
            Rule::WrongFleet => "wrong-fleet",
            Rule::WrongChannel => "wrong-channel",
            Rule::WrongTag => "wrong-tag",
            Rule::Shallow => "shallow",
            Rule::TooManyCommits => "too-many-commits",
            Rule::PendingApproval => "pending-approval",
            Rule::SignersFileInvalid => "signers-file-invalid",
            Rule::RevokedFileMissing => "revoked-file-missing",
            Rule::HashMismatch => "hash-mismatch",
        }
    }

    /// What the reader can do about it, where that does not depend on the case.
    fn hint(self) -> Option<&'static str> {
        Some(match self {
            Rule::Unsigned => {
                "sign it with a listed key: git -c gpg.format=ssh commit --amend -S; the merge button of a forge does not sign"
            }
            Rule::AnchorMismatch => {
                "compare the anchor with what a maintainer's own clone shows, then enroll again"
            }
            Rule::StateMissing => {
                "restore state.db, or set the head by hand: limpet trust set --commit ID --reason TEXT"
            }
            Rule::MalformedCommit => "make the commit again with an ordinary git commit -S",
            Rule::MalformedSignature | Rule::BadSignature => {
                "sign the commit again: git commit --amend -S"
            }
            Rule::MalformedTree => {
                "rewrite the commit that added the entry; submodules are not supported"
            }
            Rule::WrongNamespace => "let git make the signature: it uses the namespace 'git'",
            Rule::UnknownKey => "add the key there, or sign the commit with a listed one",
            Rule::KeyExpired => {
                "sign a later commit with a key that is valid now, or extend the key's valid-before"
            }
            Rule::KeyNotYetValid => "check this host's clock, or sign with a key that is valid now",
            Rule::KeyRevoked => "sign the change again with a key that is not revoked",
            Rule::WeakKey => "use an Ed25519 key: ssh-keygen -t ed25519",
            Rule::NoUserPresence => {
                "make the key without no-touch-required, and touch it when signing"
            }
            Rule::UnsupportedFormat => {
                "sign with a plain SSH key: git config gpg.format ssh, git config user.signingkey FILE.pub"
            }
            Rule::WrongFleet => "check the source url: this host takes revisions of one fleet only",
            Rule::Shallow => "fetch the full history: git fetch --unshallow",
            Rule::TooManyCommits => "anchor the host at a more recent commit",
            Rule::SignersFileInvalid => "correct the line; no key of the file counts until then",
            Rule::RevokedFileMissing => {
                "create the file; a comment is enough when no key is revoked"
            }
            Rule::HashMismatch => {
                "the server or its storage is damaged or hostile: compare with another clone (git fsck)"
            }
            Rule::WrongTag => {
                "make a new tag with the next version: git tag -s v1.2.3 COMMIT, git push origin v1.2.3; a version is used once"
            }
            Rule::WrongChannel => {
                "promote it: an empty signed commit on top that ends in the line Limpet-Channel: CHANNEL"
            }
            Rule::PendingApproval => {
                "one of them runs 'limpet approve COMMIT' in a clone and pushes"
            }
            Rule::PolicyInvalid => {
                "correct trust.toml and amend the commit; 'limpet check' says beforehand what hosts will say"
            }
            Rule::OutOfScope => return None,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a revision is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The rule that refused.
    pub rule: Rule,
    /// The commit that broke it: the tip, or one on the way to it; or the tag object. None when a file of the host is at fault.
    pub commit: Option<ObjectId>,
    /// The fingerprint of the key its signature names, whether or not that signature holds.
    pub signer: Option<String>,
    /// The name of the tag that broke it, safe to show, where it is no commit that did.
    pub tag: Option<Box<str>>,
    /// The path in the repository, or the file on the host, that it is about.
    pub path: Option<Box<str>>,
    /// What is wrong, in words: lower case, no full stop.
    pub detail: String,
    /// A hint that fits better than the rule's own.
    hint: Option<&'static str>,
}

impl Refusal {
    /// A refusal by `rule` that says `detail`.
    pub fn new(rule: Rule, detail: impl Into<String>) -> Self {
        Refusal {
            rule,
            commit: None,
            signer: None,
            tag: None,
            path: None,
            detail: detail.into(),
            hint: None,
        }
    }

    /// The same, of the commit `id`.
    pub fn of(mut self, id: ObjectId) -> Self {
        self.commit = Some(id);
        self
    }

    /// The same, of the tag object `id` that is called `name`.
    pub fn of_tag(mut self, id: ObjectId, name: &str) -> Self {
        self.commit = Some(id);
        self.tag = Some(escape(name.as_bytes()).into());
        self
    }

    /// The same, signed by `fingerprint`.
    pub fn signed_by(mut self, fingerprint: impl Into<String>) -> Self {
        self.signer = Some(fingerprint.into());
        self
    }

    /// The same, about the file `path`.
    pub fn about(mut self, path: impl Into<Box<str>>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The same, with a hint of its own.
    pub fn with_hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// What the reader can do.
    pub fn hint(&self) -> Option<&'static str> {
        self.hint.or_else(|| self.rule.hint())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.tag {
            write!(f, "refused tag '{tag}': ")?;
        } else if let Some(commit) = &self.commit {
            let commit = commit.to_hex_with_len(7);
            match self.rule {
                Rule::PendingApproval => write!(f, "revision {commit} is pending: ")?,
                _ => write!(f, "refused revision {commit}: ")?,
            }
        }
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let mut failure = Failure::new(Class::Refused, refusal.to_string());
        failure.hint = refusal.hint().map(str::to_owned);
        failure
    }
}

/// Why judging ended without a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// A rule refused.
    Refused(Refusal),
    /// An object could not be had; nothing is known about the revision yet.
    Unavailable(ObjectError),
}

impl Stop {
    /// What an object that could not be read means for the commit `of`; `too_large` is the rule that bounds such objects.
    pub(super) fn reading(error: ObjectError, of: ObjectId, too_large: Rule) -> Self {
        match error {
            ObjectError::HashMismatch(_) => Refusal::new(Rule::HashMismatch, error.to_string())
                .of(of)
                .into(),
            ObjectError::TooLarge(_) => Refusal::new(too_large, error.to_string()).of(of).into(),
            ObjectError::Missing(_) | ObjectError::Unavailable(_) => Stop::Unavailable(error),
        }
    }
}

impl Stop {
    /// The same, of this commit.
    pub(super) fn of(self, commit: ObjectId) -> Self {
        match self {
            Stop::Refused(refusal) => Stop::Refused(refusal.of(commit)),
            unavailable => unavailable,
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Refused(refusal) => refusal.into(),
            Stop::Unavailable(error) => unavailable(&error),
        }
    }
}

/// An object that could not be had, as people read it.
pub fn unavailable(error: &ObjectError) -> Failure {
    Failure::new(
        Class::Transient,
        format!("failed to verify the revision: {error}"),
    )
}

/// `bytes` as it may be shown to people: control characters and what is not UTF-8 are escaped.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || is_invisible(character) {
                shown.extend(character.escape_default());
            } else {
                shown.push(character);
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// Characters that change how the text around them is shown without being seen.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_called_the_same_in_text_and_in_json() {
        for rule in Rule::ALL {
            assert_eq!(serde_json::to_string(&rule).unwrap(), format!("\"{rule}\""));
        }
    }

    #[test]
    fn a_refusal_names_the_revision_the_object_and_the_remedy() {
        let id = ObjectId::from_hex(b"3f2a91c04b825dc642cb6eb9a060e54bf8d69288").unwrap();
        let refusal = Refusal::new(
            Rule::UnknownKey,
            "signer 'SHA256:Xk' is not in '/etc/limpet/allowed_signers'",
        )
        .of(id);
        let failure = Failure::from(refusal);
        insta::assert_snapshot!(failure, @"refused revision 3f2a91c: signer 'SHA256:Xk' is not in '/etc/limpet/allowed_signers'");
        insta::assert_snapshot!(failure.hint.unwrap(), @"add the key there, or sign the commit with a listed one");
        assert_eq!(failure.class, Class::Refused);
    }

    #[test]
    fn names_are_shown_without_control_characters() {
        assert_eq!(escape(b"a\x1b[31m\xff\n"), "a\\u{1b}[31m\\xff\\n");
        assert_eq!(escape("größe\u{202e}".as_bytes()), "größe\\u{202e}");
    }
}
