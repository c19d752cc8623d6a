# shellcheck shell=bash disable=SC2034,SC2154 # names shared with tests/bench
# Sourced by tests/bench: what is measured, in the order in which it runs.
#
# Peers take turns: each round runs everybody once, so that what disturbs this computer disturbs all alike.

floor_of() { echo "/root/bench/floor $1 </root/bench/list"; }

# Everything is measured at least once; after --minutes nothing is measured again.  has_time ROUND
has_time() { [ "$1" = 0 ] || [ $SECONDS -lt $((minutes * 60)) ]; }

# --- Files

measure_files() {
    local count=$1
    say "$count files"
    new_fleet "files-$count"
    enroll
    write_tree "$fleet/layers/base/files/tree" "$count"
    declare_tree
    push "$count files"
    provide_source
    write_file_policies
    write_shell_agent

    first_apply "$count"
    no_change "$count"
    one_drifted "$count"
    one_pushed "$count"
    cycles_by_themselves "$count"
    rest
}

# ext4 passes over each inode that was deleted in the last five seconds, one by one: who makes thousands of files right after thousands
# were deleted pays for that four times what the files cost.
after_deletion() { sleep 6; }

# From nothing to everything. Not all have the same way to go: rsync and CFEngine copy from a directory of the same disk; the shell agent
# clones, verifies the tip and copies; limpet fetches, verifies, renders and writes, and remembers what was there before.
first_apply() {
    local count=$1 round most
    for ((round = 0; round < first_rounds; round++)); do
        has_time $round || break
        inside 'rm -rf /srv/rsync /srv/tree /srv/each /srv/shell; mkdir /srv/rsync /srv/tree /srv/each /srv/shell'
        after_deletion
        measure "first-rsync-$count" "$rsync_command"
        check_target /srv/rsync "first apply"
        measure "first-tree-$count" "$(cfengine tree)"
        check_target /srv/tree "first apply"
        measure "first-shell-$count" /root/bench/shell-first
        check_target /srv/shell "first apply"
        forget
        after_deletion
        measure "first-limpet-$count" "limpet apply --once"
        check_target /srv/limpet "first apply"
        # At once again: a process that starts, fetches, verifies and renders, and finds nothing to do.
        measure "once-limpet-$count" "limpet apply --once"
    done
    measure "first-each-$count" "$(cfengine each)"
    check_target /srv/each "first apply"

    # The agent does it too, for its memory: first with everything to do, then started anew with nothing.
    forget
    start_agent
    check_target /srv/limpet "first apply of the agent"
    most=$(memory_of "$(main_pid limpet.service)" status VmHWM)
    fact "$count files: peak memory of the agent, first apply" "$(mebibytes "$most")" MiB "$(goal_at_most "$count" 23)"
    # With everything fetched and rendered: limpet's way is as short as rsync's.
    for ((round = 0; round < first_rounds; round++)); do
        has_time $round || break
        inside 'rm -rf /srv/limpet'
        after_deletion
        measure --services "again-limpet-$count" "limpet sync --wait"
        check_target /srv/limpet "all files deleted"
    done
    inside 'systemctl restart limpet.service'
    start_agent
}

no_change() {
    local count=$1 round
    for ((round = 0; round < rounds; round++)); do
        has_time $round || break
        measure "stat-$count" "$(floor_of stat)"
        measure "hash-$count" "$(floor_of hash)"
        measure "rsync-$count" "$rsync_command"
        measure "tree-$count" "$(cfengine tree)"
        # A promise for each of ten thousand files takes longer than all others together.
        if [ "$round" -lt 2 ]; then measure "each-$count" "$(cfengine each)"; fi
        measure --services "limpet-$count" "limpet sync --wait"
        expect_converged
    done
    local most
    most=$(memory_of "$(main_pid limpet.service)" status VmHWM)
    fact "$count files: peak memory of the agent, nothing to do" "$(mebibytes "$most")" MiB "$(goal_at_most "$count" 23)"
    ratio "$count files, no change, all read" "loop of lstat" "stat-$count" "limpet-$count"
    ratio "$count files, no change, all read" "loop of lstat, open, read, SHA-256" "hash-$count" "limpet-$count" "$(goal_at_most "$count" 2)"
    ratio "$count files, no change, all read" "rsync -c" "rsync-$count" "limpet-$count"
    ratio "$count files, no change, all read" "cf-agent, tree" "tree-$count" "limpet-$count"
    ratio "$count files, no change, all read" "cf-agent, each" "each-$count" "limpet-$count"
    ratio "$count files, no change, \`limpet apply --once\`" "rsync -c" "rsync-$count" "once-limpet-$count"
    ratio "$count files, first apply" "rsync -c" "first-rsync-$count" "first-limpet-$count" "$(goal_at_most "$count" 1.5)"
    ratio "$count files, first apply, all deleted and put back by the agent" "rsync -c" "first-rsync-$count" "again-limpet-$count"
    ratio "$count files, first apply" "git clone, verify-commit, rsync -c" "first-shell-$count" "first-limpet-$count"
    ratio "$count files, first apply" "cf-agent, tree" "first-tree-$count" "first-limpet-$count"
    ratio "$count files, first apply" "cf-agent, each" "first-each-$count" "first-limpet-$count"
}

