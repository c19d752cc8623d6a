//! Addresses of repositories.

use super::SourceUrl;
use crate::model::{Class, Failure};

impl SourceUrl {
    /// Reads `https://…`, `http://…`, `file://…` or an absolute path.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |message: String| Err(Failure::new(Class::Config, message));
        if text
            .chars()
            .any(|character| character.is_control() || character == ' ')
        {
            return wrong(format!(
                "'{}' is no address of a repository: it contains blanks or control characters",
                text.escape_debug()
            ));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return match path.strip_prefix("localhost").unwrap_or(path) {
                path if path.starts_with('/') => Ok(SourceUrl::Path(path.to_owned())),
                _ => {
                    wrong(format!("'{text}' names no absolute path")).map_err(|failure: Failure| {
                        failure.with_hint("write: file:///path/to/repository")
                    })
                }
            };
        }
        if text.starts_with('/') {
            return Ok(SourceUrl::Path(text.to_owned()));
        }
        if let Some(rest) = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
        {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
            if authority.is_empty() {
                return wrong(format!("'{text}' names no server"));
            }
            if authority.contains('@') {
                // The address is shown in logs and status; a secret in it is not repeated here.
                return wrong("the address of the repository contains credentials".to_owned())
                    .map_err(|failure: Failure| {
                        failure.with_hint(
                            "take them out, and name a systemd credential in source.token",
                        )
                    });
            }
            return Ok(SourceUrl::Http(text.to_owned()));
        }
        let is_ssh = text.starts_with("ssh://")
            || text
                .split_once(':')
                .is_some_and(|(server, path)| server.contains('@') && !path.starts_with("//"));
        if is_ssh {
            return wrong(format!(
                "'{text}': a source over ssh is not supported by limpet {}",
                env!("CARGO_PKG_VERSION")
            ))
            .map_err(|failure: Failure| {
                failure.with_hint("use https://, with source.token if it is private")
            });
        }
        wrong(format!("'{text}' is no address of a repository")).map_err(|failure: Failure| {
            failure.with_hint("write https://…, file:///… or an absolute path")
        })
    }
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
        check("file:///srv/fleet", path("/srv/fleet"));
        check("file://localhost/srv/fleet", path("/srv/fleet"));
        check("file://server/fleet", Err("no absolute path"));
        check("srv/fleet", Err("no address"));
        check("https:///x", Err("no server"));
        check("ssh://git@host/x", Err("over ssh is not supported"));
        check("git@host:x.git", Err("over ssh is not supported"));
        check("ftp://host/x", Err("no address"));
        check("https://a b/", Err("blanks"));
        check("", Err("no address"));
    }

    #[test]
    fn a_secret_in_an_address_is_refused_and_not_repeated() {
        let failure = SourceUrl::parse("https://user:hunter2@host/x").unwrap_err();
        assert!(!failure.to_string().contains("hunter2"));
    }
}
