/* One frame's cells on one CPU core: its background, the boxes worth an exact tail, tails, and which boxes hide
 * which. What is computed is defined in torch by `background.estimate_torch` and the `_torch` functions of
 * `scan`, whose names and constants these take; tests hold both equal. Every index that a table brings is
 * checked before it is used. */
#define _DEFAULT_SOURCE /* lgamma_r */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define FAST __attribute__((target_clones("avx2", "default")))
#else
#define FAST
#endif

#define LANES 8
#define MAX_WINDOWS 8

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* The largest of indices; a negative one is very large. */
FAST static uint32_t largest(const int32_t *index, size_t n) {
    uint32_t most = 0;
    for (size_t k = 0; k < n; k++) most = (uint32_t)index[k] > most ? (uint32_t)index[k] : most;
    return most;
}

static void end_flags(uint8_t *flags, size_t count) {
    for (size_t k = count; k % LANES; k++) flags[k] = 0;
}

static int none_flagged(const uint8_t *flags) {
    uint64_t eight;
    memcpy(&eight, flags, sizeof eight);
    return !eight;
}

/* ---- background ---------------------------------------------------------------------------------------- */

typedef struct {
    const float *sums, *exposure, *exposure_N;
    const int32_t *ring, *bin;
    size_t height, width, n_rings, n_sectors, n_windows;
    size_t window[MAX_WINDOWS], block;
    double ring_prior, block_prior, clip_sigma, clip_photons, cell_px2;
    int n_clips;
    float *mean, *total_N, *counts_N, *exposed_N; /* the answer */
    double *counts_R, *exposed_R, *rate_R, *lost_N, *hidden_N, *sum_R; /* scratch */
    float *limit_R, *rate32_R, *row;
    uint8_t *flags;
    int32_t *spots; /* flat index of clipped cells */
    double *seen, *expected; /* blocks */
    int32_t *low; /* for each column the block whose middle is left of it, and the share of the next one */
    float *share;
} frame;

static size_t n_blocks(size_t n_cells, size_t block) { return (n_cells + block - 1) / block; }

static double window_sum(const double *cumulative, size_t ring, size_t half, size_t n) {
    size_t first = ring > half ? ring - half : 0, end = smaller(ring + half + 1, n);
    return cumulative[end] - cumulative[first];
}

/* Photons per pixel of each ring from the widest window to the narrowest. */
static void rate_rings(frame *f) {
    double counts = 0, exposed = 0, *c = f->sum_R, *e = f->sum_R + f->n_rings + 1;
    for (size_t r = 0; r < f->n_rings; r++) {
        f->counts_R[r] = f->exposed_R[r] = 0;
        for (size_t s = r * f->n_sectors; s < (r + 1) * f->n_sectors; s++)
            f->counts_R[r] += f->counts_N[s], f->exposed_R[r] += f->exposed_N[s];
        counts += f->counts_R[r], exposed += f->exposed_R[r];
    }
    for (size_t r = 0; r < f->n_rings; r++) f->rate_R[r] = counts / (exposed > 1 ? exposed : 1);
    for (size_t w = 0; w < f->n_windows; w++) {
        c[0] = e[0] = 0;
        for (size_t r = 0; r < f->n_rings; r++) {
            c[r + 1] = c[r] + f->counts_R[r];
            e[r + 1] = e[r] + f->exposed_R[r] * f->rate_R[r];
        }
        for (size_t r = 0; r < f->n_rings; r++) {
            double seen = window_sum(c, r, f->window[w] / 2, f->n_rings);
            double expected = window_sum(e, r, f->window[w] / 2, f->n_rings);
            f->rate_R[r] *= (seen + f->ring_prior) / (expected + f->ring_prior);
        }
    }
    for (size_t r = 0; r < f->n_rings; r++) f->rate32_R[r] = (float)f->rate_R[r];
}

