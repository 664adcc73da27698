// SPDX-License-Identifier: BSD-2-Clause
#include <csignal>
#include <exception>
#include <initializer_list>
#include <variant>

#include "base/log.h"
#include "base/os.h"
#include "base/privileges.h"
#include "options.h"
#include "probe/probe.h"
#include "service/reload_command.h"
#include "service/start.h"
#include "status/status.h"

int main(int argc, char** argv) {
    using namespace echo_server;
    // Writes can raise these: splice(2) to a client that is gone, or a log line to a reader that is gone, to a file at
    // its size limit (RLIMIT_FSIZE), or from the background to a terminal with 'stty tostop'.
    for (const int signal : {SIGPIPE, SIGXFSZ, SIGTTOU}) std::signal(signal, SIG_IGN);
    try {
        open_closed_standard_streams();
        const auto parsed = parse_command_line(argc, argv);
        if (const auto* code = std::get_if<int>(&parsed)) return *code;
        raise_descriptor_limit();
        if (const auto* options = std::get_if<ProbeOptions>(&parsed)) return probe(*options);
        // They stay pending until the housekeeper reads them.
        block_signals({SIGHUP, SIGUSR1, SIGUSR2});
        check_proc();
        use_permitted_capabilities();
        if (const auto* format = std::get_if<StatusFormat>(&parsed)) return print_status(*format);
        if (const auto* pid = std::get_if<std::optional<pid_t>>(&parsed)) {
            reload_server(*pid);
            return 0;
        }
        const auto& options = std::get<Options>(parsed);

        keep_log_from_blocking();
        options.check ? check_start(options) : serve(options);
        return 0;
    } catch (const std::exception& error) {
        log_error(error.what());
    }
    return 1;
}
