/* Places at full resolution on one CPU core: how much better a spot explains the photons there. What is computed
 * is defined by `places.log_ratios` and its table; a test holds both equal. Photons around a place are few, so a
 * place costs a table row for each photon, width and step, and bright frames cost in proportion. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdlib.h>
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
#define MAX_STEPS 12
#define NEAR 2 /* pixels that vouch for a bright one lie within a square of this half width */

typedef struct {
    int16_t y, x;
    float n;
} lit;

typedef struct {
    const float *table; /* (backgrounds, rows, LEVELS): log(1 + intensity share / background) */
    const float *share; /* (rows): share of a spot's photons in a pixel so far from its centre */
    const float *intensity, *log_prior; /* (LEVELS) */
    int32_t first[MAX_WIDTHS]; /* row of distance 0 of each width */
    int32_t reach[MAX_WIDTHS]; /* pixels */
    int n_widths, n_rows;
    lit photons[SPAN * SPAN], hidden[SPAN * SPAN];
    int n_photons, n_hidden;
} window;

static uint32_t pixel(const void *image, size_t at, int itemsize) {
    if (itemsize == 2) return ((const uint16_t *)image)[at];
    return itemsize == 1 ? ((const uint8_t *)image)[at] : ((const uint32_t *)image)[at];
}

/* Collect what is lit and what cannot be seen around a pixel. */
static void look(window *w, const void *image, const uint8_t *valid, int itemsize, int64_t height, int64_t width,
                 int64_t ss, int64_t fs) {
    const uint32_t top = itemsize == 1 ? UINT8_MAX : itemsize == 2 ? UINT16_MAX : UINT32_MAX;
    w->n_photons = w->n_hidden = 0;
    for (int16_t y = -REACH; y <= REACH; y++)
        for (int16_t x = -REACH; x <= REACH; x++) {
            int64_t row = ss + y, column = fs + x;
            uint32_t n = top;
            if (row >= 0 && row < height && column >= 0 && column < width) {
                size_t at = (size_t)(row * width + column);
                n = valid[at] ? pixel(image, at, itemsize) : top;
            }
            if (n == top) w->hidden[w->n_hidden++] = (lit){y, x, 1};
            else if (n) w->photons[w->n_photons++] = (lit){y, x, (float)n};
        }
}

/* A pixel counts at most one more than its neighbours have above background. */
static void tame(window *w, float background) {
    float tamed[SPAN * SPAN];
    for (int k = 0; k < w->n_photons; k++) {
        lit p = w->photons[k];
        tamed[k] = p.n;
        if (p.n < 2 || p.n < background + 4 * sqrtf(background) + 1) continue;
        float others = -background * ((2 * NEAR + 1) * (2 * NEAR + 1) - 1);
        for (int q = 0; q < w->n_photons; q++)
            if (q != k && abs(w->photons[q].y - p.y) <= NEAR && abs(w->photons[q].x - p.x) <= NEAR)
                others += w->photons[q].n;
        tamed[k] = fminf(p.n, 1 + fmaxf(others, 0));
    }
    for (int k = 0; k < w->n_photons; k++) w->photons[k].n = tamed[k];
}

/* Log likelihood ratios of the intensities for a spot of a width at a pixel of the window. */
FAST static float ratios(const window *w, const float *table, int width, int y, int x, float *restrict of_level) {
    const float *rows = table + (size_t)w->first[width] * LEVELS, *share = w->share + w->first[width];
    int reach2 = w->reach[width] * w->reach[width];
    float sum[LEVELS] = {0}, seen = 1, best = -INFINITY;
    for (int k = 0; k < w->n_photons; k++) {
        int dy = w->photons[k].y - y, dx = w->photons[k].x - x, d2 = dy * dy + dx * dx;
        if (d2 > reach2) continue;
        const float *row = rows + (size_t)d2 * LEVELS;
        float n = w->photons[k].n;
        for (int j = 0; j < LEVELS; j++) sum[j] += n * row[j];
    }
    for (int k = 0; k < w->n_hidden; k++) {
        int dy = w->hidden[k].y - y, dx = w->hidden[k].x - x, d2 = dy * dy + dx * dx;
        if (d2 <= reach2) seen -= share[d2];
    }
    for (int j = 0; j < LEVELS; j++) {
        of_level[j] = sum[j] - w->intensity[j] * seen;
        best = fmaxf(best, of_level[j]);
    }
    return best;
}