one_drifted() {
    local count=$1 round file target
    file=$(sed -n "$((count / 2))p" "$root/root/bench/list")
    file=${file#/srv/limpet/}
    for ((round = 0; round < rounds; round++)); do
        has_time $round || break
        for target in rsync tree each limpet; do echo "by hand" >>"$root/srv/$target/$file"; done
        measure "drift-rsync-$count" "$rsync_command"
        measure "drift-tree-$count" "$(cfengine tree)"
        if [ "$round" -lt 2 ]; then measure "drift-each-$count" "$(cfengine each)"; fi
        measure --services "drift-limpet-$count" "limpet sync --wait"
        for target in rsync tree limpet; do check_target "/srv/$target" "one drifted file"; done
        if [ "$round" -lt 2 ]; then check_target /srv/each "one drifted file"; fi
    done
    ratio "$count files, one drifted" "rsync -c" "drift-rsync-$count" "drift-limpet-$count"
    ratio "$count files, one drifted" "cf-agent, tree" "drift-tree-$count" "drift-limpet-$count"
    ratio "$count files, one drifted" "cf-agent, each" "drift-each-$count" "drift-limpet-$count"
}

one_pushed() {
    local count=$1 round file
    file=$(sed -n "$((count / 3 + 1))p" "$root/root/bench/list")
    file=${file#/srv/limpet/}
    for ((round = 0; round < rounds; round++)); do
        has_time $round || break
        echo "changed in round $round" >>"$fleet/layers/base/files/tree/$file"
        push "Change one file, round $round"
        if [ $((round % 2)) = 0 ]; then
            measure --services "push-limpet-$count" "limpet sync --wait"
            measure "push-shell-$count" /root/bench/shell-agent
        else
            measure "push-shell-$count" /root/bench/shell-agent
            measure --services "push-limpet-$count" "limpet sync --wait"
        fi
        cp "$fleet/layers/base/files/tree/$file" "$root/srv/source/$file"
        expect_converged
        check_target /srv/limpet "push"
        check_target /srv/shell "push"
    done
    ratio "$count files, one changed file pushed" "git fetch, verify-commit, reset, rsync -c" "push-shell-$count" "push-limpet-$count" 1/2
}

# What the agent does unasked, poll included. It may trust what stat(2) says about a file that it has read before.
cycles_by_themselves() {
    local count=$1
    measure_cycles "cycle-$count"
    ratio "$count files, no change, cycle by itself" "loop of lstat" "stat-$count" "cycle-$count"
    ratio "$count files, no change, cycle by itself" "loop of lstat, open, read, SHA-256" "hash-$count" "cycle-$count" \
        "$(goal_at_most "$count" 0.5)"
}

# Of some cycles, each with its poll, into a figure.
measure_cycles() {
    local figure=$1 cycle before after
    poll_every 10s
    await_poll
    # The first ones after a change may read everything.
    await_poll
    before=$(used_by_both)
    for ((cycle = 0; cycle < rounds; cycle++)); do
        has_time $cycle || break
        await_poll
        after=$(used_by_both)
        echo "$((after - before)) 0 0" >>"$figures/$figure"
        before=$after
    done
    poll_every 6h
}

# Waits for the next poll at the server, and then for the end of its cycle.
await_poll() {
    local seen try
    seen=$(wc -l <"$work/requests.log")
    for ((try = 0; $(wc -l <"$work/requests.log") == seen; try++)); do
        [ $try -lt 600 ] || wrong "the agent did not poll within a minute, though its interval is 10 s"
        sleep 0.1
    done
    sleep 3
}

# The goals about scale are those of 10,000 resources.
goal_at_most() { if [ "$1" -ge 10000 ]; then echo "$2"; fi; }

mebibytes() { awk -v kibibytes="$1" 'BEGIN { printf "%.1f", kibibytes / 1024 }'; }

# --- Packages and units: what the machine has, asserted

# So many packages of the base system, for a list.
choose_packages() {
    local wanted
    # shellcheck disable=SC2016 # for dpkg-query
    inside 'dpkg-query -W -f "\${db:Status-Status} \${Priority} \${Package}\n"' |
        awk '$1 == "installed" && ($2 == "required" || $2 == "important" || $2 == "standard" || $2 == "optional") { print $3 }' |
        head -n "$1" >"$root/root/bench/packages"
    wanted=$(wc -l <"$root/root/bench/packages")
    [ "$wanted" = "$1" ] || wrong "the machine has $wanted packages, expected $1"
}

# So many units, which limpet enables and starts.
make_units() {
    local unit
    for unit in $(seq -w 1 "$1"); do
        printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' >"$root/etc/systemd/system/bench-$unit.service"
        echo "bench-$unit"
    done >"$root/root/bench/units"
    inside 'systemctl daemon-reload'
}

declare_packages() {
    echo '[package]'
    sed 's|.*|"&" = "installed"|' "$root/root/bench/packages"
}
declare_units() { sed 's|.*|\n[unit."&.service"]\nenabled = true\nrunning = true|' "$root/root/bench/units"; }

one_dpkg_query() { echo "dpkg-query -W -f '\${Package} \${db:Status-Status}\n' $(tr '\n' ' ' <"$root/root/bench/packages")"; }
one_dbus_call() {
    echo "busctl --quiet call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \
        ListUnitsByNames as $(wc -l <"$root/root/bench/units") $(sed 's/$/.service/' "$root/root/bench/units" | tr '\n' ' ')"
}

measure_packages() {
    say "50 packages"
    choose_packages 50
    compare_assertions packages "50 packages" "$(one_dpkg_query)" "one dpkg-query" "$(declare_packages)"
}

measure_units() {
    say "20 units"
    make_units 20
    compare_assertions units "20 units" "$(one_dbus_call)" "one D-Bus call" "$(declare_units)"
    expect_units "no change"
}

# Nothing but these is declared. What is asked for includes the program that asks, and a poll, as does what happens by itself.
compare_assertions() {
    local name=$1 what=$2 floor=$3 called=$4 declared=$5 round
    new_fleet "$name"
    enroll
    echo "$declared" >"$fleet/layers/base/base.toml"
    push "$what"
    start_agent
    for ((round = 0; round < rounds; round++)); do
        has_time $round || break
        measure "$name-floor" "$floor"
        measure --services "$name-asked" "limpet sync --wait"
        expect_converged
    done
    measure_cycles "$name-cycle"
    ratio "$what, no change, all read" "$called" "$name-floor" "$name-asked"
    ratio "$what, no change, cycle by itself" "$called" "$name-floor" "$name-cycle" 2
    rest
}

# --- A host as hosts are: 200 files, 30 packages, 10 units

measure_mixed() {
    local round unit
    say "a mixed host: 200 files, 30 packages, 10 units"
    new_fleet mixed
    enroll
    write_tree "$fleet/layers/base/files/tree" 200
    declare_tree
    # shellcheck disable=SC2016 # for dpkg-query
    choose_packages 30
    make_units 10
    {
        declare_packages
        declare_units
    } >"$fleet/layers/base/base.toml"
    push "A host"
    provide_source
    write_mixed_policy

    start_agent
    check_target /srv/limpet "first apply"
    expect_units "first apply"
    # CFEngine finds the units as limpet left them; what is left are its files and its lists of packages.
    inside "$(cfengine mixed)" >"$work/output" 2>&1 || wrong "cf-agent fails: $(cat "$work/output")"
    expect_cfengine_checks_packages
    for ((round = 0; round < rounds; round++)); do
        has_time $round || break
        measure mixed-floor-files "$(floor_of hash)"
        measure mixed-floor-packages "$(one_dpkg_query)"
        measure mixed-floor-units "$(one_dbus_call)"
        measure mixed-cfengine "$(cfengine mixed)"
        measure --services mixed-limpet "limpet sync --wait"
        expect_converged
    done
    check_target /srv/limpet "no change"
    check_target /srv/tree "no change"
    expect_units "no change"
    combine mixed-floor mixed-floor-files 1 mixed-floor-packages 1 mixed-floor-units 1
    ratio "mixed host, no change, all read" "floors: loop, one dpkg-query, one D-Bus call" mixed-floor mixed-limpet
    ratio "mixed host, no change, all read" "cf-agent" mixed-cfengine mixed-limpet 1/40
    count_programs
    measure_idle
    measure_polls
    rest
}

expect_units() {
    local unit
    while read -r unit; do
        inside "systemctl is-active --quiet $unit.service && systemctl is-enabled --quiet $unit.service" ||
            wrong "after '$1', $unit.service is not enabled and running"
    done <"$root/root/bench/units"
}

# A policy that asks for a package which does not exist must fail, or CFEngine looks at no package at all.
expect_cfengine_checks_packages() {
    policy '  packages: "bench-nonesuch" policy => "present", package_module => apt_get;' \
        'inputs => { "/usr/share/cfengine3/masterfiles/lib/stdlib.cf" };' >"$root/root/bench/nonesuch.cf"
    chmod 0600 "$root/root/bench/nonesuch.cf"
    inside "$(cfengine nonesuch)" >"$work/output" 2>&1 || true
    grep -q "bench-nonesuch" "$work/output" || wrong "CFEngine does not look at packages: $(cat "$work/output")"
}

# Programs that a cycle starts: every execve of the agent and what it forks, as strace sees it.
count_programs() {
    local count
    # shellcheck disable=SC2016 # for the shell inside
    inside 'strace -f -qq -e trace=execve,execveat,fork,vfork -p "$0" -o /root/bench/trace 2>/dev/null &
        tracer=$!
        until grep -q "^TracerPid:.$tracer$" "/proc/$0/status"; do sleep 0.1; done
        for _ in 1 2 3; do limpet sync --wait; done
        kill $tracer; wait $tracer || true' "$(main_pid limpet.service)" >"$work/output" 2>&1 || wrong "strace fails: $(cat "$work/output")"
    count=$(grep -c . "$root/root/bench/trace") || true
    fact "mixed host: programs run in three cycles without a change" "$count" programs 0
}

# Between polls.
measure_idle() {
    local agent fetcher rss pss ticks used
    inside 'systemctl restart limpet.service'
    sync_now
    expect_converged
    sleep 30
    agent=$(main_pid limpet.service)
    fetcher=$(main_pid limpet-fetch.service)
    rss=$(memory_of "$agent" status VmRSS)
    pss=$(memory_of "$agent" smaps_rollup Pss)
    fact "mixed host: agent at rest, RSS" "$(mebibytes "$rss")" MiB 9
    fact "mixed host: agent at rest, PSS" "$(mebibytes "$pss")" MiB
    if [ "$fetcher" != 0 ]; then
        rss=$(memory_of "$fetcher" status VmRSS)
        pss=$(memory_of "$fetcher" smaps_rollup Pss)
        fact "mixed host: fetcher at rest, RSS" "$(mebibytes "$rss")" MiB
        fact "mixed host: fetcher at rest, PSS" "$(mebibytes "$pss")" MiB
    fi
    ticks=$(ticks_of "$agent")
    used=$(used_by_both)
    sleep 45
    fact "mixed host: CPU of the agent in 45 s between polls" "$(($(ticks_of "$agent") - ticks))" "ticks of 10 ms" 0
    # Idle for long enough the fetcher ends, which is the last that it costs.
    fact "mixed host: CPU of agent and fetcher meanwhile, by the clock of their cgroup" "$(($(used_by_both) - used))" µs
}

# utime and stime of a process of the machine.
ticks_of() { sed 's/.*) //' "$root/proc/$1/stat" | awk '{ print $12 + $13 }'; }

# A poll that finds nothing new, with few refs and with many.
measure_polls() {
    local refs before requests bytes
    for refs in 1 1001; do
        if [ $refs -gt 1 ]; then
            seq -f "create refs/heads/topic-%g $(git -C "$fleet" rev-parse HEAD)" 1000 | git -C "$work/server/mixed.git" update-ref --stdin
        fi
        sync_now
        before=$(wc -l <"$work/requests.log")
        sync_now
        sleep 0.5
        requests=$(($(wc -l <"$work/requests.log") - before))
        bytes=$(tail -n "+$((before + 1))" "$work/requests.log" | awk '{ sum += $2 + $3 } END { print sum + 0 }')
        fact "poll without news, $refs refs: requests" "$requests" requests 1
        fact "poll without news, $refs refs: sent and received, with headers, without TLS" "$bytes" bytes 700
    done
}

# --- Signatures

measure_signatures() {
    local count=$1 history=$work/history commit round first second
    say "a history of $count signed commits"
    git init -q "$history"
    printf 'format = 1\nfleet = "bench"\n' >"$history/fleet.toml"
    git -C "$history" add -A
    for ((commit = 0; commit <= count; commit++)); do git -C "$history" commit -q --allow-empty -m "Commit $commit"; done
    rm -rf "$root/srv/history"
    cp -R "$history" "$root/srv/history"
    : >"$root/root/bench/revoked"
    inside 'git config --global gpg.ssh.allowedSignersFile /root/allowed_signers'
    # The first commit is the anchor; `one` judges one commit after it, `all` judges all.
    first=$(git -C "$history" rev-list --max-parents=0 HEAD)
    second=$(git -C "$history" rev-list --reverse HEAD | sed -n 2p)
    git -C "$history" rev-list "$first..HEAD" >"$root/root/bench/commits"
    local judge="limpet verify --repo /srv/history --allowed-signers /root/allowed_signers --revoked /root/bench/revoked --anchor $first"
    for ((round = 0; round < rounds; round++)); do
        has_time $round || break
        measure signature-limpet-all "$judge HEAD"
        grep -q '^accepted' "$work/output" || wrong "limpet verify does not accept: $(cat "$work/output")"
        measure signature-limpet-one "$judge $second"
        measure signature-git-all "git -C /srv/history verify-commit $(tr '\n' ' ' <"$root/root/bench/commits")"
        [ "$(grep -c '^Good "git" signature' "$work/output")" = "$count" ] || wrong "git verify-commit does not accept all"
        measure signature-git-one "git -C /srv/history verify-commit $second"
    done
    # What one commit more costs: start-up is in both and goes.
    combine signature-limpet signature-limpet-all "$(per "$count")" signature-limpet-one "-$(per "$count")"
    combine signature-git signature-git-all "$(per "$count")" signature-git-one "-$(per "$count")"
    ratio "signature of one commit, of $count in one process" "git verify-commit" signature-git signature-limpet 1/20
    # A refused history shows that it looks.
    git -C "$history" commit -q --allow-empty --no-gpg-sign -m "Unsigned"
    cp -R "$history/.git" "$root/srv/history"
    if inside "$judge HEAD" >/dev/null 2>&1; then wrong "limpet verify accepts a commit that nobody signed"; fi
}

per() { awk -v count="$1" 'BEGIN { printf "%.9f", 1 / (count - 1) }'; }

# --- The package

measure_package() {
    local kibibytes
    say "the installed package"
    # shellcheck disable=SC2016 # for dpkg-query and the shell inside
    kibibytes=$(inside 'dpkg-query -L limpet | while read -r path; do if [ -f "$path" ] && [ ! -L "$path" ]; then echo "$path"; fi; done |
        xargs du --apparent-size --block-size=1 | awk "{ sum += \$1 } END { print sum / 1024 }"')
    fact "package: sum of its files" "$(mebibytes "$kibibytes")" MiB 10
    # shellcheck disable=SC2016 # for dpkg-query
    fact "package: Installed-Size" "$(mebibytes "$(inside 'dpkg-query -W -f "\${Installed-Size}" limpet')")" MiB 10
    # shellcheck disable=SC2016 # for dpkg-query
    printf '%s\t%s\t\t\n' "package: depends on" "$(inside 'dpkg-query -W -f "\${Depends}" limpet')" >>"$facts"
    show "$facts"
}
