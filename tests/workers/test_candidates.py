"""Another model or mask is copied, offered to every worker and compared, or refused."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hitfinder.models import weights
from hitfinder.models.masks import mask_sha256
from hitfinder.models.water import WaterTable
from hitfinder.stream.candidate import Candidate, Offer
from hitfinder.stream.controls import Change, Controls
from hitfinder.stream.ring import Layout, Ring, create_memory
from hitfinder.workers import candidates
from hitfinder.workers.config import Config, GateConfig, HttpConfig
from hitfinder.workers.control import Control
from hitfinder.workers.refusal import RefusedError
from hitfinder.workers.session import FIRST_WORKER_ROLE

N_WORKERS = 2
ROLES = range(FIRST_WORKER_ROLE, FIRST_WORKER_ROLE + N_WORKERS)


@pytest.fixture
def ring() -> Iterator[Ring]:
    """Yield a ring of its own."""
    layout = Layout(8, 4096)
    fd = create_memory(layout)
    yield Ring(fd, layout)
    os.close(fd)


@pytest.fixture
def control(ring: Ring, tmp_path: Path) -> Control:
    """Return the control of a daemon with two workers."""
    return control_of(ring, tmp_path, GateConfig())


def control_of(ring: Ring, folder: Path, gate: GateConfig) -> Control:
    (folder / "token").write_text("0123456789abcdef")
    (folder / "runtime").mkdir()
    config = Config(gate=gate, http=HttpConfig(token_file=str(folder / "token")))
    return Control(ring, config, folder / "runtime", N_WORKERS)


def save(path: Path, shipped: weights.Weights, water: WaterTable | None = None) -> Path:
    return weights.save(path, shipped.net, shipped.calibration, water or shipped.water, {})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return weights that are another file than the shipped ones."""
    return save(tmp_path_factory.mktemp("model") / "mine.safetensors", weights.load())


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """Return a mask that takes some pixels away."""
    good = np.ones((20, 30), np.bool_)
    good[3:5] = False
    np.save(tmp_path / "mask.npy", good)
    return tmp_path / "mask.npy"


class Workers:
    """Answers offers as workers do, from a thread."""

    def __init__(self, ring: Ring, answer: Callable[[Candidate, Offer, int], None]) -> None:
        self._candidate, self._answer = Candidate(Ring(ring.fd, ring.layout)), answer
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        seen = 0
        while not self._over.wait(0.005):
            offer = self._candidate.read()
            if offer.number not in (0, seen):
                seen = offer.number
                for role in ROLES:
                    self._answer(self._candidate, offer, role)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def judging(candidate: Candidate, offer: Offer, role: int) -> None:
    """Load it, and judge three frames: a hit of both, a hit of the new model only, a miss."""
    candidate.answer(role, offer.number)
    for is_hit, would_be_hit in ((True, True), (False, True), (False, False)):
        candidate.count(role, is_hit=is_hit, would_be_hit=would_be_hit)


def wish(**what: Any) -> bytes:
    return json.dumps({n: str(v) if isinstance(v, Path) else v for n, v in what.items()}).encode()


def test_a_model_is_compared_and_holds_with_its_own_threshold(
    ring: Ring, control: Control, model: Path
) -> None:
    with Workers(ring, judging):
        said = control.change(wish(model=model, shadow_frames=6))
    compared = said["compared"]
    assert (compared["n_frames"], compared["n_wanted"]) == (6, 6)
    assert (compared["hits_of_both"], compared["hits_now_only"]) == (2, 0)
    assert compared["hits_of_candidate_only"] == 2
    loaded = weights.load(model)
    assert said["model"] == compared["model"] == loaded.model_id
    assert said["threshold"] == loaded.calibration.threshold(
        weights.GateMode.ANY, Config().gate.max_false_positive_rate
    )
    assert control.candidates.latest is not None
    assert control.candidates.latest["step"] == "in force"
    # A rate asked for later means that of the model in force; the configured file may be gone.
    assert control.change(b'{"max_false_positive_rate": 0.01}')["model"] == loaded.model_id


