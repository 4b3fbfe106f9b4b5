"""Quality of the candidates: the most expensive stage, in its own actors, on a GPU where there is one.

Images are decoded from the very bytes that will be stored. The network sees one video's images at a time, in
batches of one fixed shape (`faces.quality.BATCH`), so scores depend on that video alone: not on other
videos in the same process, and not on the machine's configuration.
"""

from __future__ import annotations

import numpy as np
import simplejpeg

from faces.align import align_512
from faces.profiles import load_quality
from faces.registry import Weights
from faces.types import Image, QualityMetric
from pipeline.config import Config, Run
from pipeline.errors import MachineFault
from pipeline.records import Analysis, Candidate
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
        self._metric: QualityMetric = load_quality(config.models.quality, weights, config.run.device)

    @property
    def higher_is_better(self) -> bool:
        """The direction of the metric."""
        return self._metric.higher_is_better

    def score(self, analysis: Analysis, jpegs: list[bytes]) -> Analysis:
        """The same analysis with the quality of every candidate.

        Args:
            analysis: of one video.
            jpegs: its candidates' images, track after track.
        """
        watch = Stopwatch()
        with watch.step("score"):
            candidates = [candidate for track in analysis.tracks for candidate in track.candidates]
            images = [self._image(c, jpeg) for c, jpeg in zip(candidates, jpegs, strict=True)]
            scores = iter(self._scores(images))
            tracks = [
                track.model_copy(
                    update={
                        "candidates": [
                            candidate.model_copy(update={"quality": round(next(scores), SCORE_DIGITS)})
                            for candidate in track.candidates
                        ]
                    }
                )
                for track in analysis.tracks
            ]
        seconds = analysis.seconds | watch.seconds
        return analysis.model_copy(update={"tracks": tracks, "seconds": seconds})

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