/* Two sums of each bin take turns: neighbours often share one, and an addition waits for the last. */
static void add_bins(const float *restrict sums, const int32_t *restrict bin, double *restrict even,
                     double *restrict odd, size_t n) {
    size_t k = 0;
    for (; k + 1 < n; k += 2) even[bin[k]] += sums[k], odd[bin[k + 1]] += sums[k + 1];
    if (k < n) even[bin[k]] += sums[k];
}

static void total_bins(frame *f) {
    size_t n_bins = f->n_rings * f->n_sectors;
    memset(f->lost_N, 0, n_bins * sizeof *f->lost_N);
    memset(f->hidden_N, 0, n_bins * sizeof *f->hidden_N);
    add_bins(f->sums, f->bin, f->lost_N, f->hidden_N, f->height * f->width);
    for (size_t b = 0; b < n_bins; b++) {
        f->total_N[b] = f->counts_N[b] = (float)(f->lost_N[b] + f->hidden_N[b]);
        f->exposed_N[b] = f->exposure_N[b];
    }
}

FAST static void flag_above(const float *restrict n, float limit, uint8_t *restrict flags, size_t count) {
    for (size_t k = 0; k < count; k++) flags[k] = n[k] > limit;
}

/* List the cells above the limit of their ring and take them out of the bins; return how many. */
static size_t clip(frame *f) {
    size_t n_bins = f->n_rings * f->n_sectors, n_cells = f->height * f->width, n_spots = 0;
    float least = INFINITY;
    for (size_t r = 0; r < f->n_rings; r++) {
        float full = f->rate32_R[r] * (float)f->cell_px2;
        f->limit_R[r] = full + (float)f->clip_sigma * sqrtf(full) + (float)f->clip_photons;
        least = f->limit_R[r] < least ? f->limit_R[r] : least;
    }
    memset(f->lost_N, 0, n_bins * sizeof *f->lost_N);
    memset(f->hidden_N, 0, n_bins * sizeof *f->hidden_N);
    for (size_t first = 0; first < n_cells; first += f->width) {
        flag_above(f->sums + first, least, f->flags, f->width);
        end_flags(f->flags, f->width);
        for (size_t j = 0; j < f->width; j += LANES) {
            if (none_flagged(f->flags + j)) continue;
            for (size_t k = first + j; k < first + smaller(j + LANES, f->width); k++) {
                if (!(f->sums[k] > f->limit_R[f->ring[k]])) continue;
                f->spots[n_spots++] = (int32_t)k;
                f->lost_N[f->bin[k]] += f->sums[k], f->hidden_N[f->bin[k]] += f->exposure[k];
            }
        }
    }
    for (size_t b = 0; b < n_bins; b++) {
        f->counts_N[b] = fmaxf(f->total_N[b] - (float)f->lost_N[b], 0);
        f->exposed_N[b] = fmaxf(f->exposure_N[b] - (float)f->hidden_N[b], 0);
    }
    return n_spots;
}

/* One row: the rings' prediction for each cell; it and the counts are added to sums over rows. */
FAST static void predict_row(const float *restrict rate_R, const int32_t *restrict ring,
                             const float *restrict exposure, const float *restrict sums, float *restrict mean,
                             float *restrict seen, float *restrict expected, size_t n) {
    for (size_t k = 0; k < n; k++) mean[k] = rate_R[ring[k]] * exposure[k];
    for (size_t k = 0; k < n; k++) seen[k] += sums[k], expected[k] += mean[k];
}

/* Predict all cells, and sum prediction and counts over blocks, spots left out. */
static void predict(frame *f, size_t n_spots) {
    size_t across = n_blocks(f->width, f->block), all = across * n_blocks(f->height, f->block);
    float *seen = f->row, *expected = f->row + f->width;
    memset(f->seen, 0, all * sizeof *f->seen);
    memset(f->expected, 0, all * sizeof *f->expected);
    for (size_t i = 0; i < f->height; i++) {
        size_t first = i * f->width, to = i / f->block * across;
        if (i % f->block == 0) memset(f->row, 0, 2 * f->width * sizeof *f->row);
        predict_row(f->rate32_R, f->ring + first, f->exposure + first, f->sums + first, f->mean + first, seen,
                    expected, f->width);
        if (i % f->block != f->block - 1 && i != f->height - 1) continue;
        for (size_t j = 0; j < f->width; to++)
            for (size_t end = smaller(j + f->block, f->width); j < end; j++)
                f->seen[to] += seen[j], f->expected[to] += expected[j];
    }
    for (size_t s = 0; s < n_spots; s++) {
        size_t k = (size_t)f->spots[s], to = k / f->width / f->block * across + k % f->width / f->block;
        f->seen[to] -= f->sums[k], f->expected[to] -= f->mean[k];
    }
}

