"""The report in a browser without any network."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import report_factory as factory

from pipeline.report.build import write_report
from shards.metadata import DatasetMetadata
from shards.reader import Dataset

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@dataclass
class Opened:
    """A page in the browser, with its requests and errors."""

    page: object
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def evaluate(self, script: str) -> object:
        return self.page.evaluate(script)  # type: ignore[attr-defined]

    def wait_until(self, script: str, seconds: float = 30) -> None:
        """Not playwright's `wait_for_function`: it evaluates strings, which the page's policy forbids."""
        end = time.monotonic() + seconds
        while not self.evaluate(script):
            assert time.monotonic() < end, f"not within {seconds} s: {script}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no `chromium` on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=chromium, args=list(FLAGS)
        )
        yield context
        context.close()


def open_page(browser: object, path: Path, width: int = 1280, scheme: str = "light") -> Opened:
    page = browser.new_page()  # type: ignore[attr-defined]
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    opened = Opened(page)

    def abort(route: object) -> None:
        opened.requests.append(route.request.url)  # type: ignore[attr-defined]
        route.abort()  # type: ignore[attr-defined]

    page.route(lambda url: url != path.as_uri() and not url.startswith("data:"), abort)
    page.on("console", lambda m: opened.errors.append(m.text) if m.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: opened.errors.append(str(error)))
    page.goto(path.as_uri())
    opened.wait_until(
        "[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('svg.main-svg'))"
    )
    return opened


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report") / "mfhq"
    factory.build(root)
    factory.keep_findings(root)
    write_report(root, factory.seconds())
    return root


@pytest.fixture(scope="module")
def opened(browser: object, root: Path) -> Opened:
    return open_page(browser, root / "report" / "index.html")


def test_the_page_asks_for_nothing_and_reports_no_error(opened: Opened) -> None:
    assert opened.requests == []
    assert opened.errors == []
    assert opened.evaluate("document.title") == "mfhq: dataset report"


def test_every_figure_is_drawn(opened: Opened) -> None:
    drawn = opened.evaluate(
        "[...document.querySelectorAll('.plot')].map((plot) => [plot.id,"
        " plot.querySelectorAll('.point, .hm image, .js-line').length, plot.clientWidth])"
    )
    assert isinstance(drawn, list)
    assert len(drawn) == 11
    assert all(marks > 0 and width > 300 for _, marks, width in drawn), drawn


def test_no_button_sends_a_figure_away(opened: Opened) -> None:
    titles = opened.evaluate("[...document.querySelectorAll('.modebar-btn')].map((b) => b.dataset.title)")
    assert isinstance(titles, list)
    assert set(titles) == {"Download plot as a PNG", "Zoom", "Pan", "Reset axes"}


def test_every_thumbnail_is_a_picture_and_outlines_can_be_shown(opened: Opened) -> None:
    sizes = opened.evaluate("[...document.images].map((image) => image.complete && image.naturalWidth)")
    # Sample and worst; two identities of the largest person; three images of each of the two in four pairs.
    assert sizes == [112] * (8 * 24 + 2 + 4 * 6)
    visible = "getComputedStyle(document.querySelector('#sample .thumbs svg')).display"
    assert opened.evaluate(visible) == "none"
    opened.page.click("#sample .show-outlines")  # type: ignore[attr-defined]
    assert opened.evaluate(visible) == "block"
    length = opened.evaluate("document.querySelector('#sample .thumbs path').getTotalLength()")
    assert isinstance(length, float)
    # The factory's ellipse has half axes of 120 and 170 of 512 pixels.
    assert length == pytest.approx(918 * 112 / 512, rel=0.05)


def test_the_numbers_shown_are_those_of_the_dataset(opened: Opened, root: Path) -> None:
    metadata: DatasetMetadata = Dataset.open(root).metadata
    shown = opened.evaluate(
        "Object.fromEntries([...document.querySelectorAll('[id^=key-]')].map((e) => [e.id, +e.textContent]))"
    )
    assert shown == {
        "key-videos": sum(metadata.counts.videos.values()),
        "key-accepted": metadata.counts.videos["accepted"],
        "key-identities": sum(metadata.counts.identities.values()),
        "key-images": metadata.counts.images,
        "key-persons": metadata.counts.persons,
    }
    left = opened.evaluate(
        "[...document.querySelectorAll('#video-funnel tbody tr')].map((row) => +row.cells[2].textContent)"
    )
    assert left == [26, 23, 22, 18, 15, 13, 12]
    bars = opened.evaluate("document.getElementById('fig-funnel').data[0].x")
    assert bars == left


def test_plotly_shows_names_from_the_data_as_text(opened: Opened) -> None:
    labels = opened.evaluate(
        "[...document.querySelectorAll('#fig-time-slowest .annotation-text')].map((text) => text.textContent)"
    )
    assert isinstance(labels, list)
    assert "clips/<b>video-0</b>.mp4" in labels
    assert "…" + f"{factory.HOSTILE}-unreadable-0.mp4"[-48:] in labels


def test_the_list_of_lost_videos_is_searched_by_all_words(opened: Opened) -> None:
    page = opened.page
    page.fill("#search", "no_face rejected")  # type: ignore[attr-defined]
    assert opened.evaluate("document.getElementById('shown').textContent") == "4 of 14 rows"
    visible = opened.evaluate(
        "[...document.querySelectorAll('#unaccepted tbody tr')].filter((row) => row.offsetHeight > 0).length"
    )
    assert visible == 4


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_the_page_never_scrolls_sideways(opened: Opened, width: int) -> None:
    opened.page.set_viewport_size({"width": width, "height": 900})  # type: ignore[attr-defined]
    assert opened.evaluate("document.documentElement.scrollWidth") == width


def test_figures_follow_the_dark_mode(opened: Opened) -> None:
    ink = "document.getElementById('fig-funnel').layout.font.color"
    assert opened.evaluate(ink) == "#1c2127"
    opened.page.emulate_media(color_scheme="dark")  # type: ignore[attr-defined]
    opened.wait_until(f"{ink} === '#e4e8ec'")


def test_a_report_without_identities_opens_as_well(browser: object, tmp_path: Path) -> None:
    factory.build(tmp_path, accepted=0)
    opened = open_page(browser, write_report(tmp_path))
    assert (opened.requests, opened.errors) == ([], [])
    assert opened.evaluate("document.getElementById('key-identities').textContent") == "0"
