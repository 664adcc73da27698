// SPDX-License-Identifier: BSD-2-Clause
#include "options.h"

#include <sched.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <vector>

#include "base/log.h"
#include "base/text.h"
#include "echo_dispatch.h"
#include "net/endpoint.h"

namespace echo_server {

namespace {

constexpr auto description = R"(Answers TCP echo (RFC 862) on any set of ports, on IPv4 and IPv6, through one
listening socket: a BPF sk_lookup program of its own steers connections there.
Give it ports by --ports or --ports-file, or both.)";

constexpr auto notes = R"(Port lists: ports (7), ranges (1000-2000) and exclusions (!22), with commas
between them. An exclusion wins wherever it stands. A port on which another
program listens is an error, unless --shadow-listeners is given; so is a list
that leaves the host too few local ports for its own connections, unless
--allow-ephemeral is.

Signals: SIGHUP reads the ports file again; open connections stay. SIGINT
(Ctrl-C) and SIGTERM stop the server.

Examples:
  sudo echo-server --ports 7,77,777
  sudo echo-server --ports '1-65535,!22,!59976-60999'
      # every port but ssh's and 1024 for the host's own connections
  sudo echo-server --ports-file /etc/echo-ports  # reload: sudo kill -HUP PID
  sudo echo-server --ports 7,79 --replace        # in place of the one that runs
  sudo echo-server status                        # or --json, --prometheus)";

constexpr auto status_description = "Show the echo-servers of this namespace; needs root.";

constexpr auto status_notes = R"(It asks no process: process, user, ports and counters are read from the kernel,
where each server keeps them beside its BPF program. The exit code is 1 if none
runs.

Example, for node_exporter's textfile collector:
  sudo sh -c 'echo-server status --prometheus > DIR/new; mv DIR/new DIR/echo-server.prom')";

Exit wrong_usage(const std::string& why, bool of_status) {
    log_problem("{}; see echo-server {}--help", why, of_status ? "status " : "");
    return Exit{2};
}

// CLI11's own words are "--user: At Most 1 required but received 2", "--user: 1 required NAME missing", and "replace was
// given a disallowed flag override".
std::string wrong_count(const CLI::App& app, std::string_view message) {
    const std::string flag(message.substr(0, message.find_first_of(": ")));
    const auto* option = app.get_option_no_throw(flag);
    if (option == nullptr) return fmt::format("--{} takes no value", flag);
    return flag + (option->count() > 1 ? " stands only once" : " takes a value");
}

std::string wrong_word(const std::string& word) {
    const bool list =
        !word.empty() && word.front() != '-' && word.find_first_not_of("0123456789-,! ") == std::string::npos;
    return quote(word) + " is not an option" + (list ? ": a port list is one word, as in 7,77, or in quotes" : "");
}

std::chrono::seconds parse_seconds(const std::string& text) {
    const auto seconds = parse_number<unsigned>(text);
    if (!seconds || *seconds > 86400)
        throw std::runtime_error(fmt::format("{} is not allowed here: write whole seconds, 0 to 86400", quote(text)));
    return std::chrono::seconds(*seconds);
}

std::size_t parse_threads(const std::string& text) {
    const auto count = parse_number<std::size_t>(text);
    if (!count || *count == 0 || *count > ECHO_MAX_THREADS)
        throw std::runtime_error(
            fmt::format("{} is not allowed here: write a number from 1 to {}", quote(text), ECHO_MAX_THREADS));
    return *count;
}

// Those that this process may run on: taskset(1) and CPUAffinity= count.
std::size_t usable_cpus() {
    cpu_set_t cpus;
    if (::sched_getaffinity(0, sizeof(cpus), &cpus) != 0) return 1;  // more than fit into cpus
    return static_cast<std::size_t>(CPU_COUNT(&cpus));
}