static double around(const double *blocks, size_t i, size_t j, size_t down, size_t across) {
    double sum = 0;
    for (size_t y = i ? i - 1 : 0; y < smaller(i + 2, down); y++)
        for (size_t x = j ? j - 1 : 0; x < smaller(j + 2, across); x++) sum += blocks[y * across + x];
    return sum;
}

/* Between which two blocks' middles a cell lies: the first block, and the share of the next. */
static float between(size_t cell, size_t block, size_t blocks, int32_t *low) {
    float at = ((float)cell + 0.5f) / (float)block - 0.5f;
    at = at < 0 ? 0 : at > (float)(blocks - 1) ? (float)(blocks - 1) : at;
    *low = (int32_t)at;
    return at - (float)*low;
}

FAST static void scale_row(float *restrict mean, const float *low, const float *high, float share, size_t n) {
    for (size_t k = 0; k < n; k++) mean[k] *= low[k] * (1 - share) + high[k] * share;
}

/* A row of blocks' ratios of counts to prediction, laid out along the cells of a row; `ratio` has room for one
 * block more. */
static void lay_out(frame *f, size_t i, float *ratio, float *row) {
    size_t down = n_blocks(f->height, f->block), across = n_blocks(f->width, f->block);
    for (size_t j = 0; j < across; j++)
        ratio[j] = (float)((around(f->seen, i, j, down, across) + f->block_prior) /
                           (around(f->expected, i, j, down, across) + f->block_prior));
    ratio[across] = 0; /* its share is 0 */
    for (size_t j = 0; j < f->width; j++)
        row[j] = ratio[f->low[j]] * (1 - f->share[j]) + ratio[f->low[j] + 1] * f->share[j];
}

/* Multiply the prediction by the smooth ratio of counts to it. */
static void correct(frame *f) {
    size_t down = n_blocks(f->height, f->block), across = n_blocks(f->width, f->block);
    float *rows[2] = {f->row, f->row + f->width}, *ratio = f->row + 2 * f->width;
    for (size_t j = 0; j < f->width; j++) f->share[j] = between(j, f->block, across, f->low + j);
    for (size_t next = 0, i = 0; i < f->height; i++) {
        int32_t low;
        float share = between(i, f->block, down, &low);
        size_t high = smaller((size_t)low + 1, down - 1);
        for (; next <= high; next++) lay_out(f, next, ratio, rows[next % 2]);
        scale_row(f->mean + i * f->width, rows[low % 2], rows[high % 2], share, f->width);
    }
}

static int estimate(frame *f) {
    size_t n_cells = f->height * f->width, n_bins = f->n_rings * f->n_sectors, n_spots = 0;
    size_t blocks = n_blocks(f->height, f->block) * n_blocks(f->width, f->block);
    double *d = malloc((3 * f->n_rings + 2 * (f->n_rings + 1) + 2 * n_bins + 2 * blocks) * sizeof *d);
    float *s = malloc((2 * f->n_rings + 4 * f->width + 1) * sizeof *s);
    f->flags = malloc(f->width + LANES);
    f->low = malloc(f->width * sizeof *f->low);
    f->spots = malloc(n_cells * sizeof *f->spots);
    int done = d && s && f->flags && f->low && f->spots;
    if (done) {
        f->counts_R = d, f->exposed_R = d + f->n_rings, f->rate_R = d + 2 * f->n_rings;
        f->sum_R = d + 3 * f->n_rings, f->lost_N = f->sum_R + 2 * (f->n_rings + 1);
        f->hidden_N = f->lost_N + n_bins, f->seen = f->hidden_N + n_bins, f->expected = f->seen + blocks;
        f->limit_R = s, f->rate32_R = s + f->n_rings, f->share = s + 2 * f->n_rings, f->row = f->share + f->width;
        total_bins(f);
        rate_rings(f);
        for (int k = 0; k < f->n_clips; k++) {
            n_spots = clip(f);
            rate_rings(f);
        }
        predict(f, n_spots);
        correct(f);
    }
    free(d), free(s), free(f->flags), free(f->low), free(f->spots);
    return done;
}

