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

/* Plain C. A column is one byte of each plane: 8 elements. */
static void unshuffle_columns(const uint8_t *planes, uint8_t *out, size_t n_columns, size_t elem_size) {
    for (size_t k = 0; k < n_columns; k++) {
        for (size_t b = 0; b < elem_size; b++) {
            uint64_t rows = 0;
            for (size_t i = 0; i < 8; i++) rows |= (uint64_t)planes[(8 * b + i) * n_columns + k] << 8 * i;
            rows = transpose8(rows);
            for (size_t j = 0; j < 8; j++) out[(8 * k + j) * elem_size + b] = (uint8_t)(rows >> 8 * j);
        }
    }
}

#if HAVE_X86
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define COLUMNS 32 /* columns that one step takes: 256 elements */

/* Swap the bits of `a` at mask << shift with those of `b` at mask. */
#define SWAP_BITS(a, b, shift, mask)                                                        \
    do {                                                                                    \
        __m256i t = _mm256_and_si256(_mm256_xor_si256(_mm256_srli_epi16(a, shift), b),      \
                                     _mm256_set1_epi8(mask));                               \
        b = _mm256_xor_si256(b, t);                                                         \
        a = _mm256_xor_si256(a, _mm256_slli_epi16(t, shift));                               \
    } while (0)

/* Eight planes, 32 columns each, to one byte of 256 elements. In bytes[q] the low half holds elements
 * 16 q..16 q + 15, the high half those 128 further. Returns 0, and no bytes, where all planes are empty. */
AVX2 static inline int planes_to_bytes(const uint8_t *planes, size_t n_columns, __m256i bytes[8]) {
    __m256i r[8], pairs[8], quads[8], any = _mm256_setzero_si256();
    for (int i = 0; i < 8; i++) {
        r[i] = _mm256_loadu_si256((const __m256i *)(planes + (size_t)i * n_columns));
        any = _mm256_or_si256(any, r[i]);
    }
    if (_mm256_testz_si256(any, any)) return 0;
    for (int i = 0; i < 4; i++) SWAP_BITS(r[i], r[i + 4], 4, 0x0f);
    for (int i = 0; i < 8; i += 4) {
        SWAP_BITS(r[i], r[i + 2], 2, 0x33);
        SWAP_BITS(r[i + 1], r[i + 3], 2, 0x33);
    }
    for (int i = 0; i < 8; i += 2) SWAP_BITS(r[i], r[i + 1], 1, 0x55);
    /* r[j] now holds elements j, 8 + j, 16 + j, ...: interleave the eight. */
    for (int i = 0; i < 4; i++) {
        pairs[i] = _mm256_unpacklo_epi8(r[2 * i], r[2 * i + 1]);
        pairs[4 + i] = _mm256_unpackhi_epi8(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        quads[i] = _mm256_unpacklo_epi16(pairs[i], pairs[i + 1]);
        quads[i + 1] = _mm256_unpackhi_epi16(pairs[i], pairs[i + 1]);
        quads[i + 2] = _mm256_unpacklo_epi16(pairs[i + 2], pairs[i + 3]);
        quads[i + 3] = _mm256_unpackhi_epi16(pairs[i + 2], pairs[i + 3]);
    }
    for (int i = 0; i < 8; i += 4) {
        bytes[i] = _mm256_unpacklo_epi32(quads[i], quads[i + 2]);
        bytes[i + 1] = _mm256_unpackhi_epi32(quads[i], quads[i + 2]);
        bytes[i + 2] = _mm256_unpacklo_epi32(quads[i + 1], quads[i + 3]);
        bytes[i + 3] = _mm256_unpackhi_epi32(quads[i + 1], quads[i + 3]);
    }
    return 1;
}

AVX2 static inline void clear(__m256i bytes[8]) {
    for (int q = 0; q < 8; q++) bytes[q] = _mm256_setzero_si256();
}

AVX2 static inline void store(uint8_t *to, __m256i v) { _mm256_storeu_si256((__m256i *)to, v); }

/* Store the low halves of a and b at `to`, the high halves `gap` bytes further. */
AVX2 static inline void store_halves(uint8_t *to, size_t gap, __m256i a, __m256i b) {
    store(to, _mm256_permute2x128_si256(a, b, 0x20));
    store(to + gap, _mm256_permute2x128_si256(a, b, 0x31));
}

AVX2 static inline void step_1(const uint8_t *planes, size_t n_columns, uint8_t *out) {
    __m256i b[8];
    if (!planes_to_bytes(planes, n_columns, b)) clear(b);
    for (int q = 0; q < 8; q += 2) store_halves(out + 16 * q, 128, b[q], b[q + 1]);
}

AVX2 static inline void step_2(const uint8_t *planes, size_t n_columns, uint8_t *out) {
    __m256i low[8], high[8];
    int has_high = planes_to_bytes(planes + 8 * n_columns, n_columns, high);
    if (!planes_to_bytes(planes, n_columns, low)) clear(low);
    for (int q = 0; q < 8; q++, out += 32) {
        if (has_high) {
            store_halves(out, 256, _mm256_unpacklo_epi8(low[q], high[q]),
                         _mm256_unpackhi_epi8(low[q], high[q]));
        } else {
            store(out, _mm256_cvtepu8_epi16(_mm256_castsi256_si128(low[q])));
            store(out + 256, _mm256_cvtepu8_epi16(_mm256_extracti128_si256(low[q], 1)));
        }
    }
}

/* Sixteen elements of which only the lowest byte is not 0. */
AVX2 static inline void store_wide(uint8_t *to, __m128i v) {
    store(to, _mm256_cvtepu8_epi32(v));
    store(to + 32, _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8)));
}

