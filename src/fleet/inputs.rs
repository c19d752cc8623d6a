//! What a rendering depended on, so that a revision which changes nothing but the bytes of raw files need not be rendered.
//!
//! Most pushes change the content of a few files that layers name with `source`. Their bytes decide nothing but a content's hash and
//! size: whatever else the state says follows from the TOML files, the templates, the host and its limits.
//!
//! Invariant: [`Inputs::derive`] yields what rendering would, or nothing. Where anything else changed, or might have, it is nothing.

use std::collections::{BTreeSet, HashMap};

use ring::digest::{SHA256, digest};

use super::sources::content_of;
use super::{DesiredState, HostIdentity, Limits, Rendered, digest as state_digest};
use crate::git::{ObjectId, Tree};
use crate::kinds::file::PathSpec;
use crate::kinds::kind::{Content, ContentSource};
use crate::model::Failure;

/// How many states are made one from the other, and from how many bytes of contents that were replaced meanwhile: what the earlier
/// revisions needed is kept for the later ones, and has to be given up now and then.
const MOST_IN_A_ROW: u32 = 32;
const MOST_REPLACED: u64 = 16 << 20;

/// What a state was rendered from.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    host: HostIdentity,
    limits: Limits,
    /// The tree; `None` where it has no id, or many hosts were rendered from it.
    tree: Option<ObjectId>,
    warnings: Vec<Failure>,
    /// Files that were read as text, other than TOML files.
    texts: BTreeSet<String>,
    /// Files of which only hash and size matter, in order.
    raw: Vec<Raw>,
    in_a_row: u32,
    replaced: u64,
}

/// A file of which only hash and size matter. There may be tens of thousands, hence no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Raw {
    path: u128,
    blob: u64,
}

impl Raw {
    pub(super) fn new(path: &str, blob: &ObjectId) -> Self {
        Raw {
            path: name_of(path),
            blob: mark_of(blob),
        }
    }
}

/// As good as the path: half a SHA-256.
fn name_of(path: &str) -> u128 {
    let hash = digest(&SHA256, path.as_bytes());
    hash.as_ref()
        .iter()
        .take(16)
        .fold(0, |name, byte| name << 8 | u128::from(*byte))
}

/// The beginning of the id. Two that have it in common are taken for the same, which costs a rendering.
fn mark_of(blob: &ObjectId) -> u64 {
    blob.as_slice()
        .iter()
        .take(8)
        .fold(0, |mark, byte| mark << 8 | u64::from(*byte))
}

impl Inputs {
    pub(super) fn new(
        host: &HostIdentity,
        limits: &Limits,
        tree: Option<ObjectId>,
        texts: BTreeSet<String>,
        mut raw: Vec<Raw>,
        warnings: Vec<Failure>,
    ) -> Self {
        raw.sort_unstable();
        raw.dedup();
        raw.shrink_to_fit();
        Inputs {
            host: host.clone(),
            limits: limits.clone(),
            tree,
            warnings,
            texts,
            raw,
            in_a_row: 0,
            replaced: 0,
        }
    }

