/* The instruction-set levels of this build, slowest first, and which of them the machine at hand can run.

   Level 0 is plain C. A level is chosen once, by the caller, and passed as an index to every kernel. */
#ifndef KEKAHYDE_LEVELS_H
#define KEKAHYDE_LEVELS_H

#include "linear.h"

/* Bytes ahead of the weights in use that are fetched; see scripts/bench kernels. */
#define PREFETCH_BYTES 1536
/* Interface.SCALE_MARGIN: 1 + 2^-10. */
#define SCALE_MARGIN 1.0009765625

enum { ROW_FLOATS = 16 }; /* rows of attention weights have room for whole groups of lanes */

enum activation { ACTIVATION_SILU, ACTIVATION_GELU_TANH }; /* interface.ACTIVATIONS, in this order */

struct slots {
    const float *keys, *values; /* [count][head_size]: the slots a row attends to */
    size_t count, head_size;
};

struct wide_kernels {
    void (*share)(const int16_t *, const uint32_t *, size_t, uint32_t *);
    void (*merge)(const uint32_t *, const uint32_t *, size_t, int32_t *);
    void (*centre)(const uint32_t *, size_t, int32_t *);
    int (*all_canonical)(const uint32_t *, size_t);
    void (*field_dot)(const uint32_t *, const uint32_t *, size_t, size_t, size_t, uint32_t *);
    void (*field_combine)(const uint32_t *, const uint32_t *, size_t, size_t, size_t, uint32_t *);
    void (*field_project)(const uint32_t *, const int8_t *, size_t, size_t, size_t, size_t, size_t, uint32_t *);
    int (*quantize_row)(const float *, size_t, double, int16_t *, float *);
    void (*norm_row)(const float *, const float *, size_t, double, float *);
    void (*gate_row)(const float *, const float *, size_t, enum activation, float *);
    void (*softcap_row)(const float *, size_t, float, float *);
    void (*dequantize_row)(const int32_t *, float, const float *, const float *, size_t, float *);
    void (*rope_head)(float *, const float *, const float *, size_t);
    void (*attend)(const struct slots *, const float *, size_t, float, float, float *, size_t, float *);
    uint64_t (*read_sum)(const uint64_t *, size_t);
};

#include "tile_generic.h"
#define LEVEL(name) name##_generic
#define TARGET
#define VECTOR 16
#include "wide.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_X86 1
#include "tile_avx2.h"
#include "tile_avx512.h"
#define LEVEL(name) name##_avx2
#define TARGET __attribute__((target("avx2")))
#define VECTOR 32
#include "wide.h"
#define LEVEL(name) name##_avx512
#define TARGET TARGET_AVX512
#define VECTOR 64
#include "wide.h"
#elif defined(__aarch64__)
#define HAVE_NEON 1
#include "tile_neon.h"
#if defined(__ARM_FEATURE_DOTPROD) || (defined(__linux__) && defined(__GNUC__) && !defined(__clang__))
#define HAVE_DOTPROD 1
#include "tile_dotprod.h"
#endif
#if defined(__linux__)
#include <sys/auxv.h> /* getauxval */
#endif
#endif

struct level {
    const char *name;
    const struct linear_level *linear;
    const struct wide_kernels *wide;
};

static const struct level LEVELS[] = {
    {"c-generic", &linear_generic, &wide_generic},
#if defined(HAVE_X86)
    {"c-avx2", &linear_avx2, &wide_avx2},
    {"c-avx512", &linear_avx512, &wide_avx512},
#elif defined(HAVE_NEON)
    {"c-neon", &linear_neon, &wide_generic}, /* 16-byte vectors are NEON's own width */
#if defined(HAVE_DOTPROD)
    {"c-neon-dot", &linear_dotprod, &wide_generic},
#endif
#endif
};

enum { NUM_LEVELS = sizeof LEVELS / sizeof *LEVELS };

static int level_runs_here(int level)
{
#if defined(HAVE_X86)
    __builtin_cpu_init();
    if (level == 1)
        return __builtin_cpu_supports("avx2") != 0;
    if (level == 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni");
#elif defined(HAVE_DOTPROD) && defined(__linux__)
    if (level == 2)
        return (getauxval(AT_HWCAP) & (1ul << 20)) != 0; /* HWCAP_ASIMDDP of the Linux ABI */
#endif
    return level >= 0 && level < NUM_LEVELS;
}

#endif
