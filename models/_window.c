/* The window around a pixel: which of its pixels are lit, and which cannot be seen. */
#include "_places.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NEAR 2 /* pixels that vouch for a bright one lie within a square of this half width */

/* Set the bits of flags that are not zero; flags are 0 or 1. */
static uint32_t bits_of(const uint8_t flags[32]) {
    uint32_t bits = 0;
    for (int first = 0; first < 32; first += 8) {
        uint64_t eight;
        memcpy(&eight, flags + first, sizeof eight);
        bits |= (uint32_t)(eight * 0x0102040810204080u >> 56) << first;
    }
    return bits;
}

/* Collect what is lit and what cannot be seen around a pixel. */
#define LOOK(TYPE, TOP)                                                                                            \
    FAST static void look_##TYPE(window *w, const TYPE *image, const uint8_t *valid, int64_t height,               \
                                 int64_t width, int64_t ss, int64_t fs) {                                          \
        int64_t left = fs < REACH ? REACH - fs : 0, right = fs + REACH >= width ? width - fs + REACH : SPAN;       \
        w->n_photons = w->is_hidden = 0, w->lit_rows = 0;                                                          \
        for (int y = 0; y < SPAN; y++) {                                                                           \
            int64_t row = ss + y - REACH, corner = row * width + fs - REACH;                                       \
            uint8_t seen[32] = {0}, some[32] = {0};                                                                \
            w->row_first[y] = w->n_photons;                                                                        \
            if (row >= 0 && row < height)                                                                          \
                for (int64_t x = left; x < right; x++) {                                                           \
                    TYPE n = image[corner + x];                                                                    \
                    seen[x] = (valid[corner + x] != 0) & (n != TOP);                                               \
                    some[x] = seen[x] & (n != 0);                                                                  \
                }                                                                                                  \
            w->lit[y] = bits_of(some), w->lit_rows |= (uint32_t)(w->lit[y] != 0) << y;                             \
            for (uint32_t bits = w->lit[y]; bits; bits &= bits - 1) {                                              \
                int x = __builtin_ctz(bits);                                                                       \
                w->y[w->n_photons] = y - REACH, w->x[w->n_photons] = x - REACH;                                    \
                w->n[w->n_photons++] = (float)image[corner + x];                                                   \
            }                                                                                                      \
            w->hidden[y] = ~bits_of(seen) & ((1u << SPAN) - 1);                                                    \
            w->is_hidden |= w->hidden[y] != 0;                                                                     \
        }                                                                                                          \
        w->row_first[SPAN] = w->n_photons;                                                                         \
    }

LOOK(uint8_t, UINT8_MAX)
LOOK(uint16_t, UINT16_MAX)
LOOK(uint32_t, UINT32_MAX)

void look(window *w, const frame *f, int64_t ss, int64_t fs) {
    if (f->itemsize == 1) look_uint8_t(w, f->image, f->valid, f->height, f->width, ss, fs);
    else if (f->itemsize == 2) look_uint16_t(w, f->image, f->valid, f->height, f->width, ss, fs);
    else look_uint32_t(w, f->image, f->valid, f->height, f->width, ss, fs);
}

/* Ask for the memory of a window ahead of its use. */
void ask_for(const frame *f, int64_t ss, int64_t fs) {
    int64_t first = fs < REACH ? 0 : fs - REACH, last = fs + REACH >= f->width ? f->width - 1 : fs + REACH;
    int64_t top = ss < REACH ? 0 : ss - REACH, bottom = ss + REACH >= f->height ? f->height - 1 : ss + REACH;
    for (int64_t row = top; row <= bottom; row++) {
        int64_t left = row * f->width + first, right = row * f->width + last;
        __builtin_prefetch((const char *)f->image + left * f->itemsize);
        __builtin_prefetch((const char *)f->image + right * f->itemsize);
        __builtin_prefetch(f->valid + left);
        __builtin_prefetch(f->valid + right);
    }
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
