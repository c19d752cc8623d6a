//! Makes a batch of changes to units: files read again, masks, enablement, then all jobs together, then a look at the result.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::kinds::unit::mistake::find_enablement_mistake;
use crate::kinds::unit::{Link, Operation, UnitChange};
use crate::model::{Class, Failure, Kind, Outcome, ResourceId};
use crate::sys::jobs::{Job, JobResult, Verb};
use crate::sys::systemd::{Error, ListedUnit, Property, PropertyName, Systemd};

/// How long all jobs of a batch may take together. systemd's own limit for one start is 90 s unless the unit says otherwise.
const JOB_LIMIT: Duration = Duration::from_secs(10 * 60);
/// How long a started unit is given to fail: a simple service counts as started before its program runs.
const SETTLING_TIME: Duration = Duration::from_millis(300);

/// Makes the changes. One outcome per change, in the same order.
pub(super) fn apply(systemd: &Systemd, changes: &[UnitChange]) -> Vec<Outcome> {
    let mut failures: Vec<Option<Failure>> = changes.iter().map(|_| None).collect();
    reload(systemd, changes, &mut failures);
    let hopeless = change_files(systemd, changes, &mut failures);
    run_jobs(systemd, changes, &mut failures);
    let outcome = |(index, failure): (usize, Option<Failure>)| match failure {
        None => Outcome::Done,
        Some(failure) if hopeless.contains(&index) => Outcome::Left(failure),
        Some(failure) => Outcome::Failed(failure),
    };
    failures.into_iter().enumerate().map(outcome).collect()
}

fn reload(systemd: &Systemd, changes: &[UnitChange], outcomes: &mut [Option<Failure>]) {
    let is_reload = |change: &UnitChange| change.operation == Operation::DaemonReload;
    if !changes.iter().any(is_reload) {
        return;
    }
    if let Err(error) = systemd.reload() {
        let failure = error.into_failure("reload systemd's units");
        for (outcome, change) in outcomes.iter_mut().zip(changes) {
            if is_reload(change) {
                *outcome = Some(failure.clone().about(id(change)));
            }
        }
    }
}

/// Masks and enablement, in this order over all units, and systemd told of the new links. Returns what puts something back that cannot
/// be any more, however often it is tried.
fn change_files(
    systemd: &Systemd,
    changes: &[UnitChange],
    outcomes: &mut [Option<Failure>],
) -> BTreeSet<usize> {
    let order = [
        Operation::Unmask,
        Operation::Disable,
        Operation::Link,
        Operation::Enable,
        Operation::EnableUntilBoot,
        Operation::Mask,
        Operation::MaskUntilBoot,
    ];
    let mut has_changed = false;
    let mut hopeless = BTreeSet::new();
    for operation in order {
        for (index, (outcome, change)) in outcomes.iter_mut().zip(changes).enumerate() {
            if change.operation != operation {
                continue;
            }
            match change_file(systemd, change) {
                Ok(()) => has_changed = true,
                Err(failure) => {
                    // systemd does not refuse what it cannot do for now; it is the unit that does not allow it.
                    if change.takes_back && failure.class == Class::Author {
                        hopeless.insert(index);
                    }
                    *outcome = Some(failure.about(id(change)));
                }
            }
        }
    }
    if has_changed && let Err(error) = systemd.reload() {
        let failure = error.into_failure("reload systemd's units");
        for (outcome, change) in outcomes.iter_mut().zip(changes) {
            if order.contains(&change.operation) && outcome.is_none() {
                *outcome = Some(failure.clone().about(id(change)));
            }
        }
    }
    hopeless
}

