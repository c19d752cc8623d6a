//! Names of units, and which files on disk belong to a unit.
//!
//! Paths are absolute and normalised. `/lib` counts as `/usr/lib`, for hosts where they are one.

/// The suffixes of systemd.unit(5).
pub const SUFFIXES: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];

/// Where systemd looks for unit files that are not generated.
const DIRECTORIES: [&str; 8] = [
    "/etc/systemd/system.control/",
    "/run/systemd/system.control/",
    "/etc/systemd/system/",
    "/run/systemd/system/",
    "/usr/local/lib/systemd/system/",
    "/usr/lib/systemd/system/",
    "/lib/systemd/system/",
    "/etc/systemd/system.attached/",
];

/// Where podman's generator looks for the files it makes services of.
const QUADLET_DIRECTORIES: [&str; 2] =
    ["/etc/containers/systemd/", "/usr/share/containers/systemd/"];

/// Is this a name systemd accepts.
pub fn is_unit_name(name: &str) -> bool {
    let Some((prefix, suffix)) = name.rsplit_once('.') else {
        return false;
    };
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    name.len() < 256
        && !prefix.is_empty()
        && !prefix.starts_with('@')
        && prefix.bytes().all(is_legal)
        && SUFFIXES.contains(&suffix)
}

/// Is this the name of a template, of which only instances can run: `name@.service`.
pub fn is_template(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(prefix, _)| {
        prefix.ends_with('@') && prefix.find('@') == Some(prefix.len() - 1)
    })
}

/// The template an instance comes from: `getty@.service` for `getty@tty1.service`.
pub fn template_of(name: &str) -> Option<String> {
    let (prefix, suffix) = name.rsplit_once('.')?;
    let (stem, instance) = prefix.split_once('@')?;
    (!instance.is_empty()).then(|| format!("{stem}@.{suffix}"))
}

/// Is the file at `path` one of the unit's own: its file, its template's, a drop-in that applies to it, the quadlet or the line of
/// fstab it is generated from.
pub fn is_own_file(unit: &str, path: &str) -> bool {
    let Some((_, suffix)) = unit.rsplit_once('.') else {
        return false;
    };
    if path == "/etc/fstab" {
        return matches!(suffix, "mount" | "automount" | "swap");
    }
    if let Some(quadlet) = in_any(path, &QUADLET_DIRECTORIES) {
        return quadlet_unit(quadlet).is_some_and(|generated| {
            generated == unit || template_of(unit).is_some_and(|template| generated == template)
        });
    }
    let Some(relative) = in_any(path, &DIRECTORIES) else {
        return false;
    };
    match relative.split_once('/') {
        None => relative == unit || template_of(unit).is_some_and(|template| relative == template),
        Some((directory, file)) => {
            !file.contains('/')
                && file.ends_with(".conf")
                && directory
                    .strip_suffix(".d")
                    .is_some_and(|owner| drop_in_owners(unit).iter().any(|known| known == owner))
        }
    }
}

/// Does systemd have to read its units again when the file at `path` changes.
pub fn is_read_by_systemd(path: &str) -> bool {
    path == "/etc/fstab"
        || in_any(path, &QUADLET_DIRECTORIES).is_some_and(|file| quadlet_unit(file).is_some())
        || in_any(path, &DIRECTORIES).is_some_and(|relative| !relative.is_empty())
}

/// What may stand before `.d` in the names of directories whose drop-ins apply to the unit: itself, its template, its name cut
/// after each hyphen, and its type.
fn drop_in_owners(unit: &str) -> Vec<String> {
    let mut owners = vec![unit.to_owned()];
    owners.extend(template_of(unit));
    if let Some((prefix, suffix)) = unit.rsplit_once('.') {
        let stem = prefix.split('@').next().unwrap_or(prefix);
        for (index, _) in stem.match_indices('-') {
            owners.push(format!("{}.{suffix}", &stem[..=index]));
        }
        owners.push(suffix.to_owned());
    }
    owners
}

/// The unit that podman's generator makes of a file, by podman-systemd.unit(5).
fn quadlet_unit(file: &str) -> Option<String> {
    let (stem, kind) = file.rsplit('/').next()?.rsplit_once('.')?;
    let addition = match kind {
        "container" | "kube" => "",
        "volume" => "-volume",
        "network" => "-network",
        "image" => "-image",
        "build" => "-build",
        "pod" => "-pod",
        _ => return None,
    };
    // An instance marker stays at the end of the name.
    Some(match stem.split_once('@') {
        Some((stem, instance)) => format!("{stem}{addition}@{instance}.service"),
        None => format!("{stem}{addition}.service"),
    })
}