/* Climb from the better of two starts to the pixel where a spot of this width explains most. */
static float climb(const window *w, const float *table, int width, const int start[2][2], int at[2], float *of_level) {
    float trial[LEVELS], best = ratios(w, table, width, start[0][0], start[0][1], of_level);
    at[0] = start[0][0], at[1] = start[0][1];
    float other = ratios(w, table, width, start[1][0], start[1][1], trial);
    if (other > best) best = other, at[0] = start[1][0], at[1] = start[1][1];
    for (int step = 0; step < MAX_STEPS; step++) {
        int from[2] = {at[0], at[1]}, moved = 0;
        for (int dy = -1; dy <= 1; dy++)
            for (int dx = -1; dx <= 1; dx++) {
                int y = from[0] + dy, x = from[1] + dx;
                if ((!dy && !dx) || abs(y) > REACH || abs(x) > REACH) continue;
                float value = ratios(w, table, width, y, x, trial);
                if (value > best) best = value, at[0] = y, at[1] = x, moved = 1;
            }
        if (!moved) break;
    }
    ratios(w, table, width, at[0], at[1], of_level);
    return best;
}

/* Two places to start from: the brightest pixel of the box, and the middle of the box's photons. */
static void starts(const window *w, int half, int start[2][2]) {
    float most = 0, total = 0, y = 0, x = 0;
    start[0][0] = start[0][1] = 0;
    for (int k = 0; k < w->n_photons; k++) {
        lit p = w->photons[k];
        if (abs(p.y) > half || abs(p.x) > half) continue;
        total += p.n, y += p.n * p.y, x += p.n * p.x;
        if (p.n > most) most = p.n, start[0][0] = p.y, start[0][1] = p.x;
    }
    start[1][0] = total > 0 ? (int)lrintf(y / total) : 0, start[1][1] = total > 0 ? (int)lrintf(x / total) : 0;
}

/* Average over the intensities; returns the place of the largest in `level`. */
static float mixed(const window *w, const float *of_level, int *level) {
    float best = -INFINITY, sum = 0;
    for (int j = 0; j < LEVELS; j++)
        if (of_level[j] + w->log_prior[j] > best) best = of_level[j] + w->log_prior[j], *level = j;
    for (int j = 0; j < LEVELS; j++) sum += expf(of_level[j] + w->log_prior[j] - best);
    return best + logf(sum);
}

static int holds(const Py_buffer *view, const char *name, size_t n, size_t itemsize) {
    if ((size_t)view->len == n * itemsize && (uintptr_t)view->buf % itemsize == 0) return 1;
    PyErr_Format(PyExc_ValueError, "%s: %zd bytes; expected %zu aligned ones", name, view->len, n * itemsize);
    return 0;
}

PyDoc_STRVAR(places_doc,
             "log_ratios(image, valid, (ss, fs), itemsize, start, half, level, background, tame, table, share, intensity, log_prior, "
             "first, reach, ratio, found) -> None");

