/* The driver of the linear tiles: blocks for the caches, limbs put together again, reduction mod p. */
#ifndef KEKAHYDE_LINEAR_H
#define KEKAHYDE_LINEAR_H

#include "limbs.h"
#include "tile.h"

/* Implementation constants, measured with scripts/bench kernels. */
enum {
    STRETCH_INPUTS = 4096, /* inputs of a block where rows are many: the limbs of a tile stay in the L1 cache */
    PANEL_OUTPUTS = 32,    /* weight rows of a block: 32 * STRETCH_INPUTS bytes stay in the L2 cache */
    GROUP_LIMBS = 64,      /* limb rows whose sums are kept at a time: the sums take 16 KiB */
    STREAMING_LIMBS = 4    /* up to so many limb rows each weight is read once, in order, at memory speed */
};

struct linear_job {
    const struct linear_level *level;
    enum row_kind kind;
    const int8_t *weights; /* [N][num_inputs] */
    size_t num_inputs;
    size_t num_outputs; /* N: stride of out */
    size_t output_start, output_stop;
    struct limbs limbs;
    uint32_t *out; /* [T][N]: canonical residues, or int32 in two's complement */
};

static inline size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

/* What a tile fetches ahead: where each weight is read once, the next rows in the order of memory; in a panel its
   next rows, once; otherwise nothing new. */
static void aim_ahead(const struct linear_job *job, struct tile *tile, size_t output, size_t input, int streaming,
                      int first_limbs)
{
    uintptr_t next = (uintptr_t)job->weights + (output + TILE_OUTPUTS) * job->num_inputs;
    tile->ahead = streaming ? next + TILE_OUTPUTS * input : first_limbs ? next + input : (uintptr_t)tile->limbs;
    tile->ahead_row = streaming ? VECTOR_BYTES : first_limbs ? job->num_inputs : 0;
    tile->ahead_step = streaming ? TILE_OUTPUTS : first_limbs ? 1 : 0;
}

/* A stretch of inputs for a panel of weight rows and a group of limb rows: adds to sums [outputs][num_limbs]. */
static void panel_stretch(const struct linear_job *job, size_t output, size_t num_outputs, size_t limb,
                          size_t num_limbs, size_t input, size_t length, int64_t *sums)
{
    const struct linear_level *level = job->level;
    int64_t edge[TILE_OUTPUTS * TILE_LIMBS];
    struct tile tile = {.limb_stride_bytes = job->limbs.stride_bytes, .length = length};
    for (size_t j = 0; j < num_limbs; j += level->max_limbs) {
        size_t count = min_size(level->max_limbs, num_limbs - j);
        tile.limbs = job->limbs.base + (limb + j) * job->limbs.stride_bytes + input * (level->limb_bits / 8);
        for (size_t n = 0; n < num_outputs; n += TILE_OUTPUTS) {
            size_t rows = min_size(TILE_OUTPUTS, num_outputs - n);
            for (size_t r = 0; r < TILE_OUTPUTS; r++)
                tile.weights[r] = job->weights + (output + n + min_size(r, rows - 1)) * job->num_inputs + input;
            aim_ahead(job, &tile, output + n, input, num_outputs <= TILE_OUTPUTS, limb + j == 0);
            tile.sums = rows == TILE_OUTPUTS ? sums + n * num_limbs + j : edge;
            tile.sums_stride = rows == TILE_OUTPUTS ? num_limbs : TILE_LIMBS;
            if (rows < TILE_OUTPUTS)
                memset(edge, 0, sizeof edge);
            level->tiles[count - 1](&tile);
            for (size_t r = 0; rows < TILE_OUTPUTS && r < rows; r++)
                for (size_t i = 0; i < count; i++)
                    sums[(n + r) * num_limbs + j + i] += edge[r * TILE_LIMBS + i];
        }
    }
}

/* Sums of one row's limbs, [outputs][stride], -> its results. Sums are below 2^38, shifts at most 24: no overflow. */
ALWAYS_INLINE void recombine(const int64_t *sums, size_t stride, size_t num_outputs, uint64_t correction, int count,
                             int bits, enum row_kind kind, uint32_t *out)
{
    for (size_t n = 0; n < num_outputs; n++) {
        uint64_t total = 0 - correction;
        for (int j = 0; j < count; j++)
            total += (uint64_t)sums[n * stride + (size_t)j] << (bits * j);
        out[n] = kind == ROWS_A12 ? (uint32_t)total : signed_residue((int64_t)total);
    }
}

/* The same with every count a constant: half the time of a small layer goes here otherwise. */
static void recombine_row(const struct linear_job *job, const int64_t *sums, size_t stride, size_t num_outputs,
                          size_t row, uint32_t *out)
{
    uint64_t correction = (uint64_t)(job->limbs.row_sums[row] * job->level->weight_offset);
    if (job->kind == ROWS_A12 && job->limbs.bits == 8)
        recombine(sums, stride, num_outputs, correction, 2, 8, ROWS_A12, out);
    else if (job->kind == ROWS_A12)
        recombine(sums, stride, num_outputs, correction, 1, 16, ROWS_A12, out);
    else if (job->limbs.bits == 8)
        recombine(sums, stride, num_outputs, correction, 4, 8, ROWS_FIELD, out);
    else
        recombine(sums, stride, num_outputs, correction, 2, 16, ROWS_FIELD, out);
}

/* All inputs for one panel and one group of rows: fills out[row ..][output ..]. */
static void panel_group(const struct linear_job *job, size_t output, size_t num_outputs, size_t row,
                        size_t num_rows, size_t stretch)
{
    int64_t sums[PANEL_OUTPUTS * GROUP_LIMBS];
    size_t per_row = job->limbs.per_row, num_limbs = num_rows * per_row;
    memset(sums, 0, num_outputs * num_limbs * sizeof *sums);
    for (size_t input = 0; input < job->num_inputs; input += stretch)
        panel_stretch(job, output, num_outputs, row * per_row, num_limbs, input,
                      min_size(stretch, job->num_inputs - input), sums);
    for (size_t t = 0; t < num_rows; t++)
        recombine_row(job, sums + t * per_row, num_limbs, num_outputs, row + t,
                      job->out + (row + t) * job->num_outputs + output);
}

static void run_linear(const struct linear_job *job)
{
    size_t num_limbs = job->limbs.num_rows * job->limbs.per_row;
    int streaming = num_limbs <= STREAMING_LIMBS;
    size_t panel = streaming ? TILE_OUTPUTS : PANEL_OUTPUTS;
    size_t stretch = min_size(job->level->max_length, streaming ? SIZE_MAX : STRETCH_INPUTS);
    size_t group = GROUP_LIMBS / job->limbs.per_row;
    for (size_t output = job->output_start; output < job->output_stop; output += panel)
        for (size_t row = 0; row < job->limbs.num_rows; row += group)
            panel_group(job, output, min_size(panel, job->output_stop - output), row,
                        min_size(group, job->limbs.num_rows - row), stretch);
}

#endif
