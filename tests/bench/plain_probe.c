// SPDX-License-Identifier: BSD-2-Clause
// The yardstick of 'echo-server probe': a client as one writes it in a quarter of an hour, with N connections at once.
// It says how many ports echo, and not what is wrong with the others. A port that takes bytes and sends none back would
// hold it up for ever.
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

enum { size = 4096, max_fd = 65536 };
static char payload[size];
static ssize_t sent_of[max_fd], received_of[max_fd];  // by descriptor
static int epoll, open_now, echoed;

static double seconds(struct timeval time) { return time.tv_sec + time.tv_usec / 1e6; }

static void watch(int operation, int fd, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, operation, fd, &event) < 0) err(1, "epoll_ctl");
}

static void start(struct addrinfo* to, int port) {
    const int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK, 0), timeout_ms = 2000;
    if (fd < 0 || fd >= max_fd) err(1, "socket");
    ((struct sockaddr_in*)to->ai_addr)->sin_port = htons(port);  // at the same place for IPv6
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
    if (connect(fd, to->ai_addr, to->ai_addrlen) < 0 && errno != EINPROGRESS) err(1, "connect");
    sent_of[fd] = received_of[fd] = 0;
    watch(EPOLL_CTL_ADD, fd, EPOLLOUT);
    ++open_now;
}

// Returns 0 when the connection is over.
static int progress(int fd, unsigned events) {
    ssize_t *const sent = &sent_of[fd], *const received = &received_of[fd];
    if (events & EPOLLOUT) {
        const ssize_t count = send(fd, payload + *sent, size - *sent, MSG_NOSIGNAL);
        if (count < 0) return errno == EAGAIN;
        *sent += count;
        if (*sent == size) watch(EPOLL_CTL_MOD, fd, EPOLLIN);
        return 1;
    }
    char buffer[size + 1];  // one more, to notice a byte too many
    const ssize_t count = recv(fd, buffer, size + 1 - *received, 0);
    if (count < 0) return errno == EAGAIN;
    if (count == 0) {
        echoed += *received == size;
        return 0;
    }
    if (*received + count > size || memcmp(buffer, payload + *received, count) != 0) return 0;
    *received += count;
    if (*received == size) shutdown(fd, SHUT_WR);
    return 1;
}

int main(int argc, char** argv) {
    struct addrinfo* to = NULL;
    const struct addrinfo numeric = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    const int first = argc > 3 ? atoi(argv[2]) : 0, last = argc > 3 ? atoi(argv[3]) : 0;
    const int parallel = argc > 4 ? atoi(argv[4]) : 200;
    if (first < 1 || last > 65535 || first > last || parallel < 1 || getaddrinfo(argv[1], "1", &numeric, &to) != 0) {
        fprintf(stderr, "usage: plain-probe ADDRESS FIRST_PORT LAST_PORT [CONNECTIONS]\n");
        return 2;
    }
    for (int i = 0; i < size; ++i) payload[i] = (char)(i ^ i >> 8);
    if ((epoll = epoll_create1(0)) < 0) err(1, "epoll_create1");
    struct timeval begin, end;
    gettimeofday(&begin, NULL);
    for (int next = first; next <= last || open_now > 0;) {
        while (open_now < parallel && next <= last) start(to, next++);
        struct epoll_event events[256];
        const int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; ++i)
            if (!progress(events[i].data.fd, events[i].events)) close(events[i].data.fd), --open_now;
    }
    gettimeofday(&end, NULL);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("echoed: %d of %d ports, wall: %.2f s, CPU: %.2f s, memory: %.1f MiB\n", echoed, last - first + 1,
           seconds(end) - seconds(begin), seconds(used.ru_utime) + seconds(used.ru_stime), used.ru_maxrss / 1024.0);
}