fn change_file(systemd: &Systemd, change: &UnitChange) -> Result<(), Failure> {
    let name = &change.name;
    let verb = change.operation.action();
    let fail = |error: Error| {
        let is_name_taken = matches!(&error, Error::Refused { name, .. } if name == "org.freedesktop.systemd1.UnitExists"
            || name == "org.freedesktop.DBus.Error.FileExists");
        let is_missing = error.is_missing_unit();
        let failure = error.into_failure(&format!("{verb} unit:{name}"));
        match (change.operation, is_name_taken, is_missing) {
            (Operation::Mask, true, _) => failure.with_hint(
                "its file lies in /etc/systemd/system, where the mask would be: remove that file, or declare running = false",
            ),
            (_, _, true) => failure.with_hint(
                "no such unit: check its name, and that its package or file is declared too",
            ),
            _ => failure,
        }
    };
    match change.operation {
        Operation::Mask => systemd.mask(name, false).map_err(fail),
        Operation::MaskUntilBoot => systemd.mask(name, true).map_err(fail),
        Operation::Unmask => systemd.unmask(name).map_err(fail),
        Operation::Disable => {
            systemd.disable(name).map_err(fail)?;
            // systemd removes all links to the file, and nobody would find it any more.
            make_link(systemd, change).map_err(fail)
        }
        Operation::Link => make_link(systemd, change).map_err(fail),
        Operation::Enable | Operation::EnableUntilBoot => {
            let is_runtime = change.operation == Operation::EnableUntilBoot;
            systemd.enable(name, is_runtime).map_err(fail)?;
            // A unit that came with a package of this run was not there to be judged when the plan was made.
            let states = systemd
                .unit_file_states(std::slice::from_ref(name))
                .map_err(fail)?;
            match states.first() {
                Some(Ok(state)) => match find_enablement_mistake(true, state) {
                    Some((cause, hint)) => Err(Failure::new(
                        Class::Author,
                        format!("failed to enable unit:{name}: {cause}"),
                    )
                    .with_hint(hint)),
                    None => Ok(()),
                },
                _ => Ok(()),
            }
        }
        Operation::DaemonReload
        | Operation::Start
        | Operation::StartAfresh
        | Operation::Stop
        | Operation::Restart
        | Operation::Reload => Ok(()),
    }
}

fn make_link(systemd: &Systemd, change: &UnitChange) -> Result<(), Error> {
    match &change.link {
        Some(Link { target, runtime }) => systemd.link(target, *runtime),
        None => Ok(()),
    }
}

/// Starts, stops, restarts and reloads, all enqueued together and awaited together; systemd orders them.
fn run_jobs(systemd: &Systemd, changes: &[UnitChange], outcomes: &mut [Option<Failure>]) {
    let mut indices: Vec<usize> = (0..changes.len())
        .filter(|index| verb(changes[*index].operation).is_some())
        .collect();
    if indices.is_empty() {
        return;
    }
    // What is started now needs no restart.
    let started: BTreeSet<&str> = changes
        .iter()
        .filter(|change| matches!(change.operation, Operation::Start | Operation::StartAfresh))
        .map(|change| change.name.as_str())
        .collect();
    // Restarted is more than reloaded.
    let restarted: BTreeSet<&str> = changes
        .iter()
        .filter(|change| change.operation == Operation::Restart)
        .map(|change| change.name.as_str())
        .collect();
    indices.retain(|index| {
        let name = changes[*index].name.as_str();
        match changes[*index].operation {
            Operation::Restart => !started.contains(name),
            Operation::Reload => !started.contains(name) && !restarted.contains(name),
            _ => true,
        }
    });
    // Stops first: what conflicts with a unit to be started must not end after it.
    indices.sort_by_key(|index| changes[*index].operation);
    let before = look(systemd, changes, &indices);
    // What lost its file cannot come back: it ends, instead of going on from systemd's memory.
    let is_gone = |change: &UnitChange| {
        let unit = before
            .as_ref()
            .ok()
            .and_then(|before| before.get(change.name.as_str()));
        unit.is_some_and(|unit| unit.load == "not-found")
    };
    let operation = |change: &UnitChange| match change.operation {
        Operation::Restart | Operation::Reload if is_gone(change) => Operation::Stop,
        operation => operation,
    };
    let mut jobs = Vec::with_capacity(indices.len());
    for index in &indices {
        let change = &changes[*index];
        if matches!(
            change.operation,
            Operation::Start | Operation::StartAfresh | Operation::Restart
        ) {
            // A start limit that was hit would refuse the start; a unit that has not failed is none of our concern.
            let _ = systemd.reset_failed(&change.name);
        }
        jobs.push(Job {
            verb: verb(operation(change)).expect("only those with a verb are in the list"),
            unit: change.name.clone(),
        });
    }
    let results = systemd.run_jobs(&jobs, JOB_LIMIT);
    if jobs.iter().any(|job| job.verb != Verb::Stop) {
        std::thread::sleep(SETTLING_TIME);
    }
    let after = look(systemd, changes, &indices);
    for (index, result) in indices.into_iter().zip(results) {
        let change = &UnitChange {
            operation: operation(&changes[index]),
            ..changes[index].clone()
        };
        if change.operation == Operation::Stop {
            // What was stopped is meant to be inactive, not failed, however its processes took it.
            let _ = systemd.reset_failed(&change.name);
        }
        let judged = match (result, &after) {
            // It ended by itself meanwhile, and systemd forgot it.
            (Err(error), _) if change.operation == Operation::Stop && error.is_missing_unit() => {
                Ok(())
            }
            (Err(error), _) => Err(explain_refusal(change, error)),
            (Ok(result), Ok(after)) => {
                let was_up = before.as_ref().is_ok_and(|before| {
                    before
                        .get(change.name.as_str())
                        .is_some_and(|unit| unit.active == "active" || unit.active == "reloading")
                });
                judge(
                    systemd,
                    change,
                    &result,
                    was_up,
                    after.get(change.name.as_str()),
                )
            }
            (Ok(_), Err(error)) => Err(error
                .clone()
                .into_failure(&format!("look at unit:{}", change.name))),
        };
        outcomes[index] = judged.err().map(|failure| failure.about(id(change)));
    }
}

