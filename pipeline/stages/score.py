"""Quality of the candidates: the dearest step, in processes of its own, on a GPU where there is one.

Images are decoded from the very bytes that will be stored. Each is scored by itself: with batches across
videos the last bits of a score would depend on which videos happened to meet, and the data set with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import simplejpeg

from faces.align import align_512
from faces.profiles import load_quality
from faces.registry import ResolvedModel
from faces.types import Image, QualityMetric
from pipeline.config import Config
from pipeline.records import Analysis, Candidate
from pipeline.stopwatch import Stopwatch

SCORE_DIGITS = 4
"""Scores are rounded to this: far finer than they mean anything, far coarser than rounding errors."""

ALIGNED = frozenset({"topiq_nr-face"})
"""Metrics that were trained on aligned faces; the others look at the stored image."""


class QualityScorer:
    """A quality network, loaded once.

    Args:
        config: of the build.
        models: the networks' files, by name.
    """

    def __init__(self, config: Config, models: dict[str, ResolvedModel]) -> None:
        import torch

        torch.set_num_threads(config.run.scorer_threads)
        self._metric: QualityMetric = load_quality(config.models.quality, models, config.run.device)

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
            images = iter(jpegs)
            tracks = [
                track.model_copy(
                    update={"candidates": [self._scored(c, next(images)) for c in track.candidates]}
                )
                for track in analysis.tracks
            ]
        seconds = analysis.seconds | watch.seconds
        return analysis.model_copy(update={"tracks": tracks, "seconds": seconds})

    def _scored(self, candidate: Candidate, jpeg: bytes) -> Candidate:
        image: Image = simplejpeg.decode_jpeg(jpeg, "RGB")
        if self._metric.name in ALIGNED:
            image = align_512(image, np.array(candidate.keypoints_crop_px, dtype=np.float32))
        score: Any = self._metric.score([image])[0]
        return candidate.model_copy(update={"quality": round(float(score), SCORE_DIGITS)})
