"""Bad input of a flow run ends every process with one message."""

from __future__ import annotations

import re
import resource
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_flux import write_tiny_flux
from trainers import Run

from training.models.sizes import SIZES
from training.representations.omniid import OmniIDEncoder

pytestmark = pytest.mark.slow

FLOW = (
    "decoders.mtd=null",
    "decoders.flow.text_tokens=8",
    "decoders.flow.side=64",
    "decoders.flow.sample_steps=2",
    "batch=2",
    "steps=2",
)
SCRATCH = (
    "decoders.mtd=null",
    "decoders.flow.side=16",
    "decoders.flow.scratch={layers: 1, single_layers: 1, heads: 2, head_width: 16, patch: 4}",
    "decoders.flow.sample_steps=2",
    "batch=2",
    "steps=2",
)


def on_flux(tmp_path: Path, dataset: Path, flux: Path | str, *overrides: str) -> Run:
    cache = f"decoders.flow.prompt_cache={tmp_path / 'prompts'}"
    return Run(tmp_path / "run", dataset, *FLOW, f"decoders.flow.base={flux}", cache, *overrides)


@pytest.fixture
def copy(tiny_flux: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_flux, tmp_path / "flux"))


def test_a_flux_folder_that_is_not_there(dataset: Path, tmp_path: Path) -> None:
    message = on_flux(tmp_path, dataset, tmp_path / "nothing").refused(2)
    assert (
        f"decoders.flow.base: there is no directory {tmp_path / 'nothing'}. Give the directory of FLUX"
        in message
    )


def test_weights_of_flux_that_are_cut_off(dataset: Path, tmp_path: Path, copy: Path) -> None:
    path = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    message = on_flux(tmp_path, dataset, copy).refused(2)
    assert f"{copy / 'transformer'} cannot be loaded" in message
    assert "Download this component again" in message


def test_a_flux_folder_that_one_machine_lacks(dataset: Path, tmp_path: Path, copy: Path) -> None:
    (tmp_path / "other").mkdir()
    message = on_flux(tmp_path, dataset, "flux").refused(2, folders=[tmp_path, tmp_path / "other"])
    assert message.startswith("error: rank 1: decoders.flow.base: there is no directory flux")


def test_a_hub_that_cannot_be_reached(dataset: Path, tmp_path: Path) -> None:
    run = on_flux(tmp_path, dataset, "acme/flux", f"decoders.flow.revision={'c0ffee' + 34 * '0'}")
    unreachable = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(tmp_path / "hub")}
    message = run.refused(2, environment=unreachable)
    assert "decoders.flow.base: acme/flux cannot be fetched from the hub (" in message
    assert "give the directory" in message


def test_an_encoder_of_another_size(dataset: Path, tmp_path: Path) -> None:
    OmniIDEncoder(SIZES["tiny"].model_copy(update={"queries": 8})).save_pretrained(tmp_path / "encoder")
    encoder = f"representation.weights={tmp_path / 'encoder'}"
    message = Run(tmp_path / "run", dataset, *SCRATCH, encoder).refused(2)
    assert "is of another size than representation.size=tiny: queries 8 instead of 16" in message


def test_the_output_of_a_run_instead_of_its_encoder(dataset: Path, tmp_path: Path) -> None:
    first = tmp_path / "mtd"
    OmniIDEncoder(SIZES["tiny"]).save_pretrained(first / "encoder")
    message = Run(tmp_path / "run", dataset, *SCRATCH, f"representation.weights={first}").refused(2)
    assert f"representation.weights: {first} holds no finished encoder" in message
    assert f"Did you mean {first / 'encoder'}?" in message


def test_checkpoints_of_an_mtd_run_are_no_start_of_a_flow_run(dataset: Path, tmp_path: Path) -> None:
    first = Run(tmp_path / "run", dataset, "batch=2", "steps=1")
    first.ended(2)
    message = Run(tmp_path / "run", dataset, *SCRATCH).refused(2)
    assert f"{first.output} holds checkpoints of a run with another configuration" in message
    assert "decoders.mtd" in message
    assert "decoders.flow" in message
    assert "another output to start a new run" in message


