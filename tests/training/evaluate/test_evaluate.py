"""`omniid evaluate` on rendered heads: what it reports of images that are known, and how it resumes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import (
    QUICK,
    called,
    evaluated,
    figures,
    identities,
    pngs,
    refused,
    replace_images,
    write_flow_run,
)
from flow_runs import write_transformer
from rendered_people import GREY, PEOPLE, POSES, head, key_of, write_people

from training.evaluate.command import Evaluator
from training.evaluate.figures import IDENTITY_FIGURES
from training.evaluate.measures import mirrored, pose_error
from training.export import export

THREE = PEOPLE[:3]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "shards", THREE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flow_run(tmp_path_factory.mktemp("flow") / "run")


@pytest.fixture(scope="module")
def first(data: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an evaluation."""
    output = tmp_path_factory.mktemp("evaluations") / "first"
    evaluated(run, "--data", data, "--output", output, *QUICK)
    return output


@pytest.fixture
def output(first: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    shutil.copytree(first, tmp_path / "evaluation")
    return tmp_path / "evaluation"


def test_a_result_says_what_was_measured_how_and_on_whom(first: Path, data: Path, run: Path) -> None:
    document = json.loads((first / "evaluation.json").read_bytes())
    assert document["dataset"]["root"] == str(data)
    assert document["protocol"] == {
        "inputs": [1, 5],
        "samples": 1,
        "seeds": "hash of (person, target, sample)",
    }
    (source,) = document["sources"]
    assert (source["name"], source["path"], source["step"], source["side"]) == ("0-run", str(run), 3, 64)
    assert source["pose_conditioned"] is False
    assert [source[name] for name in ("steps", "guidance", "scale", "identity_guidance")] == [1, 3.5, 1, 1]
    assert document["people"]["held_out"] == document["people"]["evaluated"] == 3
    assert document["bootstrap"] == {"resamples": 1000, "level": 0.95, "seed": 0}
    assert [(result["inputs"], result["people"], result["images"]) for result in document["results"]] == [
        (1, 3, 9),
        (5, 3, 9),
    ]
    names = {path.name for path in first.iterdir()}
    assert names == {
        *("evaluation.json", "evaluation.md", "index.html", "people.jsonl", "images.jsonl"),
        *("settings.json", "images", "comparison.png"),
    }
    rows = [json.loads(line) for line in (first / "people.jsonl").read_text().splitlines()]
    assert {(row["person"], row["inputs"]) for row in rows} == {(who, k) for who in THREE for k in (1, 5)}
    assert all(f"sface.{figure}" in row for row in rows for figure in IDENTITY_FIGURES)


def test_the_main_figures_and_the_warnings_are_printed(output: Path, data: Path, run: Path) -> None:
    result = called(run, "--data", data, "--output", output, *QUICK)
    assert result.exit_code == 0, result.output
    *figures_, warning, report = result.stderr.splitlines()[-4:]
    for k, line in zip((1, 5), figures_, strict=True):
        assert line.startswith(
            f"0-run, {k} input{'s' if k > 1 else ''}: similarity by sface 0.000 [0.000, 0.000], to others 0.000"
        )
        assert line.endswith("pose error \N{EN DASH}, faces found 0.00 [0.00, 0.00]")
    assert warning.startswith("warning: 3 people are few")
    assert report.startswith(f"report: {output / 'index.html'}")


def test_an_interrupted_evaluation_says_that_it_continues(
    output: Path, data: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Evaluator) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluator, "run", interrupted)
    result = called(run, "--data", data, "--output", output, *QUICK)
    torch.distributed.destroy_process_group()  # which is left to the end of the process
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].startswith("interrupted. The same command continues")


def test_every_number_of_inputs_has_the_same_targets_and_seeds(first: Path) -> None:
    rows = [json.loads(line) for line in (first / "images.jsonl").read_text().splitlines()]
    places = {
        k: [(row["person"], row["target"], row["seed"]) for row in rows if row["inputs"] == k] for k in (1, 5)
    }
    assert places[1] == places[5]
    assert len({seed for _, _, seed in places[1]}) == 9
    assert sorted(row["file"] for row in rows) == [path.relative_to(first).as_posix() for path in pngs(first)]


def test_images_of_noise_have_no_face_and_no_similarity(first: Path) -> None:
    document = json.loads((first / "evaluation.json").read_bytes())
    for result in document["results"]:
        assert (result["faces_not_found"], result["poses_not_found"]) == (9, 9)
        found = result["figures"]
        assert found["faces_found"]["value"] == found["sface.similarity"]["value"] == 0
        assert "pose_error" not in found
        assert "sface.similarity_found" not in found
        assert -0.3 < found["sface.similarity_usual_place"]["value"] < 0.5
    assert "| 0-run | 1 |" in (first / "evaluation.md").read_text()


