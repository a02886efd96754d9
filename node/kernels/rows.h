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
        float grown = (float)((double)*scale * (excess * SCALE_MARGIN));
        /* Subnormal scales are so coarse that the product may be rounded back to what it was. */
        *scale = grown > *scale ? grown : nextafterf(*scale, INFINITY);
    }
}

TARGET static void LEVEL(norm_row)(const float *row, const float *gain, size_t count, double epsilon, float *out)
{
    float inverse = (float)(1.0 / sqrt(LEVEL(square_sum)(row, count) / (double)count + epsilon));
    for (size_t i = 0; i < count; i++)
        out[i] = (row[i] * inverse) * gain[i];
}

/* gate / (e^-z + 1) * up. z is gate for silu; for gelu with tanh it is 2 sqrt(2 / pi) (gate + 0.044715 gate^3), since
   (1 + tanh(z / 2)) / 2 = 1 / (e^-z + 1): the same function, without a difference that would lose digits. */
TARGET ALWAYS_INLINE PIECE LEVEL(gated)(PIECE gate, PIECE up, enum activation activation)
{
    PIECE z = gate;
    if (activation == ACTIVATION_GELU_TANH)
        z = (gate + gate * gate * gate * 0.044715f) * 1.5957691216057308f;
    return gate / (LEVEL(exp_piece)(-z) + 1.0f) * up;
}

/* activation(gate) * up: gate [count], up [count] -> out [count]. */
TARGET static void LEVEL(gate_row)(const float *gate, const float *up, size_t count, enum activation activation,
                                   float *out)
{
    size_t i = 0;
    for (; i + PIECE_FLOATS <= count; i += PIECE_FLOATS)
        *(PIECE *)(out + i) = LEVEL(gated)(*(const PIECE *)(gate + i), *(const PIECE *)(up + i), activation);
    if (i < count) {
        PIECE last[2] = {{0}, {0}};
        memcpy(&last[0], gate + i, (count - i) * sizeof(float));
        memcpy(&last[1], up + i, (count - i) * sizeof(float));
        last[0] = LEVEL(gated)(last[0], last[1], activation);
        memcpy(out + i, &last[0], (count - i) * sizeof(float));
    }
}

/* limit * tanh(x / limit): row [count] -> out [count]. */
TARGET static void LEVEL(softcap_row)(const float *row, size_t count, float limit, float *out)
{
    size_t whole = count / PIECE_FLOATS * PIECE_FLOATS;
    PIECE last = {0};
    memcpy(out, row, whole * sizeof(float));
    LEVEL(softcap_inplace)(out, whole, limit);
    memcpy(&last, row + whole, (count - whole) * sizeof(float));
    LEVEL(softcap_inplace)((float *)&last, PIECE_FLOATS, limit);
    memcpy(out + whole, &last, (count - whole) * sizeof(float));
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

/* Rotate the pairs (i, i + half) of one head; features from 2 * half on stay as they are. */
TARGET static void LEVEL(rope_head)(float *restrict head, const float *restrict cos, const float *restrict sin,
                                    size_t half)
{
    for (size_t i = 0; i < half; i++) {
        float first = head[i], second = head[i + half];
        head[i] = first * cos[i] - second * sin[i];
        head[i + half] = second * cos[i] + first * sin[i];
    }
}
