// SPDX-License-Identifier: BSD-2-Clause
#include "options.h"

#include <fmt/format.h>
#include <sched.h>

#include <CLI/CLI.hpp>
#include <climits>
#include <sstream>
#include <stdexcept>

#include "base/log.h"
#include "base/privileges.h"
#include "base/text.h"
#include "echo_dispatch.h"

namespace echo_server {
namespace {

constexpr auto description = "Answers TCP echo (RFC 862) on any set of ports, through one listening socket.";

constexpr auto notes = R"(LIST: ports (7), ranges (1000-2000) and exclusions (!22), joined by commas.
A named port must be free, and a range leaves out busy ports. Exclusions win.
Example: sudo echo-server --ports 7,77,1000-2000)";

constexpr auto status_notes = R"(The exit code is 1 if no server runs in this network namespace.

Each port is echoed (data came, and was sent back), connected (only the
handshake), attempted (no connection was accepted), or not reached. To reset
this, for example before the next scan: sudo kill -USR2 PID

Example, for node_exporter's textfile collector (see the manual):
  sudo sh -c 'umask 022; mkdir -p /run/echo-server && cd /run/echo-server &&
    echo-server status --prometheus >new; mv new echo-server.prom')";

constexpr auto probe_notes = R"(Needs no privileges. Retries failed ports later, and slower. The exit code is
0 if all ports echo (with --expect: exactly those), 1 if not, 2 for wrong
usage, 3 if the probe was ended early or could not measure.
Example: echo-server probe 192.0.2.7 --ports 1-1000 --payload tls \
    --status-command 'ssh 192.0.2.7 sudo echo-server status --json')";

constexpr auto reload_notes = R"(Waits until the ports are as in the file. The exit code is 1 if the reload
fails (the server's reason is printed), or if no answer comes in ten seconds.
Root may reload every server, other users only their own.)";

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

// `read` takes the value, or throws std::runtime_error. CLI11 puts the flag's name in front of the message.
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

// The help has no room for the range.
CLI::Validator in_range(int min, int max, std::string_view of = "") {
    const auto check = [=, range = CLI::Range(min, max)](std::string& text) {
        return range(text).empty() ? ""
                                   : fmt::format("{} is not a whole number{} from {} to {}", quote(text), of, min, max);
    };
    return {check, ""};
}

