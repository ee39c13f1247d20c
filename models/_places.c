/* Places at full resolution on one CPU core: how much better a spot explains the photons there. What is computed
 * is defined by `places.log_ratios` and its table; a test holds both equal. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdlib.h>

#include "_places.h"

#define WORTH_NEIGHBOURS (-3.0f)
#define BAND 64 /* rows */

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
    if (best_spots(w, start, middle, WORTH_NEIGHBOURS, ratio, found) > WORTH_NEIGHBOURS) {
        found[RAISED] = raise_background(w, f, middle, background);
        best_spots(w, start, middle, INFINITY, ratio, found);
    }
    found[BACKGROUND] = background * found[RAISED];
}

typedef struct {
    const float *ss, *fs, *mean, *edge; /* centre in cells, photons, pixels */
    size_t count;
} boxes;

/* The pixel in the middle of a box: of an even number of them the one after. */
static void middle_of(const boxes *b, size_t p, float cell_px, int32_t middle[2]) {
    float cells = fmaxf(b->edge[p] / cell_px, 1), half = floorf(fmaxf(b->edge[p], cell_px) / 2);
    middle[0] = (int32_t)((b->ss[p] - (cells - 1) / 2) * cell_px + half);
    middle[1] = (int32_t)((b->fs[p] - (cells - 1) / 2) * cell_px + half);
}

typedef struct {
    int32_t band, fs; /* what is near each other is looked at one after the other, while it is in the caches */
    size_t box;
} stop;

static int by_way(const void *a, const void *b) {
    const stop *one = a, *other = b;
    if (one->band != other->band) return one->band < other->band ? -1 : 1;
    if (one->fs != other->fs) return one->fs < other->fs ? -1 : 1;
    return one->box < other->box ? -1 : 1;
}

/* `way` has room for all boxes. */
static void look_at_all(window *w, const frame *f, const boxes *b, float cell_px, int is_tame, stop *way, float *ratio,
                        float *found) {
    int32_t middle[2], next[2];
    for (size_t p = 0; p < b->count; p++) {
        middle_of(b, p, cell_px, middle);
        way[p] = (stop){middle[0] / BAND, middle[1], p};
    }
    qsort(way, b->count, sizeof *way, by_way);
    for (size_t k = 0; k < b->count; k++) {
        size_t p = way[k].box;
        middle_of(b, p, cell_px, middle);
        if (k + 1 < b->count) {
            middle_of(b, way[k + 1].box, cell_px, next);
            ask_for(f, next[0], next[1]);
        }
        look(w, f, middle[0], middle[1]);
        explain(w, f, (int)b->edge[p], b->mean[p], is_tame, middle, ratio + p * w->n_widths, found + p * N_FOUND);
    }
}

/* A place goes if a better one, which stands before it, is nearer than either's reach; all are asked, many at a time. */
FAST static int is_distinct(const float *ss, const float *fs, const float *reach, size_t count) {
    const float at_ss = ss[count], at_fs = fs[count], own = reach[count];
    int n = 0;
    for (size_t p = 0; p < count; p++) {
        const float down = fabsf(at_ss - ss[p]), along = fabsf(at_fs - fs[p]), far = own > reach[p] ? own : reach[p];
        n += (down <= far) & (along <= far);
    }
    return n == 0;
}

typedef struct {
    float best; /* of the widths */
    size_t box;
} ranked;

static int by_falling_best(const void *a, const void *b) {
    const ranked *one = a, *other = b;
    if (one->best != other->best) return one->best > other->best ? -1 : 1;
    return one->box < other->box ? -1 : 1; /* equals as they were */
}

typedef struct {
    const float *ratio, *found, *evidence, *rest, *width; /* of the boxes; pixels of each width */
    size_t n_boxes, n_widths;
    float centre[2], same_px, most, least_background;
} looked;

/* The boxes that are places of their own, best first: `features` of each, and its ss, fs, width, background and reach
 * in columns of n_boxes. Returns how many. */
