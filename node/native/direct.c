/* The answer to one request, from the wait for it to the finished rows, in one call without Python's lock; and where
it is known what comes then, on to the next request.

It takes only the answer that was described to it, whole and right: everything else it leaves to Python, frames and
all, which decides what it means. So nothing passes here that would not pass there. */

#include "calls.h"

enum { MAX_WATCHED = 8, ANSWER_PARTS = 2, REQUEST_PARTS = 2 };

/* Where an answer comes from. */
struct way {
    void *socket;
    int descriptor;              /* of the socket */
    int watched[8], num_watched; /* descriptors that end a wait, too: MAX_WATCHED at most */
};

_Static_assert(sizeof((struct way){0}.watched) == MAX_WATCHED * sizeof(int), "as many as are polled");

/* What is waited for, and what came of it. */
struct answer {
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

/* What is done with the sums: layers go on with them (layer.h) to the next unit that others compute, and its share is
   sent. */
struct continuation {
    void *run;
    size_t index, cached;            /* the layer of the sums, and where it is in the caches, */
    int unit;                        /* and the unit */
    size_t next_index, next_cached;  /* the same of the unit that is wanted then: of this layer or the next one */
    int next_unit;
    const int16_t *rows;             /* what that unit multiplies: elements that the layers write, */
    const uint32_t *pads;            /* and their pads, which nothing else uses */
    size_t num_elements;
    uint32_t *share;                 /* written where `is_shared` */
    const uint8_t *header;           /* of the request */
    size_t header_size;
    void *socket;
    size_t reached;                  /* the layer that the rows are in now, */
    int code;                        /* and what it has returned */
    int is_shared, is_sent;
    int64_t layers_ns, share_ns, send_ns;
};

enum outcome { DIRECT_NOTHING, DIRECT_NEWS, DIRECT_MESSAGE, DIRECT_MERGED };

struct direct {
    struct calls calls;
    struct mail mail;
    struct scratch scratch;
};

static struct direct *direct_new(const struct calls *calls) {
    struct direct *direct = calloc(1, sizeof *direct);
    if (direct) direct->calls = *calls;
    return direct;
}

/* Forgets the message that was left to Python. */
static void direct_drop(struct direct *direct) { mail_drop(&direct->calls, &direct->mail); }

static void direct_free(struct direct *direct) {
    direct_drop(direct);
    free(direct->scratch.bytes);
    free(direct);
}

/* The message that was left to Python. */
static struct mail *direct_mail(struct direct *direct) { return &direct->mail; }

/* The digest that the header of the expected answer states; NULL where it is another. */
static const uint8_t *stated_digest(struct direct *direct, struct answer *answer) {
    const uint8_t *header = mail_part(&direct->calls, &direct->mail, 0);
    size_t size = mail_size(&direct->calls, &direct->mail, 0), before = answer->prefix_size + HASH_BYTES + 1;
    if (size < before + answer->suffix_size || memcmp(header, answer->prefix, answer->prefix_size)) return NULL;
    if (header[before - 1] != 1) return NULL; /* the key of the microseconds */
    size_t left = size - before, length = read_uint(header + before, left, &answer->compute_us);
    if (!length || left - length != answer->suffix_size) return NULL;
    return memcmp(header + before + length, answer->suffix, answer->suffix_size) ? NULL : header + answer->prefix_size;
}

/* Whether the message is the expected answer, and right; then its rows are merged. */
static int settle(struct direct *direct, struct answer *answer) {
    size_t count = answer->num_rows * answer->num_outputs, rows_size = count * sizeof(uint32_t);
    const struct calls *calls = &direct->calls;
    struct mail *mail = &direct->mail;
    int64_t started = now_ns();
    if (mail->num_parts != ANSWER_PARTS || mail->more || mail_size(calls, mail, 1) != rows_size) return 0;
    const uint8_t *stated = stated_digest(direct, answer);
    uint32_t *rows = stated ? scratch_words(&direct->scratch, answer->bound_size, rows_size) : NULL;
    if (!rows) return 0;
    uint8_t digest[HASH_BYTES], difference = 0, *hashed = (uint8_t *)rows - answer->bound_size;
    memcpy(hashed, answer->bound, answer->bound_size);
    memcpy(rows, mail_part(calls, mail, 1), rows_size);
    hash(calls, hashed, answer->bound_size + rows_size, digest);
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
    answer->num_bytes = mail_size(calls, mail, 0) + rows_size;
    return 1;
}

/* Sends a request without waiting; 0 where libzmq does not take it now, or there is no memory. Of a message whose
   first part was taken, libzmq takes every part, or the connection has ended. */
static int send_request(struct direct *direct, const struct continuation *then) {
    const struct calls *calls = &direct->calls;
    struct part parts[REQUEST_PARTS];
    const void *bytes[REQUEST_PARTS] = {then->header, then->share};
    size_t sizes[REQUEST_PARTS] = {then->header_size, then->num_elements * sizeof(uint32_t)};
    int made = 0, sent = 0;
    while (made < REQUEST_PARTS && !calls->message_init_size(parts[made].message, sizes[made])) {
        memcpy(calls->message_data(parts[made].message), bytes[made], sizes[made]);
        made++;
    }
    while (made == REQUEST_PARTS && sent < made) {
        int flags = calls->do_not_wait | (sent + 1 < made ? calls->send_more : 0);
        if (calls->message_send(parts[sent].message, then->socket, flags) < 0) break;
        sent++;
    }
    for (int i = sent; i < made; i++) calls->message_close(parts[i].message);
    return sent == REQUEST_PARTS;
}

/* Layers go on with the sums, and what they want next is sent. Where they come to anything else, nothing is sent:
   `reached` and `code` say to what. */
static void go_on(struct direct *direct, const int32_t *sums, struct continuation *then) {
    const struct calls *calls = &direct->calls;
    int64_t started = now_ns();
    then->is_shared = then->is_sent = 0;
    then->share_ns = then->send_ns = 0;
    then->reached = then->index;
    then->code = calls->layer(calls->level, calls->team, then->run, then->index, then->cached, then->unit, sums);
    if (then->code == calls->layer_done && then->next_index != then->index) {
        then->reached = then->next_index;
        then->code = calls->layer(calls->level, calls->team, then->run, then->next_index, then->next_cached, 0, NULL);
    }
    int64_t gone = now_ns();
    then->layers_ns = gone - started;
    if (then->reached != then->next_index || then->code != then->next_unit) return;
    calls->share(calls->level, then->rows, then->pads, then->num_elements, then->share);
    then->is_shared = 1;
    int64_t shared = now_ns();
    then->share_ns = shared - gone;
    then->is_sent = send_request(direct, then);
    then->send_ns = now_ns() - shared;
}

/* Waits for a message. DIRECT_MERGED: it was the answer, and `sums` are exact; `then` (or NULL) says how far the rows
   have gone on with them. DIRECT_MESSAGE: it is another, or wrong; its first parts are kept until the next call.
   DIRECT_NEWS: a watched descriptor became readable first. DIRECT_NOTHING: the time is over, or a signal came. */
static int direct_wait(struct direct *direct, const struct way *way, struct answer *answer,
                       struct continuation *then) {
    struct pollfd polled[1 + MAX_WATCHED] = {{.fd = way->descriptor, .events = POLLIN}};
    int64_t started = now_ns();
    for (int i = 0; i < way->num_watched; i++)
        polled[1 + i] = (struct pollfd){.fd = way->watched[i], .events = POLLIN};
    enum waited waited = wait_message(&direct->calls, &direct->mail, way->socket, ANSWER_PARTS, polled,
                                      1 + way->num_watched, started + answer->timeout_ns);
    answer->waited_ns = now_ns() - started;
    if (waited != WAITED_MESSAGE) return waited == WAITED_NEWS ? DIRECT_NEWS : DIRECT_NOTHING;
    if (!settle(direct, answer)) return DIRECT_MESSAGE;
    direct_drop(direct);
    if (then) go_on(direct, answer->sums, then);
    return DIRECT_MERGED;
}
