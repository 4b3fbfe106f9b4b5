"""Other tools read the dataset as README.md documents; its examples run unchanged."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shards_factory as factory
from pydantic import BaseModel

from faces.crop import Square
from faces.pose import rotation_from_pose
from faces.types import HeadPose
from shards.layout import FIELDS, IMAGES, INDEX, SHARD_PATTERN, TABLE_PATTERN, TOMBSTONES, VIDEOS
from shards.metadata import DIGEST_FIELD, DatasetMetadata
from shards.schema import (
    FAILURES,
    FORMAT_VERSION,
    FromSource,
    IdentityRecord,
    ImageRecord,
    Reason,
    Split,
    Status,
)
from shards.tables import SCHEMAS
from shards.writer import write_dataset

README = (Path(__file__).parents[2] / "shards" / "README.md").read_text(encoding="utf-8")
FIRST_TRAIN = factory.samples()[1]


def section(title: str) -> str:
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", README, re.MULTILINE | re.DOTALL)
    assert match is not None, title
    return match[2]


def blocks(title: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)


def table(title: str) -> dict[str, str]:
    """First column -> second column of a section's table."""
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \| .*\|$", section(title), re.MULTILINE))


def run(title: str, number: int = 0) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(blocks(title, "python")[number], namespace)  # noqa: S102 - our own README
    return namespace


