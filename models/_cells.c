/* One frame's cells on one CPU core, as Python sees it: arrays checked, the work done without the GIL. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>

#include "_cells.h"

enum { EVIDENCE, REST, SS, FS, MEAN, EDGE, N_BOX_COLUMNS };

/* Whether one of the boxes before `k` reaches it; all are asked, sixteen at a time. */
FAST static int is_reached(const float *restrict ss, const float *restrict fs, const float *restrict cells, size_t k) {
    float at_ss = ss[k], at_fs = fs[k], size = cells[k];
    int n = 0;
    for (size_t p = 0; p < k; p++) {
        float down = fabsf(at_ss - ss[p]), along = fabsf(at_fs - fs[p]), reach = (size + cells[p]) / 2;
        n += (down <= reach) & (along <= reach);
    }
    return n > 0;
}

/* Join the rows of the scales, each by falling evidence, to one; of equals the smaller box comes first. A box is
 * hidden if any before it, hidden or not, reaches it. `cells` has room for the edges of all. `from` holds the columns
 * of N_SCALES rows, `to` those of the joined row; returns how many are neither hidden nor empty, which come first. */
static size_t merge_scales(const float *const from[N_COLUMNS], float *const to[N_BOX_COLUMNS], const float edge[N_SCALES],
                           float floor, float cell_px, float *cells, size_t n_each, size_t n_keep) {
    size_t next[N_SCALES] = {0}, kept = 0;
    for (size_t k = 0; k < n_keep; k++) {
        size_t best = N_SCALES;
        for (size_t s = 0; s < N_SCALES; s++)
            if (next[s] < n_each &&
                (best == N_SCALES || from[EVIDENCE][s * n_each + next[s]] > from[EVIDENCE][best * n_each + next[best]]))
                best = s;
        size_t at = best * n_each + next[best]++;
        for (size_t c = 0; c < N_COLUMNS; c++) to[c][k] = from[c][at];
        to[EDGE][k] = edge[best], cells[k] = fmaxf(edge[best] / cell_px, 1);
        if (is_reached(to[SS], to[FS], cells, k)) to[EVIDENCE][k] = floor;
    }
    for (size_t k = 0; k < n_keep; k++) {
        if (!(to[EVIDENCE][k] > floor)) continue;
        for (size_t c = 0; c < N_BOX_COLUMNS; c++) to[c][kept] = to[c][k];
        kept++;
    }
    return kept;
}

/* Take the cells around some boxes out of their bins, each cell once; 0 at a bin that is none. `near` holds a 0 for
 * each cell. */
