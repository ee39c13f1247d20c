/* Bit planes back to pixels, one block. Layout from the bitshuffle format: of m elements (m a multiple of
 * 8) of E little-endian bytes, plane p holds bit p % 8 of byte p / 8 of each; in byte k of a plane, bit j
 * (0 = least) belongs to element 8 k + j. */
#include "_kernels.h"

#include <string.h>

/* Transpose an 8 x 8 bit matrix: byte i, bit j  <->  byte j, bit i. */
static uint64_t transpose8(uint64_t x) {
    uint64_t t;
    t = (x ^ (x >> 7)) & UINT64_C(0x00AA00AA00AA00AA), x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & UINT64_C(0x0000CCCC0000CCCC), x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & UINT64_C(0x00000000F0F0F0F0), x ^= t ^ (t << 28);
    return x;
}

/* Columns first..n_columns of the planes, in plain C. A column is one byte of each plane: 8 elements. */
static void unshuffle_columns(const uint8_t *planes, uint8_t *out, size_t first, size_t n_columns,
                              size_t elem_size) {
    for (size_t k = first; k < n_columns; k++) {
        for (size_t b = 0; b < elem_size; b++) {
            uint64_t rows = 0;
            for (size_t i = 0; i < 8; i++) rows |= (uint64_t)planes[(8 * b + i) * n_columns + k] << 8 * i;
            rows = transpose8(rows);
            for (size_t j = 0; j < 8; j++) out[(8 * k + j) * elem_size + b] = (uint8_t)(rows >> 8 * j);
        }
    }
}

void bit_unshuffle(const uint8_t *planes, uint8_t *out, size_t n_bytes, size_t elem_size) {
    unshuffle_columns(planes, out, 0, n_bytes / (8 * elem_size), elem_size);
}
