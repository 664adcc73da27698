// SPDX-License-Identifier: BSD-2-Clause
// The figures of scripts/bench.
#pragma once

#include <istream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

using Series = std::map<int, double>;                           // by round
using Key = std::tuple<std::string, std::string, std::string>;  // workload, rival, metric

struct Results {
    std::map<Key, Series> values;
    std::vector<Key> order;  // of their first appearance
    std::map<std::pair<std::string, std::string>, std::string> failures;

    [[nodiscard]] const Series& of(std::string_view workload, std::string_view rival, std::string_view metric) const;
};

/// Reads results.csv.
Results read(std::istream& csv);

/// The median, with the first and the third quartile.
struct Spread {
    double median;
    double first;
    double third;
};

/// Nothing, if there are no values.
std::optional<Spread> spread(const Series& series);

/// The ratio within each round that has both figures: a drift slower than a round cancels out.
std::optional<Spread> ratio(const Series& series, const Series& base);

/// With three digits that count, or fewer.
std::string text_of(const std::optional<Spread>& spread);
std::string median_of(const Series& series);
