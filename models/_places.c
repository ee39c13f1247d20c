/* Places at full resolution on one CPU core: how much better a spot explains the photons there. What is computed
 * is defined by `places.log_ratios` and its table; a test holds both equal. Photons around a place are few, so a
 * place costs a table row for each photon, width and step, and bright frames cost in proportion. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define FAST __attribute__((target_clones("avx2", "default")))
#else
#define FAST
#endif

#define REACH 14 /* half width of a window */
#define SPAN (2 * REACH + 1)
#define MAX_WIDTHS 8
#define LEVELS 8 /* intensities looked at: one vector */
#define TOGETHER 4 /* pixels of a climb worked out side by side: their sums do not wait for each other */
#define MAX_STEPS 12
#define NEAREST 14 /* pixels from the place to its neighbourhood, along ring or radius */
#define FAR_ON_RING 94
#define FAR_ON_RAY 54
#define TILTED_WITHIN 400 /* pixels: nearer the beam a centre that is off tilts the rings */
#define MAX_OFF_CENTRE 10
#define OFF_CENTRE_STEP 5
#define CHANCE_SIGMA 2 /* a strip above mean + 2 sqrt(mean) + 1 photons is no chance */
#define CHANCE_PHOTONS 1
#define PRIOR_PHOTONS 4
#define MOST_PHOTONS (1 << 20) /* of a pixel beside a place: a strip's sum fits 32 bits */
#define WORTH_NEIGHBOURS (-3.0f)
#define NEAR 2 /* pixels that vouch for a bright one lie within a square of this half width */

typedef float levels __attribute__((vector_size(LEVELS * sizeof(float)), aligned(sizeof(float))));

typedef struct {
    const void *image;
    const uint8_t *valid;
    int itemsize;
    int64_t height, width;
    float centre[2]; /* of the beam: ss, fs */
} frame;

