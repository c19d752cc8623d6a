//! A temporary root, and cycles over its paths as the agent makes them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use limpet::kinds::file::{
    Applied, DesiredPath, Original, PathSpec, Paths, Remembered, applied_after, save_original,
};
use limpet::kinds::kind::{Content, ContentSource, Contents, Kind, Owned, Step};
use limpet::model::{Class, Failure, Kind as Word, OnRemoval, Outcome, Reason, ResourceId};
use limpet::sys::Host;
use limpet::sys::files::hash_bytes;
use limpet::sys::xattrs::NamedXattrs;
use tempfile::TempDir;

/// Where originals are kept; outside of the tree the tests look at.
const ORIGINALS: &str = "/.originals";

/// user::rwx, user:1:r-x, group::r-x, mask::r-x, other::--x, as the kernel wants it.
const ACL: [u8; 44] = [
    2, 0, 0, 0, //
    1, 0, 7, 0, 255, 255, 255, 255, //
    2, 0, 5, 0, 1, 0, 0, 0, //
    4, 0, 5, 0, 255, 255, 255, 255, //
    16, 0, 5, 0, 255, 255, 255, 255, //
    32, 0, 1, 0, 255, 255, 255, 255,
];

/// CAP_NET_BIND_SERVICE, permitted.
const CAPABILITIES: [u8; 20] = [0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The extended attributes of a file, as far as they are the file's own.
fn xattrs(path: &Path) -> String {
    let mut list = [0; 4096];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let mut shown: Vec<String> = list[..length]
        .split(|byte| *byte == 0)
        .map(|name| std::str::from_utf8(name).unwrap())
        .filter(|name| !name.is_empty() && *name != "security.selinux")
        .map(|name| {
            let mut value = [0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            format!(" {name}={:?}", &value[..length])
        })
        .collect();
    shown.sort();
    shown.concat()
}

pub struct Machine {
    directory: TempDir,
    pub host: Host,
    pub owned: Vec<Owned<Original, Remembered>>,
}

pub struct Store<'a>(&'a Host);

impl Contents for Store<'_> {
    fn read(&self, content: &Content) -> Result<Vec<u8>, Failure> {
        match &content.source {
            ContentSource::Inline(bytes) => Ok(bytes.to_vec()),
            ContentSource::Original => {
                let name: String = content
                    .sha256
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                let bytes = self
                    .0
                    .read_file(&format!("{ORIGINALS}/{name}"), content.size)?;
                bytes.ok_or_else(|| Failure::new(Class::Bug, "no such original"))
            }
            ContentSource::Address(_) | ContentSource::Member(..) | ContentSource::Sealed(_) => {
                Err(Failure::new(Class::Bug, "no secret in a test"))
            }
            ContentSource::Blob(id) => {
                Err(Failure::new(Class::Bug, format!("no blob {id} in a test")))
            }
        }
    }
}

