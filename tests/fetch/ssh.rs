//! Polls of a real sshd.

use std::time::{Duration, Instant};

use limpet::config::Source;
use limpet::fetch::{Client, Lane};

use crate::setting::{LONG, SHORT, Setting, source_at};
use crate::ssh_server::SshServer;
use crate::{read_all, show};

/// What a host has of its own: known hosts and a credential.
fn source(setting: &Setting, server: &SshServer) -> Source {
    let known_hosts = setting.directory.path().join("known hosts");
    std::fs::write(&known_hosts, server.known_host()).unwrap();
    let credentials = setting.directory.path().join("credentials");
    std::fs::create_dir_all(&credentials).unwrap();
    // A mode that ssh would refuse, without the last line's end.
    std::fs::write(credentials.join("git-ssh-key"), server.key().trim_end()).unwrap();
    Source {
        ssh_key: Some("git-ssh-key".to_owned()),
        known_hosts: known_hosts.to_str().unwrap().to_owned(),
        ..source_at(&server.url(&setting.repository()))
    }
}

fn fetcher(setting: &Setting, source: Source) -> Client {
    let credentials = setting.directory.path().join("credentials");
    setting.fetcher_with_credentials(source, LONG, Some(credentials))
}

fn polls_and_follows(setting: &Setting, server: &SshServer) {
    let first = setting.commit("main", "first", &[("a", "1"), ("b/c", "2")]);
    setting.commit("main2", "other", &[("a", "other")]);
    let client = fetcher(setting, source(setting, server));
    assert_eq!(client.poll(None).unwrap().id, first);
    assert_eq!(read_all(&client, first).unwrap(), 1 + 2 + 2);
    assert_eq!(server.logins(), 1, "one session lists and fetches");

    assert_eq!(client.poll(Some(first)).unwrap().id, first);
    assert_eq!(server.logins(), 2);

    let second = setting.commit("main", "second", &[("a", "3")]);
    assert_eq!(client.poll(Some(first)).unwrap().id, second);
    assert_eq!(read_all(&client, second).unwrap(), 1 + 2 + 2);
    assert_eq!(server.logins(), 3);
    crate::eventually("all sessions end", || server.sessions() == 0);
}

#[test]
fn a_repository_over_ssh_is_polled_and_followed() {
    polls_and_follows(&Setting::new(), &SshServer::start());
}

#[test]
fn a_server_that_takes_no_word_of_the_version_works_too() {
    polls_and_follows(&Setting::new(), &SshServer::start_with(""));
}

#[test]
fn a_sha256_repository_over_ssh_is_followed() {
    polls_and_follows(&Setting::with_format("sha256"), &SshServer::start());
}

#[test]
fn a_trusted_commit_that_the_branch_lost_is_fetched_over_ssh() {
    let setting = Setting::new();
    let server = SshServer::start();
    let old = setting.commit("main", "old", &[("a", "1")]);
    setting.git(&["update-ref", "refs/heads/kept", &old.to_string()]);
    setting.git(&["update-ref", "-d", "refs/heads/main"]);
    let new = setting.commit("main", "new", &[("a", "2")]);
    let client = fetcher(&setting, source(&setting, &server));
    assert_eq!(client.poll(Some(old)).unwrap().id, new);
    assert_eq!(read_all(&client, old).unwrap(), 3);
}

