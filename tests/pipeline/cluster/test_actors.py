"""What the actors do when a step breaks on one video."""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faces.onnx_session import BatchedSession, DeviceFailure
from faces.profiles import check_roles
from faces.quality import Piqe
from faces.registry import load_weights
from pipeline.cluster.actors import Curate, Row, gathered
from pipeline.cluster.place import FaultRecord, this_place
from pipeline.config import Config, Run
from pipeline.curator import MOST_ATTEMPTS, MOST_STARTS, VideoCurator
from pipeline.decode.probe import probe
from pipeline.devices import gpu_fault
from pipeline.errors import MachineFault
from pipeline.records import Analysis, Candidate, CandidateImage, CandidateTrack
from pipeline.rejection import Rejection
from pipeline.sources.manifest import Video
from pipeline.stages.outcome import AnalysedVideo, failed
from pipeline.staging import Staging
from pipeline.thresholds import with_thresholds
from shards.record_checks import validate_video
from shards.schema import Pose, Reason, Status, TrackOutcome, VideoOutcome

CONFIG = Config.model_validate(
    {
        "source": {"path": Path("/clips")},
        "output": Path("/out"),
        "models": {"detector": "yunet", "embedder": "sface", "quality": "piqe"},
    }
)


def curator(staging: Staging) -> VideoCurator:
    weights = load_weights(CONFIG.models.names, None)
    return VideoCurator(with_thresholds(CONFIG, weights), weights, staging)


def finish(curator: VideoCurator, analysis: Analysis, *jpegs: bytes) -> VideoOutcome:
    """The outcome of a video that was analysed with this result."""
    images = [CandidateImage(jpeg, b"", b"") for jpeg in jpegs]
    return curator._finalized(VIDEO, lambda: lambda _: AnalysedVideo(analysis, images)).outcome


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


def test_an_image_that_breaks_the_quality_network_fails_its_video_only(tmp_path: Path) -> None:
    choose = curator(Staging(tmp_path))
    outcome = finish(choose, analysis(), b"not a JPEG")
    assert (outcome.status, outcome.reason) == (Status.FAILED, Reason.INTERNAL_ERROR)
    assert outcome.detail
    assert validate_video(outcome) == []

    (track,) = choose._scorer.score(analysis(), [jpeg()]).tracks
    assert track.candidates[0].quality is not None
    # One image is too few to choose from.
    assert finish(choose, analysis(), jpeg()).reason is Reason.TOO_FEW_POSES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "OutOfMemoryError",
            "Raise run.analyser_gpus (now 0.1), so that fewer",
        ),
        ("RuntimeError", "A network failed on the GPU"),
    ],
)
def test_a_gpu_that_fails_is_the_machines_fault_and_names_only_keys_that_keep_finished_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, message: str
) -> None:
    import torch

    run = Run(device="cuda", analyser_gpus=0.1)
    choose = curator(Staging(tmp_path))
    monkeypatch.setattr(choose._scorer, "_run", run)  # no network can be loaded onto a GPU here

    def broken(*_: object) -> None:
        kind = torch.cuda.OutOfMemoryError if error == "OutOfMemoryError" else RuntimeError
        raise kind("CUDA error")

    monkeypatch.setattr(Piqe, "score", broken)  # no GPU is here to fail
    with pytest.raises(MachineFault, match=re.escape(message)) as caught:
        finish(choose, analysis(), jpeg())
    assert set(re.findall(r"run\.(\w+)", str(caught.value))) <= {"analyser_gpus"}


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
    fault = gpu_fault(caught.value, Run(device="cuda", analyser_gpus=0.1))
    assert "The GPU's memory ran out: CUDA failure 2" in str(fault)
    assert "run.analyser_gpus (now 0.1)" in str(fault)