typedef struct {
    const float *gain;  /* (backgrounds, rows, LEVELS): log(1 + intensity share / background) */
    const float *share; /* (rows): share of a spot's photons in a pixel so far from its centre */
    const float *intensity, *log_prior; /* (LEVELS) */
    const float *log_chances; /* (widths): places that chance could choose from */
    int32_t first[MAX_WIDTHS]; /* row of distance 0 of each width */
    int32_t reach[MAX_WIDTHS]; /* pixels */
    float lowest_octave, steps_per_octave; /* of the backgrounds */
    size_t n_widths, n_rows, n_backgrounds;
    int n_photons, is_hidden;
    /* Pixels that are lit, row by row; what is expected there, as the table's first row of that background. */
    int32_t y[SPAN * SPAN], x[SPAN * SPAN], table[SPAN * SPAN];
    float n[SPAN * SPAN];
    int32_t row_first[SPAN + 1]; /* of these, by row */
    uint32_t hidden[SPAN]; /* a bit for each pixel of a row that cannot be seen */
    uint32_t known[SPAN]; /* the same for those that the climb under way has been at */
} window;

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
        w->n_photons = w->is_hidden = 0;                                                                           \
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
            for (uint32_t bits = bits_of(some); bits; bits &= bits - 1) {                                          \
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

/* A pixel counts at most one more than its neighbours have above background. */
static void tame(window *w, float background) {
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
static float seen_share(const window *w, int width, int y, int x) {
    const float *share = w->share + w->first[width];
    int reach = w->reach[width], reach2 = reach * reach;
    int top = y - reach < -REACH ? -REACH : y - reach, bottom = y + reach > REACH ? REACH : y + reach;
    float seen = 1;
    for (int row = top; row <= bottom; row++)
        for (uint32_t bits = w->hidden[row + REACH]; bits; bits &= bits - 1) {
            int dy = row - y, dx = __builtin_ctz(bits) - REACH - x, d2 = dy * dy + dx * dx;
            if (d2 <= reach2) seen -= share[d2];
        }
    return seen;
}

typedef struct {
    int y[TOGETHER], x[TOGETHER];
    float best[TOGETHER]; /* of the intensities */
    levels ratio[TOGETHER]; /* log likelihood ratio of each intensity */
} trial;

/* Work out the log likelihood ratios for spots of a width at some pixels of the window. */
FAST static void try_pixels(const window *w, int width, int count, trial *t) {
    const float *rows = w->gain + (size_t)w->first[width] * LEVELS;
    int reach = w->reach[width], beyond = reach * reach + 1, top = t->y[0], bottom = t->y[0];
    for (int c = 1; c < TOGETHER; c++) {
        top = t->y[c] < top ? t->y[c] : top;
        bottom = t->y[c] > bottom ? t->y[c] : bottom;
    }
    top = top - reach < -REACH ? -REACH : top - reach, bottom = bottom + reach > REACH ? REACH : bottom + reach;
    size_t first = (size_t)w->row_first[top + REACH], n_lit = (size_t)w->row_first[bottom + REACH + 1] - first;
    const int32_t *restrict lit_y = w->y + first, *restrict lit_x = w->x + first, *restrict table = w->table + first;
    const float *restrict lit_n = w->n + first;
    uint32_t row[TOGETHER][SPAN * SPAN];
    for (int c = 0; c < TOGETHER; c++) {
        int y = t->y[c], x = t->x[c];
        for (size_t k = 0; k < n_lit; k++) {
            int dy = lit_y[k] - y, dx = lit_x[k] - x, d2 = dy * dy + dx * dx;
            row[c][k] = (uint32_t)((table[k] + (d2 < beyond ? d2 : beyond)) * LEVELS);
        }
    }
    levels sum[TOGETHER] = {{0}};
    for (size_t k = 0; k < n_lit; k++)
        for (int c = 0; c < TOGETHER; c++) sum[c] += lit_n[k] * *(const levels *)(rows + row[c][k]);
    for (int c = 0; c < count; c++) {
        float seen = w->is_hidden ? seen_share(w, width, t->y[c], t->x[c]) : 1;
        t->ratio[c] = sum[c] - *(const levels *)w->intensity * seen;
        t->best[c] = -INFINITY;
        for (int j = 0; j < LEVELS; j++) t->best[c] = t->ratio[c][j] > t->best[c] ? t->ratio[c][j] : t->best[c];
    }
}

/* Move to the first of the best of some pixels, if it is better than where the climb is. */
static void move_to_better(const window *w, int width, trial *t, int count, int at[2], float *best, levels *of_level) {
    for (int c = count; c < TOGETHER; c++) t->y[c] = t->y[0], t->x[c] = t->x[0];
    try_pixels(w, width, count, t);
    for (int c = 0; c < count; c++)
        if (t->best[c] > *best) *best = t->best[c], at[0] = t->y[c], at[1] = t->x[c], *of_level = t->ratio[c];
}

/* Climb from the better of two starts to the pixel where a spot of this width explains most; pixels are looked at
 * once, as none that was is better than where the climb is. */
static void climb(window *w, int width, int start[2][2], int at[2], levels *of_level) {
    float best = -INFINITY;
    trial t = {.y = {start[0][0], start[1][0]}, .x = {start[0][1], start[1][1]}};
    memset(w->known, 0, sizeof w->known);
    for (int c = 0; c < 2; c++) w->known[t.y[c] + REACH] |= 1u << (t.x[c] + REACH);
    move_to_better(w, width, &t, 2, at, &best, of_level);
    for (int step = 0; step < MAX_STEPS; step++) {
        int from[2] = {at[0], at[1]}, count = 0;
        for (int y = from[0] - 1; y <= from[0] + 1; y++)
            for (int x = from[1] - 1; x <= from[1] + 1; x++) {
                if (abs(y) > REACH || abs(x) > REACH || w->known[y + REACH] >> (x + REACH) & 1) continue;
                w->known[y + REACH] |= 1u << (x + REACH);
                t.y[count] = y, t.x[count++] = x;
                if (count < TOGETHER) continue;
                move_to_better(w, width, &t, count, at, &best, of_level);
                count = 0;
            }
        if (count) move_to_better(w, width, &t, count, at, &best, of_level);
        if (at[0] == from[0] && at[1] == from[1]) break;
    }
}

/* Photons a pixel expected in a box, of which only what can be seen was counted. */
static float background_per_px(const window *w, float mean, int edge) {
    int half = edge / 2, seen = 0;
    for (int y = -half; y < edge - half; y++)
        for (int x = -half; x < edge - half; x++) seen += !(w->hidden[y + REACH] >> (x + REACH) & 1);
    return mean / (float)(seen ? seen : 1);
}

/* Two places to start from: the brightest pixel of the box, and the middle of the box's photons. */
static void starts(const window *w, int half, int start[2][2]) {
    float most = 0, total = 0, y = 0, x = 0;
    start[0][0] = start[0][1] = 0;
    for (int k = 0; k < w->n_photons; k++) {
        if (abs(w->y[k]) > half || abs(w->x[k]) > half) continue;
        total += w->n[k], y += w->n[k] * (float)w->y[k], x += w->n[k] * (float)w->x[k];
        if (w->n[k] > most) most = w->n[k], start[0][0] = w->y[k], start[0][1] = w->x[k];
    }
    start[1][0] = total > 0 ? (int)lrintf(y / total) : 0, start[1][1] = total > 0 ? (int)lrintf(x / total) : 0;
}

/* Average over the intensities; returns the place of the largest in `level`. */
static float mixed(const window *w, const levels *ratio, int *level) {
    levels of_level = *ratio;
    float best = -INFINITY, sum = 0;
    for (int j = 0; j < LEVELS; j++)
        if (of_level[j] + w->log_prior[j] > best) best = of_level[j] + w->log_prior[j], *level = j;
    for (int j = 0; j < LEVELS; j++) sum += expf(of_level[j] + w->log_prior[j] - best);
    return best + logf(sum);
}

/* The first row of the table's nearest background. */
static int32_t row_of(const window *w, float background) {
    float nearest = rintf((log2f(background) - w->lowest_octave) * w->steps_per_octave);
    size_t last = w->n_backgrounds - 1;
    return (int32_t)(w->n_rows * (!(nearest > 0) ? 0 : nearest < (float)last ? (size_t)nearest : last));
}

#define ACROSS (SPAN + 2) /* one beyond each end */

typedef struct {
    int32_t photons[ACROSS], pixels[ACROSS]; /* by distance across */
} strip;

/* Add the pixels of a line across a strip: at start + (from + distance + lift) slope. */
FAST static void add_across(strip *restrict s, const frame *f, const float start[2], const float slope[2], float from,
                            float lift) {
    int32_t at[ACROSS], inside[ACROSS], height = (int32_t)f->height, width = (int32_t)f->width;
    float ss0 = start[0], fs0 = start[1], ss_slope = slope[0], fs_slope = slope[1];
    for (int k = 0; k < ACROSS; k++) {
        float d = from + (float)(k - REACH - 1) + lift;
        int32_t row = (int32_t)rintf(ss0 + d * ss_slope), column = (int32_t)rintf(fs0 + d * fs_slope);
        inside[k] = (row >= 0) & (row < height) & (column >= 0) & (column < width);
        at[k] = inside[k] ? row * width + column : 0;
    }
    for (int k = 0; k < ACROSS; k++) {
        uint32_t n, top;
        if (f->itemsize == 2) n = ((const uint16_t *)f->image)[at[k]], top = UINT16_MAX;
        else if (f->itemsize == 1) n = ((const uint8_t *)f->image)[at[k]], top = UINT8_MAX;
        else n = ((const uint32_t *)f->image)[at[k]], top = UINT32_MAX;
        int32_t seen = inside[k] & (f->valid[at[k]] != 0) & (n != top);
        s->photons[k] += seen ? (int32_t)(n < MOST_PHOTONS ? n : MOST_PHOTONS) : 0, s->pixels[k] += seen;
    }
}

/* Raise each factor to how many times the background the strip beside the place has, unless that may be chance:
 * looked for over 3 and over 9 pixels across. */
static void raise_to(const strip *s, float background, float factor[SPAN]) {
    for (int half = 1; half <= 4; half += 3)
        for (int k = 0; k < SPAN; k++) {
            float n = 0, pixels = 0;
            for (int j = k + 1 - half; j <= k + 1 + half; j++)
                if (j >= 0 && j < ACROSS) n += (float)s->photons[j], pixels += (float)s->pixels[j];
            float expected = background * pixels;
            if (n < expected + CHANCE_SIGMA * sqrtf(expected) + CHANCE_PHOTONS) continue;
            factor[k] = fmaxf(factor[k], (n + PRIOR_PHOTONS) / (expected + PRIOR_PHOTONS));
        }
}

static int clamped(float offset) {
    int k = (int)lrintf(offset);
    return (k < -REACH ? -REACH : k > REACH ? REACH : k) + REACH;
}

/* What lies beside the place along the ring through it. A stated beam centre may be some pixels off, which tilts the
 * rings near it: `tilt` is that in pixels across for a pixel along. */
static void along_ring(const frame *f, float radius, const float out[2], float tilt, float background, float factor[SPAN]) {
    strip beside = {{0}, {0}};
    int far = radius < FAR_ON_RING ? (int)radius : FAR_ON_RING;
    for (int step = -far; step <= far; step++) {
        if (abs(step) < NEAREST) continue;
        float angle = (float)step / radius, c = cosf(angle), s = sinf(angle), lift = tilt * (float)step;
        float turned[2] = {c * out[0] - s * out[1], s * out[0] + c * out[1]};
        add_across(&beside, f, f->centre, turned, radius, lift);
    }
    raise_to(&beside, background, factor);
}

static void along_ray(const frame *f, float radius, const float out[2], float background, float factor[SPAN]) {
    strip beside = {{0}, {0}};
    const float beside_ray[2] = {-out[1], out[0]};
    for (int step = -FAR_ON_RAY; step <= FAR_ON_RAY; step++) {
        float d = radius + (float)step;
        if (abs(step) < NEAREST || d < 0) continue;
        float start[2] = {f->centre[0] + d * out[0], f->centre[1] + d * out[1]};
        add_across(&beside, f, start, beside_ray, 0, 0);
    }
    raise_to(&beside, background, factor);
}

/* Raise the background of each photon to that of its neighbourhood along the ring and along the radius: what goes
 * on beside the place is a powder ring or a streak, not a spot. Returns the factor in the middle. */
static float raise_background(window *w, const frame *f, const int32_t middle[2], float background) {
    float out[2] = {(float)middle[0] - f->centre[0], (float)middle[1] - f->centre[1]}, radius = hypotf(out[0], out[1]);
    if (radius < NEAREST) return 1;
    out[0] /= radius, out[1] /= radius;
    float of_ring[SPAN], of_ray[SPAN];
    for (int k = 0; k < SPAN; k++) of_ring[k] = of_ray[k] = 1;
    int most = radius < TILTED_WITHIN ? MAX_OFF_CENTRE : 0;
    for (int off = -most; off <= most; off += OFF_CENTRE_STEP)
        along_ring(f, radius, out, (float)off / radius, background, of_ring);
    along_ray(f, radius, out, background, of_ray);
    for (int k = 0; k < w->n_photons; k++) {
        float y = (float)w->y[k], x = (float)w->x[k];
        float factor = fmaxf(of_ring[clamped(y * out[0] + x * out[1])], of_ray[clamped(x * out[0] - y * out[1])]);
        w->table[k] = row_of(w, background * factor);
    }
    return fmaxf(of_ring[REACH], of_ray[REACH]);
}

enum { SS, FS, WIDTH, PHOTONS, BACKGROUND, RAISED, N_FOUND };

/* The best spot of each width near the middle of a box; the window was looked at. */
static float best_spots(window *w, int start[2][2], const int32_t middle[2], float *ratio, float *found) {
    float best = -INFINITY;
    for (size_t k = 0; k < w->n_widths; k++) {
        levels of_level = {0};
        int strongest = 0, at[2] = {start[0][0], start[0][1]};
        climb(w, (int)k, start, at, &of_level);
        ratio[k] = mixed(w, &of_level, &strongest) - w->log_chances[k];
        if (ratio[k] <= best) continue;
        best = ratio[k];
        found[SS] = (float)(middle[0] + at[0]), found[FS] = (float)(middle[1] + at[1]);
        found[WIDTH] = (float)k, found[PHOTONS] = w->intensity[strongest];
    }
    return best;
}

static void explain(window *w, const frame *f, int edge, float mean, int is_tame, const int32_t middle[2], float *ratio,
                    float *found) {
    float background = background_per_px(w, mean, edge);
    int32_t table = row_of(w, background);
    int start[2][2];
    for (int k = 0; k < w->n_photons; k++) w->table[k] = table;
    if (is_tame) tame(w, background);
    starts(w, edge / 2 > 2 ? edge / 2 : 2, start);
    found[RAISED] = 1;
    /* Most places of most frames are nothing, and neighbours make them less. */
    if (best_spots(w, start, middle, ratio, found) > WORTH_NEIGHBOURS) {
        found[RAISED] = raise_background(w, f, middle, background);
        best_spots(w, start, middle, ratio, found);
    }
    found[BACKGROUND] = background * found[RAISED];
}

/* ---- Python's face -------------------------------------------------------------------------------------- */

static int holds(const Py_buffer *view, const char *name, size_t n, size_t itemsize) {
    if ((size_t)view->len == n * itemsize && (uintptr_t)view->buf % itemsize == 0) return 1;
    PyErr_Format(PyExc_ValueError, "%s: %zd bytes; expected %zu aligned ones", name, view->len, n * itemsize);
    return 0;
}

/* Whether every distance of every width has its row, and what is beyond its reach. */
static int read_widths(window *w, const int32_t *first, const int32_t *reach) {
    for (size_t k = 0; k < w->n_widths; k++) {
        int64_t last = k + 1 < w->n_widths ? first[k + 1] : (int64_t)w->n_rows;
        if (first[k] < 0 || reach[k] < 0 || reach[k] > REACH || first[k] + reach[k] * reach[k] + 1 >= last ||
            last > (int64_t)w->n_rows) {
            PyErr_Format(PyExc_ValueError, "width %zu: rows %d to %d of reach %d", k, first[k], (int)last, reach[k]);
            return 0;
        }
        w->first[k] = first[k], w->reach[k] = reach[k];
    }
    return 1;
}

static int are_boxes(const int32_t *edge, size_t count) {
    for (size_t p = 0; p < count; p++)
        if (edge[p] < 1 || edge[p] > 2 * REACH) {
            PyErr_Format(PyExc_ValueError, "box of %d pixels; expected 1 to %d", edge[p], 2 * REACH);
            return 0;
        }
    return 1;
}

PyDoc_STRVAR(places_doc, "log_ratios(image, valid, (ss, fs), itemsize, middle, edge, mean, tame, gain, share, intensity, "
                         "log_prior, log_chances, first, reach, (lowest_octave, steps_per_octave), (centre_ss, centre_fs), "
                         "ratio, found) -> None");

static PyObject *py_log_ratios(PyObject *Py_UNUSED(module), PyObject *args) {
    enum { IMAGE, VALID, MIDDLE, EDGE, MEAN, GAIN, SHARE, INTENSITY, PRIOR, CHANCES, FIRST, REACHES, RATIO, FOUND, N };
    frame f;
    static window w; /* 9 kB; used under the interpreter's lock */
    Py_buffer v[N];
    Py_ssize_t height, width;
    int itemsize, is_tame, done = 0;
    if (!PyArg_ParseTuple(args, "y*y*(nn)iy*y*y*py*y*y*y*y*y*y*(ff)(ff)w*w*", &v[IMAGE], &v[VALID], &height, &width, &itemsize,
                          &v[MIDDLE], &v[EDGE], &v[MEAN], &is_tame, &v[GAIN], &v[SHARE], &v[INTENSITY], &v[PRIOR],
                          &v[CHANCES], &v[FIRST], &v[REACHES], &w.lowest_octave, &w.steps_per_octave, &f.centre[0],
                          &f.centre[1], &v[RATIO], &v[FOUND]))
        return NULL;
    size_t n_places = (size_t)v[EDGE].len / sizeof(int32_t), n_px = (size_t)height * (size_t)width;
    w.n_widths = (size_t)v[FIRST].len / sizeof(int32_t), w.n_rows = (size_t)v[SHARE].len / sizeof(float);
    w.n_backgrounds = w.n_rows ? (size_t)v[GAIN].len / (w.n_rows * LEVELS * sizeof(float)) : 0;
    if ((itemsize != 1 && itemsize != 2 && itemsize != 4) || height < 1 || width < 1 || height > INT32_MAX / width ||
        w.n_widths < 1 || w.n_widths > MAX_WIDTHS || !w.n_backgrounds || v[GAIN].len > INT32_MAX)
        PyErr_Format(PyExc_ValueError, "%zd x %zd pixels of %d bytes, %zu widths", height, width, itemsize, w.n_widths);
    else if (holds(&v[IMAGE], "image", n_px, (size_t)itemsize) && holds(&v[VALID], "valid", n_px, 1) &&
             holds(&v[MIDDLE], "middle", 2 * n_places, 4) && holds(&v[EDGE], "edge", n_places, 4) &&
             holds(&v[MEAN], "mean", n_places, 4) && holds(&v[GAIN], "gain", w.n_backgrounds * w.n_rows * LEVELS, 4) &&
             holds(&v[SHARE], "share", w.n_rows, 4) && holds(&v[INTENSITY], "intensity", LEVELS, 4) &&
             holds(&v[PRIOR], "log_prior", LEVELS, 4) && holds(&v[FIRST], "first", w.n_widths, 4) &&
             holds(&v[CHANCES], "log_chances", w.n_widths, 4) && holds(&v[REACHES], "reach", w.n_widths, 4) && holds(&v[RATIO], "ratio", n_places * w.n_widths, 4) &&
             holds(&v[FOUND], "found", N_FOUND * n_places, 4) && read_widths(&w, v[FIRST].buf, v[REACHES].buf) &&
             are_boxes(v[EDGE].buf, n_places)) {
        const int32_t *middle = v[MIDDLE].buf, *edge = v[EDGE].buf;
        const float *mean = v[MEAN].buf;
        w.gain = v[GAIN].buf, w.share = v[SHARE].buf, w.intensity = v[INTENSITY].buf, w.log_prior = v[PRIOR].buf;
        w.log_chances = v[CHANCES].buf;
        f.image = v[IMAGE].buf, f.valid = v[VALID].buf, f.itemsize = itemsize, f.height = height, f.width = width;
        for (size_t p = 0; p < n_places; p++) {
            int64_t ss = middle[2 * p], fs = middle[2 * p + 1];
            if (itemsize == 1) look_uint8_t(&w, v[IMAGE].buf, v[VALID].buf, height, width, ss, fs);
            else if (itemsize == 2) look_uint16_t(&w, v[IMAGE].buf, v[VALID].buf, height, width, ss, fs);
            else look_uint32_t(&w, v[IMAGE].buf, v[VALID].buf, height, width, ss, fs);
            explain(&w, &f, edge[p], mean[p], is_tame, middle + 2 * p, (float *)v[RATIO].buf + p * w.n_widths,
                    (float *)v[FOUND].buf + p * N_FOUND);
        }
        done = 1;
    }
    for (int k = 0; k < N; k++) PyBuffer_Release(&v[k]);
    return done ? Py_NewRef(Py_None) : NULL;
}

/* A place goes if a better one, which stands before it, is nearer than either's reach. */
static void keep_distinct(const float *ss, const float *fs, const float *reach, uint8_t *kept, size_t count) {
    for (size_t k = 0; k < count; k++) {
        size_t p = 0;
        while (p < k && !(kept[p] && fmaxf(fabsf(ss[k] - ss[p]), fabsf(fs[k] - fs[p])) <= fmaxf(reach[k], reach[p]))) p++;
        kept[k] = p == k;
    }
}

PyDoc_STRVAR(distinct_doc, "keep_distinct(ss, fs, reach, kept) -> None");

static PyObject *py_distinct(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer v[4];
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &v[0], &v[1], &v[2], &v[3])) return NULL;
    size_t count = (size_t)v[3].len;
    int fit = holds(&v[0], "ss", count, 4) && holds(&v[1], "fs", count, 4) && holds(&v[2], "reach", count, 4);
    if (fit) keep_distinct(v[0].buf, v[1].buf, v[2].buf, v[3].buf, count);
    for (int k = 0; k < 4; k++) PyBuffer_Release(&v[k]);
    return fit ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"log_ratios", py_log_ratios, METH_VARARGS, places_doc},
    {"keep_distinct", py_distinct, METH_VARARGS, distinct_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_places",
    .m_doc = "Places of a frame at full resolution; see _places.pyi.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__places(void) { return PyModuleDef_Init(&module); }
