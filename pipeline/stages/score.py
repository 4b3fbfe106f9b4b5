"""Quality of the candidates: the most expensive stage, in actors of its own, on a GPU where there is one.

Images are decoded from the very bytes that will be stored. A batch holds candidates of one video only: the last
bits of a score depend on an image's neighbours in its batch, and with batches across videos the dataset would
depend on which videos happened to meet. One video has enough candidates to fill a GPU.
"""

from __future__ import annotations

import numpy as np
import simplejpeg

from faces.align import align_512
from faces.profiles import load_quality
from faces.registry import Weights
from faces.types import Image, QualityMetric
from pipeline.config import Config
from pipeline.errors import MachineFault
from pipeline.records import Analysis, Candidate
from pipeline.stopwatch import Stopwatch

SCORE_DIGITS = 4
"""Scores are rounded to this: far finer than they mean anything, far coarser than rounding errors."""


class QualityScorer:
    """A quality network, loaded once.

    Args:
        config: of the build.
        weights: the networks' files, by name.
    """

    def __init__(self, config: Config, weights: Weights) -> None:
        import torch

        torch.set_num_threads(config.run.scorer_threads)
        self._device = config.run.device
        self._metric: QualityMetric = load_quality(
            config.models.quality, weights, self._device, config.run.scorer_batch
        )

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
            # A GPU that has failed once fails every video after this one, too.
            if self._device == "cuda":
                raise MachineFault(
                    f"the quality network failed on the GPU: {error}. Lower run.scorer_batch if memory ran out; "
                    "the same command again continues"
                ) from error
            raise
