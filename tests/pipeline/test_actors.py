"""What the actors do when a step breaks on one video."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faces.onnx_session import BatchedSession, DeviceFailure
from faces.profiles import check_roles
from faces.quality import Piqe
from faces.registry import load_weights
from pipeline.actors import Choose
from pipeline.config import Config, Run
from pipeline.decode.probe import probe
from pipeline.devices import gpu_fault
from pipeline.errors import MachineFault
from pipeline.records import Analysis, Candidate, CandidateTrack
from pipeline.rejection import Rejection
from pipeline.sources.manifest import Video
from pipeline.stages.outcome import failed
from pipeline.staging import Staging
from shards.record_checks import validate_video
from shards.schema import Pose, Reason, Status, TrackOutcome, VideoOutcome

CONFIG = Config.model_validate(
    {
        "source": {"path": Path("/clips")},
        "output": Path("/out"),
        "models": {"detector": "yunet", "embedder": "sface", "quality": "piqe"},
    }
)


def chooser(staging: Staging) -> Choose:
    return Choose(CONFIG, load_weights(["sface"], None), staging)


def row_of(video: Video, analysis: Analysis, *jpegs: bytes) -> dict[str, Any]:
    texts = {"video": video.model_dump_json(), "analysis": analysis.model_dump_json()}
    files = {"jpeg": list(jpegs), "mask": [b""] * len(jpegs), "points": [b""] * len(jpegs)}
    return texts | files | {"fault": "", "unenforced": ""}


VIDEO = Video(video_id="a/b.mp4", source="a", uri="b.mp4", path="/clips/b.mp4", bytes=1, modified_ns=1)


def analysis() -> Analysis:
    track = TrackOutcome(track=0, start_s=0, end_s=1, frames=9, usable_frames=9)
    outcome = VideoOutcome(
        video_id="a/b.mp4",
        source="a",
        uri="b.mp4",
        bytes=1,
        status=Status.ACCEPTED,
        tracks=[track],
        identities=1,
    )
    candidate = Candidate(
        frame=0,
        time_s=0,
        box_px=(0, 0, 9, 9),
        face_px=9,
        crop_px=(0, 0, 9),
        pose=Pose(yaw=0, pitch=0, roll=0),
        keypoints_crop_px=[],
        eyes_open=1,
        sharpness=1,
        identity_cosine=1,
        eyes_closed=False,
        cluster=0,
    )
    tracks = [CandidateTrack(track=0, embedding=[1.0], candidates=[candidate])]
    return Analysis(outcome=outcome, tracks=tracks)


def jpeg() -> bytes:
    picture = io.BytesIO()
    Image.effect_noise((512, 512), 60).convert("RGB").save(picture, "JPEG")
    return picture.getvalue()


@pytest.mark.slow
def test_an_image_that_breaks_the_quality_network_fails_its_video_only(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    choose = chooser(staging)
    assert choose(row_of(VIDEO, analysis(), b"not a JPEG"))["status"] == "failed"
    outcome = staging.outcome(VIDEO)
    assert (outcome.status, outcome.reason) == (Status.FAILED, Reason.INTERNAL_ERROR)
    assert outcome.detail
    assert validate_video(outcome) == []

    (track,) = choose._scorer.score(analysis(), [jpeg()]).tracks
    assert track.candidates[0].quality is not None
    assert choose(row_of(VIDEO, analysis(), jpeg()))["status"] == "rejected"
    assert staging.outcome(VIDEO).reason is Reason.TOO_FEW_POSES  # one image is too few to choose from


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "OutOfMemoryError",
            "Raise run.scorer_gpus (now 0.25) or run.analyser_gpus (now 0.1), so that fewer",
        ),
        ("RuntimeError", "A network failed on the GPU"),
    ],
)
def test_a_gpu_that_fails_ends_the_build_and_names_only_keys_that_keep_finished_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, message: str
) -> None:
    import torch

    run = Run(device="cuda", scorers=1, scorer_gpus=0.25, analyser_gpus=0.1)
    choose = chooser(Staging(tmp_path))
    monkeypatch.setattr(choose._scorer, "_run", run)  # no network can be loaded onto a GPU here

    def broken(*_: object) -> None:
        kind = torch.cuda.OutOfMemoryError if error == "OutOfMemoryError" else RuntimeError
        raise kind("CUDA error")

    monkeypatch.setattr(Piqe, "score", broken)  # no GPU is here to fail
    fault = choose(row_of(VIDEO, analysis(), jpeg()))["fault"]
    assert message in fault
    assert list(tmp_path.rglob("*.parquet")) == []
    named = set(re.findall(r"run\.(\w+)", fault))
    assert named <= {"scorer_gpus", "analyser_gpus"}


def test_a_failure_of_the_gpu_in_the_analysis_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    session = BatchedSession(load_weights(["yunet"], None)["yunet"].path)
    monkeypatch.setattr(session, "_device", "cuda")  # no GPU is here to fail

    class Broken:
        def run(self, *_: object) -> None:
            raise Fail("CUDA failure 2: out of memory")

    monkeypatch.setattr(session, "_session", Broken())
    with pytest.raises(DeviceFailure) as caught:
        session.run(np.zeros((1, 3, 640, 640), np.float32))
    fault = gpu_fault(caught.value, Run(device="cuda", scorers=1, scorer_gpus=0.25, analyser_gpus=0.1))
    assert "The GPU's memory ran out: CUDA failure 2" in str(fault)
    assert "run.analyser_gpus (now 0.1)" in str(fault)


def test_a_source_that_is_gone_is_the_machines_fault_and_no_videos(tmp_path: Path) -> None:
    with pytest.raises(MachineFault, match="Check that the source is mounted"):
        probe(tmp_path / "share" / "clip.mp4")
    found = probe(tmp_path / "clip.mp4")
    assert isinstance(found, Rejection)
    assert found.reason is Reason.UNREADABLE


def test_a_fault_of_the_machine_stages_nothing_and_reaches_the_driver(tmp_path: Path) -> None:
    row = {"video": VIDEO.model_dump_json(), "fault": "the storage is lost", "unenforced": ""}
    status = {"video_id": "a/b.mp4", "status": "", "message": "", "fault": "the storage is lost"}
    assert chooser(Staging(tmp_path))(row) == status | {"unenforced": ""}
    assert list(tmp_path.rglob("*.parquet")) == []


def test_a_fault_without_a_message_is_a_fault_all_the_same(tmp_path: Path) -> None:
    class NoMessage(Staging):
        def write(self, video: Video, finalized: object) -> None:
            raise TimeoutError

    found = failed(VIDEO, Rejection(Reason.DECODE_ERROR)).analysis
    assert chooser(NoMessage(tmp_path))(row_of(VIDEO, found))["fault"] == "TimeoutError"


@pytest.mark.parametrize(
    ("reason", "detail", "message"),
    [
        (
            Reason.DECODER_CRASHED,
            "the decoder was ended by SIGABRT",
            "b.mp4 is one failed video (decoder_crashed): the decoder was ended by SIGABRT",
        ),
        (Reason.TRUNCATED_FILE, "half of it is missing", ""),
    ],
)
def test_a_video_that_fails_without_being_damaged_is_logged_in_one_line(
    tmp_path: Path, reason: Reason, detail: str, message: str
) -> None:
    found = failed(VIDEO, Rejection(reason, detail)).analysis
    assert chooser(Staging(tmp_path))(row_of(VIDEO, found)) == {
        "video_id": "a/b.mp4",
        "status": "failed",
        "message": message,
        "fault": "",
        "unenforced": "",
    }


def test_a_model_in_the_wrong_role_is_rejected_with_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"models\.detector=piqe is a piqe; expected a yunet or scrfd"):
        check_roles({"detector": "piqe", "quality": "piqe"}, {})
