/* The exported kernels: each takes the index of a level, as chosen once at start, and plain pointers.

   Arguments are checked in Python (checks.py, native.py). Functions that can fail return an outcome: 0 done,
   1 out of memory, 2 refused (a value out of range), or the number of rows done before one that was refused. */
#include <math.h>

#include "layer.h"

static int kernel_level_count(void) { return NUM_LEVELS; }

static const char *kernel_level_name(int level) { return LEVELS[level].name; }

static int kernel_level_runs_here(int level) { return level_runs_here(level); }

/* Helpers for large calls, beside the caller; NULL where there is no memory. */
static struct team *kernel_team_new(size_t num_helpers) { return team_new(num_helpers); }

static void kernel_team_free(struct team *team) { team_free(team); }

/* Panels of outputs [start, stop) of a linear layer. */
static void linear_panels(void *context, size_t start, size_t stop)
{
    struct linear_job job = *(const struct linear_job *)context;
    job.output_start = start * PANEL_OUTPUTS;
    job.output_stop = min_size(stop * PANEL_OUTPUTS, job.num_outputs);
    run_linear(&job);
}

static int linear(enum row_kind kind, int level, struct team *team, const int8_t *weights, const void *rows,
                  size_t num_outputs, size_t num_inputs, size_t num_rows, uint32_t *out)
{
    struct linear_job job = {.level = LEVELS[level].linear, .kind = kind, .weights = weights,
                             .num_inputs = num_inputs, .num_outputs = num_outputs, .out = out};
    enum outcome outcome = cut_limbs(&job.limbs, kind, job.level->limb_bits, rows, num_rows, num_inputs);
    if (outcome == OUTCOME_OK)
        team_run(team, linear_panels, &job, (num_outputs + PANEL_OUTPUTS - 1) / PANEL_OUTPUTS,
                 num_outputs * num_inputs * num_rows);
    free(job.limbs.allocation);
    return (int)outcome;
}

/* weights [N, K], rows [T, K] -> out [T, N]. */
static int kernel_linear_a12(int level, struct team *team, const int8_t *weights, const int16_t *rows,
                             size_t num_outputs, size_t num_inputs, size_t num_rows, int32_t *out)
{
    return linear(ROWS_A12, level, team, weights, rows, num_outputs, num_inputs, num_rows, (uint32_t *)out);
}

static int kernel_linear_field(int level, struct team *team, const int8_t *weights, const uint32_t *rows,
                               size_t num_outputs, size_t num_inputs, size_t num_rows, uint32_t *out)
{
    return linear(ROWS_FIELD, level, team, weights, rows, num_outputs, num_inputs, num_rows, out);
}

/* A layer, from the beginning (sums NULL, unit 0) or from the sums of a unit on. Returns LAYER_DONE, an error, or the
   unit whose sums are wanted next: its rows are in run->rows. */
static int kernel_layer(int level, struct team *team, struct layer_run *run, size_t layer, size_t cached, int unit,
                        const int32_t *sums)
{
    struct row_step step = {.run = run, .level = &LEVELS[level], .layer = run->layers + layer, .unit = unit,
                            .sums = sums, .layer_index = cached};
    atomic_init(&step.bad_row, SIZE_MAX);
    for (;;) {
        const struct layer_unit *at = &step.layer->units[step.unit];
        if (step.sums == NULL) {
            team_run(team, round_rows, &step, run->num_rows, OPERATIONS_AN_ELEMENT * run->num_rows * at->num_inputs);
            run->bad_row = atomic_load(&step.bad_row);
            if (run->bad_row != SIZE_MAX)
                return LAYER_NOT_FINITE;
            if (at->weights == NULL && !atomic_load(&step.no_memory))
                return step.unit;
            uint64_t started = now_ns();
            if (atomic_load(&step.no_memory) ||
                kernel_linear_a12(level, team, at->weights, run->rows, at->num_outputs, at->num_inputs, run->num_rows,
                                  run->sums) != OUTCOME_OK)
                return LAYER_NO_MEMORY;
            run->linear_ns += now_ns() - started;
            step.sums = run->sums;
        }
        use_sums(&step, team);
        if (atomic_load(&step.no_memory))
            return LAYER_NO_MEMORY;
        if (++step.unit == NUM_UNITS)
            return LAYER_DONE;
        step.sums = NULL;
    }
}

