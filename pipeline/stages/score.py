"""Quality of the candidates and identity of the chosen ones.

Images are decoded from the very bytes that will be stored. The networks see one video's images at a time, in
batches of one fixed shape, so results depend on that video alone: not on other videos in the same process, and not
on the machine's configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import simplejpeg

from faces.align import align_512
from faces.profiles import load_embedder, load_quality
from faces.registry import Weights
from faces.types import Image, QualityMetric
from pipeline.config import Config
from pipeline.devices import gpu_fault
from pipeline.records import Analysis, Candidate, CandidateTrack
from pipeline.rejection import Rejection
from pipeline.stages.choice import choose_images
from pipeline.stages.identity import IdentityCheck
from pipeline.stopwatch import Stopwatch

SCORE_DIGITS = 4
"""Scores are rounded to this: much finer than their precision, much coarser than rounding errors."""


class CandidateScorer:
    """A quality network and an embedder, loaded once.

    Args:
        config: of the build.
        weights: the networks' files, by name.
    """

    def __init__(self, config: Config, weights: Weights) -> None:
        self._run = config.run
        self._selection = config.selection
        self._metric: QualityMetric = load_quality(config.models.quality, weights, config.run.device)
        embedder = load_embedder(config.models.embedder, weights, config.run.device)
        self._identity = IdentityCheck(embedder, config.tracking.min_outlier_cosine)

    @property
    def higher_is_better(self) -> bool:
        """The direction of the metric."""
        return self._metric.higher_is_better

    def score(self, analysis: Analysis, jpegs: list[bytes]) -> Analysis:
        """The same analysis with the quality of the candidates that can be chosen, and the identity of the chosen.

        Args:
            analysis: of one video.
            jpegs: its candidates' images, track after track.
        """
        watch = Stopwatch()
        images = iter(jpegs)
        tracks = [
            self._track(track, list(islice(images, len(track.candidates))), watch)
            for track in analysis.tracks
        ]
        seconds = analysis.seconds | watch.seconds
        return analysis.model_copy(update={"tracks": tracks, "seconds": seconds})

    def _track(self, track: CandidateTrack, jpegs: list[bytes], watch: Stopwatch) -> CandidateTrack:
        """The track with the quality of the candidates that can be chosen, and the identity of those that are.

        The first of each pose cluster is scored, then the others of the clusters that are chosen; all where eight
        cannot be chosen. The chosen ones then prove to show the track's person, or others are chosen.
        """
        rows = [row for row, candidate in enumerate(track.candidates) if candidate.rank == 0]
        while True:
            with watch.step("score"):
                track = self._scored(track, jpegs, rows)
            chosen = choose_images(track, self._selection, self.higher_is_better)
            rows = _unscored(track, chosen)
            if rows:
                continue
            if isinstance(chosen, Rejection):
                return track
            unknown = [row for row in chosen if track.candidates[row].identity_cosine is None]
            if not unknown:
                return track
            with watch.step("embed"), self._named_gpu_failures():
                track = self._identity.check(track, jpegs, unknown)

    def _scored(self, track: CandidateTrack, jpegs: list[bytes], rows: list[int]) -> CandidateTrack:
        candidates = list(track.candidates)
        images = [self._image(candidates[row], jpegs[row]) for row in rows]
        for row, score in zip(rows, self._scores(images), strict=True):
            candidates[row] = candidates[row].model_copy(update={"quality": round(score, SCORE_DIGITS)})
        return track.model_copy(update={"candidates": candidates})

    def _image(self, candidate: Candidate, jpeg: bytes) -> Image:
        image: Image = simplejpeg.decode_jpeg(jpeg, "RGB")
        if self._metric.aligned:
            image = align_512(image, np.array(candidate.keypoints_crop_px, dtype=np.float32))
        return image

    def _scores(self, images: list[Image]) -> list[float]:
        with self._named_gpu_failures():
            return [float(score) for score in self._metric.score(images)]

    @contextmanager
    def _named_gpu_failures(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            # A GPU that has failed once also fails every later video.
            if self._run.device == "cuda":
                raise gpu_fault(error, self._run) from error
            raise


def _unscored(track: CandidateTrack, chosen: list[int] | Rejection) -> list[int]:
    """Rows whose score may change the choice: those of the chosen clusters, or all."""
    rows = [row for row, candidate in enumerate(track.candidates) if candidate.quality is None]
    if isinstance(chosen, Rejection):
        return rows
    clusters = {track.candidates[row].cluster for row in chosen}
    return [row for row in rows if track.candidates[row].cluster in clusters]
