/* Passes bytes between two connected sockets, for any number of pairs, in one thread that holds no Python lock.

The outer socket of a pair leads to a peer, the inner one to a ROUTER of this process. A turn moves at most CHUNK_BYTES
in each direction of each pair that is ready, so no pair waits for another. Memory is taken only for what one side does
not take at once. Of an outer side that has sent more than `max_unread` bytes which the ROUTER's reader has not
accounted for, the pair is closed: libzmq bounds frames, not the number of frames in a message. */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK_BYTES = 65536, MAX_EVENTS = 64, MAX_CLOSED = 4096 };

struct pair;

struct end {
    struct pair *pair;
    int fd;
    uint32_t wanted; /* events that epoll watches for */
    char *unsent;    /* bytes for this end that it has not taken yet */
    size_t start, length;
    int finished; /* nothing more will be read from it */
    int shut;     /* it has been told that nothing more will be written to it */
};

struct pair {
    int64_t id;
    struct end outer, inner;
    uint64_t received; /* bytes passed from the outer to the inner end */
    uint64_t read;     /* of these, what the reader has accounted for */
    int closing;
    struct pair *next, *previous;
};

struct pump {
    int epoll, wake, news;
    uint64_t max_unread;
    pthread_mutex_t lock; /* guards everything below, and `read` and `closing` of pairs */
    int stopping;
    int64_t next_id;
    struct pair *pairs;
    int64_t closed[MAX_CLOSED];
    int num_closed;
};

static struct pump *pump_new(uint64_t max_unread) {
    struct pump *pump = calloc(1, sizeof *pump);
    if (!pump) return NULL;
    pump->epoll = epoll_create1(EPOLL_CLOEXEC);
    pump->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    pump->news = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    pump->max_unread = max_unread;
    pump->next_id = 1;
    pthread_mutex_init(&pump->lock, NULL);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (pump->epoll < 0 || pump->wake < 0 || pump->news < 0 || epoll_ctl(pump->epoll, EPOLL_CTL_ADD, pump->wake, &event)) {
        if (pump->epoll >= 0) close(pump->epoll);
        if (pump->wake >= 0) close(pump->wake);
        if (pump->news >= 0) close(pump->news);
        free(pump);
        return NULL;
    }
    return pump;
}

static void signal_fd(int fd) {
    uint64_t one = 1;
    ssize_t ignored = write(fd, &one, sizeof one);
    (void)ignored;
}

/* An eventfd that is readable while `pump_next_closed` has something to say. */
static int pump_news_fd(struct pump *pump) { return pump->news; }

static int watch(struct pump *pump, struct end *end, int operation) {
    struct epoll_event event = {.events = end->wanted, .data.ptr = end};
    return epoll_ctl(pump->epoll, operation, end->fd, &event);
}

/* Takes both descriptors over; the pair's id, or 0 where there is no memory or no room in the system's tables. */
static int64_t pump_add(struct pump *pump, int outer, int inner) {
    struct pair *pair = calloc(1, sizeof *pair);
    if (!pair) return 0;
    pair->outer = (struct end){.pair = pair, .fd = outer, .wanted = EPOLLIN};
    pair->inner = (struct end){.pair = pair, .fd = inner, .wanted = EPOLLIN};
    pthread_mutex_lock(&pump->lock);
    int64_t id = pair->id = pump->next_id++;
    pair->next = pump->pairs;
    if (pump->pairs) pump->pairs->previous = pair;
    pump->pairs = pair;
    /* Under the lock: the pump's thread may see an event of it, and end it, before both ends are watched. */
    int failed = watch(pump, &pair->outer, EPOLL_CTL_ADD);
    if (!failed && watch(pump, &pair->inner, EPOLL_CTL_ADD)) {
        epoll_ctl(pump->epoll, EPOLL_CTL_DEL, outer, NULL);
        failed = 1;
    }
    if (failed) {
        pump->pairs = pair->next;
        if (pump->pairs) pump->pairs->previous = NULL;
    }
    pthread_mutex_unlock(&pump->lock);
    if (failed) {
        free(pair);
        return 0;
    }
    return id;
}

static struct pair *find(struct pump *pump, int64_t id) {
    struct pair *pair = pump->pairs;
    while (pair && pair->id != id) pair = pair->next;
    return pair;
}

/* The ROUTER's reader has taken so many bytes that came through a pair. */
static void pump_read(struct pump *pump, int64_t id, uint64_t num_bytes) {
    pthread_mutex_lock(&pump->lock);
    struct pair *pair = find(pump, id);
    if (pair) pair->read += num_bytes;
    pthread_mutex_unlock(&pump->lock);
}

/* Ends a pair, from any thread; nothing happens where it has ended. */
static void pump_close(struct pump *pump, int64_t id) {
    pthread_mutex_lock(&pump->lock);
    struct pair *pair = find(pump, id);
    if (pair) {
        pair->closing = 1;
        shutdown(pair->outer.fd, SHUT_RDWR); /* wakes the pump's thread, which alone closes descriptors */
    }
    pthread_mutex_unlock(&pump->lock);
}

