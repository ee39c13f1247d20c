/* What lies beside a place, along its ring and along its radius: a powder ring or a streak goes on there, a spot does
 * not. */
#include "_places.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NEAREST 14 /* pixels from the place to its neighbourhood, along ring or radius */
#define FAR_ON_RING 94
#define FAR_ON_RAY 54
#define TILTED_WITHIN 400 /* pixels: nearer the beam a centre that is off tilts the rings */
#define MAX_OFF_CENTRE 10
#define OFF_CENTRE_STEP 5
#define CHANCE_SIGMA 2 /* a strip above mean + 2 sqrt(mean) + 1 photons is no chance */
#define CHANCE_PHOTONS 1
#define PRIOR_PHOTONS 4
#define MOST_PHOTONS (1 << 20) /* of a pixel beside a place: a strip's sum fits 32 bits */

/* The first row of the table's nearest background. */
int32_t row_of(const window *w, float background) {
    float nearest = rintf((log2f(background) - w->lowest_octave) * w->steps_per_octave);
    size_t last = w->n_backgrounds - 1;
    return (int32_t)(w->n_rows * (!(nearest > 0) ? 0 : nearest < (float)last ? (size_t)nearest : last));
}

#define ACROSS (SPAN + 2) /* one beyond each end */
#define LANES 32         /* whole vectors; what is beyond ACROSS is not looked at */

#define TOGETHER 8       /* lines that are found, then read, then added up: none waits for another */

typedef struct {
    uint16_t bytes[LANES], pixels[LANES]; /* by distance across: bytes added up, and pixels that can be seen */
    int32_t more[LANES]; /* photons that bytes do not hold */
    int32_t at[TOGETHER][LANES]; /* pixels of the lines that are not added yet */
    int n_found;
} strip;

/* Pixels at start + (from + distance + lift) slope. */
typedef struct {
    float ss, fs, ss_slope, fs_slope, from, lift;
} line;

static void begin(strip *s) {
    memset(s->bytes, 0, sizeof s->bytes), memset(s->pixels, 0, sizeof s->pixels);
    memset(s->more, 0, sizeof s->more), s->n_found = 0;
}

/* What the image holds at a pixel of a tile. */
static int32_t count_of(const frame *f, int32_t pixel) {
    const int32_t tile = pixel / (TILE * TILE), row = pixel / TILE % TILE, column = pixel % TILE;
    const int64_t at = (int64_t)(tile / f->across * TILE + row) * f->im.width + tile % f->across * TILE + column;
    const uint32_t n = count_at(&f->im, (size_t)at);
    return (int32_t)(n < MOST_PHOTONS ? n : MOST_PHOTONS);
}

/* Make the tiles between two pixels, of those in the image; 0 if none is. */
INLINE int make_between(const frame *f, int32_t row, int32_t other_row, int32_t column, int32_t other_column) {
    int32_t top = row < other_row ? row : other_row, bottom = row < other_row ? other_row : row;
    int32_t left = column < other_column ? column : other_column, right = column < other_column ? other_column : column;
    top = top > 0 ? top : 0, bottom = bottom < f->im.height ? bottom : (int32_t)f->im.height - 1;
    left = left > 0 ? left : 0, right = right < f->im.width ? right : (int32_t)f->im.width - 1;
    if (top > bottom || left > right) return 0;
    top /= TILE, bottom /= TILE, left /= TILE, right /= TILE;
    const uint8_t *first = f->is_made + top * f->across, *last = f->is_made + bottom * f->across;
    int is_short = (bottom - top <= 1) & (right - left <= 1); /* the corners are all there is */
    if (!(is_short & first[left] & first[right] & last[left] & last[right])) make_tiles(f, top, bottom, left, right);
    return 1;
}

/* Read pixels one by one, which is faster than gathers. */
static void read_pixels(const uint8_t *tiles, const int32_t *at, uint8_t *n, int count) {
    for (int k = 0; k < count; k += 4) {
        const uint8_t a = tiles[at[k]], b = tiles[at[k + 1]], c = tiles[at[k + 2]], d = tiles[at[k + 3]];
        n[k] = a, n[k + 1] = b, n[k + 2] = c, n[k + 3] = d;
    }
}

/* Add up the lines that were found. */
FAST static void add_lines(strip *restrict s, const frame *f) {
    uint8_t n[TOGETHER][LANES], most[LANES] = {0};
    int is_bright = 0;
    read_pixels(f->tiles, s->at[0], n[0], s->n_found * LANES);
    for (int l = 0; l < s->n_found; l++)
        for (int k = 0; k < LANES; k++) {
            s->bytes[k] = (uint16_t)(s->bytes[k] + n[l][k]), s->pixels[k] = (uint16_t)(s->pixels[k] + (n[l][k] != UNSEEN));
            most[k] = n[l][k] > most[k] ? n[l][k] : most[k];
        }
    for (int k = 0; k < LANES; k++) is_bright |= most[k] == BRIGHT;
    for (int l = 0; l < s->n_found && is_bright; l++)
        for (int k = 0; k < LANES; k++)
            if (n[l][k] == BRIGHT) s->more[k] += count_of(f, s->at[l][k]) - (BRIGHT - 1);
    s->n_found = 0;
}

