//! What is in a directory, and whether that is old or new.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What limpet keeps for itself, and what nobody declares.
const OWN: &[&str] = &["etc/limpet", "run", "var"];

/// One thing on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    File { mode: u32, bytes: Vec<u8> },
    Directory { mode: u32 },
    Link { target: String },
}

impl Thing {
    fn kind(&self) -> u8 {
        match self {
            Thing::File { .. } => 0,
            Thing::Directory { .. } => 1,
            Thing::Link { .. } => 2,
        }
    }

    fn words(&self) -> String {
        match self {
            Thing::File { mode, bytes } => format!(
                "a file {mode:o} of {} bytes: {:?}",
                bytes.len(),
                String::from_utf8_lossy(&bytes[..bytes.len().min(24)])
            ),
            Thing::Directory { mode } => format!("a directory {mode:o}"),
            Thing::Link { target } => format!("a link to {target}"),
        }
    }
}

/// Everything below a root but what is limpet's own, by path.
pub type Disk = BTreeMap<String, Thing>;

/// Reads the disk below `root`.
pub fn read(root: &Path) -> Disk {
    let mut disk = Disk::new();
    read_directory(root, "", &mut disk);
    disk
}

fn read_directory(root: &Path, directory: &str, disk: &mut Disk) {
    for entry in fs::read_dir(root.join(directory)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = match directory {
            "" => name,
            _ => format!("{directory}/{name}"),
        };
        if OWN.contains(&path.as_str()) {
            continue;
        }
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        let thing = if metadata.is_symlink() {
            let target = fs::read_link(&full).unwrap();
            Thing::Link {
                target: target.to_string_lossy().into_owned(),
            }
        } else if metadata.is_dir() {
            read_directory(root, &path, disk);
            Thing::Directory { mode }
        } else {
            let bytes = fs::read(&full).unwrap();
            Thing::File { mode, bytes }
        };
        disk.insert(path, thing);
    }
}

/// Candidates that a killed run left anywhere, limpet's own directories included.
pub fn leftovers(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with(".limpet-") {
                found.push(entry.path().display().to_string());
            }
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            }
        }
    }
    found
}

/// What is neither as in `old` nor as in `new`. What changes its kind may be gone for a moment, and so may what lies below it;
/// candidates are nothing yet.
pub fn neither(found: &Disk, old: &Disk, new: &Disk) -> Vec<String> {
    let paths = found.keys().chain(old.keys()).chain(new.keys());
    let mut torn: Vec<String> = Vec::new();
    for path in paths {
        let is_candidate = path
            .rsplit('/')
            .next()
            .is_some_and(|name| name.starts_with(".limpet-"));
        let (is, was, will) = (found.get(path), old.get(path), new.get(path));
        let changes_kind =
            matches!((was, will), (Some(was), Some(will)) if was.kind() != will.kind());
        let is_fine = is == was || is == will || is_candidate || (is.is_none() && changes_kind);
        let line = format!("{path} is {}", is.map_or("gone".to_owned(), Thing::words));
        if !is_fine && !torn.contains(&line) {
            torn.push(line);
        }
    }
    torn
}

/// Where `found` is not `expected`.
pub fn differences(found: &Disk, expected: &Disk) -> Vec<String> {
    neither(found, expected, expected)
        .into_iter()
        .chain(
            found
                .keys()
                .filter(|path| path.contains("/.limpet-"))
                .cloned(),
        )
        .collect()
}
