"""A dry run changes nothing, and a node names each thing that it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
from staged_videos import MODELS_USED, accepted, configured, make_source, rejected

from faces.registry import Weights
from pipeline.cluster.node_check import Expected, Lacks, lacks_here
from pipeline.cluster.sizing import NodeResources, size_pools
from pipeline.config import Config
from pipeline.dry_run import DryRun
from pipeline.errors import BuildError
from pipeline.plan import plan_build
from pipeline.provenance import library_versions
from pipeline.retry import Retry
from shards.schema import Reason

GIB = 2**30


def files(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder; None for folders."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A build of three videos, of which one is finished and one failed."""
    source = make_source(tmp_path / "clips", {"a.mp4": 100, "b.mp4": 200, "c.mp4": 300})
    config = configured(source, tmp_path / "mfhq")
    planned = plan_build(config, MODELS_USED, replace=False)
    by_name = {video.uri: video for video in planned.todo}
    planned.staging.write(by_name["a.mp4"], accepted(by_name["a.mp4"]))
    planned.staging.write(by_name["b.mp4"], rejected(by_name["b.mp4"], Reason.TIMEOUT))
    return config


def test_planning_for_a_dry_run_changes_nothing_and_counts_as_a_build_would(config: Config) -> None:
    assert isinstance(config.output, Path)
    before = files(config.output)
    asked = {"retry": Retry(failed=True), "replace": False}
    planned = plan_build(config, MODELS_USED, dry_run=True, **asked)  # type: ignore[arg-type]
    assert files(config.output) == before
    assert [video.uri for video in planned.todo] == ["c.mp4", "b.mp4"]
    real = plan_build(config, MODELS_USED, **asked)  # type: ignore[arg-type]
    assert [video.uri for video in real.todo] == [video.uri for video in planned.todo]
    assert real.messages == planned.messages
    assert files(config.output) != before


def test_a_dry_run_is_refused_where_the_build_would_be(config: Config) -> None:
    other = config.model_copy(update={"faces": config.faces.model_copy(update={"min_crop_px": 300.0})})
    with pytest.raises(BuildError, match="holds a build of another configuration"):
        plan_build(other, MODELS_USED, replace=False, dry_run=True)
    before = files(Path(str(config.output)))
    planned = plan_build(other, MODELS_USED, replace=True, dry_run=True)
    assert len(planned.todo) == 3
    assert files(Path(str(config.output))) == before


def expected(config: Config, **changes: object) -> Expected:
    """What a healthy node finds: this one."""
    mark = config.output / ".staging" / "dry-run"
    mark.write_bytes(b"mark")
    healthy = {
        "videos": (str(config.all_sources[0].path / "a.mp4"),),
        "mark": mark,
        "content": b"mark",
        "versions": library_versions(),
    }
    return Expected(**(healthy | changes))  # type: ignore[arg-type]


def faults_of(config: Config, weights: Weights, found: Expected) -> list[str]:
    return lacks_here(config, weights, found).faults


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    file = tmp_path / "yunet.onnx"
    file.write_bytes(b"")
    return {"yunet": type(MODELS_USED["yunet"])(MODELS_USED["yunet"].model, file, "")}


def test_a_healthy_node_lacks_nothing_but_what_its_kernel_lacks(config: Config, weights: Weights) -> None:
    found = lacks_here(config, weights, expected(config))
    assert found.faults == []
    assert all(remark.startswith("the decoder's sandbox lacks") for remark in found.remarks)


def test_a_node_names_the_source_that_it_does_not_see(config: Config, weights: Weights) -> None:
    (fault, *_) = faults_of(config, weights, expected(config, videos=("/not/mounted/a.mp4",)))
    assert fault == (
        "the source's file /not/mounted/a.mp4 is not there. Mount the source at the same path on every node"
    )


def test_a_node_names_an_output_of_its_own(config: Config, weights: Weights) -> None:
    (fault, *_) = faults_of(config, weights, expected(config, content=b"another"))
    assert fault == f"output {config.output} is not there. Give a directory that is the same on every node"


def test_a_node_names_a_missing_network(config: Config, weights: Weights) -> None:
    weights["yunet"].path.unlink()
    (fault, *_) = faults_of(config, weights, expected(config))
    assert fault.startswith("the network yunet is not there: ")


def test_a_node_names_a_library_of_another_version(config: Config, weights: Weights) -> None:
    (fault, *_) = faults_of(config, weights, expected(config, versions=library_versions() | {"av": "0.1"}))
    assert fault.startswith(f"av is {library_versions()['av']} there and 0.1 where the build starts")


def test_a_node_without_a_gpu_says_so_where_one_is_asked_for(config: Config, weights: Weights) -> None:
    run = config.run.model_copy(update={"device": "cuda", "analyser_gpus": 0.1})
    faults = faults_of(config.model_copy(update={"run": run}), weights, expected(config))
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "torch finds no GPU. Check the driver, and that the container is given the GPU" in faults
    assert any(fault.startswith("onnxruntime: device 'cuda' needs") for fault in faults)


def test_a_cluster_that_is_still_empty_is_one_that_grows(config: Config) -> None:
    head = [NodeResources("h", "head", cpus=0, memory=8 * GIB)]
    run = config.run.model_copy(update={"analysers": 160})
    pools = size_pools(head, run, 1000)
    lines = list(DryRun(config.output, 3, 1, 0, (), nodes=head, pools=pools).lines())
    assert "analysers   none yet, at most 160: the build waits for nodes" in lines


def test_the_nodes_are_listed_by_what_they_hold(config: Config) -> None:
    small = [NodeResources(f"{n}", f"10.0.0.{n}", cpus=2, memory=8 * GIB) for n in range(4)]
    nodes = [NodeResources("h", "head", cpus=0, memory=8 * GIB), *small]
    nodes.append(NodeResources("g", "large", cpus=16, gpus=1, memory=64 * GIB))
    found = DryRun(
        config.output, 3, 1, 5 * 10**9, ("yunet",), "10.0.0.9:6379", "http://10.0.0.9:8265", nodes,
        size_pools(nodes, config.run, 100), {"large": Lacks([], ["av is 1 there"])},
    )  # fmt: skip
    assert list(found.lines()) == [
        "videos      3: 1 finished, 2 to curate (5.0 GB)",
        "networks    yunet: found and checked",
        f"output      {config.output} can be written to",
        "cluster     10.0.0.9:6379, dashboard http://10.0.0.9:8265",
        "nodes       1 with 16 CPUs, 1 GPU, 64 GiB: 16 analysers (large)",
        "            4 with 2 CPUs, 0 GPUs, 8 GiB: 2 analysers each (10.0.0.0; 10.0.0.1; 10.0.0.2 and 1 more)",
        "            1 with 0 CPUs, 0 GPUs, 8 GiB: no analyser (head)",
        "analysers   24 at first, at most 100",
        "warning     node large: av is 1 there",
        f"dry run     nothing was curated, and {config.output} is as it was",
    ]
