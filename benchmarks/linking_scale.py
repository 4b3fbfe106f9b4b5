"""Links 200,000 simulated identities of 60,000 persons among false pairs, and counts what comes out.

    python benchmarks/linking_scale.py FACES_DIR --cache DIR [--images 8 4 2 1] [--far 3e-6 1e-5]

FACES_DIR holds the labelled collections of benchmarks/linking_faces.py. What is real: the cosines among the
identities of a person are those among groups of photographs of a real person, each group of one pose. Where a
person has more identities than there are groups, groups are used again, with noise. What is simulated: that
persons have nothing in common, since their vectors lie in random directions of 512 dimensions; and the false
pairs, which are made until about as many reach the threshold as `--far` says:

- independent ones (half of them): two identities at random;
- look-alikes (a quarter): two to six persons with all of their identities;
- hubs (a quarter): identities of low quality, alike because all of them lie near one direction, more or less.

Printed for each: false pairs that reach the threshold, the largest person with single linkage and with groups,
precision and recall over pairs of identities, identities that share a group with another person, seconds, and the
process's peak memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from face_labels import wrong_labels
from identity_groups import groups_by_pose
from linking_faces import read_faces, usable
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.people.groups import NO_UNIT, Evidence, group
from pipeline.people.search import Pairs, similar_pairs

DIMENSIONS = 512
REPEATED = 0.85
"""Cosine of two identities that are made from one group of photographs."""
TAIL = 0.039
"""Mean excess of a false pair over the threshold: benchmarks/linking_faces.py fits .039 for SFace."""
INDEPENDENT, LOOK_ALIKES, HUBS = 0.5, 0.25, 0.25
"""Shares of the false pairs."""

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]


def unit(vectors: NDArray[np.floating]) -> Vectors:
    """Vectors of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def person_sizes(random: np.random.Generator, identities: int, persons: int) -> Labels:
    """Identities of each person: most have one or two, a few have hundreds."""
    rough = random.lognormal(0.0, 1.25, persons)
    count = np.maximum(1, np.round(rough * identities / rough.sum())).astype(np.int64)
    while excess := int(count.sum()) - identities:
        some = random.choice(np.flatnonzero(count > 1), min(abs(excess), persons // 10), replace=False)
        count[some] -= np.sign(excess)
    return count


def identities_of(random: np.random.Generator, real: list[Vectors], sizes: Labels) -> Vectors:
    """Identities of persons in random directions, each with the cosines among the groups of a real person."""
    found = np.empty((int(sizes.sum()), DIMENSIONS), np.float32)
    start = 0
    for size in sizes.tolist():
        groups = real[random.integers(len(real))]
        passes = -(-size // len(groups))
        order = np.concatenate([random.permutation(len(groups)) for _ in range(passes)])[:size]
        left, values, _ = np.linalg.svd(groups[order].astype(np.float64), full_matrices=False)
        frame = np.linalg.qr(random.standard_normal((DIMENSIONS, len(values))))[0]
        vectors = (left * values) @ frame.T
        if passes > 1:
            noise = unit(random.standard_normal((size, DIMENSIONS)))
            vectors = np.sqrt(REPEATED) * vectors + np.sqrt(1 - REPEATED) * noise
        found[start : start + size] = unit(vectors)
        start += size
    return found


def add_look_alikes(
    random: np.random.Generator, vectors: Vectors, person: Labels, pairs: int, cosine: float
) -> None:
    """Move groups of persons towards each other until a number of their pairs reach a cosine.

    How alike the persons of a group are on average has the tail of single pairs, from .1 below the cosine on.
    """
    rows_of = np.split(np.argsort(person, kind="stable"), np.cumsum(np.bincount(person))[:-1])
    order = random.permutation(len(rows_of))
    start = made = 0
    while made < pairs and start < len(order) - 6:
        some = [rows_of[one] for one in order[start : start + random.integers(2, 7)]]
        start += len(some)
        if max(map(len, some)) > 40:
            continue  # two large persons alone would be all of the pairs
        mean = min(cosine - 0.1 + random.exponential(TAIL), 0.9)
        towards = unit(random.standard_normal((1, DIMENSIONS)))
        for rows in some:
            vectors[rows] = unit(np.sqrt(1 - mean) * vectors[rows] + np.sqrt(mean) * towards)
        for a, b in combinations(some, 2):
            made += int((vectors[a] @ vectors[b].T >= cosine).sum())


def add_hubs(random: np.random.Generator, vectors: Vectors, pairs: int, cosine: float) -> None:
    """Move identities towards one direction, more or less, until about a number of their pairs reach a cosine."""
    far, near = 0.5 * np.sqrt(cosine), 1.1 * np.sqrt(cosine)
    sampled = random.uniform(far, near, (2, 100_000))
    share = float((sampled[0] * sampled[1] >= cosine).mean())
    count = int(np.sqrt(2 * pairs / share))
    rows = random.choice(len(vectors), count, replace=False)
    weight = random.uniform(far, near, (count, 1))
    towards = unit(random.standard_normal((1, DIMENSIONS)))
    vectors[rows] = unit(np.sqrt(1 - weight**2) * vectors[rows] + weight * towards)


def add_independent(random: np.random.Generator, vectors: Vectors, pairs: int, cosine: float) -> Vectors:
    """Move pairs of identities towards each other, to a cosine at or above the threshold."""
    a, b = random.integers(0, len(vectors), (2, pairs))
    wanted = np.minimum(cosine + random.exponential(TAIL, pairs), 0.9)
    # For unit vectors a, b at a right angle, those of a + w b and b + w a have the cosine 2 w / (1 + w^2).
    weight = ((1 - np.sqrt(1 - wanted**2)) / wanted)[:, None]
    moved = vectors.copy()
    for one, other in ((a, b), (b, a)):
        np.add.at(moved, one, (weight * vectors[other]).astype(np.float32))
    return unit(moved)


def simulate(
    random: np.random.Generator, real: list[Vectors], sizes: Labels, far: float, cosine: float
) -> tuple[Vectors, Labels]:
    """Identities in random order, and the person of each."""
    person = np.repeat(np.arange(len(sizes)), sizes)
    vectors = identities_of(random, real, sizes)
    false_pairs = far * len(person) * (len(person) - 1) / 2
    add_look_alikes(random, vectors, person, int(LOOK_ALIKES * false_pairs), cosine)
    add_hubs(random, vectors, int(HUBS * false_pairs), cosine)
    vectors = add_independent(random, vectors, int(INDEPENDENT * false_pairs), cosine)
    order = random.permutation(len(person))
    return np.ascontiguousarray(vectors[order]), person[order]


def largest(labels: Labels) -> int:
    """Size of the largest group."""
    return int(np.unique(labels, return_counts=True)[1].max())


def pairs_within(labels: Labels) -> int:
    """Number of pairs of one label."""
    count = np.unique(labels, return_counts=True)[1].astype(np.int64)
    return int((count * (count - 1) // 2).sum())


def chains(pairs: Pairs, count: int) -> Labels:
    """Groups of single linkage."""
    graph = coo_array((np.ones(len(pairs)), (pairs.first, pairs.second)), shape=(count, count))
    labels: Labels = connected_components(graph, directed=False)[1]
    return labels


def report(vectors: Vectors, person: Labels, cosine: float) -> str:
    """Link, and describe the result."""
    count = len(person)
    start = time.perf_counter()
    pairs = similar_pairs(vectors, cosine)
    found = time.perf_counter()
    nothing = Evidence(np.full(count, NO_UNIT), 0.0, np.zeros((0, 2), np.int64))
    labels = group(vectors, pairs.first, pairs.second, cosine, nothing)
    end = time.perf_counter()
    false = int((person[pairs.first] != person[pairs.second]).sum())
    both = labels * (person.max() + 1) + person
    right = pairs_within(both)
    # The identities of a group that are not of its most frequent person.
    of_group = np.unique(both, return_counts=True)
    most = np.zeros(count, np.int64)
    np.maximum.at(most, of_group[0] // (person.max() + 1), of_group[1])
    mixed = count - int(most.sum())
    return (
        f"false pairs {false:,} (rate {false / (count * (count - 1) / 2):.1e})  largest person {largest(person)}: "
        f"single linkage {largest(chains(pairs, count)):,}, groups {largest(labels)}  "
        f"precision {right / max(1, pairs_within(labels)):.4f}  recall {right / pairs_within(person):.4f}  "
        f"identities with other persons {mixed / count:.2%}  "
        f"search {found - start:.0f} s, groups {end - found:.0f} s, "
        f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
    )


def main() -> None:
    """Parse the arguments, simulate, link and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faces_dir", type=Path, metavar="FACES_DIR")
    parser.add_argument("--cache", type=Path, required=True, help="of benchmarks/linking_faces.py")
    parser.add_argument("--embedder", default="sface")
    parser.add_argument("--detector", default="yunet")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--cosine", type=float, default=0.6, help="the threshold")
    parser.add_argument(
        "--far", type=float, nargs="+", default=[3e-6], help="false-accept rates at the threshold"
    )
    parser.add_argument("--images", type=int, nargs="+", default=[8], help="photographs of an identity")
    parser.add_argument("--identities", type=int, default=200_000)
    parser.add_argument("--persons", type=int, default=60_000)
    arguments = parser.parse_args()
    faces = usable(read_faces(arguments, arguments.cache), set(wrong_labels()), None)
    person = np.unique(faces.person, return_inverse=True)[1].astype(np.int64)
    for images in arguments.images:
        groups = groups_by_pose(person, faces.pose[:, 0], images)
        means = groups.embeddings(faces.embeddings[arguments.embedder])
        real = [means[groups.person == one] for one in np.unique(groups.person)]
        for far in arguments.far:
            random = np.random.default_rng(0)
            sizes = person_sizes(random, arguments.identities, arguments.persons)
            vectors, persons = simulate(random, real, sizes, far, arguments.cosine)
            print(
                f"{images} photographs, rate {far:g}: {report(vectors, persons, arguments.cosine)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
