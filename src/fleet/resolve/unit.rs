//! Units, with the files and drop-ins they bring.

use super::command::check_argv;
use super::content::Contained;
use super::file::none_or;
use super::{Resolved, Resolver};
use crate::document::{Mistake, Place, Table, Value};
use crate::fleet::declared::{self, Restart};
use crate::fleet::{paths, unit_file};
use crate::kinds::file::{DesiredPath, PathSpec};
use crate::kinds::kind::Content;
use crate::kinds::unit::DesiredUnit;
use crate::model::{Name, OnRemoval, ResourceId};
use crate::sys::xattrs::NamedXattrs;

/// Where declared unit files are written.
pub(super) const UNIT_DIRECTORY: &str = "/etc/systemd/system";

/// What a unit's declaration says about all its files.
pub(super) struct Bringer<'a> {
    pub(super) id: &'a ResourceId,
    pub(super) report: bool,
    pub(super) on_removal: OnRemoval,
}

impl Resolver<'_, '_> {
    pub(super) fn unit(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let unit: declared::Unit = declared::read(table, place, &what)?;
        let mut mistakes = Vec::new();
        // A last drop-in that a later layer undeclares leaves its empty table.
        let is_wished = [
            "source",
            "content",
            "enabled",
            "running",
            "masked",
            "restart_on",
            "reload_on",
            "dropin",
        ]
        .into_iter()
        .any(|key| table.get(key).is_some());
        if !is_wished {
            mistakes.push(
                Mistake::new(place, format!("{what} declares nothing"))
                    .hint("give it `enabled`, `running`, `masked`, `content`, `source`, a drop-in or `restart_on`"),
            );
        }
        check_wishes(id, &unit, table, place, &mut mistakes);
        if let Some(argv) = &unit.validate {
            let example = "[\"nginx\", \"-t\"]";
            check_argv(
                &what,
                "validate",
                argv,
                example,
                table,
                place,
                &mut mistakes,
            );
        }
        let bringer = Bringer {
            id,
            report: unit.report.unwrap_or(false),
            on_removal: unit.on_removal.unwrap_or_default(),
        };
        let template = unit.template.unwrap_or(false);
        let mut files = Vec::new();
        let mut texts = Vec::new();
        let contained = self.content(
            &what,
            table,
            template,
            true,
            &mut mistakes,
            &mut out.failures,
        );
        let brings_file = contained.is_some();
        if let Some(contained) = contained {
            mistakes.extend(check_public(&what, &contained, table, place));
            let path = format!("{UNIT_DIRECTORY}/{}", id.name);
            files.push(path.clone());
            texts.extend(contained.text);
            let file = brought(&bringer, path, contained.content);
            out.add_path(self.limits, file, place, &mut mistakes);
        }
        let dropins = table.get("dropin").and_then(Value::as_table);
        for (name, entry) in dropins.into_iter().flat_map(Table::iter) {
            let Some(dropin_table) = entry.value.as_table() else {
                continue; // refused when the layer was read
            };
            let what = format!("drop-in '{name}' of {what}");
            if !is_dropin_name(name) {
                mistakes.push(
                    Mistake::new(&entry.key, format!("'{name}' is no name of a drop-in"))
                        .hint("use letters, digits, '-' and '_'; '.conf' is added"),
                );
                continue;
            }
            let dropin: declared::Dropin = match declared::read(dropin_table, &entry.key, &what) {
                Ok(dropin) => dropin,
                Err(mut found) => {
                    mistakes.append(&mut found);
                    continue;
                }
            };
            if dropin.content.is_none() && dropin.source.is_none() {
                mistakes.push(Mistake::new(
                    &entry.key,
                    format!("{what} has neither `content` nor `source`"),
                ));
                continue;
            }
            let template = dropin.template.unwrap_or(template);
            let contained = self.content(
                &what,
                dropin_table,
                template,
                true,
                &mut mistakes,
                &mut out.failures,
            );
            if let Some(contained) = contained {
                mistakes.extend(check_public(&what, &contained, dropin_table, &entry.key));
                let path = format!("{UNIT_DIRECTORY}/{}.d/{name}.conf", id.name);
                files.push(path.clone());
                texts.extend(contained.text);
                let file = brought(&bringer, path, contained.content);
                out.add_path(self.limits, file, &entry.key, &mut mistakes);
            }
        }
        if brings_file
            && unit.running == Some(true)
            && unit_file::never_stays_active(texts.iter().map(String::as_str))
        {
            mistakes.push(
                Mistake::new(&table.place_of("running", place), format!("{what} is a oneshot that does not remain after exit, so it can never be kept running"))
                    .hint("add RemainAfterExit=yes to its file, or leave out `running` and start it by a timer or at boot with `enabled`"),
            );
        }
        out.unit = Some(DesiredUnit {
            name: id.name.to_string(),
            id: id.clone(),
            enabled: unit.enabled,
            running: unit.running,
            masked: unit.masked,
            optional: unit.optional.unwrap_or(false),
            restart_on: Vec::new(), // known once every resource is
            reload_on: Vec::new(),
            validate: unit.validate,
            manual: unit.restart == Some(Restart::Manual),
            files,
            report: bringer.report,
            on_removal: bringer.on_removal,
        });
        none_or(mistakes)
    }
}

