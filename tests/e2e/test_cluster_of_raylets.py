"""Builds on real clusters whose nodes join, are killed or have a bad mount all end with the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Literal

import pytest
from builds import REPOSITORY, SCRIPTS, WORKFLOW, canonical_files, staged, wait_until_staged
from raylets import analysers, finished, mounted_over, raylets, suspend_at_work

from pipeline.monitor.writer import read_state

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PART_OF_A_GPU = "run.analyser_gpus=0.4"


def test_a_build_on_eight_nodes_of_mixed_kinds_with_parts_of_gpus_runs_to_its_end(
    demo_clips: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output, log = tmp_path / "mfhq", tmp_path / "log"
    with raylets() as cluster:
        for _ in range(4):
            cluster.add(gpus=1)
        cluster.add(gpus=2)
        cluster.add(gpus=1, memory=2**30)  # too small for one
        for _ in range(2):
            cluster.add()  # without a GPU
        finished(cluster.start_build(demo_clips, output, PART_OF_A_GPU, log=log), log)
    assert canonical_files(output) == canonical_files(undisturbed)


def test_nodes_join_and_are_killed_and_the_driver_too_and_nothing_is_lost_or_doubled(
    demo_clips: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output, first_log, log = tmp_path / "mfhq", tmp_path / "first", tmp_path / "log"
    with raylets() as cluster:
        doomed, _ = cluster.add(), cluster.add()
        first = cluster.start_build(demo_clips, output, log=first_log)
        wait_until_staged(output, 1, first)
        cluster.add()
        wait_until_staged(output, 3, first)
        cluster.kill(doomed)
        wait_until_staged(output, 5, first)
        analysers()[0].send_signal(signal.SIGKILL)  # as the kernel does when memory runs out
        wait_until_staged(output, 7, first)
        first.kill()
        first.wait()
        done = staged(output)
        assert not (output / "dataset.json").exists()

        text = finished(cluster.start_build(demo_clips, output, log=log), log)
    again = int(text.split(" finished by an earlier run")[0].split()[-1])
    assert again >= done, text  # an actor may have finished another one meanwhile
    assert staged(output) == 15
    assert canonical_files(output) == canonical_files(undisturbed)


def test_the_last_node_but_one_is_lost_while_all_are_at_work(
    demo_clips: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output, log = tmp_path / "mfhq", tmp_path / "log"
    with raylets() as cluster:
        doomed, _ = cluster.add(), cluster.add()
        build = cluster.start_build(demo_clips, output, log=log)
        suspend_at_work(doomed, output, build)  # it cannot end its videos before the node is lost
        wait_until_staged(output, 8, build)
        cluster.kill(doomed)
        text = finished(build, log)
    assert "was lost; its videos are tried again" in text
    assert canonical_files(output) == canonical_files(undisturbed)


@pytest.mark.parametrize(
    ("kind", "fault"), [("empty", "cannot be read (No such file or directory)"), ("hung", "does not answer")]
)
def test_a_node_with_a_bad_mount_costs_its_work_and_is_named(
    demo_clips: Path, undisturbed: Path, tmp_path: Path, kind: Literal["empty", "hung"], fault: str
) -> None:
    output, log = tmp_path / "mfhq", tmp_path / "log"
    with raylets() as cluster:
        cluster.add()
        with mounted_over(demo_clips, kind):
            bad = cluster.add()
        text = finished(cluster.start_build(demo_clips, output, "run.storage_timeout_s=3", log=log), log)
    (named,) = [line for line in text.splitlines() if " failed, its videos are tried again: " in line]
    assert bad.node_id[:8] in named
    assert fault in named
    state = read_state(output)
    assert state is not None
    assert bad.node_id[:8] in state.nodes[0].name
    assert fault in state.nodes[0].last_fault
    assert state.faults == sum(node.faults for node in state.nodes) > 0
    (sound,) = [node for node in state.nodes if node.room and not node.faults]
    assert sound.videos == 15
    assert canonical_files(output) == canonical_files(undisturbed)


def test_a_node_where_the_output_hangs_writes_no_shards_and_the_others_write_the_same_bytes(
    undisturbed: Path, demo_clips: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    arguments = ("--replace", "shards.max_samples=1", "run.storage_timeout_s=12")
    for name in ("mfhq", "plain"):
        shutil.copytree(undisturbed, tmp_path / name)  # its videos are finished
    output = tmp_path / "mfhq"
    with raylets() as cluster:
        cluster.add()
        with mounted_over(output, "hung"):
            bad = cluster.add()
        text = finished(cluster.start_build(demo_clips, output, *arguments, log=log), log)
    named = [line for line in text.splitlines() if " failed, its tasks are tried again: " in line]
    assert named
    assert all(bad.node_id[:8] in line for line in named)
    assert any("nothing was read or written for 12 s" in line for line in named)
    subprocess.run(
        [
            *(str(SCRIPTS / "python"), "pipeline/build_mfhq.py", WORKFLOW, *arguments),
            *(f"source.path={demo_clips}", f"output={tmp_path / 'plain'}"),
        ],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        | {"PYTHONPATH": str(REPOSITORY)},
        check=True,
        timeout=300,
    )
    assert canonical_files(output) == canonical_files(tmp_path / "plain")


def test_a_mount_that_is_bad_on_every_node_ends_the_build_and_names_them(
    demo_clips: Path, tmp_path: Path
) -> None:
    output, log = tmp_path / "mfhq", tmp_path / "log"
    with raylets() as cluster:
        with mounted_over(demo_clips, "empty"):
            bad = [cluster.add(), cluster.add()]
        build = cluster.start_build(demo_clips, output, "run.node_faults=1", log=log)
        assert build.wait(300) == 1
    text = log.read_text()
    assert "error: 2 of 2 nodes fail, more than run.failing_nodes=0.5 of them:" in text
    assert all(f"{node.node_id[:8]}), 1 times: " in text for node in bad)
    assert staged(output) == 0
