/* 4 x 4 sums and maxima of a frame in one pass, and its photon count. Pixels with valid == 0 count as
 * nothing; so do saturated ones (the type's largest value), which are counted. `add_fields` is the plain
 * definition; the AVX2 strips do the same for 4 rows x 32 columns at once and leave edges, and strips too
 * bright for their narrow sums, to it. */
#include "_kernels.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef struct {
    const uint8_t *image; /* pixels of 1, 2 or 4 bytes, C order */
    const uint8_t *valid;
    size_t n_ss, n_fs;
    uint32_t *sums, *maxima; /* one row of fields at a time */
    pool_counts counts;
} pooling;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

INLINE uint32_t pixel_at(const uint8_t *image, size_t itemsize, size_t i) {
    if (itemsize == 1) return image[i];
    if (itemsize == 2) return ((const uint16_t *)(const void *)image)[i];
    return ((const uint32_t *)(const void *)image)[i];
}

/* Fields of rows y..y + 3 from column x to column end. */
INLINE void add_fields(pooling *p, size_t itemsize, size_t y, size_t x, size_t end) {
    const uint32_t largest = UINT32_MAX >> (32 - 8 * itemsize);
    for (; x < end; x += 4) {
        uint64_t sum = 0;
        uint32_t max = 0;
        for (size_t r = y; r < smaller(y + 4, p->n_ss); r++) {
            for (size_t i = r * p->n_fs + x; i < r * p->n_fs + smaller(x + 4, end); i++) {
                uint32_t v = p->valid[i] ? pixel_at(p->image, itemsize, i) : 0;
                p->counts.n_saturated += v == largest;
                v = v == largest ? 0 : v;
                sum += v;
                max = v > max ? v : max;
            }
        }
        p->counts.n_photons += sum;
        p->sums[x / 4] = sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
        p->maxima[x / 4] = max;
    }
}

#if HAVE_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2")))
#define AVX2 TARGET INLINE
#define STRIP 32 /* columns, 8 fields */

AVX2 __m256i load(const uint8_t *from) { return _mm256_loadu_si256((const __m256i *)(const void *)from); }
AVX2 __m256i low_half_words(__m256i v) { return _mm256_cvtepi8_epi16(_mm256_castsi256_si128(v)); }
AVX2 __m256i high_half_words(__m256i v) { return _mm256_cvtepi8_epi16(_mm256_extracti128_si256(v, 1)); }

/* Even and odd 32-bit lanes of a and b, as `_mm256_hadd_epi32` pairs them; the larger of each. */
AVX2 __m256i pair_max(__m256i a, __m256i b) {
    __m256 fa = _mm256_castsi256_ps(a), fb = _mm256_castsi256_ps(b);
    return _mm256_max_epu32(_mm256_castps_si256(_mm256_shuffle_ps(fa, fb, 0x88)),
                            _mm256_castps_si256(_mm256_shuffle_ps(fa, fb, 0xdd)));
}

/* Write the 8 fields of a strip and count their photons (each sum is below 2**31). */
AVX2 void put_fields(pooling *p, size_t x, __m256i sums, __m256i maxima, __m256i *n_photons) {
    _mm256_storeu_si256((__m256i *)(void *)(p->sums + x / 4), sums);
    _mm256_storeu_si256((__m256i *)(void *)(p->maxima + x / 4), maxima);
    __m256i even = _mm256_and_si256(sums, _mm256_set1_epi64x(UINT32_MAX));
    *n_photons = _mm256_add_epi64(*n_photons, _mm256_add_epi64(even, _mm256_srli_epi64(sums, 32)));
}

/* Pixels without the invalid and the saturated ones, the latter counted in the lanes of `n_full`. */
#define KEEP(BITS, X, INVALID, N_FULL)                                                \
    do {                                                                              \
        X = _mm256_andnot_si256(INVALID, X);                                          \
        __m256i full = _mm256_cmpeq_epi##BITS(X, _mm256_set1_epi8(-1));               \
        X = _mm256_andnot_si256(full, X);                                             \
        N_FULL = _mm256_sub_epi##BITS(N_FULL, full);                                  \
    } while (0)

/* Add up the lanes of `n_full`, each below 256 and so one byte. Rarely any. */
AVX2 void count_saturated(pooling *p, __m256i n_full) {
    if (_mm256_testz_si256(n_full, n_full)) return;
    __m256i parts = _mm256_sad_epu8(n_full, _mm256_setzero_si256());
    uint64_t part[4];
    _mm256_storeu_si256((__m256i *)(void *)part, parts);
    p->counts.n_saturated += part[0] + part[1] + part[2] + part[3];
}

