//! What files contained when they were read last, by their stat signatures.
//!
//! A *signature* is what `stat(2)` says of a file that changes whenever its content does: device, inode, size, and the times of the
//! last change of its content and of its inode. A file whose signature is known has the SHA-256 that it had then, and is not read
//! again. The time of the inode's change (ctime) is what counts: the kernel sets it, and no program can put it back.
//!
//! What a signature cannot show: a program of root's that keeps changing a file through a mapping it made earlier, and a disk that
//! rots. This is why everything is forgotten every now and then, and when a person asks; who forgets is the owner of the
//! [`Signatures`].
//!
//! Invariant: memory only, so that nothing has to be believed after a crash. Nothing is remembered of a file that changed so shortly
//! before it was read that another change could leave the same time, nor of one on a file system whose times can be put back or
//! come from another machine's clock, nor of one that others than root may write: they could hide behind a mapping what they change.
//! Permissions and owners are never remembered.

use std::collections::HashMap;

use nix::sys::stat::FileStat;
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC,
    TMPFS_MAGIC, XFS_SUPER_MAGIC,
};

/// Coarser than the times of the file systems below (the kernel's clock tick).
const TIME_GRAIN_SECS: i64 = 2;

/// More than any host has; so many files that change all the time are not worth the memory.
const LIMIT: usize = 1 << 20;

/// The file systems whose ctime is the kernel's own and finer than [`TIME_GRAIN_SECS`]. FAT keeps none, and what comes over a network
/// follows another clock.
const TRUSTED: [FsType; 6] = [
    BTRFS_SUPER_MAGIC,
    EXT4_SUPER_MAGIC, // ext2 and ext3 as well
    F2FS_SUPER_MAGIC,
    OVERLAYFS_SUPER_MAGIC,
    TMPFS_MAGIC,
    XFS_SUPER_MAGIC,
];

/// The contents that are known.
#[derive(Debug, Default)]
pub struct Signatures {
    contents: HashMap<Inode, Known>,
}

/// Device and inode number.
type Inode = (u64, u64);

/// The rest of a file's signature, and its content.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    marks: Marks,
    sha256: [u8; 32],
}

