/* A step's lit planes, and the lines of the image that they make: 64 bytes each, written only where a pixel is lit, or was
 * in the frame before. For `_reduce.c` alone, which is compiled for several kinds of machines at once. */
#ifndef HITFINDER_LINES_H
#define HITFINDER_LINES_H

#include "_kernels.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define STEP 512         /* pixels taken at once: a vector of 64 bytes of each plane */
#define MAX_PLANES 32

typedef uint64_t words __attribute__((vector_size(64)));
typedef uint64_t pair __attribute__((vector_size(16)));

/* Planes of one step that hold anything, without the invalid pixels, lowest first. */
typedef struct {
    words word[MAX_PLANES];
    unsigned bit[MAX_PLANES];
    size_t n;
} lit_planes;

static inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static inline int any_bit(const words *v) {
    const pair *p = (const pair *)v, any = p[0] | p[1] | p[2] | p[3];
    return (any[0] | any[1]) != 0;
}

/* What machines have instructions of their own for. */
typedef struct {
    /* Make the pixels of one line. */
    void (*make_line)(const lit_planes *lit, size_t elem, size_t line, uint8_t *to);
    /* A bit for each of n lines that `any` lights or that were lit; `is_lit` then says which are. */
    uint32_t (*find_lines)(const words *any, size_t elem, uint8_t *is_lit, size_t n);
    /* Is any bit set. */
    int (*any)(const words *v);
} machine;

typedef uint16_t bits16 __attribute__((vector_size(32)));
typedef uint8_t pixel_1, pixels_1 __attribute__((vector_size(16)));
typedef uint16_t pixel_2, pixels_2 __attribute__((vector_size(32)));
typedef uint32_t pixel_4, pixels_4 __attribute__((vector_size(64)));
static const bits16 EACH_BIT = {1,      1 << 1, 1 << 2,  1 << 3,  1 << 4,  1 << 5,  1 << 6,  1 << 7,
                                1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};

/* Sixteen pixels at a time. */
#define DEFINE_MAKE_LINE(SIZE)                                                                         \
    INLINE void make_line_##SIZE(const lit_planes *lit, size_t line, uint8_t *to) {                    \
        for (size_t part = 0; part < 4 / SIZE; part++) {                                               \
            pixels_##SIZE made = {0};                                                                  \
            for (size_t i = 0; i < lit->n; i++) {                                                      \
                const uint16_t *bits = (const uint16_t *)&lit->word[i] + line * (4 / SIZE);            \
                made |= (pixels_##SIZE)__builtin_convertvector((EACH_BIT & bits[part]) == EACH_BIT,    \
                                                               pixels_##SIZE) &                        \
                        (pixel_##SIZE)(UINT32_C(1) << lit->bit[i]);                                    \
            }                                                                                          \
            memcpy(to + sizeof made * part, &made, sizeof made);                                       \
        }                                                                                              \
    }
DEFINE_MAKE_LINE(1)
DEFINE_MAKE_LINE(2)
DEFINE_MAKE_LINE(4)

static inline void make_line(const lit_planes *lit, size_t elem, size_t line, uint8_t *to) {
    if (elem == 1) make_line_1(lit, line, to);
    else if (elem == 2) make_line_2(lit, line, to);
    else make_line_4(lit, line, to);
}

static inline uint32_t find_lines(const words *any, size_t elem, uint8_t *is_lit, size_t n) {
    uint32_t lines = 0;
    for (size_t line = 0; line < n; line++) {
        const uint8_t now = elem == 1   ? ((const uint64_t *)any)[line] != 0
                            : elem == 2 ? ((const uint32_t *)any)[line] != 0
                                        : ((const uint16_t *)any)[line] != 0;
        lines |= (uint32_t)(now | is_lit[line]) << line;
        is_lit[line] = now;
    }
    return lines;
}

#if HAVE_X86
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,bmi,popcnt")))
#define AVX512 __attribute__((target("avx512bw,avx512dq,avx512vl,bmi,popcnt,prefer-vector-width=512")))

/* A plane's bits are the mask under which its value is added to a whole line. */
AVX512 static inline void make_line_avx512(const lit_planes *lit, size_t elem, size_t line, uint8_t *to) {
    __m512i made = _mm512_setzero_si512();
    for (size_t i = 0; i < lit->n; i++) {
        const uint8_t *bits = (const uint8_t *)&lit->word[i] + line * (8 / elem);
        const uint32_t value = UINT32_C(1) << lit->bit[i];
        uint64_t is_set = 0;
        memcpy(&is_set, bits, 8 / elem);
        if (elem == 1)
            made = _mm512_mask_add_epi8(made, (__mmask64)is_set, made, _mm512_set1_epi8((char)value));
        else if (elem == 2)
            made = _mm512_mask_add_epi16(made, (__mmask32)is_set, made, _mm512_set1_epi16((short)value));
        else
            made = _mm512_mask_add_epi32(made, (__mmask16)is_set, made, _mm512_set1_epi32((int)value));
    }
    /* Few lines are read again: past the caches, where the next frame's bytes are wanted. */
    if ((uintptr_t)to % 64 == 0) _mm512_stream_si512((__m512i *)(void *)to, made);
    else _mm512_storeu_si512(to, made);
}

AVX512 static inline uint32_t find_lines_avx512(const words *any, size_t elem, uint8_t *is_lit, size_t n) {
    const __m512i v = (__m512i)*any;
    const __mmask32 here = n < 32 ? (1u << n) - 1 : UINT32_MAX;
    const __mmask32 now = elem == 1   ? _mm512_test_epi64_mask(v, v)
                          : elem == 2 ? _mm512_test_epi32_mask(v, v)
                                      : _mm512_test_epi16_mask(v, v);
    const __m256i before = _mm256_maskz_loadu_epi8(here, is_lit);
    _mm256_mask_storeu_epi8(is_lit, here, _mm256_maskz_set1_epi8(now, 1));
    return now | _mm256_test_epi8_mask(before, before);
}

AVX512 static inline int any_bit_avx512(const words *v) { return _mm512_test_epi64_mask((__m512i)*v, (__m512i)*v) != 0; }
#endif

/* Write the lines of a step that are lit or were: pixels, or the zeros of a line that is lit no more. */
INLINE void put_lines(reduction *r, size_t elem, const lit_planes *lit, size_t n_px, machine with) {
    const size_t line_px = 64 / elem;
    uint8_t *image = r->image + r->n_done * elem;
    words any = {0};
    for (size_t i = 0; i < lit->n; i++) any |= lit->word[i];
    uint32_t lines = with.find_lines(&any, elem, r->is_lit + r->n_done / line_px, (n_px + line_px - 1) / line_px);
    for (; lines; lines &= lines - 1) {
        const size_t line = (size_t)__builtin_ctz(lines);
        if (64 * (line + 1) <= n_px * elem) {
            with.make_line(lit, elem, line, image + 64 * line);
        } else {
            uint8_t last[64];
            with.make_line(lit, elem, line, last);
            memcpy(image + 64 * line, last, n_px * elem - 64 * line);
        }
    }
}

#endif
