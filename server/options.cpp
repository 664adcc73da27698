// SPDX-License-Identifier: BSD-2-Clause
#include "options.h"

#include <fmt/format.h>
#include <sched.h>

#include <CLI/CLI.hpp>
#include <climits>
#include <stdexcept>

#include "base/log.h"
#include "base/privileges.h"
#include "base/text.h"
#include "echo_dispatch.h"

namespace echo_server {
namespace {

constexpr auto description = R"(Answers TCP echo (RFC 862) on any set of ports, on IPv4 and IPv6, through one
listening socket. Needs --ports or --ports-file, or both.)";

constexpr auto notes = R"(Port lists: ports (7), ranges (1000-2000) and exclusions (!22), with commas
between them. A port that is named must be free; a range takes what is free,
and gives a port to a program that begins to listen there. An exclusion wins
wherever it stands.

Examples:
  sudo echo-server --ports 7,77,777
  sudo echo-server --ports 1-65535
  sudo echo-server --ports-file /etc/echo-ports
  sudo echo-server --ports 7,79 --replace
The manual, echo-server(8), has the signals and the reasons.)";

constexpr auto status_notes = R"(The exit code is 1 if no server runs in this network namespace.

Ports, by what got through: echoed (data arrived, and was sent back), connected
(the handshake alone), attempted (no connection was accepted), not reached. To
reset them, for example before the next scan: sudo kill -USR2 PID.

Example, for node_exporter's textfile collector, see the manual:
  sudo sh -c 'umask 022; mkdir -p /run/echo-server && cd /run/echo-server &&
    echo-server status --prometheus >new && test -s new &&
    mv new echo-server.prom')";

constexpr auto probe_notes = R"(It connects to each port, sends bytes, expects them back, and then the end.
What fails is tried again, later and slower. It needs no privileges.
65535 connections fill the table of a home router: a connection that has echoed
is reset, and the probe pauses while nothing answers. --rate slows it more.

The exit code is 0 if all ports echo (with --expect: those, and no other), 1 if
not, 2 for wrong usage, 3 if it was ended or could not be measured.

Examples:
  echo-server probe --ports 1-1000 --payload tls echo.example.org
  echo-server probe --ports 1-1024 --expect 7,443 192.0.2.7
  echo-server probe 192.0.2.7 \
    --status-command 'ssh 192.0.2.7 sudo echo-server status --json')";

constexpr auto reload_notes = R"(It waits until the ports are as the file has them. The exit code is 1, with the
server's reason, if the ports stay as they were, or if there is no answer in ten
seconds. Root may reload every server, a user its own.)";

void add_ports(PortList& ports, const std::string& text) {
    if (text.ends_with(',') && hint_of_quotes(text).empty())
        throw std::runtime_error(
            fmt::format("{} ends with a comma: write a port list without blanks (7,77), or quote it", quote(text)));
    ports.add(text);
}

asio::ip::tcp::endpoint parse_listen_address(const std::string& text) {
    auto endpoint = parse_endpoint(text);
    const auto address = endpoint.address();
    if (address.is_v6() && !address.is_unspecified() && !address.to_v6().is_v4_mapped())
        throw std::runtime_error(fmt::format(
            "a socket on {} would refuse IPv4 clients; an IPv4 address, or [::], serves both families", quote(text)));
    return endpoint;
}

// `read` takes the value, or throws std::runtime_error. CLI11 puts the flag's name in front of what a check returns.
CLI::Option* add_checked(CLI::App& app, const char* name, const char* type, const std::string& help, auto read) {
    const auto check = [read](const std::string& text) -> std::string {
        try {
            read(text);
        } catch (const std::runtime_error& error) {
            return error.what();
        }
        return {};
    };
    return app.add_option(name, help)->type_name(type)->check(check);
}

// The help has no column for the range.
CLI::Validator in_range(int min, int max) { return CLI::Range(min, max).description(""); }

void declare(CLI::App& app, Options& options) {
    const auto add_seconds = [&](const char* name, std::chrono::seconds& value, const char* help) {
        const auto set = [&value](int seconds) { value = std::chrono::seconds(seconds); };
        app.add_option_function<int>(name, set, help)->type_name("SECONDS")->check(in_range(0, 86400));
    };

    app.option_defaults()->group("Ports");
    const auto read_ports = [&](const auto& text) { add_ports(options.ports, text); };
    add_checked(app, "--ports", "LIST", "Ports to answer on; repeatable", read_ports)->take_all();
    app.add_option("--ports-file", options.ports_file, "Read more ports from FILE; SIGHUP reads it again")
        ->type_name("FILE");
    const auto read_prefix = [&](const auto& text) { options.addresses.push_back(parse_address_prefix(text)); };
    add_checked(app, "--address", "PREFIX", "Answer only on addresses in PREFIX; repeatable", read_prefix)->take_all();
    app.add_flag("--shadow-listeners", options.shadow_listeners, "Take ports on which other programs listen, too");
    app.add_flag("--allow-ephemeral", options.allow_ephemeral, "Let ranges take the host's own ports, too");

    app.option_defaults()->group("Socket and process");
    const auto read_address = [&](const auto& text) { options.listen = parse_listen_address(text); };
    add_checked(app, "--listen", "ADDR:PORT", fmt::format("Bind the socket here (default {})", default_listen_address),
                read_address);
    app.add_flag("--replace", options.replace, "Take over from the running server, which drains");
    app.add_option("--user", options.user, fmt::format("As root: become this user (default {})", default_user))
        ->type_name("NAME");
    app.add_option("--pin", options.pin, "Pin echo_ports, echo_socket in a bpffs for --user")->type_name("DIR");
    app.add_option("--threads", options.threads, "Threads (default: one for each usable CPU)")
        ->check(in_range(1, ECHO_MAX_THREADS));
    app.add_flag("--check", options.check, "Only say whether this start would succeed");
    app.add_flag("--verbose", options.verbose, "Log connections, and libbpf's messages");

    app.option_defaults()->group("Limits");
    app.add_option("--max-connections", options.max_connections, "Limit of open connections (default by ulimit -Hn)")
        ->check(in_range(1, INT_MAX));  // a descriptor is an int
    add_seconds("--idle-timeout", options.idle_timeout, "Close connections idle so long (default 0: never)");
    add_seconds("--drain-timeout", options.drain_timeout, "Time for connections after a stop (default 5)");
}

