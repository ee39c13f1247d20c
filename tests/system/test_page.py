"""The page in a real browser: it shows a running daemon, and obeys the keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.daemon import Daemon, Detector, running, wait_for
from tests.system.frames import wire_series

from hitfinder.workers.browser import Browser, is_installed

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not is_installed(), reason="needs chromium and chromedriver"),
]

N_FRAMES = 60
TOKEN = "0123456789abcdef0123456789abcdef"
HAS_RATE = "return document.getElementById('rate-minute').textContent.includes('%')"
CAPTION = "return document.querySelector('#{} .caption').textContent"


@pytest.fixture(scope="module")
def at_work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Detector]]:
    """Yield a daemon with one open series, hits and misses in it, and its detector."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "token").write_text(TOKEN)
    config = f'[http]\ntoken_file = "{folder}/token"\n'
    with Detector() as detector, running(folder, detector, config=config) as daemon:
        series = wire_series("v2", 1, N_FRAMES, has_spots=True)
        detector.send(series.start, *series.images[:-1])
        daemon.wait_status(lambda s: sum(s["counts"].values()) == N_FRAMES - 1, "all but one")
        yield daemon, detector


@pytest.fixture(scope="module")
def browser(at_work: tuple[Daemon, Detector]) -> Iterator[Browser]:
    """Yield a browser that shows the daemon's page."""
    with Browser() as shown:
        shown.go(f"http://{at_work[0].http}/")
        shown.wait(HAS_RATE, "a hit rate")
        yield shown


def text(browser: Browser, place: str) -> str:
    return str(browser.run("return document.getElementById(arguments[0]).textContent", place))


def test_it_shows_what_status_says(at_work: tuple[Daemon, Detector], browser: Browser) -> None:
    counts = at_work[0].status["counts"]
    browser.wait(
        f"return document.getElementById('counts').textContent.startsWith('{counts['hit']}hit')",
        "the counts of status",
    )
    share = 100 * counts["hit"] / (counts["hit"] + counts["miss"])
    assert text(browser, "rate-series").startswith(f"{share:.1f} %")
    assert "series 1" in text(browser, "series")
    assert text(browser, "children") == "receiversinkworker"
    assert text(browser, "learned") == str(at_work[0].status["n_hot_pixels"])
    assert text(browser, "link").startswith("live")


@pytest.mark.parametrize("outcome", ["hit", "miss"])
def test_the_latest_frames_are_pictures_with_words(browser: Browser, outcome: str) -> None:
    browser.wait(CAPTION.format(outcome) + ".startsWith('series 1 frame')", f"a {outcome}")
    label = browser.run(f"return document.querySelector('#{outcome} canvas').ariaLabel")
    assert label.startswith(f"Latest {outcome}: series 1 frame")
    assert ("spots" in label) == (outcome == "hit")


def test_the_sums_are_drawn_and_say_their_share(browser: Browser) -> None:
    said = browser.wait(CAPTION.format("powder") + ".match(/(\\d+) of (\\d+) hits/)", "a sum")
    assert 1 <= int(said[1]) <= int(said[2])


def test_keys_reach_the_pictures(browser: Browser) -> None:
    browser.keys("h")
    assert browser.run("return document.activeElement.ariaLabel").startswith("Latest hit")
    browser.keys("++++")
    # Close enough to be given single pixels.
    browser.wait(
        "return performance.getEntriesByType('resource')"
        ".some((r) => /frames\\/\\d+\\/\\d+\\/\\d+\\/\\d+/.test(r.name))",
        "single pixels",
    )
    browser.keys("0")
    browser.keys(" ")
    held = "return document.querySelector('#hit .bar button').getAttribute('aria-pressed')"
    assert browser.run(held) == "true"
    browser.keys(" ")
    theme = "return document.documentElement.dataset.theme"
    before = browser.run(theme)
    browser.keys("t")
    assert {before, browser.run(theme)} == {"dark", "light"}


