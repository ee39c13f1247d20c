/* One frame's background on one CPU core, as `device_background.estimate` defines it. The counts are read once; after
 * that a row is known by the largest cell of each of its chunks until the cells are predicted. */
#include "_cells.h"

#include <math.h>
#include <stdlib.h>

#if HAVE_X86
#include <immintrin.h>
#endif

#define CHUNK 64
#define BANDS 3 /* rows of blocks that are predicted and not yet scaled */

typedef struct {
    background_frame *f;
    size_t n_bins, chunks, groups, down, across; /* chunks and LANES of a row; rows and columns of blocks */
    int has_avx2, has_avx512;
    double *counts_R, *exposed_R, *rate_R, *sum_R, *hidden_N;
    uint64_t *even_N, *odd_N;
    double *seen, *expected, *seen_3, *expected_3; /* of blocks; of three rows of them, with a rim */
    float *rate_32, *limit_N, *share, *column, *rows, *ratio; /* the rings' rates, and LANES of 0 */
    uint32_t *filled; /* cells of a row that hold photons, and their bins */
    uint16_t *filled_bin;
    int32_t *from; /* of each block the columns whose middle is right of its; `share` is that of the next block */
    uint32_t *most; /* of each chunk */
    int32_t *spots; /* flat index of clipped cells, rising */
    float *means; /* of the rows of BANDS rows of blocks, `stride` apart, in turns */
    size_t stride;
    size_t n_spots, room, spot, bands; /* spots taken out of, and rows of, the blocks predicted so far */
} work;

static double window_sum(const double *cumulative, size_t ring, size_t half, size_t n) {
    size_t first = ring > half ? ring - half : 0, end = smaller(ring + half + 1, n);
    return cumulative[end] - cumulative[first];
}

/* Photons per pixel of each ring from the widest window to the narrowest. */
static void rate_rings(work *w) {
    const background_frame *f = w->f;
    double counts = 0, exposed = 0, *c = w->sum_R, *e = w->sum_R + f->n_rings + 1;
    for (size_t r = 0; r < f->n_rings; r++) {
        w->counts_R[r] = w->exposed_R[r] = 0;
        for (size_t s = r * f->n_sectors; s < (r + 1) * f->n_sectors; s++)
            w->counts_R[r] += f->counts_N[s], w->exposed_R[r] += f->exposed_N[s];
        counts += w->counts_R[r], exposed += w->exposed_R[r];
    }
    for (size_t r = 0; r < f->n_rings; r++) w->rate_R[r] = counts / (exposed > 1 ? exposed : 1);
    for (size_t v = 0; v < f->n_windows; v++) {
        c[0] = e[0] = 0;
        for (size_t r = 0; r < f->n_rings; r++) {
            c[r + 1] = c[r] + w->counts_R[r];
            e[r + 1] = e[r] + w->exposed_R[r] * w->rate_R[r];
        }
        for (size_t r = 0; r < f->n_rings; r++) {
            double seen = window_sum(c, r, f->window[v] / 2, f->n_rings);
            double expected = window_sum(e, r, f->window[v] / 2, f->n_rings);
            w->rate_R[r] *= (seen + f->ring_prior) / (expected + f->ring_prior);
        }
    }
    for (size_t r = 0; r < f->n_rings; r++) w->rate_32[r] = (float)w->rate_R[r];
}

/* A row's answers: columns' sums, the largest of each chunk, and the cells and bins to add up, `n` of them. */
typedef struct {
    float *column;
    uint32_t *most;
    const uint32_t *sums;
    const uint16_t *bin;
    size_t n;
    uint16_t last_bin; /* the largest */
} row;

FAST static uint16_t largest(const uint16_t *bin, size_t n) {
    uint16_t most = 0;
    for (size_t k = 0; k < n; k++) most = bin[k] > most ? bin[k] : most;
    return most;
}

/* Two sums of each bin take turns: neighbours often share one, and an addition waits for the last. */
static void add_bins(const uint32_t *restrict sums, const uint16_t *restrict bin, uint64_t *restrict even,
                     uint64_t *restrict odd, size_t n) {
    size_t k = 0;
    for (; k + 1 < n; k += 2) even[bin[k]] += sums[k], odd[bin[k + 1]] += sums[k + 1];
    if (k < n) even[bin[k]] += sums[k];
}

