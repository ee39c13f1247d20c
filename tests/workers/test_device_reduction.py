"""A device's reduction against the host's: on a GPU where there is one, else in an interpreter.

Triton's interpreter takes a second for a block of a detector's frame, so frames are small without
a GPU; it runs programs one after another and finds no race.
"""

import importlib
import logging
import os
import struct
import subprocess
import sys
from collections.abc import Callable

import bitshuffle
import lz4.block
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.system.peer_environments import packages

from hitfinder.models.geometry import Geometry
from hitfinder.models.image import mask_of
from hitfinder.models.pipeline import Pipeline
from hitfinder.sim.frames import FrameSettings, FrameSource
from hitfinder.sim.physics import Detector, data_sets
from hitfinder.stream.bslz4 import decode
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Blob, Codec
from hitfinder.workers.reduction import HostReduction, reductions_on

HAS_CUDA = torch.cuda.is_available()
DEVICE = "cuda:0" if HAS_CUDA else "cpu"
DTYPES = ("uint8", "uint16", "uint32")
GUARD = 512  # untouched elements on either side of what a kernel may write

# Triton comes with a torch that can use a GPU; otherwise it is installed beside ours.
TRITON = None if HAS_CUDA else packages("triton")
if TRITON is not None:
    sys.path.append(str(TRITON))
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are first imported
kernels = importlib.import_module("hitfinder.models.block_kernels")
device_reduction = importlib.import_module("hitfinder.workers.device_reduction")


def bslz4_blob(image: NDArray[np.generic], block_px: int) -> Blob:
    body = bitshuffle.compress_lz4(image.reshape(-1), block_px).tobytes()
    payload = struct.pack(">QI", image.nbytes, block_px * image.itemsize) + body
    shape = (image.shape[0], image.shape[1])
    return Blob("", shape, image.dtype.name, Codec.BSLZ4, image.itemsize, memoryview(payload))


