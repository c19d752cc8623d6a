//! Repositories for dnf: a `.repo` file, and the key that its packages are signed by.

use super::Declared;
use crate::document::Mistake;
use crate::fleet::declared::DnfRepository;
use crate::fleet::resolve::unit::brought;
use crate::fleet::resolve::{Resolved, Resolver};
use crate::fleet::sources::inline;

/// Whose files dnf reads as repositories: those that end in `.repo`.
const REPOSITORIES_DIRECTORY: &str = "/etc/yum.repos.d";
/// Where keys are that packages are signed by.
const KEYS_DIRECTORY: &str = "/etc/pki/rpm-gpg";
/// What dnf puts into addresses (dnf.conf(5), "Variables").
const VARIABLES: [&str; 4] = ["$releasever", "$basearch", "$arch", "$stream"];

impl Resolver<'_, '_> {
    pub(super) fn dnf_repository(
        &self,
        declared: &Declared<'_>,
        dnf: &DnfRepository,
        mistakes: &mut Vec<Mistake>,
        out: &mut Resolved,
    ) {
        let id = declared.bringer.id;
        let name = id.name.as_str();
        if name == "main" {
            mistakes.push(
                Mistake::new(&declared.place, format!("{id} cannot be called so for dnf"))
                    .hint("[main] is what dnf calls its own options: choose another name"),
            );
        }
        match &dnf.baseurl {
            None => mistakes.push(declared.missing("baseurl", "\"https://rpm.example\"")),
            Some(uri) => {
                let plain = VARIABLES
                    .iter()
                    .fold(uri.clone(), |uri, variable| uri.replace(variable, "x"));
                mistakes.extend(declared.check_uri("baseurl", &plain));
            }
        }
        let checks = dnf.gpgcheck.unwrap_or(true);
        if !checks && dnf.key.is_some() && !self.limits.allow_unsigned_repositories {
            mistakes.push(
                Mistake::new(
                    &declared.place_of("gpgcheck"),
                    format!("{} has its packages not checked", declared.what()),
                )
                .hint("leave `gpgcheck` out; or a host's operator allows it: apply.allow_unsigned_repositories = true in /etc/limpet/limpet.toml"),
            );
        }
        let certificates = self.repository_key(declared, dnf.key.as_deref(), mistakes, out);
        let (Some(uri), true) = (&dnf.baseurl, mistakes.is_empty()) else {
            return;
        };
        let key = format!("{KEYS_DIRECTORY}/limpet-{name}.asc");
        let switch = |is_on: bool| i32::from(is_on);
        let (comment, trust) = match &certificates {
            Some(certificates) => (
                format!("signed by {}", certificates.fingerprints.join(", ")),
                format!(
                    "gpgcheck={}\nrepo_gpgcheck={}\ngpgkey=file://{key}\n",
                    switch(checks),
                    switch(dnf.repo_gpgcheck.unwrap_or(false)),
                ),
            ),
            // What an operator allows with `allow_unsigned_repositories`, and nothing else, says this.
            None if dnf.key.is_none() => (
                "not signed".to_owned(),
                "gpgcheck=0\nrepo_gpgcheck=0\n".to_owned(),
            ),
            None => return,
        };
        let repository = format!(
            "# Declared by the fleet; changes made here are undone.\n# {id}, {comment}\n\
             [{name}]\nname={name}\nbaseurl={uri}\nenabled=1\n{trust}"
        );
        let files = [
            (
                format!("{REPOSITORIES_DIRECTORY}/{name}.repo"),
                Some(inline(repository)),
            ),
            (key, certificates.map(|it| inline(it.armored()))),
        ];
        for (path, content) in files {
            if let Some(content) = content {
                let file = brought(&declared.bringer, path, content);
                out.add_path(self.limits, file, &declared.place, mistakes);
            }
        }
    }
}
