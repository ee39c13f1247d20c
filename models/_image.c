/* Rows of a frame's counts as bytes, made of pixels or of lit planes, and single pixels. */
#include "_image.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_X86 1
#include <immintrin.h>
#else
#define HAVE_X86 0
#endif

#define TARGET_AVX512 __attribute__((target("avx512bw,avx512vl,bmi,bmi2,popcnt")))
#define TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))

INLINE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* The planes of a step that are there, and its first; none where they would lie beyond the memory. */
INLINE uint32_t lit_planes(const image *im, size_t step, const uint8_t **first) {
    const uint32_t from = im->steps[2 * step], lit = im->steps[2 * step + 1];
    *first = im->counts + PLANE_BYTES * (size_t)from;
    return from + (size_t)__builtin_popcount(lit) <= im->n_planes ? lit : 0;
}

uint32_t count_at(const image *im, size_t pixel) {
    if (im->steps) {
        const uint8_t *plane;
        uint32_t count = 0, lit = lit_planes(im, pixel / STEP, &plane);
        for (; lit; lit &= lit - 1, plane += PLANE_BYTES)
            count |= (uint32_t)(plane[pixel % STEP / 8] >> pixel % 8 & 1) << __builtin_ctz(lit);
        return count;
    }
    if (im->itemsize == 1) return im->counts[pixel];
    if (im->itemsize == 2) return ((const uint16_t *)(const void *)im->counts)[pixel];
    return ((const uint32_t *)(const void *)im->counts)[pixel];
}

#define READ(TYPE, TOP)                                                                                                   \
    FAST static void read_##TYPE(const TYPE *counts, uint32_t seen, size_t n, uint8_t *to) {                              \
        for (size_t x = 0; x < n; x++) {                                                                                  \
            const uint8_t byte = counts[x] < BRIGHT - 1 ? (uint8_t)(counts[x] + 1) : BRIGHT;                              \
            to[x] = (seen >> x & 1) & (counts[x] != TOP) ? byte : UNSEEN;                                                 \
        }                                                                                                                 \
    }

READ(uint8_t, UINT8_MAX)
READ(uint16_t, UINT16_MAX)
READ(uint32_t, UINT32_MAX)

/* As many bits of a plane as wanted, from one on. */
INLINE uint32_t bits_at(const uint8_t *plane, size_t from, uint64_t wanted) {
    /* Of the last bytes of a plane fewer than eight are its own. */
    const size_t at = from / 8 < PLANE_BYTES - 8 ? from / 8 : PLANE_BYTES - 8;
    uint64_t eight;
    memcpy(&eight, plane + at, sizeof eight);
    return (uint32_t)(eight >> (from - 8 * at) & wanted);
}

/* How a machine holds the bytes of a row, adds a plane's bit to those of some pixels, and puts them where they belong. */
#define DEFINE_READ_PLANES(NAME, TARGET, BYTES, NOTHING, ADD, PUT)                                                       \
    TARGET static void NAME(const image *im, size_t first, size_t n, uint8_t to[ROW_PX]) {                               \
        const size_t n_planes = 8 * (size_t)im->itemsize;                                                                \
        BYTES made = NOTHING;                                                                                            \
        uint32_t bright = 0, full = 0;                                                                                   \
        for (size_t done = 0, here; done < n; done += here) {                                                            \
            const size_t from = (first + done) % STEP;                                                                   \
            const uint8_t *plane;                                                                                        \
            here = smaller(n - done, STEP - from);                                                                       \
            const uint64_t wanted = (UINT64_C(1) << here) - 1;                                                           \
            uint32_t all = UINT32_MAX, lit = lit_planes(im, (first + done) / STEP, &plane);                              \
            const int may_be_full = lit == UINT32_MAX >> (32 - n_planes);                                                \
            for (; lit; lit &= lit - 1, plane += PLANE_BYTES) {                                                          \
                const uint32_t bits = bits_at(plane, from, wanted) << done, value = lit & -lit;                          \
                if (value < 256) ADD(made, bits, value);                                                                 \
                else bright |= bits;                                                                                     \
                all &= bits;                                                                                             \
            }                                                                                                            \
            full |= may_be_full ? all : 0;                                                                               \
        }                                                                                                                \
        PUT(made, bright, mask_at(im, first, n) & ~full, to);                                                            \
    }

typedef struct {
    uint8_t of[ROW_PX];
} plain_bytes;

static void put_plain(const plain_bytes *made, uint32_t bright, uint32_t seen, uint8_t to[ROW_PX]) {
    for (int x = 0; x < ROW_PX; x++)
        to[x] = !(seen >> x & 1) ? UNSEEN : (bright >> x & 1) || made->of[x] > BRIGHT - 2 ? BRIGHT : (uint8_t)(made->of[x] + 1);
}

