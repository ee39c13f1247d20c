"""A capture file gives back what was written, up to the last whole message, whatever follows."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.stream.capture import MAGIC, CaptureWriter, read_capture
from hitfinder.stream.errors import StoreError, WireError

# Reproducible, and without a clock: other tests may share the core.
SEEDED = settings(deadline=None, derandomize=True)

MESSAGES = [(5, [b"{}", b"", b"\x00" * 300]), (1 << 60, [b"x"]), (7, [b"head", b"blob" * 99])]


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    path = tmp_path / "run.hfwire"
    with CaptureWriter(path) as writer:
        for t_ns, parts in MESSAGES:
            writer.write(parts, t_ns)
    return path


def test_messages_come_back_in_order_with_their_times(captured: Path) -> None:
    assert list(read_capture(captured, strict=True)) == MESSAGES


def test_views_are_written_like_bytes(tmp_path: Path) -> None:
    with CaptureWriter(tmp_path / "c") as writer:
        writer.write([memoryview(b"abcdef")[2:4]], 1)
    assert list(read_capture(tmp_path / "c")) == [(1, [b"cd"])]


def test_what_was_written_is_readable_before_the_file_is_closed(tmp_path: Path) -> None:
    writer = CaptureWriter(tmp_path / "c")
    writer.write([b"one"], 1)
    assert list(read_capture(tmp_path / "c", strict=True)) == [(1, [b"one"])]
    writer.close()


def test_a_file_cut_anywhere_gives_its_whole_messages_and_no_error(captured: Path) -> None:
    whole = captured.read_bytes()
    for n in range(len(whole)):
        captured.write_bytes(whole[:n])
        assert list(read_capture(captured)) in (MESSAGES[:0], MESSAGES[:1], MESSAGES[:2])


def test_a_cut_within_a_record_is_an_error_when_asked_for(captured: Path) -> None:
    captured.write_bytes(captured.read_bytes()[:-1])
    reader = read_capture(captured, strict=True)
    assert [next(reader), next(reader)] == MESSAGES[:2]
    with pytest.raises(WireError, match="ends within the record"):
        next(reader)


def test_an_absurd_length_is_not_allocated(tmp_path: Path) -> None:
    path = tmp_path / "c"
    huge = (1 << 63).to_bytes(8, "little")
    path.write_bytes(MAGIC + b"MSG\n" + (1).to_bytes(4, "little") + bytes(8) + huge + b"abc")
    assert list(read_capture(path)) == []
    with pytest.raises(WireError, match="ends within"):
        list(read_capture(path, strict=True))


@pytest.mark.parametrize("n_parts", [0, 1025, 0xFFFFFFFF])
def test_an_absurd_number_of_parts_is_damage(tmp_path: Path, n_parts: int) -> None:
    path = tmp_path / "c"
    path.write_bytes(MAGIC + b"MSG\n" + n_parts.to_bytes(4, "little") + bytes(40))
    with pytest.raises(WireError, match="no record at byte 8"):
        list(read_capture(path))


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(WireError, match="starts with"):
        list(read_capture(tmp_path / "c"))


def test_a_capture_never_overwrites_another(captured: Path) -> None:
    with pytest.raises(StoreError, match="cannot be made"):
        CaptureWriter(captured)
    assert list(read_capture(captured)) == MESSAGES


def test_a_missing_file_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        list(read_capture(tmp_path / "none"))


@pytest.mark.parametrize("n_parts", [0, 1025])
def test_a_message_that_could_not_be_read_back_is_not_written(
    tmp_path: Path, n_parts: int
) -> None:
    with CaptureWriter(tmp_path / "c") as writer:
        with pytest.raises(WireError, match=f"{n_parts} parts"):
            writer.write([b""] * n_parts, 0)
    assert list(read_capture(tmp_path / "c", strict=True)) == []


@SEEDED
@given(tail=st.binary(max_size=200))
def test_any_bytes_give_messages_or_a_wire_error(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "c"
    path.write_bytes(MAGIC + tail)
    try:
        for t_ns, parts in read_capture(path):
            assert t_ns >= 0
            assert parts
    except WireError:
        pass
