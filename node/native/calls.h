/* What both ends of an exchange share: messages of libzmq, SHA-256, numbers in headers, time. */
#ifndef KEKAHYDE_CALLS_H
#define KEKAHYDE_CALLS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HASH_BYTES = 32, MESSAGE_BYTES = 64, MAX_PARTS = 3, ROWS_ALIGNMENT = 64 };

/* Functions of other libraries: libzmq's (zmq.h), and SHA-256 of a buffer: libcrypto's, which uses the processor's
   instructions for it, or NULL; and libsodium's. Those of the kernels (kernels.c), and the level that they take. */
struct calls {
    int (*message_init)(void *message);
    int (*message_init_size)(void *message, size_t size);
    int (*message_receive)(void *message, void *socket, int flags);
    int (*message_send)(void *message, void *socket, int flags);
    int (*message_close)(void *message);
    int (*message_more)(const void *message);
    size_t (*message_size)(const void *message);
    void *(*message_data)(void *message);
    const char *(*message_gets)(const void *message, const char *property);
    int (*get_option)(void *socket, int option, void *value, size_t *size);
    int option_events, poll_in, do_not_wait, send_more;
    unsigned char *(*fast_sha256)(const unsigned char *bytes, size_t size, unsigned char *digest);
    int (*sha256)(unsigned char *digest, const unsigned char *bytes, unsigned long long size);
    int (*linear_field)(int level, void *team, const int8_t *weights, const uint32_t *rows, size_t num_outputs,
                        size_t num_inputs, size_t num_rows, uint32_t *out);
    int (*dots_agree)(int level, const uint32_t *vectors, const uint32_t *outputs, const uint32_t *projections,
                      const uint32_t *inputs, size_t num_vectors, size_t num_rows, size_t num_outputs,
                      size_t num_inputs);
    void (*merge)(int level, const uint32_t *first, const uint32_t *second, size_t count, int32_t *sums);
    void (*share)(int level, const int16_t *rows, const uint32_t *pads, size_t count, uint32_t *shares);
    int (*layer)(int level, void *team, void *run, size_t index, size_t cached, int unit, const int32_t *sums);
    int layer_done; /* what `layer` returns at the end of a layer */
    int level;
    void *team; /* of threads, which linear_field and layer take */
};

struct part {
    _Alignas(16) unsigned char message[MESSAGE_BYTES];
};

/* The first parts of a message that was received. */
struct mail {
    struct part parts[MAX_PARTS];
    int num_parts, more;
};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Forgets a message. */
static void mail_drop(const struct calls *calls, struct mail *mail) {
    while (mail->num_parts) calls->message_close(mail->parts[--mail->num_parts].message);
    mail->more = 0;
}

static int mail_num_parts(const struct mail *mail) { return mail->num_parts; }

/* Whether the message has more parts than were taken. */
static int mail_has_more(const struct mail *mail) { return mail->more; }

static size_t mail_size(const struct calls *calls, const struct mail *mail, int number) {
    return calls->message_size(mail->parts[number].message);
}

static const void *mail_part(const struct calls *calls, struct mail *mail, int number) {
    return calls->message_data(mail->parts[number].message);
}

/* What libzmq knows of the sender of a message: text, or NULL. */
static const char *mail_property(const struct calls *calls, const struct mail *mail, const char *property) {
    return mail->num_parts ? calls->message_gets(mail->parts[mail->num_parts - 1].message, property) : NULL;
}

/* Takes at most so many parts of a message that has come; 0 where there is none after all. */
static int mail_take(const struct calls *calls, struct mail *mail, void *socket, int most) {
    do {
        unsigned char *message = mail->parts[mail->num_parts].message;
        if (calls->message_init(message)) break;
        if (calls->message_receive(message, socket, calls->do_not_wait) < 0) {
            calls->message_close(message);
            break;
        }
        mail->num_parts++;
        mail->more = calls->message_more(message);
    } while (mail->more && mail->num_parts < most);
    return mail->num_parts;
}

static int has_message(const struct calls *calls, void *socket) {
    int events = 0;
    size_t size = sizeof events;
    if (calls->get_option(socket, calls->option_events, &events, &size)) return 0;
    return events & calls->poll_in;
}

enum waited { WAITED_MESSAGE, WAITED_NEWS, WAITED_NOTHING };

/* Waits until a message can be taken (at once where one is there); WAITED_NEWS: another of the descriptors became
   readable first; WAITED_NOTHING: the time is over, or a signal came.

   polled: the socket's own descriptor first; it becomes readable when something changes, not while it stays so. */
static enum waited wait_message(const struct calls *calls, struct mail *mail, void *socket, int most,
                                struct pollfd *polled, int num_polled, int64_t until_ns) {
    mail_drop(calls, mail);
    for (;;) {
        if (has_message(calls, socket) && mail_take(calls, mail, socket, most)) return WAITED_MESSAGE;
        int64_t left_ns = until_ns - now_ns();
        if (left_ns <= 0) return WAITED_NOTHING;
        if (poll(polled, (nfds_t)num_polled, (int)((left_ns + 999999) / 1000000)) <= 0) return WAITED_NOTHING;
        for (int i = 1; i < num_polled; i++)
            if (polled[i].revents) return WAITED_NEWS;
    }
}

static void hash(const struct calls *calls, const uint8_t *bytes, size_t size, uint8_t *digest) {
    if (!calls->fast_sha256 || !calls->fast_sha256(bytes, size, digest)) calls->sha256(digest, bytes, size);
}

/* Memory that each call of `scratch_words` uses anew. */
struct scratch {
    uint8_t *bytes;
    size_t size;
};

/* Aligned memory for words of `size` bytes, with `before` bytes directly in front of it; NULL where there is none. */
static uint32_t *scratch_words(struct scratch *scratch, size_t before, size_t size) {
    size_t wanted = before + size + ROWS_ALIGNMENT;
    if (scratch->size < wanted) {
        uint8_t *larger = realloc(scratch->bytes, wanted);
        if (!larger) return NULL;
        scratch->bytes = larger;
        scratch->size = wanted;
    }
    uintptr_t end = (uintptr_t)scratch->bytes + before + ROWS_ALIGNMENT - 1;
    return (uint32_t *)(end - end % ROWS_ALIGNMENT);
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

/* The same written; its size, 5 at most. */
static size_t write_uint(uint8_t *bytes, uint32_t value) {
    size_t length = value < 24 ? 0 : value < 0x100 ? 1 : value < 0x10000 ? 2 : 4;
    bytes[0] = (uint8_t)(length ? 0x17 + (length == 1 ? 1 : length == 2 ? 2 : 3) : value);
    for (size_t i = 0; i < length; i++) bytes[1 + i] = (uint8_t)(value >> 8 * (length - 1 - i));
    return 1 + length;
}

#endif