def test_checkpoints_of_another_flow(dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", dataset, *SCRATCH, "steps=1")
    run.ended(2)
    message = run.refused(2, "decoders.flow.timesteps=logit_normal", "decoders.flow.sample_steps=3")
    assert "decoders.flow.timesteps: uniform -> logit_normal" in message
    assert "sample_steps" not in message


def test_a_flux_that_has_become_another_one(dataset: Path, tmp_path: Path, copy: Path) -> None:
    run = on_flux(tmp_path, dataset, copy, "steps=2")
    run.stopped(2, 1)
    write_tiny_flux(copy, seed=1)
    message = run.refused(2)
    assert (
        f"{run.output} holds checkpoints of a run with other frozen weights (decoders.flow.base)" in message
    )
    assert "another output to start a new run" in message


def test_a_flux_that_is_another_one_on_one_machine(dataset: Path, tmp_path: Path, copy: Path) -> None:
    write_tiny_flux(tmp_path / "other" / "flux", seed=1)
    message = on_flux(tmp_path, dataset, "flux").refused(2, folders=[tmp_path, tmp_path / "other"])
    expected = "error: rank 1: the frozen weights differ from those of rank 0 (decoders.flow.base"
    assert message.startswith(expected)


def test_a_frozen_encoder_that_is_another_one_on_one_machine(dataset: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "other"):
        OmniIDEncoder(SIZES["tiny"]).save_pretrained(folder / "encoder")
    frozen = ("representation.weights=encoder", "representation.frozen=true")
    run = Run(tmp_path / "run", dataset, *SCRATCH, *frozen)
    message = run.refused(2, folders=[tmp_path, tmp_path / "other"])
    expected = "error: rank 1: the frozen weights differ from those of rank 0 (representation.weights"
    assert message.startswith(expected)


def test_a_frozen_encoder_that_has_become_another_one(dataset: Path, tmp_path: Path) -> None:
    OmniIDEncoder(SIZES["tiny"]).save_pretrained(tmp_path / "encoder")
    frozen = (f"representation.weights={tmp_path / 'encoder'}", "representation.frozen=true")
    run = Run(tmp_path / "run", dataset, *SCRATCH, *frozen)
    run.stopped(1, 1)
    OmniIDEncoder(SIZES["tiny"]).save_pretrained(tmp_path / "encoder")
    message = run.refused(2)
    assert f"{run.output} holds checkpoints of a run with other frozen weights" in message


def test_an_encoder_that_is_another_one_on_one_machine(dataset: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "other"):
        OmniIDEncoder(SIZES["tiny"]).save_pretrained(folder / "encoder")
    encoder = ("representation.weights=encoder", "run.strategy=fsdp")
    run = Run(tmp_path / "run", dataset, *SCRATCH, *encoder)
    message = run.refused(2, folders=[tmp_path, tmp_path / "other"])
    assert message.startswith("error: rank 1: the initial weights differ from those of rank 0")
    assert "the same representation.weights" in message


def test_a_folder_of_prompts_that_cannot_be_written_to(
    dataset: Path, tmp_path: Path, tiny_flux: Path
) -> None:
    (tmp_path / "file").write_text("")
    cache = tmp_path / "file" / "x"
    message = on_flux(tmp_path, dataset, tiny_flux, f"decoders.flow.prompt_cache={cache}").refused(2)
    assert f"decoders.flow.prompt_cache: {cache} cannot be used: Not a directory" in message


def test_memory_that_is_used_up_on_one_machine(dataset: Path, tmp_path: Path) -> None:
    scratch = "decoders.flow.scratch={layers: 1, single_layers: 1, heads: 4, head_width: 32, patch: 4}"
    large = (scratch, "decoders.flow.side=256", "data.targets=8", "steps=20")
    run = Run(tmp_path / "run", dataset, *SCRATCH, *large)
    with run.started(2) as trainers:
        trainers.until(lambda: run.steps() >= 1)
        # As if another program had taken it: whatever is asked for next is more than there is.
        resource.prlimit(trainers.processes[1].pid, resource.RLIMIT_AS, (2**30, 2**30))
        assert trainers.wait() == [1, 1]
    assert trainers.log(1).startswith(
        "error: process 1: the memory of this machine is used up. Lower run.per"
    )
    assert "error: another rank has ended; the messages above or its own log show why" in trainers.log(0)
    assert "Traceback" not in trainers.said()


def test_a_disk_without_room_for_latents(
    dataset: Path, tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    latents = small_disk(80_000)  # a file takes 25 kB
    run = Run(tmp_path / "run", dataset, *SCRATCH, f"decoders.flow.latents={latents}")
    message = run.refused(2, program="latents")
    assert f"cannot write {latents}/" in message
    assert "the disk is full" in message
    assert list(latents.rglob("*.safetensors"))


def test_latents_that_were_not_computed(dataset: Path, tmp_path: Path) -> None:
    latents = tmp_path / "latents"
    run = Run(tmp_path / "run", dataset, *SCRATCH, f"decoders.flow.latents={latents}")
    command = shlex.join(["omniid", "latents", *run.arguments])
    expected = rf"decoders\.flow\.latents: {latents}/\S+ has no latents of 14 of 14 identities\. Compute them"
    for how in ((), ("--dry-run",)):
        message = run.refused(2, *how)
        assert re.match(f"error: {expected} first: {re.escape(command)}\n", message), message
        assert not run.checkpoints()


def test_latents_that_one_machine_lacks(dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", dataset, *SCRATCH, "decoders.flow.latents=latents")
    (tmp_path / "other").mkdir()
    run.ended(1, program="latents", folders=[tmp_path])
    message = run.refused(2, folders=[tmp_path, tmp_path / "other"])
    assert message.startswith("error: rank 1: decoders.flow.latents: latents/")
    assert "has no latents of 14 of 14 identities" in message


def test_latents_of_processes_that_do_not_share_a_directory(dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", dataset, *SCRATCH, "decoders.flow.latents=latents")
    (tmp_path / "other").mkdir()
    message = run.refused(2, program="latents", folders=[tmp_path, tmp_path / "other"])
    assert "7 files were written, but rank 0 does not see them in latents/" in message
    assert "Give a directory that all machines share" in message


def test_a_file_of_latents_that_is_damaged(dataset: Path, tmp_path: Path) -> None:
    latents = tmp_path / "latents"
    run = Run(tmp_path / "run", dataset, *SCRATCH, f"decoders.flow.latents={latents}")
    run.ended(1, program="latents")
    path = sorted(latents.rglob("seen*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-9] + bytes(9))
    message = run.refused(2, "steps=6")
    assert (
        f"decoders.flow.latents: {path} is damaged: its sha256 is wrong. Delete this file, then run"
        in message
    )


def test_a_configuration_that_keeps_no_latents_has_none_to_compute(dataset: Path, tmp_path: Path) -> None:
    message = Run(tmp_path / "run", dataset, *SCRATCH).refused(1, program="latents")
    assert "this configuration computes latents in each step. Set a directory" in message
    message = Run(tmp_path / "mtd", dataset).refused(1, program="latents")
    assert "decoders.flow.latents" in message
