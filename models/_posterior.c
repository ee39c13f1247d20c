/* The heads' posterior from the log likelihood on a coarse grid of energy and log(energy / clen): its ridge is
 * followed at ever finer energies, then integrated. Interpolation is Lagrange's through six nodes along each axis;
 * names and meaning are those of `heads`. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>

#define ORDER 6
#define ZOOM 17      /* energies */
#define ACROSS 11    /* ratios at each of them */
#define FINE 121     /* energies of the marginal */
#define PARTS 5      /* of the conditional distribution of clen */
#define MAX_ZOOMS 4
#define N_CLIMBS 2
#define BEND_STEP 4e-3
#define WIDEST 0.35  /* of the ratio, where nothing bends the likelihood */

typedef struct {
    const double *value;
    Py_ssize_t n_e, n_u;
    double e0, e_step, u0, u_step;     /* axes */
    double e_min, e_max, c_min, c_max; /* range */
    double reach;
} grid;

typedef struct {
    double e[ZOOM], u[ZOOM], top[ZOOM], bend[ZOOM];
} ridge;

/* What is no number becomes `low`: an index stays one. */
static double between(double x, double low, double high) { return x > low ? x < high ? x : high : low; }

static Py_ssize_t stencil(double at, double first, double step, Py_ssize_t n, double *weight) {
    double x = (at - first) / step;
    Py_ssize_t k = (Py_ssize_t)between(floor(x) - ORDER / 2 + 1, 0, (double)(n - ORDER));
    x -= (double)k;
    for (int i = 0; i < ORDER; i++) {
        weight[i] = 1;
        for (int j = 0; j < ORDER; j++)
            if (j != i) weight[i] *= (x - j) / (i - j);
    }
    return k;
}

static double log_like(const grid *g, double e, double u) {
    double we[ORDER], wu[ORDER], sum = 0;
    Py_ssize_t i = stencil(e, g->e0, g->e_step, g->n_e, we), j = stencil(u, g->u0, g->u_step, g->n_u, wu);
    for (int a = 0; a < ORDER; a++) {
        const double *row = g->value + (i + a) * g->n_u + j;
        double along = 0;
        for (int b = 0; b < ORDER; b++) along += wu[b] * row[b];
        sum += we[a] * along;
    }
    return sum;
}

/* The best ratio of each coarse energy, by the parabola through the best node and its neighbours. */
static void look_coarse(const grid *g, double *ratio, double *top) {
    for (Py_ssize_t i = 0; i < g->n_e; i++) {
        const double *row = g->value + i * g->n_u;
        double e = g->e0 + g->e_step * (double)i;
        double low = log(e / g->c_max), high = log(e / g->c_min);
        Py_ssize_t first = (Py_ssize_t)between(floor((low - g->u0) / g->u_step), 1, (double)(g->n_u - 2));
        Py_ssize_t last = (Py_ssize_t)between(ceil((high - g->u0) / g->u_step), 1, (double)(g->n_u - 2));
        Py_ssize_t best = first;
        for (Py_ssize_t j = first; j <= last; j++)
            if (row[j] > row[best]) best = j;
        double before = row[best - 1], at = row[best], after = row[best + 1];
        double bend = fmin(before + after - 2 * at, -1e-9), shift = between(0.5 * (before - after) / bend, -1, 1);
        ratio[i] = g->u0 + g->u_step * ((double)best + shift);
        top[i] = at + 0.5 * shift * (after - before) + 0.5 * shift * shift * bend;
    }
}

/* The energies that matter, one node beyond; a best at the edge moves the span on. */
static void span(const grid *g, const double *e, const double *top, Py_ssize_t n, double *low, double *high) {
    Py_ssize_t best = 0, first = n, last = 0;
    double step = e[1] - e[0];
    for (Py_ssize_t k = 1; k < n; k++)
        if (top[k] > top[best]) best = k;
    for (Py_ssize_t k = 0; k < n; k++)
        if (top[k] > top[best] - g->reach) first = k < first ? k : first, last = k;
    *low = e[first] - step, *high = e[last] + step;
    if ((best == 0 || best == n - 1) && g->e_min < e[best] && e[best] < g->e_max) {
        double half = (e[n - 1] - e[0]) / 2;
        *low = e[best] - half, *high = e[best] + half;
    }
    *low = fmax(*low, g->e_min), *high = fmin(*high, g->e_max);
}

static double interpolate(double x, const double *at, const double *value, Py_ssize_t n) {
    double t = between((x - at[0]) / (at[1] - at[0]), 0, (double)(n - 1));
    Py_ssize_t k = (Py_ssize_t)fmin(floor(t), (double)(n - 2));
    return value[k] + (t - (double)k) * (value[k + 1] - value[k]);
}

