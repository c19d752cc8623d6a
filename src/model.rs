//! Plain data that every floor speaks: resources, changes, failures.
//!
//! A *resource* is one declared thing, always written `kind:name`. A *change* is what a plan wants to do to one resource, an
//! *outcome* is what became of it. A *failure* is an error sorted by who must act.
//!
//! Invariant: this module imports nothing of ours and does no I/O.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

/// The kinds of resource this version knows, in the order in which they are preferred when nothing else orders two resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A source of packages, with the key that signs it.
    Repository,
    /// A package of the host's package manager.
    Package,
    /// A group of users.
    Group,
    /// A user.
    User,
    /// A file system that is mounted.
    Mount,
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A directory of the repository, file by file.
    Tree,
    /// A parameter of the kernel.
    Sysctl,
    /// A program that is run when something changed, or once.
    Command,
    /// A systemd unit: its file, drop-ins, enablement and activity.
    Unit,
    /// A health check: what has to hold after an apply, after boot, or before anything is applied.
    Health,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Kind; 13] = [
        Kind::Repository,
        Kind::Package,
        Kind::Group,
        Kind::User,
        Kind::Mount,
        Kind::Directory,
        Kind::File,
        Kind::Symlink,
        Kind::Tree,
        Kind::Sysctl,
        Kind::Command,
        Kind::Unit,
        Kind::Health,
    ];

    /// The word that stands before the colon in `kind:name`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Repository => "repository",
            Kind::Package => "package",
            Kind::Group => "group",
            Kind::User => "user",
            Kind::Mount => "mount",
            Kind::Directory => "directory",
            Kind::File => "file",
            Kind::Symlink => "symlink",
            Kind::Tree => "tree",
            Kind::Sysctl => "sysctl",
            Kind::Command => "command",
            Kind::Unit => "unit",
            Kind::Health => "health",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that many hold and nobody changes: a clone shares its bytes.
#[derive(Clone, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Whom nearly everything belongs to: thousands of files share one name.
static ROOT: LazyLock<Arc<str>> = LazyLock::new(|| "root".into());

impl Name {
    /// The superuser's, and that of its group.
    pub fn root() -> Self {
        Name(ROOT.clone())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        match name == &**ROOT {
            true => Name::root(),
            false => Name(name.into()),
        }
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl From<&String> for Name {
    fn from(name: &String) -> Self {
        name.as_str().into()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl<T: AsRef<str> + ?Sized> PartialEq<T> for Name {
    fn eq(&self, other: &T) -> bool {
        self.as_str() == other.as_ref()
    }
}

impl PartialEq<Name> for String {
    fn eq(&self, other: &Name) -> bool {
        self.as_str() == other.as_str()
    }
}

impl PartialEq<Name> for str {
    fn eq(&self, other: &Name) -> bool {
        self == other.as_str()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Name::from)
    }
}

/// The identity of a resource everywhere: plans, logs, `needs`, the command line. Written `kind:name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// What sort of thing it is.
    pub kind: Kind,
    /// Its name within the kind: an absolute path, a package or a unit.
    pub name: Name,
}

impl ResourceId {
    /// A resource of `kind` called `name`.
    pub fn new(kind: Kind, name: impl Into<Name>) -> Self {
        ResourceId {
            kind,
            name: name.into(),
        }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

/// A text that is not `kind:name` with a kind this version knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidResourceId(pub String);

impl fmt::Display for InvalidResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        write!(
            f,
            "'{}' is no resource: expected kind:name with a kind of {}",
            self.0,
            kinds.join(", ")
        )
    }
}

impl std::error::Error for InvalidResourceId {}

impl FromStr for ResourceId {
    type Err = InvalidResourceId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidResourceId(text.to_owned());
        let (kind, name) = text.split_once(':').ok_or_else(invalid)?;
        let kind = Kind::ALL
            .into_iter()
            .find(|known| known.as_str() == kind)
            .ok_or_else(invalid)?;
        if name.is_empty() {
            return Err(invalid());
        }
        Ok(ResourceId::new(kind, name))
    }
}

impl Serialize for ResourceId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ResourceId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Below /proc/sys, where the kernel's parameter `name` is; nothing where that is no name of one (sysctl.d(5)): a dot stands between
/// two parts, and a slash for a dot within one.
pub fn sysctl_path(name: &str) -> Option<String> {
    let is_part = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-/@:".contains(&byte);
        // A first slash would turn the meaning of both round.
        !part.is_empty() && !part.starts_with(['/', '-']) && part.bytes().all(is_plain)
    };
    let parts: Vec<&str> = name.split('.').collect();
    let is_name = name.len() <= 200 && parts.len() > 1 && parts.iter().all(|part| is_part(part));
    let is_name = is_name && !parts[0].contains('/');
    is_name.then(|| {
        let parts: Vec<String> = parts.iter().map(|part| part.replace('/', ".")).collect();
        parts.join("/")
    })
}

