//! Polls of a real Git server.

use std::path::Path;

use limpet::config::Source;
use limpet::fetch::Client;
use limpet::git::{ObjectError, Objects};

use crate::git_server::{GitServer, TOKEN};
use crate::setting::{LONG, Setting, http_source};
use crate::{read_all, show};

fn serve(setting: &Setting) -> (GitServer, Source) {
    let server = GitServer::start(&setting.repositories());
    let source = http_source(&format!("{}/fleet.git", server.url), Some(&server.ca_file));
    (server, source)
}

fn with_url(source: &Source, url: String) -> Source {
    Source {
        url: limpet::config::SourceUrl::Http(url),
        ..source.clone()
    }
}

#[test]
fn a_clone_an_idle_poll_and_an_increment() {
    let setting = Setting::new();
    let text = "x".repeat(1000);
    let files: Vec<(String, String)> = (0..200)
        .map(|number| (format!("layers/a/{number}.toml"), format!("{number}{text}")))
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (&**a, &**b)).collect();
    let first = setting.commit("main", "first", &files);
    let (server, source) = serve(&setting);
    let client = setting.fetcher(source, LONG);

    assert_eq!(client.poll(None).unwrap().id, first);
    assert_eq!(read_all(&client, first).unwrap(), 1 + 3 + 200);

    let before = server.requests().len();
    assert_eq!(client.poll(Some(first)).unwrap().id, first);
    let idle = server.requests()[before..].to_vec();
    assert_eq!(
        idle.len(),
        1,
        "a poll without news is one request: {idle:?}"
    );
    assert!(
        idle[0].starts_with("POST /fleet.git/git-upload-pack 200"),
        "{idle:?}"
    );

    let second = setting.commit("main", "second", &[("fleet.toml", "format = 1\n")]);
    let before = server.requests().len();
    assert_eq!(client.poll(Some(first)).unwrap().id, second);
    assert_eq!(read_all(&client, second).unwrap(), 1 + 3 + 201);
    let increment = server.requests()[before..].to_vec();
    let bytes: usize = increment
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert!(
        bytes < 4000,
        "only what is new is transferred: {increment:?}"
    );
}

#[test]
fn a_restarted_fetcher_goes_on_from_its_cache() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let (server, source) = serve(&setting);
    assert_eq!(
        setting.fetcher(source.clone(), LONG).poll(None).unwrap().id,
        first
    );
    let before = server.requests().len();
    let client = setting.fetcher(source, LONG);
    assert_eq!(read_all(&client, first).unwrap(), 3);
    assert_eq!(client.poll(None).unwrap().id, first);
    assert_eq!(server.requests().len(), before + 1);
}

#[test]
fn a_rewritten_branch_is_followed_and_the_trusted_commit_stays() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let second = setting.commit("main", "second", &[("a", "2")]);
    let (_server, source) = serve(&setting);
    let client = setting.fetcher(source.clone(), LONG);
    assert_eq!(client.poll(None).unwrap().id, second);

    setting.git(&["update-ref", "refs/heads/main", &first.to_string()]);
    assert_eq!(client.poll(Some(second)).unwrap().id, first);
    assert!(client.get(&second).is_ok(), "the cache keeps what it had");

    setting.git(&["update-ref", "-d", "refs/heads/main"]);
    let other = setting.commit("main", "rewritten", &[("b", "1")]);
    assert_eq!(client.poll(Some(second)).unwrap().id, other);
    assert_eq!(read_all(&client, other).unwrap(), 3);

    // Without its cache it can still bring what the branch has lost, so that behind is told from diverged.
    setting.git(&["update-ref", "refs/heads/kept", &second.to_string()]);
    std::fs::remove_dir_all(setting.cache()).unwrap();
    let client = setting.fetcher(source, LONG);
    assert_eq!(client.poll(Some(second)).unwrap().id, other);
    assert_eq!(read_all(&client, second).unwrap(), 3);
}

