"""The Kubernetes manifest: it follows the schemas, and what its pods run is the real trainer."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from launches import (
    LAUNCH,
    LIMIT_S,
    SHORT,
    TINY,
    free_port,
    saved,
    started,
    wait_for_steps,
)

from training.engine.output import ENCODER_FOLDER
from training.models.pretrained import CONFIG


def manifests() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


def test_the_manifests_follow_the_schemas_of_kubernetes() -> None:
    for document in manifests().values():
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_manifests_are_consistent() -> None:
    service, job = manifests()["Service"], manifests()["Job"]
    name, spec = job["metadata"]["name"], job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert environment["FIRST_POD"] == f"{name}-0.{service['metadata']['name']}"
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert environment["PORT"] == str(service["spec"]["ports"][0]["port"])
    assert environment["FINISHED_WHEN"] == f"$(OUTPUT)/{ENCODER_FOLDER}/{CONFIG}"
    assert int(environment["NODES"]) == spec["completions"] == spec["parallelism"]
    assert int(environment["NPROC"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}


def test_the_manifests_hold_no_credentials() -> None:
    (container,) = manifests()["Job"]["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "omniid-storage"}}]
    assert not [entry for entry in container["env"] if re.search("KEY|TOKEN|SECRET", entry["name"])]


def pod(index: int, changes: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Command and environment of the pod of an index, with `$(NAME)` expanded as Kubernetes does."""
    (container,) = manifests()["Job"]["spec"]["template"]["spec"]["containers"]
    environment = {"JOB_COMPLETION_INDEX": str(index)}

    def expanded(text: str) -> str:
        return re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], text)

    for entry in container["env"]:
        if "value" in entry:
            environment[entry["name"]] = expanded(changes.get(entry["name"], entry["value"]))
    return [expanded(word) for word in container["command"] + container["args"]], environment


@contextmanager
def pods(
    launched_data: Path, output: Path, steps: int, **environment: str
) -> Iterator[list[tuple[subprocess.Popen[bytes], Path]]]:
    """Both pods of the Job, with the log of each, on the tiny workflow."""
    changes = {"NPROC": "1", "FIRST_POD": "127.0.0.1", "PORT": free_port(), "OUTPUT": str(output)}
    with ExitStack() as stack:
        running = []
        for index in range(2):
            command, own = pod(index, changes)
            command[command.index("workflows/train_mtd_paper.yaml")] = TINY
            command[command.index("data.root=s3://bucket/mfhq")] = f"data.root={launched_data}"
            command[command.index("run.cache.folder=/cache")] = f"run.cache.folder={output}-cache-{index}"
            log = output.with_name(f"{output.name}-log-{index}")
            own |= {"FINISHED_POLL_S": "0.05"} | environment
            running.append(
                (stack.enter_context(started([*command, *SHORT, f"steps={steps}"], log, **own)), log)
            )
        yield running


@pytest.mark.slow
def test_two_pods_train_together_and_a_stop_is_not_a_finished_run(
    launched_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a run"
    with pods(launched_data, output, steps=100_000) as ((leader, log), (follower, other_log)):
        wait_for_steps(output, 2, leader, log)
        follower.send_signal(signal.SIGTERM)
        assert follower.wait(LIMIT_S) == 75, other_log.read_text()
        assert leader.wait(LIMIT_S) == 75, log.read_text()
    ((_, world_size),) = saved(output)
    assert world_size == 2


@pytest.mark.slow
def test_pods_end_when_the_run_is_finished_and_at_once_when_it_was_finished_before(
    launched_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a run"
    with pods(launched_data, output, steps=1) as running:
        assert [pod.wait(LIMIT_S) for pod, _ in running] == [0, 0], [log.read_text() for _, log in running]
    assert saved(output) == [(1, 2)]
    # The other pods may have ended, so that no pod would answer a torchrun.
    with pods(launched_data, output, steps=1, PYTHON="/nothing/is/started") as running:
        assert [pod.wait(LIMIT_S) for pod, _ in running] == [0, 0]
    assert all("nothing to do" in log.read_text() for _, log in running)