/* ---- boxes ---------------------------------------------------------------------------------------------- */

#define N_SCALES 4

typedef struct {
    const float *sums, *maxima, *mean, *exposure;
    size_t height, width;
    float sigma, photons[N_SCALES];
    int64_t *at; /* N_SCALES rows of height * width each, and so the next two */
    float *n, *expected;
    size_t found[N_SCALES];
    uint8_t *flags;
} boxes;

static float limit_of(const boxes *b, int scale, float mean) {
    return sqrtf(mean) * b->sigma + mean + b->photons[scale];
}

/* Flag what may be above its limit without a root: all that are, few that are not. */
FAST static void flag_likely(const float *restrict n, const float *restrict mean, float sigma, float photons,
                             uint8_t *restrict flags, size_t count) {
    float variances = 0.999f * sigma * sigma;
    for (size_t k = 0; k < count; k++) {
        float above = n[k] - mean[k] * 0.99999f - photons * 0.99999f;
        flags[k] = (above > 0) & (above * above >= variances * mean[k]);
    }
}

/* Rows `a` and `b` added, then each to the one `step` columns on; `to` may be neither. */
FAST static void double_row(const float *restrict a, const float *restrict b, size_t step, float *restrict rows,
                            float *restrict to, size_t width) {
    for (size_t k = 0; k < width; k++) rows[k] = b[k] + a[k];
    for (size_t k = 0; k + step < width; k++) to[k] = rows[k + step] + rows[k];
}

FAST static void per_px(const float *restrict mean, const float *restrict exposure, float *restrict to, size_t n) {
    for (size_t k = 0; k < n; k++) to[k] = mean[k] / (exposure[k] > 1 ? exposure[k] : 1);
}

/* Note the boxes of row `i` that are above their limit; `width` of them begin in it. */
static void note_row(boxes *b, int scale, size_t i, size_t width, const float *n, const float *mean) {
    size_t found = b->found[scale], base = (size_t)scale * b->height * b->width;
    flag_likely(n, mean, b->sigma, b->photons[scale], b->flags, width);
    end_flags(b->flags, width);
    for (size_t j = 0; j < width; j += LANES) {
        if (none_flagged(b->flags + j)) continue;
        for (size_t k = j; k < smaller(j + LANES, width); k++) {
            if (!b->flags[k] || !(n[k] > limit_of(b, scale, mean[k]))) continue;
            b->at[base + found] = (int64_t)(i * b->width + k);
            b->n[base + found] = n[k], b->expected[base + found] = mean[k];
            found++;
        }
    }
    b->found[scale] = found;
}

static int find_above(boxes *b) {
    size_t w = b->width;
    float *scratch = malloc(9 * w * sizeof *scratch);
    b->flags = malloc(w + LANES);
    int done = scratch && b->flags;
    for (size_t i = 0; done && i < b->height; i++) {
        const float *sums = b->sums + i * w, *mean = b->mean + i * w;
        float *rows = scratch, *four = scratch + w, *four_mean = scratch + 2 * w, *two = scratch + 3 * w;
        per_px(mean, b->exposure + i * w, rows, w);
        note_row(b, 0, i, w, b->maxima + i * w, rows);
        note_row(b, 1, i, w, sums, mean);
        if (i < 1 || w < 2) continue;
        float *here = two + (i - 1) % 3 * 2 * w; /* sums and means of boxes of two rows, three rows kept */
        double_row(sums - w, sums, 1, rows, here, w);
        double_row(mean - w, mean, 1, rows, here + w, w);
        note_row(b, 2, i - 1, w - 1, here, here + w);
        if (i < 3 || w < 4) continue;
        float *above = two + (i - 3) % 3 * 2 * w;
        double_row(above, here, 2, rows, four, w - 1);
        double_row(above + w, here + w, 2, rows, four_mean, w - 1);
        note_row(b, 3, i - 3, w - 3, four, four_mean);
    }
    free(scratch), free(b->flags);
    return done;
}

