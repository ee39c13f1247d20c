/* What the compiled parts of places share: the frame, and the window around a place. None of them touches Python
 * but `_places.c`. */
#ifndef HITFINDER_PLACES_H
#define HITFINDER_PLACES_H

#include "_image.h"

#define REACH 14 /* half width of a window */
#define SPAN (2 * REACH + 1)
#define MAX_WIDTHS 8
#define LEVELS 8 /* intensities looked at: one vector */

typedef float levels __attribute__((vector_size(LEVELS * sizeof(float)), aligned(sizeof(float))));

typedef struct {
    image im;
    float centre[2]; /* of the beam: ss, fs */
    /* The same pixels a byte each, photons and one more, made where somebody looks: what lies beside a place then stays in
     * the nearest cache, counts and mask in one. A tile lies row by row; `unseen` is a pixel that cannot be seen. */
    uint8_t *tiles, *is_made;
    int32_t across, unseen; /* tiles of a row of them */
} frame;

#define TILE_BITS 5
#define TILE (1 << TILE_BITS) /* pixels of an edge */

typedef struct {
    const float *gain;  /* (backgrounds, rows, LEVELS): log(1 + intensity share / background) */
    const float *share; /* (rows): share of a spot's photons in a pixel so far from its centre */
    const float *intensity, *log_prior; /* (LEVELS) */
    const float *log_chances; /* (widths): places that chance could choose from */
    int32_t first[MAX_WIDTHS]; /* row of distance 0 of each width */
    int32_t reach[MAX_WIDTHS]; /* pixels */
    int32_t half[MAX_WIDTHS][REACH + 1]; /* columns on either side that are within reach so many rows away */
    float lowest_octave, steps_per_octave; /* of the backgrounds */
    size_t n_widths, n_rows, n_backgrounds;
    int n_photons, is_hidden;
    /* Pixels that are lit, row by row; what is expected there, as the table's first row of that background. */
    int32_t y[SPAN * SPAN], x[SPAN * SPAN], table[SPAN * SPAN];
    float n[SPAN * SPAN];
    int32_t row_first[SPAN + 1]; /* of these, by row */
    uint32_t lit[SPAN];    /* a bit for each pixel of a row that is lit */
    uint32_t lit_rows;     /* and for each row with such pixels */
    uint32_t hidden[SPAN]; /* the same for those that cannot be seen */
    uint32_t known[SPAN]; /* the same for those that the climb under way has been at */
} window;

/* The bits of some columns or rows of a window, ends included, of those that it has. */
static inline uint32_t between(int first, int last) {
    first = first < -REACH ? 0 : first + REACH, last = last > REACH ? SPAN - 1 : last + REACH;
    return UINT32_MAX >> (31 - (last - first)) << first;
}

/* What a place is: `found` of places.log_ratios. */
enum { SS, FS, WIDTH, PHOTONS, BACKGROUND, RAISED, N_FOUND };

/* The window around a pixel (`_window.c`). */
void ask_for(const frame *f, int64_t ss, int64_t fs);
void look(window *w, const frame *f, int64_t ss, int64_t fs);
void tame(window *w, float background);
float seen_share(const window *w, int width, int y, int x);
float background_per_px(const window *w, float mean, int edge);
void starts(const window *w, int half, int start[2][2]);

/* The frame in tiles (`_tiles.c`): memory that it takes, none of them made, some rows and columns of
 * them made. */
size_t tiles_bytes(int64_t height, int64_t width);
void empty_tiles(frame *f, uint8_t *memory);
void make_tiles(const frame *f, int32_t top, int32_t bottom, int32_t left, int32_t right);

/* The best spot of each width near a pixel (`_climb.c`). */
float best_spots(window *w, int start[2][2], const int32_t middle[2], float enough, float *ratio, float *found);

/* What lies beside a place (`_beside.c`). */
int32_t row_of(const window *w, float background);
float raise_background(window *w, const frame *f, const int32_t middle[2], float background);

#endif
