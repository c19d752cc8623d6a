//! Programs run as transient units.

use std::time::{Duration, Instant};

use limpet::sys::command::{Command, Ending};

use crate::{machine, output_of, run};

fn command(argv: &[&str], time_limit: Duration) -> Command {
    Command {
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        time_limit,
        ..Command::default()
    }
}

const ENOUGH: Duration = Duration::from_secs(60);

#[test]
fn a_command_runs_as_a_unit_with_its_status_and_output() {
    let machine = machine();
    let check = |argv: &[&str], ending: Ending, output: &str| {
        let result = machine.host.run_outside(&command(argv, ENOUGH)).unwrap();
        assert_eq!(
            (result.ending, result.output.as_str()),
            (ending, output),
            "{argv:?}"
        );
    };
    check(&["true"], Ending::Exited(0), "");
    check(
        &["sh", "-c", "echo a; echo b >&2; exit 3"],
        Ending::Exited(3),
        "a\nb\n",
    );
    check(
        &["/bin/echo", "$HOME %n ${PATH} *"],
        Ending::Exited(0),
        "$HOME %n ${PATH} *\n",
    );
    check(&["sh", "-c", "kill -KILL $$"], Ending::Signalled(9), "");
    check(&["cat"], Ending::Exited(0), "");
    let started = Instant::now();
    let late = command(&["sh", "-c", "echo late; sleep 60"], Duration::from_secs(1));
    let result = machine.host.run_outside(&late).unwrap();
    assert_eq!(
        (result.ending, result.output.as_str()),
        (Ending::TimedOut, "late\n")
    );
    assert!(started.elapsed() < Duration::from_secs(20));
    let cgroup = command(&["cat", "/proc/self/cgroup"], ENOUGH);
    let cgroup = machine.host.run_outside(&cgroup).unwrap().output;
    assert!(cgroup.contains("limpet-run-"), "{cgroup}");
    let left = output_of(
        "systemctl",
        &["list-units", "--all", "--plain", "--no-legend", "limpet-*"],
    );
    assert_eq!(left, "", "nothing is left behind");
    assert_eq!(output_of("sh", &["-c", "ls /run/limpet | grep log"]), "");
}

#[test]
fn a_transaction_is_adopted_by_another_run_and_outlives_the_bus() {
    let machine = machine();
    let slow = command(
        &["sh", "-c", "echo begun; sleep 3; echo ended; exit 4"],
        ENOUGH,
    );
    std::thread::scope(|scope| {
        let first = scope.spawn(|| machine.host.run_transaction(&slow));
        let other = limpet::sys::Host::new(std::path::Path::new("/"));
        let found = loop {
            match other.find_transactions().unwrap().as_slice() {
                [found] => break found.clone(),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        assert!(found.starts_with("limpet-txn-"), "{found}");
        run("systemctl", &["restart", "dbus.service"]);
        let result = first.join().unwrap().unwrap();
        assert_eq!(
            (result.ending, result.output.as_str()),
            (Ending::Exited(4), "begun\nended\n")
        );
        // Until its result is written down, a next run may need it.
        assert_eq!(other.find_transactions().unwrap(), [found]);
        machine.host.forget_ended_transactions();
        assert!(other.find_transactions().unwrap().is_empty());
    });
}

#[test]
fn a_transaction_that_ended_while_nobody_waited_keeps_its_result() {
    let machine = machine();
    let unit = "limpet-txn-0123456789abcdef.service";
    run(
        "systemd-run",
        &[
            "--quiet",
            "--no-block",
            "--unit=limpet-txn-0123456789abcdef",
            "--service-type=oneshot",
            "--remain-after-exit",
            "/bin/true",
        ],
    );
    assert_eq!(machine.host.find_transactions().unwrap(), [unit]);
    let result = machine.host.await_transaction(unit).unwrap();
    assert!(result.is_success());
    machine.host.forget_transaction(unit);
    assert!(machine.host.find_transactions().unwrap().is_empty());
    let gone = machine.host.await_transaction(unit).unwrap();
    assert_eq!(gone.ending, Ending::Unknown("its unit is gone"));
}

#[test]
fn commands_that_a_killed_run_left_are_cleared() {
    let machine = machine();
    run(
        "systemd-run",
        &[
            "--quiet",
            "--unit=limpet-run-left",
            "--remain-after-exit",
            "/bin/true",
        ],
    );
    machine.host.clear_leftover_commands().unwrap();
    let left = output_of(
        "systemctl",
        &["list-units", "--all", "--plain", "--no-legend", "limpet-*"],
    );
    assert_eq!(left, "");
}
