//! What rpm says beside its work and nobody would read: configuration files laid beside others, and scripts that failed.
//!
//! rpm counts a transaction as made whose scripts after the installation (%post) failed, and dnf ends with 0.
//!
//! Invariant: pure, and any text yields something.

/// A configuration file of which there are two now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// Where programs look for it.
    pub path: String,
    /// Where the other one is.
    pub other: String,
    /// The other one is what the package brings (`.rpmnew`); else it is what was there before (`.rpmsave`).
    pub is_new: bool,
}

/// The configuration files that rpm did not replace, or replaced and kept.
pub fn parse_beside(output: &str) -> Vec<Beside> {
    let found = output.lines().filter_map(|line| {
        let is_new = line.contains(" created as ");
        let verb = if is_new { " created as " } else { " saved as " };
        let (before, other) = line.split_once(verb)?;
        let path = &before[before.find('/')?..];
        let suffix = if is_new { ".rpmnew" } else { ".rpmsave" };
        let other = other.trim();
        // Names with blanks are whole: the other one is called as the first.
        (other.strip_suffix(suffix) == Some(path)).then(|| Beside {
            path: path.to_owned(),
            other: other.to_owned(),
            is_new,
        })
    });
    found.collect()
}

/// The scripts that failed: the name of each one's package, and what rpm says of it.
pub fn parse_failed_scripts(output: &str) -> Vec<(String, String)> {
    let found = output.lines().filter_map(|line| {
        let said = &line[line.find('%')?..];
        let (script, said_of_it) = said.split_once(" scriptlet failed")?;
        let (_, package) = script.strip_suffix(')')?.split_once('(')?;
        // name-version-release.architecture
        let (name, _release) = package.rsplit_once('-')?;
        let (name, _version) = name.rsplit_once('-')?;
        Some((name.to_owned(), format!("{script} failed{said_of_it}")))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_rpm_says_on_the_side_is_found() {
        // As dnf 4.14 with rpm 4.18 wrote it.
        let output = "  Upgrading        : conf-2.0-1.noarch                                      1/2 \n\
                      warning: /etc/conf-a.conf created as /etc/conf-a.conf.rpmnew\n\
                      warning: /etc/conf-b.conf saved as /etc/conf-b.conf.rpmsave\n\n  \
                      Running scriptlet: conf-2.0-1.noarch                                      1/2 \n\
                      from the script\nwarning: %post(conf-2.0-1.noarch) scriptlet failed, exit status 3\n\n";
        let beside = |path: &str, other: &str, is_new| Beside {
            path: path.to_owned(),
            other: other.to_owned(),
            is_new,
        };
        assert_eq!(
            parse_beside(output),
            [
                beside("/etc/conf-a.conf", "/etc/conf-a.conf.rpmnew", true),
                beside("/etc/conf-b.conf", "/etc/conf-b.conf.rpmsave", false),
            ]
        );
        let failed = "%post(conf-2.0-1.noarch) failed, exit status 3";
        assert_eq!(
            parse_failed_scripts(output),
            [("conf".to_owned(), failed.to_owned())]
        );
        assert!(parse_beside("warning: / created as /x.rpmnew\n").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([%/()a -]{0,4}( created as | saved as | scriptlet failed)?(\\.rpmnew)?\n?|\\PC){0,12}") {
            parse_beside(&text);
            parse_failed_scripts(&text);
        }
    }
}
