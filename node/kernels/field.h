/* F_p with p = 2^31 - 1: since 2^31 = 1 mod p, a value is reduced by adding its bits above 31 to those below. */
#ifndef KEKAHYDE_FIELD_H
#define KEKAHYDE_FIELD_H

#include <stdint.h>

#define PRIME 2147483647u

/* v mod p, not quite canonical: below 2^31 + 2^33 for any v, below 2^32 for a product of two elements. */
static inline uint64_t fold(uint64_t v) { return (v & PRIME) + (v >> 31); }

/* v mod p, canonical, for any v. */
static inline uint32_t residue(uint64_t v)
{
    v = fold(fold(v)); /* at most 2^31 + 3 */
    return (uint32_t)(v >= PRIME ? v - PRIME : v);
}

/* v mod p, canonical, for any signed v above -2^62: a multiple of p makes it positive first. */
static inline uint32_t signed_residue(int64_t v) { return residue((uint64_t)v + ((uint64_t)PRIME << 31)); }

/* The integer nearest to zero with this canonical residue. */
static inline int32_t centred(uint32_t v)
{
    return v > PRIME / 2 ? (int32_t)v - (int32_t)PRIME : (int32_t)v;
}

#endif
