/* Spots at full resolution: a place is followed to the middle of its photons, and measured with three rings. What is
 * computed is told in spots.py; a test holds it to the same written plainly. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <string.h>

#include "_image.h"

#define REACH 14 /* half width of the window around a spot */
#define SPAN (2 * REACH + 1)
#define ROW 32   /* floats of a row, zeros behind the window */
#define RIM 2    /* pixels that a position stays away from the window's edge */
#define LEAST_BACKGROUND 1e-6f

typedef struct {
    image im;
    int n_shifts;
    float min_kernel, disc_sigma, min_disc, max_disc, gap, prior;
} frame;

typedef struct {
    float counts[SPAN][ROW], excess[SPAN][ROW], used[SPAN][ROW]; /* used: 0 or 1 */
} window;

/* Read the window whose first pixel is (ss0, fs0); what cannot be seen is 0. */
static void look(window *restrict w, const frame *f, int64_t ss0, int64_t fs0, float background) {
    const image *im = &f->im;
    const int64_t left = fs0 < 0 ? -fs0 : 0, right = im->width - fs0 < SPAN ? im->width - fs0 : SPAN;
    memset(w, 0, sizeof *w);
    for (int64_t i = ss0 < 0 ? -ss0 : 0; left < right && i < SPAN && ss0 + i < im->height; i++) {
        const size_t corner = (size_t)((ss0 + i) * im->width + fs0 + left), n = (size_t)(right - left);
        uint8_t bytes[ROW_PX];
        read_row(im, corner, n, bytes);
        for (size_t j = 0; j < n; j++) {
            if (bytes[j] == UNSEEN) continue;
            const float count = bytes[j] < BRIGHT ? (float)(bytes[j] - 1) : (float)count_at(im, corner + j);
            const size_t to = j + (size_t)left;
            w->counts[i][to] = count, w->excess[i][to] = count - background, w->used[i][to] = 1;
        }
    }
}

/* Ask for the memory of a window ahead of its use. */
static void ask_for(const frame *f, int64_t ss0, int64_t fs0) {
    const image *im = &f->im;
    const int64_t left = fs0 < 0 ? 0 : fs0, right = fs0 + SPAN > im->width ? im->width : fs0 + SPAN;
    for (int64_t row = ss0 < 0 ? 0 : ss0; left < right && row < ss0 + SPAN && row < im->height; row++)
        ask_for_row(im, (size_t)(row * im->width + left), (size_t)(right - left));
}

/* Sums of each column: of the excess under the kernel along ss, and of that times the row. */
FAST static void weigh_rows(const window *w, const float along_ss[SPAN], float *restrict sum, float *restrict first) {
    float s[ROW] = {0}, m[ROW] = {0};
    for (int i = 0; i < SPAN; i++) {
        float weight = along_ss[i], moment = weight * (float)i;
        for (int j = 0; j < ROW; j++) s[j] += w->excess[i][j] * weight, m[j] += w->excess[i][j] * moment;
    }
    memcpy(sum, s, sizeof s), memcpy(first, m, sizeof m);
}

static float inside(double at) { return (float)(at < RIM ? RIM : at > SPAN - 1 - RIM ? SPAN - 1 - RIM : at); }

/* Shift a position to the weighted mean of the excess around it, again and again. */
static void follow(const window *w, int n_shifts, float kernel, float at[2]) {
    float scale = -0.5f / (kernel * kernel), along_ss[SPAN], along_fs[SPAN], sum[ROW], first[ROW];
    for (int shift = 0; shift < n_shifts; shift++) {
        for (int k = 0; k < SPAN; k++) {
            float y = (float)k - at[0], x = (float)k - at[1];
            along_ss[k] = expf(scale * y * y), along_fs[k] = expf(scale * x * x);
        }
        weigh_rows(w, along_ss, sum, first);
        double total = 0, ss = 0, fs = 0;
        for (int k = 0; k < SPAN; k++) {
            double column = (double)sum[k] * along_fs[k];
            total += column, fs += column * k, ss += (double)first[k] * along_fs[k];
        }
        if (!(total > 0)) break;
        at[0] = inside(ss / total), at[1] = inside(fs / total);
    }
}

typedef struct {
    float n_in, n_out, area_in, area_out;
} rings;

FAST static rings measure(const window *w, const float at[2], float disc, float gap_end) {
    float n_in[ROW] = {0}, n_out[ROW] = {0}, area_in[ROW] = {0}, area_out[ROW] = {0};
    for (int i = 0; i < SPAN; i++) {
        float y = (float)i - at[0], y2 = y * y;
        for (int j = 0; j < ROW; j++) {
            float x = (float)j - at[1], distance = sqrtf(y2 + x * x), used = w->used[i][j], n = w->counts[i][j];
            float in = distance <= disc ? used : 0, out = distance > gap_end ? used : 0;
            out = distance <= REACH ? out : 0;
            n_in[j] += n * in, n_out[j] += n * out, area_in[j] += in, area_out[j] += out;
        }
    }
    double sum[4] = {0};
    for (int j = 0; j < ROW; j++) sum[0] += n_in[j], sum[1] += n_out[j], sum[2] += area_in[j], sum[3] += area_out[j];
    return (rings){(float)sum[0], (float)sum[1], (float)sum[2], (float)sum[3]};
}

