/* The boxes of a frame's cells above their limits, of all scales, in one pass over the cells: a row of boxes is the
 * row of half that size added to the one above it and to itself some columns on. Vectors of LINE cells stay in
 * registers; what is above is rare, and only then looked at one by one. */
#include "_cells.h"

#include <math.h>
#include <stdlib.h>

#if HAVE_X86
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(4 * LINE)));
typedef int32_t ints __attribute__((vector_size(4 * LINE)));
typedef uint32_t counts __attribute__((vector_size(4 * LINE)));

typedef struct finder work;
typedef int row_finder(const work *w, size_t i, const uint32_t *sums, const uint32_t *maxima, const float *means);

/* Rows of vectors of photons and means: cells of the row before, boxes of two by two of three rows. */
struct finder {
    const scan_frame *f;
    boxes *scale;
    size_t n; /* vectors of a row */
    floats *one_before, *mean_before, *two[3], *two_mean[3];
    floats *last[2]; /* rows whose vectors would end behind the maps are copied to where there is room */
    row_finder *find;
};

static int note(const work *w, int scale, size_t i, size_t j, float n, float mean) {
    const scan_frame *f = w->f;
    boxes *b = &w->scale[scale];
    if (!(n > sqrtf(mean) * f->sigma + mean + f->photons[scale])) return 1;
    if (b->found == b->room) {
        size_t room = 2 * b->room + 1024;
        box *of = realloc(b->of, room * sizeof *of);
        if (!of) return 0;
        b->of = of, b->room = room;
    }
    b->of[b->found++] = (box){(int64_t)(i * (f->width + 2) + j + 1), n, mean};
    return 1;
}

/* What a vector of cells holds at each scale, and by how much it is not above its limit, roughly: the sign tells all
 * boxes that may be, and few that are not. A pixel's mean is at least a sixteenth of its cell's. Signs are looked at, not
 * comparisons, which GCC takes apart. */
typedef struct {
    floats n[N_SCALES], mean[N_SCALES], left[N_SCALES];
} levels;

INLINE void compare(const scan_frame *f, int scale, levels *l) {
    const floats above = l->n[scale] - f->photons[scale] - l->mean[scale], size = (floats)((counts)above & INT32_MAX);
    l->left[scale] = above * size - 0.9f * f->sigma * f->sigma * l->mean[scale];
}

/* A bit of each that is negative. */
typedef uint32_t sign_taker(const floats *of);

static inline uint32_t signs(const floats *of) {
    uint32_t bits = 0;
    for (int c = 0; c < LINE; c++) bits |= ((const uint32_t *)of)[c] >> 31 << c;
    return bits;
}

/* Note the boxes that are above their limits, of the vector that begins in column `first`, ending in row i. */
static int note_all(const work *w, size_t i, size_t first, const levels *l, const uint32_t not_above[N_SCALES]) {
    const scan_frame *f = w->f;
    for (int scale = 0; scale < N_SCALES; scale++) {
        const size_t edge = scale ? (size_t)1 << (scale - 1) : 1;
        if (i + 1 < edge || first + edge > f->width) continue;
        const size_t n = smaller(f->width + 1 - edge - first, LINE);
        for (uint32_t left = ~not_above[scale] & ((1u << n) - 1); left; left &= left - 1) {
            const int c = __builtin_ctz(left);
            const size_t cell = i * f->width + first + (size_t)c;
            const float pixels = scale || f->exposure[cell] < 1 ? 1 : f->exposure[cell];
            const float mean = l->mean[scale ? scale : 1][c] / pixels;
            if (!note(w, scale, i + 1 - edge, first + (size_t)c, l->n[scale][c], mean)) return 0;
        }
    }
    return 1;
}

/* The vector that begins one or two columns after `a`, which `b` follows. */
#define ONE_ON(a, b) __builtin_shuffle(a, b, (ints){1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
#define TWO_ON(a, b) __builtin_shuffle(a, b, (ints){2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17})

/* Find the boxes that end in row i, whose cells are given; what lies beyond the row is not looked at. With the cells of
 * vector j the boxes of two of vector j - 1 are known, and those of four of vector j - 2. */
