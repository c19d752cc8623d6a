//! The control socket under attack: by strangers, by operators who look only, and by who takes another's place.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::bad_days::{FILE, drift_is_undone_unasked, layer};
use crate::fixture::machine::{Machine, wait_until};
use crate::scene::{SOON, Scene};

const SOCKET: &str = "/run/limpet/control.sock";

/// Asks for a change.
const SYNC: &str =
    r#"{"request":"sync","wait":true,"allow_removals":true,"retry":true,"by":"root"}"#;

/// Runs a Perl program in the machine as an operator without root, in a unit of its own.
fn run_as_operator(machine: &Machine, unit: &str, program: &str, argument: &str) {
    let file = format!("/usr/local/bin/{unit}.pl");
    machine.write_file(&file, program);
    machine.sh(&format!("chmod 0755 {file}"));
    let arguments = [
        "systemd-run",
        "--quiet",
        &format!("--unit={unit}"),
        "--property=Type=exec",
        "--property=KillMode=process",
        "--uid=nobody",
        "--gid=limpet-operators",
        "perl",
        &file,
        argument,
    ];
    machine.run(&arguments).success();
}

/// The agent's resident memory, in KiB.
fn memory(machine: &Machine) -> u64 {
    let pid = machine.main_pid("limpet.service");
    let status = format!("/proc/{}/status", machine.pid_here(pid));
    let status = std::fs::read_to_string(status).expect("the agent runs");
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .expect("the kernel knows its memory")
}

/// Connects as often as it can, and asks for the most work there is, or says nothing.
const FLOOD: &str = r#"
use IO::Socket::UNIX;
my $request = shift;
my @open;
while (1) {
    my $socket = IO::Socket::UNIX->new(Peer => "/run/limpet/control.sock") or next;
    $socket->autoflush(1);
    print $socket "$request\n" if $request;
    push @open, $socket;
    shift @open if @open > 100;
}
"#;

