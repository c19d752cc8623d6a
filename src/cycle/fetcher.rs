//! Whether the fetcher's unit starts at all.
//!
//! The socket accepts a question whatever becomes of the service behind it, so that a fetcher that cannot start looks like one that
//! takes its time. systemd knows which it is.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::systemd::{Error, Property, PropertyName};

/// The fetcher's unit.
pub const UNIT: &str = "limpet-fetch.service";

/// How often it is seen whether a fetcher that says nothing runs at all.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What is seen of the fetcher while its answer is waited for.
#[derive(Debug, Default)]
pub struct Watch {
    /// When the process started that had failed when it was looked at before.
    failed_before: Option<i64>,
}

impl Watch {
    /// Why no answer is to be expected, if so: the fetcher failed in a way that the next start will not mend. One that was killed is
    /// started again by its socket, and answers.
    pub fn look(&mut self, host: &Host) -> Option<Failure> {
        let seen = Seen::look(host).ok()??;
        let is_hopeless = seen.is_hopeless();
        // Two processes in a row that ended badly, and the question is still open.
        let is_again = self
            .failed_before
            .is_some_and(|before| before != seen.started_at);
        self.failed_before = Some(seen.started_at);
        (is_hopeless || is_again).then(|| seen.failure())
    }
}

/// What `ask` returns, which asks the fetcher's unit and may take long; a failure as soon as it is seen that it does not start.
pub fn ask_watched<T: Send + 'static>(
    host: &Host,
    ask: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (tell, answers) = mpsc::channel();
    let failed = |cause: &dyn std::fmt::Display| {
        Failure::new(Class::Bug, format!("failed to ask the fetcher: {cause}"))
    };
    std::thread::Builder::new()
        .name("poll".to_owned())
        // Nobody listens any more where the fetcher was given up.
        .spawn(move || tell.send(ask()).unwrap_or_default())
        .map_err(|error| failed(&error))?;
    let mut watch = Watch::default();
    loop {
        match answers.recv_timeout(LOOK_INTERVAL) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => return Err(failed(&"it panicked")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(failure) = watch.look(host) {
            return Err(failure);
        }
    }
}

/// Why the fetcher does not start, as far as one look tells.
pub fn trouble(host: &Host) -> Option<Failure> {
    let seen = Seen::look(host).ok()??;
    seen.is_hopeless().then(|| seen.failure())
}

/// A fetcher that has failed.
struct Seen {
    load: String,
    result: String,
    status: i64,
    is_exit: bool,
    started_at: i64,
}

impl Seen {
    /// None when the fetcher runs, or ended as it should.
    fn look(host: &Host) -> Result<Option<Self>, Error> {
        if !host.systemd().is_available() {
            return Ok(None);
        }
        let listed = host.systemd().list_units(&[UNIT.to_owned()])?;
        let Some(unit) = listed.into_iter().next() else {
            return Ok(None);
        };
        let property = |name| PropertyName {
            object: &unit.object,
            interface: "Service",
            name,
        };
        let wanted = [
            "Result",
            "ExecMainCode",
            "ExecMainStatus",
            "ExecMainStartTimestampMonotonic",
        ];
        let mut values = host
            .systemd()
            .properties(&wanted.map(property))?
            .into_iter();
        let mut next = || values.next().and_then(Result::ok);
        let result = match next() {
            Some(Property::Text(result)) => result,
            _ => String::new(),
        };
        let mut number = || match next() {
            Some(Property::Number(number)) => number,
            _ => 0,
        };
        let (code, status, started_at) = (number(), number(), number());
        let is_loaded = unit.load == "loaded";
        // Between two attempts it is stopping, for as long as its ExecStopPost= takes.
        let is_down = matches!(unit.active.as_str(), "failed" | "deactivating" | "inactive");
        let has_failed = is_down && !matches!(result.as_str(), "success" | "");
        Ok((!is_loaded || has_failed).then_some(Seen {
            load: unit.load,
            result,
            status,
            is_exit: code == 1, // CLD_EXITED
            started_at,
        }))
    }

    /// It was not killed: systemd could not start it, or it ended by itself, and the next one will do the same.
    fn is_hopeless(&self) -> bool {
        self.load != "loaded" || self.result == "resources" || self.is_exit
    }

    fn failure(&self) -> Failure {
        let cause = match self.load.as_str() {
            "loaded" => self.cause(),
            "not-found" => "it is not installed".to_owned(),
            "masked" => "it is masked".to_owned(),
            other => format!("systemd does not load it ({other})"),
        };
        Failure::new(Class::Host, format!("{UNIT} does not start: {cause}")).with_hint(format!(
            "see 'systemctl status {UNIT}' and 'journalctl -u {UNIT}'; put it right and run 'limpet sync --wait'"
        ))
    }

    fn cause(&self) -> String {
        let known = match self.status {
            200 => "its directory does not exist",
            203 => "its program cannot be executed",
            216 => "its group does not exist",
            217 => "its user does not exist",
            226 => "its sandbox cannot be set up",
            238 => "its cache directory cannot be made",
            243 => "a credential that it is to be given does not exist or cannot be read",
            78 => "it does not accept the host configuration",
            _ => "",
        };
        match (self.is_exit, known) {
            (false, _) => self.result.clone(),
            (true, "") => format!("it exited with status {}", self.status),
            (true, known) => format!("{known} (status {})", self.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(result: &str, is_exit: bool, status: i64) -> Seen {
        Seen {
            load: "loaded".to_owned(),
            result: result.to_owned(),
            status,
            is_exit,
            started_at: 1,
        }
    }

    #[test]
    fn a_program_that_systemd_cannot_start_is_hopeless_and_one_that_was_killed_is_not() {
        assert!(seen("exit-code", true, 243).is_hopeless());
        assert!(seen("resources", false, 0).is_hopeless());
        assert!(!seen("signal", false, 9).is_hopeless());
        assert!(!seen("oom-kill", false, 9).is_hopeless());
    }

    #[test]
    fn the_reason_is_told_in_words_where_systemd_has_only_a_number() {
        let told: Vec<String> = [
            seen("exit-code", true, 243),
            seen("exit-code", true, 70),
            seen("oom-kill", false, 9),
            Seen {
                load: "masked".to_owned(),
                ..seen("", false, 0)
            },
        ]
        .iter()
        .map(|seen| seen.failure().message)
        .collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        limpet-fetch.service does not start: a credential that it is to be given does not exist or cannot be read (status 243)
        limpet-fetch.service does not start: it exited with status 70
        limpet-fetch.service does not start: oom-kill
        limpet-fetch.service does not start: it is masked
        ");
    }
}
