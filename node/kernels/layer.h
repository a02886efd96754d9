/* One decoder layer, from its hidden states to its hidden states, in one call as long as its weights are here.

   It is made of the same row functions as the kernels that do one step each, in the same order, so it gives the same
   bits. Where the weights of a unit are not here, it stops with the rows that the unit is to multiply, and goes on when
   it is called again with the sums. */
#ifndef KEKAHYDE_LAYER_H
#define KEKAHYDE_LAYER_H

#include <time.h>

#include "levels.h"
#include "team.h"

enum { UNIT_QKV, UNIT_O, UNIT_GATE_UP, UNIT_DOWN, NUM_UNITS };
/* What `kernel_layer` returns beside the index of a unit whose sums are wanted. */
enum { LAYER_DONE = NUM_UNITS, LAYER_NOT_FINITE = -1, LAYER_NO_MEMORY = -2 };

struct layer_unit {
    const int8_t *weights; /* [num_outputs][num_inputs]; NULL: its sums come from elsewhere */
    const float *scales;   /* [num_outputs] */
    const float *bias;     /* [num_outputs], or NULL */
    double max_row_norm;
    size_t num_outputs, num_inputs;
};

struct layer {
    struct layer_unit units[4];
    const float *attention_norm, *mlp_norm;   /* [D], or NULL: the rows are not normed before */
    const float *attention_after, *mlp_after; /* [D], or NULL: what is added is not normed */
    const float *q_norm, *k_norm;             /* NULL: heads are not normed */
    size_t q_norm_size, k_norm_size;          /* of one head, or of all of them */
    int64_t window;                           /* 0: none */
    int rotation;                             /* index of cos and sin; -1: none */
};

/* Rows [start, stop) of a pass belong to one sequence. */
struct layer_block {
    size_t start, stop;
    const uint64_t *keys, *values; /* by layer, the address of [G][slots][d] */
    size_t stride;                 /* floats from one group to the next */
};

struct layer_run {
    const struct layer *layers;
    size_t num_rows, hidden_size, num_heads, num_groups, head_size, num_blocks;
    double epsilon;
    float scale, softcap, residual_multiplier; /* softcap 0: none */
    int activation;
    float *hidden; /* [T][D] */
    const float *cos[4], *sin[4]; /* [T][half] of each rotation */
    size_t half[4];
    const struct layer_block *blocks;
    const int64_t *positions; /* [T] */
    int16_t *rows;            /* [T][largest K] */
    float *row_scales;        /* [T] */
    int32_t *sums;            /* [T][largest N] */
    float *floats;            /* [T][largest N] */
    float *mixed;             /* [T][H * d] */
    float *normed;            /* [T][(H + G) * d] */
    uint64_t linear_ns;       /* spent in linear layers here */
    size_t bad_row;           /* the first row that is not finite */
};

/* A step of a layer for a range of rows. */
struct row_step {
    struct layer_run *run;
    const struct level *level;
    const struct layer *layer;
    int unit;
    const int32_t *sums;
    _Atomic size_t bad_row;
    _Atomic int no_memory;
    size_t layer_index, max_slots;
};

/* Floats of a row function's workspace: freed by the caller; NULL where there is no memory. */
static float *row_workspace(struct row_step *step, size_t count)
{
    float *workspace = malloc(count * sizeof *workspace + VECTOR_BYTES);
    if (workspace == NULL)
        atomic_store(&step->no_memory, 1);
    return workspace;
}

