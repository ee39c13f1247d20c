"""Write `wire_messages.json`: small V1 and V2 messages with what a decoder must find in them.

The one rule: bytes are put together here from the format's description alone (protocol note,
sections 2 to 4; RFC 8949; RFC 8746), never by the package under test. `parts` are hexadecimal,
one a ZMQ part; `expect` holds attributes of the decoded message. The file is committed, so that
tests depend neither on this script nor on LZ4's version.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import lz4.block
import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
ULID = "01HT0000000000000000000077"
ARRAY_TAG = {"uint8": 64, "uint16": 69, "uint32": 70, "float32": 85}


def pixels(ss: int, fs: int, dtype: str, seed: int) -> NDArray[Any]:
    """Return a faint image: a few counts, one gap pixel at the type's largest value."""
    image = np.random.default_rng(seed).poisson(0.3, (ss, fs)).astype(dtype)
    image[0, -1] = np.iinfo(dtype).max
    return image


def lz4_block(content: bytes) -> bytes:
    """Return one bare LZ4 block."""
    return bytes(lz4.block.compress(content, store_size=False))


def shuffled(content: bytes, elem_size: int) -> bytes:
    """Return bit planes: plane p, byte k, bit j is bit p of element 8k + j (section 3.2)."""
    bits = np.unpackbits(
        np.frombuffer(content, np.uint8).reshape(-1, elem_size), axis=1, bitorder="little"
    )
    return np.packbits(bits.T, axis=1, bitorder="little").tobytes()


def bslz4(image: NDArray[Any], block_bytes: int = 8192) -> bytes:
    """Return a bitshuffle-LZ4 blob (section 3.2)."""
    content, size = image.tobytes(), image.itemsize
    whole = len(content) // (8 * size) * 8 * size
    blob = struct.pack(">QI", len(content), block_bytes)
    for at in range(0, whole, block_bytes):
        block = lz4_block(shuffled(content[at : min(at + block_bytes, whole)], size))
        blob += struct.pack(">I", len(block)) + block
    return blob + content[whole:]


def lz4_hdf5(image: NDArray[Any], block_bytes: int) -> bytes:
    """Return an HDF5-framed LZ4 blob; a block that does not shrink is stored (section 3.3)."""
    content = image.tobytes()
    blob = struct.pack(">QI", len(content), block_bytes)
    for at in range(0, len(content), block_bytes):
        raw = content[at : at + block_bytes]
        block = min(lz4_block(raw), raw, key=len)
        blob += struct.pack(">I", len(block)) + block
    return blob


class Tag:
    """A CBOR tag and what it holds."""

    def __init__(self, tag: int, value: Any) -> None:
        self.tag, self.value = tag, value


def cbor_head(major: int, argument: int) -> bytes:
    """Return the shortest initial bytes (RFC 8949, section 3)."""
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, code in ((24, ">B"), (25, ">H"), (26, ">I"), (27, ">Q")):
        if argument < 1 << 8 * struct.calcsize(code):
            return bytes([major << 5 | info]) + struct.pack(code, argument)
    raise OverflowError(argument)


def cbor(value: Any) -> bytes:
    """Return a value in CBOR, of definite length."""
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    if isinstance(value, int):
        return cbor_head(0, value) if value >= 0 else cbor_head(1, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return cbor_head(2, len(value)) + value
    if isinstance(value, str):
        return cbor_head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return cbor_head(4, len(value)) + b"".join(map(cbor, value))
    if isinstance(value, Tag):
        return cbor_head(6, value.tag) + cbor(value.value)
    return cbor_head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())


def array(image: NDArray[Any], content: Any) -> Tag:
    """Return a MultiDimArray of rows x columns (section 4.1)."""
    return Tag(40, [list(image.shape), Tag(ARRAY_TAG[image.dtype.name], content)])


def compressed(image: NDArray[Any], algorithm: str, block_bytes: int = 8192) -> Tag:
    """Return a MultiDimArray of compressed bytes."""
    if algorithm == "bslz4":
        return array(image, Tag(56500, ["bslz4", image.itemsize, bslz4(image, block_bytes)]))
    return array(image, Tag(56500, ["lz4", 0, lz4_hdf5(image, block_bytes)]))


