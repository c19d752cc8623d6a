//! Mounts: a unit of systemd each, with its options in a drop-in, so that new options are a remount and nothing else is.

use super::file::none_or;
use super::unit::{Bringer, UNIT_DIRECTORY, brought};
use super::{Resolved, Resolver};
use crate::document::{Mistake, Place, Table};
use crate::fleet::declared;
use crate::fleet::sources::inline;
use crate::kinds::unit::{DesiredUnit, OPTIONS_DROPIN, escape_path};
use crate::model::ResourceId;

/// File systems that need the network before they can be mounted (systemd.mount(5)).
const NETWORK_TYPES: [&str; 10] = [
    "afs",
    "ceph",
    "cifs",
    "gfs2",
    "glusterfs",
    "ncp",
    "nfs",
    "nfs4",
    "ocfs2",
    "smb3",
];

impl Resolver<'_, '_> {
    pub(super) fn mount(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let mount: declared::Mount = declared::read(table, place, &what)?;
        let mut mistakes = Vec::new();
        let options = mount.options.unwrap_or_default();
        let mut required = |key: &str, value: Option<String>, example: &str| {
            if value.is_none() {
                mistakes.push(
                    Mistake::new(place, format!("missing field `{key}` in {what}"))
                        .hint(format!("say it: {key} = \"{example}\"")),
                );
            }
            value.unwrap_or_default()
        };
        let device = required("device", mount.device, "UUID=…");
        let kind = required("type", mount.kind, "ext4");
        let words = [("device", &device), ("type", &kind)];
        let words = words
            .into_iter()
            .chain(options.iter().map(|option| ("options", option)));
        for (key, word) in words {
            let is_word =
                !word.contains(|letter: char| letter.is_whitespace() || letter.is_control());
            let is_option = key != "options" || !word.is_empty() && !word.contains(',');
            if !is_word || !is_option {
                mistakes.push(
                    Mistake::new(
                        &table.place_of(key, place),
                        format!("'{word}' is no word for `{key}` of {what}"),
                    )
                    .hint(
                        "write one word without spaces; options are a list: [\"noatime\", \"ro\"]",
                    ),
                );
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let name = format!("{}.mount", escape_path(&id.name));
        let needs_network = NETWORK_TYPES.contains(&kind.as_str())
            || options.iter().any(|option| option == "_netdev");
        let target = if needs_network { "remote" } else { "local" };
        let unit = format!(
            "# Declared by the fleet; changes made here are undone.\n[Unit]\nDescription={where_}\nBefore={target}-fs.target\n\n\
             [Mount]\nWhat={device}\nWhere={where_}\nType={kind}\n\n[Install]\nWantedBy={target}-fs.target\n",
            where_ = literal(&id.name),
            device = literal(&device),
            kind = literal(&kind),
        );
        let bringer = Bringer {
            id,
            report: mount.report.unwrap_or(false),
            on_removal: mount.on_removal.unwrap_or_default(),
        };
        let mut texts = vec![(format!("{UNIT_DIRECTORY}/{name}"), unit)];
        if !options.is_empty() {
            let options = literal(&options.join(","));
            texts.push((
                format!("{UNIT_DIRECTORY}/{name}.d/{OPTIONS_DROPIN}"),
                format!("[Mount]\nOptions={options}\n"),
            ));
        }
        let mut files = Vec::new();
        for (path, text) in texts {
            files.push(path.clone());
            let file = brought(&bringer, path, inline(text));
            out.add_path(self.limits, file, place, &mut mistakes);
        }
        out.unit = Some(DesiredUnit {
            name,
            id: id.clone(),
            enabled: Some(true),
            running: Some(true),
            masked: None,
            optional: false,
            restart_on: Vec::new(),
            reload_on: Vec::new(),
            validate: None,
            manual: false,
            files,
            report: bringer.report,
            on_removal: bringer.on_removal,
        });
        none_or(mistakes)
    }
}

/// systemd puts what it knows in the place of a percent sign and a letter (systemd.unit(5), "Specifiers").
fn literal(text: &str) -> String {
    text.replace('%', "%%")
}