/* Across four columns: 16-bit sums of column pairs, 8-bit maxima of columns. */
AVX2 void put_bytes(pooling *p, size_t x, __m256i pair_sums, __m256i max, __m256i *n_photons) {
    max = _mm256_max_epu8(max, _mm256_srli_epi16(max, 8));
    max = _mm256_and_si256(_mm256_max_epu8(max, _mm256_srli_epi32(max, 16)), _mm256_set1_epi32(0xff));
    put_fields(p, x, _mm256_madd_epi16(pair_sums, _mm256_set1_epi16(1)), max, n_photons);
}

AVX2 int strip_1(pooling *p, size_t y, size_t x, __m256i *n_photons) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i sum = zero, max = zero, n_full = zero;
    for (size_t i = y * p->n_fs + x, r = 0; r < 4; r++, i += p->n_fs) {
        __m256i v = load(p->image + i);
        KEEP(8, v, _mm256_cmpeq_epi8(load(p->valid + i), zero), n_full);
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(v, _mm256_set1_epi8(1)));
        max = _mm256_max_epu8(max, v);
    }
    count_saturated(p, n_full);
    put_bytes(p, x, sum, max, n_photons);
    return 1;
}

/* Two times 8 pixels, 16 apart, so that packing to bytes leaves 32 pixels in order. */
AVX2 __m256i load_apart(const uint8_t *from) {
    const __m128i *at = (const __m128i *)(const void *)from;
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(at)), _mm_loadu_si128(at + 2), 1);
}

/* 16-bit pixels of which all valid ones are below 256, as nearly always: summed as bytes. */
AVX2 int strip_2_dim(pooling *p, size_t y, size_t x, __m256i *n_photons) {
    const __m256i zero = _mm256_setzero_si256(), low_byte = _mm256_set1_epi16(0xff);
    __m256i sum = zero, max = zero, too_bright = zero;
    for (size_t i = y * p->n_fs + x, r = 0; r < 4; r++, i += p->n_fs) {
        __m256i invalid = _mm256_cmpeq_epi8(load(p->valid + i), zero);
        __m256i a = load_apart(p->image + 2 * i), b = load_apart(p->image + 2 * i + 16);
        __m256i high = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
        __m256i v = _mm256_packus_epi16(_mm256_and_si256(a, low_byte), _mm256_and_si256(b, low_byte));
        too_bright = _mm256_or_si256(too_bright, _mm256_andnot_si256(invalid, high));
        v = _mm256_andnot_si256(invalid, v);
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(v, _mm256_set1_epi8(1)));
        max = _mm256_max_epu8(max, v);
    }
    if (!_mm256_testz_si256(too_bright, too_bright)) return 0;
    put_bytes(p, x, sum, max, n_photons);
    return 1;
}

AVX2 int strip_2(pooling *p, size_t y, size_t x, __m256i *n_photons) {
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
    __m256i sum_a = zero, sum_b = zero, max_a = zero, max_b = zero, bits = zero,
            n_full = zero;
    for (size_t i = y * p->n_fs + x, r = 0; r < 4; r++, i += p->n_fs) {
        __m256i invalid = _mm256_cmpeq_epi8(load(p->valid + i), zero);
        __m256i a = load(p->image + 2 * i), b = load(p->image + 2 * i + 32);
        KEEP(16, a, low_half_words(invalid), n_full);
        KEEP(16, b, high_half_words(invalid), n_full);
        bits = _mm256_or_si256(bits, _mm256_or_si256(a, b));
        sum_a = _mm256_add_epi16(sum_a, a), sum_b = _mm256_add_epi16(sum_b, b);
        max_a = _mm256_max_epu16(max_a, a), max_b = _mm256_max_epu16(max_b, b);
    }
    /* Four pixels below 2**13 stay below 2**15, what the signed madd takes. */
    if (!_mm256_testz_si256(bits, _mm256_set1_epi16((short)0xe000))) return 0;
    count_saturated(p, n_full);
    __m256i sum = _mm256_hadd_epi32(_mm256_madd_epi16(sum_a, ones), _mm256_madd_epi16(sum_b, ones));
    max_a = _mm256_max_epu16(max_a, _mm256_srli_epi32(max_a, 16));
    max_b = _mm256_max_epu16(max_b, _mm256_srli_epi32(max_b, 16));
    __m256i max = _mm256_and_si256(pair_max(_mm256_and_si256(max_a, _mm256_set1_epi32(0xffff)),
                                            _mm256_and_si256(max_b, _mm256_set1_epi32(0xffff))),
                                   _mm256_set1_epi32(0xffff));
    put_fields(p, x, _mm256_permute4x64_epi64(sum, 0xd8), _mm256_permute4x64_epi64(max, 0xd8), n_photons);
    return 1;
}

