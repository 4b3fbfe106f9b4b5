"""What the actors do when a step breaks on one video."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from pipeline.actors import Score
from pipeline.config import Config
from pipeline.records import Analysis, Candidate, CandidateTrack
from shards.rules import video_problems
from shards.schema import Pose, Reason, Status, TrackOutcome, VideoOutcome


@pytest.fixture(scope="module")
def score() -> Score:
    config = Config.model_validate(
        {
            "source": {"path": Path("/clips")},
            "output": Path("/out"),
            "models": {"detector": "yunet", "embedder": "sface", "quality": "piqe"},
        }
    )
    return Score(config, {})


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
    row = {"analysis": analysis().model_dump_json(), "jpegs": [b"not a JPEG"]}
    outcome = Analysis.model_validate_json(score(row)["analysis"]).outcome
    assert (outcome.status, outcome.reason) == (Status.FAILED, Reason.INTERNAL_ERROR)
    assert outcome.detail
    assert video_problems(outcome) == []

    picture = io.BytesIO()
    Image.effect_noise((512, 512), 60).convert("RGB").save(picture, "JPEG")
    good = score({"analysis": analysis().model_dump_json(), "jpegs": [picture.getvalue()]})
    scored = Analysis.model_validate_json(good["analysis"])
    assert scored.outcome.status is Status.ACCEPTED
    assert scored.tracks[0].candidates[0].quality is not None
