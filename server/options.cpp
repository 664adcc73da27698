// SPDX-License-Identifier: BSD-2-Clause
#include "options.h"

#include <fmt/format.h>
#include <sched.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <array>
#include <climits>
#include <cstdint>
#include <stdexcept>
#include <string_view>

#include "base/log.h"
#include "base/privileges.h"
#include "base/text.h"
#include "echo_dispatch.h"
#include "flags.h"
#include "net/address.h"

namespace echo_server {
namespace {

constexpr auto description = R"(Answers TCP echo (RFC 862) on any set of ports, on IPv4 and IPv6, through one
listening socket: its own BPF sk_lookup program steers connections there. Needs
--ports or --ports-file, or both.)";

constexpr auto notes = R"(Port lists: ports (7), ranges (1000-2000) and exclusions (!22), with commas
between them. An exclusion wins wherever it stands. The server refuses a port on
which another program listens; --shadow-listeners takes it. It refuses a list
that leaves the host too few local ports for its own connections;
--allow-ephemeral opens them.

Signals: SIGHUP reads the ports file again; open connections stay. SIGUSR1 logs
what status prints, SIGUSR2 lets its figures by port begin anew. SIGINT (Ctrl-C)
and SIGTERM stop the server.

Examples:
  sudo echo-server --ports 7,77,777
  sudo echo-server --ports '1-65535,!22,!59976-60999'
      # every port but ssh's and 1024 for the host's own connections
  sudo echo-server --ports-file /etc/echo-ports
  sudo echo-server reload                        # after an edit of that file
  sudo echo-server --ports 7,79 --replace        # instead of the running one
  sudo echo-server status                        # which ports got through)";

constexpr auto status_description = "Show the running echo-servers; needs root";

constexpr auto status_notes = R"(It shows the servers of this network namespace. It does not talk to them: it
reads process, user, ports and counters from the kernel, where each server keeps
them beside its BPF program. The exit code is 1 if no server runs.

Ports, by what got through: echoed (data arrived, and was sent back), connected
(the handshake alone), attempted (no connection was accepted), not reached. To
begin anew, for example before the next scan: sudo kill -USR2 PID. What a client
gets through, nmap tells: its script tcp-echo.nse is in /usr/share/echo-server,
and in the sources in scripts.

Example, for node_exporter's textfile collector:
  sudo sh -c 'umask 022; mkdir -p /run/echo-server && cd /run/echo-server &&
    echo-server status --prometheus >new && test -s new &&
    mv new echo-server.prom'
The manual has the link by which the collector finds that file.)";

constexpr auto reload_description = "Let the running server read its ports file again";

constexpr auto reload_notes = R"(It sends SIGHUP to the server of this network namespace, and waits until the
ports are as the file has them. If there are several servers, PID says which. The
exit code is 1, with the server's reason, if the ports stay as they were, or if
there is no answer in ten seconds. Root may reload every server, a user its own.)";

struct FormatFlag {
    const char* name;
    StatusOptions::Format format;
    const char* help;
};
constexpr std::array format_flags{
    FormatFlag{"--ports", StatusOptions::Format::ports, "List each port that was reached, with its figures"},
    FormatFlag{"--json", StatusOptions::Format::json, "Print JSON"},
    FormatFlag{"--prometheus", StatusOptions::Format::prometheus, "Print Prometheus' text format"},
};

// Usage first: a reader who only wants to know what to type need not read on.
class UsageFirst : public CLI::Formatter {
 public:
    std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override {
        const auto* more = !app->get_subcommands({}).empty() ? " [SUBCOMMAND]"
                           : app->get_name() == "reload"     ? " [PID]"
                                                             : "";
        const auto text = fmt::format("Usage: {} [OPTIONS]{}\n\n{}{}{}\n{}", name, more, make_description(app),
                                      make_groups(app, mode), make_subcommands(app, mode), make_footer(app));
        return CLI::detail::find_and_replace(text, "\n\n\n", "\n\n");
    }
};