FAST static void survey_row(row *r, size_t n) {
    const uint32_t *restrict sums = r->sums;
    float *restrict column = r->column;
    for (size_t k = 0; k < n; k++) column[k] += (float)sums[k];
    for (size_t first = 0; first < n; first += CHUNK) {
        uint32_t top = 0;
        for (size_t k = first; k < smaller(first + CHUNK, n); k++) top = sums[k] > top ? sums[k] : top;
        r->most[first / CHUNK] = top;
    }
    r->n = n, r->last_bin = largest(r->bin, n);
}

#define BATCH 16

#if HAVE_X86
/* The same in one pass; of the cells, most are empty, those that hold photons are kept in `filled`, which has room for
 * BATCH more. */
__attribute__((target("avx512f,avx512bw,avx512vl"))) static void survey_row_avx512(row *r, uint32_t *restrict filled,
                                                                                    uint16_t *restrict filled_bin, size_t n) {
    __m512i last_bin = _mm512_setzero_si512();
    size_t kept = 0;
    for (size_t first = 0; first < n; first += CHUNK) {
        __m512i top = _mm512_setzero_si512();
        for (size_t k = first; k < smaller(first + CHUNK, n); k += BATCH) {
            const __mmask16 here = n - k < BATCH ? (__mmask16)((1u << (n - k)) - 1) : (__mmask16)0xffff;
            const __m512i counts = _mm512_maskz_loadu_epi32(here, r->sums + k);
            const __m512i bins = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(here, r->bin + k));
            const __m512 column = _mm512_maskz_loadu_ps(here, r->column + k);
            _mm512_mask_storeu_ps(r->column + k, here, _mm512_add_ps(column, _mm512_cvtepu32_ps(counts)));
            top = _mm512_max_epu32(top, counts), last_bin = _mm512_max_epu32(last_bin, bins);
            const __mmask16 some = _mm512_test_epi32_mask(counts, counts);
            _mm512_storeu_si512(filled + kept, _mm512_maskz_compress_epi32(some, counts));
            const __m256i narrow = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(some, bins));
            _mm256_storeu_si256((__m256i *)(void *)(filled_bin + kept), narrow);
            kept += (size_t)__builtin_popcount(some);
        }
        r->most[first / CHUNK] = _mm512_reduce_max_epu32(top);
    }
    r->sums = filled, r->bin = filled_bin, r->n = kept, r->last_bin = (uint16_t)_mm512_reduce_max_epu32(last_bin);
}
#endif

#define TOGETHER 8 /* blocks whose sums grow side by side: each addition waits for the one before it */

/* Add a row of column sums to the sums of the blocks that it crosses. */
static void add_blocks(const work *w, const float *column, double *blocks) {
    const size_t width = w->f->width, block = w->f->block;
    size_t to = 0;
    for (; (to + TOGETHER) * block <= width; to += TOGETHER) {
        double sum[TOGETHER];
        memcpy(sum, blocks + to, sizeof sum);
        for (size_t j = 0; j < block; j++)
            for (size_t b = 0; b < TOGETHER; b++) sum[b] += column[(to + b) * block + j];
        memcpy(blocks + to, sum, sizeof sum);
    }
    for (size_t j = to * block; j < width; j++) blocks[j / block] += column[j];
}

/* Read the counts: sums of bins and of blocks, the largest of each chunk. */
static outcome survey(work *w) {
    const background_frame *f = w->f;
    for (size_t i = 0; i < f->height; i++) {
        row r = {w->column, w->most + i * w->chunks, f->sums + i * f->width, f->bin + i * f->width, 0, 0};
#if HAVE_X86
        if (w->has_avx512) survey_row_avx512(&r, w->filled, w->filled_bin, f->width);
        else
#endif
            survey_row(&r, f->width);
        if (r.last_bin >= w->n_bins || largest(f->lowest + i * w->groups, w->groups) >= f->n_rings) return BAD_BIN;
        add_bins(r.sums, r.bin, w->even_N, w->odd_N, r.n);
        if ((i + 1) % f->block && i + 1 < f->height) continue;
        add_blocks(w, w->column, w->seen + i / f->block * w->across);
        memset(w->column, 0, f->width * sizeof *w->column);
    }
    for (size_t b = 0; b < w->n_bins; b++) {
        f->total_N[b] = f->counts_N[b] = (float)(w->even_N[b] + w->odd_N[b]);
        f->exposed_N[b] = f->exposure_N[b];
    }
    return FINE;
}

