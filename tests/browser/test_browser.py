"""What people look at, in a real browser, wide and on a phone: `make test-browser`."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from time import monotonic, sleep

import pytest
from PIL import Image

from clipbench.core import paths
from clipbench.reporting.page import page
from clipbench.results.record import RunRecord
from tests.reporting.page.test_retrieval_examples import world  # noqa: F401

sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
pytestmark = pytest.mark.slow
WIDTHS = (1000, 380)
SHOTS = paths.ROOT / "outputs" / "browser"


@pytest.fixture(scope="module")
def browser():
    """Chromium: the system's, or Playwright's own where that has been installed."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=found, args=flags)
        yield started
        started.close()


class Visit:
    """A page that was opened: what it asked for, and what it complained of."""

    def __init__(self, browser, width, scheme="light"):
        size = {"width": width, "height": 800}
        self.page = browser.new_page(viewport=size, color_scheme=scheme)
        self.asked, self.said = [], []
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("console", lambda m: m.type == "error" and self.said.append(m.text))
        self.page.on("pageerror", lambda e: self.said.append(str(e)))

    def check(self, home):
        """No errors, nothing from elsewhere, nothing that sticks out at the side."""
        assert self.said == []
        assert [url for url in self.asked if not url.startswith(("data:", "blob:", home))] == []
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0

    def shoot(self, name, whole=False):
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{name}.png"
        self.page.screenshot(path=path, full_page=whole)
        with Image.open(path) as shot:
            assert len(shot.convert("L").getcolors()) > 10  # it is no blank page
        self.page.close()


def in_sight(locator):
    box = locator.bounding_box()
    return box is not None and box["y"] >= 0 and box["y"] + box["height"] <= 800


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report(browser, runs, tmp_path, width, scheme):
    place = tmp_path / "report.html"
    place.write_text(
        page.rendered("shapes", [(f, RunRecord.from_json(r)) for f, r in runs.values()], [], {})
    )
    visit = Visit(browser, width, scheme)
    visit.page.goto(place.as_uri())
    title = visit.page.get_by_role("heading", level=1)
    assert title.inner_text().startswith("On shapes, take ")
    assert in_sight(title)
    assert visit.page.get_by_text("Stand-ins: clip_tiny").bounding_box()["y"] < 100
    assert visit.page.get_by_role("img").count() > 8
    broken = "[...document.images].filter(i => !i.naturalWidth).length"
    assert visit.page.evaluate(broken) == 0
    ink, paper = (
        visit.page.evaluate(f"getComputedStyle(document.body).{of}")
        for of in ("color", "backgroundColor")
    )
    assert contrast(ink, paper) > 7
    faint = visit.page.locator(".faint").first.evaluate("e => getComputedStyle(e).color")
    assert contrast(faint, paper) > 4.5  # WCAG AA
    visit.check(place.as_uri())
    visit.shoot(f"report-{width}-{scheme}", whole=True)


def contrast(*colours):
    """WCAG's ratio of two ``rgb(r, g, b)``."""
    lights = []
    for colour in colours:
        parts = [int(part) / 255 for part in colour[4:-1].split(",")]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        lights.append(sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_examples_of_a_search(browser, world, tmp_path, width):  # noqa: F811
    from clipbench.reporting.page import retrieval_examples

    split, before, after, _ = world
    place = tmp_path / "examples.html"
    retrieval_examples.write(place, split, before, after, title="Retrieval on noise")
    visit = Visit(browser, width)
    visit.page.goto(place.as_uri())
    title = visit.page.get_by_role("heading", level=1)
    assert title.inner_text() == "Retrieval on noise"
    assert in_sight(title)
    visit.check(place.as_uri())
    visit.shoot(f"examples-{width}", whole=True)


@pytest.fixture(scope="module")
def board(runs):
    """The address of TensorBoard over two runs, and a figure of a sweep."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outputs = next(iter(runs.values()))[0].parents[2]
    (outputs / "tables").mkdir(exist_ok=True)
    figure = paths.EXPERIMENTS / "figures" / "freeze_depth.png"
    shutil.copy(figure, outputs / "tables" / "sweep_depth_by_freeze_depth.png")
    words = ["--port", str(port), "--host", "127.0.0.1"]
    served = subprocess.Popen(
        [sys.executable, "-m", "clipbench.dashboard", *words],
        env={**os.environ, "CLIPBENCH_OUTPUTS": str(outputs)},
    )
    home, until = f"http://127.0.0.1:{port}/", monotonic() + 90
    names = b""
    while b"clip_tiny" not in names and monotonic() < until:
        sleep(0.5)
        with suppress(OSError):
            names = urllib.request.urlopen(f"{home}data/runs").read()
    yield home
    served.terminate()
    served.wait(20)


VIEWS = {
    "hparams": "test/acc",
    "custom_scalars": "accuracy",
    "images": "surest mistakes, test",
    "text": "worst classes, test",
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_the_dashboard(browser, board, width, view):
    visit = Visit(browser, width)
    visit.page.goto(f"{board}#{view}")
    shown = visit.page.get_by_text(VIEWS[view]).first
    shown.wait_for(state="attached", timeout=60_000)
    sleep(2)  # its charts draw themselves
    visit.check(board)
    visit.shoot(f"dashboard-{view}-{width}")
