"""Batches of frames as tensors: rendered on a device from their lit pixels.

One rule: a tensor holds what `Exposure.image` holds, but for gaps, which read 0: a network is
given the mask beside the counts. Only the lit pixels cross to the device, a twentieth of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hitfinder.sim.exposure import Photons


def dense_batch(
    frames: Sequence[Photons],
    shape: tuple[int, int],
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Render frames.

    Args:
        frames: B of them, all of one detector.
        shape: its (ss, fs).
        device: where the images are made.
        dtype: of the counts; what it cannot hold is the caller's concern.

    Returns:
        (B, ss, fs) on the device, photons a pixel.
    """
    n_pixels = shape[0] * shape[1]
    index = np.concatenate(
        [frame.index.astype(np.int64) + b * n_pixels for b, frame in enumerate(frames)]
    )
    counts = np.concatenate([frame.counts for frame in frames]).astype(np.int64)
    images = torch.zeros(len(frames) * n_pixels, dtype=dtype, device=device)
    images[torch.from_numpy(index).to(device)] = torch.from_numpy(counts).to(device, dtype)
    return images.view(len(frames), *shape)
