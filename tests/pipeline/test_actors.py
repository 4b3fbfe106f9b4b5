"""What the actors do when a step breaks on one video."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from faces.profiles import check_roles
from pipeline.actors import Score, SelectImages
from pipeline.config import Config
from pipeline.errors import MachineFault
from pipeline.records import Analysis, Candidate, CandidateTrack
from pipeline.rejection import Rejection
from pipeline.sources.manifest import Video
from pipeline.stages.analyse import failed
from pipeline.stages.probe import probe
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


@pytest.fixture(scope="module")
def score() -> Score:
    return Score(CONFIG, {})


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
        landmarks_crop_px=[],
        keypoints_crop_px=[],
        eyes_open=1,
        sharpness=1,
        identity_cosine=1,
        eyes_closed=False,
        cluster=0,
    )
    tracks = [CandidateTrack(track=0, embedding=[1.0], candidates=[candidate])]
    return Analysis(outcome=outcome, tracks=tracks)


@pytest.mark.slow
def test_an_image_that_breaks_the_quality_network_fails_its_video_only(score: Score) -> None:
    row = {"analysis": analysis().model_dump_json(), "jpegs": [b"not a JPEG"], "fault": ""}
    outcome = Analysis.model_validate_json(score(row)["analysis"]).outcome
    assert (outcome.status, outcome.reason) == (Status.FAILED, Reason.INTERNAL_ERROR)
    assert outcome.detail
    assert validate_video(outcome) == []

    picture = io.BytesIO()
    Image.effect_noise((512, 512), 60).convert("RGB").save(picture, "JPEG")
    good = score(row | {"jpegs": [picture.getvalue()]})
    scored = Analysis.model_validate_json(good["analysis"])
    assert scored.outcome.status is Status.ACCEPTED
    assert scored.tracks[0].candidates[0].quality is not None


def test_a_source_that_is_gone_is_the_machines_fault_and_no_videos(tmp_path: Path) -> None:
    with pytest.raises(MachineFault, match="is the source mounted"):
        probe(tmp_path / "share" / "clip.mp4")
    found = probe(tmp_path / "clip.mp4")
    assert isinstance(found, Rejection)
    assert found.reason is Reason.UNREADABLE


def test_a_fault_of_the_machine_stages_nothing_and_reaches_the_driver(tmp_path: Path) -> None:
    video = Video(
        video_id="a/b.mp4", source="a", uri="b.mp4", path=str(tmp_path / "b.mp4"), bytes=1, modified_ns=1
    )
    stage = SelectImages(CONFIG, Staging(tmp_path / "staging"))
    row = {"video": video.model_dump_json(), "fault": "the share is away"}
    assert stage(row) == {"video_id": "a/b.mp4", "status": "", "message": "", "fault": "the share is away"}
    assert list(tmp_path.rglob("*.parquet")) == []


@pytest.mark.parametrize(
    ("reason", "detail", "said"),
    [
        (
            Reason.WORKER_CRASHED,
            "the analysing process was ended by SIGABRT",
            "b.mp4 is one failed video (worker_crashed): the analysing process was ended by SIGABRT",
        ),
        (Reason.TRUNCATED_FILE, "half of it is missing", ""),
    ],
)
def test_a_video_that_fails_without_being_damaged_is_told_in_one_line(
    tmp_path: Path, reason: Reason, detail: str, said: str
) -> None:
    video = Video(
        video_id="a/b.mp4", source="a", uri="b.mp4", path=str(tmp_path / "b.mp4"), bytes=1, modified_ns=1
    )
    found = failed(video, Rejection(reason, detail)).analysis
    row = {
        "video": video.model_dump_json(),
        "analysis": found.model_dump_json(),
        "jpegs": [],
        "masks": [],
        "higher_is_better": False,
        "fault": "",
    }
    told = SelectImages(CONFIG, Staging(tmp_path / "staging"))(row)
    assert told == {"video_id": "a/b.mp4", "status": "failed", "message": said, "fault": ""}


def test_a_model_in_the_wrong_role_is_refused_with_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"models\.detector=piqe is a piqe; expected a yunet or scrfd"):
        check_roles({"detector": "piqe", "quality": "piqe"}, {})
