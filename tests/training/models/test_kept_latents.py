"""Latents in files: the same as those computed on the fly, computed once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flow_runs import SIDE, flow_config, flow_stage
from safetensors.torch import save
from torch.utils.flop_counter import FlopCounterMode

from settings.section import ConfigError
from training.data.batch import Batch
from training.engine.flops import step_flops
from training.models.build import build_stage
from training.models.flow import FlowStage
from training.models.flow_build import build_flow_stage, meta_flow_stage
from training.models.kept_latents import KeptLatents, as_file, latents_folder


@pytest.fixture(scope="module")
def stage(tiny_flux: Path, tmp_path_factory: pytest.TempPathFactory) -> FlowStage:
    return flow_stage(flow_config(tiny_flux, tmp_path_factory.mktemp("prompts")))


class Counted:
    """A codec that counts the images it encodes."""

    def __init__(self, codec: object) -> None:
        self._codec = codec
        self.images = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._codec, name)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        self.images += len(pixels)
        return self._codec.encode(pixels)


@pytest.fixture
def codec(stage: FlowStage) -> Counted:
    return Counted(stage.codec)


def kept(codec: Counted, folder: Path, digest: str = "a" * 64) -> KeptLatents:
    return KeptLatents(folder, digest, codec, SIDE)


def losses(stage: FlowStage, batch: Batch, latents: KeptLatents | None) -> torch.Tensor:
    stage.kept = latents
    try:
        return stage.draw(batch, stage.identify(batch)).loss_BN
    finally:
        stage.kept = None


def test_they_are_computed_once_and_give_the_same_loss(stage, codec, tmp_path: Path, make_batch) -> None:
    batch = make_batch(people=2, targets=3)
    plain = losses(stage, batch, None)
    for encoded in (6, 0):
        codec.images = 0
        assert torch.allclose(losses(stage, batch, kept(codec, tmp_path)), plain, rtol=1e-4)
        assert codec.images == encoded


def test_only_what_is_missing_or_damaged_is_computed(stage, codec, tmp_path: Path, make_batch) -> None:
    batch = make_batch(people=2, targets=3)
    first = kept(codec, tmp_path).of(batch)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 6
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:50])
    files[2].write_bytes(as_file(torch.zeros(1, 2, 2)))
    files[3].write_bytes(save({"latents": torch.zeros(first[0].shape)}))
    size = files[4].stat().st_size
    files[4].write_bytes(files[4].read_bytes()[: size // 2] + bytes(size - size // 2))
    codec.images = 0
    assert torch.equal(kept(codec, tmp_path).of(batch), first)
    assert codec.images == 5


def test_they_do_not_depend_on_what_else_is_in_the_batch(stage, codec, tmp_path: Path, make_batch) -> None:
    batch = make_batch(people=2, targets=2)
    alone = Batch(
        **{name: value[1:] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)},
        keys=batch.keys[1:],
    )
    together = kept(codec, tmp_path / "one").of(batch)
    assert torch.equal(kept(codec, tmp_path / "two").of(alone), together[2:])


def test_another_data_set_precision_or_side_has_others(stage, codec, tmp_path: Path, make_batch) -> None:
    batch = make_batch(people=1, targets=1)
    kept(codec, tmp_path).of(batch)
    for other in (kept(codec, tmp_path, "b" * 64), KeptLatents(tmp_path, "a" * 64, codec, 2 * SIDE)):
        codec.images = 0
        other.of(batch)
        assert codec.images == 1


def test_damaged_samples_are_neither_read_nor_kept(stage, codec, tmp_path: Path, make_batch) -> None:
    batch = replace(make_batch(people=2, targets=2), valid_B=torch.tensor([True, False]))
    latents = kept(codec, tmp_path).of(batch)
    assert codec.images == 2
    assert latents[2:].abs().max() == 0
    assert latents[:2].abs().max() > 0


def test_where_nothing_can_be_written_the_run_goes_on_and_says_so_once(
    stage, codec, tmp_path: Path, make_batch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    batch = make_batch(people=2, targets=2)
    expected = kept(codec, tmp_path / "folder").of(batch)
    found = kept(codec, tmp_path / "file" / "folder").of(batch)
    assert torch.equal(found, expected)
    (said,) = caplog.messages
    assert said.startswith(f"flow.latents: no more latents are kept in {tmp_path / 'file' / 'folder'}")
    assert "(Not a directory)" in said


def test_the_folder_is_beside_the_shards_or_where_it_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert latents_folder("on_the_fly", str(tmp_path)) is None
    assert latents_folder("beside_shards", str(tmp_path)) == tmp_path / "latents"
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    for root in (f"~/{tmp_path.name}", f"file://{tmp_path}"):
        assert latents_folder("beside_shards", root) == tmp_path / "latents"
    assert latents_folder("/fast/disk", "s3://bucket/mfhq") == Path("/fast/disk")
    with pytest.raises(ConfigError, match=r"flow\.latents: beside_shards needs a data set in a folder"):
        latents_folder("beside_shards", "s3://bucket/mfhq")


def test_a_configuration_decides_whether_they_are_kept(tiny_flux, tmp_path: Path) -> None:
    config = flow_config(tiny_flux, tmp_path, {"latents": str(tmp_path)})
    assert build_flow_stage(config, "a" * 64).kept is not None
    assert build_flow_stage(config).kept is None
    assert build_stage(flow_config(tiny_flux, tmp_path), "a" * 64).kept is None


def test_work_that_kept_latents_save_is_not_counted(tiny_flux, tmp_path: Path) -> None:
    def flops(latents: str) -> int:
        return step_flops(flow_config(tiny_flux, tmp_path, {"latents": latents}, batch=8))

    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        meta_flow_stage(flow_config(tiny_flux, tmp_path)).codec.encode(torch.empty(64, 3, SIDE, SIDE))
    encoding = counter.get_total_flops()
    assert encoding > 0
    assert flops("on_the_fly") - flops(str(tmp_path)) == encoding
