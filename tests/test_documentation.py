"""The documentation: links lead to files and headings that exist, and README lists every page."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "shards/*.md", "workflows/*/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
IMAGE_BYTES = 250_000


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [target for target in LINK.findall(text) if "://" not in target]


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: str) -> None:
    path = ROOT / page
    for target in links(path):
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page}: {target}"


def test_readme_lists_every_page_of_the_documentation() -> None:
    linked = {target.partition("#")[0] for target in links(ROOT / "README.md")}
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= linked


def test_readme_lists_every_directory_of_the_repository() -> None:
    (tree,) = re.findall(
        r"^## The repository\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.M | re.S
    )
    listed = {line.split("/")[0] for line in tree.splitlines()}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    assert listed == {*packages, "workflows", "examples", "benchmarks", "scripts", "docs", "tests"}
    assert all((ROOT / name).is_dir() for name in listed)


def test_pictures_are_small_and_shown() -> None:
    shown = {target for page in PAGES for target in links(ROOT / page)}
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < IMAGE_BYTES, picture.name
        assert any(target.endswith(f"images/{picture.name}") for target in shown), picture.name
