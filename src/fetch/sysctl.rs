//! Live values of the kernel's parameters that belong to the network, read on behalf of the applier, which has another.
//!
//! Invariant: nothing but a value below /proc/sys/net is read, and no more of it than a value has.

use std::fs::File;
use std::io::{self, Read};

use super::protocol::Seen;
use crate::model::{is_network_sysctl, sysctl_path};

/// The longest value that is told, in bytes.
const MAX_VALUE_BYTES: u64 = 512;

/// What is there now, in the order of the names.
pub fn look(names: &[String]) -> Vec<Seen> {
    names.iter().map(|name| look_at(name)).collect()
}

fn look_at(name: &str) -> Seen {
    let path = sysctl_path(name).filter(|_| is_network_sysctl(name));
    let Some(path) = path.map(|path| format!("/proc/sys/{path}")) else {
        return Seen::Unreadable(format!("'{name}' is no parameter of the network"));
    };
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = File::open(&path)?.take(MAX_VALUE_BYTES + 1);
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > MAX_VALUE_BYTES => {
            Seen::Unreadable(format!("'{path}' has more than {MAX_VALUE_BYTES} bytes"))
        }
        Ok(bytes) => Seen::Value(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Seen::Missing,
        Err(error) => Seen::Unreadable(format!("failed to read '{path}': {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_the_network_is_told() {
        let names = ["net.ipv4.ip_forward", "net.ipv4.no_such_thing"].map(str::to_owned);
        let seen = look(&names);
        assert!(
            matches!(&seen[0], Seen::Value(value) if value.ends_with('\n')),
            "{seen:?}"
        );
        assert_eq!(seen[1], Seen::Missing);
        for name in [
            "kernel.ostype",
            "net/../kernel.ostype",
            "net.//..kernel",
            "/etc/passwd",
        ] {
            let seen = look(&[name.to_owned()]);
            assert!(matches!(seen[0], Seen::Unreadable(_)), "{name}: {seen:?}");
        }
    }
}
