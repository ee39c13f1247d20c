/* One frame's candidates on one CPU core: `scan.scan_torch`, scale by scale, from one pass over the cells. */
#include "_cells.h"

#include <math.h>
#include <stdlib.h>

#define LINE 16 /* floats that rows are aligned to */

typedef struct {
    int64_t place; /* of its first cell: row * (width + 2) + column + 1, so that none has neighbours across an edge */
    float n, mean;
} box;

typedef struct {
    box *of;
    size_t found, room;
} boxes;

typedef struct {
    const scan_frame *f;
    boxes scale[N_SCALES];
    /* Rows of boxes of one, two and four cells, of counts and means; those of two are kept for three rows, `pair` is
     * two rows added. What lies beyond the last box of a row is 0. */
    float *one[2], *two[3], *four, *two_mean[3], *four_mean, *pair, *pair_mean, *nothing;
    uint8_t *flags;
} work;

static float limit_of(const scan_frame *f, int scale, float mean) {
    return sqrtf(mean) * f->sigma + mean + f->photons[scale];
}

/* Flag the columns where a box may be above its limit, a bit for each scale: all that are, few that are not. A
 * pixel's mean is at least a sixteenth of its cell's. */
FAST static void flag_likely(const scan_frame *f, const uint32_t *restrict maxima, const float *restrict one,
                             const float *restrict mean, const float *restrict two, const float *restrict two_mean,
                             const float *restrict four, const float *restrict four_mean, uint8_t *restrict flags) {
    const float variances = 0.9f * f->sigma * f->sigma;
    const float c0 = f->photons[0], c1 = f->photons[1], c2 = f->photons[2], c3 = f->photons[3];
    size_t width = f->width;
    for (size_t k = 0; k < width; k++) {
        float pixel = mean[k] * 0.0625f, above0 = (float)maxima[k] - c0 - pixel, above1 = one[k] - c1 - mean[k];
        float above2 = two[k] - c2 - two_mean[k], above3 = four[k] - c3 - four_mean[k];
        flags[k] = (above0 * fabsf(above0) >= variances * pixel) | (above1 * fabsf(above1) >= variances * mean[k]) << 1 |
                   (above2 * fabsf(above2) >= variances * two_mean[k]) << 2 |
                   (above3 * fabsf(above3) >= variances * four_mean[k]) << 3;
    }
}

FAST static void to_float(const uint32_t *restrict from, float *restrict to, size_t n) {
    for (size_t k = 0; k < n; k++) to[k] = (float)from[k];
}

/* Rows of counts and of means, each added to the one before. */
FAST static void add_rows(const float *restrict one, const float *restrict before, const float *restrict mean,
                          const float *restrict mean_before, float *restrict pair, float *restrict pair_mean, size_t n) {
    for (size_t k = 0; k < n; k++) pair[k] = one[k] + before[k], pair_mean[k] = mean[k] + mean_before[k];
}

/* Each column of two rows added to the one `step` columns on, `n` of them. */
FAST static void add_columns(const float *restrict pair, const float *restrict pair_mean, size_t step,
                             float *restrict to, float *restrict to_mean, size_t n) {
    for (size_t k = 0; k < n; k++) to[k] = pair[k + step] + pair[k], to_mean[k] = pair_mean[k + step] + pair_mean[k];
}

static int note(work *w, int scale, size_t i, size_t j, float n, float mean) {
    boxes *b = &w->scale[scale];
    if (!(n > limit_of(w->f, scale, mean))) return 1;
    if (b->found == b->room) {
        size_t room = 2 * b->room + 1024;
        box *of = realloc(b->of, room * sizeof *of);
        if (!of) return 0;
        b->of = of, b->room = room;
    }
    b->of[b->found++] = (box){(int64_t)(i * (w->f->width + 2) + j + 1), n, mean};
    return 1;
}