    /// What rendering `tree` for `host` yields, where it differs from what `before` was rendered from in nothing but raw contents.
    pub(super) fn derive(
        &self,
        before: &DesiredState,
        tree: &dyn Tree,
        host: &HostIdentity,
        limits: &Limits,
    ) -> Option<Rendered> {
        if self.host != *host || self.limits != *limits || self.in_a_row >= MOST_IN_A_ROW {
            return None;
        }
        let id = tree.id()?;
        // What cannot be read is rendered anew, which says what is the matter.
        let changed = tree.changed_since(self.tree.as_ref()?).ok()??;
        let mut inputs = self.clone();
        let mut contents: HashMap<ObjectId, Content> = HashMap::new();
        for file in changed {
            if file.path.ends_with(".toml") || self.texts.contains(&file.path) {
                return None;
            }
            let path = name_of(&file.path);
            let Ok(position) = self.raw.binary_search_by_key(&path, |raw| raw.path) else {
                continue; // nothing of this host's
            };
            // Contents are found in the state by their blobs, so a blob must be this file's alone.
            let mark = mark_of(&file.before);
            let sharers = self.raw.iter().filter(|raw| raw.blob == mark);
            if self.raw[position].blob != mark || sharers.count() != 1 {
                return None;
            }
            inputs.raw[position].blob = mark_of(&file.after);
            let content = content_of(tree.read(&file.path).ok()??);
            contents.insert(file.before, content);
        }
        let mut state = before.clone();
        for path in &mut state.paths {
            if let PathSpec::File {
                content: Some(content),
                ..
            } = &mut path.spec
                && let ContentSource::Blob(blob) = &content.source
                && let Some(new) = contents.get(blob)
            {
                inputs.replaced += content.size;
                *content = new.clone();
            }
        }
        if inputs.replaced > MOST_REPLACED {
            return None;
        }
        state.digest = state_digest::compute(&state);
        inputs.tree = Some(id);
        inputs.in_a_row += 1;
        Some(Rendered {
            state,
            layers: Vec::new(),
            values: Vec::new(),
            variables: Vec::new(),
            warnings: inputs.warnings.clone(),
            inputs,
            is_derived: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fleet::{render_state, render_state_after};
    use crate::git::{ChangedFile, EntryKind, ObjectError, TreeFile};

    const LAYER: &str = "[file.\"/etc/motd\"]\nsource = \"motd\"\n[file.\"/etc/issue\"]\nsource = \"issue\"\n\
        [file.\"/etc/host\"]\nsource = \"host.j2\"\ntemplate = true\n\
        [unit.\"app.service\"]\nsource = \"app.service\"\n";

    /// Files with ids of their own, and those of the tree before.
    #[derive(Clone)]
    struct Files {
        files: BTreeMap<&'static str, &'static str>,
        before: BTreeMap<&'static str, &'static str>,
    }

    fn id(text: &str) -> ObjectId {
        let kind = gix::hash::Kind::Sha1;
        gix::objs::compute_hash(kind, gix::objs::Kind::Blob, text.as_bytes()).unwrap()
    }

    impl Files {
        fn new() -> Self {
            let manifest =
                "format = 1\nfleet = \"f\"\n[[match]]\nhosts = [\"*\"]\nlayers = [\"base\"]\n";
            Files {
                files: BTreeMap::from([
                    ("README.md", "# Read me"),
                    ("fleet.toml", manifest),
                    ("inventory/hosts.toml", "[host.gw]\n"),
                    ("layers/base/base.toml", LAYER),
                    (
                        "layers/base/files/app.service",
                        "[Service]\nExecStart=/bin/true\n",
                    ),
                    ("layers/base/files/host.j2", "{{ host.name }}"),
                    ("layers/base/files/issue", "issue"),
                    ("layers/base/files/motd", "motd"),
                ]),
                before: BTreeMap::new(),
            }
        }

        fn with(&self, changes: &[(&'static str, &'static str)]) -> Self {
            let mut files = self.files.clone();
            files.extend(changes.iter().copied());
            Files {
                files,
                before: self.files.clone(),
            }
        }
    }

    impl Tree for Files {
        fn list(&self, path: &str) -> Result<Option<Vec<(String, EntryKind)>>, ObjectError> {
            let mut names = BTreeMap::new();
            for file in self.files.keys() {
                let Some(rest) = file.strip_prefix(path) else {
                    continue;
                };
                match rest.trim_start_matches('/').split_once('/') {
                    Some((name, _)) => names.insert(name.to_owned(), EntryKind::Directory),
                    None => names.insert(rest.trim_start_matches('/').to_owned(), EntryKind::File),
                };
            }
            Ok((!names.is_empty()).then(|| names.into_iter().collect()))
        }

        fn read(&self, path: &str) -> Result<Option<TreeFile>, ObjectError> {
            Ok(self.files.get(path).map(|text| TreeFile {
                data: text.as_bytes().to_vec(),
                id: Some(id(text)),
            }))
        }

        fn id(&self) -> Option<ObjectId> {
            Some(id(&format!("{:?}", self.files)))
        }

        fn changed_since(
            &self,
            before: &ObjectId,
        ) -> Result<Option<Vec<ChangedFile>>, ObjectError> {
            assert_eq!(*before, id(&format!("{:?}", self.before)));
            if !self.files.keys().eq(self.before.keys()) {
                return Ok(None);
            }
            let changed = self.files.iter().map(|(path, text)| ChangedFile {
                path: (*path).to_owned(),
                before: id(self.before[path]),
                after: id(text),
            });
            Ok(Some(
                changed.filter(|file| file.before != file.after).collect(),
            ))
        }
    }

    /// What is rendered after `first` is what is rendered anew; and is it made from the state before.
    #[track_caller]
    fn check(first: &Files, changes: &[(&'static str, &'static str)], derived: bool) {
        let (host, limits) = (HostIdentity::named("gw"), Limits::default());
        let before = render_state(first, &host, &limits).unwrap();
        let second = first.with(changes);
        let anew = render_state(&second, &host, &limits).unwrap();
        let (state, inputs) = (&before.state, Some(&before.inputs));
        let after = render_state_after(state, inputs, &second, &host, &limits).unwrap();
        assert_eq!(after.is_derived, derived, "{changes:?}");
        assert_eq!(after.state.digest, anew.state.digest, "{changes:?}");
        assert_eq!(after.state.paths, anew.state.paths, "{changes:?}");
        assert_eq!(after.inputs.raw, anew.inputs.raw, "{changes:?}");
    }

    #[test]
    fn a_state_is_made_from_the_one_before_where_only_raw_contents_differ() {
        let first = Files::new();
        let motd = ("layers/base/files/motd", "another");
        check(&first, &[motd], true);
        check(&first, &[motd, ("layers/base/files/issue", "motd")], true);
        check(&first, &[("README.md", "# Another")], true);
        check(
            &first,
            &[motd, ("layers/base/files/host.j2", "another")],
            false,
        );
        check(
            &first,
            &[(
                "layers/base/files/app.service",
                "[Service]\nExecStart=/bin/false\n",
            )],
            false,
        );
        check(
            &first,
            &[(
                "layers/base/base.toml",
                "[file.\"/etc/motd\"]\nsource = \"issue\"\n",
            )],
            false,
        );
        check(&first, &[motd, ("layers/base/files/new", "new")], false);
    }

    #[test]
    fn a_file_with_the_bytes_of_another_is_not_taken_for_it() {
        let first = Files::new().with(&[("layers/base/files/motd", "issue")]);
        check(&first, &[("layers/base/files/motd", "motd")], false);
        let first = Files::new().with(&[("README.md", "motd")]);
        check(&first, &[("README.md", "# Read me")], true);
    }

    #[test]
    fn another_host_or_limit_is_rendered_and_so_is_every_so_often_one() {
        let first = Files::new();
        let (gw, limits) = (HostIdentity::named("gw"), Limits::default());
        let before = render_state(&first, &gw, &limits).unwrap();
        let same = first.with(&[]);
        let is_derived = |host: &HostIdentity, limits: &Limits, inputs: &Inputs| {
            let derived = inputs.derive(&before.state, &same, host, limits);
            derived.is_some()
        };
        assert!(is_derived(&gw, &limits, &before.inputs));
        let labelled = HostIdentity {
            labels: BTreeMap::from([("site".to_owned(), "lab".to_owned())]),
            ..gw.clone()
        };
        assert!(!is_derived(&labelled, &limits, &before.inputs));
        let generous = Limits {
            allow_suid: true,
            ..Limits::default()
        };
        assert!(!is_derived(&gw, &generous, &before.inputs));
        let mut inputs = before.inputs.clone();
        for _ in 0..MOST_IN_A_ROW {
            let derived = inputs.derive(&before.state, &same, &gw, &limits).unwrap();
            inputs = derived.inputs;
            // The same tree again, which is what the next one is compared with.
            inputs.tree = before.inputs.tree;
        }
        assert!(!is_derived(&gw, &limits, &inputs));
    }
}