#[test]
fn what_a_person_must_do_is_said_and_is_denied() {
    let setting = Setting::new();
    setting.commit("main", "first", &[("a", "1")]);
    let server = SshServer::start();
    let port = server.port.to_string();
    let directory = setting.directory.path().to_str().unwrap().to_owned();
    let good = source(&setting, &server);
    let check = |source: Source| {
        let trouble = fetcher(&setting, source).poll(None).unwrap_err();
        assert_eq!(trouble.lane, Lane::Denied, "{trouble:?}");
        show(
            &trouble.failure,
            &[(&port, "PORT"), (&directory, "DIR"), (&server.user, "USER")],
        )
    };
    insta::assert_snapshot!(check(Source { known_hosts: "/nowhere".to_owned(), ..good.clone() }), @"
    Host: failed to fetch from 'ssh://USER@127.0.0.1:PORTDIR/repos/fleet.git': the server's host key is not known
    hint: run 'ssh-keyscan -p PORT 127.0.0.1 >>/nowhere' and compare the fingerprint that 'ssh-keygen -lf /nowhere' prints with the one its owner gives
    ");
    std::fs::write(&good.known_hosts, server.wrong_host()).unwrap();
    insta::assert_snapshot!(check(good.clone()), @"
    Host: failed to fetch from 'ssh://USER@127.0.0.1:PORTDIR/repos/fleet.git': the server shows another host key than the one this host knows
    hint: somebody may be in between; if its owner says that the key is new, forget the old one with 'ssh-keygen -f DIR/known hosts -R [127.0.0.1]:PORT', then 'ssh-keyscan -p PORT 127.0.0.1 >>DIR/known hosts' and compare the fingerprint that 'ssh-keygen -lf DIR/known hosts' prints
    ");
    std::fs::write(&good.known_hosts, server.known_host()).unwrap();

    let credentials = setting.directory.path().join("credentials");
    std::fs::write(credentials.join("git-ssh-key"), server.stranger()).unwrap();
    insta::assert_snapshot!(check(good.clone()), @"
    Host: failed to fetch from 'ssh://USER@127.0.0.1:PORTDIR/repos/fleet.git': the server does not accept the key of credential 'git-ssh-key'
    hint: let the server's owner add its public half, as a deploy key that may only read
    ");
    std::fs::write(credentials.join("git-ssh-key"), "no key\n").unwrap();
    insta::assert_snapshot!(check(good.clone()), @r#"
    Host: failed to fetch from 'ssh://USER@127.0.0.1:PORTDIR/repos/fleet.git': credential 'git-ssh-key' is no private key that ssh can use: error in libcrypto
    hint: make one without a passphrase: 'ssh-keygen -t ed25519 -N ""'
    "#);
    std::fs::remove_file(credentials.join("git-ssh-key")).unwrap();
    insta::assert_snapshot!(check(good.clone()), @"
    Host: failed to read credential 'git-ssh-key': No such file or directory (os error 2)
    hint: add 'LoadCredential=git-ssh-key:/path/to/file' to limpet-fetch.service with 'systemctl edit'
    ");
    insta::assert_snapshot!(check(Source { ssh_key: None, ..good.clone() }), @"
    Host: failed to fetch from 'ssh://USER@127.0.0.1:PORTDIR/repos/fleet.git': the server wants a key
    hint: set source.ssh_key and load that credential in limpet-fetch.service
    ");
    std::fs::write(credentials.join("git-ssh-key"), server.key()).unwrap();
    insta::assert_snapshot!(check(Source {
        url: source_at(&server.url(&setting.directory.path().join("none.git"))).url,
        ..good
    }), @"
    Host: failed to fetch from 'ssh://USER@127.0.0.1:PORTDIR/none.git': there is no such repository
    hint: check source.url; some servers also say so to those who may not read it
    ");
}

#[test]
fn a_path_reaches_git_as_one_word() {
    let setting = Setting::new();
    setting.commit("main", "first", &[("a", "1")]);
    let server = SshServer::start();
    let mark = setting.directory.path().join("mark");
    let url = format!(
        "{}@127.0.0.1:/srv/x.git';touch${{IFS}}{};'",
        server.user,
        mark.display()
    );
    let source = Source {
        url: source_at(&format!(
            "ssh://{}@127.0.0.1:{}/x",
            server.user, server.port
        ))
        .url,
        ..source(&setting, &server)
    };
    let limpet::config::SourceUrl::Ssh(mut address) = source_at(&url).url else {
        panic!("an address over ssh");
    };
    address.port = Some(server.port);
    let source = Source {
        url: limpet::config::SourceUrl::Ssh(address),
        ..source
    };
    let trouble = fetcher(&setting, source).poll(None).unwrap_err();
    assert!(
        trouble.failure.message.contains("no such repository"),
        "{trouble:?}"
    );
    assert!(!mark.exists());
}

#[test]
fn a_server_that_says_nothing_is_given_up_and_ssh_ends() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (said, hears) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Read::read(&mut stream, &mut [0; 4096]).unwrap();
        // Ends when ssh hangs up.
        while std::io::Read::read(&mut stream, &mut [0; 4096]).is_ok_and(|count| count > 0) {}
        said.send(()).unwrap();
    });
    let setting = Setting::new();
    let source = source_at(&format!("ssh://git@127.0.0.1:{port}/x.git"));
    let start = Instant::now();
    let trouble = setting.fetcher(source, SHORT).poll(None).unwrap_err();
    insta::assert_snapshot!(show(&trouble.failure, &[(&port.to_string(), "PORT")]), @"
    Transient: failed to fetch from 'ssh://git@127.0.0.1:PORT/x.git': the server was silent for 1 s
    hint: none
    ");
    assert_eq!(trouble.lane, Lane::Ordinary);
    assert!(start.elapsed() < Duration::from_secs(10));
    hears.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn a_closed_port_is_ordinary_trouble() {
    let setting = Setting::new();
    let client = setting.fetcher(source_at("ssh://git@127.0.0.1:1/x.git"), SHORT);
    let trouble = client.poll(None).unwrap_err();
    insta::assert_snapshot!(show(&trouble.failure, &[]), @"
    Transient: failed to fetch from 'ssh://git@127.0.0.1:1/x.git': ssh: connect to host 127.0.0.1 port 1: Connection refused
    hint: none
    ");
    assert_eq!(trouble.lane, Lane::Ordinary);
}
