/* Activation rows cut into signed limbs that multiply-add instructions take.

   A row value v is the sum of limb[j] << (bits * j). With 8-bit limbs 12-bit activations take two and field
   elements (centred, |v| < 2^30) take four; with 16-bit limbs one and two. Limb rows are zero-padded to whole
   vectors. Layout: [T][limbs per row][stride bytes]. */
#ifndef KEKAHYDE_LIMBS_H
#define KEKAHYDE_LIMBS_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "field.h"

enum { VECTOR_BYTES = 64, ACTIVATION_LIMIT = 2047 };

enum row_kind { ROWS_A12, ROWS_FIELD };
enum outcome { OUTCOME_OK = 0, OUTCOME_NO_MEMORY = 1, OUTCOME_REFUSED = 2 };

struct limbs {
    size_t num_rows;
    size_t per_row;      /* limb rows of a row: 1, 2 or 4 */
    size_t bits;         /* width of a limb: 8 or 16 */
    size_t stride_bytes; /* from one limb row to the next */
    char *base;          /* aligned to VECTOR_BYTES */
    int64_t *row_sums;   /* [T]: sum of the row's values */
    void *allocation;
};

/* Row values as integers near zero, into wide[length]; their sum. Sets *refused where a value is out of range. */
static int64_t widen_row(enum row_kind kind, const void *row, size_t length, int32_t *wide, int *refused)
{
    int64_t sum = 0;
    uint32_t beyond = 0;
    if (kind == ROWS_A12) {
        const int16_t *values = row;
        for (size_t k = 0; k < length; k++) {
            wide[k] = values[k];
            beyond |= (uint32_t)((wide[k] > ACTIVATION_LIMIT) | (wide[k] < -ACTIVATION_LIMIT)) << 31;
        }
    } else {
        const uint32_t *elements = row;
        for (size_t k = 0; k < length; k++) {
            wide[k] = centred(elements[k] & PRIME);
            beyond |= elements[k] | (elements[k] + 1u); /* bit 31: the element is p or more */
        }
    }
    for (size_t k = 0; k < length; k++)
        sum += wide[k];
    *refused |= (int)(beyond >> 31);
    return sum;
}

/* Take the lowest limb off every value. The shift of what is left is arithmetic (gcc, clang) and exact. */
static void peel_limb8(int32_t *wide, size_t length, int8_t *out)
{
    for (size_t k = 0; k < length; k++) {
        out[k] = (int8_t)(uint8_t)wide[k];
        wide[k] = (wide[k] - out[k]) >> 8;
    }
}

static void peel_limb16(int32_t *wide, size_t length, int16_t *out)
{
    for (size_t k = 0; k < length; k++) {
        out[k] = (int16_t)(uint16_t)wide[k];
        wide[k] = (wide[k] - out[k]) >> 16;
    }
}

static void cut_row(struct limbs *l, size_t t, enum row_kind kind, const void *row, size_t length, int32_t *wide,
                    int *refused)
{
    size_t used_bytes = length * (l->bits / 8);
    l->row_sums[t] = widen_row(kind, row, length, wide, refused);
    for (size_t j = 0; j < l->per_row; j++) {
        char *out = l->base + (t * l->per_row + j) * l->stride_bytes;
        if (l->bits == 8)
            peel_limb8(wide, length, (int8_t *)out);
        else
            peel_limb16(wide, length, (int16_t *)(void *)out);
        memset(out + used_bytes, 0, l->stride_bytes - used_bytes);
    }
}

/* Cut rows [T, length]; the caller frees l->allocation, also after a refusal. */
static enum outcome cut_limbs(struct limbs *l, enum row_kind kind, size_t bits, const void *rows, size_t num_rows,
                              size_t length)
{
    size_t row_bytes = length * (kind == ROWS_A12 ? sizeof(int16_t) : sizeof(uint32_t));
    int refused = 0;
    l->num_rows = num_rows;
    l->bits = bits;
    l->per_row = (kind == ROWS_A12 ? 16 : 32) / bits;
    /* one vector more than needed: strides of a power of two would crowd one cache set */
    l->stride_bytes = (length * bits / 8 + VECTOR_BYTES - 1) / VECTOR_BYTES * VECTOR_BYTES + VECTOR_BYTES;
    size_t limb_bytes = num_rows * l->per_row * l->stride_bytes;
    size_t sum_bytes = num_rows * sizeof(int64_t);
    l->allocation = malloc(VECTOR_BYTES + limb_bytes + sum_bytes + length * sizeof(int32_t));
    if (l->allocation == NULL)
        return OUTCOME_NO_MEMORY;
    l->base = (char *)(((uintptr_t)l->allocation + VECTOR_BYTES - 1) / VECTOR_BYTES * VECTOR_BYTES);
    l->row_sums = (int64_t *)(void *)(l->base + limb_bytes);
    int32_t *wide = (int32_t *)(void *)(l->base + limb_bytes + sum_bytes);
    for (size_t t = 0; t < num_rows; t++)
        cut_row(l, t, kind, (const char *)rows + t * row_bytes, length, wide, &refused);
    return refused ? OUTCOME_REFUSED : OUTCOME_OK;
}

#endif
