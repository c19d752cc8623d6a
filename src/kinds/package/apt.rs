//! apt: arguments in, its output understood. Runs nothing.
//!
//! Invariant: never an option that skips signatures, and never one that permits a downgrade nobody declared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::Class;
use crate::sys::command::Command;

/// Deciding what to do reads every package list once.
const SIMULATION_LIMIT: Duration = Duration::from_secs(5 * 60);
/// How long fetching lists may take: they come over the network.
pub const REFRESH_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Packages come over the network, and their scripts may build an initrd on a slow disk.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(30 * 60);

/// One package asked of apt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Any version.
    Install(String),
    /// Exactly this version.
    InstallVersion(String, String),
    /// Not installed; its configuration stays.
    Remove(String),
}

impl Request {
    /// The package's name.
    pub fn name(&self) -> &str {
        match self {
            Request::Install(name) | Request::InstallVersion(name, _) | Request::Remove(name) => {
                name
            }
        }
    }

    fn argument(&self) -> String {
        match self {
            Request::Install(name) => name.clone(),
            Request::InstallVersion(name, version) => format!("{name}={version}"),
            Request::Remove(name) => format!("{name}-"),
        }
    }
}

/// What a transaction may do beside what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions {
    /// Go down to an older version; set only when a package declares it.
    pub downgrade: bool,
    /// Remove dependencies that nothing needs any longer. Only ever simulated: the real run names them.
    pub auto_remove: bool,
    /// Change what is on hold. Its simulation says whether that is more than was asked for.
    pub change_held: bool,
}

/// Computes what a transaction would do.
pub fn simulation(requests: &[Request], permissions: Permissions) -> Command {
    apt_get(
        install_arguments(requests, permissions, true),
        SIMULATION_LIMIT,
    )
}

/// Computes which dependencies nothing needs already.
pub fn unneeded_simulation() -> Command {
    apt_get(
        vec!["-s".to_owned(), "autoremove".to_owned()],
        SIMULATION_LIMIT,
    )
}

/// The transaction itself.
pub fn transaction(requests: &[Request], permissions: Permissions) -> Command {
    apt_get(
        install_arguments(requests, permissions, false),
        TRANSACTION_LIMIT,
    )
}

/// Unpacks a version again that is installed.
pub fn reinstallation(name: &str, version: &str) -> Command {
    let mut arguments = words(&["--no-remove", "--reinstall", "install", "--"]);
    arguments.push(format!("{name}={version}"));
    apt_get(arguments, TRANSACTION_LIMIT)
}

/// Lists the versions that repositories have of these packages.
pub fn list_versions(names: &[&str]) -> Command {
    let mut argv = words(&["apt-cache", "madison", "--"]);
    argv.extend(names.iter().map(|name| (*name).to_owned()));
    command(argv, SIMULATION_LIMIT)
}

/// Puts packages on hold, or takes their holds away.
pub fn mark_held(names: &[&str], is_held: bool) -> Command {
    let verb = if is_held { "hold" } else { "unhold" };
    let mut argv = words(&["apt-mark", verb, "--"]);
    argv.extend(names.iter().map(|name| (*name).to_owned()));
    command(argv, SIMULATION_LIMIT)
}

/// Marks packages as having come along with others.
pub fn mark_automatic(names: &[&str]) -> Command {
    let mut argv = words(&["apt-mark", "auto", "--"]);
    argv.extend(names.iter().map(|name| (*name).to_owned()));
    command(argv, SIMULATION_LIMIT)
}

/// Fetches the lists of packages; a list that cannot be fetched is an error.
pub fn refresh() -> Command {
    let arguments = ["-o", "APT::Update::Error-Mode=any", "update"];
    apt_get(
        arguments.into_iter().map(str::to_owned).collect(),
        REFRESH_LIMIT,
    )
}

/// Fetches the lists of the sources in `file` and no others, and leaves those of the others as they are. It is not repeated: who waits for
/// it tries again by himself.
pub fn refresh_one(file: &str) -> Command {
    let only = format!("Dir::Etc::SourceList={file}");
    let arguments = [
        "-o",
        &only,
        "-o",
        "Dir::Etc::SourceParts=/dev/null",
        "-o",
        "APT::Get::List-Cleanup=false",
        // It would be one without the other sources.
        "-o",
        "pkgCacheFile::Generate=false",
        "-o",
        "Acquire::Retries=0",
        "-o",
        "APT::Update::Error-Mode=any",
        "update",
    ];
    apt_get(words(&arguments), REFRESH_LIMIT)
}

