//! Sources behind a real proxy.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use limpet::config::Source;
use limpet::fetch::Lane;

use crate::git_server::GitServer;
use crate::setting::{LONG, Setting, http_source};
use crate::{read_all, show};

/// A running tinyproxy, stopped by process id when dropped.
struct Proxy {
    port: u16,
    program: Child,
    log: std::path::PathBuf,
}

impl Proxy {
    fn start(directory: &Path, lines: &str) -> Proxy {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let log = directory.join(format!("proxy-{port}.log"));
        let path = directory.join(format!("proxy-{port}.conf"));
        let configuration = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nLogLevel Connect\nLogFile \"{}\"\n{lines}",
            log.display()
        );
        std::fs::write(&path, configuration).unwrap();
        let program = Command::new("/usr/bin/tinyproxy")
            .arg("-d")
            .arg("-c")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tinyproxy is installed");
        crate::eventually("the proxy listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Proxy { port, program, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[test]
fn a_source_is_fetched_through_the_configured_proxy() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let server = GitServer::start(&setting.repositories());
    let proxy = Proxy::start(setting.directory.path(), "");
    for url in [&server.url, &server.http_url] {
        let source = Source {
            proxy: Some(format!("http://127.0.0.1:{}", proxy.port)),
            ..http_source(&format!("{url}/fleet.git"), Some(&server.ca_file))
        };
        let client = setting.fetcher(source, LONG);
        assert_eq!(client.poll(None).unwrap().id, first);
        assert_eq!(read_all(&client, first).unwrap(), 3);
    }
    let port = server.url.rsplit(':').next().unwrap();
    let log = proxy.log();
    assert!(log.contains(&format!("CONNECT 127.0.0.1:{port}")), "{log}");
}

#[test]
fn what_is_wrong_with_a_proxy_is_said() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let server = GitServer::start(&setting.repositories());
    let closed = Proxy::start(setting.directory.path(), "BasicAuth limpet s3cret\n");
    let picky = Proxy::start(setting.directory.path(), "ConnectPort 1\n");
    let poll = |proxy: &str| {
        let source = Source {
            proxy: Some(proxy.to_owned()),
            ..http_source(&format!("{}/fleet.git", server.url), Some(&server.ca_file))
        };
        setting.fetcher(source, LONG).poll(None)
    };
    let good = format!("http://limpet:s3cret@127.0.0.1:{}", closed.port);
    assert_eq!(poll(&good).unwrap().id, first);
    let check = |proxy: &str, lane| {
        let trouble = poll(proxy).unwrap_err();
        assert_eq!(trouble.lane, lane, "{trouble:?}");
        let ports = [closed.port, picky.port].map(|port| format!(":{port}'"));
        show(
            &trouble.failure,
            &[
                (&server.url, "URL"),
                (&ports[0], ":PORT'"),
                (&ports[1], ":PORT'"),
            ],
        )
    };
    insta::assert_snapshot!(check(&format!("http://127.0.0.1:{}", closed.port), Lane::Denied), @"
    Host: failed to fetch from 'URL/fleet.git': the proxy wants credentials (HTTP status 407) (through the proxy '127.0.0.1:PORT')
    hint: write them into https_proxy of limpet-fetch.service: http://user:password@host:port
    ");
    insta::assert_snapshot!(check(&format!("http://127.0.0.1:{}", picky.port), Lane::Denied), @"
    Host: failed to fetch from 'URL/fleet.git': no way through the proxy: proxy server responded 403/403 (through the proxy '127.0.0.1:PORT')
    hint: ask who runs the proxy to allow it
    ");
    insta::assert_snapshot!(check("http://127.0.0.1:1", Lane::Ordinary), @"
    Transient: failed to fetch from 'URL/fleet.git': Connection refused (os error 111) (through the proxy '127.0.0.1:1')
    hint: none
    ");
}
