//! The bytes of declared contents: inline, from the stored objects, or from the originals.

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::age::{self, Identity};
use crate::apply::Activity;
use crate::archive::{Index, Refused};
use crate::config;
use crate::cycle::archives::Archives;
use crate::cycle::{Connect, Progress};
use crate::fetch::protocol::Artifact;
use crate::fetch::{Delivery, Upstream};
use crate::git::{Objects, hex};
use crate::kinds::file::{Vault, open_sealed};
use crate::kinds::kind::{Content, ContentSource, Contents};
use crate::model::{Class, Failure};
use crate::record::objects::{ObjectStore, Reading};
use crate::sys::{Host, clock};

/// Reads contents on a host.
pub struct StoredContents<'a> {
    /// Where the originals are.
    host: &'a Host,
    blobs: Blobs<'a>,
    /// What opens secrets.
    vault: Option<&'a Vault>,
    /// Who has what is declared by its address.
    courier: Option<Courier<'a>>,
    /// The archives that are here.
    archives: Option<&'a Archives>,
    /// Whether a blob was not there, or not as it was kept.
    lost: Cell<bool>,
}

/// Where the blobs are.
enum Blobs<'a> {
    /// In this host's store: read in one transaction, and not hashed as objects, because the content is.
    Stored(Reading<'a>),
    /// Anywhere.
    Anywhere(&'a dyn Objects),
}

impl<'a> StoredContents<'a> {
    /// The contents of `host`, whose blobs are in `objects`.
    pub fn new(
        host: &'a Host,
        objects: &'a ObjectStore,
        vault: &'a Vault,
    ) -> Result<Self, Failure> {
        let blobs = Blobs::Stored(objects.read()?);
        Ok(StoredContents {
            vault: Some(vault),
            ..Self::of(host, blobs)
        })
    }

    /// The same, and what is declared by its address.
    pub fn with_courier(self, courier: Courier<'a>, archives: &'a Archives) -> Self {
        StoredContents {
            courier: Some(courier),
            archives: Some(archives),
            ..self
        }
    }

    /// What is in an archive.
    pub fn index(&self, archive: &Content) -> Result<Index, Failure> {
        let bytes = self.archive(archive)?;
        crate::archive::index(bytes).map_err(|why| unpacking_failed(archive, &why))
    }

    /// The bytes of an archive, whose hash was found to be right, from the first one on.
    fn archive(&self, archive: &Content) -> Result<File, Failure> {
        let (Some(courier), Some(archives)) = (&self.courier, self.archives) else {
            return Err(Failure::new(
                Class::Bug,
                "failed to unpack an archive: it is only looked at",
            ));
        };
        let url = archive.whence().unwrap_or_default();
        archives.get(self.host, url, &archive.sha256, &mut || {
            courier.bring(url, &archive.sha256)
        })
    }

    /// The contents of a revision that is not kept here, whose blobs are in `objects`.
    pub fn anywhere(host: &'a Host, objects: &'a dyn Objects) -> Self {
        Self::of(host, Blobs::Anywhere(objects))
    }

    fn of(host: &'a Host, blobs: Blobs<'a>) -> Self {
        StoredContents {
            host,
            blobs,
            vault: None,
            courier: None,
            archives: None,
            lost: Cell::new(false),
        }
    }

    /// Was a blob asked for that is no longer kept.
    pub fn has_lost(&self) -> bool {
        self.lost.get()
    }
}

impl std::fmt::Debug for StoredContents<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredContents").finish_non_exhaustive()
    }
}

impl StoredContents<'_> {
    fn identity(&self) -> Result<&Identity, Failure> {
        let vault = self.vault.ok_or_else(|| {
            Failure::new(
                Class::Bug,
                "failed to decrypt a secret: it is only looked at",
            )
        })?;
        vault.identity()
    }
}

fn unpacking_failed(archive: &Content, why: &Refused) -> Failure {
    let url = archive.whence().unwrap_or_default();
    Failure::new(Class::Author, format!("refused to unpack '{url}': {why}"))
        .with_hint("pack it anew and declare its new hash; README.md says what an archive may have")
}

/// Brings what is declared by its address, and waits for a while where that is on its way.
pub struct Courier<'a> {
    connect: &'a Mutex<Connect>,
    progress: Progress<'a>,
    fetcher: OnceCell<Box<dyn Upstream>>,
}

/// How long a cycle waits for a download, which goes on without it.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long taking over what was fetched may be silent: a slow card with gigabytes to write.
const COPYING_SILENCE: Duration = Duration::from_secs(15 * 60);

/// How often it is seen how far a download is.
const PAUSE: Duration = Duration::from_millis(250);

impl std::fmt::Debug for Courier<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Courier").finish_non_exhaustive()
    }
}

impl<'a> Courier<'a> {
    pub(super) fn new(connect: &'a Mutex<Connect>, progress: Progress<'a>) -> Self {
        Courier {
            connect,
            progress,
            fetcher: OnceCell::new(),
        }
    }

