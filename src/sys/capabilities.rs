//! File capabilities, as people write them (cap_from_text(3)) and as the kernel keeps them (`linux/capability.h`).
//!
//! Invariant: pure. What is written is exactly what was named: "all" means another set on another kernel, and is refused.

use std::fmt;

/// Their names, by number.
const NAMES: [&str; 41] = [
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
];

/// `VFS_CAP_REVISION_2`: two words of each set.
const REVISION_2: u32 = 0x0200_0000;
/// `VFS_CAP_REVISION_3`: the same, and for which root of a user namespace it holds.
const REVISION_3: u32 = 0x0300_0000;
/// `VFS_CAP_REVISION_MASK`.
const REVISION_MASK: u32 = 0xff00_0000;
/// `VFS_CAP_FLAGS_EFFECTIVE`.
const EFFECTIVE: u32 = 1;

/// What a program may do whoever starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    permitted: u64,
    inheritable: u64,
    /// There is one bit for all of them.
    is_effective: bool,
}

impl Capabilities {
    /// Reads clauses such as `cap_net_raw,cap_net_admin=ep cap_chown+i`; the error says what is wrong with which.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut permitted, mut inheritable, mut effective) = (0, 0, 0);
        for clause in text.split_whitespace() {
            let Some(at) = clause.find(['=', '+', '-']) else {
                return Err(format!(
                    "'{clause}' says nothing of its sets, as '=ep' does"
                ));
            };
            let (names, actions) = clause.split_at(at);
            let named = set_of(names)?;
            for (at, action) in actions.match_indices(['=', '+', '-']) {
                let flags = &actions[at + 1..];
                let flags = &flags[..flags.find(['=', '+', '-']).unwrap_or(flags.len())];
                if let Some(other) = flags.chars().find(|flag| !"eip".contains(*flag)) {
                    return Err(format!(
                        "'{other}' in '{clause}' is none of 'e', 'i' and 'p'"
                    ));
                }
                for (flag, set) in [
                    ('p', &mut permitted),
                    ('i', &mut inheritable),
                    ('e', &mut effective),
                ] {
                    let is_flagged = flags.contains(flag);
                    if action == "=" || (action == "-" && is_flagged) {
                        *set &= !named;
                    }
                    if action != "-" && is_flagged {
                        *set |= named;
                    }
                }
            }
        }
        if effective != 0 && effective != permitted | inheritable {
            return Err(
                "a file has one 'e' for all: give it to every capability, and only with 'p' or 'i'"
                    .to_owned(),
            );
        }
        if permitted | inheritable == 0 {
            return Err("it gives none".to_owned());
        }
        Ok(Capabilities {
            permitted,
            inheritable,
            is_effective: effective != 0,
        })
    }

    /// As the kernel keeps them.
    pub fn to_bytes(self) -> Vec<u8> {
        let words = [
            REVISION_2 | if self.is_effective { EFFECTIVE } else { 0 },
            self.permitted as u32,
            self.inheritable as u32,
            (self.permitted >> 32) as u32,
            (self.inheritable >> 32) as u32,
        ];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// What the kernel keeps; `None` where it is for the root of a user namespace, or unknown.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let words: Vec<u32> = bytes
            .chunks(4)
            .map(|word| Some(u32::from_le_bytes(word.try_into().ok()?)))
            .collect::<Option<_>>()?;
        let (magic, permitted, inheritable) = match *words.as_slice() {
            [magic, p0, i0, p1, i1] if magic & REVISION_MASK == REVISION_2 => {
                (magic, [p0, p1], [i0, i1])
            }
            [magic, p0, i0, p1, i1, 0] if magic & REVISION_MASK == REVISION_3 => {
                (magic, [p0, p1], [i0, i1])
            }
            _ => return None,
        };
        let joined = |[low, high]: [u32; 2]| u64::from(low) | u64::from(high) << 32;
        Some(Capabilities {
            permitted: joined(permitted),
            inheritable: joined(inheritable),
            is_effective: magic & EFFECTIVE != 0,
        })
    }
}

