//! The kind `unit`.

use std::time::Instant;

use limpet::kinds::kind::{Content, Contents, Kind, Owned, Step};
use limpet::kinds::unit::{DesiredUnit, Operation, Original, UnitChange, Units, applied};
use limpet::model::{Action, Failure, OnRemoval, Outcome, ResourceId};
use limpet::sys::Host;

use crate::{machine, output_of, run};

struct NoContents;

impl Contents for NoContents {
    fn read(&self, _content: &Content) -> Result<Vec<u8>, Failure> {
        unreachable!("units have no contents")
    }
}

fn unit(name: &str) -> DesiredUnit {
    DesiredUnit {
        name: name.to_owned(),
        id: ResourceId::new(limpet::model::Kind::Unit, name),
        enabled: None,
        running: None,
        masked: None,
        optional: false,
        restart_on: Vec::new(),
        reload_on: Vec::new(),
        validate: None,
        manual: false,
        files: Vec::new(),
        report: false,
        on_removal: OnRemoval::Restore,
    }
}

fn write_unit(name: &str, text: &str) {
    std::fs::write(format!("/etc/systemd/system/{name}"), text).unwrap();
}

const SLEEPER: &str =
    "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";

fn plan(
    host: &Host,
    desired: &[DesiredUnit],
    owned: &[Owned<Original>],
) -> Vec<Step<Original, UnitChange>> {
    let observed = Units::observe(host, desired, owned);
    Units::plan(desired, &observed, owned)
}

/// Applies the plan; what was done, and the failures.
fn converge(
    host: &Host,
    desired: &[DesiredUnit],
    owned: &[Owned<Original>],
) -> (Vec<Action>, Vec<String>) {
    let mut actions = Vec::new();
    let mut changes = Vec::new();
    let mut failures = Vec::new();
    for step in plan(host, desired, owned) {
        match step {
            Step::Change(planned) => {
                actions.push(planned.action);
                changes.push(planned.change);
            }
            Step::Release { .. } => {}
            Step::Blocked(failure) => failures.push(failure.to_string()),
        }
    }
    let changes: Vec<_> = changes.iter().collect();
    for outcome in Units::apply(host, &NoContents, &changes) {
        match outcome {
            Outcome::Done => {}
            Outcome::Failed(failure) | Outcome::Left(failure) => failures.push(failure.to_string()),
            Outcome::Skipped(id) => failures.push(format!("skipped {id}")),
        }
    }
    if failures.is_empty() {
        assert!(
            plan(host, desired, owned)
                .iter()
                .all(|step| matches!(step, Step::Release { .. })),
            "planning after apply is empty"
        );
    }
    (actions, failures)
}

fn operate(host: &Host, name: &str, operation: Operation) -> Outcome {
    let change = UnitChange::new(name, operation);
    Units::apply(host, &NoContents, &[&change]).remove(0)
}

fn is_active(name: &str) -> String {
    output_of("systemctl", &["is-active", name])
}

fn is_enabled(name: &str) -> String {
    output_of("systemctl", &["is-enabled", name])
}