#define ADD_PLAIN(made, bits, value)                                                                                      \
    for (int x = 0; x < ROW_PX; x++) made.of[x] |= (uint8_t)((bits >> x & 1) * value)
#define PUT_PLAIN(made, bright, seen, to) put_plain(&made, bright, seen, to)

#if HAVE_X86
#define ADD_AVX512(made, bits, value) made = _mm256_mask_add_epi8(made, bits, made, _mm256_set1_epi8((char)value))

TARGET_AVX512 INLINE void put_avx512(__m256i made, uint32_t bright, uint32_t seen, uint8_t to[ROW_PX]) {
    made = _mm256_maskz_adds_epu8(seen, made, _mm256_set1_epi8(1));
    made = _mm256_mask_mov_epi8(made, bright & seen, _mm256_set1_epi8((char)BRIGHT));
    _mm256_storeu_si256((__m256i *)(void *)to, made);
}

/* Bytes of ones where a bit is set. */
TARGET_AVX2 INLINE __m256i spread(uint32_t bits) {
    const __m256i of_byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i of_bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), of_byte), of_bit), of_bit);
}

#define ADD_AVX2(made, bits, value) made = _mm256_or_si256(made, _mm256_and_si256(spread(bits), _mm256_set1_epi8((char)value)))

TARGET_AVX2 INLINE void put_avx2(__m256i made, uint32_t bright, uint32_t seen, uint8_t to[ROW_PX]) {
    made = _mm256_or_si256(_mm256_adds_epu8(made, _mm256_set1_epi8(1)), spread(bright));
    _mm256_storeu_si256((__m256i *)(void *)to, _mm256_and_si256(made, spread(seen)));
}

DEFINE_READ_PLANES(read_planes_avx512, TARGET_AVX512, __m256i, _mm256_setzero_si256(), ADD_AVX512, put_avx512)
DEFINE_READ_PLANES(read_planes_avx2, TARGET_AVX2, __m256i, _mm256_setzero_si256(), ADD_AVX2, put_avx2)
#endif

DEFINE_READ_PLANES(read_planes, , plain_bytes, {{0}}, ADD_PLAIN, PUT_PLAIN)

void read_row(const image *im, size_t first, size_t n, uint8_t to[ROW_PX]) {
    if (!im->steps) {
        const uint32_t seen = mask_at(im, first, n);
        memset(to, UNSEEN, ROW_PX);
        if (im->itemsize == 1) read_uint8_t(im->counts + first, seen, n, to);
        else if (im->itemsize == 2) read_uint16_t((const uint16_t *)(const void *)im->counts + first, seen, n, to);
        else read_uint32_t((const uint32_t *)(const void *)im->counts + first, seen, n, to);
        return;
    }
#if HAVE_X86
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) read_planes_avx512(im, first, n, to);
    else if (__builtin_cpu_supports("avx2")) read_planes_avx2(im, first, n, to);
    else
#endif
        read_planes(im, first, n, to);
}

size_t saturated(const image *im, int64_t *pixels, size_t room) {
    const size_t n_steps = ((size_t)im->height * (size_t)im->width + STEP - 1) / STEP;
    size_t n = 0;
    for (size_t step = 0; step < n_steps; step++) {
        const uint8_t *plane;
        uint64_t all[PLANE_BYTES / 8];
        if (lit_planes(im, step, &plane) != UINT32_MAX >> (32 - 8 * im->itemsize)) continue;
        memset(all, 255, sizeof all);
        for (int b = 0; b < 8 * im->itemsize; b++, plane += PLANE_BYTES) {
            uint64_t words[PLANE_BYTES / 8];
            memcpy(words, plane, sizeof words);
            for (int w = 0; w < PLANE_BYTES / 8; w++) all[w] &= words[w];
        }
        for (size_t w = 0; w < PLANE_BYTES / 8; w++)
            for (uint64_t left = all[w]; left; left &= left - 1, n++)
                if (n < room) pixels[n] = (int64_t)(step * STEP + 64 * w + (size_t)__builtin_ctzll(left));
    }
    return n;
}

void ask_for_row(const image *im, size_t first, size_t n) {
    __builtin_prefetch(im->mask + first / 64);
    if (im->steps) {
        const uint8_t *plane;
        uint32_t lit = lit_planes(im, first / STEP, &plane);
        for (; lit; lit &= lit - 1, plane += PLANE_BYTES) __builtin_prefetch(plane);
        return;
    }
    __builtin_prefetch(im->counts + first * (size_t)im->itemsize);
    __builtin_prefetch(im->counts + (first + n - 1) * (size_t)im->itemsize);
}
