/* The window around a pixel: which of its pixels are lit, and which cannot be seen. */
#include "_places.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NEAR 2 /* pixels that vouch for a bright one lie within a square of this half width */

/* A bit for each byte of a row that is at least some number. */
FAST static uint32_t at_least(const uint8_t row[ROW_PX], uint8_t least) {
    uint32_t bits = 0;
    for (int x = 0; x < ROW_PX; x++) bits |= (uint32_t)(row[x] >= least) << x;
    return bits;
}

void look(window *w, const frame *f, int64_t ss, int64_t fs) {
    const image *im = &f->im;
    const int64_t left = fs < REACH ? REACH - fs : 0, right = fs + REACH >= im->width ? im->width - fs + REACH : SPAN;
    w->n_photons = w->is_hidden = 0, w->lit_rows = 0;
    for (int y = 0; y < SPAN; y++) {
        const int64_t row = ss + y - REACH, corner = row * im->width + fs - REACH;
        uint32_t seen = 0, lit = 0;
        w->row_first[y] = w->n_photons;
        if (row >= 0 && row < im->height && left < right) {
            uint8_t bytes[ROW_PX];
            read_row(im, (size_t)(corner + left), (size_t)(right - left), bytes);
            seen = at_least(bytes, UNSEEN + 1) << left, lit = at_least(bytes, UNSEEN + 2);
            for (uint32_t bits = lit; bits; bits &= bits - 1) {
                const int x = __builtin_ctz(bits);
                w->y[w->n_photons] = y - REACH, w->x[w->n_photons] = x + (int)left - REACH;
                w->n[w->n_photons++] = bytes[x] < BRIGHT ? (float)(bytes[x] - 1)
                                                         : (float)count_at(im, (size_t)(corner + left) + (size_t)x);
            }
            lit <<= left;
        }
        w->lit[y] = lit, w->lit_rows |= (uint32_t)(lit != 0) << y;
        w->hidden[y] = ~seen & ((1u << SPAN) - 1);
        w->is_hidden |= w->hidden[y] != 0;
    }
    w->row_first[SPAN] = w->n_photons;
}

/* Ask for the memory of a window ahead of its use. */
void ask_for(const frame *f, int64_t ss, int64_t fs) {
    const image *im = &f->im;
    int64_t first = fs < REACH ? 0 : fs - REACH, last = fs + REACH >= im->width ? im->width - 1 : fs + REACH;
    int64_t top = ss < REACH ? 0 : ss - REACH, bottom = ss + REACH >= im->height ? im->height - 1 : ss + REACH;
    for (int64_t row = top; row <= bottom; row++) ask_for_row(im, (size_t)(row * im->width + first), (size_t)(last - first + 1));
}

/* A pixel counts at most one more than its neighbours have above background. */
void tame(window *w, float background) {
    float tamed[SPAN * SPAN];
    for (int k = 0; k < w->n_photons; k++) {
        float n = tamed[k] = w->n[k];
        if (n < 2 || n < background + 4 * sqrtf(background) + 1) continue;
        float others = -background * ((2 * NEAR + 1) * (2 * NEAR + 1) - 1);
        for (int q = 0; q < w->n_photons; q++)
            if (q != k && abs(w->y[q] - w->y[k]) <= NEAR && abs(w->x[q] - w->x[k]) <= NEAR) others += w->n[q];
        tamed[k] = fminf(n, 1 + fmaxf(others, 0));
    }
    memcpy(w->n, tamed, (size_t)w->n_photons * sizeof *tamed);
}

/* Share of a spot's photons that falls where it can be seen. */
float seen_share(const window *w, int width, int y, int x) {
    const float *share = w->share + w->first[width];
    int reach = w->reach[width];
    int top = y - reach < -REACH ? -REACH : y - reach, bottom = y + reach > REACH ? REACH : y + reach;
    float seen = 1;
    for (int row = top; row <= bottom; row++) {
        int dy = row - y, half = w->half[width][abs(dy)];
        for (uint32_t bits = w->hidden[row + REACH] & between(x - half, x + half); bits; bits &= bits - 1) {
            int dx = __builtin_ctz(bits) - REACH - x;
            seen -= share[dy * dy + dx * dx];
        }
    }
    return seen;
}

/* Photons a pixel expected in a box, of which only what can be seen was counted. */
float background_per_px(const window *w, float mean, int edge) {
    int half = edge / 2, seen = 0;
    for (int y = -half; y < edge - half; y++)
        for (int x = -half; x < edge - half; x++) seen += !(w->hidden[y + REACH] >> (x + REACH) & 1);
    return mean / (float)(seen ? seen : 1);
}

/* Two places to start from: the brightest pixel of the box, and the middle of the box's photons. */
void starts(const window *w, int half, int start[2][2]) {
    float most = 0, total = 0, y = 0, x = 0;
    start[0][0] = start[0][1] = 0;
    for (int k = 0; k < w->n_photons; k++) {
        if (abs(w->y[k]) > half || abs(w->x[k]) > half) continue;
        total += w->n[k], y += w->n[k] * (float)w->y[k], x += w->n[k] * (float)w->x[k];
        if (w->n[k] > most) most = w->n[k], start[0][0] = w->y[k], start[0][1] = w->x[k];
    }
    start[1][0] = total > 0 ? (int)lrintf(y / total) : 0, start[1][1] = total > 0 ? (int)lrintf(x / total) : 0;
}
