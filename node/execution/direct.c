/* The answer to one request, from the wait for it to the finished rows, in one call without Python's lock.

It takes only the answer that was described to it, whole and right: everything else it leaves to Python, frames and
all, which decides what it means. So nothing passes here that would not pass there. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HASH_BYTES = 32, MAX_WATCHED = 8, MESSAGE_BYTES = 64, ROWS_ALIGNMENT = 64 };

/* Functions of other libraries: libzmq's (zmq.h), the kernels', and SHA-256 of a buffer: libcrypto's, which uses the
   processor's instructions for it, or NULL; and libsodium's. */
struct calls {
    int (*message_init)(void *message);
    int (*message_receive)(void *message, void *socket, int flags);
    int (*message_close)(void *message);
    int (*message_more)(const void *message);
    size_t (*message_size)(const void *message);
    void *(*message_data)(void *message);
    int (*get_option)(void *socket, int option, void *value, size_t *size);
    int option_events, poll_in, do_not_wait;
    unsigned char *(*fast_sha256)(const unsigned char *bytes, size_t size, unsigned char *digest);
    int (*sha256)(unsigned char *digest, const unsigned char *bytes, unsigned long long size);
    int (*dots_agree)(int level, const uint32_t *vectors, const uint32_t *outputs, const uint32_t *projections,
                      const uint32_t *inputs, size_t num_vectors, size_t num_rows, size_t num_outputs,
                      size_t num_inputs);
    void (*merge)(int level, const uint32_t *first, const uint32_t *second, size_t count, int32_t *sums);
    int level;
};

/* What is waited for, and what came of it. */
struct answer {
    void *socket;
    int descriptor;                  /* of the socket */
    int watched[8], num_watched;     /* descriptors that end the wait, too: MAX_WATCHED at most */
    int64_t timeout_ns;
    const uint8_t *prefix, *suffix;  /* of the header: before the digest, and after the microseconds */
    size_t prefix_size, suffix_size;
    const uint8_t *bound;            /* what is hashed before the rows */
    size_t bound_size;
    const uint32_t *vectors, *projections; /* Freivalds' [k, N] and [k, K] */
    const uint32_t *inputs, *products;     /* [T, K] as sent; [T, N] of the pads */
    size_t num_vectors, num_rows, num_outputs, num_inputs;
    int32_t *sums;                   /* [T, N], written when it returns DIRECT_MERGED */
    int64_t waited_ns, verify_ns, merge_ns;
    int64_t hash_ns;                 /* of verify_ns */
    uint32_t compute_us;
    size_t num_bytes;                /* of the answer */
};

enum outcome { DIRECT_NOTHING, DIRECT_NEWS, DIRECT_MESSAGE, DIRECT_MERGED };

struct part {
    _Alignas(16) unsigned char message[MESSAGE_BYTES];
};

struct direct {
    struct calls calls;
    struct part parts[2];
    int num_parts, more;
    uint8_t *scratch;
    size_t scratch_size;
};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static struct direct *direct_new(const struct calls *calls) {
    struct direct *direct = calloc(1, sizeof *direct);
    if (direct) direct->calls = *calls;
    return direct;
}

/* Forgets the message that was left to Python. */
static void direct_drop(struct direct *direct) {
    while (direct->num_parts) direct->calls.message_close(direct->parts[--direct->num_parts].message);
    direct->more = 0;
}

static void direct_free(struct direct *direct) {
    direct_drop(direct);
    free(direct->scratch);
    free(direct);
}

static int direct_num_parts(const struct direct *direct) { return direct->num_parts; }

/* Whether the message has more parts than were taken. */
static int direct_has_more(const struct direct *direct) { return direct->more; }

static size_t direct_part_size(const struct direct *direct, int number) {
    return direct->calls.message_size(direct->parts[number].message);
}

static const void *direct_part(struct direct *direct, int number) {
    return direct->calls.message_data(direct->parts[number].message);
}

static int has_message(const struct direct *direct, void *socket) {
    int events = 0;
    size_t size = sizeof events;
    if (direct->calls.get_option(socket, direct->calls.option_events, &events, &size)) return 0;
    return events & direct->calls.poll_in;
}

/* Takes the first two parts of a message that has come; 0 where there is none after all. */
static int take(struct direct *direct, void *socket) {
    do {
        unsigned char *message = direct->parts[direct->num_parts].message;
        if (direct->calls.message_init(message)) break;
        if (direct->calls.message_receive(message, socket, direct->calls.do_not_wait) < 0) {
            direct->calls.message_close(message);
            break;
        }
        direct->num_parts++;
        direct->more = direct->calls.message_more(message);
    } while (direct->more && direct->num_parts < 2);
    return direct->num_parts;
}

/* A number in CBOR's shortest form, of 32 bits at most; its size, or 0 where it is none. Larger ones are Python's. */
static size_t read_uint(const uint8_t *bytes, size_t size, uint32_t *value) {
    static const uint32_t LEAST[] = {24, 0x100, 0x10000};
    if (!size || bytes[0] > 0x1a) return 0;
    if (bytes[0] < 24) {
        *value = bytes[0];
        return 1;
    }
    size_t length = (size_t)1 << (bytes[0] - 24);
    if (size < 1 + length) return 0;
    *value = 0;
    for (size_t i = 1; i <= length; i++) *value = *value << 8 | bytes[i];
    return *value < LEAST[bytes[0] - 24] ? 0 : 1 + length;
}