static PyObject *py_log_ratios(PyObject *Py_UNUSED(module), PyObject *args) {
    enum { IMAGE, VALID, START, HALF, LEVEL, BACKGROUND, TABLE, SHARE, INTENSITY, PRIOR, FIRST, REACHES, RATIO, FOUND, N };
    Py_buffer v[N];
    Py_ssize_t height, width;
    int itemsize, is_tame, done = 0;
    if (!PyArg_ParseTuple(args, "y*y*(nn)iy*y*y*y*py*y*y*y*y*y*w*w*", &v[IMAGE], &v[VALID], &height, &width, &itemsize,
                          &v[START], &v[HALF], &v[LEVEL], &v[BACKGROUND], &is_tame, &v[TABLE], &v[SHARE],
                          &v[INTENSITY], &v[PRIOR], &v[FIRST], &v[REACHES], &v[RATIO], &v[FOUND]))
        return NULL;
    static window w; /* 13 kB; used under the interpreter's lock */
    size_t n_places = (size_t)v[HALF].len / sizeof(int32_t), n_px = (size_t)height * (size_t)width;
    size_t n_widths = (size_t)v[FIRST].len / sizeof(int32_t), n_rows = (size_t)v[SHARE].len / sizeof(float);
    size_t n_tables = n_rows ? (size_t)v[TABLE].len / (n_rows * LEVELS * sizeof(float)) : 0;
    if ((itemsize != 1 && itemsize != 2 && itemsize != 4) || height < 1 || width < 1 ||
        height > INT32_MAX / width || n_widths < 1 || n_widths > MAX_WIDTHS || !n_tables)
        PyErr_Format(PyExc_ValueError, "%zd x %zd pixels of %d bytes, %zu widths", height, width, itemsize, n_widths);
    else if (holds(&v[IMAGE], "image", n_px, (size_t)itemsize) && holds(&v[VALID], "valid", n_px, 1) &&
             holds(&v[START], "start", 2 * n_places, 4) && holds(&v[HALF], "half", n_places, 4) &&
             holds(&v[LEVEL], "level", n_places, 4) && holds(&v[BACKGROUND], "background", n_places, 4) &&
             holds(&v[TABLE], "table", n_tables * n_rows * LEVELS, 4) && holds(&v[SHARE], "share", n_rows, 4) &&
             holds(&v[INTENSITY], "intensity", LEVELS, 4) && holds(&v[PRIOR], "log_prior", LEVELS, 4) &&
             holds(&v[FIRST], "first", n_widths, 4) && holds(&v[REACHES], "reach", n_widths, 4) &&
             holds(&v[RATIO], "ratio", n_places * n_widths, 4) && holds(&v[FOUND], "found", 4 * n_places, 4)) {
        const int32_t *start = v[START].buf, *half = v[HALF].buf, *level = v[LEVEL].buf;
        const int32_t *first = v[FIRST].buf, *reach = v[REACHES].buf;
        float *ratio = v[RATIO].buf, *found = v[FOUND].buf;
        done = 1;
        for (size_t k = 0; k < n_widths; k++) {
            int32_t last = k + 1 < n_widths ? first[k + 1] : (int32_t)n_rows;
            if (first[k] < 0 || reach[k] < 0 || reach[k] > REACH || first[k] + reach[k] * reach[k] >= last) done = 0;
            w.first[k] = first[k], w.reach[k] = reach[k];
        }
        for (size_t p = 0; p < n_places; p++) done = done && level[p] >= 0 && (size_t)level[p] < n_tables;
        if (!done) PyErr_SetString(PyExc_ValueError, "first, reach or level is beyond the table");
        w.n_widths = (int)n_widths, w.n_rows = (int)n_rows, w.share = v[SHARE].buf;
        w.intensity = v[INTENSITY].buf, w.log_prior = v[PRIOR].buf;
        for (size_t p = 0; done && p < n_places; p++) {
            const float *table = (const float *)v[TABLE].buf + (size_t)level[p] * n_rows * LEVELS;
            int begin[2][2], at[2];
            look(&w, v[IMAGE].buf, v[VALID].buf, itemsize, height, width, start[2 * p], start[2 * p + 1]);
            if (is_tame) tame(&w, ((const float *)v[BACKGROUND].buf)[p]);
            starts(&w, half[p] < REACH ? half[p] : REACH, begin);
            float best = -INFINITY;
            for (int k = 0; k < w.n_widths; k++) {
                float of_level[LEVELS];
                int strongest = 0;
                climb(&w, table, k, (const int(*)[2])begin, at, of_level);
                float value = ratio[p * n_widths + (size_t)k] = mixed(&w, of_level, &strongest);
                if (value <= best) continue;
                best = value;
                found[4 * p] = (float)(start[2 * p] + at[0]), found[4 * p + 1] = (float)(start[2 * p + 1] + at[1]);
                found[4 * p + 2] = (float)k, found[4 * p + 3] = w.intensity[strongest];
            }
        }
    }
    for (int k = 0; k < N; k++) PyBuffer_Release(&v[k]);
    return done ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"log_ratios", py_log_ratios, METH_VARARGS, places_doc},
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
