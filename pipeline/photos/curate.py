"""Takes one person from files to identities, with an outcome for each photograph.

What fails on one photograph becomes its outcome. What the machine is at fault for is raised.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from faces.onnx_session import DeviceFailure
from faces.registry import Weights
from faces.types import Image
from pipeline.errors import BuildError, MachineFault
from pipeline.photos.analyse import PhotographAnalyser
from pipeline.photos.config import PhotosConfig
from pipeline.photos.decoder import PhotographDecoder
from pipeline.photos.identities import eights, typical_cosines
from pipeline.photos.listing import Person
from pipeline.photos.outcomes import PhotographOutcome
from pipeline.photos.read import ReadFile, digest_of_person, read_batches
from pipeline.photos.records import Appearance, Usable, counted, sample_of
from pipeline.rejection import Rejection
from pipeline.sources.manifest import printable
from pipeline.stages.observe import FaceObservation
from shards.sample import Sample
from shards.schema import (
    IMAGES_PER_IDENTITY,
    Reason,
    Status,
    TrackOutcome,
    VideoOutcome,
)
from storage.heartbeat import beat


@dataclass(frozen=True)
class CuratedPerson:
    """What the photographs of a person became.

    Attributes:
        outcome: the row of the videos table.
        photographs: the outcome of each, in their order.
        samples: the identities, all of them in the training split for now.
    """

    outcome: VideoOutcome
    photographs: list[PhotographOutcome]
    samples: list[Sample]


@dataclass
class _Seen:
    """What is known of a person's photographs so far."""

    rejections: dict[int, Rejection] = field(default_factory=dict)
    faces: list[FaceObservation] = field(default_factory=list)
    dropped: Counter[Reason] = field(default_factory=Counter)
    faces_seen: int = 0
    analysed: int = 0
    undecodable: int = 0
    digests: list[str | None] = field(default_factory=list)


class PersonCurator:
    """The networks and the sandbox, loaded once.

    Args:
        config: of the dataset.
        weights: the networks' files, by name.

    Raises:
        RuntimeError: the decoders' sandbox does not start, or lacks something that is required.
    """

    def __init__(self, config: PhotosConfig, weights: Weights) -> None:
        import cv2

        cv2.setNumThreads(1)  # one process per CPU: more threads only slow each other down
        self._config = config
        self._analyser = PhotographAnalyser(config, weights)
        self._decoder = PhotographDecoder(
            max_pixels=config.source.max_pixels,
            memory_gb=config.run.photograph_memory_gb,
            timeout_s=config.run.photograph_timeout_s,
            mode=config.run.sandbox,
        )
        self.missing = "; ".join(self._decoder.enforced.missing)
        """What the kernel of this machine lacks for the sandbox."""

    def close(self) -> None:
        """End the decoding processes."""
        self._decoder.close()

    def curate(self, person: Person, *, mirrored: bool = False) -> CuratedPerson:
        """Read, decode and measure the photographs of a person, and make identities of them.

        Args:
            person: as listed.
            mirrored: turn every photograph into its mirror image, of another person.

        Raises:
            MachineFault: the machine or its storage fails.
            BuildError: a network fails on the GPU.
            StorageError: the object store cannot be read.
        """
        seen = _Seen()
        for batch in read_batches(person, self._config.run.storage_timeout_s):
            beat()
            self._look_at(person, batch, seen, mirrored=mirrored)
        usable = self._of_one_person(seen)
        appearance = Appearance(
            f"{person.name}/mirrored" if mirrored else person.name,
            self._config.source.name,
            person.name,
            len(person.files),
        )
        groups = eights([each.quality for each in usable], self._config.people)
        made = [
            sample_of(appearance, track, eight, usable, self._config.models.embedder)
            for track, eight in enumerate(groups)
        ]
        keys = {
            usable[place].frame: sample.record.key
            for eight, (sample, _) in zip(groups, made, strict=True)
            for _, place in eight.chosen
        }
        photographs = _outcomes(person, seen.rejections, keys, len(usable), enough=bool(made))
        outcome = _row(person, appearance, seen, usable, [track for _, track in made])
        return CuratedPerson(outcome, photographs, [sample for sample, _ in made])

    def _look_at(self, person: Person, batch: list[ReadFile], seen: _Seen, *, mirrored: bool) -> None:
        """Decode and measure some photographs; each gets a face or a rejection."""
        wanted: list[ReadFile] = []
        for file in batch:
            digest = file.sha256
            is_copy = digest is not None and digest in seen.digests
            seen.digests.append(digest)
            if file.rejection is not None:
                seen.rejections[file.frame] = file.rejection
            elif is_copy:
                first = person.files[seen.digests.index(digest)]
                detail = f"same bytes as {printable(first.name)}"
                seen.rejections[file.frame] = Rejection(Reason.DUPLICATE_PHOTOGRAPH, detail)
            else:
                wanted.append(file)
        seen.analysed += len(wanted)
        images = self._decoder.decode([file.data for file in wanted])
        for file, image in zip(wanted, images, strict=True):
            beat()
            if isinstance(image, Rejection):
                seen.rejections[file.frame] = image
                seen.undecodable += 1
                continue
            rejection = self._measure(file.frame, image[:, ::-1] if mirrored else image, seen)
            if rejection is not None:
                seen.rejections[file.frame] = rejection

    def _measure(self, frame: int, image: Image, seen: _Seen) -> Rejection | None:
        try:
            look = self._analyser.look(frame, np.ascontiguousarray(image))
        except (MachineFault, OSError):
            raise
        except DeviceFailure as error:
            raise BuildError(
                f"a network failed on the GPU: {error}. Lower run.processes, so that fewer share it, then run the "
                "same command again; it continues"
            ) from error
        except MemoryError:
            return Rejection(Reason.OUT_OF_MEMORY, "the analysis ran out of memory")
        except Exception as error:  # any error belongs to this photograph
            logging.getLogger(__name__).exception("the analysis of a photograph failed")
            return Rejection(Reason.INTERNAL_ERROR, " ".join(f"{type(error).__name__}: {error}".split()))
        seen.faces_seen += look.faces
        seen.dropped += look.dropped
        if look.subject is not None:
            seen.faces.append(look.subject)
        return look.rejection

    def _of_one_person(self, seen: _Seen) -> list[Usable]:
        """The usable photographs without those of other people, which are rejected."""
        if not seen.faces:
            return []
        found = [(face, face.usable) for face in seen.faces if face.usable is not None]
        cosines = typical_cosines(np.stack([usable.face.embedding for _, usable in found]))
        kept = []
        for (face, usable), cosine in zip(found, cosines, strict=True):
            if cosine < self._config.people.min_cosine:
                detail = f"cosine {cosine:.2f} to the person's most typical face"
                seen.rejections[face.frame] = Rejection(Reason.OTHER_IDENTITY, detail)
                seen.dropped[Reason.OTHER_IDENTITY] += 1
            else:
                beat()
                kept.append(Usable(face.frame, face, usable, self._analyser.quality(face)))
        return kept


