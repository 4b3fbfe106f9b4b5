"""What `mfhq models` shows and downloads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import ValidationError

from faces.catalogue import WITHOUT_FILE, ModelFile
from faces.download import Progress, pull
from faces.profiles import required_files
from faces.registry import WeightsUnavailable, known_models, load_weights, origin, pin, sha256_of
from pipeline.config import Models
from pipeline.errors import BuildError
from pipeline.progress import Advance, Reporter
from settings.loading import read_workflow
from settings.section import ConfigError

MB = 1_000_000


def models_table(models_dir: Path | None) -> str:
    """Every known network, a paragraph each.

    Raises:
        ConfigError: the directory does not exist, or its `models.json` is not valid.
    """
    if models_dir is not None and not models_dir.is_dir():
        raise ConfigError(
            f"--models-dir: {models_dir} is not a directory. Pass the directory of the weights."
        )
    try:
        known = known_models(models_dir)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    paragraphs = {name: _paragraph(model, models_dir) for name, model in known.items()}
    for name in WITHOUT_FILE:
        paragraphs[name] = f"{name}\n  needs no file"
    return "\n".join(paragraphs[name] for name in sorted(paragraphs))


def _paragraph(model: ModelFile, models_dir: Path | None) -> str:
    return (
        f"{model.name}\n"
        f"  file     {model.file}\n"
        f"  sha256   {pin(model).removeprefix('sha256 ')}\n"
        f"  license  {model.license}\n"
        f"  from     {origin(model)}\n"
        f"  here     {_here(model, models_dir)}"
        f"{_thresholds(model)}"
    )


def _thresholds(model: ModelFile) -> str:
    """A line with the thresholds of an embedder; empty for other networks."""
    if model.same_person_cosine is None:
        return ""
    link = "not set" if model.link_cosine is None else f"{model.link_cosine:g}"
    return f"\n  cosine   people.link_cosine {link}, people.same_origin_cosine {model.same_person_cosine:g}"


def _here(model: ModelFile, models_dir: Path | None) -> str:
    try:
        path = load_weights([model.name], models_dir, verify=False)[model.name].path
    except WeightsUnavailable:
        return "no"
    digest = sha256_of(path)
    return str(path) if digest.startswith(model.sha256) else f"no: {path} is another file (sha256 {digest})"


def pull_for(wanted: Sequence[str], models_dir: Path, reporter: Reporter) -> str:
    """Download networks; a line for each names its file.

    Args:
        wanted: names of networks, and workflow files, for all of their networks.
        models_dir: directory to put them in; created when missing.
        reporter: shows progress.

    Raises:
        ConfigError: a name is neither, or `models.json` is not valid.
        WeightsUnavailable: a URL does not answer, or the download is not the expected file.
        BuildError: the directory cannot be written to.
    """
    try:
        known = known_models(models_dir)
        names = required_files([name for text in wanted for name in _meant(text, known)], models_dir)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    there = {name for name in names if (models_dir / known[name].file).is_file()}
    reporter.message(f"fetching {', '.join(names) or 'nothing'} into {models_dir}")
    try:
        with _bars(reporter) as progress:
            found = pull(names, models_dir, progress)
    except OSError as error:
        raise BuildError(f"{models_dir} cannot be used: {error.filename}: {error.strerror}") from error
    return "\n".join(
        f"{name}: {path} ({'was there already' if name in there else 'fetched'})"
        for name, path in found.items()
    )


def _meant(text: str, known: Mapping[str, ModelFile]) -> tuple[str, ...]:
    if text in known or text in WITHOUT_FILE:
        return (text,)
    workflow = Path(text)
    if not workflow.is_file():
        listed = ", ".join(sorted({*known, *WITHOUT_FILE}))
        raise ConfigError(f"{text} is neither a workflow file nor a network; known networks are {listed}")
    return _networks_of(workflow).names


def _networks_of(workflow: Path) -> Models:
    """The section `models` of a workflow; the others need not be complete to fetch networks."""
    tree = read_workflow(workflow)
    if "models" not in tree:
        raise ConfigError(f"{workflow} has no section models; give a workflow such as curate_paper.yaml")
    try:
        return Models.model_validate(tree["models"])
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(['models', *map(str, fault['loc'])])}: {fault['msg']}" for fault in error.errors()
        )
        raise ConfigError(f"{workflow}: {faults}") from error


@contextmanager
def _bars(reporter: Reporter) -> Iterator[Progress]:
    """A bar for each download, in megabytes."""
    with ExitStack() as stack:
        current = ""
        advance: Advance | None = None

        def progress(name: str, received: int, total: int | None) -> None:
            nonlocal current, advance
            if advance is None or name != current:
                stack.close()
                current = name
                advance = stack.enter_context(reporter.bar(name, -(-total // MB) if total else None))
            # Whole megabytes, rounded up, so that the last value is the total.
            advance(-(-received // MB), "MB")

        yield progress