#[test]
fn a_unit_is_enabled_started_masked_and_taken_back() {
    let machine = machine();
    let name = "lim-life.service";
    write_unit(name, SLEEPER);
    let mut desired = unit(name);
    desired.enabled = Some(true);
    desired.running = Some(true);
    let owned = |desired: &DesiredUnit| Owned {
        id: desired.id.clone(),
        key: desired.name.as_str().into(),
        original: Original::default(),
        on_removal: OnRemoval::Restore,
        applied: applied(desired),
    };
    let (actions, failures) = converge(&machine.host, &[desired.clone()], &[]);
    assert_eq!(
        (actions, failures),
        (vec![Action::Enable, Action::Start], vec![])
    );
    assert_eq!(
        (is_active(name), is_enabled(name)),
        ("active".into(), "enabled".into())
    );
    // Drift.
    run("systemctl", &["stop", name]);
    run(
        "rm",
        &["/etc/systemd/system/multi-user.target.wants/lim-life.service"],
    );
    let (actions, _) = converge(&machine.host, &[desired.clone()], &[]);
    assert_eq!(actions, [Action::Enable, Action::Start]);
    // A changed file that systemd has not read yet.
    write_unit(name, &format!("[Unit]\nDescription=changed\n{SLEEPER}"));
    run(
        "touch",
        &["-d", "+1 hour", &format!("/etc/systemd/system/{name}")],
    );
    let (actions, _) = converge(&machine.host, &[desired.clone()], &[]);
    assert_eq!(actions, [Action::DaemonReload]);
    // A key that is no longer declared, then the whole unit.
    let before = owned(&desired);
    desired.enabled = None;
    let (actions, _) = converge(
        &machine.host,
        &[desired.clone()],
        std::slice::from_ref(&before),
    );
    assert_eq!(actions, [Action::Disable]);
    let (actions, _) = converge(&machine.host, &[], &[owned(&desired)]);
    assert_eq!(actions, [Action::Stop]);
    assert_eq!(
        (is_active(name), is_enabled(name)),
        ("inactive".into(), "disabled".into())
    );
    // A mask cannot lie where the file lies; another unit's can.
    desired.running = None;
    desired.masked = Some(true);
    let (_, failures) = converge(&machine.host, &[desired], &[]);
    insta::assert_snapshot!(failures.join("\n"), @"failed to mask unit:lim-life.service: File /etc/systemd/system/lim-life.service already exists");
    let mut timer = unit("apt-daily.timer");
    timer.masked = Some(true);
    timer.enabled = Some(false);
    timer.running = Some(false);
    let (_, failures) = converge(&machine.host, &[timer.clone()], &[]);
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(is_enabled("apt-daily.timer"), "masked");
    timer.masked = Some(false);
    timer.running = Some(true);
    timer.enabled = Some(true);
    let (actions, failures) = converge(&machine.host, &[timer], &[]);
    assert_eq!(
        (actions, failures),
        (vec![Action::Unmask, Action::Enable, Action::Start], vec![])
    );
}

