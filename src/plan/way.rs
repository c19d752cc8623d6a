//! The way to the source: what a plan may not cut without being asked afterwards whether the host can still be reached.
//!
//! Invariant: pure, and generous. A check too many costs one poll; one too few may cost a host.

use crate::model::{Kind, ResourceId, is_network_sysctl};
use crate::plan::{InventoryKind, Plan, Step};

/// What the way to the source consists of, as it is called, and by what it is recognised: paths (with all below them), and what units
/// and packages are called, where a `*` at the end stands for anything.
const WAY: [(&str, &[&str], &[&str]); 8] = [
    (
        "the network",
        &[
            "/etc/network",
            "/etc/netplan",
            "/etc/NetworkManager",
            "/etc/systemd/network",
            "/etc/systemd/networkd.conf",
            "/etc/systemd/networkd.conf.d",
            "/etc/sysconfig/network",
            "/etc/sysconfig/network-scripts",
            "/etc/iproute2",
            "/etc/dhcp",
            "/etc/dhcpcd.conf",
            "/etc/wpa_supplicant",
            "/etc/wireguard",
            "/etc/openvpn",
            "/etc/ipsec.conf",
            "/etc/ipsec.d",
            "/etc/swanctl",
            "/etc/ppp",
            "/etc/sysctl.conf",
            "/etc/sysctl.d",
            "/usr/lib/sysctl.d",
        ],
        &[
            "systemd-networkd*",
            "systemd-sysctl*",
            "NetworkManager*",
            "network-manager*",
            "networking",
            "network",
            "netplan*",
            "ifupdown*",
            "iproute*",
            "isc-dhcp-client",
            "dhclient*",
            "dhcpcd*",
            "wpasupplicant",
            "wpa_supplicant*",
            "wireguard*",
            "wg-quick@*",
            "openvpn*",
            "strongswan*",
            "ppp*",
        ],
    ),
    (
        "the firewall",
        &[
            "/etc/nftables.conf",
            "/etc/nftables",
            "/etc/nftables.d",
            "/etc/iptables",
            "/etc/sysconfig/iptables",
            "/etc/sysconfig/nftables.conf",
            "/etc/ufw",
            "/etc/default/ufw",
            "/etc/firewalld",
            "/etc/hosts.allow",
            "/etc/hosts.deny",
        ],
        &[
            "nftables*",
            "iptables*",
            "netfilter-persistent*",
            "ip6tables*",
            "ufw*",
            "firewalld*",
        ],
    ),
    (
        "the resolver",
        &[
            "/etc/resolv.conf",
            "/etc/resolvconf",
            "/etc/hosts",
            "/etc/host.conf",
            "/etc/gai.conf",
            "/etc/nsswitch.conf",
            "/etc/systemd/resolved.conf",
            "/etc/systemd/resolved.conf.d",
            "/etc/dnsmasq.conf",
            "/etc/dnsmasq.d",
            "/etc/unbound",
        ],
        &[
            "systemd-resolved*",
            "resolvconf*",
            "openresolv*",
            "dnsmasq*",
            "unbound*",
            "nscd*",
            "libnss-*",
        ],
    ),
    (
        "the certificates",
        &[
            "/etc/ssl",
            "/etc/pki",
            "/etc/ca-certificates",
            "/etc/ca-certificates.conf",
            "/usr/local/share/ca-certificates",
            "/usr/share/ca-certificates",
            "/etc/crypto-policies",
        ],
        &["ca-certificates*", "p11-kit*"],
    ),
    (
        "the proxy",
        &[
            "/etc/environment",
            "/etc/environment.d",
            "/etc/systemd/system.conf",
            "/etc/systemd/system.conf.d",
        ],
        &[],
    ),
    (
        "the time",
        &[
            "/etc/chrony",
            "/etc/chrony.conf",
            "/etc/ntp.conf",
            "/etc/ntpsec",
            "/etc/systemd/timesyncd.conf",
            "/etc/systemd/timesyncd.conf.d",
        ],
        &["chrony*", "ntp*", "systemd-timesyncd*", "openntpd*"],
    ),
    (
        "the ssh server",
        &["/etc/ssh", "/etc/pam.d/sshd"],
        &["ssh", "sshd*", "ssh@*", "openssh-server*"],
    ),
    (
        "limpet itself",
        &[
            "/etc/limpet",
            "/usr/bin/limpet",
            "/usr/lib/sysusers.d/limpet.conf",
            "/usr/lib/tmpfiles.d/limpet.conf",
        ],
        &["limpet*"],
    ),
];

