"""`omniid evaluate`: generate images of held-out people, measure them, report.

The ranks share the people in every step. The stored images are measured first, because a target without a face is
left out. Then images are generated, one source after the other, so that one source is in memory at a time; then
they are measured. Rank 0 gathers the figures of all people and writes the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path

import torch

from settings.section import Section
from training.data.dataset import StreamedDataset, open_dataset
from training.errors import TrainingError
from training.evaluate.document import Evaluation, write_report
from training.evaluate.figures import PersonFigures
from training.evaluate.generate import (
    GeneratedImage,
    Generator,
    Loaded,
    Sampling,
    SourceFacts,
    crop_scale_warning,
    is_generated,
    source_facts,
    write_image,
)
from training.evaluate.measuring import StoredFaces, images_of, measure_person, measure_stored
from training.evaluate.networks import Face, MeasuringNetworks, NetworkNames, usual_place
from training.evaluate.people import LEAST_PEOPLE, Identity, Person, held_out_people, read_identity
from training.evaluate.protocol import DEFAULT_INPUTS
from training.evaluate.ranks import Ranks, ranks
from training.evaluate.settings_file import check_loaded, check_settings, noise_shapes, settings_of
from training.inference import memory_error, pick_device
from training.progress import Progress
from training.trained import check_finished

RETRY_S = 60.0
"""How long a read of the dataset is tried."""
NAMED_PROBLEMS = 5
"""Identities that a message names."""
Own = list[tuple[StoredFaces, dict[int, Face]]]
"""The people of this rank."""
Wanted = list[tuple[StoredFaces, list[GeneratedImage]]]
"""Images to generate, by person."""


class Options(Section):
    """What the command line says."""

    sources: tuple[Path, ...]
    data: str
    output: Path
    inputs: tuple[int, ...] = DEFAULT_INPUTS
    samples: int = 1
    people: int | None = None
    sampling: Sampling = Sampling()
    profile: str = "paper"
    identity_networks: tuple[str, ...] = ()
    models_dir: Path | None = None
    base: str | None = None
    device: str | None = None
    page_people: int = 60
    finished: bool = False


class Evaluator:
    """One evaluation on this rank.

    Args:
        options: of the command line.
        world: the ranks.
    """

    def __init__(self, options: Options, world: Ranks) -> None:
        import_module("jinja2")  # the page is written last; a missing package is noticed first
        self._options = options
        self._world = world
        self._names = world.broadcast(lambda: NetworkNames.of(options.profile, options.identity_networks))
        self._people, self._held_out, self._sources = world.broadcast(self._plan)
        opened: list[tuple[StreamedDataset, MeasuringNetworks]] = []
        world.gather(lambda: opened.append(self._opened()))
        ((self._dataset, self._networks),) = opened

    def run(self) -> Evaluation:
        """Measure the people of all ranks; rank 0 gets a complete evaluation, and so do the others."""
        own = self._stored()
        everybody = self._world.merged(lambda: [person for person, _ in own], lambda person: person.place)
        self._world.broadcast(lambda: self._check_people(everybody))
        self._networks.usual_place = usual_place(
            points for person in everybody for points in person.keypoints.values()
        )
        own = [(person, faces) for person, faces in own if person.targets]
        for source in self._sources:
            self._generate(source, own)
        figures = self._world.merged(lambda: self._measure(own), lambda found: found[0])
        return Evaluation(
            people=[person for _, person in figures],
            stored=everybody,
            held_out=self._held_out,
            sources=self._sources,
            networks=self._names,
            files=self._names.files(self._options.models_dir),
            dataset=self._dataset,
            inputs=self._options.inputs,
            samples=self._options.samples,
            noise=self._world.broadcast(lambda: noise_shapes(self._options.output, self._sources)),
            shown=self._options.page_people,
        )

    def _plan(self) -> tuple[list[Person], int, list[SourceFacts]]:
        """What can be wrong is found out by rank 0 before the work begins."""
        options = self._options
        if options.device is not None:
            pick_device(options.device)
        self._names.files(options.models_dir)
        dataset = open_dataset(options.data, RETRY_S)
        people = held_out_people(dataset, options.people)
        held_out = len(held_out_people(dataset))
        if options.finished:
            for path in options.sources:
                check_finished(path)
        sources = [
            source_facts(path, place, options.inputs, options.sampling, options.models_dir)
            for place, path in enumerate(options.sources)
        ]
        settings = settings_of(options.inputs, sources, dataset.digest)
        check_settings(options.output, settings, [source.name for source in sources])
        for source in sources:
            if warning := crop_scale_warning(source, dataset.crop_scale):
                self._world.message(f"warning: {warning}")
        return people, held_out, sources

    def _opened(self) -> tuple[StreamedDataset, MeasuringNetworks]:
        return open_dataset(self._options.data, RETRY_S), MeasuringNetworks.load(
            self._names, self._options.models_dir
        )

    def _stored(self) -> Own:
        own: Own = []

        def measure() -> None:
            shared = self._world.share(list(enumerate(self._people)))
            progress = self._progress("measured the real images of", "people", len(shared))
            for place, person in shared:
                own.append(measure_stored(self._dataset, self._networks, place, person, self._options.inputs))
                progress.advance()

        self._world.gather(measure)
        return own

    def _check_people(self, everybody: Sequence[StoredFaces]) -> None:
        measurable = [person for person in everybody if person.targets]
        if len(measurable) >= LEAST_PEOPLE:
            return
        without = [person for person in everybody if not person.targets]
        problems = [problem for person in without for problem in person.damaged.values()]
        more = len(problems) - NAMED_PROBLEMS
        faceless = sum(person.key is not None for person in without)
        listed = "".join(
            f"\n- {line}"
            for line in (
                *problems[:NAMED_PROBLEMS],
                *([f"further identities that cannot be used: {more}"] if more > 0 else []),
                *(
                    [f"people without a face that the detector finds in a target: {faceless}"]
                    if faceless
                    else []
                ),
            )
        )
        raise TrainingError(
            f"{len(measurable)} of {len(everybody)} held-out people of {self._options.data} can be measured, "
            f"{LEAST_PEOPLE} are needed:{listed}\nPass smaller numbers of --inputs, another dataset with --data, "
            "or another detector with --profile"
        )

    def _generate(self, source: SourceFacts, own: Own) -> None:
        """Generate the images of a source that are missing; nothing is written before its loading is compared."""
        wanted = self._wanted(source, own)
        opened: list[Generator] = []

        def load() -> Loaded | None:
            if not wanted:
                return None
            opened.append(self._load(source))
            return opened[0].loaded

        loaded = [one for one in self._world.gather(load) if one is not None]
        if loaded:
            settings = settings_of(self._options.inputs, self._sources, self._dataset.digest)
            self._world.broadcast(lambda: check_loaded(self._options.output, settings, source.name, loaded))
            self._world.gather(lambda: self._write(source, opened, wanted))

    def _wanted(self, source: SourceFacts, own: Own) -> Wanted:
        """The images of this rank that are missing, by person."""
        options = self._options
        wanted = [
            (person, images)
            for person, _ in own
            if (images := self._missing(images_of(person, [source], options.inputs, options.samples)))
        ]
        total = sum(len(images) for _, images in wanted)
        kept = len(own) and sum(
            len(images_of(person, [source], options.inputs, options.samples)) for person, _ in own
        )
        if kept > total:
            self._world.message(f"{source.path}: {kept - total:,} images are there already")
        return wanted

    def _load(self, source: SourceFacts) -> Generator:
        options = self._options
        with self._memory_error(source):
            return Generator.load(
                source,
                self._device,
                self._world.message,
                guidance=options.sampling.guidance,
                base=options.base,
                models_dir=options.models_dir,
            )

    def _write(self, source: SourceFacts, opened: list[Generator], wanted: Wanted) -> None:
        """Generate what is missing, with the one generator that was loaded where something is."""
        if not opened:
            return
        (generator,) = opened
        options, total = self._options, sum(len(images) for _, images in wanted)
        progress = self._progress(f"{source.path}: generated", "images", total)
        with self._memory_error(source):
            for person, images in wanted:
                identity = self._identity(person)
                inputs = person.roles.inputs if person.roles else ()
                for k in options.inputs:
                    of_k = [image for image in images if image.inputs == k]
                    tokens = generator.tokens(identity, inputs[:k]) if of_k else None
                    for image in of_k:
                        found = generator.image(tokens, image.seed, identity.landmarks_KL2[image.target])
                        write_image(options.output, image, found)
                        progress.advance()

    @property
    def _device(self) -> torch.device:
        """Where images are generated."""
        return pick_device(self._options.device) if self._options.device else self._world.device

    def _memory_error(self, source: SourceFacts) -> AbstractContextManager[None]:
        return memory_error(
            f"{self._device} has too little memory for {source.path}: use a GPU with more, or --device cpu"
        )

    def _measure(self, own: Own) -> list[tuple[int, PersonFigures]]:
        options = self._options
        of_each = {
            person.place: images_of(person, self._sources, options.inputs, options.samples)
            for person, _ in own
        }
        progress = self._progress("measured", "generated images", sum(map(len, of_each.values())))
        return [
            (
                person.place,
                measure_person(
                    person,
                    faces,
                    self._identity(person),
                    networks=self._networks,
                    images=of_each[person.place],
                    output=options.output,
                    sides=[source.side for source in self._sources],
                    names=self._names.identity,
                    done=progress.advance,
                ),
            )
            for person, faces in own
        ]

    def _missing(self, images: Sequence[GeneratedImage]) -> list[GeneratedImage]:
        return [image for image in images if not is_generated(self._options.output, image)]

    def _identity(self, person: StoredFaces) -> Identity:
        identity, _ = read_identity(self._dataset, person.person, images=max(self._options.inputs) + 1)
        if identity is None or identity.key != person.key:
            raise TrainingError(
                f"the images of {person.key} in {self._options.data} changed during the evaluation. Run the same "
                "command again"
            )
        return identity

    def _progress(self, what: str, unit: str, total: int) -> Progress:
        return Progress(what, unit, total, self._world.message)


def evaluate(options: Options) -> None:
    """Evaluate sources; see `omniid evaluate --help`.

    Raises:
        TrainingError: sources, dataset, networks or output cannot be used, or memory does not suffice.
        DatasetError: there is no dataset, or it is damaged.
        OutOfSpace: the disk is full.
    """
    with ranks() as world:
        try:
            evaluation = Evaluator(options, world).run()
        except KeyboardInterrupt:
            world.message(
                "interrupted. The same command continues: images that are there are not generated again"
            )
            raise
        # All ranks wait for the report, so that its error ends all.
        for line in world.broadcast(lambda: write_report(evaluation, options.output)):
            world.message(line)
