/* Row-wise float kernels: norms, gated activations, quantization and back. Included once for each level.

   A function sees one row at a time and nothing else, which is all that row invariance takes. */

/* Bit patterns of the largest magnitude in the row; from 0x7f800000 on something is not finite. */
TARGET static int32_t LEVEL(largest_bits)(const float *row, size_t count)
{
    int32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t bits;
        memcpy(&bits, row + i, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

/* xq = rint(x / s), half to even, clipped; returns the sum of squares, exactly. */
TARGET static int64_t LEVEL(round_row)(const float *row, size_t count, float scale, int16_t *out)
{
    const float limit = (float)ACTIVATION_LIMIT, rounder = 12582912.0f; /* 1.5 * 2^23 */
    int64_t squares = 0;
    for (size_t i = 0; i < count; i += 256) { /* 256 * 2047^2 < 2^31 */
        size_t stop = min_size(count, i + 256);
        int32_t sum = 0;
        for (size_t k = i; k < stop; k++) {
            float v = row[k] / scale;
            v = v > limit ? limit : v;
            v = v < -limit ? -limit : v;
            int32_t rounded = (int32_t)((v + rounder) - rounder);
            out[k] = (int16_t)rounded;
            sum += rounded * rounded;
        }
        squares += sum;
    }
    return squares;
}

/* The quantization rule of interface.py. Returns 0 where the row is not finite. */
TARGET static int LEVEL(quantize_row)(const float *row, size_t count, double max_row_norm, int16_t *out, float *scale)
{
    int32_t bits = LEVEL(largest_bits)(row, count);
    float largest;
    if (bits >= 0x7f800000)
        return 0;
    memcpy(&largest, &bits, sizeof largest);
    *scale = largest / (float)ACTIVATION_LIMIT;
    if (*scale == 0.0f)
        *scale = 1.0f;
    for (;;) {
        int64_t squares = LEVEL(round_row)(row, count, *scale, out);
        double excess = max_row_norm * sqrt((double)squares) / (PRIME / 2.0);
        if (excess < 1.0)
            return 1;
        *scale = (float)((double)*scale * (excess * SCALE_MARGIN));
    }
}

TARGET static void LEVEL(norm_row)(const float *row, const float *gain, size_t count, double epsilon, float *out)
{
    float inverse = (float)(1.0 / sqrt(LEVEL(square_sum)(row, count) / (double)count + epsilon));
    for (size_t i = 0; i < count; i++)
        out[i] = (row[i] * inverse) * gain[i];
}

TARGET ALWAYS_INLINE PIECE LEVEL(gated)(PIECE gate, PIECE up)
{
    return gate / (LEVEL(exp_piece)(-gate) + 1.0f) * up;
}

/* silu(gate) * up: gate [count], up [count] -> out [count]. */
TARGET static void LEVEL(gate_row)(const float *gate, const float *up, size_t count, float *out)
{
    size_t i = 0;
    for (; i + PIECE_FLOATS <= count; i += PIECE_FLOATS)
        *(PIECE *)(out + i) = LEVEL(gated)(*(const PIECE *)(gate + i), *(const PIECE *)(up + i));
    if (i < count) {
        PIECE last[2] = {{0}, {0}};
        memcpy(&last[0], gate + i, (count - i) * sizeof(float));
        memcpy(&last[1], up + i, (count - i) * sizeof(float));
        last[0] = LEVEL(gated)(last[0], last[1]);
        memcpy(out + i, &last[0], (count - i) * sizeof(float));
    }
}

/* (sum * weight_scale) * row_scale + bias: [N]; bias may be NULL. */
TARGET static void LEVEL(dequantize_row)(const int32_t *sums, float row_scale, const float *weight_scales,
                                         const float *bias, size_t count, float *out)
{
    for (size_t n = 0; n < count; n++)
        out[n] = ((float)sums[n] * weight_scales[n]) * row_scale;
    for (size_t n = 0; bias != NULL && n < count; n++)
        out[n] += bias[n];
}

/* Rotate the pairs (i, i + half) of one head. */
TARGET static void LEVEL(rope_head)(float *restrict head, const float *restrict cos, const float *restrict sin,
                                    size_t half)
{
    for (size_t i = 0; i < half; i++) {
        float first = head[i], second = head[i + half];
        head[i] = first * cos[i] - second * sin[i];
        head[i + half] = second * cos[i] + first * sin[i];
    }
}
