# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Runs the steps of a check, one after the other or in parallel, and prints the time of each.
set -uo pipefail
steps=$(mktemp -d)
trap 'rm -rf "$steps"' EXIT
# Background processes ignore Ctrl-C, so SIGTERM ends them.
trap 'rm -rf "$steps"; trap - TERM; kill 0' INT TERM

# Runs COMMAND... and returns whether it passed. Prints its output in one piece at its end, because other steps may run
# in parallel. It is a subshell, so that 'times' counts only the processes of this step (without podman's, which leave
# it).
step() (
    start=$SECONDS
    verdict=passed
    log=$(mktemp -p "$steps")
    echo "=== $*"
    "$@" >"$log" 2>&1 </dev/null || verdict=failed
    took=$((SECONDS - start))
    times >"$log.times"
    cpu=$(awk -F '[ms ]+' 'NR == 2 { printf "%d", 60 * $1 + $2 + 60 * $3 + $4 }' "$log.times")
    printf '=== %s: %s in %d:%02d\n' "$*" "$verdict" $((took / 60)) $((took % 60)) >>"$log"
    printf '%s|%s|%s|%s\n' "$verdict" "$took" "$cpu" "$*" >>"$steps/results"
    flock "$steps" cat "$log"
    [ "$verdict" = passed ]
)

# Prints a table of the steps, in the order in which they ended, and how many passed. Returns whether NUMBER steps have
# passed: a step that was killed is not in the table.
report_steps() { # NUMBER
    awk -F '|' -v seconds="$SECONDS" -v number="$1" '
        BEGIN { printf "\n%-50s %-7s %7s %7s\n", "step", "", "seconds", "CPU" }
        { printf "%-50s %-7s %7d %7d\n", $4, $1, $2, $3; cpu += $3; ++count[$1] }
        END {
            printf "%-50s %-7s %7d %7d\n", "all", "", seconds, cpu
            printf "%d passed, %d failed\n", count["passed"], number - count["passed"]
            exit count["passed"] != number
        }' "$steps/results"
}