fn verb(operation: Operation) -> Option<Verb> {
    match operation {
        Operation::Start => Some(Verb::Start),
        Operation::StartAfresh => Some(Verb::Restart),
        Operation::Stop => Some(Verb::Stop),
        Operation::Restart => Some(Verb::TryRestart),
        Operation::Reload => Some(Verb::ReloadOrTryRestart),
        Operation::DaemonReload
        | Operation::Mask
        | Operation::MaskUntilBoot
        | Operation::Unmask
        | Operation::Enable
        | Operation::EnableUntilBoot
        | Operation::Link
        | Operation::Disable => None,
    }
}

fn look<'a>(
    systemd: &Systemd,
    changes: &'a [UnitChange],
    indices: &[usize],
) -> Result<BTreeMap<&'a str, ListedUnit>, Error> {
    let names: Vec<&str> = indices
        .iter()
        .map(|index| changes[*index].name.as_str())
        .collect();
    let asked: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Ok(names.into_iter().zip(systemd.list_units(&asked)?).collect())
}

/// Is the unit as the job should have left it.
fn judge(
    systemd: &Systemd,
    change: &UnitChange,
    result: &JobResult,
    was_up: bool,
    unit: Option<&ListedUnit>,
) -> Result<(), Failure> {
    let name = &change.name;
    let verb = change.operation.action();
    let Some(unit) = unit else {
        return Err(Failure::new(
            Class::Bug,
            format!("failed to {verb} unit:{name}: it was not looked at"),
        ));
    };
    if *result == JobResult::Unfinished {
        return Err(Failure::new(
            Class::Host,
            format!(
                "failed to {verb} unit:{name}: it is still {} after {} min",
                unit.active,
                JOB_LIMIT.as_secs() / 60
            ),
        )
        .with_hint(look_hint(name)));
    }
    let is_up = matches!(unit.active.as_str(), "active" | "reloading" | "refreshing");
    let is_as_wanted = match change.operation {
        Operation::Stop => matches!(unit.active.as_str(), "inactive" | "failed"),
        Operation::Start | Operation::StartAfresh => is_up,
        // Nothing was restarted where nothing ran.
        Operation::Restart | Operation::Reload => is_up || !was_up,
        _ => true,
    };
    let has_failed = matches!(result, JobResult::Failed(_));
    if is_as_wanted && !has_failed {
        return Ok(());
    }
    let cause = find_cause(systemd, unit, result);
    Err(Failure::new(
        Class::Host,
        format!("failed to {verb} unit:{name}: {cause}"),
    )
    .with_hint(look_hint(name)))
}

fn look_hint(name: &str) -> String {
    format!("'systemctl status {name}' and 'journalctl -u {name}' say more")
}

