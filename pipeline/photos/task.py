"""Curates one person in a worker process, and stages the result: the task of `mfhq photos`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from faces.registry import Weights, WeightsFile
from pipeline.errors import BuildError, MachineFault
from pipeline.model_files import on_this_machine
from pipeline.photos.config import PhotosConfig
from pipeline.photos.curate import PersonCurator
from pipeline.photos.listing import Person
from pipeline.photos.staged import StagedPeople


@dataclass(frozen=True)
class PersonTask:
    """A person to curate.

    Attributes:
        person: as listed.
        mirrored: whether as a mirror image.
    """

    person: Person
    mirrored: bool = False

    @property
    def label(self) -> str:
        """The name, for messages."""
        return self.person.label


@dataclass(frozen=True)
class Done:
    """A person that is staged.

    Attributes:
        photographs: number of them.
        identities: number that they became.
        missing: what the kernel of the machine lacks for the sandbox; empty where it lacks nothing.
    """

    photographs: int
    identities: int
    missing: str


@dataclass(frozen=True)
class CuratePerson:
    """The function that workers run; it can be pickled, and loads networks once a process.

    Attributes:
        config: of the dataset.
        weights: the networks' files, by name.
        staging: takes the results.
    """

    config: PhotosConfig
    weights: Weights
    staging: StagedPeople

    def __call__(self, task: PersonTask) -> Done:
        """Curate a person.

        Raises:
            MachineFault: the machine or its storage fails.
            BuildError: a network fails on the GPU, or the sandbox of the decoders does not start.
            OSError: the output cannot be written to.
        """
        curator = _curator(self.config, tuple(self.weights.items()))
        curated = curator.curate(task.person, mirrored=task.mirrored)
        self.staging.write(task.person, curated, mirrored=task.mirrored)
        return Done(len(task.person.files), len(curated.samples), curator.missing)


@lru_cache(maxsize=1)
def _curator(config: PhotosConfig, weights: tuple[tuple[str, WeightsFile], ...]) -> PersonCurator:
    """The networks and the sandbox of this process."""
    try:
        return PersonCurator(config, on_this_machine(dict(weights), config.run.models_dir))
    except MachineFault:
        raise
    except RuntimeError as error:
        raise BuildError(str(error)) from error
