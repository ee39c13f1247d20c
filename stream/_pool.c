/* 4 x 4 sums and maxima of a frame in one pass, and its photon count. Pixels with valid == 0 count as
 * nothing; so do saturated ones (the type's largest value), which are counted. Two steps a tile: down the
 * four rows into column sums (plain loops that vectorise), then across four columns. */
#include "_kernels.h"

#include <string.h>

#define TILE 1024 /* columns at a time, a multiple of 4: the column sums stay in the L1 cache */

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Four columns to one: sums of up to 16 pixels, clamped to 32 bits. Returns the exact total. */
#define POOL_ACROSS(NAME, SUM, PIXEL)                                                                    \
    static uint64_t NAME(const SUM *sum, const PIXEL *max, size_t n, uint32_t *sums, uint32_t *maxima) { \
        uint64_t total = 0;                                                                              \
        for (size_t j = 0; j < n; j += 4) {                                                              \
            uint64_t s = 0;                                                                              \
            PIXEL m = 0;                                                                                 \
            for (size_t i = j; i < smaller(j + 4, n); i++) {                                             \
                s += sum[i];                                                                             \
                m = max[i] > m ? max[i] : m;                                                             \
            }                                                                                            \
            total += s;                                                                                  \
            *sums++ = s > UINT32_MAX ? UINT32_MAX : (uint32_t)s;                                         \
            *maxima++ = m;                                                                               \
        }                                                                                                \
        return total;                                                                                    \
    }

/* One row into the column sums and maxima of a tile. Returns the number of saturated pixels. */
#define ADD_ROW(NAME, SUM, PIXEL, LARGEST)                                                               \
    static uint64_t NAME(const PIXEL *row, const uint8_t *valid, size_t n, SUM *sum, PIXEL *max) {       \
        unsigned n_saturated = 0;                                                                        \
        for (size_t j = 0; j < n; j++) {                                                                 \
            PIXEL v = valid[j] ? row[j] : (PIXEL)0;                                                      \
            n_saturated += v == LARGEST;                                                                 \
            v = v == LARGEST ? (PIXEL)0 : v;                                                             \
            sum[j] += v;                                                                                 \
            max[j] = v > max[j] ? v : max[j];                                                            \
        }                                                                                                \
        return n_saturated;                                                                              \
    }

#define POOL(NAME, ROW, ACROSS, SUM, PIXEL)                                                              \
    static pool_counts NAME(const PIXEL *image, const uint8_t *valid, size_t n_ss, size_t n_fs,          \
                            uint32_t *sums, uint32_t *maxima) {                                          \
        pool_counts counts = {0, 0};                                                                     \
        size_t pooled_fs = (n_fs + 3) / 4;                                                               \
        for (size_t y = 0; y < n_ss; y += 4, sums += pooled_fs, maxima += pooled_fs) {                   \
            for (size_t x = 0; x < n_fs; x += TILE) {                                                    \
                SUM sum[TILE] = {0};                                                                     \
                PIXEL max[TILE] = {0};                                                                   \
                size_t n = smaller(TILE, n_fs - x);                                                      \
                for (size_t r = y; r < smaller(y + 4, n_ss); r++)                                        \
                    counts.n_saturated += ROW(image + r * n_fs + x, valid + r * n_fs + x, n, sum, max);  \
                counts.n_photons += ACROSS(sum, max, n, sums + x / 4, maxima + x / 4);                   \
            }                                                                                            \
        }                                                                                                \
        return counts;                                                                                   \
    }

ADD_ROW(add_row_u8, uint16_t, uint8_t, UINT8_MAX)
ADD_ROW(add_row_u16, uint32_t, uint16_t, UINT16_MAX)
ADD_ROW(add_row_u32, uint64_t, uint32_t, UINT32_MAX)
POOL_ACROSS(across_u8, uint16_t, uint8_t)
POOL_ACROSS(across_u16, uint32_t, uint16_t)
POOL_ACROSS(across_u32, uint64_t, uint32_t)
POOL(pool_u8, add_row_u8, across_u8, uint16_t, uint8_t)
POOL(pool_u16, add_row_u16, across_u16, uint32_t, uint16_t)
POOL(pool_u32, add_row_u32, across_u32, uint64_t, uint32_t)

pool_counts pool4(const void *image, size_t itemsize, const uint8_t *valid, size_t n_ss, size_t n_fs,
                  uint32_t *sums, uint32_t *maxima) {
    if (itemsize == 1) return pool_u8(image, valid, n_ss, n_fs, sums, maxima);
    if (itemsize == 2) return pool_u16(image, valid, n_ss, n_fs, sums, maxima);
    return pool_u32(image, valid, n_ss, n_fs, sums, maxima);
}
