//! The quick start of the README, typed on plain machines.
//!
//! The commands are taken from the README itself, so that the two cannot drift apart. A word after a fence's `sh` says where a block is
//! typed: `here` on the one machine of the first part, `laptop` and `host` in the second. What a reader replaces is replaced: the
//! Git server's name, and the commit.

use std::os::unix::fs::PermissionsExt;

use crate::fixture::git_server::GitServer;
use crate::fixture::machine::Machine;
use crate::fixture::package;

/// Who sits at the machine: not root, and may use sudo.
const USER: &str = "alice";

/// The blocks of the quick start that are typed at `place`, as one script.
fn typed_at(place: &str) -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"))
        .expect("the README is readable");
    let (_, section) = readme
        .split_once("\n## Quick start\n")
        .expect("the README has a quick start");
    let section = section.split("\n## ").next().unwrap_or(section);
    let mut script = String::new();
    for block in section.split("\n```").skip(1).step_by(2) {
        let (fence, commands) = block.split_once('\n').expect("a fence is a line");
        let mut words = fence.split(' ');
        assert_eq!(
            words.next(),
            Some("sh"),
            "a block that nobody types: {fence}"
        );
        if words.any(|word| word == place) {
            script += commands;
            script += "\n";
        }
    }
    assert!(!script.is_empty(), "nothing is typed at '{place}'");
    script
}

/// `script` as bash runs it with errors ending it, but for lines whose comment names the exit code they end with.
fn expecting_codes(script: &str) -> String {
    let line = |line: &str| match line.rsplit_once("exit code ") {
        Some((command, code)) if command.contains('#') => {
            let command = command.split('#').next().unwrap_or(command).trim_end();
            format!("code=0; {command} || code=$?; [ $code = {code} ]\n")
        }
        _ => format!("{line}\n"),
    };
    let lines: String = script.lines().map(line).collect();
    format!("set -euo pipefail\ncd ~\n{lines}")
}

/// A machine with a user who may use sudo, and the package file at home.
fn plain_machine(label: &str) -> Machine {
    let machine = Machine::start(label);
    machine.sh("apt-get -q update >/dev/null; DEBIAN_FRONTEND=noninteractive apt-get -q -y install sudo >/dev/null");
    machine.sh(&format!(
        "useradd --create-home --shell /bin/bash {USER}; echo '{USER} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{USER}"
    ));
    let package = std::fs::read(package::built()).expect("the package is readable");
    let name = concat!("limpet_", env!("CARGO_PKG_VERSION"), "_amd64.deb");
    machine.write_file(&format!("/home/{USER}/{name}"), package);
    machine.sh(&format!("chown -R {USER}: /home/{USER}"));
    machine
}

/// Types `script` at the machine and returns all that is shown; whatever asks is answered with yes.
#[track_caller]
fn typed(machine: &Machine, script: &str) -> String {
    let path = "/tmp/typed";
    machine.write_file(path, expecting_codes(script));
    // A login, as a person has one: USER and HOME, and a umask.
    machine.sh(&format!(
        "yes | runuser --login {USER} -c 'bash {path} 2>&1'"
    ))
}

#[test]
fn one_machine_is_run_from_a_repository_on_itself() {
    let machine = plain_machine("here");
    let shown = typed(&machine, &typed_at("here"));
    for expected in [
        "checked 1 host, 1 layer: no mistakes",
        "enrol this host?",
        "greeting.timer",
        "is kept by limpet, from the repository of the fleet fleet.",
        "has no signature",
    ] {
        assert!(shown.contains(expected), "'{expected}' in\n{shown}");
    }
    assert!(machine.read_file("/etc/motd").contains("is kept by limpet"));
    let status = machine.sh("limpet status --json");
    let status: serde_json::Value = serde_json::from_str(&status).expect("an object");
    assert_eq!(status["state"], "converged", "{status:#}");
    assert_eq!(status["subject"], "greet every hour");
}

#[test]
fn another_host_is_run_from_a_git_server() {
    let served = tempfile::tempdir().expect("a temporary directory can be made");
    let bare = served.path().join("fleet.git");
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output();
        assert!(output.expect("git is installed").status.success());
    };
    let path = bare.to_str().expect("temporary paths are text");
    git(&["init", "-q", "--bare", "-b", "main", path]);
    git(&["-C", path, "config", "http.receivepack", "true"]);
    std::fs::set_permissions(served.path(), PermissionsExt::from_mode(0o755)).expect("ours");
    let server = GitServer::start(served.path());
    let authority = std::fs::read(&server.ca_file).expect("the server has an authority");

    let (laptop, host) = (plain_machine("laptop"), plain_machine("host"));
    for machine in [&laptop, &host] {
        // As a public authority's certificate would be trusted.
        machine.write_file("/usr/local/share/ca-certificates/tests.crt", &authority);
        machine.sh("update-ca-certificates >/dev/null 2>&1");
    }
    let place = server.url.trim_start_matches("https://");
    let replaced = |script: &str| script.replace("git.example.net", place);

    let install = format!(
        "sudo apt install ./limpet_{}_amd64.deb git openssh-client\n",
        env!("CARGO_PKG_VERSION")
    );
    typed(&laptop, &(install + &replaced(&typed_at("laptop"))));
    let anchor = laptop.sh(&format!(
        "runuser -u {USER} -- git -C /home/{USER}/fleet rev-parse HEAD"
    ));
    let signers = laptop.read_file(&format!("/home/{USER}/fleet/allowed_signers"));
    host.write_file(&format!("/home/{USER}/allowed_signers"), signers);

    let script = replaced(&typed_at("host")).replace("COMMIT", anchor.trim());
    let shown = typed(&host, &script);
    assert!(shown.contains("enrol this host?"), "{shown}");
    assert!(host.read_file("/etc/motd").contains("is kept by limpet"));
    let status = host.sh("limpet status --json");
    let status: serde_json::Value = serde_json::from_str(&status).expect("an object");
    assert_eq!(status["state"], "converged", "{status:#}");
    assert_eq!(status["revision"], anchor.trim());
}