#[test]
fn exactly_the_configured_branch_is_fetched() {
    let setting = Setting::new();
    let main2 = setting.commit("main2", "other", &[("a", "other")]);
    setting.git(&["tag", "v1", "refs/heads/main2"]);
    let (server, source) = serve(&setting);
    let client = setting.fetcher(source, LONG);
    let failure = client.poll(None).unwrap_err().failure;
    insta::assert_snapshot!(show(&failure, &[(&server.url, "URL")]), @"
    Host: found no branch 'main' at 'URL/fleet.git'
    hint: check source.branch
    ");

    let main = setting.commit("main", "ours", &[("a", "ours")]);
    assert_eq!(client.poll(None).unwrap().id, main);
    assert_eq!(client.get(&main2), Err(ObjectError::Missing(main2)));

    setting.git(&["update-ref", "-d", "refs/heads/main"]);
    assert!(client.poll(None).is_err());
    assert_eq!(
        read_all(&client, main).unwrap(),
        3,
        "what was fetched stays served"
    );
}

#[test]
fn an_empty_repository_has_no_branch_yet() {
    let setting = Setting::new();
    let (_server, source) = serve(&setting);
    let client = setting.fetcher(source, LONG);
    let failure = client.poll(None).unwrap_err().failure;
    assert!(
        failure.message.starts_with("found no branch 'main'"),
        "{failure}"
    );
}

#[test]
fn a_sha256_repository_is_fetched_and_a_changed_format_is_followed() {
    let setting = Setting::with_format("sha256");
    let first = setting.commit("main", "first", &[("a", "1")]);
    let (_server, source) = serve(&setting);
    let client = setting.fetcher(source, LONG);
    assert_eq!(client.poll(None).unwrap().id, first);
    assert_eq!(read_all(&client, first).unwrap(), 3);
    let second = setting.commit("main", "second", &[("a", "2")]);
    assert_eq!(client.poll(Some(first)).unwrap().id, second);

    std::fs::remove_dir_all(setting.repository()).unwrap();
    setting.run(
        setting.directory.path(),
        &["init", "-q", "--bare", "-b", "main", "repos/fleet.git"],
    );
    let sha1 = setting.commit("main", "anew", &[("a", "3")]);
    assert_eq!(client.poll(None).unwrap().id, sha1);
    assert_eq!(read_all(&client, sha1).unwrap(), 3);
}

#[test]
fn a_server_of_the_old_protocol_works_too() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let (server, source) = serve(&setting);
    let source = with_url(&source, format!("{}/old/fleet.git", server.url));
    let client = setting.fetcher(source, LONG);
    assert_eq!(client.poll(None).unwrap().id, first);
    let second = setting.commit("main", "second", &[("a", "2")]);
    assert_eq!(client.poll(Some(first)).unwrap().id, second);
    assert_eq!(client.poll(Some(second)).unwrap().id, second);
    assert_eq!(read_all(&client, second).unwrap(), 3);
}

#[test]
fn plain_http_works_without_a_token_and_is_refused_with_one() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let (server, source) = serve(&setting);
    let mut source = with_url(&source, format!("{}/fleet.git", server.http_url));
    assert_eq!(
        setting.fetcher(source.clone(), LONG).poll(None).unwrap().id,
        first
    );

    source.token = Some("git-token".to_owned());
    let before = server.requests().len();
    let failure = setting
        .fetcher(source, LONG)
        .poll(None)
        .unwrap_err()
        .failure;
    insta::assert_snapshot!(show(&failure, &[(&server.http_url, "HTTP")]), @"
    Config: refused to send credential 'git-token' to 'HTTP/fleet.git' in clear text
    hint: use an https:// address, or remove source.token
    ");
    assert_eq!(server.requests().len(), before);
}

