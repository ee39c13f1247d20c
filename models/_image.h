/* A frame's counts as the compiled parts of judging read them: pixels, or the lit bit planes that a decoder leaves
 * (`image.LitPlanes`). */
#ifndef HITFINDER_IMAGE_H
#define HITFINDER_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define FAST __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define FAST
#endif

#define INLINE static inline __attribute__((always_inline))

#define STEP 512 /* pixels whose planes are kept together */
#define PLANE_BYTES (STEP / 8)
#define ROW_PX 32 /* read at once */
#define BRIGHT 255 /* as many photons as a byte holds, or more: the image says how many */
#define UNSEEN 0

typedef struct {
    const uint8_t *counts;  /* pixels of `itemsize` bytes, or planes of PLANE_BYTES: a bit a pixel, lowest first */
    const uint32_t *steps;  /* of each step its first plane, and a bit for each that is there; NULL where counts are pixels */
    size_t n_planes;
    const uint64_t *mask; /* a bit a pixel, lowest first, set where it counts */
    int itemsize;
    int64_t height, width;
} image;

/* What a pixel counts, whether it does or not. */
uint32_t count_at(const image *im, size_t pixel);

/* Which of n pixels from the first on count: a bit each; n up to ROW_PX. */
static inline uint32_t mask_at(const image *im, size_t first, size_t n) {
    const size_t shift = first % 64, word = first / 64, next = word + (shift + n > 64);
    const uint64_t bits = im->mask[word] >> shift | im->mask[next] << 1 << (63 - shift);
    return (uint32_t)(bits & ((UINT64_C(1) << n) - 1));
}

/* n pixels from the first on, up to ROW_PX, as bytes: photons and one more, BRIGHT or UNSEEN; what follows them is UNSEEN. */
void read_row(const image *im, size_t first, size_t n, uint8_t to[ROW_PX]);

/* List up to `room` pixels that read the largest value of their type, rising; returns how many there are. Planes only. */
size_t saturated(const image *im, int64_t *pixels, size_t room);

/* Ask for the memory of n pixels ahead of its use. */
void ask_for_row(const image *im, size_t first, size_t n);

#ifdef PY_VERSION_HEX
/* Take an image of this size, with a mask or without, out of the buffers that Python gave; 0 and an exception where they
 * hold none. */
static inline int take_image(const Py_buffer *counts, const Py_buffer *steps, const Py_buffer *mask, Py_ssize_t height,
                             Py_ssize_t width, int itemsize, image *im) {
    const int is_sized = (itemsize == 1 || itemsize == 2 || itemsize == 4) && height > 0 && width > 0 && height <= INT32_MAX / 4 / width;
    const size_t n_px = is_sized ? (size_t)height * (size_t)width : 0, n_steps = (n_px + STEP - 1) / STEP;
    const int fits = steps->len ? (size_t)steps->len == 2 * sizeof *im->steps * n_steps && (uintptr_t)steps->buf % sizeof *im->steps == 0
                                : is_sized && (size_t)counts->len == n_px * (size_t)itemsize && (uintptr_t)counts->buf % (size_t)itemsize == 0;
    const int masked = !mask || ((size_t)mask->len == (n_px + 63) / 64 * 8 && (uintptr_t)mask->buf % 8 == 0);
    if (!is_sized || !fits || !masked) {
        PyErr_Format(PyExc_ValueError, "counts, steps, mask of %zd, %zd, %zd bytes do not fit %zd x %zd pixels of %d bytes, or are "
                     "not aligned", counts->len, steps->len, mask ? mask->len : 0, height, width, itemsize);
        return 0;
    }
    *im = (image){.counts = counts->buf, .steps = steps->len ? steps->buf : NULL, .n_planes = (size_t)counts->len / PLANE_BYTES,
                  .mask = mask ? mask->buf : NULL, .itemsize = itemsize, .height = height, .width = width};
    return 1;
}
#endif

#endif