/* Note the boxes above their limit that end in row `i`. */
static int note_row(work *w, size_t i, const float *one, const float *two, const float *two_mean) {
    const scan_frame *f = w->f;
    const uint32_t *maxima = f->maxima + i * f->width;
    const float *mean = f->mean + i * f->width;
    const float *four = i < 3 ? w->nothing : w->four, *four_mean = i < 3 ? w->nothing : w->four_mean;
    flag_likely(f, maxima, one, mean, two, two_mean, four, four_mean, w->flags);
    end_flags(w->flags, f->width);
    int done = 1;
    for (size_t j = 0; j < f->width; j += LANES) {
        if (none_flagged(w->flags + j)) continue;
        for (size_t k = j; k < smaller(j + LANES, f->width) && done; k++) {
            if (!w->flags[k]) continue;
            float pixels = f->exposure[i * f->width + k];
            uint8_t of = w->flags[k];
            if (of & 1) done = note(w, 0, i, k, (float)maxima[k], mean[k] / (pixels > 1 ? pixels : 1));
            if (of & 2) done = done && note(w, 1, i, k, one[k], mean[k]);
            if (of & 4) done = done && note(w, 2, i - 1, k, two[k], two_mean[k]);
            if (of & 8) done = done && note(w, 3, i - 3, k, four[k], four_mean[k]);
        }
    }
    return done;
}

static int find_above(work *w) {
    const scan_frame *f = w->f;
    size_t width = f->width;
    for (size_t i = 0; i < f->height; i++) {
        const float *mean = f->mean + i * width, *two = w->nothing, *two_mean = w->nothing;
        float *one = w->one[i % 2];
        to_float(f->sums + i * width, one, width);
        if (i >= 1 && width >= 2) {
            add_rows(one, w->one[1 - i % 2], mean, mean - width, w->pair, w->pair_mean, width);
            add_columns(w->pair, w->pair_mean, 1, w->two[i % 3], w->two_mean[i % 3], width - 1);
            two = w->two[i % 3], two_mean = w->two_mean[i % 3];
        }
        if (i >= 3 && width >= 4) { /* two rows up is one on, of three */
            size_t up = (i + 1) % 3;
            add_rows(two, w->two[up], two_mean, w->two_mean[up], w->pair, w->pair_mean, width);
            add_columns(w->pair, w->pair_mean, 2, w->four, w->four_mean, width - 3);
        }
        if (!note_row(w, i, one, two, two_mean)) return 0;
    }
    return 1;
}

/* Of two neighbours the one with less evidence goes, of equals the later. `row` is the distance of two rows. */
static void keep_maxima(const box *of, const float *evidence, int64_t row, uint8_t *kept, size_t count) {
    memset(kept, 1, count);
    for (size_t k = 0, above = 0; k < count; k++) {
        while (above < k && of[above].place < of[k].place - row - 1) above++;
        for (size_t p = above; p < k && of[p].place <= of[k].place - row + 1; p++)
            kept[evidence[k] > evidence[p] ? p : k] = 0;
        if (k && of[k - 1].place == of[k].place - 1) kept[evidence[k] > evidence[k - 1] ? k - 1 : k] = 0;
    }
}

typedef struct {
    uint32_t key, index;
} ranked;

/* Rises as the evidence falls. */
static uint32_t falling(float evidence) {
    uint32_t bits;
    memcpy(&bits, &evidence, sizeof bits);
    return bits >> 31 ? bits : ~bits & INT32_MAX;
}

/* Sort by key, equals as they were; `spare` has as much room. Four passes end where they began. */
static void sort(ranked *of, ranked *spare, size_t count) {
    for (int shift = 0; shift < 32; shift += 8) {
        size_t next[257] = {0};
        for (size_t k = 0; k < count; k++) next[(of[k].key >> shift & 255) + 1]++;
        for (int digit = 0; digit < 256; digit++) next[digit + 1] += next[digit];
        for (size_t k = 0; k < count; k++) spare[next[of[k].key >> shift & 255]++] = of[k];
        ranked *other = of;
        of = spare, spare = other;
    }
}

static float brightest(const scan_frame *f, size_t i, size_t j, size_t edge) {
    uint32_t most = 0;
    for (size_t y = i; y < i + edge; y++)
        for (size_t x = j; x < j + edge; x++) {
            uint32_t pixel = f->maxima[y * f->width + x];
            most = pixel > most ? pixel : most;
        }
    return (float)most;
}

