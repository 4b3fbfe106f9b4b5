"""A configuration is rejected before any work starts, by a message with the key and what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from pipeline.config import Config, PlanConfig, Run, digest
from settings.loading import load_workflow
from settings.section import ConfigError, differences

WORKFLOWS = Path(__file__).parents[2] / "workflows"
EMBEDDED = WORKFLOWS / "curate_embedded.yaml"
MIX = WORKFLOWS / "curate_mfhq.yaml"
SET = ["source.path=/data/clips", "output=/data/mfhq"]
LIBRARIES = {"decord": "1"}
WEIGHTS = {"yunet": "00", "sface": "11"}


SHAPING_KEYS_OF_RUN = {"device"}
"""Keys of `run` that can change the bits of a result. All others must leave staged work valid."""


def load(*overrides: str) -> Config:
    return load_workflow(EMBEDDED, [*SET, *overrides], Config)


def curation(*overrides: str) -> str:
    """Digest of everything that changes the result of one video."""
    return digest(load(*overrides).curation(WEIGHTS, LIBRARIES))


def rejection(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    "workflow", sorted({*WORKFLOWS.glob("curate_*.yaml")} - {MIX}), ids=lambda path: path.stem
)
def test_each_workflow_that_is_shipped_needs_only_a_source_and_an_output(workflow: Path) -> None:
    config = load_workflow(workflow, SET, Config)
    assert config.source.path == Path("/data/clips")
    assert config.output == Path("/data/mfhq")


def test_the_papers_mix_needs_a_path_of_each_dataset_that_is_not_left_out() -> None:
    kinds = ("celebv-hq", "vfhq", "talkinghead-1kh", "celebv-text")
    paths = [f"sources.{kind}.path=/data/{kind}" for kind in kinds]
    config = load_workflow(MIX, [*paths, "output=/data/mfhq"], Config)
    assert [source.name for source in config.all_sources] == list(kinds)
    assert [source.path for source in config.all_sources] == [Path("/data") / kind for kind in kinds]
    settings = load_workflow(WORKFLOWS / "curate_paper.yaml", SET, Config).defining()
    assert config.defining() | {"sources": None} == settings | {"sources": None}

    without = load_workflow(MIX, [*paths[:1], *paths[2:], "sources.vfhq=null", "output=/data/mfhq"], Config)
    assert [source.name for source in without.all_sources] == [kinds[0], *kinds[2:]]
    with pytest.raises(ConfigError, match=r"sources\.vfhq\.path: not set"):
        load_workflow(MIX, [*paths[:1], *paths[2:], "output=/data/mfhq"], Config)


def test_a_plan_needs_no_output_and_checks_one_that_is_given() -> None:
    assert load_workflow(EMBEDDED, ["source.path=/data/clips"], PlanConfig).output is None
    with pytest.raises(ConfigError, match="output: not set"):
        load_workflow(EMBEDDED, ["source.path=/data/clips"], Config)
    with pytest.raises(ConfigError, match=r"output: /data/clips/out is inside source\.path"):
        load_workflow(EMBEDDED, ["source.path=/data/clips", "output=/data/clips/out"], PlanConfig)


def test_an_override_wins_over_the_file_and_is_read_as_yaml() -> None:
    config = load("models.quality=topiq_nr-face", "faces.min_crop_px=160", "selection.worst_quality=null")
    assert config.models.quality == "topiq_nr-face"
    assert config.faces.min_crop_px == 160.0
    assert config.selection.worst_quality is None


def test_the_value_of_an_override_may_hold_an_equals_sign() -> None:
    assert load("source.license=CC BY=NC").source.license == "CC BY=NC"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "faces.min_pixels=160",
            "faces.min_pixels: no such key; did you mean faces.min_px?",
        ),
        ("face.min_crop_px=160", "face: no such key; did you mean faces?"),
        ("faces.min_crop_px=large", "faces.min_crop_px: expected a number above 0 (given: 'large')"),
        ("faces.min_crop_px=", "faces.min_crop_px: expected a number above 0 (given: nothing)"),
        (
            "faces.min_crop_px=yes",
            "faces.min_crop_px: expected a number above 0 (given: true (as YAML reads yes, no, on and off",
        ),
        ("faces.min_crop_px=.nan", "faces.min_crop_px: expected a number above 0 (given: nan)"),
        ("faces.min_crop_px=.inf", "faces.min_crop_px: expected a number above 0 (given: inf)"),
        ("faces.min_crop_px=0", "faces.min_crop_px: expected a number above 0 (given: 0)"),
        ("faces.max_yaw=181", "faces.max_yaw: expected a number from 0 to 180 (given: 181)"),
        ("frames.decoder=opencv", "frames.decoder: expected auto, pyav or decord (given: 'opencv')"),
        ("frames.max_per_video=7", "frames.max_per_video: expected a whole number of at least 8 (given: 7)"),
        (
            "frames=12",
            "frames: expected a section, whose keys are set one by one: frames.decoder=VALUE (given: 12)",
        ),
        (
            "source.name=Celeb_V.HQ",
            "source.name: expected 1 to 20 lower-case letters, digits and hyphens, no hyphen first",
        ),
        (
            "shards.jpeg_quality=95.5",
            "shards.jpeg_quality: expected a whole number from 50 to 100 (given: 95.5)",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_was_expected(override: str, message: str) -> None:
    assert message in rejection(override)


def test_all_faults_are_named_at_once() -> None:
    message = rejection("faces.min_crop_px=-1", "frames.fps=3", "run.analysers=-1")
    assert all(key in message for key in ("faces.min_crop_px:", "frames.fps:", "run.analysers:"))
    assert str(EMBEDDED) in message


@pytest.mark.parametrize("override", ["faces.min_pixels", "=160", "--verbose", ""])
def test_a_malformed_override_is_rejected_with_an_example(override: str) -> None:
    assert (
        f"{override!r} is not an override; expected section.key=value, such as faces.min_crop_px=256"
        in rejection(override)
    )


def test_a_key_without_a_value_comes_with_what_it_takes() -> None:
    message = (
        "'faces.min_crop_px' has no value; expected faces.min_crop_px=VALUE, where VALUE is a number above 0"
    )
    assert rejection("faces.min_crop_px") == message


def test_a_workflow_of_the_trainer_is_reported_as_one_of_another_command() -> None:
    with pytest.raises(
        ConfigError, match="is for another command: unknown sections data, representation, decoders"
    ) as caught:
        load_workflow(WORKFLOWS / "train_mtd_tiny.yaml", SET, Config)
    assert "workflows/curate_*.yaml" in str(caught.value)


def test_an_override_below_a_value_is_rejected() -> None:
    assert "quality is a value, not a section" in rejection("models.quality.metric=piqe")


def test_an_override_that_is_not_yaml_is_rejected() -> None:
    assert "the value is not YAML" in rejection("source.license=[open")


def test_a_missing_key_comes_with_the_override_that_sets_it() -> None:
    with pytest.raises(ConfigError) as caught:
        load_workflow(EMBEDDED, ["output=/data/mfhq"], Config)
    assert "source: not set; give it in the file or as source.path=VALUE" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_workflow(EMBEDDED, ["source.name=clips"], Config)
    assert "source.path: not set; give it in the file or as source.path=VALUE" in str(caught.value)
    assert "output: not set; give it in the file or as output=VALUE" in str(caught.value)


def test_a_missing_section_comes_with_all_that_it_must_have(tmp_path: Path) -> None:
    workflow = tmp_path / "workflow.yaml"
    workflow.write_text("faces: {min_crop_px: 300}\n")
    with pytest.raises(ConfigError) as caught:
        load_workflow(workflow, SET, Config)
    assert "models.detector=VALUE models.embedder=VALUE models.quality=VALUE" in str(caught.value)


@pytest.mark.parametrize("output", ["/data/clips", "/data/clips/out", "/data/x/../clips/out"])
def test_an_output_inside_the_source_is_rejected(output: str) -> None:
    assert "is inside source.path /data/clips" in rejection(f"output={output}")


def test_an_output_that_a_link_leads_into_the_source_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "clips")
    with pytest.raises(ConfigError, match=r"is inside source\.path"):
        load(f"source.path={tmp_path}/clips", f"output={tmp_path}/link/out")


def test_an_output_beside_the_source_is_fine() -> None:
    assert load("output=/data/clips-mfhq").output == Path("/data/clips-mfhq")


@pytest.mark.parametrize("key", ["output", "source.path", "run.models_dir"])
@pytest.mark.parametrize("address", ["s3://bucket/folder", "gs://bucket", "az://container/folder"])
def test_a_place_in_an_object_store_is_accepted(key: str, address: str) -> None:
    value: object = load(f"{key}={address}")
    for name in key.split("."):
        value = getattr(value, name)
    assert str(value) == address


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://example.org/x", "expected a path, or a URL that begins with s3://, gs://, az://"),
        ("s3:/bucket/x", "a URL has two slashes: s3://bucket/x"),
        ("s3://key:secret@bucket/x", "Put the credentials into the environment"),
        ("~/clips", "`~` is not expanded here"),
        ("3", "expected a path, or a URL such as s3://bucket/prefix"),
    ],
)
def test_other_addresses_are_rejected(address: str, message: str) -> None:
    found = rejection(f"output={address}")
    assert f"output: {message}" in found or message in found
    assert "key:secret" not in found


def test_an_output_inside_a_source_of_the_same_bucket_is_rejected() -> None:
    message = rejection("source.path=s3://bucket/clips", "output=s3://bucket/clips/mfhq")
    assert "output: s3://bucket/clips/mfhq is inside source.path s3://bucket/clips" in message


def test_a_tilde_is_rejected_because_nothing_replaces_it() -> None:
    assert "output: `~` is not expanded here. Write the whole path" in rejection("output=~/mfhq")


@pytest.mark.parametrize("clusters", [1, 8])
def test_there_must_be_more_pose_clusters_than_images(clusters: int) -> None:
    assert "selection.clusters: expected a whole number above 8 and up to 256" in rejection(
        f"selection.clusters={clusters}"
    )


def test_rejoining_a_track_may_not_ask_for_less_than_staying_on_it() -> None:
    assert "tracking.rejoin_cosine: 0.2 is below min_cosine 0.3" in rejection("tracking.rejoin_cosine=0.2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"faces: [1", "is not YAML"),
        (b"\xff\xfe", "is not YAML"),
        (b"", "is not a mapping of sections"),
        (b"just text", "is not a mapping of sections"),
        (b"!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_a_file_that_is_no_workflow_is_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    workflow = tmp_path / "workflow.yaml"
    workflow.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_workflow(workflow, SET, Config)


def test_a_missing_workflow_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the workflow .*none\.yaml: No such file"):
        load_workflow(tmp_path / "none.yaml", SET, Config)


@pytest.mark.parametrize(
    "override",
    [
        "output=/elsewhere",
        "people.link_cosine=0.7",
        "split.test_fraction=0.5",
        "split.from=/data/earlier",
        "split.test_list=/data/list.txt",
        "shards.max_samples=9",
        "source.path=/mnt/same-clips",
        "name=other",
        "source.license=own",
        "source.name=celebvhq",
        "version=1.2.3",
        "shards.store_embeddings=false",
    ],
)
def test_what_curation_does_not_depend_on_leaves_its_digest_alone(override: str) -> None:
    assert curation(override) == curation()


@pytest.mark.parametrize(
    "override",
    [
        "faces.min_crop_px=160",
        "frames.per_second=5",
        "frames.decoder=pyav",
        "tracking.max_gap_s=2",
        "selection.clusters=17",
        "models.quality=topiq_nr-face",
        "shards.jpeg_quality=90",
    ],
)
def test_what_curation_depends_on_changes_its_digest(override: str) -> None:
    assert curation(override) != curation()


def other_value(name: str) -> object:
    """A value of a key of `run` that is not its default."""
    field = Run.model_fields[name]
    choices = [
        choice for kind in (field.annotation, *get_args(field.annotation)) for choice in get_args(kind)
    ]
    match field.default:
        case bool():
            return not field.default
        case str():
            return next(choice for choice in choices if choice != field.default)
        case int() | float():
            return field.default / 2 if name == "failing_nodes" else field.default + 1
        case _:
            return "/models" if name.endswith("_dir") else 3


@pytest.mark.parametrize("name", sorted(Run.model_fields))
def test_of_the_keys_of_run_only_the_device_changes_the_curation(name: str) -> None:
    tuned = load(f"run.{name}={other_value(name)}")
    assert tuned.run != load().run
    same = digest(tuned.curation(WEIGHTS, LIBRARIES)) == curation()
    assert same == (name not in SHAPING_KEYS_OF_RUN)


def test_more_than_one_gpu_but_no_whole_number_of_them_is_an_error() -> None:
    message = rejection("run.device=cuda", "run.analyser_gpus=1.5")
    assert "run.analyser_gpus=1.5: give a fraction of one GPU, or a whole number of them" in message
    assert load("run.analyser_gpus=2").run.analyser_gpus == 2


def test_other_libraries_change_the_digest() -> None:
    assert curation() != digest(load().curation(WEIGHTS, {"decord": "9"}))


def test_the_path_of_the_source_is_not_part_of_the_dataset() -> None:
    assert load("source.path=/mnt/same-clips").defining() == load().defining()


def test_folders_are_absolute_because_workers_have_other_working_folders() -> None:
    assert load("output=here").output == Path.cwd() / "here"


def test_other_weights_of_the_same_name_change_the_digest() -> None:
    assert curation() != digest(load().curation(WEIGHTS | {"sface": "12"}, LIBRARIES))


def test_how_the_machine_runs_is_not_part_of_what_defines_the_dataset() -> None:
    assert load("run.analysers=2", "output=/elsewhere").defining() == load().defining()
    assert load("split.seed=1").defining() != load().defining()


def test_the_key_from_is_set_in_the_file_and_by_an_override(tmp_path: Path) -> None:
    workflow = tmp_path / "workflow.yaml"
    workflow.write_text(EMBEDDED.read_text() + "split:\n  from: /data/first\n  seed: 3\n")
    config = load_workflow(workflow, SET, Config)
    assert (config.split.earlier, config.split.seed) == (Path("/data/first"), 3)
    config = load_workflow(workflow, [*SET, "split.from=s3://bucket/mfhq"], Config)
    assert str(config.split.earlier) == "s3://bucket/mfhq"
    assert load_workflow(workflow, [*SET, "split.from=null"], Config).split.earlier is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("split.form=/x", "split.form: no such key; did you mean split.from?"),
        (
            "split.zzz=44",
            "split.zzz: no such key; known are test_fraction, max_group_videos, from, test_list, seed",
        ),
        ("split.earlier=/x", "split.earlier: no such key; known are test_fraction, max_group_videos, from"),
        ("from=/x", "from: no such key; did you mean split.from?"),
        ("split.from=3", "split.from: expected a path, or a URL such as s3://bucket/prefix (given: 3)"),
        ("split.from=~/mfhq", "split.from: `~` is not expanded here"),
        ("split.from", "'split.from' has no value; expected split.from=VALUE, where VALUE is a path"),
        (
            "split.from=/data/mfhq/../mfhq",
            "split.from: /data/mfhq/../mfhq is the output, which the build overwrites. Give another output",
        ),
        ("split.test_fraction=2", "split.test_fraction: expected a number from 0 to 1 (given: 2)"),
        (
            "split.max_group_videos=0",
            "split.max_group_videos: expected a whole number of at least 1, or null (given: 0)",
        ),
    ],
)
def test_a_wrong_key_or_value_of_the_split_is_named_as_the_file_writes_it(
    override: str, message: str
) -> None:
    assert message in rejection(override)


def test_the_content_of_the_files_of_the_split_defines_the_dataset_and_not_their_paths() -> None:
    config = load("split.from=/data/first", "split.test_list=/data/list.txt")
    moved = load("split.from=/mnt/first", "split.test_list=s3://bucket/list.txt")
    contents = {"from": "aa", "test_list": "bb"}
    defining = config.defining(contents)
    assert defining == moved.defining(contents)
    assert defining["split"] == load().defining()["split"] | {
        "from": "sha256:aa",
        "test_list": "sha256:bb",
    }
    assert load().defining()["split"] == {
        "test_fraction": 0.01,
        "max_group_videos": 100,
        "from": None,
        "test_list": None,
        "seed": 0,
    }
    assert differences(defining, config.defining(contents | {"from": "cc"})) == [
        "split.from: sha256:aa -> sha256:cc"
    ]
    with pytest.raises(KeyError):
        config.defining()


def test_differences_name_each_key_that_changed() -> None:
    changed = differences(load().defining(), load("faces.min_crop_px=160", "split.seed=1").defining())
    assert changed == ["faces.min_crop_px: 448.0 -> 160.0", "split.seed: 0 -> 1"]


SEVERAL = """\
models: {detector: yunet, embedder: sface, quality: piqe}
output: /data/mfhq
sources:
  - {kind: celebv-hq, path: /data/celebv-hq, license: research}
  - {kind: vfhq}
  - {name: ours, path: /data/ours}