/// Computes what apt would do about dependencies that are not met, and packages that must be installed again.
pub fn fix_simulation() -> Command {
    apt_get(words(&["-s", "-f", "install"]), SIMULATION_LIMIT)
}

/// Does it; `may_remove` only what its simulation removes.
pub fn fix(may_remove: bool) -> Command {
    apt_get(
        words(if may_remove {
            &["-f", "install"]
        } else {
            &["--no-remove", "-f", "install"]
        }),
        TRANSACTION_LIMIT,
    )
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Finishes the configuration of what an interrupted dpkg left unpacked.
pub fn configure() -> Command {
    command(
        [
            "dpkg",
            "--configure",
            "-a",
            "--force-confdef",
            "--force-confold",
        ]
        .into_iter()
        .map(str::to_owned)
        .collect(),
        TRANSACTION_LIMIT,
    )
}

fn install_arguments(
    requests: &[Request],
    permissions: Permissions,
    is_simulation: bool,
) -> Vec<String> {
    let mut arguments = Vec::new();
    if is_simulation {
        arguments.push("-s".to_owned());
    } else if !requests
        .iter()
        .any(|request| matches!(request, Request::Remove(_)))
    {
        arguments.push("--no-remove".to_owned());
    }
    if permissions.downgrade {
        arguments.push("--allow-downgrades".to_owned());
    }
    if permissions.change_held {
        arguments.push("--allow-change-held-packages".to_owned());
    }
    arguments.push("-o".to_owned());
    arguments.push(format!(
        "APT::Get::AutomaticRemove={}",
        permissions.auto_remove
    ));
    arguments.push("install".to_owned());
    arguments.push("--".to_owned());
    arguments.extend(requests.iter().map(Request::argument));
    arguments
}

fn apt_get(arguments: Vec<String>, time_limit: Duration) -> Command {
    let options = [
        "apt-get",
        "-q",
        "-y",
        // A changed configuration file is kept, a new default taken where nobody changed it: nobody is there to be asked.
        "-o",
        "Dpkg::Options::=--force-confdef",
        "-o",
        "Dpkg::Options::=--force-confold",
        "-o",
        "Dpkg::Use-Pty=0",
        // Not for long: while somebody else installs packages, files and units are to go on. It is tried again soon.
        "-o",
        "DPkg::Lock::Timeout=5",
        "-o",
        "APT::Color=0",
        "-o",
        "Acquire::Retries=3",
        "-o",
        "Acquire::http::Timeout=30",
        "-o",
        "Acquire::https::Timeout=30",
    ];
    let argv = options.into_iter().map(str::to_owned).chain(arguments);
    command(argv.collect(), time_limit)
}

fn command(argv: Vec<String>, time_limit: Duration) -> Command {
    let environment = [
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBIAN_PRIORITY", "critical"),
        ("APT_LISTCHANGES_FRONTEND", "none"),
        ("APT_LISTBUGS_FRONTEND", "none"),
        // Restarting what uses old libraries is the fleet's decision, not a package script's.
        ("NEEDRESTART_SUSPEND", "1"),
        ("HOME", "/root"),
    ];
    Command {
        argv,
        time_limit,
        environment: environment
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        inside_root: true,
        ..Command::default()
    }
}

/// What a simulated transaction would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Simulation {
    /// Packages that are unpacked or configured.
    pub installed: Vec<Installation>,
    /// Names of packages that are removed.
    pub removed: Vec<String>,
    /// Nothing is unpacked or removed: what is unpacked already is configured.
    pub only_configures: bool,
}

/// One package that a transaction installs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Its name, without an architecture.
    pub name: String,
    /// The version that is replaced.
    pub old: Option<String>,
    /// The version that comes.
    pub new: String,
}

