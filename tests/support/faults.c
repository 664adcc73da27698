// SPDX-License-Identifier: BSD-2-Clause
/* Preloaded into the server. Each variable of the environment asks for a fault; it stands above the function that
 * fails. By what they hit: accept and epoll, the splice path, memory, files, clocks, bpf(). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int named_error(const char* name) {
    for (int error = 1; error < 200; ++error) {
        const char* candidate = strerrorname_np(error);
        if (candidate && strcmp(candidate, name) == 0) return error;
    }
    abort();
}

static int has_text(const char* path) {
    struct stat file;
    return stat(path, &file) == 0 && file.st_size > 0;
}

static int is_pipe(int fd) {
    struct stat file;
    return fstat(fd, &file) == 0 && S_ISFIFO(file.st_mode);
}

/* Accept and epoll. */

/* ACCEPT_FAULT=EMFILE: accept4() fails with EMFILE for half a second. After more than twenty calls it aborts the
 * server, because that spins.
 * ACCEPT_FAULT=ECONNABORTED: accept4() fails three times; each failure stands for a client. */
int accept4(int fd, struct sockaddr* address, socklen_t* size, int flags) {
    static int calls;
    static struct timespec first;
    static int (*real)(int, struct sockaddr*, socklen_t*, int);
    const char* fault = getenv("ACCEPT_FAULT");
    struct timespec now;

    if (!real) real = (int (*)(int, struct sockaddr*, socklen_t*, int))dlsym(RTLD_NEXT, "accept4");
    if (!fault) return real(fd, address, size, flags);
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (calls++ == 0) first = now;
    const long passed_ms = (now.tv_sec - first.tv_sec) * 1000 + (now.tv_nsec - first.tv_nsec) / 1000000;
    if (strcmp(fault, "ECONNABORTED") == 0 ? calls > 3 : passed_ms > 500) return real(fd, address, size, flags);
    if (calls > 20) abort();
    errno = named_error(fault);
    return -1;
}

/* EPOLL_FAULT=ENOSPC: epoll refuses every connection with this error. */
int epoll_ctl(int epoll, int operation, int fd, struct epoll_event* event) {
    static int (*real)(int, int, int, struct epoll_event*);
    const char* fault = getenv("EPOLL_FAULT");
    struct sockaddr_storage peer;
    socklen_t size = sizeof(peer);

    if (!real) real = (int (*)(int, int, int, struct epoll_event*))dlsym(RTLD_NEXT, "epoll_ctl");
    if (!fault || operation != EPOLL_CTL_ADD || getpeername(fd, (struct sockaddr*)&peer, &size) != 0)
        return real(epoll, operation, fd, event);
    errno = named_error(fault);
    return -1;
}

/* The splice path. */

/* SPLICE_FAULT="out:short read:EIO": these calls fail. "in" and "out" are splice(2) from and to a connection to port 9;
 * "read" is from any pipe; "ioctl" asks any pipe for its bytes; "pipe2" is every call but the first. "short" moves only
 * half of the bytes; "moved-EIO" moves half too, but reports an error. The result has the number of bytes to move, and
 * the error, or 0. */
struct splice_fault {
    size_t size;
    int error;
};

static struct splice_fault splice_fault(const char* call, size_t size) {
    struct splice_fault fault = {size, 0};
    const char* faults = getenv("SPLICE_FAULT");
    char here[64];
    char how[64];
    int length;

    for (; faults && sscanf(faults, " %63[^:]:%63s%n", here, how, &length) == 2; faults += length) {
        if (strcmp(here, call) != 0) continue;
        const int moved = strncmp(how, "moved-", 6) == 0;
        const int is_short = strcmp(how, "short") == 0;
        fault.size = moved || is_short ? (size + 1) / 2 : 0;
        if (!is_short) fault.error = named_error(moved ? how + 6 : how);
    }
    return fault;
}

static int is_of_port_9(int fd) {
    struct sockaddr_in6 local = {0};
    socklen_t size = sizeof(local);
    return getsockname(fd, (struct sockaddr*)&local, &size) == 0 && ntohs(local.sin6_port) == 9;
}

ssize_t splice(int from, off_t* from_at, int to, off_t* to_at, size_t size, unsigned flags) {
    static ssize_t (*real)(int, off_t*, int, off_t*, size_t, unsigned);
    struct splice_fault fault = {size, 0};
    ssize_t result = 0;

    if (!real) real = (ssize_t(*)(int, off_t*, int, off_t*, size_t, unsigned))dlsym(RTLD_NEXT, "splice");
    if (is_of_port_9(from)) fault = splice_fault("in", size);
    if (is_of_port_9(to)) fault = splice_fault("out", size);
    if (fault.size > 0) result = real(from, from_at, to, to_at, fault.size, flags);
    if (fault.error == 0 || result < 0) return result;
    errno = fault.error;
    return -1;
}

int pipe2(int ends[2], int flags) {
    static int calls;
    static int (*real)(int[2], int);
    const struct splice_fault fault = splice_fault("pipe2", 1);

    if (!real) real = (int (*)(int[2], int))dlsym(RTLD_NEXT, "pipe2");
    if (calls++ == 0 || fault.error == 0) return real(ends, flags);
    errno = fault.error;
    return -1;
}

int ioctl(int fd, unsigned long request, ...) {
    static int (*real)(int, unsigned long, ...);
    const struct splice_fault fault = splice_fault("ioctl", 1);
    va_list args;

    va_start(args, request);
    void* argument = va_arg(args, void*);
    va_end(args);
    if (!real) real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    if (request != FIONREAD || !is_pipe(fd) || fault.error == 0) return real(fd, request, argument);
    errno = fault.error;
    return -1;
}

