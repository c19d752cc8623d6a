//! Revisions that a machine is not well with: undone, whatever becomes of the agent, the boot or the network.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::fixture::machine::{Network, wait_until};
use crate::scene::{SOON, Scene, event};

/// A small web server that reads the status it answers with when it starts.
const SERVER: &str = r#"use IO::Socket::INET;
open my $conf, '<', '/etc/web.conf' or die;
chomp(my $status = <$conf>);
my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], Listen => 5, ReuseAddr => 1) or die;
while (my $client = $socket->accept) {
    while (my $line = <$client>) { last if $line =~ /^\r?$/ }
    print $client "HTTP/1.1 $status x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    close $client;
}
"#;

/// A layer with that server on `port`, which answers with `status`.
fn web(port: u16, status: &str) -> String {
    format!(
        r#"
[file."/usr/local/lib/web.pl"]
content = '''
{SERVER}'''

[file."/etc/web.conf"]
content = "{status}\n"

[unit."web.service"]
content = """
[Service]
ExecStart=/usr/bin/perl /usr/local/lib/web.pl {port}

[Install]
WantedBy=multi-user.target
"""
enabled = true
running = true
restart_on = ["file:/etc/web.conf"]

[health.web]
http   = "http://127.0.0.1:{port}/health"
within = "8s"
stable = "1s"

[health.unit]
unit   = "web.service"
"#
    )
}

/// A port of this computer, whose loopback the machine shares.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The status that the server answers with.
fn answer(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.split(' ').nth(1)?.to_owned())
}

#[track_caller]
fn is_rolled_back(scene: &Scene, to: &str, quarantined: Option<&str>) -> Value {
    let status = scene.status();
    assert_eq!(status["state"], "rolled-back", "{status:#}");
    assert_eq!(status["revision"], to, "{status:#}");
    let found = status["quarantined"][0]["revision"].as_str();
    assert_eq!(found, quarantined, "{status:#}");
    status
}

#[test]
fn a_web_service_that_a_push_breaks_is_put_right_with_its_restart_over_kills_and_boots() {
    let port = free_port();
    let scene = Scene::enrolled("web", &web(port, "200"));
    let machine = &scene.machine;
    let good = scene.head();
    assert_eq!(answer(port).as_deref(), Some("200"));
    let bad = scene.declare(&web(port, "503"));
    let sync = scene.sync();
    assert_eq!(sync.code(), 1, "{sync:?}");
    assert!(sync.stderr.contains("HTTP status 503"), "{sync:?}");
    is_rolled_back(&scene, &good, Some(&bad));
    assert_eq!(answer(port).as_deref(), Some("200"), "it was restarted");
    let told = scene.event(event::ROLLED_BACK);
    assert_eq!(told["LIMPET_REVISION"], good.as_str(), "{told:#}");
    let history = machine.sh("limpet history");
    assert!(
        history.contains("rolled-back") || history.contains("rolled back"),
        "{history}"
    );

    machine.kill("limpet.service");
    wait_until("the agent", SOON, || {
        machine.is_active("limpet.service").then_some(())
    });
    assert_eq!(scene.sync().code(), 1);
    is_rolled_back(&scene, &good, Some(&bad));
    machine.reboot(Network::Shared);
    wait_until("the service", SOON, || {
        answer(port).filter(|status| status == "200")
    });
    assert_eq!(scene.sync().code(), 1);
    is_rolled_back(&scene, &good, Some(&bad));

    let retry = machine.run(&["limpet", "sync", "--wait", "--retry"]);
    assert_eq!(retry.code(), 1, "it is as bad as before: {retry:?}");
    is_rolled_back(&scene, &good, Some(&bad));
    scene.apply(&web(port, "204"));
    assert_eq!(answer(port).as_deref(), Some("204"));

    let rollback = machine.run(&["limpet", "rollback", "--reason", "204 confuses the probe"]);
    assert_eq!(rollback.code(), 0, "{rollback:?}");
    is_rolled_back(&scene, &good, None);
    assert_eq!(answer(port).as_deref(), Some("200"));
    machine
        .run(&["limpet", "sync", "--wait", "--retry"])
        .success();
    assert_eq!(answer(port).as_deref(), Some("204"));
}

const OK: &str =
    "[health.ok]\ncommand = [\"test\", \"-e\", \"/run/ok\"]\nwithin = \"5s\"\nstable = \"0s\"\n";

#[test]
fn a_boot_undoes_only_what_never_passed() {
    let scene = Scene::prepared(
        "boot",
        &format!("{OK}\n[file.\"/etc/scene\"]\ncontent = \"one\\n\"\n"),
    );
    let machine = &scene.machine;
    machine.sh("touch /run/ok");
    scene.enroll().success();
    scene.converge();
    let one = scene.head();
    // It was well with it before, and is not after this boot.
    machine.reboot(Network::Shared);
    wait_until("a degraded host", SOON, || {
        (scene.status()["state"] == "degraded").then_some(())
    });
    let status = scene.status();
    assert_eq!(status["revision"], one.as_str(), "{status:#}");
    assert_eq!(machine.read_file("/etc/scene"), "one\n");
    machine.sh("touch /run/ok");
    scene.sync().success();
    assert_eq!(scene.status()["state"], "converged");

    // This one never passes, because the power goes first.
    let layer = format!(
        "{}\n[file.\"/etc/scene\"]\ncontent = \"two\\n\"\n",
        OK.replace("/run/ok", "/run/two").replace("5s", "20s")
    );
    let two = scene.declare(&layer);
    machine.sh("limpet sync");
    wait_until("the revision", SOON, || {
        (machine.read_file("/etc/scene") == "two\n").then_some(())
    });
    assert!(machine.exists("/var/lib/limpet/on-probation"));
    assert_eq!(scene.status()["state"], "applying");
    machine.unplug_and_boot(Network::Shared);
    wait_until("the rollback", Duration::from_secs(90), || {
        (scene.status()["state"] == "rolled-back").then_some(())
    });
    is_rolled_back(&scene, &one, Some(&two));
    assert_eq!(machine.read_file("/etc/scene"), "one\n");
    assert!(!machine.exists("/var/lib/limpet/on-probation"));
}