/* ---- tails and neighbours ------------------------------------------------------------------------------- */

/* Kummer's function as in `neg_log10_tail_torch`, where n > mean. */
FAST static void kummer(const double *restrict n, const double *restrict mean, double *restrict value) {
    double fraction[LANES] = {0};
    for (int k = 12; k > 0; k--)
        for (int c = 0; c < LANES; c++) {
            double half = (k + 1) / 2, term = k % 2 ? half * mean[c] : -(n[c] + half) * mean[c];
            fraction[c] = term / (n[c] + 1 + k + fraction[c]);
        }
    for (int c = 0; c < LANES; c++) value[c] = 1 / (1 - mean[c] / (n[c] + 1 + fraction[c]));
}

static void neg_log10_tails(const double *n, const double *mean, float *tail, size_t count) {
    for (size_t first = 0; first < count; first += LANES) {
        size_t some = smaller(LANES, count - first);
        double safe[LANES], at_least[LANES], factor[LANES];
        for (size_t c = 0; c < LANES; c++) {
            double m = c < some ? mean[first + c] : 1;
            at_least[c] = m > 1e-12 ? m : 1e-12;
            safe[c] = c < some && n[first + c] > at_least[c] ? n[first + c] : at_least[c] + 1;
        }
        kummer(safe, at_least, factor);
        for (size_t c = 0; c < some; c++) {
            int sign;
            double log_tail = safe[c] * log(at_least[c]) - at_least[c] - lgamma_r(safe[c] + 1, &sign) +
                              log(factor[c] > 1 ? factor[c] : 1);
            tail[first + c] = n[first + c] > at_least[c] && log_tail < 0 ? (float)(-log_tail / log(10)) : 0;
        }
    }
}

/* Of two neighbours the one with less evidence goes, of equals the later. `place` rises; `width` is the distance
 * of two rows. */
static void keep_maxima(const float *evidence, const int64_t *place, int64_t width, uint8_t *kept, size_t count) {
    memset(kept, 1, count);
    for (size_t k = 0, above = 0; k < count; k++) {
        while (above < k && place[above] < place[k] - width - 1) above++;
        for (size_t p = above; p < k && place[p] <= place[k] - width + 1; p++)
            kept[evidence[k] > evidence[p] ? p : k] = 0;
        if (k && place[k - 1] == place[k] - 1) kept[evidence[k] > evidence[k - 1] ? k - 1 : k] = 0;
    }
}

/* A box goes if any before it reaches it. */
static void hide_overlapped(const float *ss, const float *fs, const float *size, uint8_t *kept, size_t count) {
    for (size_t k = 0; k < count; k++) {
        size_t p = 0;
        while (p < k && fmaxf(fabsf(ss[k] - ss[p]), fabsf(fs[k] - fs[p])) > (size[k] + size[p]) / 2) p++;
        kept[k] = p == k;
    }
}

/* ---- Python's face -------------------------------------------------------------------------------------- */

static int holds(const Py_buffer *view, const char *name, size_t n, size_t itemsize) {
    if ((size_t)view->len == n * itemsize && (uintptr_t)view->buf % itemsize == 0) return 1;
    PyErr_Format(PyExc_ValueError, "%s: %zd bytes; expected %zu aligned ones", name, view->len, n * itemsize);
    return 0;
}