static void kernel_share(int level, const int16_t *rows, const uint32_t *pads, size_t count, uint32_t *out)
{
    LEVELS[level].wide->share(rows, pads, count, out);
}

static void kernel_merge(int level, const uint32_t *first, const uint32_t *second, size_t count, int32_t *out)
{
    LEVELS[level].wide->merge(first, second, count, out);
}

static void kernel_centre(int level, const uint32_t *elements, size_t count, int32_t *out)
{
    LEVELS[level].wide->centre(elements, count, out);
}

static int kernel_all_canonical(int level, const uint32_t *elements, size_t count)
{
    return LEVELS[level].wide->all_canonical(elements, count);
}

/* vectors [k, N], outputs [T, N], projections [k, K], inputs [T, K], k at most 8: whether every output is canonical and
   every dot product of the first two is that of the others. It computes all of them, whatever it finds. */
static int kernel_dots_agree(int level, const uint32_t *vectors, const uint32_t *outputs, const uint32_t *projections,
                             const uint32_t *inputs, size_t num_vectors, size_t num_rows, size_t num_outputs,
                             size_t num_inputs)
{
    int canonical = LEVELS[level].wide->all_canonical(outputs, num_rows * num_outputs);
    uint32_t left[8], right[8], difference = 0;
    for (size_t t = 0; t < num_rows; t++) {
        LEVELS[level].wide->field_dot(vectors, outputs + t * num_outputs, num_vectors, 1, num_outputs, left);
        LEVELS[level].wide->field_dot(projections, inputs + t * num_inputs, num_vectors, 1, num_inputs, right);
        for (size_t i = 0; i < num_vectors; i++)
            difference |= left[i] ^ right[i];
    }
    return canonical && difference == 0;
}

static void kernel_field_combine(int level, const uint32_t *coefficients, const uint32_t *rows, size_t num_vectors,
                                 size_t num_rows, size_t count, uint32_t *out)
{
    LEVELS[level].wide->field_combine(coefficients, rows, num_vectors, num_rows, count, out);
}

/* vectors [k, N], weights [N, K] -> columns [start, stop) of out [k, K]. */
static void kernel_field_project(int level, const uint32_t *vectors, const int8_t *weights, size_t num_vectors,
                                 size_t num_rows, size_t num_columns, size_t start, size_t stop, uint32_t *out)
{
    LEVELS[level].wide->field_project(vectors, weights, num_vectors, num_rows, num_columns, start, stop, out);
}

/* hidden [T, K] -> out [T, K], scales [T]; returns the rows done: T, or the first that is not finite. */
static size_t kernel_quantize(int level, int16_t *out, float *scales, size_t num_rows, size_t count,
                              double max_row_norm, const float *hidden)
{
    for (size_t t = 0; t < num_rows; t++)
        if (!LEVELS[level].wide->quantize_row(hidden + t * count, count, max_row_norm, out + t * count, scales + t))
            return t;
    return num_rows;
}

/* hidden [T, D], gain [D]; workspace [D]. */
static size_t kernel_norm_quantize(int level, int16_t *out, float *scales, size_t num_rows, size_t count,
                                   double max_row_norm, const float *hidden, float *workspace, const float *gain,
                                   double epsilon)
{
    for (size_t t = 0; t < num_rows; t++) {
        LEVELS[level].wide->norm_row(hidden + t * count, gain, count, epsilon, workspace);
        if (!LEVELS[level].wide->quantize_row(workspace, count, max_row_norm, out + t * count, scales + t))
            return t;
    }
    return num_rows;
}

