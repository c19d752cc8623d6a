//! A Git server behind ssh, which is the system's own program: its key exchange is not ours to repeat.
//!
//! One *session* is one `ssh` that runs `git-upload-pack` on the server. A poll takes one, whether it brings news or not: protocol
//! version 2 serves any number of requests over it. A server that answers in an older version, because its sshd does not accept
//! `GIT_PROTOCOL`, works too, and then lists all its refs every time.
//!
//! Invariant: no configuration, agent, password or forwarding of ssh is used; the server must prove a key that this host knows;
//! nothing of the address becomes an option or a second word; the key is on no disk but the one systemd read it from.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gix_transport::Protocol;
use gix_transport::client::blocking_io::Transport;
use gix_transport::client::git::{ConnectMode, blocking_io::Connection};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::attempt::Attempt;
use super::credential::Credentials;
use super::http_server::speaks_no_git;
use super::pack_header::PackHeader;
use super::refs::Found;
use super::refs::{self, Advertisement, Refs};
use super::remote::{Exchange, MAX_LISTING_BYTES, lists_too_much};
use super::{Lane, Trouble, credential, ssh_words};
use crate::config::Follow;
use crate::config::{Source, SshAddress};
use crate::model::Class;

/// The program. The sandbox of limpet-fetch.service lets it be executed by this name.
const PROGRAM: &str = "/usr/bin/ssh";

/// What of its messages is read.
const MAX_STDERR_BYTES: u64 = 16 << 10;

/// How long a session that has nothing more to say may take to end.
const GOODBYE: Duration = Duration::from_secs(1);

/// The server. Nothing is remembered of it between polls.
#[derive(Debug)]
pub struct SshServer {
    address: SshAddress,
    ssh_key: Option<String>,
    known_hosts: String,
    credentials: Credentials,
}

impl SshServer {
    /// The server of the repository at `address`.
    pub fn new(source: &Source, address: &SshAddress, credentials: &Credentials) -> Self {
        SshServer {
            address: address.clone(),
            ssh_key: source.ssh_key.clone(),
            known_hosts: source.known_hosts.clone(),
            credentials: credentials.clone(),
        }
    }

    /// Begins the sessions of `attempt`.
    pub fn begin(&self, attempt: &Rc<Attempt>) -> SshExchange<'_> {
        SshExchange {
            server: self,
            attempt: attempt.clone(),
            session: None,
        }
    }

    /// A private key where ssh can read it and nobody else: in memory, whatever mode and owner systemd gave the credential, and
    /// with the line's end that people lose when they paste one.
    fn read_key(&self) -> Result<Option<File>, Trouble> {
        let Some(name) = &self.ssh_key else {
            return Ok(None);
        };
        let text = self.credentials.read(name)?;
        let write = || {
            let mut file = File::from(memfd_create(c"ssh-key", MFdFlags::MFD_CLOEXEC)?);
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.write_all(text.trim().replace('\r', "").as_bytes())?;
            file.write_all(b"\n")?;
            Ok(file)
        };
        write()
            .map(Some)
            .map_err(|error: io::Error| credential::unusable(name, error))
    }

    fn command(&self, key: Option<&File>) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("-F").arg("none").arg("-T");
        let identity = key.map_or("none".to_owned(), |file| {
            // ssh closes what it inherits, but may open what its parent has open.
            format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
        });
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            &format!(
                "UserKnownHostsFile=\"{}\"",
                self.known_hosts.replace('%', "%%")
            ),
            "GlobalKnownHostsFile=/etc/ssh/ssh_known_hosts",
            "UpdateHostKeys=no",
            "VerifyHostKeyDNS=no",
            "PreferredAuthentications=publickey",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            &format!("IdentityFile={identity}"),
            "ClearAllForwardings=yes",
            "ForwardAgent=no",
            "ControlMaster=no",
            "ControlPath=none",
            "PermitLocalCommand=no",
            "ConnectTimeout=20",
            "ConnectionAttempts=1",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=3",
            "SendEnv=GIT_PROTOCOL",
            "LogLevel=ERROR",
        ] {
            command.arg("-o").arg(option);
        }
        if let Some(user) = &self.address.user {
            command.arg("-l").arg(user);
        }
        if let Some(port) = self.address.port {
            command.arg("-p").arg(port.to_string());
        }
        command
            .arg("--")
            .arg(&self.address.host)
            .arg(format!("git-upload-pack {}", quoted(&self.address.path)));
        command
            .env_clear()
            // What the words of `ssh_words` are written in.
            .env("LC_ALL", "C")
            .env("PATH", "/usr/bin:/bin")
            .env("GIT_PROTOCOL", "version=2")
            .current_dir("/")
            .process_group(0);
        command
    }
}

