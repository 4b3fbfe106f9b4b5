"""`omniid evaluate` of the control decoder: each image is generated with the landmark image of its target."""

from __future__ import annotations

import json
import re
import shutil
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import (
    INPUTS,
    QUICK,
    called,
    evaluated,
    figures,
    identities,
    pngs,
    replace_images,
    write_control_run,
)
from PIL import Image
from rendered_people import PEOPLE, POSES, head, landmarks, write_people
from sheets import STEP_PX, tile

from faces.landmark_image import landmark_image
from shards.schema import IMAGE_SIDE
from training.errors import TrainingError
from training.evaluate.generate import Generator, Sampling, source_facts
from training.evaluate.page import THUMBNAIL_PX
from training.evaluate.protocol import roles
from training.evaluate.sheet import CAPTION_PX, GAP_PX, TILE_PX

TWO = PEOPLE[:2]
NAME = "0-control"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "shards", TWO)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_control_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def first(data: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an evaluation of the control run, and of the flow run that it started from."""
    output = tmp_path_factory.mktemp("evaluations") / "first"
    evaluated(run, run.parent / "flow", "--data", data, "--output", output, *QUICK)
    return output


@pytest.fixture
def output(first: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    shutil.copytree(first, tmp_path / "evaluation")
    return tmp_path / "evaluation"


def test_a_control_decoder_is_evaluated_in_the_poses_of_the_targets(
    first: Path, data: Path, run: Path
) -> None:
    control, flow = json.loads((first / "evaluation.json").read_bytes())["sources"]
    assert (control["name"], control["pose_conditioned"]) == (NAME, True)
    assert (flow["name"], flow["pose_conditioned"]) == ("1-flow", False)
    rows = [json.loads(line) for line in (first / "images.jsonl").read_text().splitlines()]
    seeds = {
        name: [
            (row["person"], row["inputs"], row["target"], row["seed"])
            for row in rows
            if row["source"] == name
        ]
        for name in (NAME, "1-flow")
    }
    assert len(seeds[NAME]) == 2 * 2 * 3
    assert seeds[NAME] == seeds["1-flow"]
    generator = Generator.load(
        source_facts(run, 0, INPUTS, Sampling(steps=1)), torch.device("cpu"), lambda _line: None
    )
    own = {identity.person: identity for identity in identities(data)}
    for row in rows[:3]:
        identity = own[row["person"]]
        inputs = roles(identity.key, INPUTS).inputs[: row["inputs"]]
        points = landmarks(row["person"], POSES[row["target"]]).astype(np.float32)
        image = generator.image(generator.tokens(identity, inputs), row["seed"], points)
        with Image.open(first / row["file"]) as found:
            assert np.array_equal(np.asarray(found), image)


def test_a_sheet_shows_inputs_pose_sources_and_truth_of_the_first_people(first: Path, data: Path) -> None:
    with Image.open(first / "comparison.png") as opened:
        sheet = np.asarray(opened)
    most = max(INPUTS)
    assert sheet.shape == (CAPTION_PX + 2 * STEP_PX, GAP_PX + (most + 4) * STEP_PX, 3)
    rows = [json.loads(line) for line in (first / "images.jsonl").read_text().splitlines()]
    for place, identity in enumerate(identities(data)):
        shown = roles(identity.key, INPUTS)
        target = shown.targets[0]
        expected = [identity.images_KSSC[number] for number in shown.inputs]
        expected.append(landmark_image(identity.landmarks_KL2[target], IMAGE_SIDE, IMAGE_SIDE))
        for name in (NAME, "1-flow"):
            (file,) = [
                row["file"]
                for row in rows
                if (row["key"], row["source"], row["inputs"], row["target"])
                == (identity.key, name, most, target)
            ]
            with Image.open(first / file) as found:
                expected.append(np.asarray(found))
        for column, image in enumerate([*expected, identity.images_KSSC[target]]):
            wanted = Image.fromarray(image).resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC)
            assert np.array_equal(tile(sheet, place, column), np.asarray(wanted)), column


def test_other_landmarks_give_another_image_and_none_are_an_error(data: Path, run: Path) -> None:
    generator = Generator.load(
        source_facts(run, 0, (1,), Sampling(steps=1)), torch.device("cpu"), lambda _line: None
    )
    identity = identities(data)[0]
    tokens = generator.tokens(identity, (0,))
    one, other, again = (generator.image(tokens, 3, identity.landmarks_KL2[n]).astype(int) for n in (1, 2, 1))
    assert np.array_equal(one, again)
    assert np.abs(one - other).max() > 3
    with pytest.raises(ValueError, match="needs the landmarks of a pose"):
        generator.image(tokens, 3)


@pytest.mark.slow
def test_images_that_follow_the_pose_have_no_pose_error_beyond_the_noise(
    output: Path, data: Path, run: Path
) -> None:
    """The head of another person in the pose of the target follows it; one in the mirrored pose does not."""
    sources = (run, run.parent / "flow")
    other = dict(zip(TWO, reversed(TWO), strict=True))
    replace_images(output, data, NAME, lambda identity, _, n: head(other[identity.person], POSES[n]))
    replace_images(
        output,
        data,
        "1-flow",
        lambda identity, _, n: head(other[identity.person], (-POSES[n][0], POSES[n][1], -POSES[n][2])),
    )
    document = evaluated(*sources, "--data", data, "--output", output, *QUICK)
    follows, mirrored = (figures(document, source=name)["pose_error"] for name in (NAME, "1-flow"))
    assert follows["value"] < 10
    assert mirrored["value"] > follows["value"] + 10
    text = (output / "evaluation.md").read_text()
    assert "- Pose is not conditioned in 1-flow:" in text
    assert f"- {NAME} generates each image with the landmark image of its target" in text


def test_the_page_shows_inputs_landmark_images_generated_images_and_the_truth(
    first: Path, data: Path
) -> None:
    page = (first / "index.html").read_text()
    person = page.split('<section class="person">')[1]
    lines = person.split('<div class="line">')[1:]
    titles = [re.findall(r"<b>(.*?)</b>", line)[0] for line in lines]
    assert titles == [
        *("inputs, in order", "landmark images"),
        *("0-control, 1 input", "0-control, 5 inputs", "1-flow, 1 input", "1-flow, 5 inputs"),
        "truth",
    ]
    assert "condition of 0-control</span>" in lines[1]
    key = re.findall(r"<h3>(\S+)", person)[0]
    (identity,) = [found for found in identities(data) if found.key == key]
    shown = re.findall(r"data:image/jpeg;base64,([^\"]+).*?of image (\d)", lines[1], re.DOTALL)
    assert [int(n) for _, n in shown] == [int(n) for n in re.findall(r"image (\d)</fig", lines[-1])]
    assert len(shown) == 3
    for encoded, n in shown:
        expected = landmark_image(identity.landmarks_KL2[int(n)], IMAGE_SIDE, 64)
        small = Image.fromarray(expected).resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
        with Image.open(BytesIO(b64decode(encoded))) as found:
            assert np.abs(np.asarray(found, int) - np.asarray(small, int)).mean() < 6


@pytest.mark.slow
def test_the_landmarker_that_found_the_conditions_is_called_so(
    first: Path, run: Path, tmp_path: Path
) -> None:
    pose = json.loads((first / "evaluation.json").read_bytes())["networks"]["pose"]
    assert pose["conditions"] == []  # dataset.json names no landmarker
    data = write_people(tmp_path / "shards", TWO, models={"landmarker": pose["sha256"]})
    document = evaluated(run, run.parent / "flow", "--data", data, "--output", tmp_path / "out", *QUICK)
    assert document["networks"]["pose"]["conditions"] == [NAME]
    text = (tmp_path / "out" / "evaluation.md").read_text()
    assert f"and found the landmarks that condition {NAME}: an error that it makes in both" in text


@pytest.mark.slow
def test_what_is_missing_is_generated_again_in_the_same_pose(output: Path, data: Path, run: Path) -> None:
    images = list(pngs(output))
    content = {path: path.read_bytes() for path in images}
    before = (output / "evaluation.json").read_bytes()
    missing = [path for path in images if path.parts[-3] == NAME][::2]
    for path in missing:
        path.unlink()
    result = called(run, run.parent / "flow", "--data", data, "--output", output, *QUICK)
    assert result.exit_code == 0, result.output
    assert f"generated {len(missing)} of {len(missing)} images" in result.stderr
    assert {path: path.read_bytes() for path in pngs(output)} == content
    assert (output / "evaluation.json").read_bytes() == before


def test_guidance_needs_a_control_run_that_can_be_guided(run: Path) -> None:
    with pytest.raises(TrainingError, match=r"trained with decoders\.control\.identity_dropout"):
        source_facts(run, 0, (1,), Sampling(identity_guidance=2))
