"""Changes are made with the token alone, are possible ones, and say from where on they hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hitfinder.stream.ring import Layout, Ring, create_memory
from hitfinder.workers import control
from hitfinder.workers.config import Config, ConfigError, HttpConfig
from hitfinder.workers.control import Control, RefusedError, read_token

N_WORKERS = 2
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def ring() -> Iterator[Ring]:
    """Yield a ring of its own."""
    layout = Layout(8, 4096)
    fd = create_memory(layout)
    yield Ring(fd, layout)
    os.close(fd)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """Return a file with the token."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\nwhat follows does not count\n")
    return path


def control_of(ring: Ring, token_file: Path | None) -> Control:
    path = None if token_file is None else str(token_file)
    runtime = Path() if token_file is None else token_file.parent
    return Control(ring, Config(http=HttpConfig(token_file=path)), runtime, N_WORKERS)


def test_only_the_token_opens(
    ring: Ring, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "WRONG_TOKEN_S", 0.0)
    opened = control_of(ring, token_file)
    opened.check(f"Bearer {TOKEN}")
    for wrong in ("", "Bearer ", "Bearer x", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xff"):
        with pytest.raises(RefusedError) as refused:
            opened.check(wrong)
        assert refused.value.status == 401


def test_after_a_wrong_token_nobody_is_heard_for_a_moment(ring: Ring, token_file: Path) -> None:
    opened = control_of(ring, token_file)
    with pytest.raises(RefusedError):
        opened.check("Bearer wrong")
    with pytest.raises(RefusedError) as refused:
        opened.check(f"Bearer {TOKEN}")
    assert refused.value.status == 429


def test_without_a_token_file_nothing_can_be_changed(ring: Ring) -> None:
    closed = control_of(ring, None)
    assert not closed.is_open
    with pytest.raises(RefusedError) as refused:
        closed.check("Bearer ")
    assert refused.value.status == 403


def test_a_change_says_what_holds_and_from_where_on(ring: Ring, token_file: Path) -> None:
    opened = control_of(ring, token_file)
    said = opened.change(b'{"threshold": 0.95}')
    expected = {"series": None, "frame": 0, "threshold": 0.95, "miss_sample_fraction": None}
    expected |= {"model": None, "mask": None}
    assert said == {**expected, "compared": None}
    opened.change(b'{"miss_sample_fraction": 1}')
    assert opened.latest() == [expected, {**expected, "miss_sample_fraction": 1.0}]


def test_a_false_positive_rate_becomes_its_threshold(ring: Ring, token_file: Path) -> None:
    opened = control_of(ring, token_file)
    strict = opened.change(b'{"max_false_positive_rate": 0.0005}')["threshold"]
    loose = opened.change(b'{"max_false_positive_rate": 0.01}')["threshold"]
    assert 0 < loose < strict < 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "expected e.g."),
        (b"[1]", "expected e.g."),
        (b'{"threshold": "high"}', "expected e.g."),
        (b'{"treshold": 0.5}', "treshold"),
        (b'{"threshold": 1.5}', "threshold: got 1.5"),
        (b'{"threshold": 1e999}', ""),
        (b'{"miss_sample_fraction": -0.1}', "miss_sample_fraction: got -0.1"),
        (b'{"max_false_positive_rate": 1e-9}', "cannot be told"),
        (b'{"max_false_positive_rate": 0}', "expected above 0"),
        (b'{"threshold": 0.5, "max_false_positive_rate": 0.01}', "give one of them"),
        (b"{}", "nothing to change"),
        (b'{"threshold": null}', "nothing to change"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    ring: Ring, token_file: Path, body: bytes, words: str
) -> None:
    opened = control_of(ring, token_file)
    with pytest.raises(RefusedError) as refused:
        opened.change(body)
    assert refused.value.status == 400
    assert words in str(refused.value)
    assert opened.latest() == []


def test_judges_on_other_hosts_take_no_other_model(ring: Ring, token_file: Path) -> None:
    config = Config(http=HttpConfig(token_file=str(token_file)))
    elsewhere = Control(ring, config, token_file.parent, n_workers=0)
    for body in (b'{"model": "other.safetensors"}', b'{"mask": "configured"}'):
        with pytest.raises(RefusedError, match="other hosts") as refused:
            elsewhere.change(body)
        assert refused.value.status == 409
    assert elsewhere.latest() == []


def test_a_token_that_is_none_stops_the_start(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("hello\n")
    with pytest.raises(ConfigError, match="5 characters"):
        read_token(str(short))
    short.write_text("")
    with pytest.raises(ConfigError, match="0 characters"):
        read_token(str(short))
    with pytest.raises(ConfigError, match="No such file"):
        read_token(str(tmp_path / "absent"))