/// What systemd knows about why a unit is not as it should be.
fn find_cause(systemd: &Systemd, unit: &ListedUnit, result: &JobResult) -> String {
    if let JobResult::Failed(word) = result {
        match word.as_str() {
            "dependency" => return "a unit that it requires failed".to_owned(),
            "timeout" => return "its job took too long".to_owned(),
            "canceled" => return "its job was cancelled by another one".to_owned(),
            "assert" => return "its assertions (Assert…=) do not hold".to_owned(),
            "unsupported" => return "this system does not support units of its type".to_owned(),
            _ => {}
        }
    }
    let wanted = [
        ("Service", "Result"),
        ("Service", "ExecMainCode"),
        ("Service", "ExecMainStatus"),
        ("Service", "Type"),
        ("Service", "RemainAfterExit"),
        ("Unit", "ConditionResult"),
    ]
    .map(|(interface, name)| PropertyName {
        object: &unit.object,
        interface,
        name,
    });
    let answers = systemd.properties(&wanted).unwrap_or_default();
    let text = |index: usize| match answers.get(index) {
        Some(Ok(Property::Text(text))) => Some(text.as_str()),
        _ => None,
    };
    let number = |index: usize| match answers.get(index) {
        Some(Ok(Property::Number(number))) => Some(*number),
        _ => None,
    };
    let flag = |index: usize| match answers.get(index) {
        Some(Ok(Property::Flag(flag))) => Some(*flag),
        _ => None,
    };
    if unit.active == "inactive" && flag(5) == Some(false) {
        return "its start conditions (Condition…=) do not hold".to_owned();
    }
    if unit.active == "inactive" && text(3) == Some("oneshot") && flag(4) == Some(false) {
        return "it is a oneshot service without RemainAfterExit, which is over when it has done its work".to_owned();
    }
    describe_service_result(&unit.active, &unit.sub, text(0), number(1), number(2))
}

/// A service's Result, ExecMainCode and ExecMainStatus in words.
fn describe_service_result(
    active: &str,
    sub: &str,
    result: Option<&str>,
    code: Option<i64>,
    status: Option<i64>,
) -> String {
    const CLD_EXITED: i64 = 1;
    let ending = match (result, code, status) {
        (Some("timeout"), _, _) => "it took too long to start or stop".to_owned(),
        (Some("oom-kill"), _, _) => "it was killed because memory ran out".to_owned(),
        (Some("start-limit-hit"), _, _) => "it was started too often".to_owned(),
        (Some("resources"), _, _) => "systemd could not prepare it to run".to_owned(),
        // systemd.exec(5): what failed before the program itself could run.
        (Some("exit-code"), Some(CLD_EXITED), Some(203)) => {
            "its program could not be executed (status 203/EXEC)".to_owned()
        }
        (Some("exit-code"), Some(CLD_EXITED), Some(217)) => {
            "its user does not exist (status 217/USER)".to_owned()
        }
        (_, Some(CLD_EXITED), Some(status)) => format!("it exited with status {status}"),
        (Some(_), Some(_), Some(signal)) if signal != 0 => {
            format!("it was ended by signal {signal}")
        }
        (Some(result), _, _) if result != "success" => format!("its result is '{result}'"),
        _ => return format!("it is {active} ({sub})"),
    };
    match active {
        "failed" => ending,
        _ => format!("{ending}; it is {active} ({sub})"),
    }
}

/// What systemd says when it does not even enqueue the job.
fn explain_refusal(change: &UnitChange, error: Error) -> Failure {
    let name = &change.name;
    let is_missing = error.is_missing_unit();
    let is_masked = matches!(&error, Error::Refused { name, .. } if name == "org.freedesktop.systemd1.UnitMasked");
    let failure = error.into_failure(&format!("{} unit:{name}", change.operation.action()));
    if is_missing {
        failure
            .with_hint("no such unit: check its name, and that its package or file is declared too")
    } else if is_masked {
        failure.with_hint("declare masked = false to take the mask away")
    } else {
        failure
    }
}

fn id(change: &UnitChange) -> ResourceId {
    ResourceId::new(Kind::Unit, change.name.clone())
}
