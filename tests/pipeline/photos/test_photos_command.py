"""`mfhq photos`, from directories of photographs to a verified dataset."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photograph_files import make_person, package_image, png_that_claims, portrait, save
from PIL import Image as Pillow
from seaweed import S3Server
from typer.testing import CliRunner

from pipeline.cli import app
from shards.digests import directory_sha256
from shards.reader import Dataset
from shards.schema import IdentityRecord, Reason, Split, Status, VideoOutcome
from shards.verify import verify

ALONE = "run.processes=1"
"""In this process, so that networks are loaded once for all tests."""


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


def photos(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["photos", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def made(*arguments: object) -> str:
    code, out, err = photos(*arguments)
    assert code == 0, err
    return out


def listed(output: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The list of photographs, by person and name."""
    with (output / "report" / "photographs.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return {(row["person"], row["photograph"]): row for row in rows}


def records(root: Path, split: Split) -> list[IdentityRecord]:
    return [sample.record for sample in Dataset.open(root).samples(split)]


def rows(root: Path) -> dict[str, VideoOutcome]:
    return {video.uri: video for video in Dataset.open(root).videos()}


def content(root: Path) -> dict[str, bytes]:
    """The canonical files."""
    names = [*Dataset.open(root).metadata.files(), "dataset.json"]
    return {name: (root / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people with enough photographs, one with too few, one without any; and whatever else can go wrong."""
    folder = tmp_path_factory.mktemp("people")
    anna = make_person(folder / "Anna Ä", "astronaut", 9)
    make_person(folder / "berta", "group-2", 8)
    make_person(folder / "clara", "group-1", 17)
    make_person(folder / "dora", "group-3", 5)
    (folder / "empty").mkdir()
    (anna / "text.jpg").write_text("no picture")
    (anna / "nothing.jpg").touch()
    (anna / "short.jpg").write_bytes((anna / "00.jpg").read_bytes()[:4000])
    (anna / "bomb.png").write_bytes(png_that_claims(20_000, 20_000))
    (anna / "lost.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(anna / "pipe.jpg")
    shutil.copyfile(anna / "00.jpg", anna / "copy.jpg")
    save(anna / "wall.png", np.full((200, 200, 3), 180, np.uint8))
    save(anna / "group.jpg", package_image("group-1"))
    save(anna / "small.jpg", portrait("astronaut")[::4, ::4].copy())
    save(folder / "berta" / "stranger.jpg", portrait("astronaut"))
    (folder / "berta" / "notes.txt").write_text("not a photograph")
    return folder


@pytest.fixture(scope="module")
def dataset(people: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The dataset of these people, and what the command printed."""
    output = tmp_path_factory.mktemp("output") / "mfhq"
    return output, made(people, output, "split.test_people=1", "source.license=CC0", ALONE)


def test_every_eight_photographs_become_an_identity_of_a_valid_dataset(dataset: tuple[Path, str]) -> None:
    output, printed = dataset
    assert verify(output) == []
    train, test = records(output, Split.TRAIN), records(output, Split.TEST)
    assert Counter(record.person_id for record in [*train, *test]) == {"Anna Ä": 1, "berta": 1, "clara": 2}
    assert len({record.person_id for record in test}) == 1
    assert {record.person_id for record in test}.isdisjoint(record.person_id for record in train)
    assert {record.license for record in [*train, *test]} == {"CC0"}
    assert "people      5: 3 accepted  2 rejected  0 failed" in printed
    assert "identities  4: " in printed
    assert "photographs/s in 1 process" in printed
    page = (output / "report" / "index.html").read_text(encoding="utf-8")
    assert "taken from photographs" in page
    assert "<code>photographs.tsv</code> has the outcome of each" in page


def test_every_photograph_has_one_outcome_and_one_reason(dataset: tuple[Path, str], people: Path) -> None:
    output, printed = dataset
    found = listed(output)
    files = {(path.parent.name, path.name) for path in people.glob("*/*") if path.suffix != ".txt"}
    assert found.keys() == files
    reasons = {
        name: (row["status"], row["reason"]) for (person, name), row in found.items() if person == "Anna Ä"
    }
    photographs = {reasons.pop(f"{number:02d}.jpg") for number in range(9)}
    assert photographs == {("used", ""), ("spare", "")}
    assert reasons == {
        "text.jpg": ("failed", "unreadable"),
        "nothing.jpg": ("failed", "empty_file"),
        "short.jpg": ("failed", "decode_error"),
        "bomb.png": ("rejected", "frame_too_large"),
        "lost.jpg": ("failed", "inaccessible"),
        "pipe.jpg": ("failed", "not_a_regular_file"),
        "copy.jpg": ("rejected", "duplicate_photograph"),
        "wall.png": ("rejected", "no_face"),
        "group.jpg": ("rejected", "several_faces"),
        "small.jpg": ("rejected", "crop_too_small"),
    }
    assert found["Anna Ä", "copy.jpg"]["detail"] == "same bytes as 00.jpg"
    assert found["berta", "stranger.jpg"]["reason"] == "other_identity"
    assert {found["dora", f"{number:02d}.jpg"]["reason"] for number in range(5)} == {"too_few_photographs"}
    statuses = Counter(row["status"] for row in found.values())
    assert statuses["used"] == 32
    assert f"{statuses['rejected']} rejected" in printed
    assert all((row["key"] != "") == (row["status"] == "used") for row in found.values())


def test_rows_of_people_add_up(dataset: tuple[Path, str], people: Path) -> None:
    output, _ = dataset
    found = rows(output)
    assert {uri: row.status for uri, row in found.items()} == {
        "Anna Ä": Status.ACCEPTED,
        "berta": Status.ACCEPTED,
        "clara": Status.ACCEPTED,
        "dora": Status.REJECTED,
        "empty": Status.REJECTED,
    }
    assert found["dora"].reason == Reason.TOO_FEW_PHOTOGRAPHS
    assert found["dora"].detail == "5 usable photographs of 5, 8 needed"
    assert found["empty"].detail == "0 usable photographs of 0, 8 needed"
    assert found["clara"].sha256 == directory_sha256(people / "clara")
    for row in found.values():
        usable = sum(track.usable_frames for track in row.tracks)
        assert row.faces_seen == usable + sum(row.frame_reasons.values()), row.uri
        assert row.frames == len([path for path in (people / row.uri).iterdir() if path.suffix != ".txt"])


def test_an_image_can_be_traced_to_its_photograph(dataset: tuple[Path, str], people: Path) -> None:
    output, _ = dataset
    names = sorted(path.name for path in (people / "clara").iterdir())
    found = listed(output)
    for record in records(output, Split.TRAIN) + records(output, Split.TEST):
        if record.person_id == "clara":
            frames = [image.frame for image in record.images]
            assert frames == sorted(set(frames))
            assert {found["clara", names[frame]]["key"] for frame in frames} == {record.key}


def test_the_image_is_the_square_of_the_photograph_that_the_record_names(
    dataset: tuple[Path, str], people: Path
) -> None:
    output, _ = dataset
    root = Dataset.open(output)
    sample = next(s for split in Split for s in root.samples(split) if s.record.person_id == "clara")
    names = sorted(path.name for path in (people / "clara").iterdir())
    image = sample.record.images[0]
    x0, y0, side = (int(value) for value in image.crop_px)
    photograph = Pillow.open(people / "clara" / names[image.frame])
    square = photograph.crop((x0, y0, x0 + side, y0 + side)).resize((512, 512), Pillow.Resampling.BICUBIC)
    stored = Pillow.open(io.BytesIO(sample.images[0]))
    assert np.abs(np.asarray(square, int) - np.asarray(stored, int)).mean() < 3


@pytest.mark.slow
def test_the_same_people_give_the_same_bytes_in_several_processes(
    dataset: tuple[Path, str], people: Path, tmp_path: Path
) -> None:
    output, _ = dataset
    made(people, tmp_path / "again", "split.test_people=1", "source.license=CC0", "run.processes=2")
    assert content(tmp_path / "again") == content(output)


def test_the_same_command_again_curates_and_writes_nothing(dataset: tuple[Path, str], people: Path) -> None:
    output, _ = dataset
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.tar")}
    code, printed, messages = photos(people, output, "split.test_people=1", "source.license=CC0", ALONE)
    assert code == 0
    assert "5 of 5 people are finished by an earlier run" in messages
    assert "photographs/s" not in printed
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.tar")} == before


@pytest.mark.slow
def test_another_split_and_a_new_photograph_curate_only_what_they_must(people: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for name in ("berta", "clara"):
        shutil.copytree(people / name, mine / name)
    output = tmp_path / "output"
    made(mine, output, "split.test_people=0", ALONE)
    assert records(output, Split.TEST) == []
    code, _, messages = photos(mine, output, "split.test_people=1", ALONE)
    assert code == 1
    assert "holds a build of another configuration" in messages
    assert "split.test_people: 0 -> 1" in messages
    assert "0 of 2 people are then curated again" in messages
    save(mine / "berta" / "99.jpg", portrait("group-2", shift=2, brightness=40))
    code, _, messages = photos(mine, output, "split.test_people=1", "--replace", ALONE)
    assert code == 0, messages
    assert "1 of 2 people are finished by an earlier run" in messages
    assert len({record.person_id for record in records(output, Split.TEST)}) == 1
    assert verify(output) == []


@pytest.mark.slow
def test_people_with_too_few_photographs_are_filled_up_only_when_asked(people: Path, tmp_path: Path) -> None:
    shutil.copytree(people / "dora", tmp_path / "few" / "dora")
    code, printed, messages = photos(tmp_path / "few", tmp_path / "none", ALONE)
    assert code == 0
    assert "identities  0" in printed
    assert "warning: no person has an identity" in messages
    workflow = tmp_path / "photos.yaml"
    workflow.write_text("people: {fill_from: 9}\nsplit: {test_people: 0}\n")
    code, _, messages = photos(tmp_path / "few", tmp_path / "filled", "--workflow", workflow, ALONE)
    assert code == 1
    assert f"({workflow} and the overrides) is invalid:\n  people.fill_from: expected " in messages
    made(tmp_path / "few", tmp_path / "filled", "--workflow", workflow, "people.fill_from=4", ALONE)
    assert verify(tmp_path / "filled") == []
    (record,) = records(tmp_path / "filled", Split.TRAIN)
    assert [image.frame % 5 for image in record.images] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert record.images[0].sha256 == record.images[5].sha256


@pytest.mark.slow
def test_a_mirror_shows_other_people_to_train_on_and_nobody_who_is_held_out(
    people: Path, tmp_path: Path
) -> None:
    for name in ("berta", "clara"):
        shutil.copytree(people / name, tmp_path / "two" / name)
    made(tmp_path / "two", tmp_path / "out", "people.mirrored=true", "split.test_people=1", ALONE)
    assert verify(tmp_path / "out") == []
    (held_out,) = {record.person_id for record in records(tmp_path / "out", Split.TEST)}
    seen = {record.person_id: record for record in records(tmp_path / "out", Split.TRAIN)}
    (name,) = {"berta", "clara"} - {held_out}
    assert set(seen) == {name, f"{name}/mirrored"}
    assert {record.source_person for record in seen.values()} == {name}
    images, turned = (
        {image.frame: image for image in seen[key].images} for key in (name, f"{name}/mirrored")
    )
    both = images.keys() & turned.keys()
    assert both
    for frame in both:
        width = Pillow.open(sorted((tmp_path / "two" / name).glob("*.jpg"))[frame]).width
        assert turned[frame].box_px[0] == pytest.approx(width - images[frame].box_px[2], abs=8)
        assert turned[frame].pose.yaw == pytest.approx(-images[frame].pose.yaw, abs=6)


def test_an_aligned_face_is_stored_whole(people: Path, tmp_path: Path) -> None:
    from faces.align import align_112
    from faces.profiles import load_detector
    from faces.registry import load_weights

    detector = load_detector("yunet", load_weights(("yunet",), None))
    for number, path in enumerate(sorted((people / "berta").glob("0*.jpg"))):
        image = np.asarray(Pillow.open(path))
        (face, *_) = detector.detect(image)
        tight = align_112(image, face.keypoints)[:100, 6:106].copy()
        save(tmp_path / "crops" / "berta" / f"{number}.png", tight)
    made(tmp_path / "crops", tmp_path / "out", "--aligned", "split.test_people=0", ALONE)
    assert verify(tmp_path / "out") == []
    (record,) = records(tmp_path / "out", Split.TRAIN)
    assert {image.crop_px for image in record.images} == {(0, 0, 100)}
    faces = Dataset.open(tmp_path / "out").metadata.provenance.config["faces"]
    assert isinstance(faces, dict)
    assert faces["crop_scale"] is None  # whatever cut them
    assert min(image.identity_cosine or 0 for image in record.images) > 0.9
    # The chin is outside, which is a fault of a photograph, and none of a face that was cut out.
    made(tmp_path / "crops", tmp_path / "cut", "split.test_people=0", ALONE)
    assert {row["reason"] for row in listed(tmp_path / "cut").values()} == {"face_cut_off"}


def test_the_person_in_the_middle_of_a_group_is_taken_when_asked(people: Path, tmp_path: Path) -> None:
    group = package_image("group-1")
    for number in range(8):
        # The woman third from the left is in the middle; her neighbours are as large.
        save(tmp_path / "sets" / "group-3" / f"{number}.jpg", group[80:600, 180 + number : 860 + number])
    made(tmp_path / "sets", tmp_path / "out", "source.subject=central", "split.test_people=0", ALONE)
    (record,) = records(tmp_path / "out", Split.TRAIN)
    (row,) = rows(tmp_path / "out").values()
    assert row.frame_reasons[Reason.BYSTANDER] >= 8
    middle = (record.images[0].box_px[0] + record.images[0].box_px[2]) / 2
    assert abs(middle - 340) < 60
    assert min(image.identity_cosine or 0 for image in record.images) > 0.9


@pytest.mark.slow
def test_photographs_that_failed_are_tried_again_on_request(people: Path, tmp_path: Path) -> None:
    shutil.copytree(people / "berta", tmp_path / "mine" / "berta")
    shutil.copytree(people / "clara", tmp_path / "mine" / "clara")
    (tmp_path / "mine" / "berta" / "broken.jpg").write_bytes(b"no picture")
    arguments = (tmp_path / "mine", tmp_path / "out", "split.test_people=1", ALONE)
    made(*arguments)
    code, _, messages = photos(*arguments, "--retry-failed")
    assert code == 0
    assert "1 of 2 people are finished by an earlier run" in messages


def test_files_of_others_are_not_written_over(people: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    code, _, message = photos(people, tmp_path, ALONE)
    assert code == 1
    assert "holds files that no build left there, such as mine.txt" in message
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "dataset.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split.test_people=4"], "split.test_people=4: * has 3 people with 8 photographs or more"),
        (["faces.crop_scal=1"], "faces.crop_scal: no such key; did you mean faces.crop_scale?"),
        (["models.embedder=yunet"], "models.embedder=yunet is a yunet; expected a arcface or sface"),
        (["models.detector=scrfd_10g"], "Then give their directory as run.models_dir=DIR."),
    ],
)
def test_what_cannot_be_done_is_one_message_before_any_work(
    people: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, _, said = photos(people, tmp_path / "out", *arguments, ALONE)
    assert code == 1
    for part in message.split("*"):
        assert part.strip() in said
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_the_output_may_not_be_inside_the_photographs(people: Path) -> None:
    code, _, message = photos(people, people / "out")
    assert code == 1
    assert "is inside source.path" in message


@pytest.mark.slow
@pytest.mark.usefixtures("credentials")
def test_photographs_and_dataset_may_be_in_an_object_store(
    s3: S3Server, people: Path, tmp_path: Path
) -> None:
    for name in ("berta", "clara"):
        shutil.copytree(people / name, tmp_path / "two" / name)
    (tmp_path / "two" / "berta" / "empty.jpg").touch()
    source = s3.upload(tmp_path / "two", "photographs", "people")
    arguments = ("split.test_people=1", ALONE)
    made(source, "s3://photographs/mfhq", *arguments)
    made(tmp_path / "two", tmp_path / "here", *arguments)
    store: Any = s3.store("photographs")
    for name, data in content(tmp_path / "here").items():
        assert bytes(store.get(f"mfhq/{name}").bytes()) == data, name


@pytest.mark.slow
def test_a_run_that_was_killed_continues_and_gives_the_same_bytes(
    dataset: tuple[Path, str], people: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    arguments = ("split.test_people=1", "source.license=CC0")
    command = [
        sys.executable,
        "-c",
        "from pipeline.cli import main; main()",
        "photos",
        people,
        output,
        *arguments,
    ]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    staged = output / ".staging" / "photographs"
    end = time.monotonic() + 300
    while not list(staged.rglob("*.parquet")) and time.monotonic() < end:
        time.sleep(0.02)
    run.kill()
    run.wait()
    finished = len(list(staged.rglob("*.parquet")))
    assert finished >= 1
    assert not (output / "dataset.json").exists()
    code, _, messages = photos(people, output, *arguments, ALONE)
    assert code == 0, messages
    assert " of 5 people are finished by an earlier run" in messages
    assert content(output) == content(dataset[0])


@pytest.mark.slow
def test_labeled_faces_in_the_wild_become_a_dataset(faces_folder: Path, tmp_path: Path) -> None:
    for person in [path for path in sorted(faces_folder.iterdir()) if path.is_dir()][:4]:
        (tmp_path / "people").mkdir(exist_ok=True)
        (tmp_path / "people" / person.name).symlink_to(person.resolve())
    made(tmp_path / "people", tmp_path / "out", "source.subject=central", "split.test_people=1")
    assert verify(tmp_path / "out") == []
    photographs = sum(len(list(person.iterdir())) for person in (tmp_path / "people").iterdir())
    statuses = Counter(row["status"] for row in listed(tmp_path / "out").values())
    assert statuses.total() == photographs
    assert statuses["used"] + statuses["spare"] > 0.95 * photographs
    assert len({record.person_id for record in records(tmp_path / "out", Split.TEST)}) == 1
