//! What other programs of the machine take away: the bus, the package manager's lock, the right time.

use crate::bad_days::{
    FILE, declared, declared_when_asked, drift_is_undone, drift_is_undone_unasked,
    journal_is_quiet, layer, status_says,
};
use crate::fixture::apt_repository::{AptRepository, Package};
use crate::fixture::machine::{Machine, wait_until};
use crate::fixture::repository::Key;
use crate::scene::{LAYER, SOON, SUBJECT, Scene};

const OPERATOR: &str = "the operator of this host";

#[test]
fn a_bus_that_is_gone_stops_only_units_and_comes_back() {
    let unit = "[unit.\"service.service\"]\nrunning = true\n\
                content = \"[Service]\\nExecStart=/bin/sleep infinity\\n\"\n";
    let scene = Scene::enrolled("bus", &layer("first", unit));
    let machine = &scene.machine;
    scene.poll_often();
    let is_up = || machine.is_active("service.service").then_some(());

    // Killed: systemd starts it again when somebody asks for it.
    for _ in 0..3 {
        machine.sh("systemctl kill --signal=KILL dbus.service; systemctl stop service.service");
        drift_is_undone(&scene, "first");
        wait_until("the unit after a killed bus", SOON, is_up);
    }

    machine.sh("systemctl stop service.service; systemctl stop dbus.socket dbus.service");
    let pid = machine.main_pid("limpet.service");
    drift_is_undone(&scene, "first");
    drift_is_undone_unasked(&scene, "first");
    status_says(&scene, "degraded", "D-Bus", OPERATOR);
    journal_is_quiet(&scene);
    assert!(!machine.is_active("service.service"));
    machine.sh("systemctl start dbus.socket");
    wait_until("the unit, without anybody asking", SOON, is_up);
    wait_until("a converged host", SOON, || {
        (scene.status()["state"] == "converged").then_some(())
    });
    assert_eq!(machine.main_pid("limpet.service"), pid);

    // An agent that starts without a bus.
    machine.sh("systemctl stop limpet.service service.service dbus.socket dbus.service; systemctl start limpet.service");
    drift_is_undone_unasked(&scene, "first");
    status_says(&scene, "degraded", "D-Bus", OPERATOR);
    let pid = machine.main_pid("limpet.service");
    machine.sh("systemctl start dbus.socket");
    wait_until("the unit, without anybody asking", SOON, is_up);
    assert_eq!(machine.main_pid("limpet.service"), pid);
}

/// Takes dpkg's lock as dpkg does, and keeps it.
const HOLDER: &str = r#"
use Fcntl;
open my $lock, "+>", "/var/lib/dpkg/lock-frontend" or die;
my $whole = pack("s s x4 q q l x4", F_WRLCK, 0, 0, 0, 0);
fcntl $lock, F_SETLK, $whole or die;
open my $mark, ">", "/run/lock-is-held" or die;
close $mark;
sleep 600;
"#;

/// Lets `holder.service` hold dpkg's lock until it is stopped; returns its process.
pub fn hold_the_package_lock(machine: &Machine) -> u32 {
    machine.write_file("/root/holder.pl", HOLDER);
    machine.sh("systemd-run --quiet --unit=holder perl /root/holder.pl");
    wait_until("the lock", SOON, || {
        machine.exists("/run/lock-is-held").then_some(())
    });
    machine.main_pid("holder.service")
}

#[test]
fn a_held_dpkg_lock_keeps_only_packages_waiting() {
    let service = "[package]\ntool = \"installed\"\nother = \"installed\"\n\
                   [unit.\"service.service\"]\nrunning = true\n\
                   content = \"[Service]\\nExecStart=/bin/sleep infinity\\n\"\n";
    let scene = Scene::prepared("dpkg-lock", &layer("first", ""));
    let packages = [Package::new("tool", "1.0"), Package::new("other", "1.0")];
    AptRepository::new(&packages).copy_to(&scene.machine);
    scene.enroll().success();
    scene.converge();
    let machine = &scene.machine;
    let holder = hold_the_package_lock(machine);

    scene.declare(&layer("second", service));
    let began = std::time::Instant::now();
    scene.sync();
    let took = began.elapsed();
    assert!(took < SOON, "a cycle waited {took:?} for the lock");
    assert_eq!(machine.read_file(FILE), "second\n");
    assert!(machine.is_active("service.service"));
    let process = format!("process {holder} (perl)");
    let status = status_says(&scene, "degraded", &process, "nobody");
    assert_eq!(status["revision"], scene.head().as_str(), "{status:#}");
    drift_is_undone(&scene, "second");
    journal_is_quiet(&scene);

    machine.sh("systemctl stop holder.service");
    scene.converge();
    let installed = machine.sh("dpkg-query -W -f '${Package} ${db:Status-Status}\\n' tool other");
    assert_eq!(installed, "other installed\ntool installed\n");
}

