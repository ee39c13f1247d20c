/* Python's face of the C parts, the walk over a blob's blocks, and the atomic words of the ring.
 * Decoders return None, or a sentence that says what is wrong with the bytes (the caller makes it a
 * WireError); wrong arguments raise. Block layout: HDF5 filters 32008 and 32004. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_kernels.h"

#include <string.h>

#define SCRATCH_ALIGNMENT 64

typedef struct {
    char text[160];
} fault;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Take a block's length word (uint32 big-endian). Returns false and the fault where the blob is too short. */
static int take_block(const uint8_t **in, size_t *n_in, size_t block, size_t *n_block, fault *wrong) {
    if (*n_in < 4) {
        snprintf(wrong->text, sizeof wrong->text, "block %zu: %zu bytes left, its length word takes 4", block,
                 *n_in);
        return 0;
    }
    const uint8_t *w = *in;
    *n_block = (size_t)w[0] << 24 | (size_t)w[1] << 16 | (size_t)w[2] << 8 | w[3];
    *in += 4, *n_in -= 4;
    if (*n_block <= *n_in) return 1;
    snprintf(wrong->text, sizeof wrong->text, "block %zu: %zu compressed bytes announced, %zu left", block,
             *n_block, *n_in);
    return 0;
}

static int say_bad_block(fault *wrong, size_t block, size_t n_block, size_t n, const char *why) {
    snprintf(wrong->text, sizeof wrong->text, "block %zu (%zu bytes, decoding to %zu): %s", block, n_block, n,
             why);
    return 0;
}

static int say_bytes_behind(fault *wrong, size_t n, size_t expected) {
    snprintf(wrong->text, sizeof wrong->text, "%zu bytes behind the last block, expected %zu", n, expected);
    return 0;
}

/* Takes the bit planes of one block, n_bytes of them, with LZ4_SLACK readable bytes behind. */
typedef void take_planes(void *to, const uint8_t *planes, size_t n_bytes);

/* Bitshuffled LZ4 blocks that make n_out bytes: each decoded into `scratch`, which stays in the L1 cache.
 * What is too little for planes (n_out modulo 8 elements) follows as it is: `in` is left there. */
static int walk_bslz4(const uint8_t **in, size_t n_in, size_t n_out, size_t elem_size, size_t block_bytes,
                      uint8_t *scratch, take_planes *take, void *to, fault *wrong) {
    size_t n_leftover = n_out % (8 * elem_size);
    size_t n_left = n_out - n_leftover;
    for (size_t block = 0; n_left; block++) {
        size_t n = smaller(n_left, block_bytes), n_block;
        if (!take_block(in, &n_in, block, &n_block, wrong)) return 0;
        const char *why = lz4_decode(*in, n_block, scratch, n, LZ4_SLACK);
        if (why) return say_bad_block(wrong, block, n_block, n, why);
        take(to, scratch, n);
        *in += n_block, n_in -= n_block, n_left -= n;
    }
    return n_in == n_leftover || say_bytes_behind(wrong, n_in, n_leftover);
}

typedef struct {
    uint8_t *out;
    size_t elem_size;
} pixels;

static void unshuffle(void *to, const uint8_t *planes, size_t n_bytes) {
    pixels *p = to;
    bit_unshuffle(planes, p->out, n_bytes, p->elem_size);
    p->out += n_bytes;
}

static void reduce(void *to, const uint8_t *planes, size_t n_bytes) { reduce_block(to, planes, n_bytes); }

/* Where each block's bytes lie: rows of (start, n_bytes), for who decodes them elsewhere. */
static int find_blocks(const uint8_t *in, size_t n_in, size_t n_leftover, int32_t (*rows)[2], size_t n_blocks,
                       fault *wrong) {
    const uint8_t *const start = in;
    for (size_t block = 0; block < n_blocks; block++) {
        size_t n_block;
        if (!take_block(&in, &n_in, block, &n_block, wrong)) return 0;
        rows[block][0] = (int32_t)(in - start), rows[block][1] = (int32_t)n_block;
        in += n_block, n_in -= n_block;
    }
    return n_in == n_leftover || say_bytes_behind(wrong, n_in, n_leftover);
}