static int take_out(const float *ss, const float *fs, const float *edge, size_t n_boxes, float cell_px,
                    const uint32_t *sums, const uint8_t *exposure, const uint16_t *bin, size_t n_bins,
                     double *counts_N, double *exposed_N, uint8_t *near, size_t height, size_t width) {
    for (size_t k = 0; k < n_boxes; k++) {
        float reach = fmaxf(edge[k] / cell_px, 1) / 2 + 1;
        size_t top = (size_t)fmaxf(ss[k] - reach, 0), left = (size_t)fmaxf(fs[k] - reach, 0);
        size_t bottom = smaller((size_t)(ss[k] + reach) + 2, height), right = smaller((size_t)(fs[k] + reach) + 2, width);
        for (size_t i = top; i < bottom; i++)
            for (size_t j = left; j < right; j++) {
                size_t cell = i * width + j;
                if (near[cell]) continue;
                if (bin[cell] >= n_bins) return 0;
                near[cell] = 1, counts_N[bin[cell]] -= sums[cell], exposed_N[bin[cell]] -= exposure[cell];
            }
    }
    return 1;
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

/* Where the mean of a frame's rows goes: to be scanned and into `mean`, where these are not NULL. */
typedef struct {
    finder *found;
    float *mean;
    size_t width;
} taker;

static int take_row(void *with, size_t i, const float *mean) {
    const taker *t = with;
    if (t->mean) memcpy(t->mean + i * t->width, mean, t->width * sizeof *mean);
    return !t->found || find_row(t->found, i, mean);
}

static outcome gather(background_frame *f, const scan_frame *s, float *mean) {
    boxes scale[N_SCALES] = {{0}};
    taker t = {s->kept ? new_finder(s, scale) : NULL, mean, s->width};
    outcome found = s->kept && !t.found ? NO_MEMORY : estimate_background(f, take_row, &t);
    if (found == FINE && s->kept && !rank_boxes(s, scale)) found = NO_MEMORY;
    free_finder(t.found);
    for (int k = 0; k < N_SCALES; k++) free(scale[k].of);
    return found;
}

PyDoc_STRVAR(evidence_doc,
             "evidence(sums, maxima, bin, lowest, above, exposure, exposure_N, mean, total_N, counts_N, exposed_N, columns, "
             "(height, width), n_sectors, windows, (ring_prior, block_prior, clip_sigma, clip_photons), "
             "(n_clips, cell_px, block_cells), (sigma, floor), photons, places) -> float\n\n"
             "Fill the bins, columns (5, scales, kept) and the mean unless these are empty; return the sum of the mean.");

static PyObject *py_evidence(PyObject *Py_UNUSED(module), PyObject *args) {
    enum { SUMS, MAXIMA, BIN, LOWEST, ABOVE, EXPOSURE, EXPOSURE_N, MEANS, TOTAL_N, COUNTS_N, EXPOSED_N, COLUMNS, N };
    Py_buffer v[N];
    Py_ssize_t height, width, n_sectors, block, cell_px;
    PyObject *windows;
    background_frame f = {0};
    scan_frame s = {0};
    float *photons = s.photons, *places = s.places;
    int done = 0;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*w*w*w*w*w*(nn)nO!(dddd)(inn)(ff)(ffff)(ffff)", &v[SUMS], &v[MAXIMA], &v[BIN],
                          &v[LOWEST], &v[ABOVE], &v[EXPOSURE], &v[EXPOSURE_N], &v[MEANS], &v[TOTAL_N], &v[COUNTS_N],
                          &v[EXPOSED_N], &v[COLUMNS], &height, &width, &n_sectors, &PyTuple_Type, &windows, &f.ring_prior,
                          &f.block_prior, &f.clip_sigma, &f.clip_photons, &f.n_clips, &cell_px, &block, &s.sigma, &s.floor,
                          &photons[0], &photons[1], &photons[2], &photons[3], &places[0], &places[1], &places[2], &places[3]))
        return NULL;
    const size_t n_bins = (size_t)v[EXPOSURE_N].len / sizeof(float), n_cells = (size_t)height * (size_t)width;
    const size_t n_groups = (size_t)height * (((size_t)width + LANES - 1) / LANES), n_mean = v[MEANS].len ? n_cells : 0;
    s.kept = (size_t)v[COLUMNS].len / sizeof(float) / (N_COLUMNS * N_SCALES);
    if (n_sectors < 1 || block < 1 || n_bins < 1 || n_bins % (size_t)n_sectors)
        PyErr_Format(PyExc_ValueError, "%zu bins of %zd sectors, blocks of %zd", n_bins, n_sectors, block);
    else if (in_range(height, width) && holds(&v[SUMS], "sums", n_cells, 4) && holds(&v[MAXIMA], "maxima", n_cells, 4) &&
             holds(&v[BIN], "bin", n_cells, 2) && holds(&v[LOWEST], "lowest", n_groups, 2) &&
             holds(&v[ABOVE], "above", n_groups * LANES, 1) && holds(&v[EXPOSURE], "exposure", n_cells, 1) &&
             holds(&v[EXPOSURE_N], "exposure_N", n_bins, 4) && holds(&v[MEANS], "mean", n_mean, 4) &&
             holds(&v[TOTAL_N], "total_N", n_bins, 4) && holds(&v[COUNTS_N], "counts_N", n_bins, 4) &&
             holds(&v[EXPOSED_N], "exposed_N", n_bins, 4) &&
             holds(&v[COLUMNS], "columns", N_COLUMNS * N_SCALES * s.kept, 4) && read_windows(windows, &f)) {
        f.sums = v[SUMS].buf, f.bin = v[BIN].buf, f.lowest = v[LOWEST].buf, f.above = v[ABOVE].buf;
        f.exposure = v[EXPOSURE].buf, f.exposure_N = v[EXPOSURE_N].buf;
        f.total_N = v[TOTAL_N].buf, f.counts_N = v[COUNTS_N].buf, f.exposed_N = v[EXPOSED_N].buf;
        f.height = s.height = (size_t)height, f.width = s.width = (size_t)width, f.block = (size_t)block;
        f.n_sectors = (size_t)n_sectors, f.n_rings = n_bins / (size_t)n_sectors;
        f.cell_px2 = (double)cell_px * (double)cell_px;
        s.sums = f.sums, s.maxima = v[MAXIMA].buf, s.exposure = f.exposure;
        for (size_t c = 0; c < N_COLUMNS; c++) s.column[c] = (float *)v[COLUMNS].buf + c * N_SCALES * s.kept;
        outcome found;
        Py_BEGIN_ALLOW_THREADS
        found = gather(&f, &s, n_mean ? v[MEANS].buf : NULL);
        Py_END_ALLOW_THREADS
        if (found == BAD_BIN) PyErr_Format(PyExc_ValueError, "a cell's ring or bin is not one of %zu and %zu", f.n_rings, n_bins);
        else if (found == NO_MEMORY) PyErr_NoMemory();
        done = found == FINE;
    }
    for (int k = 0; k < N; k++) PyBuffer_Release(&v[k]);
    return done ? PyFloat_FromDouble(f.mean_sum) : NULL;
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

PyDoc_STRVAR(merge_doc, "merge(candidates, boxes, each, (floor, cell_px), edges) -> int\n\n"
                        "Fill boxes (6, kept) from candidates (5, scales, each); return how many there are.");

