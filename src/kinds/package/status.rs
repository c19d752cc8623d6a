//! dpkg's database: which packages are installed, in which version, and which are only half there.
//!
//! Read from `/var/lib/dpkg/status` and the updates that an interrupted dpkg left beside it, in the format of deb-control(5).
//!
//! Invariant: a state we do not know is an error; a package that is half there is neither installed nor absent.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

use crate::kinds::package::family::Family;
use crate::kinds::package::{apt, dependants, rpm};
use crate::model::{Class, Failure};
use crate::sys::Host;

/// Where dpkg keeps its database.
const DATABASE: &str = "/var/lib/dpkg";
/// The largest database that is read: a hundred times the usual size.
const LIMIT_BYTES: u64 = 128 << 20;

/// How far a package's installation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing of it is there.
    NotInstalled,
    /// Removed; its configuration files are left.
    ConfigFiles,
    /// Something went wrong or was interrupted: it needs repair. dpkg's word for where it stopped.
    Broken(&'static str),
    /// Installed and configured.
    Installed,
}

/// One package of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The processor it is built for, or `all`.
    pub architecture: String,
    /// How far it is installed.
    pub state: State,
    /// Its version; empty when nothing of it is there.
    pub version: String,
    /// The system, or apt, does not do without it.
    pub is_essential: bool,
    /// It is on hold: its version is changed only by who says so.
    pub is_held: bool,
}

/// All packages that dpkg, or rpm, knows.
#[derive(Debug, Clone, Default)]
pub struct Database {
    family: Family,
    entries: BTreeMap<String, Vec<Entry>>,
    /// The architecture that a name without one means.
    native: String,
    has_updates: bool,
}

/// What is wrong with a database's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    line: usize,
    cause: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.cause)
    }
}

impl Database {
    /// Reads the database below the host's root.
    pub fn read(host: &Host) -> Result<Self, Failure> {
        match Family::of(host)? {
            Family::Apt => Self::read_dpkg(host),
            Family::Dnf(program) => rpm::read(host, program),
        }
    }

    fn read_dpkg(host: &Host) -> Result<Self, Failure> {
        let path = format!("{DATABASE}/status");
        let malformed = |path: &str, malformed: Malformed| {
            Failure::new(
                Class::Host,
                format!("failed to read dpkg's database '{path}': {malformed}"),
            )
            .with_hint("'dpkg --audit' says more; dpkg keeps older copies in /var/backups")
        };
        let mut entries =
            parse_status(&read_text(host, &path)?).map_err(|error| malformed(&path, error))?;
        let updates = read_update_names(host)?;
        for name in &updates {
            let path = format!("{DATABASE}/updates/{name}");
            entries.extend(
                parse_status(&read_text(host, &path)?).map_err(|error| malformed(&path, error))?,
            );
        }
        Ok(Database::new(entries, !updates.is_empty()))
    }

    /// A database of these entries; later ones replace earlier ones.
    pub fn new(list: Vec<Entry>, has_updates: bool) -> Self {
        let mut entries: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for entry in list {
            let same_name = entries.entry(entry.name.clone()).or_default();
            same_name.retain(|known| known.architecture != entry.architecture);
            same_name.push(entry);
        }
        let native = entries
            .get("dpkg")
            .and_then(|found| found.first())
            .map(|entry| entry.architecture.clone())
            .unwrap_or_default();
        Database {
            family: Family::Apt,
            entries,
            native,
            has_updates,
        }
    }

    /// A database of rpm's, which may have several versions of one package.
    pub fn of_rpm(list: Vec<Entry>, family: Family) -> Self {
        let mut entries: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for entry in list {
            entries.entry(entry.name.clone()).or_default().push(entry);
        }
        for same_name in entries.values_mut() {
            same_name.sort_by(|one, other| family.compare_versions(&other.version, &one.version));
        }
        Database {
            family,
            entries,
            native: std::env::consts::ARCH.to_owned(),
            has_updates: false,
        }
    }

    /// Whose database it is.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The versions in which the package called `name` is installed, the highest first.
    pub fn versions(&self, name: &str) -> impl Iterator<Item = &str> {
        let architecture = self.get(name).map(|entry| entry.architecture.as_str());
        let same_name = match self.family {
            Family::Apt => self.get(name).map(std::slice::from_ref),
            Family::Dnf(_) => self.entries.get(name).map(Vec::as_slice),
        };
        let installed = same_name.unwrap_or_default().iter().filter(move |entry| {
            entry.state == State::Installed && Some(entry.architecture.as_str()) == architecture
        });
        installed.map(|entry| entry.version.as_str())
    }

