//! The machine as it is, and as it should be by a model that knows nothing of limpet's.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fixture::machine::Machine;
use crate::world::{CONFIGURATION, File, PACKAGE_BEFORE, UNIT_BEFORE, UNITS, World};

/// Everything that is compared: paths, packages and units, a line of words for each.
pub type Picture = BTreeMap<String, String>;

/// Everything below /etc, /srv and /opt but what is limpet's own, or what booting changes; what the packages bring; packages; units.
/// Packages are removed and not purged: a dpkg that was interrupted by a boot may remember one of which nothing is left.
const LOOK: &str = r#"
cd /
find etc srv opt usr/share/tiny-* usr/local -xdev \
    -path etc/limpet -prune -o \
    -path etc/resolv.conf -prune -o -path etc/hostname -prune -o -path etc/machine-id -prune -o \
    -path etc/ld.so.cache -prune -o -path etc/.updated -prune -o -path etc/.pwd.lock -prune -o \
    -printf '/%p\t%y %m %u:%g %l\n' 2>/dev/null || true
find etc srv opt usr/share/tiny-* usr/local -xdev -path etc/limpet -prune -o -type f \
    ! -path etc/resolv.conf ! -path etc/hostname ! -path etc/machine-id ! -path etc/ld.so.cache ! -path etc/.updated ! -path etc/.pwd.lock \
    -exec sha256sum {} + 2>/dev/null | sed 's|^\([0-9a-f]*\)  \(.*\)|/\2 content\t\1|' || true
dpkg-query -W -f 'package ${Package}\t${db:Status-Status} ${Version}\n' 'tiny-*' 2>/dev/null | grep -Ev 'not-installed|config-files' || true
if [ -e /var/tmp/soak-copy ]; then printf 'started copy\t%s\n' "$(cat /var/tmp/soak-copy)"; fi
for unit in soak-one.service soak-two.service before.service; do
    printf 'unit %s\t%s %s %s\n' $unit "$(systemctl is-enabled $unit 2>/dev/null || true)" \
        "$(systemctl show --property=ActiveState --value $unit)" "$(systemctl show --property=NeedDaemonReload --value $unit)"
    if systemctl --quiet is-active $unit && [ -e /run/$unit ]; then printf 'started %s\t%s\n' $unit "$(cat /run/$unit)"; fi
done
"#;

/// What is there now.
pub fn look(machine: &Machine) -> Picture {
    let shown = machine.sh(LOOK);
    let lines = shown.lines().filter_map(|line| line.split_once('\t'));
    lines
        .map(|(key, words)| (key.to_owned(), words.trim().to_owned()))
        .collect()
}

/// What is there when `world` is declared on a machine that was as `before`.
pub fn expected(before: &Picture, world: &World) -> Picture {
    let mut picture = before.clone();
    for (path, mode) in &world.directories {
        make_parents(&mut picture, path);
        // Of a directory that was there only what is declared is managed.
        let was = before.get(*path).and_then(|words| words.split(' ').nth(2));
        let owner = was.unwrap_or("root:root");
        picture.insert((*path).to_owned(), format!("d {mode:o} {owner}"));
    }
    for (path, file) in &world.files {
        let content = format!("{path} content");
        match file {
            File::Absent => {
                picture.remove(*path);
                picture.remove(&content);
            }
            File::Content { text, mode, owner } => {
                make_parents(&mut picture, path);
                picture.insert((*path).to_owned(), format!("f {mode:o} {owner}:{owner}"));
                picture.insert(content, sha256(text));
            }
        }
    }
    if let Some(File::Content { text, .. }) = world.files.get(CONFIGURATION) {
        picture.insert("started copy".to_owned(), text.trim().to_owned());
    }
    for (path, target) in &world.links {
        make_parents(&mut picture, path);
        picture.insert((*path).to_owned(), format!("l 777 root:root {target}"));
    }
    for name in UNITS.iter().chain([&UNIT_BEFORE]) {
        let path = format!("/etc/systemd/system/{name}");
        let wants = format!("/etc/systemd/system/multi-user.target.wants/{name}");
        let Some(unit) = world.units.get(name) else {
            continue;
        };
        let mut file = path.clone();
        if *name == UNIT_BEFORE {
            file = format!("/usr/local/lib/systemd/system/{name}");
        } else {
            picture.insert(path.clone(), "f 644 root:root".to_owned());
            picture.insert(format!("{path} content"), sha256(&unit.file(name)));
        }
        if unit.enabled {
            picture.insert(wants, format!("l 777 root:root {file}"));
        }
        if unit.masked {
            picture.insert(path, "l 777 root:root /dev/null".to_owned());
        }
        let enabled = match (unit.masked, unit.enabled) {
            (true, _) => "masked",
            (_, true) => "enabled",
            (_, false) => "disabled",
        };
        let active = if unit.running { "active" } else { "inactive" };
        picture.insert(format!("unit {name}"), format!("{enabled} {active} no"));
        if unit.running
            && *name != UNIT_BEFORE
            && let Some(File::Content { text, .. }) = world.files.get(CONFIGURATION)
        {
            let started = format!("{} {}", unit.generation, text.trim());
            picture.insert(format!("started {name}"), started);
        }
    }
    for (name, version) in &world.packages {
        remove_package(&mut picture, name);
        if let Some(version) = version {
            add_package(&mut picture, name, version);
        }
        if *name == "tiny-two" {
            add_package(&mut picture, "tiny-three", "1.0");
        }
    }
    picture
}

/// Where the machine is not as the model says.
pub fn differences(found: &Picture, expected: &Picture) -> Vec<String> {
    let keys: std::collections::BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    keys.into_iter()
        .filter(|key| found.get(*key) != expected.get(*key))
        // What a unit or a command was started with matters where the model has an opinion.
        .filter(|key| !key.starts_with("started ") || expected.contains_key(*key))
        .map(|key| {
            let words = |picture: &Picture| {
                picture
                    .get(key)
                    .map_or("nothing".to_owned(), |words| format!("'{words}'"))
            };
            format!(
                "{key}: found {}, expected {}",
                words(found),
                words(expected)
            )
        })
        .collect()
}

fn make_parents(picture: &mut Picture, path: &str) {
    let parents = Path::new(path).ancestors().skip(1);
    for parent in parents.take_while(|parent| *parent != Path::new("/")) {
        let parent = parent.display().to_string();
        picture
            .entry(parent)
            .or_insert_with(|| "d 755 root:root".to_owned());
    }
}

fn add_package(picture: &mut Picture, name: &str, version: &str) {
    let directory = format!("/usr/share/{name}");
    picture.insert(format!("package {name}"), format!("installed {version}"));
    picture.insert(format!("{directory}/version"), "f 644 root:root".to_owned());
    picture.insert(
        format!("{directory}/version content"),
        sha256(&format!("{version}\n")),
    );
    picture.insert(directory, "d 755 root:root".to_owned());
}

fn remove_package(picture: &mut Picture, name: &str) {
    picture.retain(|key, _| {
        let is_its_file = key.starts_with(&format!("/usr/share/{name}"));
        !is_its_file && *key != format!("package {name}")
    });
    debug_assert!(name != PACKAGE_BEFORE || !picture.contains_key("package tiny-before"));
}

fn sha256(text: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
