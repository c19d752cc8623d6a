# shellcheck shell=bash disable=SC2034,SC2154 # names shared with tests/bench
# Sourced by tests/bench: the machine, the Git server, the author, and the trees of files.
#
# A *scene* is a fleet repository of its own, and what the machine is enrolled in. The machine outlives its scenes.

machine=bench
servers=()

clean_up() {
    local server
    for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; done
    "$top/packaging/machine" destroy $machine || true
    rm -rf "$work"
    if [ -n "${SUDO_UID:-}" ]; then
        find "$top/target" -path "$top/target/machines" -prune -o -user root -exec chown -h "$SUDO_UID:${SUDO_GID:-}" {} + || true
    fi
}

# Runs a shell script in the machine.
inside() { "$top/packaging/machine" run $machine /bin/sh -euc "$@" </dev/null; }

wrong() {
    echo "bench: $*" >&2
    exit 1
}

# --- The machine

boot_machine() {
    "$top/packaging/machine" destroy $machine
    init=$("$top/packaging/machine" start $machine --owner $$)
    root=/proc/$init/root
    mkdir -p "$root/root/bench"
    gcc -O2 -Wall -Wextra -static -o "$root/root/bench/cost" "$top/tests/benchmark/cost.c"
    gcc -O2 -Wall -Wextra -static -o "$root/root/bench/floor" "$top/tests/benchmark/floor.c" -lcrypto
    # The peers' own programs; nothing of them may start by itself.
    # shellcheck disable=SC2016 # for the shell inside
    inside 'printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
        export DEBIAN_FRONTEND=noninteractive
        apt-get -q update && apt-get -qy --no-install-recommends install rsync cfengine3 python3-minimal git openssh-client strace
        rm /usr/sbin/policy-rc.d' >"$work/apt.log" 2>&1 || wrong "failed to install the peers: $(tail -n 3 "$work/apt.log")"
    cp "$package" "$root/root/limpet.deb"
    inside 'DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install /root/limpet.deb' >>"$work/apt.log" 2>&1 ||
        wrong "failed to install limpet: $(tail -n 3 "$work/apt.log")"
    if [ -n "$program" ]; then install -m 0755 "$program" "$root/usr/bin/limpet"; fi
    cp "$work/ca.pem" "$work/allowed_signers" "$root/root/"
    # systemd accounts for no CPU where it does not delegate controllers, but the kernel counts for every cgroup of version 2. A slice
    # of their own counts for both services, and keeps what one that has ended had used.
    local mount unit
    for unit in limpet limpet-fetch; do
        install -D -m 0644 /dev/stdin "$root/etc/systemd/system/$unit.service.d/bench.conf" <<<$'[Service]\nSlice=limpet.slice'
    done
    inside 'systemctl daemon-reload; systemctl start limpet.slice'
    for mount in /sys/fs/cgroup/unified /sys/fs/cgroup; do
        if inside "test -e $mount/limpet.slice/cpu.stat"; then counter=$mount/limpet.slice/cpu.stat; fi
    done
    [ -n "${counter:-}" ] || wrong "this kernel mounts no cgroup v2 in the machine: there is nothing to count a service's CPU with"
}

# What limpet's services have used so far, in microseconds.
used_by_both() { sed -n 's/^usage_usec //p' "$root$counter"; }

# Runs a shell command in the machine and adds what it cost to a figure.  measure FIGURE COMMAND
# With `measure --services FIGURE COMMAND` what limpet's two services did meanwhile is added.
measure() {
    local services=()
    if [ "$1" = --services ]; then services=(--and "$counter") && shift; fi
    local figure=$1 command=$2 code=0
    : >"$root/root/bench/sample"
    "$top/packaging/machine" run $machine /root/bench/cost --to /root/bench/sample "${services[@]}" /bin/sh -c "exec $command" \
        </dev/null >"$work/output" 2>&1 || code=$?
    # cf-agent succeeds whatever becomes of its promises, so what it says counts as well; but it complains about a directory that it
    # makes a moment later.
    if [ $code != 0 ] || grep -v 'Failed to chdir into' "$work/output" | grep -q '^ *error:'; then
        wrong "'$command' ended with $code: $(tail -n 20 "$work/output")"
    fi
    cat "$root/root/bench/sample" >>"$figures/$figure"
}

# The pid, inside the machine, of a service's main process; 0 when it is not running.
main_pid() { inside "systemctl show --property=MainPID --value $1"; }

# --- The Git server: nginx in front of git http-backend, over TLS

