/* One LZ4 block to bytes, bounded on both sides. From the LZ4 block format description (token, literals,
 * 16-bit little-endian offset, lengths continued in bytes of 255).
 *
 * Sparse detector planes are short sequences (four of five matches have at most 16 bytes, two of five an
 * offset below 16) and a few long runs. So a short match is one gather and one store whatever its offset,
 * and a long run of short cycles is stored from registers, 32 bytes at a time. Keeping the last 16 bytes
 * in a register instead of reading them back was tried and was slower. */
#include "_kernels.h"

#include <string.h>

#if defined(__aarch64__)
#include <arm_neon.h>
#elif HAVE_X86
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint8_t bytes32 __attribute__((vector_size(32)));

#define BYTES_16(X, o, i)                                                                             \
    X(o, i), X(o, i + 1), X(o, i + 2), X(o, i + 3), X(o, i + 4), X(o, i + 5), X(o, i + 6), X(o, i + 7),     \
        X(o, i + 8), X(o, i + 9), X(o, i + 10), X(o, i + 11), X(o, i + 12), X(o, i + 13), X(o, i + 14),     \
        X(o, i + 15)
#define BYTE(o, i) (i) % (o)
#define CYCLE(o) {{BYTES_16(BYTE, o, 0)}, {BYTES_16(BYTE, o, 16)}}
/* Row `offset`: which of the `offset` bytes before a match each of its first 32 bytes repeats. The first
 * half of row 16 is the identity, so that short matches need no branch on their offset. */
static const bytes16 REPEATED[17][2] = {CYCLE(1),  CYCLE(1),  CYCLE(2),  CYCLE(3),  CYCLE(4),  CYCLE(5),
                                        CYCLE(6),  CYCLE(7),  CYCLE(8),  CYCLE(9),  CYCLE(10), CYCLE(11),
                                        CYCLE(12), CYCLE(13), CYCLE(14), CYCLE(15), CYCLE(16)};
/* How many of 32 bytes are whole cycles of `offset` bytes. */
static const uint8_t WHOLE[17] = {32, 32, 32, 30, 32, 30, 30, 28, 32, 27, 30, 22, 24, 26, 28, 30, 32};

INLINE bytes16 load16(const uint8_t *from) {
    bytes16 v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void store16(uint8_t *to, bytes16 v) { memcpy(to, &v, sizeof v); }

#define BOTH(a, b)                                                                                              \
    __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, \
                            22, 23, 24, 25, 26, 27, 28, 29, 30, 31)

/* Gather the bytes of v that `which` names. */
typedef bytes16 picker(bytes16 v, bytes16 which);

#if defined(__aarch64__)
static inline bytes16 pick(bytes16 v, bytes16 which) {
    return (bytes16)vqtbl1q_u8((uint8x16_t)v, (uint8x16_t)which);
}
#else
static inline bytes16 pick(bytes16 v, bytes16 which) {
    if (which[15] == 15) return v; /* the identity */
    bytes16 picked;
    for (int i = 0; i < 16; i++) picked[i] = v[which[i]];
    return picked;
}
#endif

/* Repeat what stands `offset` bytes back, n bytes rounded up: at most MATCH_SLACK are written too many. */
#define MATCH_SLACK 32
INLINE void copy_match(uint8_t *out, size_t offset, size_t n, picker *pick16) {
    const uint8_t *from = out - offset;
    const bytes16 *which = REPEATED[offset < 16 ? offset : 16];
    bytes16 last = load16(from);
    const bytes16 first = pick16(last, which[0]);
    store16(out, first);
    if (n <= 16) return;
    if (offset >= 32) {
        for (size_t i = 16; i < n; i += 32) {
            bytes32 v; /* loaded before it is stored: the ranges may touch */
            memcpy(&v, from + i, 32);
            memcpy(out + i, &v, 32);
        }
    } else if (offset > 16) {
        for (size_t i = 16; i < n; i += 16) store16(out + i, load16(from + i));
    } else {
        const bytes16 second = pick16(last, which[1]);
        const bytes32 v = BOTH(first, second); /* through memory it would wait for the two stores */
        for (size_t i = 0; i < n; i += WHOLE[offset]) memcpy(out + i, &v, 32);
    }
}

/* Add the bytes that continue a length of 15. Stops as soon as the length passes `limit`. */
INLINE const uint8_t *long_length(const uint8_t *in, const uint8_t *in_end, size_t *length, size_t limit) {
    unsigned more;
    do {
        if (in == in_end || *length > limit) return NULL;
        more = *in++;
        *length += more;
    } while (more == 255);
    return in;
}

INLINE const char *decode(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out, size_t slack,
                          picker *pick16) {
    const uint8_t *const in_end = in + n_in;
    uint8_t *const out_start = out, *const out_end = out + n_out, *const wild_end = out_end + slack;
    while (in < in_end) {
        unsigned token = *in++;
        size_t length = token >> 4;
        if (length < 15 && in_end - in >= 32 && wild_end - out >= 32) {
            /* May pass out_end, never wild_end; the match then does not fit. */
            store16(out, load16(in));
            in += length, out += length;
        } else {
            if (length == 15 && !(in = long_length(in, in_end, &length, n_out)))
                return "a literal length runs past the end";
            if (length > (size_t)(in_end - in)) return "literals run past the end of the block";
            if (length > (size_t)(out_end - out)) return "literals exceed the decoded size";
            memcpy(out, in, length);
            in += length, out += length;
            if (in == in_end) return out == out_end ? NULL : "it decodes to too few bytes";
            if (in_end - in < 2) return "it ends inside a match offset";
        }
        size_t offset = in[0] | (size_t)in[1] << 8;
        in += 2;
        length = token & 15;
        if (length == 15 && !(in = long_length(in, in_end, &length, n_out)))
            return "a match length runs past the end";
        length += 4;
        if (offset == 0 || offset > (size_t)(out - out_start)) return "a match starts before the block";
        if ((ptrdiff_t)length > out_end - out) return "a match exceeds the decoded size";
        if (wild_end - out >= (ptrdiff_t)length + MATCH_SLACK) {
            copy_match(out, offset, length, pick16);
        } else {
            for (size_t i = 0; i < length; i++) out[i] = out[i - offset];
        }
        out += length;
    }
    return "it ends before its last literals";
}

#if HAVE_X86
#define AVX2 __attribute__((target("avx2"))) static

AVX2 inline bytes16 pick_avx2(bytes16 v, bytes16 which) {
    return (bytes16)_mm_shuffle_epi8((__m128i)v, (__m128i)which);
}

AVX2 const char *decode_avx2(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out, size_t slack) {
    return decode(in, n_in, out, n_out, slack, pick_avx2);
}
#endif

const char *lz4_decode(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out, size_t slack) {
#if HAVE_X86
    if (__builtin_cpu_supports("avx2")) return decode_avx2(in, n_in, out, n_out, slack);
#endif
    return decode(in, n_in, out, n_out, slack, pick);
}
