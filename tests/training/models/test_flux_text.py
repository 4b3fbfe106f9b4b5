"""The prompt: encoded once, as FLUX's pipeline does."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch

from training.errors import TrainingError
from training.models import flux_text
from training.models.flux_folder import open_flux
from training.models.flux_text import Prompt, encoded_prompt


def prompt(
    tiny_flux: Path, cache: Path | None, prompt: str = "photo of a person.", text_tokens: int = 16
) -> Prompt:
    return encoded_prompt(open_flux(str(tiny_flux), None), prompt, text_tokens, cache)


def test_the_embeddings_equal_those_of_the_pipeline(tiny_flux: Path, tmp_path: Path) -> None:
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    for length in (16, 40):
        ours = prompt(tiny_flux, tmp_path, text_tokens=length)
        tokens, pooled, _ = pipeline.encode_prompt("photo of a person.", max_sequence_length=length)
        assert torch.allclose(ours.tokens_1TD, tokens, atol=1e-5)
        assert torch.allclose(ours.pooled_1D, pooled, atol=1e-5)
        assert not ours.tokens_1TD.requires_grad


def test_a_prompt_that_is_too_long_is_an_error(tiny_flux: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"decoders\.flow\.text_tokens: 5 cut off the prompt, which takes 6"
    ):
        prompt(tiny_flux, tmp_path, text_tokens=5)
    prompt(tiny_flux, tmp_path, text_tokens=6)


def test_a_prompt_is_encoded_once(tiny_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prompt(tiny_flux, tmp_path)
    monkeypatch.setattr(flux_text, "encode", lambda *_: pytest.fail("encoded again"))
    again = prompt(tiny_flux, tmp_path)
    assert torch.equal(first.tokens_1TD, again.tokens_1TD)
    assert torch.equal(first.pooled_1D, again.pooled_1D)


@pytest.mark.parametrize(
    "changes", [{"prompt": "a photo"}, {"text_tokens": 17}], ids=lambda changes: next(iter(changes))
)
def test_another_prompt_or_length_is_another_cache_entry(
    tiny_flux: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    first, other = prompt(tiny_flux, tmp_path), prompt(tiny_flux, tmp_path, **changes)
    assert first.tokens_1TD.shape != other.tokens_1TD.shape or not torch.equal(
        first.tokens_1TD, other.tokens_1TD
    )
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_damaged_cache_entry_is_encoded_again(tiny_flux: Path, tmp_path: Path) -> None:
    first = prompt(tiny_flux, tmp_path)
    (entry,) = tmp_path.glob("*.safetensors")
    whole = entry.read_bytes()
    for half in (b"", whole[:100]):
        entry.write_bytes(half)
        assert torch.equal(prompt(tiny_flux, tmp_path).tokens_1TD, first.tokens_1TD)
        assert entry.read_bytes() == whole


def test_a_cache_that_cannot_be_used_is_named(tiny_flux: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"decoders\.flow\.prompt_cache: .*file cannot be used"):
        prompt(tiny_flux, tmp_path / "file")


def test_the_default_cache_is_in_the_user_s_cache_directory(
    tiny_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    prompt(tiny_flux, None)
    assert len(list((tmp_path / "omniid" / "prompts").glob("*.safetensors"))) == 1


def test_concurrent_processes_wait_for_the_one_that_encodes(tiny_flux: Path, tmp_path: Path) -> None:
    """Forked after the imports, so they do begin together; each counts how often it encodes."""
    context = multiprocessing.get_context("fork")
    counted = context.Queue()
    encode = flux_text.encode

    def ask() -> None:
        torch.set_num_threads(1)
        times = []

        def counting(*arguments: object) -> Prompt:
            times.append(1)
            return encode(*arguments)

        flux_text.encode = counting
        found = prompt(tiny_flux, tmp_path)
        counted.put((len(times), found.tokens_1TD.sum().item()))

    processes = [context.Process(target=ask) for _ in range(3)]
    for process in processes:
        process.start()
    answers = [counted.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(times for times, _ in answers) == [0, 0, 1]
    assert len({total for _, total in answers}) == 1