    /// The package called `name`, or `name:architecture`; a name alone means the native architecture or `all`. Of several versions it
    /// is the highest.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        if let Family::Dnf(_) = self.family {
            let found = self.entries.get(name)?;
            let is_native =
                |entry: &&Entry| [self.native.as_str(), "noarch"].contains(&&*entry.architecture);
            return found.iter().find(is_native).or_else(|| found.first());
        }
        let (name, architecture) = match name.split_once(':') {
            Some((name, architecture)) => (name, architecture),
            None => (name, self.native.as_str()),
        };
        let found = self.entries.get(name)?;
        found
            .iter()
            .find(|entry| entry.architecture == architecture || entry.architecture == "all")
            .or_else(|| match found.as_slice() {
                [only] if architecture == self.native => Some(only),
                _ => None,
            })
    }

    /// How far the package called `name` is installed.
    pub fn state(&self, name: &str) -> State {
        self.get(name)
            .map_or(State::NotInstalled, |entry| entry.state)
    }

    /// The names of the packages that are there and on hold.
    pub fn held(&self) -> impl Iterator<Item = &str> {
        let entries = self.entries.values().flatten();
        entries
            .filter(|entry| entry.is_held)
            .map(|entry| entry.name.as_str())
    }

    /// Was dpkg interrupted, so that `dpkg --configure -a` has something to do.
    pub fn is_interrupted(&self) -> bool {
        !self.interrupted().is_empty()
    }

    /// Was dpkg interrupted while it wrote down what it does: then apt refuses to begin anything.
    pub fn has_updates(&self) -> bool {
        self.has_updates
    }

    /// What is half done: `name (how far it came)`, and dpkg's own database where that was being written.
    pub fn interrupted(&self) -> Vec<String> {
        let broken = self.entries.values().flatten().filter_map(|entry| {
            let State::Broken(stage) = entry.state else {
                return None;
            };
            Some(format!("{} ({stage})", entry.name))
        });
        let mut found: Vec<String> = broken.collect();
        if self.has_updates && found.is_empty() {
            found.push("its own database".to_owned());
        }
        found
    }
}

/// The packages in a text of deb-control stanzas.
pub fn parse_status(text: &str) -> Result<Vec<Entry>, Malformed> {
    let mut entries = Vec::new();
    let mut stanza = Stanza::default();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            entries.extend(std::mem::take(&mut stanza).into_entry()?);
            continue;
        }
        if line.starts_with([' ', '\t']) {
            continue; // a further line of a field that we do not read
        }
        let Some((field, value)) = line.split_once(':') else {
            return Err(Malformed {
                line: index + 1,
                cause: "expected 'Field: value'".to_owned(),
            });
        };
        if stanza.line == 0 {
            stanza.line = index + 1;
        }
        let value = value.trim();
        match field {
            "Package" => stanza.name = value,
            "Status" => stanza.status = value,
            "Version" => stanza.version = value,
            "Architecture" => stanza.architecture = value,
            "Essential" | "Protected" | "Important" => stanza.is_essential |= value == "yes",
            _ => {}
        }
    }
    entries.extend(stanza.into_entry()?);
    Ok(entries)
}

#[derive(Default)]
struct Stanza<'a> {
    line: usize,
    name: &'a str,
    status: &'a str,
    version: &'a str,
    architecture: &'a str,
    is_essential: bool,
}

impl Stanza<'_> {
    /// The entry, or nothing for an empty stanza.
    fn into_entry(self) -> Result<Option<Entry>, Malformed> {
        if self.line == 0 {
            return Ok(None);
        }
        let malformed = |cause: String| Malformed {
            line: self.line,
            cause,
        };
        if self.name.is_empty() {
            return Err(malformed("a package without a name".to_owned()));
        }
        let state = if self.status.is_empty() {
            State::NotInstalled
        } else {
            parse_state(self.status).ok_or_else(|| {
                malformed(format!(
                    "unknown status '{}' of '{}'",
                    self.status, self.name
                ))
            })?
        };
        if state == State::Installed && self.version.is_empty() {
            return Err(malformed(format!("'{}' has no version", self.name)));
        }
        Ok(Some(Entry {
            name: self.name.to_owned(),
            architecture: self.architecture.to_owned(),
            state,
            version: self.version.to_owned(),
            is_essential: self.is_essential,
            is_held: self.status.split_ascii_whitespace().next() == Some("hold"),
        }))
    }
}

