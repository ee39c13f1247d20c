/* A step's lit planes: how they are kept, and the pixels that they make. For `_reduce.c` alone, which is compiled for
 * several kinds of machines at once. */
#ifndef HITFINDER_PLANES_H
#define HITFINDER_PLANES_H

#include "_kernels.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
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
    /* Make the pixels of one line of 64 bytes. */
    void (*make_line)(const lit_planes *lit, size_t elem, size_t line, uint8_t *to);
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
    _mm512_storeu_si512(to, made);
}

AVX512 static inline int any_bit_avx512(const words *v) { return _mm512_test_epi64_mask((__m512i)*v, (__m512i)*v) != 0; }
#endif

/* Keep the planes of a step, behind those of the step before. */
INLINE void put_planes(reduction *r, const lit_planes *lit) {
    uint32_t *step = r->steps[r->n_done / STEP];
    step[0] = r->n_planes, step[1] = 0;
    for (size_t i = 0; i < lit->n; i++) {
        memcpy(r->planes + PLANE_BYTES * (size_t)r->n_planes++, &lit->word[i], PLANE_BYTES);
        step[1] |= UINT32_C(1) << lit->bit[i];
    }
}

INLINE void get_planes(const uint8_t *planes, const uint32_t step[2], lit_planes *lit) {
    lit->n = 0;
    for (uint32_t left = step[1]; left; left &= left - 1, lit->n++) {
        memcpy(&lit->word[lit->n], planes + PLANE_BYTES * (step[0] + lit->n), PLANE_BYTES);
        lit->bit[lit->n] = (unsigned)__builtin_ctz(left);
    }
}

/* Make n pixels from the first on. */
INLINE void make_pixels(const uint8_t *planes, const uint32_t (*steps)[2], size_t elem, size_t first, size_t n, uint8_t *to,
                        machine with) {
    const size_t line_px = 64 / elem;
    lit_planes lit;
    for (size_t at = first, step = SIZE_MAX; at < first + n;) {
        uint8_t line[64];
        const size_t skipped = at % line_px, made = smaller(line_px - skipped, first + n - at);
        if (at / STEP != step) get_planes(planes, steps[step = at / STEP], &lit);
        with.make_line(&lit, elem, at % STEP / line_px, line);
        memcpy(to, line + skipped * elem, made * elem);
        to += made * elem, at += made;
    }
}

#endif
