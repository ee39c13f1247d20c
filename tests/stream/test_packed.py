"""Fields of a shared row as plain values: as numpy lays them out, and nobody else's."""

import mmap
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitfinder.stream.packed import Packed

ROW = np.dtype(
    [("before", "u8"), ("small", "i1"), ("real", "f8"), ("text", "S5"), ("flag", "?")]
    + [("left_out", "u4"), ("count", "u4"), ("wide", "i8"), ("after", "u8")],
    align=True,
)
NAMES = ("small", "real", "text", "flag", "count", "wide")
I64 = st.integers(-(2**63), 2**63 - 1)


@given(
    st.tuples(
        st.integers(-128, 127), st.floats(), st.binary(max_size=5), st.booleans(),
        st.integers(0, 2**32 - 1), I64,
    ),
    st.integers(0, 2),
)  # fmt: skip
def test_what_is_written_is_what_numpy_reads_and_neighbours_stay(
    values: tuple[int, float, bytes, bool, int, int], at: int
) -> None:
    memory = mmap.mmap(-1, 3 * ROW.itemsize)
    rows = np.frombuffer(memory, ROW)
    rows["before"] = rows["after"] = 7
    packed = Packed(ROW, NAMES)
    packed.write(memory, at * ROW.itemsize, *values)
    for name, value in zip(NAMES, values, strict=True):
        expected = np.zeros(1, ROW)
        expected[name] = value
        np.testing.assert_array_equal(rows[name][at], expected[name][0])
    read = packed.read(memory, at * ROW.itemsize)
    np.testing.assert_array_equal(read[1], values[1])
    assert read[2] == values[2].ljust(5, b"\0")
    assert (read[0], *read[3:]) == (values[0], *values[3:])
    assert (rows["before"] == 7).all()
    assert (rows["after"] == 7).all()
    assert (rows["count"][[i for i in range(3) if i != at]] == 0).all()


def test_text_too_long_is_cut_and_a_number_too_large_is_refused() -> None:
    memory = mmap.mmap(-1, ROW.itemsize)
    Packed(ROW, ("text",)).write(memory, 0, b"too long")
    assert np.frombuffer(memory, ROW)["text"][0] == b"too l"
    with pytest.raises(struct.error):
        Packed(ROW, ("count",)).write(memory, 0, 2**32)
