"""What each reason of `shards.schema.Reason` means, and at which step of the funnel it stops a video."""

from __future__ import annotations

from dataclasses import dataclass

from shards.schema import FAILURES, Reason


@dataclass(frozen=True)
class FunnelStep:
    """A check that videos pass, and the reasons for which they do not.

    Attributes:
        name: short, for figures.
        passed: describes the videos that passed.
        reasons: those that stop a video here.
    """

    name: str
    passed: str
    reasons: tuple[Reason, ...]


FUNNEL_STEPS = (
    FunnelStep("readable", "File could be read", tuple(reason for reason in Reason if reason in FAILURES)),
    FunnelStep(
        "moving picture",
        "Moving picture that is long enough and intact",
        (
            *(Reason.NO_VIDEO_STREAM, Reason.STILL_IMAGE, Reason.TOO_SHORT, Reason.FRAME_TOO_LARGE),
            *(Reason.HDR_VIDEO, Reason.CORRUPT_FRAME),
        ),
    ),
    FunnelStep("face seen", "Shows a face", (Reason.NO_FACE,)),
    FunnelStep(
        "usable faces",
        "Enough usable faces of one person",
        (
            *(Reason.FACE_TOO_SMALL, Reason.CROP_TOO_SMALL, Reason.FACE_CUT_OFF, Reason.NO_LANDMARKS),
            *(Reason.EXTREME_POSE, Reason.TOO_DARK, Reason.NOISY, Reason.BLURRED, Reason.POSE_OUTLIER),
            *(Reason.OTHER_IDENTITY, Reason.TRACK_TOO_SHORT, Reason.SEVERAL_FACES, Reason.BYSTANDER),
            Reason.TOO_FEW_PHOTOGRAPHS,
        ),
    ),
    FunnelStep(
        "eight poses", "Eight good images in different poses", (Reason.TOO_FEW_POSES, Reason.LOW_QUALITY)
    ),
    FunnelStep(
        "accepted",
        "No duplicate: accepted",
        (
            *(Reason.DUPLICATE_VIDEO, Reason.NEAR_DUPLICATE, Reason.DUPLICATE_PERSON),
            Reason.DUPLICATE_PHOTOGRAPH,
        ),
    ),
)
"""The gates in the order of the pipeline; every reason belongs to exactly one."""

MEANING = {
    Reason.EMPTY_FILE: "the file holds no bytes",
    Reason.NOT_A_REGULAR_FILE: "a named pipe, a device or a directory, and no file",
    Reason.UNSUPPORTED_CONTAINER: "the container is not one of those that are opened",
    Reason.INACCESSIBLE: "the file is gone, or may not be read",
    Reason.UNREADABLE: "the file is no video that can be opened",
    Reason.TRUNCATED_FILE: "the file ends early",
    Reason.DECODE_ERROR: "the decoder reported an error",
    Reason.DECODER_CRASHED: "the process that decoded it died",
    Reason.SANDBOX_VIOLATION: "the decoder did what the sandbox forbids",
    Reason.WORKER_CRASHED: "the process that worked on it died",
    Reason.TIMEOUT: "took longer than allowed",
    Reason.OUT_OF_MEMORY: "needed more memory than allowed",
    Reason.INTERNAL_ERROR: "the code raised an unexpected error",
    Reason.NO_VIDEO_STREAM: "the file holds no moving picture",
    Reason.STILL_IMAGE: "one picture only",
    Reason.TOO_SHORT: "too few frames",
    Reason.FRAME_TOO_LARGE: "its frames have more pixels than allowed",
    Reason.HDR_VIDEO: "high dynamic range, which is not converted",
    Reason.CORRUPT_FRAME: "frames that are damaged, or depend on damaged ones",
    Reason.DUPLICATE_VIDEO: "same content as another video",
    Reason.NO_FACE: "no face found that could be large enough",
    Reason.FACE_TOO_SMALL: "face smaller than faces.min_px",
    Reason.CROP_TOO_SMALL: "head crop smaller than faces.min_crop_px",
    Reason.FACE_CUT_OFF: "a part of the face lies outside of the frame or the crop",
    Reason.NO_LANDMARKS: "no landmarks found in the face",
    Reason.EXTREME_POSE: "head turned further than allowed",
    Reason.TOO_DARK: "face too dark",
    Reason.NOISY: "picture too noisy",
    Reason.BLURRED: "face blurred",
    Reason.POSE_OUTLIER: "pose far from those of the frames before and after",
    Reason.OTHER_IDENTITY: "face unlike the rest of its track",
    Reason.TRACK_TOO_SHORT: "too few usable faces in the track",
    Reason.TOO_FEW_POSES: "the head hardly moves",
    Reason.LOW_QUALITY: "too few images of sufficient quality",
    Reason.NEAR_DUPLICATE: "another identity shows the same footage",
    Reason.DUPLICATE_PERSON: "another identity shows the same person better",
    Reason.DUPLICATE_PHOTOGRAPH: "same bytes as another photograph of the person",
    Reason.SEVERAL_FACES: "several faces of about one size in a photograph",
    Reason.BYSTANDER: "not the face of the photograph's person",
    Reason.TOO_FEW_PHOTOGRAPHS: "too few usable photographs of the person",
}

_ORDER = {
    reason.value: place
    for place, reason in enumerate(reason for step in FUNNEL_STEPS for reason in step.reasons)
}


def meaning(reason: str) -> str:
    """The meaning of a reason; the list of reasons is open, so one may not be known here."""
    return MEANING[Reason(reason)] if reason in _ORDER else "not known to this version of the report"


def order(reason: str) -> tuple[int, str]:
    """Sort key: the order of the gates, unknown reasons last."""
    return _ORDER.get(reason, len(_ORDER)), reason
