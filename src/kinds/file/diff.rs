//! What a change does to a path's content, for people to read.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use similar::DiffOp;
use similar::algorithms::{Capture, Compact, Replace, myers};

use crate::document::single_line;
use crate::kinds::file::{Edit, PathChange, Walks};
use crate::kinds::kind::Contents;
use crate::model::{Failure, Name};
use crate::sys::files::{Entry, Hashing, Walk, above};
use crate::sys::{Host, clock};

/// Larger contents are not compared line by line.
const LIMIT_BYTES: u64 = 1 << 20;

/// How long one comparison may take; what is not done by then is shown as removed and added.
const TIME_LIMIT: Duration = Duration::from_millis(300);

/// A unified diff of what the change does to the content; `None` when it leaves the content alone.
///
/// What not everybody on the host may read, before or after, is not shown: a plan is seen, logged and pasted by more people than the file.
/// `closing` are the directories that will not let everybody pass any more, as [`closing`] finds them.
pub fn diff(
    host: &Host,
    contents: &dyn Contents,
    change: &PathChange,
    closing: &BTreeSet<&str>,
) -> Result<Option<String>, Failure> {
    let path = change.path.as_str();
    if let Edit::MakeDirectory { .. } | Edit::SetAccess { .. } | Edit::RemoveDirectory = change.edit
    {
        return Ok(None);
    }
    if change.is_secret {
        return Ok(Some(format!(
            "content of {path} differs (not shown: it is a secret)\n"
        )));
    }
    let mut walks = Walks::new(host);
    let walk = walks.of(change.as_user.as_ref())?;
    let look = walk.look(path, Hashing::Skip)?;
    let will_close = above(path).any(|directory| closing.contains(directory));
    if will_close || is_behind_a_closed_directory(walk, look.physical(path))? {
        return Ok(Some(withheld(path)));
    }
    let now = look.entry;
    let new = match &change.edit {
        Edit::WriteFile {
            content, access, ..
        } => {
            if access.mode & 0o004 == 0 {
                return Ok(Some(withheld(path)));
            }
            if let Some(url) = content.whence() {
                return Ok(Some(format!(
                    "content of {path} differs: it comes from {url}\n"
                )));
            }
            if content.size > LIMIT_BYTES {
                return Ok(Some(too_large(path, size_of(&now), content.size)));
            }
            Some(contents.read(content)?)
        }
        Edit::MakeLink { target, .. } => Some(link_text(target)),
        Edit::RemoveFile { .. } => None,
        Edit::MakeDirectory { .. } | Edit::SetAccess { .. } | Edit::RemoveDirectory => {
            return Ok(None);
        }
    };
    let old = match &now {
        Entry::Absent | Entry::Directory(_) | Entry::Special(_) => None,
        Entry::Symlink(target) => Some(link_text(target)),
        Entry::File { attributes, .. } if attributes.mode & 0o004 == 0 => {
            return Ok(Some(withheld(path)));
        }
        Entry::File { size, .. } if *size > LIMIT_BYTES => {
            return Ok(Some(too_large(
                path,
                *size,
                new.map_or(0, |new| new.len() as u64),
            )));
        }
        Entry::File { .. } => walk.read_file(path, LIMIT_BYTES)?,
    };
    Ok(unified(path, old.as_deref(), new.as_deref()))
}

/// The directories among `changes` that will not let everybody pass.
pub fn closing<'a>(changes: impl Iterator<Item = &'a PathChange>) -> BTreeSet<&'a str> {
    let closes = |change: &PathChange| match &change.edit {
        Edit::MakeDirectory { access, .. } => access.mode & 0o001 == 0,
        Edit::SetAccess { mode, .. } => mode.is_some_and(|mode| mode & 0o001 == 0),
        _ => false,
    };
    changes
        .filter(|change| closes(change))
        .map(|change| change.path.as_str())
        .collect()
}

/// May everybody on the host read what lies at `path`; not when nobody can tell.
pub fn is_public(host: &Host, path: &str, as_user: Option<&Name>) -> bool {
    let look = || -> Result<bool, Failure> {
        let mut walks = Walks::new(host);
        let walk = walks.of(as_user)?;
        let look = walk.look(path, Hashing::Skip)?;
        let is_open =
            !matches!(look.entry, Entry::File { attributes, .. } if attributes.mode & 0o004 == 0);
        Ok(is_open && !is_behind_a_closed_directory(walk, look.physical(path))?)
    };
    look().unwrap_or(false)
}