fn in_any<'a>(path: &'a str, directories: &[&str]) -> Option<&'a str> {
    directories
        .iter()
        .find_map(|directory| path.strip_prefix(directory))
}

/// A path as a unit of systemd bears it in its name, as `systemd-escape --path` says (systemd.unit(5), "String escaping").
pub fn escape_path(path: &str) -> String {
    let path = path.trim_matches('/');
    let mut name = String::new();
    for (index, byte) in path.bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name.push_str("\\x2e"),
            b':' | b'_' | b'.' => name.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => name.push(char::from(byte)),
            byte => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_systemd_accepts() {
        let check = |name: &str, accepted: bool| assert_eq!(is_unit_name(name), accepted, "{name}");
        check("app.service", true);
        check("getty@tty1.service", true);
        check("srv-pg\\x2ddata.mount", true);
        check("getty@.service", true);
        check("app", false);
        check("app.conf", false);
        check(".service", false);
        check("@x.service", false);
        check("a b.service", false);
        check("../x.service", false);
        assert!(is_template("getty@.service"));
        assert!(!is_template("getty@tty1.service"));
        assert!(!is_template("app.service"));
    }

    #[test]
    fn a_unit_owns_its_file_and_the_drop_ins_that_apply_to_it() {
        let check = |unit: &str, path: &str, own: bool| {
            assert_eq!(is_own_file(unit, path), own, "{unit} {path}");
        };
        check("app.service", "/etc/systemd/system/app.service", true);
        check("app.service", "/lib/systemd/system/app.service", true);
        check(
            "app.service",
            "/etc/systemd/system/app.service.d/limits.conf",
            true,
        );
        check(
            "app.service",
            "/etc/systemd/system/app.service.d/README",
            false,
        );
        check(
            "app.service",
            "/etc/systemd/system/app.service.d/a/b.conf",
            false,
        );
        check(
            "app.service",
            "/etc/systemd/system/service.d/all.conf",
            true,
        );
        check("app.service", "/etc/systemd/system/other.service", false);
        check("app.service", "/etc/systemd/system/app.socket", false);
        check(
            "app-web-1.service",
            "/etc/systemd/system/app-.service.d/a.conf",
            true,
        );
        check(
            "app-web-1.service",
            "/etc/systemd/system/app-web-.service.d/a.conf",
            true,
        );
        check(
            "app-web-1.service",
            "/etc/systemd/system/app-db-.service.d/a.conf",
            false,
        );
        check("job@7.service", "/etc/systemd/system/job@.service", true);
        check(
            "job@7.service",
            "/etc/systemd/system/job@.service.d/a.conf",
            true,
        );
        check("job@7.service", "/etc/systemd/system/job@8.service", false);
        check("web.service", "/etc/containers/systemd/web.container", true);
        check(
            "data-volume.service",
            "/etc/containers/systemd/data.volume",
            true,
        );
        check("web.service", "/etc/containers/systemd/data.volume", false);
        check("srv-data.mount", "/etc/fstab", true);
        check("app.service", "/etc/fstab", false);
        check("app.service", "/etc/app.conf", false);
    }

    #[test]
    fn only_files_systemd_reads_need_a_daemon_reload() {
        let check = |path: &str, read: bool| assert_eq!(is_read_by_systemd(path), read, "{path}");
        check("/etc/systemd/system/app.service", true);
        check("/etc/systemd/system/app.service.d/a.conf", true);
        check("/etc/fstab", true);
        check("/etc/containers/systemd/web.container", true);
        check("/etc/containers/systemd/web.txt", false);
        check("/etc/systemd/journald.conf", false);
        check("/etc/motd", false);
    }

    #[test]
    fn a_path_is_escaped_as_systemd_does() {
        for (path, expected) in [
            ("/srv/data", "srv-data"),
            ("/srv/data-1", "srv-data\\x2d1"),
            ("/.hidden/x.y", "\\x2ehidden-x.y"),
            ("/a b/ä", "a\\x20b-\\xc3\\xa4"),
        ] {
            assert_eq!(escape_path(path), expected, "{path}");
        }
    }
}