def expected(image: NDArray[Any], codec: str) -> dict[str, Any]:
    """Return what a decoder must make of an image; small ones number by number."""
    found = {"shape": list(image.shape), "dtype": image.dtype.name, "codec": codec}
    found["sha256"] = hashlib.sha256(image.tobytes()).hexdigest()
    return found if image.size > 100 else found | {"pixels": image.tolist()}


def text(value: Any) -> bytes:
    """Return sorted JSON without spaces, as real detectors write it [REAL1]."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def v1_image(
    frame: int, image: NDArray[Any], encoding: str, blob: bytes, codec: str, appendix: bytes = b""
) -> dict[str, Any]:
    """Return a V1 image message (section 2.2)."""
    ss, fs = image.shape
    md5 = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    parts = [
        text({"frame": frame, "hash": md5, "htype": "dimage-1.0", "series": 9}),
        text(
            {
                "encoding": encoding,
                "htype": "dimage_d-1.0",
                "shape": [fs, ss],
                "size": len(blob),
                "type": image.dtype.name,
            }
        ),
        blob,
        text(
            {
                "htype": "dconfig-1.0",
                "real_time": 990,
                "start_time": 1000 * frame,
                "stop_time": 1000 * frame + 990,
            }
        ),
    ]
    parts += [appendix] if appendix else []
    find = {
        "series": 9,
        "frame": frame,
        "real_ns": 990,
        "start_ns": 1000 * frame,
        "stop_ns": 1000 * frame + 990,
    }
    find |= {
        "appendix": appendix.decode() or None,
        "blobs": {"threshold_1": expected(image, codec)},
    }
    return {"kind": "Frame", "parts": [p.hex() for p in parts], "expect": find}


def v1_start(
    level: str, mask: NDArray[Any], flatfield: NDArray[Any], appendix: bytes
) -> dict[str, Any]:
    """Return a V1 global header (section 2.1)."""
    ss, fs = mask.shape
    config = {
        **{"nimages": 5, "ntrigger": 2, "trigger_mode": "ints", "bit_depth_image": 16},
        **{"x_pixels_in_detector": fs, "y_pixels_in_detector": ss, "photon_energy": 9500.0},
        **{"detector_distance": 0.125, "beam_center_x": 4.5, "beam_center_y": 3.25},
        **{"x_pixel_size": 7.5e-5, "y_pixel_size": 7.5e-5, "sensor_thickness": 4.5e-4},
        **{"sensor_material": "Si", "countrate_correction_count_cutoff": 12440},
        **{"count_time": 0.00099, "frame_time": 0.001, "description": "Eiger 63 px"},
        **{"detector_number": "E-00-0063", "data_collection_date": "2024-05-06T07:08:09.1+02:00"},
    }
    table = np.arange(8, dtype="<f4").reshape(4, 2)
    parts = [text({"header_detail": level, "htype": "dheader-1.0", "series": 9})]
    parts += [text(config)] if level != "none" else []
    if level == "all":
        for name, content in (
            ("flatfield", flatfield),
            ("pixelmask", mask),
            ("countrate_table", table),
        ):
            about = {
                "htype": f"d{name}-1.0",
                "shape": list(content.shape[::-1]),
                "type": content.dtype.name,
            }
            parts += [text(about), content.tobytes()]
    parts += [appendix] if appendix else []
    find: dict[str, Any] = {"series": 9, "n_frames": None, "shape": None, "photon_energy_eV": None}
    if level != "none":
        find = {
            **{"series": 9, "n_frames": 10, "shape": [ss, fs], "dtype": "uint16", "clen_m": 0.125},
            **{"photon_energy_eV": 9500.0, "beam_center_px": [4.5, 3.25], "sensor_material": "Si"},
            **{"pixel_size_m": [7.5e-5, 7.5e-5], "sensor_thickness_m": 4.5e-4},
            **{"saturation_value": 12440, "count_time_s": 0.00099, "frame_time_s": 0.001},
            **{"detector": "Eiger 63 px", "serial_number": "E-00-0063"},
            **{"arm_date": "2024-05-06T07:08:09.1+02:00", "channels": ["threshold_1"]},
        }
    find |= (
        {"pixel_mask": mask.tolist(), "flatfield": flatfield.tolist()} if level == "all" else {}
    )
    return {"kind": "SeriesStart", "parts": [p.hex() for p in parts], "expect": find}


def v2_ids(kind: str) -> dict[str, Any]:
    """Return the fields that every V2 message has (section 4.2)."""
    return {"type": kind, "series_id": 15614, "series_unique_id": ULID}


def v2_image(
    frame: int, arrays: dict[str, Tag], find: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a V2 image map and what a decoder must find in it."""
    clock = 50_000_000
    image = {
        **v2_ids("image"),
        **{"image_id": frame, "real_time": [215873, clock], "start_time": [frame * clock, clock]},
        **{"series_date": Tag(0, "2023-10-03T17:47:49.434+02:00")},
        **{"stop_time": [frame * clock + 215873, clock], "data": arrays},
    }
    start_ns = frame * 1_000_000_000
    found = {"series": 15614, "series_uid": ULID, "frame": frame, "real_ns": 4317460}
    return image, found | {"start_ns": start_ns, "stop_ns": start_ns + 4317460, "blobs": find}


