/* The frame's pixels as bytes in small squares, made where somebody looks. */
#include "_places.h"

#include <string.h>

#define FILL(TYPE, TOP)                                                                                        \
    INLINE void fill_part_##TYPE(const TYPE *image, const uint8_t *valid, int64_t width, int n_ss, int n_fs,    \
                                 uint8_t *to) {                                                                \
        for (int y = 0; y < n_ss; y++, image += width, valid += width, to += TILE)                             \
            for (int x = 0; x < n_fs; x++) {                                                                   \
                const uint8_t n = image[x] < BRIGHT - 1 ? (uint8_t)(image[x] + 1) : BRIGHT;                    \
                to[x] = (valid[x] != 0) & (image[x] != TOP) ? n : UNSEEN;                                      \
            }                                                                                                  \
    }                                                                                                          \
    FAST static void fill_##TYPE(const TYPE *image, const uint8_t *valid, int64_t width, int n_ss, int n_fs,    \
                                 uint8_t *to) {                                                                \
        if (n_fs == TILE) fill_part_##TYPE(image, valid, width, n_ss, TILE, to);                               \
        else fill_part_##TYPE(image, valid, width, n_ss, n_fs, to);                                            \
    }

FILL(uint8_t, UINT8_MAX)
FILL(uint16_t, UINT16_MAX)
FILL(uint32_t, UINT32_MAX)

size_t tiles_bytes(int64_t height, int64_t width) {
    return (size_t)((height + TILE - 1) / TILE) * (size_t)((width + TILE - 1) / TILE) * (TILE * TILE + 1) + 1;
}

void empty_tiles(frame *f, uint8_t *memory) {
    f->across = (int32_t)((f->width + TILE - 1) / TILE);
    const size_t n_tiles = (size_t)f->across * (size_t)((f->height + TILE - 1) / TILE);
    f->tiles = memory, f->unseen = (int32_t)(n_tiles * TILE * TILE), f->tiles[f->unseen] = UNSEEN;
    f->is_made = memset(memory + f->unseen + 1, 0, n_tiles);
}

/* Make the tiles of some rows and columns of them, ends included. */
void make_tiles(const frame *f, int32_t top, int32_t bottom, int32_t left, int32_t right) {
    for (int32_t i = top; i <= bottom; i++)
        for (int32_t j = left; j <= right; j++) {
            const int32_t tile = i * f->across + j;
            if (f->is_made[tile]) continue;
            f->is_made[tile] = 1;
            const int64_t ss = (int64_t)i * TILE, fs = (int64_t)j * TILE, first = ss * f->width + fs;
            const int n_ss = (int)(f->height - ss < TILE ? f->height - ss : TILE);
            const int n_fs = (int)(f->width - fs < TILE ? f->width - fs : TILE);
            const uint8_t *valid = f->valid + first;
            uint8_t *to = f->tiles + (size_t)tile * TILE * TILE;
            if (f->itemsize == 1) fill_uint8_t((const uint8_t *)f->image + first, valid, f->width, n_ss, n_fs, to);
            else if (f->itemsize == 2) fill_uint16_t((const uint16_t *)f->image + first, valid, f->width, n_ss, n_fs, to);
            else fill_uint32_t((const uint32_t *)f->image + first, valid, f->width, n_ss, n_fs, to);
        }
}
