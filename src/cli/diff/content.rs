//! What contents differ in, as a unified diff.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::fleet::compare::{ContentDifference, Difference};
use crate::git::{Objects, hex};
use crate::kinds::file::hunks;
use crate::kinds::kind::{Content, ContentSource};

/// Larger contents are not compared line by line.
const LIMIT_BYTES: u64 = 1 << 20;

/// What can be said about two contents.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Shown {
    /// The lines that differ, without the two lines that name the files.
    Diff(Rc<str>),
    /// Nothing but this, in a few words.
    Words(Rc<str>),
}

/// By path, and the hashes before and after.
type Key = (String, Option<[u8; 32]>, Option<[u8; 32]>);

/// Compares contents, each pair once however many hosts have it.
pub(super) struct Contents<'a> {
    objects: &'a dyn Objects,
    compared: RefCell<HashMap<Key, Shown>>,
}

impl<'a> Contents<'a> {
    pub fn new(objects: &'a dyn Objects) -> Self {
        Contents {
            objects,
            compared: RefCell::default(),
        }
    }

    /// What the contents of `difference` differ in, if they do.
    pub fn show(&self, difference: &Difference) -> Option<Shown> {
        let content = difference.content.as_ref()?;
        let hash = |content: &Option<Content>| content.as_ref().map(|content| content.sha256);
        let path = difference
            .path
            .as_ref()
            .map_or(difference.resource.name.as_str(), String::as_str);
        let key = (path.to_owned(), hash(&content.before), hash(&content.after));
        if let Some(shown) = self.compared.borrow().get(&key) {
            return Some(shown.clone());
        }
        let shown = self.compare(content);
        self.compared.borrow_mut().insert(key, shown.clone());
        Some(shown)
    }

    fn compare(&self, content: &ContentDifference) -> Shown {
        let size = |content: &Option<Content>| content.as_ref().map_or(0, |content| content.size);
        let sizes = (size(&content.before), size(&content.after));
        let words = |words: &str| {
            let (before, after) = sizes;
            Shown::Words(format!("{words}: {before} bytes before, {after} bytes after").into())
        };
        if sizes.0 > LIMIT_BYTES || sizes.1 > LIMIT_BYTES {
            return words("too large to show");
        }
        let (Ok(before), Ok(after)) = (self.bytes(&content.before), self.bytes(&content.after))
        else {
            return words("could not be read");
        };
        if is_encrypted(&before) || is_encrypted(&after) {
            return Shown::Words("encrypted content differs".into());
        }
        match (text(&before), text(&after)) {
            (Some(before), Some(after)) => Shown::Diff(unified(before, after).into()),
            _ => words("no text"),
        }
    }

    fn bytes(&self, content: &Option<Content>) -> Result<Rc<[u8]>, crate::git::ObjectError> {
        let Some(content) = content else {
            return Ok(Rc::from([]));
        };
        Ok(match &content.source {
            ContentSource::Inline(bytes) => Rc::from(&bytes[..]),
            // Told below by its beginning, whatever stands around it.
            ContentSource::Sealed(_) => Rc::from(&b"age-encryption.org/v1"[..]),
            ContentSource::Blob(id) => self.objects.get(id)?.data.into(),
            ContentSource::Address(url) => {
                let text = format!("(from {url})\n(SHA-256 {})\n", hex(&content.sha256));
                Rc::from(text.as_bytes())
            }
            // What was on a host before is in no repository.
            ContentSource::Original | ContentSource::Member(..) => Rc::from([]),
        })
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then_some(text)
}

/// Is this a file of age(1), whose bytes say nothing to anybody and change as a whole.
fn is_encrypted(bytes: &[u8]) -> bool {
    bytes.starts_with(b"age-encryption.org/v1")
        || bytes.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
}

fn unified(before: &str, after: &str) -> String {
    harmless(&hunks(before, after))
}

/// Characters that would steer a terminal, or turn the order of what people read, made visible.
fn harmless(text: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            lines.push('\n');
        }
        for (index, part) in line.split('\t').enumerate() {
            if index > 0 {
                lines.push('\t');
            }
            lines.push_str(&crate::document::single_line(part));
        }
    }
    lines
}