/// Reads the `Inst`, `Conf` and `Remv` lines of a simulation.
pub fn parse_simulation(output: &str) -> Simulation {
    let mut simulation = Simulation {
        only_configures: true,
        ..Simulation::default()
    };
    for line in output.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(verb), Some(name)) = (words.next(), words.next()) else {
            continue;
        };
        let name = without_architecture(name).to_owned();
        simulation.only_configures &= !matches!(verb, "Inst" | "Remv" | "Purg");
        match verb {
            "Inst" | "Conf" => {
                let mut word = words.next();
                let old = word
                    .and_then(|word| word.strip_prefix('[')?.strip_suffix(']'))
                    .map(str::to_owned);
                if old.is_some() {
                    word = words.next();
                }
                let Some(new) = word.and_then(|word| word.strip_prefix('(')) else {
                    continue;
                };
                // Every package is configured after it was unpacked: one is enough.
                if !simulation.installed.iter().any(|known| known.name == name) {
                    simulation.installed.push(Installation {
                        name,
                        old,
                        new: new.trim_end_matches(')').to_owned(),
                    });
                }
            }
            "Remv" | "Purg" => simulation.removed.push(name),
            _ => {}
        }
    }
    simulation
}

/// Reads `name | version | repository Packages` lines: each package's versions, in no order.
pub fn parse_versions(output: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in output.lines() {
        let mut columns = line.split(" | ").map(str::trim);
        let (Some(name), Some(version), Some(place)) =
            (columns.next(), columns.next(), columns.next())
        else {
            continue;
        };
        // Sources are listed, too.
        if place.ends_with(" Packages") {
            let known = versions.entry(name.to_owned()).or_default();
            known.insert(version.to_owned());
        }
    }
    versions
}

/// A package that apt cannot find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFound {
    /// The name as apt says it.
    pub name: String,
    /// The version it was asked for, when the package is known but the version is not.
    pub version: Option<String>,
}

impl NotFound {
    /// Does this speak of `name`. apt takes a last `+` or `-` off a name it does not know.
    pub fn is_about(&self, name: &str) -> bool {
        self.name == name || Some(self.name.as_str()) == name.strip_suffix(['+', '-'])
    }
}

/// The packages that apt could not find.
pub fn parse_not_found(output: &str) -> Vec<NotFound> {
    let mut all: Vec<NotFound> = Vec::new();
    for line in output.lines() {
        let Some(message) = line.trim().strip_prefix("E: ") else {
            continue;
        };
        let quoted: Vec<&str> = message.split('\'').skip(1).step_by(2).collect();
        let found = if let Some(name) = message.strip_prefix("Unable to locate package ") {
            Some((name.trim(), None))
        } else if message.starts_with("Version '") && message.ends_with("' was not found") {
            match quoted[..] {
                [version, name] => Some((name, Some(version))),
                _ => None,
            }
        } else if message.starts_with("Couldn't find any package by")
            || message.ends_with("has no installation candidate")
            || message.ends_with("is not installed, so not removed")
        {
            quoted.first().map(|name| (*name, None))
        } else {
            None
        };
        let Some((name, version)) = found else {
            continue;
        };
        if !all.iter().any(|known| known.name == name) {
            all.push(NotFound {
                name: name.to_owned(),
                version: version.map(str::to_owned),
            });
        }
    }
    all
}

/// What apt or dpkg says went wrong with `name`, or with the whole transaction; empty when it says nothing.
pub fn parse_complaint(output: &str, name: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    // "dpkg: error processing package NAME (--configure):" and its cause on the next line.
    for (index, line) in lines.iter().enumerate() {
        let Some(rest) = line.strip_prefix("dpkg: error processing ") else {
            continue;
        };
        let is_about = rest
            .split([' ', '/', '_'])
            .any(|word| without_architecture(word) == without_architecture(name));
        if is_about {
            let cause = lines.get(index + 1).copied().unwrap_or_default();
            let before = index
                .checked_sub(1)
                .map(|before| lines[before])
                .filter(|line| !line.starts_with("Setting up") && !line.starts_with("Unpacking"))
                .unwrap_or_default();
            return [cause, before]
                .into_iter()
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>()
                .join("; ");
        }
    }
    // "NAME : Depends: other but it is not installable"
    let unmet = lines
        .iter()
        .position(|line| line.ends_with("have unmet dependencies:"))
        .map(|start| &lines[start + 1..])
        .unwrap_or_default();
    let unmet: Vec<&str> = unmet
        .iter()
        .copied()
        .take_while(|line| line.contains(':') && !line.starts_with("E: "))
        .collect();
    let own = unmet
        .iter()
        .find(|line| line.split(' ').next() == Some(name));
    // What it needs may be what is impossible.
    if let Some(unmet) = own.or(unmet.first()) {
        return (*unmet).to_owned();
    }
    let errors = lines.iter().filter(|line| line.starts_with("E: "));
    errors.take(3).copied().collect::<Vec<_>>().join("; ")
}