std::size_t parse_count(const std::string& text) {
    const auto count = parse_number<std::size_t>(text);
    if (!count || *count == 0)
        throw std::runtime_error(fmt::format("{} is not allowed here: write a number from 1 on", quote(text)));
    return *count;
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

// Every flag's text, as it was given.
struct Texts {
    std::vector<std::string> ports;
    std::vector<std::string> addresses;
    std::optional<std::string> listen;
    std::optional<std::string> threads;
    std::optional<std::string> max_connections;
    std::string idle_timeout = "0";
    std::string drain_timeout = "5";
};

CLI::Option* add_list(CLI::App& app, const std::string& flag, std::vector<std::string>& values,
                      const std::string& help) {
    return app.add_option(flag, values, help)
        ->expected(1)
        ->allow_extra_args(false)  // or CLI11 takes a value in brackets apart
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void add_server_flags(CLI::App& app, Options& options, Texts& texts) {
    add_list(app, "--ports", texts.ports, "Ports to answer on; may be given several times")->type_name("LIST");
    app.add_option("--ports-file", options.ports_file, "File with more of them: a list a line, # comments")
        ->type_name("FILE");
    add_list(app, "--address", texts.addresses, "Answer only at addresses in it; may be repeated")->type_name("PREFIX");
    app.add_flag("--shadow-listeners", options.shadow_listeners, "Take ports from those who listen on them")
        ->disable_flag_override();
    app.add_flag("--allow-ephemeral", options.allow_ephemeral, "Open even ports that the host itself needs")
        ->disable_flag_override();
    app.add_option("--listen", texts.listen, "Where the one socket is bound (127.0.0.1:7777)")->type_name("ADDR:PORT");
    app.add_flag("--replace", options.replace, "Take over from the one that runs, which drains")
        ->disable_flag_override();
    app.add_option("--user", options.user, "Whom to become once set up, from root (nobody)")->type_name("NAME");
    app.add_option("--pin", options.pin, "Pin echo_ports, echo_socket for that user in a bpffs")->type_name("DIR");
    app.add_option("--threads", texts.threads, "How many serve (one for each CPU that it may use)")->type_name("N");
    app.add_option("--max-connections", texts.max_connections, "At a time (what descriptors allow)")->type_name("N");
    app.add_option("--idle-timeout", texts.idle_timeout, "End connections idle so long; 0: never (0)")
        ->type_name("SECONDS");
    app.add_option("--drain-timeout", texts.drain_timeout, "For open connections after a stop; 0: none (5)")
        ->type_name("SECONDS");
    app.add_flag("--verbose", options.verbose, "Log each connection, and what libbpf says")->disable_flag_override();
}

void read_texts(Options& options, const Texts& texts) {
    if (texts.ports.empty() && !options.ports_file)
        throw std::runtime_error("no ports given: choose some with --ports 7,77,777 or --ports-file FILE");
    options.ports = value_of("--ports", [&] { return parse_ports(texts.ports, options.ports_file.has_value()); });
    for (const auto& text : texts.addresses)
        options.addresses.push_back(value_of("--address", [&] { return parse_address_prefix(text); }));
    if (texts.listen) options.listen = value_of("--listen", [&] { return parse_listen_address(*texts.listen); });
    if (options.ports_file && options.ports_file->empty()) throw std::runtime_error("--ports-file: no file is given");
    if (options.pin && options.pin->empty()) throw std::runtime_error("--pin: no folder is given");
    options.threads =
        texts.threads ? value_of("--threads", [&] { return parse_threads(*texts.threads); }) : usable_cpus();
    if (texts.max_connections)
        options.max_connections = value_of("--max-connections", [&] { return parse_count(*texts.max_connections); });
    options.idle_timeout = value_of("--idle-timeout", [&] { return parse_seconds(texts.idle_timeout); });
    options.drain_timeout = value_of("--drain-timeout", [&] { return parse_seconds(texts.drain_timeout); });
}

}  // namespace

std::variant<Options, StatusOptions, Exit> parse_command_line(int argc, char** argv) {
    Options options;
    Texts texts;

    CLI::App app(description, "echo-server");
    app.get_formatter()->column_width(28);
    app.footer(notes);
    app.set_version_flag("--version", "echo-server " ECHO_SERVER_VERSION, "Print the version and exit");
    app.set_help_flag("-h,--help", "Print this help and exit");
    add_server_flags(app, options, texts);
    auto* status_command = app.add_subcommand("status", status_description);
    status_command->footer(status_notes);
    bool json = false;
    bool prometheus = false;
    status_command->add_flag("--json", json, "Print JSON")->disable_flag_override();
    status_command->add_flag("--prometheus", prometheus, "Print Prometheus' text format")->disable_flag_override();

    try {
        app.parse(argc, argv);
        if (status_command->parsed()) {
            for (const auto* option : app.get_options())
                if (option->count() > 0) throw std::runtime_error(option->get_name() + " is not for status");
            if (json && prometheus) throw std::runtime_error("status: choose one of --json and --prometheus");
            if (json) return StatusOptions{StatusOptions::Format::json};
            return StatusOptions{prometheus ? StatusOptions::Format::prometheus : StatusOptions::Format::text};
        }
        read_texts(options, texts);
    } catch (const CLI::Success& done) {
        return Exit{app.exit(done)};
    } catch (const CLI::ExtrasError&) {
        const auto word = app.remaining(true).front();
        const bool of_status = status_command->parsed();
        return wrong_usage(of_status ? quote(word) + " is not an option of status" : wrong_word(word), of_status);
    } catch (const CLI::ArgumentMismatch& error) {
        return wrong_usage(wrong_count(app, error.what()), status_command->parsed());
    } catch (const std::runtime_error& error) {
        return wrong_usage(error.what(), status_command->parsed());
    }
    return options;
}

}  // namespace echo_server