/// Is there a directory on the way to `path` that not everybody may pass: then not everybody may read what lies there, whatever its mode.
fn is_behind_a_closed_directory(walk: &mut Walk, path: &str) -> Result<bool, Failure> {
    // The root directory is everybody's, or nobody could do anything.
    for directory in above(path).filter(|directory| *directory != "/") {
        let entry = walk.look(directory, Hashing::Skip)?.entry;
        if matches!(entry, Entry::Directory(attributes) if attributes.mode & 0o001 == 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unified(path: &str, old: Option<&[u8]>, new: Option<&[u8]>) -> Option<String> {
    if old == new {
        return None;
    }
    let (Some(old_text), Some(new_text)) = (text(old), text(new)) else {
        let size = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        return Some(format!(
            "binary content of {path} differs ({} bytes now, {} bytes then)\n",
            size(old),
            size(new)
        ));
    };
    let name = |bytes: Option<&[u8]>| if bytes.is_some() { path } else { "/dev/null" };
    let (from, to) = (name(old), name(new));
    // Nothing and an empty file have the same lines.
    let hunks = hunks(old_text, new_text);
    let is_shown = !hunks.is_empty();
    let shown = is_shown.then(|| format!("--- {from}\n+++ {to}\n{hunks}"));
    Some(harmless(&shown.unwrap_or_default()))
}

/// What a unified diff says of the lines that differ, with three lines around them. (The crate's own [`similar::TextDiff`] brings along
/// every algorithm it has, which is a quarter of a megabyte.)
pub fn hunks(old: &str, new: &str) -> String {
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let mut found = Compact::new(Replace::new(Capture::new()), &old[..], &new[..]);
    let deadline = clock::instant() + TIME_LIMIT;
    let (all_old, all_new) = (0..old.len(), 0..new.len());
    match myers::diff_deadline(
        &mut found,
        &old[..],
        all_old,
        &new[..],
        all_new,
        Some(deadline),
    ) {
        Ok(()) => {}
        Err(never) => match never {},
    }
    let mut text = String::new();
    for group in found.into_inner().into_inner().into_grouped_ops(3) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        let old_range = first.old_range().start..last.old_range().end;
        let new_range = first.new_range().start..last.new_range().end;
        text += &format!("@@ -{} +{} @@\n", place(old_range), place(new_range));
        for op in &group {
            if let DiffOp::Equal { .. } = op {
                add_lines(&mut text, ' ', &old[op.old_range()]);
            } else {
                add_lines(&mut text, '-', &old[op.old_range()]);
                add_lines(&mut text, '+', &new[op.new_range()]);
            }
        }
    }
    text
}

/// Where lines are, as the head of a hunk says it: their number follows the first one, unless it is 1; none stand after a line.
fn place(lines: Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        number => format!("{},{number}", lines.start + 1),
    }
}

fn add_lines(text: &mut String, sign: char, lines: &[&str]) {
    for line in lines {
        text.push(sign);
        text.push_str(line);
        if !line.ends_with('\n') {
            text.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// The bytes as text; `None` when they are none.
fn text(bytes: Option<&[u8]>) -> Option<&str> {
    let text = std::str::from_utf8(bytes.unwrap_or_default()).ok()?;
    (!text.contains('\0')).then_some(text)
}

/// Characters that would command the terminal a file is shown on, or turn the order of what people read, made visible.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for part in text.split_inclusive(['\n', '\t']) {
        let end = part.len() - usize::from(part.ends_with(['\n', '\t']));
        shown.push_str(&single_line(&part[..end]));
        shown.push_str(&part[end..]);
    }
    shown
}

fn link_text(target: &str) -> Vec<u8> {
    format!("symbolic link to {target}\n").into_bytes()
}

fn size_of(entry: &Entry) -> u64 {
    match entry {
        Entry::File { size, .. } => *size,
        _ => 0,
    }
}

fn withheld(path: &str) -> String {
    format!("content of {path} differs (not shown: not everybody may read it)\n")
}

fn too_large(path: &str, old: u64, new: u64) -> String {
    format!("content of {path} differs ({old} bytes now, {new} bytes then: too large to show)\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_unified_diff() {
        let diff = unified(
            "/etc/motd",
            Some(b"one\ntwo\nthree\n"),
            Some(b"one\n2\nthree"),
        )
        .unwrap();
        insta::assert_snapshot!(diff, @r"
        --- /etc/motd
        +++ /etc/motd
        @@ -1,3 +1,3 @@
         one
        -two
        -three
        +2
        +three
        \ No newline at end of file
        ");
    }

    #[test]
    fn a_new_file_comes_from_nothing() {
        let diff = unified("/etc/motd", None, Some(b"hello\n")).unwrap();
        insta::assert_snapshot!(diff, @r"
        --- /dev/null
        +++ /etc/motd
        @@ -0,0 +1 @@
        +hello
        ");
    }

    #[test]
    fn nothing_but_text_is_shown() {
        let check = |old: Option<&[u8]>, new: Option<&[u8]>, expected: Option<&str>| {
            assert_eq!(unified("/x", old, new).as_deref(), expected);
        };
        check(Some(b"same"), Some(b"same"), None);
        check(
            Some(b"\0"),
            Some(b"text\n"),
            Some("binary content of /x differs (1 bytes now, 5 bytes then)\n"),
        );
        check(
            None,
            Some(b"\xff"),
            Some("binary content of /x differs (0 bytes now, 1 bytes then)\n"),
        );
        check(
            None,
            Some(b"\x1b[31m\t\r\n"),
            Some("--- /dev/null\n+++ /x\n@@ -0,0 +1 @@\n+\\u{1b}[31m\t\\r\n"),
        );
        // What is read is what is there, in its order.
        check(
            None,
            Some("#\u{202e} on\n".as_bytes()),
            Some("--- /dev/null\n+++ /x\n@@ -0,0 +1 @@\n+#\\u{202e} on\n"),
        );
    }
}