static int in_range(Py_ssize_t height, Py_ssize_t width) {
    if (height > 0 && width > 0 && height <= INT32_MAX / width) return 1;
    PyErr_Format(PyExc_ValueError, "%zd x %zd cells: out of range", height, width);
    return 0;
}

static int read_windows(PyObject *windows, frame *f) {
    f->n_windows = (size_t)PyTuple_GET_SIZE(windows);
    if (f->n_windows > MAX_WINDOWS) {
        PyErr_Format(PyExc_ValueError, "%zu windows; expected up to %d", f->n_windows, MAX_WINDOWS);
        return 0;
    }
    for (size_t w = 0; w < f->n_windows; w++)
        f->window[w] = PyLong_AsSize_t(PyTuple_GET_ITEM(windows, (Py_ssize_t)w));
    return !PyErr_Occurred();
}

PyDoc_STRVAR(background_doc, "background(sums, exposure, ring, bin, exposure_N, mean, total_N, counts_N, exposed_N, "
                             "(height, width), n_sectors, windows, (ring_prior, block_prior, clip_sigma, "
                             "clip_photons), (n_clips, cell_px, block_cells)) -> None");

static PyObject *py_background(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer v[9];
    Py_ssize_t height, width, n_sectors, block, cell_px;
    PyObject *windows;
    frame f = {0};
    int done = 0;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*w*w*w*w*(nn)nO!(dddd)(inn)", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5],
                          &v[6], &v[7], &v[8], &height, &width, &n_sectors, &PyTuple_Type, &windows, &f.ring_prior,
                          &f.block_prior, &f.clip_sigma, &f.clip_photons, &f.n_clips, &cell_px, &block))
        return NULL;
    size_t n_bins = (size_t)v[4].len / sizeof(float), n_cells = (size_t)height * (size_t)width;
    if (n_sectors < 1 || block < 1 || n_bins < 1 || n_bins % (size_t)n_sectors)
        PyErr_Format(PyExc_ValueError, "%zu bins of %zd sectors, blocks of %zd", n_bins, n_sectors, block);
    else if (in_range(height, width) && holds(&v[0], "sums", n_cells, 4) && holds(&v[1], "exposure", n_cells, 4) &&
             holds(&v[2], "ring", n_cells, 4) && holds(&v[3], "bin", n_cells, 4) && holds(&v[5], "mean", n_cells, 4) &&
             holds(&v[4], "exposure_N", n_bins, 4) && holds(&v[6], "total_N", n_bins, 4) &&
             holds(&v[7], "counts_N", n_bins, 4) && holds(&v[8], "exposed_N", n_bins, 4) && read_windows(windows, &f)) {
        f.sums = v[0].buf, f.exposure = v[1].buf, f.ring = v[2].buf, f.bin = v[3].buf, f.exposure_N = v[4].buf;
        f.mean = v[5].buf, f.total_N = v[6].buf, f.counts_N = v[7].buf, f.exposed_N = v[8].buf;
        f.height = (size_t)height, f.width = (size_t)width, f.block = (size_t)block;
        f.n_sectors = (size_t)n_sectors, f.n_rings = n_bins / (size_t)n_sectors;
        f.cell_px2 = (double)cell_px * (double)cell_px;
        int inside = 0;
        Py_BEGIN_ALLOW_THREADS
        inside = largest(f.ring, n_cells) < f.n_rings && largest(f.bin, n_cells) < n_bins;
        done = inside && estimate(&f);
        Py_END_ALLOW_THREADS
        if (!inside) PyErr_Format(PyExc_ValueError, "a cell's ring or bin is not one of %zu and %zu", f.n_rings, n_bins);
        else if (!done) PyErr_NoMemory();
    }
    for (int k = 0; k < 9; k++) PyBuffer_Release(&v[k]);
    return done ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(above_doc, "above(sums, maxima, mean, exposure, at, n, expected, (height, width), sigma, photons) "
                        "-> tuple[int, int, int, int]\n\nFill each scale's row; return how many it has.");

