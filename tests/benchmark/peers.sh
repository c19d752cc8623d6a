# shellcheck shell=bash disable=SC2034,SC2154 # names shared with tests/bench
# Sourced by tests/bench: the peers, each set up as its friends would.
#
# CFEngine gets what makes it fast: no standard library where none is needed, no locks, digests compared and not bytes. Of its two forms
# `tree` copies a directory, `each` has one promise a file, as limpet has one declaration a file.

# $1: the lines of the bundle; $2: more of the common control.
policy() {
    cat <<POLICY
body common control
{
  bundlesequence => { "main" };
  $2
}

bundle agent main
{
$1
}

body copy_from same_as(source) { source => "\$(source)"; compare => "digest"; copy_backup => "false"; }
body depth_search everything { depth => "inf"; }
body perms of_files { mode => "0644"; rxdirs => "true"; owners => { "root" }; groups => { "root" }; }
body perms of_a_file { mode => "0644"; rxdirs => "false"; owners => { "root" }; groups => { "root" }; }
POLICY
}

tree_promise='  files:
    "/srv/tree/." copy_from => same_as("/srv/source"), depth_search => everything, perms => of_files;'

write_file_policies() {
    policy "$tree_promise" '' >"$root/root/bench/tree.cf"
    policy "  files:
$(sed 's|^/srv/limpet/\(.*\)|    "/srv/each/\1" copy_from => same_as("/srv/source/\1"), perms => of_a_file;|' "$root/root/bench/list")" '' \
        >"$root/root/bench/each.cf"
    chmod 0600 "$root/root/bench"/*.cf
}

# Files as a tree, packages by the module for apt, units by the standard library, which is the way to have them.
write_mixed_policy() {
    policy "$tree_promise
  packages:
$(sed 's|.*|    "&" policy => "present", package_module => apt_get;|' "$root/root/bench/packages")
  services:
$(sed 's|.*|    "&" service_policy => "start";|' "$root/root/bench/units")" \
        'inputs => { "/usr/share/cfengine3/masterfiles/lib/stdlib.cf" };' >"$root/root/bench/mixed.cf"
    chmod 0600 "$root/root/bench/mixed.cf"
    # Without these two every promise of a package fails, and cf-agent succeeds all the same.
    inside 'ln -sf /usr/bin/python3 /var/lib/cfengine3/bin/cfengine-selected-python
        mkdir -p /var/lib/cfengine3/modules/packages
        install -m 0755 /usr/share/cfengine3/masterfiles/modules/packages/vendored/apt_get.mustache \
            /var/lib/cfengine3/modules/packages/apt_get'
}

cfengine() { echo "cf-agent --no-lock --file /root/bench/$1.cf"; }

rsync_command='rsync --archive --checksum /srv/source/ /srv/rsync/'

# The agent that people write in an afternoon: fetch, verify the tip, and lay out the files. It has no packages, units, status or
# way back.
write_shell_agent() {
    cat >"$root/root/bench/shell-agent" <<'AGENT'
#!/bin/sh
set -eu
cd /srv/clone
git fetch --quiet --depth 1 origin main
git verify-commit FETCH_HEAD
git reset --quiet --hard FETCH_HEAD
rsync --archive --checksum layers/base/files/tree/ /srv/shell/
AGENT
    # Its first run is a clone.
    sed "s|^cd .*|rm -rf /srv/clone; git clone --quiet --depth 1 $url /srv/clone; cd /srv/clone|
        s|^git fetch .*|git update-ref FETCH_HEAD HEAD|" "$root/root/bench/shell-agent" >"$root/root/bench/shell-first"
    chmod 0755 "$root/root/bench"/shell-*
    inside 'git config --global gpg.ssh.allowedSignersFile /root/allowed_signers
        git config --global http.sslCAInfo /root/ca.pem'
}