@pytest.fixture
def mfhq(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder has the dataset as `mfhq`."""
    (tmp_path / "mfhq").symlink_to(pristine)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mfhq"


@pytest.fixture
def hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's cache is in the test's folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_tar_lists_and_extracts_a_shard(mfhq: Path) -> None:
    (script,) = blocks("tar", "sh")
    listed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        check=True,
        capture_output=True,
        text=True,
        cwd=mfhq.parent,
    )
    assert listed.stderr == ""
    keys = ("clip-a_0", "clip-b_0")
    assert listed.stdout.splitlines() == [f"{key}.{field}" for key in keys for field in FIELDS]
    extracted = mfhq.parent / "extracted"
    assert len(list(extracted.iterdir())) == 2 * len(FIELDS)
    assert (extracted / "clip-a_0.3.jpg").read_bytes() == FIRST_TRAIN.images[3]
    assert (extracted / "clip-a_0.3.jpg").stat().st_mode & 0o777 == 0o644
    assert (extracted / "clip-a_0.3.jpg").stat().st_mtime == 0


def test_the_webdataset_library_groups_the_members_of_a_sample(mfhq: Path) -> None:
    seen = run("webdataset")
    sample = seen["sample"]
    assert sample["__key__"] == sample["json"]["key"] == seen["record"]["key"] == "clip-d_0"
    assert {key for key in sample if not key.startswith("__")} == set(FIELDS)
    assert [image.size for image in seen["images"]] == [(512, 512)] * 8
    assert all(np.unique(np.asarray(mask)).tolist() == [0, 255] for mask in seen["masks"])


def test_the_webdataset_library_shares_a_dataset_out_to_processes_and_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [factory.sample(f"a{number:02}_0", Split.TRAIN) for number in range(12)]
    limits = factory.ShardLimits(max_samples=1)
    write_dataset(tmp_path / "mfhq", samples, factory.videos(samples), factory.PROVENANCE, limits)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")

    def epoch(number: int, workers: int) -> list[str]:
        found: list[str] = []
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            seen = run("webdataset", 1)
            batches = list(seen["loader"](number, workers))
            assert {pixels.shape[1:] for _, pixels in batches} == {(8, 224, 224, 3)}
            found += [key for keys, _ in batches for key in keys]
            assert len(found) == (6 if rank == "0" else 12)
        return found

    first, second, third = epoch(0, workers=0), epoch(1, workers=0), epoch(0, workers=2)
    assert sorted(first) == sorted(second) == sorted(third) == [sample.record.key for sample in samples]
    assert first != second


@pytest.mark.usefixtures("hugging_face")
def test_hugging_face_streams_the_dataset(mfhq: Path) -> None:
    seen = run("Hugging Face datasets")
    assert seen["first"]["__key__"] == "clip-a_0"
    assert (seen["image"].size, seen["image"].mode) == ((512, 512), "RGB")
    assert seen["person"] == "p-clip-a"
    assert len(list(seen["streamed"]["train"])) == 4
    assert len(list(seen["streamed"]["test"])) == 1


@pytest.mark.usefixtures("hugging_face")
@pytest.mark.parametrize("held_out", [True, False])
def test_hugging_face_loads_a_dataset_with_first_samples_of_null_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: bool
) -> None:
    samples = [_bare(factory.sample(f"a{number}_0", Split.TRAIN)) for number in range(6)]
    samples.append(factory.sample("b0_0", Split.TRAIN))
    if held_out:
        samples.insert(0, factory.sample("c0_0", Split.TEST))
    write_dataset(tmp_path / "mfhq", samples, factory.videos(samples), factory.PROVENANCE, factory.LIMITS)
    monkeypatch.chdir(tmp_path)
    streamed = run("Hugging Face datasets")["streamed"]
    assert set(streamed) == ({"train", "test"} if held_out else {"train"})
    loaded = run("Hugging Face datasets", 1)["dataset"]
    assert set(loaded) == set(streamed)
    records = [row["json"] for row in loaded["train"]]
    assert [record["origin"] for record in records] == [None] * 6 + ["https://example.org/b0"]
    assert [record["embedding"] for record in records] == [None] * 6 + [samples[-1].record.embedding]
    assert [record["attributes"] for record in records[5:]] == [
        [],
        [{"name": "camera", "value": "front"}, {"name": "hat", "value": "no"}],
    ]
    assert (records[6]["span_s"], records[6]["annotated_box"]) == ([1.5, 11.5], [0.25, 0.1, 0.75, 1.02])
    assert [record["images"][0]["identity_cosine"] for record in records[5:]] == [None, 0.83]
    assert loaded["train"][0]["7.mask.png"].size == (512, 512)


def _bare(sample: factory.Sample) -> factory.Sample:
    """The sample of a source without any optional field, stored without embeddings."""
    images = [image.model_copy(update={"identity_cosine": None}) for image in sample.record.images]
    unknown = FromSource(source=sample.record.source).model_dump()
    update = {**unknown, "embedder": None, "embedding": None, "images": images}
    return replace(sample, record=sample.record.model_copy(update=update))


def test_a_range_read_gives_what_the_tar_holds(mfhq: Path) -> None:
    seen = run("Range reads")
    (mfhq.parent / "one.tar").write_bytes(seen["sample"])
    taken = factory.Shard.take_apart(mfhq.parent / "one.tar")
    expected = factory.samples()[0]
    assert taken.members == [(f"clip-b_1.{field}", data) for field, data in expected.members()]
    assert seen["member"]["name"] == "clip-b_1.3.jpg"
    assert seen["data"] == expected.images[3]
    assert seen["image"].size == (512, 512)


def test_the_package_reads_and_verifies(mfhq: Path) -> None:
    seen = run("This package")
    assert seen["keys"] == list(factory.TRAIN_KEYS)
    assert seen["sample"] == FIRST_TRAIN
    assert seen["poses"] == [image.pose for image in FIRST_TRAIN.record.images]
    assert seen["outcomes"]["clip-noface"] is Status.REJECTED
    assert seen["findings"] == []


@pytest.mark.parametrize("angles", [(30, 0, 0), (0, 20, 0), (0, 0, 15), (-40, 12, 25), (70, -30, -60)])
def test_the_head_pose_of_the_format_is_that_of_the_faces(angles: tuple[float, float, float]) -> None:
    rotation: Callable[..., np.ndarray] = run("Head pose")["rotation"]
    np.testing.assert_allclose(rotation(*angles), rotation_from_pose(HeadPose(*angles)), atol=1e-12)


def test_the_signs_of_the_head_pose_are_those_seen_in_the_image() -> None:
    rotation: Callable[..., np.ndarray] = run("Head pose")["rotation"]
    nose, top = np.array([0, 0, 1]), np.array([0, 1, 0])
    assert (rotation(30, 0, 0) @ nose)[0] > 0.4
    assert (rotation(0, 30, 0) @ nose)[1] > 0.4
    assert (rotation(0, 0, 30) @ top)[0] > 0.4


def test_the_crop_coordinates_of_the_format_are_those_of_the_pipeline() -> None:
    assert "x_crop = (x_source - x0 + 0.5) · 512 / side - 0.5" in section("Coordinates")
    points = np.array([[100.0, 50.0], [612.5, 300.25]], np.float32)
    x0, y0, side = 90, 40, 640
    expected = (points - (x0, y0) + 0.5) * 512 / side - 0.5
    np.testing.assert_allclose(Square(x0, y0, side).to_crop(points), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("title", "model"),
    [("Identity", IdentityRecord), ("Image", ImageRecord), ("dataset.json", DatasetMetadata)],
)
def test_every_json_field_is_documented(title: str, model: type[BaseModel]) -> None:
    extra = {DIGEST_FIELD} if model is DatasetMetadata else set()
    assert set(table(title)) == set(model.model_fields) | extra


@pytest.mark.parametrize(
    ("title", "schema"),
    [
        ("The index table", SCHEMAS[INDEX]),
        ("The images table", SCHEMAS[IMAGES]),
        ("The videos table", SCHEMAS[VIDEOS]),
        ("The tombstones table", SCHEMAS[TOMBSTONES]),
    ],
)
def test_every_column_is_documented_with_its_type(title: str, schema: pa.Schema) -> None:
    expected = {field.name: str(field.type) + " or null" * field.nullable for field in schema}
    assert table(title) == expected


def test_every_reason_is_documented_under_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (failed|rejected) \|", section("Status and reasons"), re.MULTILINE)
    assert rows == [(reason, "failed" if reason in FAILURES else "rejected") for reason in Reason]


def test_the_version_and_the_shard_names_are_those_of_the_code() -> None:
    assert README.startswith(f"# The MFHQ dataset format, version {FORMAT_VERSION}\n")
    assert f"`{SHARD_PATTERN.replace('?:', '')}`" in README
    assert f"`{TABLE_PATTERN}`" in README
