/* What the compiled parts of hitfinder.models share. None of them touches Python but `_cells.c`, so all run
 * without the GIL. What they compute is defined in torch by `device_background.estimate` and `device_scan.scan`, whose names and
 * constants these take; tests hold both equal. */
#ifndef HITFINDER_CELLS_H
#define HITFINDER_CELLS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define FAST __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define FAST
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_X86 1
#else
#define HAVE_X86 0
#endif

#define LANES 8
#define MAX_WINDOWS 8
#define N_SCALES 4
#define N_COLUMNS 5

typedef struct {
    const uint32_t *sums;
    const uint16_t *bin, *lowest; /* `lowest` ring of each LANES cells of a row */
    const uint8_t *exposure, *above; /* rings that a cell is `above` that one, below LANES; rows end with a whole one */
    const float *exposure_N;
    size_t height, width, n_rings, n_sectors, n_windows, window[MAX_WINDOWS], block;
    double ring_prior, block_prior, clip_sigma, clip_photons, cell_px2;
    int n_clips;
    float *total_N, *counts_N, *exposed_N; /* the answer, and the sum of the mean */
    double mean_sum;
} background_frame;

typedef struct {
    const uint32_t *sums, *maxima;
    const uint8_t *exposure;
    size_t height, width;
    float sigma, photons[N_SCALES], places[N_SCALES], floor;
    size_t kept;              /* candidates a scale */
    float *column[N_COLUMNS]; /* the answer: evidence, rest, ss, fs and mean; N_SCALES rows of `kept` each */
} scan_frame;

typedef struct {
    int64_t place; /* of its first cell: row * (width + 2) + column + 1, so that none has neighbours across an edge */
    float n, mean; /* photons, and those expected */
} box;

typedef struct {
    box *of;
    size_t found, room;
} boxes;

typedef enum { FINE, NO_MEMORY, BAD_BIN } outcome;

#define LINE 16 /* cells of a vector */
#define BEHIND 2 /* vectors that are read behind a row: the last boxes are known that much later than their cells */

/* Take a row's mean, which is laid out with room for LINE * (BEHIND + 1) more; 0 without memory. */
typedef int row_taker(void *with, size_t i, const float *mean);

/* Hand on the mean row by row, as soon as it is known: it is read while it is in the cache, and kept nowhere. Every bin is
 * checked before it is used. */
outcome estimate_background(background_frame *f, row_taker *take, void *with);

/* The boxes of each scale above their limit, by rising place, from rows of cells in their order. */
typedef struct finder finder;
finder *new_finder(const scan_frame *f, boxes scale[N_SCALES]); /* NULL without memory */
int find_row(finder *found, size_t i, const float *mean); /* as a row_taker does */
void free_finder(finder *found);

/* Lay out the candidates among these boxes; 0 without memory. */
int rank_boxes(const scan_frame *f, const boxes scale[N_SCALES]);

/* -log10 P(X >= n) of Poisson variables, 0 where n is not above the mean. */
void neg_log10_tails(const double *n, const double *mean, float *tail, size_t count);

static inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

#endif
