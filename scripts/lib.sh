# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# What the scripts share; each reads it first: . "$(dirname "$(readlink -f "$0")")/lib.sh"
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

# sudo takes TMPDIR away.
as_root() { # COMMAND...
    if is_root; then "$@"; else sudo env ${TMPDIR:+"TMPDIR=$TMPDIR"} "$@"; fi
}

exec_as_root() { # COMMAND...: in place of the shell
    if is_root; then exec "$@"; else exec sudo env ${TMPDIR:+"TMPDIR=$TMPDIR"} "$@"; fi
}

# Runs a command whose output goes to a file. Says every half minute how far it is, and shows the file if it fails.
quietly() { # FILE COMMAND...
    log=$1
    shift
    mkdir -p "${log%/*}"
    # sleep(1) keeps no stream open, because a reader of ours would wait for it, nor the lock of scripts/build.
    (while sleep 30 >&- 2>&- 9>&- && kill -0 $$ 2>&-; do echo "$script: $(tail -n 1 "$log" | cut -c 1-100)" >&2; done) &
    if "$@" >"$log" 2>&1 </dev/null; then
        kill $! 2>&- || true
        return
    fi
    kill $! 2>&- || true
    cat "$log" >&2 || true
    if [ ! -s "$log" ] || grep -q 'No space left on device' "$log"; then
        echo "$script: a disk may be full ('df'): make room, or set TMPDIR to a folder of another disk" >&2
    fi
    fail "this has failed, see above: $*"
}

wait_for() { # COMMAND...: until it succeeds, max half a minute
    tries=0
    until "$@"; do
        if [ "$tries" -ge 1500 ]; then return 1; fi
        tries=$((tries + 1))
        sleep 0.02
    done
}

passed=0
failed=0

check() { # WHAT COMMAND...: counts; shows what the command prints only if it fails
    what=$1
    shift
    if output=$("$@" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf '%s: failed: %s\n%s\n' "$script" "$what" "$output"
    fi
}

summary() { # the last line of a script that counts; its exit code
    echo "$script: $passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
