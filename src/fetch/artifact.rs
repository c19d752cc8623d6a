//! Files that are declared by their address and hash: downloaded beside everything else, and handed out once they are whole.
//!
//! A download goes on where an earlier one ended, also one of another process. It may be slow: whoever asks is told how far it is, and
//! asks again.
//!
//! Invariant: nothing is handed out but bytes with the SHA-256 that was asked for, and whoever gets them hashes them himself; no
//! credential is sent; https is never left; a download has no more than [`MAX_BYTES`], and none keeps its place that [`Pace`] cuts off.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::statvfs::statvfs;
use ring::digest::{Context, SHA256};
use ureq::http::{StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;

use super::connect::connector;
use super::http::{choose_proxy, read_roots};
use super::locked;
use super::pace::Pace;
use super::protocol::{Artifact, Downloading};
use crate::git::hex;
use crate::model::{Class, Failure};

/// The largest file that is downloaded.
pub const MAX_BYTES: u64 = 4 << 30;

/// How many are downloaded at a time.
const AT_A_TIME: usize = 4;

/// How many failures are remembered that nobody asked about yet.
const MAX_FAILED: usize = 100;

/// What a download leaves to others on its file system.
const SPARE_BYTES: u64 = 16 << 20;

const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: u32 = 5;

/// How long something is kept that nobody asks for any more.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const USER_AGENT: &str = concat!("limpet/", env!("CARGO_PKG_VERSION"));

/// The downloads of a fetcher.
#[derive(Debug)]
pub struct Artifacts {
    directory: PathBuf,
    proxy: Option<String>,
    ca_file: Option<String>,
    /// Those that are not whole, by SHA-256.
    open: Mutex<BTreeMap<String, State>>,
}

#[derive(Debug)]
enum State {
    Downloading(Downloading),
    Failed(Failure),
}

/// What is known of a file.
#[derive(Debug)]
pub enum Found {
    /// It is whole: these bytes, so many.
    Whole(File, u64),
    /// It is on its way.
    Downloading(Downloading),
}

impl Artifacts {
    /// Downloads into `directory`.
    pub fn new(directory: PathBuf, proxy: Option<String>, ca_file: Option<String>) -> Self {
        Artifacts {
            directory,
            proxy,
            ca_file,
            open: Mutex::default(),
        }
    }

    /// Is anything being downloaded.
    pub fn is_busy(&self) -> bool {
        let is_running = |state: &State| matches!(state, State::Downloading(_));
        locked(&self.open).values().any(is_running)
    }

    /// The file, or how far it is; what is not there begins to be downloaded. A failure is told once, and tried again when it is asked for the next time.
    pub fn find(self: &Arc<Self>, wanted: &Artifact) -> Result<Found, Failure> {
        let is_hash = |text: &str| {
            text.len() == 64
                && text
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !is_hash(&wanted.sha256) {
            return Err(Failure::new(Class::Bug, "what is asked for is no SHA-256"));
        }
        let mut open = locked(&self.open);
        match open.get(&wanted.sha256) {
            Some(State::Downloading(far)) => return Ok(Found::Downloading(*far)),
            Some(State::Failed(failure)) => {
                let failure = failure.clone();
                open.remove(&wanted.sha256);
                return Err(failure);
            }
            None => {}
        }
        let path = self.directory.join(&wanted.sha256);
        match File::open(&path) {
            Ok(file) => {
                let size = file
                    .metadata()
                    .map_err(|error| unusable(&path, &error))?
                    .len();
                return Ok(Found::Whole(file, size));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(&path, &error)),
        }
        let far = Downloading::default();
        let is_running = |state: &&State| matches!(state, State::Downloading(_));
        let running = open.values().filter(is_running).count();
        if running >= AT_A_TIME {
            return Ok(Found::Downloading(far));
        }
        if open.len() - running > MAX_FAILED {
            open.retain(|_, state| matches!(state, State::Downloading(_)));
        }
        fs::create_dir_all(&self.directory).map_err(|error| unusable(&self.directory, &error))?;
        self.sweep(&open);
        open.insert(wanted.sha256.clone(), State::Downloading(far));
        drop(open);
        let (artifacts, asked) = (Arc::clone(self), wanted.clone());
        let started = std::thread::Builder::new()
            .name("download".to_owned())
            .spawn(move || artifacts.run(&asked));
        if let Err(error) = started {
            locked(&self.open).remove(&wanted.sha256);
            let message = format!("failed to start a download: {error}");
            return Err(Failure::new(Class::Transient, message));
        }
        Ok(Found::Downloading(far))
    }

    fn run(&self, wanted: &Artifact) {
        let result = self.download(wanted);
        let mut open = locked(&self.open);
        match result {
            Ok(()) => open.remove(&wanted.sha256),
            Err(failure) => open.insert(wanted.sha256.clone(), State::Failed(failure)),
        };
    }

    fn download(&self, wanted: &Artifact) -> Result<(), Failure> {
        let url = &wanted.url;
        let failed = |cause: &dyn std::fmt::Display| {
            Failure::new(Class::Transient, format!("failed to get '{url}': {cause}"))
        };
        let part = self.directory.join(format!("{}.part", wanted.sha256));
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&part)
            .map_err(|error| unusable(&part, &error))?;
        let mut context = Context::new(&SHA256);
        let mut have = copy(&mut file, |bytes| {
            context.update(bytes);
            Ok(())
        })
        .map_err(|error| unusable(&part, &error))?;
        let response = self.request(url, have)?;
        let status = response.status();
        let headers = response.headers();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let goes_on = status == StatusCode::PARTIAL_CONTENT
            && text(header::CONTENT_RANGE)
                .is_some_and(|range| range.starts_with(&format!("bytes {have}-")));
        let is_at_end = status == StatusCode::RANGE_NOT_SATISFIABLE && have > 0;
        if !status.is_success() && !is_at_end {
            let cause = format!("HTTP status {}", status.as_u16());
            return Err(match status.as_u16() {
                408 | 425 | 429 | 500..=599 => failed(&cause),
                _ => Failure::new(Class::Author, format!("failed to get '{url}': {cause}"))
                    .with_hint("see whether the address is still right"),
            });
        }
        if !goes_on && !is_at_end {
            file.set_len(0).map_err(|error| unusable(&part, &error))?;
            context = Context::new(&SHA256);
            have = 0;
        }
        let length: Option<u64> =
            text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let total = length
            .map(|length| have.saturating_add(length))
            .filter(|_| !is_at_end);
        self.tell(wanted, have, total);
        let too_large = || {
            let message = format!("'{url}' is larger than {} GiB", MAX_BYTES >> 30);
            Failure::new(Class::Author, message)
        };
        if total.is_some_and(|total| total > MAX_BYTES) {
            return Err(too_large());
        }
        if let Some(total) = total {
            self.check_space(url, total - have)?;
        }
        if !is_at_end {
            let mut pace = Pace::new(Instant::now());
            let mut body = response.into_body().into_reader();
            let mut wrong = None;
            let copied = copy(&mut body, |bytes| {
                have += bytes.len() as u64;
                if have > MAX_BYTES {
                    wrong = Some(too_large());
                    return Err(io::Error::other("too large"));
                }
                context.update(bytes);
                if let Err(error) = file.write_all(bytes) {
                    wrong = Some(unusable(&part, &error));
                    return Err(error);
                }
                self.tell(wanted, have, total);
                let noted = pace.note(bytes.len(), Instant::now());
                noted.map_err(io::Error::other)
            });
            if let Some(failure) = wrong {
                return Err(failure);
            }
            copied.map_err(|error| failed(&format!("{error}; it goes on from byte {have}")))?;
            if total.is_some_and(|total| have < total) {
                return Err(failed(&format!(
                    "the server hung up; it goes on from byte {have}"
                )));
            }
        }
        let found = hex(context.finish().as_ref());
        if found != wanted.sha256 {
            let _ = fs::remove_file(&part);
            let message = format!(
                "'{url}' has SHA-256 {found}, not {} as declared",
                wanted.sha256
            );
            return Err(Failure::new(Class::Author, message)
                .with_hint("declare what it should be; if that is right, somebody changed the file on its server"));
        }
        let whole = self.directory.join(&wanted.sha256);
        file.sync_all()
            .and_then(|()| fs::rename(&part, &whole))
            .map_err(|error| unusable(&whole, &error))
    }

    fn request(&self, url: &str, have: u64) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let is_https = url.starts_with("https://");
        let roots = match is_https {
            true => read_roots(self.ca_file.as_deref())?,
            false => Vec::new(),
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let proxy = choose_proxy(self.proxy.as_deref(), url, |name| std::env::var(name).ok())?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(MAX_REDIRECTS)
            .https_only(is_https)
            .proxy(proxy)
            .user_agent(USER_AGENT)
            .accept_encoding(ureq::config::AutoHeaderValue::None)
            .timeout_resolve(Some(CONNECT_LIMIT))
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_recv_response(Some(SILENCE_LIMIT))
            .timeout_per_read(Some(SILENCE_LIMIT))
            .tls_config(tls)
            .build();
        let agent = ureq::Agent::with_parts(config, connector(), DefaultResolver::default());
        let mut request = agent.get(url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        request.call().map_err(|error| {
            let message = format!("failed to get '{url}': {error}");
            Failure::new(Class::Transient, message)
        })
    }

    /// Is there room for `more` bytes.
    fn check_space(&self, url: &str, more: u64) -> Result<(), Failure> {
        let found = statvfs(&self.directory)
            .map_err(|errno| unusable(&self.directory, &io::Error::from(errno)))?;
        let free = found
            .blocks_available()
            .saturating_mul(found.fragment_size());
        match shortage(&self.directory, url, more, free) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn tell(&self, wanted: &Artifact, have: u64, total: Option<u64>) {
        let far = State::Downloading(Downloading { have, total });
        locked(&self.open).insert(wanted.sha256.clone(), far);
    }

    /// Removes what nobody asked for in a while.
    fn sweep(&self, open: &BTreeMap<String, State>) {
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_open = open.contains_key(name.trim_end_matches(".part"));
            let touched = entry.metadata().and_then(|metadata| metadata.modified());
            let age = touched
                .ok()
                .and_then(|at| SystemTime::now().duration_since(at).ok());
            if !is_open && age.is_some_and(|age| age > KEPT) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// What is said where `free` bytes are left of a file system, and `more` are to come.
fn shortage(directory: &Path, url: &str, more: u64, free: u64) -> Option<Failure> {
    let missing = more.saturating_add(SPARE_BYTES).checked_sub(free)?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    (missing > 0).then(|| {
        let message = format!(
            "no room for '{url}': {:.1} MiB are to come, {:.1} MiB are free where '{}' lies, and {} MiB of them stay free for others",
            mib(more),
            mib(free),
            directory.display(),
            SPARE_BYTES >> 20
        );
        let hint = format!(
            "make room for {:.1} MiB there; it is tried again by itself",
            mib(missing)
        );
        Failure::new(Class::Host, message).with_hint(hint)
    })
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Class::Host,
        format!("failed to use '{}': {error}", path.display()),
    )
}

/// Hands everything that `reader` yields to `take`; returns how much that was.
fn copy(reader: &mut impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(count) => {
                take(&buffer[..count])?;
                length += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_room_it_is_said_how_much_is_missing() {
        let check = |more: u64, free: u64| {
            shortage(Path::new("/cache"), "https://a/b", more << 20, free << 20)
        };
        assert!(check(100, 116).is_none());
        let failure = check(100, 50).unwrap();
        assert_eq!(
            failure.to_string(),
            "no room for 'https://a/b': 100.0 MiB are to come, 50.0 MiB are free where '/cache' lies, and 16 MiB of them stay free for others"
        );
        let hint = failure.hint.unwrap();
        assert_eq!(
            hint,
            "make room for 66.0 MiB there; it is tried again by itself"
        );
        assert!(shortage(Path::new("/cache"), "x", u64::MAX, 0).is_some());
    }
}
