/* One frame's candidates on one CPU core, as `device_scan.scan` defines them: scale by scale, from the boxes above their
 * limits. */
#include "_cells.h"

#include <stdlib.h>

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

#define AHEAD 8 /* boxes whose largest pixels are asked for before they are looked at */

static void ask_for(const scan_frame *f, const box *at, size_t edge) {
    const uint32_t *first = f->maxima + (size_t)at->place / (f->width + 2) * f->width + (size_t)at->place % (f->width + 2) - 1;
    for (size_t y = 0; y < edge; y++) __builtin_prefetch(first + y * f->width);
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
static void lay(const scan_frame *f, const boxes *b, int scale, const float *evidence, const ranked *order, size_t count, double *n,
                double *mean, float *tail) {
    size_t edge = scale ? (size_t)1 << (scale - 1) : 1, used = smaller(count, f->kept), first = (size_t)scale * f->kept;
    float *out[N_COLUMNS];
    for (int c = 0; c < N_COLUMNS; c++) out[c] = f->column[c] + first;
    for (size_t k = 0; k < smaller(AHEAD, used); k++) ask_for(f, &b->of[order[k].index], edge);
    for (size_t k = 0; k < used; k++) {
        const box *at = &b->of[order[k].index];
        if (k + AHEAD < used) ask_for(f, &b->of[order[k + AHEAD].index], edge);
        size_t i = (size_t)at->place / (f->width + 2), j = (size_t)at->place % (f->width + 2) - 1;
        float most = brightest(f, i, j, edge), others = at->n - most;
        float free_of = 1 + (others > at->mean ? others - at->mean : 0);
        out[0][k] = evidence[order[k].index];
        out[2][k] = (float)i + (float)(edge - 1) / 2, out[3][k] = (float)j + (float)(edge - 1) / 2;
        out[4][k] = at->mean;
        n[k] = others + (most < free_of ? most : free_of), mean[k] = at->mean;
    }
    if (scale) neg_log10_tails(n, mean, tail, used);
    for (size_t k = 0; k < used; k++) out[1][k] = scale ? tail[k] - f->places[scale] : f->floor;
    for (size_t k = used; k < f->kept; k++)
        out[0][k] = out[1][k] = f->floor, out[2][k] = out[3][k] = out[4][k] = 0;
}

static int rank(const scan_frame *f, const boxes *b, int scale) {
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
        for (size_t k = 0; k < b->found; k++) evidence[k] -= f->places[scale];
        keep_maxima(b->of, evidence, (int64_t)f->width + 2, kept, b->found);
        for (size_t k = 0; k < b->found; k++)
            if (kept[k]) order[count++] = (ranked){falling(evidence[k]), (uint32_t)k};
        sort(order, order + room, count);
        lay(f, b, scale, evidence, order, count, d, d + room, tail);
    }
    free(d), free(s), free(order), free(kept);
    return done;
}

int rank_boxes(const scan_frame *f, const boxes scale[N_SCALES]) {
    int done = 1;
    for (int k = 0; k < N_SCALES && done; k++) done = rank(f, &scale[k], k);
    return done;
}
