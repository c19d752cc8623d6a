//! Configuration files that stayed as they were changed on the host, beside what their package brings: dpkg keeps the latter under another
//! name until somebody has looked at it.

use crate::kinds::package::apt;
use crate::kinds::package::status;
use crate::model::Failure;
use crate::sys::Host;

/// What dpkg calls what it did not install: `.dpkg-new` where it was interrupted.
const SUFFIXES: [&str; 2] = [".dpkg-dist", ".dpkg-new"];

/// What the package `name` brings and dpkg laid beside the file that somebody had changed.
pub fn set_aside(host: &Host, name: &str) -> Result<Vec<String>, Failure> {
    let text = status::read_status(host)?;
    let mut found = Vec::new();
    for path in configuration_files(&text, apt::without_architecture(name)) {
        for suffix in SUFFIXES {
            let path = format!("{path}{suffix}");
            if host.exists(&path)? {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The paths in the field `Conffiles` of the package called `name`: one in a line, with the hash of what was installed.
fn configuration_files<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let is_it = |stanza: &&str| {
        let mut lines = stanza.lines();
        lines.any(|line| line.strip_prefix("Package:").map(str::trim) == Some(name))
    };
    let stanzas = text.split("\n\n").filter(is_it);
    stanzas
        .flat_map(|stanza| {
            let lines = stanza.lines().skip_while(|line| *line != "Conffiles:");
            lines.skip(1).take_while(|line| line.starts_with(' '))
        })
        .filter_map(|line| line.split_ascii_whitespace().next())
        .filter(|path| path.starts_with('/'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_files_of_a_package_are_found() {
        let text = "Package: a\nConffiles:\n /etc/other 00\n\n\
                    Package: lim-conf\nStatus: install ok installed\nConffiles:\n /etc/lim-conf.conf 2dff\n newconffile 00\n \
                    /etc/old 00 obsolete\nDescription: x\n /etc/none of them\n";
        let found = configuration_files(text, "lim-conf");
        assert_eq!(found, ["/etc/lim-conf.conf", "/etc/old"]);
        assert!(configuration_files(text, "lim").is_empty());
    }

    #[test]
    fn what_lies_beside_a_changed_file_is_found() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            #[allow(clippy::disallowed_methods, reason = "a scratch root")]
            std::fs::create_dir_all(path.parent().unwrap())
                .and_then(|()| std::fs::write(path, text))
                .unwrap();
        };
        write(
            "var/lib/dpkg/status",
            "Package: a\nStatus: install ok installed\nConffiles:\n /etc/a 00\n /etc/b 00\n",
        );
        write("etc/a", "");
        write("etc/b.dpkg-dist", "");
        let found = set_aside(&Host::new(root.path()), "a").unwrap();
        assert_eq!(found, ["/etc/b.dpkg-dist"]);
    }
}