def test_nothing_comes_from_elsewhere_and_nothing_complains(
    at_work: tuple[Daemon, Detector], browser: Browser
) -> None:
    names = browser.run("return performance.getEntriesByType('resource').map((r) => r.name)")
    assert names
    assert all(name.startswith(f"http://{at_work[0].http}/") for name in names)
    assert browser.complaints() == []


def test_every_control_and_picture_has_a_name(browser: Browser) -> None:
    nameless = browser.run("""
        const named = (e) => e.ariaLabel || e.textContent.trim() || e.title
            || e.labels?.length || e.getAttribute("aria-labelledby");
        const things = "button, input, canvas, svg[role=img], section, meter, progress";
        return [...document.querySelectorAll(things)]
            .filter((e) => !e.closest("[hidden]") && !named(e)).map((e) => e.outerHTML);
    """)
    assert nameless == []


def test_a_change_is_asked_for_with_the_token_and_told(
    at_work: tuple[Daemon, Detector], browser: Browser
) -> None:
    ask = """
        const form = document.getElementById('controls');
        form.elements.model.value = 'configured';
        form.elements.shadow_frames.value = 0;
        form.elements.token.value = arguments[0];
        form.requestSubmit();
    """
    said = "return document.getElementById('controls-said').textContent.{}"
    browser.run(ask, TOKEN[:-1])
    browser.wait(said.format("includes('wrong token')"), "a refusal")
    browser.complaints()  # the browser's own, of that answer

    def is_done() -> bool:
        """Ask until it hears again: after a wrong token it is deaf for a second."""
        browser.run(ask, TOKEN)
        browser.wait(said.format("match(/^(Done|Not)/)"), "an answer", 60.0)
        return bool(browser.run(said.format("startsWith('Done, from frame')")))

    wait_for(is_done, "the change")
    browser.complaints()
    (change,) = at_work[0].wait_status(lambda s: bool(s["changes"]), "the change")["changes"]
    shown = f"from frame {change['frame']} of series 1 on"
    browser.wait(
        f"return document.getElementById('changes').textContent.includes('{shown}')",
        "it in a list",
    )
    assert f"model {change['model']}: in force" in text(browser, "candidate")


def test_an_alarm_is_shown_and_bytes_from_the_wire_are_text(
    at_work: tuple[Daemon, Detector], browser: Browser
) -> None:
    daemon, detector = at_work
    detector.send([b"<img src=x onerror='document.title=1'>"])
    daemon.wait_status(lambda s: bool(s["alarms"]), "an alarm")
    browser.wait(
        "return document.getElementById('alarms').textContent.includes('Malformed messages')",
        "the alarm",
    )
    assert (
        browser.run("return document.querySelectorAll('#errors li, #alarms .alarm').length") >= 2
    )
    assert browser.run("return document.querySelectorAll('main img').length") == 0
    assert browser.run("return document.title").startswith("⚠")


def test_a_phone_has_no_sideways_scrolling(at_work: tuple[Daemon, Detector]) -> None:
    with Browser(390, 844, is_phone=True) as phone:
        phone.go(f"http://{at_work[0].http}/")
        phone.wait(HAS_RATE, "a hit rate")
        assert phone.run("return document.documentElement.scrollWidth") <= 390
        sizes = phone.run("""
            return [...document.querySelectorAll("main button")]
                .map((b) => b.getBoundingClientRect().height);
        """)
        assert min(sizes) >= 40


def test_figures_that_are_old_are_said_to_be(tmp_path: Path) -> None:
    with Detector() as detector, running(tmp_path, detector) as daemon:
        with Browser() as left_alone:
            left_alone.go(f"http://{daemon.http}/")
            live = "return document.getElementById('link').textContent.startsWith('{}')"
            left_alone.wait(live.format("live"), "live")
            assert daemon.terminate() == 0
            left_alone.wait(live.format("no answer since"), "that nobody answers")
