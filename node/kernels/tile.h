/* What a linear micro-kernel is: dot products of a few weight rows with a few limb rows over one stretch of inputs. */
#ifndef KEKAHYDE_TILE_H
#define KEKAHYDE_TILE_H

#include <stddef.h>
#include <stdint.h>

/* Weight rows and limb rows of the largest tile: 16 sums stay in registers at every level. */
enum { TILE_OUTPUTS = 4, TILE_LIMBS = 4 };

struct tile {
    const int8_t *weights[TILE_OUTPUTS]; /* at the stretch's first input; rows that do not exist repeat the last */
    const char *limbs;                   /* first limb row, at the stretch's first input */
    size_t limb_stride_bytes;
    size_t length;                       /* inputs; limb rows are readable, and zero, up to whole vectors */
    int64_t *sums;                       /* [TILE_OUTPUTS][sums_stride]: added to */
    size_t sums_stride;
    uintptr_t ahead;                     /* weights to fetch meanwhile: ahead + r * ahead_row + k * ahead_step */
    size_t ahead_row, ahead_step;
};

typedef void (*tile_function)(const struct tile *tile);

/* One instruction-set level of the linear kernels. */
struct linear_level {
    size_t limb_bits;
    int weight_offset; /* the tile multiplies weight + offset; the driver subtracts offset * row_sum */
    size_t max_length; /* inputs for which no 32-bit lane can overflow, for any limbs and weights */
    size_t max_limbs;  /* limb rows a tile takes */
    tile_function tiles[TILE_LIMBS]; /* [limb rows - 1] */
};

/* Fetch into the L2 cache what comes after this tile: 64 bytes a weight row for 64 inputs at k. */
#define FETCH_AHEAD(tile, r, k) \
    __builtin_prefetch((const void *)((tile)->ahead + (r) * (tile)->ahead_row + (k) * (tile)->ahead_step), 0, 2)

/* Keep the loop bodies below free of per-level switches: constant trip counts, unrolled by the compiler. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Define NAME_1 .. for the number of limb rows, from a body whose last parameter is a constant. */
#define DEFINE_TILE(TARGET, BODY, LIMBS) \
    TARGET static void BODY##_##LIMBS(const struct tile *tile) { BODY(tile, LIMBS); }

#endif