#[test]
fn a_unit_that_does_not_come_up_fails_with_its_cause() {
    let machine = machine();
    let cases = [
        (
            "lim-false.service",
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/false\n",
        ),
        (
            "lim-crash.service",
            "[Service]\nExecStart=/bin/sh -c 'sleep 0.05; exit 7'\n",
        ),
        (
            "lim-nouser.service",
            "[Service]\nUser=nobody-at-all\nExecStart=/bin/sleep 9\n",
        ),
        (
            "lim-noexec.service",
            "[Service]\nExecStart=/opt/not/there\n",
        ),
        (
            "lim-loop.service",
            "[Service]\nRestart=always\nRestartSec=5\nExecStart=/bin/false\n",
        ),
        (
            "lim-condition.service",
            "[Unit]\nConditionPathExists=/not/there\n[Service]\nExecStart=/bin/sleep 9\n",
        ),
        (
            "lim-needy.service",
            "[Unit]\nRequires=lim-false.service\nAfter=lim-false.service\n[Service]\nExecStart=/bin/sleep 9\n",
        ),
        ("lim-syntax.service", "[Service]\nType=nonsense\n"),
    ];
    for (name, text) in cases {
        write_unit(name, text);
    }
    run("systemctl", &["daemon-reload"]);
    let mut desired: Vec<DesiredUnit> = cases.iter().map(|(name, _)| unit(name)).collect();
    desired.push(unit("lim-nowhere.service"));
    for unit in &mut desired {
        unit.running = Some(true);
    }
    let (_, failures) = converge(&machine.host, &desired, &[]);
    insta::assert_snapshot!(failures.join("\n"), @r"
    failed to start unit:lim-false.service: it exited with status 1
    failed to start unit:lim-crash.service: it exited with status 7
    failed to start unit:lim-nouser.service: its user does not exist (status 217/USER)
    failed to start unit:lim-noexec.service: its program could not be executed (status 203/EXEC)
    failed to start unit:lim-loop.service: it exited with status 1; it is activating (auto-restart)
    failed to start unit:lim-condition.service: its start conditions (Condition…=) do not hold
    failed to start unit:lim-needy.service: a unit that it requires failed
    failed to start unit:lim-syntax.service: Unit lim-syntax.service has a bad unit file setting
    failed to start unit:lim-nowhere.service: Unit lim-nowhere.service not found
    ");
    run("systemctl", &["stop", "lim-loop.service"]);
}

#[test]
fn what_cannot_be_enabled_or_kept_running_is_refused() {
    let machine = machine();
    write_unit("lim-static.service", "[Service]\nExecStart=/bin/sleep 9\n");
    write_unit(
        "lim-once.service",
        "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    );
    write_unit(
        "lim-also.service",
        "[Service]\nExecStart=/bin/sleep 9\n[Install]\nAlso=lim-life.service\n",
    );
    run("systemctl", &["daemon-reload"]);
    let mut desired: Vec<DesiredUnit> = [
        "lim-static.service",
        "lim-also.service",
        "lim-once.service",
        "getty@.service",
        "motd",
        "lim-nowhere.timer",
    ]
    .into_iter()
    .map(unit)
    .collect();
    for unit in &mut desired[..2] {
        unit.enabled = Some(true);
    }
    desired[2].running = Some(true);
    desired[3].running = Some(true);
    desired[4].running = Some(true);
    desired[5].enabled = Some(true);
    let (_, failures) = converge(&machine.host, &desired, &[]);
    insta::assert_snapshot!(failures.join("\n"), @r"
    refused unit:lim-static.service: enabled = true, but its file has no [Install] section
    refused unit:lim-also.service: enabled = true, but its [Install] section only names other units
    refused unit:lim-once.service: running = true, but it is a oneshot service without RemainAfterExit, which is over when it has done its work
    refused unit:getty@.service: running is declared for a template
    refused unit:motd: 'motd' is no unit name
    failed to enable unit:lim-nowhere.timer: Unit file lim-nowhere.timer does not exist
    ");
    let mut missing = unit("lim-nowhere.service");
    missing.optional = true;
    missing.masked = Some(true);
    missing.enabled = Some(false);
    assert!(plan(&machine.host, &[missing], &[]).is_empty());
}

#[test]
fn restarts_are_tried_and_reloads_fall_back() {
    let machine = machine();
    let name = "lim-restart.service";
    write_unit(name, SLEEPER);
    write_unit(
        "lim-reload.service",
        "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/sh -c 'echo reloaded >> /run/lim-reload'\n",
    );
    run("systemctl", &["daemon-reload"]);
    run("systemctl", &["stop", name, "lim-reload.service"]);
    let _ = std::fs::remove_file("/run/lim-reload");
    let pid = |name: &str| output_of("systemctl", &["show", "-p", "MainPID", "--value", name]);
    // Nothing runs: nothing is restarted.
    assert_eq!(
        operate(&machine.host, name, Operation::Restart),
        Outcome::Done
    );
    assert_eq!(is_active(name), "inactive");
    assert_eq!(
        operate(&machine.host, name, Operation::Start),
        Outcome::Done
    );
    let first = pid(name);
    assert_eq!(
        operate(&machine.host, name, Operation::Restart),
        Outcome::Done
    );
    let second = pid(name);
    assert_ne!(first, second);
    assert_eq!(
        operate(&machine.host, name, Operation::Reload),
        Outcome::Done
    );
    assert_ne!(second, pid(name), "it cannot reload");
    assert_eq!(
        operate(&machine.host, "lim-reload.service", Operation::Start),
        Outcome::Done
    );
    let first = pid("lim-reload.service");
    assert_eq!(
        operate(&machine.host, "lim-reload.service", Operation::Reload),
        Outcome::Done
    );
    assert_eq!(first, pid("lim-reload.service"));
    assert_eq!(
        std::fs::read_to_string("/run/lim-reload").unwrap(),
        "reloaded\n"
    );

    // More restarts than the start limit permits.
    for _ in 0..8 {
        assert_eq!(
            operate(&machine.host, name, Operation::Restart),
            Outcome::Done
        );
    }
    // Broken by its own file: the restart fails and says why.
    write_unit(name, "[Service]\nType=exec\nExecStart=/opt/not/there\n");
    let changes = [Operation::DaemonReload, Operation::Restart]
        .map(|operation| UnitChange::new(name, operation));
    let outcomes = Units::apply(
        &machine.host,
        &NoContents,
        &changes.iter().collect::<Vec<_>>(),
    );
    assert_eq!(outcomes[0], Outcome::Done);
    let Outcome::Failed(failure) = &outcomes[1] else {
        panic!("it cannot have come up")
    };
    insta::assert_snapshot!(failure, @"failed to restart unit:lim-restart.service: its program could not be executed (status 203/EXEC)");
}

#[test]
fn looking_at_many_units_is_quick() {
    let machine = machine();
    let names = output_of(
        "sh",
        &[
            "-c",
            "systemctl list-unit-files --no-legend | cut -d' ' -f1 | grep -v @",
        ],
    );
    let desired: Vec<DesiredUnit> = names.lines().take(100).map(unit).collect();
    Units::observe(&machine.host, &desired, &[]);
    let started = Instant::now();
    let observed = Units::observe(&machine.host, &desired, &[]);
    println!("{} units in {:?}", desired.len(), started.elapsed());
    for (name, unit) in &observed.units {
        let unit = unit.as_ref().unwrap();
        assert_eq!(unit.file_state, is_enabled(name), "{name}");
    }
}
