/* A block's bit planes to pooled sums, maxima and counts, and to those pixels that are not 0.
 *
 * Photons are few: most planes of a block are empty and most pixels are 0. So fields of 4 x 4 pixels are
 * added up in the planes themselves: four neighbours in a row are four bits of a byte, their sum a number
 * of bits, their largest found from the highest plane down. Pixels are made only where a line of the image
 * is lit, or was by the frame before. What does not fit a byte (`bright` pixels) is added one by one, and
 * rows with many of these are pooled from the image. Plain C, compiled for three kinds of machines. */
#include "_kernels.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define STEP 512         /* pixels taken at once: a vector of 64 bytes of each plane */
#define FIELDS (STEP / 4) /* rows of four pixels */
#define DIM_PLANES 6     /* four pixels below 2**6 add up to one byte */
#define MOST_BRIGHT 16   /* in a step; with more, its rows are pooled from the image */
#define MAX_PLANES 32
#define BYTES(b) (UINT64_C(0x0101010101010101) * (b))

typedef uint64_t words __attribute__((vector_size(64)));
typedef uint64_t pair __attribute__((vector_size(16)));
typedef uint8_t bytes32 __attribute__((vector_size(32)));
typedef uint16_t shorts __attribute__((vector_size(64)));

/* Planes of one step that hold anything, without the invalid pixels, lowest first. */
typedef struct {
    words word[MAX_PLANES];
    unsigned bit[MAX_PLANES];
    size_t n;
} lit_planes;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

INLINE uint64_t n_bits(const words *v) {
    uint64_t n = 0;
    for (int w = 0; w < 8; w++) n += (uint64_t)__builtin_popcountll((*v)[w]);
    return n;
}

