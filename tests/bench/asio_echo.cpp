// SPDX-License-Identifier: BSD-2-Clause
// Asio's documentation writes an echo server in this way: a coroutine for each connection, with a buffer of its own (1
// KiB there), that reads some bytes and writes all of them. It is measured beside echo-server, to show what the
// sessions of echo-server gain.
#include <asio/awaitable.hpp>
#include <asio/buffer.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

using asio::ip::tcp;

namespace {

asio::awaitable<void> echo(tcp::socket socket, std::size_t buffer_size) {
    try {
        std::vector<char> data(buffer_size);
        for (;;) {
            const auto count = co_await socket.async_read_some(asio::buffer(data), asio::use_awaitable);
            co_await asio::async_write(socket, asio::buffer(data, count), asio::use_awaitable);
        }
    } catch (const std::exception&) {
        // The client has ended the connection.
    }
}

asio::awaitable<void> listen(tcp::acceptor acceptor, std::size_t buffer_size) {
    const auto executor = acceptor.get_executor();
    for (;;) {
        auto socket = co_await acceptor.async_accept(asio::use_awaitable);
        socket.set_option(tcp::no_delay(true));
        asio::co_spawn(executor, echo(std::move(socket), buffer_size), asio::detached);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fputs("asio-echo: give a port and the size of buffers\n", stderr);
        return 2;
    }
    asio::io_context io(1);
    tcp::acceptor acceptor(io, {tcp::v6(), static_cast<unsigned short>(std::atoi(argv[1]))});
    acceptor.listen(4096);
    asio::co_spawn(io, listen(std::move(acceptor), std::strtoul(argv[2], nullptr, 10)), asio::detached);
    std::puts("ready");
    std::fflush(stdout);
    io.run();
}
