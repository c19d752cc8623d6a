//! Files, directories and symbolic links.

use super::command::check_argv;
use super::{Resolved, Resolver};
use crate::document::{Mistake, Place, Table};
use crate::fleet::declared::{self, State};
use crate::kinds::file::{DesiredPath, PathSpec, Purge};
use crate::model::{Name, OnRemoval, ResourceId};

/// The mode of a file with content that says none.
pub(super) const FILE_MODE: u32 = 0o644;

/// The mode of a secret that says none.
pub(super) const SECRET_MODE: u32 = 0o600;

impl Resolver<'_, '_> {
    pub(super) fn file(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let file: declared::File = declared::read(table, place, &what)?;
        if file.state == Some(State::Absent) {
            let report = file.report.unwrap_or(false);
            let on_removal = file.on_removal.unwrap_or_default();
            let as_user = file.as_user.map(Name::from);
            return self.absent(id, report, on_removal, as_user, place, out);
        }
        let mut mistakes = Vec::new();
        let template = file.template.unwrap_or(false);
        let contained = self.content(
            &what,
            table,
            template,
            false,
            &mut mistakes,
            &mut out.failures,
        );
        let has_content = file.content.is_some() || file.source.is_some() || file.url.is_some();
        if file.sha256.is_some() && file.url.is_none() {
            mistakes.push(
                Mistake::new(
                    &table.place_of("sha256", place),
                    format!("{what} has `sha256` and no `url`"),
                )
                .hint("what is in the repository needs no hash: leave it out"),
            );
        }
        if file.decrypt.is_some() {
            let place = table.place_of("decrypt", place);
            mistakes.extend(check_decrypt(
                &what,
                file.source.is_some(),
                template,
                &place,
            ));
        }
        let mode = self.mode(&what, file.mode.as_deref(), table, place, &mut mistakes);
        let is_secret = contained
            .as_ref()
            .is_some_and(|contained| contained.content.as_sealed().is_some());
        if is_secret {
            mistakes.extend(check_secrecy(&what, mode, &table.place_of("mode", place)));
        }
        let usual_mode = match is_secret {
            true => SECRET_MODE,
            false => FILE_MODE,
        };
        check_account(
            &what,
            "owner",
            file.owner.as_deref(),
            table,
            place,
            &mut mistakes,
        );
        check_account(
            &what,
            "group",
            file.group.as_deref(),
            table,
            place,
            &mut mistakes,
        );
        let xattrs = self.xattrs(
            &what,
            file.xattrs.as_ref(),
            file.capabilities.as_deref(),
            table,
            place,
            &mut mistakes,
        );
        if let Some(user) = &file.as_user {
            mistakes.extend(check_user(&what, user, &file, table, place));
        }
        check_command(&what, file.validate.as_deref(), table, place, &mut mistakes);
        if file.validate.is_some() && !has_content {
            mistakes.push(
                Mistake::new(
                    &table.place_of("validate", place),
                    format!("{what} validates nothing: it has no content"),
                )
                .hint("`validate` runs on new content; add `content` or `source`"),
            );
        }
        let has_access = file.mode.is_some() || file.owner.is_some() || file.group.is_some();
        let says_nothing = !has_access && xattrs.is_empty() && file.unpack.is_none();
        if !has_content && says_nothing && mistakes.is_empty() {
            mistakes.push(
                Mistake::new(place, format!("{what} declares nothing"))
                    .hint("give it `content`, `source`, `url`, `mode`, `owner` or `group`"),
            );
        }
        // Only new content brings defaults along; else what is not said is not managed. What a user writes has his own group.
        let as_user = file.as_user.map(Name::from);
        let usual_owner = as_user.clone().unwrap_or_else(Name::root);
        let usual_group = as_user.is_none().then(Name::root);
        let spec = if file.unpack == Some(true) {
            mistakes.extend(check_unpack(&what, table, place));
            // Where there is none, a mistake says so.
            let Some(contained) = contained else {
                return none_or(mistakes);
            };
            PathSpec::Archive {
                content: contained.content,
                mode,
                owner: file.owner.map_or_else(Name::root, Name::from),
                group: file.group.map_or_else(Name::root, Name::from),
                closed: None,
            }
        } else {
            PathSpec::File {
                content: contained.map(|contained| contained.content),
                mode: mode.or(has_content.then_some(usual_mode)),
                owner: file
                    .owner
                    .map(Name::from)
                    .or(has_content.then_some(usual_owner)),
                group: (file.group.map(Name::from)).or(usual_group.filter(|_| has_content)),
                xattrs,
                validate: file.validate,
            }
        };
        let path = DesiredPath {
            path: id.name.clone(),
            id: id.clone(),
            spec,
            report: file.report.unwrap_or(false),
            on_removal: file.on_removal.unwrap_or_default(),
            as_user,
        };
        out.add_path(self.limits, path, place, &mut mistakes);
        none_or(mistakes)
    }

