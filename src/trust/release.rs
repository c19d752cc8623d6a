//! A release: an annotated tag whose name is a version, signed by one who could sign a commit on top of the one it is put on.
//!
//! - The name in the object counts; that of the ref is the server's, and must be the same (git-tag(1) does not ask).
//! - Versions only rise, by the precedence of semver.org: no server can offer an older release, nor another one under a version that
//!   was used.
//! - A tag says which commit is a release, and nothing about whether that may be trusted: it is judged as every other.

use jiff::Timestamp;
use semver::Version;

use super::authority::{Signer, Voucher};
use super::commit::{is_date, parse_id, parse_trailers};
use super::fleet_policy::FleetPolicy;
use super::rule::{Refusal, Rule, Stop, escape};
use super::step::Judge;
use super::trial;
use super::way::Standing;
use super::{Policy, TrustedHead, Verdict, VerifiedRevision, read_commit};
use crate::config::read_version;
use crate::git::{ObjectId, ObjectKind, Objects};

/// The largest tag, in bytes.
const MAX_TAG_BYTES: usize = 1 << 20;

/// How the line begins that a signature begins with.
const SIGNATURE: &[u8] = b"-----BEGIN ";

/// A tag that keeps the grammar, whoever signed it.
#[derive(Debug)]
pub(super) struct Tag {
    /// The tag object.
    id: ObjectId,
    /// As the object says, and the ref.
    pub(super) name: String,
    version: Version,
    /// What it is put on.
    pub(super) commit: ObjectId,
    /// The `Key: value` lines that end its message.
    pub(super) trailers: Vec<(String, String)>,
    signature: Option<Vec<u8>>,
    payload: Vec<u8>,
}

impl Tag {
    /// Reads the tag object `id`, which the source calls `name`.
    pub(super) fn read(objects: &dyn Objects, id: ObjectId, name: &str) -> Result<Self, Stop> {
        let wrong = |detail: String| Refusal::new(Rule::WrongTag, detail).of_tag(id, name);
        let version = read_version(name).ok_or_else(|| wrong("its name is no version".into()))?;
        let object = objects
            .get(&id)
            .map_err(|error| Stop::reading(error, id, Rule::WrongTag))?;
        if object.kind != ObjectKind::Tag {
            return Err(
                wrong(format!("it is not annotated: it is a {}", object.kind))
                    .with_hint("make it with git tag -s: only an annotated tag can be signed")
                    .into(),
            );
        }
        if object.data.len() > MAX_TAG_BYTES {
            return Err(wrong("it is larger than 1 MiB".into()).into());
        }
        let parts = split(id, &object.data).map_err(|detail| wrong(detail.into()))?;
        if parts.name != name.as_bytes() {
            let own = escape(parts.name);
            return Err(wrong(format!("the tag itself says that it is '{own}'")).into());
        }
        Ok(Tag {
            id,
            name: name.to_owned(),
            version,
            commit: parts.commit,
            trailers: parse_trailers(&String::from_utf8_lossy(parts.message)),
            signature: parts.signature.map(<[u8]>::to_owned),
            payload: parts.payload.to_owned(),
        })
    }
}

/// A tag whose signature holds.
#[derive(Debug)]
pub(super) struct Release {
    pub(super) tag: Tag,
    voucher: Voucher,
}

impl Release {
    /// Finds out who signed `tag`.
    fn of(tag: Tag, judge: &Judge<'_>) -> Result<Self, Stop> {
        let Some(signature) = &tag.signature else {
            return Err(Refusal::new(Rule::Unsigned, "it has no signature")
                .of_tag(tag.id, &tag.name)
                .with_hint("sign it: git -c gpg.format=ssh tag -s -f TAG COMMIT; a forge's own releases are not signed by anybody's key")
                .into());
        };
        let voucher = judge
            .identify_tagger(signature, &tag.payload, tag.commit)
            .map_err(|stop| match stop {
                Stop::Refused(refusal) => Stop::Refused(refusal.of_tag(tag.id, &tag.name)),
                unavailable => unavailable,
            })?;
        Ok(Release { tag, voucher })
    }