#[test]
fn a_control_socket_flooded_by_operators_stops_neither_enforcement_nor_root() {
    let scene = Scene::enrolled("flood", &layer("first", ""));
    scene.poll_often();
    let machine = &scene.machine;
    let pid = machine.main_pid("limpet.service");
    let cursor = machine.journal_cursor();
    for (number, request) in ["", r#"{"request":"plan"}"#, r#"{"request":"status"}"#]
        .iter()
        .enumerate()
    {
        run_as_operator(machine, &format!("flood{number}"), FLOOD, request);
    }
    for content in ["second", "third"] {
        drift_is_undone_unasked(&scene, machine.read_file(FILE).trim());
        scene.declare(&layer(content, ""));
        scene.converge();
    }
    for number in 0..3 {
        let unit = format!("flood{number}.service");
        assert!(machine.is_active(&unit), "{unit} ended by itself");
        machine.sh(&format!("systemctl stop {unit}"));
    }
    let said = machine.journal_after(&cursor, "SYSLOG_IDENTIFIER", "limpet");
    assert!(said.len() < 20, "{said:#?}");
    assert_eq!(machine.main_pid("limpet.service"), pid);
    let memory = memory(machine);
    assert!(memory < 64 << 10, "{memory} KiB after the flood");
}

#[test]
fn a_line_without_an_end_costs_the_agent_nothing() {
    let scene = Scene::enrolled("long-line", &layer("first", ""));
    let machine = &scene.machine;
    let pid = machine.main_pid("limpet.service");
    let before = memory(machine);
    let block = vec![b'{'; 1 << 20];
    for _ in 0..8 {
        let mut stream = UnixStream::connect(machine.path(SOCKET)).expect("root may ask");
        let taken = (0..100)
            .take_while(|_| stream.write_all(&block).is_ok())
            .count();
        assert!(taken < 2, "{taken} MiB of 100 were taken");
    }
    let after = memory(machine);
    assert!(after < before + (4 << 10), "{before} KiB became {after}");
    assert_eq!(machine.main_pid("limpet.service"), pid);
    scene.converge();
}

#[test]
fn who_asks_and_does_not_listen_keeps_nobody_waiting() {
    let scene = Scene::enrolled("deaf", &layer("first", ""));
    let machine = &scene.machine;
    // The longest answers: a plan of many files, asked for by as many as may.
    let many: String = (0..2000)
        .map(|number| format!("[file.\"/etc/many/{number}\"]\ncontent = \"{number}\"\n"))
        .collect();
    machine.sh("mkdir /etc/many");
    scene.declare(&layer("second", &many));
    scene.machine.run(&["limpet", "sync"]).success();
    let deaf: Vec<UnixStream> = (0..48)
        .filter_map(|_| {
            let mut stream = UnixStream::connect(machine.path(SOCKET)).ok()?;
            stream.write_all(format!("{SYNC}\n").as_bytes()).ok()?;
            Some(stream)
        })
        .collect();
    assert!(deaf.len() > 40, "{}", deaf.len());
    scene.converge();
    machine.run(&["limpet", "status"]).success();
    assert_eq!(machine.read_file("/etc/many/1999"), "1999");
    drop(deaf);
}

#[test]
fn a_stranger_is_kept_out_and_an_operator_may_only_look() {
    let scene = Scene::enrolled("stranger", &layer("first", ""));
    let machine = &scene.machine;
    let ask = |group: &str, request: &str| {
        let program = format!(
            "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => \"{SOCKET}\") or die \"kept out: $!\\n\"; print $s '{request}', \"\\n\"; $s->flush; print <$s>;"
        );
        machine.run(&[
            "setpriv",
            "--reuid=nobody",
            group,
            "--clear-groups",
            "perl",
            "-e",
            &program,
        ])
    };
    let stranger = ask("--regid=nogroup", r#"{"request":"status"}"#);
    assert!(
        stranger.stderr.contains("kept out: Permission denied"),
        "{stranger:?}"
    );
    let status = ask("--regid=limpet-operators", r#"{"request":"status"}"#);
    assert!(
        status.stdout.contains("\"state\":\"converged\""),
        "{status:?}"
    );
    for request in [
        SYNC,
        r#"{"request":"rollback","to":null,"for_secs":null,"reason":"none","by":"root"}"#,
        r#"{"request":"trust","commit":"0123456789012345678901234567890123456789","reason":"none","by":"root"}"#,
        r#"{"request":"pause","resources":[],"for_secs":60,"reason":"none","by":"root"}"#,
        r#"{"request":"resume","resources":[],"by":"root"}"#,
    ] {
        let answer = ask("--regid=limpet-operators", request);
        let is_refused = answer.stdout.contains("only root may change this host");
        assert!(is_refused, "{request}: {answer:?}");
    }
}

/// Connects, and leaves the connection to a child, which asks for a change when it is told to.
const HEIR: &str = r#"
use IO::Socket::UNIX;
use POSIX qw(setsid);
my $request = shift;
my $socket = IO::Socket::UNIX->new(Peer => "/run/limpet/control.sock") or die $!;
if (my $child = fork) {
    open my $file, ">", "/tmp/heir-pid.new"; print $file $$; close $file;
    rename "/tmp/heir-pid.new", "/tmp/heir-pid";
    exit 0;
}
# As long as the session has its number, nobody else gets that.
setsid;
select undef, undef, undef, 0.05 until -e "/tmp/heir-go";
print $socket "$request\n";
$socket->flush;
my $answer = <$socket>;
open my $file, ">", "/tmp/heir-answer.new"; print $file $answer; close $file;
rename "/tmp/heir-answer.new", "/tmp/heir-answer";
"#;

#[test]
fn a_process_of_root_with_the_number_of_one_that_asked_changes_nothing() {
    let scene = Scene::enrolled("heir", &layer("first", ""));
    let machine = &scene.machine;
    run_as_operator(machine, "heir", HEIR, SYNC);
    let file = |name: &str| std::fs::read_to_string(machine.path(name)).ok();
    let pid = wait_until("who connected", SOON, || file("/tmp/heir-pid"));
    let pid: u32 = pid.parse().unwrap();
    // The kernel gives numbers in turn, from the one that is written here.
    let take = format!(
        "for i in $(seq 100); do echo {} > /proc/sys/kernel/ns_last_pid; sleep 30 & [ $! != {pid} ] || exit 0; kill $!; done; exit 1",
        pid - 1
    );
    let taken = Command::new("nsenter")
        .args(["--pid", "--target", &machine.pid_here(1).to_string()])
        .args(["sh", "-c", &take])
        .status()
        .unwrap();
    assert!(taken.success(), "no process of root got the number {pid}");
    let owner = machine.sh(&format!("stat -c %U /proc/{pid}"));
    assert_eq!(owner.trim(), "root");
    machine.write_file("/tmp/heir-go", "");
    let answer = wait_until("the answer", SOON, || file("/tmp/heir-answer"));
    assert!(
        answer.contains("only root may change this host"),
        "{answer}"
    );
}
