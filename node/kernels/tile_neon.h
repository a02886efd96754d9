/* Linear tiles for 64-bit ARM: weights widened to 16 bits, smlal with 16-bit limbs.

   Run once under qemu-user (gcc 12 cross build): 6 042 sums in nine shapes, up to 65 536 inputs and at the largest
   values, were exact, and the float kernels gave the bits of the x86-64 build. Not run, and not timed, on ARM itself. */
#include <arm_neon.h>

#include "tile.h"

ALWAYS_INLINE int8x16_t weights_neon(const int8_t *weights, size_t left)
{
    int8_t padded[16] = {0};
    if (left >= 16)
        return vld1q_s8(weights);
    memcpy(padded, weights, left);
    return vld1q_s8(padded);
}

ALWAYS_INLINE void step_neon(const struct tile *tile, int num_limbs, size_t k, size_t left,
                             int32x4_t sums[TILE_OUTPUTS][2])
{
    for (int r = 0; r < TILE_OUTPUTS; r++) {
        int8x16_t weights = weights_neon(tile->weights[r] + k, left);
        int16x8_t first = vmovl_s8(vget_low_s8(weights)), second = vmovl_s8(vget_high_s8(weights));
        for (int j = 0; j < num_limbs; j++) {
            const int16_t *limbs =
                (const int16_t *)(const void *)(tile->limbs + (size_t)j * tile->limb_stride_bytes) + k;
            int16x8_t low = vld1q_s16(limbs), high = vld1q_s16(limbs + 8);
            int32x4_t sum = vmlal_s16(sums[r][j], vget_low_s16(first), vget_low_s16(low));
            sum = vmlal_s16(sum, vget_high_s16(first), vget_high_s16(low));
            sum = vmlal_s16(sum, vget_low_s16(second), vget_low_s16(high));
            sums[r][j] = vmlal_s16(sum, vget_high_s16(second), vget_high_s16(high));
        }
    }
}

ALWAYS_INLINE void tile_neon(const struct tile *tile, int num_limbs)
{
    int32x4_t sums[TILE_OUTPUTS][2];
    size_t k = 0;
    for (int r = 0; r < TILE_OUTPUTS; r++)
        for (int j = 0; j < num_limbs; j++)
            sums[r][j] = vdupq_n_s32(0);
    for (; k + 16 <= tile->length; k += 16) {
        if (k % 64 == 0)
            for (size_t r = 0; r < TILE_OUTPUTS; r++)
                FETCH_AHEAD(tile, r, k);
        step_neon(tile, num_limbs, k, 16, sums);
    }
    if (k < tile->length)
        step_neon(tile, num_limbs, k, tile->length - k, sums);
    for (int r = 0; r < TILE_OUTPUTS; r++)
        for (int j = 0; j < num_limbs; j++)
            tile->sums[(size_t)r * tile->sums_stride + (size_t)j] += vaddlvq_s32(sums[r][j]);
}

DEFINE_TILE(, tile_neon, 1)
DEFINE_TILE(, tile_neon, 2)

/* A lane adds 1024 / 4 products: at most 256 * 128 * 32768 = 2^30. */
static const struct linear_level linear_neon = {16, 0, 1024, 2, {tile_neon_1, tile_neon_2}};