/// Does the kernel's parameter `name` belong to the network, of which there may be several.
pub fn is_network_sysctl(name: &str) -> bool {
    name.starts_with("net.")
}

/// What a step does to its resource; the words of `limpet plan --json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the names are the meaning
pub enum Action {
    Create,
    Update,
    Delete,
    Restore,
    Install,
    Upgrade,
    Downgrade,
    Remove,
    Hold,
    Enable,
    Disable,
    Mask,
    Unmask,
    Start,
    Stop,
    Restart,
    Reload,
    DaemonReload,
    Run,
}

impl Action {
    /// The word shown to people and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
            Action::Restore => "restore",
            Action::Install => "install",
            Action::Upgrade => "upgrade",
            Action::Downgrade => "downgrade",
            Action::Remove => "remove",
            Action::Hold => "hold",
            Action::Enable => "enable",
            Action::Disable => "disable",
            Action::Mask => "mask",
            Action::Unmask => "unmask",
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Restart => "restart",
            Action::Reload => "reload",
            Action::DaemonReload => "daemon-reload",
            Action::Run => "run",
        }
    }
}

/// A text that is no action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidAction(pub String);

impl fmt::Display for InvalidAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is no action", self.0)
    }
}

impl std::error::Error for InvalidAction {}

impl FromStr for Action {
    type Err = InvalidAction;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use serde::de::IntoDeserializer;
        let word: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
            text.into_deserializer();
        Action::deserialize(word).map_err(|_| InvalidAction(text.to_owned()))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a step is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Declared, and not there.
    Missing,
    /// Declared, there, and different.
    Differs,
    /// Ours, and no longer declared.
    Undeclared,
    /// Something it depends on changed.
    Triggered,
}

impl Reason {
    /// The word shown to people and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Missing => "missing",
            Reason::Differs => "differs",
            Reason::Undeclared => "undeclared",
            Reason::Triggered => "triggered",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to a resource whose declaration disappears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRemoval {
    /// Put back what was there before limpet first touched it, or delete it if nothing was.
    #[default]
    Restore,
    /// Delete it.
    Delete,
    /// Leave it as it is.
    Keep,
}

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was tried and failed.
    Failed(Failure),
    /// It was not tried, because this resource failed.
    Skipped(ResourceId),
    /// What was to be taken back cannot be, or not wholly, whoever tries: it stays as it is, and is not managed any more. Why.
    Left(Failure),
}

/// A place in a text that somebody wrote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    /// The file, relative to the repository's root, or absolute for the host's own files.
    pub file: Name,
    /// Counted from 1.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Who must act on a failure; it decides retry, log level, status and exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Nobody yet: it is tried again.
    Transient,
    /// Whoever holds the keys.
    Refused,
    /// The author of the commit.
    Author,
    /// The operator of this machine.
    Host,
    /// The operator: the host configuration is wrong.
    Config,
    /// The makers of limpet.
    Bug,
}

impl Class {
    /// The exit code of a command that ends with such a failure (sysexits.h, except 1).
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Transient => 75,
            Class::Refused => 77,
            Class::Author => 65,
            Class::Host => 1,
            Class::Config => 78,
            Class::Bug => 70,
        }
    }
}

/// An error that a person will read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Who must act.
    pub class: Class,
    /// What failed, and where: lower case, no full stop.
    pub message: String,
    /// What the reader can do, if we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The resource it concerns.
    #[serde(default)]
    pub resource: Option<ResourceId>,
    /// Where in the fleet repository or the host configuration the mistake is.
    #[serde(default)]
    pub location: Option<Location>,
    /// The source line, drawn with a mark under the mistake. For terminals; never needed to understand the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendered: Option<String>,
}

impl Failure {
    /// A failure without hint, resource or location.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Failure {
            class,
            message: message.into(),
            hint: None,
            resource: None,
            location: None,
            rendered: None,
        }
    }

    /// The same, with a hint for the reader.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, about `resource`.
    pub fn about(mut self, resource: ResourceId) -> Self {
        self.resource = Some(resource);
        self
    }

    /// The same, at `location`.
    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
