/* Which pixels are lit in a frame: the remembered ones, and new ones far above the background. What it is for
 * is told in hot_pixels.py; every index that a table brings is checked before it is used. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_image.h"

#define CELL 4 /* pixels a side */
#define STRIDE 64 /* cells looked at together */

/* hot_pixels.REMEMBERED */
typedef struct {
    int64_t pixel, limit;
    uint64_t history;
    int64_t frames, lit, blanks, lit_blanks, is_alone;
} remembered;

typedef struct {
    image im;
    const uint32_t *maxima, *limit_R;
    const int32_t *ring;
    size_t ss, fs, height, width, n_rings, n_table, room;
    remembered *table;
    int64_t *fresh;
    uint32_t lowest;
    size_t n_fresh, n_together, n_alone; /* the answer */
} frame;

/* 0 where a remembered pixel lies outside the image. */
static int read_table(frame *f) {
    for (size_t k = 0; k < f->n_table; k++) {
        remembered *r = &f->table[k];
        if ((uint64_t)r->pixel >= f->ss * f->fs) return 0;
        int is_lit = (int64_t)count_at(&f->im, (size_t)r->pixel) >= r->limit;
        r->history = r->history << 1 | (uint64_t)is_lit;
        r->frames++;
        r->lit += is_lit;
        f->n_together += (size_t)(is_lit && !r->is_alone);
        f->n_alone += (size_t)(is_lit && r->is_alone);
    }
    return 1;
}

static int is_remembered(const frame *f, int64_t pixel) {
    size_t low = 0, high = f->n_table;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (f->table[middle].pixel < pixel) low = middle + 1;
        else high = middle;
    }
    return low < f->n_table && f->table[low].pixel == pixel;
}

static void look_into(frame *f, size_t cell, uint32_t limit) {
    uint32_t top = (uint32_t)(((uint64_t)1 << 8 * f->im.itemsize) - 1);
    size_t row = cell / f->width * CELL, column = cell % f->width * CELL;
    for (size_t i = row; i < row + CELL && i < f->ss; i++)
        for (size_t j = column; j < column + CELL && j < f->fs; j++) {
            size_t pixel = i * f->fs + j;
            uint32_t count = count_at(&f->im, pixel);
            if (count < limit || count == top || !mask_at(&f->im, pixel, 1) || is_remembered(f, (int64_t)pixel)) continue;
            if (f->n_fresh < f->room) f->fresh[f->n_fresh] = (int64_t)pixel;
            f->n_fresh++;
        }
}

FAST static uint32_t largest(const uint32_t *values, size_t n) {
    uint32_t most = 0;
    for (size_t k = 0; k < n; k++) most = values[k] > most ? values[k] : most;
    return most;
}

/* 0 where a cell has a ring that is none. */
static int find_fresh(frame *f) {
    size_t n_cells = f->height * f->width;
    for (size_t start = 0; start < n_cells; start += STRIDE) {
        size_t n = n_cells - start < STRIDE ? n_cells - start : STRIDE;
        if (largest(f->maxima + start, n) < f->lowest) continue;
        for (size_t cell = start; cell < start + n; cell++) {
            if (f->maxima[cell] < f->lowest) continue;
            if ((uint32_t)f->ring[cell] >= f->n_rings) return 0;
            uint32_t limit = f->limit_R[f->ring[cell]];
            if (f->maxima[cell] >= limit) look_into(f, cell, limit);
        }
    }
    f->n_together += f->n_fresh;
    return 1;
}

static int holds(const Py_buffer *view, const char *name, size_t count, size_t size) {
    if ((size_t)view->len == count * size) return 1;
    PyErr_Format(PyExc_ValueError, "%s of %zd bytes; expected %zu of %zu", name, view->len, count, size);
    return 0;
}

PyDoc_STRVAR(see_doc, "see(counts, steps, mask, maxima, ring, limit_R, table, fresh, (ss, fs), itemsize)"
                      " -> (n_fresh, n_together, n_alone)");