static PyObject *py_above(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer v[7];
    Py_ssize_t height, width;
    boxes b = {0};
    int done = 0;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*w*w*(nn)f(ffff)", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &height,
                          &width, &b.sigma, &b.photons[0], &b.photons[1], &b.photons[2], &b.photons[3]))
        return NULL;
    size_t n_cells = (size_t)height * (size_t)width;
    if (in_range(height, width) && holds(&v[0], "sums", n_cells, 4) && holds(&v[1], "maxima", n_cells, 4) &&
        holds(&v[2], "mean", n_cells, 4) && holds(&v[3], "exposure", n_cells, 4) &&
        holds(&v[4], "at", N_SCALES * n_cells, 8) && holds(&v[5], "n", N_SCALES * n_cells, 4) &&
        holds(&v[6], "expected", N_SCALES * n_cells, 4)) {
        b.sums = v[0].buf, b.maxima = v[1].buf, b.mean = v[2].buf, b.exposure = v[3].buf;
        b.at = v[4].buf, b.n = v[5].buf, b.expected = v[6].buf;
        b.height = (size_t)height, b.width = (size_t)width;
        Py_BEGIN_ALLOW_THREADS
        done = find_above(&b);
        Py_END_ALLOW_THREADS
        if (!done) PyErr_NoMemory();
    }
    for (int k = 0; k < 7; k++) PyBuffer_Release(&v[k]);
    return done ? Py_BuildValue("KKKK", (unsigned long long)b.found[0], (unsigned long long)b.found[1],
                                (unsigned long long)b.found[2], (unsigned long long)b.found[3])
                : NULL;
}

PyDoc_STRVAR(tails_doc, "neg_log10_tails(n, mean, tails) -> None");

static PyObject *py_tails(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer v[3];
    if (!PyArg_ParseTuple(args, "y*y*w*", &v[0], &v[1], &v[2])) return NULL;
    size_t count = (size_t)v[0].len / sizeof(double);
    int fit = holds(&v[0], "n", count, 8) && holds(&v[1], "mean", count, 8) && holds(&v[2], "tails", count, 4);
    if (fit) {
        Py_BEGIN_ALLOW_THREADS
        neg_log10_tails(v[0].buf, v[1].buf, v[2].buf, count);
        Py_END_ALLOW_THREADS
    }
    for (int k = 0; k < 3; k++) PyBuffer_Release(&v[k]);
    return fit ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(maxima_doc, "keep_maxima(evidence, place, kept, width) -> None");

static PyObject *py_maxima(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer v[3];
    Py_ssize_t width;
    if (!PyArg_ParseTuple(args, "y*y*w*n", &v[0], &v[1], &v[2], &width)) return NULL;
    size_t count = (size_t)v[2].len;
    int fit = holds(&v[0], "evidence", count, 4) && holds(&v[1], "place", count, 8);
    if (fit) keep_maxima(v[0].buf, v[1].buf, width, v[2].buf, count);
    for (int k = 0; k < 3; k++) PyBuffer_Release(&v[k]);
    return fit ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(hide_doc, "hide_overlapped(ss, fs, size, kept) -> None");

static PyObject *py_hide(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer v[4];
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &v[0], &v[1], &v[2], &v[3])) return NULL;
    size_t count = (size_t)v[3].len;
    int fit = holds(&v[0], "ss", count, 4) && holds(&v[1], "fs", count, 4) && holds(&v[2], "size", count, 4);
    if (fit) hide_overlapped(v[0].buf, v[1].buf, v[2].buf, v[3].buf, count);
    for (int k = 0; k < 4; k++) PyBuffer_Release(&v[k]);
    return fit ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"background", py_background, METH_VARARGS, background_doc},
    {"above", py_above, METH_VARARGS, above_doc},
    {"neg_log10_tails", py_tails, METH_VARARGS, tails_doc},
    {"keep_maxima", py_maxima, METH_VARARGS, maxima_doc},
    {"hide_overlapped", py_hide, METH_VARARGS, hide_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_cells",
    .m_doc = "A frame's cells on one CPU core; see _cells.pyi.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__cells(void) { return PyModuleDef_Init(&module); }
