# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Measures 'echo-server probe' beside a plain client and Nmap, over veth pairs. scripts/bench reads it.
# shellcheck disable=SC2034,SC2154  # scripts/bench and rivals.sh use them, and set others
open_rival=echo-server-65535 # the namespace of its load has the clients
direct=10.7.0.1
behind_firewall=10.8.2.2 # the same server
low_passing=7,22,25,53,80,443,993,1024,2049,4097,8080,9999,16384
passing=$low_passing,20000,30303,33333,40404,50505,60606,65535
most_memory=65536 # of the probe, in KiB

# A second way from the clients to the server, by a router that drops all connects but those to $passing.
connect_by_firewall() {
    local router end name i=0
    router=$(namespace router)
    ip netns add "$router"
    for end in "$(namespace_of_load "$open_rival")" "$(namespace "$open_rival")"; do
        i=$((i + 1))
        ip -n "$router" link add "veth$i" type veth peer name router netns "$end"
        ip -n "$router" addr add "10.8.$i.1/24" dev "veth$i"
        ip -n "$router" link set "veth$i" up
        ip -n "$end" addr add "10.8.$i.2/24" dev router
        ip -n "$end" link set router up
        ip -n "$end" route add 10.8.0.0/16 via "10.8.$i.1"
    done
    ip netns exec "$router" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    (enter "$router" nft -f -) <<<"table ip firewall {
        chain forward {
            type filter hook forward priority 0; policy drop
            iif veth2 accept
            tcp dport { $passing } accept
        }
    }"
}

finds() { # LINES PATTERN COMMAND...: LINES lines of the output of COMMAND must match
    (enter "$(namespace_of_load "$open_rival")" taskset -c "$load_cpu" \
        time --quiet --format '%e %U %S %M' --output "$folder/used" "${@:3}") >"$folder/output" 2>&1 || true
    [ "$(grep -cE "$2" "$folder/output")" -eq "$1" ] || { tail -n 20 "$folder/output" && false; }
}

in_limit() { awk -v most="$most_memory" '{ print $4 " KiB, and the limit is " most; exit $4 > most }' "$folder/used"; }

measure_one() { # WHAT WHO LINES PATTERN COMMAND...
    echo "scripts/bench: $1, $2" >&2
    check "$1, $2" finds "${@:3}"
    if [[ $2 == probe* ]]; then check "memory: $1, $2" in_limit; fi
    awk -v row="$1|$2" '{ printf "%s|%s|%.2f|%.1f\n", row, $1, $2 + $3, $4 / 1024 }' "$folder/used" >>"$folder/probe"
}

measure_probe_of() { # WHAT PORTS ADDRESS ARGUMENTS...: exactly PORTS must echo
    measure_one "$1" "probe${4:+ ${*:4}}" 1 '"as_expected": ?true' "$server" probe --json --expect "$2" "${@:4}" "$3"
}

# In parts of 4,096 ports, as the text of the script says.
nmap_in_parts() { # ADDRESS
    local part
    for part in {0..15}; do
        nmap -n -Pn -p "$((part * 4096 + (part == 0)))-$((part * 4096 + 4095))" --script scripts/tcp-echo.nse "$1" |
            grep --line-buffered 'echo verified' &
    done
    wait
}
export -f nmap_in_parts

measure_nmap() { # with all CPUs: 16 processes on one CPU would not be a fair comparison
    local load_cpu
    load_cpu=0-$(($(nproc) - 1))
    measure_one "$all_open" 'nmap, 16 parts (memory of each)' 65535 'echo verified' bash -c "nmap_in_parts $direct"
    # Without these flags Nmap sends more slowly: it needs 53 s with -T5.
    measure_one "$few_open" 'nmap -sS --min-rate 5000' 20 '^[0-9]+/tcp +open' \
        nmap -n -Pn -sS -T4 --min-rate 5000 --max-retries 1 -p 1-65535 "$behind_firewall"
}

print_probe() { # medians of the rounds
    local row column
    printf '| | | time (s) | CPU time (s) | memory (MiB) |\n|---|---|---|---|---|\n'
    cut -d '|' -f 1,2 "$folder/probe" | awk '!seen[$0]++' | while IFS= read -r row; do
        printf '| %s |' "${row/|/ | }"
        for column in 3 4 5; do
            grep -F "$row|" "$folder/probe" | cut -d '|' -f "$column" | sort -n |
                awk '{ values[NR] = $0 } END { printf " %s |", values[int((NR + 1) / 2)] }'
        done
        echo
    done
}

measure_probe() { # with --quick without Nmap, and fewer ports behind the firewall: each wait for them takes seconds
    local round last=65535 expected=$passing
    local all_open='65,535 open ports' few_open='20 of 65,535 ports, a firewall drops the others'
    if [ "$mode" = --quick ]; then
        few_open='13 of 16,384 ports'
        last=16384
        expected=$low_passing
    fi
    network=veth
    start_all "$open_rival"
    connect_by_firewall
    for ((round = 1; round <= few_rounds; round++)); do
        measure_one "$all_open" plain-probe 1 '^echoed: 65535 of ' "$tools/plain-probe" "$direct" 1 65535
        if [ "$mode" != --quick ]; then measure_probe_of "$all_open" 1-65535 "$direct" --parallel 200; fi
        measure_probe_of "$all_open" 1-65535 "$direct"
        measure_probe_of '1,000 open ports' 1-1000 "$direct" --ports 1-1000
        measure_probe_of "$few_open" "$expected" "$behind_firewall" --ports "1-$last"
    done
    if [ "$mode" != --quick ]; then measure_nmap; fi
    stop_all
    network=loopback
    print_probe
}