/* The rows that a unit multiplies, rounded. */
static void round_rows(void *context, size_t start, size_t stop)
{
    struct row_step *step = context;
    struct layer_run *run = step->run;
    const struct wide_kernels *wide = step->level->wide;
    const struct layer_unit *unit = &step->layer->units[step->unit];
    const float *gain = step->unit == UNIT_QKV       ? step->layer->attention_norm
                        : step->unit == UNIT_GATE_UP ? step->layer->mlp_norm
                                                     : NULL;
    size_t count = unit->num_inputs;
    float *workspace = row_workspace(step, count);
    for (size_t t = start; workspace != NULL && t < stop; t++) {
        const float *row = step->unit == UNIT_O ? run->mixed + t * count : run->hidden + t * run->hidden_size;
        if (step->unit == UNIT_DOWN) {
            const float *gate = run->floats + 2 * t * count;
            wide->gate_row(gate, gate + count, count, (enum activation)run->activation, workspace);
            row = workspace;
        } else if (gain != NULL) {
            wide->norm_row(row, gain, count, run->epsilon, workspace);
            row = workspace;
        }
        if (!wide->quantize_row(row, count, unit->max_row_norm, run->rows + t * count, run->row_scales + t)) {
            size_t known = atomic_load(&step->bad_row);
            while (t < known && !atomic_compare_exchange_weak(&step->bad_row, &known, t))
                ;
            break;
        }
    }
    free(workspace);
}

/* Heads of a row [num_heads * d] normed, each or all together. */
static void norm_heads(const struct row_step *step, const float *heads, size_t count, const float *gain, size_t size,
                       float *out)
{
    for (size_t i = 0; i < count; i += size)
        step->level->wide->norm_row(heads + i, gain, size, step->run->epsilon, out + i);
}

static void rotate_heads(const struct row_step *step, float *heads, size_t num_heads, size_t t)
{
    const struct layer_run *run = step->run;
    int rotation = step->layer->rotation;
    size_t half = run->half[rotation];
    for (size_t h = 0; h < num_heads; h++)
        step->level->wide->rope_head(heads + h * run->head_size, run->cos[rotation] + t * half,
                                     run->sin[rotation] + t * half, half);
}

static const struct layer_block *block_of(const struct layer_run *run, size_t t)
{
    const struct layer_block *block = run->blocks;
    while (t >= block->stop)
        block++;
    return block;
}

/* Queries, keys and values of each row; keys and values go into the cache of its sequence. */
static void store_rows(void *context, size_t start, size_t stop)
{
    struct row_step *step = context;
    struct layer_run *run = step->run;
    const struct layer *layer = step->layer;
    const struct layer_unit *unit = &layer->units[UNIT_QKV];
    size_t d = run->head_size, q_count = run->num_heads * d, k_count = run->num_groups * d;
    for (size_t t = start; t < stop; t++) {
        float *heads = run->floats + t * unit->num_outputs, *queries = heads, *keys = heads + q_count;
        const float *values = keys + k_count;
        step->level->wide->dequantize_row(step->sums + t * unit->num_outputs, run->row_scales[t], unit->scales,
                                          unit->bias, unit->num_outputs, heads);
        if (layer->q_norm != NULL) {
            queries = run->normed + t * (q_count + k_count);
            norm_heads(step, heads, q_count, layer->q_norm, layer->q_norm_size, queries);
        }
        if (layer->k_norm != NULL) {
            float *normed = run->normed + t * (q_count + k_count) + q_count;
            norm_heads(step, keys, k_count, layer->k_norm, layer->k_norm_size, normed);
            keys = normed;
        }
        if (layer->rotation >= 0) {
            rotate_heads(step, queries, run->num_heads, t);
            rotate_heads(step, keys, run->num_groups, t);
        }
        const struct layer_block *block = block_of(run, t);
        float *kept_keys = (float *)(uintptr_t)block->keys[step->layer_index] + (size_t)run->positions[t] * d;
        float *kept_values = (float *)(uintptr_t)block->values[step->layer_index] + (size_t)run->positions[t] * d;
        for (size_t g = 0; g < run->num_groups; g++) {
            memcpy(kept_keys + g * block->stride, keys + g * d, d * sizeof *keys);
            memcpy(kept_values + g * block->stride, values + g * d, d * sizeof *values);
        }
    }
}