impl Machine {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path());
        host.ensure_own_directory(ORIGINALS, 0o700).unwrap();
        Machine {
            directory,
            host,
            owned: Vec::new(),
        }
    }

    pub fn contents(&self) -> Store<'_> {
        Store(&self.host)
    }

    pub fn is_root(&self) -> bool {
        nix::unistd::geteuid().is_root()
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    pub fn mkdir(&self, path: &str) {
        let mut so_far = PathBuf::from(self.directory.path());
        for name in Path::new(path.trim_start_matches('/')) {
            so_far.push(name);
            if !so_far.exists() {
                std::fs::create_dir(&so_far).unwrap();
                std::fs::set_permissions(&so_far, PermissionsExt::from_mode(0o755)).unwrap();
            }
        }
    }

    pub fn write(&self, path: &str, text: &str) {
        let is_new = !self.at(path).exists();
        std::fs::write(self.at(path), text).unwrap();
        if is_new {
            self.chmod(path, 0o644);
        }
    }

    pub fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap()
    }

    pub fn chmod(&self, path: &str, mode: u32) {
        std::fs::set_permissions(self.at(path), PermissionsExt::from_mode(mode)).unwrap();
    }

    pub fn mode(&self, path: &str) -> u32 {
        self.at(path)
            .symlink_metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    }

    /// Gives a file or directory an access control list, a note of a user, and where the test may, capabilities.
    pub fn mark(&self, path: &str) {
        let set = |name: &str, value: &[u8]| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(self.at(path), name, value, flags).unwrap();
        };
        set("user.note", b"keep me");
        set("system.posix_acl_access", &ACL);
        if self.at(path).is_dir() {
            set("system.posix_acl_default", &ACL);
        } else if self.is_root() {
            set("security.capability", &CAPABILITIES);
        }
    }

    /// Everything in the root, one line each.
    pub fn tree(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.list(self.directory.path(), &mut lines);
        lines.sort();
        lines
    }

    fn list(&self, directory: &Path, lines: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let shown = format!(
                "/{}",
                path.strip_prefix(self.directory.path()).unwrap().display()
            );
            if shown == ORIGINALS {
                continue;
            }
            let found = path.symlink_metadata().unwrap();
            let mode = found.permissions().mode() & 0o7777;
            if found.is_dir() {
                lines.push(format!("{shown} directory {mode:o}{}", xattrs(&path)));
                self.list(&path, lines);
            } else if found.is_symlink() {
                lines.push(format!(
                    "{shown} link {}",
                    path.read_link().unwrap().display()
                ));
            } else if found.is_file() {
                lines.push(format!(
                    "{shown} file {mode:o} {}{}",
                    std::fs::read_to_string(&path).unwrap().trim_end(),
                    xattrs(&path)
                ));
            } else {
                lines.push(format!("{shown} special"));
            }
        }
    }

    /// Plans without applying.
    pub fn plan(
        &self,
        desired: &[DesiredPath],
    ) -> Vec<Step<Original, limpet::kinds::file::PathChange>> {
        let observed = Paths::observe(&self.host, desired, &self.owned);
        Paths::plan(desired, &observed, &self.owned)
    }

    /// One cycle: observe, plan, keep originals, apply, remember. Returns what was done, one line each; what a plan still wants
    /// after an apply without failures is a line as well.
    pub fn cycle(&mut self, desired: &[DesiredPath]) -> Vec<String> {
        let (mut lines, all_done) = self.cycle_once(desired);
        if all_done {
            for step in self.plan(desired) {
                if let Step::Change(change) = step {
                    lines.push(format!(
                        "not converging: {} {} {:?}",
                        change.action, change.id, change.fields
                    ));
                }
            }
        }
        lines
    }

    fn cycle_once(&mut self, desired: &[DesiredPath]) -> (Vec<String>, bool) {
        let mut lines = Vec::new();
        let mut changes = Vec::new();
        let mut all_done = true;
        for step in self.plan(desired) {
            match step {
                Step::Change(change) => changes.push(change),
                Step::Release { key, .. } => self.owned.retain(|owned| owned.key != key),
                Step::Blocked(failure) => {
                    all_done = false;
                    lines.push(format!("blocked: {}", failure.message));
                }
            }
        }
        for change in &changes {
            if change.change.applied.is_some()
                && !self.owned.iter().any(|owned| owned.key == change.key)
            {
                let original = save_original(
                    &self.host,
                    &mut self.host.walk().unwrap(),
                    &change.key,
                    ORIGINALS,
                )
                .unwrap();
                self.owned.push(Owned {
                    id: change.id.clone(),
                    key: change.key.clone(),
                    original,
                    on_removal: OnRemoval::Restore,
                    applied: Remembered::Applied(Applied::Absent { as_user: None }),
                });
            }
        }
        for change in &changes {
            assert_eq!(
                change.change.applied.is_none(),
                change.reason == Reason::Undeclared,
                "{change:?}"
            );
        }
        let edits: Vec<_> = changes.iter().map(|change| &change.change).collect();
        let outcomes = Paths::apply(&self.host, &self.contents(), &edits);
        for (change, outcome) in changes.iter().zip(outcomes) {
            let place = if change.id.name == change.key {
                String::new()
            } else {
                format!(" in {}", change.key)
            };
            let mut line = format!("{} {}{place}", change.action, change.id);
            for field in &change.fields {
                line += &format!(" {field}");
            }
            match outcome {
                Outcome::Done => match &change.change.applied {
                    Some(applied) => {
                        let owned = self
                            .owned
                            .iter_mut()
                            .find(|owned| owned.key == change.key)
                            .unwrap();
                        // As it comes back from the database.
                        owned.applied = Remembered::of_text(&applied.to_text());
                        owned.id = change.id.clone();
                    }
                    None => self.owned.retain(|owned| owned.key != change.key),
                },
                Outcome::Failed(failure) | Outcome::Left(failure) => {
                    all_done = false;
                    line = format!("failed {line}: {}", failure.message);
                }
                Outcome::Skipped(because) => {
                    all_done = false;
                    line = format!("skipped {line}: {because}");
                }
            }
            lines.push(line);
        }
        for item in desired {
            if let Some(owned) = self.owned.iter_mut().find(|owned| owned.key == item.path)
                && !lines.iter().any(|line| {
                    line.contains(&item.id.to_string())
                        && (line.starts_with("failed")
                            || line.starts_with("blocked")
                            || line.starts_with("skipped"))
                })
            {
                owned.applied = Remembered::Applied(applied_after(item, Some(owned)));
                owned.on_removal = item.on_removal;
                owned.id = item.id.clone();
            }
        }
        // The order of failures and changes is theirs; here the resource's path orders both, and what was done stays in order.
        lines.sort_by_key(|line| !line.starts_with("failed"));
        (lines, all_done)
    }
}

fn desired(kind: Word, path: &str, spec: PathSpec) -> DesiredPath {
    DesiredPath {
        path: path.into(),
        id: ResourceId::new(kind, path),
        spec,
        report: false,
        on_removal: OnRemoval::Restore,
        as_user: None,
    }
}

pub fn file(path: &str, content: &str) -> DesiredPath {
    let content = Content {
        sha256: hash_bytes(content.as_bytes()),
        size: content.len() as u64,
        source: ContentSource::Inline(Arc::from(content.as_bytes())),
    };
    desired(
        Word::File,
        path,
        PathSpec::File {
            content: Some(content),
            mode: None,
            owner: None,
            group: None,
            xattrs: NamedXattrs::default(),
            validate: None,
        },
    )
}

pub fn bare_file(path: &str, mode: Option<u32>) -> DesiredPath {
    desired(
        Word::File,
        path,
        PathSpec::File {
            content: None,
            mode,
            owner: None,
            group: None,
            xattrs: NamedXattrs::default(),
            validate: None,
        },
    )
}

pub fn directory(path: &str) -> DesiredPath {
    desired(
        Word::Directory,
        path,
        PathSpec::Directory {
            xattrs: NamedXattrs::default(),
            purge: None,
            mode: None,
            owner: None,
            group: None,
        },
    )
}

pub fn link(path: &str, target: &str) -> DesiredPath {
    desired(
        Word::Symlink,
        path,
        PathSpec::Symlink {
            target: target.to_owned(),
        },
    )
}

pub fn with(mut item: DesiredPath, change: impl FnOnce(&mut PathSpec)) -> DesiredPath {
    change(&mut item.spec);
    item
}
