//! Contents that are encrypted, on the host that can open them.
//!
//! A desired state has them *sealed*, as the repository does, so that its digest is the same wherever it is rendered. The host's key
//! opens them in memory, to write them and to hash them with that key; whatever is compared, remembered and told is the *keyed hash*.
//!
//! Invariant: what was opened leaves this process in nothing but the file that declares it. Without the key a sealed content blocks its
//! own path, and what needs that, and no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::age::{Closed, Identity};
use crate::kinds::file::{
    Applied, DesiredPath, MAX_CONTENT_BYTES, ObservedPaths, Original, PathSpec, Remembered, Walks,
};
use crate::kinds::kind::{Owned, Part, Sealed};
use crate::model::{Class, Failure, Name};
use crate::sys::Host;
use crate::sys::files::{Entry, Hashing, Walk};

/// Where the host's key is when systemd hands it to the agent.
pub const CREDENTIAL: &str = "/run/credentials/limpet.service/age-key";

/// Where it is otherwise.
pub const KEY_FILE: &str = "/etc/limpet/age.key";

/// No key file is as long as this.
const MAX_KEY_BYTES: u64 = 4096;

/// The host's key, and what it opened.
#[derive(Debug, Default)]
pub struct Vault {
    identity: Option<Result<Arc<Identity>, Failure>>,
    /// Keyed hash and size of what was opened, by what it was sealed as.
    opened: BTreeMap<[u8; 32], ([u8; 32], u64)>,
    /// Why a path stays closed.
    closed: BTreeMap<Name, Failure>,
}

impl Vault {
    /// Reads the host's key where anything in `desired` or `owned` needs it, and gives every sealed content its keyed hash.
    pub fn open(
        &mut self,
        host: &Host,
        desired: &mut [DesiredPath],
        owned: &[Owned<Original, Remembered>],
    ) {
        self.closed.clear();
        let is_needed =
            desired.iter().any(|path| path.sealed().is_some()) || owned.iter().any(is_secret);
        if !is_needed {
            *self = Vault::default();
            return;
        }
        let identity = read_identity(host).map(Arc::new);
        let recipient = |identity: &Result<Arc<Identity>, Failure>| {
            identity.as_ref().ok().map(|identity| identity.recipient())
        };
        if self.identity.as_ref().and_then(recipient) != recipient(&identity) {
            self.opened.clear();
        }
        let known = std::mem::take(&mut self.opened);
        for path in desired {
            let PathSpec::File {
                content: Some(content),
                ..
            } = &mut path.spec
            else {
                continue;
            };
            let Some(sealed) = content.as_sealed() else {
                continue;
            };
            let found = match (known.get(&sealed.id), &identity) {
                (Some(found), _) => Ok(*found),
                (None, Ok(identity)) => open(sealed, identity)
                    .map(|plain| (identity.keyed_hash(&plain), plain.len() as u64)),
                (None, Err(failure)) => Err(failure.clone()),
            };
            let id = sealed.id;
            (content.sha256, content.size) = match found {
                Ok(found) => {
                    self.opened.insert(id, found);
                    found
                }
                Err(failure) => {
                    let message = format!("failed to decrypt {}: {}", path.id, failure.message);
                    let failure = Failure { message, ..failure }.about(path.id.clone());
                    self.closed.insert(path.path.clone(), failure);
                    (id, sealed.size)
                }
            };
        }
        self.identity = Some(identity);
    }