/// Wishes that cannot come true together.
fn check_wishes(
    id: &ResourceId,
    unit: &declared::Unit,
    table: &Table,
    place: &Place,
    mistakes: &mut Vec<Mistake>,
) {
    let is_set = |key: &str| table.get(key).map(|value| &value.place);
    if paths::is_own_unit(&id.name) {
        for key in ["enabled", "running", "masked"] {
            if let Some(place) = is_set(key) {
                mistakes.push(
                    Mistake::new(
                        place,
                        format!("`{key}` of {id} would let the fleet switch off limpet itself"),
                    )
                    .hint("stop or disable limpet on the host with systemctl"),
                );
            }
        }
    }
    if unit.masked == Some(true) {
        let impossible = [
            ("enabled", unit.enabled == Some(true)),
            ("running", unit.running == Some(true)),
            ("content", unit.content.is_some()),
            ("source", unit.source.is_some()),
        ];
        for (key, _) in impossible.iter().filter(|(_, wished)| *wished) {
            mistakes.push(
                Mistake::new(
                    &table.place_of(key, place),
                    format!("{id} is masked, so `{key}` is impossible"),
                )
                .note("masked here", &table.place_of("masked", place))
                .hint("keep one of them"),
            );
        }
    }
    let is_template = id
        .name
        .rsplit_once('.')
        .is_some_and(|(stem, _)| stem.ends_with('@'));
    if is_template && unit.running.is_some() {
        let instance = id.name.replacen('@', "@INSTANCE", 1);
        mistakes.push(
            Mistake::new(
                &table.place_of("running", place),
                format!("{id} is a template of units and cannot run itself"),
            )
            .hint(format!("declare an instance: [unit.\"{instance}\"]")),
        );
    }
}

pub(super) fn brought(bringer: &Bringer<'_>, path: String, content: Content) -> DesiredPath {
    DesiredPath {
        path: path.into(),
        id: bringer.id.clone(),
        spec: PathSpec::File {
            content: Some(content),
            mode: Some(0o644),
            owner: Some(Name::root()),
            group: Some(Name::root()),
            xattrs: NamedXattrs::default(),
            validate: None,
        },
        report: bringer.report,
        on_removal: bringer.on_removal,
        as_user: None,
    }
}

/// systemd shows everybody what units say.
fn check_public(
    what: &str,
    contained: &Contained,
    table: &Table,
    place: &Place,
) -> Option<Mistake> {
    contained.content.as_sealed()?;
    let place = table.place_of("source", place);
    Some(
        Mistake::new(&place, format!("{what} has a secret, and everybody may read what a unit says"))
            .hint("write the secret to a file of its own, and name that: EnvironmentFile=, or LoadCredential="),
    )
}

fn is_dropin_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && !name.ends_with(".conf")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.@:".contains(&byte))
}