static PyObject *py_see(PyObject *Py_UNUSED(module), PyObject *args) {
    enum { COUNTS, STEPS, MASK, MAXIMA, RING, LIMIT, TABLE, FRESH, N };
    Py_buffer v[N];
    Py_ssize_t ss, fs;
    frame f = {0};
    int itemsize, is_sound = 0;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*w*w*(nn)i", &v[COUNTS], &v[STEPS], &v[MASK], &v[MAXIMA], &v[RING], &v[LIMIT],
                          &v[TABLE], &v[FRESH], &ss, &fs, &itemsize))
        return NULL;
    f.ss = (size_t)ss, f.fs = (size_t)fs;
    f.height = (f.ss + CELL - 1) / CELL, f.width = (f.fs + CELL - 1) / CELL;
    f.n_rings = (size_t)v[LIMIT].len / sizeof(uint32_t);
    f.n_table = (size_t)v[TABLE].len / sizeof(remembered), f.room = (size_t)v[FRESH].len / sizeof(int64_t);
    if (take_image(&v[COUNTS], &v[STEPS], &v[MASK], ss, fs, itemsize, &f.im) &&
        holds(&v[MAXIMA], "maxima", f.height * f.width, 4) && holds(&v[RING], "ring", f.height * f.width, 4) &&
        holds(&v[LIMIT], "limit_R", f.n_rings, 4) && holds(&v[TABLE], "table", f.n_table, sizeof(remembered)) &&
        holds(&v[FRESH], "fresh", f.room, 8)) {
        f.maxima = v[MAXIMA].buf, f.ring = v[RING].buf, f.limit_R = v[LIMIT].buf;
        f.table = v[TABLE].buf, f.fresh = v[FRESH].buf;
        f.lowest = UINT32_MAX;
        for (size_t k = 0; k < f.n_rings; k++) f.lowest = f.limit_R[k] < f.lowest ? f.limit_R[k] : f.lowest;
        Py_BEGIN_ALLOW_THREADS
        is_sound = read_table(&f) && find_fresh(&f);
        Py_END_ALLOW_THREADS
        if (!is_sound) PyErr_SetString(PyExc_ValueError, "a pixel outside the image, or a ring that is none");
    }
    for (int k = 0; k < N; k++) PyBuffer_Release(&v[k]);
    if (!is_sound) return NULL;
    return Py_BuildValue("nnn", (Py_ssize_t)f.n_fresh, (Py_ssize_t)f.n_together, (Py_ssize_t)f.n_alone);
}

PyDoc_STRVAR(counts_doc, "counts_at(counts, steps, (ss, fs), itemsize, pixels, found) -> None\n\n"
                         "Fill found, uint32 (n,), with what pixels, int64 (n,), count.");

static PyObject *py_counts_at(PyObject *Py_UNUSED(module), PyObject *args) {
    enum { COUNTS, STEPS, PIXELS, FOUND, N };
    Py_buffer v[N];
    Py_ssize_t ss, fs;
    int itemsize;
    image im;
    if (!PyArg_ParseTuple(args, "y*y*(nn)iy*w*", &v[COUNTS], &v[STEPS], &ss, &fs, &itemsize, &v[PIXELS], &v[FOUND]))
        return NULL;
    const size_t n = (size_t)v[FOUND].len / sizeof(uint32_t);
    int fit = take_image(&v[COUNTS], &v[STEPS], NULL, ss, fs, itemsize, &im) && holds(&v[PIXELS], "pixels", n, sizeof(int64_t)) &&
              holds(&v[FOUND], "found", n, sizeof(uint32_t));
    for (size_t k = 0; k < n && fit; k++) {
        const int64_t pixel = ((const int64_t *)v[PIXELS].buf)[k];
        if (pixel < 0 || pixel >= ss * fs) fit = 0, PyErr_Format(PyExc_ValueError, "pixel %lld outside the image", (long long)pixel);
        else ((uint32_t *)v[FOUND].buf)[k] = count_at(&im, (size_t)pixel);
    }
    for (int k = 0; k < N; k++) PyBuffer_Release(&v[k]);
    return fit ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(saturated_doc, "saturated(planes, steps, (ss, fs), itemsize, pixels) -> int\n\n"
                            "Fill pixels, int64, with those that read the largest value; return how many there are.");

static PyObject *py_saturated(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer planes, steps, pixels;
    Py_ssize_t ss, fs;
    int itemsize;
    size_t n = 0;
    image im;
    if (!PyArg_ParseTuple(args, "y*y*(nn)iw*", &planes, &steps, &ss, &fs, &itemsize, &pixels)) return NULL;
    int fit = take_image(&planes, &steps, NULL, ss, fs, itemsize, &im);
    if (fit && !im.steps) fit = 0, PyErr_SetString(PyExc_ValueError, "an image without steps; expected planes");
    if (fit) n = saturated(&im, pixels.buf, (size_t)pixels.len / sizeof(int64_t));
    PyBuffer_Release(&planes);
    PyBuffer_Release(&steps);
    PyBuffer_Release(&pixels);
    return fit ? PyLong_FromSize_t(n) : NULL;
}

static PyMethodDef methods[] = {
    {"saturated", py_saturated, METH_VARARGS, saturated_doc},
    {"counts_at", py_counts_at, METH_VARARGS, counts_doc},
    {"see", py_see, METH_VARARGS, see_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_lit",
    .m_doc = "Lit pixels of a frame; see _lit.pyi.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__lit(void) { return PyModuleDef_Init(&module); }