#[test]
fn a_revision_that_takes_the_agent_down_is_undone_all_the_same() {
    let scene = Scene::enrolled(
        "takes-down",
        "[file.\"/etc/scene\"]\ncontent = \"one\\n\"\n",
    );
    let machine = &scene.machine;
    let one = scene.head();
    machine.write_file(
        "/etc/systemd/system/limpet-probation.timer.d/soon.conf",
        "[Timer]\nOnActiveSec=\nOnActiveSec=8s\nOnUnitInactiveSec=5s\n",
    );
    machine.sh("systemctl daemon-reload");
    for is_gone in [false, true] {
        let text = format!("two {is_gone}\n");
        let bad = scene.declare(&format!(
            "[file.\"/etc/scene\"]\ncontent = \"two {is_gone}\\n\"\n\n[health.never]\ncommand = [\"false\"]\nwithin = \"6s\"\n"
        ));
        machine.sh("limpet sync");
        wait_until("the revision", SOON, || {
            (machine.read_file("/etc/scene") == text).then_some(())
        });
        if is_gone {
            machine.sh("systemctl mask --runtime --quiet limpet.service");
        }
        machine.kill("limpet.service");
        wait_until("the rollback", Duration::from_secs(90), || {
            (machine.read_file("/etc/scene") == "one\n").then_some(())
        });
        wait_until("its end", SOON, || {
            (!machine.exists("/var/lib/limpet/on-probation")).then_some(())
        });
        if is_gone {
            assert!(!machine.is_active("limpet.service"));
            wait_until("the other process", SOON, || {
                (!machine.is_active("limpet-probation.service")).then_some(())
            });
            machine.sh(
                "systemctl unmask --runtime --quiet limpet.service; systemctl start limpet.service",
            );
        }
        wait_until("the status", SOON, || {
            (scene.status()["state"] == "rolled-back").then_some(())
        });
        is_rolled_back(&scene, &one, Some(&bad));
        assert!(!machine.is_active("limpet-probation.timer"));
    }
}

#[test]
fn a_push_cuts_off_no_host() {
    let scene = Scene::enrolled("cut-off", "[file.\"/etc/scene\"]\ncontent = \"one\\n\"\n");
    let machine = &scene.machine;
    let one = scene.head();
    let hosts = "127.0.0.1 localhost\n";
    machine.write_file("/etc/hosts", hosts);
    let named = scene.url().replace("127.0.0.1", "localhost");
    machine.write_file(
        "/etc/limpet/limpet.toml.d/named.toml",
        format!("[source]\nurl = \"{named}\"\n"),
    );
    machine.sh("systemctl reload limpet.service");
    scene.sync().success();
    let layer = "[file.\"/etc/scene\"]\ncontent = \"two\\n\"\n\n[file.\"/etc/hosts\"]\ncontent = \"203.0.113.1 localhost\\n\"\n";
    let bad = scene.declare(layer);
    let sync = scene.sync();
    assert_eq!(sync.code(), 1, "{sync:?}");
    let status = is_rolled_back(&scene, &one, Some(&bad));
    let reason = status["quarantined"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("touches the resolver (file:/etc/hosts)"),
        "{reason}"
    );
    assert_eq!(machine.read_file("/etc/hosts"), hosts);
    assert_eq!(machine.read_file("/etc/scene"), "one\n");
    // The host is still reached.
    scene.apply("[file.\"/etc/scene\"]\ncontent = \"three\\n\"\n");
}

#[test]
fn a_server_that_dies_after_a_push_puts_no_blame_on_it() {
    let mut scene = Scene::enrolled("dies", "[file.\"/etc/scene\"]\ncontent = \"one\\n\"\n");
    let one = scene.head();
    // The file that touches the way comes last, and the server is gone by then.
    let two = scene.declare(
        "[file.\"/etc/scene\"]\ncontent = \"two\\n\"\n\n[health.source]\nsource = true\nwithin = \"10s\"\nstable = \"6s\"\n",
    );
    scene.machine.sh("limpet sync");
    wait_until("the revision", SOON, || {
        (scene.machine.read_file("/etc/scene") == "two\n").then_some(())
    });
    scene.server = None;
    wait_until("the rollback", Duration::from_secs(90), || {
        (scene.status()["state"] == "rolled-back").then_some(())
    });
    is_rolled_back(&scene, &one, None);
    scene.move_server();
    scene.sync().success();
    let status = scene.status();
    assert_eq!(status["state"], "converged", "{status:#}");
    assert_eq!(status["revision"], two.as_str(), "{status:#}");
}