FAST static void flag_above(const uint32_t *restrict sums, const uint16_t *restrict bin, const float *restrict limit_N,
                            uint8_t *restrict flags, size_t n) {
    for (size_t k = 0; k < n; k++) flags[k] = (float)sums[k] > limit_N[bin[k]];
}

static int note_spot(work *w, size_t cell) {
    if (w->n_spots == w->room) {
        size_t room = 2 * w->room + 1024;
        int32_t *spots = realloc(w->spots, room * sizeof *spots);
        if (!spots) return 0;
        w->spots = spots, w->room = room;
    }
    w->spots[w->n_spots++] = (int32_t)cell;
    return 1;
}

/* List the cells above the limit of their ring and take them out of the bins. */
static outcome clip(work *w) {
    const background_frame *f = w->f;
    float least = INFINITY;
    for (size_t r = 0; r < f->n_rings; r++) {
        float full = w->rate_32[r] * (float)f->cell_px2;
        float limit = full + (float)f->clip_sigma * sqrtf(full) + (float)f->clip_photons;
        for (size_t s = r * f->n_sectors; s < (r + 1) * f->n_sectors; s++) w->limit_N[s] = limit;
        least = limit < least ? limit : least;
    }
    memset(w->even_N, 0, w->n_bins * sizeof *w->even_N);
    memset(w->hidden_N, 0, w->n_bins * sizeof *w->hidden_N);
    w->n_spots = 0;
    for (size_t c = 0; c < w->chunks * f->height; c++) {
        if (!((float)w->most[c] > least)) continue;
        size_t column = c % w->chunks * CHUNK, first = c / w->chunks * f->width + column;
        size_t n = smaller(CHUNK, f->width - column);
        uint8_t flags[CHUNK];
        flag_above(f->sums + first, f->bin + first, w->limit_N, flags, n);
        for (size_t k = first; k < first + n; k++) {
            if (!flags[k - first]) continue;
            if (!note_spot(w, k)) return NO_MEMORY;
            w->even_N[f->bin[k]] += f->sums[k], w->hidden_N[f->bin[k]] += f->exposure[k];
        }
    }
    for (size_t b = 0; b < w->n_bins; b++) {
        f->counts_N[b] = fmaxf(f->total_N[b] - (float)w->even_N[b], 0);
        f->exposed_N[b] = fmaxf(f->exposure_N[b] - (float)w->hidden_N[b], 0);
    }
    return FINE;
}

static float *mean_of_row(const work *w, size_t i) { return w->means + i % (BANDS * w->f->block) * w->stride; }

/* The rings' prediction for cells of a row, from column `k` on; it is added to the columns' sums. */
static void predict_cells(const work *w, size_t i, size_t k) {
    const background_frame *f = w->f;
    const uint16_t *lowest = f->lowest + i * w->groups;
    const uint8_t *above = f->above + i * w->groups * LANES, *exposure = f->exposure + i * f->width;
    float *mean = mean_of_row(w, i);
    for (; k < f->width; k++) {
        mean[k] = w->rate_32[lowest[k / LANES] + above[k] % LANES] * exposure[k];
        w->column[k] += mean[k];
    }
}

#if HAVE_X86
/* The same for all LANES that are whole, looked up in a register; returns the column where they end. */
__attribute__((target("avx2"))) static size_t predict_avx2(const work *w, size_t i) {
    const background_frame *f = w->f;
    const uint16_t *lowest = f->lowest + i * w->groups;
    const uint8_t *above = f->above + i * w->groups * LANES, *exposure = f->exposure + i * f->width;
    float *mean = mean_of_row(w, i);
    size_t k = 0;
    for (; k + LANES <= f->width; k += LANES) {
        __m256i turn = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(above + k)));
        __m256i pixels = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(exposure + k)));
        __m256 rate = _mm256_permutevar8x32_ps(_mm256_loadu_ps(w->rate_32 + *lowest++), turn);
        __m256 photons = _mm256_mul_ps(rate, _mm256_cvtepi32_ps(pixels));
        _mm256_storeu_ps(mean + k, photons);
        _mm256_storeu_ps(w->column + k, _mm256_add_ps(_mm256_loadu_ps(w->column + k), photons));
    }
    return k;
}

