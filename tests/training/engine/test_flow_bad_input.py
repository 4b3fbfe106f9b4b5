"""What is wrong with the input of the second stage is said once, in words, and ends every process."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_flux import write_tiny_flux
from trainers import Run

from training.models.encoder import OmniIDEncoder
from training.models.sizes import SIZES

pytestmark = pytest.mark.slow

FLOW = ("stage=flow", "flow.text_tokens=8", "flow.side=64", "flow.sample_steps=2", "batch=2", "steps=2")
SCRATCH = (
    "stage=flow",
    "flow.side=16",
    "flow.scratch={layers: 1, single_layers: 1, heads: 2, head_width: 16, patch: 4}",
    "flow.sample_steps=2",
    "batch=2",
    "steps=2",
)


def on_flux(tmp_path: Path, dataset: Path, flux: Path | str, *overrides: str) -> Run:
    cache = f"flow.prompt_cache={tmp_path / 'prompts'}"
    return Run(tmp_path / "run", dataset, *FLOW, f"flow.base={flux}", cache, *overrides)


@pytest.fixture
def copy(tiny_flux: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_flux, tmp_path / "flux"))


def test_a_flux_folder_that_is_not_there(dataset: Path, tmp_path: Path) -> None:
    message = on_flux(tmp_path, dataset, tmp_path / "nothing").refused(2)
    assert f"flow.base: there is no folder {tmp_path / 'nothing'}; give the folder of FLUX" in message


def test_weights_of_flux_that_are_cut_off(dataset: Path, tmp_path: Path, copy: Path) -> None:
    path = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    message = on_flux(tmp_path, dataset, copy).refused(2)
    assert f"{copy / 'transformer'} cannot be loaded" in message
    assert "Fetch this part again" in message


def test_a_flux_folder_that_one_machine_lacks(dataset: Path, tmp_path: Path, copy: Path) -> None:
    (tmp_path / "other").mkdir()
    message = on_flux(tmp_path, dataset, "flux").refused(2, folders=[tmp_path, tmp_path / "other"])
    assert message.startswith("error: process 1: flow.base: there is no folder flux")


def test_a_hub_that_cannot_be_reached(dataset: Path, tmp_path: Path) -> None:
    run = on_flux(tmp_path, dataset, "acme/flux", f"flow.revision={'c0ffee' + 34 * '0'}")
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(tmp_path / "hub")}
    message = run.refused(2, environment=nobody)
    assert "flow.base: acme/flux cannot be fetched from the hub (" in message
    assert "give the folder" in message


def test_an_encoder_of_another_size(dataset: Path, tmp_path: Path) -> None:
    OmniIDEncoder(SIZES["tiny"].model_copy(update={"queries": 8})).save_pretrained(tmp_path / "encoder")
    encoder = ("model.clip=encoder", f"flow.encoder={tmp_path / 'encoder'}")
    message = Run(tmp_path / "run", dataset, *SCRATCH, *encoder).refused(2)
    assert "is of another size than model.size tiny: queries 8 instead of 16" in message


def test_the_output_of_a_run_instead_of_its_encoder(dataset: Path, tmp_path: Path) -> None:
    first = tmp_path / "mtd"
    OmniIDEncoder(SIZES["tiny"]).save_pretrained(first / "encoder")
    message = Run(tmp_path / "run", dataset, *SCRATCH, "model.clip=encoder", f"flow.encoder={first}").refused(
        2
    )
    assert f"flow.encoder: {first} holds no finished encoder" in message
    assert f"Did you mean {first / 'encoder'}?" in message


def test_checkpoints_of_the_first_stage_are_no_start_of_the_second(dataset: Path, tmp_path: Path) -> None:
    first = Run(tmp_path / "run", dataset, "batch=2", "steps=1")
    first.ended(2)
    message = Run(tmp_path / "run", dataset, *SCRATCH).refused(2)
    assert f"{first.output} holds checkpoints of another run" in message
    assert "stage: mtd -> flow" in message
    assert "another output to start a new one" in message


def test_checkpoints_of_another_flow(dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", dataset, *SCRATCH, "steps=1")
    run.ended(2)
    message = run.refused(2, "flow.timesteps=logit_normal", "flow.sample_steps=3")
    assert "flow.timesteps: uniform -> logit_normal" in message
    assert "sample_steps" not in message


def test_a_flux_that_has_become_another_one(dataset: Path, tmp_path: Path, copy: Path) -> None:
    run = on_flux(tmp_path, dataset, copy, "steps=2")
    run.stopped(2, 1)
    write_tiny_flux(copy, seed=1)
    message = run.refused(2)
    assert f"{run.output} holds checkpoints of a run around another FLUX" in message
    assert "another output to start a new run" in message


def test_a_flux_that_is_another_one_on_one_machine(dataset: Path, tmp_path: Path, copy: Path) -> None:
    write_tiny_flux(tmp_path / "other" / "flux", seed=1)
    message = on_flux(tmp_path, dataset, "flux").refused(2, folders=[tmp_path, tmp_path / "other"])
    assert message.startswith("error: process 1: what is not trained, of FLUX (flow.base) or an autoencoder")
    assert "has other weights here than at the first process" in message


def test_an_encoder_that_is_another_one_on_one_machine(dataset: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "other"):
        OmniIDEncoder(SIZES["tiny"]).save_pretrained(folder / "encoder")
    encoder = ("model.clip=encoder", "flow.encoder=encoder", "run.strategy=fsdp")
    run = Run(tmp_path / "run", dataset, *SCRATCH, *encoder)
    message = run.refused(2, folders=[tmp_path, tmp_path / "other"])
    assert message.startswith("error: process 1: what is trained begins with other weights here")
    assert "the same flow.encoder" in message


def test_a_folder_of_prompts_that_cannot_be_written_to(
    dataset: Path, tmp_path: Path, tiny_flux: Path
) -> None:
    (tmp_path / "file").write_text("")
    message = on_flux(tmp_path, dataset, tiny_flux, f"flow.prompt_cache={tmp_path / 'file' / 'x'}").refused(2)
    assert f"flow.prompt_cache: {tmp_path / 'file' / 'x'} cannot be used: Not a directory" in message


def test_memory_that_is_used_up_on_one_machine(dataset: Path, tmp_path: Path) -> None:
    scratch = "flow.scratch={layers: 1, single_layers: 1, heads: 4, head_width: 32, patch: 4}"
    run = Run(tmp_path / "run", dataset, *SCRATCH, "flow.side=256", scratch, "data.targets=8", "steps=20")
    with run.started(2) as trainers:
        trainers.until(lambda: run.steps() >= 1)
        # As if another program had taken it: whatever is asked for next is more than there is.
        resource.prlimit(trainers.processes[1].pid, resource.RLIMIT_AS, (2**30, 2**30))
        assert trainers.wait() == [1, 1]
    assert trainers.log(1).startswith(
        "error: process 1: the memory of this machine is used up. Lower run.per"
    )
    assert "error: another process of the run has gone; what ended it stands above" in trainers.log(0)
    assert "Traceback" not in trainers.said()


def test_a_disk_without_room_for_latents_ends_nothing(
    dataset: Path, tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    plain = Run(tmp_path / "plain", dataset, *SCRATCH)
    plain.ended(2)
    latents = small_disk(12_000)
    run = Run(tmp_path / "run", dataset, *SCRATCH, f"flow.latents={latents}")
    trainers = run.ended(2)
    # A process that meets the full disk says so once; one of them may have written all of its own before.
    told = [trainers.log(rank).count(f"no more latents are kept in {latents}") for rank in range(2)]
    assert max(told) == 1
    assert trainers.said().count("(No space left on device)") == sum(told)
    assert list(latents.rglob("*.safetensors"))
    assert run.lines() == plain.lines()