    pub(super) fn directory(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let directory: declared::Directory = declared::read(table, place, &what)?;
        if directory.state == Some(State::Absent) {
            let report = directory.report.unwrap_or(false);
            return self.absent(
                id,
                report,
                directory.on_removal.unwrap_or_default(),
                None,
                place,
                out,
            );
        }
        let mut mistakes = Vec::new();
        let mode = self.mode(
            &what,
            directory.mode.as_deref(),
            table,
            place,
            &mut mistakes,
        );
        check_account(
            &what,
            "owner",
            directory.owner.as_deref(),
            table,
            place,
            &mut mistakes,
        );
        check_account(
            &what,
            "group",
            directory.group.as_deref(),
            table,
            place,
            &mut mistakes,
        );
        let xattrs = directory.xattrs.as_ref();
        let xattrs = self.xattrs(&what, xattrs, None, table, place, &mut mistakes);
        let (purge, ignore) = (directory.purge, directory.ignore);
        let purge = self.purge(&what, purge, ignore, table, place, &mut mistakes);
        let path = DesiredPath {
            path: id.name.clone(),
            id: id.clone(),
            spec: PathSpec::Directory {
                mode,
                owner: directory.owner.map(Name::from),
                group: directory.group.map(Name::from),
                xattrs,
                purge,
            },
            report: directory.report.unwrap_or(false),
            on_removal: directory.on_removal.unwrap_or_default(),
            as_user: None,
        };
        out.add_path(self.limits, path, place, &mut mistakes);
        none_or(mistakes)
    }

    pub(super) fn symlink(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let symlink: declared::Symlink = declared::read(table, place, &what)?;
        if symlink.state == Some(State::Absent) {
            let report = symlink.report.unwrap_or(false);
            return self.absent(
                id,
                report,
                symlink.on_removal.unwrap_or_default(),
                None,
                place,
                out,
            );
        }
        let mut mistakes = Vec::new();
        let target_place = table.place_of("target", place);
        let target = match symlink.target {
            None => {
                mistakes.push(
                    Mistake::new(place, format!("missing field `target` in {what}"))
                        .hint("say where the link points: target = \"/…\""),
                );
                String::new()
            }
            Some(target) => {
                if target.is_empty() || target.len() >= 4096 || target.chars().any(char::is_control)
                {
                    mistakes.push(Mistake::new(
                        &target_place,
                        format!(
                            "target of {what} is empty, too long or contains a control character"
                        ),
                    ));
                }
                target
            }
        };
        let path = DesiredPath {
            path: id.name.clone(),
            id: id.clone(),
            spec: PathSpec::Symlink { target },
            report: symlink.report.unwrap_or(false),
            on_removal: symlink.on_removal.unwrap_or_default(),
            as_user: None,
        };
        out.add_path(self.limits, path, place, &mut mistakes);
        none_or(mistakes)
    }

    /// A path that is to be removed; what else earlier layers said about it does not matter.
    fn absent(
        &self,
        id: &ResourceId,
        report: bool,
        on_removal: OnRemoval,
        as_user: Option<Name>,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let path = DesiredPath {
            path: id.name.clone(),
            id: id.clone(),
            spec: PathSpec::Absent,
            report,
            on_removal,
            as_user,
        };
        out.add_path(self.limits, path, place, &mut mistakes);
        none_or(mistakes)
    }