/// `path` as one word for the server's shell, the way git(1) quotes it.
fn quoted(path: &str) -> String {
    let inner = path.replace('\'', r"'\''").replace('!', r"'\!'");
    match inner.strip_prefix('~') {
        // The shell shall see `~user` as it is, up to the first slash.
        Some(_) => {
            let (home, rest) = inner.split_once('/').unwrap_or((&inner, ""));
            let is_plain = home
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"~-_.".contains(&byte));
            if is_plain {
                format!("{home}/'{rest}'")
            } else {
                format!("'{inner}'")
            }
        }
        None => format!("'{inner}'"),
    }
}

/// The sessions of one attempt.
#[derive(Debug)]
pub struct SshExchange<'server> {
    server: &'server SshServer,
    attempt: Rc<Attempt>,
    session: Option<Session>,
}

impl Exchange for SshExchange<'_> {
    fn read_tip(
        &mut self,
        follow: &Follow,
        _known: Option<gix::hash::Kind>,
    ) -> Result<(gix::hash::Kind, Option<Found>), Trouble> {
        let mut session = Session::open(self.server, &self.attempt)?;
        let Advertisement { format, refs } =
            refs::parse_advertisement(&session.greeting, follow)
                .map_err(|cause| session.end_of(speaks_no_git(&self.attempt, &cause)))?;
        let tip = match refs {
            Refs::Listed(tip) => tip,
            Refs::Ask => {
                let answer = session.ask(&refs::ls_refs_request(follow, format))?;
                refs::parse_ls_refs_of(&answer, follow, format)
                    .map_err(|cause| speaks_no_git(&self.attempt, &cause))?
            }
        };
        self.session = Some(session);
        Ok((format, tip))
    }

    fn connect(&mut self) -> Result<Box<dyn Transport>, Trouble> {
        // The session that listed the ref goes on; one that already served a fetch is at its end.
        if self
            .session
            .as_ref()
            .is_none_or(|session| session.reader.is_none())
        {
            self.session = None;
            self.session = Some(Session::open(self.server, &self.attempt)?);
        }
        let session = self.session.as_mut().expect("it was opened just above");
        let reader = session.reader.take().expect("a new session has its reader");
        let writer = Writer(session.clone_stream()?);
        let input = Cursor::new(session.greeting.clone()).chain(reader);
        Ok(Box::new(Connection::new(
            input,
            writer,
            Protocol::V2,
            self.server.address.path.as_str(),
            None::<(String, Option<u16>)>,
            ConnectMode::Process,
            false,
        )))
    }

    fn take_trouble(&mut self) -> Option<Trouble> {
        if let Some(trouble) = self.attempt.take_trouble() {
            return Some(trouble);
        }
        self.session.take()?.explain()
    }
}

/// A running `ssh`.
#[derive(Debug)]
struct Session {
    attempt: Rc<Attempt>,
    process: Child,
    stream: UnixStream,
    stderr: Option<JoinHandle<String>>,
    /// What the server said first.
    greeting: Vec<u8>,
    /// Taken by whoever reads to the end.
    reader: Option<BufReader<Reader>>,
    words: ssh_words::Address,
    /// The key, for as long as ssh may want to read it.
    _key: Option<File>,
}

impl Session {
    /// Starts `ssh`, and reads what the server says first.
    fn open(server: &SshServer, attempt: &Rc<Attempt>) -> Result<Self, Trouble> {
        let key = server.read_key()?;
        let failed = |error: io::Error| {
            let trouble =
                attempt.trouble(Class::Host, format!("failed to run '{PROGRAM}': {error}"));
            match error.kind() {
                io::ErrorKind::NotFound => trouble
                    .with_hint("install it: 'apt install openssh-client'")
                    .in_lane(Lane::Denied),
                _ => trouble,
            }
        };
        // A socket, unlike a pipe, has time limits.
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_write_timeout(Some(attempt.silence()))
            .map_err(failed)?;
        let input = OwnedFd::from(theirs.try_clone().map_err(failed)?);
        let mut process = server
            .command(key.as_ref())
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let stderr = process.stderr.take().map(|stderr| {
            std::thread::spawn(move || {
                let mut stderr = stderr;
                let mut bytes = Vec::new();
                let _ = stderr
                    .by_ref()
                    .take(MAX_STDERR_BYTES)
                    .read_to_end(&mut bytes);
                // Or ssh would wait for somebody to read on.
                let _ = io::copy(&mut stderr, &mut io::sink());
                String::from_utf8_lossy(&bytes).into_owned()
            })
        });
        let mut session = Session {
            attempt: attempt.clone(),
            process,
            stderr,
            greeting: Vec::new(),
            reader: None,
            words: ssh_words::Address::new(
                &server.address,
                server.ssh_key.as_deref(),
                &server.known_hosts,
            ),
            stream: ours,
            _key: key,
        };
        let reader = Reader {
            stream: session.clone_stream()?,
            attempt: attempt.clone(),
            pack: PackHeader::default(),
        };
        session.reader = Some(BufReader::with_capacity(64 << 10, reader));
        session.greeting = session.read_until_flush()?;
        Ok(session)
    }