/* HDF5-framed LZ4: no shuffle, the last block is shorter, a block as long as its pixels is raw. */
static int decode_lz4_blocks(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out, size_t block_bytes,
                             fault *wrong) {
    for (size_t block = 0; n_out; block++) {
        size_t n = smaller(n_out, block_bytes), n_block;
        if (!take_block(&in, &n_in, block, &n_block, wrong)) return 0;
        if (n_block == n) {
            memcpy(out, in, n);
        } else {
            const char *why = lz4_decode(in, n_block, out, n, n_out - n);
            if (why) return say_bad_block(wrong, block, n_block, n, why);
        }
        in += n_block, n_in -= n_block;
        out += n, n_out -= n;
    }
    return n_in == 0 || say_bytes_behind(wrong, n_in, 0);
}

static PyObject *verdict(int is_good, const fault *wrong) {
    if (is_good) Py_RETURN_NONE;
    return PyUnicode_FromString(wrong->text);
}

/* Bounded by the image, whatever block size was announced. */
static size_t scratch_bytes(size_t block_bytes, size_t n_out) {
    return smaller(block_bytes, n_out) + LZ4_SLACK + SCRATCH_ALIGNMENT;
}

static uint8_t *aligned(uint8_t *memory) {
    return memory + (SCRATCH_ALIGNMENT - (uintptr_t)memory % SCRATCH_ALIGNMENT);
}

PyDoc_STRVAR(bslz4_doc, "bslz4(body, out, elem_size, block_bytes) -> str | None\n\n"
                        "Decode bitshuffled LZ4 blocks (no header) that fill `out`.");

static PyObject *py_bslz4(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer body, out;
    Py_ssize_t elem_size, block_bytes;
    PyObject *result = NULL;
    fault wrong;
    int is_good = 0;
    if (!PyArg_ParseTuple(args, "y*w*nn", &body, &out, &elem_size, &block_bytes)) return NULL;
    if ((elem_size != 1 && elem_size != 2 && elem_size != 4 && elem_size != 8) || block_bytes <= 0 ||
        block_bytes % (8 * elem_size)) {
        PyErr_Format(PyExc_ValueError, "elem_size %zd, block_bytes %zd: expected 1, 2, 4 or 8 and a multiple "
                     "of 8 elements", elem_size, block_bytes);
        goto done;
    }
    uint8_t *memory = PyMem_RawMalloc(scratch_bytes((size_t)block_bytes, (size_t)out.len));
    if (!memory) {
        PyErr_NoMemory();
        goto done;
    }
    const uint8_t *in = body.buf;
    pixels to = {out.buf, (size_t)elem_size};
    Py_BEGIN_ALLOW_THREADS
    is_good = walk_bslz4(&in, (size_t)body.len, (size_t)out.len, (size_t)elem_size, (size_t)block_bytes,
                         aligned(memory), unshuffle, &to, &wrong);
    if (is_good) memcpy(to.out, in, (size_t)out.len % (8 * (size_t)elem_size));
    Py_END_ALLOW_THREADS
    PyMem_RawFree(memory);
    result = verdict(is_good, &wrong);
done:
    PyBuffer_Release(&body);
    PyBuffer_Release(&out);
    return result;
}

PyDoc_STRVAR(block_table_doc, "block_table(body, table, n_leftover) -> str | None\n\n"
                              "Fill int32 rows (start, n_bytes) of the blocks (no header) with n_leftover bytes behind.");

