"""The RayJob of KubeRay: it follows the schemas, and its sizes are those that the pipeline computes."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipeline.cluster.sizing import NodeResources, fitting
from pipeline.config import Config
from settings.loading import load_workflow

REPOSITORY = Path(__file__).parents[2]
RAYJOB = REPOSITORY / "workflows/curate/rayjob.yaml"
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
LONGEST_NAME = 47
"""KubeRay appends to it what makes the name of a cluster and of its pods."""

# KubeRay's own fields, by its API reference; the pods within are validated by the schemas of Kubernetes.
TEXT, WHOLE, FLAG, ANY = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"type": "object"}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


WORKER_GROUP = closed(
    ("groupName", "rayStartParams", "template", "minReplicas", "maxReplicas"),
    groupName=TEXT,
    rayStartParams=TEXTS,
    template=ANY,
    scaleStrategy=ANY,
    **dict.fromkeys(("replicas", "minReplicas", "maxReplicas", "numOfHosts", "idleTimeoutSeconds"), WHOLE),
)
RAY_CLUSTER = closed(
    ("headGroupSpec",),
    headGroupSpec=closed(
        ("rayStartParams", "template"), rayStartParams=TEXTS, template=ANY, serviceType=TEXT
    ),
    workerGroupSpecs={"type": "array", "items": WORKER_GROUP},
    rayVersion=TEXT,
    authOptions=closed(mode={"enum": ["disabled", "token"]}, secretName=TEXT, enableK8sTokenAuth=FLAG),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=closed(
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        idleTimeoutSeconds=WHOLE,
        securityContext=ANY,
        resources=ANY,
        image=TEXT,
        imagePullPolicy=TEXT,
    ),
)
SCHEMA = closed(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=ANY,
    spec=closed(
        ("entrypoint", "rayClusterSpec"),
        **dict.fromkeys(("entrypoint", "jobId", "runtimeEnvYAML", "managedBy"), TEXT),
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
        ttlSecondsAfterFinished={"type": "integer", "minimum": 0},
        backoffLimit={"type": "integer", "minimum": 0},
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        submitterConfig=closed(backoffLimit=WHOLE),
        submitterPodTemplate=ANY,
        shutdownAfterJobFinishes=FLAG,
        suspend=FLAG,
        rayClusterSpec=RAY_CLUSTER,
    ),
)


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(RAYJOB.read_text())
    return document


@pytest.fixture(scope="module")
def groups(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {group["groupName"]: group for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]}


@pytest.fixture(scope="module")
def config(job: dict[str, Any]) -> Config:
    """The build that the job starts."""
    python, script, workflow, *overrides = shlex.split(job["spec"]["entrypoint"])
    assert (python, script) == ("python", "/workspace/pipeline/build_mfhq.py")
    return load_workflow(REPOSITORY / Path(workflow).relative_to("/workspace"), overrides, Config)


def templates(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    yield job["spec"]["submitterPodTemplate"]
    yield cluster["headGroupSpec"]["template"]
    yield from (group["template"] for group in cluster["workerGroupSpecs"])


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def size(quantity: str) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def node(group: dict[str, Any]) -> NodeResources:
    """What KubeRay tells Ray that a pod of a group has."""
    limits = container(group)["resources"]["limits"]
    memory = int(group["rayStartParams"]["memory"])
    return NodeResources(cpus=float(limits["cpu"]), gpus=limits.get("nvidia.com/gpu", 0), memory=memory)


def test_the_job_has_only_fields_that_kuberay_knows(job: dict[str, Any]) -> None:
    jsonschema.validate(job, SCHEMA)
    assert re.fullmatch(f"[a-z]([-a-z0-9]{{0,{LONGEST_NAME - 2}}}[a-z0-9])?", job["metadata"]["name"])


def test_the_job_follows_kuberays_own_schema(job: dict[str, Any], request: pytest.FixtureRequest) -> None:
    path: Path | None = request.config.getoption("--rayjob-crd")
    if path is None:
        pytest.skip("--rayjob-crd names no file: KubeRay's ray.io_rayjobs.yaml")
    definition = yaml.safe_load(path.read_text())
    (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    jsonschema.validate(job, strict(version["schema"]["openAPIV3Schema"]))


def strict(schema: Any) -> Any:
    """A schema of a custom resource in which unknown fields are errors, not dropped."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    open_already = "additionalProperties" in made or made.get("x-kubernetes-preserve-unknown-fields")
    if made.get("type") == "object" and "properties" in made and not open_already:
        made["additionalProperties"] = False
    return made