def test_a_source_that_is_gone_is_the_machines_fault_and_no_videos(tmp_path: Path) -> None:
    with pytest.raises(MachineFault, match="Check that the source is mounted"):
        probe(tmp_path / "share" / "clip.mp4")
    found = probe(tmp_path / "clip.mp4")
    assert isinstance(found, Rejection)
    assert found.reason is Reason.INACCESSIBLE


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes of actors that ended their process."""
    codes: list[int] = []
    monkeypatch.setattr("pipeline.cluster.actors.os._exit", codes.append)
    return codes


def actor(staging: Staging, monkeypatch: pytest.MonkeyPatch, analyse: object) -> Curate:
    """An actor whose analyser is replaced."""
    monkeypatch.setattr(VideoCurator, "_analysed", analyse)
    staging.begin(staging.folder.name)
    weights = load_weights(CONFIG.models.names, None)
    return Curate(with_thresholds(CONFIG, weights), weights, staging, build=staging.folder.name)


def raising(error: Exception) -> object:
    def analyse(*_: object) -> AnalysedVideo:
        raise error

    return analyse


ROW = {"files": [[VIDEO.model_dump_json()]]}


def results(curate: Curate) -> list[Row]:
    """What an actor tells the driver of `ROW`."""
    return [result for row in curate(ROW) for result in row["results"]]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MachineFault("the storage is lost"), "the storage is lost"),
        (OSError(5, "Input/output error"), "[Errno 5] Input/output error"),
        (KeyError("a column"), "KeyError: 'a column'"),
        (TimeoutError(), "TimeoutError"),  # never without a message, which would be no fault
    ],
)
def test_a_fault_of_the_machine_stages_nothing_reaches_the_driver_and_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: list[int], error: Exception, text: str
) -> None:
    monkeypatch.setattr("pipeline.cluster.place.SHORTEST_S", 0.5)
    curate = actor(Staging(tmp_path), monkeypatch, raising(error))
    (row,) = results(curate)
    assert (row["video_id"], row["status"], row["fault"]) == ("a/b.mp4", "", text)
    assert row["place"].startswith(socket.gethostname())
    assert list(tmp_path.rglob("*.parquet")) == []
    assert not ended
    results(curate)
    assert ended == [1]

    begin = time.monotonic()  # the next process at this place waits
    analysed = failed(VIDEO, Rejection(Reason.TRUNCATED_FILE, "half of it is missing"))
    again = actor(Staging(tmp_path), monkeypatch, lambda *_: analysed)
    assert time.monotonic() - begin > 0.3
    (row,) = results(again)
    assert (row["status"], row["fault"]) == ("failed", "")
    assert FaultRecord(tmp_path.name, this_place()).wait_s() == 0  # it works again


def test_faults_of_the_machine_are_not_counted_as_crashes_of_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: list[int]
) -> None:
    monkeypatch.setattr("pipeline.cluster.place.SHORTEST_S", 0.0)
    staging = Staging(tmp_path)
    for _ in range(2 * MOST_STARTS):
        with pytest.raises(MachineFault):
            list(faulty(staging, MachineFault("the mount is gone")).curate([VIDEO]))
    (made,) = faulty(staging, None).curate([VIDEO])
    assert (made.outcome.status, made.attempt) == (Status.REJECTED, 1)


def test_a_video_that_takes_its_nodes_down_is_one_failed_video_at_last(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    for attempt in range(MOST_ATTEMPTS):
        staging.count_start(VIDEO, f"lost-{attempt}")  # and the node died with its processes
    (made,) = faulty(staging, None).curate([VIDEO])
    assert made.outcome.reason is Reason.WORKER_CRASHED
    assert f"ended {MOST_ATTEMPTS} times" in str(made.outcome.detail)


def faulty(staging: Staging, error: Exception | None) -> VideoCurator:
    """Curates on the node `here`, until `error`; without one each file is too short."""
    curate = curator(staging)
    curate._node, curate._alive = "here", lambda: {"here"}

    @contextmanager
    def opened(*_: object) -> Iterator[object]:
        if error:
            raise error
        yield lambda video: failed(video, Rejection(Reason.TOO_SHORT, "1 s"))

    curate._analyser.opened = opened  # type: ignore[method-assign, assignment]
    return curate


def test_a_machine_that_cannot_load_the_networks_is_one_bad_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA driver version is insufficient")

    monkeypatch.setattr("pipeline.curator.CandidateScorer", broken)
    staging = Staging(tmp_path)
    staging.begin(tmp_path.name)
    (row,) = results(Curate(CONFIG, load_weights(CONFIG.models.names, None), staging, tmp_path.name))
    assert row["fault"] == "RuntimeError: CUDA driver version is insufficient"
    FaultRecord(tmp_path.name, this_place()).clear()


def test_a_node_that_sees_another_output_finishes_nothing_there(tmp_path: Path) -> None:
    Staging(tmp_path / "shared").begin(tmp_path.name)
    here = Staging(tmp_path / "local")
    (row,) = results(Curate(CONFIG, load_weights(CONFIG.models.names, None), here, tmp_path.name))
    assert "/out is another directory there, or not mounted" in row["fault"]
    assert list(tmp_path.rglob("*.parquet")) == []
    FaultRecord(tmp_path.name, this_place()).clear()


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: Reason, detail: str, message: str
) -> None:
    curate = actor(Staging(tmp_path), monkeypatch, lambda *_: failed(VIDEO, Rejection(reason, detail)))
    (row,) = results(curate)
    assert (row["status"], row["reason"], row["message"]) == ("failed", reason, message)
    assert Staging(tmp_path).outcome(VIDEO).detail == detail


def test_a_model_in_the_wrong_role_is_rejected_with_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"models\.detector=piqe is a piqe; expected a yunet or scrfd"):
        check_roles({"detector": "piqe", "quality": "piqe"}, {})


def test_results_are_told_while_a_task_is_at_work_and_none_is_lost() -> None:
    def slow() -> Iterator[Row]:
        for number in range(6):
            time.sleep(0.1 if number == 3 else 0)
            yield {"video_id": str(number)}

    told = [[result["video_id"] for result in group] for group in gathered(slow(), 0.05)]
    assert told == [["0", "1", "2", "3"], ["4", "5"]]
    assert list(gathered([], 0.05)) == []
