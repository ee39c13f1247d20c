"""The CBOR reader agrees with a general one on sound items and bounds its work on all others."""

import math
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.stream.cbor import MAX_DEPTH, MAX_ITEMS, Tagged, read_map
from hitfinder.stream.errors import WireError

# Reproducible, and without a clock: other tests may share the core.
SEEDED = settings(deadline=None, derandomize=True)


def read(packed: bytes) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    read_map(memoryview(packed), found)
    return found


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@SEEDED
@given(st.dictionaries(st.text(), VALUES), st.booleans())
def test_what_a_general_encoder_writes_is_read_back(
    value: dict[str, Any], canonical: bool
) -> None:
    assert read(cbor2.dumps(value, canonical=canonical)) == value


@pytest.mark.parametrize(
    ("spelled", "value"),
    [
        ("f93c00", 1.0),
        ("f97c00", math.inf),
        ("fa47c35000", 100000.0),
        ("fbc010666666666666", -4.1),
        ("f7", None),
        ("f8ff", None),
        ("f0", None),
        ("1b0000000000000005", 5),
        ("3bffffffffffffffff", -(1 << 64)),
        ("5fff", b""),
        ("7f61c36161ff", None),
        ("9fff", []),
        ("bfff", {}),
        ("c249010000000000000000", Tagged(2, b"\x01" + bytes(8))),
    ],
)
def test_the_examples_of_rfc_8949_are_read(spelled: str, value: object) -> None:
    packed = b"\xa1\x61k" + bytes.fromhex(spelled)
    if spelled.startswith("7f"):
        with pytest.raises(WireError, match="UTF-8"):  # a character split between two chunks
            read(packed)
        return
    assert read(packed) == {"k": value}


@pytest.mark.parametrize(
    "spelled",
    [
        "1c",
        "1f",
        "3f",
        "df00",
        "5c",
        "f81f",
        "ff",
        "fc",
        "5f00ff",
        "5f5f40ffff",
        "5f6161ff",
        "61ff",
    ],
)
def test_what_rfc_8949_forbids_is_refused(spelled: str) -> None:
    with pytest.raises(WireError):
        read(b"\xa1\x61k" + bytes.fromhex(spelled))


@pytest.mark.parametrize("packed", [b"", b"\x80", b"\xd9\xd9\xf7", b"\xd9\xd9\xf7\x01", b"\xff"])
def test_anything_but_a_map_is_refused(packed: bytes) -> None:
    with pytest.raises(WireError):
        read(packed)


@pytest.mark.parametrize("length", ["5b", "7b", "9b", "bb"])
def test_a_length_beyond_the_message_is_not_believed(length: str) -> None:
    with pytest.raises(WireError, match="are left|CBOR ends"):
        read(b"\xa1\x61k" + bytes.fromhex(length) + b"\xff" * 8)


@pytest.mark.parametrize("opening", [b"\x81", b"\x9f", b"\xc1", b"\xa1\x61k", b"\xbf\x61k"])
def test_nesting_is_bounded(opening: bytes) -> None:
    with pytest.raises(WireError, match="deeper"):
        read(b"\xa1\x61k" + opening * 100_000)
    depth = MAX_DEPTH - 2
    closing = b"\x00" + b"\xff" * (depth if opening[0] & 31 == 31 else 0)
    assert read(b"\xa1\x61k" + opening * depth + closing)


def test_the_number_of_items_is_bounded() -> None:
    with pytest.raises(WireError, match="items"):
        read(b"\xa1\x61k\x9f" + bytes(MAX_ITEMS + 1) + b"\xff")


def test_a_key_twice_or_of_another_kind_is_refused() -> None:
    with pytest.raises(WireError, match="'k' twice"):
        read(b"\xa2\x61k\x00\x61k\x00")
    with pytest.raises(WireError, match="key is a list"):
        read(b"\xa1\x80\x00")


def test_what_stood_before_a_fault_is_known() -> None:
    found: dict[Any, Any] = {}
    with pytest.raises(WireError):
        read_map(memoryview(b"\xa2\x61a\x07\x61b\x1c"), found)
    assert found == {"a": 7}
