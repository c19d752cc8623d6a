//! Repositories of packages: files that tell the host's package manager where it is and by which key it is signed.
//!
//! Invariant: what is written is made of words that were checked, so that no value can say more than it stands for; and no repository
//! is written without a key unless the host's operator allows it.

use super::file::none_or;
use super::unit::Bringer;
use super::{PackageManager, Resolved, Resolver};
use crate::document::{Mistake, Place, Table};
use crate::fleet::declared;
use crate::fleet::openpgp::{Certificates, parse_certificates};
use crate::model::ResourceId;

pub(super) mod apt;
mod dnf;

/// A repository as one package manager is told of it: `apt = …` of it, or `dnf = …`.
struct Declared<'a> {
    bringer: Bringer<'a>,
    /// The table of that package manager.
    table: &'a Table,
    /// Where that stands.
    place: Place,
    /// `apt` or `dnf`.
    manager: &'static str,
}

impl Declared<'_> {
    /// `` `apt` of repository:grafana ``
    fn what(&self) -> String {
        format!("`{}` of {}", self.manager, self.bringer.id)
    }

    fn place_of(&self, key: &str) -> Place {
        self.table.place_of(key, &self.place)
    }

    /// The mistake of not saying `key`, such as `example`.
    fn missing(&self, key: &str, example: &str) -> Mistake {
        Mistake::new(
            &self.place,
            format!("missing field `{key}` in {}", self.what()),
        )
        .hint(format!("say it: {key} = {example}"))
    }

    /// What is wrong with `uri`, if anything is.
    fn check_uri(&self, key: &str, uri: &str) -> Option<Mistake> {
        let mistake = |message: String| Mistake::new(&self.place_of(key), message);
        let what = self.what();
        let Some((scheme, rest)) = uri.split_once(':') else {
            return Some(
                mistake(format!("'{uri}' is no address for {what}"))
                    .hint("write the whole of it: https://…"),
            );
        };
        if !["https", "http", "file"].contains(&scheme) {
            return Some(
                mistake(format!("'{uri}' of {what} begins with '{scheme}:'"))
                    .hint("a repository is reached by https://, http:// or file:/"),
            );
        }
        let is_word = uri
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"'<>[]\\^`{}|$#".contains(&byte));
        let is_whole = match scheme {
            "file" => rest.starts_with('/'),
            _ => rest
                .strip_prefix("//")
                .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')),
        };
        if !is_word || !is_whole {
            return Some(
                mistake(format!("'{}' is no address for {what}", uri.escape_debug()))
                    .hint("write one address for each: \"https://apt.example/debian\""),
            );
        }
        let authority = rest.trim_start_matches('/').split('/').next();
        if scheme != "file" && authority.is_some_and(|authority| authority.contains('@')) {
            return Some(
                mistake(format!("an address of {what} has a name or password in it"))
                    .hint("everybody on the host may read it: keep it on the host, for apt in /etc/apt/auth.conf.d"),
            );
        }
        None
    }
}

impl Resolver<'_, '_> {
    pub(super) fn repository(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let repository: declared::Repository = declared::read(table, place, &what)?;
        let mut mistakes = Vec::new();
        if repository.apt.is_none() && repository.dnf.is_none() {
            let mistake = Mistake::new(place, format!("{what} has neither `apt` nor `dnf`"));
            return Err(vec![mistake.hint("say where it is: apt = { uris = [\"https://…\"], suites = [\"stable\"], components = [\"main\"], key = \"….asc\" }")]);
        }
        let declared = |manager: &'static str| Declared {
            bringer: Bringer {
                id,
                report: repository.report.unwrap_or(false),
                on_removal: repository.on_removal.unwrap_or_default(),
            },
            table: table
                .get(manager)
                .and_then(|value| value.as_table())
                .unwrap_or(table),
            place: table.place_of(manager, place),
            manager,
        };
        match self.package_manager() {
            PackageManager::Apt => match &repository.apt {
                Some(apt) => self.apt_repository(&declared("apt"), apt, &mut mistakes, out),
                None => out.is_unmanaged = true,
            },
            PackageManager::Dnf => match &repository.dnf {
                Some(dnf) => self.dnf_repository(&declared("dnf"), dnf, &mut mistakes, out),
                None => out.is_unmanaged = true,
            },
            PackageManager::Other => out.is_unmanaged = true,
            PackageManager::Unknown => mistakes.push(
                Mistake::new(
                    place,
                    format!(
                        "{what} is declared by package manager, and the family of host '{}' is not known",
                        self.traits.name
                    ),
                )
                .hint(format!(
                    "declare it in inventory/*.toml to render away from the host: [host.{}] facts = {{ os = \"debian\" }}",
                    self.traits.name
                )),
            ),
        }
        none_or(mistakes)
    }

    /// The certificates in the file that `key` names, or a mistake where there are none. A repository without is a mistake, too, unless the
    /// host's operator allows it.
    fn repository_key(
        &self,
        declared: &Declared<'_>,
        key: Option<&str>,
        mistakes: &mut Vec<Mistake>,
        out: &mut Resolved,
    ) -> Option<Certificates> {
        let what = declared.what();
        let Some(name) = key else {
            if !self.limits.allow_unsigned_repositories {
                let mistake = Mistake::new(
                    &declared.place,
                    format!(
                        "{what} has no `key`: nothing says who may sign what is installed from there"
                    ),
                );
                mistakes.push(mistake.hint("name the public key, under files/: key = \"….asc\"; or a host's operator allows it: apply.allow_unsigned_repositories = true in /etc/limpet/limpet.toml"));
            }
            return None;
        };
        let place = declared.place_of("key");
        let bytes = self.bytes_of(&what, name, &place, mistakes, &mut out.failures)?;
        match parse_certificates(&bytes) {
            Ok(certificates) => {
                let key = match declared.manager {
                    "apt" => "apt.key.fingerprint",
                    _ => "dnf.key.fingerprint",
                };
                out.derived
                    .push((key, format!("\"{}\"", certificates.fingerprints.join(" "))));
                Some(certificates)
            }
            Err(no) => {
                mistakes.push(
                    Mistake::new(&place, format!("key '{name}' of {what} {no}")).hint(no.hint),
                );
                None
            }
        }
    }
}
