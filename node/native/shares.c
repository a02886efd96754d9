/* Shares of one connection, from the wait for them to their answers, in one call without Python's lock.

It answers only shares of the kinds that were described to it, from the one connection that was named: everything else
it leaves to Python, frames and all, which decides what it means. So nothing is answered here that would not be answered
there, and to the same bytes. */

#include "calls.h"

enum { MAX_KINDS = 1024, MAX_LISTENED = 64, SHARE_PARTS = 3, SESSION_BYTES = 16, WORD_BYTES = 8, OUTCOME_OK = 0 };

/* A slice of a unit and the number of rows: what stands behind the nonce is the same in the headers of all shares of
   one kind. */
struct share_kind {
    const uint8_t *rest;
    size_t rest_size, binding_size; /* so much of it belongs to the binding */
    const uint8_t *suffix;          /* of the result's header, behind the microseconds */
    size_t suffix_size;
    const int8_t *weights;          /* [N, K] */
    size_t num_rows, num_outputs, num_inputs;
};

/* What all headers have in common. */
struct share_forms {
    const uint8_t *begin, *middle; /* of a share: before its id, and between that and its session */
    size_t begin_size, middle_size;
    size_t binding_begins; /* so much of `middle` belongs to the binding */
    const uint8_t *domain; /* what is hashed before the binding */
    size_t domain_size;
    const uint8_t *answer_begin, *answer_middle; /* of a result: before its id, and between that and its digest */
    size_t answer_begin_size, answer_middle_size;
};

/* Whom to serve, and what came of it. */
struct visit {
    void *socket;
    int descriptor;                  /* of the socket */
    int listened[64], num_listened;  /* descriptors that end the visit, too: MAX_LISTENED at most */
    const uint8_t *route;
    size_t route_size;
    int64_t quiet_ns, limit_ns;      /* it ends after so long without a share, and after so long anyway */
    uint64_t num_answered, num_rows, received_bytes, sent_bytes;
    uint64_t macs;                   /* of shares that have at least `least_macs`, */
    int64_t computing_ns;            /* and how long these took */
    uint64_t least_macs;
    int64_t last_ns;                 /* when the last answer left, or was left, by the monotonic clock */
};

_Static_assert(sizeof((struct visit){0}.listened) == MAX_LISTENED * sizeof(int), "as many as are polled");

enum visited { SHARES_QUIET, SHARES_NEWS, SHARES_MESSAGE, SHARES_UNSENT };

struct shares {
    struct calls calls;
    struct share_forms forms;
    struct share_kind kinds[MAX_KINDS];
    int num_kinds, last; /* the kind that was answered last: units come in the same order in every token */
    struct mail mail;
    struct mail answer; /* its route, its header, its rows; none where it was sent */
    struct scratch scratch, words;
};

static struct shares *shares_new(const struct calls *calls, const struct share_forms *forms) {
    struct shares *shares = calloc(1, sizeof *shares);
    if (!shares) return NULL;
    shares->calls = *calls;
    shares->forms = *forms;
    return shares;
}

/* Forgets what was left to Python. */
static void shares_drop(struct shares *shares) {
    mail_drop(&shares->calls, &shares->mail);
    mail_drop(&shares->calls, &shares->answer);
}

static void shares_free(struct shares *shares) {
    shares_drop(shares);
    free(shares->scratch.bytes);
    free(shares->words.bytes);
    free(shares);
}

static void shares_forget(struct shares *shares) { shares->num_kinds = shares->last = 0; }

/* One more kind, whose memory stays until `shares_forget`; 0 where there is no room. */
static int shares_add(struct shares *shares, const struct share_kind *kind) {
    if (shares->num_kinds == MAX_KINDS) return 0;
    shares->kinds[shares->num_kinds++] = *kind;
    return 1;
}

/* The message that was left to Python. */
static struct mail *shares_mail(struct shares *shares) { return &shares->mail; }

static size_t part_size(const struct shares *shares, int number) {
    return mail_size(&shares->calls, &shares->mail, number);
}

static const void *part(struct shares *shares, int number) { return mail_part(&shares->calls, &shares->mail, number); }

/* The answer that was left to Python. */
static struct mail *shares_answer(struct shares *shares) { return &shares->answer; }

