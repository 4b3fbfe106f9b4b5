"""The page of an evaluation in a browser without any network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from evaluations import QUICK, evaluated, replace_images, write_flow_run
from rendered_people import PEOPLE, write_people

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def test_the_page_shows_tables_charts_and_people_without_requests_or_errors(tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no `chromium` on the PATH")
    from playwright.sync_api import sync_playwright

    run = write_flow_run(tmp_path / "run")
    twin = shutil.copytree(run, tmp_path / "twin")
    data = write_people(tmp_path / "shards", PEOPLE)
    few = (run, twin, "--data", data, "--output", tmp_path / "out", *QUICK)
    evaluated(*few)
    replace_images(
        tmp_path / "out", data, "0-run", lambda identity, inputs, _: identity.images_KSSC[inputs[0]]
    )
    evaluated(*few, "--page-people", 4)
    page_file = tmp_path / "out" / "index.html"
    requests: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium, args=list(FLAGS)
        )
        page = context.new_page()
        page.set_viewport_size({"width": 1280, "height": 900})
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri())
        widths = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
        people = page.evaluate("document.querySelectorAll('.person').length")
        titles = page.evaluate("[...document.querySelectorAll('h2')].map((title) => title.textContent)")
        charts = page.evaluate("document.querySelectorAll('.charts svg').length")
        circles = page.evaluate("document.querySelectorAll('.charts circle').length")
        scrolls = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        page.set_viewport_size({"width": 390, "height": 800})
        scrolls_on_a_phone = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        context.close()
    assert errors == []
    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert titles == ["Identity by sface", "Faces and pose", "Comparisons", "People"]
    assert people == 4
    # 5 inputs and 3 targets, and 3 images from 1 and from 5 inputs by both sources.
    assert widths == [112] * (4 * (5 + 3 + 2 * 2 * 3))
    assert charts == 3
    assert circles >= 8
    assert not scrolls
    assert not scrolls_on_a_phone