/// What the preloaded library reads the time from, each time anew.
const TIME_FILE: &str = "/etc/time";

/// The agent and the fetcher see the time that [`TIME_FILE`] says: an offset to the real one. The clock that only counts stays right, as
/// it does on a machine whose clock is set.
fn fake_the_time(scene: &Scene) {
    let library = std::fs::read_dir("/usr/lib/x86_64-linux-gnu/faketime")
        .or_else(|_| std::fs::read_dir("/usr/lib/aarch64-linux-gnu/faketime"))
        .expect("libfaketime is installed")
        .filter_map(Result::ok)
        .find(|entry| entry.file_name() == "libfaketime.so.1")
        .expect("libfaketime.so.1 is installed");
    let library = std::fs::read(library.path()).expect("the library is readable");
    // The fetcher executes only what lies below /usr/lib.
    let inside = "/usr/lib/libfaketime.so.1";
    scene.machine.write_file(inside, library);
    for unit in ["limpet.service", "limpet-fetch.service"] {
        scene.machine.write_file(
            &format!("/etc/systemd/system/{unit}.d/time.conf"),
            format!(
                "[Service]\nEnvironment=LD_PRELOAD={inside} FAKETIME_TIMESTAMP_FILE={TIME_FILE} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_RESET=1\n"
            ),
        );
    }
    scene.machine.write_file(TIME_FILE, "+0\n");
    scene.machine.sh("systemctl daemon-reload; systemctl stop limpet-fetch.service; systemctl restart limpet.service");
}

