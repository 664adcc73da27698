// SPDX-License-Identifier: BSD-2-Clause
#include "results.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <sstream>

namespace {

std::optional<Spread> spread(std::vector<double> values) {
    if (values.empty()) return {};
    std::ranges::sort(values);
    const auto at = [&](double part) {
        const double place = part * static_cast<double>(values.size() - 1);
        const auto below = static_cast<std::size_t>(place);
        const auto above = std::min(below + 1, values.size() - 1);
        return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
    };
    return Spread{.median = at(0.5), .first = at(0.25), .third = at(0.75)};
}

std::string text_of(double number) {
    const int digits = number >= 100 ? 0 : number >= 10 ? 1 : 2;
    return fmt::format("{:.{}f}", number, digits);
}

}  // namespace

const Series& Results::of(std::string_view workload, std::string_view rival, std::string_view metric) const {
    static const Series none;
    const auto found = values.find({std::string(workload), std::string(rival), std::string(metric)});
    return found == values.end() ? none : found->second;
}

Results read(std::istream& csv) {
    Results results;
    std::string line;
    std::getline(csv, line);  // the header
    while (std::getline(csv, line)) {
        std::istringstream fields(line);
        std::array<std::string, 5> values;
        for (auto& value : values) std::getline(fields, value, ',');
        const auto& [workload, rival, round, metric, value] = values;
        if (metric == "failure") {
            results.failures[{workload, rival}] = value;
            continue;
        }
        const Key key(workload, rival, metric);
        if (!results.values.contains(key)) results.order.push_back(key);
        results.values[key][std::stoi(round)] = std::stod(value);
    }
    return results;
}

std::optional<Spread> spread(const Series& series) {
    std::vector<double> values;
    for (const auto& [round, value] : series) values.push_back(value);
    return spread(values);
}

std::optional<Spread> ratio(const Series& series, const Series& base) {
    std::vector<double> ratios;
    for (const auto& [round, value] : series)
        if (const auto same = base.find(round); same != base.end() && same->second > 0)
            ratios.push_back(value / same->second);
    return spread(ratios);
}

std::string text_of(const std::optional<Spread>& spread) {
    if (!spread) return "-";
    return fmt::format("{} ({} to {})", text_of(spread->median), text_of(spread->first), text_of(spread->third));
}

std::string median_of(const Series& series) {
    const auto all = spread(series);
    return all ? text_of(all->median) : "-";
}
