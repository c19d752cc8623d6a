//! Addresses of repositories.

use super::{SourceUrl, SshAddress};
use crate::model::{Class, Failure};

impl SourceUrl {
    /// Reads `https://…`, `http://…`, `ssh://…`, `user@host:path`, `file://…` or an absolute path.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if text
            .chars()
            .any(|character| character.is_control() || character == ' ')
        {
            return Err(wrong(format!(
                "'{}' is no address of a repository: it contains blanks or control characters",
                text.escape_debug()
            )));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return match path.strip_prefix("localhost").unwrap_or(path) {
                path if path.starts_with('/') => Ok(SourceUrl::Path(path.to_owned())),
                _ => Err(wrong(format!("'{text}' names no absolute path"))
                    .with_hint("write: file:///path/to/repository")),
            };
        }
        if text.starts_with('/') {
            return Ok(SourceUrl::Path(text.to_owned()));
        }
        if let Some(rest) = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
        {
            return parse_http(text, rest);
        }
        if let Some(rest) = text.strip_prefix("ssh://") {
            return parse_ssh_url(text, rest).map(SourceUrl::Ssh);
        }
        if text.contains("://") {
            let scheme = text.split("://").next().unwrap_or_default();
            return Err(wrong(format!(
                "'{text}' is no address of a repository: '{scheme}://' is not supported"
            ))
            .with_hint(FORMS));
        }
        if let Some((server, path)) = text.split_once(':')
            && let Some((user, host)) = server.split_once('@')
        {
            return ssh_address(text, Some(user), host, None, path).map(SourceUrl::Ssh);
        }
        Err(wrong(format!("'{text}' is no address of a repository")).with_hint(FORMS))
    }

    /// The address as people write it; [`SourceUrl::parse`] reads it again.
    pub fn as_str(&self) -> &str {
        match self {
            SourceUrl::Http(text) | SourceUrl::Path(text) => text,
            SourceUrl::Ssh(address) => &address.text,
        }
    }

    /// Does a request to it go through TLS.
    pub fn is_https(&self) -> bool {
        matches!(self, SourceUrl::Http(url) if url.starts_with("https://"))
    }

    /// Whether the server that this address names is the server of `other`, so that a secret meant for the one may be shown to
    /// the other: the same protocol, the same host and port, over ssh also the same user. A path on this machine has no server.
    pub fn has_authority_of(&self, other: &SourceUrl) -> bool {
        match (self, other) {
            (SourceUrl::Http(ours), SourceUrl::Http(theirs)) => {
                http_authority(ours) == http_authority(theirs)
            }
            (SourceUrl::Ssh(ours), SourceUrl::Ssh(theirs)) => {
                ours.user == theirs.user
                    && ours.host.eq_ignore_ascii_case(&theirs.host)
                    && ours.port.unwrap_or(22) == theirs.port.unwrap_or(22)
            }
            _ => false,
        }
    }
}

const FORMS: &str =
    "write https://…, ssh://user@host/path, user@host:path, file:///… or an absolute path";

fn wrong(message: String) -> Failure {
    Failure::new(Class::Config, message)
}

fn parse_http(text: &str, rest: &str) -> Result<SourceUrl, Failure> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if authority.is_empty() {
        return Err(wrong(format!("'{text}' names no server")));
    }
    if authority.contains('@') {
        // The address is shown in logs and status; a secret in it is not repeated here.
        return Err(
            wrong("the address of the repository contains credentials".to_owned())
                .with_hint("take them out, and name a systemd credential in source.token"),
        );
    }
    Ok(SourceUrl::Http(text.to_owned()))
}

/// Scheme, host in lower case and port.
fn http_authority(url: &str) -> (bool, String, u16) {
    let is_https = url.starts_with("https://");
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let default = if is_https { 443 } else { 80 };
    // The last colon, and not one within the brackets of an IPv6 address.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(default)),
        _ => (authority, default),
    };
    (is_https, host.to_ascii_lowercase(), port)
}

fn parse_ssh_url(text: &str, rest: &str) -> Result<SshAddress, Failure> {
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (user, server) = match authority.rsplit_once('@') {
        Some((user, server)) => (Some(user), server),
        None => (None, authority),
    };
    if user.is_some_and(|user| user.contains(':')) {
        return Err(
            wrong("the address of the repository contains a password".to_owned())
                .with_hint("take it out, and name a systemd credential in source.ssh_key"),
        );
    }
    let (host, port) = match server.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, rest.strip_prefix(':').or(Some(rest))),
            None => (server, None),
        },
        None => match server.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (server, None),
        },
    };
    let port = match port {
        None => None,
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port != 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(port),
            _ => return Err(wrong(format!("'{text}': '{digits}' is no port"))),
        },
    };
    // git(1) decodes percent signs here and nowhere else; whoever needs one can say the path as it is.
    if path.contains('%') {
        return Err(
            wrong(format!("'{text}': percent signs are not decoded in a path"))
                .with_hint("write user@host:path with the path as it is on the server"),
        );
    }
    // `ssh://host/~user/x` is below a home.
    let path = match path.strip_prefix("/~") {
        Some(_) => &path[1..],
        None => path,
    };
    ssh_address(text, user, host, port, path)
}