AVX2 static inline void step_4(const uint8_t *planes, size_t n_columns, uint8_t *out) {
    __m256i b[4][8];
    int has_high = 0;
    for (size_t i = 0; i < 4; i++) {
        int has = planes_to_bytes(planes + 8 * i * n_columns, n_columns, b[i]);
        if (!has) clear(b[i]);
        has_high |= has && i > 0;
    }
    for (int q = 0; q < 8; q++, out += 64) {
        if (!has_high) {
            store_wide(out, _mm256_castsi256_si128(b[0][q]));
            store_wide(out + 512, _mm256_extracti128_si256(b[0][q], 1));
            continue;
        }
        __m256i a01 = _mm256_unpacklo_epi8(b[0][q], b[1][q]), b01 = _mm256_unpackhi_epi8(b[0][q], b[1][q]);
        __m256i a23 = _mm256_unpacklo_epi8(b[2][q], b[3][q]), b23 = _mm256_unpackhi_epi8(b[2][q], b[3][q]);
        store_halves(out, 512, _mm256_unpacklo_epi16(a01, a23), _mm256_unpackhi_epi16(a01, a23));
        store_halves(out + 32, 512, _mm256_unpacklo_epi16(b01, b23), _mm256_unpackhi_epi16(b01, b23));
    }
}

/* All columns; the last step overlaps the one before it. */
AVX2 static void unshuffle_avx2(const uint8_t *planes, uint8_t *out, size_t n_columns, size_t elem_size) {
    for (size_t k = 0; k < n_columns; k += COLUMNS) {
        size_t first = k + COLUMNS <= n_columns ? k : n_columns - COLUMNS;
        uint8_t *to = out + 8 * first * elem_size;
        if (elem_size == 1) step_1(planes + first, n_columns, to);
        else if (elem_size == 2) step_2(planes + first, n_columns, to);
        else step_4(planes + first, n_columns, to);
    }
}
#endif

void bit_unshuffle(const uint8_t *planes, uint8_t *out, size_t n_bytes, size_t elem_size) {
    size_t n_columns = n_bytes / (8 * elem_size);
#if HAVE_X86
    if (elem_size <= 4 && n_columns >= COLUMNS && __builtin_cpu_supports("avx2")) {
        unshuffle_avx2(planes, out, n_columns, elem_size);
        return;
    }
#endif
    unshuffle_columns(planes, out, n_columns, elem_size);
}
