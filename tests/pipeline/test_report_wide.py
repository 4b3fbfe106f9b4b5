"""The report of a large dataset: its page stays small, and its memory does not grow with the identities."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from histograms import histogram
from test_report_page import Elements, figures

from pipeline.not_accepted import COLUMNS, write_not_accepted
from pipeline.report import timings
from pipeline.report.build import write_report
from pipeline.report.content import Counts, count
from pipeline.report.distributions import column
from pipeline.report.hashed import hashes
from pipeline.report.image_counts import RANDOM_IDENTITIES, SEED
from pipeline.report.video_counts import UNACCEPTED_ROWS, video_ids
from shards.layout import VIDEOS
from shards.reader import Dataset
from shards.streamed import StreamedDataset

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from wide_dataset import SOURCES, WideDataset

FEW, MANY = 3_000, 12_000
MB = 2**20


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("few") / "mfhq"
    WideDataset(FEW).write(root)
    return root


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many") / "mfhq"
    WideDataset(MANY).write(root)
    return root


@pytest.fixture(scope="module")
def html(many: Path) -> str:
    return write_report(many).read_text(encoding="utf-8")


def counted(root: Path) -> Counts:
    dataset = StreamedDataset.open(root)
    times = timings.measure(timings.kept(root / "report" / "timings.parquet") or (), video_ids(dataset))
    write_not_accepted(root / "list.tsv", dataset.batches(VIDEOS, COLUMNS), {})
    return count(dataset, times)


def test_the_page_of_a_large_dataset_is_small_and_whole(html: str) -> None:
    assert len(html.encode()) < 20_000_000
    text = Elements(html).text
    assert "could not be read" not in text
    assert f"{UNACCEPTED_ROWS} of {MANY // 2:,} videos" in text
    assert f"Capped at {UNACCEPTED_ROWS} rows" in text
    assert "not shown, in images-g0000.parquet" in text
    assert f"of {MANY:,} identities, sampled with a fixed seed" in text
    pictures = [attrs for tag, attrs in Elements(html).tags if tag == "img"]
    assert len(pictures) <= 8 * (24 + 12) + 8 * 12 + 24 * 6


def test_the_page_does_not_grow_with_the_dataset(few: Path, html: str) -> None:
    small = write_report(few).read_text(encoding="utf-8")
    assert len(html) < 1.05 * len(small)
    assert html.count("<tr") < 1.2 * small.count("<tr")


def test_figures_of_a_large_dataset_count_every_image(many: Path, html: str) -> None:
    images = Dataset.open(many).images()
    drawn = figures(html)
    for name, of in (
        ("fig-quality", "quality"),
        ("fig-face-size", "face_px"),
        ("fig-cosine", "identity_cosine"),
    ):
        expected = histogram(column(images, of))
        assert expected is not None
        (bars,) = drawn[name]["data"]  # type: ignore[index]
        assert bars["y"] == expected.counts.tolist()
        assert sum(bars["y"]) == 8 * MANY
    persons = set(images["person_id"].to_pylist())
    assert f'id="key-persons">{len(persons):,}<' in html


def test_the_sample_is_the_one_that_all_keys_in_memory_would_give(many: Path) -> None:
    keys = np.array(Dataset.open(many).keys())
    expected = np.random.default_rng(SEED).choice(keys, RANDOM_IDENTITIES, replace=False)
    assert counted(many).images.random_keys == sorted(expected.tolist())


def test_memory_does_not_grow_with_the_dataset(few: Path, many: Path) -> None:
    """Python's and numpy's allocations, and those of Arrow, at N and 4 N.

    Growing lists would add 9,000 * 8 rows of images with 15 columns: more than 20 MB as Python's values. What the
    report keeps of each identity and video, about 60 bytes, adds less than 1 MB.
    """
    counted(few)  # imports, caches
    small, large = peaks(few), peaks(many)
    assert large[0] < small[0] + 6 * MB
    assert large[1] < small[1] + 6 * MB


def peaks(root: Path) -> tuple[int, int]:
    """Most bytes held at a time while the tables are counted: by Python and numpy, and by Arrow."""
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        counted(root)
        return tracemalloc.get_traced_memory()[1], pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


def test_timings_of_many_videos_are_measured_in_batches(many: Path) -> None:
    known = video_ids(StreamedDataset.open(many))
    found = timings.measure(timings.kept(many / "report" / "timings.parquet") or (), known)
    assert found is not None
    assert len(found.videos) == MANY
    stored = [
        row for batch in timings.kept(many / "report" / "timings.parquet") or () for row in batch.to_pylist()
    ]
    sums = np.array([sum(step["seconds"] for step in row["seconds"]) for row in stored])
    assert found.whole.total == pytest.approx(sums.sum())
    assert found.whole.median == pytest.approx(np.median(sums))
    assert found.slowest == [stored[row]["video_id"] for row in np.argsort(-sums)[: timings.SLOWEST]]
    assert set(hashes(found.slowest).tolist()) <= set(known.tolist())


def test_persons_of_several_sources_are_listed_and_capped(html: str) -> None:
    text = Elements(html).text
    assert "Persons that occur in several sources" in text
    assert all(source in text for source in SOURCES)
    assert html.count("<tr") < 1_000