/* Fill a scale's row of each column with its strongest boxes. `n`, `mean` and `tail` have room for all. */
static void lay(const work *w, int scale, const float *evidence, const ranked *order, size_t count, double *n,
                double *mean, float *tail) {
    const scan_frame *f = w->f;
    size_t edge = scale ? (size_t)1 << (scale - 1) : 1, used = smaller(count, f->kept), first = (size_t)scale * f->kept;
    float *out[N_COLUMNS];
    for (int c = 0; c < N_COLUMNS; c++) out[c] = f->column[c] + first;
    for (size_t k = 0; k < used; k++) {
        const box *b = &w->scale[scale].of[order[k].index];
        size_t i = (size_t)b->place / (f->width + 2), j = (size_t)b->place % (f->width + 2) - 1;
        float most = brightest(f, i, j, edge), others = b->n - most;
        float free_of = 1 + (others > b->mean ? others - b->mean : 0);
        out[0][k] = evidence[order[k].index];
        out[2][k] = (float)i + (float)(edge - 1) / 2, out[3][k] = (float)j + (float)(edge - 1) / 2;
        out[4][k] = b->mean;
        n[k] = others + (most < free_of ? most : free_of), mean[k] = b->mean;
    }
    if (scale) neg_log10_tails(n, mean, tail, used);
    for (size_t k = 0; k < used; k++) out[1][k] = scale ? tail[k] - f->places[scale] : f->floor;
    for (size_t k = used; k < f->kept; k++)
        out[0][k] = out[1][k] = f->floor, out[2][k] = out[3][k] = out[4][k] = 0;
}

static int rank(const work *w, int scale) {
    const boxes *b = &w->scale[scale];
    size_t count = 0, room = b->found + 1;
    double *d = malloc(2 * room * sizeof *d);
    float *s = malloc(2 * room * sizeof *s);
    ranked *order = malloc(2 * room * sizeof *order);
    uint8_t *kept = malloc(room);
    int done = d && s && order && kept;
    if (done) {
        float *evidence = s, *tail = s + room;
        for (size_t k = 0; k < b->found; k++) d[k] = b->of[k].n, d[room + k] = b->of[k].mean;
        neg_log10_tails(d, d + room, evidence, b->found);
        for (size_t k = 0; k < b->found; k++) evidence[k] -= w->f->places[scale];
        keep_maxima(b->of, evidence, (int64_t)w->f->width + 2, kept, b->found);
        for (size_t k = 0; k < b->found; k++)
            if (kept[k]) order[count++] = (ranked){falling(evidence[k]), (uint32_t)k};
        sort(order, order + room, count);
        lay(w, scale, evidence, order, count, d, d + room, tail);
    }
    free(d), free(s), free(order), free(kept);
    return done;
}

outcome scan_cells(const scan_frame *f) {
    work w = {.f = f};
    float **of[] = {&w.one[0],      &w.one[1],      &w.two[0],  &w.two[1], &w.two[2],    &w.two_mean[0], &w.two_mean[1],
                    &w.two_mean[2], &w.four_mean, &w.four, &w.pair,   &w.pair_mean, &w.nothing};
    size_t n_rows = sizeof of / sizeof *of, room = (f->width + LINE - 1) / LINE * LINE;
    float *rows = aligned_alloc(LINE * sizeof *rows, n_rows * room * sizeof *rows);
    w.flags = malloc(f->width + LANES);
    int done = rows && w.flags;
    if (done) {
        memset(rows, 0, n_rows * room * sizeof *rows);
        for (size_t k = 0; k < n_rows; k++) *of[k] = rows + k * room;
        done = find_above(&w);
    }
    for (int k = 0; k < N_SCALES && done; k++) done = rank(&w, k);
    for (int k = 0; k < N_SCALES; k++) free(w.scale[k].of);
    free(rows), free(w.flags);
    return done ? FINE : NO_MEMORY;
}
