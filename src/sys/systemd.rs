//! systemd's manager over D-Bus.
//!
//! Calls block: the connection lives on a runtime of its own that runs only while somebody waits here. It is made when it is first
//! needed and again when the bus went away.
//!
//! Must not be called from within another runtime's task: the daemon works on a thread that may block.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use zbus::Connection;
use zbus::wire::{DynamicDeserialize, DynamicType, OwnedObjectPath, OwnedVariant, Variant};

use crate::model::{Class, Failure};
use crate::sys::unit_files::{self, UnitFileCache};

pub(super) const BUS_NAME: &str = "org.freedesktop.systemd1";
pub(super) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long systemd may take to answer a question.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to read all units again: systemd's own limit (`DAEMON_RELOAD_TIMEOUT_SEC`).
const RELOAD_LIMIT: Duration = Duration::from_secs(180);
/// How many questions are asked before the first is answered; buses limit the replies that one connection may be owed.
const PIPELINE_LENGTH: usize = 64;

/// A connection to systemd, made when it is first needed and again when the bus went away.
pub struct Systemd {
    available: bool,
    session: Mutex<Session>,
    unit_files: Mutex<UnitFileCache>,
}

/// The runtime that drives the connection, and the connection.
#[derive(Default)]
struct Session {
    runtime: Option<Runtime>,
    connection: Option<Connection>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // dropping it would panic inside another runtime
        }
    }
}

impl fmt::Debug for Systemd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Systemd")
            .field("available", &self.available)
            .finish_non_exhaustive()
    }
}

/// Why systemd did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// There is no systemd, or no bus to reach it.
    Unavailable(String),
    /// It answered with an error.
    Refused {
        /// The D-Bus error's name.
        name: String,
        /// What it says.
        message: String,
    },
    /// It did not answer in time.
    TimedOut(Duration),
    /// The answer was not what the interface promises.
    Malformed(String),
}

impl Error {
    /// Is it that the unit, or the unit's file, does not exist.
    pub fn is_missing_unit(&self) -> bool {
        matches!(self, Error::Refused { name, .. } if name == "org.freedesktop.systemd1.NoSuchUnit"
            || name == "org.freedesktop.DBus.Error.FileNotFound")
    }

    /// The failure people read, after `action`: `failed to <action>: …`.
    pub fn into_failure(self, action: &str) -> Failure {
        let class = match self {
            Error::Unavailable(_) | Error::Refused { .. } => Class::Host,
            Error::TimedOut(_) => Class::Transient,
            Error::Malformed(_) => Class::Bug,
        };
        let failure = Failure::new(class, format!("failed to {action}: {self}"));
        match self {
            Error::Unavailable(_) => {
                failure.with_hint("units need a running systemd and its D-Bus (dbus.service)")
            }
            _ => failure,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unavailable(cause) => f.write_str(cause),
            Error::Refused { message, .. } => f.write_str(message.trim_end_matches('.')),
            Error::TimedOut(limit) => {
                write!(f, "systemd did not answer within {} s", limit.as_secs())
            }
            Error::Malformed(cause) => write!(f, "systemd's answer was not understood: {cause}"),
        }
    }
}

impl std::error::Error for Error {}

