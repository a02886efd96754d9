// Calls that change a disk, counted where they concern one folder. At the chosen one the process ends as by kill -9:
// before the call, or, `half`, after half of the bytes of a write, or after any other call has been done.
// Loaded with LD_PRELOAD; does nothing until `shim_arm` was called.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static atomic_int chosen, counted, half;

void shim_arm(const char *path, int number, int is_half) {
    strncpy(folder, path, sizeof folder - 1);
    counted = 0;
    half = is_half;
    chosen = number;
}

int shim_counted(void) { return counted; }

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int concerns(const char *path) { return path != NULL && strncmp(path, folder, strlen(folder)) == 0; }

static int concerns_at(int dir, const char *path) {
    char link[64], name[PATH_MAX];
    if (path != NULL && path[0] == '/') return concerns(path);
    if (dir == AT_FDCWD) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0) return 0;
    name[length] = 0;
    return concerns(name);
}

// Whether this call is the chosen one. It ends the process here unless it is to be done by half.
static int is_chosen(int is_ours) {
    if (!chosen || !is_ours) return 0;
    if (atomic_fetch_add(&counted, 1) + 1 != chosen) return 0;
    if (!half) die();
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WHOLE(is_ours, call)                \
    int last = is_chosen(is_ours);          \
    __typeof__(call) result = call;         \
    if (last) die();                        \
    return result;

ssize_t write(int fd, const void *data, size_t size) {
    if (chosen && is_chosen(concerns_at(fd, ""))) {
        NEXT(write)(fd, data, size / 2);
        die();
    }
    return NEXT(write)(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    if (chosen && is_chosen(concerns_at(fd, ""))) {
        NEXT(pwrite)(fd, data, size / 2, at);
        die();
    }
    return NEXT(pwrite)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return pwrite(fd, data, size, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) { WHOLE(chosen && concerns_at(fd, ""), NEXT(writev)(fd, parts, count)) }
int rename(const char *from, const char *to) { WHOLE(chosen && concerns(to), NEXT(rename)(from, to)) }
int renameat(int a, const char *from, int b, const char *to) { WHOLE(chosen && concerns_at(b, to), NEXT(renameat)(a, from, b, to)) }
int link(const char *from, const char *to) { WHOLE(chosen && concerns(to), NEXT(link)(from, to)) }
int linkat(int a, const char *from, int b, const char *to, int flags) { WHOLE(chosen && concerns_at(b, to), NEXT(linkat)(a, from, b, to, flags)) }
int unlink(const char *path) { WHOLE(chosen && concerns(path), NEXT(unlink)(path)) }
int unlinkat(int dir, const char *path, int flags) { WHOLE(chosen && concerns_at(dir, path), NEXT(unlinkat)(dir, path, flags)) }
int mkdir(const char *path, mode_t mode) { WHOLE(chosen && concerns(path), NEXT(mkdir)(path, mode)) }
int mkdirat(int dir, const char *path, mode_t mode) { WHOLE(chosen && concerns_at(dir, path), NEXT(mkdirat)(dir, path, mode)) }
int rmdir(const char *path) { WHOLE(chosen && concerns(path), NEXT(rmdir)(path)) }
int chmod(const char *path, mode_t mode) { WHOLE(chosen && concerns(path), NEXT(chmod)(path, mode)) }
int ftruncate(int fd, off_t size) { WHOLE(chosen && concerns_at(fd, ""), NEXT(ftruncate)(fd, size)) }
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }
int fsync(int fd) { WHOLE(chosen && concerns_at(fd, ""), NEXT(fsync)(fd)) }

static int changes(int flags) { return flags & (O_CREAT | O_TRUNC); }

#define OPEN(name)                                                                             \
    int name(const char *path, int flags, ...) {                                               \
        va_list rest;                                                                          \
        va_start(rest, flags);                                                                 \
        mode_t mode = va_arg(rest, mode_t);                                                    \
        va_end(rest);                                                                          \
        WHOLE(chosen && changes(flags) && concerns(path), NEXT(name)(path, flags, mode))       \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                     \
    int name(int dir, const char *path, int flags, ...) {                                                \
        va_list rest;                                                                                    \
        va_start(rest, flags);                                                                           \
        mode_t mode = va_arg(rest, mode_t);                                                              \
        va_end(rest);                                                                                    \
        WHOLE(chosen && changes(flags) && concerns_at(dir, path), NEXT(name)(dir, path, flags, mode))    \
    }
OPENAT(openat)
OPENAT(openat64)