/// What moves when the content does: size, and the times of the last change of content and of inode in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marks {
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Marks {
    fn of(stat: &FileStat) -> Self {
        Marks {
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl Signatures {
    /// The SHA-256 of the file that looks like this, if it was read since it changed last.
    pub(super) fn get(&self, stat: &FileStat) -> Option<[u8; 32]> {
        let known = self.contents.get(&(stat.st_dev, stat.st_ino))?;
        (known.marks == Marks::of(stat)).then_some(known.sha256)
    }

    /// Remembers that the file that looked like `stat` before it was read has this content; `began` is when the reading began or
    /// earlier, in seconds since 1970. `root` is the number of root, or of whom an alternate root belongs to.
    pub(super) fn remember(&mut self, stat: &FileStat, sha256: [u8; 32], began: i64, root: u32) {
        let inode = (stat.st_dev, stat.st_ino);
        let is_settled = stat.st_ctime.saturating_add(TIME_GRAIN_SECS) < began;
        // With an access control list the group's bits are the most that anybody on it may.
        let is_roots = [0, root].contains(&stat.st_uid) && stat.st_mode & 0o022 == 0;
        if is_settled && is_roots && self.contents.len() < LIMIT {
            let marks = Marks::of(stat);
            self.contents.insert(inode, Known { marks, sha256 });
        } else {
            self.contents.remove(&inode);
        }
    }

    /// Forgets everything: what is looked at next is read.
    pub fn forget(&mut self) {
        // What is looked at next are mostly the same files: room for them is there already.
        self.contents.clear();
    }
}

/// May what lies on such a file system be remembered.
pub(super) fn is_trusted(file_system: FsType) -> bool {
    TRUSTED.contains(&file_system)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use nix::fcntl::AT_FDCWD;
    use nix::sys::stat::{UtimensatFlags::NoFollowSymlink, utimensat};
    use nix::sys::time::TimeSpec;

    use super::*;
    use crate::sys::Host;
    use crate::sys::files::{Entry, Hashing, hash_bytes};

    /// A file of the device 1 that changed at 1,000 s.
    fn stat() -> FileStat {
        // There is no other way to make one without unsafe code: this one is real, and then changed.
        let mut stat = nix::sys::stat::stat("/").unwrap();
        stat.st_dev = 1;
        stat.st_ino = 7;
        stat.st_size = 4;
        (stat.st_mtime, stat.st_mtime_nsec) = (900, 0);
        (stat.st_ctime, stat.st_ctime_nsec) = (1_000, 5);
        (stat.st_uid, stat.st_mode) = (0, 0o100_644);
        stat
    }

    #[test]
    fn whatever_moves_in_a_signature_is_another_file() {
        let mut known = Signatures::default();
        known.remember(&stat(), [1; 32], 2_000, 0);
        assert_eq!(known.get(&stat()), Some([1; 32]));
        let check = |change: fn(&mut FileStat)| {
            let mut changed = stat();
            change(&mut changed);
            assert_eq!(known.get(&changed), None);
        };
        check(|stat| stat.st_dev = 2);
        check(|stat| stat.st_ino = 8);
        check(|stat| stat.st_size = 5);
        check(|stat| stat.st_mtime = 901);
        check(|stat| stat.st_mtime_nsec = 1);
        check(|stat| stat.st_ctime = 1_001);
        check(|stat| stat.st_ctime_nsec = 6);
    }

    #[test]
    fn what_changed_right_before_it_was_read_is_not_remembered() {
        let check = |began, is_known| {
            let mut known = Signatures::default();
            known.remember(&stat(), [1; 32], began, 0);
            assert_eq!(known.get(&stat()).is_some(), is_known, "{began}");
        };
        check(1_003, true);
        check(1_002, false);
        check(1_000, false);
        check(10, false); // the clock went back
    }

    #[test]
    fn what_others_than_root_may_write_is_not_remembered() {
        let check = |uid: u32, mode: u32, root, is_known| {
            let mut stat = stat();
            (stat.st_uid, stat.st_mode) = (uid, 0o100_000 | mode);
            let mut known = Signatures::default();
            known.remember(&stat, [1; 32], 2_000, root);
            assert_eq!(known.get(&stat).is_some(), is_known, "{uid} {mode:o}");
        };
        check(0, 0o755, 0, true);
        check(33, 0o644, 0, false);
        check(33, 0o444, 0, false); // who owns it may change that
        check(0, 0o664, 0, false);
        check(0, 0o646, 0, false);
        check(1000, 0o644, 1000, true);
        check(0, 0o644, 1000, true);
    }

    #[test]
    fn a_file_that_changes_again_while_it_is_read_is_forgotten() {
        let mut known = Signatures::default();
        known.remember(&stat(), [1; 32], 2_000, 0);
        let mut changed = stat();
        changed.st_ctime = 1_999;
        known.remember(&changed, [2; 32], 2_000, 0);
        assert_eq!(known.get(&stat()), None);
        assert_eq!(known.get(&changed), None);
    }

    #[test]
    fn what_is_forgotten_is_read_again() {
        let mut known = Signatures::default();
        known.remember(&stat(), [1; 32], 2_000, 0);
        known.forget();
        assert_eq!(known.get(&stat()), None);
    }

    /// A machine with the file `/d/file`, and the path of that directory from outside.
    fn machine() -> (tempfile::TempDir, Host, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        host.ensure_own_directory("/d", 0o755).unwrap();
        host.write_own_file("/d/file", b"true\n", 0o644).unwrap();
        let directory = root.path().join("d");
        (root, host, directory)
    }

    /// The sum that a look finds.
    fn look(host: &Host) -> [u8; 32] {
        let hashing = Hashing::Remembered {
            at_least: 0,
            at_most: 100,
        };
        match host.look("/d/file", hashing).unwrap().entry {
            Entry::File {
                sha256: Some(sha256),
                ..
            } => sha256,
            other => panic!("{other:?}"),
        }
    }

    /// Has the machine remember of the file as it is now what is not so: whoever sees it has not read the file.
    fn deceive(host: &Host, file: &Path) -> [u8; 32] {
        let stat = nix::sys::stat::stat(file).unwrap();
        let began = stat.st_ctime + TIME_GRAIN_SECS + 1;
        host.signatures()
            .remember(&stat, [0; 32], began, stat.st_uid);
        [0; 32]
    }

    #[test]
    fn what_is_known_is_not_read_until_it_is_forgotten() {
        let (_root, host, directory) = machine();
        let truth = hash_bytes(b"true\n");
        assert_eq!(look(&host), truth);
        let deception = deceive(&host, &directory.join("file"));
        assert_eq!(look(&host), deception);
        // Who says nothing of memory reads.
        let Entry::File { sha256, .. } = host.look("/d/file", Hashing::UpTo(100)).unwrap().entry
        else {
            panic!("no file");
        };
        assert_eq!(sha256, Some(truth));
        host.signatures().forget();
        assert_eq!(look(&host), truth);
    }

    #[test]
    fn a_file_just_written_is_read_every_time() {
        let (_root, host, _) = machine();
        look(&host);
        assert!(host.signatures().contents.is_empty());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test changes its own file")]
    fn an_edit_of_the_same_size_with_its_old_time_is_found() {
        let (_root, host, directory) = machine();
        let file = directory.join("file");
        deceive(&host, &file);
        let before = nix::sys::stat::stat(&file).unwrap();
        let modified = TimeSpec::new(before.st_mtime, before.st_mtime_nsec);
        // The kernel's clock for files ticks every few milliseconds; a memory as old as a real one is seconds apart.
        loop {
            std::fs::write(&file, "lies\n").unwrap();
            utimensat(AT_FDCWD, &file, &modified, &modified, NoFollowSymlink).unwrap();
            let after = nix::sys::stat::stat(&file).unwrap();
            assert_eq!(
                (after.st_mtime, after.st_mtime_nsec),
                (before.st_mtime, before.st_mtime_nsec)
            );
            if (after.st_ctime, after.st_ctime_nsec) != (before.st_ctime, before.st_ctime_nsec) {
                break;
            }
        }
        assert_eq!(look(&host), hash_bytes(b"lies\n"));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test changes its own file")]
    fn another_file_in_its_place_is_read() {
        let (_root, host, directory) = machine();
        let file = directory.join("file");
        deceive(&host, &file);
        let other = directory.join("other");
        std::fs::write(&other, "lies\n").unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert_eq!(look(&host), hash_bytes(b"lies\n"));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test changes its own file")]
    fn what_is_known_opens_no_directory_that_others_may_change() {
        let (_root, host, directory) = machine();
        let deception = deceive(&host, &directory.join("file"));
        assert_eq!(look(&host), deception);
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
        let hashing = Hashing::Remembered {
            at_least: 0,
            at_most: 100,
        };
        let refusal = host.look("/d/file", hashing).unwrap_err();
        assert!(refusal.message.contains("refused to work"), "{refusal}");
    }

    #[test]
    fn times_are_believed_of_file_systems_that_keep_their_own() {
        use nix::sys::statfs::{FUSE_SUPER_MAGIC, MSDOS_SUPER_MAGIC, NFS_SUPER_MAGIC};
        assert!(is_trusted(EXT4_SUPER_MAGIC) && is_trusted(TMPFS_MAGIC));
        for other in [MSDOS_SUPER_MAGIC, NFS_SUPER_MAGIC, FUSE_SUPER_MAGIC] {
            assert!(!is_trusted(other), "{other:?}");
        }
    }
}