#[test]
fn an_unknown_authority_is_refused() {
    let setting = Setting::new();
    setting.commit("main", "first", &[("a", "1")]);
    let (server, source) = serve(&setting);
    let other = GitServer::start(&setting.repositories());
    let check = |ca_file: &Path| {
        let source = Source {
            ca_file: Some(ca_file.to_str().unwrap().to_owned()),
            ..source.clone()
        };
        let failure = setting
            .fetcher(source, LONG)
            .poll(None)
            .unwrap_err()
            .failure;
        let directory = setting.directory.path().to_str().unwrap();
        show(&failure, &[(&server.url, "URL"), (directory, "DIR")])
    };
    insta::assert_snapshot!(check(&other.ca_file), @"
    Host: failed to fetch from 'URL/fleet.git': its certificate is from an authority that this host does not trust
    hint: set source.ca_file to the authority's certificate
    ");
    insta::assert_snapshot!(check(&setting.directory.path().join("none.pem")), @"
    Host: failed to read ca_file 'DIR/none.pem': No such file or directory (os error 2)
    hint: it must be PEM, and readable by user limpet
    ");
    std::fs::write(setting.directory.path().join("empty.pem"), "nothing\n").unwrap();
    insta::assert_snapshot!(check(&setting.directory.path().join("empty.pem")), @"
    Host: failed to read ca_file 'DIR/empty.pem': it holds no certificate
    hint: it must be PEM, and readable by user limpet
    ");
}

#[test]
fn a_token_opens_a_private_repository() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let (server, source) = serve(&setting);
    let private = with_url(&source, format!("{}/private/fleet.git", server.url));
    let credentials = setting.directory.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let poll = |token: Option<&str>, username: Option<&str>| {
        if let Some(token) = token {
            std::fs::write(credentials.join("git-token"), token).unwrap();
        }
        let source = Source {
            token: token.map(|_| "git-token".to_owned()),
            username: username.map(str::to_owned),
            ..private.clone()
        };
        // Before it starts: it makes its cache at once.
        let _ = std::fs::remove_dir_all(setting.cache());
        let client: Client =
            setting.fetcher_with_credentials(source, LONG, Some(credentials.clone()));
        client
            .poll(None)
            .map_err(|trouble| show(&trouble.failure, &[(&server.url, "URL")]))
    };
    assert_eq!(poll(Some(TOKEN), None).unwrap().id, first);
    assert_eq!(poll(Some(TOKEN), Some("oauth2")).unwrap().id, first);
    insta::assert_snapshot!(poll(None, None).unwrap_err(), @"
    Host: failed to fetch from 'URL/private/fleet.git': the server wants credentials (HTTP status 401)
    hint: set source.token and load that credential in limpet-fetch.service
    ");
    insta::assert_snapshot!(poll(Some("wrong"), None).unwrap_err(), @"
    Host: failed to fetch from 'URL/private/fleet.git': the server does not accept the credentials (HTTP status 401)
    hint: renew the credential 'git-token' of limpet-fetch.service
    ");
}

#[test]
fn redirects_are_followed_only_within_the_server() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let (server, source) = serve(&setting);
    let poll = |prefix: &str| {
        let source = with_url(&source, format!("{}/{prefix}/fleet.git", server.url));
        let client = setting.fetcher(source, LONG);
        let tip = client.poll(None).map_err(|trouble| {
            let port = server.url.rsplit(':').next().unwrap();
            let http_port = server.http_url.rsplit(':').next().unwrap();
            show(
                &trouble.failure,
                &[(port, "PORT"), (http_port, "HTTP_PORT")],
            )
        })?;
        read_all(&client, tip.id).unwrap();
        Ok::<_, String>(tip.id)
    };
    assert_eq!(poll("moved"), Ok(first));
    insta::assert_snapshot!(poll("away").unwrap_err(), @"
    Host: failed to fetch from 'https://127.0.0.1:PORT/away/fleet.git': refused a redirect to 'https://localhost:PORT/fleet.git/info/refs?service=git-upload-pack': it leads to another server
    hint: configure the repository's final address
    ");
    insta::assert_snapshot!(poll("plain").unwrap_err(), @"
    Host: failed to fetch from 'https://127.0.0.1:PORT/plain/fleet.git': refused a redirect to 'http://127.0.0.1:HTTP_PORT/fleet.git/info/refs?service=git-upload-pack': it leaves https
    hint: configure the repository's final address
    ");
    insta::assert_snapshot!(poll("round").unwrap_err(), @"
    Host: failed to fetch from 'https://127.0.0.1:PORT/round/fleet.git': more than 5 redirects
    hint: none
    ");
}

#[test]
fn what_is_not_there_is_said() {
    let setting = Setting::new();
    let (server, source) = serve(&setting);
    let source = with_url(&source, format!("{}/other.git", server.url));
    let client = setting.fetcher(source, LONG);
    let failure = client.poll(None).unwrap_err().failure;
    insta::assert_snapshot!(show(&failure, &[(&server.url, "URL")]), @"
    Host: failed to fetch from 'URL/other.git': there is no such repository (HTTP status 404)
    hint: check source.url; some servers also say so to those who may not read it
    ");
    let id = gix::ObjectId::empty_blob(gix::hash::Kind::Sha1);
    let error = client.get(&id).unwrap_err().to_string();
    insta::assert_snapshot!(error.replace(&server.url, "URL"), @"nothing is fetched from 'URL/other.git' yet");
}

#[test]
fn a_shallow_server_is_refused() {
    let setting = Setting::new();
    setting.commit("main", "first", &[("a", "1")]);
    let second = setting.commit("main", "second", &[("a", "2")]);
    std::fs::write(setting.repository().join("shallow"), format!("{second}\n")).unwrap();
    let (server, source) = serve(&setting);
    let failure = setting
        .fetcher(source, LONG)
        .poll(None)
        .unwrap_err()
        .failure;
    insta::assert_snapshot!(show(&failure, &[(&server.url, "URL")]), @"
    Host: failed to fetch from 'URL/fleet.git': the server's repository is shallow: its history is not complete
    hint: 'git fetch --unshallow' on the server completes it
    ");
}

#[test]
fn a_large_file_does_not_fit_and_nothing_of_it_stays() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let (server, source) = serve(&setting);
    let client = setting.fetcher(source, LONG);
    assert_eq!(client.poll(None).unwrap().id, first);
    setting.commit("main", "large", &[("large", &"x".repeat(65 << 20))]);
    let failure = client.poll(None).unwrap_err().failure;
    insta::assert_snapshot!(show(&failure, &[(&server.url, "URL")]), @"
    Host: failed to fetch from 'URL/fleet.git': the branch's history holds a file of more than 64 MiB
    hint: remove it from the branch's history
    ");
    assert_eq!(read_all(&client, first).unwrap(), 3);
    let packs = glob::glob(&format!(
        "{}/*/objects/pack/*tmp*",
        setting.cache().display()
    ));
    assert_eq!(packs.unwrap().count(), 0);
}

#[test]
fn a_damaged_cache_is_noticed_and_fetched_anew() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", &"text\n".repeat(1000))]);
    let (_server, source) = serve(&setting);
    let client = setting.fetcher(source.clone(), LONG);
    assert_eq!(client.poll(None).unwrap().id, first);
    drop(client);

    let pattern = format!("{}/*/objects/pack/*.pack", setting.cache().display());
    let pack = glob::glob(&pattern).unwrap().next().unwrap().unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    // Behind the pack's header, so that objects are hit and the file still opens.
    for byte in &mut bytes[12..60] {
        *byte ^= 0x55;
    }
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    let client = setting.fetcher(source.clone(), LONG);
    assert!(matches!(
        read_all(&client, first),
        Err(ObjectError::Unavailable(_))
    ));
    assert_eq!(client.poll(None).unwrap().id, first);
    assert_eq!(read_all(&client, first).unwrap(), 3);

    // What is no repository any more is no reason to give up either.
    for entry in std::fs::read_dir(setting.cache()).unwrap().flatten() {
        let _ = std::fs::remove_file(entry.path().join("HEAD"));
    }
    let client = setting.fetcher(source, LONG);
    assert_eq!(client.poll(None).unwrap().id, first);
    assert_eq!(read_all(&client, first).unwrap(), 3);
}

#[test]
fn an_object_that_vanished_is_fetched_anew() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let (_server, source) = serve(&setting);
    let client = setting.fetcher(source.clone(), LONG);
    client.poll(None).unwrap();
    let second = setting.commit("main", "second", &[("a", "2")]);
    client.poll(None).unwrap();
    let pattern = format!("{}/*/objects/pack/*.idx", setting.cache().display());
    for index in glob::glob(&pattern).unwrap().flatten() {
        let bytes = std::fs::read(&index).unwrap();
        if !bytes.windows(20).any(|window| window == second.as_bytes()) {
            std::fs::remove_file(index.with_extension("pack")).unwrap();
            std::fs::remove_file(index).unwrap();
        }
    }
    let client = setting.fetcher(source, LONG);
    assert_eq!(client.poll(None).unwrap().id, second);
    assert_eq!(client.get(&first), Err(ObjectError::Missing(first)));
    assert_eq!(client.poll(None).unwrap().id, second);
    assert_eq!(read_all(&client, first).unwrap(), 3);
}

#[test]
fn what_a_killed_fetch_left_behind_is_swept() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let (_server, source) = serve(&setting);
    let client = setting.fetcher(source, LONG);
    client.poll(None).unwrap();
    let pattern = format!("{}/*.git", setting.cache().display());
    let cache = glob::glob(&pattern).unwrap().next().unwrap().unwrap();
    let leftovers = [
        cache.join("objects/pack/.tmpAbC"),
        cache.join("refs/limpet/tip.lock"),
        cache.with_extension("git.new").join("HEAD"),
    ];
    for path in &leftovers {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "half").unwrap();
    }
    let second = setting.commit("main", "second", &[("a", "2")]);
    assert_eq!(client.poll(Some(first)).unwrap().id, second);
    for path in &leftovers {
        assert!(!path.exists(), "{}", path.display());
    }
}

#[test]
fn an_overgrown_cache_is_fetched_anew_as_one_pack() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let (_server, source) = serve(&setting);
    let limits = limpet::fetch::Limits {
        bytes: 1 << 20,
        ..LONG
    };
    let client = setting.fetcher(source, limits);
    client.poll(None).unwrap();
    let pattern = format!("{}/*.git/objects/pack", setting.cache().display());
    let packs = || glob::glob(&pattern).unwrap().next().unwrap().unwrap();
    let count = || std::fs::read_dir(packs()).unwrap().count();
    let one = count();

    // As many packs as some hundred fetches leave behind.
    for number in 0..200 {
        std::fs::write(packs().join(format!("pack-{number}.pack")), "").unwrap();
    }
    assert_eq!(client.poll(Some(first)).unwrap().id, first);
    assert_eq!(count(), one);
    assert_eq!(read_all(&client, first).unwrap(), 3);

    // A few that are large.
    std::fs::write(packs().join("pack-large.pack"), vec![0; 3 << 20]).unwrap();
    assert_eq!(client.poll(Some(first)).unwrap().id, first);
    assert_eq!(count(), one);
    assert_eq!(read_all(&client, first).unwrap(), 3);
}

#[test]
fn a_cache_that_was_cut_short_is_fetched_anew() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", &"text\n".repeat(1000))]);
    let (_server, source) = serve(&setting);
    setting.fetcher(source.clone(), LONG).poll(None).unwrap();
    for extension in ["pack", "idx"] {
        let pattern = format!("{}/*/objects/pack/*.{extension}", setting.cache().display());
        let path = glob::glob(&pattern).unwrap().next().unwrap().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let client = setting.fetcher(source.clone(), LONG);
        // Where the damage is only seen when an object is read, the poll after that heals it.
        let _ = client.poll(None);
        let _ = read_all(&client, first);
        assert_eq!(client.poll(None).unwrap().id, first, "{extension}");
        assert_eq!(read_all(&client, first).unwrap(), 3, "{extension}");
    }
}

#[test]
fn many_objects_are_handed_out() {
    let setting = Setting::new();
    let files: Vec<(String, String)> = (0..10_000)
        .map(|number| {
            (
                format!("d{}/{number}", number % 100),
                format!("content {number}"),
            )
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (&**a, &**b)).collect();
    let first = setting.commit("main", "first", &files);
    let (_server, source) = serve(&setting);
    let client = setting.fetcher(source, LONG);
    client.poll(None).unwrap();
    let start = std::time::Instant::now();
    assert_eq!(read_all(&client, first).unwrap(), 1 + 1 + 100 + 10_000);
    println!("10,102 objects in {:?}", start.elapsed());
}
