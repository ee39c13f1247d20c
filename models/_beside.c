/* What lies beside a place, along its ring and along its radius: a powder ring or a streak goes on there, a spot does
 * not. */
#include "_places.h"

#include <math.h>
#include <stdlib.h>

#if HAVE_X86
#include <immintrin.h>
#endif

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
#define LANES 8

typedef struct {
    int32_t photons[4 * LANES], pixels[4 * LANES]; /* by distance across; ACROSS count */
} strip;

/* Pixels at start + (from + distance + lift) slope. */
typedef struct {
    float ss, fs, ss_slope, fs_slope, from, lift;
} line;

/* Add the pixels of a line across a strip. */
static void add_pixels(strip *s, const frame *f, const line *l) {
    uint32_t top = UINT32_MAX >> (32 - 8 * f->itemsize);
    for (int k = 0; k < ACROSS; k++) {
        float d = l->from + (float)(k - REACH - 1) + l->lift;
        int32_t row = (int32_t)rintf(l->ss + d * l->ss_slope), column = (int32_t)rintf(l->fs + d * l->fs_slope);
        if (row < 0 || row >= f->height || column < 0 || column >= f->width) continue;
        int64_t at = row * f->width + column;
        uint32_t n = count_at(f, at);
        if (!f->valid[at] || n == top) continue;
        s->photons[k] += (int32_t)(n < MOST_PHOTONS ? n : MOST_PHOTONS), s->pixels[k]++;
    }
}

#if HAVE_X86
/* Items of an array of `n_bytes`, at least four, each in a word that lies within. */
__attribute__((target("avx2"))) static inline __m256i items_at(const void *bytes, __m256i at, int32_t n_bytes, int itemsize) {
    __m256i first = _mm256_mullo_epi32(at, _mm256_set1_epi32(itemsize));
    __m256i from = _mm256_min_epi32(first, _mm256_set1_epi32(n_bytes - 4));
    __m256i words = _mm256_i32gather_epi32((const int *)bytes, from, 1);
    __m256i items = _mm256_srlv_epi32(words, _mm256_slli_epi32(_mm256_sub_epi32(first, from), 3));
    return _mm256_and_si256(items, _mm256_set1_epi32((int)(UINT32_MAX >> (32 - 8 * itemsize))));
}

/* The same, LANES at a time. */
__attribute__((target("avx2"))) static void add_lanes(strip *s, const frame *f, const line *l) {
    int32_t height = (int32_t)f->height, width = (int32_t)f->width, n_px = height * width;
    const __m256i none = _mm256_set1_epi32(-1), top = _mm256_set1_epi32((int)(UINT32_MAX >> (32 - 8 * f->itemsize)));
    for (int first = 0; first < ACROSS; first += LANES) {
        __m256 k = _mm256_add_ps(_mm256_set1_ps((float)(first - REACH - 1)), _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7));
        __m256 d = _mm256_add_ps(_mm256_add_ps(_mm256_set1_ps(l->from), k), _mm256_set1_ps(l->lift));
        __m256 ss = _mm256_add_ps(_mm256_set1_ps(l->ss), _mm256_mul_ps(d, _mm256_set1_ps(l->ss_slope)));
        __m256 fs = _mm256_add_ps(_mm256_set1_ps(l->fs), _mm256_mul_ps(d, _mm256_set1_ps(l->fs_slope)));
        __m256i row = _mm256_cvtps_epi32(ss), column = _mm256_cvtps_epi32(fs);
        __m256i low = _mm256_and_si256(_mm256_cmpgt_epi32(row, none), _mm256_cmpgt_epi32(column, none));
        __m256i high = _mm256_and_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(height), row),
                                        _mm256_cmpgt_epi32(_mm256_set1_epi32(width), column));
        __m256i seen = _mm256_and_si256(low, high);
        __m256i at = _mm256_and_si256(seen, _mm256_add_epi32(_mm256_mullo_epi32(row, _mm256_set1_epi32(width)), column));
        __m256i n = items_at(f->image, at, n_px * f->itemsize, f->itemsize), valid = items_at(f->valid, at, n_px, 1);
        __m256i hidden = _mm256_or_si256(_mm256_cmpeq_epi32(n, top), _mm256_cmpeq_epi32(valid, _mm256_setzero_si256()));
        seen = _mm256_andnot_si256(hidden, seen);
        n = _mm256_and_si256(seen, _mm256_min_epu32(n, _mm256_set1_epi32(MOST_PHOTONS)));
        __m256i *photons = (__m256i *)(void *)(s->photons + first), *pixels = (__m256i *)(void *)(s->pixels + first);
        _mm256_storeu_si256(photons, _mm256_add_epi32(_mm256_loadu_si256(photons), n));
        _mm256_storeu_si256(pixels, _mm256_sub_epi32(_mm256_loadu_si256(pixels), seen));
    }
}
#endif

static void add_across(strip *s, const frame *f, const line *l) {
#if HAVE_X86
    if (f->has_avx2) {
        add_lanes(s, f, l);
        return;
    }
#endif
    add_pixels(s, f, l);
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
    for (int k = 0; k < w->n_photons; k++) {
        float y = (float)w->y[k], x = (float)w->x[k];
        float factor = fmaxf(of_ring[clamped(y * out[0] + x * out[1])], of_ray[clamped(x * out[0] - y * out[1])]);
        w->table[k] = row_of(w, background * factor);
    }
    return fmaxf(of_ring[REACH], of_ray[REACH]);
}