    fn clone_stream(&self) -> Result<UnixStream, Trouble> {
        self.stream
            .try_clone()
            .map_err(|error| self.attempt.trouble(Class::Host, error))
    }

    fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>, Trouble> {
        if self.stream.write_all(request).is_err() {
            return Err(self.ended());
        }
        self.read_until_flush()
    }

    fn read_until_flush(&mut self) -> Result<Vec<u8>, Trouble> {
        let Some(reader) = &mut self.reader else {
            return Err(self.ended());
        };
        match refs::read_until_flush(reader, MAX_LISTING_BYTES) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(lists_too_much(&self.attempt)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.ended()),
            Err(error) => match self.attempt.take_trouble() {
                Some(trouble) => Err(trouble),
                None => {
                    let trouble = speaks_no_git(&self.attempt, &error.to_string());
                    Err(self.end_of(trouble))
                }
            },
        }
    }

    /// The trouble of a session that ended before it should.
    fn ended(&mut self) -> Trouble {
        self.explain().unwrap_or_else(|| {
            self.attempt
                .trouble(Class::Transient, "the server hung up in the middle")
        })
    }

    /// What ssh says about the end, else `trouble`.
    fn end_of(&mut self, trouble: Trouble) -> Trouble {
        self.explain().unwrap_or(trouble)
    }

    /// Ends the session; what ssh and the server said about it, if they said anything.
    fn explain(&mut self) -> Option<Trouble> {
        self.end();
        let text = self.stderr.take()?.join().ok()?;
        ssh_words::explain(&self.attempt, &self.words, &text)
    }

    /// Lets ssh end by itself, but not for long.
    fn end(&mut self) {
        // A flush says that nothing more is wanted, in every version of the protocol.
        let _ = self.stream.write_all(b"0000");
        let _ = self.stream.shutdown(Shutdown::Write);
        let start = Instant::now();
        while start.elapsed() < GOODBYE {
            match self.process.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
        if let Ok(id) = i32::try_from(self.process.id()) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
        let _ = self.process.wait();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // After the first time there is no process, and it returns at once.
        self.end();
    }
}

/// Reads what ssh brings, within the attempt's limits.
#[derive(Debug)]
struct Reader {
    stream: UnixStream,
    attempt: Rc<Attempt>,
    pack: PackHeader,
}

impl Reader {
    fn read_limited(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let attempt = &self.attempt;
        let left = attempt.time_left();
        if left.is_zero() {
            return Err(attempt.too_long());
        }
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock if attempt.time_left().is_zero() => attempt.too_long(),
            io::ErrorKind::WouldBlock => attempt.too_silent(),
            _ => attempt.trouble(Class::Transient, error),
        };
        self.stream
            .set_read_timeout(Some(left.min(attempt.silence())))
            .map_err(failed)?;
        let count = loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // ssh is gone, which is the end of what it brought.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break 0,
                result => break result.map_err(failed)?,
            }
        };
        attempt.spend(count)?;
        self.pack.check(attempt, &buffer[..count])?;
        Ok(count)
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_limited(buffer).map_err(|trouble| {
            self.attempt.keep_trouble(&trouble);
            io::Error::other(trouble.failure)
        })
    }
}

/// Writes to ssh.
#[derive(Debug)]
struct Writer(UnixStream);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_for_the_servers_shell() {
        assert_eq!(quoted("/srv/fleet.git"), "'/srv/fleet.git'");
        assert_eq!(quoted("it's;reboot"), r"'it'\''s;reboot'");
        assert_eq!(quoted("a!b"), r"'a'\!'b'");
        assert_eq!(quoted("~git/x'y"), r"~git/'x'\''y'");
        assert_eq!(quoted("~$(reboot)/x"), "'~$(reboot)/x'");
    }
}
