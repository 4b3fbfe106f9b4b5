"""Where do the thresholds of linking lie? Cosines of groups of real faces, with false accepts extrapolated.

    python benchmarks/linking_faces.py FACES_DIR [--embedder NAME] [--detector NAME] [--weights DIR]
                                       [--cache DIR] [--collection NAME] [--with-wrong-labels] [--suspects]
                                       [--link COSINE [VERIFIER_COSINE]] [--scores FILE]

FACES_DIR holds `lfw_deepfunneled_ge8/` and `pins105/`: one directory of images for each person. Every image is
detected, posed, aligned and embedded as the pipeline does. Groups of images of one person stand for identities:

| groups | how the images are grouped |
|---|---|
| random | eight at random |
| pose | eight in the order of yaw: each group shows one direction, so genuine pairs cross poses |
| turned | eight of 30 degrees of yaw and more, against eight of 15 and less |
| four, two, one | four, two or one at random |
| turned two | as turned, but two |

For each: genuine and impostor cosines, and the threshold at a false-accept rate with the true-accept rate
there. Each pair of persons counts once, and each person once, however many groups there are. Rates below the
reciprocal of the number of pairs of persons are extrapolated (score_tail.py): exponential, and generalised
Pareto with the 5 to 95 % interval of a bootstrap over persons.

`--embedder` is any embedder of `mfhq models list`; `--weights` is the folder of files that do not ship in a
wheel. When it holds MobileFaceNet_foamliu.onnx, that network is calibrated in the same way. `--scores` stores
all cosines.

`--link` runs the pipeline's linking on the groups, at the threshold of the embedder and at that of
MobileFaceNet, which judges: precision and recall over pairs of groups, by the labels, and by the pairs that
MobileFaceNet joins.

`--suspects` lists the images that both embedders find far from their label, and ends. Those that were looked at
and have a wrong label are in linking_faces_wrong_labels.tsv, and left out unless `--with-wrong-labels` is
given.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from face_calibration import Calibration, TooFewPairs, calibrate, rates_at, rows_of, save_scores
from face_labels import alike_labels, suspects, wrong_labels
from identity_groups import IMAGES, Groups, groups_by_pose, random_groups, turned_and_frontal
from labelled_faces import COLLECTIONS, LabelledFaces, load

from faces.embed import ArcFace
from faces.landmarks import FaceLandmarker
from faces.profiles import check_roles, load_detector, load_embedder
from faces.registry import load_weights
from faces.types import Embedder

VERIFIER = "mobilefacenet"
VERIFIER_FILE = "MobileFaceNet_foamliu.onnx"
VERIFIER_SAME = 0.36
"""MobileFaceNet takes two groups for one person's at this cosine: of groups of two images, 1e-3 falsely."""
MOST_GROUPS = 8
"""Most groups of a person, for small groups; more add little about the same person."""


def groupings(faces: LabelledFaces) -> dict[str, Groups]:
    """The groups of images, by name."""
    person = np.unique(faces.person, return_inverse=True)[1].astype(np.int64)
    yaw = faces.pose[:, 0]
    return {
        "random": random_groups(person, yaw, IMAGES, seed=0),
        "pose": groups_by_pose(person, yaw, IMAGES),
        "turned": turned_and_frontal(person, yaw, IMAGES, seed=0),
        "four": random_groups(person, yaw, 4, seed=0, most=MOST_GROUPS),
        "two": random_groups(person, yaw, 2, seed=0, most=MOST_GROUPS),
        "turned two": turned_and_frontal(person, yaw, 2, seed=0),
        "one": random_groups(person, yaw, 1, seed=0, most=MOST_GROUPS),
    }


def usable(faces: LabelledFaces, wrong: set[str], collection: str | None) -> LabelledFaces:
    """The images of one collection, or of all, that have a face and a pose, less those with a wrong label."""
    keep = faces.found & np.isfinite(faces.pose[:, 0]) & ~np.isin(faces.files, sorted(wrong))
    if collection is not None:
        keep &= faces.collection == collection
    columns = {
        field.name: getattr(faces, field.name)[keep]
        for field in dataclasses.fields(faces)
        if field.name != "embeddings"
    }
    return LabelledFaces(**columns, embeddings={name: each[keep] for name, each in faces.embeddings.items()})


def images_found(faces: LabelledFaces) -> list[str]:
    """How many images of each collection have a face, and their poses."""
    rows = []
    for name in COLLECTIONS:
        some = faces.collection == name
        yaw = np.abs(faces.pose[some & np.isfinite(faces.pose[:, 0]), 0])
        rows.append(
            f"  {name}: {some.sum()} images of {len(np.unique(faces.person[some]))} people; "
            f"{(some & ~faces.found).sum()} without a face, "
            f"{(some & faces.found & ~np.isfinite(faces.pose[:, 0])).sum()} without landmarks, "
            f"{(some & (faces.faces > 1)).sum()} with several faces; "
            f"|yaw| median {np.median(yaw):.0f}, 90 % {np.quantile(yaw, 0.9):.0f} degrees"
        )
    return rows


