/* One frame's cells on one CPU core, as Python sees it: arrays checked, the work done without the GIL. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>

#include "_cells.h"

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

static int read_windows(PyObject *windows, background_frame *f) {
    f->n_windows = (size_t)PyTuple_GET_SIZE(windows);
    if (f->n_windows > MAX_WINDOWS) {
        PyErr_Format(PyExc_ValueError, "%zu windows; expected up to %d", f->n_windows, MAX_WINDOWS);
        return 0;
    }
    for (size_t w = 0; w < f->n_windows; w++)
        f->window[w] = PyLong_AsSize_t(PyTuple_GET_ITEM(windows, (Py_ssize_t)w));
    return !PyErr_Occurred();
}

PyDoc_STRVAR(background_doc, "background(sums, bin, lowest, above, exposure, exposure_N, mean, total_N, counts_N, exposed_N, "
                             "(height, width), n_sectors, windows, (ring_prior, block_prior, clip_sigma, "
                             "clip_photons), (n_clips, cell_px, block_cells)) -> float\n\nReturn the sum of the mean.");

static PyObject *py_background(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer v[10];
    Py_ssize_t height, width, n_sectors, block, cell_px;
    PyObject *windows;
    background_frame f = {0};
    int done = 0;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*w*w*w*w*(nn)nO!(dddd)(inn)", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6],
                          &v[7], &v[8], &v[9], &height, &width, &n_sectors, &PyTuple_Type, &windows, &f.ring_prior, &f.block_prior,
                          &f.clip_sigma, &f.clip_photons, &f.n_clips, &cell_px, &block))
        return NULL;
    size_t n_bins = (size_t)v[5].len / sizeof(float), n_cells = (size_t)height * (size_t)width;
    size_t n_groups = (size_t)height * (((size_t)width + LANES - 1) / LANES);
    if (n_sectors < 1 || block < 1 || n_bins < 1 || n_bins % (size_t)n_sectors)
        PyErr_Format(PyExc_ValueError, "%zu bins of %zd sectors, blocks of %zd", n_bins, n_sectors, block);
    else if (in_range(height, width) && holds(&v[0], "sums", n_cells, 4) && holds(&v[1], "bin", n_cells, 2) &&
             holds(&v[2], "lowest", n_groups, 2) && holds(&v[3], "above", n_groups * LANES, 1) &&
             holds(&v[4], "exposure", n_cells, 1) && holds(&v[5], "exposure_N", n_bins, 4) &&
             holds(&v[6], "mean", n_cells, 4) && holds(&v[7], "total_N", n_bins, 4) &&
             holds(&v[8], "counts_N", n_bins, 4) && holds(&v[9], "exposed_N", n_bins, 4) && read_windows(windows, &f)) {
        f.sums = v[0].buf, f.bin = v[1].buf, f.lowest = v[2].buf, f.above = v[3].buf, f.exposure = v[4].buf;
        f.exposure_N = v[5].buf, f.mean = v[6].buf, f.total_N = v[7].buf, f.counts_N = v[8].buf, f.exposed_N = v[9].buf;
        f.height = (size_t)height, f.width = (size_t)width, f.block = (size_t)block;
        f.n_sectors = (size_t)n_sectors, f.n_rings = n_bins / (size_t)n_sectors;
        f.cell_px2 = (double)cell_px * (double)cell_px;
        outcome found;
        Py_BEGIN_ALLOW_THREADS
        found = estimate_background(&f);
        Py_END_ALLOW_THREADS
        if (found == BAD_BIN) PyErr_Format(PyExc_ValueError, "a cell's ring or bin is not one of %zu and %zu", f.n_rings, n_bins);
        else if (found == NO_MEMORY) PyErr_NoMemory();
        done = found == FINE;
    }
    for (int k = 0; k < 10; k++) PyBuffer_Release(&v[k]);
    return done ? PyFloat_FromDouble(f.mean_sum) : NULL;
}

PyDoc_STRVAR(scan_doc, "scan(sums, maxima, mean, exposure, columns, (frames, height, width), kept, (sigma, floor), "
                       "photons, places) -> None\n\nFill columns (5, frames, scales, kept).");

static PyObject *py_scan(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer v[5];
    Py_ssize_t frames, height, width, kept;
    scan_frame f = {0};
    float *photons = f.photons, *places = f.places;
    outcome found = FINE;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*(nnn)n(ff)(ffff)(ffff)", &v[0], &v[1], &v[2], &v[3], &v[4], &frames, &height,
                          &width, &kept, &f.sigma, &f.floor, &photons[0], &photons[1], &photons[2], &photons[3],
                          &places[0], &places[1], &places[2], &places[3]))
        return NULL;
    int fit = in_range(height, width) && in_range(frames, N_COLUMNS * N_SCALES) &&
              in_range(frames * N_COLUMNS * N_SCALES, kept) && in_range(frames, height * width);
    size_t n_cells = (size_t)height * (size_t)width, n_frames = (size_t)frames;
    fit = fit && holds(&v[0], "sums", n_frames * n_cells, 4) && holds(&v[1], "maxima", n_frames * n_cells, 4) &&
          holds(&v[2], "mean", n_frames * n_cells, 4) && holds(&v[3], "exposure", n_cells, 1) &&
          holds(&v[4], "columns", N_COLUMNS * n_frames * N_SCALES * (size_t)kept, 4);
    if (fit) {
        f.height = (size_t)height, f.width = (size_t)width, f.kept = (size_t)kept, f.exposure = v[3].buf;
        Py_BEGIN_ALLOW_THREADS
        for (size_t b = 0; b < n_frames && found == FINE; b++) {
            f.sums = (uint32_t *)v[0].buf + b * n_cells, f.maxima = (uint32_t *)v[1].buf + b * n_cells;
            f.mean = (float *)v[2].buf + b * n_cells;
            for (size_t c = 0; c < N_COLUMNS; c++)
                f.column[c] = (float *)v[4].buf + (c * n_frames + b) * N_SCALES * f.kept;
            found = scan_cells(&f);
        }
        Py_END_ALLOW_THREADS
        if (found == NO_MEMORY) PyErr_NoMemory();
    }
    for (int k = 0; k < 5; k++) PyBuffer_Release(&v[k]);
    return fit && found == FINE ? Py_NewRef(Py_None) : NULL;
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
    {"scan", py_scan, METH_VARARGS, scan_doc},
    {"neg_log10_tails", py_tails, METH_VARARGS, tails_doc},
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
