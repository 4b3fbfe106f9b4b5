r"""Compute the kept latents of a dataset once, so that no training step decodes target images or runs the codec.

    omniid latents workflows/train_flow_paper.yaml data.root=/data/mfhq output=/data/runs/flow \
        decoders.flow.latents=beside_shards

    torchrun --standalone --nproc-per-node=8 training/latents.py workflows/train_flow_paper.yaml …

The ranks share the identities of both splits. An identity is one file (training/data/latents.py), so the command
resumes: what is there is skipped. A damaged sample is noted, named at the end, and ends nothing.

Letters in names give the shape:
    B  identities    K  images of an identity (8)    I  images, B x K    S  side of an image in pixels
    C  channels      H  side of latents
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace

import torch

from settings.section import ConfigError
from shards.atomic import OutOfSpace
from shards.schema import IMAGES_PER_IDENTITY, Split
from storage.errors import StorageError
from storage.urls import is_local, local_directory
from training.config import Config
from training.data.batch import Batch
from training.data.cache import SampleCache
from training.data.dataset import StreamedDataset, open_dataset
from training.data.decode import BatchBuffer
from training.data.draws import Draw
from training.data.latents import ON_THE_FLY, LatentFiles
from training.data.needs import Needs
from training.data.reader import Pending, Reader
from training.engine.collectives import USER_ERRORS, Collectives
from training.engine.processes import World, processes
from training.engine.signals import StopRequest
from training.errors import RunEnded, Stopped, TrainingError
from training.folders import make_folder
from training.models.flux_latents import Codec
from training.models.pixels import pixels
from training.progress import Progress

ALL_IMAGES = tuple(range(IMAGES_PER_IDENTITY))
READ_AHEAD = 2
"""Batches that are read and decoded while the device encodes one."""
WRITERS = 4
NAMED_DAMAGED = 20
"""Damaged identities that a message names."""


def latents_of(config: Config, needs: Needs, dataset: StreamedDataset) -> tuple[LatentFiles, Codec]:
    """The files of the kept latents of a configuration, and the codec that makes them, with its weights.

    Args:
        config: of the run.
        needs: of the run; the codec's name in its kept latents is replaced by the one with the digest.
        dataset: whose latents they are.

    Raises:
        ConfigError: the configuration keeps no latents, or in no directory that can be used.
        TrainingError: the codec's weights cannot be loaded.
    """
    from training.decoders.flow_networks import kept_latents, load_codec  # diffusers takes seconds to import

    # With several decoders that keep latents, `Needs` has checked that they are the same.
    flow = next(
        (
            decoder
            for decoder in (config.decoders.flow, config.decoders.control)
            if decoder is not None and decoder.latents != ON_THE_FLY
        ),
        None,
    )
    if flow is None or needs.latents is None:
        raise ConfigError(
            "decoders.flow.latents: this configuration computes latents in each step. Set a directory for them, "
            "such as decoders.flow.latents=beside_shards"
        )
    codec = load_codec(flow, config.run.precision)
    kept = kept_latents(flow, config.data.root, dataset.digest, codec)
    return LatentFiles(replace(needs, latents=kept), config.run.retry_s), codec


def check_complete(files: LatentFiles, dataset: StreamedDataset, command: str) -> None:
    """Refuse to train on latents that were not computed.

    Args:
        files: of the run.
        dataset: whose identities must have latents, unless their sample is damaged.
        command: that computes them.

    Raises:
        TrainingError: some are missing, or the directory cannot be listed.
    """
    keys = all_keys(dataset)
    if missing := files.missing(keys, without_damaged=True):
        raise TrainingError(
            f"decoders.flow.latents: {files.directory} has no latents of {len(missing):,} of {len(keys):,} "
            f"identities. Compute them first: {command}"
        )


def all_keys(dataset: StreamedDataset) -> list[str]:
    """The identities of both splits."""
    return [key for split in Split for key in dataset.keys(split)]


def compute(config: Config) -> None:
    """Compute the latents that are missing, on this process as one of those that torchrun started.

    Args:
        config: of the run that will read them.

    Raises:
        TrainingError: what is wrong and what to do; `RunEnded` when all ranks raise the same, also when
            everything was computed but identities are damaged.
    """
    from training.model import meta_model

    with processes(config.run.deterministic) as world, StopRequest() as stop:
        collectives = Collectives(world)
        with collectives.barrier():
            cache = SampleCache(config.run.cache) if config.run.cache else None
            dataset = open_dataset(config.data.root, config.run.retry_s, cache)
            files, codec = latents_of(config, meta_model(config).needs, dataset)
        if damaged := compute_missing(config, files, codec, dataset, collectives=collectives, stop=stop):
            raise RunEnded(_damaged(damaged))


def compute_missing(
    config: Config,
    files: LatentFiles,
    codec: Codec,
    dataset: StreamedDataset,
    *,
    collectives: Collectives,
    stop: StopRequest,
) -> dict[str, str]:
    """Compute the latents that are missing, on all ranks.

    Args:
        config: of the run that will read them.
        files: of its latents.
        codec: that makes them (`latents_of`).
        dataset: whose latents they are.
        collectives: of the ranks.
        stop: a request ends this early.

    Returns:
        What is wrong with damaged identities, by key; nothing after a stop.

    Raises:
        TrainingError: what is wrong and what to do; `RunEnded` when all ranks raise the same.
    """
    world = collectives.world
    keys = all_keys(dataset)
    # One listing for all ranks, because each of them begins to write.
    todo = collectives.broadcast(lambda: _open(files, keys))
    world.message(f"{files.directory}: {len(keys):,} identities, {len(keys) - len(todo):,} have latents")
    work = _Work(config, dataset, files, codec, world)
    stopped = _encode_all(work, todo, collectives, stop)
    problems = {key: text for found in collectives.all_gather(work.problems) for key, text in found.items()}
    if stopped:
        world.message(f"stopped, {len(problems):,} damaged so far; the same command computes the others")
        return {}
    collectives.broadcast(lambda: _check_seen(files, keys))
    size = (len(keys) - len(problems)) * files.file_bytes
    world.message(
        f"{files.directory}: latents of {len(keys) - len(problems):,} identities, {size / 1e6:,.1f} MB; "
        f"{len(todo) - len(problems):,} computed now, {len(problems):,} damaged"
    )
    return problems


@dataclass
class _Work:
    """What a rank works with."""

    config: Config
    dataset: StreamedDataset
    files: LatentFiles
    codec: Codec
    world: World

    def __post_init__(self) -> None:
        self.problems: dict[str, str] = {}
        """What is wrong with the damaged identities of this rank."""


def _encode_all(work: _Work, todo: Sequence[str], collectives: Collectives, stop: StopRequest) -> bool:
    """Encode this rank's share of some identities; the ranks meet after each batch, so that none fails alone.

    Returns:
        Whether a stop was asked for before the end.
    """
    world, per_process = work.world, work.config.run.per_process
    share = todo[world.rank :: world.world_size]
    rounds = -(-len(todo) // (world.world_size * per_process))
    progress = Progress("latents of", "identities", len(todo), world.message)
    with ExitStack() as opened:
        pool = opened.enter_context(ThreadPoolExecutor(WRITERS, "write"))
        reading = opened.enter_context(closing(_batches(work, share, stop)))
        writing: list[Future[None]] = []
        for _ in range(rounds):
            done, asked, problem = 0, stop.asked(), None
            try:
                if not asked and (pending := next(reading, None)) is not None:
                    encoded = _encoded(work, pending)
                    _finish(writing)
                    writing = [pool.submit(work.files.write, key, found) for key, found in encoded]
                    done = len(pending.buffer.batch().keys)
            except Stopped:
                asked = True
            except USER_ERRORS as error:
                problem = str(error)
            found = collectives.all_reduce((done,), asked, problem)
            progress.advance(found.counts[0])
            if found.stop:
                break
        with collectives.barrier():
            _finish(writing)
    return progress.done < len(todo)


def _batches(work: _Work, share: Sequence[str], stop: StopRequest) -> Generator[Pending, None, None]:
    """The identities of this rank, all of their images decoded."""
    needs, config = work.files.images, work.config
    pinned = work.world.device.type == "cuda"
    with closing(Reader(work.dataset, needs, work.dataset.pictures, config.run.decode_threads)) as reader:
        chunks = iter(
            share[first : first + config.run.per_process]
            for first in range(0, len(share), config.run.per_process)
        )
        ahead: deque[Pending] = deque()
        while True:
            while len(ahead) <= READ_AHEAD and (keys := next(chunks, None)) is not None:
                draws = [Draw(inputs=(0,), targets=ALL_IMAGES, seed=0)] * len(keys)
                ahead.append(reader.begin(BatchBuffer(keys, draws, needs, pinned=pinned), keys))
            if not ahead:
                return
            ahead[0].wait(stop.asked)
            yield ahead.popleft()


@torch.no_grad()
def _encoded(work: _Work, pending: Pending) -> list[tuple[str, torch.Tensor]]:
    """The latents of the undamaged identities of a batch, each (K, C, H, H) on the CPU."""
    batch: Batch = pending.buffer.batch()
    problems = dict(pending.problems)
    rows = [row for row, valid in enumerate(batch.valid_B.tolist()) if valid]
    found = []
    if rows:
        images_BKSSC = batch.images_BKSSC.to(work.world.device, non_blocking=True)[rows]
        latents_ICHH = work.codec.encode(pixels(images_BKSSC, work.files.kept.side).flatten(0, 1)).cpu()
        for row, latents_KCHH in zip(rows, latents_ICHH.unflatten(0, (len(rows), -1)), strict=True):
            key = batch.keys[row]
            if bool(torch.isfinite(latents_KCHH).all()):
                found.append((key, latents_KCHH))
            else:
                problems[key] = f"sample {key}: its latents are not finite"
    for key, problem in problems.items():
        with _errors_of_writing():
            work.files.write_damaged(key, problem)
    work.problems |= problems
    return found


def _finish(writing: Sequence[Future[None]]) -> None:
    """Wait for files.

    Raises:
        OutOfSpace: the disk is full.
        TrainingError: a file cannot be written.
    """
    for future in writing:
        with _errors_of_writing():
            future.result()


@contextmanager
def _errors_of_writing() -> Iterator[None]:
    try:
        yield
    except OutOfSpace:
        raise
    except OSError as error:
        reason = error if isinstance(error, StorageError) else f"{error.filename}: {error.strerror}"
        raise TrainingError(f"decoders.flow.latents: latents cannot be written: {reason}") from error


def _open(files: LatentFiles, keys: Sequence[str]) -> list[str]:
    """Make the directory where it is missing, and list what is left to compute."""
    if is_local(files.directory):
        make_folder(local_directory(files.directory))
    return files.missing(keys)


def _check_seen(files: LatentFiles, keys: Sequence[str]) -> None:
    """Whether rank 0 sees the files of all ranks.

    Raises:
        TrainingError: files are missing, because a machine has another directory under the same name.
    """
    if missing := files.missing(keys, without_damaged=True):
        raise TrainingError(
            f"decoders.flow.latents: {len(missing):,} files were written, but rank 0 does not see them in "
            f"{files.directory}. Give a directory that all machines share, or start the command on one machine"
        )


def _damaged(problems: dict[str, str]) -> str:
    listed = "\n  ".join(problems[key] for key in sorted(problems)[:NAMED_DAMAGED])
    more = f"\n  and {len(problems) - NAMED_DAMAGED} more" if len(problems) > NAMED_DAMAGED else ""
    return (
        f"{len(problems):,} damaged identities have no latents:\n  {listed}{more}\nTraining skips them, up to "
        "run.max_damaged. Copy or build the dataset again (`mfhq verify` lists all damage), then run the same "
        "command"
    )


if __name__ == "__main__":
    from training.cli import latents_command

    latents_command()