INLINE int find_in_row(const work *w, size_t i, const uint32_t *sums, const uint32_t *maxima, const float *means,
                       sign_taker *take) {
    floats *two = w->two[i % 3], *two_mean = w->two_mean[i % 3];
    const floats *up = w->two[(i + 1) % 3], *up_mean = w->two_mean[(i + 1) % 3]; /* two rows up is one on, of three */
    floats pairs = {0}, pairs_mean = {0}, quads = {0}, quads_mean = {0};
    for (size_t j = 0; j < w->n + BEHIND; j++) {
        counts n;
        floats mean;
        memcpy(&n, sums + j * LINE, sizeof n), memcpy(&mean, means + j * LINE, sizeof mean);
        const floats one = __builtin_convertvector(n, floats);
        const floats next = one + w->one_before[j], next_mean = mean + w->mean_before[j];
        w->one_before[j] = one, w->mean_before[j] = mean;
        const floats of_two = ONE_ON(pairs, next) + pairs, of_two_mean = ONE_ON(pairs_mean, next_mean) + pairs_mean;
        pairs = next, pairs_mean = next_mean;
        if (!j) continue;
        two[j - 1] = of_two, two_mean[j - 1] = of_two_mean;
        const floats next_quads = of_two + up[j - 1], next_quads_mean = of_two_mean + up_mean[j - 1];
        if (j > 1) {
            levels l;
            counts most;
            memcpy(&most, maxima + (j - 2) * LINE, sizeof most);
            l.n[0] = __builtin_convertvector(most, floats), l.n[1] = w->one_before[j - 2], l.n[2] = two[j - 2];
            l.mean[1] = w->mean_before[j - 2], l.mean[0] = 0.0625f * l.mean[1], l.mean[2] = two_mean[j - 2];
            l.n[3] = TWO_ON(quads, next_quads) + quads, l.mean[3] = TWO_ON(quads_mean, next_quads_mean) + quads_mean;
            for (int scale = 0; scale < N_SCALES; scale++) compare(w->f, scale, &l);
            const floats all = (floats)((counts)l.left[0] & (counts)l.left[1] & (counts)l.left[2] & (counts)l.left[3]);
            if (take(&all) != (1u << LINE) - 1) {
                const levels here = l; /* in memory only here */
                const uint32_t not_above[N_SCALES] = {take(&l.left[0]), take(&l.left[1]), take(&l.left[2]), take(&l.left[3])};
                if (!note_all(w, i, (j - 2) * LINE, &here, not_above)) return 0;
            }
        }
        quads = next_quads, quads_mean = next_quads_mean;
    }
    return 1;
}

/* Vectors are taken apart before functions are cloned for several targets, so each has one of its own. */
#if HAVE_X86
#define AVX512 __attribute__((target("avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#define AVX2 __attribute__((target("avx2")))

AVX512 static inline uint32_t signs_avx512(const floats *of) { return _mm512_movepi32_mask((__m512i)*of); }

AVX512 static int find_avx512(const work *w, size_t i, const uint32_t *sums, const uint32_t *maxima, const float *means) {
    return find_in_row(w, i, sums, maxima, means, signs_avx512);
}

AVX2 static inline uint32_t signs_avx2(const floats *of) {
    const __m256 *half = (const __m256 *)of;
    return (uint32_t)_mm256_movemask_ps(half[0]) | (uint32_t)_mm256_movemask_ps(half[1]) << 8;
}

AVX2 static int find_avx2(const work *w, size_t i, const uint32_t *sums, const uint32_t *maxima, const float *means) {
    return find_in_row(w, i, sums, maxima, means, signs_avx2);
}
#endif

static int find_plain(const work *w, size_t i, const uint32_t *sums, const uint32_t *maxima, const float *means) {
    return find_in_row(w, i, sums, maxima, means, signs);
}

static row_finder *finder_of_machine(void) {
#if HAVE_X86
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return find_avx512;
    if (__builtin_cpu_supports("avx2")) return find_avx2;
#endif
    return find_plain;
}

finder *new_finder(const scan_frame *f, boxes scale[N_SCALES]) {
    const size_t n = (f->width + LINE - 1) / LINE, room = n + BEHIND, n_rows = 10;
    finder *w = malloc(sizeof *w);
    floats *rows = aligned_alloc(sizeof(floats), n_rows * room * sizeof(floats));
    if (!w || !rows) {
        free(w), free(rows);
        return NULL;
    }
    memset(rows, 0, n_rows * room * sizeof(floats));
    *w = (finder){.f = f, .scale = scale, .n = n, .one_before = rows, .mean_before = rows + room};
    for (size_t k = 0; k < 3; k++) w->two[k] = rows + (2 + k) * room, w->two_mean[k] = rows + (5 + k) * room;
    for (size_t k = 0; k < 2; k++) w->last[k] = rows + (8 + k) * room;
    w->find = finder_of_machine();
    return w;
}

int find_row(finder *w, size_t i, const float *mean) {
    const scan_frame *f = w->f;
    const size_t first = i * f->width;
    const uint32_t *sums = f->sums + first, *maxima = f->maxima + first;
    if (first + (w->n + BEHIND) * LINE > f->height * f->width) {
        sums = memcpy(w->last[0], sums, f->width * sizeof *sums);
        maxima = memcpy(w->last[1], maxima, f->width * sizeof *maxima);
    }
    return w->find(w, i, sums, maxima, mean);
}

void free_finder(finder *w) {
    if (w) free(w->one_before);
    free(w);
}
