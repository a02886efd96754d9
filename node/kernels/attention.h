/* Causal grouped-query attention for one token row and one group of heads. Included once for each level.

   Sums run over the row's own slots in ascending order: no other row, block or thread can change a bit of them. */


/* weights[h][s] = exp(scale * q_h . k_s - max); each head's row has `stride` floats of room. With a softcap the scaled
   products are first brought below it in size. */
TARGET static void LEVEL(slot_weights)(const struct slots *s, const float *queries, size_t num_heads,
                                       float scale, float softcap, float *weights, size_t stride)
{
    for (size_t i = 0; i < s->count; i++) /* a key is read once for all heads of the group */
        for (size_t h = 0; h < num_heads; h++)
            weights[h * stride + i] =
                LEVEL(dot)(queries + h * s->head_size, s->keys + i * s->head_size, s->head_size) * scale;
    for (size_t h = 0; h < num_heads; h++) {
        float *row = weights + h * stride, largest;
        if (softcap > 0.0f)
            LEVEL(softcap_inplace)(row, s->count, softcap);
        largest = row[0];
        for (size_t i = 1; i < s->count; i++)
            largest = row[i] > largest ? row[i] : largest;
        for (size_t i = 0; i < s->count; i++)
            row[i] -= largest;
        LEVEL(exp_inplace)(row, s->count);
    }
}

/* out[d] += sum over slots of weight * value, for one group of lanes after another: slots in order. */
TARGET ALWAYS_INLINE void LEVEL(mix_lanes)(const float *weights, const float *values, size_t count,
                                           size_t head_size, int num_pieces, float *out)
{
    PIECE sums[4 * PIECES];
    for (int p = 0; p < num_pieces; p++)
        sums[p] = *(const PIECE *)(out + p * PIECE_FLOATS);
    for (size_t i = 0; i < count; i++)
        for (int p = 0; p < num_pieces; p++)
            sums[p] += *(const PIECE *)(values + i * head_size + p * PIECE_FLOATS) * weights[i];
    for (int p = 0; p < num_pieces; p++)
        *(PIECE *)(out + p * PIECE_FLOATS) = sums[p];
}

TARGET static void LEVEL(mix)(const float *weights, const float *values, size_t count, size_t head_size, float *out)
{
    size_t d = 0;
    for (; d + 4 * LANES <= head_size; d += 4 * LANES)
        LEVEL(mix_lanes)(weights, values + d, count, head_size, 4 * PIECES, out + d);
    for (; d + LANES <= head_size; d += LANES)
        LEVEL(mix_lanes)(weights, values + d, count, head_size, PIECES, out + d);
    for (size_t i = 0; d < head_size && i < count; i++)
        for (size_t k = d; k < head_size; k++)
            out[k] += weights[i] * values[i * head_size + k];
}

/* queries and out [num_heads][head_size]; workspace [num_heads][stride], stride at least the slots in whole lanes. */
TARGET static void LEVEL(attend)(const struct slots *s, const float *queries, size_t num_heads, float scale,
                                 float softcap, float *workspace, size_t stride, float *out)
{
    enum { BLOCK = 64 }; /* slots whose values stay in the cache for all heads of the group */
    memset(out, 0, num_heads * s->head_size * sizeof *out);
    LEVEL(slot_weights)(s, queries, num_heads, scale, softcap, workspace, stride);
    for (size_t i = 0; i < s->count; i += BLOCK)
        for (size_t h = 0; h < num_heads; h++)
            LEVEL(mix)(workspace + h * stride + i, s->values + i * s->head_size, min_size(BLOCK, s->count - i),
                       s->head_size, out + h * s->head_size);
    for (size_t h = 0; h < num_heads; h++) {
        double sum = 0.0;
        for (size_t i = 0; i < s->count; i++)
            sum += (double)workspace[h * stride + i];
        float inverse = (float)(1.0 / sum);
        for (size_t d = 0; d < s->head_size; d++)
            out[h * s->head_size + d] *= inverse;
    }
}
