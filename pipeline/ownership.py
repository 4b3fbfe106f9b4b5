"""Records the build of an output directory, so that no configuration overwrites another's dataset by accident.

    <output>/.staging/settings.json    the build of this dataset
    <output>/.staging/replacing.json   a build that --replace lets write here, until its dataset is packed

Two files, because an interrupted replacing build has replaced nothing: until it packs, the dataset
there is still the other build's, and the commands of both builds work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.config import CURATION_VERSION, Config
from pipeline.errors import BuildError
from pipeline.sources.manifest import printable
from pipeline.staging import FOLDER
from settings.section import differences
from shards.atomic import TEMPORARY, remove_file, write_bytes
from shards.canonical import indented_json
from shards.layout import DATASET_JSON, is_shard_name
from shards.schema import Split
from storage.path import AnyPath

SETTINGS = "settings.json"
REPLACING = "replacing.json"


def claim(
    config: Config,
    weights: dict[str, str],
    contents: Mapping[str, str],
    *,
    replace: bool,
    lost: Callable[[], tuple[int, int]],
    dry_run: bool = False,
) -> None:
    """Make the output directory this build's.

    Args:
        config: of the build.
        weights: sha256 of each network.
        contents: sha256 of the files that the split depends on; see `PlanConfig.defining`.
        replace: take the directory over when it holds another build, or foreign files.
        lost: how many videos are finished there, and how many of those this build would curate again.
        dry_run: only check that it can be.

    Raises:
        BuildError: the directory holds another build or foreign files.
        OSError: it cannot be used.
    """
    claim_output(
        config.output,
        _identity(config, weights, contents),
        replace=replace,
        cost=lambda: _cost(*lost()),
        dry_run=dry_run,
    )


def claim_output(
    directory: AnyPath,
    ours: dict[str, Any],
    *,
    replace: bool,
    cost: Callable[[], str],
    dry_run: bool = False,
) -> None:
    """Make a directory the output of what a configuration makes.

    Args:
        directory: the output.
        ours: everything that shapes what is made, as a JSON object.
        replace: take the directory over when it holds something else.
        cost: a sentence on the work that is lost when it is taken over.
        dry_run: only check that it can be.

    Raises:
        BuildError: the directory holds another build or foreign files.
        OSError: it cannot be used.
    """
    if directory.exists() and not directory.is_dir():
        raise BuildError(
            f"output {directory} cannot be used: it is a file. Give a directory that can be written to."
        )
    settings, replacing = directory / FOLDER / SETTINGS, directory / FOLDER / REPLACING
    owner = _read(settings)
    if settings.exists():
        if not replace and ours not in (owner, _read(replacing)):
            raise BuildError(_another_build(directory, settings, owner, ours, cost()))
    elif not replace and (names := _names(directory)):
        raise BuildError(_files_of_others(directory, names))
    _check_shard_directories(directory)
    if dry_run:
        return
    if owner is not None and owner != ours:
        write_bytes(replacing, indented_json(ours))
    else:
        write_bytes(settings, indented_json(ours))
        remove_file(replacing)


def confirm(output: AnyPath) -> None:
    """Record that the dataset in `output` is now the claiming build's.

    Raises:
        BuildError: the record cannot be written.
    """
    replacing = output / FOLDER / REPLACING
    try:
        if replacing.exists():
            write_bytes(output / FOLDER / SETTINGS, replacing.read_bytes())
            remove_file(replacing)
    except OSError as error:
        raise BuildError(f"cannot write {error.filename or replacing}: {error.strerror or error}") from error


def _identity(config: Config, weights: dict[str, str], contents: Mapping[str, str]) -> dict[str, Any]:
    identity = config.defining(contents) | {"weights": weights, "curation_version": CURATION_VERSION}
    for source in config.all_sources:
        identity["sources"][source.name] |= source.model_dump(mode="json", include={"path", "annotations"})
    return identity


def _read(path: AnyPath) -> dict[str, Any] | None:
    """The recorded build; None when there is none, or the file is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _names(directory: AnyPath) -> list[str]:
    """What the directory holds besides the staging area, which contains the lock."""
    found = directory.iterdir() if directory.is_dir() else ()
    return sorted(path.name for path in found if path.name != FOLDER)


def _check_shard_directories(directory: AnyPath) -> None:
    # The writer rejects these as well, but only after all the work.
    for split in Split:
        for name in sorted(path.name for path in (directory / split.value).glob("*")):
            if not (is_shard_name(f"{split.value}/{name}") or TEMPORARY.match(name)):
                path = directory / split.value / name
                raise BuildError(f"{path} is no part of a dataset. Move it away, or give another output.")


def _another_build(
    directory: AnyPath, settings: AnyPath, owner: dict[str, Any] | None, ours: dict[str, Any], cost: str
) -> str:
    if owner is None:
        facts = f"{settings} is damaged, so it is not known which build {directory} holds."
    else:
        facts = f"{directory} holds a build of another configuration:\n  " + "\n  ".join(
            differences(owner, ours)
        )
    if (directory / DATASET_JSON).exists():
        cost = f"the dataset that is there is then overwritten, and {cost}"
    return f"{facts}\nGive another output, or --replace to build over it: {cost}"


def _cost(finished: int, again: int) -> str:
    if not finished:
        return "no video of this build is finished there yet."
    if not again:
        return f"all {finished} finished videos are then used."
    return f"{again} of {finished} finished videos are then curated again."


def _files_of_others(directory: AnyPath, names: list[str]) -> str:
    if DATASET_JSON in names:
        what = f"a dataset, but not what it was built from ({FOLDER}/{SETTINGS} is missing)"
    else:
        what = f"files that no build left there, such as {printable(names[0])}"
    return f"{directory} holds {what}. Give another output, or --replace to build over it."