static size_t name_places(const looked *l, ranked *order, float *features, float *column) {
    float *ss = column, *fs = ss + l->n_boxes, *sigma = fs + l->n_boxes, *per_px = sigma + l->n_boxes;
    float *reach = per_px + l->n_boxes;
    size_t count = 0;
    for (size_t k = 0; k < l->n_boxes; k++) {
        order[k] = (ranked){-INFINITY, k};
        for (size_t j = 0; j < l->n_widths; j++) order[k].best = fmaxf(order[k].best, l->ratio[k * l->n_widths + j]);
    }
    qsort(order, l->n_boxes, sizeof *order, by_falling_best);
    for (size_t k = 0; k < l->n_boxes; k++) {
        size_t box = order[k].box;
        const float *found = l->found + box * N_FOUND, *ratio = l->ratio + box * l->n_widths;
        size_t width = found[WIDTH] > 0 ? (size_t)found[WIDTH] : 0;
        ss[count] = found[SS], fs[count] = found[FS], sigma[count] = l->width[width < l->n_widths ? width : 0];
        reach[count] = fmaxf(2 * sigma[count], l->same_px);
        if (!is_distinct(ss, fs, reach, count)) continue;
        per_px[count] = fmaxf(found[BACKGROUND], l->least_background);
        *features++ = 1;
        for (size_t j = 0; j < l->n_widths; j++) *features++ = fminf(fmaxf(ratio[j], -l->most), l->most);
        *features++ = fminf(l->evidence[box], l->most), *features++ = fminf(l->rest[box], l->most);
        *features++ = log10f(per_px[count]);
        *features++ = hypotf(fs[count] - l->centre[1], ss[count] - l->centre[0]) / 1000;
        *features++ = log10f(found[PHOTONS]), *features++ = log10f(found[RAISED]);
        count++;
    }
    return count;
}

#define N_OWN_FEATURES 7 /* beside the widths' */
#define N_OWN_COLUMNS 5

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
        for (int dy = 0, dx = reach[k]; dy <= reach[k]; dy++) {
            while (dy * dy + dx * dx > reach[k] * reach[k]) dx--;
            w->half[k][dy] = dx;
        }
    }
    return 1;
}

static int are_boxes(const boxes *b, const frame *f) {
    for (size_t p = 0; p < b->count; p++)
        if (!(b->edge[p] >= 1 && b->edge[p] <= 2 * REACH && b->ss[p] >= 0 && b->ss[p] <= (float)f->im.height && b->fs[p] >= 0 &&
              b->fs[p] <= (float)f->im.width)) {
            PyErr_Format(PyExc_ValueError, "box %zu beyond the detector, or its edge beyond 1 to %d pixels", p, 2 * REACH);
            return 0;
        }
    return 1;
}

PyDoc_STRVAR(places_doc, "log_ratios(counts, steps, mask, (ss, fs), itemsize, boxes, cell_px, tame, gain, share, intensity, "
                         "log_prior, log_chances, first, reach, (lowest_octave, steps_per_octave), (centre_ss, centre_fs), "
                         "tiles, ratio, found) -> None\n\nBoxes are (4, n): ss, fs, mean, edge.");

