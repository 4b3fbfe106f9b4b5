"""Cosines of labelled groups with the fitted tail of the impostors, as tables and as columns for simulations."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from identity_groups import Cosines, Groups, genuine, impostor
from labelled_faces import LabelledFaces
from score_tail import TAIL, Tail, fit_tail, share_at_or_above, weighted_quantile

FARS = (1e-2, 1e-3, 1e-4, 1e-5, 3e-6, 1e-6, 1e-7)
COSINES = (0.363, 0.40, 0.50, 0.55, 0.58, 0.60, 0.62, 0.65)
IDENTITIES = 200_000
LEAST_IMPOSTORS = 5_000
"""Impostor pairs of groups: a hundred are in the tail then, enough for each bootstrap sample."""
BOOTSTRAPS = 100
KEPT_FOR_BOOTSTRAP = 0.06
"""Share of the largest impostor cosines that a bootstrap sample can need: three times the tail."""


class TooFewPairs(ValueError):  # noqa: N818 - names the fault
    """A grouping has too few pairs."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Cosines of one grouping by one embedder, with the fitted tail.

    Attributes:
        genuine: of groups of one person.
        impostor: of groups of two persons.
        exponential: tail with shape 0.
        pareto: tail with the fitted shape.
        samples: Pareto tails of the bootstrap samples.
    """

    genuine: Cosines
    impostor: Cosines
    exponential: Tail
    pareto: Tail
    samples: list[Tail]

    def true_accepts(self, cosine: float) -> float:
        """Share of the genuine pairs at or above a threshold, each person counted once."""
        return share_at_or_above(self.genuine.values, self.genuine.weights(), cosine)


def calibrate(groups: Groups, faces: LabelledFaces, embedder: str) -> Calibration:
    """Cosines and tails of one grouping.

    Raises:
        TooFewPairs: there are too few for a tail, or none of one person.
    """
    vectors = faces.embeddings[embedder]
    own, others = genuine(groups, vectors), impostor(groups, vectors)
    if not len(own.values) or len(others.values) < LEAST_IMPOSTORS:
        raise TooFewPairs(f"{len(own.values)} genuine and {len(others.values)} impostor pairs are too few")
    weights = others.weights()
    exponential, pareto = (fit_tail(others.values, weights, exponential=each) for each in (True, False))
    return Calibration(own, others, exponential, pareto, _bootstrap(others, int(groups.person.max()) + 1))


def _bootstrap(others: Cosines, people: int) -> list[Tail]:
    random = np.random.default_rng(0)
    weights = others.weights()
    near = np.flatnonzero(others.values > weighted_quantile(others.values, weights, 1 - KEPT_FOR_BOOTSTRAP))
    near = near[np.argsort(others.values[near])]
    present = np.unique(others.persons)
    pairs = len(present) * (len(present) - 1)
    first, second = others.persons[near].T
    base, values = weights[near], others.values[near]
    tails: list[Tail] = []
    for _ in range(BOOTSTRAPS):
        count = np.zeros(people)
        np.add.at(count, random.choice(present, len(present)), 1.0)
        sampled = base * count[first] * count[second]
        # The pairs that are sampled exclude those of a person with themselves.
        total = (count.sum() ** 2 - (count**2).sum()) / pairs
        tail = fit_tail(values, sampled, min(0.9, TAIL * total / sampled.sum()))
        tails.append(dataclasses.replace(tail, share=tail.share * sampled.sum() / total))
    return tails


def rows_of(name: str, calibration: Calibration) -> list[str]:
    """The lines of one grouping."""
    own, others = calibration.genuine, calibration.impostor
    own_weights, weights = own.weights(), others.weights()
    mean = float(weights @ others.values)
    spread = float(np.sqrt(weights @ (others.values - mean) ** 2))
    quantiles = [weighted_quantile(own.values, own_weights, q) for q in (0.01, 0.05, 0.10, 0.50)]
    pairs = len(np.unique(others.pair_of_persons))
    counts = (
        f"  {name}: {len(own.values)} genuine pairs of {len(np.unique(own.persons))} people, "
        f"1/5/10/50 % {'/'.join(f'{q:.3f}' for q in quantiles)}; {pairs} impostor pairs of people, "
        f"mean {mean:.3f}, deviation {spread:.3f}, largest {others.values.max():.3f}; "
        f"shape {calibration.pareto.shape:.2f}"
    )
    rows = [
        counts,
        "    far      counted  exponential  accepts   pareto  accepts   5..95 % of the bootstrap",
    ]
    for far in FARS:
        counted = f"{weighted_quantile(others.values, weights, 1 - far):.3f}" if far * pairs >= 5 else "    -"
        low, high = np.quantile([tail.cosine(far) for tail in calibration.samples], (0.05, 0.95))
        safe, fitted = calibration.exponential.cosine(far), calibration.pareto.cosine(far)
        rows.append(
            f"    {far:<8.0e} {counted:>7}  {safe:11.3f}  {calibration.true_accepts(safe):7.3f}  {fitted:7.3f}  "
            f"{calibration.true_accepts(fitted):7.3f}   {low:.3f}..{high:.3f}"
        )
    return rows


def rates_at(name: str, calibration: Calibration) -> list[str]:
    """The rates of one grouping at fixed thresholds, with the false pairs among IDENTITIES."""
    pairs = IDENTITIES * (IDENTITIES - 1) / 2
    rows = [f"  {name}: cosine, accepts, far (5..95 %), false pairs of {IDENTITIES:,} identities"]
    for cosine in COSINES:
        fitted = float(calibration.pareto.far(np.array(cosine)))
        fars = [float(tail.far(np.array(cosine))) for tail in calibration.samples]
        low, high = np.quantile(fars, (0.05, 0.95))
        rows.append(
            f"    {cosine:.3f}  {calibration.true_accepts(cosine):.3f}  {fitted:.1e} ({low:.1e}..{high:.1e})  "
            f"{fitted * pairs:,.0f} ({low * pairs:,.0f}..{high * pairs:,.0f})"
        )
    return rows


def save_scores(path: Path, calibrations: dict[str, dict[str, Calibration]]) -> None:
    """Write cosines and tails of all groupings, for simulations; keys are EMBEDDER_GROUPING_WHAT."""
    columns: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {"fars": np.array(FARS)}
    for embedder, by_name in calibrations.items():
        for name, each in by_name.items():
            key = f"{embedder}_{name}".replace(" ", "_")
            columns[f"{key}_genuine"] = each.genuine.values
            columns[f"{key}_genuine_persons"] = each.genuine.persons[:, 0].astype(np.int32)
            columns[f"{key}_genuine_weights"] = each.genuine.weights()
            columns[f"{key}_genuine_groups"] = each.genuine.groups.astype(np.int32)
            columns[f"{key}_impostor"] = each.impostor.values
            columns[f"{key}_impostor_persons"] = each.impostor.persons.astype(np.int32)
            columns[f"{key}_impostor_weights"] = each.impostor.weights()
            for law in ("exponential", "pareto"):
                tail: Tail = getattr(each, law)
                columns[f"{key}_{law}"] = np.array(dataclasses.astuple(tail))
            columns[f"{key}_pareto_samples"] = np.array([dataclasses.astuple(tail) for tail in each.samples])
    with path.open("wb") as stream:
        np.savez_compressed(stream, **columns)  # type: ignore[arg-type]
