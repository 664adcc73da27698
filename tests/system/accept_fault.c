// SPDX-License-Identifier: BSD-2-Clause
/* Preloaded into the server: the first three calls of accept() fail with the error that ACCEPT_FAULT names.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int named_error(void) {
    const char* name = getenv("ACCEPT_FAULT");
    for (int error = 1; name && error < 200; ++error) {
        const char* candidate = strerrorname_np(error);
        if (candidate && strcmp(candidate, name) == 0) return error;
    }
    abort();
}

int accept(int fd, struct sockaddr* address, socklen_t* size) {
    static int left = 3;
    static int (*real)(int, struct sockaddr*, socklen_t*);
    if (!real) real = (int (*)(int, struct sockaddr*, socklen_t*))dlsym(RTLD_NEXT, "accept");

    if (left == 0) return real(fd, address, size);
    --left;
    errno = named_error();
    return -1;
}
