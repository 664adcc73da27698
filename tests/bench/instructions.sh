# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Counts instructions in user space by valgrind, which other load of the machine hardly changes. scripts/bench reads it.
# shellcheck disable=SC2034,SC2154  # scripts/bench and rivals.sh use them, and set others

has_ended() { ! kill -0 "$1" 2>/dev/null; } # PID

# Prints the instructions, the operations and the bytes of a server's whole life; nothing if it fails.
count_whole_run() { # RIVAL OPERATIONS ARGUMENTS...
    start_all "$1"
    # shellcheck disable=SC2046  # a list of words
    if [ -z "${failures[$1]-}" ] &&
        load "$1" "${@:3}" --operations "$2" $(targets) >"$folder/work" 2>"$folder/problem" &&
        kill -TERM "${pids[$1]}" && wait_for has_ended "${pids[$1]}"; then
        sed -n 's/.*Collected : //p' "$folder/callgrind"
        sed 's/.*,//' "$folder/work"
    else
        echo "${failures[$1]-}" >>"$folder/problem"
    fi
    stop_all
}

# The difference of a long and a short run, so that the start does not count.
count_instructions() { # WORKLOAD RIVAL UNIT ARGUMENTS...: for each operation, or for each KiB
    local short long
    echo "scripts/bench: instructions, $1, $2" >&2
    short=$(count_whole_run "$2" "$few_operations" "${@:4}")
    long=$(count_whole_run "$2" "$many_operations" "${@:4}")
    if [ "$(wc -w <<<"$short $long")" -ne 6 ]; then
        count_failure instructions "$2" 1 "$(cat "$folder/problem")"
        return
    fi
    awk -v short="${short//$'\n'/ }" -v long="${long//$'\n'/ }" -v unit="$3" -v workload="$1" 'BEGIN {
        split(short, before)
        split(long, after)
        done = unit == "KiB" ? (after[3] - before[3]) / 1024 : after[2] - before[2]
        printf "%s,%.2f\n", workload, (after[1] - before[1]) / done
    }' | record instructions "$2" 1
    passed=$((passed + 1))
}

measure_instructions() { # RIVALS...
    local rival
    # On one CPU, server and load run in turns. On two, the faster one sleeps again and again, and the number of sleeps
    # differs from run to run.
    local load_cpu=$server_cpu
    local run_by=(taskset -c "$server_cpu" valgrind --tool=callgrind --vgdb=no)
    run_by+=(--callgrind-out-file=/dev/null "--log-file=$folder/callgrind")
    for rival in "$@"; do
        count_instructions messages-50 "$rival" operation messages --clients 50
        count_instructions messages-1000 "$rival" operation messages --clients 1000
        count_instructions connections "$rival" operation connections --clients 50
        count_instructions stream "$rival" KiB stream --clients 4 --size 65536
    done
}

print_instructions() { # from results.csv
    awk -F, '$1 == "instructions" {
        if (!($2 in row)) rivals[++count] = $2
        row[$2] = row[$2] " | " $5
    }
    END {
        printf "| instructions in user space | message, 50 clients | message, 1,000 clients | connection "
        print "| streamed KiB |"
        print "|---|---|---|---|---|"
        for (i = 1; i <= count; ++i) print "| " rivals[i] row[rivals[i]] " |"
    }' "$csv"
}

# A figure may be 15 % above the recorded one, because of another compiler. With 1,000 clients it may be more, because
# the number of events for each epoll_wait(2) differs, and for a stream, because its pieces are smaller when the CPU is
# busy.
within_limit() { # WORKLOAD
    awk -F, -v workload="$1" '
        FILENAME == ARGV[1] && $1 == workload {
            limit = $2 * (workload == "stream" ? 2 : workload == "messages-1000" ? 1.4 : 1.15)
        }
        FILENAME == ARGV[2] && $1 == "instructions" && $2 == "echo-server" && $4 == workload { figure = $5 }
        END {
            printf "%s instructions, and the limit is %s\n", figure, limit
            exit figure == "" || limit == "" || figure > limit
        }' tests/bench/instructions.csv "$csv"
}

check_instructions() {
    local workload
    for workload in messages-50 messages-1000 connections stream; do
        check "instructions, $workload" within_limit "$workload"
    done
}
