/* What the C parts of hitfinder.stream share. None of them touches Python but `_kernels.c`, so all run
 * without the GIL. Rule: every byte that came from outside is bounded before it is used; a function given
 * an output never touches memory outside it. Written from format descriptions only. */
#ifndef HITFINDER_KERNELS_H
#define HITFINDER_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "pixels on the wire are little-endian and are decoded in place: little-endian machines only"
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_X86 1
#else
#define HAVE_X86 0
#endif

/* Writable bytes that `lz4_decode` likes to have behind its output: it then copies whole vectors. */
#define LZ4_SLACK 64

/* Decode one LZ4 block of n_in bytes into exactly n_out bytes. The bytes from out + n_out to
 * out + n_out + slack may be overwritten with anything. Returns NULL, or what is wrong with the block. */
const char *lz4_decode(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out, size_t slack);

/* Undo the bit transpose of one block: n_bytes, a multiple of 8 * elem_size (1, 2, 4 or 8). */
void bit_unshuffle(const uint8_t *planes, uint8_t *out, size_t n_bytes, size_t elem_size);

typedef struct {
    uint64_t n_photons;
    uint64_t n_saturated;
} pool_counts;

/* 4 x 4 sums and maxima of an (ss, fs) image of 1, 2 or 4-byte pixels over pixels with valid != 0. */
pool_counts pool4(const void *image, size_t itemsize, const uint8_t *valid, size_t n_ss, size_t n_fs,
                  uint32_t *sums, uint32_t *maxima);

#define STEP 512 /* pixels taken at once: a vector of each plane */
#define PLANE_BYTES (STEP / 8)

/* A frame's blocks on their way to pooled maps and lit planes; see _reduce.c. The caller sets the first part:
 * elements of 1, 2 or 4 bytes, n_fs a multiple of 4, n_ss * n_fs one of 8. */
typedef struct {
    size_t elem, n_ss, n_fs;
    const uint64_t *valid; /* a bit a pixel, lowest first, 0 behind the last pixel */
    uint8_t *planes;       /* those of each step that hold anything, step after step, lowest first; 0 where not valid */
    uint32_t (*steps)[2];  /* of each step its first plane, and a bit for each that is there */
    uint32_t *sums, *maxima;
    pool_counts counts;
    uint64_t n_dim_photons[8];  /* two numbers each */
    size_t n_done, bright_end;  /* pixels */
    size_t n_pooled, n_cleared; /* rows of fields */
    size_t n_fields;            /* waiting to be joined over four rows */
    uint32_t n_planes;
    uint8_t *field_sums, *field_maxima;
    const uint8_t *all_valid; /* four rows of ones */
    uint8_t *rows;            /* four rows of pixels */
} reduction;

/* Bytes of memory that a reduction of rows of n_fs pixels needs. */
size_t reduction_bytes(size_t n_fs, size_t elem);
void reduce_begin(reduction *r, uint8_t *memory);
/* The next block's planes, n_bytes of them, with LZ4_SLACK readable bytes behind; all blocks but the last hold
 * whole steps. */
void reduce_block(reduction *r, const uint8_t *planes, size_t n_bytes);
pool_counts reduce_end(const reduction *r);

/* Make n_px pixels, all there are, from what a reduction left. */
void pixels_of_planes(const uint8_t *planes, const uint32_t (*steps)[2], size_t elem, size_t n_px, uint8_t *image);

#endif