static PyObject *py_block_table(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer body, table;
    Py_ssize_t n_leftover;
    PyObject *result = NULL;
    fault wrong;
    if (!PyArg_ParseTuple(args, "y*w*n", &body, &table, &n_leftover)) return NULL;
    if (body.len > INT32_MAX || n_leftover < 0 || table.len % 8 || (uintptr_t)table.buf % 4) {
        PyErr_Format(PyExc_ValueError, "body of %zd, table of %zd bytes, %zd left over: expected up to 2**31 - 1, "
                     "aligned rows of 8, at least 0", body.len, table.len, n_leftover);
    } else {
        const int is_good = find_blocks(body.buf, (size_t)body.len, (size_t)n_leftover, table.buf,
                                        (size_t)table.len / 8, &wrong);
        result = verdict(is_good, &wrong);
    }
    PyBuffer_Release(&body);
    PyBuffer_Release(&table);
    return result;
}

PyDoc_STRVAR(lz4_blocks_doc, "lz4_blocks(body, out, block_bytes) -> str | None\n\n"
                             "Decode HDF5-framed LZ4 blocks (no header) that fill `out`.");

static PyObject *py_lz4_blocks(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer body, out;
    Py_ssize_t block_bytes;
    PyObject *result = NULL;
    fault wrong;
    int is_good;
    if (!PyArg_ParseTuple(args, "y*w*n", &body, &out, &block_bytes)) return NULL;
    if (block_bytes <= 0) {
        PyErr_Format(PyExc_ValueError, "block_bytes %zd: expected at least 1", block_bytes);
    } else {
        Py_BEGIN_ALLOW_THREADS
        is_good = decode_lz4_blocks(body.buf, (size_t)body.len, out.buf, (size_t)out.len, (size_t)block_bytes,
                                    &wrong);
        Py_END_ALLOW_THREADS
        result = verdict(is_good, &wrong);
    }
    PyBuffer_Release(&body);
    PyBuffer_Release(&out);
    return result;
}

PyDoc_STRVAR(lz4_block_doc, "lz4_block(body, out) -> str | None\n\n"
                            "Decode one bare LZ4 block that fills `out`.");

static PyObject *py_lz4_block(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer body, out;
    fault wrong;
    const char *why;
    if (!PyArg_ParseTuple(args, "y*w*", &body, &out)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    why = lz4_decode(body.buf, (size_t)body.len, out.buf, (size_t)out.len, 0);
    if (why) say_bad_block(&wrong, 0, (size_t)body.len, (size_t)out.len, why);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&body);
    PyBuffer_Release(&out);
    return verdict(why == NULL, &wrong);
}

static int check_pool_sizes(const Py_buffer *view, Py_ssize_t n_ss, Py_ssize_t n_fs, Py_ssize_t itemsize) {
    Py_ssize_t pooled = (n_ss / 4 + (n_ss % 4 != 0)) * (n_fs / 4 + (n_fs % 4 != 0));
    if (view[0].len == n_ss * n_fs * itemsize && view[1].len == n_ss * n_fs && view[2].len == 4 * pooled &&
        view[3].len == 4 * pooled && (uintptr_t)view[0].buf % (size_t)itemsize == 0 &&
        (uintptr_t)view[2].buf % 4 == 0 && (uintptr_t)view[3].buf % 4 == 0)
        return 1;
    PyErr_Format(PyExc_ValueError, "image, valid, sums, maxima of %zd, %zd, %zd, %zd bytes do not fit "
                 "(%zd, %zd) pixels of %zd bytes, or are not aligned", view[0].len, view[1].len,
                 view[2].len, view[3].len, n_ss, n_fs, itemsize);
    return 0;
}

PyDoc_STRVAR(pool4_doc, "pool4(image, valid, sums, maxima, n_ss, n_fs, itemsize) -> tuple[int, int]\n\n"
                        "Fill 4 x 4 sums and maxima; return (n_photons, n_saturated).");

