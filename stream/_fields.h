/* Fields of 4 x 4 pixels from a step's lit planes: four neighbours in a row are four bits of a byte, their sum a number of
 * bits, their largest found from the highest plane down. What does not fit a byte (`bright` pixels) is added one by one, and
 * rows with many of these are pooled from their pixels. For `_reduce.c` alone. */
#ifndef HITFINDER_FIELDS_H
#define HITFINDER_FIELDS_H

#include "_planes.h"

#define FIELDS (STEP / 4) /* rows of four pixels */
#define DIM_PLANES 6     /* four pixels below 2**6 add up to one byte */
#define BYTES(b) (UINT64_C(0x0101010101010101) * (b))

typedef uint8_t bytes32 __attribute__((vector_size(32)));
typedef uint16_t shorts __attribute__((vector_size(64)));

/* Add a pixel that no byte holds; the first one of four rows clears their fields. */
INLINE void add_bright(reduction *r, size_t pixel, uint32_t counts) {
    const size_t width = r->n_fs / 4, row = pixel / r->n_fs / 4, field = row * width + pixel % r->n_fs / 4;
    for (; r->n_cleared <= row; r->n_cleared++) {
        memset(r->sums + r->n_cleared * width, 0, 4 * width);
        memset(r->maxima + r->n_cleared * width, 0, 4 * width);
    }
    const uint32_t sum = r->sums[field] + counts;
    r->sums[field] = sum < counts ? UINT32_MAX : sum;
    r->maxima[field] = counts > r->maxima[field] ? counts : r->maxima[field];
}

/* Join n fields of four rows, with what bright pixels put there if there were any. */
INLINE void join_fields(const uint8_t *restrict s, const uint8_t *restrict m, size_t width, size_t n, int has_bright,
                        uint32_t *restrict sums, uint32_t *restrict maxima) {
    for (size_t x = 0; x < n; x++) {
        const uint16_t dim = (uint16_t)(s[x] + s[width + x] + s[2 * width + x] + s[3 * width + x]);
        const uint32_t sum = has_bright ? sums[x] + dim : dim;
        sums[x] = sum < dim ? UINT32_MAX : sum;
    }
    for (size_t x = 0; x < n; x++) {
        const uint8_t a = m[x] > m[width + x] ? m[x] : m[width + x];
        const uint8_t b = m[2 * width + x] > m[3 * width + x] ? m[2 * width + x] : m[3 * width + x];
        const uint8_t max = a > b ? a : b;
        maxima[x] = has_bright && maxima[x] > max ? maxima[x] : max;
    }
}

INLINE void join_rows(const reduction *r, uint32_t *sums, uint32_t *maxima) {
    const size_t width = r->n_fs / 4;
    const uint8_t *s = r->field_sums, *m = r->field_maxima;
    if (r->n_cleared > r->n_pooled || width < 64) {
        join_fields(s, m, width, width, r->n_cleared > r->n_pooled, sums, maxima);
        return;
    }
    /* Whole vectors; the last overlaps the one before it. */
    for (size_t x = 0; x < width; x += 64) {
        const size_t at = smaller(x, width - 64);
        join_fields(s + at, m + at, width, 64, 0, sums + at, maxima + at);
    }
}

/* Pool every four rows of which the last pixel is done; the image's last may be fewer. */
INLINE void finish_rows(reduction *r, size_t elem, machine with) {
    const size_t width = r->n_fs / 4;
    for (;;) {
        const size_t first = 4 * r->n_pooled, n_rows = first < r->n_ss ? smaller(4, r->n_ss - first) : 0;
        if (!n_rows || r->n_done < (first + n_rows) * r->n_fs) return;
        uint32_t *sums = r->sums + r->n_pooled * width, *maxima = r->maxima + r->n_pooled * width;
        memset(r->field_sums + n_rows * width, 0, (4 - n_rows) * width);
        memset(r->field_maxima + n_rows * width, 0, (4 - n_rows) * width);
        if (r->bright_end > first * r->n_fs) {
            make_pixels(r->planes, (const uint32_t(*)[2])r->steps, elem, first * r->n_fs, n_rows * r->n_fs, r->rows, with);
            pool4(r->rows, elem, r->all_valid, n_rows, r->n_fs, sums, maxima);
        } else {
            join_rows(r, sums, maxima);
        }
        r->n_pooled++, r->n_fields -= n_rows * width;
        r->n_cleared = r->n_cleared < r->n_pooled ? r->n_pooled : r->n_cleared;
        memmove(r->field_sums, r->field_sums + n_rows * width, r->n_fields);
        memmove(r->field_maxima, r->field_maxima + n_rows * width, r->n_fields);
    }
}

/* Write what bytes of even and of odd fields hold as one row of bytes. */
INLINE void interleave(const words *even, const words *odd, uint8_t *to) {
    for (size_t half = 0; half < 2; half++) {
        bytes32 a, b;
        memcpy(&a, (const uint8_t *)even + 32 * half, 32);
        memcpy(&b, (const uint8_t *)odd + 32 * half, 32);
        const shorts both = __builtin_convertvector(a, shorts) | __builtin_convertvector(b, shorts) << 8;
        memcpy(to + 64 * half, &both, 64);
    }
}

/* Sums and maxima of four pixels each of a row, over those of `used`: all below 2**DIM_PLANES. */
INLINE void put_fields(reduction *r, const lit_planes *lit, const words *used) {
    words sum_even = {0}, sum_odd = {0}, max_even = {0}, max_odd = {0};
    words largest = *used; /* the pixels that may still be the largest of their four */
    size_t n = lit->n;
    while (n && lit->bit[n - 1] >= DIM_PLANES) n--;
    while (n-- > 0) {
        const size_t i = n;
        const words x = lit->word[i] & *used, c = x & largest;
        const unsigned bit = lit->bit[i];
        words has = c | c >> 1;
        has = (has | has >> 2) & BYTES(0x11);
        largest &= x | ~((has << 4) - has);
        max_even |= (has & BYTES(1)) << bit;
        max_odd |= (has >> 4 & BYTES(1)) << bit;
        words ones = x - (x >> 1 & BYTES(0x55));
        ones = (ones & BYTES(0x33)) + (ones >> 2 & BYTES(0x33));
        sum_even += (ones & BYTES(0x0f)) << bit;
        sum_odd += (ones >> 4 & BYTES(0x0f)) << bit;
    }
    interleave(&sum_even, &sum_odd, r->field_sums + r->n_fields);
    interleave(&max_even, &max_odd, r->field_maxima + r->n_fields);
    const uint64_t shorts_of = UINT64_C(0x00ff00ff00ff00ff), ints_of = UINT64_C(0x0000ffff0000ffff);
    words total = (sum_even & shorts_of) + (sum_even >> 8 & shorts_of) + (sum_odd & shorts_of) +
                  (sum_odd >> 8 & shorts_of), before;
    memcpy(&before, r->n_dim_photons, sizeof before);
    before += (total & ints_of) + (total >> 16 & ints_of);
    memcpy(r->n_dim_photons, &before, sizeof before);
}

#endif