/* Twice as many. */
__attribute__((target("avx512f,avx512dq"))) static size_t predict_avx512(const work *w, size_t i) {
    const background_frame *f = w->f;
    const uint16_t *lowest = f->lowest + i * w->groups;
    const uint8_t *above = f->above + i * w->groups * LANES, *exposure = f->exposure + i * f->width;
    const __m512i second = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi32(LANES), 1);
    float *mean = mean_of_row(w, i);
    size_t k = 0;
    for (; k + 2 * LANES <= f->width; k += 2 * LANES, lowest += 2) {
        __m512i turn = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(above + k)));
        __m512i pixels = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(exposure + k)));
        __m512 rates = _mm512_castps256_ps512(_mm256_loadu_ps(w->rate_32 + lowest[0]));
        rates = _mm512_insertf32x8(rates, _mm256_loadu_ps(w->rate_32 + lowest[1]), 1);
        __m512 rate = _mm512_permutexvar_ps(_mm512_add_epi32(turn, second), rates);
        __m512 photons = _mm512_mul_ps(rate, _mm512_cvtepi32_ps(pixels));
        _mm512_storeu_ps(mean + k, photons);
        _mm512_storeu_ps(w->column + k, _mm512_add_ps(_mm512_loadu_ps(w->column + k), photons));
    }
    return k;
}
#endif

static void predict_row(const work *w, size_t i) {
    size_t from = 0;
#if HAVE_X86
    if (w->has_avx512) from = predict_avx512(w, i);
    else if (w->has_avx2) from = predict_avx2(w, i);
#endif
    predict_cells(w, i, from);
}

/* Predict the cells of the next row of blocks and sum them, spots left out. */
static void predict_band(work *w) {
    const background_frame *f = w->f;
    size_t band = w->bands++, end = smaller((band + 1) * f->block, f->height);
    memset(w->column, 0, f->width * sizeof *w->column);
    for (size_t i = band * f->block; i < end; i++) predict_row(w, i);
    add_blocks(w, w->column, w->expected + band * w->across);
    for (; w->spot < w->n_spots && (size_t)w->spots[w->spot] < end * f->width; w->spot++) {
        size_t k = (size_t)w->spots[w->spot], column = k % f->width, to = band * w->across + column / f->block;
        w->seen[to] -= f->sums[k], w->expected[to] -= mean_of_row(w, k / f->width)[column];
    }
}

/* Between which two blocks' middles a cell lies: the first block, and the share of the next. */
static float between(size_t cell, size_t block, size_t blocks, int32_t *low) {
    float at = ((float)cell + 0.5f) / (float)block - 0.5f;
    at = at < 0 ? 0 : at > (float)(blocks - 1) ? (float)(blocks - 1) : at;
    *low = (int32_t)at;
    return at - (float)*low;
}

FAST static void scale_row(float *restrict mean, const float *restrict low, const float *restrict high, float share,
                           float *restrict column, size_t n) {
    for (size_t k = 0; k < n; k++) {
        mean[k] *= low[k] * (1 - share) + high[k] * share;
        column[k] += mean[k];
    }
}

/* Lay blocks' ratios out along a row; block b is the last left of the columns from[b] to from[b + 1]. */
FAST static void lay_along(const float *restrict ratio, const int32_t *restrict from, const float *restrict share,
                           float *restrict row, size_t n) {
    for (size_t b = 0; b < n; b++)
        for (int32_t j = from[b]; j < from[b + 1]; j++) row[j] = ratio[b] * (1 - share[j]) + ratio[b + 1] * share[j];
}

/* Sums of up to three rows of blocks; the rim of the answer stays 0. */
static void add_three(const work *w, const double *blocks, size_t i, double *sum) {
    memset(sum, 0, (w->across + 2) * sizeof *sum);
    for (size_t y = i ? i - 1 : 0; y < smaller(i + 2, w->down); y++)
        for (size_t x = 0; x < w->across; x++) sum[x + 1] += blocks[y * w->across + x];
}

/* Ratios of counts to prediction of a row of blocks, each with its neighbours, laid out along the cells of a row. */
static void lay_out(work *w, size_t i, float *row) {
    while (w->bands < smaller(i + 2, w->down)) predict_band(w);
    double *s = w->seen_3, *e = w->expected_3, prior = w->f->block_prior;
    add_three(w, w->seen, i, s);
    add_three(w, w->expected, i, e);
    for (size_t j = 0; j < w->across; j++)
        w->ratio[j] = (float)((s[j] + s[j + 1] + s[j + 2] + prior) / (e[j] + e[j + 1] + e[j + 2] + prior));
    w->ratio[w->across] = 0; /* its share is 0 */
    lay_along(w->ratio, w->from, w->share, row, w->across);
}