static PyObject *py_pool4(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer view[4];
    Py_ssize_t n_ss, n_fs, itemsize;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*w*w*nnn", &view[0], &view[1], &view[2], &view[3], &n_ss, &n_fs,
                          &itemsize))
        return NULL;
    if (n_ss < 0 || n_fs < 0 || (n_fs && n_ss > PY_SSIZE_T_MAX / 8 / n_fs) ||
        (itemsize != 1 && itemsize != 2 && itemsize != 4)) {
        PyErr_Format(PyExc_ValueError, "shape (%zd, %zd), itemsize %zd: out of range", n_ss, n_fs, itemsize);
    } else if (check_pool_sizes(view, n_ss, n_fs, itemsize)) {
        pool_counts counts;
        Py_BEGIN_ALLOW_THREADS
        counts = pool4(view[0].buf, (size_t)itemsize, view[1].buf, (size_t)n_ss, (size_t)n_fs, view[2].buf,
                       view[3].buf);
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("KK", (unsigned long long)counts.n_photons,
                               (unsigned long long)counts.n_saturated);
    }
    for (int i = 0; i < 4; i++) PyBuffer_Release(&view[i]);
    return result;
}

/* What must hold of a frame for its planes to be pooled as they are. */
static int check_reduction(const Py_buffer *view, size_t n_ss, size_t n_fs, size_t elem_size, size_t block_bytes) {
    const size_t n_px = n_ss * n_fs, n_fields = (n_ss / 4 + (n_ss % 4 != 0)) * (n_fs / 4);
    const size_t n_steps = (n_px + STEP - 1) / STEP;
    if (n_fs % 4 == 0 && n_px % 8 == 0 && block_bytes && block_bytes % (STEP * elem_size) == 0 &&
        (size_t)view[1].len == (n_px + 63) / 64 * 8 && (size_t)view[2].len == n_steps * STEP * elem_size &&
        (size_t)view[3].len == 8 * n_steps && (size_t)view[4].len == 4 * n_fields &&
        (size_t)view[5].len == 4 * n_fields && (uintptr_t)view[1].buf % 8 == 0 && (uintptr_t)view[3].buf % 4 == 0 &&
        (uintptr_t)view[4].buf % 4 == 0 && (uintptr_t)view[5].buf % 4 == 0 && n_steps < UINT32_MAX / 32)
        return 1;
    PyErr_Format(PyExc_ValueError, "valid, planes, steps, sums, maxima of %zd, %zd, %zd, %zd, %zd bytes do not fit "
                 "(%zu, %zu) pixels of %zu bytes in blocks of %zu, or are not aligned", view[1].len, view[2].len,
                 view[3].len, view[4].len, view[5].len, n_ss, n_fs, elem_size, block_bytes);
    return 0;
}

PyDoc_STRVAR(reduce_doc, "reduce(body, valid, planes, steps, sums, maxima, n_ss, n_fs, elem_size, block_bytes)"
                         " -> tuple[int, int] | str\n\n"
                         "Decode bitshuffled LZ4 blocks (no header), pool them, and keep the planes that are lit.");

static PyObject *py_reduce(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer view[6];
    Py_ssize_t n_ss, n_fs, elem_size, block_bytes;
    PyObject *result = NULL;
    fault wrong;
    int is_good;
    if (!PyArg_ParseTuple(args, "y*y*w*w*w*w*nnnn", &view[0], &view[1], &view[2], &view[3], &view[4], &view[5],
                          &n_ss, &n_fs, &elem_size, &block_bytes))
        return NULL;
    if (n_ss < 0 || n_fs < 0 || (n_fs && n_ss > PY_SSIZE_T_MAX / 8 / n_fs) || block_bytes < 0 ||
        (elem_size != 1 && elem_size != 2 && elem_size != 4)) {
        PyErr_Format(PyExc_ValueError, "shape (%zd, %zd), elem_size %zd, block_bytes %zd: out of range", n_ss, n_fs,
                     elem_size, block_bytes);
        goto done;
    }
    if (!check_reduction(view, (size_t)n_ss, (size_t)n_fs, (size_t)elem_size, (size_t)block_bytes)) goto done;
    const size_t n_bytes = (size_t)n_ss * (size_t)n_fs * (size_t)elem_size;
    const size_t n_scratch = scratch_bytes((size_t)block_bytes, n_bytes);
    uint8_t *memory = PyMem_RawMalloc(n_scratch + reduction_bytes((size_t)n_fs, (size_t)elem_size));
    if (!memory) {
        PyErr_NoMemory();
        goto done;
    }
    reduction r = {.elem = (size_t)elem_size, .n_ss = (size_t)n_ss, .n_fs = (size_t)n_fs, .valid = view[1].buf,
                   .planes = view[2].buf, .steps = view[3].buf, .sums = view[4].buf, .maxima = view[5].buf};
    const uint8_t *in = view[0].buf;
    Py_BEGIN_ALLOW_THREADS
    reduce_begin(&r, memory + n_scratch);
    is_good = walk_bslz4(&in, (size_t)view[0].len, n_bytes, r.elem, (size_t)block_bytes, aligned(memory), reduce, &r,
                         &wrong);
    Py_END_ALLOW_THREADS
    PyMem_RawFree(memory);
    const pool_counts counts = reduce_end(&r);
    result = is_good ? Py_BuildValue("KK", (unsigned long long)counts.n_photons,
                                     (unsigned long long)counts.n_saturated)
                     : PyUnicode_FromString(wrong.text);
done:
    for (int i = 0; i < 6; i++) PyBuffer_Release(&view[i]);
    return result;
}