    /// Hashes with the key what is on the host in the place of secrets, and has no say on those that stay closed.
    pub fn look(
        &self,
        host: &Host,
        desired: &[DesiredPath],
        owned: &[Owned<Original, Remembered>],
        observed: &mut ObservedPaths,
    ) {
        let Some(identity) = &self.identity else {
            return;
        };
        let is_compared_as_it_is = |path: &Name| {
            let found = desired.binary_search_by(|item| item.path.cmp(path));
            let spec = found.ok().map(|index| &desired[index]);
            spec.is_some_and(|item| {
                let has_content = matches!(
                    item.spec,
                    PathSpec::File {
                        content: Some(_),
                        ..
                    }
                );
                has_content && item.sealed().is_none()
            })
        };
        let declared = desired.iter().filter(|path| path.sealed().is_some());
        let left = owned.iter().filter(|owned| is_secret(owned));
        let left = left.filter(|owned| !is_compared_as_it_is(&owned.key));
        let left = left.map(|owned| {
            let applied = owned.applied.applied();
            (&owned.key, applied.and_then(Applied::as_user))
        });
        let declared = declared.map(|path| (&path.path, path.as_user.as_ref()));
        let mut walks = Walks::new(host);
        for (path, as_user) in declared.chain(left) {
            let hashed = match (self.closed.get(path), identity, walks.find(as_user)) {
                (Some(failure), ..) => Err(failure.clone()),
                (None, Err(failure), _) => Err(failure.clone()),
                (None, _, Err(failure)) => Err(failure),
                (None, _, Ok(None)) => Ok(None),
                (None, Ok(identity), Ok(Some(walk))) => read_secret(walk, path)
                    .map(|bytes| bytes.map(|bytes| identity.keyed_hash(&bytes))),
            };
            let seen = observed.paths.get_mut(path);
            match (seen, hashed) {
                (Some(Ok(seen)), Ok(hashed)) => {
                    if let Entry::File { sha256, .. } = &mut seen.look.entry {
                        *sha256 = hashed;
                    }
                }
                (Some(seen), Err(failure)) => *seen = Err(Box::new(failure)),
                _ => {}
            }
        }
    }

    /// The host's key.
    pub fn identity(&self) -> Result<&Identity, Failure> {
        match &self.identity {
            Some(Ok(identity)) => Ok(identity),
            Some(Err(failure)) => Err(failure.clone()),
            None => Err(Failure::new(
                Class::Bug,
                "failed to decrypt a secret: the host's key was not read",
            )),
        }
    }
}

fn is_secret(owned: &Owned<Original, Remembered>) -> bool {
    owned.applied.applied().is_some_and(Applied::is_secret)
}

/// What `sealed` is once it is opened.
pub fn open(sealed: &Sealed, identity: &Identity) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.size as usize));
    for part in &sealed.parts {
        match part {
            Part::Plain(bytes) => plain.extend_from_slice(bytes),
            Part::Secret(bytes) => {
                let opened = crate::age::open(bytes, identity);
                plain.extend_from_slice(&opened.map_err(|closed| why_closed(closed, identity))?);
            }
        }
    }
    Ok(plain)
}

fn why_closed(closed: Closed, identity: &Identity) -> Failure {
    match closed {
        Closed::ForOthers => Failure::new(
            Class::Author,
            format!(
                "it is not encrypted for this host's key, {}",
                identity.recipient()
            ),
        )
        .with_hint(
            "name that key in the inventory (age = \"age1…\"), and run 'limpet secret rekey'",
        ),
        Closed::Malformed(why) => Failure::new(Class::Author, why)
            .with_hint("encrypt it once more: limpet secret encrypt --host NAME FILE"),
    }
}

/// The host's key: the one that systemd hands to the agent, or the one in its file.
pub fn read_identity(host: &Host) -> Result<Identity, Failure> {
    for path in [CREDENTIAL, KEY_FILE] {
        let Entry::File { attributes, .. } = host.look(path, Hashing::Skip)?.entry else {
            continue;
        };
        let is_ours = attributes.uid == host.root_account()?.0 && attributes.mode & 0o077 == 0;
        if !is_ours {
            let message = format!("refused the key '{path}': others than root may read it");
            return Err(Failure::new(Class::Host, message).with_hint(format!(
                "chown root:root {path} && chmod 0600 {path}; if somebody read it, make another and run 'limpet secret rekey'"
            )));
        }
        let bytes = host.read_file(path, MAX_KEY_BYTES)?.unwrap_or_default();
        let bytes = Zeroizing::new(bytes);
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        return Identity::parse(text).map_err(|why| {
            Failure::new(
                Class::Host,
                format!("failed to read the key '{path}': {why}"),
            )
            .with_hint("it is a file as 'limpet secret identity --create' makes it")
        });
    }
    Err(Failure::new(
        Class::Host,
        format!("this host has no key: there is no '{KEY_FILE}'"),
    )
    .with_hint(
        "make one with 'limpet secret identity --create', and name what it prints in the inventory: age = \"age1…\"",
    ))
}

/// The bytes of a file that is to be compared with a secret; none of one that cannot be it.
fn read_secret(walk: &mut Walk, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    match walk.look(path, Hashing::Skip)?.entry {
        Entry::File { size, .. } if size <= MAX_CONTENT_BYTES => {
            let bytes = walk.read_file(path, MAX_CONTENT_BYTES)?;
            Ok(bytes.map(Zeroizing::new))
        }
        _ => Ok(None),
    }
}
