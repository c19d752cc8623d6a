//! Who this machine is: its name, its machine-id and the facts that layers are matched by.
//!
//! *Facts* are `os`, `family`, `os_version` and `arch`, in the words of the fleet repository: `os` is the ID of os-release,
//! `family` is `debian` or `rhel`, `arch` is what Debian calls it (`amd64`).

use std::io::Read;
use std::path::Path;

use crate::model::{Class, Failure};
use crate::sys::Host;

/// What the fleet repository may match a host by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// ID of os-release: `debian`, `ubuntu`, `rocky`, …
    pub os: String,
    /// `debian` or `rhel`; empty for any other family.
    pub family: String,
    /// VERSION_ID of os-release; empty where the system has none (Debian testing).
    pub os_version: String,
    /// The processor in Debian's words: `amd64`, `arm64`, …
    pub arch: String,
}

impl Host {
    /// Is our name space of `kind`, as it is called below /proc/self/ns, that of the system's first process. Who may not see that has
    /// one of his own for all he knows.
    pub fn shares_name_space(&self, kind: &str) -> bool {
        use std::os::unix::fs::MetadataExt;
        let of = |process: &str| {
            #[allow(
                clippy::disallowed_methods,
                reason = "sys is where files are looked at"
            )]
            let found = std::fs::metadata(format!("/proc/{process}/ns/{kind}"));
            found.ok().map(|found| (found.dev(), found.ino()))
        };
        of("self").is_some_and(|ours| of("1") == Some(ours))
    }

    /// The host's name up to its first dot.
    pub fn read_short_name(&self) -> Result<String, Failure> {
        let name = if self.root() == Path::new("/") {
            nix::unistd::gethostname()
                .map_err(|error| {
                    Failure::new(
                        Class::Host,
                        format!("failed to read the hostname: {}", error.desc()),
                    )
                })?
                .to_string_lossy()
                .into_owned()
        } else {
            read_identity_file(self, "etc/hostname")?
        };
        let short = name.trim().split('.').next().unwrap_or_default();
        if short.is_empty() {
            return Err(
                Failure::new(Class::Host, "failed to read the hostname: it is empty").with_hint(
                    "set it with 'hostnamectl hostname NAME', or set host.name in the host configuration",
                ),
            );
        }
        Ok(short.to_owned())
    }

    /// The machine-id: 32 hexadecimal digits.
    pub fn read_machine_id(&self) -> Result<String, Failure> {
        let text = read_identity_file(self, "etc/machine-id")?;
        let id = text.trim();
        if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(id.to_ascii_lowercase())
        } else {
            Err(Failure::new(
                Class::Host,
                "failed to read '/etc/machine-id': it holds no machine-id",
            )
            .with_hint("run 'systemd-machine-id-setup'"))
        }
    }

    /// The facts as they are measured on this machine.
    pub fn read_facts(&self) -> Result<Facts, Failure> {
        let text = read_identity_file(self, "etc/os-release")
            .or_else(|_| read_identity_file(self, "usr/lib/os-release"))?;
        Ok(parse_facts(&text, std::env::consts::ARCH))
    }
}

/// Facts from the text of os-release and the processor's name in Rust's words.
pub fn parse_facts(os_release: &str, processor: &str) -> Facts {
    let field = |name: &str| -> String {
        os_release
            .lines()
            .rev() // the last assignment counts, as in a shell
            .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))
            .map(unquote)
            .unwrap_or_default()
    };
    let os = match field("ID") {
        id if id.is_empty() => "linux".to_owned(), // os-release(5): the default
        id => id,
    };
    let like = field("ID_LIKE");
    let names: Vec<&str> = std::iter::once(os.as_str())
        .chain(like.split_ascii_whitespace())
        .collect();
    let family = if names
        .iter()
        .any(|name| matches!(*name, "debian" | "ubuntu"))
    {
        "debian"
    } else if names
        .iter()
        .any(|name| matches!(*name, "rhel" | "fedora" | "centos"))
    {
        "rhel"
    } else {
        ""
    };
    Facts {
        family: family.to_owned(),
        os_version: field("VERSION_ID"),
        arch: debian_architecture(processor).to_owned(),
        os,
    }
}

/// What Debian calls a processor that Rust calls `processor`.
fn debian_architecture(processor: &str) -> &str {
    match processor {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        "arm" => "armhf",
        "powerpc64" => "ppc64el",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// A value of os-release without its quotes and escapes.
fn unquote(value: &str) -> String {
    let value = value.trim();
    let inner = ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value);
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    text
}

/// One of the small files that say who the machine is.
fn read_identity_file(host: &Host, path: &str) -> Result<String, Failure> {
    const LIMIT_BYTES: u64 = 64 << 10;
    let failed = |error: std::io::Error| {
        Failure::new(Class::Host, format!("failed to read '/{path}': {error}"))
    };
    #[allow(clippy::disallowed_methods, reason = "sys is where files are opened")]
    let file = std::fs::File::open(host.root().join(path)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LIMIT_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(os_release: &str, processor: &str, expected: [&str; 4]) {
        let facts = parse_facts(os_release, processor);
        assert_eq!(
            [
                facts.os.as_str(),
                facts.family.as_str(),
                facts.os_version.as_str(),
                facts.arch.as_str()
            ],
            expected,
            "{os_release:?}"
        );
    }

    #[test]
    fn facts_come_from_os_release_and_the_processor() {
        check(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n",
            "x86_64",
            ["debian", "debian", "12", "amd64"],
        );
        check(
            "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n",
            "aarch64",
            ["ubuntu", "debian", "24.04", "arm64"],
        );
        check(
            "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\n",
            "x86_64",
            ["rocky", "rhel", "9.4", "amd64"],
        );
        check(
            "ID=fedora\nVERSION_ID=41\n",
            "riscv64",
            ["fedora", "rhel", "41", "riscv64"],
        );
        check("ID='arch'\n", "x86_64", ["arch", "", "", "amd64"]);
        check("", "x86_64", ["linux", "", "", "amd64"]);
    }

    #[test]
    fn name_and_machine_id_are_read_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        #[allow(clippy::disallowed_methods, reason = "the test's own directory")]
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert!(host.read_short_name().is_err());
        write("etc/hostname", "gw-lag-02.example.net\n");
        write("etc/machine-id", "uninitialized\n");
        assert_eq!(host.read_short_name().unwrap(), "gw-lag-02");
        insta::assert_snapshot!(host.read_machine_id().unwrap_err(), @"failed to read '/etc/machine-id': it holds no machine-id");
        write("etc/machine-id", "22823BA60c0d4f0f9a3f2a3f5b9c7d11\n");
        assert_eq!(
            host.read_machine_id().unwrap(),
            "22823ba60c0d4f0f9a3f2a3f5b9c7d11"
        );
        write("usr/lib/os-release", "ID=debian\nVERSION_ID=12\n");
        assert_eq!(host.read_facts().unwrap().os_version, "12");
    }

    proptest! {
        #[test]
        fn any_os_release_yields_facts(text in "\\PC*") {
            parse_facts(&text, "x86_64");
        }
    }
}
