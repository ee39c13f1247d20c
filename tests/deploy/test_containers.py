"""The container files: what they copy is there and enough, who runs, how health is asked for."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.deploy.conftest import Beamline

ROOT = Path(__file__).parents[2]
FILES = ("Containerfile.cpu", "Containerfile.cuda")
PACKAGES = ("stream", "models", "workers", "sim")
# What a package carries beside its compiled parts.
CARRIED = (".py", ".pyi", ".safetensors", ".json", ".npz", ".gz", ".cell")
KNOWN = {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE"}
KNOWN |= {"STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def stages(path: Path) -> list[list[tuple[str, str]]]:
    """Return the (instruction, arguments) of each stage; the first list stands before any."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.M)
    found: list[list[tuple[str, str]]] = [[]]
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line:
            name, _, arguments = line.partition(" ")
            assert name in KNOWN, line
            if name == "FROM":
                found.append([])
            found[-1].append((name, arguments))
    return found


def copied(path: Path) -> list[str]:
    """Return what is copied from the repository, by its path there."""
    words = [shlex.split(a) for s in stages(path) for n, a in s if n == "COPY"]
    return [source for w in words if not w[0].startswith("--from=") for source in w[:-1]]


def tracked(paths: list[str]) -> list[str]:
    """Return the files that git knows below these paths."""
    asked = ["git", "ls-files", "-z", "--", *paths]
    listed = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, check=True)
    return listed.stdout.split("\0")[:-1]


@pytest.fixture(params=FILES)
def containerfile(deploy: Path, request: pytest.FixtureRequest) -> Path:
    """Return one container file after the other."""
    return deploy / "container" / request.param


def test_what_is_copied_is_in_the_repository(containerfile):
    names = tracked(copied(containerfile))
    for source in copied(containerfile):
        assert any(name == source or name.startswith(f"{source}/") for name in names), source


def test_the_last_stage_brings_no_compiler_and_runs_as_nobody(containerfile):
    _, _, last = stages(containerfile)
    assert not any("apt-get" in a or "pip " in a for name, a in last if name == "RUN")
    users = [arguments for name, arguments in last if name == "USER"]
    assert users[-1].isdigit()
    assert int(users[-1]) > 0
    (made,) = (a for name, a in last if name == "RUN")
    assert f"--uid {users[-1]} " in made


def test_installs_are_pinned_and_carry_no_secret(containerfile):
    for stage in stages(containerfile):
        for name, arguments in stage:
            assert name != "ADD"
            for install in re.findall(r"pip install [^&;]*", arguments):
                assert "-c constraints.txt" in install
            if name in ("ARG", "ENV"):
                assert not re.search(r"(?i)token|secret|password|key", arguments)


def test_nothing_under_nvidias_licence_is_put_inside(containerfile):
    built = [a for name, a in stages(containerfile)[1] if name == "RUN"]
    assert any(re.search(r"pip list .*grep .*nvidia.*exit 1", a) for a in built)
    text = ";".join(a for s in stages(containerfile) for _, a in s)
    installed = re.findall(r"(?:apt-get|pip) install [^&;]*", text)
    assert len(installed) > 2
    assert not any(re.search("nvcomp|nvidia|cuda", words) for words in installed)


def test_the_entry_point_is_the_program_and_help_is_what_it_says_alone(containerfile, parses):
    last = dict(stages(containerfile)[-1])
    assert json.loads(last["ENTRYPOINT"]) == ["hitfinder-stream"]
    assert json.loads(last["CMD"]) == ["--help"]
    for line in re.findall(r"hitfinder-stream:\w+ (run .*)", containerfile.read_text()):
        assert str(parses(shlex.split(line))["out"]) == last["VOLUME"]


@pytest.mark.system
def test_the_health_check_tells_a_daemon_from_none(containerfile, beamline: Beamline):
    asked = dict(stages(containerfile)[-1])["HEALTHCHECK"]
    python, *words = json.loads(asked.partition("CMD ")[2])
    assert python == "python"
    code = words[-1].replace("127.0.0.1:8080", beamline.daemon.http)
    assert code != words[-1]
    ask = [sys.executable, *words[:-1]]
    assert subprocess.run([*ask, code], capture_output=True).returncode == 0
    nobody = words[-1].replace("127.0.0.1:8080", "127.0.0.1:9")
    assert subprocess.run([*ask, nobody], capture_output=True).returncode != 0


def test_the_package_is_whole_with_what_is_copied_and_nothing_else(containerfile, tmp_path):
    names = tracked(copied(containerfile))
    for name in names:
        target = tmp_path / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    # All of the build but the compiler's part.
    code = (
        "import json, sys, setuptools\n"
        "from distutils.core import run_setup\n"
        "made = run_setup('setup.py', ['-q', 'build_py', '--build-lib', sys.argv[1]])\n"
        "print(json.dumps([f for e in made.ext_modules for f in e.sources + e.depends]))\n"
    )
    built = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "built")],
        cwd=tmp_path / "source",
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    to_compile = json.loads(built.stdout.splitlines()[-1])
    assert [f for f in to_compile if not (tmp_path / "source" / f).is_file()] == []
    wanted = tracked([f"{folder}/*{end}" for folder in PACKAGES for end in CARRIED])
    assert len(wanted) > 100
    inside = tmp_path / "built" / "hitfinder"
    assert [name for name in wanted if not (inside / name).is_file()] == []