/* Predict the cells, multiply them by the smooth ratio of counts to prediction, and hand them on. The second follows the
 * first by up to BANDS rows of blocks, which are still in cache then. */
static int predict(work *w, float *column, row_taker *take, void *with) {
    background_frame *f = w->f;
    float *rows[2] = {w->rows, w->rows + f->width};
    int done = 1;
    for (size_t j = 0; j < f->width; j++) {
        int32_t low;
        w->share[j] = between(j, f->block, w->across, &low);
        for (size_t b = (size_t)low + 1; b <= w->across; b++) w->from[b] = (int32_t)j + 1;
    }
    memset(column, 0, f->width * sizeof *column);
    for (size_t next = 0, i = 0; i < f->height && done; i++) {
        int32_t low;
        float share = between(i, f->block, w->down, &low);
        size_t high = smaller((size_t)low + 1, w->down - 1);
        for (; next <= high; next++) lay_out(w, next, rows[next % 2]);
        scale_row(mean_of_row(w, i), rows[low % 2], rows[high % 2], share, column, f->width);
        done = take(with, i, mean_of_row(w, i));
    }
    f->mean_sum = 0;
    for (size_t j = 0; j < f->width; j++) f->mean_sum += column[j];
    return done;
}

static outcome estimate(work *w, float *column, row_taker *take, void *with) {
    outcome found = survey(w);
    rate_rings(w);
    for (int k = 0; k < w->f->n_clips && found == FINE; k++) {
        found = clip(w);
        rate_rings(w);
    }
    if (found == FINE && !predict(w, column, take, with)) found = NO_MEMORY;
    return found;
}

outcome estimate_background(background_frame *f, row_taker *take, void *with) {
    size_t rings = f->n_rings, bins = rings * f->n_sectors, width = f->width;
    work w = {.f = f, .n_bins = bins, .chunks = (width + CHUNK - 1) / CHUNK, .groups = (width + LANES - 1) / LANES};
#if HAVE_X86
    w.has_avx2 = __builtin_cpu_supports("avx2");
    w.has_avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl");
#endif
    w.down = (f->height + f->block - 1) / f->block, w.across = (width + f->block - 1) / f->block;
    size_t blocks = w.down * w.across;
    double *d = calloc(5 * rings + 2 + bins + 2 * blocks + 2 * (w.across + 2), sizeof *d);
    uint64_t *n = calloc(2 * bins, sizeof *n);
    float *s = calloc(rings + LANES + bins + 5 * width + w.across + 1, sizeof *s);
    w.from = calloc(w.across + 1, sizeof *w.from);
    w.most = malloc(f->height * w.chunks * sizeof *w.most);
    w.filled = malloc((width + BATCH) * sizeof *w.filled);
    w.filled_bin = malloc((width + BATCH) * sizeof *w.filled_bin);
    w.stride = ((width + LINE - 1) / LINE + BEHIND + 1) * LINE;
    w.means = malloc(BANDS * f->block * w.stride * sizeof *w.means);
    outcome found = NO_MEMORY;
    if (d && n && s && w.from && w.most && w.filled && w.filled_bin && w.means) {
        w.counts_R = d, w.exposed_R = d + rings, w.rate_R = d + 2 * rings, w.sum_R = d + 3 * rings;
        w.hidden_N = w.sum_R + 2 * (rings + 1), w.seen = w.hidden_N + bins, w.expected = w.seen + blocks;
        w.seen_3 = w.expected + blocks, w.expected_3 = w.seen_3 + w.across + 2;
        w.even_N = n, w.odd_N = n + bins;
        w.rate_32 = s, w.limit_N = s + rings + LANES, w.share = w.limit_N + bins, w.column = w.share + width;
        w.rows = w.column + width, w.ratio = w.rows + 3 * width;
        /* Behind a row so much is expected that nothing is above it. */
        for (size_t k = 0; k < BANDS * f->block * w.stride; k++) w.means[k] = 1e9f;
        found = estimate(&w, w.rows + 2 * width, take, with);
    }
    free(d), free(n), free(s), free(w.from), free(w.most), free(w.filled), free(w.filled_bin), free(w.means), free(w.spots);
    return found;
}