def test_the_offer_stands_until_the_change_does_and_not_longer(
    ring: Ring, control: Control, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, offered = Controls.put, list[int]()

    def noting(controls: Controls, **what: Any) -> Change:
        offered.append(Candidate(ring).number)
        return put(controls, **what)

    monkeypatch.setattr(Controls, "put", noting)
    with Workers(ring, judging):
        control.change(wish(model=model, shadow_frames=1))
    # Else a worker could forget what it has loaded before it needs it.
    assert offered == [1]
    assert Candidate(ring).number == 0


def test_a_threshold_that_was_set_stays_when_the_model_changes(
    ring: Ring, control: Control, model: Path
) -> None:
    control.change(b'{"threshold": 0.25}')
    with Workers(ring, judging):
        said = control.change(wish(model=model, shadow_frames=1))
    assert said["threshold"] == 0.25


def test_a_configured_threshold_holds_for_the_comparison_too(
    ring: Ring, model: Path, tmp_path: Path
) -> None:
    offers = list[Offer]()

    def answer(candidate: Candidate, offer: Offer, role: int) -> None:
        offers.append(offer)
        judging(candidate, offer, role)

    with Workers(ring, answer):
        control = control_of(ring, tmp_path, GateConfig(threshold=0.4))
        said = control.change(wish(model=model, shadow_frames=1))
    assert {offer.threshold for offer in offers} == {0.4}
    assert said["threshold"] is None


def test_what_is_only_compared_changes_nothing_and_leaves_nothing(
    ring: Ring, control: Control, model: Path, tmp_path: Path
) -> None:
    with Workers(ring, judging):
        said = control.change(wish(model=model, shadow_frames=6, compare_only=True))
    assert said["compared"]["n_frames"] == 6
    assert control.latest() == []
    assert list((tmp_path / "runtime").iterdir()) == []
    assert Candidate(ring).number == 0


def test_a_mask_holds_and_the_configured_one_comes_back(
    ring: Ring, control: Control, mask: Path, tmp_path: Path
) -> None:
    digest = mask_sha256(np.load(mask))
    with Workers(ring, judging):
        said = control.change(wish(mask=mask))
        assert (said["mask"], said["model"]) == (digest[:12], None)
        copy = tmp_path / "runtime" / f"mask_{digest}.npy"
        assert np.array_equal(np.load(copy), np.load(mask))
        assert control.change(b'{"mask": "configured"}')["mask"] is None
    assert [c.n_masks for c in Controls(ring).all()] == [1, 2]


def test_what_a_worker_refuses_does_not_come_to_hold(
    ring: Ring, control: Control, mask: Path, tmp_path: Path
) -> None:
    def answer(candidate: Candidate, offer: Offer, role: int) -> None:
        candidate.answer(role, offer.number, "does not fit" if role == ROLES[1] else "")

    with Workers(ring, answer), pytest.raises(RefusedError, match="does not fit"):
        control.change(wish(mask=mask))
    assert control.latest() == []
    assert control.candidates.latest is not None
    assert control.candidates.latest["step"] == "refused: does not fit"
    assert list((tmp_path / "runtime").iterdir()) == []


def test_a_comparison_without_frames_is_refused(ring: Ring, control: Control, model: Path) -> None:
    with Workers(ring, lambda candidate, offer, role: candidate.answer(role, offer.number)):
        with pytest.raises(RefusedError, match="no frame came within 0.05 s"):
            control.change(wish(model=model, shadow_s=0.05))
        assert control.latest() == []
        # Asked for, it holds unseen.
        assert control.change(wish(model=model, shadow_frames=0))["compared"]["n_frames"] == 0


def test_a_worker_that_never_loads_it_is_not_waited_for_for_ever(
    control: Control, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "LOADED_S", 0.05)
    with pytest.raises(RefusedError, match="did not load it"):
        control.change(wish(model=model))


def test_a_daemon_that_stops_lets_go(ring: Ring, control: Control, model: Path) -> None:
    ring.control["stop"][0] = 1
    with pytest.raises(RefusedError, match="stops") as refused:
        control.change(wish(model=model))
    assert refused.value.status == 503


def test_one_at_a_time(ring: Ring, control: Control, model: Path) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def answer(candidate: Candidate, offer: Offer, role: int) -> None:
        at_work.set()
        assert go_on.wait(20)
        judging(candidate, offer, role)

    with Workers(ring, answer):
        first = threading.Thread(target=control.change, args=(wish(model=model, shadow_frames=1),))
        first.start()
        assert at_work.wait(20)
        with pytest.raises(RefusedError, match="another model or mask is on its way"):
            control.change(wish(model=model))
        # A threshold need not wait, and the model does not take it back.
        control.change(b'{"threshold": 0.25}')
        go_on.set()
        first.join(20)
    assert [change["threshold"] for change in control.latest()] == [0.25, 0.25]


def test_files_that_cannot_serve_are_refused_before_anybody_is_asked(
    ring: Ring, control: Control, model: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(model.read_bytes()[:-1] + b"x")
    changed.with_suffix(".json").write_text(model.with_suffix(".json").read_text())
    shipped = weights.load()
    wet = save(
        tmp_path / "wet.safetensors",
        shipped,
        replace(shipped.water, f2_e2=2 * shipped.water.f2_e2),
    )
    np.save(tmp_path / "cube.npy", np.ones((2, 3, 4), np.bool_))
    (tmp_path / "text.h5").write_text("no HDF5")
    for what, words in (
        ({"model": changed}, "sha256 is"),
        ({"model": tmp_path / "absent.safetensors"}, "No such file"),
        ({"model": wet}, "another table of water"),
        ({"mask": tmp_path / "cube.npy"}, "expected two axes"),
        ({"mask": tmp_path / "text.h5"}, "not an HDF5 file"),
        ({"mask": tmp_path / "absent.npy"}, "no such file"),
        ({"model": model, "shadow_frames": -1}, "shadow_frames"),
        ({"model": model, "shadow_s": 1e9}, "shadow_s"),
        ({"mask": model, "compare_only": True}, "give a model"),
    ):
        with pytest.raises(RefusedError, match=words) as refused:
            control.change(wish(**what))
        assert refused.value.status == 400
    assert control.latest() == []
    assert Candidate(ring).number == 0
