//! The fleet repository: who gets which layers, and what they declare together for one host.
//!
//! A *layer* is a directory of declarations. Rules and the inventory choose a host's layers; laid upon each other in order they
//! yield its resources and variables, and those its [`DesiredState`]. An *origin* is the layer and the place that set something.
//!
//! A [`Fleet`] reads a repository's files when they are first needed and keeps them, so that many hosts share the work and one host
//! reads no more than concerns it.
//!
//! Invariant: rendering is a pure function of the tree, the host's identity and its limits. There is no clock, environment, network
//! or file of the machine, and what one host does not use cannot make it fail.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::age::Recipient;
use crate::config;
use crate::document::{Mistake, Place, Source};
use crate::git::{ObjectError, Tree};
use crate::model::{Class, Failure};
use crate::trust::FleetPolicy;

pub mod compare;
mod declared;
pub mod desired;
mod digest;
mod edges;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod imaginary;
mod inputs;
mod inventory;
mod layer;
mod limits;
mod manifest;
mod merged;
mod openpgp;
mod paths;
mod resolve;
mod select;
mod sources;
mod subtree;
mod template;
mod unit_file;
mod uses;

pub use desired::{DesiredState, Origin};
pub use digest::{canonical, canonical_json};
pub use imaginary::{ImaginaryHost, UnusedRules};
pub use inputs::Inputs;
pub use paths::{real_name, why_forbidden};
pub use select::{Because, ChosenLayer};
pub use subtree::SubTree;
pub use uses::names_used;

/// Who a host is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostIdentity {
    /// The name the repository knows it by.
    pub name: String,
    /// Labels from its own configuration; the inventory's win.
    pub labels: BTreeMap<String, String>,
    /// Facts measured on it (`os`, `family`, `os_version`, `arch`); empty away from it.
    pub facts: BTreeMap<String, String>,
    /// Its machine id; `None` away from it.
    pub machine_id: Option<String>,
}

impl HostIdentity {
    /// The host called `name`, seen from a laptop: nothing was measured.
    pub fn named(name: impl Into<String>) -> Self {
        HostIdentity {
            name: name.into(),
            ..HostIdentity::default()
        }
    }
}

/// What the host's own configuration lets a fleet declare. The default is the built-in limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Exceptions to the built-in list of paths that no fleet may manage: these and what lies below them.
    pub allow_paths: Vec<String>,
    /// May setuid, setgid and sticky modes be declared.
    pub allow_suid: bool,
    /// May package repositories be declared without a key.
    pub allow_unsigned_repositories: bool,
}

impl From<&config::Apply> for Limits {
    fn from(apply: &config::Apply) -> Self {
        Limits {
            allow_paths: apply.allow_paths.clone(),
            allow_suid: apply.allow_suid,
            allow_unsigned_repositories: apply.allow_unsigned_repositories,
        }
    }
}

/// What rendering yields.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// What is declared for the host.
    pub state: DesiredState,
    /// The host's layers, from the weakest to the strongest.
    pub layers: Vec<ChosenLayer>,
    /// Every key of every resource with its origin, in order.
    pub values: Vec<OriginatedValue>,
    /// Every variable with its origin, in order.
    pub variables: Vec<OriginatedValue>,
    /// What is odd, and does not keep the state from being applied.
    pub warnings: Vec<Failure>,
    /// What the state depends on, for the next revision.
    pub inputs: Inputs,
    /// Is it made from an earlier revision's state, of which nothing but the bytes of raw files differ: what that revision needs is
    /// needed still, whether it was read or not. The layers are not told then.
    pub is_derived: bool,
}

/// A value that somebody declared, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginatedValue {
    /// The resource or variable it belongs to, and the key within: `file:/etc/motd mode`, `ntp`.
    pub key: String,
    /// The value as TOML writes it.
    pub value: String,
    /// Where it was set.
    pub origin: Origin,
}