/// A configuration file that was left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFile {
    /// Whose it is, without an architecture.
    pub package: String,
    /// Where it is.
    pub path: String,
}

/// The configuration files that dpkg left as somebody had changed them, although their packages bring others.
pub fn parse_kept_files(output: &str) -> Vec<KeptFile> {
    let mut kept = Vec::new();
    let (mut package, mut path) = ("", "");
    for line in output.lines() {
        if let Some(rest) = line.strip_prefix("Setting up ") {
            (package, path) = (rest.split(' ').next().unwrap_or_default(), "");
        } else if let Some(rest) = line.strip_prefix("Configuration file '") {
            path = rest.split('\'').next().unwrap_or_default();
        } else if let Some(what) = line.trim_start().strip_prefix("==> ") {
            let is_kept = what.starts_with("Keeping old config file")
                || what.starts_with("Using current old file");
            if is_kept && !path.is_empty() {
                kept.push(KeptFile {
                    package: without_architecture(package).to_owned(),
                    path: std::mem::take(&mut path).to_owned(),
                });
            }
        } else {
            path = "";
        }
    }
    kept
}

/// Who must act when a transaction failed as a whole.
pub fn classify_failure(output: &str) -> Class {
    let is_transient = [
        "Could not get lock",
        "Failed to fetch",
        "Unable to fetch some archives",
        "Temporary failure resolving",
    ]
    .iter()
    .any(|sign| output.contains(sign));
    if is_transient {
        Class::Transient
    } else {
        Class::Host
    }
}

/// Does another package manager hold the lock.
pub fn is_locked(output: &str) -> bool {
    output.contains("Could not get lock") || output.contains("lock was locked by another process")
}

/// Who holds the lock, as apt says it: `process 1234 (apt-get)`.
pub fn lock_holder(output: &str) -> Option<&str> {
    let (_, holder) = output.rsplit_once("It is held by ")?;
    let line = holder.lines().next()?;
    line.find(')').map(|end| &line[..=end])
}

/// Did archives fail to arrive, as they do when the lists are older than the repository.
pub fn has_stale_lists(output: &str) -> bool {
    output.contains("E: Failed to fetch") || output.contains("Unable to fetch some archives")
}