void declare(CLI::App& app, Options& options) {
    const auto add_seconds = [&](const char* name, std::chrono::seconds& value, const char* help) {
        const auto set = [&value](int seconds) { value = std::chrono::seconds(seconds); };
        app.add_option_function<int>(name, set, help)->type_name("SECONDS")->check(in_range(0, 86400, " of seconds"));
    };

    const auto read_ports = [&](const auto& text) { add_ports(options.ports, text); };
    add_checked(app, "--ports", "LIST", "Ports to answer on; repeatable", read_ports)->take_all();
    app.add_option("--ports-file", options.ports_file, "Read more ports from FILE; SIGHUP re-reads it")
        ->type_name("FILE");
    const auto read_prefix = [&](const auto& text) { options.addresses.push_back(parse_address_prefix(text)); };
    add_checked(app, "--address", "PREFIX", "Answer only on addresses in PREFIX; repeatable", read_prefix)->take_all();
    app.add_flag("--shadow-listeners", options.shadow_listeners, "Also take ports on which other programs listen");
    app.add_flag("--allow-ephemeral", options.allow_ephemeral, "Also let ranges take the host's own ports");

    const auto read_address = [&](const auto& text) { options.listen = parse_listen_address(text); };
    add_checked(app, "--listen", "ADDR:PORT", fmt::format("Bind the socket here (default {})", default_listen_address),
                read_address);
    app.add_flag("--replace", options.replace, "Take over from the running server, which drains");
    app.add_option("--user", options.user, fmt::format("As root: become this user (default {})", default_user))
        ->type_name("NAME");
    app.add_option("--pin", options.pin, "Pin echo_ports, echo_socket in bpffs for --user")->type_name("DIR");
    app.add_option("--threads", options.threads, "Threads (default: one for each usable CPU)")
        ->type_name("N")
        ->check(in_range(1, ECHO_MAX_THREADS));
    app.add_flag("--check", options.check, "Only check whether this start would succeed");
    app.add_flag("--verbose", options.verbose, "Log connections, and libbpf's messages");

    app.add_option("--max-connections", options.max_connections, "Limit of open connections (default: ulimit -Hn)")
        ->type_name("N")
        ->check(in_range(1, INT_MAX));  // a descriptor is an int
    add_seconds("--idle-timeout", options.idle_timeout, "Close connections idle for this time (0: never)");
    add_seconds("--drain-timeout", options.drain_timeout, "Time for open connections at a stop (default 5)");
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
    add_checked(app, "--expect", "LIST", "Exactly these ports must echo", read_expected)->take_all();
    auto* size =
        add("--size", options.size, "BYTES", "How much to send (default 4096)")->check(in_range(1, max_payload));
    const auto read_payload = [&](const auto& text) {  // a file is read once, as it may be a pipe
        make_payload((options.payload = text).starts_with('@') ? std::string() : text, 1, "");
    };
    add_checked(app, "--payload", "KIND", "Send tls, http, ssh, smtp, hex:BYTES or @FILE", read_payload)
        ->excludes(size);
    add("--hold", options.hold, "SECONDS", "After the echo, wait this time, then send again")
        ->check(in_range(1, 86400, " of seconds"));
    add("--timeout", options.timeout, "SECONDS", "Time limit (default 2 to connect, 5 for bytes)")
        ->check(in_range(1, 3600, " of seconds"));
    add("--retries", options.retries, "N", "How often to retry failed ports (default 2)")->check(in_range(0, 9));
    add("--parallel", options.parallel, "N", "Connections at a time (default 256)")->check(in_range(1, 10000));
    add("--rate", options.rate, "N", "At most N new connections a second")->check(in_range(1, 1000000));
    auto* status = add("--status", options.status, "FILE", "Output of 'status --json' after an earlier probe");
    add("--status-command", options.status_command, "CMD", "Run CMD to get it, before and after the probe")
        ->excludes(status);
    app.add_flag("--json", options.json, "Print JSON");
}

void declare(CLI::App& status, StatusFormat& wanted) {
    status.footer(status_notes)->require_option(0, 1);
    const auto add = [&](const char* name, StatusFormat format, const char* help) {
        status.add_flag_callback(name, [&wanted, format] { wanted = format; }, help);
    };
    add("--ports", to_port_table, "List the ports that were reached, with figures");
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
    auto* reload = app.add_subcommand("reload", "Make the running server re-read its ports file")->footer(reload_notes);
    std::optional<pid_t> reload_pid;
    reload->add_option("PID", reload_pid, "The server, if several run")->check(in_range(1, INT_MAX));
    auto* probing = app.add_subcommand("probe", "Test what gets through each port of a host");
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
        std::ostringstream text;
        const int code = app.exit(done, text);
        fmt::print("{}", CLI::detail::find_and_replace(text.str(), "\n\n\n", "\n\n"));  // CLI11 2.5 doubles blank lines
        return code;
    } catch (const std::runtime_error& error) {
        const auto subcommands = app.get_subcommands();
        const auto subcommand = subcommands.empty() ? "" : subcommands.front()->get_name() + " ";
        std::string what = error.what();
        const auto colon = what.find(": At ");  // as in "--listen: At Most 1 required but received 2"
        if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr && colon != std::string::npos)
            what = fmt::format("{} is given more than once", std::string_view(what).substr(0, colon));
        log_error("{}; see echo-server {}--help", what, subcommand);
        return 2;
    }
}

}  // namespace echo_server
