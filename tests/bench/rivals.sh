# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Starts the servers that scripts/bench compares, puts them under load, and ends them. scripts/bench reads it.
# shellcheck disable=SC2034,SC2154  # scripts/bench uses them, and sets others
network=loopback       # or veth: the load is in a namespace of its own, at the other end of a veth pair
declare -A pids=()     # of the rivals that run
declare -A failures=() # why a rival can't be measured

namespace() { echo "echo-bench-$$-${1-}"; } # RIVAL

# Without -load, the namespace of the load is that of the server.
namespace_of_load() { # RIVAL
    if [ "$network" = veth ]; then namespace "$1-load"; else namespace "$1"; fi
}

enter() { # NAMESPACE COMMAND...: instead of this shell
    exec nsenter --net="/run/netns/$1" -- "${@:2}"
}

# Each server is one thread, or processes on one CPU, and answers on port 7.
serve() { # RIVAL
    local run=(enter "$(namespace "$1")" "${run_by[@]}")
    case $1 in
        echo-server) "${run[@]}" "$server" --ports 7,77,777 --threads 1 ;;
        echo-server-65535) "${run[@]}" "$server" --ports 1-65535 --allow-ephemeral --threads 1 ;;
        epoll-dispatch) "${run[@]}" "$tools/epoll-echo" dispatch 7,77,777 ;;
        epoll-direct) "${run[@]}" "$tools/epoll-echo" direct '[::]:7' ;;
        epoll-ipv4) "${run[@]}" "$tools/epoll-echo" direct 0.0.0.0:7 ;;
        asio-echo) "${run[@]}" "$tools/asio-echo" 7 1024 ;;
        asio-echo-64k) "${run[@]}" "$tools/asio-echo" 7 65536 ;;
        xinetd) "${run[@]}" xinetd -dontfork -f tests/bench/xinetd.conf -pidfile "$folder/xinetd.pid" ;;
        # PIPE is faster than cat. With a buffer above its 8 KiB socat blocks in the pipe that it reads itself.
        socat) "${run[@]}" socat TCP-LISTEN:7,fork,reuseaddr,backlog=4096,nodelay PIPE ;;
        ncat) "${run[@]}" ncat -l -k -m 2000 -e /bin/cat 7 ;;
    esac
}

load() { # RIVAL ARGUMENTS...: puts it under load
    # The limit is for a server that does not answer any more.
    (enter "$(namespace_of_load "$1")" timeout 120 taskset -c "$load_cpu" "$tools/echo-load" "${@:2}" \
        --server "${pids[$1]}")
}

# One address of the server would run out of client ports.
targets() {
    local subnet=127.0.0
    if [ "$network" = veth ]; then subnet=10.7.0; fi
    printf "%s:7 " "$subnet".{1..16}
    echo
}

echoes() { # RIVAL
    local target
    read -r target _ < <(targets)
    load "$1" messages "$target" --clients 1 --operations 1 >/dev/null 2>&1
}

connect_by_veth() { # RIVAL
    local from to i
    from=$(namespace_of_load "$1")
    to=$(namespace "$1")
    ip netns add "$from"
    ip -n "$from" link add veth type veth peer name veth netns "$to"
    ip -n "$from" addr add 10.7.1.1/16 dev veth
    for i in {1..16}; do ip -n "$to" addr add "10.7.0.$i/16" dev veth; done
    ip -n "$from" link set veth up
    ip -n "$to" link set veth up
}

start_all() { # RIVALS...: idle servers need no CPU time beside the measured server
    local rival
    for rival in "$@"; do
        pids[$rival]=0
        ip netns add "$(namespace "$rival")"
        ip -n "$(namespace "$rival")" link set lo up
        if [ "$network" = veth ]; then connect_by_veth "$rival"; fi
        serve "$rival" >"$folder/$rival.log" 2>&1 </dev/null &
        pids[$rival]=$!
        disown # or bash reports its end
    done
    for rival in "$@"; do
        if ! wait_for echoes "$rival"; then failures[$rival]="does not answer: $(tail -n 1 "$folder/$rival.log")"; fi
    done
}

kill_all() { # NAMESPACE
    ip netns pids "$1" | xargs --no-run-if-empty kill -KILL 2>/dev/null || true
}

stop_all() { # in a subshell, or after it, too: not the shell but the namespaces know what runs
    local name
    for name in $(ip netns list | sed -n "s/^\($(namespace)[^ ]*\).*/\1/p"); do
        kill_all "$name"
        ip netns delete "$name"
    done
    pids=()
    failures=()
}

no_children() { [ -z "$(cat "/proc/${pids[$1]}/task/${pids[$1]}/children" 2>/dev/null)" ]; }