/* Whether each step's planes are there. */
static int are_steps(const uint32_t (*steps)[2], size_t n_steps, size_t n_planes, size_t elem_size) {
    for (size_t k = 0; k < n_steps; k++)
        if (steps[k][0] + (size_t)__builtin_popcount(steps[k][1]) > n_planes || (uint64_t)steps[k][1] >> 8 * elem_size) {
            PyErr_Format(PyExc_ValueError, "step %zu: planes %x from %u on, of %zu", k, steps[k][1], steps[k][0], n_planes);
            return 0;
        }
    return 1;
}

PyDoc_STRVAR(pixels_doc, "pixels(planes, steps, image, elem_size) -> None\n\nMake the image of what `reduce` left.");

static PyObject *py_pixels(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer planes, steps, image;
    Py_ssize_t elem_size;
    int is_good = 0;
    if (!PyArg_ParseTuple(args, "y*y*w*n", &planes, &steps, &image, &elem_size)) return NULL;
    if ((elem_size != 1 && elem_size != 2 && elem_size != 4) || image.len % elem_size ||
        (size_t)steps.len != ((size_t)(image.len / elem_size) + STEP - 1) / STEP * 8 || (uintptr_t)steps.buf % 4) {
        PyErr_Format(PyExc_ValueError, "%zd bytes of pixels of %zd, %zd of steps: out of range", image.len, elem_size,
                     steps.len);
    } else if (are_steps(steps.buf, (size_t)steps.len / 8, (size_t)planes.len / PLANE_BYTES, (size_t)elem_size)) {
        is_good = 1;
        Py_BEGIN_ALLOW_THREADS
        pixels_of_planes(planes.buf, steps.buf, (size_t)elem_size, (size_t)(image.len / elem_size), image.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&planes);
    PyBuffer_Release(&steps);
    PyBuffer_Release(&image);
    return is_good ? Py_NewRef(Py_None) : NULL;
}

/* Borrow an aligned word of a buffer. On success the caller releases `view`. */
static void *word_at(PyObject *buffer, PyObject *offset_object, Py_ssize_t n_bytes, int flags,
                     Py_buffer *view) {
    Py_ssize_t offset = PyNumber_AsSsize_t(offset_object, PyExc_ValueError);
    if (offset == -1 && PyErr_Occurred()) return NULL;
    if (PyObject_GetBuffer(buffer, view, flags) < 0) return NULL;
    if (offset >= 0 && view->len >= n_bytes && offset <= view->len - n_bytes &&
        ((uintptr_t)view->buf + (size_t)offset) % (size_t)n_bytes == 0)
        return (char *)view->buf + offset;
    PyErr_Format(PyExc_ValueError, "offset %zd of a %zd-byte buffer: expected an aligned word of %zd bytes "
                 "inside it", offset, view->len, n_bytes);
    PyBuffer_Release(view);
    return NULL;
}

static int as_u32(PyObject *object, uint32_t *value) {
    unsigned long long wide = PyLong_AsUnsignedLongLong(object);
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_OverflowError)) return 0;
    if (!PyErr_Occurred() && wide <= UINT32_MAX) {
        *value = (uint32_t)wide;
        return 1;
    }
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "value %R: expected 0 to 4294967295", object);
    return 0;
}

