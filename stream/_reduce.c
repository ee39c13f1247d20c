/* A block's bit planes to pooled sums, maxima and counts, and to those planes that hold anything.
 *
 * Photons are few: most planes of a block are empty. So fields are added up in the planes themselves (`_fields.h`), and
 * the few that are lit are kept as they are (`_planes.h`): an image would be five times as many bytes, of which few are
 * ever looked at. Plain C, compiled for three kinds of machines. */
#include "_fields.h"

#define MOST_BRIGHT 16 /* in a step; with more, its rows are pooled from their pixels */

INLINE uint64_t n_bits(const words *v) {
    uint64_t n = 0;
    for (int w = 0; w < 8; w++) n += (uint64_t)__builtin_popcountll((*v)[w]);
    return n;
}

/* Count saturated pixels, those with every bit set, and use them no more. */
INLINE void take_saturated(reduction *r, const lit_planes *lit, words *used) {
    words all = *used;
    for (size_t i = 0; i < lit->n; i++) all &= lit->word[i];
    r->counts.n_saturated += n_bits(&all);
    *used &= ~all;
}

/* Add bright pixels to their fields, or leave their rows to be pooled pixel by pixel; use them no more. */
INLINE void take_bright(reduction *r, const lit_planes *lit, words *used, size_t n_px) {
    words bright = {0};
    for (size_t i = lit->n; i-- > 0 && lit->bit[i] >= DIM_PLANES;) bright |= lit->word[i];
    bright &= *used;
    *used &= ~bright;
    for (size_t i = 0; i < lit->n; i++) {
        const words part = lit->word[i] & bright;
        r->counts.n_photons += n_bits(&part) << lit->bit[i];
    }
    if (n_bits(&bright) > MOST_BRIGHT) {
        r->bright_end = r->n_done + n_px;
        return;
    }
    for (size_t w = 0; w < 8; w++) {
        for (uint64_t left = bright[w]; left; left &= left - 1) {
            const unsigned at = (unsigned)__builtin_ctzll(left);
            uint32_t counts = 0;
            for (size_t i = 0; i < lit->n; i++) counts |= (uint32_t)(lit->word[i][w] >> at & 1) << lit->bit[i];
            add_bright(r, r->n_done + 64 * w + at, counts);
        }
    }
}

/* Which of a step's pixels are valid. */
INLINE void get_valid(const reduction *r, size_t first, size_t n_px, words *valid) {
    *valid = (words){0};
    if (n_px == STEP) memcpy(valid, r->valid + first / 64, sizeof *valid);
    else memcpy(valid, r->valid + first / 64, (n_px + 63) / 64 * 8);
}

/* One step: n_px pixels, of which only the planes that `maybe` names hold anything. */
INLINE void reduce_step(reduction *r, size_t elem, const uint8_t *planes, size_t stride, const uint8_t *maybe,
                        size_t n_maybe, size_t n_px, machine with) {
    words used;
    lit_planes lit;
    lit.n = 0;
    get_valid(r, r->n_done, n_px, &used);
    for (size_t i = 0; i < n_maybe; i++) {
        words word;
        memcpy(&word, planes + maybe[i] * stride, sizeof word);
        lit.word[lit.n] = word & used, lit.bit[lit.n] = maybe[i];
        lit.n += (size_t)with.any(&lit.word[lit.n]);
    }
    put_planes(r, &lit);
    if (lit.n == 8 * elem) take_saturated(r, &lit, &used);
    if (lit.n && lit.bit[lit.n - 1] >= DIM_PLANES) take_bright(r, &lit, &used, n_px);
    put_fields(r, &lit, &used);
    r->n_fields += n_px / 4, r->n_done += n_px;
    finish_rows(r, elem, with);
}

#define GROUP 8 /* planes looked at together: in registers */

/* One block. Most planes hold nothing: those that do are found first. */
INLINE void reduce(reduction *r, size_t elem, const uint8_t *planes, size_t n_px, machine with) {
    const size_t stride = n_px / 8;
    uint8_t maybe[MAX_PLANES + 1];
    size_t n_maybe = 0;
    for (size_t group = 0; group < 8 * elem; group += GROUP) {
        words any[GROUP] = {{0}};
        for (size_t at = 0; at < n_px; at += STEP) {
            const uint8_t *from = planes + group * stride + at / 8;
            words word, valid;
            get_valid(r, r->n_done + at, smaller(STEP, n_px - at), &valid);
            for (size_t i = 0; i < GROUP; i++) {
                memcpy(&word, from + i * stride, sizeof word);
                any[i] |= word & valid;
            }
        }
        for (size_t i = 0; i < GROUP; i++) {
            maybe[n_maybe] = (uint8_t)(group + i);
            n_maybe += (size_t)with.any(&any[i]);
        }
    }
    for (size_t at = 0; at < n_px; at += STEP)
        reduce_step(r, elem, planes + at / 8, stride, maybe, n_maybe, smaller(STEP, n_px - at), with);
}

INLINE void reduce_any(reduction *r, const uint8_t *planes, size_t n_bytes, machine with) {
    if (r->elem == 1) reduce(r, 1, planes, n_bytes, with);
    else if (r->elem == 2) reduce(r, 2, planes, n_bytes / 2, with);
    else reduce(r, 4, planes, n_bytes / 4, with);
}

#if HAVE_X86
AVX512 static void reduce_avx512(reduction *r, const uint8_t *planes, size_t n_bytes) {
    reduce_any(r, planes, n_bytes, (machine){make_line_avx512, any_bit_avx512});
}

AVX2 static void reduce_avx2(reduction *r, const uint8_t *planes, size_t n_bytes) {
    reduce_any(r, planes, n_bytes, (machine){make_line, any_bit});
}
#endif

size_t reduction_bytes(size_t n_fs, size_t elem) { return 2 * (n_fs + FIELDS) + 4 * n_fs + 4 * n_fs * elem + 8; }

void reduce_begin(reduction *r, uint8_t *memory) {
    r->field_sums = memory, r->field_maxima = memory + r->n_fs + FIELDS;
    uint8_t *all_valid = r->field_maxima + r->n_fs + FIELDS;
    memset(all_valid, 1, 4 * r->n_fs);
    r->all_valid = all_valid;
    r->rows = all_valid + 4 * r->n_fs;
    r->rows += -(uintptr_t)r->rows % 8; /* as pixels are */
    r->n_done = r->bright_end = r->n_pooled = r->n_cleared = r->n_fields = r->n_planes = 0;
    memset(r->n_dim_photons, 0, sizeof r->n_dim_photons);
    r->counts = (pool_counts){0, 0};
}

void reduce_block(reduction *r, const uint8_t *planes, size_t n_bytes) {
#if HAVE_X86
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
        reduce_avx512(r, planes, n_bytes);
        return;
    }
    if (__builtin_cpu_supports("avx2")) {
        reduce_avx2(r, planes, n_bytes);
        return;
    }
#endif
    reduce_any(r, planes, n_bytes, (machine){make_line, any_bit});
}

pool_counts reduce_end(const reduction *r) {
    pool_counts counts = r->counts;
    for (size_t w = 0; w < 8; w++) counts.n_photons += (r->n_dim_photons[w] >> 32) + (uint32_t)r->n_dim_photons[w];
    return counts;
}

void pixels_of_planes(const uint8_t *planes, const uint32_t (*steps)[2], size_t elem, size_t n_px, uint8_t *image) {
    make_pixels(planes, steps, elem, 0, n_px, image, (machine){make_line, any_bit});
}
