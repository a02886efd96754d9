/* U W mod p for a few vectors: every weight is read once. Included once for each level, as residues.h is.

   Sums are kept in doubles: 128 (p - 1) 32768 < 2^53, so a block of 32 768 weight rows is exact. */

#define PROJECT_COLUMNS 1024
#define PROJECT_VECTORS 3
#define PROJECT_STEP 4
#define PROJECT_BLOCK 32768

struct LEVEL(projection) {
    double sums[PROJECT_VECTORS][PROJECT_COLUMNS]; /* 24 KiB, in the L1 cache */
    double coefficients[PROJECT_VECTORS][PROJECT_STEP];
    const int8_t *weights[PROJECT_STEP]; /* at the first column */
    size_t width;
};

/* sums[i] += sum over four weight rows, for a constant number of vectors. */
TARGET ALWAYS_INLINE void LEVEL(project_step)(struct LEVEL(projection) *p, int num_vectors)
{
    const int8_t *first = p->weights[0], *second = p->weights[1], *third = p->weights[2], *fourth = p->weights[3];
    for (size_t k = 0; k < p->width; k++) {
        double a = first[k], b = second[k], c = third[k], d = fourth[k];
        for (int i = 0; i < num_vectors; i++) {
            const double *u = p->coefficients[i];
            p->sums[i][k] += (u[0] * a + u[1] * b) + (u[2] * c + u[3] * d);
        }
    }
}

/* Point at weight rows n .. n + 3 of [N][K]; rows beyond the last count with coefficient 0. */
TARGET static void LEVEL(project_aim)(struct LEVEL(projection) *p, const uint32_t *vectors, size_t num_vectors,
                                      const int8_t *weights, size_t num_rows, size_t num_columns, size_t n)
{
    for (size_t r = 0; r < PROJECT_STEP; r++) {
        size_t row = min_size(n + r, num_rows - 1);
        p->weights[r] = weights + row * num_columns;
        for (size_t i = 0; i < num_vectors; i++)
            p->coefficients[i][r] = n + r < num_rows ? (double)vectors[i * num_rows + row] : 0.0;
    }
}

/* vectors [num_vectors <= 3, N], weights [N, K] at its first wanted column -> out [num_vectors, K] likewise. */
TARGET static void LEVEL(project_columns)(const uint32_t *vectors, size_t num_vectors, const int8_t *weights,
                                          size_t num_rows, size_t num_columns, size_t width, uint32_t *out)
{
    struct LEVEL(projection) p;
    p.width = width;
    for (size_t i = 0; i < num_vectors; i++)
        memset(out + i * num_columns, 0, width * sizeof *out);
    for (size_t block = 0; block < num_rows; block += PROJECT_BLOCK) {
        memset(p.sums, 0, sizeof p.sums);
        for (size_t n = block; n < min_size(num_rows, block + PROJECT_BLOCK); n += PROJECT_STEP) {
            LEVEL(project_aim)(&p, vectors, num_vectors, weights, num_rows, num_columns, n);
            if (num_vectors == PROJECT_VECTORS)
                LEVEL(project_step)(&p, PROJECT_VECTORS);
            else
                LEVEL(project_step)(&p, (int)num_vectors);
        }
        for (size_t i = 0; i < num_vectors; i++)
            for (size_t k = 0; k < width; k++)
                out[i * num_columns + k] = signed_residue((int64_t)p.sums[i][k] + out[i * num_columns + k]);
    }
}

/* vectors [k, N], weights [N, K], columns [start, stop) -> out [k, K]. */
TARGET static void LEVEL(field_project)(const uint32_t *vectors, const int8_t *weights, size_t num_vectors,
                                        size_t num_rows, size_t num_columns, size_t start, size_t stop,
                                        uint32_t *out)
{
    for (size_t column = start; column < stop; column += PROJECT_COLUMNS)
        for (size_t i = 0; i < num_vectors; i += PROJECT_VECTORS)
            LEVEL(project_columns)(vectors + i * num_rows, min_size(PROJECT_VECTORS, num_vectors - i),
                                   weights + column, num_rows, num_columns,
                                   min_size(PROJECT_COLUMNS, stop - column), out + i * num_columns + column);
}

#undef PROJECT_COLUMNS
#undef PROJECT_VECTORS
#undef PROJECT_STEP
#undef PROJECT_BLOCK
