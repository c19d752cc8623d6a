//! Every case once more on a real machine: the package's agent and fetcher, and the repository behind a real Git server over https.
//!
//! One test boots the machine and runs this program again beside it; there, [`Bench::verify`] puts each case to the machine as well.
//! `LIMPET_CASES_FILTER` chooses tests by name.
//!
//! Invariant: a machine that answers otherwise than `limpet verify` fails the test, unless the case says why it never meets a machine.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::fixture::git_server::GitServer;
use crate::fixture::machine::Machine;
use crate::fixture::package;
use crate::{Answer, Bench};

/// Where the second run of this program finds the machine's files.
const ROOT: &str = "LIMPET_CASES_ROOT";
/// Where it puts the repository to serve.
const SERVED: &str = "LIMPET_CASES_SERVED";
/// The address at which that is served.
const URL: &str = "LIMPET_CASES_URL";

/// A file there with a byte for each case that met the machine.
const MET: &str = "met";

/// There is one machine, and one case at a time on it.
static MACHINE: Mutex<()> = Mutex::new(());

/// Git hands out no tree that it cannot read, which is no comfort: whoever owns a server changes it. Then everything is sent as it is.
const GENEROUS: &str = "#!/bin/sh
input=$(mktemp); output=$(mktemp); trap 'rm -f \"$input\" \"$output\"' EXIT
cat >\"$input\"
if ! \"$@\" <\"$input\" >\"$output\" 2>/dev/null; then
    git cat-file --batch-all-objects --batch-check='%(objectname)' | git pack-objects --stdout -q >\"$output\"
fi
cat \"$output\"
";

