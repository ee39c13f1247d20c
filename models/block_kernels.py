"""Bitshuffled LZ4 blocks to pooled maps and lit bit planes, on a GPU: one program a block.

One rule: a program reads inside its block of the payload and writes inside its part of what is
made, whatever the bytes say; bytes that do not follow their format end in a fault, never
elsewhere. The result is that of the C pass of the decoder to the bit, but for the order in which
steps' planes lie; the pass decides what a fault is.

Written from the LZ4 block format description. A match of `offset` bytes back repeats the last
`offset` bytes before it, so every byte of a sequence comes from what was there before the sequence
or from its own literals: a sequence is copied side by side, and only the next one has to wait.
"""

from __future__ import annotations

import triton
import triton.language as tl

CONSTANTS = {"LANES": 128, "FIELDS": 128}
"""Bytes of a sequence that are copied side by side; fields of four pixels of a step."""
OPTIONS = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": False}
"""Of a launch. One warp: the programs of four frames are on an H100 at a time, and a block is a
chain of short sequences that more lanes would only wait for. There is nothing to fuse."""


@triton.jit
def long_length(payload, at, end, length, limit):
    """Add the bytes that continue a length of 15; above `limit` where they run past the end."""
    more = tl.full((), 255, tl.int32)
    while more == 255:
        if (at < end) & (length <= limit):
            more = tl.load(payload + at).to(tl.int32)
            length += more
            at += 1
        else:
            more = tl.full((), 0, tl.int32)
            length = limit + 1
    return length, at


@triton.jit
def copy_sequence(
    payload, literals, planes, made, n_literals, n_match, offset, LANES: tl.constexpr
):
    """Put literals and then the match behind the `made` bytes that are there."""
    n = n_literals + n_match
    lane = tl.arange(0, LANES)
    done = tl.full((), 0, tl.int32)
    while done < n:
        k = done + lane
        match_at = made + n_literals
        repeated = match_at - offset + tl.maximum(k - n_literals, 0) % offset
        source = tl.where(k < n_literals, made + k, repeated)
        is_old = source < made
        old = tl.load(planes + source, mask=(k < n) & is_old, other=0)
        new = tl.load(
            payload + literals + (source - made), mask=(k < n) & (source >= made), other=0
        )
        tl.store(planes + made + k, tl.where(is_old, old, new), mask=k < n)
        done += LANES
    # The next sequence may repeat what other lanes have just written.
    tl.debug_barrier()


@triton.jit
def decode_lz4(payload, at, end, planes, n_planes, LANES: tl.constexpr):
    """Decode one LZ4 block into exactly `n_planes` bytes; return whether it is one."""
    made = tl.full((), 0, tl.int32)
    is_good = at < end
    goes_on = is_good
    while goes_on:
        token = tl.load(payload + at).to(tl.int32)
        at += 1
        n_literals = token >> 4
        if n_literals == 15:
            n_literals, at = long_length(payload, at, end, n_literals, n_planes)
        literals = at
        room = n_planes - made - n_literals
        is_good = (n_literals <= end - at) & (room >= 0)
        at += n_literals
        is_last = at == end
        n_match = tl.full((), 0, tl.int32)
        offset = tl.full((), 1, tl.int32)
        if is_last:
            is_good = is_good & (room == 0)
        else:
            is_good = is_good & (end - at >= 2)
            if is_good:
                low = tl.load(payload + at).to(tl.int32)
                offset = low | tl.load(payload + at + 1).to(tl.int32) << 8
                at += 2
                n_match = token & 15
                if n_match == 15:
                    n_match, at = long_length(payload, at, end, n_match, n_planes)
                n_match += 4
                is_good = (offset > 0) & (offset <= made + n_literals) & (n_match <= room)
        if is_good:
            copy_sequence(
                payload, literals, planes, made, n_literals, n_match, offset, LANES=LANES
            )
            made += n_literals + n_match
            # A block ends with literals.
            is_good = is_last | (at < end)
        goes_on = is_good & (is_last == 0)
    return is_good


@triton.jit
def lit_bits(planes, valid, n_bytes, byte, is_here, ELEM: tl.constexpr):
    """Return a bit for each plane of a step that holds anything, and how many they are."""
    lit = tl.full((), 0, tl.int32)
    n_lit = tl.full((), 0, tl.int32)
    for plane in range(8 * ELEM):
        bits = tl.load(planes + plane * n_bytes + byte, mask=is_here, other=0) & valid
        if tl.max(bits.to(tl.int32), axis=0) > 0:
            lit |= tl.full((), 1, tl.int32) << plane
            n_lit += 1
    return lit, n_lit


