//! A machine that is emulated as a whole, so that its power can be cut: Debian's kernel, and a disk with a cache that forgets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixture::machine::output_of;

/// In bytes. The file system ends before it, so that there is room for marks.
const DISK_BYTES: u64 = 1 << 30;
/// In blocks of 4 KiB.
const FILE_SYSTEM_BLOCKS: u64 = 250_000;
/// The block of the marks, which are written past the page cache: when the log has one, all that was done before was done.
pub const MARK_BLOCK: u64 = 255_000;

/// Room for the log; only what is written takes any.
const LOG_BYTES: u64 = 16 << 30;

/// Debian's kernel for virtual machines, which has NVMe and ext4 built in; unpacked, not installed.
fn kernel() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/powercuts/kernel");
    if !directory.join("complete").exists() {
        fs::create_dir_all(&directory).unwrap();
        let script = "rm -rf -- *
            package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)
            apt-get -q download \"$package\"
            dpkg-deb -x \"$package\"_*.deb .
            rm -- *.deb
            touch complete";
        let mut command = Command::new("/bin/sh");
        command.args(["-euc", script]).current_dir(&directory);
        output_of(&mut command).success();
    }
    let mut found = fs::read_dir(directory.join("boot"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_kernel = |path: &PathBuf| path.to_string_lossy().contains("/vmlinuz-");
    found.find(is_kernel).expect("the package has a kernel")
}

/// Makes a disk with what is in `tree`.
pub fn make_disk(tree: &Path, disk: &Path) {
    let file = fs::File::create(disk).unwrap();
    file.set_len(DISK_BYTES).unwrap();
    let mut command = Command::new("mke2fs");
    command
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-d"])
        .arg(tree)
        .arg(disk)
        .arg(FILE_SYSTEM_BLOCKS.to_string());
    output_of(&mut command).success();
}

/// A running emulator.
#[derive(Debug)]
pub struct Emulator {
    child: Child,
    serial: PathBuf,
}

impl Emulator {
    /// Boots from `disk`, and logs every write to it in `log`.
    pub fn start(disk: &Path, log: &Path, serial: &Path) -> Emulator {
        fs::File::create(log).unwrap().set_len(LOG_BYTES).unwrap();
        let _ = fs::remove_file(serial);
        // That this computer's disk does not flush is of no concern: the log knows when the guest wanted it to.
        let node = |name: &str, file: &Path| {
            let file = file.display();
            format!("driver=file,filename={file},node-name={name},cache.no-flush=on")
        };
        let child = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-cpu", "max", "-m", "768"])
            .args(["-nodefaults", "-no-reboot", "-display", "none"])
            .arg("-serial")
            .arg(format!("file:{}", serial.display()))
            .arg("-kernel")
            .arg(kernel())
            .args(["-append", "root=/dev/nvme0n1 rw console=ttyS0 quiet"])
            .args(["-blockdev", &node("disk", disk)])
            .args(["-blockdev", &node("log", log)])
            .args([
                "-blockdev",
                "driver=blklogwrites,file=disk,log=log,node-name=logged",
            ])
            .args(["-device", "nvme,serial=limpet,drive=logged"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("failed to run qemu-system-x86_64: {error}"));
        Emulator {
            child,
            serial: serial.to_owned(),
        }
    }

    /// What the guest said on its serial line.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.serial).unwrap_or_default()).into_owned()
    }

    /// Waits until the guest said the line `words`; false when `limit` passes first, or something failed in it.
    pub fn waits_for(&mut self, words: &str, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            let said = self.said();
            if said.lines().any(|line| line.trim() == words) {
                return true;
            }
            if said.lines().any(|line| line.starts_with("failed ")) {
                return false;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the emulator ended:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(200));
        }
        false
    }

    /// Cuts the power.
    pub fn cut(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.end();
    }
}

/// A disk that is mounted here, its journal replayed.
#[derive(Debug)]
pub struct Mounted {
    pub directory: PathBuf,
}

impl Mounted {
    /// Mounts `disk`, which must be one that a power cut may leave: the file system mends itself.
    pub fn new(disk: &Path, directory: &Path) -> Mounted {
        fs::create_dir_all(directory).unwrap();
        let mut command = Command::new("mount");
        command
            .args(["-t", "ext4", "-o", "loop"])
            .arg(disk)
            .arg(directory);
        output_of(&mut command).success();
        Mounted {
            directory: directory.to_owned(),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = output_of(Command::new("umount").arg(&self.directory));
        if !unmounted.status.success() && !std::thread::panicking() {
            panic!("failed to unmount: {}", unmounted.stderr);
        }
    }
}