/// Forgets what the machine trusted and starts it with the files in /root/case.
const START: &str = "
systemctl stop limpet.service limpet-fetch.service
systemctl reset-failed limpet.service limpet-fetch.service 2>/dev/null || true
rm -rf /var/lib/limpet/* /var/cache/limpet/* /run/limpet/polled-at-start
rm -f /etc/limpet/enrolled /etc/limpet/allowed_signers /etc/limpet/revoked
cp /root/case/* /etc/limpet/
systemctl start limpet.service
";

const ASK: &str = "
limpet sync --wait >/dev/null 2>&1 || true
limpet status --json || true
limpet verify --json || true
";

#[test]
fn a_real_host_answers_every_case_as_verify_does() {
    let machine = Machine::start("cases");
    machine.install_deb(&package::built());
    let served = tempfile::tempdir().unwrap();
    let hook = served.path().join("hook");
    fs::write(&hook, GENEROUS).unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let hook = hook.to_str().unwrap();
    let server = GitServer::start_with(served.path(), Some(("uploadpack.packObjectsHook", hook)));
    machine.write_file("/etc/limpet/ca.pem", fs::read(&server.ca_file).unwrap());
    let filter = std::env::var("LIMPET_CASES_FILTER").unwrap_or_default();
    let at_least = if filter.is_empty() { 250 } else { 1 };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--test-threads=2", "--skip", "on_a_machine::", &filter])
        .env(ROOT, machine.path("/"))
        .env(SERVED, served.path())
        .env(URL, format!("{}/case.git", server.url))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let met = fs::read(served.path().join(MET)).unwrap_or_default().len();
    assert!(met >= at_least, "only {met} cases met the machine");
}

/// Puts a case to the machine, if there is one, and expects `answer`.
pub fn check(bench: &Bench, revision: &str, answer: &Answer) {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    if bench.elsewhere.is_some() {
        return;
    }
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let host = Host {
        root: PathBuf::from(root),
    };
    let tip = resolve(&bench.repo, revision);
    let trusted = bench.option("--trusted");
    host.prepare(bench);
    let tag = bench
        .option("--tags")
        .map(|_| revision.trim_start_matches("refs/tags/"));
    let name = tag.map_or("heads/main".to_owned(), |tag| format!("tags/{tag}"));
    serve(bench, &name, trusted.as_deref().unwrap_or(&tip));
    let script = match &trusted {
        None => format!("{START}{ASK}"),
        Some(id) => {
            host.run(&format!(
                "{START}
                limpet sync --wait >/dev/null 2>&1 || true
                limpet trust set --commit {id} --reason 'the case says so' >&2"
            ));
            serve(bench, &name, &tip);
            ASK.to_owned()
        }
    };
    let said = host.run(&script);
    let mut values = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
    let mut next = || values.next().and_then(Result::ok).unwrap_or_default();
    let (status, verdict) = (next(), next());
    let word = match status["last_poll"]["result"].as_str().unwrap_or_default() {
        "new" | "unchanged" | "held" | "the fleet data is wrong" => "accepted",
        other => other,
    };
    let expected = match answer.text("verdict") {
        "diverged" => "refused",
        other => other,
    };
    assert_eq!(word, expected, "{}\n{status:#}\n{verdict:#}", answer.json);
    for key in ["verdict", "rule", "commit"] {
        assert_eq!(
            verdict[key], answer.json[key],
            "{key}: {}\n{status:#}\n{verdict:#}",
            answer.json
        );
    }
    let met = PathBuf::from(std::env::var_os(SERVED).unwrap()).join(MET);
    let mut met = fs::File::options()
        .create(true)
        .append(true)
        .open(met)
        .unwrap();
    met.write_all(b".").unwrap();
}

fn resolve(repo: &Path, revision: &str) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(repo)
        .args(["rev-parse", "--verify", revision])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Makes `id` the ref `name` of the repository that is served; its objects are those of the case.
fn serve(bench: &Bench, name: &str, id: &str) {
    let path = PathBuf::from(std::env::var_os(SERVED).unwrap()).join("case.git");
    let _ = fs::remove_dir_all(&path);
    for directory in ["objects/info", "refs/heads", "refs/tags"] {
        fs::create_dir_all(path.join(directory)).unwrap();
    }
    let config = match id.len() {
        40 => "[core]\nrepositoryformatversion = 0\nbare = true\n",
        _ => {
            "[core]\nrepositoryformatversion = 1\nbare = true\n[extensions]\nobjectFormat = sha256\n"
        }
    };
    let objects = match bench.repo.join(".git").exists() {
        true => bench.repo.join(".git/objects"),
        false => bench.repo.join("objects"),
    };
    for (name, text) in [
        ("HEAD", "ref: refs/heads/main\n".to_owned()),
        ("config", config.to_owned()),
        (format!("refs/{name}").as_str(), format!("{id}\n")),
        (
            "objects/info/alternates",
            format!("{}\n", objects.display()),
        ),
    ] {
        fs::write(path.join(name), text).unwrap();
    }
}

struct Host {
    root: PathBuf,
}

impl Host {
    /// Puts the files of `bench` into the machine's /root/case.
    fn prepare(&self, bench: &Bench) {
        let case = self.root.join("root/case");
        let _ = fs::remove_dir_all(&case);
        fs::create_dir_all(&case).unwrap();
        let mut anchor = format!("commit = \"{}\"", bench.anchor);
        let mut more = String::new();
        let mut follow = "branch = \"main\"".to_owned();
        for pair in bench.options.chunks(2) {
            let [name, value] = pair else {
                panic!("an option without a value: {pair:?}")
            };
            match name.as_str() {
                "--trusted" => {}
                "--tags" => follow = format!("tags = \"{value}\""),
                "--anchor-payload" => write!(anchor, ", payload_sha256 = \"{value}\"").unwrap(),
                "--mode" => {
                    writeln!(more, "mode = \"{value}\"\naccept_head_only = true").unwrap();
                }
                "--channel" => writeln!(more, "channel = \"{value}\"").unwrap(),
                other => panic!("say here how a host is told {other}, or why the case meets none"),
            }
        }
        let url = std::env::var(URL).unwrap();
        let config = format!(
            "[source]\nurl = \"{url}\"\n{follow}\nca_file = \"/etc/limpet/ca.pem\"\ninterval = \"6h\"\n\
             [trust]\nanchor = {{ {anchor} }}\n{more}[host]\nname = \"case\"\n"
        );
        fs::write(case.join("limpet.toml"), config).unwrap();
        for (name, file) in [
            ("allowed_signers", &bench.allowed_signers),
            ("revoked", &bench.revoked),
        ] {
            if file.exists() {
                fs::copy(file, case.join(name)).unwrap();
            }
        }
    }

    /// Runs a shell script in the machine; it must succeed.
    fn run(&self, script: &str) -> String {
        let init = self.root.iter().nth(2).unwrap();
        let output = Command::new("nsenter")
            .arg("--target")
            .arg(init)
            .args(["--all", "--", "/usr/bin/env", "-i", "LANG=C.UTF-8"])
            .arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["/bin/sh", "-euc", script])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}
