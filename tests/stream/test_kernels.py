"""Atomic words: right values, right bounds, and no lost update between processes and threads."""

import mmap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hitfinder.stream._kernels import add_u64, cas_u32, load_u32, store_u32


def test_words_hold_what_was_stored_at_their_offset() -> None:
    words = np.zeros(4, np.uint32)
    store_u32(words, 8, 2**32 - 1)
    assert words.tolist() == [0, 0, 2**32 - 1, 0]
    assert load_u32(words, 8) == 2**32 - 1


def test_words_of_a_mapping_and_of_a_view_can_be_changed() -> None:
    with mmap.mmap(-1, 4096) as mapping:
        store_u32(mapping, 4092, 5)
        assert load_u32(memoryview(mapping), 4092) == 5


def test_only_the_first_claim_of_a_word_succeeds() -> None:
    words = np.zeros(1, np.uint32)
    assert [cas_u32(words, 0, 0, claim) for claim in (1, 2)] == [True, False]
    assert words[0] == 1


def test_added_counts_come_back_and_wrap_as_unsigned() -> None:
    words = np.zeros(2, np.uint64)
    assert add_u64(words, 8, 5) == 5
    assert add_u64(words, 8, -6) == 2**64 - 1
    assert add_u64(words, 8, 2) == 1
    assert words.tolist() == [0, 1]


def test_no_addition_is_lost_between_threads() -> None:
    words = np.zeros(1, np.uint64)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: [add_u64(words, 0, 1) for _ in range(5000)], range(4)))
    assert words[0] == 20_000


@pytest.mark.parametrize("offset", [-4, -1, 1, 2, 14, 16, 1 << 40, 1 << 70])
def test_an_offset_outside_or_not_aligned_is_refused(offset: int) -> None:
    words = np.zeros(4, np.uint32)
    for call in (
        lambda: load_u32(words, offset),
        lambda: store_u32(words, offset, 1),
        lambda: cas_u32(words, offset, 0, 1),
        lambda: add_u64(words, offset, 1),
    ):
        with pytest.raises(ValueError):
            call()
    assert not words.any()


@pytest.mark.parametrize("value", [-1, 2**32, 2**70])
def test_a_value_that_is_no_32_bit_word_is_refused(value: int) -> None:
    words = np.zeros(4, np.uint32)
    with pytest.raises(ValueError, match="4294967295"):
        store_u32(words, 0, value)
    with pytest.raises(ValueError, match="4294967295"):
        cas_u32(words, 0, 0, value)


def test_read_only_buffers_are_read_but_not_written() -> None:
    assert load_u32(b"\1\0\0\0" * 4, 0) == 1
    with pytest.raises(BufferError):
        store_u32(b"\0" * 16, 0, 1)