// `subcommand` is its name, or "".
Exit wrong_usage(const std::string& why, const std::string& subcommand) {
    log_error("{}; see echo-server {}{}--help", why, subcommand, subcommand.empty() ? "" : " ");
    return Exit{2};
}

// CLI11's own words are "--user: At Most 1 required but received 2", "--user: 1 required NAME missing", and "replace
// was given a disallowed flag override".
std::string wrong_count(const CLI::App& app, std::string_view message) {
    const std::string flag(message.substr(0, message.find_first_of(": ")));
    const auto* option = app.get_option_no_throw(flag);
    if (option == nullptr) return fmt::format("--{} has no value", flag);
    return flag + (option->count() > 1 ? " may be given only once" : " needs a value");
}

std::string unexpected(const std::string& word) {
    if (const auto hint = hint_of_quotes(word); !hint.empty())
        return fmt::format("unexpected {}: {}", quote(word), hint);
    const bool list =
        !word.empty() && word.front() != '-' && word.find_first_not_of("0123456789-,! ") == std::string::npos;
    return list ? fmt::format("unexpected {}: write a port list without blanks (7,77), or quote it", quote(word))
                : fmt::format("{} is not an option", quote(word));
}

/// Reads whole numbers from `min` to `max`; `allowed` says so.
auto whole_number(std::size_t min, std::size_t max, const std::string& allowed) {
    return [=](const std::string& text) {
        const auto number = parse_number<std::size_t>(text);
        if (number && *number >= min && *number <= max) return *number;
        throw std::runtime_error(fmt::format("{} is not allowed here: write {}", quote(text), allowed));
    };
}

std::chrono::seconds parse_seconds(const std::string& text) {
    return std::chrono::seconds(whole_number(0, 86400, "whole seconds, 0 to 86400")(text));
}

asio::ip::tcp::endpoint parse_listen_address(const std::string& text) {
    auto endpoint = parse_endpoint(text);
    const auto address = endpoint.address();
    if (address.is_v6() && !address.is_unspecified() && !address.to_v6().is_v4_mapped())
        throw std::runtime_error(fmt::format(
            "a socket on {} would refuse IPv4 clients; an IPv4 address, or [::], serves both families", quote(text)));
    return endpoint;
}

std::string parse_path(const std::string& text) {
    if (text.empty()) throw std::runtime_error("no path is given");
    return text;
}

void declare(Flags& flags, Options& options) {
    flags.begin_group("Ports");
    const auto add_ports = [&](const auto& text) { options.ports.add(text); };
    flags.add_repeatable("--ports", "LIST", add_ports, "Ports to answer on; repeatable");
    flags.add("--ports-file", "FILE", options.ports_file, parse_path,
              "Read more ports from FILE; SIGHUP reads it again");
    const auto add_address = [&](const auto& text) { options.addresses.push_back(parse_address_prefix(text)); };
    flags.add_repeatable("--address", "PREFIX", add_address, "Answer only on addresses in PREFIX; repeatable");
    flags.add("--shadow-listeners", options.shadow_listeners, "Take ports on which other programs listen");
    flags.add("--allow-ephemeral", options.allow_ephemeral, "Open even ports that the host itself needs");

    flags.begin_group("Socket and process");
    flags.add("--listen", "ADDR:PORT", options.listen, parse_listen_address,
              fmt::format("Bind the socket here (default {})", default_listen_address));
    flags.add("--replace", options.replace, "Take over from the running server, which drains");
    flags.add(
        "--user", "NAME", options.user, [](const auto& text) { return text; },
        fmt::format("As root: become this user (default {})", default_user));
    flags.add("--pin", "DIR", options.pin, parse_path, "Pin echo_ports, echo_socket in a bpffs for --user");
    const auto threads =
        whole_number(1, ECHO_MAX_THREADS, fmt::format("a whole number from 1 to {}", ECHO_MAX_THREADS));
    flags.add("--threads", "N", options.threads, threads, "Threads (default: one for each usable CPU)");
    flags.add("--check", options.check, "Only say whether this start would succeed");
    flags.add("--verbose", options.verbose, "Log connections, and libbpf's messages");

    flags.begin_group("Limits");
    const auto count = whole_number(1, SIZE_MAX, "a whole number of at least 1");
    flags.add("--max-connections", "N", options.max_connections, count,
              "Limit of open connections (default by ulimit -Hn)");
    flags.add("--idle-timeout", "SECONDS", options.idle_timeout, parse_seconds,
              "Close connections idle so long (default 0: never)");
    flags.add("--drain-timeout", "SECONDS", options.drain_timeout, parse_seconds,
              fmt::format("Time for connections after a stop (default {})", options.drain_timeout.count()));
}

