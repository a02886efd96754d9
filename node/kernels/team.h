/* Threads that share the chunks of one task at a time.

   The caller takes chunks too, and waits only for chunks that a helper has begun: a helper that the system holds up
   costs nothing, and without helpers the caller does it all. A helper without work listens for a moment, because the
   next task of a layer comes within microseconds, and then sleeps.

   `left` holds the number of the task in its upper half and the chunks that nobody has taken in its lower half. Who
   takes a chunk by an exchange of the whole word knows that the task is still that one; and the task's fields stay as
   they are until that chunk is counted as done. */
#ifndef KEKAHYDE_TEAM_H
#define KEKAHYDE_TEAM_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum {
    LISTEN_TURNS = 4000,     /* looks of an idle helper before it sleeps: some 30 us */
    PATIENT_TURNS = 2000,    /* looks of the caller at chunks that are being computed before it yields */
    CHUNKS_A_THREAD = 4      /* so that whoever is faster does more */
};
/* Tasks with fewer multiply-adds are done by the caller alone, and do not wake helpers that sleep. */
#define ALONE_OPERATIONS (1u << 17)
#define WAKING_OPERATIONS (1u << 20)

typedef void (*team_task)(void *context, size_t start, size_t stop);

struct team {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t *helpers;
    size_t num_helpers;
    _Atomic uint64_t left;
    _Atomic size_t done;
    _Atomic int taken;  /* whether a caller uses the team */
    _Atomic int asleep; /* helpers that sleep, or are about to */
    int ends;
    team_task task;
    void *context;
    size_t count, num_chunks;
};

static inline void team_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Take and do one chunk; 0 where none is left. */
static int team_do_one(struct team *team)
{
    uint64_t left = atomic_load(&team->left);
    do {
        if ((uint32_t)left == 0)
            return 0;
    } while (!atomic_compare_exchange_weak(&team->left, &left, left - 1));
    size_t chunk = (size_t)(uint32_t)left - 1, chunks = team->num_chunks;
    team->task(team->context, team->count * chunk / chunks, team->count * (chunk + 1) / chunks);
    atomic_fetch_add(&team->done, 1);
    return 1;
}

static void *team_help(void *argument)
{
    struct team *team = argument;
    for (;;) {
        for (int turns = LISTEN_TURNS; turns > 0; turns--) {
            while (team_do_one(team))
                turns = LISTEN_TURNS;
            team_pause();
        }
        pthread_mutex_lock(&team->lock);
        atomic_fetch_add(&team->asleep, 1);
        while ((uint32_t)atomic_load(&team->left) == 0 && !team->ends)
            pthread_cond_wait(&team->wake, &team->lock);
        atomic_fetch_sub(&team->asleep, 1);
        int ends = team->ends;
        pthread_mutex_unlock(&team->lock);
        if (ends)
            return NULL;
    }
}

static void team_free(struct team *team)
{
    if (team == NULL)
        return;
    pthread_mutex_lock(&team->lock);
    team->ends = 1;
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->lock);
    for (size_t i = 0; i < team->num_helpers; i++)
        pthread_join(team->helpers[i], NULL);
    pthread_cond_destroy(&team->wake);
    pthread_mutex_destroy(&team->lock);
    free(team->helpers);
    free(team);
}

/* NULL where there is no memory; a helper that cannot be started is done without. */
static struct team *team_new(size_t num_helpers)
{
    struct team *team = calloc(1, sizeof *team);
    if (team == NULL || (team->helpers = calloc(num_helpers, sizeof *team->helpers)) == NULL) {
        free(team);
        return NULL;
    }
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->wake, NULL);
    while (team->num_helpers < num_helpers &&
           pthread_create(&team->helpers[team->num_helpers], NULL, team_help, team) == 0)
        team->num_helpers++;
    return team;
}

/* task(context, start, stop) for ranges that make up [0, count), by all threads if the work is large enough and nobody
   else has the team. A team of NULL is the caller alone. */
static void team_run(struct team *team, team_task task, void *context, size_t count, size_t num_operations)
{
    int free_team = 0;
    if (team == NULL || count < 2 || num_operations < ALONE_OPERATIONS ||
        !atomic_compare_exchange_strong(&team->taken, &free_team, 1)) {
        task(context, 0, count);
        return;
    }
    size_t chunks = CHUNKS_A_THREAD * (team->num_helpers + 1);
    chunks = chunks < count ? chunks : count;
    team->task = task;
    team->context = context;
    team->count = count;
    team->num_chunks = chunks;
    atomic_store(&team->done, 0);
    uint64_t number = (atomic_load(&team->left) >> 32) + 1;
    atomic_store(&team->left, number << 32 | chunks);
    if (num_operations >= WAKING_OPERATIONS && atomic_load(&team->asleep) > 0) {
        pthread_mutex_lock(&team->lock);
        pthread_cond_broadcast(&team->wake);
        pthread_mutex_unlock(&team->lock);
    }
    while (team_do_one(team))
        ;
    for (int turns = PATIENT_TURNS; atomic_load(&team->done) < chunks;) {
        team_pause();
        if (turns-- <= 0)
            sched_yield();
    }
    atomic_store(&team->taken, 0);
}

#endif
