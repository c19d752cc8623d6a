//! Entry points for fuzzing what stands in a repository.

use std::collections::BTreeMap;

use super::openpgp::parse_certificates;
use super::{Fleet, HostIdentity, Limits, canonical_json};
use crate::document::{self, Source};
use crate::git::{EntryKind, ObjectError, Tree, TreeFile};
use crate::model::Class;

/// What goes before each file of a repository that is one text.
const FILE: &str = "\n--- ";

/// A repository in memory.
struct Files<'text>(BTreeMap<&'text str, &'text [u8]>);

impl Tree for Files<'_> {
    fn list(&self, path: &str) -> Result<Option<Vec<(String, EntryKind)>>, ObjectError> {
        let prefix = match path {
            "" => String::new(),
            path => format!("{path}/"),
        };
        let below = self.0.keys().filter_map(|file| file.strip_prefix(&*prefix));
        let entries: BTreeMap<String, EntryKind> = below
            .map(|rest| match rest.split_once('/') {
                Some((directory, _)) => (directory.to_owned(), EntryKind::Directory),
                None => (rest.to_owned(), EntryKind::File),
            })
            .collect();
        Ok((!entries.is_empty()).then(|| entries.into_iter().collect()))
    }

    fn read(&self, path: &str) -> Result<Option<TreeFile>, ObjectError> {
        Ok(self.0.get(path).map(|data| TreeFile {
            data: data.to_vec(),
            id: None,
        }))
    }
}

/// Everything that is done with a repository: each host is rendered, each layer checked, each mistake drawn. How many hosts have none.
fn use_all(files: &Files) -> usize {
    let drawn = |failures: Vec<crate::model::Failure>| {
        for failure in failures {
            assert!(!failure.message.is_empty());
        }
    };
    let fleet = match Fleet::load(files) {
        Ok(fleet) => fleet,
        Err(failures) => {
            drawn(failures);
            return 0;
        }
    };
    let mut sound = 0;
    let layers = fleet.layer_names().map(<[String]>::to_vec);
    for layer in layers.unwrap_or_default().iter().take(8) {
        drawn(fleet.check_layer(layer));
    }
    let hosts = fleet.hosts().unwrap_or_default();
    for host in hosts.iter().take(4) {
        let identity = HostIdentity::named(host);
        fleet.unknown_facts(&identity);
        fleet.recipient(host);
        match fleet.render(&identity, &Limits::default()) {
            Err(failures) => drawn(failures),
            Ok(rendered) => {
                sound += 1;
                let state = fleet.render_state(&identity, &Limits::default());
                let again = state
                    .expect("what is rendered once is rendered again")
                    .state;
                assert_eq!(canonical_json(&again), canonical_json(&rendered.state));
            }
        }
    }
    sound
}

/// A whole repository: `--- path`, a line break and the file, one after the other.
pub fn fleet(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let text = format!("\n{text}");
    let files = text.split(FILE).skip(1).filter_map(|file| {
        let (path, data) = file.split_once('\n')?;
        let is_path = path.split('/').all(|name| !matches!(name, "" | "." | ".."));
        is_path.then_some((path, data.as_bytes()))
    });
    use_all(&Files(files.collect()));
}

const MANIFEST: &[u8] =
    b"format = 1\nfleet = \"f\"\n[[match]]\nhosts = [\"*\"]\nlayers = [\"a\"]\n";

/// A layer that two hosts have, which is a host's own file for a third; before that it is TOML.
pub fn layer(bytes: &[u8]) {
    use_layer(bytes);
}

fn use_layer(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    if let Err(mistake) = document::parse(&Source::new("layer.toml", &*text)) {
        mistake.draw(true);
        mistake.into_failure(Class::Author);
    }
    let data = text.as_bytes();
    use_all(&Files(BTreeMap::from([
        ("fleet.toml", MANIFEST),
        (
            "inventory/hosts.toml",
            b"[host.one]\n[host.two]\n".as_slice(),
        ),
        ("layers/a/a.toml", data),
        ("layers/a/files/file", b"a file\n"),
        ("layers/a/files/file.j2", b"{{ host.name }} {{ a }}\n"),
        ("hosts/three/three.toml", data),
        ("hosts/three/files/file", b"a file\n"),
    ])))
}

/// A template, as the content of a file.
pub fn template(bytes: &[u8]) {
    use_template(bytes);
}

fn use_template(bytes: &[u8]) -> usize {
    use_all(&Files(BTreeMap::from([
        ("fleet.toml", MANIFEST),
        (
            "inventory/hosts.toml",
            b"[host.one]\nlabels = { site = \"lagos\" }\n".as_slice(),
        ),
        (
            "layers/a/a.toml",
            b"[vars]\nport = 80\nnames = [\"a\", \"b\"]\ntable = { key = \"value\" }\n\
            [file.\"/etc/a\"]\nsource = \"a.j2\"\ntemplate = true\n",
        ),
        ("layers/a/files/a.j2", bytes),
    ])))
}

/// The key of a package repository.
pub fn openpgp(bytes: &[u8]) {
    if let Ok(found) = parse_certificates(bytes) {
        assert!(!found.fingerprints.is_empty());
        let again = parse_certificates(&found.binary);
        assert_eq!(again.as_ref(), Ok(&found), "what is left is certificates");
        let armored = parse_certificates(found.armored().as_bytes());
        assert_eq!(armored, Ok(found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_the_bytes_has_no_mistakes() {
        assert_eq!(use_layer(b"[file.\"/etc/b\"]\nsource = \"file\"\n"), 3);
        assert_eq!(
            use_template(b"{{ port }} {{ host.name }} {{ host.labels.site }}\n"),
            1
        );
    }
}