def test_copies_of_the_inputs_reach_the_ceiling_and_are_called_copies(
    output: Path, data: Path, run: Path
) -> None:
    replace_images(output, data, "0-run", lambda identity, inputs, _: identity.images_KSSC[inputs[0]])
    document = evaluated(run, "--data", data, "--output", output, *QUICK)
    found, levels = figures(document), document["levels"]
    assert found["faces_found"]["value"] == found["sface.nearest"]["value"] == 1
    ceiling = levels["identity.sface.real_at_64"]["value"]
    assert found["sface.similarity"]["value"] == pytest.approx(ceiling, abs=0.08)
    assert found["sface.gain"]["value"] > 0.4
    assert (
        found["sface.copy_paste_nearest"]["value"]
        > levels["identity.sface.copy_paste_nearest_with_5"]["value"]
    )
    assert found["sface.copy_paste_nearest"]["value"] > 0.3
    assert found["sface.similarity_to_inputs"]["value"] > found["sface.similarity"]["value"]


@pytest.mark.slow
def test_images_of_another_person_are_strangers(output: Path, data: Path, run: Path) -> None:
    own = {identity.person: identity for identity in identities(data)}
    next_one = dict(zip(own, [*list(own)[1:], next(iter(own))], strict=True))
    replace_images(
        output, data, "0-run", lambda identity, _, target: own[next_one[identity.person]].images_KSSC[target]
    )
    document = evaluated(run, "--data", data, "--output", output, *QUICK)
    found = figures(document)
    assert found["faces_found"]["value"] == 1
    assert found["sface.nearest"]["value"] == 0
    assert found["sface.gain"]["value"] < -0.2
    assert found["sface.similarity"]["value"] < document["levels"]["identity.sface.real"]["value"] - 0.3


@pytest.mark.slow
def test_the_truth_itself_has_no_pose_error_beyond_the_noise_of_the_estimator(
    output: Path, data: Path, run: Path
) -> None:
    replace_images(output, data, "0-run", lambda identity, _, target: identity.images_KSSC[target])
    document = evaluated(run, "--data", data, "--output", output, *QUICK)
    found, levels = figures(document), document["levels"]
    assert found["pose_error"]["value"] == pytest.approx(levels["pose.same_image_at_64"]["value"], abs=1e-6)
    assert found["sface.copy_paste"]["value"] < -0.1
    for level in ("pose.reencoded", "pose.same_image_at_64", "pose.mirrored"):
        assert levels[level]["value"] < 8
    assert levels["pose.inputs"]["value"] > 15
    assert levels["pose.frontal"]["value"] > 8


@pytest.mark.slow
def test_a_known_turn_of_the_head_is_the_pose_error(output: Path, data: Path, run: Path) -> None:
    """The head in the mirrored pose of the target: the error is that between the two poses."""
    replace_images(output, data, "0-run", lambda identity, _, target: _mirrored_head(identity.person, target))
    evaluated(run, "--data", data, "--output", output, *QUICK)
    rows = [json.loads(line) for line in (output / "images.jsonl").read_text().splitlines()]
    truth = np.array([POSES[row["target"]] for row in rows], float)
    expected = pose_error(mirrored(truth), truth)
    measured = np.array([row["pose_error"] for row in rows])
    assert np.median(np.abs(measured - expected)) < 8
    assert np.corrcoef(measured, expected)[0, 1] > 0.9


def _mirrored_head(person: str, target: int) -> np.ndarray:
    yaw, pitch, roll = POSES[target]
    return head(person, (-yaw, pitch, -roll))


