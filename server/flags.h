// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace echo_server {

/// Flags are declared here; their values are read afterwards, so that --help is answered whatever else is wrong.
class Flags {
 public:
    explicit Flags(CLI::App& app) : app_(app) {}

    /// The flags that follow stand under this title.
    void begin_group(const std::string& title) { group_ = title; }

    void add(const std::string& name, bool& value, const std::string& help) {
        app_.add_flag(name, value, help)->disable_flag_override()->group(group_);
    }
    /// `parse` makes the value of a text, or throws std::runtime_error, whose text gets the flag's name.
    template <typename Value, typename Parse>
    void add(const std::string& name, const std::string& type, Value& value, const Parse& parse,
             const std::string& help) {
        add_reader(name, type, help, [&value, parse](const auto& text) { value = parse(text); });
    }
    /// `read` is called for each time that the flag is given.
    template <typename Read>
    void add_repeatable(const std::string& name, const std::string& type, Read read, const std::string& help) {
        add_reader(name, type, help, read)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    }

    void read_values() const {
        for (const auto& read : readers_) read();
    }

 private:
    CLI::Option* add_reader(const std::string& name, const std::string& type, const std::string& help,
                            const auto& read) {
        const auto keep = [this, name, read](const CLI::results_t& texts) {
            for (const auto& text : texts) readers_.push_back([name, read, text] { call(name, read, text); });
            return true;
        };
        return app_.add_option(name, keep, help)->type_name(type)->expected(1)->group(group_);
    }
    static void call(const std::string& name, const auto& read, const std::string& text) {
        try {
            read(text);
        } catch (const std::runtime_error& error) {
            throw std::runtime_error(fmt::format("{}: {}", name, error.what()));
        }
    }

    CLI::App& app_;
    std::string group_;
    std::vector<std::function<void()>> readers_;
};

}  // namespace echo_server
