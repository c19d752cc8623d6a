//! What a poll costs that finds nothing new.

use std::fmt::Write;

use limpet::config::{Source, SourceUrl};

use crate::git_server::{Cost, GitServer};
use crate::setting::{LONG, Setting, http_source};

/// The cost of some polls without news of a repository that holds `refs` refs and `commits` commits.
fn polls(server: &GitServer, setting: &Setting, prefix: &str) -> Vec<Cost> {
    let url = format!("{}{prefix}/fleet.git", server.url);
    let source = Source {
        url: SourceUrl::Http(url.clone()),
        ..http_source(&url, Some(&server.ca_file))
    };
    let client = setting.fetcher(source, LONG);
    let tip = client.poll(None).unwrap().id;
    let before = server.costs().len();
    for _ in 0..3 {
        assert_eq!(client.poll(Some(tip)).unwrap().id, tip);
    }
    server.costs()[before..].to_vec()
}

#[test]
fn a_poll_without_news_is_one_small_post_however_large_the_repository() {
    let small = Setting::new();
    small.commit("main", "first", &[("a", "1")]);

    let large = Setting::new();
    for number in 0..300 {
        let text = number.to_string();
        large.commit("main", "more", &[("a", &text)]);
    }
    let tip = large.tip("main");
    let mut packed = String::from("# pack-refs with: peeled fully-peeled sorted \n");
    for number in 0..10_000 {
        writeln!(packed, "{tip} refs/heads/topic/{number:05}").unwrap();
    }
    for number in 0..1000 {
        writeln!(packed, "{tip} refs/tags/v{number:05}").unwrap();
    }
    std::fs::write(large.repository().join("packed-refs"), packed).unwrap();
    assert_eq!(large.git(&["for-each-ref"]).lines().count(), 11_001);

    let cost = |setting: &Setting| {
        let server = GitServer::start(&setting.repositories());
        let costs = polls(&server, setting, "");
        assert_eq!(costs.len(), 3, "one request a poll: {costs:?}");
        let connection = &costs[0].connection;
        assert!(
            costs
                .iter()
                .all(|it| it.connection == *connection && it.method == "POST"),
            "over one connection: {costs:?}"
        );
        let bytes: Vec<u64> = costs.iter().map(|it| it.received + it.sent).collect();
        println!("{} bytes up, {} down", costs[0].received, costs[0].sent);
        assert!(bytes.iter().all(|bytes| *bytes <= 700), "{costs:?}");
        bytes[0]
    };
    // The port is part of the request, and may have one digit more.
    assert!(cost(&small).abs_diff(cost(&large)) <= 2);
}

#[test]
fn a_server_that_keeps_no_connection_resumes_the_session() {
    let setting = Setting::new();
    setting.commit("main", "first", &[("a", "1")]);
    let server = GitServer::start(&setting.repositories());
    let costs = polls(&server, &setting, "/hasty");
    assert_eq!(costs.len(), 3, "{costs:?}");
    assert!(costs.iter().all(|it| it.is_resumed), "{costs:?}");
    assert_ne!(costs[0].connection, costs[1].connection);
}
