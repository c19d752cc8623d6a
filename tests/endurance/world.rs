//! What a revision declares, chosen at random, and its text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::chance::Chance;

/// Paths that may be declared as files. The last two are there before limpet is.
pub const FILES: &[&str] = &[
    "/etc/soak/a.conf",
    "/etc/soak/b.conf",
    "/etc/soak/c.conf",
    "/etc/soak.conf",
    "/srv/soak/deep/er/one",
    "/srv/soak/deep/two",
    "/srv/soak/long",
    "/etc/before.conf",
    "/srv/before/file",
];
/// Those that are there before.
pub const FILES_BEFORE: &[&str] = &["/etc/before.conf", "/srv/before/file"];
/// Directories that may be declared. The last one is there before.
pub const DIRECTORIES: &[&str] = &["/srv/soak/dir", "/etc/soak", "/srv/before"];
/// Links that may be declared.
pub const LINKS: &[&str] = &["/srv/soak/current", "/etc/soak-link"];
/// Units that come with the revision. Each shows in /run what it was started with.
pub const UNITS: &[&str] = &["soak-one.service", "soak-two.service"];
/// A unit that is there before, and the package that is, too.
pub const UNIT_BEFORE: &str = "before.service";
pub const PACKAGE_BEFORE: &str = "tiny-before";
/// What the units read.
pub const CONFIGURATION: &str = "/etc/soak/a.conf";
/// What a command makes of it, whenever it changes.
pub const COPY: &str = "/var/tmp/soak-copy";

/// A declared file.
#[derive(Debug, Clone, PartialEq)]
pub enum File {
    Absent,
    Content {
        text: String,
        mode: u32,
        owner: &'static str,
    },
}

/// A declared unit; `generation` is in its file, where it has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    pub generation: u64,
    pub enabled: bool,
    pub running: bool,
    pub masked: bool,
}

/// A whole declaration. Packages have a version, or are absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct World {
    pub files: BTreeMap<&'static str, File>,
    pub directories: BTreeMap<&'static str, u32>,
    pub links: BTreeMap<&'static str, String>,
    pub packages: BTreeMap<&'static str, Option<&'static str>>,
    pub units: BTreeMap<&'static str, Unit>,
    /// What is wrong with it, so that the machine has to stay as it was.
    pub flaw: Option<Flaw>,
}

/// What may be wrong with a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// Its health check never holds: it is undone.
    Ill,
    /// Its units do not accept the configuration: that is put back.
    Refused,
}

impl World {
    /// Another declaration, a few changes away.
    pub fn next(&self, chance: &mut Chance) -> World {
        let mut world = self.clone();
        for _ in 0..=chance.below(5) {
            world.change(chance);
        }
        world
    }

    /// Is there a configuration that units read. Where there is none, the command has nothing to copy once it is put back.
    pub fn may_be_refused(&self) -> bool {
        let is_read = UNITS.iter().any(|name| self.units.contains_key(name));
        is_read && matches!(self.files.get(CONFIGURATION), Some(File::Content { .. }))
    }

    /// The same, and something is wrong with it: another declaration that is ill, or, where a unit reads it, a configuration that is
    /// refused.
    pub fn flawed(&self, chance: &mut Chance) -> World {
        let mut world = self.clone();
        if self.may_be_refused() && !chance.once_in(4) {
            let refused = File::Content {
                text: format!("refuse {}\n", chance.below(1000)),
                mode: 0o600,
                owner: "daemon",
            };
            world.files.insert(CONFIGURATION, refused);
            world.flaw = Some(Flaw::Refused);
        } else {
            world = self.next(chance);
            world.flaw = Some(Flaw::Ill);
        }
        world
    }