/* The digest that the header of the expected answer states; NULL where it is another. */
static const uint8_t *stated_digest(struct direct *direct, struct answer *answer) {
    const uint8_t *header = direct_part(direct, 0);
    size_t size = direct_part_size(direct, 0), before = answer->prefix_size + HASH_BYTES + 1;
    if (size < before + answer->suffix_size || memcmp(header, answer->prefix, answer->prefix_size)) return NULL;
    if (header[before - 1] != 1) return NULL; /* the key of the microseconds */
    size_t left = size - before, length = read_uint(header + before, left, &answer->compute_us);
    if (!length || left - length != answer->suffix_size) return NULL;
    return memcmp(header + before + length, answer->suffix, answer->suffix_size) ? NULL : header + answer->prefix_size;
}

/* What is hashed, in one piece: what the rows are bound to, then the rows, aligned; NULL without memory. */
static uint8_t *gather(struct direct *direct, const struct answer *answer, size_t rows_size, uint32_t **rows) {
    size_t wanted = answer->bound_size + rows_size + ROWS_ALIGNMENT;
    if (direct->scratch_size < wanted) {
        uint8_t *larger = realloc(direct->scratch, wanted);
        if (!larger) return NULL;
        direct->scratch = larger;
        direct->scratch_size = wanted;
    }
    uintptr_t end = (uintptr_t)direct->scratch + answer->bound_size + ROWS_ALIGNMENT - 1;
    uint8_t *start = (uint8_t *)(end - end % ROWS_ALIGNMENT);
    memcpy(start - answer->bound_size, answer->bound, answer->bound_size);
    memcpy(start, direct_part(direct, 1), rows_size);
    *rows = (uint32_t *)(void *)start;
    return start - answer->bound_size;
}

/* Whether the message is the expected answer, and right; then its rows are merged. */
static int settle(struct direct *direct, struct answer *answer) {
    size_t count = answer->num_rows * answer->num_outputs, rows_size = count * sizeof(uint32_t);
    const struct calls *calls = &direct->calls;
    int64_t started = now_ns();
    if (direct->num_parts != 2 || direct->more || direct_part_size(direct, 1) != rows_size) return 0;
    const uint8_t *stated = stated_digest(direct, answer);
    uint32_t *rows;
    const uint8_t *hashed = stated ? gather(direct, answer, rows_size, &rows) : NULL;
    if (!hashed) return 0;
    uint8_t digest[HASH_BYTES], difference = 0;
    size_t hashed_size = answer->bound_size + rows_size;
    if (!calls->fast_sha256 || !calls->fast_sha256(hashed, hashed_size, digest))
        calls->sha256(digest, hashed, hashed_size);
    answer->hash_ns = now_ns() - started;
    for (int i = 0; i < HASH_BYTES; i++) difference |= digest[i] ^ stated[i];
    /* Both are always computed: how long a refusal takes must not tell a liar which of them it failed. */
    int agrees = calls->dots_agree(calls->level, answer->vectors, rows, answer->projections, answer->inputs,
                                   answer->num_vectors, answer->num_rows, answer->num_outputs, answer->num_inputs);
    int64_t verified = now_ns();
    answer->verify_ns = verified - started;
    if (difference || !agrees) return 0;
    calls->merge(calls->level, rows, answer->products, count, answer->sums);
    answer->merge_ns = now_ns() - verified;
    answer->num_bytes = direct_part_size(direct, 0) + rows_size;
    return 1;
}

/* Waits for a message. DIRECT_MERGED: it was the answer, and `sums` are exact. DIRECT_MESSAGE: it is another, or wrong;
   its first parts are kept until the next call. DIRECT_NEWS: a watched descriptor became readable first.
   DIRECT_NOTHING: the time is over, or a signal came. */
static int direct_wait(struct direct *direct, struct answer *answer) {
    struct pollfd polled[1 + MAX_WATCHED] = {{.fd = answer->descriptor, .events = POLLIN}};
    int64_t started = now_ns();
    for (int i = 0; i < answer->num_watched; i++)
        polled[1 + i] = (struct pollfd){.fd = answer->watched[i], .events = POLLIN};
    direct_drop(direct);
    for (;;) {
        int has_come = has_message(direct, answer->socket);
        answer->waited_ns = now_ns() - started;
        if (has_come && take(direct, answer->socket)) break;
        int64_t left_ns = answer->timeout_ns - answer->waited_ns;
        if (left_ns <= 0) return DIRECT_NOTHING;
        int ready = poll(polled, 1 + answer->num_watched, (int)((left_ns + 999999) / 1000000));
        answer->waited_ns = now_ns() - started;
        if (ready <= 0) return DIRECT_NOTHING;
        for (int i = 0; i < answer->num_watched; i++)
            if (polled[1 + i].revents) return DIRECT_NEWS;
    }
    if (!settle(direct, answer)) return DIRECT_MESSAGE;
    direct_drop(direct);
    return DIRECT_MERGED;
}