/// The capabilities in a list of names with commas.
fn set_of(names: &str) -> Result<u64, String> {
    if names.is_empty() || names.eq_ignore_ascii_case("all") {
        return Err("which are all differs between kernels: name each of them".to_owned());
    }
    let mut set = 0;
    for name in names.split(',') {
        match NAMES
            .iter()
            .position(|known| known.eq_ignore_ascii_case(name))
        {
            Some(number) => set |= 1 << number,
            None => return Err(format!("there is no capability '{name}'")),
        }
    }
    Ok(set)
}

/// One clause for each combination of sets; [`Capabilities::parse`] reads it.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (both, e) = (
            self.permitted & self.inheritable,
            if self.is_effective { "e" } else { "" },
        );
        let mut separator = "";
        for (set, flags) in [
            (both, "ip"),
            (self.permitted & !both, "p"),
            (self.inheritable & !both, "i"),
        ] {
            let names: Vec<String> = (0..64)
                .filter(|number| set & (1 << number) != 0)
                .map(|number| match NAMES.get(number) {
                    Some(name) => (*name).to_owned(),
                    None => format!("cap_{number}"),
                })
                .collect();
            if !names.is_empty() {
                write!(f, "{separator}{}={e}{flags}", names.join(","))?;
                separator = " ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let parsed = Capabilities::parse(text).map(|parsed| parsed.to_string());
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(parsed, expected, "{text}");
    }

    #[test]
    fn clauses_are_read_in_turn() {
        check("cap_net_raw=ep", Ok("cap_net_raw=ep"));
        check("CAP_NET_RAW+ep", Ok("cap_net_raw=ep"));
        check("cap_net_raw,cap_chown=p", Ok("cap_chown,cap_net_raw=p"));
        check("cap_chown=ep cap_kill+eip", Ok("cap_kill=eip cap_chown=ep"));
        check("cap_chown=eip cap_chown-i", Ok("cap_chown=ep"));
        check("cap_chown=i+p", Ok("cap_chown=ip"));
        check("cap_chown=ep cap_chown=i", Ok("cap_chown=i"));
        check("cap_bpf=p", Ok("cap_bpf=p"));
    }

    #[test]
    fn what_a_file_cannot_have_is_refused() {
        let one_e =
            "a file has one 'e' for all: give it to every capability, and only with 'p' or 'i'";
        let all = "which are all differs between kernels: name each of them";
        check("cap_chown=ep cap_kill=p", Err(one_e));
        check("cap_chown=e", Err(one_e));
        check("=ep", Err(all));
        check("all=ep", Err(all));
        check("", Err("it gives none"));
        check("cap_chown=", Err("it gives none"));
        check("cap_root=ep", Err("there is no capability 'cap_root'"));
        check("cap_chown,=ep", Err("there is no capability ''"));
        check(
            "cap_chown",
            Err("'cap_chown' says nothing of its sets, as '=ep' does"),
        );
        check(
            "cap_chown=w",
            Err("'w' in 'cap_chown=w' is none of 'e', 'i' and 'p'"),
        );
    }

    #[test]
    fn the_kernels_layout_is_kept() {
        let ping = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let parsed = Capabilities::parse("cap_net_raw=ep").unwrap();
        assert_eq!(parsed.to_bytes(), ping);
        assert_eq!(Capabilities::of_bytes(&ping), Some(parsed));
        let mut revision_3 = ping.to_vec();
        revision_3[3] = 3;
        revision_3.extend([0; 4]);
        assert_eq!(Capabilities::of_bytes(&revision_3), Some(parsed));
        revision_3[20] = 1;
        assert_eq!(Capabilities::of_bytes(&revision_3), None, "another's root");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(permitted in 0..1_u64 << 41, inheritable in 0..1_u64 << 41, is_effective: bool) {
            prop_assume!(permitted | inheritable != 0);
            let some = Capabilities { permitted, inheritable, is_effective };
            prop_assert_eq!(Capabilities::parse(&some.to_string()), Ok(some));
            prop_assert_eq!(Capabilities::of_bytes(&some.to_bytes()), Some(some));
        }

        #[test]
        fn no_text_and_no_bytes_make_it_panic(text: String, bytes: Vec<u8>) {
            let _ = Capabilities::parse(&text);
            let _ = Capabilities::of_bytes(&bytes);
        }
    }
}