def v2_start(mask: NDArray[Any], flatfield: NDArray[Any]) -> dict[str, Any]:
    """Return a V2 start message with everything in it (section 4.2)."""
    ss, fs = mask.shape
    message = {
        **v2_ids("start"),
        **{"arm_date": Tag(0, "2023-10-03T17:47:48.329+02:00"), "beam_center_x": 4.5},
        **{"beam_center_y": 3, "channels": ["threshold_1", "difference"], "count_time": 0.00099},
        **{"countrate_correction_lookup_table": Tag(70, struct.pack("<4I", 0, 1, 2, 3))},
        **{"detector_description": "Eiger2 63 px", "detector_serial_number": "E-32-0063"},
        **{"detector_translation": [0.1, 0.2, -0.125], "frame_time": 0.001},
        **{"flatfield": {"threshold_1": compressed(flatfield, "lz4", 64)}},
        **{"goniometer": {"omega": {"increment": 0.1, "start": 0.0}}, "image_dtype": "uint16"},
        **{"image_size_x": fs, "image_size_y": ss, "incident_energy": 9500.0},
        **{"incident_wavelength": 1.3, "number_of_images": 7, "pixel_size_x": 7.5e-5},
        **{"pixel_mask": {"threshold_1": compressed(mask, "bslz4")}, "pixel_size_y": 7.5e-5},
        **{"saturation_value": 21517, "sensor_material": "Si", "sensor_thickness": 4.5e-4},
        **{"threshold_energy": {"threshold_1": 4750.0}, "user_data": {"run": [1, "a"]}},
    }
    find = {
        **{"series": 15614, "series_uid": ULID, "n_frames": 7, "shape": [ss, fs]},
        **{"dtype": "uint16", "channels": ["threshold_1", "difference"], "clen_m": 0.125},
        **{"photon_energy_eV": 9500.0, "beam_center_px": [4.5, 3.0], "sensor_material": "Si"},
        **{"pixel_size_m": [7.5e-5, 7.5e-5], "sensor_thickness_m": 4.5e-4},
        **{"saturation_value": 21517, "count_time_s": 0.00099, "frame_time_s": 0.001},
        **{"detector": "Eiger2 63 px", "serial_number": "E-32-0063"},
        **{"arm_date": "2023-10-03T17:47:48.329+02:00"},
        **{"pixel_mask": mask.tolist(), "flatfield": flatfield.tolist()},
    }
    return {"kind": "SeriesStart", "parts": [cbor(Tag(55799, message)).hex()], "expect": find}