/// The desired state of `host` in `tree`, or everything that is wrong with it.
///
/// Failures of [`Class::Author`] are mistakes in the repository. One of [`Class::Host`] means that this is not the machine the
/// repository means, or too old an agent for it: the host is *held*.
pub fn render(
    tree: &dyn Tree,
    host: &HostIdentity,
    limits: &Limits,
) -> Result<Rendered, Vec<Failure>> {
    Fleet::load_for_one(tree)?.render(host, limits)
}

/// The same without [`Rendered::values`] and [`Rendered::variables`], which take more time and memory than the state itself.
pub fn render_state(
    tree: &dyn Tree,
    host: &HostIdentity,
    limits: &Limits,
) -> Result<Rendered, Vec<Failure>> {
    Fleet::load_for_one(tree)?.render_state(host, limits)
}

/// The same, where what was declared `before` is at hand: files whose blobs it names are not read again if they are kept. Where
/// `inputs`, from which that was rendered, differ in nothing but the bytes of such files, nothing is rendered.
pub fn render_state_after(
    before: &DesiredState,
    inputs: Option<&Inputs>,
    tree: &dyn Tree,
    host: &HostIdentity,
    limits: &Limits,
) -> Result<Rendered, Vec<Failure>> {
    if let Some(rendered) = inputs.and_then(|inputs| inputs.derive(before, tree, host, limits)) {
        return Ok(rendered);
    }
    let mut fleet = Fleet::load_for_one(tree)?;
    fleet.sources.know(&before.paths);
    fleet.render_state(host, limits)
}

/// A layer, or what is wrong with it; shared by the hosts that have it.
type ReadLayer = Rc<Result<layer::Layer, Vec<Failure>>>;

/// A fleet repository, read as far as was needed.
pub struct Fleet<'tree> {
    tree: &'tree dyn Tree,
    manifest: manifest::Manifest,
    inventory: inventory::Inventory,
    policy: Option<FleetPolicy>,
    layers: RefCell<BTreeMap<String, ReadLayer>>,
    layer_names: OnceCell<Result<Vec<String>, Failure>>,
    sources: sources::Sources<'tree>,
    templates: template::Templates,
    /// Which layers are there, as far as it was asked.
    is_there: RefCell<BTreeMap<String, bool>>,
    /// What many hosts have in common; `None` where there is only one.
    shared: Option<RefCell<resolve::Shared>>,
}

impl std::fmt::Debug for Fleet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("name", &self.manifest.fleet)
            .finish_non_exhaustive()
    }
}

/// The encrypted files of `tree` that `host` needs, as paths from its root.
pub fn secrets_of(tree: &dyn Tree, host: &HostIdentity) -> Result<BTreeSet<String>, Vec<Failure>> {
    let fleet = Fleet::load_for_one(tree)?;
    fleet.render_state(host, &Limits::default())?;
    Ok(fleet.sources.sealed_paths())
}

impl<'tree> Fleet<'tree> {
    /// Reads what every host reads: fleet.toml and the inventory. What hosts have in common is kept for the next one.
    pub fn load(tree: &'tree dyn Tree) -> Result<Self, Vec<Failure>> {
        let mut fleet = Fleet::load_for_one(tree)?;
        if fleet.inventory.names().nth(1).is_some() {
            fleet.templates.keep_compiled();
            fleet.sources.keep_contents();
            fleet.shared = Some(RefCell::default());
        }
        Ok(fleet)
    }

    /// The same for a single host, where nothing would be used twice.
    fn load_for_one(tree: &'tree dyn Tree) -> Result<Self, Vec<Failure>> {
        let mut failures = Vec::new();
        let manifest = manifest::load(tree).map_err(|mut found| failures.append(&mut found));
        let inventory = inventory::load(tree).map_err(|mut found| failures.append(&mut found));
        let policy = limits::load_policy(tree).map_err(|mut found| failures.append(&mut found));
        let (Ok(manifest), Ok(inventory), Ok(policy)) = (manifest, inventory, policy) else {
            return Err(failures);
        };
        let rule_labels = manifest.rules.iter().flat_map(|rule| &rule.labels);
        let rule_labels = rule_labels.map(|(label, _)| label.as_str());
        let templates = template::Templates::new(&inventory, rule_labels);
        Ok(Fleet {
            tree,
            manifest,
            inventory,
            policy,
            layers: RefCell::default(),
            layer_names: OnceCell::new(),
            sources: sources::Sources::new(tree),
            templates,
            is_there: RefCell::default(),
            shared: None,
        })
    }

