"""What `mfhq models` shows and fetches."""

from __future__ import annotations

from pathlib import Path

import yaml

from faces.download import pull
from faces.profiles import required_files
from faces.registry import ModelsUnavailable, known_models, origin, pin, resolve
from pipeline.config import ConfigError, Models
from pipeline.progress import Reporter


def models_table(models_dir: Path | None) -> str:
    """Every known network, a paragraph each."""
    paragraphs = []
    for name, model in sorted(known_models(models_dir).items()):
        try:
            where = str(resolve([name], models_dir)[name].path)
        except ModelsUnavailable:
            where = "not here"
        paragraphs.append(
            f"{name}\n  file     {model.file}\n  sha256   {pin(model)}\n  licence  {model.licence}\n"
            f"  from     {origin(model)}\n  here     {where}"
        )
    return "\n".join(paragraphs)


def pull_for(workflow: Path, models_dir: Path, reporter: Reporter) -> str:
    """Fetch the networks that a workflow names.

    Raises:
        ConfigError: the workflow names no networks.
        ModelsUnavailable: an address does not answer, or what it gave is not the file.
    """
    tree = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    if not isinstance(tree, dict) or "models" not in tree:
        raise ConfigError(f"{workflow} has no section models")
    names = required_files(Models.model_validate(tree["models"]).names, models_dir)
    reporter.say(f"fetching {', '.join(names)}")
    found = pull(names, models_dir)
    return "\n".join(f"{name}: {path}" for name, path in found.items())