def v1_messages(mask: NDArray[Any], flatfield: NDArray[Any]) -> dict[str, dict[str, Any]]:
    """Return one V1 message of each kind and encoding by name."""
    u8, u16, u32 = (pixels(7, 9, t, i) for i, t in enumerate(("uint8", "uint16", "uint32")))
    tiny, large = pixels(1, 3, "uint16", 4), pixels(80, 64, "uint16", 5)
    end = {"kind": "SeriesEnd", "parts": [text({"htype": "dseries_end-1.0", "series": 9}).hex()]}
    return {
        "v1_start_none": v1_start("none", mask, flatfield, b""),
        "v1_start_basic_appendix": v1_start("basic", mask, flatfield, b"not JSON"),
        "v1_start_all": v1_start("all", mask, flatfield, b""),
        "v1_start_all_appendix": v1_start("all", mask, flatfield, b'{"run":7}'),
        "v1_image_u8_bslz4": v1_image(0, u8, "bs8-lz4<", bslz4(u8), "bslz4"),
        "v1_image_u16_bslz4": v1_image(1, u16, "bs16-lz4<", bslz4(u16), "bslz4"),
        "v1_image_u32_bslz4_no_hyphen": v1_image(2, u32, "bs32lz4<", bslz4(u32), "bslz4"),
        "v1_image_u32_lz4_appendix": v1_image(
            3, u32, "lz4<", lz4_block(u32.tobytes()), "lz4-block", b"free text"
        ),
        "v1_image_u8_raw": v1_image(4, u8, "<", u8.tobytes(), "none"),
        "v1_image_without_a_block": v1_image(5, tiny, "bs16-lz4<", bslz4(tiny), "bslz4"),
        "v1_image_two_blocks": v1_image(6, large, "bs16-lz4<", bslz4(large), "bslz4"),
        "v1_image_small_blocks": v1_image(7, large, "bs16-lz4<", bslz4(large, 1024), "bslz4"),
        "v1_end": end | {"expect": {"series": 9, "series_uid": None}},
    }


def v2_messages(mask: NDArray[Any], flatfield: NDArray[Any]) -> dict[str, dict[str, Any]]:
    """Return V2 messages of each kind, codec and CBOR spelling by name."""
    u8, u16, u32 = (pixels(7, 9, t, i + 10) for i, t in enumerate(("uint8", "uint16", "uint32")))
    large = pixels(80, 64, "uint32", 15)
    two = v2_image(
        0,
        {
            "threshold_1": compressed(u16, "bslz4"),
            "difference": compressed(u16[::-1].copy(), "bslz4"),
        },
        {"threshold_1": expected(u16, "bslz4"), "difference": expected(u16[::-1], "bslz4")},
    )
    lz4_, raw, blocks = (
        v2_image(
            1,
            {"threshold_1": compressed(u32, "lz4", 100)},
            {"threshold_1": expected(u32, "lz4-hdf5")},
        ),
        v2_image(
            2, {"threshold_1": array(u8, u8.tobytes())}, {"threshold_1": expected(u8, "none")}
        ),
        v2_image(
            3,
            {"threshold_1": compressed(large, "bslz4")},
            {"threshold_1": expected(large, "bslz4")},
        ),
    )
    backwards = dict(reversed(raw[0].items())) | {"key_of_2030": [None, True, -5, 1.5]}
    indefinite = b"\xbf" + b"".join(cbor(k) + cbor(v) for k, v in blocks[0].items()) + b"\xff"
    messages = {
        "v2_image_two_channels": (cbor(Tag(55799, two[0])), two[1]),
        "v2_image_lz4_no_self_describe": (cbor(lz4_[0]), lz4_[1]),
        "v2_image_raw_keys_backwards": (cbor(Tag(55799, backwards)), raw[1]),
        "v2_image_indefinite_map": (indefinite, blocks[1]),
    }
    images = {
        name: {"kind": "Frame", "parts": [message.hex()], "expect": find | {"appendix": None}}
        for name, (message, find) in messages.items()
    }
    end = {"kind": "SeriesEnd", "parts": [cbor(Tag(55799, v2_ids("end"))).hex()]}
    find_end = {"expect": {"series": 15614, "series_uid": ULID}}
    return {"v2_start": v2_start(mask, flatfield), **images, "v2_end": end | find_end}


def main() -> None:
    """Write the file."""
    mask = (np.arange(63).reshape(7, 9) % 5 == 0).astype("<u4") * 17
    flatfield = np.linspace(0.5, 1.5, 63).astype("<f4").reshape(7, 9)
    messages = {**v1_messages(mask, flatfield), **v2_messages(mask, flatfield)}
    lines = [f"{json.dumps(name)}: {json.dumps(m)}" for name, m in messages.items()]
    (HERE / "wire_messages.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