/// What is handed to `ssh` must not be able to become an option, or another word of the command line on the server.
fn ssh_address(
    text: &str,
    user: Option<&str>,
    host: &str,
    port: Option<u16>,
    path: &str,
) -> Result<SshAddress, Failure> {
    let is_word = |word: &str, others: &[u8]| {
        !word.is_empty()
            && word.len() <= 255
            && !word.starts_with('-')
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
    };
    if !is_word(host, b"-._:") {
        return Err(wrong(format!("'{text}': '{host}' is no name of a server")).with_hint(FORMS));
    }
    if let Some(user) = user
        && !is_word(user, b"-._+")
    {
        return Err(wrong(format!("'{text}': '{user}' is no name of a user")).with_hint(FORMS));
    }
    if path.is_empty() || path == "/" || path.starts_with('-') {
        return Err(wrong(format!("'{text}' names no path on the server")).with_hint(FORMS));
    }
    Ok(SshAddress {
        text: text.to_owned(),
        user: user.map(str::to_owned),
        host: host.to_owned(),
        port,
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<SourceUrl, &str>) {
        let parsed = SourceUrl::parse(text);
        match expected {
            Ok(url) => assert_eq!(parsed, Ok(url)),
            Err(part) => {
                let message = parsed.unwrap_err().message;
                assert!(message.contains(part), "{message}");
            }
        }
    }

    #[test]
    fn an_address_is_of_a_server_or_an_absolute_path() {
        let http = |text: &str| Ok(SourceUrl::Http(text.to_owned()));
        let path = |text: &str| Ok(SourceUrl::Path(text.to_owned()));
        check(
            "https://git.example.net/fleet.git",
            http("https://git.example.net/fleet.git"),
        );
        check("http://127.0.0.1:8080/f", http("http://127.0.0.1:8080/f"));
        check("/srv/fleet", path("/srv/fleet"));
        check("/media/usb/fleet.bundle", path("/media/usb/fleet.bundle"));
        check("file:///srv/fleet", path("/srv/fleet"));
        check("file://localhost/srv/fleet", path("/srv/fleet"));
        check("file://server/fleet", Err("no absolute path"));
        check("srv/fleet", Err("no address"));
        check("https:///x", Err("no server"));
        check("git://host/x", Err("'git://' is not supported"));
        check("ftp://host/x", Err("no address"));
        check("https://a b/", Err("blanks"));
        check("", Err("no address"));
    }

    #[test]
    fn an_address_over_ssh_has_a_server_and_a_path() {
        let check = |text: &str| match SourceUrl::parse(text) {
            Ok(SourceUrl::Ssh(it)) => {
                assert_eq!(it.text, text);
                let user = it.user.as_deref().unwrap_or("-");
                let port = it.port.map_or("-".to_owned(), |port| port.to_string());
                format!("{user} {} {port} {}", it.host, it.path)
            }
            Ok(other) => format!("{other:?}"),
            Err(failure) => failure.message,
        };
        insta::assert_snapshot!(check("ssh://git@host/srv/fleet.git"), @"git host - /srv/fleet.git");
        insta::assert_snapshot!(check("ssh://host:2222/x"), @"- host 2222 /x");
        insta::assert_snapshot!(check("ssh://git@[2001:db8::1]:22/x"), @"git 2001:db8::1 22 /x");
        insta::assert_snapshot!(check("ssh://git@[::1]/x"), @"git ::1 - /x");
        insta::assert_snapshot!(check("ssh://git@host/~git/x"), @"git host - ~git/x");
        insta::assert_snapshot!(check("git@host:ops/fleet.git"), @"git host - ops/fleet.git");
        insta::assert_snapshot!(check("git@host:/srv/it's"), @"git host - /srv/it's");
        insta::assert_snapshot!(check("ssh://-oProxyCommand=x/y"), @"'ssh://-oProxyCommand=x/y': '-oProxyCommand=x' is no name of a server");
        insta::assert_snapshot!(check("ssh://-l@host/y"), @"'ssh://-l@host/y': '-l' is no name of a user");
        insta::assert_snapshot!(check("git@-host:x"), @"'git@-host:x': '-host' is no name of a server");
        insta::assert_snapshot!(check("git@host:-x"), @"'git@host:-x' names no path on the server");
        insta::assert_snapshot!(check("git@host:"), @"'git@host:' names no path on the server");
        insta::assert_snapshot!(check("ssh://host"), @"'ssh://host' names no path on the server");
        insta::assert_snapshot!(check("ssh://host:0/x"), @"'ssh://host:0/x': '0' is no port");
        insta::assert_snapshot!(check("ssh://[::1/x"), @"'ssh://[::1/x': '[::1' is no name of a server");
        insta::assert_snapshot!(check("ssh://host/a%20b"), @"'ssh://host/a%20b': percent signs are not decoded in a path");
        insta::assert_snapshot!(check("git@host:a\nb"), @r"'git@host:a\nb' is no address of a repository: it contains blanks or control characters");
    }

    #[test]
    fn a_secret_in_an_address_is_refused_and_not_repeated() {
        for text in ["https://user:hunter2@host/x", "ssh://user:hunter2@host/x"] {
            let failure = SourceUrl::parse(text).unwrap_err();
            assert!(!failure.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn an_authority_is_protocol_host_and_port() {
        let check = |ours: &str, theirs: &str| {
            let parse = |text| SourceUrl::parse(text).unwrap();
            parse(ours).has_authority_of(&parse(theirs))
        };
        assert!(check("https://a/x", "https://A:443/y"));
        assert!(check("https://[::1]/x", "https://[::1]:443/y"));
        assert!(!check("https://a/x", "http://a/x"));
        assert!(!check("https://a/x", "https://a:8443/x"));
        assert!(!check("https://a/x", "https://a.evil/x"));
        assert!(check("ssh://git@a/x", "git@a:y"));
        assert!(!check("ssh://git@a/x", "root@a:y"));
        assert!(!check("ssh://git@a/x", "ssh://git@a:2222/x"));
        assert!(!check("/srv/x", "/srv/x"));
    }
}
