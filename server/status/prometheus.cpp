// SPDX-License-Identifier: BSD-2-Clause
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "net/address.h"
#include "status/figures.h"
#include "status/format.h"

namespace echo_server {

namespace {

std::string label(std::string_view name, std::string_view value) {
    std::string text = fmt::format("{}=\"", name);
    for (const char c : value) {
        if (c == '"' || c == '\\') text += '\\';
        text += c;
    }
    return text + '"';
}

// A metric of every instance: its header, and the samples that `sample` adds by calling its argument with labels and the
// value.
using Sampler = std::function<void(const InstanceStatus&, const std::function<void(std::string, std::string)>&)>;

std::string metric(const std::vector<InstanceStatus>& instances, std::string_view name, std::string_view type,
                   std::string_view help, const Sampler& sample) {
    std::string samples;
    const auto is_shown = [](const InstanceStatus& one) { return one.identity.has_value(); };
    const auto shown = std::count_if(instances.begin(), instances.end(), is_shown);
    for (const auto& one : instances) {
        if (!is_shown(one)) continue;
        sample(one, [&](std::string labels, const std::string& value) {
            // Only where it is needed: a label that a restart changes makes each restart begin new series.
            if (shown > 1 && name != "info")
                labels = fmt::format("program=\"{}\"{}{}", one.program, labels.empty() ? "" : ",", labels);
            if (!labels.empty()) labels = fmt::format("{{{}}}", labels);
            samples += fmt::format("echo_server_{}{} {}\n", name, labels, value);
        });
    }
    if (samples.empty()) return {};
    return fmt::format("# HELP echo_server_{0} {2}\n# TYPE echo_server_{0} {1}\n{3}", name, type, help, samples);
}

}  // namespace

std::string to_prometheus(const std::vector<InstanceStatus>& instances) {
    std::string text;
    const auto add = [&](std::string_view name, std::string_view type, std::string_view help, const Sampler& sample) {
        text += metric(instances, name, type, help, sample);
    };
    // One figure out of a part of the status, if that part is known.
    const auto add_figure = [&](std::string_view name, std::string_view type, std::string_view help, auto part,
                                auto figure) {
        add(name, type, help, [=](const InstanceStatus& one, const auto& sample) {
            if (one.*part) sample("", fmt::format("{}", figure(*(one.*part))));
        });
    };
    using Status = InstanceStatus;
    add("info", "gauge", "Who serves, and where its one socket is bound.", [](const Status& one, const auto& sample) {
        sample(label("program", std::to_string(one.program)) + "," +
                   label("pid", one.pid ? std::to_string(*one.pid) : "") + "," + label("version", version_of(one)) +
                   "," + label("user", one.user.value_or("")) + "," +
                   label("listener", one.listener ? to_string(one.listener->local) : ""),
               "1");
    });
    add("start_time_seconds", "gauge", "When it was started, in seconds since 1970.",
        [](const Status& one, const auto& sample) {
            // As it was written at the start: made of the uptime and the clock of now, it would never be the same twice.
            if (const auto started = one.identity->started_wall; started != 0)
                sample("", fmt::format("{:.3f}", static_cast<double>(started) / 1e9));
        });
    add("serving", "gauge",
        "1 if connections are steered to it; 0 if it drains, or has lost its program or its socket.",
        [](const Status& one, const auto& sample) { sample("", one.state == Instance::State::serving ? "1" : "0"); });
    add_figure("ports", "gauge", "Ports that are open.", &Status::ports,
               [](const auto& ports) { return ports.size(); });
    add_figure("backlog_connections", "gauge", "Connections that wait to be accepted.", &Status::listener,
               [](const auto& listener) { return listener.waiting; });
    add_figure("backlog_dropped_total", "counter", "Connection attempts that the kernel dropped at the socket.",
               &Status::listener, [](const auto& listener) { return listener.dropped; });
    add_figure("connections_max", "gauge", "How many connections may be open at a time.", &Status::identity,
               [](const auto& identity) { return identity.max_connections; });
    const auto add_counter = [&](std::string_view name, std::string_view type, std::string_view help, auto member) {
        add_figure(name, type, help, &Status::counters,
                   [=](const auto& counters) { return std::uint64_t{counters.*member}; });
    };
    add_figure("connections", "gauge", "Connections that are open.", &Status::counters, open_connections);
    add_counter("connections_accepted_total", "counter", "Connections so far.", &echo_counters::accepted);
    add_counter("connections_refused_total", "counter", "Connections closed at once for want of memory.",
                &echo_counters::refused);
    add_counter("connections_timed_out_total", "counter", "Connections ended as they were idle.",
                &echo_counters::timed_out);
    add_counter("received_bytes_total", "counter", "Bytes received from clients.", &echo_counters::received);
    add_counter("sent_bytes_total", "counter", "Bytes sent back to clients.", &echo_counters::sent);
    add("attempts_dropped_total", "counter", "Connection attempts that the BPF program dropped.",
        [](const Status& one, const auto& sample) {
            if (!one.drops) return;
            sample(label("reason", "no_socket"), fmt::format("{}", (*one.drops)[ECHO_DROP_NO_SOCKET]));
            sample(label("reason", "not_assigned"), fmt::format("{}", (*one.drops)[ECHO_DROP_NOT_ASSIGNED]));
        });
    add_figure("attempts_steered_total", "counter",
               "Lookups for which the BPF program gave the socket, which can be several for a connection.",
               &Status::steered, sum);
    return text;
}

}  // namespace echo_server
