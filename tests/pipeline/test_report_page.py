"""The report as a file: complete, escaped, the same for the same data, and readable for a tiny dataset."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import report_factory as factory

from pipeline.report.build import write_report
from pipeline.report.damage import damage
from pipeline.report.page import clip, degrees, figure, script_safe_json, share
from shards.metadata import DatasetError
from shards.schema import Reason


class Elements(HTMLParser):
    """Start tags, and the text of the page without its scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._raw = False
        self._texts: list[str] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self._texts))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in {"script", "style"}

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self._texts.append(data)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report") / "mfhq"
    factory.build(root)
    write_report(root, factory.seconds())
    return root


@pytest.fixture(scope="module")
def html(root: Path) -> str:
    return (root / "report" / "index.html").read_text(encoding="utf-8")


def figures(html: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    loaded: dict[str, object] = json.loads(found[1])
    return loaded


def test_names_from_the_data_never_become_markup(html: str) -> None:
    elements = Elements(html)
    assert factory.HOSTILE in elements.text
    assert [attrs.get("type") for tag, attrs in elements.tags if tag == "script"] == [
        "application/json",
        None,
        None,
    ]
    assert not [attrs for _, attrs in elements.tags if any(name.startswith("on") for name in attrs)]
    pictures = [attrs["src"] or "" for tag, attrs in elements.tags if tag == "img"]
    assert len(pictures) == 8 * (12 + 12) + 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in pictures)


def test_nothing_points_outside(html: str) -> None:
    elements = Elements(html)
    addresses = [attrs[name] for _, attrs in elements.tags for name in ("src", "href") if attrs.get(name)]
    assert all(re.match(r"#[a-z]|data:|not_accepted\.tsv$", address or "") for address in addresses)
    policy = next(attrs for tag, attrs in elements.tags if attrs.get("http-equiv"))["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_every_figure_has_its_place_and_a_description(html: str) -> None:
    places = {
        attrs["id"]: attrs["aria-label"] for _, attrs in Elements(html).tags if attrs.get("class") == "plot"
    }
    assert (
        set(places)
        == set(figures(html))
        == {
            *("fig-funnel", "fig-pose", "fig-pose-distance", "fig-pose-range"),
            *("fig-quality", "fig-crop-size", "fig-face-size", "fig-eyes", "fig-cosine"),
            *("fig-time-steps", "fig-time-slowest"),
        }
    )
    assert all(places.values())


def test_gates_are_compared_and_none_is_called_the_papers(html: str) -> None:
    text = Elements(html).text
    assert "box none 18 18" in text
    assert "448 12 (66.7%) 0 (0.0%) 512" in text
    assert (
        "does not claim that any of these columns is it. This dataset was built with faces.min_crop_px=448."
        in text
    )
    assert "the paper's least" not in html


def test_clips_without_a_file_are_counted_by_source_and_kept_for_the_next_report(tmp_path: Path) -> None:
    factory.build(tmp_path, accepted=2, lost={Reason.UNREADABLE: 1})
    missing = {"celebv-hq": ["b_1", "a_2"]}
    page = write_report(tmp_path, missing=missing).read_text(encoding="utf-8")
    text = Elements(page).text
    assert "2 annotated clips have no file and are not counted among the videos." in text
    assert "not_accepted.tsv lists all of these, one a line." in text
    assert "failed clips without a file hours" in text
    assert "celebv-hq 1 1 (100.0%) 0 0 2 0.00" in text
    assert "vfhq 2 1 (50.0%) 0 1 0 0.00" in text
    listed = (tmp_path / "report" / "not_accepted.tsv").read_bytes()
    lines = listed.decode().splitlines()
    assert lines[0] == "status\treason\tsource\tvideo_id\turi\tdetail"
    assert [line.split("\t")[:4] for line in lines[1:]] == [
        ["failed", "unreadable", "vfhq", "lost-unreadable-0"],
        ["missing", "", "celebv-hq", "celebv-hq/a_2"],
        ["missing", "", "celebv-hq", "celebv-hq/b_1"],
    ]

    assert write_report(tmp_path).read_text(encoding="utf-8") == page
    assert (tmp_path / "report" / "not_accepted.tsv").read_bytes() == listed


def test_without_missing_clips_nothing_speaks_of_them(html: str) -> None:
    assert "clips without a file" not in html
    assert '<a href="not_accepted.tsv">' in html


def test_a_list_that_cannot_be_read_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    factory.build(tmp_path, accepted=1, lost={})
    path = tmp_path / "report" / "not_accepted.tsv"
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError) as caught:
        write_report(tmp_path)
    assert str(caught.value) == (
        f"{path} cannot be read: not a text in UTF-8. Give not_accepted.tsv, or lines of it. "
        "Without the file, it is written anew"
    )