"""


@pytest.fixture
def several(tmp_path: Path) -> Path:
    workflow = tmp_path / "several.yaml"
    workflow.write_text(SEVERAL)
    return workflow


def test_overrides_name_an_entry_of_the_list_of_sources(several: Path) -> None:
    config = load_workflow(several, ["sources.vfhq.path=/data/vfhq", "sources.ours.license=own"], Config)
    assert [(source.name, str(source.path), source.license) for source in config.all_sources] == [
        ("celebv-hq", "/data/celebv-hq", "research"),
        ("vfhq", "/data/vfhq", None),
        ("ours", "/data/ours", "own"),
    ]


def test_an_entry_is_left_out_by_null(several: Path) -> None:
    config = load_workflow(several, ["sources.vfhq=null"], Config)
    assert [source.name for source in config.all_sources] == ["celebv-hq", "ours"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "sources.vfhq.path: not set; give it in the file or as sources.vfhq.path=VALUE"),
        (["sources.vfhq.path=x", "source.path=/y"], "source: the workflow lists sources"),
        (["sources.hdtf.path=x"], "no entry 'hdtf'; there are celebv-hq, vfhq, ours"),
        (["sources.vfhq.path=x", "sources.vfhq.name=ours"], "sources: 2 have the name 'ours'"),
        (
            ["sources.vfhq.path=x", "sources.vfhq.frame_rate=0"],
            "sources.vfhq.frame_rate: expected a number above 0",
        ),
        (["sources.vfhq.path=/data"], "output: /data/mfhq is inside sources.vfhq.path /data"),
        (["sources.vfhq.pth=/data"], "sources.vfhq.pth: no such key; known are kind, name, path"),
    ],
)
def test_an_error_in_a_list_of_sources_names_the_entry(
    several: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_workflow(several, overrides, Config)
    assert message in str(caught.value)


def test_one_source_is_the_same_dataset_in_either_form(several: Path) -> None:
    listed = load_workflow(several, ["sources.vfhq=null", "sources.ours=null"], Config)
    short = load_workflow(
        several,
        ["sources=[]", "source.kind=celebv-hq", "source.path=/data/celebv-hq", "source.license=research"],
        Config,
    )
    assert listed.defining() == short.defining()
