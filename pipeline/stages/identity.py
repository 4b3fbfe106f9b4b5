"""Whether the chosen images show the person of their track, by embeddings of what will be stored.

The analysis embeds few of the candidates: between two embedded faces of a steady track, place and picture say
whose face it is. An embedding has the last word on each chosen image that has none yet, and the record holds its
cosine.
"""

from __future__ import annotations

import numpy as np
import simplejpeg

from faces.align import align_112
from faces.types import Embedder, Image
from pipeline.records import Candidate, CandidateTrack
from pipeline.stages.track_filter import PROFILE_DEG


class IdentityCheck:
    """Compares images with the person of their track.

    Args:
        embedder: that of the analysis.
        least_cosine: images less like the mean of the track's embeddings are another person's; not asked of
            profiles of an uninterrupted track.
    """

    def __init__(self, embedder: Embedder, least_cosine: float) -> None:
        self._embedder = embedder
        self._least_cosine = least_cosine

    def check(self, track: CandidateTrack, jpegs: list[bytes], rows: list[int]) -> CandidateTrack:
        """The track with the cosines of some candidates; those of another identity are marked.

        Args:
            track: of one person.
            jpegs: the images of its candidates.
            rows: of the candidates to check.
        """
        mean = np.array(track.embedding, dtype=np.float32)
        candidates = list(track.candidates)
        embeddings = self._embedder.embed([_aligned(candidates[row], jpegs[row]) for row in rows])
        for row, cosine in zip(rows, (embeddings @ mean).tolist(), strict=True):
            update = {
                "identity_cosine": round(cosine, 4),
                "other_identity": cosine < self._least_cosine and not _is_steady_profile(candidates[row]),
            }
            candidates[row] = candidates[row].model_copy(update=update)
        return track.model_copy(update={"candidates": candidates})


def _aligned(candidate: Candidate, jpeg: bytes) -> Image:
    image: Image = simplejpeg.decode_jpeg(jpeg, "RGB")
    return align_112(image, np.array(candidate.keypoints_crop_px, dtype=np.float32))


def _is_steady_profile(candidate: Candidate) -> bool:
    return candidate.continuous and abs(candidate.pose.yaw) > PROFILE_DEG