/* A pair that has ended, or 0. */
static int64_t pump_next_closed(struct pump *pump) {
    pthread_mutex_lock(&pump->lock);
    int64_t id = pump->num_closed ? pump->closed[--pump->num_closed] : 0;
    pthread_mutex_unlock(&pump->lock);
    return id;
}

static void end_pair(struct pump *pump, struct pair *pair) {
    pthread_mutex_lock(&pump->lock);
    if (pair->previous) pair->previous->next = pair->next;
    else pump->pairs = pair->next;
    if (pair->next) pair->next->previous = pair->previous;
    if (pump->num_closed < MAX_CLOSED) pump->closed[pump->num_closed++] = pair->id;
    close(pair->outer.fd); /* under the lock: `pump_close` must not meet a descriptor that is another's by now */
    close(pair->inner.fd);
    pthread_mutex_unlock(&pump->lock);
    signal_fd(pump->news);
    free(pair->outer.unsent);
    free(pair->inner.unsent);
    free(pair);
}

/* Write what waits for an end; -1 where it is broken. */
static int write_unsent(struct end *to) {
    while (to->length) {
        ssize_t sent = send(to->fd, to->unsent + to->start, to->length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
        to->start += (size_t)sent;
        to->length -= (size_t)sent;
    }
    free(to->unsent);
    to->unsent = NULL;
    to->start = 0;
    return 0;
}

/* Move at most one chunk; the bytes moved, or -1 where one end is broken. `buffer` is the thread's. */
static ssize_t move_chunk(struct end *from, struct end *to, char *buffer) {
    if (from->finished || to->length) return 0;
    ssize_t got = recv(from->fd, buffer, CHUNK_BYTES, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (got == 0) {
        from->finished = 1;
        return 0;
    }
    ssize_t sent = send(to->fd, buffer, (size_t)got, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return -1;
    if (sent < 0) sent = 0;
    if (sent < got) {
        to->length = (size_t)(got - sent);
        to->unsent = malloc(to->length);
        if (!to->unsent) return -1;
        memcpy(to->unsent, buffer + sent, to->length);
    }
    return got;
}

/* Watch an end for what can go on; -1 where that fails. */
static int rewatch(struct pump *pump, struct end *end, const struct end *other) {
    uint32_t wanted = (!end->finished && !other->length ? EPOLLIN : 0) | (end->length ? EPOLLOUT : 0);
    if (wanted == end->wanted) return 0;
    end->wanted = wanted;
    return watch(pump, end, EPOLL_CTL_MOD);
}

/* One turn of a pair; 0 while it goes on. */
static int turn(struct pump *pump, struct pair *pair, char *buffer) {
    struct end *outer = &pair->outer, *inner = &pair->inner;
    if (write_unsent(outer) || write_unsent(inner)) return 1;
    ssize_t came = move_chunk(outer, inner, buffer);
    if (came < 0 || move_chunk(inner, outer, buffer) < 0) return 1;
    pthread_mutex_lock(&pump->lock);
    pair->received += (uint64_t)came;
    int ends = pair->closing || (pair->received > pair->read && pair->received - pair->read > pump->max_unread);
    pthread_mutex_unlock(&pump->lock);
    if (ends) return 1;
    struct end *ways[2][2] = {{outer, inner}, {inner, outer}};
    for (int i = 0; i < 2; i++) { /* what one end finished is passed on once everything before it was */
        struct end *from = ways[i][0], *to = ways[i][1];
        if (from->finished && !to->length && !to->shut) {
            to->shut = 1;
            shutdown(to->fd, SHUT_WR);
        }
    }
    if (outer->shut && inner->shut) return 1;
    return rewatch(pump, outer, inner) || rewatch(pump, inner, outer);
}

/* Runs until `pump_stop`, without the Python lock; then every pair is closed and the pump is freed. */
static void pump_run(struct pump *pump) {
    struct epoll_event events[MAX_EVENTS];
    char *buffer = malloc(CHUNK_BYTES);
    int stopping = !buffer;
    while (!stopping) {
        int count = epoll_wait(pump->epoll, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct end *end = events[i].data.ptr;
            if (!end) continue;
            struct pair *pair = end->pair;
            int broken = (events[i].events & (EPOLLERR | EPOLLHUP)) && !(events[i].events & EPOLLIN);
            if (!broken && !turn(pump, pair, buffer)) continue;
            for (int j = i + 1; j < count; j++) { /* its other end may be in this very batch */
                struct end *later = events[j].data.ptr;
                if (later && later->pair == pair) events[j].data.ptr = NULL;
            }
            end_pair(pump, pair);
        }
        pthread_mutex_lock(&pump->lock);
        stopping = pump->stopping;
        pthread_mutex_unlock(&pump->lock);
    }
    while (pump->pairs) end_pair(pump, pump->pairs);
    free(buffer);
}

/* Ask `pump_run` to return. */
static void pump_stop(struct pump *pump) {
    pthread_mutex_lock(&pump->lock);
    pump->stopping = 1;
    pthread_mutex_unlock(&pump->lock);
    signal_fd(pump->wake);
}

/* After `pump_run` has returned, and when nobody calls anything of it any more. */
static void pump_free(struct pump *pump) {
    close(pump->epoll);
    close(pump->wake);
    close(pump->news);
    pthread_mutex_destroy(&pump->lock);
    free(pump);
}