    fn bring(&self, url: &str, sha256: &[u8; 32]) -> Result<Box<dyn Read + '_>, Failure> {
        let fetcher = match self.fetcher.get() {
            Some(fetcher) => fetcher,
            None => {
                let connect = self.connect.lock().unwrap_or_else(PoisonError::into_inner);
                let fetcher = connect()?;
                drop(connect);
                self.fetcher.get_or_init(|| fetcher)
            }
        };
        let wanted = Artifact {
            url: url.to_owned(),
            sha256: hex(sha256),
        };
        let begun = clock::instant();
        loop {
            let far = match fetcher.artifact(&wanted)? {
                Delivery::Whole(bytes) => {
                    let what = format!("taking over '{url}'");
                    (self.progress)(&Activity::Applying(what), COPYING_SILENCE);
                    return Ok(bytes);
                }
                Delivery::Downloading(far) => far,
            };
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let total = far.total.map(|total| format!(" of {:.1}", mib(total)));
            let shown = format!("{:.1}{} MiB", mib(far.have), total.unwrap_or_default());
            if clock::instant().duration_since(begun) > PATIENCE {
                let message = format!("'{url}' is on its way: {shown} are here");
                return Err(Failure::new(Class::Transient, message)
                    .with_hint("it is put in its place when it is whole; nobody need act"));
            }
            let what = format!("fetching '{url}': {shown}");
            (self.progress)(&Activity::Applying(what), PATIENCE * 2);
            std::thread::sleep(PAUSE);
        }
    }
}

impl Contents for StoredContents<'_> {
    fn open(&self, content: &Content) -> Result<Box<dyn Read + '_>, Failure> {
        match (&content.source, &self.courier) {
            (ContentSource::Address(url), Some(courier)) => courier.bring(url, &content.sha256),
            _ => Ok(Box::new(std::io::Cursor::new(self.read(content)?))),
        }
    }

    fn unpack(
        &self,
        archive: &Content,
        take: &mut dyn FnMut(u32, &mut dyn Read) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        enum Stopped {
            Refused(Refused),
            Failed(Failure),
        }
        impl From<Refused> for Stopped {
            fn from(why: Refused) -> Self {
                Stopped::Refused(why)
            }
        }
        let bytes = self.archive(archive)?;
        let unpacked = crate::archive::for_each_file(bytes, &mut |member, bytes| {
            take(member, bytes).map_err(Stopped::Failed)
        });
        unpacked.map_err(|stopped| match stopped {
            Stopped::Failed(failure) => failure,
            Stopped::Refused(why) => unpacking_failed(archive, &why),
        })
    }

    fn seal(&self, bytes: &[u8]) -> Result<(Vec<u8>, [u8; 32]), Failure> {
        let identity = self.identity()?;
        let sealed = age::seal(bytes, &[identity.recipient()]);
        let sealed = sealed.map_err(|why| {
            Failure::new(
                Class::Host,
                format!("failed to keep what a secret was: {why}"),
            )
        })?;
        Ok((sealed.into_bytes(), identity.keyed_hash(bytes)))
    }

    fn read(&self, content: &Content) -> Result<Vec<u8>, Failure> {
        let bytes = match &content.source {
            ContentSource::Inline(bytes) => bytes.to_vec(),
            ContentSource::Blob(id) => {
                // Its SHA-256 is checked below.
                let bytes = match &self.blobs {
                    Blobs::Stored(reading) => reading.unchecked_blob(id),
                    Blobs::Anywhere(objects) => objects.get(id).map(|object| object.data),
                };
                bytes.map_err(|error| {
                    self.lost.set(true);
                    Failure::new(
                        Class::Transient,
                        format!("failed to read a declared file: {error}"),
                    )
                })?
            }
            ContentSource::Member(archive, _) => {
                let url = archive.whence().unwrap_or_default();
                let message = format!("what is in '{url}' is not read one by one");
                return Err(Failure::new(Class::Bug, message));
            }
            ContentSource::Address(url) => {
                let message = format!("'{url}' is too large to be read at once");
                return Err(Failure::new(Class::Bug, message));
            }
            ContentSource::Sealed(sealed) => {
                let identity = self.identity()?;
                let bytes = open_sealed(sealed, identity)?;
                if identity.keyed_hash(&bytes) != content.sha256 {
                    return Err(Failure::new(
                        Class::Transient,
                        "the host's key is another than a moment ago",
                    ));
                }
                return Ok(bytes.to_vec());
            }
            ContentSource::Original => {
                let name = hex(&content.sha256);
                let path = format!("{}/{name}", config::ORIGINALS_DIRECTORY);
                self.host.read_file(&path, content.size)?.ok_or_else(|| {
                    Failure::new(
                        Class::Host,
                        format!(
                            "the original '{name}' is no longer in '{}'",
                            config::ORIGINALS_DIRECTORY
                        ),
                    )
                })?
            }
        };
        let actual = ring::digest::digest(&ring::digest::SHA256, &bytes);
        if actual.as_ref() != content.sha256 {
            if let ContentSource::Blob(_) = content.source {
                self.lost.set(true);
            }
            let wanted = hex(&content.sha256);
            return Err(Failure::new(
                Class::Host,
                format!("stored content does not have its SHA-256 '{wanted}'"),
            ));
        }
        Ok(bytes)
    }
}