def frame(
    shape: tuple[int, int], dtype: str, flux: float, rng: np.random.Generator
) -> NDArray[np.generic]:
    """Return photons, and now and then bright and saturated pixels."""
    largest = int(np.iinfo(dtype).max)
    image = np.minimum(rng.poisson(flux, shape), largest).astype(np.uint64)
    bright = rng.random(shape) < rng.choice([0.0, 0.01])
    image[bright] = rng.integers(0, largest, int(bright.sum()), np.uint64)
    image[rng.random(shape) < rng.choice([0.0, 0.01])] = largest
    image[: int(rng.integers(0, 2)) * shape[0] // 3] = rng.choice([0, largest])
    return image.astype(dtype)


def assert_as_the_host(reduction, blob: Blob, valid: NDArray[np.bool_]) -> None:
    host, mask = HostReduction(blob.shape, blob.dtype), mask_of(valid)
    host.take(blob, mask)
    reduction.take(blob, mask)
    np.testing.assert_array_equal(reduction.pixels, host.pixels)
    assert reduction.are_planes == host.are_planes
    np.testing.assert_array_equal(reduction.pooled.sums, host.pooled.sums)
    np.testing.assert_array_equal(reduction.pooled.maxima, host.pooled.maxima)
    assert reduction.pooled.n_photons == host.pooled.n_photons
    assert reduction.pooled.n_saturated == host.pooled.n_saturated


@settings(deadline=None, derandomize=True, max_examples=400 if HAS_CUDA else 10)
@given(
    dtype=st.sampled_from(DTYPES),
    n_ss=st.integers(1, 12).map(lambda n: 2 * n),
    n_fs=st.integers(1, 20).map(lambda n: 4 * n),
    block_px=st.integers(1, 2).map(lambda n: 512 * n),
    valid_fraction=st.sampled_from((1.0, 0.9, 0.0)),
    flux=st.sampled_from((0.0, 0.02, 0.2, 3.0, 100.0)),
    seed=st.integers(0, 2**32 - 1),
)
def test_frames_reduce_as_on_the_host(
    dtype: str,
    n_ss: int,
    n_fs: int,
    block_px: int,
    valid_fraction: float,
    flux: float,
    seed: int,
) -> None:
    rng, shape = np.random.default_rng(seed), (n_ss, n_fs)
    reduction = device_reduction.DeviceReduction(shape, dtype, DEVICE)
    valid = rng.random(shape) < valid_fraction
    assert_as_the_host(reduction, bslz4_blob(frame(shape, dtype, flux, rng), block_px), valid)
    assert reduction.n_by_host == 0


def test_a_frame_leaves_nothing_behind_for_the_next() -> None:
    rng, shape = np.random.default_rng(1), (8, 40)
    reduction = device_reduction.DeviceReduction(shape, "uint16", DEVICE)
    for flux, valid_fraction in ((100.0, 1.0), (0.0, 1.0), (0.2, 0.5)):
        valid = rng.random(shape) < valid_fraction
        blob = bslz4_blob(rng.poisson(flux, shape).astype(np.uint16), 512)
        assert_as_the_host(reduction, blob, valid)
    assert reduction.n_by_host == 0


def test_sums_of_uint32_stay_at_the_largest_and_photons_do_not() -> None:
    image = np.zeros((4, 64), np.uint32)
    image[0, 0:2], image[0, 2], image[3] = 2**32 - 2, 5, 2**31
    reduction = device_reduction.DeviceReduction(image.shape, "uint32", DEVICE)
    assert_as_the_host(reduction, bslz4_blob(image, 512), np.ones(image.shape, np.bool_))
    assert reduction.pooled.sums[0, 0] == 2**32 - 1
    assert reduction.pooled.n_photons == int(image.sum(dtype=np.uint64))


@pytest.mark.parametrize(
    ("shape", "codec", "block_px"),
    [
        ((5, 9), Codec.BSLZ4, 64),  # fields across rows, pixels behind the last block
        ((4, 24), Codec.BSLZ4, 24),  # blocks across steps
        ((4, 24), Codec.BSLZ4, 33_024),  # blocks too long for a program
        ((4, 24), Codec.LZ4_BLOCK, 0),
        ((4, 24), Codec.NONE, 0),
    ],
)
def test_what_the_device_does_not_take_the_host_does(
    shape: tuple[int, int], codec: Codec, block_px: int
) -> None:
    rng = np.random.default_rng(2)
    image = frame(shape, "uint16", 0.2, rng)
    raw = image.tobytes()
    packed = raw if codec is Codec.NONE else lz4.block.compress(raw, store_size=False)
    blob = Blob("", shape, "uint16", codec, 2, memoryview(packed))
    if codec is Codec.BSLZ4:
        blob = bslz4_blob(image, block_px)
    reduction = device_reduction.DeviceReduction(shape, "uint16", DEVICE)
    assert_as_the_host(reduction, blob, rng.random(shape) < 0.9)
    assert reduction.n_by_host == 1


def test_a_frame_of_another_type_or_mask_is_refused() -> None:
    reduction = device_reduction.DeviceReduction((4, 64), "uint16", DEVICE)
    mask = mask_of(np.ones((4, 64), np.bool_))
    with pytest.raises(ValueError, match="expected"):
        reduction.take(bslz4_blob(np.zeros((4, 64), np.uint8), 64), mask)
    with pytest.raises(ValueError, match="not fit"):
        reduction.take(bslz4_blob(np.zeros((4, 64), np.uint16), 512), mask[:1])


def damaged(blob: Blob, rng: np.random.Generator) -> Blob:
    """Return the blob with bytes changed behind its header."""
    payload = bytearray(blob.payload)
    for _ in range(int(rng.integers(1, 4))):
        payload[int(rng.integers(12, len(payload)))] = int(rng.integers(0, 256))
    return Blob("", blob.shape, blob.dtype, blob.codec, blob.elem_size, memoryview(payload))


def what_is_wrong(step: Callable[[], object]) -> str | None:
    try:
        step()
    except WireError as error:
        return str(error)
    return None


def test_damaged_frames_reduce_as_they_decode_or_are_the_same_wire_error() -> None:
    rng, shape, valid = np.random.default_rng(4), (4, 32), np.ones((4, 32), np.bool_)
    reduction = device_reduction.DeviceReduction(shape, "uint16", DEVICE)
    n_refused = 0
    for _ in range(600 if HAS_CUDA else 10):
        blob = damaged(bslz4_blob(rng.poisson(0.1, shape).astype(np.uint16), 512), rng)
        wrong = what_is_wrong(lambda blob=blob: decode(blob))
        if wrong is None:
            assert_as_the_host(reduction, blob, valid)
        else:
            n_refused += 1
            assert what_is_wrong(lambda blob=blob: reduction.take(blob, mask_of(valid))) == wrong
    assert n_refused >= 5
    assert reduction.n_by_host == n_refused


def guarded(n: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return n zeros in the middle of 1s, and all of it."""
    memory = torch.ones(n + 2 * GUARD, dtype=dtype, device=DEVICE)
    memory[GUARD : GUARD + n] = 0
    return memory[GUARD : GUARD + n], memory


def reduce_block(block: bytes, n_px: int) -> tuple[bool, bytes]:
    """Reduce one LZ4 block of uint8 pixels; return whether it is one, and the bytes it makes."""
    packed, _ = guarded(len(block), torch.uint8)
    packed.copy_(torch.tensor(list(block), dtype=torch.uint8))
    table = torch.tensor([[0, len(block)]], dtype=torch.int32, device=DEVICE)
    mask = torch.full((n_px // 8,), 255, dtype=torch.uint8, device=DEVICE)
    own = [
        guarded(n, dtype)
        for n, dtype in (
            (n_px, torch.uint8),
            (-(-n_px // 512) * 512, torch.uint8),
            (-(-n_px // 512) * 2, torch.int32),
            (n_px // 4, torch.int32),
            (n_px // 4, torch.int32),
            (4, torch.int64),
        )
    ]
    kernels.reduce_blocks[(1,)](
        packed,
        table,
        mask,
        *(part for part, _ in own),
        n_px,
        n_px,
        n_px,
        ELEM=1,
        **kernels.CONSTANTS,
        **kernels.OPTIONS,
    )
    for part, memory in own:
        assert (memory[:GUARD] == 1).all()
        assert (memory[GUARD + len(part) :] == 1).all()
    (planes, _), n_faults = own[0], own[5][0][1].item()
    return n_faults == 0, bytes(planes.tolist())


@pytest.mark.parametrize(
    "block",
    [
        "",  # nothing
        "f0",  # a length that goes on behind the end
        "f0ff",
        "20ab",  # literals behind the end of the block
        "f032" + "00" * 65,  # literals beyond the decoded size
        "10ab",  # too few bytes
        "10ab01",  # half an offset
        "10ab0000",  # offset 0
        "10ab0200",  # a match before the block
        "1fab0100",  # a match length behind the end
        "1fab0100ffff00",  # a match beyond the decoded size
        "1fab01002c",  # no last literals
        "00" * 7,
        "ff" * 40,
    ],
)
def test_no_fault_of_a_block_is_taken_and_none_writes_elsewhere(block: str) -> None:
    is_good, _ = reduce_block(bytes.fromhex(block), 64)
    assert not is_good


def test_changed_blocks_decode_as_on_the_host_or_on_neither() -> None:
    rng, n_px = np.random.default_rng(5), 128
    n_good = n_bad = 0
    for k in range(900 if HAS_CUDA else 21):
        raw = rng.integers(0, (2, 256)[k % 2], n_px, np.uint8)
        raw[: n_px // 2] = np.resize(raw[: 1 + k % 40], n_px // 2)
        block = bytearray(lz4.block.compress(raw.tobytes(), store_size=False))
        for _ in range((0, 2, 6)[k % 3]):
            block[int(rng.integers(len(block)))] = int(rng.integers(256))
        is_good, planes = reduce_block(bytes(block), n_px)
        blob = Blob("", (1, n_px), "uint8", Codec.LZ4_BLOCK, 1, memoryview(bytes(block)))
        try:
            expected = decode(blob).tobytes()
        except WireError:
            n_bad += 1
            assert not is_good
        else:
            n_good += 1
            assert is_good
            assert planes == expected
    assert n_good >= 7
    assert n_bad >= 7


def test_blocks_of_a_detectors_hits_reduce_as_on_the_host() -> None:
    """Eight rows of frames as they are simulated, gaps and hot pixels too, in blocks of 8 KiB."""
    detector, names = Detector(), tuple(data_sets())
    rows = np.s_[512:520]  # half in a gap
    valid = np.ones((8, detector.shape[1]), np.bool_)
    reduction = device_reduction.DeviceReduction(valid.shape, "uint16", DEVICE)
    for name in names if HAS_CUDA else names[:1]:
        settings = FrameSettings(datasets=(name,), hit_fraction=1.0)
        image = FrameSource(settings, 5, detector).draw(0).image[rows]
        assert_as_the_host(reduction, bslz4_blob(image, 4096), valid)
    assert reduction.n_by_host == 0


def test_a_device_is_tried_with_frames_of_its_own() -> None:
    if HAS_CUDA:
        device_reduction.try_device(DEVICE)
    else:
        device_reduction.try_device(DEVICE, (18, 64), 2048)


@pytest.mark.skipif(HAS_CUDA, reason="there is a GPU")
def test_where_a_device_does_not_decode_the_host_does_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert reductions_on("cuda:0") is HostReduction
    assert "cuda:0 does not decode frames, the host does" in caplog.text


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from hitfinder.models.block_kernels import CONSTANTS, OPTIONS, reduce_blocks

for elem, cell in ((1, "*i32"), (2, "*i32"), (4, "*i64")):
    pointers = dict(payload="*u8", table="*i32", mask="*u8", planes="*u8", lit_planes="*u8")
    pointers |= dict(steps="*i32", sums=cell, maxima=cell, tally="*i64")
    numbers = dict.fromkeys(("n_px", "n_fs", "block_bytes"), "i32")
    constants = {"ELEM": elem, **CONSTANTS}
    signature = {**pointers, **numbers, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(reduce_blocks, signature, constants)
    made = compile(source, target=GPUTarget("cuda", 90, 32), options=OPTIONS)
    assert len(made.asm["cubin"]) > 0
    # What other lanes have written is read again: never through the read-only cache.
    assert ".global.nc" not in made.asm["ptx"]
    assert "bar.sync" in made.asm["ptx"]
    print(elem)
"""


def test_the_kernels_compile_for_an_h100_without_one(tmp_path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMPILE],
        env={
            **environment,
            "TRITON_CACHE_DIR": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.stdout.split() == ["1", "2", "4"], done.stderr


@pytest.mark.skipif(not HAS_CUDA, reason="a detector's frame takes the interpreter an hour")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_detector_sized_series_reduces_as_on_the_host(dtype: str) -> None:
    rng, shape = np.random.default_rng(1), (2162, 2068)
    valid = rng.random(shape) < 0.99
    reduction = device_reduction.DeviceReduction(shape, dtype, DEVICE)
    for flux in (0.02, 2.0, 0.002, 100.0, 0.2):
        image = np.minimum(rng.poisson(flux, shape), np.iinfo(dtype).max - 1).astype(dtype)
        image[512:550], image[:, 1028:1040] = np.iinfo(dtype).max, np.iinfo(dtype).max
        blob = bslz4_blob(image, 8192 // image.itemsize)
        for _ in range(5):  # a race shows now and then
            assert_as_the_host(reduction, blob, valid)
    assert reduction.n_by_host == 0


@pytest.mark.skipif(not HAS_CUDA, reason="compares a GPU with the CPU")
def test_verdicts_on_a_gpu_are_those_of_the_cpu() -> None:
    detector, names = Detector(), tuple(data_sets())
    frames = [
        FrameSource(FrameSettings(datasets=(name,), hit_fraction=hit), 5, detector).draw(k).image
        for k, name in enumerate(names)
        for hit in (0.0, 1.0)
    ]
    valid = frames[0] < np.iinfo(np.uint16).max
    verdicts = {}
    for device in ("cpu", DEVICE):
        pipeline = Pipeline(device=device)
        context = pipeline.begin(Geometry.centred(valid.shape), valid.copy())
        reductions = [reductions_on(device)(valid.shape, "uint16") for _ in frames]
        for reduction, image in zip(reductions, frames, strict=True):
            reduction.take(bslz4_blob(image, 4096), mask_of(valid))
        verdicts[device] = [pipeline.judge([r.image], context, [r.pooled])[0] for r in reductions]
    for host, device in zip(verdicts["cpu"], verdicts[DEVICE], strict=True):
        assert device.is_hit == host.is_hit
        assert device.p_hit == pytest.approx(host.p_hit, abs=1e-3)
        assert len(device.peaks) == len(host.peaks)
        assert device.n_photons == host.n_photons
