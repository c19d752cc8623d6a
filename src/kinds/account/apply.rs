//! Making changes with the distribution's own tools.

use crate::kinds::account::{AccountChange, Edit, UserEdit, UserSpec};
use crate::model::{Class, Failure, Kind};
use crate::sys::Host;
use crate::sys::command::Command;

/// A new system user that says nothing else gets this shell.
const NO_LOGIN: &str = "/usr/sbin/nologin";

/// Makes one change. Safe to repeat: what is there already is only brought to what is wanted.
pub(super) fn make(host: &Host, change: &AccountChange) -> Result<(), Failure> {
    let name = change.id.name.as_str();
    match &change.edit {
        Edit::MakeGroup { gid, system } => {
            let mut argv = words(&["groupadd"]);
            if let Some(gid) = gid {
                argv.extend([words(&["--gid"]), vec![gid.to_string()]].concat());
            }
            if *system {
                argv.push("--system".to_owned());
            }
            run(host, argv, name)
        }
        Edit::RemoveGroup => run(host, words(&["groupdel"]), name),
        Edit::RemoveUser => run(host, words(&["userdel"]), name),
        Edit::MakeUser(user) => make_user(host, name, user),
        Edit::ChangeUser(edit) => change_user(host, name, edit),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn run(host: &Host, mut argv: Vec<String>, name: &str) -> Result<(), Failure> {
    argv.push(name.to_owned());
    run_as(host, argv, None, None)
}

fn run_as(
    host: &Host,
    argv: Vec<String>,
    user: Option<&str>,
    input: Option<&str>,
) -> Result<(), Failure> {
    let shown = argv.join(" ");
    let command = Command {
        argv,
        user: user.map(str::to_owned),
        input: input.map(|input| input.as_bytes().to_vec()),
        inside_root: true,
        ..Command::default()
    };
    let result = host.run_outside(&command)?;
    if result.is_success() {
        return Ok(());
    }
    Err(Failure::new(
        Class::Host,
        format!("failed to run '{shown}': it {}", result.complaint()),
    )
    .with_hint(
        "put right what it complains of; it is tried again after a rest, or now with 'limpet sync'",
    ))
}

fn make_user(host: &Host, name: &str, user: &UserSpec) -> Result<(), Failure> {
    let mut argv = words(&["useradd"]);
    let mut option = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            argv.extend([name.to_owned(), value.to_owned()]);
        }
    };
    let uid = user.uid.map(|uid| uid.to_string());
    option("--uid", uid.as_deref());
    // A group of its name that is there already is taken for its own.
    let group = match &user.group {
        Some(group) => Some(group.as_str()),
        None if host.group_id(name)?.is_some() => Some(name),
        None => None,
    };
    option("--gid", group);
    let groups = user
        .groups
        .as_ref()
        .map(list)
        .filter(|groups| !groups.is_empty());
    option("--groups", groups.as_deref());
    let shell = match (&user.shell, user.system) {
        (Some(shell), _) => Some(shell.as_str()),
        (None, true) => Some(NO_LOGIN),
        (None, false) => None,
    };
    option("--shell", shell);
    option("--home-dir", user.home.as_deref());
    if group.is_none() {
        argv.push("--user-group".to_owned());
    }
    argv.push(match user.system {
        true => "--system".to_owned(),
        false => "--create-home".to_owned(),
    });
    run(host, argv, name)?;
    if user.locked {
        lock(host, name)?;
    }
    match &user.keys {
        Some(keys) if !keys.is_empty() => write_keys(host, name, Some(keys)),
        _ => Ok(()),
    }
}

fn change_user(host: &Host, name: &str, edit: &UserEdit) -> Result<(), Failure> {
    let mut argv = words(&["usermod"]);
    let groups = edit.groups.as_ref().map(list);
    let options = [
        ("--gid", edit.group.as_deref()),
        ("--groups", groups.as_deref()),
        ("--shell", edit.shell.as_deref()),
        ("--home", edit.home.as_deref()),
    ];
    for (option, value) in options {
        if let Some(value) = value {
            argv.extend([option.to_owned(), value.to_owned()]);
        }
    }
    // Who is to be kept out is kept out first, and who is let in is let in last.
    if edit.locked == Some(true) {
        lock(host, name)?;
    }
    if argv.len() > 1 {
        run(host, argv, name)?;
    }
    if let Some(keys) = &edit.keys {
        write_keys(host, name, keys.as_deref())?;
    }
    if edit.locked == Some(false) {
        run(host, words(&["usermod", "--expiredate", ""]), name)?;
    }
    Ok(())
}

/// The account expires in 1970: no password, key or token lets anybody in (usermod(8), `--lock`).
fn lock(host: &Host, name: &str) -> Result<(), Failure> {
    run(host, words(&["usermod", "--expiredate", "1"]), name)
}

fn list(groups: &std::collections::BTreeSet<String>) -> String {
    groups.iter().cloned().collect::<Vec<_>>().join(",")
}

/// Replaces the file of keys, or deletes it: as the user, in whose directory it is.
fn write_keys(host: &Host, name: &str, keys: Option<&str>) -> Result<(), Failure> {
    let Some(home) = host.home_of(name)? else {
        return Err(Failure::new(
            Class::Host,
            format!(
                "failed to write the keys of {}:{name}: it has no home directory",
                Kind::User
            ),
        )
        .with_hint("give it a home that exists, or leave out authorized_keys"));
    };
    let directory = format!("{home}/.ssh");
    let file = format!("{directory}/authorized_keys");
    let candidate = format!("{file}.limpet");
    let as_user = |argv: &[&str], input| run_as(host, words(argv), Some(name), input);
    match keys {
        None => as_user(&["rm", "--force", "--", &file], None),
        Some(keys) => {
            as_user(
                &["install", "--directory", "--mode=0700", "--", &directory],
                None,
            )?;
            as_user(&["rm", "--force", "--", &candidate], None)?;
            let output = format!("of={candidate}");
            as_user(&["dd", "status=none", &output], Some(keys))?;
            as_user(
                &[
                    "mv",
                    "--force",
                    "--no-target-directory",
                    "--",
                    &candidate,
                    &file,
                ],
                None,
            )
        }
    }
}
