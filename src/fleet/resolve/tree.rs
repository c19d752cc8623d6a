//! Trees: a directory of the repository, file by file.

use super::file::{FILE_MODE, SECRET_MODE, check_account, check_secrecy, none_or};
use super::{Resolved, Resolver};
use crate::document::{Mistake, Place, Table};
use crate::fleet::declared;
use crate::fleet::sources::Below;
use crate::kinds::file::{DesiredPath, PathSpec};
use crate::kinds::kind::Content;
use crate::model::{Name, ResourceId};
use crate::sys::xattrs::NamedXattrs;

/// Files with this at the end of their names are rendered, and lose it.
const TEMPLATE_SUFFIX: &str = ".j2";

impl Resolver<'_, '_> {
    pub(super) fn tree(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let tree: declared::Tree = declared::read(table, place, &what)?;
        let mut mistakes = Vec::new();
        let mode = self.mode(&what, tree.mode.as_deref(), table, place, &mut mistakes);
        for (key, name) in [("owner", &tree.owner), ("group", &tree.group)] {
            check_account(&what, key, name.as_deref(), table, place, &mut mistakes);
        }
        let purge = self.purge(&what, tree.purge, tree.ignore, table, place, &mut mistakes);
        let path_of = |below: &str| match below {
            "" => id.name.clone(),
            below => format!("{}/{below}", id.name).into(),
        };
        let mut add = |below: &str, spec: PathSpec, mistakes: &mut Vec<Mistake>| {
            let path = DesiredPath {
                path: path_of(below),
                id: id.clone(),
                spec,
                report: tree.report.unwrap_or(false),
                on_removal: tree.on_removal.unwrap_or_default(),
                as_user: None,
            };
            out.add_path(self.limits, path, place, mistakes);
        };
        let (source, found) = match (table.get("source"), &tree.source) {
            (Some(value), Some(name)) => {
                match self.files_below(&what, name, &value.place, &mut mistakes) {
                    Some(found) => found,
                    None => return none_or(mistakes),
                }
            }
            _ => {
                mistakes.push(
                    Mistake::new(place, format!("missing field `source` in {what}")).hint(
                        "name a directory below files/ of this layer: source = \"nginx/conf.d\"",
                    ),
                );
                return none_or(mistakes);
            }
        };
        // Only what is said of directories makes them declared; others come and go with what is in them.
        let are_declared = purge.is_some() || tree.owner.is_some() || tree.group.is_some();
        let owner = tree.owner.as_deref().map(Name::from);
        let group = tree.group.as_deref().map(Name::from);
        let mut failures = Vec::new();
        for below in found {
            match below {
                Below::Directory(below) if are_declared => {
                    let spec = PathSpec::Directory {
                        mode: None,
                        owner: owner.clone(),
                        group: group.clone(),
                        xattrs: NamedXattrs::default(),
                        purge: purge.clone(),
                    };
                    add(&below, spec, &mut mistakes);
                }
                Below::Directory(_) => {}
                Below::Symlink(below) => mistakes.push(
                    Mistake::new(
                        &table.place_of("source", place),
                        format!(
                            "'{source}/{below}' of {what} is a symbolic link, which is never followed"
                        ),
                    )
                    .hint(format!(
                        "commit a copy of what it leads to, or declare the link: [symlink.\"{}\"]",
                        path_of(&below)
                    )),
                ),
                Below::File(below) => {
                    let from = format!("{source}/{below}");
                    let place = table.place_of("source", place);
                    let (name, content) = match below.strip_suffix(TEMPLATE_SUFFIX) {
                        Some(name) => {
                            let rendered =
                                self.rendered(&what, &from, &from, &place, &mut mistakes, &mut failures);
                            (name, rendered.map(|contained| contained.content))
                        }
                        None => (
                            below.as_str(),
                            self.raw(&what, &from, &from, &place, &mut mistakes, &mut failures),
                        ),
                    };
                    let is_secret =
                        |content: &Content| content.as_sealed().is_some();
                    let usual_mode = match content.as_ref().is_some_and(is_secret) {
                        true => {
                            let place = table.place_of("mode", &place);
                            mistakes.extend(check_secrecy(&what, mode, &place));
                            SECRET_MODE
                        }
                        false => FILE_MODE,
                    };
                    let spec = PathSpec::File {
                        content,
                        mode: Some(mode.unwrap_or(usual_mode)),
                        owner: Some(owner.clone().unwrap_or_else(Name::root)),
                        group: Some(group.clone().unwrap_or_else(Name::root)),
                        xattrs: NamedXattrs::default(),
                        validate: None,
                    };
                    add(name, spec, &mut mistakes);
                }
            }
        }
        out.failures.extend(failures);
        none_or(mistakes)
    }
}