static inline int any_bit(const words *v) {
    const pair *p = (const pair *)v, any = p[0] | p[1] | p[2] | p[3];
    return (any[0] | any[1]) != 0;
}

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
INLINE void finish_rows(reduction *r, size_t elem) {
    const size_t width = r->n_fs / 4;
    for (;;) {
        const size_t first = 4 * r->n_pooled, n_rows = first < r->n_ss ? smaller(4, r->n_ss - first) : 0;
        if (!n_rows || r->n_done < (first + n_rows) * r->n_fs) return;
        uint32_t *sums = r->sums + r->n_pooled * width, *maxima = r->maxima + r->n_pooled * width;
        memset(r->field_sums + n_rows * width, 0, (4 - n_rows) * width);
        memset(r->field_maxima + n_rows * width, 0, (4 - n_rows) * width);
        if (r->bright_end > first * r->n_fs)
            pool4(r->image + first * r->n_fs * elem, elem, r->all_valid, n_rows, r->n_fs, sums, maxima);
        else
            join_rows(r, sums, maxima);
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

/* What machines have instructions of their own for: make the pixels of one line, 64 bytes; is any bit set. */
typedef struct {
    void (*make_line)(const lit_planes *lit, size_t elem, size_t line, uint8_t *to);
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
    /* Few lines are read again: past the caches, where the next frame's bytes are wanted. */
    if ((uintptr_t)to % 64 == 0) _mm512_stream_si512((__m512i *)(void *)to, made);
    else _mm512_storeu_si512(to, made);
}

AVX512 static inline int any_bit_avx512(const words *v) { return _mm512_test_epi64_mask((__m512i)*v, (__m512i)*v) != 0; }
#endif

/* The lines of a step that are lit or were: bit b of byte k is line 8 b + k. */
INLINE uint64_t find_lines(reduction *r, size_t elem, const lit_planes *lit, size_t n_px) {
    const size_t line_px = 64 / elem, n_lines = (n_px + line_px - 1) / line_px;
    uint8_t *is_lit = r->is_lit + r->n_done / line_px;
    words any = {0};
    for (size_t i = 0; i < lit->n; i++) any |= lit->word[i];
    uint8_t now[STEP / 16], before[STEP / 16] = {0};
    for (size_t line = 0; line < STEP / line_px; line++) {
        now[line] = elem == 1   ? ((const uint64_t *)&any)[line] != 0
                    : elem == 2 ? ((const uint32_t *)&any)[line] != 0
                                : ((const uint16_t *)&any)[line] != 0;
    }
    if (n_px == STEP) {
        memcpy(before, is_lit, STEP / line_px);
        memcpy(is_lit, now, STEP / line_px);
    } else {
        memcpy(before, is_lit, n_lines);
        memcpy(is_lit, now, n_lines);
    }
    uint64_t lines = 0;
    for (size_t part = 0; part < STEP / line_px / 8; part++) {
        uint64_t eight[2];
        memcpy(eight, now + 8 * part, 8), memcpy(eight + 1, before + 8 * part, 8);
        lines |= (eight[0] | eight[1]) << part;
    }
    return lines;
}

/* Write these lines: pixels, or the zeros of a line that is lit no more. */
INLINE void put_lines(reduction *r, size_t elem, const lit_planes *lit, uint64_t lines, size_t n_px, machine with) {
    uint8_t *image = r->image + r->n_done * elem;
    for (; lines; lines &= lines - 1) {
        const size_t at = (size_t)__builtin_ctzll(lines), line = at / 8 + 8 * (at % 8);
        if (64 * (line + 1) <= n_px * elem) {
            with.make_line(lit, elem, line, image + 64 * line);
        } else {
            uint8_t last[64];
            with.make_line(lit, elem, line, last);
            memcpy(image + 64 * line, last, n_px * elem - 64 * line);
        }
    }
}

/* Count saturated pixels, those with every bit set, and use them no more. */
INLINE void take_saturated(reduction *r, const lit_planes *lit, words *used) {
    words all = *used;
    for (size_t i = 0; i < lit->n; i++) all &= lit->word[i];
    r->counts.n_saturated += n_bits(&all);
    *used &= ~all;
}

/* Add bright pixels to their fields, or leave their rows to be pooled from the image; use them no more. */
INLINE void take_bright(reduction *r, const lit_planes *lit, words *used, size_t n_px) {
    words bright = {0};
    for (size_t i = lit->n; i-- > 0 && lit->bit[i] >= DIM_PLANES;) bright |= lit->word[i];
    bright &= *used;
    *used &= ~bright;
    for (size_t i = 0; i < lit->n; i++) {
        const words part = lit->word[i] & bright;
        r->counts.n_photons += n_bits(&part) << lit->bit[i];
    }
    if (n_bits(&bright) > MOST_BRIGHT) {
        r->bright_end = r->n_done + n_px;
        return;
    }
    for (size_t w = 0; w < 8; w++) {
        for (uint64_t left = bright[w]; left; left &= left - 1) {
            const unsigned at = (unsigned)__builtin_ctzll(left);
            uint32_t counts = 0;
            for (size_t i = 0; i < lit->n; i++) counts |= (uint32_t)(lit->word[i][w] >> at & 1) << lit->bit[i];
            add_bright(r, r->n_done + 64 * w + at, counts);
        }
    }
}

/* Which of a step's pixels are valid. */
INLINE void get_valid(const reduction *r, size_t first, size_t n_px, words *valid) {
    *valid = (words){0};
    if (n_px == STEP) memcpy(valid, r->valid + first / 64, sizeof *valid);
    else memcpy(valid, r->valid + first / 64, (n_px + 63) / 64 * 8);
}

/* One step: n_px pixels, of which only the planes that `maybe` names hold anything. */
INLINE void reduce_step(reduction *r, size_t elem, const uint8_t *planes, size_t stride, const uint8_t *maybe,
                        size_t n_maybe, size_t n_px, machine with) {
    words used;
    lit_planes lit;
    lit.n = 0;
    get_valid(r, r->n_done, n_px, &used);
    for (size_t i = 0; i < n_maybe; i++) {
        words word;
        memcpy(&word, planes + maybe[i] * stride, sizeof word);
        lit.word[lit.n] = word & used, lit.bit[lit.n] = maybe[i];
        lit.n += (size_t)with.any(&lit.word[lit.n]);
    }
    const uint64_t lines = find_lines(r, elem, &lit, n_px);
    if (lit.n == 8 * elem) take_saturated(r, &lit, &used);
    if (lit.n && lit.bit[lit.n - 1] >= DIM_PLANES) take_bright(r, &lit, &used, n_px);
    put_fields(r, &lit, &used);
    put_lines(r, elem, &lit, lines, n_px, with);
    r->n_fields += n_px / 4, r->n_done += n_px;
    finish_rows(r, elem);
}

#define GROUP 4 /* planes looked at together, as most hold nothing */

INLINE void reduce(reduction *r, size_t elem, const uint8_t *planes, size_t n_px, machine with) {
    const size_t stride = n_px / 8;
    uint8_t maybe[MAX_PLANES];
    size_t n_maybe = 0;
    for (size_t group = 0; group < 8 * elem; group += GROUP) {
        words any = {0};
        for (size_t at = 0; at < n_px; at += STEP) {
            const uint8_t *from = planes + group * stride + at / 8;
            words plane[GROUP], valid;
            get_valid(r, r->n_done + at, smaller(STEP, n_px - at), &valid);
            for (size_t i = 0; i < GROUP; i++) memcpy(&plane[i], from + i * stride, sizeof plane[i]);
            any |= (plane[0] | plane[1] | plane[2] | plane[3]) & valid;
        }
        if (!with.any(&any)) continue;
        for (size_t i = 0; i < GROUP; i++) maybe[n_maybe++] = (uint8_t)(group + i);
    }
    for (size_t at = 0; at < n_px; at += STEP)
        reduce_step(r, elem, planes + at / 8, stride, maybe, n_maybe, smaller(STEP, n_px - at), with);
}

INLINE void reduce_any(reduction *r, const uint8_t *planes, size_t n_bytes, machine with) {
    if (r->elem == 1) reduce(r, 1, planes, n_bytes, with);
    else if (r->elem == 2) reduce(r, 2, planes, n_bytes / 2, with);
    else reduce(r, 4, planes, n_bytes / 4, with);
}

#if HAVE_X86
AVX512 static void reduce_avx512(reduction *r, const uint8_t *planes, size_t n_bytes) {
    reduce_any(r, planes, n_bytes, (machine){make_line_avx512, any_bit_avx512});
    _mm_sfence();
}

AVX2 static void reduce_avx2(reduction *r, const uint8_t *planes, size_t n_bytes) {
    reduce_any(r, planes, n_bytes, (machine){make_line, any_bit});
}
#endif

size_t reduction_bytes(size_t n_fs) { return 2 * (n_fs + FIELDS) + 4 * n_fs; }

void reduce_begin(reduction *r, uint8_t *memory) {
    r->field_sums = memory, r->field_maxima = memory + r->n_fs + FIELDS;
    uint8_t *all_valid = r->field_maxima + r->n_fs + FIELDS;
    memset(all_valid, 1, 4 * r->n_fs);
    r->all_valid = all_valid;
    r->n_done = r->bright_end = r->n_pooled = r->n_cleared = r->n_fields = 0;
    memset(r->n_dim_photons, 0, sizeof r->n_dim_photons);
    r->counts = (pool_counts){0, 0};
}

void reduce_block(reduction *r, const uint8_t *planes, size_t n_bytes) {
#if HAVE_X86
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
        reduce_avx512(r, planes, n_bytes);
        return;
    }
    if (__builtin_cpu_supports("avx2")) {
        reduce_avx2(r, planes, n_bytes);
        return;
    }
#endif
    reduce_any(r, planes, n_bytes, (machine){make_line, any_bit});
}

pool_counts reduce_end(const reduction *r) {
    pool_counts counts = r->counts;
    for (size_t w = 0; w < 8; w++) counts.n_photons += (r->n_dim_photons[w] >> 32) + (uint32_t)r->n_dim_photons[w];
    return counts;
}