start_git_server() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=limpet bench CA' \
        -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
        -keyout "$work/tls.key" -out "$work/tls.csr" 2>/dev/null
    openssl x509 -req -in "$work/tls.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 -out "$work/tls.pem" \
        -extfile <(echo 'subjectAltName=DNS:localhost,IP:127.0.0.1') 2>/dev/null
    port=8543
    while (: <>/dev/tcp/127.0.0.1/$port) 2>/dev/null; do port=$((port + 1)); done
    cat >"$work/nginx.conf" <<CONF
user root;
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log;
events {}
http {
    # Bytes as nginx counts them: the request with its headers, the answer with its headers; without TLS.
    log_format polls '\$connection \$request_length \$bytes_sent \$request_method \$request_uri';
    access_log $work/requests.log polls;
    client_max_body_size 64m;
    client_body_temp_path $work/body;
    fastcgi_temp_path $work/fastcgi;
    proxy_temp_path $work/proxy;
    uwsgi_temp_path $work/uwsgi;
    scgi_temp_path $work/scgi;
    server {
        listen 127.0.0.1:$port ssl;
        ssl_certificate $work/tls.pem;
        ssl_certificate_key $work/tls.key;
        location / {
            fastcgi_pass unix:$work/fcgiwrap.sock;
            fastcgi_param SCRIPT_FILENAME $(git --exec-path)/git-http-backend;
            fastcgi_param GIT_PROJECT_ROOT $work/server;
            fastcgi_param GIT_HTTP_EXPORT_ALL 1;
            fastcgi_param GIT_PROTOCOL \$http_git_protocol;
            fastcgi_param PATH_INFO \$uri;
            fastcgi_param QUERY_STRING \$query_string;
            fastcgi_param REQUEST_METHOD \$request_method;
            fastcgi_param CONTENT_TYPE \$content_type;
            fastcgi_param CONTENT_LENGTH \$content_length;
        }
    }
}
CONF
    fcgiwrap -s "unix:$work/fcgiwrap.sock" 2>/dev/null &
    servers+=($!)
    /usr/sbin/nginx -e "$work/nginx.log" -c "$work/nginx.conf" &
    servers+=($!)
}

# --- The author: one key, one repository a scene; no Git configuration of this computer takes part

make_author() {
    export GIT_CONFIG_GLOBAL=$work/gitconfig GIT_CONFIG_NOSYSTEM=1
    ssh-keygen -q -t ed25519 -N '' -C alice@example.net -f "$work/alice"
    echo "alice@example.net namespaces=\"git\" $(cut -d' ' -f1,2 "$work/alice.pub")" >"$work/allowed_signers"
    git config --global user.name Alice
    git config --global user.email alice@example.net
    git config --global init.defaultBranch main
    git config --global gpg.format ssh
    git config --global user.signingKey "$work/alice"
    git config --global commit.gpgSign true
    git config --global safe.directory '*'
}

# A fleet whose first commit, the anchor, declares nothing.
new_fleet() {
    fleet=$work/$1
    url=https://127.0.0.1:$port/$1.git
    git init -q --bare "$work/server/$1.git"
    git init -q "$fleet"
    git -C "$fleet" remote add origin "$work/server/$1.git"
    mkdir -p "$fleet/inventory" "$fleet/layers/base"
    printf 'format = 1\nfleet = "bench"\n\n[[match]]\nhosts = ["*"]\nlayers = ["base"]\n' >"$fleet/fleet.toml"
    printf '[host.bench]\n' >"$fleet/inventory/hosts.toml"
    printf '# Declarations come later.\n' >"$fleet/layers/base/base.toml"
    push "Anchor"
    anchor=$(git -C "$fleet" rev-parse HEAD)
}

push() {
    git -C "$fleet" add -A
    git -C "$fleet" commit -q -m "$1"
    git -C "$fleet" push -q origin main
}

# --- Trees of files

# Writes a tree as configuration looks: files of 0.5 to 1.5 KiB, 25 a directory, four directories in each above.
write_tree() {
    mkdir -p "$1"
    (
        cd "$1" || exit
        awk -v count="$2" 'BEGIN {
            srand(1)
            for (i = 0; i < count; i++) {
                directory = sprintf("app-%02d/part-%d", i / 100, (i / 25) % 4)
                if (directory != last) system("mkdir -p " directory)
                last = directory
                file = sprintf("%s/setting-%05d.conf", directory, i)
                size = 512 + int(rand() * 1024)
                for (length_so_far = 0; length_so_far < size; length_so_far += length(line) + 1) {
                    line = sprintf("option_%06d = value-%08x # of file %d", rand() * 1000000, rand() * 2147483647, i)
                    print line >file
                }
                close(file)
            }
        }'
    )
}