static PyObject *py_merge(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer v[2];
    Py_ssize_t each;
    float floor, cell_px, edge[N_SCALES];
    if (!PyArg_ParseTuple(args, "y*w*n(ff)(ffff)", &v[0], &v[1], &each, &floor, &cell_px, &edge[0], &edge[1], &edge[2],
                          &edge[3]))
        return NULL;
    int fit = in_range(N_COLUMNS * N_SCALES, each);
    size_t n_each = (size_t)each, n_keep = (size_t)v[1].len / sizeof(float) / N_BOX_COLUMNS, n_boxes = 0;
    fit = fit && holds(&v[0], "candidates", N_COLUMNS * N_SCALES * n_each, 4) &&
          holds(&v[1], "boxes", N_BOX_COLUMNS * n_keep, 4);
    if (fit && n_keep > N_SCALES * n_each) {
        PyErr_Format(PyExc_ValueError, "%zu boxes of %zu", n_keep, N_SCALES * n_each);
        fit = 0;
    }
    float *cells = fit ? PyMem_New(float, n_keep + 1) : NULL;
    if (fit && !cells) fit = 0, PyErr_NoMemory();
    if (fit) {
        const float *from[N_COLUMNS];
        float *to[N_BOX_COLUMNS];
        for (size_t c = 0; c < N_COLUMNS; c++) from[c] = (const float *)v[0].buf + c * N_SCALES * n_each;
        for (size_t c = 0; c < N_BOX_COLUMNS; c++) to[c] = (float *)v[1].buf + c * n_keep;
        n_boxes = merge_scales(from, to, edge, floor, cell_px, cells, n_each, n_keep);
    }
    PyMem_Free(cells);
    for (int k = 0; k < 2; k++) PyBuffer_Release(&v[k]);
    return fit ? PyLong_FromSize_t(n_boxes) : NULL;
}

static int are_within(const float *place, size_t count, const char *name, Py_ssize_t most) {
    for (size_t k = 0; k < count; k++)
        if (!(place[k] >= 0 && place[k] <= (float)most)) {
            PyErr_Format(PyExc_ValueError, "%s of a box beyond %zd", name, most);
            return 0;
        }
    return 1;
}

PyDoc_STRVAR(outside_doc, "outside(boxes, cell_px, sums, exposure, bin, (height, width), counts_N, exposed_N) -> None\n\n"
                          "Take the cells around boxes (3, n), ss, fs and edge, out of counts_N and exposed_N, float64 (bins,).");

static PyObject *py_outside(PyObject *Py_UNUSED(module), PyObject *args) {
    enum { BOXES, SUMS, EXPOSURE, BIN, COUNTS, EXPOSED, N };
    Py_buffer v[N];
    Py_ssize_t height, width;
    float cell_px;
    if (!PyArg_ParseTuple(args, "y*fy*y*y*(nn)w*w*", &v[BOXES], &cell_px, &v[SUMS], &v[EXPOSURE],
                          &v[BIN], &height, &width, &v[COUNTS], &v[EXPOSED]))
        return NULL;
    size_t n_boxes = (size_t)v[BOXES].len / (3 * sizeof(float)), n_bins = (size_t)v[COUNTS].len / sizeof(double);
    const float *ss = v[BOXES].buf;
    int fit = in_range(height, width);
    size_t n_cells = fit ? (size_t)height * (size_t)width : 0;
    fit = fit && holds(&v[BOXES], "boxes", 3 * n_boxes, 4) && holds(&v[SUMS], "sums", n_cells, 4) &&
          holds(&v[EXPOSURE], "exposure", n_cells, 1) && holds(&v[BIN], "bin", n_cells, 2) &&
          holds(&v[COUNTS], "counts_N", n_bins, 8) && holds(&v[EXPOSED], "exposed_N", n_bins, 8) &&
          are_within(ss, n_boxes, "row", height) && are_within(ss + n_boxes, n_boxes, "column", width) &&
          are_within(ss + 2 * n_boxes, n_boxes, "edge", INT16_MAX);
    uint8_t *near = fit ? PyMem_Calloc(n_cells, 1) : NULL;
    if (fit && !near) fit = 0, PyErr_NoMemory();
    if (fit && !take_out(ss, ss + n_boxes, ss + 2 * n_boxes, n_boxes, cell_px, v[SUMS].buf, v[EXPOSURE].buf, v[BIN].buf,
                         n_bins, v[COUNTS].buf, v[EXPOSED].buf, near, (size_t)height, (size_t)width))
        fit = 0, PyErr_Format(PyExc_ValueError, "a cell's bin is not one of %zu", n_bins);
    PyMem_Free(near);
    for (int k = 0; k < N; k++) PyBuffer_Release(&v[k]);
    return fit ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"evidence", py_evidence, METH_VARARGS, evidence_doc},
    {"neg_log10_tails", py_tails, METH_VARARGS, tails_doc},
    {"merge", py_merge, METH_VARARGS, merge_doc},
    {"outside", py_outside, METH_VARARGS, outside_doc},
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
