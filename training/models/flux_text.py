"""The embeddings of the prompt: computed once and cached in a file, so that training holds no text encoder.

T5 has nearly half as many parameters as FLUX, and the prompt never changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from shards.atomic import write_bytes
from training.errors import TrainingError
from training.models.flux_folder import FluxFolder


@dataclass(frozen=True)
class Prompt:
    """Embeddings of a prompt."""

    tokens_1TD: torch.Tensor
    """T5's, float32."""
    pooled_1D: torch.Tensor
    """CLIP's, float32."""


def encoded_prompt(folder: FluxFolder, prompt: str, tokens: int, cache: Path | None = None) -> Prompt:
    """The embeddings of a prompt, from the cache if it has them.

    When several ranks of a machine call it, one encodes and the others wait for its file.

    Args:
        folder: with the text encoders.
        prompt: the text.
        tokens: of T5, to which the prompt is padded (`decoders.flow.text_tokens`).
        cache: directory of encoded prompts, made when missing (`decoders.flow.prompt_cache`); None for
            `omniid/prompts` in the user's cache directory.

    Raises:
        TrainingError: a text encoder cannot be loaded, or the cache cannot be used.
    """
    cache = cache or _default_cache()
    path = cache / f"{_digest(folder, prompt, tokens)}.safetensors"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (found := _read(path)) is not None:
                return found
            encoded = encode(folder, prompt, tokens)
            _write(path, encoded)
    except OSError as error:
        raise TrainingError(
            f"decoders.flow.prompt_cache: {cache} cannot be used: {error.strerror or error}. Set it to "
            "a writable directory"
        ) from error
    return encoded


@torch.no_grad()
def encode(folder: FluxFolder, prompt: str, tokens: int) -> Prompt:
    """Run both text encoders on the CPU in float32, which gives the same embeddings on every machine.

    Raises:
        TrainingError: a text encoder cannot be loaded, or the prompt has more tokens than `tokens`.
    """
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    clip_tokenizer = folder.load_tokenizer("tokenizer", CLIPTokenizer)
    clip_ids = clip_tokenizer(
        prompt,
        padding="max_length",
        max_length=clip_tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    pooled_1D = folder.load("text_encoder", CLIPTextModel, torch.float32)(clip_ids).pooler_output
    t5_tokenizer = folder.load_tokenizer("tokenizer_2", T5TokenizerFast)
    if (needed := len(t5_tokenizer(prompt).input_ids)) > tokens:
        raise TrainingError(
            f"decoders.flow.text_tokens: {tokens} cut off the prompt, which takes {needed}. Give at least {needed}"
        )
    t5_ids = t5_tokenizer(
        prompt, padding="max_length", max_length=tokens, truncation=True, return_tensors="pt"
    ).input_ids
    # FLUX was trained with T5 attending to the padding too: no mask.
    tokens_1TD = folder.load("text_encoder_2", T5EncoderModel, torch.float32)(t5_ids)[0]
    return Prompt(tokens_1TD.contiguous(), pooled_1D.contiguous())


def empty_prompt(width: int, pooled_width: int) -> Prompt:
    """Embeddings for a transformer without text encoders: one token of zeros."""
    return Prompt(torch.zeros(1, 1, width), torch.zeros(1, pooled_width))


def _digest(folder: FluxFolder, prompt: str, tokens: int) -> str:
    """Digest of a prompt and of the names, sizes and times of the files that encode it."""
    parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    files = [file for part in parts for file in sorted((folder.path / part).iterdir())]
    # Files of the hub's cache are links to files named by their digest.
    facts = [
        (f"{file.parent.name}/{file.name}", file.stat().st_size, file.stat().st_mtime_ns, file.resolve().name)
        for file in files
    ]
    text = json.dumps([prompt, tokens, facts])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omniid" / "prompts"


def _read(path: Path) -> Prompt | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        return Prompt(tensors["tokens"], tensors["pooled"])
    except (FileNotFoundError, SafetensorError, KeyError):
        return None  # missing or damaged: the prompt is encoded again


def _write(path: Path, prompt: Prompt) -> None:
    from safetensors.torch import save

    write_bytes(path, save({"tokens": prompt.tokens_1TD, "pooled": prompt.pooled_1D}))