/// One unit as systemd lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUnit {
    /// Its primary name; another one than was asked for when that was an alias.
    pub id: String,
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`, `reloading`.
    pub active: String,
    /// The kind's own finer state: `running`, `exited`, `auto-restart`, …
    pub sub: String,
    /// The job that waits for it or runs, as its state is about to change: `start`, `stop`, `restart`, …; empty where there is none.
    pub job: String,
    /// The unit's D-Bus object, for [`Systemd::properties`].
    pub object: String,
}

/// One property to read: an object, an interface below `org.freedesktop.systemd1.`, and a name.
#[derive(Debug, Clone, Copy)]
pub struct PropertyName<'a> {
    /// The D-Bus object.
    pub object: &'a str,
    /// `Unit`, `Service`, …
    pub interface: &'static str,
    /// The property.
    pub name: &'static str,
}

/// A property's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Property {
    /// A boolean.
    Flag(bool),
    /// A text.
    Text(String),
    /// An integer.
    Number(i64),
    /// Any other type.
    Other,
}

impl Systemd {
    /// A connection that is not made yet; with `available` false every call fails and says that there is no systemd.
    pub fn new(available: bool) -> Self {
        Systemd {
            // sd_booted(3): the directory exists exactly where systemd is the running manager.
            available: available && Path::new("/run/systemd/system").is_dir(),
            session: Mutex::default(),
            unit_files: Mutex::default(),
        }
    }

    /// Is this a machine with a running systemd.
    pub fn is_available(&self) -> bool {
        self.available
    }

    /// The named units in one call, in the order asked; units that are not loaded are loaded. Names must be valid and no templates.
    pub fn list_units(&self, names: &[String]) -> Result<Vec<ListedUnit>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let listed: Vec<UnitRow> = self.run(ANSWER_LIMIT, async |connection| {
            call(
                &connection,
                MANAGER_PATH,
                MANAGER,
                "ListUnitsByNames",
                &names,
            )
            .await
        })?;
        if listed.len() != names.len() {
            return Err(Error::Malformed(format!(
                "{} units were asked for, {} came",
                names.len(),
                listed.len()
            )));
        }
        Ok(listed.into_iter().map(ListedUnit::from_row).collect())
    }

    /// The loaded units whose names fit a shell glob.
    pub fn list_units_like(&self, pattern: &str) -> Result<Vec<ListedUnit>, Error> {
        let states: [&str; 0] = [];
        let listed: Vec<UnitRow> = self.run(ANSWER_LIMIT, async |connection| {
            let body = (&states[..], &[pattern][..]);
            call(
                &connection,
                MANAGER_PATH,
                MANAGER,
                "ListUnitsByPatterns",
                &body,
            )
            .await
        })?;
        Ok(listed.into_iter().map(ListedUnit::from_row).collect())
    }

    /// How each unit's file is enabled, as it is on disk now: `enabled`, `disabled`, `static`, `masked`, …; an empty text when there
    /// is no such file.
    pub fn unit_file_states(&self, names: &[String]) -> Result<Vec<Result<String, Error>>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let marks = unit_files::read_marks(); // before asking: a change in between must not go unseen
        let mut cache = self.unit_files();
        let unknown: Vec<String> = names
            .iter()
            .filter(|name| cache.get(&marks, name).is_none())
            .cloned()
            .collect();
        let answers = self.ask_unit_file_states(&unknown)?;
        let fresh: HashMap<&String, Result<String, Error>> = unknown.iter().zip(answers).collect();
        for (name, answer) in &fresh {
            if let Ok(state) = answer {
                cache.remember(&marks, name, state);
            }
        }
        Ok(names
            .iter()
            .map(|name| match fresh.get(name) {
                Some(answer) => answer.clone(),
                None => Ok(cache.get(&marks, name).cloned().unwrap_or_default()),
            })
            .collect())
    }

    fn ask_unit_file_states(&self, names: &[String]) -> Result<Vec<Result<String, Error>>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.run(ANSWER_LIMIT, async |connection| {
            let questions = names.iter().map(|name| {
                let connection = connection.clone();
                let name = name.clone();
                async move {
                    call::<_, String>(
                        &connection,
                        MANAGER_PATH,
                        MANAGER,
                        "GetUnitFileState",
                        &name,
                    )
                    .await
                }
            });
            pipelined(questions.collect()).await
        })?;
        Ok(answers
            .into_iter()
            .map(|answer| match answer {
                Err(error) if error.is_missing_unit() => Ok(String::new()),
                answer => answer,
            })
            .collect())
    }

    fn unit_files(&self) -> MutexGuard<'_, UnitFileCache> {
        self.unit_files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Properties of units, all questions sent before the first answer is read.
    pub fn properties(
        &self,
        wanted: &[PropertyName<'_>],
    ) -> Result<Vec<Result<Property, Error>>, Error> {
        let answers = self.run(ANSWER_LIMIT, async |connection| {
            let questions = wanted.iter().map(|property| {
                let connection = connection.clone();
                let object = property.object.to_owned();
                let interface = format!("{BUS_NAME}.{}", property.interface);
                let name = property.name;
                async move {
                    let body = (interface.as_str(), name);
                    call::<_, OwnedVariant>(&connection, &object, PROPERTIES, "Get", &body).await
                }
            });
            pipelined(questions.collect()).await
        })?;
        Ok(answers
            .into_iter()
            .map(|answer| answer.map(|value| Property::from_variant(&value)))
            .collect())
    }

    /// Enables a unit: makes the links its `[Install]` section asks for, for good or until the next boot.
    pub fn enable(&self, unit: &str, is_runtime: bool) -> Result<(), Error> {
        self.unit_files().clear();
        let is_forced = false;
        let (_has_install, _links) = self.run(ANSWER_LIMIT, async |connection| {
            let body = (&[unit][..], is_runtime, is_forced);
            call::<_, (bool, Vec<LinkChange>)>(
                &connection,
                MANAGER_PATH,
                MANAGER,
                "EnableUnitFiles",
                &body,
            )
            .await
        })?;
        Ok(())
    }

    /// Disables a unit: removes its links, those until the next boot too.
    pub fn disable(&self, unit: &str) -> Result<(), Error> {
        self.remove_links("DisableUnitFiles", unit)
    }

    /// Masks a unit, for good or until the next boot: links it to nothing, so that nobody can start it.
    pub fn mask(&self, unit: &str, is_runtime: bool) -> Result<(), Error> {
        self.make_links("MaskUnitFiles", unit, is_runtime)
    }

    /// Makes a unit known whose file lies outside systemd's directories, for good or until the next boot.
    pub fn link(&self, file: &str, is_runtime: bool) -> Result<(), Error> {
        self.make_links("LinkUnitFiles", file, is_runtime)
    }

    fn make_links(&self, method: &'static str, file: &str, is_runtime: bool) -> Result<(), Error> {
        self.unit_files().clear();
        let is_forced = false;
        self.run(ANSWER_LIMIT, async |connection| {
            let body = (&[file][..], is_runtime, is_forced);
            call::<_, Vec<LinkChange>>(&connection, MANAGER_PATH, MANAGER, method, &body).await
        })?;
        Ok(())
    }

    /// Takes a mask away, also one that lasts until the next boot.
    pub fn unmask(&self, unit: &str) -> Result<(), Error> {
        self.remove_links("UnmaskUnitFiles", unit)
    }

    fn remove_links(&self, method: &'static str, unit: &str) -> Result<(), Error> {
        self.unit_files().clear();
        for is_runtime in [false, true] {
            let removed = self.run(ANSWER_LIMIT, async |connection| {
                let body = (&[unit][..], is_runtime);
                call::<_, Vec<LinkChange>>(&connection, MANAGER_PATH, MANAGER, method, &body).await
            });
            match removed {
                // The link that it was found by is gone with the others.
                Err(error) if is_runtime && error.is_missing_unit() => {}
                removed => drop(removed?),
            }
        }
        Ok(())
    }

    /// Reads all unit files again (`systemctl daemon-reload`).
    pub fn reload(&self) -> Result<(), Error> {
        self.unit_files().clear();
        self.run(RELOAD_LIMIT, async |connection| {
            call::<_, ()>(&connection, MANAGER_PATH, MANAGER, "Reload", &()).await
        })
    }

    /// Forgets that a unit failed, and its count of starts.
    pub fn reset_failed(&self, unit: &str) -> Result<(), Error> {
        self.run(ANSWER_LIMIT, async |connection| {
            call::<_, ()>(&connection, MANAGER_PATH, MANAGER, "ResetFailedUnit", &unit).await
        })
    }

    /// Starts a unit that exists only at run time. `properties` are those of `systemd.exec` and its siblings on D-Bus.
    pub(super) fn start_transient(
        &self,
        name: &str,
        properties: &[(&str, Variant<'_>)],
    ) -> Result<(), Error> {
        type Auxiliary<'a> = (&'a str, Vec<(&'a str, Variant<'a>)>);
        let auxiliary: Vec<Auxiliary<'_>> = Vec::new();
        let started = self.run(ANSWER_LIMIT, async |connection| {
            let body = (name, "fail", properties, &auxiliary);
            call::<_, OwnedObjectPath>(
                &connection,
                MANAGER_PATH,
                MANAGER,
                "StartTransientUnit",
                &body,
            )
            .await
        });
        match started {
            // The bus went away after the first try had reached systemd; names are never used twice.
            Err(Error::Refused { name, .. }) if name == "org.freedesktop.systemd1.UnitExists" => {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Runs an operation on the connection, with a new connection a second time when the first was lost on the way.
    pub(super) fn run<T>(
        &self,
        limit: Duration,
        operation: impl AsyncFn(Connection) -> Result<T, CallError>,
    ) -> Result<T, Error> {
        if !self.available {
            return Err(Error::Unavailable("systemd does not run here".to_owned()));
        }
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Session {
            runtime,
            connection,
        } = &mut *session;
        let runtime = match runtime {
            Some(runtime) => runtime,
            none => none.insert(
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|error| {
                        Error::Unavailable(format!("failed to prepare for D-Bus: {error}"))
                    })?,
            ),
        };
        let mut last = None;
        for _attempt in 0..2 {
            let attempt = async {
                let current = match connection {
                    Some(current) if !current.is_closed() => current.clone(),
                    _ => {
                        let new = Connection::system().await.map_err(|error| {
                            CallError::Lost(format!("failed to connect to D-Bus: {error}"))
                        })?;
                        connection.insert(new).clone()
                    }
                };
                operation(current).await
            };
            match runtime.block_on(async { tokio::time::timeout(limit, attempt).await }) {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(CallError::Answered(error))) => return Err(error),
                Ok(Err(CallError::Lost(cause))) => {
                    *connection = None;
                    last = Some(Error::Unavailable(cause));
                }
                Err(_elapsed) => {
                    *connection = None;
                    return Err(Error::TimedOut(limit));
                }
            }
        }
        Err(last.expect("the loop ends only after a lost connection"))
    }
}

/// One row of ListUnits: id, description, load, active, sub, following, object, job id, job type, job object.
type UnitRow = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// One link made or removed: what was done, the link, its target.
type LinkChange = (String, String, String);

impl ListedUnit {
    fn from_row(row: UnitRow) -> Self {
        ListedUnit {
            id: row.0,
            load: row.2,
            active: row.3,
            sub: row.4,
            job: if row.7 == 0 { String::new() } else { row.8 },
            object: row.6.as_str().to_owned(),
        }
    }
}

impl Property {
    fn from_variant(value: &Variant<'_>) -> Self {
        match value {
            Variant::Bool(flag) => Property::Flag(*flag),
            Variant::Str(text) => Property::Text(text.as_str().to_owned()),
            Variant::I32(number) => Property::Number((*number).into()),
            Variant::U32(number) => Property::Number((*number).into()),
            Variant::I64(number) => Property::Number(*number),
            Variant::U64(number) => Property::Number(i64::try_from(*number).unwrap_or(i64::MAX)),
            _ => Property::Other,
        }
    }
}

/// Why a call did not yield its value: for a lost connection another try helps.
#[derive(Debug)]
pub(super) enum CallError {
    Lost(String),
    Answered(Error),
}

impl From<zbus::Error> for CallError {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::InputOutput(cause) => CallError::Lost(cause.to_string()),
            zbus::Error::MethodError(name, message, _) => CallError::Answered(Error::Refused {
                message: message.unwrap_or_else(|| name.to_string()),
                name: name.to_string(),
            }),
            zbus::Error::FDO(error) => match *error {
                zbus::fdo::Error::Disconnected(cause) | zbus::fdo::Error::NoReply(cause) => {
                    CallError::Lost(cause)
                }
                error => {
                    let text = error.to_string();
                    let (name, message) = text.split_once(": ").unwrap_or((&text, &text));
                    CallError::Answered(Error::Refused {
                        name: name.to_owned(),
                        message: message.to_owned(),
                    })
                }
            },
            other => CallError::Answered(Error::Malformed(other.to_string())),
        }
    }
}

/// Calls one method and reads its answer.
pub(super) async fn call<B, R>(
    connection: &Connection,
    object: &str,
    interface: &str,
    method: &str,
    body: &B,
) -> Result<R, CallError>
where
    B: serde::Serialize + DynamicType,
    R: for<'d> DynamicDeserialize<'d>,
{
    let reply = connection
        .call_method(Some(BUS_NAME), object, Some(interface), method, body)
        .await?;
    Ok(reply.body().deserialize()?)
}

/// Asks all questions before reading the first answer. An error systemd answers is a value; a lost connection ends it all.
async fn pipelined<T: Send + 'static>(
    questions: Vec<impl Future<Output = Result<T, CallError>> + Send + 'static>,
) -> Result<Vec<Result<T, Error>>, CallError> {
    let mut answers = Vec::with_capacity(questions.len());
    let mut questions = questions.into_iter();
    loop {
        let asked: Vec<_> = questions
            .by_ref()
            .take(PIPELINE_LENGTH)
            .map(tokio::spawn)
            .collect();
        if asked.is_empty() {
            return Ok(answers);
        }
        for answer in asked {
            match answer.await {
                Ok(Ok(value)) => answers.push(Ok(value)),
                Ok(Err(CallError::Answered(error))) => answers.push(Err(error)),
                Ok(Err(lost)) => return Err(lost),
                Err(broken) => std::panic::resume_unwind(broken.into_panic()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::jobs::{Job, Verb};

    #[test]
    fn without_systemd_every_call_says_so() {
        let systemd = Systemd::new(false);
        let error = systemd.list_units(&["a.service".to_owned()]).unwrap_err();
        let failure = error.into_failure("list units");
        insta::assert_snapshot!(failure, @"failed to list units: systemd does not run here");
        assert_eq!(failure.class, Class::Host);
        let job = Job {
            verb: Verb::Start,
            unit: "a.service".to_owned(),
        };
        let results = systemd.run_jobs(&[job], Duration::ZERO);
        assert!(matches!(results.as_slice(), [Err(Error::Unavailable(_))]));
    }

    #[test]
    fn a_missing_unit_file_is_told_by_the_name_of_the_error() {
        let refused = |name: &str| Error::Refused {
            name: name.to_owned(),
            message: "Unit x.service not found.".to_owned(),
        };
        assert!(refused("org.freedesktop.systemd1.NoSuchUnit").is_missing_unit());
        assert!(refused("org.freedesktop.DBus.Error.FileNotFound").is_missing_unit());
        assert!(!refused("org.freedesktop.systemd1.UnitMasked").is_missing_unit());
        insta::assert_snapshot!(refused("x"), @"Unit x.service not found");
    }
}