static int is_kind(const struct share_kind *kind, const uint8_t *rest, size_t size) {
    return kind->rest_size == size && !memcmp(kind->rest, rest, size);
}

/* The kind with this rest, looked for from the one that is most likely on; NULL where there is none. */
static const struct share_kind *find_kind(struct shares *shares, const uint8_t *rest, size_t size) {
    for (int i = 1; i <= shares->num_kinds; i++) {
        int at = (shares->last + i) % shares->num_kinds;
        if (is_kind(shares->kinds + at, rest, size)) {
            shares->last = at;
            return shares->kinds + at;
        }
    }
    return NULL;
}

/* Whether a number of 64 bits needs more than 32. */
static int is_long_word(const uint8_t *bytes) { return (bytes[0] | bytes[1] | bytes[2] | bytes[3]) != 0; }

/* The kind of the message, where it is a share of this connection whose frames have the right sizes. `bound`: where its
   binding begins in the header. */
static const struct share_kind *kind_of(struct shares *shares, const struct visit *visit, const uint8_t **bound) {
    const struct share_forms *forms = &shares->forms;
    struct mail *mail = &shares->mail;
    if (mail->num_parts != SHARE_PARTS || mail->more) return NULL;
    if (part_size(shares, 0) != visit->route_size) return NULL;
    if (memcmp(part(shares, 0), visit->route, visit->route_size)) return NULL;
    const uint8_t *header = part(shares, 1), *id = header + forms->begin_size;
    size_t size = part_size(shares, 1);
    size_t session = forms->begin_size + WORD_BYTES + forms->middle_size, nonce = session + SESSION_BYTES + 1;
    if (size < nonce + WORD_BYTES || memcmp(header, forms->begin, forms->begin_size)) return NULL;
    if (memcmp(id + WORD_BYTES, forms->middle, forms->middle_size)) return NULL;
    if (header[nonce - 1] != 0x1b || !is_long_word(id) || !is_long_word(header + nonce)) return NULL;
    const uint8_t *rest = header + nonce + WORD_BYTES;
    const struct share_kind *kind = find_kind(shares, rest, size - nonce - WORD_BYTES);
    if (!kind || part_size(shares, 2) != kind->num_rows * kind->num_inputs * sizeof(uint32_t)) return NULL;
    *bound = header + session - forms->binding_begins;
    return kind;
}

/* Computes the answer to a share; 0 where it cannot be computed, and Python is to say why. */
static int compute(struct shares *shares, struct visit *visit, const struct share_kind *kind, const uint8_t *bound) {
    const struct calls *calls = &shares->calls;
    const struct share_forms *forms = &shares->forms;
    const uint8_t *id = (const uint8_t *)part(shares, 1) + forms->begin_size;
    size_t inputs_size = kind->num_rows * kind->num_inputs * sizeof(uint32_t);
    size_t rows_size = kind->num_rows * kind->num_outputs * sizeof(uint32_t);
    size_t bound_size = forms->binding_begins + SESSION_BYTES + 1 + WORD_BYTES + kind->binding_size;
    size_t hashed_size = forms->domain_size + bound_size + rows_size;
    int64_t started = now_ns();
    uint32_t *inputs = scratch_words(&shares->words, 0, inputs_size); /* a frame may lie anywhere */
    uint32_t *rows = scratch_words(&shares->scratch, forms->domain_size + bound_size, rows_size);
    if (!inputs || !rows) return 0;
    memcpy(inputs, part(shares, 2), inputs_size);
    if (calls->linear_field(calls->level, calls->team, kind->weights, inputs, kind->num_outputs, kind->num_inputs,
                            kind->num_rows, rows) != OUTCOME_OK)
        return 0;
    uint8_t digest[HASH_BYTES], micros[5], *hashed = (uint8_t *)rows - bound_size - forms->domain_size;
    memcpy(hashed, forms->domain, forms->domain_size);
    memcpy(hashed + forms->domain_size, bound, bound_size);
    hash(calls, hashed, hashed_size, digest);
    int64_t computing_ns = now_ns() - started;
    uint64_t macs = (uint64_t)kind->num_rows * kind->num_outputs * kind->num_inputs;
    if (macs >= visit->least_macs) {
        visit->macs += macs;
        visit->computing_ns += computing_ns;
    }
    int64_t compute_us = (computing_ns + 500) / 1000;
    size_t micros_size = write_uint(micros, compute_us < UINT32_MAX ? (uint32_t)compute_us : UINT32_MAX);
    const struct { const void *bytes; size_t size; } pieces[] = {
        {forms->answer_begin, forms->answer_begin_size}, {id, WORD_BYTES},
        {forms->answer_middle, forms->answer_middle_size}, {digest, HASH_BYTES},
        {"\x01", 1}, {micros, micros_size}, {kind->suffix, kind->suffix_size},
    };
    size_t header_size = 0;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) header_size += pieces[i].size;
    const size_t sizes[SHARE_PARTS] = {visit->route_size, header_size, rows_size};
    for (int i = 0; i < SHARE_PARTS; i++) {
        if (calls->message_init_size(shares->answer.parts[i].message, sizes[i])) {
            mail_drop(calls, &shares->answer);
            return 0;
        }
        shares->answer.num_parts++;
    }
    memcpy(calls->message_data(shares->answer.parts[0].message), visit->route, visit->route_size);
    uint8_t *at = calls->message_data(shares->answer.parts[1].message);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; at += pieces[i++].size)
        memcpy(at, pieces[i].bytes, pieces[i].size);
    memcpy(calls->message_data(shares->answer.parts[2].message), rows, rows_size);
    return 1;
}