/* Intensity above the local background, and its SNR. */
static void three_rings(const window *w, const frame *f, const float at[2], float sigma, float background,
                        float *intensity, float *snr) {
    float disc = f->disc_sigma * sigma;
    disc = disc < f->min_disc ? f->min_disc : disc > f->max_disc ? f->max_disc : disc;
    rings r = measure(w, at, disc, disc + f->gap);
    float area_out = r.area_out + f->prior / fmaxf(background, LEAST_BACKGROUND), local = (r.n_out + f->prior) / area_out;
    *intensity = r.n_in - local * r.area_in;
    *snr = *intensity / sqrtf(fmaxf(r.n_in, 1) + r.area_in * r.area_in * local / area_out);
}

/* The pixel that a position lies in; what is off the image is just off it. */
static int64_t pixel_of(float at, int64_t n) {
    return at > -1 ? at < (float)n ? (int64_t)rintf(at) : n : -1;
}

enum { SS, FS, SIGMA, BACKGROUND, N_GIVEN };
enum { INTENSITY = 2, SNR, N_FOUND };

/* Columns of `count` floats each. */
static void locate(const frame *f, const float *places, float *found, size_t count) {
    const float *ss = places + SS * count, *fs = places + FS * count;
    window w;
    for (size_t k = 0; k < count; k++) {
        float sigma = places[SIGMA * count + k], background = places[BACKGROUND * count + k];
        int64_t ss0 = pixel_of(ss[k], f->im.height) - REACH, fs0 = pixel_of(fs[k], f->im.width) - REACH;
        float at[2] = {inside((double)ss[k] - (double)ss0), inside((double)fs[k] - (double)fs0)};
        look(&w, f, ss0, fs0, background);
        if (k + 1 < count) ask_for(f, pixel_of(ss[k + 1], f->im.height) - REACH, pixel_of(fs[k + 1], f->im.width) - REACH);
        follow(&w, f->n_shifts, fmaxf(sigma, f->min_kernel), at);
        three_rings(&w, f, at, sigma, background, found + INTENSITY * count + k, found + SNR * count + k);
        found[SS * count + k] = at[0] + (float)ss0, found[FS * count + k] = at[1] + (float)fs0;
    }
}

/* A position is kept unless it is one that stands before it, kept or not. */
FAST static void keep_distinct(const float *restrict ss, const float *restrict fs, size_t count, float same2, uint8_t *kept) {
    for (size_t k = 0; k < count; k++) {
        int n = 0;
        for (size_t p = 0; p < k; p++) {
            const float down = ss[k] - ss[p], along = fs[k] - fs[p];
            n += down * down + along * along < same2;
        }
        kept[k] = n == 0;
    }
}

static int holds(const Py_buffer *view, const char *name, size_t n, size_t itemsize) {
    if ((size_t)view->len == n * itemsize && (uintptr_t)view->buf % itemsize == 0) return 1;
    PyErr_Format(PyExc_ValueError, "%s: %zd bytes; expected %zu aligned ones", name, view->len, n * itemsize);
    return 0;
}

PyDoc_STRVAR(locate_doc, "locate(counts, steps, mask, (ss, fs), itemsize, places, n_shifts, (min_kernel, disc_sigma, min_disc, "
                         "max_disc, gap, prior), found) -> None\n\nFill found (4, n), ss, fs, intensity, snr, from places "
                         "(4, n): ss, fs, sigma, background.");

static PyObject *py_locate(PyObject *Py_UNUSED(module), PyObject *args) {
    enum { COUNTS, STEPS, MASK, PLACES, FOUND, N };
    frame f;
    Py_buffer v[N];
    Py_ssize_t height, width;
    int itemsize;
    if (!PyArg_ParseTuple(args, "y*y*y*(nn)iy*i(ffffff)w*", &v[COUNTS], &v[STEPS], &v[MASK], &height, &width, &itemsize,
                          &v[PLACES], &f.n_shifts, &f.min_kernel, &f.disc_sigma, &f.min_disc, &f.max_disc, &f.gap,
                          &f.prior, &v[FOUND]))
        return NULL;
    const size_t count = (size_t)v[PLACES].len / sizeof(float) / N_GIVEN;
    const int fit = take_image(&v[COUNTS], &v[STEPS], &v[MASK], height, width, itemsize, &f.im) &&
                    holds(&v[PLACES], "places", N_GIVEN * count, sizeof(float)) &&
                    holds(&v[FOUND], "found", N_FOUND * count, sizeof(float));
    if (fit) {
        Py_BEGIN_ALLOW_THREADS
        locate(&f, v[PLACES].buf, v[FOUND].buf, count);
        Py_END_ALLOW_THREADS
    }
    for (int k = 0; k < N; k++) PyBuffer_Release(&v[k]);
    return fit ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(distinct_doc, "keep_distinct(ss, fs, same_px2, kept) -> None\n\nSet kept, uint8 (n,), to 0 where a position is as "
                           "near as that to one before it.");

static PyObject *py_keep_distinct(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer v[3];
    float same2;
    if (!PyArg_ParseTuple(args, "y*y*fw*", &v[0], &v[1], &same2, &v[2])) return NULL;
    const size_t count = (size_t)v[2].len;
    const int fit = holds(&v[0], "ss", count, sizeof(float)) && holds(&v[1], "fs", count, sizeof(float));
    if (fit) keep_distinct(v[0].buf, v[1].buf, count, same2, v[2].buf);
    for (int k = 0; k < 3; k++) PyBuffer_Release(&v[k]);
    return fit ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"keep_distinct", py_keep_distinct, METH_VARARGS, distinct_doc},
    {"locate", py_locate, METH_VARARGS, locate_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_spots",
    .m_doc = "Spots at full resolution; see _spots.pyi.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__spots(void) { return PyModuleDef_Init(&module); }