/// Where unit files lie; their names, and those of the directories of their drop-ins, say which unit it is.
const UNIT_DIRECTORIES: [&str; 4] = [
    "/etc/systemd/system/",
    "/usr/lib/systemd/system/",
    "/lib/systemd/system/",
    "/run/systemd/system/",
];

/// The first part of the way to the source that `plan` touches, as it is called, and what touches it.
pub fn touched_by(plan: &Plan) -> Option<(&'static str, ResourceId)> {
    plan.steps()
        .find_map(|step| Some((part_of_the_way(step)?, step.id.clone())))
}

fn part_of_the_way(step: &Step) -> Option<&'static str> {
    match step.kind {
        InventoryKind::Path => part_with_path(&step.key),
        InventoryKind::Package => part_called(&step.key),
        InventoryKind::Account => None,
        InventoryKind::Sysctl => is_network_sysctl(&step.key).then_some("the network"),
        InventoryKind::Command if step.id.kind == Kind::Repository => None,
        // Nobody knows what it does.
        InventoryKind::Command => Some("whatever a command changes"),
        InventoryKind::Unit => part_called(stem(&step.key)),
    }
}

fn part_with_path(path: &str) -> Option<&'static str> {
    let unit = UNIT_DIRECTORIES
        .iter()
        .find_map(|directory| path.strip_prefix(directory))
        .and_then(|rest| rest.split('/').next())
        .map(|name| name.strip_suffix(".d").unwrap_or(name));
    if let Some(unit) = unit {
        return part_called(stem(unit));
    }
    let is_below = |part: &str| {
        path.strip_prefix(part)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let part = WAY
        .iter()
        .find(|(_, paths, _)| paths.iter().any(|part| is_below(part)));
    part.map(|(name, _, _)| *name)
}

fn part_called(name: &str) -> Option<&'static str> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    let part = WAY
        .iter()
        .find(|(_, _, names)| names.iter().any(|pattern| fits(pattern)));
    part.map(|(name, _, _)| *name)
}

/// A unit's name without its type.
fn stem(unit: &str) -> &str {
    unit.rsplit_once('.').map_or(unit, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_cut_the_host_off_is_recognised() {
        for (path, part) in [
            ("/etc/hosts", Some("the resolver")),
            ("/etc/hosts.deny", Some("the firewall")),
            ("/etc/hosts.d/x", None),
            ("/etc/ssl/certs/x.pem", Some("the certificates")),
            ("/etc/sysctl.d/60-limits.conf", Some("the network")),
            (
                "/etc/systemd/system/limpet-fetch.service.d/proxy.conf",
                Some("limpet itself"),
            ),
            ("/etc/systemd/system/ssh.service", Some("the ssh server")),
            ("/etc/systemd/system/app.service", None),
            ("/etc/systemd/system.conf.d/proxy.conf", Some("the proxy")),
            ("/etc/motd", None),
        ] {
            assert_eq!(part_with_path(path), part, "{path}");
        }
        for (name, part) in [
            ("nftables", Some("the firewall")),
            ("chrony", Some("the time")),
            ("ssh-import-id", None),
            ("openssh-server", Some("the ssh server")),
            ("wg-quick@wg0", Some("the network")),
            ("nginx", None),
        ] {
            assert_eq!(part_called(name), part, "{name}");
        }
    }

    #[test]
    fn every_path_of_the_table_is_absolute_and_plain() {
        for (_, paths, _) in WAY {
            for path in paths {
                assert!(path.starts_with('/') && !path.ends_with('/'), "{path}");
                assert!(part_with_path(path).is_some(), "{path}");
            }
        }
    }
}
