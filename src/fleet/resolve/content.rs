//! What a file, unit or drop-in contains: inline, raw from the layer's files, or rendered.

use std::sync::Arc;

use super::Resolver;
use crate::age;
use crate::document::{Mistake, Place, Table, Value, nearest};
use crate::fleet::sources::{Below, inline};
use crate::fleet::template::{TextPart, has_secrets, parts_of};
use crate::kinds::kind::{Content, ContentSource, Part};
use crate::model::{Class, Failure};

/// A content, and its text where it has one.
pub(super) struct Contained {
    pub content: Content,
    pub text: Option<String>,
}

impl Resolver<'_, '_> {
    /// The content that `table` declares with `content` or `source`, if any. Failures to read are recorded; `None` then, too.
    pub(super) fn content(
        &self,
        what: &str,
        table: &Table,
        template: bool,
        wants_text: bool,
        mistakes: &mut Vec<Mistake>,
        failures: &mut Vec<Failure>,
    ) -> Option<Contained> {
        let text = table.get("content");
        let source = table.get("source");
        if let Some(url) = table.get("url") {
            return self.addressed(what, url, table, mistakes);
        }
        if let (Some(text), Some(source)) = (text, source) {
            mistakes.push(
                Mistake::new(&source.place, format!("{what} has both `content` and `source`"))
                    .note("`content` is set here", &text.place)
                    .hint("keep one; a later layer that replaces the other declares undeclare = true beside it"),
            );
            return None;
        }
        if let Some(text) = text.and_then(|value| value.as_str()) {
            return Some(Contained {
                content: inline(text),
                text: Some(text.to_owned()),
            });
        }
        let (value, name) = source.and_then(|value| Some((value, value.as_str()?)))?;
        let place = &value.place;
        if table.get("decrypt").is_some() {
            let sealed = self.sealed(what, name, &None, place, mistakes, failures)?;
            return Some(Contained {
                content: Content::sealed(vec![Part::Secret(sealed)]),
                text: None,
            });
        }
        let Some(path) = source_path(place, name) else {
            mistakes.push(no_path(what, name, place));
            return None;
        };
        if template {
            return self.rendered(what, name, &path, place, mistakes, failures);
        }
        let content = self.raw(what, name, &path, place, mistakes, failures)?;
        Some(Contained {
            content,
            // A text that cannot be read as one is no mistake here: raw sources may hold any bytes.
            text: wants_text
                .then(|| self.fleet.sources.text(&path).ok().flatten())
                .flatten()
                .map(|source| source.text().to_owned()),
        })
    }

    /// The content at an address, which its hash stands for.
    fn addressed(
        &self,
        what: &str,
        url: &Value,
        table: &Table,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Contained> {
        for key in ["content", "source"] {
            if let Some(other) = table.get(key) {
                mistakes.push(
                    Mistake::new(&url.place, format!("{what} has both `{key}` and `url`"))
                        .note(format!("`{key}` is set here"), &other.place)
                        .hint("keep one; a later layer that replaces the other declares undeclare = true beside it"),
                );
                return None;
            }
        }
        let text = url.as_str()?;
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        let is_url = rest.is_some_and(|rest| {
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            !authority.is_empty() && !authority.contains('@')
        });
        if !is_url || text.len() > 2048 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            mistakes.push(
                Mistake::new(&url.place, format!("`url` of {what} is no address")).hint(
                    "write https://host/path, without a user; what it leads to is told by sha256",
                ),
            );
            return None;
        }
        let Some(sha256) = table.get("sha256") else {
            mistakes.push(
                Mistake::new(&url.place, format!("{what} has `url` and no `sha256`"))
                    .hint("write what 'sha256sum' prints of the file: sha256 = \"…\""),
            );
            return None;
        };
        let Some(hash) = sha256.as_str().and_then(parse_hash) else {
            mistakes.push(
                Mistake::new(&sha256.place, format!("`sha256` of {what} is no SHA-256"))
                    .hint("write the 64 digits that 'sha256sum' prints"),
            );
            return None;
        };
        Some(Contained {
            content: Content {
                sha256: hash,
                size: 0,
                source: ContentSource::Address(text.into()),
            },
            text: None,
        })
    }

