/* Places at full resolution on one CPU core: how much better a spot explains the photons there. What is computed
 * is defined by `places.log_ratios` and its table; a test holds both equal. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>

#include "_places.h"

#define WORTH_NEIGHBOURS (-3.0f)

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
            if (p + 1 < n_places) ask_for(&f, middle[2 * p + 2], middle[2 * p + 3]);
            look(&w, &f, ss, fs);
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