static int has_arguments(Py_ssize_t n, Py_ssize_t expected) {
    if (n != expected) PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", expected, n);
    return n == expected;
}

PyDoc_STRVAR(load_u32_doc, "load_u32(buffer, offset) -> int\n\nRead a 32-bit word (acquire).");

static PyObject *py_load_u32(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer view;
    uint32_t *word;
    if (!has_arguments(n_args, 2) || !(word = word_at(args[0], args[1], 4, PyBUF_SIMPLE, &view))) return NULL;
    uint32_t value = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLong(value);
}

PyDoc_STRVAR(store_u32_doc, "store_u32(buffer, offset, value) -> None\n\nWrite a 32-bit word (release).");

static PyObject *py_store_u32(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer view;
    uint32_t *word, value;
    if (!has_arguments(n_args, 3) || !as_u32(args[2], &value) ||
        !(word = word_at(args[0], args[1], 4, PyBUF_WRITABLE, &view)))
        return NULL;
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(cas_u32_doc, "cas_u32(buffer, offset, expected, new) -> bool\n\n"
                          "Write `new` if the word is `expected` (acquire-release); tell whether it was.");

static PyObject *py_cas_u32(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer view;
    uint32_t *word, expected, desired;
    if (!has_arguments(n_args, 4) || !as_u32(args[2], &expected) || !as_u32(args[3], &desired) ||
        !(word = word_at(args[0], args[1], 4, PyBUF_WRITABLE, &view)))
        return NULL;
    int swapped =
        __atomic_compare_exchange_n(word, &expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    PyBuffer_Release(&view);
    return PyBool_FromLong(swapped);
}

PyDoc_STRVAR(add_u64_doc, "add_u64(buffer, offset, delta) -> int\n\n"
                          "Add to a 64-bit word modulo 2**64 (acquire-release); return the new value.");

static PyObject *py_add_u64(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer view;
    uint64_t *word;
    if (!has_arguments(n_args, 3)) return NULL;
    uint64_t delta = PyLong_AsUnsignedLongLongMask(args[2]);
    if (PyErr_Occurred() || !(word = word_at(args[0], args[1], 8, PyBUF_WRITABLE, &view))) return NULL;
    uint64_t value = __atomic_add_fetch(word, delta, __ATOMIC_ACQ_REL);
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLongLong(value);
}

static PyMethodDef methods[] = {
    {"bslz4", py_bslz4, METH_VARARGS, bslz4_doc},
    {"block_table", py_block_table, METH_VARARGS, block_table_doc},
    {"lz4_blocks", py_lz4_blocks, METH_VARARGS, lz4_blocks_doc},
    {"lz4_block", py_lz4_block, METH_VARARGS, lz4_block_doc},
    {"pool4", py_pool4, METH_VARARGS, pool4_doc},
    {"reduce", py_reduce, METH_VARARGS, reduce_doc},
    {"pixels", py_pixels, METH_VARARGS, pixels_doc},
    {"load_u32", (PyCFunction)(void (*)(void))py_load_u32, METH_FASTCALL, load_u32_doc},
    {"store_u32", (PyCFunction)(void (*)(void))py_store_u32, METH_FASTCALL, store_u32_doc},
    {"cas_u32", (PyCFunction)(void (*)(void))py_cas_u32, METH_FASTCALL, cas_u32_doc},
    {"add_u64", (PyCFunction)(void (*)(void))py_add_u64, METH_FASTCALL, add_u64_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_kernels",
    .m_doc = "Block decoding, pooling and atomic words; see _kernels.pyi.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModuleDef_Init(&module); }
