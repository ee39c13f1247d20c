/* What lies beside a place, along its ring and along its radius: a powder ring or a streak goes on there, a spot does
 * not. */
#include "_places.h"

#include <math.h>
#include <stdlib.h>

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

typedef struct {
    int32_t photons[LANES], pixels[LANES]; /* by distance across */
} strip;

/* Pixels at start + (from + distance + lift) slope. */
typedef struct {
    float ss, fs, ss_slope, fs_slope, from, lift;
} line;

/* Add the pixels of a line across a strip. Places are worked out and counts added as vectors; what lies there is read
 * one by one, which is as fast as gathers. */
FAST static void add_across(strip *restrict s, const frame *f, const line *l) {
    int32_t at[LANES], inside[LANES], height = (int32_t)f->height, width = (int32_t)f->width;
    uint32_t n[LANES], valid[LANES], top = UINT32_MAX >> (32 - 8 * f->itemsize);
    float ss0 = l->ss, fs0 = l->fs, ss_slope = l->ss_slope, fs_slope = l->fs_slope, from = l->from, lift = l->lift;
    for (int k = 0; k < LANES; k++) {
        float d = from + (float)(k - REACH - 1) + lift;
        int32_t row = (int32_t)rintf(ss0 + d * ss_slope), column = (int32_t)rintf(fs0 + d * fs_slope);
        inside[k] = (row >= 0) & (row < height) & (column >= 0) & (column < width);
        at[k] = inside[k] ? row * width + column : 0;
    }
    for (int k = 0; k < LANES; k++) valid[k] = f->valid[at[k]];
    if (f->itemsize == 2)
        for (int k = 0; k < LANES; k++) n[k] = ((const uint16_t *)f->image)[at[k]];
    else if (f->itemsize == 1)
        for (int k = 0; k < LANES; k++) n[k] = ((const uint8_t *)f->image)[at[k]];
    else
        for (int k = 0; k < LANES; k++) n[k] = ((const uint32_t *)f->image)[at[k]];
    for (int k = 0; k < LANES; k++) {
        int32_t seen = inside[k] & (valid[k] != 0) & (n[k] != top);
        s->photons[k] += seen ? (int32_t)(n[k] < MOST_PHOTONS ? n[k] : MOST_PHOTONS) : 0, s->pixels[k] += seen;
    }
}

/* Raise each factor to how many times the background the strip beside the place has, unless that may be chance:
 * looked for over 3 and over 9 pixels across. */
static void raise_to(const strip *s, float background, float factor[SPAN]) {
    for (int half = 1; half <= 4; half += 3)
        for (int k = 0; k < SPAN; k++) {
            float n = 0, pixels = 0;
            for (int j = k + 1 - half; j <= k + 1 + half; j++)
                if (j >= 0 && j < ACROSS) n += (float)s->photons[j], pixels += (float)s->pixels[j];
            float expected = background * pixels;
            if (n < expected + CHANCE_SIGMA * sqrtf(expected) + CHANCE_PHOTONS) continue;
            factor[k] = fmaxf(factor[k], (n + PRIOR_PHOTONS) / (expected + PRIOR_PHOTONS));
        }
}

static int clamped(float offset) {
    int k = (int)lrintf(offset);
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
    strip beside = {{0}, {0}};
    for (int step = -r->far; step <= r->far; step++) {
        if (abs(step) < NEAREST) continue;
        line l = {f->centre[0], f->centre[1], r->ss[r->far + step], r->fs[r->far + step], radius, tilt * (float)step};
        add_across(&beside, f, &l);
    }
    raise_to(&beside, background, factor);
}

static void along_ray(const frame *f, float radius, const float out[2], float background, float factor[SPAN]) {
    strip beside = {{0}, {0}};
    for (int step = -FAR_ON_RAY; step <= FAR_ON_RAY; step++) {
        float d = radius + (float)step;
        if (abs(step) < NEAREST || d < 0) continue;
        line l = {f->centre[0] + d * out[0], f->centre[1] + d * out[1], -out[1], out[0], 0, 0};
        add_across(&beside, f, &l);
    }
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
    int32_t ring_table[SPAN], ray_table[SPAN];
    for (int k = 0; k < SPAN; k++)
        ring_table[k] = row_of(w, background * of_ring[k]), ray_table[k] = row_of(w, background * of_ray[k]);
    for (int k = 0; k < w->n_photons; k++) {
        float y = (float)w->y[k], x = (float)w->x[k];
        int on_ring = clamped(y * out[0] + x * out[1]), on_ray = clamped(x * out[0] - y * out[1]);
        w->table[k] = of_ring[on_ring] > of_ray[on_ray] ? ring_table[on_ring] : ray_table[on_ray];
    }
    return fmaxf(of_ring[REACH], of_ray[REACH]);
}