/* gate_up [T, 2 * count]; workspace [count]. */
static size_t kernel_gated_quantize(int level, int16_t *out, float *scales, size_t num_rows, size_t count,
                                    double max_row_norm, const float *gate_up, float *workspace, int activation)
{
    for (size_t t = 0; t < num_rows; t++) {
        const float *gate = gate_up + 2 * t * count;
        LEVELS[level].wide->gate_row(gate, gate + count, count, (enum activation)activation, workspace);
        if (!LEVELS[level].wide->quantize_row(workspace, count, max_row_norm, out + t * count, scales + t))
            return t;
    }
    return num_rows;
}

/* rows [T, N] -> out [T, N]. */
static void kernel_softcap(int level, const float *rows, size_t num_rows, size_t count, float limit, float *out)
{
    for (size_t t = 0; t < num_rows; t++)
        LEVELS[level].wide->softcap_row(rows + t * count, count, limit, out + t * count);
}

static void kernel_rms_norm(int level, const float *hidden, const float *gain, size_t num_rows, size_t count,
                            double epsilon, float *out)
{
    for (size_t t = 0; t < num_rows; t++)
        LEVELS[level].wide->norm_row(hidden + t * count, gain, count, epsilon, out + t * count);
}

static void kernel_dequantize(int level, const int32_t *sums, const float *row_scales, const float *weight_scales,
                              const float *bias, size_t num_rows, size_t count, float *out)
{
    for (size_t t = 0; t < num_rows; t++)
        LEVELS[level].wide->dequantize_row(sums + t * count, row_scales[t], weight_scales, bias, count,
                                           out + t * count);
}

/* heads [T, H, d], row_stride floats from row to row; cos, sin [T, half], half at most d / 2. */
static void kernel_rope(int level, float *heads, size_t row_stride, const float *cos, const float *sin,
                        size_t num_rows, size_t num_heads, size_t head_size, size_t half)
{
    for (size_t t = 0; t < num_rows; t++)
        for (size_t h = 0; h < num_heads; h++)
            LEVELS[level].wide->rope_head(heads + t * row_stride + h * head_size, cos + t * half, sin + t * half,
                                          half);
}

/* Work items [start, stop), item = t * G + g: one row, one group of heads. Strides in floats; window 0 and softcap 0
   are none. */
static int kernel_attention(int level, const float *queries, const float *keys, const float *values,
                            const int64_t *positions, size_t num_groups, size_t heads_per_group, size_t head_size,
                            size_t query_stride, size_t key_stride, size_t value_stride, int64_t window, float scale,
                            float softcap, size_t max_slots, size_t start, size_t stop, float *out)
{
    size_t width = heads_per_group * head_size, stride = (max_slots + ROW_FLOATS - 1) / ROW_FLOATS * ROW_FLOATS;
    float *workspace = malloc(heads_per_group * stride * sizeof *workspace + VECTOR_BYTES);
    if (workspace == NULL)
        return OUTCOME_NO_MEMORY;
    for (size_t item = start; item < stop; item++) {
        size_t t = item / num_groups, g = item % num_groups;
        int64_t past = positions[t] + 1, first = window > 0 && past > window ? past - window : 0;
        struct slots slots = {keys + g * key_stride + (size_t)first * head_size,
                              values + g * value_stride + (size_t)first * head_size, (size_t)(past - first),
                              head_size};
        LEVELS[level].wide->attend(&slots, queries + t * query_stride + g * width, heads_per_group, scale, softcap,
                                   workspace, stride, out + item * width);
    }
    free(workspace);
    return OUTCOME_OK;
}

static uint64_t kernel_read_sum(int level, const uint64_t *words, size_t count)
{
    return LEVELS[level].wide->read_sum(words, count);
}