/* Memory. */

#ifdef NDEBUG /* sanitizers have allocators of their own */
/* glibc's own names of its functions: dlsym() may allocate. */
extern void* __libc_malloc(size_t size);
extern void* __libc_calloc(size_t count, size_t size);
extern void* __libc_realloc(void* old, size_t size);

/* MEMORY_FAULT=FILE: two of three allocations fail as long as the file is not empty. */
static const char* memory_fault;

__attribute__((constructor)) static void find_memory_fault(void) { memory_fault = getenv("MEMORY_FAULT"); }

/* Two of three: where an object needs two allocations, the first fails in some cases, and the second in others. */
static int is_without_memory(void) {
    static atomic_uint calls;

    if (!memory_fault || !has_text(memory_fault)) return 0;
    if (atomic_fetch_add(&calls, 1) % 3 == 0) return 0;
    errno = ENOMEM;
    return 1;
}

void* malloc(size_t size) { return is_without_memory() ? NULL : __libc_malloc(size); }
void* calloc(size_t count, size_t size) { return is_without_memory() ? NULL : __libc_calloc(count, size); }
void* realloc(void* old, size_t size) { return is_without_memory() ? NULL : __libc_realloc(old, size); }
#endif

/* Files. */

static int is_same_file(int fd, const char* path) {
    struct stat file;
    struct stat here;
    return fstat(fd, &here) == 0 && stat(path, &file) == 0 && here.st_ino == file.st_ino;
}

static volatile long hung_for; /* seconds */

/* HANG_FAULT=FILE: reading the file waits as long as FILE.hang exists, as on a file system whose server does not
 * answer; FILE.hangs says that it waits. With HANG_HOUR=1 each wait lasts an hour by the server's clocks. */
static void hang(const char* path) {
    const struct timespec moment = {.tv_nsec = 5000000};
    struct stat file;
    char flag[4096];
    char hangs[4096];

    snprintf(flag, sizeof(flag), "%s.hang", path);
    snprintf(hangs, sizeof(hangs), "%s.hangs", path);
    if (stat(flag, &file) != 0) return;
    mknod(hangs, S_IFREG | 0644, 0); /* without a descriptor: tests count them */
    /* As on NFS, no signal interrupts the wait unless it ends the process: the parent of a vfork() waits so. */
    const pid_t child =
        (pid_t)syscall(SYS_clone3, &(struct clone_args){.flags = CLONE_VFORK}, sizeof(struct clone_args));
    if (child < 0) abort();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close_range(0, ~0U, 0); /* the link of the program, for example */
        while (stat(flag, &file) == 0) nanosleep(&moment, NULL);
        _exit(0);
    }
    if (getenv("HANG_HOUR")) hung_for += 3600;
}

/* READ_FAULT=FILE: each read(2) of the file but the first, which is the start's, adds a line to it. */
static void append_after_read(int fd, const char* path) {
    static int calls;

    if (!is_same_file(fd, path) || ++calls < 2) return;
    FILE* more = fopen(path, "a");
    if (!more) abort();
    fputs("8\n", more);
    fclose(more);
}

/* Of files, and of the pipes of the splice path. */
ssize_t read(int fd, void* buffer, size_t size) {
    static ssize_t (*real)(int, void*, size_t);
    const char* hangs = getenv("HANG_FAULT");

    if (hangs && is_same_file(fd, hangs)) hang(hangs);
    if (!real) real = (ssize_t(*)(int, void*, size_t))dlsym(RTLD_NEXT, "read");
    if (getenv("SPLICE_FAULT") && is_pipe(fd)) {
        const struct splice_fault broken = splice_fault("read", size);
        errno = broken.error;
        return broken.error == 0 ? real(fd, buffer, broken.size) : -1;
    }
    const ssize_t result = real(fd, buffer, size);
    if (getenv("READ_FAULT")) append_after_read(fd, getenv("READ_FAULT"));
    return result;
}

/* Clocks. */

/* CLOCK_FAULT=1: the wall clock jumps by years. */
int clock_gettime(clockid_t clock, struct timespec* now) {
    static int year;
    static int (*real)(clockid_t, struct timespec*);
    const char* fault = getenv("CLOCK_FAULT");

    if (!real) real = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
    const int result = real(clock, now);
    if (clock == CLOCK_MONOTONIC) now->tv_sec += hung_for;
    if (fault && clock == CLOCK_REALTIME) {
        year = (year + 7) % 20;
        now->tv_sec += (year - 10) * 365L * 86400;
    }
    return result;
}

/* bpf(). */

/* BPF_FAULT=24:1: bpf() with command 24 succeeds once, then always fails with ENOMEM.
 * BPF_FAULT=24:FILE: it fails with ENOMEM as long as the file is not empty.
 * libbpf calls bpf() through syscall(). */
long syscall(long number, ...) {
    static int calls;
    static long (*real)(long, ...);
    const char* fault = getenv("BPF_FAULT");
    int command = 0;
    int at = 0;
    long a[6];
    va_list args;

    va_start(args, number);
    for (int i = 0; i < 6; ++i) a[i] = va_arg(args, long);
    va_end(args);
    if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_bpf && fault && sscanf(fault, "%d:%n", &command, &at) == 1 && a[0] == command &&
        (fault[at] == '/' ? has_text(fault + at) : calls++ >= atoi(fault + at))) {
        errno = ENOMEM;
        return -1;
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
