//! Packages.

use super::file::none_or;
use super::repository::apt::PREFERENCES_DIRECTORY;
use super::unit::{Bringer, brought};
use super::{PackageManager, Resolved, Resolver};
use crate::document::{Mistake, Place, Table};
use crate::fleet::sources::inline;
use crate::fleet::{declared, layer};
use crate::kinds::package::{DesiredPackage, PackageState, version};
use crate::model::ResourceId;

impl Resolver<'_, '_> {
    pub(super) fn package(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let package: declared::Package = declared::read(table, place, &what)?;
        let mut mistakes = Vec::new();
        // Whoever says what a package is called, or what it needs, wants it; else nothing is said of it.
        let is_wished = [
            "state",
            "version",
            "apt",
            "dnf",
            "needs",
            "allow_downgrade",
            "hold",
        ]
        .into_iter()
        .any(|key| table.get(key).is_some());
        if !is_wished {
            mistakes.push(
                Mistake::new(place, format!("{what} declares nothing"))
                    .hint(format!("write: {} = \"installed\", or \"absent\"", id.name)),
            );
        }
        let name = self.package_name(id, &package, table, place, &mut mistakes);
        let state = package_state(&what, &package, table, place, &mut mistakes);
        if package.hold == Some(true) && state == PackageState::Absent {
            mistakes.push(
                Mistake::new(
                    &table.place_of("hold", place),
                    format!("`hold` of {what}, which is to be absent"),
                )
                .hint("what is not installed has no version to hold: leave one of them out, or say hold = false to remove it whoever holds it"),
            );
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let Some(name) = name else {
            out.is_unmanaged = true;
            return Ok(());
        };
        let bringer = Bringer {
            id,
            report: package.report.unwrap_or(false),
            on_removal: package.on_removal.unwrap_or_default(),
        };
        if package.hold == Some(true) && self.package_manager() == PackageManager::Apt {
            let path = format!(
                "{PREFERENCES_DIRECTORY}/limpet-hold-{}.pref",
                file_name(&name)
            );
            let pin = brought(&bringer, path, inline(hold_as_pin(&name)));
            out.add_path(self.limits, pin, place, &mut mistakes);
        }
        out.package = Some(DesiredPackage {
            name,
            id: id.clone(),
            state,
            hold: package.hold,
            report: bringer.report,
            on_removal: bringer.on_removal,
        });
        none_or(mistakes)
    }

    /// The package's name for this host's manager; `None` when it has none there.
    fn package_name(
        &self,
        id: &ResourceId,
        package: &declared::Package,
        table: &Table,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<String> {
        for (key, name) in [("apt", &package.apt), ("dnf", &package.dnf)] {
            let Some(name) = name else { continue };
            let place = table.place_of(key, place);
            if !layer::is_package_name(name) {
                mistakes.push(Mistake::new(&place, format!("'{name}' is no package name")));
            } else if key == "apt" && !is_apt_name(name) {
                mistakes.push(no_apt_name(name, &place).hint(APT_NAME_HINT));
            }
        }
        let manager = self.package_manager();
        if package.apt.is_none() && package.dnf.is_none() {
            let name = id.name.as_str();
            if manager == PackageManager::Apt && layer::is_package_name(name) && !is_apt_name(name)
            {
                let lower = name.to_ascii_lowercase();
                let mistake = no_apt_name(name, place);
                mistakes.push(if is_apt_name(&lower) {
                    mistake.hint(format!(
                        "write '{lower}', or the name of each manager: {lower} = {{ apt = \"{lower}\", dnf = \"{name}\" }}"
                    ))
                } else {
                    mistake.hint(APT_NAME_HINT)
                });
            }
            return Some(id.name.to_string());
        }
        match manager {
            PackageManager::Apt => package.apt.clone(),
            PackageManager::Dnf => package.dnf.clone(),
            PackageManager::Other => None,
            PackageManager::Unknown => {
                mistakes.push(
                    Mistake::new(place, format!("{id} has names by package manager, and the family of host '{}' is not known", self.traits.name))
                        .hint(format!(
                            "declare it in inventory/*.toml to render away from the host: [host.{}] facts = {{ os = \"debian\" }}",
                            self.traits.name
                        )),
                );
                None
            }
        }
    }
}

/// Makes what is installed (`now`) preferred to whatever any source has. Nothing older than it is there to go down to, and whoever names a
/// version to apt, as limpet does, gets that one.
fn hold_as_pin(name: &str) -> String {
    format!(
        "Explanation: Declared by the fleet; changes made here are undone.\n\
         Package: {name}\nPin: release a=now\nPin-Priority: 1001\n"
    )
}

/// apt reads no files with a plus sign in their names, and no package has an underscore in its.
fn file_name(package: &str) -> String {
    package.replace('+', "_")
}

const APT_NAME_HINT: &str =
    "a package for apt is named with small letters, digits, '+', '-' and '.'";

fn no_apt_name(name: &str, place: &Place) -> Mistake {
    Mistake::new(place, format!("'{name}' is no package name for apt"))
}

/// What dpkg-deb lets a package be called. dpkg itself takes capitals for small letters: no package would ever be found under such a name.
fn is_apt_name(name: &str) -> bool {
    layer::is_package_name(name)
        && name
            .bytes()
            .all(|byte| !byte.is_ascii_uppercase() && byte != b'_')
}

fn package_state(
    what: &str,
    package: &declared::Package,
    table: &Table,
    place: &Place,
    mistakes: &mut Vec<Mistake>,
) -> PackageState {
    let name = what.strip_prefix("package:").unwrap_or(what);
    let word = package.state.as_deref().unwrap_or("installed");
    mistakes.extend(layer::check_package_word(
        name,
        word,
        &table.place_of("state", place),
    ));
    let is_absent = word == "absent";
    let Some(version) = &package.version else {
        if package.allow_downgrade.is_some() {
            mistakes.push(
                Mistake::new(
                    &table.place_of("allow_downgrade", place),
                    format!("`allow_downgrade` of {what} without `version`"),
                )
                .hint("say which version: version = \"…\""),
            );
        }
        return if is_absent {
            PackageState::Absent
        } else {
            PackageState::Installed
        };
    };
    let version_place = table.place_of("version", place);
    if is_absent {
        mistakes.push(
            Mistake::new(
                &version_place,
                format!("{what} is to be absent, and in version '{version}'"),
            )
            .hint("keep one of them"),
        );
    }
    if version::is_pattern(version) {
        if !is_version_pattern(version) {
            mistakes.push(
                Mistake::new(
                    &version_place,
                    format!("'{version}' is no pattern for a version of {what}"),
                )
                .hint("write for instance '1.9.*': a shell glob on the full version, as apt-cache policy or dnf list shows it"),
            );
        }
    } else if !is_version(version) {
        mistakes.push(
            Mistake::new(
                &version_place,
                format!("'{version}' is no version of {what}"),
            )
            .hint(if version.eq_ignore_ascii_case("latest") {
                "leave `version` out, or pin what you tested; two hosts with the same commit get the same version".to_owned()
            } else {
                "write the full version, as apt-cache policy or dnf list shows it".to_owned()
            }),
        );
    }
    PackageState::Version {
        version: version.clone(),
        allow_downgrade: package.allow_downgrade.unwrap_or(false),
    }
}

/// A glob that has more to it than the characters of versions.
fn is_version_pattern(pattern: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b".+~-:^_*?[]!".contains(&byte);
    pattern.len() <= 128 && pattern.bytes().all(is_legal) && glob::Pattern::new(pattern).is_ok()
}

/// The characters of Debian's and RPM's versions.
fn is_version(version: &str) -> bool {
    version.len() <= 128
        && version
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && version.bytes().any(|byte| byte.is_ascii_digit())
        && version
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".+-~:^_".contains(&byte))
}
