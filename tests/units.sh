#!/bin/bash
# Checks what is in systemd/ without installing it: one line per unit with its exposure, then the users
# and the folder of the sockets. Fails when a unit is exposed above its limit or systemd finds a mistake.
set -euo pipefail
export LC_ALL=C SYSTEMD_COLORS=0

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0

fail() {
    echo "units: $*" >&2
    failures=$((failures + 1))
}

# The highest exposure allowed, in tenths. ccollectd has to see the whole host, and its own
# unit says so line by line; everyone else gets 2.0.
limit_of() {
    case $1 in
        ccollectd.service) echo 25 ;;
        *) echo 20 ;;
    esac
}

check_exposure() {
    local unit=$1 name=${1##*/} limit table exposure tenths
    limit=$(limit_of "$name")
    # The status is only about the threshold; a unit that cannot be read leaves no figure.
    table=$(systemd-analyze security --offline=true --no-pager "$unit" 2>&1) || true
    exposure=$(sed -n 's/.*Overall exposure level for .*: \([0-9]*\.[0-9]\).*/\1/p' <<<"$table")
    if [[ -z $exposure ]]; then
        fail "$name: no exposure could be measured: $table"
        return
    fi
    echo "$name exposure $exposure"
    tenths=$((10#${exposure/./}))
    if ((tenths > limit)); then
        fail "$name: exposure is $exposure, but must be at most $((limit / 10)).$((limit % 10))"
        grep '^✗' <<<"$table" >&2 || true
    fi
}

# Verification wants the program to exist. The copies name a stub, so that the test neither needs the
# daemons nor touches /usr/bin.
check_directives() {
    local unit complaints
    mkdir -p "$scratch/units" "$scratch/bin"
    for unit in "${units[@]}"; do
        install -m 0755 /dev/null "$scratch/bin/$(basename "$unit" .service)"
        sed "s|^ExecStart=/usr/bin/|ExecStart=$scratch/bin/|" "$unit" >"$scratch/units/${unit##*/}"
    done
    # What it says about units of the machine itself is not our business.
    if ! complaints=$(systemd-analyze verify --man=no --recursive-errors=no "$scratch"/units/*.service 2>&1) ||
        grep -qF "$scratch" <<<"$complaints"; then
        fail "systemd-analyze verify: $complaints"
    fi
}

# Applied to an empty root, which shows what an installation gets; a dry run shows only the intent.
check_users_and_folders() {
    local tree=$scratch/tree found
    mkdir -p "$tree/etc" "$tree/run"
    if ! found=$(systemd-sysusers --dry-run --root="$tree" "$root/systemd/cairn.sysusers.conf" 2>&1); then
        fail "cairn.sysusers.conf: $found"
        return
    fi
    if ((EUID != 0)); then
        echo "cairn.tmpfiles.conf not applied: that takes root"
        return
    fi
    if ! found=$(systemd-sysusers --root="$tree" "$root/systemd/cairn.sysusers.conf" 2>&1 &&
        systemd-tmpfiles --create --root="$tree" "$root/systemd/cairn.tmpfiles.conf" 2>&1); then
        fail "applying cairn.sysusers.conf and cairn.tmpfiles.conf: $found"
        return
    fi
    grep -q '^cairn-admin:.*:cairn$' "$tree/etc/group" || fail "the user cairn is not in cairn-admin"
    found="$(stat -c '%a %u' "$tree/run/cairn")"
    [[ $found == "755 $(sed -n 's/^cairn:[^:]*:\([0-9]*\):.*/\1/p' "$tree/etc/passwd")" ]] ||
        fail "/run/cairn has mode and owner $found"
}

if ! command -v systemd-analyze >/dev/null; then
    fail "systemd-analyze is missing: install the package systemd"
    exit 1
fi
units=("$root"/systemd/*.service)
for unit in "${units[@]}"; do
    check_exposure "$unit"
done
check_directives
check_users_and_folders
exit $((failures > 0))