    fn change(&mut self, chance: &mut Chance) {
        match chance.below(10) {
            0..=3 => {
                // What units read matters most.
                let path = match chance.once_in(4) {
                    true => CONFIGURATION,
                    false => *chance.pick(FILES),
                };
                let file = file(path, chance);
                put(&mut self.files, path, file);
            }
            4 => {
                let path = *chance.pick(DIRECTORIES);
                let mode = (!chance.once_in(3)).then(|| *chance.pick(&[0o755, 0o750, 0o711]));
                put(&mut self.directories, path, mode);
            }
            5 => {
                let path = *chance.pick(LINKS);
                let target = (!chance.once_in(3)).then(|| format!("/opt/{}", chance.below(100)));
                put(&mut self.links, path, target);
            }
            6 => {
                let (name, wanted) = match chance.below(4) {
                    0 => ("tiny-two", Some(Some("1.0"))),
                    1 => (PACKAGE_BEFORE, Some(None)),
                    _ => ("tiny-one", Some(Some(*chance.pick(&["1.0", "2.0"])))),
                };
                put(
                    &mut self.packages,
                    name,
                    wanted.filter(|_| !chance.once_in(3)),
                );
            }
            7 => {
                let unit = Unit {
                    generation: 0,
                    enabled: chance.once_in(2),
                    running: chance.once_in(2),
                    masked: chance.once_in(4),
                };
                let unit = match unit.masked {
                    true => Unit {
                        enabled: false,
                        running: false,
                        ..unit
                    },
                    false => unit,
                };
                put(
                    &mut self.units,
                    UNIT_BEFORE,
                    Some(unit).filter(|_| !chance.once_in(3)),
                );
            }
            _ => {
                let name = *chance.pick(UNITS);
                let unit = Unit {
                    generation: chance.below(1000),
                    enabled: chance.once_in(2),
                    running: !chance.once_in(4),
                    masked: false,
                };
                put(
                    &mut self.units,
                    name,
                    Some(unit).filter(|_| !chance.once_in(4)),
                );
            }
        }
    }

    /// The text of the layer.
    pub fn layer(&self) -> String {
        let mut text = String::new();
        for (path, file) in &self.files {
            let _ = match file {
                File::Absent => writeln!(text, "[file.\"{path}\"]\nstate = \"absent\""),
                File::Content {
                    text: content,
                    mode,
                    owner,
                } => writeln!(
                    text,
                    "[file.\"{path}\"]\ncontent = {content:?}\nmode = \"{mode:04o}\"\nowner = \"{owner}\"\ngroup = \"{owner}\""
                ),
            };
        }
        if let Some(File::Content { .. }) = self.files.get(CONFIGURATION) {
            let _ = writeln!(
                text,
                "[command.copy]\ncommand = [\"/bin/cp\", \"{CONFIGURATION}\", \"{COPY}\"]\nrun_on = [\"file:{CONFIGURATION}\"]"
            );
        }
        for (path, mode) in &self.directories {
            let _ = writeln!(text, "[directory.\"{path}\"]\nmode = \"{mode:04o}\"");
        }
        for (path, target) in &self.links {
            let _ = writeln!(text, "[symlink.\"{path}\"]\ntarget = \"{target}\"");
        }
        for (name, version) in &self.packages {
            let _ = match version {
                Some(version) => writeln!(
                    text,
                    "[package.{name}]\nversion = \"{version}\"\nallow_downgrade = true"
                ),
                None => writeln!(text, "[package]\n{name} = \"absent\""),
            };
        }
        for (name, unit) in &self.units {
            let Unit {
                enabled,
                running,
                masked,
                ..
            } = unit;
            let _ = writeln!(text, "[unit.\"{name}\"]");
            let _ = match masked {
                true => writeln!(text, "masked = true\nrunning = false"),
                false => writeln!(text, "enabled = {enabled}\nrunning = {running}"),
            };
            if *name != UNIT_BEFORE {
                let _ = writeln!(text, "content = '''\n{}'''", unit.file(name));
                if self.files.contains_key(CONFIGURATION) {
                    let _ = writeln!(text, "restart_on = [\"file:{CONFIGURATION}\"]");
                    if self.flaw == Some(Flaw::Refused) {
                        let _ = writeln!(
                            text,
                            "validate = [\"sh\", \"-c\", \"! grep refuse {CONFIGURATION}\"]"
                        );
                    }
                }
            }
        }
        if self.flaw == Some(Flaw::Ill) {
            text.push_str(
                "[health.never]\ncommand = [\"false\"]\nwithin = \"2s\"\nstable = \"1s\"\n",
            );
        }
        text
    }
}

impl Unit {
    /// The unit's file.
    pub fn file(&self, name: &str) -> String {
        format!(
            "[Service]\nExecStart=/bin/sh -c 'echo {} $$(cat {CONFIGURATION} 2>/dev/null) > /run/{name}; exec sleep infinity'\n[Install]\nWantedBy=multi-user.target\n",
            self.generation
        )
    }
}

fn put<T>(map: &mut BTreeMap<&'static str, T>, key: &'static str, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(key)),
    }
}

fn file(path: &str, chance: &mut Chance) -> Option<File> {
    if chance.once_in(3) {
        return None;
    }
    if FILES_BEFORE.contains(&path) && chance.once_in(4) {
        return Some(File::Absent);
    }
    let times = if path.ends_with("long") { 20_000 } else { 1 };
    Some(File::Content {
        text: format!("revision {}", chance.below(100_000)).repeat(times) + "\n",
        mode: *chance.pick(&[0o644, 0o600, 0o755, 0o640]),
        owner: chance.pick::<&str>(&["root", "daemon", "games"]),
    })
}
