# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# What all scripts share. Each script reads it first: . "$(dirname "$(readlink -f "$0")")/lib.sh"
set -eu
export LC_ALL=C.UTF-8 # the scripts read what programs print
umask 022             # other users read and run what the scripts make
# shellcheck disable=SC2034  # the scripts use it
top=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
script=scripts/$(basename "$0")

fail() { # MESSAGE: for an error, exit code 1
    echo "$script: $1" >&2
    exit 1
}

wrong_usage() { # MESSAGE: exit code 2
    echo "$script: $1" >&2
    exit 2
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# sudo drops TMPDIR from the environment.
as_root() { # COMMAND...
    if is_root; then "$@"; else sudo env ${TMPDIR:+"TMPDIR=$TMPDIR"} "$@"; fi
}

exec_as_root() { # COMMAND...: replaces the shell
    hand_over
    if is_root; then exec "$@"; else exec sudo env ${TMPDIR:+"TMPDIR=$TMPDIR"} "$@"; fi
}

# The files that a script makes in the checkout belong to the checkout's owner, also if root runs the script.
made= # paths in the checkout
hand_over() {
    if ! is_root || [ -z "$made" ] || [ "$(stat -c %u "$top")" -eq 0 ]; then return; fi
    # Errors are ignored: another script may remove its files meanwhile, and check_access() finds any other problem.
    # shellcheck disable=SC2086  # a list of words
    (cd "$top" && {
        find build/ -maxdepth 1 -type d -user 0 -print0
        find $made -xdev -user 0 -print0
    } | xargs -0 -r chown --no-dereference --reference=.) 2>/dev/null || true
}

# Fails if the user can't write to a file, because it belongs to another user: older scripts left files of root. Ignores
# Testing, where tests write that run as root.
check_access() { # PATH... in the checkout, and the depth for find(1)
    found=$(cd "$top" && find "$@" -name Testing -prune -o ! -type l ! -user "$(id -u)" ! -writable -print -quit \
        2>/dev/null) || true
    if [ -z "$found" ]; then return; fi
    whole=$top/build
    if [ "$found" = . ]; then whole=$top; fi
    found=$(readlink -f "$top/$found")
    fail "$(id -un) can't write to $found, which belongs to $(stat -c %U "$found"): run \
'sudo chown -R $(id -u):$(id -g) \"$whole\"'"
}

finish() { :; } # a script that has to clean up defines its own
ticker=
stop_ticker() { # by SIGKILL: a new subshell may still have the traps of this shell
    if [ -n "$ticker" ]; then { kill -KILL "$ticker" && wait "$ticker"; } 2>/dev/null || true; fi
    ticker=
}
at_exit() {
    stop_ticker
    finish
    hand_over
}
trap 'at_exit || true' EXIT
# The shell runs a trap only after its command has ended: so the lock is held until nothing writes any more.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

lock() { # FOLDER WHAT-ANOTHER-SCRIPT-DOES: until the script's end
    exec 9<"$1"
    if flock --nonblock 9; then return; fi
    echo "$script: waiting for another script, which $2" >&2
    flock 9
}

# Makes and locks a folder of the build, because only one script at a time may write there. A script that has the lock
# must not start another script that takes it.
take() { # FOLDER OTHERS...: the other paths that the script writes
    made=$*
    check_access . build -maxdepth 0
    mkdir -p "$top/$1"
    hand_over # now, because other users may make folders beside it
    lock "$top/$1" "writes $1"
    check_access "$@" # only now: a script of root may have held the lock before
}

free_kib() { echo $(($(stat -f -c '%a * %S / 1024' "$1"))); } # FOLDER
is_full() { # FOLDER
    # shellcheck disable=SC2046  # two words; on btrfs both numbers of inodes are 0
    set -- "$1" $(stat -f -c '%c %d' "$1")
    [ "$(free_kib "$1")" -lt 1024 ] || { [ "$2" -gt 0 ] && [ "$3" -eq 0 ]; }
}

explain() { # LOG: of the command that failed; prints whether a disk is full
    temporary=${TMPDIR:-/tmp}
    if grep -q 'No space left on device' "$1" || is_full "${1%/*}" || is_full "$temporary"; then
        echo "$script: a disk is full: $(free_kib "$temporary") KiB are free in $temporary, $(free_kib "${1%/*}") KiB \
in ${1%/*} ('df', 'df -i'): make room, or set TMPDIR to a folder of another disk" >&2
    fi
}

# Runs a command with its output in a file. Prints the last line every half minute, and the whole file if it fails.
quietly() { # FILE COMMAND...
    log=$1
    shift
    mkdir -p "${log%/*}"
    rm -f "$log" # a command of a killed script may still write to it
    # sleep(1) must keep no stream open: the reader of our output would wait for it.
    (while sleep 30 >&- 2>&- && kill -0 $$ 2>&-; do echo "$script: $(tail -n 1 "$log" | cut -c 1-100)" >&2; done) 9>&- &
    ticker=$!
    code=0
    "$@" >"$log" 2>&1 </dev/null 9>&- || code=$?
    stop_ticker
    if [ "$code" -eq 0 ]; then return; fi
    cat "$log" >&2 || true
    explain "$log"
    while [ "$(command -v "$1")" = "$1" ]; do shift; done # leave out our own functions: users do not know them
    fail "this command failed, see its output above: $*"
}

wait_for() { # COMMAND...: until it succeeds, at most half a minute
    tries=0
    until "$@"; do
        if [ "$tries" -ge 1500 ]; then return 1; fi
        tries=$((tries + 1))
        sleep 0.02
    done
}

passed=0
failed=0

check() { # WHAT COMMAND...: counts the result; prints the command's output only if it fails
    what=$1
    shift
    if output=$("$@" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf '%s: failed: %s\n%s\n' "$script" "$what" "$output"
    fi
}

summary() { # prints the last line of a script that counts; returns its exit code
    echo "$script: $passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
