/* The frame's pixels as bytes in small squares, made where somebody looks. */
#include "_places.h"

#include <string.h>

size_t tiles_bytes(int64_t height, int64_t width) {
    return (size_t)((height + TILE - 1) / TILE) * (size_t)((width + TILE - 1) / TILE) * (TILE * TILE + 1) + 1;
}

void empty_tiles(frame *f, uint8_t *memory) {
    f->across = (int32_t)((f->im.width + TILE - 1) / TILE);
    const size_t n_tiles = (size_t)f->across * (size_t)((f->im.height + TILE - 1) / TILE);
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
            const int64_t ss = (int64_t)i * TILE, fs = (int64_t)j * TILE;
            const int64_t end = ss + TILE < f->im.height ? ss + TILE : f->im.height;
            const size_t n = (size_t)(f->im.width - fs < TILE ? f->im.width - fs : TILE);
            uint8_t *to = f->tiles + (size_t)tile * TILE * TILE;
            for (int64_t row = ss; row < end; row++, to += TILE) read_row(&f->im, (size_t)(row * f->im.width + fs), n, to);
        }
}