static PyObject *py_log_ratios(PyObject *Py_UNUSED(module), PyObject *args) {
    enum { COUNTS, STEPS, MASK, BOXES, GAIN, SHARE, INTENSITY, PRIOR, CHANCES, FIRST, REACHES, TILES, RATIO, FOUND, N };
    frame f;
    static window w; /* 9 kB; used under the interpreter's lock */
    Py_buffer v[N];
    Py_ssize_t height, width;
    float cell_px;
    int itemsize, is_tame, done = 0;
    if (!PyArg_ParseTuple(args, "y*y*y*(nn)iy*fpy*y*y*y*y*y*y*(ff)(ff)w*w*w*", &v[COUNTS], &v[STEPS], &v[MASK], &height, &width, &itemsize,
                          &v[BOXES], &cell_px, &is_tame, &v[GAIN], &v[SHARE], &v[INTENSITY], &v[PRIOR], &v[CHANCES],
                          &v[FIRST], &v[REACHES], &w.lowest_octave, &w.steps_per_octave, &f.centre[0], &f.centre[1],
                          &v[TILES], &v[RATIO], &v[FOUND]))
        return NULL;
    size_t n = (size_t)v[BOXES].len / (4 * sizeof(float));
    w.n_widths = (size_t)v[FIRST].len / sizeof(int32_t), w.n_rows = (size_t)v[SHARE].len / sizeof(float);
    w.n_backgrounds = w.n_rows ? (size_t)v[GAIN].len / (w.n_rows * LEVELS * sizeof(float)) : 0;
    const float *ss = v[BOXES].buf;
    boxes b = {ss, ss + n, ss + 2 * n, ss + 3 * n, n};
    if (!take_image(&v[COUNTS], &v[STEPS], &v[MASK], height, width, itemsize, &f.im)) {
    } else if (tiles_bytes(height, width) > INT32_MAX || w.n_widths < 1 || w.n_widths > MAX_WIDTHS || !w.n_backgrounds ||
               v[GAIN].len > INT32_MAX)
        PyErr_Format(PyExc_ValueError, "%zd x %zd pixels, %zu widths", height, width, w.n_widths);
    else if (holds(&v[BOXES], "boxes", 4 * n, 4) && holds(&v[GAIN], "gain", w.n_backgrounds * w.n_rows * LEVELS, 4) &&
             holds(&v[SHARE], "share", w.n_rows, 4) && holds(&v[INTENSITY], "intensity", LEVELS, 4) &&
             holds(&v[PRIOR], "log_prior", LEVELS, 4) && holds(&v[CHANCES], "log_chances", w.n_widths, 4) &&
             holds(&v[FIRST], "first", w.n_widths, 4) && holds(&v[REACHES], "reach", w.n_widths, 4) &&
             holds(&v[TILES], "tiles", tiles_bytes(height, width), 1) &&
             holds(&v[RATIO], "ratio", n * w.n_widths, 4) && holds(&v[FOUND], "found", N_FOUND * n, 4) &&
             read_widths(&w, v[FIRST].buf, v[REACHES].buf) && are_boxes(&b, &f)) {
        w.gain = v[GAIN].buf, w.share = v[SHARE].buf, w.intensity = v[INTENSITY].buf, w.log_prior = v[PRIOR].buf;
        w.log_chances = v[CHANCES].buf;
        empty_tiles(&f, v[TILES].buf);
        stop *way = PyMem_New(stop, n + 1);
        if (way) look_at_all(&w, &f, &b, cell_px, is_tame, way, v[RATIO].buf, v[FOUND].buf);
        else PyErr_NoMemory();
        done = way != NULL;
        PyMem_Free(way);
    }
    for (int k = 0; k < N; k++) PyBuffer_Release(&v[k]);
    return done ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(tiles_doc, "tiles_bytes(ss, fs) -> int\n\nMemory that a frame in tiles takes.");

static PyObject *py_tiles_bytes(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_ssize_t height, width;
    if (!PyArg_ParseTuple(args, "nn", &height, &width)) return NULL;
    if (height < 1 || width < 1 || height > INT32_MAX / 4 / width)
        return PyErr_Format(PyExc_ValueError, "%zd x %zd pixels", height, width);
    return PyLong_FromSize_t(tiles_bytes(height, width));
}

PyDoc_STRVAR(name_doc, "name_places(ratio, found, evidence, rest, widths, (centre_ss, centre_fs), (same_px, most, "
                       "least_background), features, columns) -> int\n\nFill features (n, widths + 7) and columns (5, n), ss, "
                       "fs, width, background and reach, of the places that are distinct, best first; return how many.");

static PyObject *py_name_places(PyObject *Py_UNUSED(module), PyObject *args) {
    enum { RATIO, LOOKS, EVIDENCE, REST, WIDTHS, FEATURES, COLUMNS, N };
    Py_buffer v[N];
    looked l;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*(ff)(fff)w*w*", &v[RATIO], &v[LOOKS], &v[EVIDENCE], &v[REST], &v[WIDTHS],
                          &l.centre[0], &l.centre[1], &l.same_px, &l.most, &l.least_background, &v[FEATURES], &v[COLUMNS]))
        return NULL;
    size_t n = l.n_boxes = (size_t)v[EVIDENCE].len / sizeof(float), count = 0;
    l.n_widths = (size_t)v[WIDTHS].len / sizeof(float);
    l.ratio = v[RATIO].buf, l.found = v[LOOKS].buf, l.evidence = v[EVIDENCE].buf, l.rest = v[REST].buf;
    l.width = v[WIDTHS].buf;
    int fit = l.n_widths > 0 && holds(&v[RATIO], "ratio", n * l.n_widths, 4) && holds(&v[LOOKS], "found", n * N_FOUND, 4) &&
              holds(&v[EVIDENCE], "evidence", n, 4) && holds(&v[REST], "rest", n, 4) &&
              holds(&v[WIDTHS], "widths", l.n_widths, 4) &&
              holds(&v[FEATURES], "features", n * (l.n_widths + N_OWN_FEATURES), 4) &&
              holds(&v[COLUMNS], "columns", N_OWN_COLUMNS * n, 4);
    ranked *order = fit ? PyMem_New(ranked, n + 1) : NULL;
    if (order) count = name_places(&l, order, v[FEATURES].buf, v[COLUMNS].buf);
    else if (fit) PyErr_NoMemory();
    fit = order != NULL;
    PyMem_Free(order);
    for (int k = 0; k < N; k++) PyBuffer_Release(&v[k]);
    return fit ? PyLong_FromSize_t(count) : NULL;
}

static PyMethodDef methods[] = {
    {"log_ratios", py_log_ratios, METH_VARARGS, places_doc},
    {"tiles_bytes", py_tiles_bytes, METH_VARARGS, tiles_doc},
    {"name_places", py_name_places, METH_VARARGS, name_doc},
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