    /// Who signed it: one whom `own`, the policy of the commit it is put on, lists and who may sign now.
    pub(super) fn signer(
        &self,
        judge: &Judge<'_>,
        own: Option<&FleetPolicy>,
        standing: &Standing,
    ) -> Result<Signer, Refusal> {
        let fingerprint = &self.voucher.fingerprint;
        let signer = judge
            .admit(own, &self.voucher)
            .and_then(|admitted| admitted.valid_now())
            .map_err(|refusal| self.named(refusal))?;
        match standing.reason(fingerprint) {
            None => Ok(signer),
            Some(reason) => Err(self.named(Refusal::new(
                reason.rule(),
                format!("signer '{signer}' is {reason}"),
            ))),
        }
    }

    fn named(&self, refusal: Refusal) -> Refusal {
        refusal
            .of_tag(self.tag.id, &self.tag.name)
            .signed_by(&self.voucher.fingerprint)
    }

    fn wrong(&self, detail: String) -> Refusal {
        self.named(Refusal::new(Rule::WrongTag, detail))
    }
}

/// The verdict on the release that the tag object `id` is.
pub(super) fn judge(
    objects: &dyn Objects,
    policy: &Policy,
    trusted: Option<&TrustedHead>,
    (id, name): (ObjectId, &str),
    now: Timestamp,
) -> Result<Verdict, Stop> {
    let mut judge = Judge::new(objects, policy, now);
    if let Some(head) = trusted {
        judge.start_at(head);
    }
    let release = Release::of(Tag::read(objects, id, name)?, &judge)?;
    if let Some(wanted) = &policy.releases
        && !wanted.matches(&release.tag.version)
    {
        let detail = format!("this host takes releases that meet '{wanted}'");
        return Err(release.wrong(detail).into());
    }
    let before = trusted.and_then(|head| Some((head, head.release.as_ref()?)));
    let is_same = match before {
        None => false,
        Some((head, before)) => {
            let known = read_version(before).ok_or_else(|| {
                let detail = format!("the recorded release '{before}' is no version");
                Refusal::new(Rule::StateMissing, detail).of(head.commit)
            })?;
            match release.tag.version.cmp_precedence(&known) {
                std::cmp::Ordering::Greater => false,
                std::cmp::Ordering::Equal => true,
                std::cmp::Ordering::Less => {
                    return Ok(Verdict::Behind {
                        trusted: head.commit,
                        tip: release.tag.commit,
                        releases: Some(Box::new((before.clone(), release.tag.name))),
                    });
                }
            }
        }
    };
    let verdict = trial::judge(
        objects,
        policy,
        trusted,
        release.tag.commit,
        Some(&release),
        now,
    )?;
    match (verdict, trusted) {
        (Verdict::Unchanged, Some(_)) if is_same => Ok(Verdict::Unchanged),
        (Verdict::Accepted(_), Some(head)) if is_same => {
            let detail = format!(
                "its version was used for revision {}, and it is now put on {}",
                head.commit.to_hex_with_len(7),
                release.tag.commit.to_hex_with_len(7)
            );
            Err(release.wrong(detail).into())
        }
        (Verdict::Unchanged, Some(head)) => release_again(objects, policy, head, &release, now),
        (verdict, _) => Ok(verdict),
    }
}

/// What is trusted already is another release now.
fn release_again(
    objects: &dyn Objects,
    policy: &Policy,
    head: &TrustedHead,
    release: &Release,
    now: Timestamp,
) -> Result<Verdict, Stop> {
    let mut judge = Judge::new(objects, policy, now);
    judge.start_at(head);
    let own = judge.policy_of(head.commit, head.tree)?;
    release.signer(&judge, own.as_deref(), &Standing::of_head(head))?;
    let commit = read_commit(objects, head.commit)?;
    let revision = VerifiedRevision::of_head(&commit, &policy.source_path, head.clone());
    let revision = revision.released_as(Some(release.tag.name.clone()));
    Ok(Verdict::Accepted(Box::new(revision)))
}

/// What a tag object is made of (git-mktag(1), gitformat-signature(5)).
pub(super) struct Parts<'a> {
    commit: ObjectId,
    name: &'a [u8],
    pub(super) message: &'a [u8],
    pub(super) signature: Option<&'a [u8]>,
    /// What was signed: all before the signature.
    pub(super) payload: &'a [u8],
}

