"""Do damaged videos put damaged images into the dataset? Damages clips, curates them, compares what is chosen.

    python benchmarks/damaged_images.py CLIPS [--mutations 350] [--json FILE]

The files are those of damaged_video.py. Each goes through the whole curation of a video (sandboxed decoding,
faces, tracks, quality, choice), with gates low enough for small clips. A chosen image is sound when some frame of
the original, cut at the same square, gives a PSNR of 28 dB or more at 128 px. The clips are curated undamaged too:
they must lose no frame. Exit status 1 when more than 1 percent of the chosen images are unsound, or an intact clip
loses a frame.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from curation import Curation
from damaged_sources import Source, make_sources
from numpy.typing import NDArray
from video_mutations import MUTATIONS

from faces.types import Image
from pipeline.decode.frames import Frame, decode
from pipeline.decode.probe import Probe, probe

SIDE = 128
LEAST_PSNR = 28.0
MOST_UNSOUND = 0.01
LOW_GATES = ("faces.min_crop_px=64", "frames.per_second=12", "selection.min_separation_deg=0.3")
"""The cuts are short and small."""


@dataclass
class Outcome:
    """What curation made of one file."""

    source: str
    codec: str
    mutation: str
    seed: int
    result: str = "accepted"
    analysed: int = 0
    corrupt: int = 0
    psnr: list[float] = field(default_factory=list)
    """Of each chosen image, in dB."""

    @property
    def unsound(self) -> int:
        """How many chosen images are not in the original."""
        return sum(value < LEAST_PSNR for value in self.psnr)


def frames_of(path: Path) -> list[Image]:
    """All frames of an intact clip."""
    found = probe(path)
    if not isinstance(found, Probe):
        raise ValueError(f"{path.name} is not an intact clip: {found.reason}")
    decoded = decode(path, found, np.arange(found.frames), "auto")
    return [item.image for item in decoded if isinstance(item, Frame)]


def best_psnr(jpeg: bytes, square: tuple[float, float, float], originals: list[Image]) -> float:
    """The greatest PSNR between a chosen image and the same square of an original frame, in dB."""
    image = small(simplejpeg.decode_jpeg(jpeg, "RGB"))
    x0, y0, side = (round(value) for value in square)
    squares = (small(original[y0 : y0 + side, x0 : x0 + side]) for original in originals)
    error = min(float(((image - square) ** 2).mean()) for square in squares)
    return float(10 * np.log10(255.0**2 / max(error, 1e-3)))


def small(image: Image) -> NDArray[np.float32]:
    """The image as it is compared."""
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def examine(path: Path, originals: list[Image], curation: Curation, outcome: Outcome) -> Outcome:
    """Curate a file and compare each chosen image with the original."""
    made = curation.curate(path).finalized
    outcome.result = str(made.outcome.reason or "accepted")
    outcome.analysed, outcome.corrupt = made.outcome.analysed_frames, made.outcome.corrupt_frames
    for sample in made.samples:
        for record, jpeg in zip(sample.identity.images, sample.jpegs, strict=True):
            outcome.psnr.append(round(best_psnr(jpeg, record.crop_px, originals), 1))
    return outcome


def tally(outcomes: list[Outcome], by: str) -> Iterator[str]:
    """A table by codec or by kind of damage."""
    yield (
        f"{by:<14} {'files':>6} {'accepted':>9} {'analysed':>9} {'corrupt':>8} {'images':>7} "
        f"{'unsound':>8} {'%':>6}"
    )
    for name in [*sorted({getattr(o, by) for o in outcomes}), "all"]:
        rows = [o for o in outcomes if name in (getattr(o, by), "all")]
        images, unsound = sum(len(o.psnr) for o in rows), sum(o.unsound for o in rows)
        yield (
            f"{name:<14} {len(rows):>6} {sum(o.result == 'accepted' for o in rows):>9} "
            f"{sum(o.analysed for o in rows):>9} {sum(o.corrupt for o in rows):>8} {images:>7} {unsound:>8} "
            f"{100 * unsound / max(images, 1):>6.2f}"
        )


def main() -> int:
    """Damage, curate, compare and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--mutations", type=int, default=350)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    outcomes: list[Outcome] = []
    lost = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        curation = Curation(root, *LOW_GATES)
        sources = make_sources(options.clips, root)
        seeds = -(-options.mutations // (len(sources) * len(MUTATIONS)))
        for source in sources:
            originals = frames_of(source.path)
            intact = examine(source.path, originals, curation, _outcome(source, "none", 0))
            lost += intact.corrupt
            if not intact.psnr:
                print(f"{source.path.name}: no identity even undamaged ({intact.result})", flush=True)
                continue
            for mutation, seed in ((m, s) for m in MUTATIONS for s in range(seeds)):
                outcomes.append(_damaged(source, originals, mutation, seed, curation=curation, root=root))
            done = [o for o in outcomes if o.source == source.path.name]
            images, unsound = sum(len(o.psnr) for o in done), sum(o.unsound for o in done)
            print(f"{source.path.name}: {len(done)} files, {images} images, {unsound} unsound", flush=True)
            if options.json:
                options.json.write_text(json.dumps([asdict(o) for o in outcomes]))
    print()
    print("\n".join([*tally(outcomes, "codec"), "", *tally(outcomes, "mutation"), ""]))
    print("outcomes:", dict(Counter(o.result for o in outcomes).most_common()))
    images, unsound = sum(len(o.psnr) for o in outcomes), sum(o.unsound for o in outcomes)
    share = unsound / max(images, 1)
    print(f"unsound images: {100 * share:.2f} % of {images} (at most {100 * MOST_UNSOUND:g} %)")
    print(f"frames lost of intact clips: {lost} (must be 0)")
    return int(share > MOST_UNSOUND or lost > 0)


def _damaged(
    source: Source, originals: list[Image], mutation: str, seed: int, *, curation: Curation, root: Path
) -> Outcome:
    rng = np.random.default_rng([seed, *mutation.encode(), *source.path.name.encode()])
    path = root / f"damaged-{source.path.name}"
    path.write_bytes(MUTATIONS[mutation](source.path.read_bytes(), source.stream_start, rng))
    return examine(path, originals, curation, _outcome(source, mutation, seed))


def _outcome(source: Source, mutation: str, seed: int) -> Outcome:
    return Outcome(source.path.name, source.codec, mutation, seed)


if __name__ == "__main__":
    raise SystemExit(main())
