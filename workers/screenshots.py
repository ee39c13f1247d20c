"""`python -m hitfinder.workers.screenshots FOLDER`: the page as Chromium shows it, three pictures.

One rule: nothing is staged but the frames. A simulated detector sends, the daemon judges, and the
picture is taken of its page: a normal run, a header that contradicts the pixels, a phone.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from hitfinder.workers.browser import Browser
from hitfinder.workers.daemon_process import DaemonProcess

RATE_HZ, HIT_FRACTION = "10", "0.25"
# What the daemon is told of frames taken at 7 keV and 0.15 m.
WRONG_HEADER = "[geometry]\nphoton_energy_eV = 8000.0\nclen_m = 0.25\n"
DESKTOP, PHONE = (1440, 1640), (390, 844)
# In the repository pictures are this wide at most, and have so many colours.
WIDTH_PX, COLOURS = 1080, 160
SETTLE_S, RUN_S = 3.0, 240.0
# Enough to see: three series are over and the fourth has its sums.
WELL_UNDER_WAY = """
    const share = Number(document.getElementById('progress').value);
    return document.querySelectorAll('#closed tr').length > 3 && 0.4 < share && share < 0.6;
"""
HAS_ALARM = """
    return document.querySelector('.alarm') !== null
        && document.querySelector('#rate-chart .line')?.getAttribute('d').split('L').length > 5
"""
HAS_PICTURES = """
    return ['hit', 'miss'].every((id) =>
        document.querySelector(`#${id} .caption`).textContent.startsWith('series'))
"""


@contextmanager
def running(out: Path, config: str, *simulated: str) -> Iterator[DaemonProcess]:
    """Yield a daemon that judges what a simulated detector sends.

    Args:
        config: TOML.
        simulated: further options of `simulate`.
    """
    file = out / "config.toml"
    out.mkdir()
    file.write_text(config)
    source = f"ipc://{out}/detector"
    arguments = ("--device", "cpu", "--config", str(file))
    command = [sys.executable, "-m", "hitfinder.workers.cli", "simulate", "--bind", source]
    command += ["--rate", RATE_HZ, "--hit-fraction", HIT_FRACTION, *simulated]
    with DaemonProcess(source, out / "run", arguments) as daemon:
        daemon.wait_ready()
        with (out / "simulator.log").open("wb") as log:
            simulator = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield daemon
        finally:
            simulator.terminate()
            simulator.wait()


def save(browser: Browser, path: Path) -> None:
    """Write what a browser shows as a small PNG."""
    image = Image.open(io.BytesIO(browser.picture())).convert("RGB")
    if image.width > WIDTH_PX:
        height = round(image.height * WIDTH_PX / image.width)
        image = image.resize((WIDTH_PX, height), Image.Resampling.LANCZOS)
    few = image.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path}  {path.stat().st_size // 1000} kB")


def take(daemon: DaemonProcess, path: Path, until: str, *, is_phone: bool, theme: str) -> None:
    """Open a daemon's page, wait until it shows something, and take its picture."""
    width, height = PHONE if is_phone else DESKTOP
    with Browser(width, height, is_phone=is_phone) as browser:
        browser.go(f"http://{daemon.http}/")
        browser.run("localStorage.setItem('theme', arguments[0])", theme)
        browser.go(f"http://{daemon.http}/")
        for condition in (until, HAS_PICTURES):
            browser.wait(condition, f"{path.name}: {condition}", RUN_S)
        time.sleep(SETTLE_S)  # for the eye: charts of some seconds
        save(browser, path)


def main(folder: Path) -> None:
    """Take the pictures."""
    with tempfile.TemporaryDirectory() as made:
        out = Path(made)
        with running(out / "normal", "", "--dataset", "all", "--frames", "100") as daemon:
            normal = folder / "page.png"
            take(daemon, normal, WELL_UNDER_WAY, is_phone=False, theme="dark")
            take(daemon, folder / "page_phone.png", WELL_UNDER_WAY, is_phone=True, theme="dark")
        with running(out / "alarm", WRONG_HEADER, "--frames", "100000") as daemon:
            alarm = folder / "page_alarm.png"
            take(daemon, alarm, HAS_ALARM, is_phone=False, theme="light")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
