//! What a child fetcher is told before its first request; one that systemd starts reads the host's configuration instead.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::Secrets;
use super::protocol::{invalid, read_line, unexpected, write_line};
use crate::config::{Follow, Source, SourceUrl};
use crate::model::{Class, Failure};

/// What a child is told before its first request: a socket-activated fetcher reads the host's configuration instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// As [`SourceUrl::parse`] reads it.
    url: String,
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tags: Option<String>,
    ca_file: Option<String>,
    token: Option<String>,
    username: Option<String>,
    ssh_key: Option<String>,
    known_hosts: String,
    proxy: Option<String>,
    /// The cache directory.
    pub cache: std::path::PathBuf,
    /// Credentials that no systemd hands over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Secrets>,
}

impl Start {
    /// The part of `source` that a fetcher needs, with the cache directory it shall use.
    pub fn new(source: &Source, cache: &std::path::Path, secrets: Option<Secrets>) -> Self {
        let text = |url: &SourceUrl| url.as_str().to_owned();
        Start {
            url: text(&source.url),
            mirrors: source.mirrors.iter().map(text).collect(),
            branch: match &source.follow {
                Follow::Branch(name) => Some(name.clone()),
                Follow::Releases(_) => None,
            },
            tags: match &source.follow {
                Follow::Branch(_) => None,
                Follow::Releases(wanted) => Some(wanted.to_string()),
            },
            ca_file: source.ca_file.clone(),
            token: source.token.clone(),
            username: source.username.clone(),
            ssh_key: source.ssh_key.clone(),
            known_hosts: source.known_hosts.clone(),
            proxy: source.proxy.clone(),
            cache: cache.to_owned(),
            secrets,
        }
    }

    fn follow(&self) -> Result<Follow, Failure> {
        let invalid =
            |cause: &str| Failure::new(Class::Bug, format!("invalid start line: {cause}"));
        match (&self.branch, &self.tags) {
            (Some(branch), None) => Ok(Follow::Branch(branch.clone())),
            (None, Some(tags)) => semver::VersionReq::parse(tags)
                .map(Follow::Releases)
                .map_err(|error| invalid(&error.to_string())),
            _ => Err(invalid("neither a branch nor tags, or both")),
        }
    }

    /// The source to serve. Its `path` and `interval` concern only the applier, and are empty.
    pub fn source(&self) -> Result<Source, Failure> {
        let mirrors = self.mirrors.iter().map(|url| SourceUrl::parse(url));
        Ok(Source {
            url: SourceUrl::parse(&self.url)?,
            mirrors: mirrors.collect::<Result<_, _>>()?,
            follow: self.follow()?,
            path: String::new(),
            interval: std::time::Duration::ZERO,
            ca_file: self.ca_file.clone(),
            token: self.token.clone(),
            username: self.username.clone(),
            ssh_key: self.ssh_key.clone(),
            known_hosts: self.known_hosts.clone(),
            proxy: self.proxy.clone(),
        })
    }
}

/// Writes the line that starts a child.
pub fn write_start(out: &mut impl Write, start: &Start) -> io::Result<()> {
    let json = serde_json::to_string(start).map_err(io::Error::other)?;
    write_line(out, &format!("start {json}"))
}

/// Reads the line that starts a child.
pub fn read_start(input: &mut impl BufRead) -> io::Result<Start> {
    let mut line = Vec::new();
    let Some(line) = read_line(input, &mut line)? else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let json = line
        .strip_prefix("start ")
        .ok_or_else(|| unexpected("a start line", line))?;
    serde_json::from_str(json).map_err(|error| invalid(format!("invalid start line: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_child_learns_its_source() {
        let source = Source {
            url: SourceUrl::parse("https://git.example.net/fleet.git").unwrap(),
            mirrors: vec![SourceUrl::parse("git@mirror:fleet.git").unwrap()],
            follow: Follow::Branch("main".to_owned()),
            path: String::new(),
            interval: std::time::Duration::ZERO,
            ca_file: Some("/etc/limpet/ca.pem".to_owned()),
            token: Some("git-token".to_owned()),
            username: None,
            ssh_key: None,
            known_hosts: "/etc/limpet/known_hosts".to_owned(),
            proxy: None,
        };
        let start = Start::new(&source, Path::new("/var/cache/limpet"), None);
        let mut wire = Vec::new();
        write_start(&mut wire, &start).unwrap();
        let read = read_start(&mut Cursor::new(wire)).unwrap();
        assert_eq!(read, start);
        assert_eq!(read.source().unwrap(), source);
    }
}
