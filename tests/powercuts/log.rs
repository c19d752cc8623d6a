//! What the guest wrote to its disk, in order, with the moments at which it asked for all of it to be durable.
//!
//! QEMU's blklogwrites driver keeps it in the format of Linux's dm-log-writes: a superblock, then an entry of one sector for each
//! request, followed by its data.
//!
//! From it follow the disks that a power cut at any moment may leave: everything up to the last flush is there, and of what came after
//! it any part may be.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Where on the disk, in bytes.
    at: u64,
    /// How much, in bytes.
    length: u64,
    /// Where its data is in the log.
    data: u64,
    flags: u64,
}

/// A whole log.
#[derive(Debug)]
pub struct Log {
    file: File,
    pub entries: Vec<Entry>,
}

impl Log {
    /// Reads the log at `path`.
    pub fn read(path: &Path) -> Log {
        let file = File::open(path).unwrap();
        let number = |at: u64| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at).unwrap();
            u64::from_le_bytes(bytes)
        };
        assert_eq!((number(0), number(8)), (MAGIC, 1), "no log of writes");
        let sector = number(24) & 0xffff_ffff;
        let mut entries = Vec::new();
        let mut at = sector;
        let end = file.metadata().unwrap().len();
        // The superblock is written now and then only; behind the last entry there are zeros.
        while at + sector <= end {
            let (first, sectors, flags) = (number(at), number(at + 8), number(at + 16));
            if (first, sectors, flags) == (0, 0, 0) {
                break;
            }
            at += sector;
            entries.push(Entry {
                at: first * sector,
                length: sectors * sector,
                data: at,
                flags,
            });
            if flags & DISCARD == 0 {
                at += sectors * sector;
            }
        }
        Log { file, entries }
    }

    /// The words of the marks that were written at `place`, with the number of entries up to each.
    pub fn marks(&self, place: u64) -> Vec<(usize, String)> {
        let entries = self.entries.iter().enumerate();
        let marks = entries.filter(|(_, entry)| entry.at == place && entry.length > 0);
        marks
            .map(|(index, entry)| {
                let bytes = self.data(entry);
                let text = String::from_utf8_lossy(&bytes);
                (index + 1, text.trim_end_matches('\0').trim().to_owned())
            })
            .collect()
    }

    /// How many flushes there are among the first `count` entries.
    pub fn flushes(&self, count: usize) -> usize {
        let entries = self.entries[..count].iter();
        entries.filter(|entry| entry.flags & FLUSH != 0).count()
    }

    fn data(&self, entry: &Entry) -> Vec<u8> {
        let mut bytes = vec![0; entry.length as usize];
        if entry.flags & DISCARD == 0 {
            self.file.read_exact_at(&mut bytes, entry.data).unwrap();
        }
        bytes
    }

    /// Was it to be durable before it was called done. QEMU's NVMe device does not pass that on, so that what the file system writes
    /// like this is known by its face: the commit blocks and the superblock of the journal.
    fn is_durable_itself(&self, entry: &Entry) -> bool {
        const COMMIT_BLOCK: u8 = 2;
        const SUPERBLOCKS: [u8; 2] = [3, 4];
        if entry.flags & FUA != 0 {
            return true;
        }
        if entry.length != 4096 || entry.flags & DISCARD != 0 {
            return false;
        }
        let head = &self.data(entry)[..8];
        let is_journal = head[..7] == [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0];
        is_journal && (head[7] == COMMIT_BLOCK || SUPERBLOCKS.contains(&head[7]))
    }

    fn write(&self, entry: &Entry, disk: &File) {
        // What is discarded may stay as it was.
        if entry.flags & DISCARD == 0 {
            disk.write_all_at(&self.data(entry), entry.at).unwrap();
        }
    }
}

/// A disk that follows the log from flush to flush.
#[derive(Debug)]
pub struct Durable<'a> {
    log: &'a Log,
    disk: File,
    /// How many entries are on it for certain.
    applied: usize,
}

impl<'a> Durable<'a> {
    /// Begins with the disk at `path`, as it was before the first entry.
    pub fn new(log: &'a Log, path: &Path) -> Self {
        let disk = File::options().read(true).write(true).open(path).unwrap();
        Durable {
            log,
            disk,
            applied: 0,
        }
    }

    /// Applies what is durable when the first `count` entries were written, and returns how many writes may be lost.
    pub fn advance(&mut self, count: usize) -> usize {
        let entries = &self.log.entries[..count];
        let is_flush = |entry: &Entry| entry.flags & FLUSH != 0;
        let durable = entries
            .iter()
            .rposition(is_flush)
            .map_or(0, |last| last + 1);
        for entry in &entries[self.applied.min(durable)..durable] {
            self.log.write(entry, &self.disk);
        }
        self.applied = self.applied.max(durable);
        count - self.applied
    }

    /// Makes the disk at `path`, a copy of this one, as a cut after `count` entries may leave it: of the writes that may be lost those
    /// are there that `is_kept` says.
    pub fn cut(&self, count: usize, path: &Path, mut is_kept: impl FnMut() -> bool) {
        let disk = File::options().write(true).open(path).unwrap();
        for entry in &self.log.entries[self.applied..count] {
            if self.log.is_durable_itself(entry) || is_kept() {
                self.log.write(entry, &disk);
            }
        }
    }
}
