/* The best spot of each width near a pixel: a climb from pixel to pixel. Photons around a place are few, so a step
 * costs a row of the table for each of them, and bright frames cost in proportion. */
#include "_places.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOGETHER 8 /* pixels of a climb worked out side by side: their sums do not wait for each other */
#define MAX_STEPS 12

typedef struct {
    int y[TOGETHER], x[TOGETHER];
    float best[TOGETHER]; /* of the intensities */
    levels ratio[TOGETHER]; /* log likelihood ratio of each intensity */
} trial;

typedef int32_t places __attribute__((vector_size(4 * TOGETHER)));

/* Sum over the lit pixels what they say for each intensity, at `count` pixels side by side. Of each row only those that
 * one of the pixels reaches are looked at, and what is beyond the reach of another says nothing there. */
INLINE void add_up(const window *w, int width, int count, const trial *t, levels *answer) {
    const uint8_t *rows = (const uint8_t *)(w->gain + (size_t)w->first[width] * LEVELS);
    const int reach = w->reach[width], beyond = reach * reach + 1;
    levels sum[TOGETHER] = {{0}};
    places ys, xs;
    memcpy(&ys, t->y, sizeof ys), memcpy(&xs, t->x, sizeof xs);
    int top = t->y[0], bottom = t->y[0], left = t->x[0], right = t->x[0];
    for (int c = 1; c < count; c++) {
        top = t->y[c] < top ? t->y[c] : top, bottom = t->y[c] > bottom ? t->y[c] : bottom;
        left = t->x[c] < left ? t->x[c] : left, right = t->x[c] > right ? t->x[c] : right;
    }
    for (uint32_t rest = w->lit_rows & between(top - reach, bottom + reach); rest; rest &= rest - 1) {
        const int y = __builtin_ctz(rest) - REACH;
        const int half = w->half[width][y < top ? top - y : y > bottom ? y - bottom : 0];
        const uint32_t lit = w->lit[y + REACH], near = lit & between(left - half, right + half);
        if (!near) continue;
        const int32_t from = w->row_first[y + REACH] + __builtin_popcount(lit & ((near & -near) - 1));
        const int32_t to = from + __builtin_popcount(near);
        const places dy2 = (y - ys) * (y - ys);
        for (int32_t k = from; k < to; k++) {
            const places dx = w->x[k] - xs, d2 = dy2 + dx * dx, is_near = d2 < beyond;
            const places at = (w->table[k] + ((d2 & is_near) | (beyond & ~is_near))) * (int32_t)sizeof(levels);
            int32_t byte[TOGETHER];
            memcpy(byte, &at, sizeof at);
            __asm__("" : "+m"(byte)); /* read from memory: taking a register apart costs more */
            for (int c = 0; c < count; c++) sum[c] += w->n[k] * *(const levels *)(rows + byte[c]);
        }
    }
    for (int c = 0; c < count; c++) answer[c] = sum[c];
}

/* Work out the log likelihood ratios for spots of a width at some pixels of the window. */
FAST static void try_pixels(const window *w, int width, int count, trial *t) {
    levels sum[TOGETHER];
    switch (count) {
    case 1: add_up(w, width, 1, t, sum); break;
    case 2: add_up(w, width, 2, t, sum); break;
    case 3: add_up(w, width, 3, t, sum); break;
    case 4: add_up(w, width, 4, t, sum); break;
    case 5: add_up(w, width, 5, t, sum); break;
    case 6: add_up(w, width, 6, t, sum); break;
    case 7: add_up(w, width, 7, t, sum); break;
    default: add_up(w, width, 8, t, sum);
    }
    for (int c = 0; c < count; c++) {
        float seen = w->is_hidden ? seen_share(w, width, t->y[c], t->x[c]) : 1;
        t->ratio[c] = sum[c] - *(const levels *)w->intensity * seen;
        t->best[c] = -INFINITY;
        for (int j = 0; j < LEVELS; j++) t->best[c] = t->ratio[c][j] > t->best[c] ? t->ratio[c][j] : t->best[c];
    }
}

/* Move to the first of the best of some pixels, if it is better than where the climb is. */
static void move_to_better(const window *w, int width, trial *t, int count, int at[2], float *best, levels *of_level) {
    try_pixels(w, width, count, t);
    for (int c = 0; c < count; c++)
        if (t->best[c] > *best) *best = t->best[c], at[0] = t->y[c], at[1] = t->x[c], *of_level = t->ratio[c];
}

/* Climb from the better of two starts to the pixel where a spot of this width explains most; pixels are looked at
 * once, as none that was is better than where the climb is. */
static void climb(window *w, int width, int start[2][2], int at[2], levels *of_level) {
    float best = -INFINITY;
    trial t = {.y = {start[0][0], start[1][0]}, .x = {start[0][1], start[1][1]}};
    memset(w->known, 0, sizeof w->known);
    for (int c = 0; c < 2; c++) w->known[t.y[c] + REACH] |= 1u << (t.x[c] + REACH);
    move_to_better(w, width, &t, 2, at, &best, of_level);
    for (int step = 0; step < MAX_STEPS; step++) {
        int from[2] = {at[0], at[1]}, count = 0;
        for (int y = from[0] - 1; y <= from[0] + 1; y++)
            for (int x = from[1] - 1; x <= from[1] + 1; x++) {
                if (abs(y) > REACH || abs(x) > REACH || w->known[y + REACH] >> (x + REACH) & 1) continue;
                w->known[y + REACH] |= 1u << (x + REACH);
                t.y[count] = y, t.x[count++] = x;
            }
        if (count) move_to_better(w, width, &t, count, at, &best, of_level);
        if (at[0] == from[0] && at[1] == from[1]) break;
    }
}

/* Average over the intensities; returns the place of the largest in `level`. */
static float mixed(const window *w, const levels *ratio, int *level) {
    levels of_level = *ratio;
    float best = -INFINITY, sum = 0;
    for (int j = 0; j < LEVELS; j++)
        if (of_level[j] + w->log_prior[j] > best) best = of_level[j] + w->log_prior[j], *level = j;
    for (int j = 0; j < LEVELS; j++) sum += expf(of_level[j] + w->log_prior[j] - best);
    return best + logf(sum);
}

/* The best spot of each width near the middle of a box, up to the first that is better than `enough`; the window was
 * looked at. */
float best_spots(window *w, int start[2][2], const int32_t middle[2], float enough, float *ratio, float *found) {
    float best = -INFINITY;
    for (size_t k = 0; k < w->n_widths && !(best > enough); k++) {
        levels of_level = {0};
        int strongest = 0, at[2] = {start[0][0], start[0][1]};
        climb(w, (int)k, start, at, &of_level);
        ratio[k] = mixed(w, &of_level, &strongest) - w->log_chances[k];
        if (ratio[k] <= best) continue;
        best = ratio[k];
        found[SS] = (float)(middle[0] + at[0]), found[FS] = (float)(middle[1] + at[1]);
        found[WIDTH] = (float)k, found[PHOTONS] = w->intensity[strongest];
    }
    return best;
}
