//! A fetcher without systemd: a child of `limpet apply --once`, with one end of a socket pair as its standard input.
//!
//! Invariant: the child of root is not root, and what it shall serve is on no command line.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User};

use super::client::{Client, Delivery, Upstream};
use super::protocol::Tip;
use super::protocol::{Artifact, Probe, Seen};
use super::start::{Start, write_start};
use super::{Secrets, Trouble};
use crate::config::Source;
use crate::git::{Object, ObjectError, ObjectId, Objects};
use crate::model::{Class, Failure};

/// How to start a child.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program: this one.
    pub program: PathBuf,
    /// The directory of the cache. It is made when it is missing, and given to the user the child runs as.
    pub cache: PathBuf,
    /// The user and group to run as; `None` for the caller's own.
    pub drop_to: Option<(u32, u32)>,
    /// Credentials, instead of those that systemd handed to the caller.
    pub secrets: Option<Secrets>,
}

impl Launch {
    /// This program with its cache in `cache`: as root it drops to user limpet where there is one, else to nobody.
    pub fn of_this_program(cache: &Path) -> Self {
        let drop_to = Uid::effective().is_root().then(|| {
            ["limpet", "nobody"]
                .into_iter()
                .find_map(|name| User::from_name(name).ok().flatten())
                .map_or((65534, 65534), |user| {
                    (user.uid.as_raw(), user.gid.as_raw())
                })
        });
        Launch {
            program: PathBuf::from("/proc/self/exe"),
            cache: cache.to_owned(),
            drop_to,
            secrets: None,
        }
    }
}

/// A fetcher of one's own; it ends with this value.
#[derive(Debug)]
pub struct Child {
    client: Client,
    process: std::process::Child,
}

impl Child {
    /// Starts a fetcher for `source`.
    pub fn spawn(launch: &Launch, source: &Source) -> Result<Self, Failure> {
        let fail = |error: io::Error| {
            Failure::new(Class::Host, format!("failed to start the fetcher: {error}"))
        };
        create_cache(launch).map_err(|error| {
            let message = format!(
                "failed to create cache '{}': {error}",
                launch.cache.display()
            );
            Failure::new(Class::Host, message)
        })?;
        let (ours, theirs) = UnixStream::pair().map_err(fail)?;
        let mut command = Command::new(&launch.program);
        command
            .arg0("limpet")
            .arg("fetch")
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null());
        if let Some((uid, gid)) = launch.drop_to {
            // The standard library clears the supplementary groups when root changes the user.
            command.uid(uid).gid(gid);
        }
        let process = command.spawn().map_err(fail)?;
        // From here on dropping `child` ends the process.
        let child = Child {
            client: Client::over(ours.try_clone().map_err(fail)?),
            process,
        };
        write_start(
            &mut &ours,
            &Start::new(source, &launch.cache, launch.secrets.clone()),
        )
        .map_err(fail)?;
        Ok(child)
    }

    /// The way to talk to it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Upstream for Child {
    fn poll(&self, trusted: Option<ObjectId>) -> Result<Tip, Trouble> {
        self.client.poll(trusted)
    }

    fn probe(&self, probe: &Probe) -> Result<(), Failure> {
        self.client.probe(probe)
    }

    fn sysctls(&self, names: &[String]) -> Result<Vec<Seen>, Failure> {
        self.client.sysctls(names)
    }

    fn artifact(&self, artifact: &Artifact) -> Result<Delivery<'_>, Failure> {
        self.client.artifact(artifact)
    }
}

impl Objects for Child {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        self.client.get(id)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It holds nothing that a kill could harm: a cache is good after any interruption.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Makes the cache directory. One that is there already keeps its owner: it may be anything.
fn create_cache(launch: &Launch) -> io::Result<()> {
    if let Some(parent) = launch.cache.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::create_dir(&launch.cache) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    if let Some((uid, gid)) = launch.drop_to {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        std::os::unix::fs::chown(&launch.cache, Some(uid.as_raw()), Some(gid.as_raw()))?;
    }
    Ok(())
}
