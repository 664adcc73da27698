// SPDX-License-Identifier: BSD-2-Clause
#include "options.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <vector>

#include "endpoint.h"
#include "log.h"
#include "text.h"

namespace {

constexpr auto description = R"(Answers TCP echo (RFC 862) on any set of ports, on IPv4 and IPv6, through one
listening socket: a BPF sk_lookup program of its own steers connections there.
Give it ports by --ports or --ports-file, or both.)";

constexpr auto notes = R"(Port lists: ports (7), ranges (1000-2000) and exclusions (!22), with commas
between them. An exclusion wins wherever it stands. A listed port is taken even
from a program that listens on it, such as sshd on 22: exclude those.

Signals: SIGHUP reads the ports file again; open connections stay. SIGINT
(Ctrl-C) and SIGTERM stop the server.

Examples:
  sudo echo-server --ports 7,77,777
  sudo echo-server --ports '1-65535,!22'         # every port but ssh's
  sudo echo-server --ports-file /etc/echo-ports  # after edits: kill -HUP PID)";

int wrong_usage(const std::string& why) {
    log_problem("{}; see echo-server --help", why);
    return 2;
}

std::chrono::seconds parse_seconds(const std::string& text) {
    const auto seconds = parse_number<unsigned>(text);
    if (!seconds || *seconds > 86400)
        throw std::runtime_error(fmt::format("{} is not allowed here: write whole seconds, 0 to 86400", quote(text)));
    return std::chrono::seconds(*seconds);
}

asio::ip::tcp::endpoint parse_listen_address(const std::string& text) {
    auto endpoint = parse_endpoint(text);
    const auto address = endpoint.address();
    if (address.is_v6() && !address.is_unspecified() && !address.to_v6().is_v4_mapped())
        throw std::runtime_error(fmt::format(
            "a socket on {} would refuse IPv4 clients; an IPv4 address, or [::], serves both families", quote(text)));
    return endpoint;
}

// What `parse` returns; what it throws comes out with the flag's name before it.
template <typename Parse>
auto value_of(std::string_view flag, Parse parse) {
    try {
        return parse();
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(fmt::format("{}: {}", flag, error.what()));
    }
}

PortList parse_ports(const std::vector<std::string>& lists, bool with_file) {
    PortList ports;
    for (const auto& list : lists) ports.add(list);
    if (!with_file && ports.ports().empty()) throw std::runtime_error("after the exclusions no port is left");
    return ports;
}

}  // namespace

std::variant<Options, Exit> parse_command_line(int argc, char** argv) {
    Options options;
    std::vector<std::string> ports;
    std::string listen = "127.0.0.1:7777";
    std::string drain_timeout = "5";

    CLI::App app(description, "echo-server");
    app.get_formatter()->column_width(28);
    app.footer(notes);
    app.set_version_flag("--version", "echo-server " ECHO_SERVER_VERSION, "Print the version and exit");
    app.set_help_flag("-h,--help", "Print this help and exit");
    app.add_option("--ports", ports, "Ports to answer on; may be given several times")
        ->type_name("LIST")
        ->expected(1)
        ->allow_extra_args(false)  // or CLI11 takes a value in brackets apart
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    app.add_option("--ports-file", options.ports_file, "File with more of them: a list a line, # comments")
        ->type_name("FILE");
    app.add_option("--listen", listen, "Where the one socket is bound (127.0.0.1:7777)")->type_name("ADDR:PORT");
    app.add_option("--drain-timeout", drain_timeout, "Time for open connections after a stop (5)")
        ->type_name("SECONDS");
    app.add_flag("--verbose", options.verbose, "Log each connection, and what libbpf says");

    try {
        app.parse(argc, argv);
        if (ports.empty() && !options.ports_file)
            throw std::runtime_error("no ports given: choose some with --ports 7,77,777 or --ports-file FILE");
        options.ports = value_of("--ports", [&] { return parse_ports(ports, options.ports_file.has_value()); });
        options.listen = value_of("--listen", [&] { return parse_listen_address(listen); });
        options.drain_timeout = value_of("--drain-timeout", [&] { return parse_seconds(drain_timeout); });
    } catch (const CLI::Success& done) {
        return Exit{app.exit(done)};
    } catch (const CLI::ExtrasError&) {
        return Exit{wrong_usage(fmt::format("{} is not an option", quote(app.remaining().front())))};
    } catch (const std::runtime_error& error) {
        return Exit{wrong_usage(error.what())};
    }
    return options;
}
