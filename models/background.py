"""The background of a frame from the frame alone: rings, then a coarse correction.

One rule: every estimate starts from a wider one and leaves it only as far as photons support it
(gamma prior: rate = wide * (counts + k) / (expected + k)), so a frame of 300 photons and one of
10 million take the same path. Cells that hold a spot are clipped away by iteration.

`device_background.py` is the definition, on any device, `evidence.py` calls the same compiled for
one core; these are the numbers of both.
"""

from __future__ import annotations

RING_WINDOWS = (129, 33, 9, 1)
"""Widths in rings of the nested background estimates, widest first."""
BLOCK_CELLS = 8
"""Coarse correction of the background: blocks of 32 px, averaged over 3 x 3 blocks."""
RING_PRIOR_PHOTONS = 25.0
"""A wider window predicts a narrower one to about 1 / sqrt(25) = 20 %."""
BLOCK_PRIOR_PHOTONS = 100.0
"""Rings predict a block to about 10 % (polarisation, a shifted beam centre, a shadow)."""
CLIP_SIGMA, CLIP_PHOTONS = 4.5, 3.0
"""A cell above mean + 4.5 sqrt(mean) + 3 is a spot; below 1e-6 of background cells are."""
N_CLIPS = 2
