//! Repositories to fetch from, and a fetcher to fetch with.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use limpet::config::{Follow, Source, SourceUrl};
use limpet::fetch::{self, Client, Limits};
use limpet::git::ObjectId;
use tempfile::TempDir;

/// A directory for one test, with a repository `fleet.git` in it.
pub struct Setting {
    pub directory: TempDir,
}

impl Setting {
    /// With an empty bare repository.
    pub fn new() -> Self {
        Self::with_format("sha1")
    }

    pub fn with_format(format: &str) -> Self {
        let setting = Setting {
            directory: tempfile::tempdir().unwrap(),
        };
        let format = format!("--object-format={format}");
        setting.run(
            setting.directory.path(),
            &[
                "init",
                "-q",
                "--bare",
                "-b",
                "main",
                &format,
                "repos/fleet.git",
            ],
        );
        setting
    }

    /// The directory a server serves.
    pub fn repositories(&self) -> PathBuf {
        self.directory.path().join("repos")
    }

    pub fn repository(&self) -> PathBuf {
        self.repositories().join("fleet.git")
    }

    pub fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    /// Runs git in the repository.
    pub fn git(&self, arguments: &[&str]) -> String {
        self.run(&self.repository(), arguments)
    }

    /// Runs git with nobody's configuration.
    pub fn run(&self, directory: &Path, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.directory.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "A")
            .env("GIT_AUTHOR_EMAIL", "a@example.net")
            .env("GIT_COMMITTER_NAME", "A")
            .env("GIT_COMMITTER_EMAIL", "a@example.net")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits `files` on top of `branch`, beside what is there, and returns the commit.
    pub fn commit(&self, branch: &str, message: &str, files: &[(&str, &str)]) -> ObjectId {
        use std::fmt::Write;
        let mut stream = format!(
            "commit refs/heads/{branch}\ncommitter A <a@example.net> 1700000000 +0000\ndata {}\n{message}\n",
            message.len()
        );
        let full = format!("refs/heads/{branch}");
        if !self.git(&["for-each-ref", &full]).is_empty() {
            writeln!(stream, "from {full}^0").unwrap();
        }
        for (name, text) in files {
            write!(
                stream,
                "M 100644 inline {name}\ndata {}\n{text}\n",
                text.len()
            )
            .unwrap();
        }
        let path = self.directory.path().join("stream");
        std::fs::write(&path, stream).unwrap();
        let script = format!("git fast-import --quiet --force < '{}'", path.display());
        let alias = format!("alias.import=!{script}");
        self.git(&["-c", &alias, "import"]);
        self.tip(branch)
    }

    pub fn tip(&self, branch: &str) -> ObjectId {
        let full = format!("refs/heads/{branch}");
        self.git(&["rev-parse", &full]).parse().unwrap()
    }

    /// A client of a new fetcher, which serves `source` from a thread of its own.
    pub fn fetcher(&self, source: Source, limits: Limits) -> Client {
        self.fetcher_with_credentials(source, limits, None)
    }

    pub fn fetcher_with_credentials(
        &self,
        source: Source,
        limits: Limits,
        credentials: Option<PathBuf>,
    ) -> Client {
        let path = self.directory.path().join("fetch.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let cache = self.cache();
        std::thread::spawn(move || fetch::serve(&source, &cache, credentials, &listener, limits));
        Client::connect(&path).unwrap()
    }
}

/// A source over HTTP.
pub fn http_source(url: &str, ca_file: Option<&Path>) -> Source {
    Source {
        url: SourceUrl::Http(url.to_owned()),
        mirrors: Vec::new(),
        follow: Follow::Branch("main".to_owned()),
        path: String::new(),
        interval: Duration::from_secs(10),
        ca_file: ca_file.map(|path| path.to_str().unwrap().to_owned()),
        token: None,
        username: None,
        ssh_key: None,
        known_hosts: limpet::config::KNOWN_HOSTS.to_owned(),
        proxy: None,
    }
}

/// A source at any address.
pub fn source_at(url: &str) -> Source {
    Source {
        url: SourceUrl::parse(url).unwrap(),
        ..http_source("", None)
    }
}

/// A source on this machine.
pub fn local_source(path: &Path) -> Source {
    Source {
        url: SourceUrl::Path(path.to_str().unwrap().to_owned()),
        ..http_source("", None)
    }
}

/// Limits for servers that must work hard.
pub const LONG: Limits = Limits {
    total: Duration::from_secs(120),
    silence: Duration::from_secs(60),
    bytes: 256 << 20,
    objects: 1_000_000,
};

/// Limits that end a test quickly: only for servers that misbehave.
pub const SHORT: Limits = Limits {
    total: Duration::from_secs(3),
    silence: Duration::from_secs(1),
    bytes: 1 << 20,
    objects: 1000,
};
