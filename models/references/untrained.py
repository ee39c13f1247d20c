"""References without weights: the plain multi-scale scan and the classical peak finder.

One rule: no learning and no memory of other frames. The peak finder's settings are those found
best on pattern_sim frames by hand, one set for each flux, beside CrystFEL's defaults.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models import device_background, device_scan
from hitfinder.models.classical import ClassicalSettings, find_peaks
from hitfinder.models.device_tables import DeviceTables, stack_maps, tables_on
from hitfinder.models.errors import ModelError
from hitfinder.models.frontend import cell_tables, pool_frame
from hitfinder.models.geometry import Geometry


class ScanReference:
    """Best significance of any box of 1, 4, 8 or 16 px."""

    name = "multi-scale scan"
    needs_truth = False

    def __init__(self) -> None:
        self._cells: DeviceTables | None = None
        self._valid: NDArray[np.bool_] | None = None

    def begin(self, geometry: Geometry, valid: NDArray[np.bool_]) -> None:
        """Make the tables of a series."""
        self._cells = tables_on(cell_tables(geometry, valid))
        self._valid = np.array(valid)

    def score(
        self, image: NDArray[np.unsignedinteger], _noise_free: NDArray[np.float32] | None
    ) -> float:
        """Return -log10 of how often chance makes the best place in a blank."""
        if self._cells is None or self._valid is None:
            raise ModelError("begin a series before scoring frames")
        with torch.inference_mode():
            sums, maxima = stack_maps([pool_frame(image, self._valid)], "cpu")
            mean = device_background.estimate(sums, self._cells).mean_BHW
            found = device_scan.scan(sums, maxima, mean, self._cells)
        return float(found.evidence.max())


class PeakFinderReference:
    """Number of peaks of the classical finder; the best one's SNR decides between equals."""

    needs_truth = False

    def __init__(self, name: str, settings: ClassicalSettings) -> None:
        self.name = name
        self._settings = settings
        self._series: tuple[Geometry, NDArray[np.bool_]] | None = None

    def begin(self, geometry: Geometry, valid: NDArray[np.bool_]) -> None:
        """Take the series' geometry and mask."""
        self._series = geometry, valid

    def score(
        self, image: NDArray[np.unsignedinteger], _noise_free: NDArray[np.float32] | None
    ) -> float:
        """Return the number of peaks plus snr / (1 + snr) of the best."""
        if self._series is None:
            raise ModelError("begin a series before scoring frames")
        geometry, valid = self._series
        peaks = find_peaks(image, valid, geometry, self._settings)
        if not len(peaks):
            return 0.0
        best = float(peaks.snr[0])
        return len(peaks) + best / (1 + best)


def peak_finders() -> list[PeakFinderReference]:
    """Return the peak finder by default and as tuned by hand at 3e8 and at 3e7 photons."""
    tuned = {"3e8": 3.5, "3e7": 2.5}
    return [
        PeakFinderReference("peak finder, default", ClassicalSettings()),
        *(
            PeakFinderReference(
                f"peak finder, tuned at {photons}",
                ClassicalSettings(min_snr=4.0, threshold=threshold, min_pix_count=1),
            )
            for photons, threshold in tuned.items()
        ),
    ]
