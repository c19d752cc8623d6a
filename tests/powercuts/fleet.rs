//! The generations that the guest applies one after the other, and how to tell which of them a file is of.

use std::fmt::Write as _;
use std::path::Path;

/// How many files every generation has.
const FILES: usize = 40;

/// What is on the machine before limpet is.
pub const BEFORE: &str = "
    mkdir -p /srv/many/00; echo before > /srv/many/00/0; chmod 0640 /srv/many/00/0; chown daemon:games /srv/many/00/0
    echo before > /etc/before.conf; chmod 0604 /etc/before.conf
    ln -s /before /srv/link";

/// What [`BEFORE`] made, as this prints it.
pub const LOOK_BEFORE: &str = "find /srv/many /srv/link /etc/before.conf -printf '%p %y %m %u:%g %l\\n' | sort; cat /srv/many/00/0 /etc/before.conf; systemctl is-active generation.service || true; test ! -e /etc/systemd/system/generation.service";

/// The layer of a generation; some have a file and a link that others have not.
pub fn layer(generation: usize) -> String {
    let mut text = format!("[file.\"/etc/generation\"]\ncontent = \"{generation}\\n\"\n");
    for number in 0..FILES {
        let _ = writeln!(
            text,
            "[file.\"{}\"]\ncontent = \"{}\"",
            path(number),
            content(generation, number)
        );
    }
    if generation % 2 == 1 {
        let _ = writeln!(
            text,
            "[file.\"/etc/before.conf\"]\nstate = \"absent\"\n[symlink.\"/srv/link\"]\ntarget = \"/{generation}\"\n[file.\"/srv/odd/file\"]\ncontent = \"odd\\n\""
        );
    }
    let _ = write!(
        text,
        "[unit.\"generation.service\"]\nenabled = true\nrunning = true\nrestart_on = [\"file:/etc/generation\"]\ncontent = \"\"\"\n[Service]\nExecStart=/bin/sh -c 'cat /etc/generation > /run/generation; exec sleep infinity'\n[Install]\nWantedBy=multi-user.target\n\"\"\"\n"
    );
    text
}

fn path(number: usize) -> String {
    format!("/srv/many/{:02}/{number}", number % 4)
}

/// Not all of one size, and long enough to be torn.
fn content(generation: usize, number: usize) -> String {
    format!("{generation} {number} ").repeat(50 + 40 * number)
}

/// Of which generation each file below `root` is; what is torn is named.
pub fn generations(root: &Path) -> Result<Vec<usize>, Vec<String>> {
    let mut found = Vec::new();
    let mut torn = Vec::new();
    for number in 0..FILES {
        let path = path(number);
        let text = std::fs::read_to_string(root.join(&path[1..])).unwrap_or_default();
        let of = text.split(' ').next().and_then(|word| word.parse().ok());
        match of {
            Some(of) if text == content(of, number) => found.push(of),
            _ => torn.push(format!("{path} is torn: {} bytes", text.len())),
        }
    }
    let text = std::fs::read_to_string(root.join("etc/generation")).unwrap_or_default();
    match text.trim().parse() {
        Ok(of) if text.ends_with('\n') => found.push(of),
        _ => torn.push(format!("/etc/generation is torn: {text:?}")),
    }
    if torn.is_empty() {
        Ok(found)
    } else {
        Err(torn)
    }
}
