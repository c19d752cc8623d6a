#!/bin/sh
# limpet: here only while limpet changes packages. It keeps their scripts from restarting units whose restarts wait for a person,
# and otherwise does what was here before.
set -f
units='@UNITS@'
before=@BEFORE@

otherwise() {
    [ -x "$before" ] && exec "$before" "$@"
    exit 0
}

# Whoever else works with packages meanwhile is none of its concern.
is_ours=
while read -r line; do
    case $line in *limpet-txn-*) is_ours=1 ;; esac
done < /proc/self/cgroup
[ "$is_ours" ] || otherwise "$@"

name=
actions=
for word; do
    case $word in
    --list) otherwise "$@" ;;
    -*) ;;
    *) if [ -z "$name" ]; then name=$word; elif [ -z "$actions" ]; then actions=$word; fi ;;
    esac
done
case $name in
*.*) unit=$name ;;
*) unit=$name.service ;;
esac
case " $units " in
*" $unit "*) ;;
*) otherwise "$@" ;;
esac

# Who asks: the call of deb-systemd-invoke, and whether the package goes.
call=
is_removal=
process=$PPID
while [ "${process:-0}" -gt 1 ]; do
    words=$(tr '\000' ' ' < "/proc/$process/cmdline") || break
    case $words in
    *".prerm remove"*|*".postrm remove"*|*".postrm purge"*) is_removal=1 ;;
    */deb-systemd-invoke\ *) [ "$call" ] || call=${words#*/deb-systemd-invoke } ;;
    esac
    parent=
    while read -r key value; do
        [ "$key" = PPid: ] && parent=$value
    done < "/proc/$process/status"
    process=$parent
done
case " $call" in *" --user "*) otherwise "$@" ;; esac

is_denied=
for action in $actions; do
    action=${action#\(}
    case ${action%\)} in
    restart|try-restart|condrestart|force-reload|reload-or-restart|reload-or-try-restart|try-reload-or-restart) is_denied=1 ;;
    stop|force-stop) [ "$is_removal" ] || is_denied=1 ;;
    esac
done
[ "$is_denied" ] || otherwise "$@"

printf '%s %s\n' "${DPKG_MAINTSCRIPT_PACKAGE:--}" "$unit" >> @WITHHELD@

# deb-systemd-invoke drops the whole call when one of its units is denied: the others have theirs by themselves.
verb=
others=
for word in $call; do
    case $word in
    -*|"$name") ;;
    *) if [ -z "$verb" ]; then verb=$word; else others="$others $word"; fi ;;
    esac
done
if [ "$others" ]; then
    deb-systemd-invoke "$verb" $others >&2
fi
exit 101