/* Sends the answer; 0 where libzmq does not take it now: then all its parts are left. */
static int send_answer(struct shares *shares, struct visit *visit) {
    const struct calls *calls = &shares->calls;
    for (int i = 0; i < SHARE_PARTS; i++) {
        int flags = calls->do_not_wait | (i + 1 < SHARE_PARTS ? calls->send_more : 0);
        size_t size = mail_size(calls, &shares->answer, i);
        if (calls->message_send(shares->answer.parts[i].message, visit->socket, flags) < 0) {
            if (i == 0) return 0;
            break; /* of a message whose first part was taken, libzmq takes every part, or the connection has ended */
        }
        if (i) visit->sent_bytes += size;
    }
    mail_drop(calls, &shares->answer);
    return 1;
}

/* Answers shares of a peer that asks for one after the other. SHARES_MESSAGE: something else came, whose first parts
   are kept until the next call. SHARES_UNSENT: an answer cannot be sent now, and is kept as long. SHARES_NEWS: another
   descriptor became readable, or the peer does not wait for its answers: what it wants not computed any more may be
   among what has come. SHARES_QUIET: the time is over, or a signal came. */
static int shares_serve(struct shares *shares, struct visit *visit) {
    struct pollfd polled[1 + MAX_LISTENED] = {{.fd = visit->descriptor, .events = POLLIN}};
    for (int i = 0; i < visit->num_listened; i++)
        polled[1 + i] = (struct pollfd){.fd = visit->listened[i], .events = POLLIN};
    int64_t limit = now_ns() + visit->limit_ns, until = now_ns() + visit->quiet_ns;
    visit->num_answered = visit->num_rows = visit->received_bytes = visit->sent_bytes = visit->macs = 0;
    visit->computing_ns = 0;
    shares_drop(shares);
    for (;;) {
        enum waited waited = wait_message(&shares->calls, &shares->mail, visit->socket, SHARE_PARTS, polled,
                                          1 + visit->num_listened, until < limit ? until : limit);
        if (waited != WAITED_MESSAGE) return waited == WAITED_NEWS ? SHARES_NEWS : SHARES_QUIET;
        const uint8_t *bound;
        const struct share_kind *kind = kind_of(shares, visit, &bound);
        if (!kind || !compute(shares, visit, kind, bound)) return SHARES_MESSAGE;
        visit->num_answered++;
        visit->num_rows += kind->num_rows;
        visit->received_bytes += part_size(shares, 1) + part_size(shares, 2);
        int is_sent = send_answer(shares, visit);
        visit->last_ns = now_ns();
        if (!is_sent) return SHARES_UNSENT;
        until = visit->last_ns + visit->quiet_ns;
        if (visit->last_ns >= limit) return SHARES_QUIET;
        if (has_message(&shares->calls, visit->socket)) return SHARES_NEWS;
        if (poll(polled + 1, (nfds_t)visit->num_listened, 0) > 0) return SHARES_NEWS;
    }
}