/* Work items [start, stop), item = t * G + g: one row, one group of heads. */
static void attend_rows(void *context, size_t start, size_t stop)
{
    struct row_step *step = context;
    struct layer_run *run = step->run;
    const struct layer *layer = step->layer;
    size_t d = run->head_size, q_count = run->num_heads * d, per_group = run->num_heads / run->num_groups;
    size_t stride = (step->max_slots + ROW_FLOATS - 1) / ROW_FLOATS * ROW_FLOATS;
    float *workspace = row_workspace(step, per_group * stride);
    for (size_t item = start; workspace != NULL && item < stop; item++) {
        size_t t = item / run->num_groups, g = item % run->num_groups;
        const struct layer_block *block = block_of(run, t);
        const float *queries = layer->q_norm != NULL ? run->normed + t * (q_count + run->num_groups * d)
                                                     : run->floats + t * layer->units[UNIT_QKV].num_outputs;
        int64_t past = run->positions[t] + 1;
        size_t first = layer->window > 0 && past > layer->window ? (size_t)(past - layer->window) : 0;
        size_t offset = g * block->stride + first * d;
        struct slots slots = {(const float *)(uintptr_t)block->keys[step->layer_index] + offset,
                              (const float *)(uintptr_t)block->values[step->layer_index] + offset,
                              (size_t)past - first, d};
        step->level->wide->attend(&slots, queries + g * per_group * d, per_group, run->scale, run->softcap, workspace,
                                  stride, run->mixed + item * per_group * d);
    }
    free(workspace);
}

/* The output of attention or MLP, added to the hidden states. */
static void add_rows(void *context, size_t start, size_t stop)
{
    struct row_step *step = context;
    struct layer_run *run = step->run;
    const struct layer_unit *unit = &step->layer->units[step->unit];
    const float *gain = step->unit == UNIT_O ? step->layer->attention_after : step->layer->mlp_after;
    size_t count = unit->num_outputs;
    float *workspace = row_workspace(step, count);
    for (size_t t = start; workspace != NULL && t < stop; t++) {
        float *hidden = run->hidden + t * count, *part = run->floats + t * count;
        step->level->wide->dequantize_row(step->sums + t * count, run->row_scales[t], unit->scales, unit->bias, count,
                                          part);
        if (gain != NULL) {
            step->level->wide->norm_row(part, gain, count, run->epsilon, workspace);
            memcpy(part, workspace, count * sizeof *part);
        }
        for (size_t i = 0; run->residual_multiplier != 1.0f && i < count; i++)
            part[i] *= run->residual_multiplier;
        for (size_t i = 0; i < count; i++)
            hidden[i] += part[i];
    }
    free(workspace);
}

static void widen_gates(void *context, size_t start, size_t stop)
{
    struct row_step *step = context;
    const struct layer_unit *unit = &step->layer->units[UNIT_GATE_UP];
    for (size_t t = start; t < stop; t++)
        step->level->wide->dequantize_row(step->sums + t * unit->num_outputs, step->run->row_scales[t], unit->scales,
                                          unit->bias, unit->num_outputs, step->run->floats + t * unit->num_outputs);
}

enum { OPERATIONS_AN_ELEMENT = 4 }; /* of a row function, beside a multiply-add of a linear layer */

/* What follows the sums of a unit, up to the rows of the next one. */
static void use_sums(struct row_step *step, struct team *team)
{
    struct layer_run *run = step->run;
    size_t outputs = step->layer->units[step->unit].num_outputs;
    size_t operations = OPERATIONS_AN_ELEMENT * run->num_rows * outputs;
    if (step->unit == UNIT_QKV) {
        size_t items = run->num_rows * run->num_groups;
        team_run(team, store_rows, step, run->num_rows, operations);
        step->max_slots = 0;
        for (size_t t = 0; t < run->num_rows; t++) {
            size_t past = (size_t)run->positions[t] + 1;
            step->max_slots = past > step->max_slots ? past : step->max_slots;
        }
        if (step->layer->window > 0)
            step->max_slots = min_size(step->max_slots, (size_t)step->layer->window);
        team_run(team, attend_rows, step, items,
                 2 * run->num_rows * step->max_slots * run->num_heads * run->head_size);
    } else if (step->unit == UNIT_GATE_UP) {
        team_run(team, widen_gates, step, run->num_rows, operations);
    } else {
        team_run(team, add_rows, step, run->num_rows, operations);
    }
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