/// A name without its architecture.
pub fn without_architecture(name: &str) -> &str {
    name.split_once(':').map_or(name, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_holder_of_the_lock_is_named() {
        let waited = "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 186 (perl)...\n\
                      E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?\n";
        assert!(is_locked(waited));
        assert_eq!(lock_holder(waited), Some("process 186 (perl)"));
        assert_eq!(lock_holder("E: Unable to locate package"), None);
    }

    #[test]
    fn a_transaction_asks_nobody_and_skips_no_signature() {
        let requests = [
            Request::Install("curl".to_owned()),
            Request::InstallVersion("alloy".to_owned(), "1.9.1".to_owned()),
            Request::Remove("telnet".to_owned()),
        ];
        insta::assert_snapshot!(
            transaction(&requests, Permissions::default()).argv.join(" "),
            @"apt-get -q -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=5 -o APT::Color=0 -o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 -o APT::Get::AutomaticRemove=false install -- curl alloy=1.9.1 telnet-"
        );
        let permissions = Permissions {
            downgrade: true,
            ..Permissions::default()
        };
        let argv = transaction(&requests[..2], permissions).argv;
        assert!(argv.contains(&"--allow-downgrades".to_owned()));
        assert!(argv.contains(&"--no-remove".to_owned()));
        assert!(!argv.contains(&"-s".to_owned()));
        assert!(
            simulation(&requests, permissions)
                .argv
                .contains(&"-s".to_owned())
        );
    }

    #[test]
    fn simulations_are_understood() {
        let check = |output: &str, installed: &[&str], removed: &[&str]| {
            let simulation = parse_simulation(output);
            let found: Vec<String> = simulation
                .installed
                .iter()
                .map(|one| {
                    let old = one.old.as_deref().unwrap_or("-");
                    format!("{} {old} {}", one.name, one.new)
                })
                .collect();
            assert_eq!(found, installed);
            assert_eq!(simulation.removed, removed);
        };
        check(
            include_str!("fixtures/install-with-dependency.txt"),
            &["lim-lib - 1.0", "lim-app - 2.0~rc1"],
            &[],
        );
        check(
            include_str!("fixtures/upgrade.txt"),
            &["lim-app 1.1 2.0~rc1"],
            &[],
        );
        check(
            include_str!("fixtures/downgrade.txt"),
            &["lim-app 1.1 1.0"],
            &[],
        );
        check(
            include_str!("fixtures/removal-takes-more.txt"),
            &[],
            &["lim-app", "lim-lib"],
        );
    }

    #[test]
    fn what_cannot_be_found_is_named() {
        let check = |output: &str, asked: &str, expected: Option<Option<&str>>| {
            let found = parse_not_found(output);
            let about = found.iter().find(|found| found.is_about(asked));
            assert_eq!(
                about.map(|found| found.version.as_deref()),
                expected,
                "{asked}"
            );
        };
        let unknown = include_str!("fixtures/unable-to-locate.txt");
        check(unknown, "lim-nothing", Some(None));
        check(unknown, "lim-app", None);
        check(
            include_str!("fixtures/unable-to-locate-plus.txt"),
            "lim-nosuch++",
            Some(None),
        );
        check(
            include_str!("fixtures/version-not-found.txt"),
            "lim-app",
            Some(Some("9")),
        );
        check(
            include_str!("fixtures/unmet-dependencies.txt"),
            "lim-needs",
            None,
        );
        check(
            "E: Package 'awk' has no installation candidate\n",
            "awk",
            Some(None),
        );
    }

    #[test]
    fn complaints_are_those_about_the_package() {
        let check = |output: &str, name: &str| parse_complaint(output, name);
        let postinst = include_str!("fixtures/postinst-fails.txt");
        insta::assert_snapshot!(check(postinst, "lim-broken"), @"installed lim-broken package post-installation script subprocess returned error exit status 7; cannot start today");
        insta::assert_snapshot!(check(postinst, "lim-slow"), @"E: Sub-process /usr/bin/dpkg returned an error code (1)");
        let unmet = include_str!("fixtures/unmet-dependencies.txt");
        let conflict = include_str!("fixtures/conflict.txt");
        insta::assert_snapshot!(check(conflict, "lim-b"), @"lim-b : Conflicts: lim-a but 2.0 is to be installed");
        let below = include_str!("fixtures/conflict-below.txt");
        insta::assert_snapshot!(check(below, "lim-d"), @"lim-b : Conflicts: lim-a but 2.0 is to be installed");
        insta::assert_snapshot!(check(unmet, "lim-needs"), @"lim-needs : Depends: lim-missing but it is not installable");
        insta::assert_snapshot!(check(include_str!("fixtures/held.txt"), "lim-app"), @"E: Held packages were changed and -y was used without --allow-change-held-packages.");
        insta::assert_snapshot!(check(include_str!("fixtures/downgrade-refused.txt"), "lim-app"), @"E: Packages were downgraded and -y was used without --allow-downgrades.");
    }

    #[test]
    fn configuration_files_that_were_kept_are_found_with_their_package() {
        let kept = parse_kept_files(include_str!("fixtures/kept-files.txt"));
        let told: Vec<String> = kept
            .iter()
            .map(|file| format!("{} {}", file.package, file.path))
            .collect();
        assert_eq!(
            told,
            ["lim-conf /etc/lim-conf.conf", "lim-conf /etc/lim-gone.conf"]
        );
    }

    proptest! {
        #[test]
        fn no_output_makes_it_panic(output in "((Inst|Conf|Remv|E:|dpkg: error processing) ?[a-z']{0,4} ?\\[?[0-9]?\\]? ?\\(?\\PC{0,6}\n){0,9}") {
            parse_simulation(&output);
            parse_not_found(&output);
            parse_complaint(&output, "a");
            parse_kept_files(&output);
        }
    }
}