@triton.jit
def reduce_planes(
    planes,
    mask,
    lit_planes,
    steps,
    sums,
    maxima,
    tally,
    first_px,
    n_px,
    n_fs,
    ELEM: tl.constexpr,
    FIELDS: tl.constexpr,
):
    """Keep a block's planes that hold anything, and add its pixels to the cells they lie in."""
    TOP: tl.constexpr = (1 << (8 * ELEM)) - 1
    n_bytes = n_px // 8
    field = tl.arange(0, FIELDS)
    pixel = tl.arange(0, 4)
    n_saturated = tl.full((), 0, tl.int64)
    n_photons = tl.full((), 0, tl.int64)
    done = tl.full((), 0, tl.int32)
    while done < n_px:
        # Half a byte of a plane: four neighbours in a row, which lie in one cell.
        byte = done // 8 + field // 2
        is_here = byte < n_bytes
        valid = tl.load(mask + first_px // 8 + byte, mask=is_here, other=0)
        lit, n_lit = lit_bits(planes, valid, n_bytes, byte, is_here, ELEM=ELEM)
        # Few planes of a step hold anything; whose are kept where is all that the order decides.
        kept = tl.atomic_add(tally + 3, n_lit.to(tl.int64), sem="relaxed").to(tl.int32)
        step = steps + 2 * ((first_px + done) // (4 * FIELDS))
        tl.store(step, kept)
        tl.store(step + 1, lit)
        if ELEM == 4:
            counts = tl.zeros((FIELDS, 4), tl.int64)
        else:
            counts = tl.zeros((FIELDS, 4), tl.int32)
        for plane in range(8 * ELEM):
            if (lit >> plane & 1) == 1:
                bits = tl.load(planes + plane * n_bytes + byte, mask=is_here, other=0) & valid
                tl.store(lit_planes + kept * (FIELDS // 2) + field // 2, bits, mask=field % 2 == 0)
                kept += 1
                four = bits.to(tl.int32) >> field % 2 * 4
                of_pixels = four[:, None] >> pixel[None, :] & 1
                counts += of_pixels.to(counts.dtype) << plane
        is_top = counts == TOP
        n_saturated += tl.sum(is_top.to(tl.int32)).to(tl.int64)
        counts = tl.where(is_top, 0, counts)
        sum_of = tl.sum(counts, axis=1)
        n_photons += tl.sum(sum_of, axis=0).to(tl.int64)
        at = tl.multiple_of(first_px + done, 64) + field * 4
        cell = at // n_fs // 4 * (n_fs // 4) + at % n_fs // 4
        tl.atomic_add(sums + cell, sum_of, mask=sum_of > 0, sem="relaxed")
        tl.atomic_max(maxima + cell, tl.max(counts, axis=1), mask=sum_of > 0, sem="relaxed")
        done += 4 * FIELDS
    if n_saturated > 0:
        tl.atomic_add(tally, n_saturated, sem="relaxed")
    if n_photons > 0:
        tl.atomic_add(tally + 2, n_photons, sem="relaxed")


@triton.jit(
    do_not_specialize=["n_px", "n_fs", "block_bytes"],
    do_not_specialize_on_alignment=["steps", "sums", "maxima"],
)
def reduce_blocks(
    payload,
    table,
    mask,
    planes,
    lit_planes,
    steps,
    sums,
    maxima,
    tally,
    n_px,
    n_fs,
    block_bytes,
    ELEM: tl.constexpr,
    LANES: tl.constexpr,
    FIELDS: tl.constexpr,
):
    """Decode, mask and pool one block of a frame; what counts does so as in `frontend.pool_frame`.

    Args:
        payload: uint8, the blob's bytes.
        table: int32 (blocks, 2), first byte and number of bytes of each block.
        mask: uint8 (n_px / 8), a bit a pixel, lowest first, set where it counts.
        planes: uint8, as many bytes as the image; overwritten.
        lit_planes: uint8 (planes, 64), room for all planes of all steps of 512 pixels; the lit
            ones are kept as `models.image.LitPlanes` has them, one step's after another's.
        steps: int32 (steps, 2), first of its planes and a bit for each; overwritten.
        sums, maxima: (ceil(ss / 4) * fs / 4), int32, of uint32 pixels int64; 0 before.
        tally: int64 (4): saturated pixels, faulty blocks, photons, lit planes; 0 before.
        n_px: pixels of the frame, a multiple of 8.
        n_fs: pixels of a row, a multiple of 4.
        block_bytes: decoded bytes of a block, a multiple of 512 pixels.
    """
    block = tl.program_id(0)
    first_px = tl.multiple_of(block * (block_bytes // ELEM), 64)
    block_px = tl.minimum(block_bytes // ELEM, n_px - first_px)
    at = tl.load(table + 2 * block)
    end = at + tl.load(table + 2 * block + 1)
    own = planes + first_px * ELEM
    if decode_lz4(payload, at, end, own, block_px * ELEM, LANES=LANES):
        reduce_planes(
            own,
            mask,
            lit_planes,
            steps,
            sums,
            maxima,
            tally,
            first_px,
            block_px,
            n_fs,
            ELEM=ELEM,
            FIELDS=FIELDS,
        )
    else:
        tl.atomic_add(tally + 1, tl.full((), 1, tl.int64), sem="relaxed")