StatusOptions status_options(const CLI::App& status) {
    StatusOptions options;
    int given = 0;
    for (const FormatFlag& flag : format_flags) {
        if (status.count(flag.name) == 0) continue;
        options.format = flag.format;
        ++given;
    }
    if (given > 1) throw std::runtime_error("status: choose one of --ports, --json and --prometheus");
    return options;
}

void check(const Options& options) {
    if (options.ports.empty() && !options.ports_file)
        throw std::runtime_error("no ports given: choose some with --ports 7,77,777 or --ports-file FILE");
    if (!options.ports_file && options.ports.ports().empty())
        throw std::runtime_error("--ports: after the exclusions no port is left");
}

}  // namespace

std::size_t usable_cpus() {
    cpu_set_t cpus;
    if (::sched_getaffinity(0, sizeof(cpus), &cpus) != 0) return 1;  // more than fit into cpus
    return static_cast<std::size_t>(CPU_COUNT(&cpus));
}

std::variant<Options, StatusOptions, ReloadOptions, Exit> parse_command_line(int argc, char** argv) {
    Options options;
    CLI::App app(description, "echo-server");
    app.formatter(std::make_shared<UsageFirst>());
    app.get_formatter()->column_width(28);
    app.footer(notes);
    app.set_help_flag();  // the group of the first flag comes first
    Flags flags(app);
    declare(flags, options);
    app.set_help_flag("-h,--help", "Print this help and exit")->group("Help");
    app.set_version_flag("--version", "echo-server " ECHO_SERVER_VERSION, "Print the version and exit")->group("Help");

    auto* status = app.add_subcommand("status", status_description);
    status->footer(status_notes);
    for (const FormatFlag& flag : format_flags) status->add_flag(flag.name, flag.help)->disable_flag_override();

    auto* reload = app.add_subcommand("reload", reload_description);
    reload->footer(reload_notes);
    std::string pid;
    const auto* given_pid = reload->add_option("PID", pid);

    const auto subcommand = [&] { return status->parsed() ? "status" : reload->parsed() ? "reload" : ""; };
    try {
        app.parse(argc, argv);
        if (status->parsed() || reload->parsed())
            for (const auto* option : app.get_options())
                if (option->count() > 0)
                    throw std::runtime_error(fmt::format("{} is not for {}", option->get_name(), subcommand()));
        if (status->parsed()) return status_options(*status);
        if (reload->parsed()) {
            const auto process = whole_number(1, INT_MAX, "the number of a process");
            return given_pid->count() == 0 ? ReloadOptions{} : ReloadOptions{static_cast<pid_t>(process(pid))};
        }
        flags.read_values();
        check(options);
    } catch (const CLI::Success& done) {
        return Exit{app.exit(done)};
    } catch (const CLI::ExtrasError&) {
        const auto word = app.remaining(true).front();
        const std::string name = subcommand();
        return wrong_usage(
            name.empty() ? unexpected(word) : fmt::format("{} is not an option of {}", quote(word), name), name);
    } catch (const CLI::ArgumentMismatch& error) {
        return wrong_usage(wrong_count(app, error.what()), subcommand());
    } catch (const std::runtime_error& error) {
        return wrong_usage(error.what(), subcommand());
    }
    return options;
}

}  // namespace echo_server
