/* Logs what a process writes to the files of a ledger, and when it waits for the disk, so that a test can tell what
   a power cut would have left. Loaded with LD_PRELOAD; POWERCUT_LOG names the log. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int log_file = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void note_path(char what, const char *path, const void *data, int64_t size, int64_t offset) {
    static ssize_t (*plain_write)(int, const void *, size_t);
    if (!plain_write) plain_write = dlsym(RTLD_NEXT, "write");
    const char *name = strrchr(path, '/');
    if (!name || strncmp(name, "/ledger", 7) || strstr(name, "-shm") || strstr(name, "-lock")) return;
    pthread_mutex_lock(&lock);
    if (log_file < 0) log_file = open(getenv("POWERCUT_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char head[128];
    int written = snprintf(head, sizeof head, "%c %s %lld %lld\n", what, name + 1, (long long)offset, (long long)size);
    plain_write(log_file, head, written);
    if (data) plain_write(log_file, data, size);
    pthread_mutex_unlock(&lock);
}

static void note(char what, int file, const void *data, int64_t size, int64_t offset) {
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    note_path(what, path, data, size, offset);
}

#define NEXT(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

#define PWRITE(name) \
    ssize_t name(int file, const void *data, size_t size, off64_t offset) { \
        NEXT(name); \
        ssize_t done = real(file, data, size, offset); \
        if (done > 0) note('w', file, data, done, offset); \
        return done; \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define TRUNCATE(name) \
    int name(int file, off64_t size) { \
        NEXT(name); \
        int done = real(file, size); \
        if (!done) note('t', file, NULL, size, 0); \
        return done; \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define SYNC(name) \
    int name(int file) { \
        NEXT(name); \
        int done = real(file); \
        if (!done) note('s', file, NULL, 0, 0); \
        return done; \
    }
SYNC(fsync)
SYNC(fdatasync)

ssize_t write(int file, const void *data, size_t size) {
    NEXT(write);
    ssize_t done = real(file, data, size);
    if (done > 0 && file > 2) note('a', file, data, done, 0);
    return done;
}

int unlink(const char *path) {
    NEXT(unlink);
    int done = real(path);
    if (!done) note_path('u', path, NULL, 0, 0);
    return done;
}