    /// The policy that the repository carries, if it has one.
    pub fn policy(&self) -> Option<&FleetPolicy> {
        self.policy.as_ref()
    }

    /// The fleet's name.
    pub fn name(&self) -> &str {
        &self.manifest.fleet
    }

    /// Every host of the inventory and of `hosts/`, by name.
    pub fn hosts(&self) -> Result<Vec<String>, Vec<Failure>> {
        let mut hosts: BTreeSet<String> = self.inventory.names().map(str::to_owned).collect();
        hosts.extend(list_directories(self.tree, "hosts").map_err(|failure| vec![failure])?);
        Ok(hosts.into_iter().collect())
    }

    /// Every layer of `layers/`, used or not, by name.
    pub fn layer_names(&self) -> Result<&[String], Failure> {
        self.layer_names
            .get_or_init(|| layer::list(self.tree))
            .as_ref()
            .map(Vec::as_slice)
            .map_err(Clone::clone)
    }

    /// What is wrong with the layer `name` (or `hosts/<host>`) by itself.
    pub fn check_layer(&self, name: &str) -> Vec<Failure> {
        if self.has_layer(name) == Ok(false) {
            return Vec::new();
        }
        let Err(failures) = &*self.layer(name) else {
            return Vec::new();
        };
        failures.clone()
    }

    /// The facts that the rules ask about and that are known neither from the inventory nor by measuring: without them the host's
    /// layers cannot be told.
    pub fn unknown_facts(&self, host: &HostIdentity) -> Vec<String> {
        let traits = self.traits(host);
        select::unknown_facts(&self.manifest, &traits)
    }

    /// The layers of `host`, from the weakest to the strongest.
    pub fn layers_of(&self, host: &HostIdentity) -> Result<Vec<ChosenLayer>, Vec<Failure>> {
        select::choose(self, &self.traits(host))
    }

    /// The desired state of `host`, or everything that is wrong with it; see [`render`].
    pub fn render(&self, host: &HostIdentity, limits: &Limits) -> Result<Rendered, Vec<Failure>> {
        self.render_with(host, limits, true)
    }

    fn render_with(
        &self,
        host: &HostIdentity,
        limits: &Limits,
        with_values: bool,
    ) -> Result<Rendered, Vec<Failure>> {
        let traits = self.traits(host);
        let mut held: Vec<Failure> = self.manifest.too_old().into_iter().collect();
        let mut warnings = Vec::new();
        self.inventory
            .compare_with_machine(host, &mut held, &mut warnings);
        if !held.is_empty() {
            return Err(held);
        }
        let layers = select::choose(self, &traits)?;
        let read: Vec<ReadLayer> = layers.iter().map(|layer| self.layer(&layer.name)).collect();
        let merged = merged::merge(&self.inventory, &traits, &read)?;
        let mut rendered = resolve::resolve(self, &traits, limits, merged, layers, with_values)?;
        let (texts, raw) = self.sources.used();
        // Where several hosts share what was read, nobody can tell what was read for whom.
        let id = match self.shared {
            None => self.tree.id(),
            Some(_) => None,
        };
        rendered.inputs = Inputs::new(host, limits, id, texts, raw, warnings.clone());
        rendered.warnings = warnings;
        Ok(rendered)
    }