def _outcomes(
    person: Person, rejections: dict[int, Rejection], keys: dict[int, str], usable: int, *, enough: bool
) -> list[PhotographOutcome]:
    """The outcome of each photograph: of usable ones, those of people without an identity are rejected."""
    few = Rejection(Reason.TOO_FEW_PHOTOGRAPHS, f"{usable} usable, {IMAGES_PER_IDENTITY} needed")
    found = []
    for frame, file in enumerate(person.files):
        rejection = rejections.get(frame, None if enough else few)
        found.append(
            PhotographOutcome(
                person=person.name,
                name=printable(file.name),
                frame=frame,
                key=keys.get(frame),
                reason=None if rejection is None else rejection.reason,
                detail=None if rejection is None else rejection.detail,
            )
        )
    return found


def _row(
    person: Person, appearance: Appearance, seen: _Seen, usable: list[Usable], tracks: list[TrackOutcome]
) -> VideoOutcome:
    """The person's row of the videos table."""
    status, reason, detail = Status.ACCEPTED, None, None
    if person.unreadable is not None:
        status, reason, detail = Status.FAILED, Reason.INACCESSIBLE, person.unreadable
    elif not tracks:
        status, reason = Status.REJECTED, Reason.TOO_FEW_PHOTOGRAPHS
        detail = f"{len(usable)} usable photographs of {len(person.files)}, {IMAGES_PER_IDENTITY} needed"
        lost = Counter(str(rejection.reason) for rejection in seen.rejections.values())
        detail += f"; {', '.join(counted(lost))}" if lost else ""
        if usable:
            tracks = [
                TrackOutcome(
                    track=0,
                    start_s=float(usable[0].frame),
                    end_s=float(usable[-1].frame),
                    frames=len(usable),
                    usable_frames=len(usable),
                    reason=Reason.TOO_FEW_PHOTOGRAPHS,
                )
            ]
    return VideoOutcome(
        video_id=appearance.video_id,
        source=appearance.source,
        source_person=appearance.source_person,
        uri=person.name,
        bytes=sum(file.bytes for file in person.files),
        sha256=digest_of_person(person.files, seen.digests),
        status=status,
        reason=reason,
        detail=detail,
        container="photographs",
        frames=len(person.files),
        analysed_frames=seen.analysed,
        corrupt_frames=seen.undecodable,
        faces_seen=seen.faces_seen,
        frame_reasons={key: seen.dropped[key] for key in sorted(seen.dropped) if seen.dropped[key]},
        tracks=tracks,
        identities=sum(track.key is not None for track in tracks),
    )