/// The state from `want flag state`.
fn parse_state(status: &str) -> Option<State> {
    let mut words = status.split_ascii_whitespace();
    let _want = words.next()?;
    let flag = words.next()?;
    let state = match words.next()? {
        "not-installed" => State::NotInstalled,
        "config-files" => State::ConfigFiles,
        "half-installed" => State::Broken("half-installed"),
        "unpacked" => State::Broken("unpacked"),
        "half-configured" => State::Broken("half-configured"),
        "triggers-awaited" => State::Broken("triggers-awaited"),
        "triggers-pending" => State::Broken("triggers-pending"),
        "installed" => State::Installed,
        _ => return None,
    };
    match (flag, words.next()) {
        ("ok", None) => Some(state),
        ("reinstreq", None) => Some(State::Broken("to be reinstalled")),
        _ => None,
    }
}

/// The installed packages that do not work without each of `names`, by that name.
pub(super) fn read_dependants(
    host: &Host,
    names: &[&str],
) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let answer;
    let text;
    let installed = match Family::of(host)? {
        Family::Apt => {
            text = read_status(host)?;
            dependants::parse(&text)
        }
        Family::Dnf(_) => {
            answer = rpm::read_relations(host)?;
            dependants::parse_relations(&answer.output)
        }
    };
    let found = names.iter().map(|name| {
        let found = dependants::dependants(&installed, apt::without_architecture(name));
        ((*name).to_owned(), found)
    });
    Ok(found.collect())
}

/// The database as it is written, without what an interrupted dpkg left beside it.
pub(super) fn read_status(host: &Host) -> Result<String, Failure> {
    read_text(host, &format!("{DATABASE}/status"))
}

fn read_text(host: &Host, path: &str) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        let failure = Failure::new(Class::Host, format!("failed to read '{path}': {error}"));
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                failure.with_hint("packages need a host with dpkg and apt, or with rpm and dnf")
            }
            _ => failure,
        }
    };
    #[allow(clippy::disallowed_methods, reason = "below the host's root")]
    let file =
        std::fs::File::open(host.root().join(path.trim_start_matches('/'))).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LIMIT_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The numbered files that dpkg has not merged into its database yet, in the order they were written.
