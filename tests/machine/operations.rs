//! The README's chapter on operations, typed on a machine and on the author's computer.
//!
//! What is shown there is what came back here: each block is typed line by line, and compared but for what differs from day to day
//! (ids, points in time, durations, ports). A line `…` in the README stands for any lines.

use std::path::Path;
use std::process::Command;

use crate::fixture::machine::{Machine, Output, output_of};
use crate::fixture::repository::Repository;
use crate::scene::Scene;

/// What the host shows at the beginning of a line.
const HOST: &str = "web-1# ";

/// What the author's computer shows.
const LAPTOP: &str = "laptop$ ";

/// A line of the README that stands for any lines.
const ANYTHING: &str = "…";

/// One command of the chapter, with what the chapter says came back.
#[derive(Debug)]
struct Step {
    prompt: &'static str,
    command: String,
    shown: Vec<String>,
}

/// The commands of the chapter, in order.
fn chapter() -> Vec<Step> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"))
        .expect("the README is readable");
    let (_, section) = readme
        .split_once("\n## Operations\n")
        .expect("the README has a chapter on operations");
    let section = section.split("\n## ").next().unwrap_or(section);
    let mut steps: Vec<Step> = Vec::new();
    for block in section.split("\n```").skip(1).step_by(2) {
        let (fence, lines) = block.split_once('\n').expect("a fence is a line");
        assert_eq!(fence, "console", "a block that nobody types");
        for line in lines.lines() {
            let prompt = [HOST, LAPTOP]
                .into_iter()
                .find(|prompt| line.starts_with(prompt));
            match (prompt, steps.last_mut()) {
                (Some(prompt), _) => steps.push(Step {
                    prompt,
                    command: line[prompt.len()..].to_owned(),
                    shown: Vec::new(),
                }),
                (None, Some(step)) => step.shown.push(line.to_owned()),
                (None, None) => panic!("the chapter begins with what nobody typed: {line}"),
            }
        }
    }
    steps
}

/// The author's computer: git with a key, and limpet.
struct Laptop<'a> {
    repository: &'a Repository,
}

impl Laptop<'_> {
    fn run(&self, command: &str) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_limpet"));
        let directory = program.parent().expect("the program is in a directory");
        let path = format!("{}:/usr/bin:/bin", directory.display());
        output_of(
            Command::new("/bin/bash")
                .args(["-c", &format!("exec 2>&1; {command}")])
                .current_dir(self.repository.work())
                .env_clear()
                .env("PATH", path)
                .env("LC_ALL", "C.UTF-8")
                .env("HOME", self.repository.directory()),
        )
    }
}

/// A line without what differs from day to day: ids, points in time, durations, sizes and ports become the same words everywhere.
fn timeless(line: &str) -> String {
    let pattern = |pattern: &str| regex_lite::Regex::new(pattern).expect("the pattern is right");
    let mut line = line.trim_end().to_owned();
    for (found, word) in [
        (r"SHA256:[A-Za-z0-9+/]+…?", "KEY"),
        (r"\b(file|https)://[^ ']+", "URL"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?Z?", "TIME"),
        (r"\b\d+ ?(s|min|h|days) ago\b", "AGO"),
        (r"\bin \d+ ?(s|min|h|days)\b", "SOON"),
        (r"\b\d+(\.\d+)? ?(ms|MiB)\b", "SIZE"),
        (r"\b[0-9a-f]{7}([0-9a-f]{33})?\b", "COMMIT"),
        (r"\s+", " "),
    ] {
        line = pattern(found).replace_all(&line, word).into_owned();
    }
    line
}

/// Whether `shown` is what the chapter has.
fn is_as_written(written: &[String], shown: &[String]) -> bool {
    match (written.split_first(), shown.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == ANYTHING => {
            (0..=shown.len()).any(|skipped| is_as_written(rest, &shown[skipped..]))
        }
        (Some((first, rest)), Some((found, others))) => {
            timeless(first) == timeless(found) && is_as_written(rest, others)
        }
        _ => false,
    }
}

fn typed_at_host(machine: &Machine, command: &str) -> Output {
    machine.run(&["/bin/bash", "-c", &format!("exec 2>&1; cd; {command}")])
}

#[test]
fn the_chapter_on_operations_shows_what_comes_back() {
    let scene = prepared();
    let laptop = Laptop {
        repository: &scene.repository,
    };
    let mut chapter_now = String::new();
    let mut wrong = Vec::new();
    for step in chapter() {
        let output = match step.prompt {
            HOST => typed_at_host(&scene.machine, &step.command),
            _ => laptop.run(&step.command),
        };
        let shown: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
        chapter_now += &format!("{}{}\n{}", step.prompt, step.command, output.stdout);
        if !is_as_written(&step.shown, &shown) {
            wrong.push(step.command);
        }
    }
    assert!(
        wrong.is_empty(),
        "the README shows something else for {wrong:#?}; now it is\n{chapter_now}"
    );
}

/// The host `web-1` of a fleet with the layers that the chapter speaks of.
fn prepared() -> Scene {
    let repository = Repository::new();
    repository.write(
        "layers/web/web.toml",
        r#"[file."/etc/web/listen.conf"]
content = "listen 127.0.0.1:80\n"

[unit."web.service"]
content = """
[Unit]
Description=The web server

[Service]
ExecStart=/bin/sleep infinity
"""
running    = true
restart_on = ["file:/etc/web/listen.conf"]
"#,
    );
    let many: String = (1..=11)
        .map(|number| format!("[file.\"/etc/web/site-{number}\"]\ncontent = \"\"\n"))
        .collect();
    repository.write("layers/many/many.toml", &many);
    let scene = Scene::prepared_in("operations", MOTD, repository);
    scene.repository.write(
        "fleet.toml",
        "format = 1\nfleet = \"tests\"\n\n[[match]]\nhosts  = [\"*\"]\nlayers = [\"base\"]\n\n\
         [[match]]\nhosts  = [\"web-*\"]\nlayers = [\"many\", \"web\"]\n",
    );
    scene
        .repository
        .write("inventory/hosts.toml", "[host.web-1]\n");
    scene.repository.commit(&scene.alice, "first revision");
    scene.repository.push();
    scene
        .repository
        .file("allowed_signers", &scene.alice.allowed());
    scene.repository.file("revoked", "");
    let key = scene.alice.file.display();
    scene.repository.file(
        ".gitconfig",
        &format!(
            "[user]\nname = Alice\nemail = alice@example.net\nsigningKey = {key}\n[gpg]\nformat = ssh\n\
             [commit]\ngpgSign = true\n[push]\ndefault = upstream\nautoSetupRemote = true\n"
        ),
    );
    scene.enroll_as("web-1").success();
    scene.machine.run(&["limpet", "sync", "--wait"]).success();
    scene
}

const MOTD: &str = "[file.\"/etc/motd\"]\ncontent = \"This host is kept by limpet.\\n\"\n";