AVX2 int strip_4(pooling *p, size_t y, size_t x, __m256i *n_photons) {
    __m256i sum[4], max[4], bits = _mm256_setzero_si256(), n_full = bits;
    for (int k = 0; k < 4; k++) {
        sum[k] = max[k] = _mm256_setzero_si256();
        for (size_t i = y * p->n_fs + x + 8 * (size_t)k, r = 0; r < 4; r++, i += p->n_fs) {
            __m256i v = load(p->image + 4 * i);
            __m128i eight = _mm_loadl_epi64((const __m128i *)(const void *)(p->valid + i));
            __m256i used = _mm256_cvtepu8_epi32(eight);
            KEEP(32, v, _mm256_cmpeq_epi32(used, _mm256_setzero_si256()), n_full);
            bits = _mm256_or_si256(bits, v);
            sum[k] = _mm256_add_epi32(sum[k], v);
            max[k] = _mm256_max_epu32(max[k], v);
        }
    }
    /* Sixteen pixels below 2**27 stay below 2**31. */
    if (!_mm256_testz_si256(bits, _mm256_set1_epi32((int)0xf8000000))) return 0;
    count_saturated(p, n_full);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(sum[0], sum[1]), _mm256_hadd_epi32(sum[2], sum[3]));
    __m256i maxima = pair_max(pair_max(max[0], max[1]), pair_max(max[2], max[3]));
    put_fields(p, x, _mm256_permutevar8x32_epi32(sums, order), _mm256_permutevar8x32_epi32(maxima, order),
               n_photons);
    return 1;
}

/* Ask for one strip of the next four rows: rows are too short for the hardware to run ahead by itself.
 * Addresses behind the last row are only hints and never read. */
AVX2 void fetch_ahead(const pooling *p, size_t itemsize, size_t y, size_t x) {
    for (size_t r = y + 4; r < y + 8; r++) {
        const uintptr_t i = r * p->n_fs + x, image = (uintptr_t)p->image + i * itemsize;
        _mm_prefetch((const char *)((uintptr_t)p->valid + i), _MM_HINT_T0);
        _mm_prefetch((const char *)image, _MM_HINT_T0);
        if (itemsize == 4) _mm_prefetch((const char *)(image + 64), _MM_HINT_T0);
    }
}

/* Rows y..y + 3, all there. Returns the column from which `add_fields` has to go on. */
AVX2 size_t add_strips(pooling *p, size_t itemsize, size_t y) {
    __m256i n_photons = _mm256_setzero_si256();
    size_t x = 0;
    for (; x + STRIP <= p->n_fs; x += STRIP) {
        fetch_ahead(p, itemsize, y, x);
        int is_done = itemsize == 1   ? strip_1(p, y, x, &n_photons)
                      : itemsize == 2 ? strip_2_dim(p, y, x, &n_photons) || strip_2(p, y, x, &n_photons)
                                      : strip_4(p, y, x, &n_photons);
        if (!is_done) add_fields(p, itemsize, y, x, x + STRIP);
    }
    uint64_t parts[4];
    _mm256_storeu_si256((__m256i *)(void *)parts, n_photons);
    p->counts.n_photons += parts[0] + parts[1] + parts[2] + parts[3];
    return x;
}

TARGET static size_t add_strips_1(pooling *p, size_t y) { return add_strips(p, 1, y); }
TARGET static size_t add_strips_2(pooling *p, size_t y) { return add_strips(p, 2, y); }
TARGET static size_t add_strips_4(pooling *p, size_t y) { return add_strips(p, 4, y); }

static size_t add_strips_of(pooling *p, size_t itemsize, size_t y) {
    if (y + 4 > p->n_ss || !__builtin_cpu_supports("avx2")) return 0;
    return itemsize == 1 ? add_strips_1(p, y) : itemsize == 2 ? add_strips_2(p, y) : add_strips_4(p, y);
}
#else
static size_t add_strips_of(pooling *p, size_t itemsize, size_t y) {
    (void)p, (void)itemsize, (void)y;
    return 0;
}
#endif

pool_counts pool4(const void *image, size_t itemsize, const uint8_t *valid, size_t n_ss, size_t n_fs,
                  uint32_t *sums, uint32_t *maxima) {
    pooling p = {image, valid, n_ss, n_fs, sums, maxima, {0, 0}};
    for (size_t y = 0; y < n_ss; y += 4) {
        size_t x = add_strips_of(&p, itemsize, y);
        if (itemsize == 1) add_fields(&p, 1, y, x, n_fs);
        else if (itemsize == 2) add_fields(&p, 2, y, x, n_fs);
        else add_fields(&p, 4, y, x, n_fs);
        p.sums += (n_fs + 3) / 4, p.maxima += (n_fs + 3) / 4;
    }
    return p.counts;
}