def test_licenses_that_forbid_commercial_use_are_named(html: str) -> None:
    text = Elements(html).text
    assert "Non-commercial research only." in text
    assert "do not allow commercial use: scrfd_10g, arcface_r50, topiq_nr-face" in text
    assert "ab" * 32 in text


def test_the_page_is_of_the_promised_size(html: str) -> None:
    assert 4_000_000 < len(html.encode()) < 10_000_000


def test_equal_data_gives_equal_bytes_and_kept_timings_are_used_again(root: Path, html: str) -> None:
    assert write_report(root).read_text(encoding="utf-8") == html
    assert "fig-time-steps" in figures(html)


def test_without_timings_the_page_has_a_note(tmp_path: Path) -> None:
    factory.build(tmp_path, accepted=1, lost={})
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Timings are not known" in html
    assert "None: every video was accepted." in html
    assert not (tmp_path / "report" / "timings.parquet").exists()


@pytest.mark.parametrize(
    "lost", [{Reason.NO_FACE: 3, Reason.UNREADABLE: 1}, {}], ids=["all lost", "no videos"]
)
def test_a_dataset_without_identities_has_a_report(tmp_path: Path, lost: dict[Reason, int]) -> None:
    factory.build(tmp_path, accepted=0, lost=lost)
    html = write_report(tmp_path, []).read_text(encoding="utf-8")
    assert set(figures(html)) == ({"fig-funnel"} if lost else set())
    assert html.count("No identity was accepted") == 5


def test_a_sample_that_cannot_be_read_is_named_in_its_place(tmp_path: Path) -> None:
    factory.build(tmp_path, accepted=2, lost={})
    shard = tmp_path / "train" / "mfhq-train-000000-g0000.tar"
    data = bytearray(shard.read_bytes())
    data[5000] ^= 1
    shard.write_bytes(data)
    text = Elements(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "key_001 could not be read: train/mfhq-train-000000-g0000.tar: member key_001" in text
    assert "key_000 · person_000" in text


def test_a_sample_that_the_index_does_not_list_is_named_and_is_damage(tmp_path: Path) -> None:
    factory.build(tmp_path, accepted=2, lost={})
    path = tmp_path / "index-g0000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 1), path)
    text = Elements(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "key_001 could not be read: the index does not list it" in text
    assert "index-g0000.parquet: sample key_001 is not listed" in damage(tmp_path)


def test_a_directory_without_a_finished_dataset_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no dataset\.json"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_json_cannot_end_the_script_that_holds_it() -> None:
    value = {"a": "</script><!-- &amp;"}
    text = script_safe_json(value)
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


def test_numbers_read_well() -> None:
    assert [share(1, 3), share(1, 100_000), share(0, 5), share(0, 0)] == ["33.3%", "0.001%", "0.0%", "\u2013"]
    assert [figure(0.3), figure(64.0), figure(99.96), figure(1234.5)] == ["0.300", "64.0", "100", "1,234"]
    assert [degrees(-0.4), degrees(12.5), degrees(-7.9)] == ["0°", "+12°", "\u22128°"]
    assert clip("a" * 301) == "a" * 300 + " …"