#[test]
fn a_wrong_clock_stops_nothing_that_is_in_force() {
    let unit = "[unit.\"service.service\"]\nrunning = true\n\
                content = \"[Service]\\nExecStartPre=/usr/bin/test ! -e /run/broken\\n\
                ExecStart=/bin/sleep infinity\\n\"\n";
    let scene = Scene::enrolled("clock", &layer("first", unit));
    fake_the_time(&scene);
    scene.converge();
    scene.poll_often();
    let machine = &scene.machine;
    for (year, offset, again) in [("210", "+74y", "second"), ("197", "-56y", "third")] {
        let before = machine.read_file(FILE).trim().to_owned();
        machine.write_file(TIME_FILE, format!("{offset}\n"));
        machine.sh("systemctl stop limpet-fetch.service; systemctl restart limpet.service");
        drift_is_undone_unasked(&scene, &before);
        drift_is_undone(&scene, &before);
        let status = status_says(&scene, "unreachable", "not valid now", OPERATOR);
        let polled = status["last_poll"]["at"].as_str().unwrap_or_default();
        assert!(
            polled.starts_with(year),
            "the agent sees another time than it should: {polled}"
        );
        assert!(
            status["errors"].to_string().contains("this host's clock"),
            "{status:#}"
        );
        journal_is_quiet(&scene);

        // What fails while the clock is wrong rests for a minute, not until that time comes.
        machine.sh("touch /run/broken; systemctl stop service.service");
        scene.sync();
        status_says(&scene, "degraded", "service.service", OPERATOR);
        machine.sh("rm /run/broken");
        let pid = machine.main_pid("limpet.service");
        scene.declare(&layer(again, unit));
        machine.write_file(TIME_FILE, "+0\n");
        declared(&scene, again);
        wait_until("the unit, without anybody asking", SOON * 4, || {
            machine.is_active("service.service").then_some(())
        });
        wait_until("a converged host", SOON, || {
            (scene.status()["state"] == "converged").then_some(())
        });
        assert_eq!(machine.main_pid("limpet.service"), pid);
        let since = scene.status()["since"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(since.as_str() < "2099", "{since}");
    }
}

#[test]
fn neither_a_clock_in_1970_nor_a_year_off_revives_a_key() {
    let scene = Scene::prepared("year", &layer("first", ""));
    let (machine, repository) = (&scene.machine, &scene.repository);
    // From a file, because no certificate of a server is valid in another century.
    let publish = || {
        let file = repository.directory().join("fleet.bundle");
        repository.git(&["bundle", "create", "-q", file.to_str().unwrap(), "main"]);
        let bytes = std::fs::read(&file).expect("the bundle is readable");
        machine.write_file("/srv/fleet.bundle.new", bytes);
        machine.sh("chmod 644 /srv/fleet.bundle.new; mv /srv/fleet.bundle.new /srv/fleet.bundle");
    };
    let change = |key: &Key, content: &str| {
        repository.write(LAYER, &layer(content, ""));
        repository.commit(key, SUBJECT);
        publish();
    };
    let [old, carol] = ["old", "carol"].map(|name| repository.key(name));
    let in_a_year = machine.sh("date -u -d '1 year' +%Y%m%dZ");
    let until = |time: &str| format!("namespaces=\"git\",valid-before=\"{}\"", time.trim());
    let signers = [
        scene.alice.allowed(),
        old.allowed_with(&until("20240101Z")),
        carol.allowed_with(&until(&in_a_year)),
    ];
    machine.write_file("/root/allowed_signers", signers.concat());
    publish();
    let anchor = scene.head();
    machine
        .run(&[
            "limpet",
            "enroll",
            "/srv/fleet.bundle",
            "--anchor",
            &anchor,
            "--allowed-signers",
            "/root/allowed_signers",
            "--name",
            "scene",
            "--yes",
        ])
        .success();
    fake_the_time(&scene);
    scene.converge();
    let set_clock = |offset: &str| {
        machine.write_file(TIME_FILE, format!("{offset}\n"));
        machine.sh("systemctl stop limpet-fetch.service; systemctl restart limpet.service");
    };
    let reason = || scene.status()["errors"].to_string();

    set_clock("-56y");
    let before = scene.head();
    change(&old, "by a key that has expired");
    scene.refuses(&before);
    assert!(reason().contains("expired at 2024-01-01"), "{}", reason());
    // Whose key is valid still may, whatever the clock says.
    change(&scene.alice, "by alice");
    declared_when_asked(&scene, "by alice");

    // Two years later, with what was signed in time.
    change(&carol, "by carol, in time");
    set_clock("+2y");
    scene.sync();
    assert!(reason().contains("expired at"), "{}", reason());
    assert_eq!(machine.read_file(FILE), "by alice\n");
    change(&scene.alice, "by alice again");
    declared_when_asked(&scene, "by alice again");

    // Nobody is left who may: what is in force stays, and who can help is told.
    machine.write_file(
        "/etc/limpet/allowed_signers",
        carol.allowed_with(&until(&in_a_year)),
    );
    let before = scene.head();
    change(&carol, "too late");
    scene.refuses(&before);
    assert!(
        reason().contains("extend the key's valid-before"),
        "{}",
        reason()
    );
    drift_is_undone(&scene, "by alice again");
}

#[test]
fn a_broken_configuration_keeps_the_running_one_and_is_named() {
    let scene = Scene::enrolled("config", &layer("first", ""));
    let machine = &scene.machine;
    scene.poll_often();
    let good = machine.read_file("/etc/limpet/limpet.toml");
    for (broken, text) in [
        ("[source\n", "limpet.toml:1"),
        ("[source]\nurll = \"https://x.test/\"\n", "urll"),
    ] {
        machine.write_file("/etc/limpet/limpet.toml", broken);
        machine.run(&["systemctl", "reload", "limpet.service"]);
        drift_is_undone(&scene, "first");
        status_says(&scene, "config", text, OPERATOR);
        journal_is_quiet(&scene);

        // An agent does not start on it: it says so once, and waits for a person.
        machine.run(&["systemctl", "restart", "limpet.service"]);
        wait_until("the end of the agent", SOON, || {
            let state = machine.sh("systemctl show --property=ActiveState --value limpet.service");
            (state.trim() == "failed").then_some(())
        });
        let status = machine.run(&["limpet", "status", "--json"]);
        assert!(
            (status.stdout + &status.stderr).contains(text),
            "the status does not say '{text}'"
        );
        // The unit that looks after a version that cannot start speaks for the first failure,
        // perhaps only now: its line must not be counted with what follows.
        recovery_is_at_rest(machine);
        let cursor = machine.journal_cursor();
        machine.run(&["systemctl", "restart", "limpet.service"]);
        wait_until("the end of the agent", SOON, || {
            let state = machine.sh("systemctl show --property=ActiveState --value limpet.service");
            (state.trim() == "failed").then_some(())
        });
        recovery_is_at_rest(machine);
        let mut said: Vec<_> = machine
            .journal_after(&cursor, "SYSLOG_IDENTIFIER", "limpet")
            .iter()
            .map(|entry| entry["MESSAGE"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert!(said.iter().any(|line| line.contains(text)), "{said:#?}");
        let lines = said.len();
        said.sort();
        said.dedup();
        assert_eq!(said.len(), lines, "a line was said twice: {said:#?}");
        assert!(lines <= 4, "{said:#?}");
        machine.write_file("/etc/limpet/limpet.toml", &good);
        machine.sh("systemctl reset-failed limpet.service; systemctl start limpet.service");
        drift_is_undone_unasked(&scene, "first");
        scene.converge();
    }
}

/// Waits until the recovery unit has nothing to do and nothing queued.
fn recovery_is_at_rest(machine: &Machine) {
    wait_until("the rest of limpet-recover.service", SOON, || {
        let queued = machine.sh("systemctl list-jobs --no-legend limpet-recover.service");
        let state =
            machine.sh("systemctl show --property=ActiveState --value limpet-recover.service");
        (queued.trim().is_empty() && state.trim() == "inactive").then_some(())
    });
}