void declare(CLI::App& app, ProbeOptions& options) {
    const auto add = [&](const char* name, auto& value, const char* type, const char* help) {
        return app.add_option(name, value, help)->type_name(type);
    };
    app.footer(probe_notes);
    app.add_option("HOST", options.host, "A name or an address, also as fe80::1%eth0")->required();
    auto* v4 = app.add_flag("-4", options.only_v4, "IPv4 only");
    app.add_flag("-6", options.only_v6, "IPv6 only")->excludes(v4);
    const auto read_ports = [&](const auto& text) { add_ports(options.ports, text); };
    add_checked(app, "--ports", "LIST", "Ports to probe (default: as --status, or all)", read_ports)->take_all();
    const auto read_expected = [&](const auto& text) { add_ports(options.expect, text); };
    add_checked(app, "--expect", "LIST", "These ports are to echo, and no other", read_expected)->take_all();
    auto* size =
        add("--size", options.size, "BYTES", "How much to send (default 4096)")->check(in_range(1, max_payload));
    const auto read_payload = [&](const auto& text) {  // a file is read once, as it may be a pipe
        make_payload((options.payload = text).starts_with('@') ? std::string() : text, 1, "");
    };
    add_checked(app, "--payload", "KIND", "Send tls, http, ssh, smtp, hex:BYTES or @FILE", read_payload)
        ->excludes(size);
    add("--hold", options.hold, "SECONDS", "After the echo, wait so long, then send all again")
        ->check(in_range(1, 86400));
    add("--timeout", options.timeout, "SECONDS", "Wait so long (default 2 to connect, 5 for bytes)")
        ->check(in_range(1, 3600));
    add("--retries", options.retries, "N", "Try again what fails, so often (default 2)")->check(in_range(0, 9));
    add("--parallel", options.parallel, "N", "Connections at a time (default 256)")->check(in_range(1, 10000));
    add("--rate", options.rate, "N", "New connections a second, at most")->check(in_range(1, 1000000));
    auto* status = add("--status", options.status, "FILE", "What 'status --json' printed after a first probe");
    add("--status-command", options.status_command, "CMD", "Run CMD to get it, before and after the probe")
        ->excludes(status);
    app.add_flag("--json", options.json, "Print JSON");
}

void declare(CLI::App& status, StatusFormat& wanted) {
    status.footer(status_notes)->require_option(0, 1);
    const auto add = [&](const char* name, StatusFormat format, const char* help) {
        status.add_flag_callback(name, [&wanted, format] { wanted = format; }, help);
    };
    add("--ports", to_port_table, "List each port that was reached, with its figures");
    add("--json", to_json, "Print JSON");
    add("--prometheus", to_prometheus, "Print Prometheus' text format");
}

std::size_t usable_cpus() {
    cpu_set_t cpus;
    if (::sched_getaffinity(0, sizeof(cpus), &cpus) != 0) return 1;  // more than fit into cpus
    return static_cast<std::size_t>(CPU_COUNT(&cpus));
}

}  // namespace

std::variant<Options, StatusFormat, std::optional<pid_t>, ProbeOptions, int> parse_command_line(int argc, char** argv) {
    CLI::App app(description, "echo-server");
    app.footer(notes)->set_version_flag("--version", "echo-server " ECHO_SERVER_VERSION, "Print the version and exit");
    auto* status = app.add_subcommand("status", "Show the running echo-servers; needs root");
    StatusFormat status_format = to_text;
    declare(*status, status_format);
    auto* reload =
        app.add_subcommand("reload", "Let the running server read its ports file again")->footer(reload_notes);
    std::optional<pid_t> reload_pid;
    reload->add_option("PID", reload_pid, "The server, if several run")->check(in_range(1, INT_MAX));
    auto* probing = app.add_subcommand("probe", "Say what gets through each port of a host");
    ProbeOptions probe_options;
    declare(*probing, probe_options);
    Options options;
    options.threads = usable_cpus();
    declare(app, options);
    for (auto* flag : app.get_options())
        for (auto* subcommand : {status, reload, probing}) subcommand->excludes(flag);

    try {
        app.parse(argc, argv);
        if (status->parsed()) return status_format;
        if (reload->parsed()) return reload_pid;
        if (probing->parsed()) return probe_options;
        if (options.ports.empty() && !options.ports_file)
            throw std::runtime_error("no ports given: choose some with --ports 7,77,777 or --ports-file FILE");
        if (!options.ports_file && options.ports.ports().empty())
            throw std::runtime_error("--ports: after the exclusions no port is left");
        return options;
    } catch (const CLI::Success& done) {
        return app.exit(done);
    } catch (const std::runtime_error& error) {
        const auto subcommands = app.get_subcommands();
        const auto subcommand = subcommands.empty() ? "" : subcommands.front()->get_name() + " ";
        log_error("{}; see echo-server {}--help", error.what(), subcommand);
        return 2;
    }
}

}  // namespace echo_server