/// Splits a tag object. Its four headers stand in their order, and no other is taken: two readers could understand it differently.
pub(super) fn split(id: ObjectId, data: &[u8]) -> Result<Parts<'_>, &'static str> {
    if data.contains(&0) {
        return Err("it contains a NUL byte");
    }
    let mut rest = data;
    let mut line = || {
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        let line = &rest[..end];
        rest = &rest[end + 1..];
        Some(line)
    };
    let mut header = |name: &str| {
        let line = line()?.strip_prefix(name.as_bytes())?.strip_prefix(b" ")?;
        (!line.contains(&b'\r')).then_some(line)
    };
    let object = header("object").and_then(|hex| parse_id(id, hex));
    let commit = object.ok_or("it does not begin with the id of an object")?;
    match header("type") {
        Some(b"commit") => {}
        Some(_) => return Err("it is put on something else than a commit"),
        None => return Err("it does not say what it is put on"),
    }
    let name = header("tag").ok_or("it has no name")?;
    let tagger = header("tagger").filter(|identity| is_date(identity));
    tagger.ok_or("it does not say who made it and when")?;
    if line() != Some(b"") {
        return Err("it has another header than those of tags");
    }
    let starts =
        |at: usize| rest[at..].starts_with(SIGNATURE) && (at == 0 || rest[at - 1] == b'\n');
    let (message, signature) = match (0..rest.len()).find(|&at| starts(at)) {
        None => (rest, None),
        Some(at) => {
            let signature = rest[at..].strip_suffix(b"\n").unwrap_or(&rest[at..]);
            (&rest[..at], Some(signature))
        }
    };
    let payload = match signature {
        None => data,
        Some(_) => &data[..data.len() - rest.len() + message.len()],
    };
    Ok(Parts {
        commit,
        name,
        message,
        signature,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: ObjectId = ObjectId::null(gix::hash::Kind::Sha1);

    /// As git 2.47 makes them.
    const REAL: &str = "\
object 1f0c1a1b2e3d4c5b6a79880716253443526170ff
type commit
tag v1.4.0
tagger Tess Ter <tess@example.net> 1767323045 +0100

v1.4.0

Limpet-Channel: prod
-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQ==
-----END SSH SIGNATURE-----
";

    #[test]
    fn a_tag_is_split_into_what_it_says_and_its_signature() {
        let parts = split(ID, REAL.as_bytes()).unwrap();
        assert_eq!(parts.name, b"v1.4.0");
        assert!(parts.payload.ends_with(b"prod\n"));
        assert!(
            parts
                .signature
                .unwrap()
                .ends_with(b"-----END SSH SIGNATURE-----")
        );
        let trailers = parse_trailers(&String::from_utf8_lossy(parts.message));
        assert_eq!(trailers, [("Limpet-Channel".into(), "prod".into())]);
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_refused() {
        let refused = |text: String| split(ID, text.as_bytes()).err().unwrap_or("taken");
        let without = |line: &str| refused(REAL.replace(line, ""));
        let before =
            |line: &str, new: &str| refused(REAL.replacen(line, &format!("{new}{line}"), 1));
        insta::assert_snapshot!([
            without("object 1f0c1a1b2e3d4c5b6a79880716253443526170ff\n"),
            before("type", "object 1f0c1a1b2e3d4c5b6a79880716253443526170ff\n"),
            refused(REAL.replace("type commit", "type tag")),
            before("tagger", "tag v9.9.9\n"),
            without("tagger Tess Ter <tess@example.net> 1767323045 +0100\n"),
            before("\nv1.4.0\n", "gpgsig -----BEGIN SSH SIGNATURE-----\n"),
            refused(REAL.replace("1f0c1a1b2e", "1F0C1A1B2E")),
            refused(REAL.replace("v1.4.0\n", "v1.4.0\0\n")),
        ].join("\n"), @r"
        it does not begin with the id of an object
        it does not say what it is put on
        it is put on something else than a commit
        it does not say who made it and when
        it does not say who made it and when
        it has another header than those of tags
        it does not begin with the id of an object
        it contains a NUL byte
        ");
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in any::<Vec<u8>>(), at in 0usize..300, byte: u8) {
            let _ = split(ID, &bytes);
            let mut nearly = REAL.as_bytes().to_owned();
            let at = at % nearly.len();
            nearly[at] = byte;
            let _ = split(ID, &nearly);
        }
    }
}