@pytest.mark.slow
def test_grey_images_are_not_found_and_count_as_0(output: Path, data: Path, run: Path) -> None:
    """Of the targets of each person, one shows the truth and the others are grey."""
    firsts: dict[str, int] = {}

    def image(identity, _, target):  # type: ignore[no-untyped-def]
        chosen = firsts.setdefault(identity.person, target)
        return identity.images_KSSC[target] if target == chosen else GREY

    replace_images(output, data, "0-run", image)
    document = evaluated(run, "--data", data, "--output", output, *QUICK)
    (result,) = [result for result in document["results"] if result["inputs"] == 5]
    assert result["faces_not_found"] == 6
    found = result["figures"]
    assert found["faces_found"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["sface.similarity"]["value"] == pytest.approx(
        found["sface.similarity_found"]["value"] / 3, abs=1e-5
    )
    page = (output / "index.html").read_text()
    assert page.count("no face found</figcaption>") == 2 * 6


@pytest.mark.slow
def test_a_run_and_its_export_differ_by_exactly_nothing(data: Path, run: Path, tmp_path: Path) -> None:
    twin = tmp_path / "export"
    export(run, twin)
    output = tmp_path / "both"
    few = ("--data", data, "--output", output, *QUICK)
    evaluated(run, twin, *few)
    replace_images(output, data, "0-run", lambda identity, inputs, _: identity.images_KSSC[inputs[0]])
    replace_images(output, data, "1-export", lambda identity, inputs, _: identity.images_KSSC[inputs[0]])
    document = evaluated(run, twin, *few)
    for name in ("0-run", "1-export"):
        (output / f"images/{name}").rename(tmp_path / name)
    again = evaluated(run, twin, *few)  # generated anew, by both from the same noise
    pairs = zip(
        *(sorted((output / "images" / name).rglob("*.png")) for name in ("0-run", "1-export")), strict=True
    )
    assert all(one.read_bytes() == other.read_bytes() for one, other in pairs)
    for found in (document, again):
        assert [(pair["source"], pair["minus"], pair["inputs"]) for pair in found["comparisons"]] == [
            ("1-export", "0-run", 1),
            ("1-export", "0-run", 5),
        ]
        differences = [stat for pair in found["comparisons"] for stat in pair["differences"].values()]
        assert differences
        assert all(stat["value"] == stat["low"] == stat["high"] == 0 for stat in differences)
    assert "pose_error" in document["comparisons"][0]["differences"]
    assert "sface.gain_usual_place" in document["comparisons"][0]["differences"]
    assert "sface: gain usual place" in (output / "evaluation.md").read_text()


@pytest.mark.slow
def test_a_run_beside_a_frozen_small_transformer_is_evaluated_and_so_is_its_export(
    data: Path, tmp_path: Path
) -> None:
    transformer = write_transformer(tmp_path / "transformer")
    run, twin = write_flow_run(tmp_path / "run", transformer), tmp_path / "export"
    export(run, twin)
    few = ("--data", data, *QUICK)
    evaluated(run, "--output", tmp_path / "of-run", *few)
    shutil.rmtree(transformer)
    evaluated(twin, "--output", tmp_path / "of-export", *few)
    own, exported = (list(pngs(tmp_path / name)) for name in ("of-run", "of-export"))
    assert own
    assert [path.read_bytes() for path in own] == [path.read_bytes() for path in exported]
    moved = tmp_path / "of-moved"
    assert "is not there. Pass a directory with vae and transformer" in refused(run, "--output", moved, *few)
    evaluated(run, "--output", moved, "--base", twin, *few)
    assert [path.read_bytes() for path in own] == [path.read_bytes() for path in pngs(moved)]


@pytest.mark.slow
def test_the_same_command_generates_only_what_is_missing(output: Path, data: Path, run: Path) -> None:
    before = (output / "evaluation.json").read_bytes()
    images = list(pngs(output))
    missing, kept = images[::2], images[1::2]
    times = {path: path.stat().st_mtime_ns for path in kept}
    content = {path: path.read_bytes() for path in images}
    for path in missing:
        path.unlink()
    result = called(run, "--data", data, "--output", output, *QUICK)
    assert result.exit_code == 0, result.output
    assert f"{len(kept)} images are there already" in result.stderr
    assert f"generated {len(missing)} of {len(missing)} images" in result.stderr
    assert {path: path.read_bytes() for path in pngs(output)} == content
    assert {path: path.stat().st_mtime_ns for path in kept} == times
    assert (output / "evaluation.json").read_bytes() == before


@pytest.mark.slow
def test_more_samples_and_other_networks_use_the_images_that_are_there(
    output: Path, data: Path, run: Path
) -> None:
    times = {path: path.stat().st_mtime_ns for path in pngs(output)}
    document = evaluated(run, "--data", data, "--output", output, *QUICK, "--samples", 2, "--people", 2)
    assert [result["images"] for result in document["results"]] == [12, 12]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(list(pngs(output))) == 18 + 12


def test_other_settings_in_the_same_output_are_an_error_that_names_them(
    output: Path, data: Path, run: Path
) -> None:
    before = (output / "evaluation.json").read_bytes()
    said = refused(
        run, "--data", data, "--output", output, "--profile", "embedded", "--inputs", "3", "--steps", 2
    )
    assert f"{output} belongs to an evaluation with other settings:" in said
    assert "- inputs: [1, 5] there, [3] now" in said
    assert "- 0-run.steps: 1 there, 2 now" in said
    assert (output / "evaluation.json").read_bytes() == before


@pytest.mark.slow
def test_a_damaged_image_is_named_with_the_remedy(output: Path, data: Path, run: Path) -> None:
    image = next(pngs(output))
    image.write_bytes(image.read_bytes()[:-200])
    said = refused(run, "--data", data, "--output", output, *QUICK)
    assert f"{image} cannot be read" in said
    assert "Delete it and run the same command again" in said


@pytest.mark.slow
def test_a_network_that_chose_the_images_is_called_so(run: Path, tmp_path: Path, first: Path) -> None:
    document = json.loads((first / "evaluation.json").read_bytes())
    (sface,) = document["networks"]["identity"]
    assert sface["chose_data"] is False
    pose = document["networks"]["pose"]
    chosen = write_people(
        tmp_path / "shards", THREE[:2], models={"embedder": sface["sha256"], "landmarker": pose["sha256"]}
    )
    again = evaluated(run, "--data", chosen, "--output", tmp_path / "evaluation", *QUICK)
    assert again["networks"]["identity"][0]["chose_data"] is True
    assert again["networks"]["pose"]["chose_data"] is True
    assert again["networks"]["detector"]["chose_data"] is False
    text = (tmp_path / "evaluation" / "evaluation.md").read_text()
    assert "- sface also chose the images of the dataset" in text
    assert "- Head pose is measured by face_landmarker, which also chose the images" in text
    assert key_of(THREE[0]) in (tmp_path / "evaluation" / "index.html").read_text()
