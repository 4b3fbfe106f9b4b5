"""The paper's workflow on networks of its kinds: SCRFD, an ArcFace-like embedder and TOPIQ.

SCRFD and the embedder are small real networks. TOPIQ has random weights: what is tested is that its scores are
made, kept and used, not that they are good.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from builds import REPOSITORY, SCRIPTS, Cluster
from typer.testing import CliRunner

from faces.catalogue import MODELS
from pipeline.cli import app
from shards.reader import Dataset
from shards.schema import Status
from shards.verify import verify

WORKFLOW = "workflows/curate_paper.yaml"
CLIP = "astronaut.mp4"
MISSING = ("scrfd_10g", "arcface_r50", "topiq_nr-face")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def one_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.demo.clips import make_demo_clips

    folder = tmp_path_factory.mktemp("clips")
    make_demo_clips(folder, only=[CLIP])
    return folder


@pytest.fixture(scope="module")
def models_dir(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder as a user makes it for networks of their own."""
    folder = tmp_path_factory.mktemp("models")
    random_topiq(folder / "topiq.pth")
    (folder / "detector.onnx").symlink_to(weights / "insightface" / "det_2.5g.onnx")
    (folder / "embedder.onnx").symlink_to(weights / "MobileFaceNet_foamliu.onnx")
    files = {
        "scrfd_10g": {"file": "detector.onnx"},
        "arcface_r50": {
            "file": "embedder.onnx",
            "normalisation": "imagenet",
            "same_person_cosine": 0.4,
            "link_cosine": 0.6,
        },
        "topiq_nr-face": {"file": "topiq.pth"},
    }
    entries = {
        name: entry | {"sha256": sha256(folder / str(entry["file"])), "license": "for tests"}
        for name, entry in files.items()
    }
    (folder / "models.json").write_text(json.dumps(entries))
    return folder


def random_topiq(path: Path) -> None:
    """Write TOPIQ's network with seeded random weights, in the format of pyiqa's checkpoints."""
    import torch
    from pyiqa.archs.topiq_arch import CFANet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CFANet(
            semantic_model_name="resnet50",
            model_name="random",
            backbone_pretrain=False,
            pretrained=False,
            use_ref=False,
            test_img_size=512,
        )
    for name, buffer in network.named_buffers():
        # Statistics of a trained network: untouched ones leave the scores of all images nearly alike.
        if name.endswith("running_var"):
            buffer.fill_(0.3)
    torch.save({"params": network.state_dict()}, path)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.weights
def test_the_papers_workflow_builds_a_dataset(
    cluster: Cluster, one_clip: Path, models_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mfhq"
    made = subprocess.run(
        [
            *(str(SCRIPTS / "mfhq"), "build", WORKFLOW, f"source.path={one_clip}", f"output={output}"),
            *(f"run.models_dir={models_dir}", "faces.min_crop_px=256"),
            # The quality network takes seconds for an image on a CPU.
            *("selection.clusters=9", "selection.candidates_per_cluster=1"),
        ],
        cwd=REPOSITORY,
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert verify(output) == []

    dataset = Dataset.open(output)
    (video,) = dataset.videos()
    assert (video.uri, video.status) == (CLIP, Status.ACCEPTED), video.detail
    (record,) = [sample.record for sample in dataset.samples()]
    assert record.embedder == "arcface_r50"
    qualities = [image.quality for image in record.images]
    assert {(q.metric, q.higher_is_better) for q in qualities} == {("topiq_nr-face", True)}
    assert len({q.value for q in qualities}) == 8
    assert all(0 <= q.value <= 1 for q in qualities)
    assert min(image.face_px for image in record.images) >= 160

    used = dataset.metadata.provenance.models
    assert used == {
        "scrfd_10g": sha256(models_dir / "detector.onnx"),
        "arcface_r50": sha256(models_dir / "embedder.onnx"),
        "topiq_nr-face": sha256(models_dir / "topiq.pth"),
        "face_landmarker": MODELS["face_landmarker"].sha256,
    }


def rejected(output: Path, models_dir: Path) -> str:
    """The message of a workflow that cannot start; it must leave no file behind."""
    source = output.with_name("clips")
    source.mkdir()
    (source / "a.mp4").write_bytes(b"never read")
    arguments = [f"source.path={source}", f"output={output}", f"run.models_dir={models_dir}"]
    result = CliRunner().invoke(app, ["build", str(REPOSITORY / WORKFLOW), *arguments])
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (1, "")
    assert not output.exists()
    return result.stderr


def test_missing_weights_are_all_named_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    message = rejected(tmp_path / "mfhq", tmp_path / "models")
    assert message.startswith("error: 3 model files cannot be used:\n")
    for name in MISSING:
        model = MODELS[name]
        assert f"- {name}: {model.file} is missing\n" in message
        for detail in (model.sha256, str(model.url), model.license):
            assert detail in message


def test_wrong_weights_are_named_with_both_digests_before_any_work(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in MISSING:
        (folder / MODELS[name].file).write_bytes(f"not {name}".encode())
    message = rejected(tmp_path / "mfhq", folder)
    for name in MISSING:
        path = folder / MODELS[name].file
        assert f"- {name}: {path} is not the expected file\n" in message
        assert MODELS[name].sha256 in message
        assert f"found:    sha256 {sha256(path)}\n" in message
