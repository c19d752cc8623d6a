//! What `ssh` means by its last words: it has one exit status for everything that goes wrong.

use super::attempt::{Attempt, no_address};
use super::remote::one_line;
use super::{Lane, Trouble};
use crate::config::SshAddress;
use crate::model::Class;

/// What the words are about, as hints name it.
#[derive(Debug)]
pub struct Address {
    host: String,
    port: Option<u16>,
    key: Option<String>,
    known_hosts: String,
}

impl Address {
    /// The server at `address`, to which the credential `key` is shown, and whose keys are in the file `known_hosts`.
    pub fn new(address: &SshAddress, key: Option<&str>, known_hosts: &str) -> Self {
        Address {
            host: address.host.clone(),
            port: address.port,
            key: key.map(str::to_owned),
            known_hosts: known_hosts.to_owned(),
        }
    }

    /// How known_hosts files call the server.
    fn known_name(&self) -> String {
        match self.port {
            Some(port) if port != 22 => format!("[{}]:{port}", self.host),
            _ => self.host.clone(),
        }
    }

    /// The command that adds the server's keys.
    fn scan(&self) -> String {
        let port = self
            .port
            .map_or(String::new(), |port| format!("-p {port} "));
        format!("'ssh-keyscan {port}{} >>{}'", self.host, self.known_hosts)
    }
}

