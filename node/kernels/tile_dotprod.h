/* Linear tiles for 64-bit ARM with the dot-product extension (2018 on; every Apple M): sdot multiplies signed bytes, so
   limbs are 8 bits wide and weights go in as they are.

   Run once under qemu-user, as tile_neon.h was; not on ARM itself. */
#include <arm_neon.h>

#include "tile.h"

#if defined(__ARM_FEATURE_DOTPROD)
#define TARGET_DOTPROD
#else
#define TARGET_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

TARGET_DOTPROD ALWAYS_INLINE void step_dotprod(const struct tile *tile, int num_limbs, size_t k, size_t left,
                                               int32x4_t sums[TILE_OUTPUTS][TILE_LIMBS])
{
    int8x16_t limbs[TILE_LIMBS];
    for (int j = 0; j < num_limbs; j++)
        limbs[j] = vld1q_s8((const int8_t *)(tile->limbs + (size_t)j * tile->limb_stride_bytes + k));
    for (int r = 0; r < TILE_OUTPUTS; r++) {
        int8x16_t weights = weights_neon(tile->weights[r] + k, left);
        for (int j = 0; j < num_limbs; j++)
            sums[r][j] = vdotq_s32(sums[r][j], weights, limbs[j]);
    }
}

TARGET_DOTPROD ALWAYS_INLINE void tile_dotprod(const struct tile *tile, int num_limbs)
{
    int32x4_t sums[TILE_OUTPUTS][TILE_LIMBS];
    size_t k = 0;
    for (int r = 0; r < TILE_OUTPUTS; r++)
        for (int j = 0; j < num_limbs; j++)
            sums[r][j] = vdupq_n_s32(0);
    for (; k + 16 <= tile->length; k += 16) {
        if (k % 64 == 0)
            for (size_t r = 0; r < TILE_OUTPUTS; r++)
                FETCH_AHEAD(tile, r, k);
        step_dotprod(tile, num_limbs, k, 16, sums);
    }
    if (k < tile->length)
        step_dotprod(tile, num_limbs, k, tile->length - k, sums);
    for (int r = 0; r < TILE_OUTPUTS; r++)
        for (int j = 0; j < num_limbs; j++)
            tile->sums[(size_t)r * tile->sums_stride + (size_t)j] += vaddlvq_s32(sums[r][j]);
}

DEFINE_TILE(TARGET_DOTPROD, tile_dotprod, 1)
DEFINE_TILE(TARGET_DOTPROD, tile_dotprod, 2)
DEFINE_TILE(TARGET_DOTPROD, tile_dotprod, 3)
DEFINE_TILE(TARGET_DOTPROD, tile_dotprod, 4)

/* The total, and so every lane: 65536 * 128 * 128 = 2^30. */
static const struct linear_level linear_dotprod = {
    8, 0, 65536, 4, {tile_dotprod_1, tile_dotprod_2, tile_dotprod_3, tile_dotprod_4}};