    /// What of a directory is purged, with the globs of what stays.
    pub(super) fn purge(
        &self,
        what: &str,
        purge: Option<bool>,
        ignore: Option<Vec<String>>,
        table: &Table,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Purge> {
        let purges = purge.unwrap_or(false);
        let place = table.place_of("ignore", place);
        if ignore.is_some() && !purges {
            mistakes.push(
                Mistake::new(&place, format!("`ignore` of {what} ignores nothing"))
                    .hint("it says what stays of a directory with purge = true"),
            );
        }
        let ignore = ignore.unwrap_or_default();
        for glob in &ignore {
            let cause = match glob::Pattern::new(glob) {
                Ok(_) if glob.is_empty() => "it is empty".to_owned(),
                Ok(_) if glob.starts_with('/') => "it starts with '/'".to_owned(),
                Ok(_) => continue,
                Err(error) => error.msg.to_owned(),
            };
            mistakes.push(
                Mistake::new(&place, format!("'{glob}' in `ignore` of {what} is no pattern"))
                    .label(cause)
                    .hint("write a name or a glob, such as \"*.local\"; with a '/', a path below the directory"),
            );
        }
        purges.then_some(Purge { ignore })
    }

    /// The permission bits that `text` writes in octal.
    pub(super) fn mode(
        &self,
        what: &str,
        text: Option<&str>,
        table: &Table,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<u32> {
        let text = text?;
        let place = table.place_of("mode", place);
        let Some(mode) = parse_mode(text) else {
            mistakes.push(
                Mistake::new(&place, format!("'{text}' is no mode of {what}")).hint(
                    match octal_of(text) {
                        Some(mode) => format!("write it in octal: mode = \"{mode}\""),
                        None => "write three or four octal digits: \"0644\"".to_owned(),
                    },
                ),
            );
            return None;
        };
        if mode > 0o777 && !self.limits.allow_suid {
            mistakes.push(
                Mistake::new(&place, format!("mode '{text}' of {what} sets setuid, setgid or sticky, which this host does not allow"))
                    .hint("a host's operator can allow it: apply.allow_suid = true in /etc/limpet/limpet.toml"),
            );
        }
        Some(mode)
    }
}

/// The mode that `text` means in the manner of ls, of chmod's clauses for all three, or with too many digits.
fn octal_of(text: &str) -> Option<String> {
    let digits = text.trim_start_matches("0o").trim_start_matches('0');
    if text.starts_with('0') && digits.len() == 3 && parse_mode(digits).is_some() {
        return Some(format!("0{digits}"));
    }
    // With the letter of the type before it, as ls shows it.
    let letters = match text.len() {
        9 => text,
        10 if text.starts_with(['-', 'd']) => &text[1..],
        _ => return None,
    };
    let mut mode = 0;
    for (letter, expected) in letters.chars().zip("rwxrwxrwx".chars()) {
        mode = mode << 1
            | match letter {
                '-' => 0,
                letter if letter == expected => 1,
                _ => return None,
            };
    }
    Some(format!("{mode:04o}"))
}

/// Three or four octal digits.
fn parse_mode(text: &str) -> Option<u32> {
    let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    if !is_octal || !(3..=4).contains(&text.len()) {
        return None;
    }
    u32::from_str_radix(text, 8).ok()
}

pub(super) fn check_account(
    what: &str,
    key: &str,
    name: Option<&str>,
    table: &Table,
    place: &Place,
    mistakes: &mut Vec<Mistake>,
) {
    let Some(name) = name else { return };
    // The characters of useradd(8); a number is an id.
    let is_account = name.len() <= 32
        && !name.starts_with('-')
        && !name.is_empty()
        && name
            .trim_end_matches('$')
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !is_account {
        mistakes.push(
            Mistake::new(
                &table.place_of(key, place),
                format!("'{name}' is no {key} of {what}"),
            )
            .hint(match name.split_once(':') {
                Some((owner, group)) if !owner.is_empty() && !group.is_empty() => {
                    format!("write: owner = \"{owner}\" and group = \"{group}\"")
                }
                _ => "write a name or a number, without ':'".to_owned(),
            }),
        );
    }
}

/// What nobody but root could do is not asked of the `user` who writes a file.
fn check_user(
    what: &str,
    user: &str,
    file: &declared::File,
    table: &Table,
    place: &Place,
) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    check_account(what, "as_user", Some(user), table, place, &mut mistakes);
    let at = |key| table.place_of(key, place);
    if user == "root" || user.parse::<u32>().is_ok() {
        mistakes.push(
            Mistake::new(&at("as_user"), format!("{what} cannot be written as user '{user}'"))
                .hint("name the user whose directory it lies in; what lies elsewhere is root's, and needs no `as_user`"),
        );
    }
    if file.owner.as_deref().is_some_and(|owner| owner != user) {
        mistakes.push(
            Mistake::new(
                &at("owner"),
                format!("{what} is written as '{user}', and has another owner"),
            )
            .note("written as that user", &at("as_user"))
            .hint("leave out `owner`: nobody may give a file away"),
        );
    }
    if file.capabilities.is_some() {
        mistakes.push(
            Mistake::new(
                &at("capabilities"),
                format!("{what} is written as '{user}', and has capabilities"),
            )
            .note("written as that user", &at("as_user"))
            .hint("only root gives them, where nobody else could exchange the file"),
        );
    }
    mistakes
}

/// Is `validate` a command that could be run.
fn check_command(
    what: &str,
    command: Option<&[String]>,
    table: &Table,
    place: &Place,
    mistakes: &mut Vec<Mistake>,
) {
    let Some(command) = command else { return };
    let example = "[\"visudo\", \"-c\", \"-f\", \"{}\"]";
    let is_command = check_argv(what, "validate", command, example, table, place, mistakes);
    if is_command && !command.iter().any(|word| word.contains("{}")) {
        mistakes.push(
            Mistake::new(
                &table.place_of("validate", place),
                format!("`validate` of {what} never looks at the new content"),
            )
            .label("no argument has a '{}'")
            .hint(
                "'{}' stands for the path of the candidate: [\"visudo\", \"-c\", \"-f\", \"{}\"]",
            ),
        );
    }
}

/// Is there an archive to unpack, and nothing said of it that concerns one file.
fn check_unpack(what: &str, table: &Table, place: &Place) -> Vec<Mistake> {
    let keys = [
        "content",
        "source",
        "decrypt",
        "validate",
        "as_user",
        "xattrs",
        "capabilities",
    ];
    let of_one_file = keys.into_iter().find(|key| table.get(key).is_some());
    let mistake = |key: &str| {
        Mistake::new(
            &table.place_of(key, place),
            format!("{what} has both `{key}` and `unpack`"),
        )
    };
    if let Some(key @ ("content" | "source")) = of_one_file {
        return vec![mistake(key).hint(
            "an archive is fetched from its `url`; a directory of the repository is a tree: [tree.\"…\"]",
        )];
    }
    let mut mistakes = Vec::new();
    if let Some(key) = of_one_file {
        mistakes.push(mistake(key).hint("that is for a single file: leave one of them out"));
    }
    if table.get("url").is_none() {
        mistakes.push(
            Mistake::new(
                &table.place_of("unpack", place),
                format!("{what} unpacks nothing: it has no `url`"),
            )
            .hint("say where the archive is, and what 'sha256sum' prints of it: url = \"https://…\", sha256 = \"…\""),
        );
    }
    mistakes
}

/// Is there anything to decrypt.
fn check_decrypt(what: &str, has_source: bool, template: bool, place: &Place) -> Option<Mistake> {
    if !has_source {
        return Some(
            Mistake::new(
                place,
                format!("{what} decrypts nothing: it has no `source`"),
            )
            .hint("name an encrypted file below files/ of this layer: source = \"app.env.age\""),
        );
    }
    template.then(|| {
        Mistake::new(place, format!("{what} is both decrypted and rendered")).hint(
            "keep one of them; a template says where a secret stands: {{ secret(\"db.age\") }}",
        )
    })
}

/// May nobody read what is secret who need not.
pub(super) fn check_secrecy(what: &str, mode: Option<u32>, place: &Place) -> Option<Mistake> {
    mode.filter(|mode| mode & 0o007 != 0).map(|mode| {
        Mistake::new(
            place,
            format!("{what} has a secret, and mode {mode:04o} lets everybody at it"),
        )
        .hint("leave `mode` out, which means \"0600\", or let a group read it: mode = \"0640\"")
    })
}

pub(super) fn none_or(mistakes: Vec<Mistake>) -> Result<(), Vec<Mistake>> {
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(mistakes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<u32>) {
        assert_eq!(parse_mode(text), expected);
    }

    #[test]
    fn a_mode_is_three_or_four_octal_digits() {
        check("0644", Some(0o644));
        check("755", Some(0o755));
        check("4755", Some(0o4755));
        check("0888", None);
        check("+644", None);
        check("u=rw", None);
        check("00644", None);
        check("", None);
    }
}
