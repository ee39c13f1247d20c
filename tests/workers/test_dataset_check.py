"""Every fault of a tree is found; what can be mended is, and nothing else is touched."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.workers.cli import main
from hitfinder.workers.dataset import DatasetTree
from hitfinder.workers.dataset_check import check_tree, repair_tree
from hitfinder.workers.dataset_making import TreeOptions, make_tree
from hitfinder.workers.dataset_names import Folder

SMALL = TreeOptions(datasets=("02", "05"), patterns="shipped", seed=3, shape=(300, 280))
PEAKS = Path("peaks/02/img_7keV_clen01_00001.h5")
LABEL = Path("labels/02/label_img_7keV_clen01_00001.h5")
WATER = Path("water/02/water_img_7keV_clen01_00001.h5")
OVERLAY = Path("peaks_water_overlay/02/overlay_img_7keV_clen01_00001.h5")
BLANK = Path("peaks_water_overlay/05/empty_overlay_05_00001.h5")
OTHER = Path("peaks/05/img_7keV_clen02_00001.h5")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("whole")
    make_tree(top, SMALL, 2, 1)
    return top


@pytest.fixture
def top(tmp_path: Path, whole: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "tree"))


def bytes_of(top: Path) -> dict[Path, bytes]:
    images = top / "images"
    return {p.relative_to(images): p.read_bytes() for p in images.rglob("*.h5")}


def set_attribute(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value


def set_image(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with h5py.File(path, "r+") as file:
        image = change(file["entry/data/data"][()])
        del file["entry/data/data"]
        file["entry/data/data"] = image


def lit(image: np.ndarray) -> np.ndarray:
    image[150, 140] += 1  # the beam centre, where no peak is
    return image


def strip(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for name in list(file.attrs):
            del file.attrs[name]


def test_a_made_tree_has_no_faults(whole: Path) -> None:
    report = check_tree(whole)
    assert report.ok
    assert not report.faults
    assert report.n_frames == 6
    assert report.counts["02", "water"] == 2
    assert report.counts["05", "peaks_water_overlay"] == 3


MENDABLE: dict[str, tuple[Callable[[Path], object], Path, str]] = {
    "clen ten times too long": (lambda i: set_attribute(i / PEAKS, "clen", 1.5), PEAKS, "clen"),
    "energy of another set": (
        lambda i: set_attribute(i / WATER, "photon_energy", 6000.0),
        WATER,
        "photon_energy is 6000",
    ),
    "blank that claims peaks": (lambda i: set_attribute(i / BLANK, "peak", True), BLANK, "peak"),
    "no attributes": (lambda i: strip(i / LABEL), LABEL, "clen is None"),
    "in another set's folder": (
        lambda i: (i / PEAKS).rename(i / "peaks/05" / PEAKS.name),
        Path("peaks/05") / PEAKS.name,
        "belongs in peaks/02",
    ),
    "in another folder": (
        lambda i: (i / LABEL).rename(i / "peaks/02" / LABEL.name),
        Path("peaks/02") / LABEL.name,
        "belongs in labels/02",
    ),
    "above its folder": (
        lambda i: (i / OVERLAY).rename(i / OVERLAY.name),
        Path(OVERLAY.name),
        "belongs in peaks_water_overlay/02",
    ),
    "named as pattern_sim names it": (
        lambda i: (i / PEAKS).rename(i / "peaks/02/master_18_7keV_clen01_1.h5"),
        Path("peaks/02/master_18_7keV_clen01_1.h5"),
        "misnamed",
    ),
    "without its prefix": (
        lambda i: (i / OVERLAY).rename(i / OVERLAY.parent / PEAKS.name),
        OVERLAY.parent / PEAKS.name,
        "misnamed",
    ),
    "named as of another set": (
        lambda i: (i / OTHER).rename(i / "peaks/05/img_8keV_clen02_00001.h5"),
        Path("peaks/05/img_8keV_clen02_00001.h5"),
        "misnamed",
    ),
    "label lost": (lambda i: (i / LABEL).unlink(), LABEL, "missing"),
    "overlay lost": (lambda i: (i / OVERLAY).unlink(), OVERLAY, "missing"),
    "blank's overlay lost": (lambda i: (i / BLANK).unlink(), BLANK, "missing"),
    "water and overlay lost": (
        lambda i: ((i / WATER).unlink(), (i / OVERLAY).unlink()),
        WATER,
        "drawn with its overlay",
    ),
    "label of another threshold": (
        lambda i: set_image(i / LABEL, lambda image: 1 - image),
        LABEL,
        "threshold",
    ),
}


@pytest.mark.parametrize("kind", MENDABLE)
def test_a_fault_that_can_be_mended_is_found_and_mended(top: Path, kind: str) -> None:
    damage, path, text = MENDABLE[kind]
    before = bytes_of(top)
    damage(top / "images")
    damaged = bytes_of(top)
    report = check_tree(top)
    assert bytes_of(top) == damaged
    assert not report.ok
    assert any(f.path == path and text in f.text for f in report.faults)
    refused: list[str] = []
    after = repair_tree(top, report, lambda path, action, reason: refused.append(reason))
    assert after.ok
    assert not any(refused)
    mended = bytes_of(top)
    assert mended.keys() == before.keys()
    moved = {p for p in before if p not in damaged}
    whole_ones = {p for p in before if damaged.get(p) == before[p]}
    assert all(mended[p] == before[p] for p in whole_ones)
    if "lost" not in kind:
        assert all(mended[p] == before[p] for p in moved)


def test_remade_images_fit_their_frame(top: Path, whole: Path) -> None:
    for path in (WATER, OVERLAY, LABEL):
        (top / "images" / path).unlink()
    assert repair_tree(top, check_tree(top)).ok
    mine, old = DatasetTree(top), DatasetTree(whole)
    name = mine.frames[0]
    frame, before = mine.read(name), old.read(name)
    assert np.array_equal(frame.labels, before.labels)
    assert not np.array_equal(frame.water, before.water)
    active = frame.water < 65535
    n_water, n_before = int(frame.water[active].sum()), int(before.water[active].sum())
    assert n_water == pytest.approx(n_before, abs=5 * (2 * n_before) ** 0.5)
    assert int(frame.overlay[active].sum()) > n_water
    assert mine.patterns[name] == old.patterns[name]


LASTING: dict[str, tuple[Callable[[Path], object], Path, str]] = {
    "peaks lost": (lambda i: (i / PEAKS).unlink(), PEAKS, "nothing else tells"),
    "water alone lost": (lambda i: (i / WATER).unlink(), WATER, "delete it too"),
    "cut short": (lambda i: (i / OVERLAY).write_bytes(b"\x89HDF"), OVERLAY, "cannot be read"),
    "photon beside the peaks": (
        lambda i: set_image(i / OVERLAY, lit),
        OVERLAY,
        "1 more where no peak is",
    ),
    "other shape": (
        lambda i: set_image(i / WATER, lambda image: image[:100]),
        PEAKS,
        "shapes differ",
    ),
    "negative photons": (
        lambda i: set_image(i / PEAKS, lambda image: image - 1),
        PEAKS,
        "expected photons",
    ),
    "a stack": (
        lambda i: set_image(i / PEAKS, lambda image: image[None]),
        PEAKS,
        "one image",
    ),
    "name against folder, no attributes": (
        lambda i: strip((i / PEAKS).rename(i / "peaks/05" / PEAKS.name)),
        Path("peaks/05") / PEAKS.name,
        "cannot tell which is right",
    ),
    "place taken": (
        lambda i: shutil.copy(i / PEAKS, i / "peaks/05" / PEAKS.name),
        Path("peaks/05") / PEAKS.name,
        "keep one of the two",
    ),
    "nobody's file": (
        lambda i: strip((i / PEAKS).rename(i / "notes.h5")),
        Path("notes.h5"),
        "nothing says",
    ),
    "no number": (
        lambda i: shutil.copy(i / PEAKS, i / "peaks/02/best.h5"),
        Path("peaks/02/best.h5"),
        "no number",
    ),
    "unfinished": (
        lambda i: (i / "peaks/02/img.h5.part").touch(),
        Path("peaks/02/img.h5.part"),
        "killed",
    ),
    "one water twice": (
        lambda i: shutil.copy(i / WATER, i / WATER.parent / "water_img_7keV_clen01_00002.h5"),
        WATER.parent / "water_img_7keV_clen01_00002.h5",
        "the same image",
    ),
    "a blank with photons": (
        lambda i: set_image(i / "peaks/05/empty_peak_05_00001.h5", lit),
        Path("peaks/05/empty_peak_05_00001.h5"),
        "a blank's",
    ),
}


@pytest.mark.parametrize("kind", LASTING)
def test_a_fault_that_a_person_must_decide_is_found_and_left(top: Path, kind: str) -> None:
    damage, path, text = LASTING[kind]
    damage(top / "images")
    damaged = bytes_of(top)
    report = check_tree(top)
    found = [f for f in report.faults if f.path == path and text in f.text]
    assert len(found) == 1
    assert found[0].mend is None
    after = repair_tree(top, report)
    assert not after.ok
    assert any(f.path == path and text in f.text for f in after.faults)
    left = bytes_of(top)
    assert damaged.keys() <= left.keys()
    labels = {p for p in damaged if p.parts[0] == Folder.LABELS}
    assert all(left[p] == damaged[p] for p in damaged.keys() - labels)


def test_a_pattern_under_two_names_gets_one(top: Path) -> None:
    images = top / "images"
    twin = images / "peaks/02/img_7keV_clen01_00002.h5"
    shutil.copy(images / PEAKS, twin)
    for folder in ("labels", "peaks_water_overlay"):
        next((images / folder / "02").glob("*img_7keV_clen01_00002.h5")).unlink()
    set_attribute(twin, "pattern", "another")
    report = check_tree(top)
    assert any("same pattern" in fault.text for fault in report.faults)
    assert repair_tree(top, report).ok
    tree = DatasetTree(top)
    assert len({tree.patterns[n] for n in tree.frames if n.dataset == "02"}) == 1 + 1


def test_a_tree_of_the_seeds_program_is_whole_and_gets_a_note(top: Path) -> None:
    images = top / "images"
    mean = np.full(SMALL.shape or (), 0.25, np.float32)
    for path in bytes_of(top):
        with h5py.File(images / path, "r+") as file:
            for name in ("pattern", "n_photons", "label_photons", "made_with"):
                file.attrs.pop(name, None)
            del file["entry/instrument"]
    for dataset in ("02", "05"):
        for water in (images / "water" / dataset).iterdir():
            water.rename(images / "water" / dataset / f"water{dataset}.h5")
        set_image(images / f"water/{dataset}/water{dataset}.h5", lambda image: mean)
    for overlay in (images / "peaks_water_overlay").rglob("*.h5"):
        peaks = overlay.name.replace("overlay_img", "img").replace("overlay", "peak")
        peaks_path = images / "peaks" / overlay.parent.name / peaks
        with h5py.File(peaks_path) as file:
            expected = file["entry/data/data"][()]
        set_image(overlay, lambda image, expected=expected: mean + expected)
    report = check_tree(top)
    assert report.ok
    assert [f.path.name for f in report.faults] == ["water02.h5", "water05.h5"]
    tree = DatasetTree(top)
    frame = tree.read(tree.frames[0])
    assert frame.water.max() == 0.25
    assert len(tree.split(test_fraction=0.5).test) == 2 + 0


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_files_thrown_about_find_home(
    tmp_path_factory: pytest.TempPathFactory, whole: Path, data: st.DataObject
) -> None:
    top = Path(shutil.copytree(whole, tmp_path_factory.mktemp("thrown") / "tree"))
    before = bytes_of(top)
    paths = sorted(before)
    for path in data.draw(st.lists(st.sampled_from(paths), unique=True, max_size=6)):
        folder = data.draw(st.sampled_from(["peaks/02", "labels/05", "water/02", ".", "lost/07"]))
        target = top / "images" / folder / path.name
        if path.parts[0] == Folder.PEAKS and folder != "peaks/02" and not target.exists():
            continue  # a bare pattern's name in another folder reads as one without its prefix
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            (top / "images" / path).rename(target)
    assert repair_tree(top, check_tree(top)).ok
    assert bytes_of(top) == before


def test_the_command_checks_repairs_and_says_so(
    top: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def status_of(*options: str) -> object:
        with pytest.raises(SystemExit) as left:
            main(["dataset", str(top), *options])
        return left.value.code

    set_attribute(top / "images" / PEAKS, "clen", 1.5)
    assert status_of("--check") == 1
    said = capsys.readouterr().out
    assert f"{PEAKS}: clen is 1.5, expected 0.15 m -> set clen = 0.15" in said
    assert "6 frames, 1 faults; --repair mends 1" in said
    assert status_of("--check", "--quick") == 1
    capsys.readouterr()
    assert status_of("--repair") == 0
    assert f"{PEAKS}: set clen = 0.15" in capsys.readouterr().out
    assert status_of("--check") == 0


def test_the_command_makes_a_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["dataset", str(tmp_path), "--per-set", "1", "--datasets", "08..09"])
    assert left.value.code == 0
    assert "2 frames" in capsys.readouterr().out
    assert DatasetTree(tmp_path).datasets == ("08", "09")
    assert check_tree(tmp_path).ok