fn read_update_names(host: &Host) -> Result<Vec<String>, Failure> {
    let path = format!("{DATABASE}/updates");
    let failed = |error: std::io::Error| {
        Failure::new(Class::Host, format!("failed to list '{path}': {error}"))
    };
    #[allow(clippy::disallowed_methods, reason = "below the host's root")]
    let listed = std::fs::read_dir(
        host.root()
            .join(Path::new(&path).strip_prefix("/").expect("it is absolute")),
    );
    let listed = match listed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in listed {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
            names.push(name.into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recorded() -> Database {
        let text = include_str!("fixtures/status.txt");
        Database::new(parse_status(text).unwrap(), false)
    }

    #[test]
    fn states_are_read_strictly() {
        let check = |status, expected| assert_eq!(parse_state(status), expected, "{status}");
        check("install ok installed", Some(State::Installed));
        check("hold ok installed", Some(State::Installed));
        check("deinstall ok config-files", Some(State::ConfigFiles));
        check(
            "install ok half-configured",
            Some(State::Broken("half-configured")),
        );
        check(
            "install reinstreq installed",
            Some(State::Broken("to be reinstalled")),
        );
        check("purge ok not-installed", Some(State::NotInstalled));
        check("install ok splendid", None);
        check("install ok installed twice", None);
        check("installed", None);
    }

    #[test]
    fn a_recorded_database_is_understood() {
        let database = recorded();
        let check = |name, expected: State, version: &str| {
            assert_eq!(database.state(name), expected, "{name}");
            let found = database.get(name).map_or("", |entry| &entry.version);
            assert_eq!(found, version, "{name}");
        };
        check("lim-app", State::Installed, "1.1");
        check("lim-broken", State::Broken("half-configured"), "1.0");
        check("lim-app:amd64", State::Installed, "1.1"); // it is for all
        check("libc6", State::Installed, "2.36-9+deb12u14");
        check("libc6:amd64", State::Installed, "2.36-9+deb12u14");
        check("libc6:i386", State::NotInstalled, "");
        check("no-such-package", State::NotInstalled, "");
        assert!(database.get("dpkg").unwrap().is_essential);
        assert!(!database.get("lim-app").unwrap().is_essential);
        assert!(database.is_interrupted());
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one() {
        let text = "Package: a\nStatus: install ok unpacked\nArchitecture: all\nVersion: 1\n\n\
                    Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 2\n";
        let database = Database::new(parse_status(text).unwrap(), false);
        assert_eq!(database.get("a").unwrap().version, "2");
        assert!(!database.is_interrupted());
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        insta::assert_snapshot!(
            parse_status("Package: a\n\nPackage: b\nStatus: install ok splendid\n").unwrap_err(),
            @"line 3: unknown status 'install ok splendid' of 'b'"
        );
        insta::assert_snapshot!(
            parse_status("Package: a\nnonsense\n").unwrap_err(),
            @"line 2: expected 'Field: value'"
        );
        insta::assert_snapshot!(
            parse_status("Status: install ok installed\n").unwrap_err(),
            @"line 1: a package without a name"
        );
    }

    #[test]
    fn a_host_without_dpkg_is_told() {
        let root = tempfile::tempdir().unwrap();
        let failure = Database::read(&Host::new(root.path())).unwrap_err();
        insta::assert_snapshot!(failure, @"failed to read '/var/lib/dpkg/status': No such file or directory (os error 2)");
    }

    /// An entry, and its stanza with fields around it that say nothing here.
    fn stanza() -> impl Strategy<Value = (Entry, String)> {
        let states = prop_oneof![
            Just((State::Installed, "ok installed")),
            Just((State::NotInstalled, "ok not-installed")),
            Just((State::ConfigFiles, "ok config-files")),
            Just((State::Broken("unpacked"), "ok unpacked")),
            Just((State::Broken("triggers-awaited"), "ok triggers-awaited")),
            Just((
                State::Broken("to be reinstalled"),
                "reinstreq half-installed"
            )),
        ];
        let noise = prop_oneof![
            Just("Conffiles:\n /etc/x 00\n Package: y\n"),
            Just("Description: one: two\n more\n .\n  Status: install ok unpacked\n"),
            Just("Depends: a (>= 1:2), b | c\n"),
            Just("X-Package: other\nConfig-Version: 7\n"),
            Just(""),
        ];
        (
            "[a-z0-9][a-z0-9+.-]{1,12}",
            prop_oneof![Just("all"), Just("amd64"), Just("i386")],
            states,
            "([0-9]:)?[0-9][0-9a-z.+~]{0,9}(-[0-9a-z.]{1,4})?",
            any::<bool>(),
            any::<bool>(),
            [noise.clone(), noise.clone(), noise],
        )
            .prop_map(|(name, architecture, (state, words), version, is_essential, is_held, noise)| {
                let want = if is_held { "hold" } else { "install" };
                let essential = if is_essential { "Essential: yes\n" } else { "Essential: no\n" };
                let [first, second, third] = noise;
                let text = format!(
                    "Package: {name}\n{essential}{first}Status: {want} {words}\n{second}Architecture: {architecture}\n{third}Version: {version}\n"
                );
                let entry = Entry {
                    name,
                    architecture: architecture.to_owned(),
                    state,
                    version,
                    is_essential,
                    is_held,
                };
                (entry, text)
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(packages in proptest::collection::vec(stanza(), 0..12), gap in "\n{1,3}") {
            let texts: Vec<&str> = packages.iter().map(|(_, text)| text.as_str()).collect();
            let entries: Vec<Entry> = packages.iter().map(|(entry, _)| entry.clone()).collect();
            let read = parse_status(&texts.join(&gap));
            prop_assert_eq!(read, Ok(entries.clone()));
            // And each is found by its name and architecture, as it was written last.
            let database = Database::new(entries.clone(), false);
            for (index, entry) in entries.iter().enumerate() {
                let is_later = |later: &Entry| later.name == entry.name;
                if entries[index + 1..].iter().any(is_later) {
                    continue;
                }
                let same_name = entries.iter().filter(|other| other.name == entry.name).count();
                if same_name == 1 {
                    let name = format!("{}:{}", entry.name, entry.architecture);
                    prop_assert_eq!(database.get(&name), Some(entry));
                    prop_assert_eq!(database.state(&name), entry.state);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_status(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(Package: [a-z]{0,3}|Status: (install|hold)? ?(ok)? ?[a-z-]{0,9}|Version: ?1?|\\PC{0,8}|\n){0,30}") {
            let _ = parse_status(&text);
        }
    }
}
