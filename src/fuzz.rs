//! The parsers of untrusted bytes, one entry point each, for libFuzzer in `tests/fuzz`.
//!
//! Each takes any bytes and panics when a law of its parser is broken; the laws stand beside the parsers.
//!
//! Invariant: nothing of this is in the program: it is compiled for tests, and with the feature `fuzz`.

use crate::config::{Config, SourceUrl, is_branch, parse_duration};
use crate::control;
use crate::{age, archive, fetch, fleet, kinds, trust};

/// One entry point.
pub type Target = fn(&[u8]);

/// All of them by name; `tests/fuzz/corpus` has a directory for each.
pub const TARGETS: &[(&str, Target)] = &[
    ("sshsig", trust::fuzz::sshsig),
    #[cfg(feature = "openpgp")]
    ("openpgp-signature", trust::fuzz::openpgp_signature),
    ("allowed-signers", trust::fuzz::allowed_signers),
    ("revoked", trust::fuzz::revoked),
    ("policy", trust::fuzz::policy),
    ("commit", trust::fuzz::commit),
    ("tree", trust::fuzz::tree),
    ("fleet", fleet::fuzz::fleet),
    ("layer", fleet::fuzz::layer),
    ("template", fleet::fuzz::template),
    ("openpgp", fleet::fuzz::openpgp),
    ("control", control),
    ("fetch-request", fetch::fuzz::request),
    ("fetch-answer", fetch::fuzz::answer),
    ("git-server", fetch::fuzz::server),
    ("pack-header", fetch::fuzz::pack_header),
    ("dpkg", kinds::package::fuzz::dpkg),
    ("rpm", kinds::package::fuzz::rpm),
    ("versions", kinds::package::fuzz::versions),
    ("secret", secret),
    ("archive", unpack),
    ("host-configuration", host_configuration),
];

/// The entry point of this name.
pub fn find(name: &str) -> Option<Target> {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.map(|(_, target)| *target)
}

/// What people and programs write to the control socket, and what the agent answers.
fn control(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<control::Request>(bytes) {
        let again = serde_json::to_vec(&request).expect("a request can be written");
        let read: control::Request =
            serde_json::from_slice(&again).expect("what was written can be read");
        assert_eq!(read, request);
    }
    let _ = serde_json::from_slice::<control::Reply>(bytes);
}

/// Encrypted files, and the keys for them.
fn secret(bytes: &[u8]) {
    // The key that the corpus is encrypted for; it guards nothing.
    const KEY: &str = "AGE-SECRET-KEY-18DLR83SR2AM8R6VREY0ZWH4JRFTRFSUPN5EKMNFAFP36VZR7WKFQJ63J9C";
    let identity = age::Identity::parse(KEY).expect("it is a key");
    if let Ok(plain) = age::open(bytes, &identity) {
        assert!(age::is_sealed(bytes) && plain.len() <= age::MAX_BYTES);
    }
    let text = String::from_utf8_lossy(bytes);
    if let Ok(identity) = age::Identity::parse(&text) {
        let again = age::Identity::parse(&identity.to_text()).expect("a key can be written");
        assert_eq!(again.recipient(), identity.recipient());
    }
    if let Ok(recipient) = text.parse::<age::Recipient>() {
        assert_eq!(recipient.to_string(), text);
    }
}

/// A tar archive, plain or compressed.
fn unpack(bytes: &[u8]) {
    if let Ok(index) = archive::index(bytes) {
        for entry in &index {
            let names = entry.path.split('/');
            assert!(!names.clone().any(|name| matches!(name, "" | "." | "..")));
        }
        let mut members = 0;
        let counted = archive::for_each_file(bytes, &mut |_, _| {
            members += 1;
            Ok::<(), archive::Refused>(())
        });
        assert_eq!(counted, Ok(()), "what was read once is read again");
        assert!(
            members > 0
                || !index
                    .iter()
                    .any(|entry| matches!(entry.what, archive::What::File { .. }))
        );
    }
}

/// limpet.toml, and the grammar of what stands in it.
fn host_configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = Config::parse(&[("limpet.toml".to_owned(), text.clone().into_owned())]);
    parse_duration(&text);
    is_branch(&text);
    if let Ok(url) = SourceUrl::parse(&text) {
        assert_eq!(SourceUrl::parse(url.as_str()), Ok(url));
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the corpus is read as it lies in the source"
)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// What fuzzing came upon, one file for each way through a parser.
    #[test]
    fn the_corpus_breaks_no_law() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        let names = |path: &Path| -> BTreeSet<String> {
            let entries = fs::read_dir(path).unwrap();
            let name = |entry: Result<fs::DirEntry, _>| entry.unwrap().file_name().into_string();
            entries.map(|entry| name(entry).unwrap()).collect()
        };
        let known = TARGETS.iter().map(|(name, _)| (*name).to_owned());
        assert_eq!(names(&corpus), known.collect());
        for (name, target) in TARGETS {
            let directory = corpus.join(name);
            let files = names(&directory);
            assert!(!files.is_empty(), "{name} has no corpus");
            for file in files {
                eprintln!("{name}/{file}");
                target(&fs::read(directory.join(file)).unwrap());
            }
        }
    }
}
