/* Linear tiles for AVX2: weights widened to 16 bits, vpmaddwd with 16-bit limbs. */
#include <immintrin.h>

#include "tile.h"

#define TARGET_AVX2 __attribute__((target("avx2")))

/* The sum of eight 32-bit lanes, in 64 bits: the total of a stretch may exceed a lane. */
TARGET_AVX2 ALWAYS_INLINE int64_t total_avx2(__m256i lanes)
{
    __m256i halves = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(lanes)),
                                      _mm256_cvtepi32_epi64(_mm256_extracti128_si256(lanes, 1)));
    __m128i pair = _mm_add_epi64(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    return _mm_cvtsi128_si64(_mm_add_epi64(pair, _mm_unpackhi_epi64(pair, pair)));
}

/* Sixteen weights as 16-bit integers; beyond the end of the row there are zeros. */
TARGET_AVX2 ALWAYS_INLINE __m256i weights_avx2(const int8_t *weights, size_t left)
{
    char padded[16] = {0};
    if (left >= 16)
        return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)weights));
    memcpy(padded, weights, left);
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)padded));
}

TARGET_AVX2 ALWAYS_INLINE void step_avx2(const struct tile *tile, int num_limbs, size_t k, size_t left,
                                         __m256i sums[TILE_OUTPUTS][2])
{
    __m256i limbs[2];
    for (int j = 0; j < num_limbs; j++)
        limbs[j] = _mm256_loadu_si256(
            (const __m256i *)(const void *)(tile->limbs + (size_t)j * tile->limb_stride_bytes + 2 * k));
    for (int r = 0; r < TILE_OUTPUTS; r++) {
        __m256i weights = weights_avx2(tile->weights[r] + k, left);
        for (int j = 0; j < num_limbs; j++)
            sums[r][j] = _mm256_add_epi32(sums[r][j], _mm256_madd_epi16(weights, limbs[j]));
    }
}

TARGET_AVX2 ALWAYS_INLINE void tile_avx2(const struct tile *tile, int num_limbs)
{
    __m256i sums[TILE_OUTPUTS][2];
    size_t k = 0;
    for (int r = 0; r < TILE_OUTPUTS; r++)
        for (int j = 0; j < num_limbs; j++)
            sums[r][j] = _mm256_setzero_si256();
    for (; k + 16 <= tile->length; k += 16) {
        if (k % 64 == 0)
            for (size_t r = 0; r < TILE_OUTPUTS; r++)
                FETCH_AHEAD(tile, r, k);
        step_avx2(tile, num_limbs, k, 16, sums);
    }
    if (k < tile->length)
        step_avx2(tile, num_limbs, k, tile->length - k, sums);
    for (int r = 0; r < TILE_OUTPUTS; r++)
        for (int j = 0; j < num_limbs; j++)
            tile->sums[(size_t)r * tile->sums_stride + (size_t)j] += total_avx2(sums[r][j]);
}

DEFINE_TILE(TARGET_AVX2, tile_avx2, 1)
DEFINE_TILE(TARGET_AVX2, tile_avx2, 2)

/* A lane adds 2048 / 8 products: at most 256 * 128 * 32768 = 2^30. */
static const struct linear_level linear_avx2 = {16, 0, 2048, 2, {tile_avx2_1, tile_avx2_2}};
