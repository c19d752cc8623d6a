//! Authors' mistakes as people see them.

use insta::assert_snapshot;

use crate::tree::WorkTree;

/// What `limpet check` says when the layer `base` is `text`.
#[track_caller]
fn base(text: &str) -> String {
    WorkTree::new(&[("layers/base/base.toml", text)]).mistakes()
}

/// What it says about several files.
#[track_caller]
fn files(files: &[(&str, &str)]) -> String {
    WorkTree::new(files).mistakes()
}

#[test]
fn an_unknown_field_is_shown_with_the_nearest() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\ncontent = \"x\"\nowmer = \"root\"\n"), @r#"
    error: layers/base/base.toml:3:1: unknown field `owmer` in file:/etc/motd, expected `owner`
      |
    3 | owmer = "root"
      | ^^^^^ no such field
      |
    hint: did you mean 'owner'?
    "#);
}

#[test]
fn several_mistakes_in_one_resource_are_told_at_once() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\ncontnet = \"x\"\nmode = 644\nvalidate = \"nginx -t\"\n"), @r#"
    error: layers/base/base.toml:2:1: unknown field `contnet` in file:/etc/motd, expected `content`
      |
    2 | contnet = "x"
      | ^^^^^^^ no such field
      |
    hint: did you mean 'content'?
    error: layers/base/base.toml:3:8: expected a string, found integer 644 for `mode` in file:/etc/motd
      |
    3 | mode = 644
      |        ^^^
      |
    hint: a mode is a string: mode = "0644"
    error: layers/base/base.toml:4:12: expected an array, found string "nginx -t" for `validate` in file:/etc/motd
      |
    4 | validate = "nginx -t"
      |            ^^^^^^^^^^
      |
    hint: there is no shell; write an array: validate = ["nginx", "-t"]
    "#);
}

