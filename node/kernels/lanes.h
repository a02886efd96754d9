/* Sixteen float lanes in a fixed order of operations, whatever the width of the machine's vectors.

   Included once for each level, with LEVEL, TARGET and VECTOR (bytes of a machine vector: 16, 32 or 64). An addition
   happens in the same lane and the same order at every level and nothing is contracted to a fused multiply-add
   (-ffp-contract=off), so the float kernels give the same bits at every level of one build. */

#define LANES 16
#define PIECE_FLOATS (VECTOR / 4)
#define PIECES (LANES / PIECE_FLOATS)
#define PIECE LEVEL(piece)
#define EACH_PIECE(p) for (int p = 0; p < PIECES; p++)

typedef float PIECE __attribute__((vector_size(VECTOR), aligned(4), may_alias));
typedef float LEVEL(quad) __attribute__((vector_size(16)));

TARGET ALWAYS_INLINE PIECE LEVEL(splat)(float v) { return v - (PIECE){0}; }

/* The sum of the lanes: halves onto halves, down to one. */
TARGET ALWAYS_INLINE float LEVEL(lane_sum)(const PIECE sums[PIECES])
{
    LEVEL(quad) q[4];
    memcpy(q, sums, sizeof q);
    q[0] = (q[0] + q[2]) + (q[1] + q[3]);
    return (q[0][0] + q[0][2]) + (q[0][1] + q[0][3]);
}

/* a . b: [count]; whole groups of lanes first, then the rest one by one. */
TARGET ALWAYS_INLINE float LEVEL(dot)(const float *a, const float *b, size_t count)
{
    PIECE sums[PIECES];
    size_t i = 0;
    EACH_PIECE(p) sums[p] = (PIECE){0};
    for (; i + LANES <= count; i += LANES)
        EACH_PIECE(p)
            sums[p] += *(const PIECE *)(a + i + p * PIECE_FLOATS) * *(const PIECE *)(b + i + p * PIECE_FLOATS);
    float sum = LEVEL(lane_sum)(sums);
    for (; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

/* The sum of squares in double, from stretches of 256 in float: relative error below 2^-20. */
TARGET static double LEVEL(square_sum)(const float *row, size_t count)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i += 256)
        sum += (double)LEVEL(dot)(row + i, row + i, min_size(256, count - i));
    return sum;
}

/* e^x for one piece, within 2 units in the last place; x is clamped to [-87.3, 88.3].

   Cody-Waite reduction by ln 2 in two parts and the degree-5 polynomial of Cephes' expf. Adding 1.5 * 2^23 rounds
   to an integer, half to even, in any of the vector widths. */
TARGET ALWAYS_INLINE PIECE LEVEL(exp_piece)(PIECE x)
{
    typedef int32_t words __attribute__((vector_size(VECTOR)));
    const float rounder = 12582912.0f;
    PIECE low = LEVEL(splat)(-87.3f), high = LEVEL(splat)(88.3f);
    x = (PIECE)(((words)x & (x > low)) | ((words)low & ~(x > low)));
    x = (PIECE)(((words)x & (x < high)) | ((words)high & ~(x < high)));
    PIECE n = (x * 1.44269504088896341f + rounder) - rounder;
    PIECE r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    PIECE poly = LEVEL(splat)(1.9875691500e-4f);
    poly = poly * r + 1.3981999507e-3f;
    poly = poly * r + 8.3334519073e-3f;
    poly = poly * r + 4.1665795894e-2f;
    poly = poly * r + 1.6666665459e-1f;
    poly = poly * r + 5.0000001201e-1f;
    poly = (poly * (r * r) + r) + 1.0f;
    words exponent = (__builtin_convertvector(n, words) + 127) << 23;
    return poly * (PIECE)exponent;
}

/* tanh x for one piece, within 2 units in the last place: Cephes' tanhf, a polynomial below 0.625 and 1 - 2 / (e^2|x| + 1)
   from there on, with the sign of x put back. What is no number stays none. */
TARGET ALWAYS_INLINE PIECE LEVEL(tanh_piece)(PIECE x)
{
    typedef int32_t words __attribute__((vector_size(VECTOR)));
    words sign = (words)x & INT32_MIN;
    PIECE size = (PIECE)((words)x & INT32_MAX), square = x * x;
    PIECE poly = LEVEL(splat)(-5.70498872745e-3f);
    poly = poly * square + 2.06390887954e-2f;
    poly = poly * square + -5.37397155531e-2f;
    poly = poly * square + 1.33314422036e-1f;
    poly = poly * square + -3.33332819422e-1f;
    poly = poly * square * x + x;
    PIECE far = 1.0f - 2.0f / (LEVEL(exp_piece)(size + size) + 1.0f);
    words is_far = size >= LEVEL(splat)(0.625f);
    return (PIECE)(((words)poly & ~is_far) | (((words)far | sign) & is_far));
}

/* limit * tanh(x / limit) in place: [count] with room up to whole pieces, whatever they hold. */
TARGET static void LEVEL(softcap_inplace)(float *values, size_t count, float limit)
{
    for (size_t i = 0; i < count; i += PIECE_FLOATS) {
        PIECE *piece = (PIECE *)(void *)(values + i);
        *piece = LEVEL(tanh_piece)(*piece / limit) * limit;
    }
}

/* e^x in place: [count] with room up to whole groups of lanes, whatever they hold. */
TARGET static void LEVEL(exp_inplace)(float *values, size_t count)
{
    for (size_t i = 0; i < count; i += PIECE_FLOATS) {
        PIECE *piece = (PIECE *)(void *)(values + i);
        *piece = LEVEL(exp_piece)(*piece);
    }
}
