"""The figures of one person, from what was measured of the person's real and generated images.

A generated image without a face has similarity 0. Leaving it out instead would reward a
source that fails on difficult people, and embedding whatever is at the usual place of a face measures an image
that no recognition network was made for. Both are reported beside it (`similarity_found`,
`similarity_usual_place`).

Letters in names give the shape:
    G  generated images    T  targets    M  inputs    N  any number of images    E  channels of an embedding
    3  yaw, pitch, roll in degrees
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.evaluate import measures
from training.evaluate.generate import GeneratedImage
from training.evaluate.networks import Face, stacked

Values = dict[str, float | None]
"""Figures by name; None where there is nothing to measure."""
IDENTITY_FIGURES = (
    "similarity",
    "similarity_to_others",
    "gain",
    "nearest",
    "similarity_found",
    "similarity_usual_place",
    "gain_usual_place",
    "similarity_to_inputs",
    "copy_paste",
    "copy_paste_nearest",
)
"""Those of each identity network, in the order of reports; `Summary` explains them."""


@dataclass(frozen=True)
class RealFaces:
    """What was measured of the real images of an identity; each by the image's number.

    Attributes:
        stored: as they are stored.
        at_side: brought to the side of generated images and back, by side; of inputs and targets.
        mirrored: mirror images of the targets.
        reencoded: the targets, JPEG-encoded anew.
    """

    stored: Mapping[int, Face]
    at_side: Mapping[int, Mapping[int, Face]]
    mirrored: Mapping[int, Face]
    reencoded: Mapping[int, Face]


@dataclass(frozen=True)
class GeneratedFigures:
    """The images of one source and number of inputs.

    Attributes:
        images: generated.
        found: of these, images with a face.
        poses: of these, images with a pose.
        pose_errors: degrees, by target and sample; only where both poses are known.
        identity: figures by network; those that need other people are added later.
        means: mean embedding by network, (E,); an image without a face is a row of zeros in it.
        usual_means: the same with images without a face embedded at the usual place.
    """

    images: int
    found: int
    poses: int
    pose_errors: dict[tuple[int, int], float]
    identity: dict[str, Values]
    means: dict[str, measures.Floats]
    usual_means: dict[str, measures.Floats]

    @property
    def pose_error(self) -> float | None:
        """Mean over the images whose pose is known."""
        return _mean(self.pose_errors.values())


@dataclass(frozen=True)
class PersonFigures:
    """All figures of one person, small enough to be gathered.

    Attributes:
        person: id.
        key: of the identity.
        inputs: numbers of the input images, in order.
        targets: numbers of the targets that are measured.
        targets_not_found: targets that are left out, because the detector finds no face in them.
        inputs_not_found: inputs that count for no figure, though they are encoded.
        target_means: mean embedding of the targets by network, (E,).
        input_means: that of the inputs; None when no face is found in them.
        levels: reference levels that need one person alone: `identity.<network>.<level>` and `pose.<level>`.
        generated: by source and number of inputs.
        images: rows of the list of images.
    """

    person: str
    key: str
    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    targets_not_found: tuple[int, ...]
    inputs_not_found: tuple[int, ...]
    target_means: dict[str, measures.Floats]
    input_means: dict[str, measures.Floats | None]
    levels: Values
    generated: dict[tuple[str, int], GeneratedFigures] = field(default_factory=dict)
    images: list[dict[str, object]] = field(default_factory=list)


def person_figures(
    person: str,
    key: str,
    *,
    inputs: Sequence[int],
    targets: Sequence[int],
    real: RealFaces,
    generated: Mapping[GeneratedImage, Face],
    networks: Sequence[str],
) -> PersonFigures:
    """The figures of a person; at least one of the targets has a face.

    Args:
        person: id.
        key: of the identity.
        inputs: numbers of the inputs, in order.
        targets: numbers of all targets.
        real: what was measured of the real images.
        generated: what was measured of the generated ones.
        networks: names of the identity networks.
    """
    stored = real.stored
    kept = tuple(number for number in targets if stored[number].found)
    seen = [number for number in inputs if stored[number].found]
    target_faces = [stored[number] for number in kept]
    input_faces = [stored[number] for number in seen]
    own = PersonFigures(
        person=person,
        key=key,
        inputs=tuple(inputs),
        targets=kept,
        targets_not_found=tuple(number for number in targets if number not in kept),
        inputs_not_found=tuple(number for number in inputs if number not in seen),
        target_means={name: stacked(target_faces, name).mean(axis=0) for name in networks},
        input_means={
            name: stacked(input_faces, name).mean(axis=0) if input_faces else None for name in networks
        },
        levels=_levels(real, seen, kept, networks),
    )
    groups: dict[tuple[str, int], dict[GeneratedImage, Face]] = {}
    for image, face in generated.items():
        groups.setdefault((image.source, image.inputs), {})[image] = face
    for (source, k), faces in groups.items():
        shown = [stored[number] for number in inputs[:k] if stored[number].found]
        own.levels.update(_copy_paste_levels(shown, target_faces, networks, k))
        own.generated[source, k] = _generated_figures(faces, stored, shown, target_faces, networks)
        own.images.extend(
            _image_row(image, face, own.generated[source, k], target_faces, networks)
            for image, face in faces.items()
        )
    return own


def _generated_figures(
    faces: Mapping[GeneratedImage, Face],
    stored: Mapping[int, Face],
    inputs: Sequence[Face],
    targets: Sequence[Face],
    networks: Sequence[str],
) -> GeneratedFigures:
    with_face = [face for face in faces.values() if face.found]
    errors = {
        (image.target, image.sample): error
        for image, face in faces.items()
        if (error := _pose_error(face, stored[image.target])) is not None
    }
    identity: dict[str, Values] = {}
    means: dict[str, measures.Floats] = {}
    usual_means: dict[str, measures.Floats] = {}
    for name in networks:
        targets_TE = stacked(targets, name)
        anywhere_GE = stacked(faces.values(), name)
        counted_GE = _zero_without_face(faces.values(), name)
        found_GE = stacked(with_face, name) if with_face else anywhere_GE[:0]
        inputs_ME = stacked(inputs, name) if inputs else targets_TE[:0]
        identity[name] = {
            "similarity": measures.similarity(counted_GE, targets_TE),
            "similarity_found": measures.similarity(found_GE, targets_TE) if with_face else None,
            "similarity_usual_place": measures.similarity(anywhere_GE, targets_TE),
            "similarity_to_inputs": measures.similarity(counted_GE, inputs_ME) if inputs else None,
            "copy_paste": measures.copy_paste(found_GE, inputs_ME, targets_TE),
            "copy_paste_nearest": measures.copy_paste(found_GE, inputs_ME, targets_TE, nearest=True),
        }
        means[name] = counted_GE.mean(axis=0)
        usual_means[name] = anywhere_GE.mean(axis=0)
    return GeneratedFigures(
        images=len(faces),
        found=len(with_face),
        poses=sum(face.pose_3 is not None for face in faces.values()),
        pose_errors=errors,
        identity=identity,
        means=means,
        usual_means=usual_means,
    )


def _levels(
    real: RealFaces, inputs: Sequence[int], targets: Sequence[int], networks: Sequence[str]
) -> Values:
    """Reference levels, from real images alone; of images in which a face was found."""
    stored = real.stored
    found: Values = {}
    target_faces = [stored[number] for number in targets]
    pairs = [(stored[one], stored[other]) for one in inputs for other in targets]
    found["pose.inputs"] = _mean_pose_error(pairs)
    frontal = Face(None, np.zeros(3), {})
    found["pose.frontal"] = _mean_pose_error([(frontal, face) for face in target_faces])
    found["pose.reencoded"] = _mean_pose_error([(real.reencoded[n], stored[n]) for n in targets])
    mirror_images = [
        (real.mirrored[n], Face(None, measures.mirrored(pose), {}))
        for n in targets
        if (pose := stored[n].pose_3) is not None
    ]
    found["pose.mirrored"] = _mean_pose_error(mirror_images)
    for side, faces in real.at_side.items():
        found[f"pose.same_image_at_{side}"] = _mean_pose_error([(faces[n], stored[n]) for n in targets])
        found[f"faces_found_at_{side}"] = _mean([float(face.found) for face in faces.values()])
    for name in networks:
        targets_TE = stacked(target_faces, name)
        if inputs:
            inputs_ME = stacked([stored[number] for number in inputs], name)
            found[f"identity.{name}.real"] = measures.similarity(inputs_ME, targets_TE)
        for side, faces in real.at_side.items():
            if inputs:
                small_ME = _zero_without_face([faces[number] for number in inputs], name)
                found[f"identity.{name}.real_at_{side}"] = measures.similarity(small_ME, targets_TE)
            same_TE = _zero_without_face([faces[number] for number in targets], name)
            found[f"identity.{name}.same_image_at_{side}"] = float((same_TE * targets_TE).sum(axis=1).mean())
    return found


def _copy_paste_levels(
    inputs: Sequence[Face], targets: Sequence[Face], networks: Sequence[str], k: int
) -> Values:
    """Copy-paste of real images that are neither input nor the target, in place of generated ones."""
    found: Values = {}
    for name in networks:
        targets_TE = stacked(targets, name)
        inputs_ME = stacked(inputs, name) if inputs else targets_TE[:0]
        others_TT = ~np.eye(len(targets_TE), dtype=bool)
        for figure, nearest in (("copy_paste", False), ("copy_paste_nearest", True)):
            found[f"identity.{name}.{figure}_with_{k}"] = measures.copy_paste(
                targets_TE, inputs_ME, targets_TE, nearest=nearest, counted_GT=others_TT
            )
    return found


def _image_row(
    image: GeneratedImage,
    face: Face,
    own: GeneratedFigures,
    targets: Sequence[Face],
    networks: Sequence[str],
) -> dict[str, object]:
    similarity = {
        name: round(float((stacked(targets, name) @ face.vectors[name]).mean()), 6) if face.found else 0.0
        for name in networks
    }
    error = own.pose_errors.get((image.target, image.sample))
    return {
        "file": image.file,
        "person": image.person,
        "key": image.key,
        "source": image.source,
        "inputs": image.inputs,
        "target": image.target,
        "sample": image.sample,
        "seed": image.seed,
        "face_found": face.found,
        "pose": None if face.pose_3 is None else [round(float(angle), 3) for angle in face.pose_3],
        "pose_error": None if error is None else round(error, 3),
        "similarity": similarity,
    }


def _zero_without_face(faces: Collection[Face], network: str) -> measures.Floats:
    """Embeddings (N, E), with zeros for images without a face."""
    found_N1 = np.array([[face.found] for face in faces], dtype=np.float64)
    return stacked(faces, network) * found_N1


def _pose_error(face: Face, truth: Face) -> float | None:
    if face.pose_3 is None or truth.pose_3 is None:
        return None
    return float(measures.pose_error(face.pose_3, truth.pose_3))


def _mean_pose_error(pairs: Sequence[tuple[Face, Face]]) -> float | None:
    return _mean([error for pair in pairs if (error := _pose_error(*pair)) is not None])


def _mean(values: Collection[float]) -> float | None:
    return sum(values) / len(values) if values else None
