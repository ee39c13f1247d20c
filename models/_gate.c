/* The gate's network on one CPU core, a frame at a time: `gate.GateNet`, on the places that are there. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MOST_INPUTS 64
#define HIDDEN 16 /* of both hidden layers */
#define MOST_TOP 16
#define MOST_PLACES 4096

typedef struct {
    const float *in, *in_bias, *hidden, *hidden_bias, *out; /* inputs first; `out` ends with its bias */
    size_t n_inputs;
} branch;

typedef struct {
    const int64_t *column;
    const float *factor;
    branch place, any, spots3;
    size_t n_features, n_widths, n_places, n_top;
    float faintest, ceiling, scale;
} net;

static void add_layer(const float *x, size_t n, const float *weight, const float *bias, float *y) {
    float sum[HIDDEN];
    memcpy(sum, bias, sizeof sum);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < HIDDEN; j++) sum[j] += x[i] * weight[i * HIDDEN + j];
    for (size_t j = 0; j < HIDDEN; j++) y[j] = sum[j] > 0 ? sum[j] : 0;
}

static float run(const branch *b, const float *x) {
    float one[HIDDEN], two[HIDDEN], sum = b->out[HIDDEN];
    add_layer(x, b->n_inputs, b->in, b->in_bias, one);
    add_layer(one, HIDDEN, b->hidden, b->hidden_bias, two);
    for (size_t j = 0; j < HIDDEN; j++) sum += two[j] * b->out[j];
    return sum;
}

/* The logit of one place. */
static float spot_logit(const net *n, const float *features) {
    float seen[MOST_INPUTS], top = -INFINITY, sum = 0;
    for (size_t k = 0; k < n->n_features; k++) seen[k] = features[n->column[k]] * n->factor[k];
    for (size_t k = 1; k <= n->n_widths; k++) top = seen[k] > top ? seen[k] : top;
    for (size_t k = 1; k <= n->n_widths; k++) sum += expf(seen[k] - top);
    float logit = top + logf(sum / (float)n->n_widths) + run(&n->place, seen);
    return fminf(fmaxf(logit, n->faintest), n->ceiling);
}

static int by_falling(const void *a, const void *b) {
    float one = *(const float *)a, other = *(const float *)b;
    return one < other ? 1 : one > other ? -1 : 0;
}

/* The logits of the frame whose places these are; `spot` has room for n_places. */
static void judge(const net *n, float *spot, size_t count, float logits[2]) {
    float best[MOST_TOP];
    double total = 0;
    for (size_t k = count; k < n->n_places; k++) spot[k] = n->faintest;
    for (size_t k = 0; k < n->n_places; k++) total += log1p(exp((double)spot[k]));
    qsort(spot, n->n_places, sizeof *spot, by_falling);
    for (size_t k = 0; k < n->n_top; k++) best[k] = spot[k] / n->scale;
    total = fmin(fmax(total, 1e-12), n->ceiling);
    logits[0] = (float)log(expm1(total)) + run(&n->any, best);
    logits[1] = spot[2] + run(&n->spots3, best + 2);
}

/* ---- Python's face -------------------------------------------------------------------------------------- */

static int holds(const Py_buffer *view, const char *name, size_t n, size_t itemsize) {
    if ((size_t)view->len == n * itemsize && (uintptr_t)view->buf % itemsize == 0) return 1;
    PyErr_Format(PyExc_ValueError, "%s: %zd bytes; expected %zu aligned ones", name, view->len, n * itemsize);
    return 0;
}

/* A branch's layers as one array: weights, inputs first, and bias of each. */
static int read_branch(const Py_buffer *view, size_t n_inputs, branch *b) {
    size_t in = n_inputs * HIDDEN, hidden = HIDDEN * HIDDEN;
    if (!holds(view, "branch", in + HIDDEN + hidden + HIDDEN + HIDDEN + 1, sizeof(float))) return 0;
    b->n_inputs = n_inputs, b->in = view->buf, b->in_bias = b->in + in, b->hidden = b->in_bias + HIDDEN;
    b->hidden_bias = b->hidden + hidden, b->out = b->hidden_bias + HIDDEN;
    return 1;
}

static int are_columns(const int64_t *column, size_t n) {
    for (size_t k = 0; k < n; k++)
        if (column[k] < 0 || (size_t)column[k] >= n) {
            PyErr_Format(PyExc_ValueError, "column %zu of %zu", k, n);
            return 0;
        }
    return 1;
}

PyDoc_STRVAR(judge_doc, "judge(features, column, factor, place, any, spots3, (widths, places, top), (faintest, ceiling, "
                        "scale), spots, logits) -> None\n\nFill spots (n,) with the logits of the places of features (n, F), "
                        "and logits (2,), any and spots3, with the frame's, if it is to be judged and not empty.");

static PyObject *py_judge(PyObject *Py_UNUSED(module), PyObject *args) {
    enum { FEATURES, COLUMN, FACTOR, PLACE, ANY, SPOTS3, SPOTS, LOGITS, N };
    Py_buffer v[N];
    Py_ssize_t widths, places, top;
    net n;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*(nnn)(fff)w*w*", &v[FEATURES], &v[COLUMN], &v[FACTOR], &v[PLACE], &v[ANY],
                          &v[SPOTS3], &widths, &places, &top, &n.faintest, &n.ceiling, &n.scale, &v[SPOTS], &v[LOGITS]))
        return NULL;
    size_t count = (size_t)v[SPOTS].len / sizeof(float), n_features = (size_t)v[COLUMN].len / sizeof(int64_t);
    int is_frame = v[LOGITS].len > 0;
    int fit = n_features <= MOST_INPUTS && widths > 0 && (size_t)widths < n_features && top > 2 && top <= MOST_TOP &&
              places >= top && places <= MOST_PLACES && (!is_frame || count <= (size_t)places);
    if (!fit) PyErr_Format(PyExc_ValueError, "%zu places of %zu features, %zd widths, %zd best", count, n_features, widths, top);
    fit = fit && holds(&v[FEATURES], "features", count * n_features, 4) && holds(&v[COLUMN], "column", n_features, 8) &&
          holds(&v[FACTOR], "factor", n_features, 4) && holds(&v[SPOTS], "spots", count, 4) &&
          holds(&v[LOGITS], "logits", is_frame ? 2 : 0, 4) && read_branch(&v[PLACE], n_features, &n.place) &&
          read_branch(&v[ANY], (size_t)top, &n.any) && read_branch(&v[SPOTS3], (size_t)top - 2, &n.spots3) &&
          are_columns(v[COLUMN].buf, n_features);
    if (fit) {
        float *spot = v[SPOTS].buf, all[MOST_PLACES];
        n.column = v[COLUMN].buf, n.factor = v[FACTOR].buf, n.n_features = n_features, n.n_widths = (size_t)widths;
        n.n_places = (size_t)places, n.n_top = (size_t)top;
        for (size_t k = 0; k < count; k++) spot[k] = spot_logit(&n, (const float *)v[FEATURES].buf + k * n_features);
        if (is_frame) {
            memcpy(all, spot, count * sizeof *spot);
            judge(&n, all, count, v[LOGITS].buf);
        }
    }
    for (int k = 0; k < N; k++) PyBuffer_Release(&v[k]);
    return fit ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"judge", py_judge, METH_VARARGS, judge_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_gate",
    .m_doc = "The gate's network on one CPU core; see _gate.pyi.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__gate(void) { return PyModuleDef_Init(&module); }
