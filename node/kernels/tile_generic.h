/* Linear tiles in plain C with 16-bit limbs: for any machine, and the reading aid for the others. */
#include "tile.h"

ALWAYS_INLINE void tile_generic(const struct tile *tile, int num_limbs)
{
    for (int r = 0; r < TILE_OUTPUTS; r++) {
        const int8_t *weights = tile->weights[r];
        for (int j = 0; j < num_limbs; j++) {
            const int16_t *limbs = (const int16_t *)(const void *)(tile->limbs + (size_t)j * tile->limb_stride_bytes);
            int32_t sum = 0;
            for (size_t k = 0; k < tile->length; k++)
                sum += (int16_t)weights[k] * limbs[k];
            tile->sums[(size_t)r * tile->sums_stride + (size_t)j] += sum;
        }
    }
}

DEFINE_TILE(, tile_generic, 1)
DEFINE_TILE(, tile_generic, 2)

/* |sum| <= 256 * 128 * 32768 = 2^30. */
static const struct linear_level linear_generic = {16, 0, 256, 2, {tile_generic_1, tile_generic_2}};
