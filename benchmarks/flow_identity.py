r"""Do samples look like the person they were asked to show? Measured on people that the trainer never saw.

    python benchmarks/flow_identity.py /data/mfhq /data/runs/flow-with-mtd /data/runs/flow-without --samples 4

Every held-out person is drawn from their inputs, and each drawing is compared with the person's other images, real
and not inputs, by the cosine of a face recognition network's embeddings (`--profile embedded`: SFace). `own` is
the mean over people; `stranger` is that of what was drawn of all others. `gain` is the mean of the difference with
its standard error, and `first` the share of people whose drawings are nearest to themselves among all people. The
line of photographs is what their real inputs reach at the drawings' size: the ceiling. Of several runs, it is said
by how much the gain of the first exceeds that of each other one, person by person and from the same noise.

A face is looked for in each drawing; where none is found, it is measured where it mostly is in the photographs.

README's figures come of these commands; FACES is Labeled Faces in the Wild, people with eight photographs or more.
OTHER is trained as RUN is, without the last two settings; both were stopped after step 6,000:

    python benchmarks/photo_shards.py FACES SHARDS --crop-scale 1.1 --mirrored
    python benchmarks/face_vae.py SHARDS VAE
    omniid train workflows/train_mtd_tiny.yaml data.root=SHARDS output=MTD batch=16 run.per_process=16 steps=1500 \
        optimiser.warmup_steps=50 optimiser.ema_decay=0.99
    omniid train workflows/train_flow_tiny.yaml data.root=SHARDS output=RUN steps=9000 flow.identity_dropout=0.1 \
        "flow.scratch={layers: 4, single_layers: 2, heads: 4, head_width: 48, vae: VAE}" \
        optimiser.warmup_steps=200 optimiser.encoder_share=0.3 optimiser.ema_decay=0.998 \
        flow.encoder=MTD/encoder model.clip=encoder
    python benchmarks/flow_identity.py SHARDS RUN OTHER --steps 25 --samples 8 --identity-guidance 2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from faces.align import align_112
from faces.portraits import PortraitFinder
from training.config import Data
from training.data.dataset import open_dataset
from training.data.held_out import held_out_batches
from training.errors import TrainingError
from training.export import read_trained
from training.sampling.sampler import Sampler, check_identity_guidance

STORED = 512


@dataclass(frozen=True)
class Person:
    """A held-out identity."""

    name: str
    inputs: NDArray[np.uint8]
    others: NDArray[np.uint8]
    """Images that are not inputs."""


class Measure:
    """Embeddings of images that are faces, or are meant to be."""

    def __init__(
        self, profile: str, models_dir: Path | None, photographs: Sequence[NDArray[np.uint8]]
    ) -> None:
        self._finder = PortraitFinder.load(profile, models_dir, with_embedder=True)
        seen = [keypoints for image in photographs if (keypoints := self._keypoints(image)) is not None]
        self._usual = np.median(seen, axis=0).astype(np.float32)
        self.found = self.asked = 0

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Unit vector of an image of any size."""
        large = cv2.resize(image, (STORED, STORED), interpolation=cv2.INTER_CUBIC)
        keypoints = self._keypoints(large)
        self.asked += 1
        self.found += keypoints is not None
        if keypoints is None:
            keypoints = self._usual
        embedder = self._finder.embedder
        if embedder is None:
            raise ValueError("the finder was loaded without an embedder")
        return np.asarray(embedder.embed([align_112(large, keypoints)])[0], dtype=np.float64)

    def _keypoints(self, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Of the largest face: eyes, nose tip and corners of the mouth, (5, 2) in pixels."""
        found = self._finder.detector.detect(image)
        return max(found, key=lambda face: face.face_px).keypoints if found else None


def main() -> None:
    """Measure every run and print a table."""
    options = parse()
    runs = [read_trained(source) for source in options.runs]
    for trained in runs:
        if trained.facts.flow is not None:
            check_identity_guidance(trained.facts.flow, options.identity_guidance)
    people = held_out_people(options.dataset, options.people)
    measure = Measure(
        options.profile, options.models_dir, [image for person in people for image in person.others]
    )
    truth = np.stack(
        [unit(np.mean([measure(image) for image in person.others], axis=0)) for person in people]
    )
    print(
        f"{len(people)} held-out people, {options.samples} drawing(s) of each, {options.steps or 'usual'} steps, "
        f"adapter scale {options.scale:g}, identity guidance "
        + ("usual" if options.identity_guidance is None else f"{options.identity_guidance:g}")
    )
    print(f"{'':<28}{'own':>8}{'stranger':>10}{'gain':>17}{'first':>8}{'found':>8}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sides, gains = set(), []
    for trained in runs:
        sampler = Sampler.load(trained, device)
        sides.add(sampler.stage.flow.side)
        seeds = range(options.samples)
        drawn = [
            sampler.draw(
                list(person.inputs),
                seeds,
                steps=options.steps,
                scale=options.scale,
                identity_guidance=options.identity_guidance,
            )
            for person in people
        ]
        gains.append(report(trained.source.name, drawn, truth, people, measure))
    for trained, others in zip(runs[1:], gains[1:], strict=True):
        ahead, error = mean_and_error(gains[0] - others)
        print(f"{runs[0].source.name} is ahead of {trained.source.name} by {ahead:.3f} ± {error:.3f}")
    for side in sorted(sides):
        small = [
            [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in person.inputs]
            for person in people
        ]
        report(f"photographs of {side} px", small, truth, people, measure)


def report(
    name: str,
    drawn: list[list[NDArray[np.uint8]]],
    truth: NDArray[np.float64],
    people: list[Person],
    measure: Measure,
) -> NDArray[np.float64]:
    """Print a line of the table; the gain of each person."""
    measure.found = measure.asked = 0
    embedded = [np.stack([measure(image) for image in images]) for images in drawn]
    cosines = np.stack([(vectors @ truth.T).mean(axis=0) for vectors in embedded])  # [drawn, compared with]
    own = np.diag(cosines)
    stranger = (cosines.sum(axis=0) - own) / (len(people) - 1)
    gains: NDArray[np.float64] = own - stranger
    gain, error = mean_and_error(gains)
    first = float((cosines.argmax(axis=1) == np.arange(len(people))).mean())
    print(
        f"{name:<28}{own.mean():>8.3f}{stranger.mean():>10.3f}{gain:>9.3f} ± {error:.3f}"
        f"{first:>8.0%}{measure.found / measure.asked:>8.0%}"
    )
    return gains


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """The mean of several people's values, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5


def held_out_people(root: str, count: int) -> list[Person]:
    """The first people of the test split; of a person with several identities the first."""
    dataset = open_dataset(root, 60.0, None)
    people: dict[str, Person] = {}
    for batch, names, _ in held_out_batches(
        dataset, Data(root=root), count, per_process=8, side=STORED, rank=0, world_size=1
    ):
        for row, name in enumerate(names):
            if bool(batch.valid_B[row]) and name not in people:
                images = batch.images_BKSSC[row].numpy()
                inputs = batch.inputs_BM[row].tolist()
                others = [image for image in range(len(images)) if image not in inputs]
                people[name] = Person(name, images[inputs], images[others])
    if len(people) < 2:
        raise SystemExit(f"{root} holds {len(people)} held-out people; two at least can be compared")
    return list(people.values())


def unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of length 1."""
    return vector / np.linalg.norm(vector)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="folder or address of the data set")
    parser.add_argument("runs", type=Path, nargs="+", help="outputs of runs of the second stage, or exports")
    parser.add_argument("--people", type=int, default=256, help="at most (256)")
    parser.add_argument("--samples", type=int, default=4, help="drawings of each person (4)")
    parser.add_argument("--steps", type=int, help="of each drawing (the run's)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the identity is added (1)")
    parser.add_argument(
        "--identity-guidance", type=float, help="how far from nobody to the person (the run's)"
    )
    parser.add_argument(
        "--profile", default="embedded", help="networks that find and recognise faces (embedded)"
    )
    parser.add_argument("--models-dir", type=Path, help="folder with their weights")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except TrainingError as refused:
        sys.exit(f"error: {refused}")