#[test]
fn an_unknown_kind_is_shown_with_the_nearest() {
    assert_snapshot!(base("[fiel.\"/etc/motd\"]\ncontent = \"x\"\n"), @r#"
    error: layers/base/base.toml:1:2: unknown kind `fiel`
      |
    1 | [fiel."/etc/motd"]
      |  ^^^^ no such kind
      |
    hint: did you mean 'file'?
    "#);
}

#[test]
fn a_parameter_of_the_kernel_that_has_no_such_name_or_value_is_a_mistake() {
    assert_snapshot!(base("[sysctl]\n\"net/ipv4/ip_forward\" = 1\nswappiness = 1\n\"vm.a\" = true\n\"vm.b\" = 1.5\n\"vm.e\" = { value = [1] }\n"), @r#"
    error: layers/base/base.toml:2:1: 'net/ipv4/ip_forward' is no name of a parameter of the kernel
      |
    2 | "net/ipv4/ip_forward" = 1
      | ^^^^^^^^^^^^^^^^^^^^^
      |
    hint: write: "net.ipv4.ip_forward" = …
    error: layers/base/base.toml:3:1: 'swappiness' is no name of a parameter of the kernel
      |
    3 | swappiness = 1
      | ^^^^^^^^^^
      |
    hint: write it as 'sysctl -a' does, in quotes: "net.ipv4.ip_forward" = 1; a dot in an interface's name is written as a slash
    error: layers/base/base.toml:4:10: expected a whole number or a string for sysctl:vm.a, found a boolean
      |
    4 | "vm.a" = true
      |          ^^^^
      |
    hint: write: "vm.a" = 1
    error: layers/base/base.toml:5:10: expected a whole number or a string for sysctl:vm.b, found a number
      |
    5 | "vm.b" = 1.5
      |          ^^^
      |
    hint: write: "vm.b" = "1.5"
    error: layers/base/base.toml:6:20: expected a number or a string, found an array for `value` in sysctl:vm.e
      |
    6 | "vm.e" = { value = [1] }
      |                    ^^^
    "#);
    assert_snapshot!(base("[sysctl]\n\"vm.c\" = \"1\\n2\"\n\"vm.d\" = {}\n"), @r#"
    error: layers/base/base.toml:2:10: "1\n2" is no value for sysctl:vm.c
      |
    2 | "vm.c" = "1\n2"
      |          ^^^^^^
      |
    hint: write one line of at most 511 bytes
    error: layers/base/base.toml:3:1: missing field `value` in sysctl:vm.d
      |
    3 | "vm.d" = {}
      | ^^^^^^
      |
    hint: write the value right after the name: "net.ipv4.ip_forward" = 1
    "#);
}

#[test]
fn a_check_that_asks_nothing_or_could_never_hold_is_a_mistake() {
    assert_snapshot!(base("[health.web]\nwhen = \"after\"\n\n[health.both]\nhttp = \"http://127.0.0.1\"\nunit = \"a.service\"\n\n[health.never]\ntcp = \"22\"\nstable = \"1m\"\n\n[health.long]\nsource = true\nwithin = \"2h\"\n"), @r#"
    error: layers/base/base.toml:1:9: health:web asks nothing
      |
    1 | [health.web]
      |         ^^^
      |
    hint: give it one of http, tcp, unit, command or source = true
    error: layers/base/base.toml:6:8: health:both has both `http` and `unit`
      |
    6 | unit = "a.service"
      |        ^^^^^^^^^^^
      |
    note: layers/base/base.toml:5:8: `http` is here
      |
    5 | http = "http://127.0.0.1"
      |        ^^^^^^^^^^^^^^^^^^
    hint: write two checks
    error: layers/base/base.toml:9:7: `tcp` of health:never is no host and port
      |
    9 | tcp = "22"
      |       ^^^^
      |
    hint: write: tcp = "127.0.0.1:22", or "[::1]:22"
    error: layers/base/base.toml:10:10: health:never could never hold: `within` is shorter than `stable`, or nothing
       |
    10 | stable = "1m"
       |          ^^^^
       |
    hint: `within` is the time for everything, `stable` the part of it for which it must hold at the end
    error: layers/base/base.toml:14:10: `within` of health:long is longer than 1h
       |
    14 | within = "2h"
       |          ^^^^
    "#);
}

#[test]
fn a_file_cannot_wait_for_a_check() {
    assert_snapshot!(base("[health.web]\nsource = true\n\n[file.\"/etc/motd\"]\ncontent = \"\"\nneeds = [\"health:web\"]\n"), @r#"
    error: layers/base/base.toml:6:10: file:/etc/motd cannot wait for health:web: checks run before or after everything else
      |
    6 | needs = ["health:web"]
      |          ^^^^^^^^^^^^
      |
    hint: give the check when = "before": nothing is applied until it holds
    "#);
}

#[test]
fn a_field_of_a_later_version_says_so() {
    assert_snapshot!(base("[file.\"/etc/secret\"]\nsource = \"s\"\nwindow = \"nightly\"\n"), @r#"
    error: layers/base/base.toml:3:1: `window` in file:/etc/secret is not supported by limpet 0.1.0
      |
    3 | window = "nightly"
      | ^^^^^^
    "#);
}

#[test]
fn a_syntax_error_is_shown_where_it_is() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\ncontent = \"open\nmode = \"0644\"\n"), @r#"
    error: layers/base/base.toml:2:16: invalid basic string, expected `"`
      |
    2 | content = "open
      |                ^
    "#);
}

#[test]
fn a_key_set_twice_in_one_file_names_both_places() {
    assert_snapshot!(base("[package]\ncurl = \"installed\"\nvim = \"installed\"\ncurl = \"absent\"\n"), @r#"
    error: layers/base/base.toml:4:1: key 'curl' is set twice
      |
    4 | curl = "absent"
      | ^^^^
      |
    note: layers/base/base.toml:2:1: first set here
      |
    2 | curl = "installed"
      | ^^^^
    "#);
}

#[test]
fn a_key_set_twice_in_one_layer_names_both_files() {
    assert_snapshot!(files(&[
        ("layers/base/a.toml", "[file.\"/etc/motd\"]\ncontent = \"a\"\n"),
        ("layers/base/b.toml", "[file.\"/etc/motd\"]\nmode = \"0644\"\ncontent = \"b\"\n"),
    ]), @r#"
    error: layers/base/b.toml:3:1: key 'content' is set twice
      |
    3 | content = "b"
      | ^^^^^^^
      |
    note: layers/base/a.toml:2:1: first set here
      |
    2 | content = "a"
      | ^^^^^^^
    "#);
}

#[test]
fn a_missing_source_is_shown_with_the_nearest() {
    assert_snapshot!(files(&[
        ("layers/base/base.toml", "[file.\"/etc/chrony/chrony.conf\"]\nsource = \"chrony.cnf.j2\"\n"),
        ("layers/base/files/chrony.conf.j2", ""),
    ]), @r#"
    error: layers/base/base.toml:2:10: source 'chrony.cnf.j2' of file:/etc/chrony/chrony.conf is missing
      |
    2 | source = "chrony.cnf.j2"
      |          ^^^^^^^^^^^^^^^ no file 'layers/base/files/chrony.cnf.j2'
      |
    hint: did you mean 'chrony.conf.j2'?
    "#);
}

#[test]
fn a_symbolic_link_in_the_repository_is_not_followed() {
    let tree = WorkTree::new(&[
        (
            "layers/base/base.toml",
            "[file.\"/a\"]\nsource = \"link\"\n[file.\"/b\"]\nsource = \"/shared/real\"\ntemplate = true\n",
        ),
        ("layers/base/files/real", ""),
    ]);
    for (target, link) in [
        ("real", "layers/base/files/link"),
        ("layers/base/files", "shared"),
    ] {
        std::os::unix::fs::symlink(target, tree.path().join(link)).unwrap();
    }
    assert_snapshot!(tree.mistakes(), @r#"
    error: layers/base/base.toml:2:10: source 'link' of file:/a is a symbolic link, which is never followed
      |
    2 | source = "link"
      |          ^^^^^^ 'layers/base/files/link' is a symbolic link
      |
    hint: name the file it leads to (from the repository's root with a leading '/'), or commit a copy
    error: layers/base/base.toml:4:10: source '/shared/real' of file:/b lies behind a symbolic link, which is never followed
      |
    4 | source = "/shared/real"
      |          ^^^^^^^^^^^^^^ 'shared' is a symbolic link
      |
    hint: name the file it leads to (from the repository's root with a leading '/'), or commit a copy
    "#);
}

#[test]
fn a_source_cannot_leave_the_files_of_its_layer() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\nsource = \"../../secret\"\n"), @r#"
    error: layers/base/base.toml:2:10: source '../../secret' of file:/etc/motd is no path below the layer's files/
      |
    2 | source = "../../secret"
      |          ^^^^^^^^^^^^^^
      |
    hint: name a file below files/ of this layer, or from the repository's root with a leading '/'
    "#);
}

#[test]
fn content_and_source_exclude_each_other() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\ncontent = \"x\"\nsource = \"y\"\n"), @r#"
    error: layers/base/base.toml:3:10: file:/etc/motd has both `content` and `source`
      |
    3 | source = "y"
      |          ^^^
      |
    note: layers/base/base.toml:2:11: `content` is set here
      |
    2 | content = "x"
      |           ^^^
    hint: keep one; a later layer that replaces the other declares undeclare = true beside it
    "#);
}

#[test]
fn a_file_that_declares_nothing_is_a_mistake() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\nneeds = []\n"), @r#"
    error: layers/base/base.toml:1:7: file:/etc/motd declares nothing
      |
    1 | [file."/etc/motd"]
      |       ^^^^^^^^^^^
      |
    hint: give it `content`, `source`, `url`, `mode`, `owner` or `group`
    "#);
}

#[test]
fn a_unit_or_package_that_declares_nothing_is_a_mistake() {
    assert_snapshot!(base("[unit.\"c.service\"]\noptional = true\n[package.a]\n[package]\nb = {}\n"), @r#"
    error: layers/base/base.toml:1:7: unit:c.service declares nothing
      |
    1 | [unit."c.service"]
      |       ^^^^^^^^^^^
      |
    hint: give it `enabled`, `running`, `masked`, `content`, `source`, a drop-in or `restart_on`
    error: layers/base/base.toml:3:10: package:a declares nothing
      |
    3 | [package.a]
      |          ^
      |
    hint: write: a = "installed", or "absent"
    error: layers/base/base.toml:5:1: package:b declares nothing
      |
    5 | b = {}
      | ^
      |
    hint: write: b = "installed", or "absent"
    "#);
}

#[test]
fn absence_and_content_in_one_layer_exclude_each_other() {
    assert_snapshot!(base("[file.\"/a\"]\nstate = \"absent\"\nsource = \"x\"\n[file.\"/b\"]\nstate = \"absent\"\ncontent = \"\"\n[symlink.\"/c\"]\nstate = \"absent\"\ntarget = \"/b\"\n"), @r#"
    error: layers/base/base.toml:3:10: file:/a is to be absent, and has `source`
      |
    3 | source = "x"
      |          ^^^
      |
    note: layers/base/base.toml:2:9: absent here
      |
    2 | state = "absent"
      |         ^^^^^^^^
    hint: keep one of them
    error: layers/base/base.toml:6:11: file:/b is to be absent, and has `content`
      |
    6 | content = ""
      |           ^^
      |
    note: layers/base/base.toml:5:9: absent here
      |
    5 | state = "absent"
      |         ^^^^^^^^
    hint: keep one of them
    error: layers/base/base.toml:9:10: symlink:/c is to be absent, and has `target`
      |
    9 | target = "/b"
      |          ^^^^
      |
    note: layers/base/base.toml:8:9: absent here
      |
    8 | state = "absent"
      |         ^^^^^^^^
    hint: keep one of them
    "#);
}

#[test]
fn a_validation_that_never_sees_the_candidate_is_refused() {
    assert_snapshot!(base("[file.\"/etc/sudoers.d/x\"]\ncontent = \"x\"\nvalidate = [\"visudo\", \"-c\"]\n[file.\"/b\"]\ncontent = \"\"\nvalidate = []\n"), @r#"
    error: layers/base/base.toml:3:12: `validate` of file:/etc/sudoers.d/x never looks at the new content
      |
    3 | validate = ["visudo", "-c"]
      |            ^^^^^^^^^^^^^^^^ no argument has a '{}'
      |
    hint: '{}' stands for the path of the candidate: ["visudo", "-c", "-f", "{}"]
    error: layers/base/base.toml:6:12: `validate` of file:/b is no command
      |
    6 | validate = []
      |            ^^
      |
    hint: write the program and its arguments: ["visudo", "-c", "-f", "{}"]
    "#);
}

#[test]
fn a_package_name_is_judged_by_the_host_s_manager() {
    assert_snapshot!(files(&[
        ("inventory/hosts.toml", "[host.gw]\nfacts = { os = \"debian\" }\n[host.el]\nfacts = { os = \"rocky\" }\n"),
        ("layers/base/base.toml", ""),
        ("hosts/gw/a.toml", "[package]\nNetworkManager = \"installed\"\npython3_x = \"installed\"\nhttpd = { apt = \"Apache2\", dnf = \"httpd_X\" }\n"),
        ("hosts/el/a.toml", "[package]\nNetworkManager = \"installed\"\npython3_x = \"installed\"\n"),
    ]), @r#"
    error: hosts/gw/a.toml:2:1: 'NetworkManager' is no package name for apt
      |
    2 | NetworkManager = "installed"
      | ^^^^^^^^^^^^^^
      |
    hint: write 'networkmanager', or the name of each manager: networkmanager = { apt = "networkmanager", dnf = "NetworkManager" }
    error: hosts/gw/a.toml:3:1: 'python3_x' is no package name for apt
      |
    3 | python3_x = "installed"
      | ^^^^^^^^^
      |
    hint: a package for apt is named with small letters, digits, '+', '-' and '.'
    error: hosts/gw/a.toml:4:17: 'Apache2' is no package name for apt
      |
    4 | httpd = { apt = "Apache2", dnf = "httpd_X" }
      |                 ^^^^^^^^^
      |
    hint: a package for apt is named with small letters, digits, '+', '-' and '.'
    "#);
}

#[test]
fn an_undefined_name_in_a_template_is_shown_in_the_template() {
    assert_snapshot!(files(&[
        ("layers/base/base.toml", "[vars]\nntp_servers = [\"a\"]\n[file.\"/etc/chrony.conf\"]\nsource = \"chrony.j2\"\ntemplate = true\n"),
        ("layers/base/files/chrony.j2", "# servers\n{% for s in ntp_servrs %}\nserver {{ s }}\n{% endfor %}\n"),
    ]), @r#"
    error: layers/base/files/chrony.j2:2:13: undefined name 'ntp_servrs' in template
      |
    2 | {% for s in ntp_servrs %}
      |             ^^^^^^^^^^
      |
    note: layers/base/base.toml:4:10: file:/etc/chrony.conf is rendered from it
      |
    4 | source = "chrony.j2"
      |          ^^^^^^^^^^^
    hint: did you mean 'ntp_servers'?
    "#);
}

#[test]
fn an_undefined_label_in_an_inline_template_is_shown_in_the_toml() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\ntemplate = true\ncontent = \"\"\"\nHost {{ host.name }}\nin {{ host.lables.site }}\n\"\"\"\n"), @r"
    error: layers/base/base.toml:5:7: undefined name 'host.lables' in template
      |
    5 | in {{ host.lables.site }}
      |       ^^^^^^^^^^^
      |
    hint: did you mean 'labels'?
    ");
}

#[test]
fn a_name_between_escapes_is_shown_where_it_is() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\ntemplate = true\ncontent = \"a\\n{% if host.name == \\\"x\\\" or nme == 1 %}b{% endif %}\\n\"\n"), @r#"
    error: layers/base/base.toml:3:43: undefined name 'nme' in template
      |
    3 | content = "a\n{% if host.name == \"x\" or nme == 1 %}b{% endif %}\n"
      |                                           ^^^
      |
    hint: set it under [vars] of a layer, or use one of: host, hosts
    "#);
    assert_snapshot!(base("[file.\"/etc/motd\"]\ntemplate = true\ncontent = \"\"\"\n\\tone\n{% for s in servers %}\n\\t{{ s }}\n{% endfor %}\n\"\"\"\n"), @r"
    error: layers/base/base.toml:5:13: undefined name 'servers' in template
      |
    5 | {% for s in servers %}
      |             ^^^^^^^
      |
    hint: set it under [vars] of a layer, or use one of: host, hosts
    ");
}

#[test]
fn an_unknown_fact_is_answered_with_those_there_are() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\ntemplate = true\ncontent = '{% if host.facts.kernel == \"6\" %}x{% endif %}'\n"), @r#"
    error: layers/base/base.toml:3:18: undefined name 'host.facts.kernel' in template
      |
    3 | content = '{% if host.facts.kernel == "6" %}x{% endif %}'
      |                  ^^^^^^^^^^^^^^^^^
      |
    hint: the facts are os, family, os_version, arch; anything else is a label
    "#);
    assert_snapshot!(base("[file.\"/etc/motd\"]\ntemplate = true\ncontent = '{% for h in hosts if h.facts.fmaily == \"rhel\" %}x{% endfor %}'\n"), @r#"
    error: layers/base/base.toml:3:33: undefined name 'h.facts.fmaily' in template
      |
    3 | content = '{% for h in hosts if h.facts.fmaily == "rhel" %}x{% endfor %}'
      |                                 ^^^^^^^^^^^^^^
      |
    hint: did you mean 'family'?
    "#);
    assert_snapshot!(base("[file.\"/etc/motd\"]\ntemplate = true\ncontent = '{{ host.facts.arch }}'\n"), @r"
    error: layers/base/base.toml:3:15: undefined name 'host.facts.arch' in template
      |
    3 | content = '{{ host.facts.arch }}'
      |               ^^^^^^^^^^^^^^^
      |
    hint: declare the fact in the inventory to render away from the host
    ");
}

#[test]
fn a_label_that_no_host_has_says_so() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\ntemplate = true\ncontent = '{% for h in hosts if h.labels.role == \"db\" %}x{% endfor %}'\n"), @r#"
    error: layers/base/base.toml:3:33: undefined name 'h.labels.role' in template
      |
    3 | content = '{% for h in hosts if h.labels.role == "db" %}x{% endfor %}'
      |                                 ^^^^^^^^^^^^^
      |
    hint: no host of the inventory has a label 'role'
    "#);
    let labelled = |template: &str| {
        files(&[
            (
                "inventory/hosts.toml",
                "[host.gw]\nfacts = { os = \"debian\" }\n[host.db]\nlabels = { role = \"db\" }\nfacts = { os = \"debian\" }\n",
            ),
            (
                "hosts/gw/a.toml",
                &format!("[file.\"/a\"]\ntemplate = true\ncontent = '{template}'\n"),
            ),
            ("layers/base/a.toml", ""),
        ])
    };
    assert_snapshot!(labelled("{% if host.labels.rol == \"db\" %}x{% endif %}"), @r#"
    error: hosts/gw/a.toml:3:18: undefined name 'host.labels.rol' in template
      |
    3 | content = '{% if host.labels.rol == "db" %}x{% endif %}'
      |                  ^^^^^^^^^^^^^^^
      |
    hint: did you mean 'role'?
    "#);
    assert_snapshot!(labelled("{% for h in hosts %}{{ h.labels.role }}{% endfor %}"), @r"
    error: hosts/gw/a.toml:3:35: undefined name 'h.labels.role' in template
      |
    3 | content = '{% for h in hosts %}{{ h.labels.role }}{% endfor %}'
      |                                   ^^^^^^^^^^^^^
      |
    hint: not every host has this label; say what else: h.labels.role | default('…')
    ");
}

#[test]
fn a_template_that_does_not_parse_is_shown_where() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\ntemplate = true\ncontent = \"{% if x %}never closed\"\n"), @r#"
    error: layers/base/base.toml:3:22: template: unexpected end of input, expected end of block
      |
    3 | content = "{% if x %}never closed"
      |                      ^^^^^^^^^^^^
    "#);
}

#[test]
fn an_unknown_filter_is_shown_where() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\ntemplate = true\ncontent = '{{ host.name|uper }}'\n"), @r"
    error: layers/base/base.toml:3:25: template: filter uper is unknown
      |
    3 | content = '{{ host.name|uper }}'
      |                         ^^^^
    ");
}

#[test]
fn a_template_that_would_not_end_is_a_mistake() {
    let endless =
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
    assert_snapshot!(base(&format!("[file.\"/etc/a\"]\ntemplate = true\ncontent = \"{endless}\"\n")), @r#"
    error: layers/base/base.toml:3:12: template takes more than 5000000 steps
      |
    3 | content = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}"
      |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: loop over less: loops within loops multiply
    "#);
}

#[test]
fn a_template_cannot_include() {
    assert_snapshot!(base("[file.\"/etc/motd\"]\ntemplate = true\ncontent = '{% include \"/etc/shadow\" %}'\n"), @r#"
    error: layers/base/base.toml:3:15: template: nothing can be included
      |
    3 | content = '{% include "/etc/shadow" %}'
      |               ^^^^^^^^^^^^^^^^^^^^^
      |
    hint: use variables, or a source for each file
    "#);
    for words in [
        "import 'a' as b",
        "from 'a' import b",
        "extends 'a'",
        "include 'layers/base/base.toml'",
    ] {
        let told = base(&format!(
            "[file.\"/etc/motd\"]\ntemplate = true\ncontent = \"{{% {words} %}}\"\n"
        ));
        assert!(
            told.contains("template: nothing can be included"),
            "{words}: {told}"
        );
    }
}

#[test]
fn a_relative_or_crooked_path_is_refused() {
    assert_snapshot!(base("[file.\"etc/motd\"]\ncontent = \"\"\n[directory.\"/etc//x/\"]\n[symlink.\"/a/../b\"]\ntarget = \"c\"\n"), @r#"
    error: layers/base/base.toml:1:7: path of file:etc/motd is not absolute
      |
    1 | [file."etc/motd"]
      |       ^^^^^^^^^^
      |
    hint: write: [file."/etc/motd"]
    error: layers/base/base.toml:3:12: path of directory:/etc//x/ is not normalised
      |
    3 | [directory."/etc//x/"]
      |            ^^^^^^^^^^
      |
    hint: write: [directory."/etc/x"]
    error: layers/base/base.toml:4:10: path of symlink:/a/../b is not normalised
      |
    4 | [symlink."/a/../b"]
      |          ^^^^^^^^^
      |
    hint: write: [symlink."/b"]
    "#);
}

#[test]
fn a_forbidden_path_says_who_could_allow_it() {
    assert_snapshot!(base("[file.\"/etc/shadow\"]\nmode = \"0640\"\n[unit.\"limpet.service\".dropin.x]\ncontent = \"\"\n"), @r#"
    error: layers/base/base.toml:1:7: file:/etc/shadow would manage '/etc/shadow', which no fleet may: the account database
      |
    1 | [file."/etc/shadow"]
      |       ^^^^^^^^^^^^^
      |
    hint: a host's operator can allow it: apply.allow_paths = ["/etc/shadow"] in /etc/limpet/limpet.toml
    error: layers/base/base.toml:3:31: unit:limpet.service would manage '/etc/systemd/system/limpet.service.d/x.conf', which no fleet may: limpet's own
      |
    3 | [unit."limpet.service".dropin.x]
      |                               ^
      |
    hint: a host's operator can allow it: apply.allow_paths = ["/etc/systemd/system/limpet.service.d/x.conf"] in /etc/limpet/limpet.toml
    "#);
}

#[test]
fn what_a_user_writes_is_that_users() {
    assert_snapshot!(base(
        "[file.\"/home/app/x\"]\ncontent = \"\"\nas_user = \"app\"\nowner = \"root\"\ncapabilities = \"cap_chown=ep\"\n\
         [file.\"/home/app/y\"]\ncontent = \"\"\nas_user = \"root\"\n"
    ), @r#"
    error: layers/base/base.toml:4:9: file:/home/app/x is written as 'app', and has another owner
      |
    4 | owner = "root"
      |         ^^^^^^
      |
    note: layers/base/base.toml:3:11: written as that user
      |
    3 | as_user = "app"
      |           ^^^^^
    hint: leave out `owner`: nobody may give a file away
    error: layers/base/base.toml:5:16: file:/home/app/x has capabilities, which this host does not allow
      |
    5 | capabilities = "cap_chown=ep"
      |                ^^^^^^^^^^^^^^
      |
    hint: they are rights as setuid gives them; a host's operator can allow it: apply.allow_suid = true in /etc/limpet/limpet.toml
    error: layers/base/base.toml:5:16: file:/home/app/x is written as 'app', and has capabilities
      |
    5 | capabilities = "cap_chown=ep"
      |                ^^^^^^^^^^^^^^
      |
    note: layers/base/base.toml:3:11: written as that user
      |
    3 | as_user = "app"
      |           ^^^^^
    hint: only root gives them, where nobody else could exchange the file
    error: layers/base/base.toml:8:11: file:/home/app/y cannot be written as user 'root'
      |
    8 | as_user = "root"
      |           ^^^^^^
      |
    hint: name the user whose directory it lies in; what lies elsewhere is root's, and needs no `as_user`
    "#);
}

#[test]
fn what_no_fleet_may_say_of_extended_attributes_has_hints() {
    assert_snapshot!(base(
        "[file.\"/usr/local/bin/x\"]\ncapabilities = \"cap_net_bind=ep\"\n\
         [file.\"/usr/local/bin/y\"]\ncapabilities = \"cap_chown=ep\"\n\
         [file.\"/usr/local/bin/z\"]\nxattrs = { \"security.capability\" = \"0x00\", \"user.a\" = \"0xf\" }\n"
    ), @r#"
    error: layers/base/base.toml:2:16: 'cap_net_bind=ep' are no capabilities of file:/usr/local/bin/x
      |
    2 | capabilities = "cap_net_bind=ep"
      |                ^^^^^^^^^^^^^^^^^ there is no capability 'cap_net_bind'
      |
    hint: write as setcap(8) does: capabilities = "cap_net_bind_service=ep"; with "" it has none
    error: layers/base/base.toml:4:16: file:/usr/local/bin/y has capabilities, which this host does not allow
      |
    4 | capabilities = "cap_chown=ep"
      |                ^^^^^^^^^^^^^^
      |
    hint: they are rights as setuid gives them; a host's operator can allow it: apply.allow_suid = true in /etc/limpet/limpet.toml
    error: layers/base/base.toml:6:10: 'security.capability' of file:/usr/local/bin/z cannot be declared
      |
    6 | xattrs = { "security.capability" = "0x00", "user.a" = "0xf" }
      |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: write: capabilities = "cap_net_bind_service=ep"
    error: layers/base/base.toml:6:10: the value of 'user.a' of file:/usr/local/bin/z cannot be read
      |
    6 | xattrs = { "security.capability" = "0x00", "user.a" = "0xf" }
      |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: after 0x come pairs of hex digits, after 0s comes base64; anything else is text
    "#);
    assert_snapshot!(base("[directory.\"/srv\"]\nxattrs = { user.note = \"unquoted\" }\n"), @r#"
    error: layers/base/base.toml:2:12: expected a string, found a table for `xattrs` in directory:/srv
      |
    2 | xattrs = { user.note = "unquoted" }
      |            ^^^^
      |
    hint: quote the whole name: "user.…" = "…"
    "#);
}

#[test]
fn a_mode_with_setuid_says_who_could_allow_it() {
    assert_snapshot!(base("[file.\"/usr/local/bin/x\"]\nmode = \"4755\"\n[file.\"/etc/y\"]\nmode = \"rw\"\n"), @r#"
    error: layers/base/base.toml:2:8: mode '4755' of file:/usr/local/bin/x sets setuid, setgid or sticky, which this host does not allow
      |
    2 | mode = "4755"
      |        ^^^^^^
      |
    hint: a host's operator can allow it: apply.allow_suid = true in /etc/limpet/limpet.toml
    error: layers/base/base.toml:4:8: 'rw' is no mode of file:/etc/y
      |
    4 | mode = "rw"
      |        ^^^^
      |
    hint: write three or four octal digits: "0644"
    "#);
}

#[test]
fn two_declarations_of_one_path_name_both() {
    assert_snapshot!(base("[file.\"/etc/systemd/system/app.service\"]\ncontent = \"\"\n[unit.\"app.service\"]\ncontent = \"\"\n"), @r#"
    error: layers/base/base.toml:3:7: unit:app.service and file:/etc/systemd/system/app.service both declare '/etc/systemd/system/app.service'
      |
    3 | [unit."app.service"]
      |       ^^^^^^^^^^^^^
      |
    note: layers/base/base.toml:1:7: file:/etc/systemd/system/app.service is declared here
      |
    1 | [file."/etc/systemd/system/app.service"]
      |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    hint: keep one of them; undeclare = true forgets what an earlier layer declared
    "#);
}

#[test]
fn a_path_below_a_file_is_refused() {
    assert_snapshot!(base("[symlink.\"/srv/app\"]\ntarget = \"/etc\"\n[file.\"/srv/app/shadow\"]\ncontent = \"\"\n"), @r#"
    error: layers/base/base.toml:3:7: file:/srv/app/shadow lies below symlink:/srv/app, which is no directory
      |
    3 | [file."/srv/app/shadow"]
      |       ^^^^^^^^^^^^^^^^^
      |
    note: layers/base/base.toml:1:10: symlink:/srv/app is declared here
      |
    1 | [symlink."/srv/app"]
      |          ^^^^^^^^^^
    "#);
}

#[test]
fn present_and_latest_have_hints() {
    assert_snapshot!(base("[package]\ncurl = \"present\"\nvim = \"latest\"\nnginx = \"1.22\"\ngit = true\n"), @r#"
    error: layers/base/base.toml:2:8: unknown state 'present' of package:curl
      |
    2 | curl = "present"
      |        ^^^^^^^^^
      |
    hint: write "installed"
    error: layers/base/base.toml:3:7: unknown state 'latest' of package:vim
      |
    3 | vim = "latest"
      |       ^^^^^^^^
      |
    hint: write "installed", or pin what you tested: { version = "…" }; two hosts with the same commit get the same version
    error: layers/base/base.toml:4:9: unknown state '1.22' of package:nginx
      |
    4 | nginx = "1.22"
      |         ^^^^^^
      |
    hint: for a version, write: { version = "1.22" }
    error: layers/base/base.toml:5:7: expected a table for package:git, found a boolean
      |
    5 | git = true
      |       ^^^^
      |
    hint: write: git = "installed"
    "#);
}

#[test]
fn a_package_name_cannot_become_an_option() {
    assert_snapshot!(base("[package]\n\"--purge\" = \"installed\"\n\"curl-\" = \"installed\"\n"), @r#"
    error: layers/base/base.toml:2:1: '--purge' is no package name
      |
    2 | "--purge" = "installed"
      | ^^^^^^^^^
      |
    hint: use letters, digits, '+', '-', '.' and '_', starting with a letter or digit and not ending with '-'
    error: layers/base/base.toml:3:1: 'curl-' is no package name
      |
    3 | "curl-" = "installed"
      | ^^^^^^^
      |
    hint: use letters, digits, '+', '-', '.' and '_', starting with a letter or digit and not ending with '-'
    "#);
}

#[test]
fn an_impossible_version_is_refused() {
    assert_snapshot!(base("[package]\na = { version = \"1.[\" }\nb = { version = \"1\", state = \"absent\" }\nc = { allow_downgrade = true }\nd = { state = \"absent\", hold = true }\n"), @r#"
    error: layers/base/base.toml:2:17: '1.[' is no pattern for a version of package:a
      |
    2 | a = { version = "1.[" }
      |                 ^^^^^
      |
    hint: write for instance '1.9.*': a shell glob on the full version, as apt-cache policy or dnf list shows it
    error: layers/base/base.toml:3:17: package:b is to be absent, and in version '1'
      |
    3 | b = { version = "1", state = "absent" }
      |                 ^^^
      |
    hint: keep one of them
    error: layers/base/base.toml:4:25: `allow_downgrade` of package:c without `version`
      |
    4 | c = { allow_downgrade = true }
      |                         ^^^^
      |
    hint: say which version: version = "…"
    error: layers/base/base.toml:5:32: `hold` of package:d, which is to be absent
      |
    5 | d = { state = "absent", hold = true }
      |                                ^^^^
      |
    hint: what is not installed has no version to hold: leave one of them out, or say hold = false to remove it whoever holds it
    "#);
}

#[test]
fn a_need_that_is_not_declared_is_shown_with_the_nearest() {
    assert_snapshot!(base("[package]\nchrony = \"installed\"\n[file.\"/etc/chrony.conf\"]\ncontent = \"\"\nneeds = [\"package:chorny\", \"chrony\"]\n[unit.\"chrony.service\"]\nrestart_on = [\"file:/etc/chrony/chrony.conf\"]\n"), @r#"
    error: layers/base/base.toml:5:10: `needs` of file:/etc/chrony.conf names package:chorny, which is not declared for this host
      |
    5 | needs = ["package:chorny", "chrony"]
      |          ^^^^^^^^^^^^^^^^
      |
    hint: did you mean 'package:chrony'?
    error: layers/base/base.toml:5:28: 'chrony' in `needs` of file:/etc/chrony.conf is no resource
      |
    5 | needs = ["package:chorny", "chrony"]
      |                            ^^^^^^^^
      |
    hint: a resource is written kind:name, such as "package:chrony" or "file:/etc/motd"
    error: layers/base/base.toml:7:15: `restart_on` of unit:chrony.service names file:/etc/chrony/chrony.conf, which is not declared for this host
      |
    7 | restart_on = ["file:/etc/chrony/chrony.conf"]
      |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: did you mean 'file:/etc/chrony.conf'?
    "#);
}

#[test]
fn a_command_that_never_runs_or_cannot_is_refused() {
    assert_snapshot!(base("[command.a]\ncommand = [\"true\"]\n[command.b]\ncommand = [\"bin/b\"]\nonce = true\nrun_on = [\"command:a\"]\n[command.c]\nonce = true\ntimeout = \"2h\"\n[command.d]\ncommand = []\nonce = true\ntimeout = \"soon\"\n"), @r#"
    error: layers/base/base.toml:1:10: command:a never runs: it has neither `run_on` nor `once`
      |
    1 | [command.a]
      |          ^
      |
    hint: write run_on = ["file:/etc/…"] to run it when one of those changed, or once = true to run it until it has succeeded once
    error: layers/base/base.toml:4:11: `command` of command:b names 'bin/b', which is no absolute path
      |
    4 | command = ["bin/b"]
      |           ^^^^^^^^^
      |
    hint: name a program by its absolute path, or by its name alone
    error: layers/base/base.toml:5:8: command:b has `run_on` and `once`
      |
    5 | once = true
      |        ^^^^
      |
    note: layers/base/base.toml:6:10: run on changes here
      |
    6 | run_on = ["command:a"]
      |          ^^^^^^^^^^^^^
    hint: keep one of them: what runs on changes also runs when they are made for the first time
    error: layers/base/base.toml:7:10: command:c has no `command`
      |
    7 | [command.c]
      |          ^
      |
    hint: write the program and its arguments: command = ["update-ca-certificates"]
    error: layers/base/base.toml:9:11: `timeout` of command:c is not between 1s and 1h
      |
    9 | timeout = "2h"
      |           ^^^^
      |
    hint: write a number with its unit, of at most an hour: "90s", "20m"
    error: layers/base/base.toml:11:11: `command` of command:d is no command
       |
    11 | command = []
       |           ^^
       |
    hint: write the program and its arguments: ["update-ca-certificates", "--fresh"]
    error: layers/base/base.toml:13:11: 'soon' in `timeout` of command:d is no duration
       |
    13 | timeout = "soon"
       |           ^^^^^^
       |
    hint: write a number with its unit, of at most an hour: "90s", "20m"
    "#);
    assert_snapshot!(base("[command.\"e f\"]\ncmd = [\"true\"]\n[command.g]\ncommand = \"update-grub --now\"\n"), @r#"
    error: layers/base/base.toml:1:10: 'e f' is no name of a command
      |
    1 | [command."e f"]
      |          ^^^^^
      |
    hint: use letters, digits, '-', '.' and '_', starting with a letter or digit; what is run stands below it: command = ["…"]
    error: layers/base/base.toml:2:1: unknown field `cmd` in command:e f
      |
    2 | cmd = ["true"]
      | ^^^ no such field
      |
    hint: write: command = ["true"]
    error: layers/base/base.toml:4:11: expected an array, found string "update-grub --now" for `command` in command:g
      |
    4 | command = "update-grub --now"
      |           ^^^^^^^^^^^^^^^^^^^
      |
    hint: there is no shell; write an array: command = ["update-grub", "--now"]
    "#);
}

#[test]
fn commands_that_make_each_other_run_are_told_as_a_circle() {
    assert_snapshot!(base("[command.a]\ncommand = [\"true\"]\nrun_on = [\"command:b\"]\n[command.b]\ncommand = [\"true\"]\nrun_on = [\"command:a\"]\n"), @r#"
    error: layers/base/base.toml:1:10: resources need each other in a circle: command:a → command:b → command:a
      |
    1 | [command.a]
      |          ^
      |
    note: layers/base/base.toml:4:10: command:b is declared here
      |
    4 | [command.b]
      |          ^
    hint: take one of the needs out
    "#);
}

#[test]
fn needs_in_a_circle_are_told_once() {
    assert_snapshot!(base("[file.\"/a\"]\ncontent = \"\"\nneeds = [\"package:b\"]\n[package.b]\nneeds = [\"unit:c.service\"]\n[unit.\"c.service\"]\nenabled = true\nneeds = [\"file:/a\"]\n"), @r#"
    error: layers/base/base.toml:4:10: resources need each other in a circle: package:b → unit:c.service → file:/a → package:b
      |
    4 | [package.b]
      |          ^
      |
    note: layers/base/base.toml:6:7: unit:c.service is declared here
      |
    6 | [unit."c.service"]
      |       ^^^^^^^^^^^
    note: layers/base/base.toml:1:7: file:/a is declared here
      |
    1 | [file."/a"]
      |       ^^^^
    hint: take one of the needs out
    "#);
}

#[test]
fn a_oneshot_that_cannot_keep_running_is_refused() {
    assert_snapshot!(base("[unit.\"job.service\"]\ncontent = \"[Service]\\nType=oneshot\\nExecStart=/bin/true\\n\"\nrunning = true\n"), @r"
    error: layers/base/base.toml:3:11: unit:job.service is a oneshot that does not remain after exit, so it can never be kept running
      |
    3 | running = true
      |           ^^^^
      |
    hint: add RemainAfterExit=yes to its file, or leave out `running` and start it by a timer or at boot with `enabled`
    ");
}

#[test]
fn wishes_for_a_unit_that_exclude_each_other_are_refused() {
    assert_snapshot!(base("[unit.\"a.service\"]\nmasked = true\nrunning = true\n[unit.\"b@.service\"]\nrunning = true\n"), @r#"
    error: layers/base/base.toml:3:11: unit:a.service is masked, so `running` is impossible
      |
    3 | running = true
      |           ^^^^
      |
    note: layers/base/base.toml:2:10: masked here
      |
    2 | masked = true
      |          ^^^^
    hint: keep one of them
    error: layers/base/base.toml:5:11: unit:b@.service is a template of units and cannot run itself
      |
    5 | running = true
      |           ^^^^
      |
    hint: declare an instance: [unit."b@INSTANCE.service"]
    "#);
}

#[test]
fn a_unit_s_name_has_a_type() {
    assert_snapshot!(base("[unit.c]\nenabled = true\n[unit.\"d.servce\"]\nenabled = true\n"), @r#"
    error: layers/base/base.toml:1:7: 'c' is no unit name
      |
    1 | [unit.c]
      |       ^
      |
    hint: units have a type: 'c.service'
    error: layers/base/base.toml:3:7: 'd.servce' is no unit name
      |
    3 | [unit."d.servce"]
      |       ^^^^^^^^^^
      |
    hint: did you mean 'd.service'?
    "#);
}

#[test]
fn a_unit_of_limpet_cannot_be_switched_off() {
    assert_snapshot!(base("[unit.\"limpet.service\"]\nenabled = false\n"), @r"
    error: layers/base/base.toml:2:11: `enabled` of unit:limpet.service would let the fleet switch off limpet itself
      |
    2 | enabled = false
      |           ^^^^^
      |
    hint: stop or disable limpet on the host with systemctl
    ");
}

#[test]
fn a_layer_that_is_not_there_is_shown_with_the_nearest() {
    assert_snapshot!(files(&[
        ("fleet.toml", "format = 1\nfleet = \"test\"\n[[match]]\nhosts = [\"*\"]\nlayers = [\"bsae\"]\n"),
        ("layers/base/base.toml", ""),
    ]), @r#"
    error: fleet.toml:5:11: no layer 'bsae'
      |
    5 | layers = ["bsae"]
      |           ^^^^^^ no TOML file in layers/bsae/
      |
    hint: did you mean 'base'?
    "#);
}

#[test]
fn layers_that_use_each_other_are_refused() {
    assert_snapshot!(files(&[
        ("layers/base/base.toml", "[layer]\nuse = [\"a\"]\n"),
        ("layers/a/a.toml", "[layer]\nuse = [\"base\"]\n"),
    ]), @r#"
    error: layers/a/a.toml:2:8: layers use each other in a circle: 'base' uses 'a' uses 'base'
      |
    2 | use = ["base"]
      |        ^^^^^^
      |
    note: layers/base/base.toml:2:8: 'a' is used here
      |
    2 | use = ["a"]
      |        ^^^
    hint: take one of the uses out
    "#);
}

#[test]
fn a_host_that_nothing_matches_is_an_error() {
    assert_snapshot!(files(&[("fleet.toml", "format = 1\nfleet = \"test\"\n")]), @r#"
    error: no layers for host 'gw'
    hint: no rule of fleet.toml fits it; add a [[match]] with hosts = ["gw"], or inventory layers, or hosts/gw/
    "#);
}

#[test]
fn mistakes_in_fleet_toml_are_told_at_once() {
    assert_snapshot!(files(&[("fleet.toml", "formt = 1\nfleet = \"a b\"\nmin_limpet = \"x\"\nrollout = 1\n[[match]]\nlayers = [\"base\"]\n[[match]]\nfact = { family = \"debian\" }\nlayers = [\"layers/base\"]\n[[match]]\nfacts = { famliy = \"debian\" }\nlayers = \"base\"\n")]), @r#"
    error: fleet.toml:1:1: unknown field `formt` in fleet.toml, expected `format`
      |
    1 | formt = 1
      | ^^^^^ no such field
      |
    hint: did you mean 'format'?
    error: fleet.toml:1:1: missing field `format` in fleet.toml
      |
    1 | formt = 1
      | ^
      |
    hint: write: format = 1
    error: fleet.toml:2:9: 'a b' is no fleet name
      |
    2 | fleet = "a b"
      |         ^^^^^
      |
    hint: use letters, digits, '-', '_' and '.', at most 64
    error: fleet.toml:3:14: 'x' is no version
      |
    3 | min_limpet = "x"
      |              ^^^
      |
    hint: write up to three numbers: min_limpet = "0.1"
    error: fleet.toml:4:1: `rollout` in fleet.toml is not supported by limpet 0.1.0
      |
    4 | rollout = 1
      | ^^^^^^^
    error: fleet.toml:5:1: this [[match]] says no hosts, facts or labels
      |
    5 | [[match]]
      | ^^^^^^^^^
      |
    hint: for every host, write: hosts = ["*"]
    error: fleet.toml:8:1: unknown field `fact` in [[match]], expected `facts`
      |
    8 | fact = { family = "debian" }
      | ^^^^ no such field
      |
    hint: did you mean 'facts'?
    error: fleet.toml:12:10: expected an array, found string "base" for `layers` in [[match]]
       |
    12 | layers = "base"
       |          ^^^^^^
       |
    hint: write an array: layers = ["base"]
    "#);
}

#[test]
fn mistakes_in_the_inventory_are_told_at_once() {
    assert_snapshot!(files(&[
        ("layers/base/base.toml", ""),
        ("inventory/hosts.toml", "[host.gw]\nfacts = { os_version = 12, kernel = \"6\" }\n[host.\"../x\"]\n[host.db]\nlabel = {}\nmachine_id = \"x\"\nvars = { host = 1 }\n"),
    ]), @r#"
    error: inventory/hosts.toml:2:24: expected a string, found integer 12 for `facts` in host.gw
      |
    2 | facts = { os_version = 12, kernel = "6" }
      |                        ^^
      |
    hint: facts and labels are strings: quote the value
    error: inventory/hosts.toml:3:7: '../x' is no host name
      |
    3 | [host."../x"]
      |       ^^^^^^
      |
    hint: use letters, digits, '-', '_' and '.', starting with a letter or digit
    error: inventory/hosts.toml:5:1: unknown field `label` in host.db, expected `labels`
      |
    5 | label = {}
      | ^^^^^ no such field
      |
    hint: did you mean 'labels'?
    "#);
}

#[test]
fn a_mistake_in_a_layer_that_nobody_uses_is_told() {
    assert_snapshot!(files(&[("layers/base/base.toml", ""), ("layers/site/lagos/x.toml", "[file.\"/x\"]\nmdoe = \"0644\"\n")]), @r#"
    error: layers/site/lagos/x.toml:2:1: unknown field `mdoe` in file:/x, expected `mode`
      |
    2 | mdoe = "0644"
      | ^^^^ no such field
      |
    hint: did you mean 'mode'?
    "#);
}

#[test]
fn a_directory_that_is_no_fleet_says_what_is_missing() {
    let empty = tempfile::tempdir().unwrap();
    let output = crate::tree::limpet(&["check"], empty.path());
    assert_eq!(output.status.code(), Some(65));
    assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r"
    error: failed to read fleet file 'fleet.toml': no such file
    hint: a fleet repository has a fleet.toml at its root; set source.path if it is in a sub-directory
    ");
}

#[test]
fn what_a_later_version_brings_is_refused_and_not_ignored() {
    assert_snapshot!(base("[file.\"/opt/app\"]\ncontent = \"\"\nwindow = \"night\"\n"), @r#"
    error: layers/base/base.toml:3:1: `window` in file:/opt/app is not supported by limpet 0.1.0
      |
    3 | window = "night"
      | ^^^^^^
    "#);
}

#[test]
fn what_is_unpacked_is_an_archive_at_an_address() {
    let file = |text: &str| base(&format!("[file.\"/opt/app\"]\n{text}"));
    assert_snapshot!(file("unpack = true\n"), @r#"
    error: layers/base/base.toml:2:10: file:/opt/app unpacks nothing: it has no `url`
      |
    2 | unpack = true
      |          ^^^^
      |
    hint: say where the archive is, and what 'sha256sum' prints of it: url = "https://…", sha256 = "…"
    "#);
    assert_snapshot!(file("content = \"x\"\nunpack = true\n"), @r#"
    error: layers/base/base.toml:2:11: file:/opt/app has both `content` and `unpack`
      |
    2 | content = "x"
      |           ^^^
      |
    hint: an archive is fetched from its `url`; a directory of the repository is a tree: [tree."…"]
    "#);
    assert_snapshot!(file("url = \"https://a.example/a.tar\"\nunpack = true\n"), @r#"
    error: layers/base/base.toml:2:7: file:/opt/app has `url` and no `sha256`
      |
    2 | url = "https://a.example/a.tar"
      |       ^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: write what 'sha256sum' prints of the file: sha256 = "…"
    "#);
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    assert_snapshot!(file(&format!("url = \"https://a.example/a.tar\"\nsha256 = \"{hash}\"\nunpack = true\nvalidate = [\"true\", \"{{}}\"]\n")), @r#"
    error: layers/base/base.toml:5:12: file:/opt/app has both `validate` and `unpack`
      |
    5 | validate = ["true", "{}"]
      |            ^^^^^^^^^^^^^^
      |
    hint: that is for a single file: leave one of them out
    "#);
}

#[test]
fn what_a_unit_is_validated_by_is_a_command() {
    let unit = |validate: &str| {
        base(&format!(
            "[unit.\"app.service\"]\nrunning = true\nvalidate = {validate}\n"
        ))
    };
    assert_snapshot!(unit("\"app --check\""), @r#"
    error: layers/base/base.toml:3:12: expected an array, found string "app --check" for `validate` in unit:app.service
      |
    3 | validate = "app --check"
      |            ^^^^^^^^^^^^^
      |
    hint: there is no shell; write an array: validate = ["app", "--check"]
    "#);
    assert_snapshot!(unit("[]"), @r#"
    error: layers/base/base.toml:3:12: `validate` of unit:app.service is no command
      |
    3 | validate = []
      |            ^^
      |
    hint: write the program and its arguments: ["nginx", "-t"]
    "#);
    assert_snapshot!(unit("[\"./app\"]"), @r#"
    error: layers/base/base.toml:3:12: `validate` of unit:app.service names './app', which is no absolute path
      |
    3 | validate = ["./app"]
      |            ^^^^^^^^^
      |
    hint: name a program by its absolute path, or by its name alone
    "#);
}

#[test]
fn a_string_that_is_never_closed_shows_its_beginning() {
    assert_snapshot!(base("[file.\"/a\"]\ncontent = \"\"\"\nx\n"), @r#"
    error: layers/base/base.toml:4:1: invalid multi-line basic string, expected `"`
      |
    4 |
      | ^
      |
    note: layers/base/base.toml:2:11: the string begins here
      |
    2 | content = """
      |           ^^^
    hint: end it with """
    "#);
}

#[test]
fn what_toml_does_not_know_is_answered_with_what_it_does() {
    assert_snapshot!(base("[file./etc/motd]\ncontent = \"\"\n"), @r#"
    error: layers/base/base.toml:1:7: a name with such characters is quoted
      |
    1 | [file./etc/motd]
      |       ^
      |
    hint: write: [file."/etc/motd"]
    "#);
    assert_snapshot!(base("[file.\"/a\"]\ncontent = \"\"\nmode = 0644\n"), @r#"
    error: layers/base/base.toml:3:8: a number has no leading zero
      |
    3 | mode = 0644
      |        ^
      |
    hint: write a string: mode = "0644"
    "#);
    assert_snapshot!(base("[unit.\"a.service\"]\nenabled = yes\n"), @r"
    error: layers/base/base.toml:2:11: a string is written in quotes
      |
    2 | enabled = yes
      |           ^^^
      |
    hint: write: enabled = true
    ");
    assert_snapshot!(base("[file.\"/a\"]\ncontent = hello\n"), @r#"
    error: layers/base/base.toml:2:11: a string is written in quotes
      |
    2 | content = hello
      |           ^^^^^
      |
    hint: quote it: content = "hello"
    "#);
    assert_snapshot!(base("[file.\"/a\"]\nowner = null\n"), @r"
    error: layers/base/base.toml:2:9: a string is written in quotes
      |
    2 | owner = null
      |         ^^^^
      |
    hint: leave the key out: then it is not managed
    ");
}

#[test]
fn a_value_of_the_wrong_type_is_shown_as_it_should_be() {
    assert_snapshot!(base("[file.\"/a\"]\ncontent = 2026-01-01\nowner = 0\ngroup = [\"adm\"]\ntemplate = \"yes\"\nneeds = \"package:curl\"\nreport = 1\n"), @r#"
    error: layers/base/base.toml:2:11: expected a string, found a date or time for `content` in file:/a
      |
    2 | content = 2026-01-01
      |           ^^^^^^^^^^
      |
    hint: quote it: content = "2026-01-01"
    error: layers/base/base.toml:3:9: expected a string, found integer 0 for `owner` in file:/a
      |
    3 | owner = 0
      |         ^
      |
    hint: quote it: owner = "0"
    error: layers/base/base.toml:4:9: expected a string, found an array for `group` in file:/a
      |
    4 | group = ["adm"]
      |         ^^^^^^^
      |
    hint: write one string: group = "…"
    error: layers/base/base.toml:5:12: expected a boolean, found string "yes" for `template` in file:/a
      |
    5 | template = "yes"
      |            ^^^^^
      |
    hint: write: template = true
    error: layers/base/base.toml:6:9: expected an array, found string "package:curl" for `needs` in file:/a
      |
    6 | needs = "package:curl"
      |         ^^^^^^^^^^^^^^
      |
    hint: write an array: needs = ["package:curl"]
    error: layers/base/base.toml:7:10: expected a boolean, found integer 1 for `report` in file:/a
      |
    7 | report = 1
      |          ^
      |
    hint: write: report = true
    "#);
    assert_snapshot!(base("[layer]\nuse = \"chrony\"\nreport = \"Maybe\"\n"), @r#"
    error: layers/base/base.toml:2:7: expected an array, found string "chrony" for `use` in [layer]
      |
    2 | use = "chrony"
      |       ^^^^^^^^
      |
    hint: write an array: use = ["chrony"]
    error: layers/base/base.toml:3:10: expected a boolean, found string "Maybe" for `report` in [layer]
      |
    3 | report = "Maybe"
      |          ^^^^^^^
      |
    hint: write report = true, or false
    "#);
}

#[test]
fn words_of_other_tools_are_translated() {
    assert_snapshot!(base("[file.\"/a\"]\nensure = \"present\"\ntext = \"x\"\n[file.\"/b\"]\nensure = \"absent\"\n[unit.\"nginx.service\"]\nstate = \"running\"\nenable = true\n[directory.\"/c\"]\nrecurse = true\nuser = \"www\"\n[symlink.\"/d\"]\nto = \"/c\"\n[package.curl]\nensure = \"installed\"\nrequire = [\"package:vim\"]\n"), @r#"
    error: layers/base/base.toml:2:1: unknown field `ensure` in file:/a
      |
    2 | ensure = "present"
      | ^^^^^^ no such field
      |
    hint: what is declared is there; only its absence is said: state = "absent"
    error: layers/base/base.toml:3:1: unknown field `text` in file:/a
      |
    3 | text = "x"
      | ^^^^ no such field
      |
    hint: write: content = "x"
    error: layers/base/base.toml:5:1: unknown field `ensure` in file:/b
      |
    5 | ensure = "absent"
      | ^^^^^^ no such field
      |
    hint: write: state = "absent"
    error: layers/base/base.toml:7:1: unknown field `state` in unit:nginx.service
      |
    7 | state = "running"
      | ^^^^^ no such field
      |
    hint: write: running = true
    error: layers/base/base.toml:8:1: unknown field `enable` in unit:nginx.service, expected `enabled`
      |
    8 | enable = true
      | ^^^^^^ no such field
      |
    hint: did you mean 'enabled'?
    error: layers/base/base.toml:10:1: unknown field `recurse` in directory:/c
       |
    10 | recurse = true
       | ^^^^^^^ no such field
       |
    hint: a directory stands for itself; its files are declared one by one
    error: layers/base/base.toml:11:1: unknown field `user` in directory:/c
       |
    11 | user = "www"
       | ^^^^ no such field
       |
    hint: write: owner = "www"
    error: layers/base/base.toml:13:1: unknown field `to` in symlink:/d
       |
    13 | to = "/c"
       | ^^ no such field
       |
    hint: write: target = "/c"
    error: layers/base/base.toml:15:1: unknown field `ensure` in package:curl
       |
    15 | ensure = "installed"
       | ^^^^^^ no such field
       |
    hint: write: state = "installed"
    error: layers/base/base.toml:16:1: unknown field `require` in package:curl
       |
    16 | require = ["package:vim"]
       | ^^^^^^^ no such field
       |
    hint: write: needs = ["package:vim"]
    "#);
    assert_snapshot!(base("[service.nginx]\nenabled = true\n[pkg]\ncurl = \"installed\"\n[dir.\"/srv\"]\n[template.\"/etc/motd\"]\nsource = \"x\"\n[timer.backup]\nenabled = true\n"), @r#"
    error: layers/base/base.toml:1:2: unknown kind `service`
      |
    1 | [service.nginx]
      |  ^^^^^^^ no such kind
      |
    hint: a service is a unit: [unit."nginx.service"]
    error: layers/base/base.toml:3:2: unknown kind `pkg`
      |
    3 | [pkg]
      |  ^^^ no such kind
      |
    hint: write: [package] and below it NAME = "installed"
    error: layers/base/base.toml:5:2: unknown kind `dir`
      |
    5 | [dir."/srv"]
      |  ^^^ no such kind
      |
    hint: write: [directory."/srv"]
    error: layers/base/base.toml:6:2: unknown kind `template`
      |
    6 | [template."/etc/motd"]
      |  ^^^^^^^^ no such kind
      |
    hint: a template is a file: [file."/etc/motd"] with template = true
    error: layers/base/base.toml:8:2: unknown kind `timer`
      |
    8 | [timer.backup]
      |  ^^^^^ no such kind
      |
    hint: a timer is a unit: [unit."backup.timer"]
    "#);
}

#[test]
fn fields_without_the_name_of_their_resource_say_where_it_stands() {
    assert_snapshot!(base("[file]\npath = \"/etc/motd\"\ncontent = \"x\"\n"), @r#"
    error: layers/base/base.toml:2:1: `path` stands in [file], which holds each file by its path
      |
    2 | path = "/etc/motd"
      | ^^^^
      |
    hint: write: [file."/etc/motd"] and its fields below
    error: layers/base/base.toml:3:1: `content` stands in [file], which holds each file by its path
      |
    3 | content = "x"
      | ^^^^^^^
      |
    hint: write: [file."/…"] and its fields below
    "#);
    assert_snapshot!(base("[[file]]\npath = \"/etc/motd\"\n"), @r#"
    error: layers/base/base.toml:1:1: expected a table for [file], found an array
      |
    1 | [[file]]
      | ^^^^^^^^
      |
    hint: each file has a table of its own, by its name: [file."…"]
    "#);
    assert_snapshot!(base("[package]\ninstalled = [\"curl\", \"vim\"]\n"), @r#"
    error: layers/base/base.toml:2:13: expected a table for package:installed, found an array
      |
    2 | installed = ["curl", "vim"]
      |             ^^^^^^^^^^^^^^^
      |
    hint: each package has a key: curl = "installed"
    "#);
}

#[test]
fn a_mode_in_another_notation_is_shown_in_octal() {
    assert_snapshot!(base("[file.\"/a\"]\nmode = \"rw-r-----\"\n[file.\"/b\"]\nmode = \"0o755\"\n[file.\"/c\"]\nmode = \"-rwxr-xr-x\"\n[file.\"/d\"]\nowner = \"www:adm\"\n"), @r#"
    error: layers/base/base.toml:2:8: 'rw-r-----' is no mode of file:/a
      |
    2 | mode = "rw-r-----"
      |        ^^^^^^^^^^^
      |
    hint: write it in octal: mode = "0640"
    error: layers/base/base.toml:4:8: '0o755' is no mode of file:/b
      |
    4 | mode = "0o755"
      |        ^^^^^^^
      |
    hint: write it in octal: mode = "0755"
    error: layers/base/base.toml:6:8: '-rwxr-xr-x' is no mode of file:/c
      |
    6 | mode = "-rwxr-xr-x"
      |        ^^^^^^^^^^^^
      |
    hint: write it in octal: mode = "0755"
    error: layers/base/base.toml:8:9: 'www:adm' is no owner of file:/d
      |
    8 | owner = "www:adm"
      |         ^^^^^^^^^
      |
    hint: write: owner = "www" and group = "adm"
    "#);
}

#[test]
fn a_resource_that_is_named_in_another_manner_is_recognised() {
    assert_snapshot!(base("[package]\nchrony = \"installed\"\n[unit.\"chronyd.service\"]\nenabled = true\n[file.\"/a\"]\ncontent = \"\"\nneeds = [\"chrony\", \"Package[chrony]\", \"pkg:chrony\", \"service:chronyd\", \"chronyd.service\"]\n"), @r#"
    error: layers/base/base.toml:7:10: 'chrony' in `needs` of file:/a is no resource
      |
    7 | needs = ["chrony", "Package[chrony]", "pkg:chrony", "service:chronyd", "chronyd.service"]
      |          ^^^^^^^^
      |
    hint: did you mean 'package:chrony'?
    error: layers/base/base.toml:7:20: 'Package[chrony]' in `needs` of file:/a is no resource
      |
    7 | needs = ["chrony", "Package[chrony]", "pkg:chrony", "service:chronyd", "chronyd.service"]
      |                    ^^^^^^^^^^^^^^^^^
      |
    hint: did you mean 'package:chrony'?
    error: layers/base/base.toml:7:39: 'pkg:chrony' in `needs` of file:/a is no resource
      |
    7 | needs = ["chrony", "Package[chrony]", "pkg:chrony", "service:chronyd", "chronyd.service"]
      |                                       ^^^^^^^^^^^^
      |
    hint: did you mean 'package:chrony'?
    error: layers/base/base.toml:7:53: 'service:chronyd' in `needs` of file:/a is no resource
      |
    7 | needs = ["chrony", "Package[chrony]", "pkg:chrony", "service:chronyd", "chronyd.service"]
      |                                                     ^^^^^^^^^^^^^^^^^
      |
    hint: did you mean 'unit:chronyd.service'?
    error: layers/base/base.toml:7:72: 'chronyd.service' in `needs` of file:/a is no resource
      |
    7 | needs = ["chrony", "Package[chrony]", "pkg:chrony", "service:chronyd", "chronyd.service"]
      |                                                                        ^^^^^^^^^^^^^^^^^
      |
    hint: did you mean 'unit:chronyd.service'?
    "#);
}

#[test]
fn a_version_that_is_none_says_what_to_write() {
    assert_snapshot!(base("[package]\na = { version = \"latest\" }\nb = { version = \">= 1.2\" }\n"), @r#"
    error: layers/base/base.toml:2:17: 'latest' is no version of package:a
      |
    2 | a = { version = "latest" }
      |                 ^^^^^^^^
      |
    hint: leave `version` out, or pin what you tested; two hosts with the same commit get the same version
    error: layers/base/base.toml:3:17: '>= 1.2' is no version of package:b
      |
    3 | b = { version = ">= 1.2" }
      |                 ^^^^^^^^
      |
    hint: write the full version, as apt-cache policy or dnf list shows it
    "#);
}

#[test]
fn a_path_that_a_shell_would_expand_is_not() {
    assert_snapshot!(base("[file.\"~/x\"]\ncontent = \"\"\n[file.\"$HOME/x\"]\ncontent = \"\"\n[file.\"./a//b\"]\ncontent = \"\"\n"), @r#"
    error: layers/base/base.toml:1:7: path of file:~/x is not absolute
      |
    1 | [file."~/x"]
      |       ^^^^^
      |
    hint: nothing is expanded in a path: write the whole of it, from '/'
    error: layers/base/base.toml:3:7: path of file:$HOME/x is not absolute
      |
    3 | [file."$HOME/x"]
      |       ^^^^^^^^^
      |
    hint: nothing is expanded in a path: write the whole of it, from '/'
    error: layers/base/base.toml:5:7: path of file:./a//b is not absolute
      |
    5 | [file."./a//b"]
      |       ^^^^^^^^
      |
    hint: write: [file."/a/b"]
    "#);
}

#[test]
fn a_source_named_from_the_wrong_place_is_found() {
    assert_snapshot!(files(&[
        ("layers/base/base.toml", "[file.\"/a\"]\nsource = \"files/motd\"\n[file.\"/b\"]\nsource = \"/etc/motd\"\n[file.\"/c\"]\nsource = \"/shared/isue\"\n"),
        ("layers/base/files/motd", ""),
        ("shared/issue", ""),
    ]), @r#"
    error: layers/base/base.toml:2:10: source 'files/motd' of file:/a is missing
      |
    2 | source = "files/motd"
      |          ^^^^^^^^^^^^ no file 'layers/base/files/files/motd'
      |
    hint: leave out the directory: source = "motd"
    error: layers/base/base.toml:4:10: source '/etc/motd' of file:/b is missing
      |
    4 | source = "/etc/motd"
      |          ^^^^^^^^^^^ no file 'etc/motd'
      |
    hint: a leading '/' means the repository's root; did you mean 'motd'?
    error: layers/base/base.toml:6:10: source '/shared/isue' of file:/c is missing
      |
    6 | source = "/shared/isue"
      |          ^^^^^^^^^^^^^^ no file 'shared/isue'
      |
    hint: did you mean '/shared/issue'?
    "#);
}

#[test]
fn a_tree_is_a_directory_of_files_and_ignores_only_what_it_purges() {
    let layer = "[tree.\"/etc/a\"]\nsource = \"one\"\n[tree.\"/etc/b\"]\nsource = \"nothing\"\n[tree.\"/etc/c\"]\n\
                 [tree.\"/etc/d\"]\nsource = \"dir\"\nignore = [\"*.x\"]\n\
                 [directory.\"/etc/e\"]\npurge = true\nignore = [\"a[\"]\n";
    assert_snapshot!(files(&[
        ("layers/base/base.toml", layer),
        ("layers/base/files/one", "1"),
        ("layers/base/files/dir/two", "2"),
    ]), @r#"
    error: layers/base/base.toml:2:10: source 'one' of tree:/etc/a is no directory
      |
    2 | source = "one"
      |          ^^^^^
      |
    hint: a tree is a directory of files; for one file declare [file."…"]
    error: layers/base/base.toml:4:10: source 'nothing' of tree:/etc/b is missing
      |
    4 | source = "nothing"
      |          ^^^^^^^^^ no file 'layers/base/files/nothing'
    error: layers/base/base.toml:5:7: missing field `source` in tree:/etc/c
      |
    5 | [tree."/etc/c"]
      |       ^^^^^^^^
      |
    hint: name a directory below files/ of this layer: source = "nginx/conf.d"
    error: layers/base/base.toml:8:10: `ignore` of tree:/etc/d ignores nothing
      |
    8 | ignore = ["*.x"]
      |          ^^^^^^^
      |
    hint: it says what stays of a directory with purge = true
    error: layers/base/base.toml:11:10: 'a[' in `ignore` of directory:/etc/e is no pattern
       |
    11 | ignore = ["a["]
       |          ^^^^^^ invalid range pattern
       |
    hint: write a name or a glob, such as "*.local"; with a '/', a path below the directory
    "#);
}

#[test]
fn a_file_at_an_address_has_a_hash_and_nothing_else() {
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let layer = format!(
        "[file.\"/a\"]\nurl = \"https://a/b\"\n\
         [file.\"/b\"]\nurl = \"https://user:word@a/b\"\nsha256 = \"{hash}\"\n\
         [file.\"/c\"]\nurl = \"https://a/b\"\nsha256 = \"9F\"\n\
         [file.\"/d\"]\nurl = \"https://a/b\"\nsha256 = \"{hash}\"\ncontent = \"x\"\n\
         [file.\"/e\"]\ncontent = \"x\"\nsha256 = \"{hash}\"\n"
    );
    assert_snapshot!(base(&layer), @r#"
    error: layers/base/base.toml:2:7: file:/a has `url` and no `sha256`
      |
    2 | url = "https://a/b"
      |       ^^^^^^^^^^^^^
      |
    hint: write what 'sha256sum' prints of the file: sha256 = "…"
    error: layers/base/base.toml:4:7: `url` of file:/b is no address
      |
    4 | url = "https://user:word@a/b"
      |       ^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: write https://host/path, without a user; what it leads to is told by sha256
    error: layers/base/base.toml:8:10: `sha256` of file:/c is no SHA-256
      |
    8 | sha256 = "9F"
      |          ^^^^
      |
    hint: write the 64 digits that 'sha256sum' prints
    error: layers/base/base.toml:10:7: file:/d has both `content` and `url`
       |
    10 | url = "https://a/b"
       |       ^^^^^^^^^^^^^
       |
    note: layers/base/base.toml:12:11: `content` is set here
       |
    12 | content = "x"
       |           ^^^
    hint: keep one; a later layer that replaces the other declares undeclare = true beside it
    error: layers/base/base.toml:15:10: file:/e has `sha256` and no `url`
       |
    15 | sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
       |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
    hint: what is in the repository needs no hash: leave it out
    "#);
}
