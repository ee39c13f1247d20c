"""The `nxmx` package (DIALS' own reader of NXmx) as a program: `python nxmx_peer.py MASTER`.

Prints as JSON what DIALS would be told, following dxtbx's rules: coordinates are turned from
McStas to imgCIF, the panel's origin is the end of the chain of axes that the fast direction
depends on, no count is one of the two highest values of the stated depth.
"""

import json
import sys

import h5py
import hdf5plugin  # noqa: F401  (registers the filters)
import numpy as np
import nxmx

TO_IMGCIF = np.diag([-1.0, 1.0, -1.0])


def said(path: str) -> dict[str, object]:
    """Return what a master says, lengths in mm."""
    with h5py.File(path, "r", swmr=True) as file:
        (entry,) = nxmx.NXmx(file).entries
        (instrument,), (sample,), (data,) = entry.instruments, entry.samples, entry.data
        (detector,), (beam,) = instrument.detectors, instrument.beams
        (module,) = detector.modules
        fast, slow = module.fast_pixel_direction, module.slow_pixel_direction
        chain = nxmx.get_dependency_chain(fast.depends_on)
        origin = TO_IMGCIF @ nxmx.get_cumulative_transformation(chain)[0, :3, 3]
        images = data[data.signal]
        counts = images[:].astype(np.int64)
        top = 2**detector.bit_depth_readout
        counts[counts >= top - 2] -= top
        is_trusted = (counts >= detector.underload_value) & (counts <= detector.saturation_value)
        return {
            "definition": entry.definition,
            "start_time": entry.start_time.isoformat(),
            "is_still": sample.depends_on is None,
            "wavelength_A": float(beam.incident_wavelength.to("angstrom").magnitude),
            "distance_mm": float(detector.distance.to("mm").magnitude),
            "origin_mm": origin.tolist(),
            "fast": (TO_IMGCIF @ fast.vector).tolist(),
            "slow": (TO_IMGCIF @ slow.vector).tolist(),
            "pixel_mm": [float(axis[()].to("mm").magnitude.item()) for axis in (fast, slow)],
            "size_ss_fs": [int(n) for n in module.data_size],
            "begin_ss_fs": [int(n) for n in module.data_origin],
            "thickness_mm": float(detector.sensor_thickness.to("mm").magnitude),
            "material": detector.sensor_material,
            "frame_time_s": float(detector.frame_time.to("s").magnitude),
            "n_masked": int(np.count_nonzero(detector.pixel_mask[()])),
            "shape": list(images.shape),
            "sum_trusted": counts.sum(where=is_trusted, axis=(1, 2)).tolist(),
            "n_untrusted": np.count_nonzero(~is_trusted, axis=(1, 2)).tolist(),
        }


if __name__ == "__main__":
    print(json.dumps(said(sys.argv[1])))
