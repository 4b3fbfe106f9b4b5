"""What is measured, as pure functions over arrays.

Letters in names give the shape:
    G  generated images    T  targets (ground truth)    M  inputs    E  channels of an embedding
    P  persons             3  yaw, pitch, roll in degrees            N  any number of images

Embeddings are unit vectors, float64. A row of zeros stands for an image without a face: its cosine with everything
is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
LEAST_ANGLE = 1e-6
"""Radians: two images that are nearer to each other count as the same."""


def similarity(generated_GE: Floats, targets_TE: Floats) -> float:
    """Identity similarity: the mean cosine of each generated image with each target.

    Source: Omni-ID, section 4.
    """
    return float((generated_GE @ targets_TE.T).mean())


def copy_paste(
    generated_GE: Floats,
    inputs_ME: Floats,
    targets_TE: Floats,
    *,
    nearest: bool = False,
    counted_GT: Bools | None = None,
) -> float | None:
    """Likeness to the inputs beyond likeness to the truth, from -1 to 1.

    For a generated image g, a target t and an input r, with θ the angle between two embeddings:

        (θ_gt - θ_gr) / max(θ_tr, ε)

    1 where g is the input, -1 where g is the target, 0 where g is as far from one as from the other. The mean over
    all triples. A copy of one of several inputs is far from the others, which the mean hides: with `nearest`, r is
    the input at the smallest angle to g. Then honest images score above 0 as well, the more inputs the higher.

    Args:
        generated_GE: of the images in which a face was found.
        inputs_ME: of the inputs.
        targets_TE: of the targets.
        nearest: compare each image with the nearest input alone.
        counted_GT: pairs of generated image and target that count; all when None.

    Returns:
        None where nothing counts.

    Source: Xu et al., "WithAnyone: Towards Controllable and ID Consistent Image Generation", 2025, the copy-paste
    metric of MultiID-Bench, there with one input.
    """
    if not (len(generated_GE) and len(inputs_ME) and len(targets_TE)):
        return None
    gt = angles(generated_GE, targets_TE)[:, :, None]
    gr = angles(generated_GE, inputs_ME)[:, None, :]
    tr = np.maximum(angles(targets_TE, inputs_ME), LEAST_ANGLE)[None]
    # The triangle inequality bounds it; rounding may pass the bound where two images are the same.
    scores_GTM = np.clip((gt - gr) / tr, -1.0, 1.0)
    if nearest:
        scores_GTM = np.take_along_axis(scores_GTM, gr.argmin(axis=2, keepdims=True), axis=2)
    counted = scores_GTM if counted_GT is None else scores_GTM[counted_GT]
    return float(counted.mean()) if counted.size else None


def angles(a_NE: Floats, b_ME: Floats) -> Floats:
    """Angles between unit vectors in radians, (N, M)."""
    # 2 asin(chord / 2) keeps its precision for small angles, where arccos of a cosine loses half the digits.
    chord = np.linalg.norm(a_NE[:, None] - b_ME[None], axis=-1)
    found: Floats = 2 * np.arcsin(np.clip(chord / 2, 0.0, 1.0))
    return found


def pose_error(pose_N3: Floats, truth_N3: Floats) -> Floats:
    """|Δyaw| + |Δpitch| + |Δroll| in degrees, (N,).

    Source: Omni-ID, section 4, which sums them.
    """
    difference_N3 = np.abs(pose_N3 - truth_N3) % 360
    found: Floats = np.minimum(difference_N3, 360 - difference_N3).sum(axis=-1)
    return found


def mirrored(pose_N3: Floats) -> Floats:
    """The poses that heads have in a mirror image: yaw and roll change their signs."""
    return pose_N3 * np.array([-1.0, 1.0, -1.0])


def similarity_to_others(means_PE: Floats, targets_PE: Floats) -> Floats:
    """Mean similarity of each person's images to the targets of all other persons, (P,).

    The mean cosine of two sets of unit vectors is the product of their mean vectors.

    Args:
        means_PE: mean embedding of each person's images.
        targets_PE: mean embedding of each person's targets; of two persons at least.
    """
    count = len(means_PE)
    own_P = (means_PE * targets_PE).sum(axis=1)
    found: Floats = (means_PE @ targets_PE.sum(axis=0) - own_P) / (count - 1)
    return found


def nearest_to_own(means_PE: Floats, targets_PE: Floats) -> Floats:
    """1 for each person whose images are more similar to their own targets than to any other's, else 0; (P,)."""
    found = np.zeros(len(means_PE))
    for person, mean_E in enumerate(means_PE):  # row by row: all at once is P x P
        cosines_P = targets_PE @ mean_E
        own = cosines_P[person]
        cosines_P[person] = -np.inf
        found[person] = own > cosines_P.max()
    return found