/* Newton steps in the ratio at one energy, within the range of clen. */
static void climb(const grid *g, ridge *r, int k, double u) {
    double e = r->e[k], low = log(e / g->c_max), high = log(e / g->c_min);
    u = between(u, low, high);
    for (int n = 0; n < N_CLIMBS; n++) {
        double before = log_like(g, e, u - BEND_STEP), at = log_like(g, e, u), after = log_like(g, e, u + BEND_STEP);
        double slope = (after - before) / (2 * BEND_STEP);
        r->bend[k] = fmax((2 * at - before - after) / (BEND_STEP * BEND_STEP), 1e-9);
        u = between(u + between(slope / r->bend[k], -g->u_step, g->u_step), low, high);
    }
    r->u[k] = u, r->top[k] = log_like(g, e, u);
}

static void follow(const grid *g, ridge *r, double *coarse) {
    double *e = coarse, *u = coarse + g->n_e, *top = u + g->n_e, low, high;
    Py_ssize_t n = g->n_e;
    for (Py_ssize_t i = 0; i < n; i++) e[i] = g->e0 + g->e_step * (double)i;
    look_coarse(g, u, top);
    span(g, e, top, n, &low, &high);
    for (int zoom = 0; zoom < MAX_ZOOMS; zoom++) {
        ridge finer;
        for (int k = 0; k < ZOOM; k++) {
            finer.e[k] = low + (high - low) * k / (ZOOM - 1);
            climb(g, &finer, k, interpolate(finer.e[k], e, u, n));
        }
        *r = finer, e = r->e, u = r->u, n = ZOOM;
        span(g, e, r->top, n, &low, &high);
        if (high - low > 0.5 * (e[ZOOM - 1] - e[0])) break;
    }
}

/* How far from 0 the interval reaches that holds `share` of the weight; each place is `wide`. */
static double half_width(const double *place, const double *weight, int n, double middle, double wide, double share) {
    double low = 0, high = 0;
    for (int k = 0; k < n; k++) high = fmax(high, fabs(place[k] - middle) + wide);
    for (int turn = 0; turn < 16; turn++) {
        double reach = (low + high) / 2, inside = 0;
        for (int k = 0; k < n; k++) {
            double d = fabs(place[k] - middle);
            inside += weight[k] * (wide > 0 ? between((reach - d) / wide + 0.5, 0, 1) : d <= reach);
        }
        if (inside < share) low = reach;
        else high = reach;
    }
    return (low + high) / 2;
}

/* Mean and 68 % half width of energy and clen, and the correlation of their errors. */
static void integrate(const grid *g, const ridge *r, double dispersion, double share, double *answer) {
    static const double part[PARTS] = {-1.400, -0.532, 0, 0.532, 1.400};
    double log_mass[ZOOM], centre[ZOOM], within[ZOOM], highest = -INFINITY;
    for (int k = 0; k < ZOOM; k++) highest = fmax(highest, r->top[k]);
    for (int k = 0; k < ZOOM; k++) {
        double low = log(r->e[k] / g->c_max), high = log(r->e[k] / g->c_min), u[ACROSS];
        double sigma = sqrt(dispersion / fmax(r->bend[k], dispersion / (WIDEST * WIDEST)));
        double sum = 0, first = 0, second = 0;
        for (int a = 0; a < ACROSS; a++) u[a] = between(r->u[k] + sigma * (a - ACROSS / 2), low, high);
        for (int a = 0; a < ACROSS; a++) {
            double clen = r->e[k] * exp(-u[a]), width = u[a < ACROSS - 1 ? a + 1 : a] - u[a ? a - 1 : a];
            /* Flat in clen: d clen = clen d ratio. */
            double mass = clen * width * exp((log_like(g, r->e[k], u[a]) - highest) / dispersion);
            sum += mass, first += mass * clen, second += mass * clen * clen;
        }
        sum = fmax(sum, 1e-300);
        log_mass[k] = log(sum), centre[k] = first / sum;
        within[k] = sqrt(fmax(second / sum - centre[k] * centre[k], 0));
    }
    double e[FINE], weight[FINE], clen[FINE * PARTS], each[FINE * PARTS], total = 0, mean_e = 0, mean_c = 0;
    double var_e = 0, var_c = 0, both = 0, step = r->e[1] - r->e[0];
    for (int i = 0; i < FINE; i++) {
        e[i] = r->e[0] + (r->e[ZOOM - 1] - r->e[0]) * i / (FINE - 1);
        int m = (int)between(rint((e[i] - r->e[0]) / step), 1, ZOOM - 2);
        double t = (e[i] - r->e[m]) / step, before = log_mass[m - 1], at = log_mass[m], after = log_mass[m + 1];
        weight[i] = exp(at - log_mass[ZOOM / 2] + t * (after - before) / 2 + t * t * (after + before - 2 * at) / 2);
        total += weight[i];
    }
    for (int i = 0; i < FINE; i++) {
        weight[i] /= total;
        mean_e += weight[i] * e[i], mean_c += weight[i] * interpolate(e[i], r->e, centre, ZOOM);
    }
    for (int i = 0; i < FINE; i++) {
        double c = interpolate(e[i], r->e, centre, ZOOM), s = interpolate(e[i], r->e, within, ZOOM);
        var_e += weight[i] * (e[i] - mean_e) * (e[i] - mean_e);
        var_c += weight[i] * (s * s + (c - mean_c) * (c - mean_c));
        both += weight[i] * (e[i] - mean_e) * (c - mean_c);
        for (int p = 0; p < PARTS; p++) clen[i * PARTS + p] = c + s * part[p], each[i * PARTS + p] = weight[i] / PARTS;
    }
    answer[0] = mean_e, answer[1] = half_width(e, weight, FINE, mean_e, e[1] - e[0], share);
    answer[2] = mean_c, answer[3] = half_width(clen, each, FINE * PARTS, mean_c, 0, share);
    answer[4] = between(both / fmax(sqrt(var_e * var_c), 1e-300), -1, 1);
}

