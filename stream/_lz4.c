/* One LZ4 block to bytes, bounded on both sides. From the LZ4 block format description (token, literals,
 * 16-bit little-endian offset, lengths continued in bytes of 255). Sparse detector planes are runs: short
 * offsets, offset 1 above all, are written as repeated patterns, not byte by byte. */
#include "_kernels.h"

#include <string.h>

#if HAVE_X86
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

typedef struct {
    uint64_t word[2];
} bytes16;

/* Load before store, so that the two ranges may overlap. */
INLINE void copy16(uint8_t *to, const uint8_t *from) {
    bytes16 held;
    memcpy(&held, from, sizeof held);
    memcpy(to, &held, sizeof held);
}

/* Copy n bytes, rounded up to 32; ranges at least 16 apart. */
INLINE void copy_rounded(uint8_t *to, const uint8_t *from, size_t n) {
    uint8_t *end = to + n;
    do {
        copy16(to, from);
        copy16(to + 16, from + 16);
        to += 32, from += 32;
    } while (to < end);
}

/* Write n bytes, rounded up to at most n + 31, that repeat the `offset` (1 to 15) bytes before `to`. */
INLINE void repeat_rounded(uint8_t *to, size_t offset, size_t n) {
    const uint8_t *from = to - offset;
    uint8_t *end = to + n;
    if (offset == 1) {
        bytes16 fill;
        fill.word[0] = fill.word[1] = UINT64_C(0x0101010101010101) * *from;
        do {
            memcpy(to, &fill, 16);
            memcpy(to + 16, &fill, 16);
            to += 32;
        } while (to < end);
        return;
    }
    /* Each copy doubles the distance that is right, until whole vectors are. */
    while (offset < 16) {
        copy16(to, from);
        to += offset;
        offset *= 2;
    }
    while (to < end) {
        copy16(to, from);
        to += 16, from += 16;
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

INLINE const char *decode(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out, size_t slack) {
    const uint8_t *const in_end = in + n_in;
    uint8_t *const out_start = out, *const out_end = out + n_out, *const wild_end = out_end + slack;
    while (in < in_end) {
        unsigned token = *in++;
        size_t length = token >> 4;
        if (length < 15 && in_end - in >= 32 && wild_end - out >= 16 && (size_t)(out_end - out) >= length) {
            copy16(out, in);
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
        if (length > (size_t)(out_end - out)) return "a match exceeds the decoded size";
        if ((size_t)(wild_end - out) < length + 32) {
            for (size_t i = 0; i < length; i++) out[i] = out[i - offset];
        } else if (offset >= 16) {
            copy_rounded(out, out - offset, length);
        } else {
            repeat_rounded(out, offset, length);
        }
        out += length;
    }
    return "it ends before its last literals";
}

const char *lz4_decode(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out, size_t slack) {
    return decode(in, n_in, out, n_out, slack);
}
