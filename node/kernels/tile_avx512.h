/* Linear tiles for AVX-512 VNNI: vpdpbusd multiplies unsigned by signed bytes, so weights go in as weight + 128 and
   limbs are 8 bits wide. Nothing is widened: 64 weights a load. */
#include <immintrin.h>

#include "tile.h"

#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

/* [16 vectors] -> one vector with the lane sum of vector i in lane i: a transposing tree of additions. */
TARGET_AVX512 ALWAYS_INLINE __m512i totals_avx512(const __m512i v[16])
{
    __m512i pairs[8], quads[4];
    for (int i = 0; i < 8; i++) /* lanes: 2i, 2i+1, 2i, 2i+1 in each 128-bit part */
        pairs[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                                    _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) /* lanes: 4i .. 4i+3 in each 128-bit part */
        quads[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(pairs[2 * i], pairs[2 * i + 1]),
                                    _mm512_unpackhi_epi64(pairs[2 * i], pairs[2 * i + 1]));
    /* parts a b c d of quads[0..1] -> a0+c0? : add the four 128-bit parts of each */
    __m512i low = _mm512_add_epi32(_mm512_shuffle_i32x4(quads[0], quads[1], 0x44),
                                   _mm512_shuffle_i32x4(quads[0], quads[1], 0xEE));
    __m512i high = _mm512_add_epi32(_mm512_shuffle_i32x4(quads[2], quads[3], 0x44),
                                    _mm512_shuffle_i32x4(quads[2], quads[3], 0xEE));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(low, high, 0x88), _mm512_shuffle_i32x4(low, high, 0xDD));
}

/* Sixteen sums under names of their own, s<weight row><limb row>: gcc 12 would keep an array of them in memory. */
#define SUMS_AVX512(r) s##r##0 = zero, s##r##1 = zero, s##r##2 = zero, s##r##3 = zero

#define ROW_AVX512(r, WEIGHTS) \
    do { \
        __m512i weights = _mm512_xor_si512(WEIGHTS(tile->weights[r] + k), offset); \
        s##r##0 = _mm512_dpbusd_epi32(s##r##0, weights, x0); \
        if (num_limbs > 1) s##r##1 = _mm512_dpbusd_epi32(s##r##1, weights, x1); \
        if (num_limbs > 2) s##r##2 = _mm512_dpbusd_epi32(s##r##2, weights, x2); \
        if (num_limbs > 3) s##r##3 = _mm512_dpbusd_epi32(s##r##3, weights, x3); \
    } while (0)

/* One vector of inputs at k for all sums. */
#define STEP_AVX512(WEIGHTS) \
    do { \
        const char *limbs = tile->limbs + k; \
        __m512i x0 = _mm512_load_si512(limbs), x1 = zero, x2 = zero, x3 = zero; \
        if (num_limbs > 1) x1 = _mm512_load_si512(limbs + stride); \
        if (num_limbs > 2) x2 = _mm512_load_si512(limbs + 2 * stride); \
        if (num_limbs > 3) x3 = _mm512_load_si512(limbs + 3 * stride); \
        ROW_AVX512(0, WEIGHTS); \
        ROW_AVX512(1, WEIGHTS); \
        ROW_AVX512(2, WEIGHTS); \
        ROW_AVX512(3, WEIGHTS); \
    } while (0)

#define MASKED_AVX512(address) _mm512_maskz_loadu_epi8(tail, address)

TARGET_AVX512 ALWAYS_INLINE void tile_avx512(const struct tile *tile, int num_limbs)
{
    const __m512i zero = _mm512_setzero_si512(), offset = _mm512_set1_epi8((char)0x80);
    __m512i SUMS_AVX512(0), SUMS_AVX512(1), SUMS_AVX512(2), SUMS_AVX512(3);
    const size_t stride = tile->limb_stride_bytes, whole = tile->length / 64 * 64;
    const __mmask64 tail = ((__mmask64)1 << (tile->length - whole)) - 1;
    size_t k = whole;
    if (tail != 0)
        STEP_AVX512(MASKED_AVX512);
    for (k = 0; k < whole; k += 64) {
        for (size_t r = 0; r < TILE_OUTPUTS; r++)
            FETCH_AHEAD(tile, r, k);
        STEP_AVX512(_mm512_loadu_si512);
    }
    const __m512i sums[16] = {s00, s01, s02, s03, s10, s11, s12, s13, s20, s21, s22, s23, s30, s31, s32, s33};
    __m512i totals = totals_avx512(sums);
    __mmask8 wanted = (__mmask8)((1 << num_limbs) - 1);
    __m256i halves[2] = {_mm512_castsi512_si256(totals), _mm512_extracti64x4_epi64(totals, 1)};
    for (int r = 0; r < TILE_OUTPUTS; r++) {
        int64_t *out = tile->sums + (size_t)r * tile->sums_stride;
        __m256i row = _mm256_cvtepi32_epi64(r % 2 ? _mm256_extracti128_si256(halves[r / 2], 1)
                                                  : _mm256_castsi256_si128(halves[r / 2]));
        _mm256_mask_storeu_epi64(out, wanted, _mm256_add_epi64(_mm256_maskz_loadu_epi64(wanted, out), row));
    }
}

DEFINE_TILE(TARGET_AVX512, tile_avx512, 1)
DEFINE_TILE(TARGET_AVX512, tile_avx512, 2)
DEFINE_TILE(TARGET_AVX512, tile_avx512, 3)
DEFINE_TILE(TARGET_AVX512, tile_avx512, 4)

/* The total, and so every lane: 65536 * 255 * 128 < 2^31. */
static const struct linear_level linear_avx512 = {
    8, 128, 65536, 4, {tile_avx512_1, tile_avx512_2, tile_avx512_3, tile_avx512_4}};