/* ---- Python's face -------------------------------------------------------------------------------------- */

static int is_grid(const Py_buffer *view, grid *g) {
    if (g->n_e < ORDER || g->n_u < ORDER || g->n_e > 4096 || g->n_u > 4096 ||
        view->len != g->n_e * g->n_u * (Py_ssize_t)sizeof(double) || (uintptr_t)view->buf % sizeof(double)) {
        PyErr_Format(PyExc_ValueError, "log likelihood: %zd bytes; expected %zd x %zd doubles, at least %d along each",
                     view->len, g->n_e, g->n_u, ORDER);
        return 0;
    }
    g->value = view->buf;
    return 1;
}

PyDoc_STRVAR(follow_doc,
             "follow(log_like, (n_e, n_u), (e0, e_step, u0, u_step), (e_min, e_max, c_min, c_max), reach, ridge) -> "
             "tuple[float, float]\n\nFill ridge, float64 (4, 17); return energy and ratio of its top.");

static PyObject *py_follow(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer values, out;
    grid g;
    PyObject *answer = NULL;
    if (!PyArg_ParseTuple(args, "y*(nn)(dddd)(dddd)dw*", &values, &g.n_e, &g.n_u, &g.e0, &g.e_step, &g.u0, &g.u_step,
                          &g.e_min, &g.e_max, &g.c_min, &g.c_max, &g.reach, &out))
        return NULL;
    double *coarse = NULL;
    if (out.len != sizeof(ridge) || (uintptr_t)out.buf % sizeof(double))
        PyErr_Format(PyExc_ValueError, "ridge: %zd bytes; expected %zu", out.len, sizeof(ridge));
    else if (is_grid(&values, &g)) {
        coarse = PyMem_New(double, 3 * (size_t)g.n_e);
        if (!coarse) PyErr_NoMemory();
    }
    if (coarse) {
        ridge *r = out.buf;
        int best = 0;
        follow(&g, r, coarse);
        for (int k = 1; k < ZOOM; k++)
            if (r->top[k] > r->top[best]) best = k;
        answer = Py_BuildValue("dd", r->e[best], r->u[best]);
    }
    PyMem_Free(coarse);
    PyBuffer_Release(&values);
    PyBuffer_Release(&out);
    return answer;
}

PyDoc_STRVAR(integrate_doc,
             "integrate(log_like, (n_e, n_u), (e0, e_step, u0, u_step), (e_min, e_max, c_min, c_max), ridge, "
             "dispersion, share, at, like) -> tuple[float, float, float, float, float]\n\nReturn energy, its half "
             "width, clen, its half width, correlation; fill like (n,) with the log likelihood at the pairs "
             "(energy, ratio) of at (n, 2).");

static PyObject *py_integrate(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer values, in, at, like;
    grid g;
    double dispersion, share, said[5];
    PyObject *answer = NULL;
    if (!PyArg_ParseTuple(args, "y*(nn)(dddd)(dddd)y*ddy*w*", &values, &g.n_e, &g.n_u, &g.e0, &g.e_step, &g.u0,
                          &g.u_step, &g.e_min, &g.e_max, &g.c_min, &g.c_max, &in, &dispersion, &share, &at, &like))
        return NULL;
    if (in.len != sizeof(ridge) || (uintptr_t)in.buf % sizeof(double))
        PyErr_Format(PyExc_ValueError, "ridge: %zd bytes; expected %zu", in.len, sizeof(ridge));
    else if (at.len != 2 * like.len || like.len % (Py_ssize_t)sizeof(double))
        PyErr_Format(PyExc_ValueError, "%zd bytes of pairs for %zd of values", at.len, like.len);
    else if (is_grid(&values, &g)) {
        integrate(&g, in.buf, dispersion, share, said);
        const double *pair = at.buf;
        double *value = like.buf;
        for (Py_ssize_t k = 0; k < like.len / (Py_ssize_t)sizeof(double); k++)
            value[k] = log_like(&g, pair[2 * k], pair[2 * k + 1]);
        answer = Py_BuildValue("ddddd", said[0], said[1], said[2], said[3], said[4]);
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&in);
    PyBuffer_Release(&at);
    PyBuffer_Release(&like);
    return answer;
}

static PyMethodDef methods[] = {{"follow", py_follow, METH_VARARGS, follow_doc},
                                {"integrate", py_integrate, METH_VARARGS, integrate_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "hitfinder.models._posterior", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__posterior(void) { return PyModule_Create(&module); }
