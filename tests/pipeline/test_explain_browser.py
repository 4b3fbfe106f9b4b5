"""The page of `mfhq explain` in a browser without any network."""

from __future__ import annotations

from pathlib import Path

import pytest
from explained_videos import SEEN, WAITING, interrupted_build
from test_report_browser import Opened, browser, open_page

from pipeline.explain import chart
from pipeline.explain.explanation import explain
from pipeline.explain.page import write_page

__all__ = ["browser"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page for each staged video, named after its number in `SEEN`."""
    folder = tmp_path_factory.mktemp("explained")
    interrupted_build(folder)
    (folder / "videos" / WAITING).unlink()
    for number, uri in enumerate(SEEN):
        write_page(explain(folder / "mfhq", uri), folder / f"{number}.html")
    return folder


@pytest.fixture(scope="module")
def accepted_page(browser: object, pages: Path) -> Opened:
    return open_page(browser, pages / "0.html")


@pytest.fixture(scope="module")
def rejected_page(browser: object, pages: Path) -> Opened:
    return open_page(browser, pages / "1.html")


def test_the_pages_ask_for_nothing_and_report_no_error(accepted_page: Opened, rejected_page: Opened) -> None:
    assert accepted_page.requests == accepted_page.errors == []
    assert rejected_page.requests == rejected_page.errors == []


def test_the_outcome_stands_first(accepted_page: Opened, rejected_page: Opened) -> None:
    verdict = "document.getElementById('verdict').textContent"
    assert accepted_page.evaluate(verdict) == "accepted: 1 identity"
    assert (
        rejected_page.evaluate(verdict)
        == "rejected: crop_too_small (head crop smaller than faces.min_crop_px)"
    )


def test_the_lane_of_the_track_has_a_piece_of_its_colour_for_every_frame(accepted_page: Opened) -> None:
    fills = accepted_page.evaluate(
        "[...document.querySelectorAll('#lanes rect')].map((piece) => piece.getAttribute('fill'))"
    )
    usable, blurred, dark = (chart.colour(name) for name in ("usable", "blurred", "too_dark"))
    assert fills == [usable] * 10 + [blurred] * 4 + [usable] * 8 + [dark] * 3
    assert accepted_page.evaluate("document.querySelectorAll('#lanes .ring').length") == 8


def test_pieces_follow_each_other_without_a_gap(accepted_page: Opened) -> None:
    edges = accepted_page.evaluate(
        "[...document.querySelectorAll('#lanes rect')].map((r) => [r.x.baseVal.value, r.width.baseVal.value])"
    )
    assert isinstance(edges, list)
    ends = [x + width for x, width in edges[:-1]]
    assert ends == pytest.approx([x for x, _ in edges[1:]], abs=0.2)
    assert edges[-1][0] + edges[-1][1] == pytest.approx(chart.WIDTH - chart.RIGHT, abs=0.2)


def test_the_pose_curve_has_two_points_a_frame_and_the_chosen_ones_are_numbered(
    accepted_page: Opened,
) -> None:
    points = accepted_page.evaluate(
        "document.querySelectorAll('#track-0 svg.chart circle:not(.ring)').length"
    )
    assert points == 2 * 25
    numbers = accepted_page.evaluate(
        "[...document.querySelectorAll('#track-0 .number')].map((text) => +text.textContent)"
    )
    assert numbers == [1, 2, 3, 4, 5, 6, 7, 8]
    length = accepted_page.evaluate("document.querySelector('#track-0 .yaw').getTotalLength()")
    assert isinstance(length, float)
    assert length > 900  # from the first frame to the last, across the figure


def test_the_chosen_images_and_the_frames_are_pictures(accepted_page: Opened, rejected_page: Opened) -> None:
    sizes = accepted_page.evaluate(
        "[...document.images].map((image) => image.complete && image.naturalWidth)"
    )
    assert sizes == [512] * 8
    for opened, boxes in ((accepted_page, 25), (rejected_page, 10)):
        drawn = opened.evaluate(
            "[...document.querySelectorAll('.strip image')].filter((i) => i.getBoundingClientRect().width > 50)"
            ".length"
        )
        assert drawn == 25
        assert opened.evaluate("document.querySelectorAll('.strip rect').length") == boxes


def test_a_box_is_drawn_where_the_face_was_seen(accepted_page: Opened) -> None:
    """The video is 128 pixels wide, and the face's box begins at its pixel 10."""
    place = accepted_page.evaluate(
        "(() => { const svg = document.querySelector('.strip svg').getBoundingClientRect();"
        " const box = document.querySelector('.strip rect').getBoundingClientRect();"
        " return ((box.left + box.right) / 2 - svg.left) / svg.width; })()"
    )
    assert place == pytest.approx(20 / 128, abs=0.01)


def test_frames_without_a_face_are_grey_in_the_first_lane(rejected_page: Opened) -> None:
    fills = rejected_page.evaluate(
        "[...document.querySelectorAll('#lanes rect')].map((piece) => piece.getAttribute('fill'))"
    )
    nothing, faces, small = (chart.colour(name) for name in ("no_face", "faces", "crop_too_small"))
    assert fills == [nothing] * 3 + [faces] * 10 + [nothing] * 12 + [small] * 10


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_the_page_never_scrolls_sideways(accepted_page: Opened, width: int) -> None:
    accepted_page.page.set_viewport_size({"width": width, "height": 900})  # type: ignore[attr-defined]
    assert accepted_page.evaluate("document.documentElement.scrollWidth") == width
