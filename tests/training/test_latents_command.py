"""`omniid latents` computes the latents of a dataset once; runs that read them are the runs that compute them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launches import started

sys.path.insert(0, str(Path(__file__).parent / "engine"))

from damaged_data import damage
from trainers import Run, make_dataset

pytestmark = pytest.mark.slow

FLOW = (
    "decoders.mtd=null",
    "decoders.flow.side=32",
    "decoders.flow.scratch={layers: 1, single_layers: 1, heads: 2, head_width: 16, patch: 4}",
    "decoders.flow.sample_steps=2",
    "decoders.flow.latents=beside_shards",
    "steps=6",
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Eleven identities to train on, three held out."""
    return make_dataset(tmp_path / "mfhq")


def test_help_imports_nothing_heavy() -> None:
    check = (
        "import sys\nfrom typer.testing import CliRunner\nfrom training.cli import app\n"
        "print(CliRunner().invoke(app, ['latents', '--help'], env={'COLUMNS': '200'}).stdout)\n"
        "assert not {'torch', 'obstore', 'diffusers'} & sys.modules.keys(), sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for promised in ("omniid latents workflows/", "torchrun", "beside_shards", "Exit code 1"):
        assert promised in result.stdout


def files(root: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (root / "latents").rglob("*.safetensors")}


def test_a_run_on_kept_latents_is_the_run_that_computes_them_also_when_it_is_resumed(
    copy: Path, tmp_path: Path
) -> None:
    kept = Run(tmp_path / "kept", copy, *FLOW)
    said = kept.ended(1, program="latents").log(0)
    assert "14 identities, 0 have latents\n" in said
    assert "latents of 14 of 14 identities, " in said
    assert "14 computed now, 0 damaged\n" in said
    assert len(files(copy)) == 14
    kept.stopped(2, 2)
    kept.ended(2)
    plain = Run(tmp_path / "plain", copy, *FLOW, "decoders.flow.latents=on_the_fly")
    plain.ended(2)
    assert kept.lines() == plain.lines()
    assert kept.encoder() == plain.encoder()
    grids = [sorted((run.output / "samples").glob("*.png")) for run in (kept, plain)]
    assert len(grids[0]) == 2
    assert [path.read_bytes() for path in grids[0]] == [path.read_bytes() for path in grids[1]]


def test_a_training_computes_those_that_are_missing_where_it_may(copy: Path, tmp_path: Path) -> None:
    key = damage(copy)
    refused = Run(tmp_path / "run", copy, *FLOW).refused(2)
    assert "has no latents of 14 of 14 identities. Compute them first: omniid latents" in refused
    run = Run(tmp_path / "run", copy, *FLOW, "run.compute_latents=true")
    said = run.ended(2).log(0)
    assert "13 computed now, 1 damaged\n" in said
    assert f"skipped: sample {key}: " in said
    assert said.index("computed now") < said.index("loss")
    assert len(files(copy)) == 13
    other = Run(tmp_path / "other", copy, *FLOW, "run.compute_latents=true")
    assert "14 identities, 13 have latents\n" in other.ended(2).log(0)
    assert other.encoder() == run.encoder()


def test_what_is_there_is_skipped_and_what_was_cut_off_is_computed_again(copy: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", copy, *FLOW)
    run.ended(1, program="latents")
    first = files(copy)
    paths = sorted((copy / "latents").rglob("*.safetensors"))
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:100])
    written = {path: path.stat().st_mtime_ns for path in paths[2:]}
    said = run.ended(2, program="latents").log(0)
    assert "14 identities, 12 have latents\n" in said
    assert "2 computed now, 0 damaged\n" in said
    assert files(copy) == first
    assert {path: path.stat().st_mtime_ns for path in paths[2:]} == written


def test_a_damaged_sample_is_named_at_the_end_and_training_skips_it(copy: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(copy, tmp_path / "whole"))
    key = damage(copy)
    run = Run(tmp_path / "run", copy, *FLOW)
    message = run.refused(2, program="latents")
    assert message.startswith(f"error: 1 damaged identities have no latents:\n  sample {key}: ")
    assert "Training skips them, up to run.max_damaged" in message
    assert len(files(copy)) == 13
    assert "1 damaged identities" in run.refused(1, program="latents")  # it is tried again, and still damaged
    said = run.ended(2).log(0)
    assert f"skipped: sample {key}: " in said
    assert set(run.series("data/damaged")) <= {0, 1}
    for shard in whole.rglob("*.tar"):
        shutil.copy(shard, copy / shard.relative_to(whole))
    assert "1 computed now, 0 damaged\n" in run.ended(1, program="latents").log(0)
    assert key in files(copy)


def test_torchrun_shares_the_identities_among_its_ranks(copy: Path, tmp_path: Path) -> None:
    one = Run(tmp_path / "one", copy, *FLOW)
    one.ended(1, program="latents")
    expected = files(copy)
    shutil.rmtree(copy / "latents")
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("training/latents.py", *one.arguments),
    ]
    log = tmp_path / "log"
    with started(command, log) as process:
        assert process.wait(500) == 0, log.read_text()
    assert log.read_text().count("14 computed now, 0 damaged\n") == 1
    assert files(copy) == expected


def test_a_stop_keeps_what_was_computed_and_the_same_command_computes_the_rest(
    copy: Path, tmp_path: Path, tiny_flux: Path
) -> None:
    directory = tmp_path / "latents"
    # At 512 pixels, the tiny autoencoder takes about half a second an identity.
    flow = (
        *("decoders.mtd=null", f"decoders.flow.base={tiny_flux}", "decoders.flow.text_tokens=8"),
        f"decoders.flow.latents={directory}",
    )
    run = Run(tmp_path / "run", copy, *flow)
    with run.started(2, program="latents") as processes:
        processes.until(lambda: any(directory.rglob("*.safetensors")))
        processes.signal(signal.SIGTERM, [1])
        assert processes.wait() == [0, 0], processes.said()
        assert "stopped, 0 damaged so far; the same command computes the others" in processes.log(0)
    kept = len(list(directory.rglob("*.safetensors")))
    assert 0 < kept < 14
    said = run.ended(1, program="latents").log(0)
    assert f"14 identities, {kept} have latents\n" in said
    assert f"{14 - kept} computed now" in said