# Declares every file of layers/base/files/tree below /srv/limpet, one TOML file for each directory at the top.
declare_tree() {
    local directory
    for directory in "$fleet/layers/base/files/tree"/*/; do
        (cd "$fleet/layers/base/files" && find "tree/$(basename "$directory")" -type f | LC_ALL=C sort) |
            sed 's|^tree/\(.*\)$|[file."/srv/limpet/\1"]\nsource = "&"\n|' >"$fleet/layers/base/$(basename "$directory").toml"
    done
}

# The author's tree becomes /srv/source of the machine, which the peers copy, with a list for the floors.
provide_source() {
    inside 'rm -rf /srv/source /srv/limpet /srv/rsync /srv/tree /srv/each /srv/shell /srv/clone
        mkdir -p /srv/rsync /srv/tree /srv/each /srv/shell'
    cp -R "$fleet/layers/base/files/tree" "$root/srv/source"
    inside "find /srv/source -type d -exec chmod 0755 {} +; find /srv/source -type f -exec chmod 0644 {} +
        find /srv/source -type f | LC_ALL=C sort | sed 's|^/srv/source|/srv/limpet|' >/root/bench/list"
}

# A wrong answer that came fast must not count: content, modes and owners of a target, and no file more or less.
check_target() {
    local wrong_files
    # shellcheck disable=SC2016 # for the shell inside
    wrong_files=$(inside 'diff -rq --no-dereference /srv/source "$0" || true
        find "$0" -type f ! \( -perm 0644 -user root -group root \)' "$1" 2>&1) || true
    [ -z "$wrong_files" ] || wrong "after '$2', $1 is not as /srv/source: $(head -n 5 <<<"$wrong_files")"
}

# --- limpet in the machine

# Forgets everything, and enrols in the scene, which has nothing but its anchor yet; the agent rests.
enroll() {
    rest
    inside 'rm -rf /etc/limpet/limpet.toml* /etc/limpet/enrolled /root/bench/state; find /var/lib/limpet /var/cache/limpet -mindepth 1 -delete'
    inside "limpet enroll $url --anchor $anchor --ca-file /root/ca.pem --allowed-signers /root/allowed_signers --name bench --yes
        limpet sync --wait" >"$work/output" 2>&1 || wrong "failed to enrol: $(cat "$work/output")"
    poll_every 6h
    rest
    inside 'mkdir /root/bench/state; cp -a /var/lib/limpet /root/bench/state/lib; cp -a /var/cache/limpet /root/bench/state/cache
        cp -a /etc/limpet /root/bench/state/etc'
}

rest() { inside 'systemctl stop limpet.service limpet-fetch.socket limpet-fetch.service'; }

# Back to the moment after the enrolment, so that the next cycle is the first. (A host that lost its state
# would believe nothing new, so its second mark in /etc/limpet goes back as well.)
forget() {
    inside 'rm -rf /srv/limpet /var/lib/limpet /var/cache/limpet /etc/limpet
        cp -a /root/bench/state/etc /etc/limpet
        cp -a /root/bench/state/lib /var/lib/limpet; cp -a /root/bench/state/cache /var/cache/limpet'
}

# Cycles come when the benchmark asks for them, unless it waits for those that come by themselves.
poll_every() {
    inside "mkdir -p /etc/limpet/limpet.toml.d; printf '[source]\ninterval = \"$1\"\n' >/etc/limpet/limpet.toml.d/interval.toml
        if systemctl --quiet is-active limpet.service; then systemctl reload limpet.service; fi"
}

sync_now() { inside 'limpet sync --wait' >"$work/output" 2>&1 || wrong "limpet does not converge: $(tail -n 5 "$work/output")"; }

# Starts the agent; returns when it has done what the head of the repository says.
start_agent() {
    inside 'systemctl start limpet-fetch.socket limpet.service'
    sync_now
    expect_converged
}

expect_converged() {
    local status head
    status=$(inside 'limpet status --json')
    head=$(git -C "$fleet" rev-parse HEAD)
    if ! grep -q '"state": *"converged"' <<<"$status" || ! grep -q "\"revision\": *\"$head\"" <<<"$status"; then
        wrong "limpet is not converged at $head: $status"
    fi
}

# A line of /proc/PID/status or smaps_rollup of the machine, in KiB.
memory_of() {
    local kibibytes
    kibibytes=$(inside "sed -n 's/^$3:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/$1/$2")
    [ -n "$kibibytes" ] || wrong "failed to read $3 of process $1"
    echo "$kibibytes"
}