def suspect_rows(faces: LabelledFaces) -> list[str]:
    """The suspect images and the labels that are most alike."""
    rows = ["file\town label\tnearest other"]
    for one in suspects(faces):
        own = " ".join(f"{cosine:.2f}" for cosine in one.own.values())
        nearest = " ".join(f"{person} {cosine:.2f}" for person, cosine in one.nearest.values())
        rows.append(f"{faces.files[one.row]}\t{own}\t{nearest}")
    for embedder in faces.embeddings:
        rows += [
            f"{embedder}: {a} and {b} {cosine:.2f}" for a, b, cosine in alike_labels(faces, embedder, 12)
        ]
    return rows


def link_rows(groups: dict[str, Groups], faces: LabelledFaces, cosines: list[float]) -> list[str]:
    """What the pipeline's linking makes of the groups.

    Args:
        groups: by the name of the grouping.
        faces: the images.
        cosines: threshold of each embedder, in the order of `faces.embeddings`.
    """
    from linked_groups import agreement, joined_cosines, linked

    rows = []
    for name, some in groups.items():
        if not len(some.person):
            continue
        persons = {
            embedder: linked(some, vectors, cosine)
            for (embedder, vectors), cosine in zip(faces.embeddings.items(), cosines, strict=False)
        }
        rows.append(f"{name}: {len(some.person)} groups of {len(np.unique(some.person))} people")
        for embedder, found in persons.items():
            by_label = agreement(found, some.person)
            rows.append(
                f"  {embedder} joins {by_label.joined} pairs: precision {by_label.precision:.4f}, "
                f"recall {by_label.recall:.4f} by the labels"
            )
        if VERIFIER in persons and len(persons) == 2:
            both = agreement(*persons.values())
            judged = joined_cosines(some, next(iter(persons.values())), faces.embeddings[VERIFIER])
            rows.append(
                f"  {both.precision:.4f} of the first embedder's pairs are {VERIFIER}'s, {both.recall:.4f} the "
                f"reverse; {(judged >= VERIFIER_SAME).mean():.4f} reach {VERIFIER_SAME} with {VERIFIER}"
            )
    return rows


def read_faces(arguments: argparse.Namespace, cache: Path) -> LabelledFaces:
    """The faces, from the cache where it has them.

    Raises:
        WeightsUnavailable: weights are missing.
        ValueError: a name is not that of a detector or an embedder.
    """
    roles = {"detector": arguments.detector, "landmarker": "face_landmarker", "embedder": arguments.embedder}
    weights = load_weights(roles.values(), arguments.weights)
    check_roles(roles, weights)
    embedders: dict[str, Embedder] = {arguments.embedder: load_embedder(arguments.embedder, weights)}
    verifier = arguments.weights / VERIFIER_FILE if arguments.weights else None
    if verifier is not None and verifier.is_file():
        embedders[VERIFIER] = ArcFace(verifier, name=VERIFIER, normalisation="imagenet")
    return load(
        arguments.faces_dir,
        cache,
        detector=(arguments.detector, load_detector(arguments.detector, weights)),
        landmarker=FaceLandmarker(weights["face_landmarker"].path),
        embedders=embedders,
        report=lambda line: print(line, flush=True),
    )


def main() -> None:
    """Parse the arguments, calibrate and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faces_dir", type=Path, metavar="FACES_DIR")
    parser.add_argument("--embedder", default="sface")
    parser.add_argument("--detector", default="yunet")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--collection", choices=COLLECTIONS)
    parser.add_argument("--with-wrong-labels", action="store_true")
    parser.add_argument("--suspects", action="store_true")
    parser.add_argument("--link", type=float, nargs="+", metavar="COSINE")
    parser.add_argument("--scores", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        faces = read_faces(arguments, arguments.cache or Path(temporary))
    print("\n".join(["images:", *images_found(faces)]))
    if arguments.suspects:
        print("\n".join(suspect_rows(faces)))
        return
    wrong = {} if arguments.with_wrong_labels else wrong_labels()
    print(f"  {np.isin(faces.files, sorted(wrong)).sum()} with a wrong label are left out")
    used = usable(faces, set(wrong), arguments.collection)
    groups = groupings(used)
    if arguments.link:
        print("\n".join(link_rows(groups, used, arguments.link)))
        return
    calibrations: dict[str, dict[str, Calibration]] = {}
    for embedder in used.embeddings:
        print(f"{embedder}:")
        calibrations[embedder] = {}
        for name, some in groups.items():
            try:
                each = calibrations[embedder][name] = calibrate(some, used, embedder)
            except TooFewPairs as error:
                print(f"  {name}: skipped, {error}")
                continue
            print("\n".join([*rows_of(name, each), *rates_at(name, each)]), flush=True)
    if arguments.scores:
        save_scores(arguments.scores, calibrations)


if __name__ == "__main__":
    main()