    /// What `host` is matched by: its labels and its facts.
    pub fn labels_and_facts(
        &self,
        host: &HostIdentity,
    ) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let traits = self.traits(host);
        (traits.labels, traits.facts)
    }

    /// The same without [`Rendered::values`] and [`Rendered::variables`], which cost more than the state itself.
    pub fn render_state(
        &self,
        host: &HostIdentity,
        limits: &Limits,
    ) -> Result<Rendered, Vec<Failure>> {
        self.render_with(host, limits, false)
    }

    /// Whom secrets of the host `name` are encrypted for, where the inventory says so.
    pub fn recipient(&self, name: &str) -> Option<Recipient> {
        self.inventory.get(name)?.age.clone()
    }

    fn traits(&self, host: &HostIdentity) -> inventory::Traits {
        self.inventory.traits(host)
    }

    /// Is there a layer `name` (or `hosts/<host>`): a directory with a TOML file.
    fn has_layer(&self, name: &str) -> Result<bool, Failure> {
        if let Some(known) = self.is_there.borrow().get(name) {
            return Ok(*known);
        }
        let files = list_toml_files(self.tree, &layer::directory_of(name))?;
        let is_there = files.is_some_and(|files| !files.is_empty());
        self.is_there.borrow_mut().insert(name.to_owned(), is_there);
        Ok(is_there)
    }

    /// The layer `name`, read at most once.
    fn layer(&self, name: &str) -> ReadLayer {
        if let Some(layer) = self.layers.borrow().get(name) {
            return Rc::clone(layer);
        }
        let limits = self.policy.as_ref().map(|policy| policy.limits.as_slice());
        let layer = Rc::new(layer::load(self.tree, name, limits.unwrap_or_default()));
        self.layers
            .borrow_mut()
            .insert(name.to_owned(), Rc::clone(&layer));
        layer
    }
}

/// The author's mistake as a failure.
fn author(mistake: Mistake) -> Failure {
    mistake.into_failure(Class::Author)
}

/// An object that could not be had while reading `path`.
fn unreadable(path: &str, error: &ObjectError) -> Failure {
    let class = match error {
        ObjectError::TooLarge(_) => Class::Author,
        ObjectError::HashMismatch(_) => Class::Refused,
        ObjectError::Missing(_) | ObjectError::Unavailable(_) => Class::Transient,
    };
    Failure::new(
        class,
        format!("failed to read fleet file '{path}': {error}"),
    )
}

/// The text of `path`; `None` when there is no such file.
fn read_text(tree: &dyn Tree, path: &str) -> Result<Option<std::sync::Arc<Source>>, Failure> {
    let file = match tree.read(path) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(None),
        Err(error) => return Err(unreadable(path, &error)),
    };
    match String::from_utf8(file.data) {
        Ok(text) => Ok(Some(Source::new(path, text))),
        Err(error) => {
            let end = error.utf8_error().valid_up_to();
            let valid = String::from_utf8_lossy(&error.as_bytes()[..end]).into_owned();
            let source = Source::new(path, valid);
            let place = Place::new(&source, end..end);
            Err(author(Mistake::new(&place, "file is not UTF-8 text")))
        }
    }
}

/// The names of the TOML files in `directory`, with their paths; `None` when there is no such directory.
fn list_toml_files(tree: &dyn Tree, directory: &str) -> Result<Option<Vec<String>>, Failure> {
    let entries = match tree.list(directory) {
        Ok(Some(entries)) => entries,
        Ok(None) => return Ok(None),
        Err(error) => return Err(unreadable(directory, &error)),
    };
    let files = entries
        .into_iter()
        .filter(|(name, kind)| *kind == crate::git::EntryKind::File && name.ends_with(".toml"))
        .map(|(name, _)| format!("{directory}/{name}"))
        .collect();
    Ok(Some(files))
}

/// The names of the directories in `directory`; none when there is no such directory.
fn list_directories(tree: &dyn Tree, directory: &str) -> Result<Vec<String>, Failure> {
    let entries = tree
        .list(directory)
        .map_err(|error| unreadable(directory, &error))?
        .unwrap_or_default();
    Ok(entries
        .into_iter()
        .filter(|(_, kind)| *kind == crate::git::EntryKind::Directory)
        .map(|(name, _)| name)
        .collect())
}

/// `<what> is not supported by limpet <version>`.
fn unsupported(place: &Place, what: &str) -> Mistake {
    Mistake::new(
        place,
        format!(
            "{what} is not supported by limpet {}",
            env!("CARGO_PKG_VERSION")
        ),
    )
}
