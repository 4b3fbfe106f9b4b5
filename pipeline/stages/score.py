"""Quality of the candidates: the most expensive stage, in its own actors, on a GPU where there is one.

Images are decoded from the very bytes that will be stored. The network sees one video's images at a time, in
batches of one fixed shape (`faces.quality.BATCH`), so scores depend on that video alone: not on other
videos in the same process, and not on the machine's configuration.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import simplejpeg

from faces.align import align_512
from faces.profiles import load_quality
from faces.registry import Weights
from faces.types import Image, QualityMetric
from pipeline.config import Config, Run
from pipeline.errors import MachineFault
from pipeline.records import Analysis, Candidate, CandidateTrack
from pipeline.rejection import Rejection
from pipeline.stages.choice import choose_images
from pipeline.stopwatch import Stopwatch

SCORE_DIGITS = 4
"""Scores are rounded to this: much finer than their precision, much coarser than rounding errors."""


class QualityScorer:
    """A quality network, loaded once.

    Args:
        config: of the build.
        weights: the networks' files, by name.
    """

    def __init__(self, config: Config, weights: Weights) -> None:
        self._run = config.run
        self._selection = config.selection
        self._metric: QualityMetric = load_quality(config.models.quality, weights, config.run.device)

    @property
    def higher_is_better(self) -> bool:
        """The direction of the metric."""
        return self._metric.higher_is_better

    def score(self, analysis: Analysis, jpegs: list[bytes]) -> Analysis:
        """The same analysis with the quality of the candidates that can be chosen.

        Args:
            analysis: of one video.
            jpegs: its candidates' images, track after track.
        """
        watch = Stopwatch()
        with watch.step("score"):
            images = iter(jpegs)
            tracks = [
                self._track(track, list(islice(images, len(track.candidates)))) for track in analysis.tracks
            ]
        seconds = analysis.seconds | watch.seconds
        return analysis.model_copy(update={"tracks": tracks, "seconds": seconds})

    def _track(self, track: CandidateTrack, jpegs: list[bytes]) -> CandidateTrack:
        """The track with the quality of the candidates that can be chosen.

        The first of each pose cluster is scored, then the others of the clusters that these show to be the best.
        """
        ranks = [candidate.rank for candidate in track.candidates]
        track = self._scored(track, jpegs, [row for row, rank in enumerate(ranks) if rank == 0])
        chosen = choose_images(track, self._selection, self.higher_is_better)
        if isinstance(chosen, Rejection):
            rest = [row for row, rank in enumerate(ranks) if rank > 0]
        else:
            clusters = {track.candidates[row].cluster for row in chosen}
            rest = [
                row
                for row, candidate in enumerate(track.candidates)
                if candidate.rank > 0 and candidate.cluster in clusters
            ]
        return self._scored(track, jpegs, rest)

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
        try:
            return [float(score) for score in self._metric.score(images)]
        except RuntimeError as error:
            # A GPU that has failed once also fails every later video.
            if self._run.device == "cuda":
                raise MachineFault(_gpu_failure(error, self._run)) from error
            raise


def _gpu_failure(error: RuntimeError, run: Run) -> str:
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError):
        return (
            f"The GPU's memory ran out in the quality network: {error}. Raise run.scorer_gpus (now "
            f"{run.scorer_gpus:g}) or run.analyser_gpus (now {run.analyser_gpus:g}), so that fewer processes "
            "share a GPU; the same command again continues, and all finished videos stay valid"
        )
    return f"The quality network failed on the GPU: {error}. The same command again continues"