    /// The template at `path` of the repository, rendered; `name` is what it is called at `place`.
    pub(super) fn rendered(
        &self,
        what: &str,
        name: &str,
        path: &str,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
        failures: &mut Vec<Failure>,
    ) -> Option<Contained> {
        let fleet = self.fleet;
        let source = match fleet.sources.text(path) {
            Ok(Some(source)) => source,
            Ok(None) => {
                mistakes.push(self.missing_source(what, name, path, place));
                return None;
            }
            Err(failure) => {
                failures.push(failure);
                return None;
            }
        };
        let whole = Place::new(&source, 0..source.text().len());
        match fleet.templates.render(&whole, source.text(), &self.names) {
            Ok(text) if has_secrets(&text) => {
                let parts = self.parts(
                    what,
                    &text,
                    source.text(),
                    &whole,
                    place,
                    mistakes,
                    failures,
                )?;
                Some(Contained {
                    content: Content::sealed(parts),
                    text: None,
                })
            }
            Ok(text) => Some(Contained {
                content: inline(text.as_str()),
                text: Some(text),
            }),
            Err(mistake) => {
                mistakes.push(mistake.note(format!("{what} is rendered from it"), place));
                None
            }
        }
    }

    /// The parts of a text that was rendered from `template`, which is `whole`; secrets are below files/ of the layer that has `place`.
    #[allow(
        clippy::too_many_arguments,
        reason = "where it is, and where mistakes go"
    )]
    fn parts(
        &self,
        what: &str,
        text: &str,
        template: &str,
        whole: &Place,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
        failures: &mut Vec<Failure>,
    ) -> Option<Vec<Part>> {
        let mut parts = Vec::new();
        for part in parts_of(text) {
            parts.push(match part {
                TextPart::Plain("") => continue,
                TextPart::Plain(text) => Part::Plain(text.as_bytes().into()),
                TextPart::Secret(name) => {
                    let called = template.find(name).filter(|_| !name.is_empty());
                    let called = called.and_then(|at| whole.part_of(template, at..at + name.len()));
                    let sealed = self.sealed(what, name, &called, place, mistakes, failures)?;
                    Part::Secret(sealed)
                }
                TextPart::Broken => {
                    mistakes.push(
                        Mistake::new(place, format!("template of {what}: a secret was changed on its way"))
                            .hint("it is decrypted on the host alone; print it as it is: {{ secret(\"db.age\") }}"),
                    );
                    return None;
                }
            });
        }
        Some(parts)
    }

    /// The encrypted file that `name` means, which is asked for at `called`, for a declaration at `place`.
    pub(super) fn sealed(
        &self,
        what: &str,
        name: &str,
        called: &Option<Place>,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
        failures: &mut Vec<Failure>,
    ) -> Option<Arc<[u8]>> {
        let called = called.as_ref().unwrap_or(place);
        let Some(path) = source_path(place, name) else {
            mistakes.push(no_path(what, name, called));
            return None;
        };
        let sealed = match self.fleet.sources.sealed(&path) {
            Ok(Some(sealed)) => sealed,
            Ok(None) => {
                mistakes.push(self.missing_source(what, name, &path, called));
                return None;
            }
            Err(failure) => {
                failures.push(failure);
                return None;
            }
        };
        let why = match (
            age::is_sealed(&sealed),
            sealed.len() > age::MAX_SEALED_BYTES,
        ) {
            (false, _) => Some("it is not encrypted in the format of age"),
            (true, true) => Some("it is larger than a secret can be"),
            (true, false) => None,
        };
        if let Some(why) = why {
            mistakes.push(
                Mistake::new(called, format!("'{name}' of {what} is no secret"))
                    .label(why)
                    .hint("encrypt it: limpet secret encrypt --host NAME FILE; and replace what it was, because everybody with the repository has read it"),
            );
            return None;
        }
        Some(sealed)
    }

    /// The bytes at `path` of the repository, as they are; `name` is what they are called at `place`.
    pub(super) fn raw(
        &self,
        what: &str,
        name: &str,
        path: &str,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
        failures: &mut Vec<Failure>,
    ) -> Option<Content> {
        match self.fleet.sources.content(path) {
            Ok(Some(content)) => Some(content),
            Ok(None) => {
                mistakes.push(self.missing_source(what, name, path, place));
                None
            }
            Err(failure) => {
                if failure.class == Class::Author {
                    mistakes.push(Mistake::new(place, failure.message));
                } else {
                    failures.push(failure);
                }
                None
            }
        }
    }

    /// The text of the file that `name` means, as it is.
    pub(super) fn text_of(
        &self,
        what: &str,
        name: &str,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
        failures: &mut Vec<Failure>,
    ) -> Option<String> {
        let Some(path) = source_path(place, name) else {
            mistakes.push(no_path(what, name, place));
            return None;
        };
        match self.fleet.sources.text(&path) {
            Ok(Some(source)) => return Some(source.text().to_owned()),
            Ok(None) => mistakes.push(self.missing_source(what, name, &path, place)),
            Err(failure) if failure.class == Class::Author => {
                mistakes.push(Mistake::new(place, failure.message));
            }
            Err(failure) => failures.push(failure),
        }
        None
    }

    /// The bytes of the file that `name` means.
    pub(super) fn bytes_of(
        &self,
        what: &str,
        name: &str,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
        failures: &mut Vec<Failure>,
    ) -> Option<Arc<[u8]>> {
        let Some(path) = source_path(place, name) else {
            mistakes.push(no_path(what, name, place));
            return None;
        };
        match self.fleet.sources.bytes(&path) {
            Ok(Some(bytes)) => return Some(bytes),
            Ok(None) => mistakes.push(self.missing_source(what, name, &path, place)),
            Err(failure) if failure.class == Class::Author => {
                mistakes.push(Mistake::new(place, failure.message));
            }
            Err(failure) => failures.push(failure),
        }
        None
    }

    /// The directory that `name` means, and what is below it, in order. A mistake where it is none.
    pub(super) fn files_below(
        &self,
        what: &str,
        name: &str,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<(String, Vec<Below>)> {
        let Some(path) = source_path(place, name.trim_end_matches('/')) else {
            mistakes.push(no_path(what, name, place));
            return None;
        };
        let sources = &self.fleet.sources;
        if sources.is_directory(&path) && sources.symlink_on(&path).is_none() {
            return Some((path.clone(), sources.below(&path)));
        }
        let mistake = match sources.content(&path) {
            Ok(Some(_)) => {
                Mistake::new(place, format!("source '{name}' of {what} is no directory"))
                    .hint("a tree is a directory of files; for one file declare [file.\"…\"]")
            }
            _ => self.missing_source(what, name, &path, place),
        };
        mistakes.push(mistake);
        None
    }

    fn missing_source(&self, what: &str, name: &str, path: &str, place: &Place) -> Mistake {
        let sources = &self.fleet.sources;
        if let Some(link) = sources.symlink_on(path) {
            let message = if link == path {
                format!("source '{name}' of {what} is a symbolic link, which is never followed")
            } else {
                format!(
                    "source '{name}' of {what} lies behind a symbolic link, which is never followed"
                )
            };
            return Mistake::new(place, message)
                .label(format!("'{link}' is a symbolic link"))
                .hint("name the file it leads to (from the repository's root with a leading '/'), or commit a copy");
        }
        let mistake = Mistake::new(place, format!("source '{name}' of {what} is missing"))
            .label(format!("no file '{path}'"));
        if sources.is_directory(path) {
            return mistake
                .label(format!("'{path}' is a directory"))
                .hint("name one file");
        }
        let (directory, wanted) = match name.strip_prefix('/') {
            Some(rest) => {
                let (directory, below) = rest.split_once('/').unwrap_or((rest, ""));
                (directory.to_owned(), below)
            }
            None => (files_of(place), name),
        };
        let known = sources.names_below(&directory);
        if let Some(rest) = name
            .strip_prefix("files/")
            .filter(|rest| known.iter().any(|known| known == rest))
        {
            return mistake.hint(format!("leave out the directory: source = \"{rest}\""));
        }
        if let Some(rest) = name.strip_prefix('/') {
            let own = sources.names_below(&files_of(place));
            let base = rest.rsplit('/').next().unwrap_or(rest);
            let near = own
                .iter()
                .find(|known| known.rsplit('/').next() == Some(base));
            return match (near, nearest(wanted, known.iter().map(String::as_str))) {
                (Some(near), _) => mistake.hint(format!(
                    "a leading '/' means the repository's root; did you mean '{near}'?"
                )),
                (None, Some(near)) => mistake.hint(format!("did you mean '/{directory}/{near}'?")),
                (None, None) => mistake.hint(
                    "a leading '/' means the repository's root; without it, files/ of this layer",
                ),
            };
        }
        match nearest(wanted, known.iter().map(String::as_str)) {
            Some(near) => mistake.hint(format!("did you mean '{near}'?")),
            None => mistake,
        }
    }
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 64 || !text.bytes().all(is_hex) {
        return None;
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(hash)
}

fn no_path(what: &str, name: &str, place: &Place) -> Mistake {
    Mistake::new(
        place,
        format!("source '{name}' of {what} is no path below the layer's files/"),
    )
    .hint(
        "name a file below files/ of this layer, or from the repository's root with a leading '/'",
    )
}

/// The file that `name`, written at `place`, means.
fn source_path(place: &Place, name: &str) -> Option<String> {
    let relative = name.strip_prefix('/').unwrap_or(name);
    let is_plain = relative
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'));
    if !is_plain {
        return None;
    }
    Some(if name.starts_with('/') {
        relative.to_owned()
    } else {
        format!("{}/{relative}", files_of(place))
    })
}

/// `files/` of the layer whose TOML file holds `place`.
fn files_of(place: &Place) -> String {
    let directory = place
        .file()
        .rsplit_once('/')
        .map_or("", |(directory, _)| directory);
    format!("{directory}/files")
}