/* Find the pixels of a line across a strip; 0 if none of them is in the image. */
FAST static int find_line(const frame *f, const line *l, int32_t at[LANES]) {
    int32_t row[LANES], column[LANES];
    const int32_t height = (int32_t)f->im.height, width = (int32_t)f->im.width, across = f->across, unseen = f->unseen;
    float ss0 = l->ss, fs0 = l->fs, ss_slope = l->ss_slope, fs_slope = l->fs_slope, from = l->from, lift = l->lift;
    for (int k = 0; k < LANES; k++) {
        float d = from + (float)(k - REACH - 1) + lift;
        int32_t y = __builtin_irintf(ss0 + d * ss_slope), x = __builtin_irintf(fs0 + d * fs_slope);
        int32_t tile = (y >> TILE_BITS) * across + (x >> TILE_BITS), in_tile = (y & (TILE - 1)) * TILE + (x & (TILE - 1));
        row[k] = y, column[k] = x;
        at[k] = ((uint32_t)y < (uint32_t)height) & ((uint32_t)x < (uint32_t)width) ? tile * TILE * TILE + in_tile : unseen;
    }
    return make_between(f, row[0], row[LANES - 1], column[0], column[LANES - 1]);
}

static void add_across(strip *s, const frame *f, const line *l) {
    s->n_found += find_line(f, l, s->at[s->n_found]);
    if (s->n_found == TOGETHER) add_lines(s, f);
}

/* Raise each factor to how many times the background the strip beside the place has, unless that may be chance:
 * looked for over 3 and over 9 pixels across. */
static void raise_to(const strip *s, float background, float factor[SPAN]) {
    for (int half = 1; half <= 4; half += 3)
        for (int k = 0; k < SPAN; k++) {
            float n = 0, pixels = 0;
            for (int j = k + 1 - half; j <= k + 1 + half; j++)
                if (j >= 0 && j < ACROSS) n += (float)(s->bytes[j] - s->pixels[j] + s->more[j]), pixels += (float)s->pixels[j];
            float expected = background * pixels;
            if (n < expected + CHANCE_SIGMA * sqrtf(expected) + CHANCE_PHOTONS) continue;
            const float raised = (n + PRIOR_PHOTONS) / (expected + PRIOR_PHOTONS);
            factor[k] = factor[k] > raised ? factor[k] : raised;
        }
}

static int clamped(float offset) {
    int k = __builtin_irintf(offset);
    return (k < -REACH ? -REACH : k > REACH ? REACH : k) + REACH;
}

/* Directions from the beam centre to the pixels along a ring, one pixel apart on either side of `out`. */
typedef struct {
    int far;
    float ss[2 * FAR_ON_RING + 1], fs[2 * FAR_ON_RING + 1];
} ring;

static void turn(ring *r, float radius, const float out[2]) {
    r->far = radius < FAR_ON_RING ? (int)radius : FAR_ON_RING;
    for (int step = NEAREST; step <= r->far; step++) {
        float angle = (float)step / radius, c = cosf(angle), s = sinf(angle);
        r->ss[r->far + step] = c * out[0] - s * out[1], r->fs[r->far + step] = s * out[0] + c * out[1];
        r->ss[r->far - step] = c * out[0] + s * out[1], r->fs[r->far - step] = c * out[1] - s * out[0];
    }
}

/* What lies beside the place along the ring through it. A stated beam centre may be some pixels off, which tilts the
 * rings near it: `tilt` is that in pixels across for a pixel along. */
static void along_ring(const frame *f, const ring *r, float radius, float tilt, float background, float factor[SPAN]) {
    strip beside;
    begin(&beside);
    for (int step = -r->far; step <= r->far; step++) {
        if (abs(step) < NEAREST) continue;
        line l = {f->centre[0], f->centre[1], r->ss[r->far + step], r->fs[r->far + step], radius, tilt * (float)step};
        add_across(&beside, f, &l);
    }
    add_lines(&beside, f);
    raise_to(&beside, background, factor);
}

static void along_ray(const frame *f, float radius, const float out[2], float background, float factor[SPAN]) {
    strip beside;
    begin(&beside);
    for (int step = -FAR_ON_RAY; step <= FAR_ON_RAY; step++) {
        float d = radius + (float)step;
        if (abs(step) < NEAREST || d < 0) continue;
        line l = {f->centre[0] + d * out[0], f->centre[1] + d * out[1], -out[1], out[0], 0, 0};
        add_across(&beside, f, &l);
    }
    add_lines(&beside, f);
    raise_to(&beside, background, factor);
}

/* Raise the background of each photon to that of its neighbourhood along the ring and along the radius: what goes
 * on beside the place is a powder ring or a streak, not a spot. Returns the factor in the middle. */
float raise_background(window *w, const frame *f, const int32_t middle[2], float background) {
    float out[2] = {(float)middle[0] - f->centre[0], (float)middle[1] - f->centre[1]}, radius = hypotf(out[0], out[1]);
    if (radius < NEAREST) return 1;
    out[0] /= radius, out[1] /= radius;
    float of_ring[SPAN], of_ray[SPAN];
    for (int k = 0; k < SPAN; k++) of_ring[k] = of_ray[k] = 1;
    int most = radius < TILTED_WITHIN ? MAX_OFF_CENTRE : 0;
    ring r;
    turn(&r, radius, out);
    for (int off = -most; off <= most; off += OFF_CENTRE_STEP)
        along_ring(f, &r, radius, (float)off / radius, background, of_ring);
    along_ray(f, radius, out, background, of_ray);
    int32_t ring_row[SPAN], ray_row[SPAN];
    for (int k = 0; k < SPAN; k++)
        ring_row[k] = row_of(w, background * of_ring[k]), ray_row[k] = row_of(w, background * of_ray[k]);
    for (int k = 0; k < w->n_photons; k++) {
        float y = (float)w->y[k], x = (float)w->x[k];
        int on_ring = clamped(y * out[0] + x * out[1]), on_ray = clamped(x * out[0] - y * out[1]);
        w->table[k] = of_ring[on_ring] > of_ray[on_ray] ? ring_row[on_ring] : ray_row[on_ray];
    }
    return fmaxf(of_ring[REACH], of_ray[REACH]);
}