/// The trouble that `words` (all that ssh and the server wrote to stderr) tell of; `None` when there are none.
pub fn explain(attempt: &Attempt, address: &Address, words: &str) -> Option<Trouble> {
    let has = |part: &str| words.contains(part);
    let denied = |cause: String, hint: String| {
        let trouble = attempt.trouble(Class::Host, cause);
        Some(trouble.with_hint(hint).in_lane(Lane::Denied))
    };
    let known_hosts = &address.known_hosts;
    if has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        return denied(
            "the server shows another host key than the one this host knows".to_owned(),
            format!(
                "somebody may be in between; if its owner says that the key is new, forget the old one with 'ssh-keygen -f {known_hosts} -R {}', then {} and compare the fingerprint that 'ssh-keygen -lf {known_hosts}' prints",
                address.known_name(),
                address.scan()
            ),
        );
    }
    if has("Host key verification failed") {
        return denied(
            "the server's host key is not known".to_owned(),
            format!(
                "run {} and compare the fingerprint that 'ssh-keygen -lf {known_hosts}' prints with the one its owner gives",
                address.scan()
            ),
        );
    }
    if let Some((_, cause)) = words.split_once("Load key ")
        && let Some(name) = &address.key
    {
        let cause = cause.split_once("\": ").map_or(cause, |(_, cause)| cause);
        let cause = one_line(cause.lines().next().unwrap_or_default());
        return denied(
            format!("credential '{name}' is no private key that ssh can use: {cause}"),
            "make one without a passphrase: 'ssh-keygen -t ed25519 -N \"\"'".to_owned(),
        );
    }
    if has("Permission denied (") {
        return match &address.key {
            Some(name) => denied(
                format!("the server does not accept the key of credential '{name}'"),
                "let the server's owner add its public half, as a deploy key that may only read"
                    .to_owned(),
            ),
            None => denied(
                "the server wants a key".to_owned(),
                "set source.ssh_key and load that credential in limpet-fetch.service".to_owned(),
            ),
        };
    }
    let is_no_repository = has("does not appear to be a git repository")
        || words.to_ascii_lowercase().contains("repository not found");
    if is_no_repository {
        return denied(
            "there is no such repository".to_owned(),
            "check source.url; some servers also say so to those who may not read it".to_owned(),
        );
    }
    if let Some((_, cause)) = words.split_once("Could not resolve hostname ") {
        let cause = cause.split_once(": ").map_or(cause, |(_, cause)| cause);
        return Some(no_address(attempt, &address.host, &one_line(cause)));
    }
    let text = one_line(words);
    if text.is_empty() {
        return None;
    }
    let trouble = attempt.trouble(Class::Transient, text);
    let is_offline = [
        "Network is unreachable",
        "No route to host",
        "Network is down",
    ]
    .into_iter()
    .any(has);
    Some(if is_offline {
        trouble.in_lane(Lane::Offline)
    } else {
        trouble
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceUrl;
    use crate::fetch::Limits;

    /// The words are OpenSSH 9.2's.
    fn check(key: Option<&str>, words: &str) -> String {
        let url = "ssh://git@git.example.net:2222/fleet.git";
        let SourceUrl::Ssh(address) = SourceUrl::parse(url).unwrap() else {
            panic!("an address over ssh");
        };
        let attempt = Attempt::new(url, Limits::DEFAULT);
        let address = Address::new(&address, key, "/etc/limpet/known_hosts");
        match explain(&attempt, &address, words) {
            None => "nothing".to_owned(),
            Some(trouble) => {
                let prefix = format!("failed to fetch from '{url}': ");
                let cause = trouble.failure.message.strip_prefix(&prefix).unwrap();
                let hint = trouble.failure.hint.as_deref().unwrap_or("none");
                format!("{:?}: {cause}\nhint: {hint}", trouble.lane)
            }
        }
    }

    #[test]
    fn what_a_person_must_do_is_said() {
        insta::assert_snapshot!(check(None, "No ED25519 host key is known for [git.example.net]:2222 and you have requested strict checking.\r\nHost key verification failed.\r\n"), @"
        Denied: the server's host key is not known
        hint: run 'ssh-keyscan -p 2222 git.example.net >>/etc/limpet/known_hosts' and compare the fingerprint that 'ssh-keygen -lf /etc/limpet/known_hosts' prints with the one its owner gives
        ");
        insta::assert_snapshot!(check(None, "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\nHost key verification failed.\r\n"), @"
        Denied: the server shows another host key than the one this host knows
        hint: somebody may be in between; if its owner says that the key is new, forget the old one with 'ssh-keygen -f /etc/limpet/known_hosts -R [git.example.net]:2222', then 'ssh-keyscan -p 2222 git.example.net >>/etc/limpet/known_hosts' and compare the fingerprint that 'ssh-keygen -lf /etc/limpet/known_hosts' prints
        ");
        insta::assert_snapshot!(check(None, "git@git.example.net: Permission denied (publickey).\r\n"), @"
        Denied: the server wants a key
        hint: set source.ssh_key and load that credential in limpet-fetch.service
        ");
        insta::assert_snapshot!(check(Some("git-ssh-key"), "git@git.example.net: Permission denied (publickey,password).\r\n"), @"
        Denied: the server does not accept the key of credential 'git-ssh-key'
        hint: let the server's owner add its public half, as a deploy key that may only read
        ");
        insta::assert_snapshot!(check(Some("git-ssh-key"), "Load key \"/proc/7/fd/9\": error in libcrypto\r\ngit@git.example.net: Permission denied (publickey).\r\n"), @r#"
        Denied: credential 'git-ssh-key' is no private key that ssh can use: error in libcrypto
        hint: make one without a passphrase: 'ssh-keygen -t ed25519 -N ""'
        "#);
        insta::assert_snapshot!(check(None, "fatal: '/fleet.git' does not appear to be a git repository\n"), @"
        Denied: there is no such repository
        hint: check source.url; some servers also say so to those who may not read it
        ");
    }

    #[test]
    fn a_missing_network_is_told_from_a_missing_server() {
        insta::assert_snapshot!(check(None, "ssh: Could not resolve hostname git.example.net: Temporary failure in name resolution\r\n"), @"
        Offline: found no address of 'git.example.net': Temporary failure in name resolution
        hint: check the name, and this host's DNS
        ");
        insta::assert_snapshot!(check(None, "ssh: Could not resolve hostname git.example.net: Name or service not known\r\n"), @"
        Ordinary: found no address of 'git.example.net': Name or service not known
        hint: check the name, and this host's DNS
        ");
        insta::assert_snapshot!(check(None, "ssh: connect to host git.example.net port 2222: No route to host\r\n"), @"
        Offline: ssh: connect to host git.example.net port 2222: No route to host
        hint: none
        ");
        insta::assert_snapshot!(check(None, "ssh: connect to host git.example.net port 2222: Connection refused\r\n"), @"
        Ordinary: ssh: connect to host git.example.net port 2222: Connection refused
        hint: none
        ");
        assert_eq!(check(None, "\r\n"), "nothing");
    }
}
