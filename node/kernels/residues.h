/* Elementwise and summing kernels over F_p, as plain loops that the compiler vectorises.

   Included once for each level, with LEVEL(name) giving the functions' names and TARGET their instruction set. */

/* x - r mod p: [count]. */
TARGET static void LEVEL(share)(const int16_t *rows, const uint32_t *pads, size_t count, uint32_t *out)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t element = (uint32_t)rows[i] + (rows[i] < 0 ? PRIME : 0u);
        uint32_t difference = element - pads[i], wrapped = difference + PRIME;
        out[i] = difference < wrapped ? difference : wrapped; /* below zero wraps to above 2^31 */
    }
}

/* The integer nearest to zero of a + b mod p: [count]. */
TARGET static void LEVEL(merge)(const uint32_t *first, const uint32_t *second, size_t count, int32_t *out)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t sum = first[i] + second[i], wrapped = sum - PRIME;
        out[i] = centred(sum < wrapped ? sum : wrapped);
    }
}

TARGET static void LEVEL(centre)(const uint32_t *elements, size_t count, int32_t *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = centred(elements[i]);
}

/* 1 if every element is below p; reads them all. */
TARGET static int LEVEL(all_canonical)(const uint32_t *elements, size_t count)
{
    uint32_t beyond = 0;
    for (size_t i = 0; i < count; i++)
        beyond |= elements[i] | (elements[i] + 1u);
    return (int)(~beyond >> 31);
}

/* u . y mod p: [N], [N]. A folded product is below 2^32, so 2^32 of them fit. */
TARGET static uint32_t LEVEL(residue_dot)(const uint32_t *vector, const uint32_t *row, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += fold((uint64_t)vector[i] * row[i]);
    return residue(sum);
}

/* vectors [k, N], rows [T, N] -> [T, k]. */
TARGET static void LEVEL(field_dot)(const uint32_t *vectors, const uint32_t *rows, size_t num_vectors,
                                    size_t num_rows, size_t count, uint32_t *out)
{
    for (size_t t = 0; t < num_rows; t++)
        for (size_t i = 0; i < num_vectors; i++)
            out[t * num_vectors + i] = LEVEL(residue_dot)(vectors + i * count, rows + t * count, count);
}

/* coefficients [T] (one vector of them), rows [T, N] -> [N]: sum over t of c_t y_t mod p. */
TARGET static void LEVEL(combine_one)(const uint32_t *coefficients, const uint32_t *rows, size_t num_rows,
                                      size_t count, uint32_t *out)
{
    enum { COLUMNS = 1024 }; /* 8 KiB of sums, in the L1 cache */
    uint64_t sums[COLUMNS];
    for (size_t column = 0; column < count; column += COLUMNS) {
        size_t width = min_size(COLUMNS, count - column);
        memset(sums, 0, sizeof sums);
        for (size_t t = 0; t < num_rows; t++)
            for (size_t n = 0; n < width; n++)
                sums[n] += fold((uint64_t)coefficients[t] * rows[t * count + column + n]);
        for (size_t n = 0; n < width; n++)
            out[column + n] = residue(sums[n]);
    }
}

TARGET static void LEVEL(field_combine)(const uint32_t *coefficients, const uint32_t *rows, size_t num_vectors,
                                        size_t num_rows, size_t count, uint32_t *out)
{
    for (size_t i = 0; i < num_vectors; i++)
        LEVEL(combine_one)(coefficients + i * num_rows, rows, num_rows, count, out + i * count);
}

/* The sum of a buffer's words: what reading alone costs, for the benchmark. */
TARGET static uint64_t LEVEL(read_sum)(const uint64_t *words, size_t count)
{
    uint64_t sum = 0;
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        __builtin_prefetch((const char *)(words + i) + PREFETCH_BYTES);
        __builtin_prefetch((const char *)(words + i) + PREFETCH_BYTES + 64);
        __builtin_prefetch((const char *)(words + i) + PREFETCH_BYTES + 128);
        __builtin_prefetch((const char *)(words + i) + PREFETCH_BYTES + 192);
        for (size_t k = 0; k < 32; k++)
            sum += words[i + k];
    }
    for (; i < count; i++)
        sum += words[i];
    return sum;
}