def test_a_strict_schema_rejects_an_unknown_field_at_any_depth() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {"b": TEXT}}, "m": TEXTS},
    }
    jsonschema.validate({"a": {"b": "x", "c": 1}}, schema)
    jsonschema.validate({"a": {"b": "x"}, "m": {"any": "x"}}, strict(schema))
    with pytest.raises(jsonschema.ValidationError, match="'c' was unexpected"):
        jsonschema.validate({"a": {"b": "x", "c": 1}}, strict(schema))


def test_its_pods_follow_the_schemas_of_kubernetes(job: dict[str, Any]) -> None:
    pods = list(templates(job))
    assert len(pods) == 4
    autoscaler = job["spec"]["rayClusterSpec"]["autoscalerOptions"]
    sidecar = {key: autoscaler[key] for key in ("securityContext", "resources")}
    pods.append({"spec": {"containers": [{"name": "autoscaler", "image": "image", **sidecar}]}})
    for pod in pods:
        document = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": pod}
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_gpu_node_holds_analysers_and_as_many_start_as_all_of_them_hold(
    config: Config, groups: dict[str, dict[str, Any]]
) -> None:
    assert fitting(node(groups["gpu"]), config.run) == 10
    assert fitting(node(groups["cpu"]), config.run) == 0
    assert config.run.analysers == 10 * groups["gpu"]["maxReplicas"]


def test_a_build_without_gpus_fills_the_other_group(
    config: Config, groups: dict[str, dict[str, Any]]
) -> None:
    run = config.run.model_copy(update={"device": "cpu", "analyser_gpus": 0.0})
    assert fitting(node(groups["cpu"]), run) == 16
    assert f"run.analysers={16 * groups['cpu']['maxReplicas']}`" in RAYJOB.read_text()


def test_the_head_does_no_work(job: dict[str, Any]) -> None:
    assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_what_ray_gives_to_processes_and_its_object_store_fits_into_the_pod(
    groups: dict[str, dict[str, Any]],
) -> None:
    for group in groups.values():
        store = int(group["rayStartParams"]["object-store-memory"])
        shm = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}["shm"]
        assert store < size(shm["emptyDir"]["sizeLimit"])
        limit = size(container(group)["resources"]["limits"]["memory"])
        # Ray's own processes take some 1.5 GiB; the rest is page cache.
        assert store + int(group["rayStartParams"]["memory"]) + 3 * 2**30 <= limit


def test_a_failed_build_is_started_again_and_a_finished_cluster_goes(job: dict[str, Any]) -> None:
    spec = job["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0


def test_versions_are_those_of_the_project_and_of_its_lock(job: dict[str, Any]) -> None:
    locked = re.search(r"^ray==(\S+)", (REPOSITORY / "workflows/curate/requirements.lock").read_text(), re.M)
    assert locked is not None
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == locked[1]
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    images = {each["image"] for pod in templates(job) for each in pod["spec"]["containers"]}
    built = set(re.findall(r"-t (\S+)", (REPOSITORY / "workflows/curate/Dockerfile").read_text()))
    assert built == {f"registry.example.com/mfhq:{version}{kind}" for kind in ("", "-gpu")}
    assert images == {f"registry.example.com/mfhq:{version}-gpu"}


def test_pods_have_no_rights_and_the_sandbox_needs_none(job: dict[str, Any]) -> None:
    for pod in templates(job):
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in pod["spec"]["containers"]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def test_mounts_have_volumes_and_credentials_come_from_a_secret(job: dict[str, Any]) -> None:
    _, *pods = templates(job)
    for pod in pods:
        (only,) = pod["spec"]["containers"]
        assert {mount["name"] for mount in only["volumeMounts"]} == {
            volume["name"] for volume in pod["spec"]["volumes"]
        }
        assert only["envFrom"] == [{"secretRef": {"name": "mfhq-storage"}}]
        assert "env" not in only
