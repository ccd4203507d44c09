"""Tests of the manifests in deploy/: known keys of the right types, and commands that can run.

The keys are those of Kubernetes' batch/v1 and v1 and of KubeRay's ray.io/v1, as far as a manifest
for a study may need them.
"""

import shlex
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import yaml

from pipeline.cli import parse
from search.settings import SearchSettings
from tests.commands import ROOT

TEXTS = {str: str}
"""A mapping from any text to text."""
SOURCE = {"secretKeyRef": {"name": str, "key": str, "optional": bool}}
CONTAINER = {
    "name": str, "image": str, "imagePullPolicy": str, "workingDir": str,
    "command": [str], "args": [str],
    "env": [{"name": str, "value": str, "valueFrom": SOURCE}],
    "volumeMounts": [{"name": str, "mountPath": str, "subPath": str, "readOnly": bool}],
    "resources": {"limits": TEXTS, "requests": TEXTS},
}  # fmt: skip
VOLUME = {"name": str, "persistentVolumeClaim": {"claimName": str, "readOnly": bool}}
POD = {
    "metadata": {"labels": TEXTS, "annotations": TEXTS},
    "spec": {
        "restartPolicy": str, "terminationGracePeriodSeconds": int, "serviceAccountName": str,
        "nodeSelector": TEXTS, "imagePullSecrets": [{"name": str}],
        "containers": [CONTAINER], "volumes": [VOLUME],
    },
}  # fmt: skip
EXIT_CODES = {"containerName": str, "operator": str, "values": [int]}
RULE = {"action": str, "onExitCodes": EXIT_CODES, "onPodConditions": [TEXTS]}
JOB = {
    "completions": int, "parallelism": int, "completionMode": str, "backoffLimit": int,
    "activeDeadlineSeconds": int, "ttlSecondsAfterFinished": int, "suspend": bool,
    "podFailurePolicy": {"rules": [RULE]}, "template": POD,
}  # fmt: skip
WORKERS = {
    "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "numOfHosts": int,
    "rayStartParams": TEXTS, "template": POD,
}  # fmt: skip
RAY_CLUSTER = {
    "rayVersion": str, "enableInTreeAutoscaling": bool, "suspend": bool,
    "autoscalerOptions": {"idleTimeoutSeconds": int, "upscalingMode": str},
    "headGroupSpec": {"serviceType": str, "rayStartParams": TEXTS, "template": POD},
    "workerGroupSpecs": [WORKERS],
}  # fmt: skip
RAY_JOB = {
    "entrypoint": str, "entrypointNumCpus": float, "entrypointNumGpus": float,
    "submissionMode": str, "runtimeEnvYAML": str, "jobId": str, "metadata": TEXTS,
    "activeDeadlineSeconds": int, "backoffLimit": int, "suspend": bool,
    "shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": int,
    "rayClusterSpec": RAY_CLUSTER,
}  # fmt: skip
KINDS = {
    "kubernetes-job.yaml": ("batch/v1", "Job", JOB),
    "kuberay-rayjob.yaml": ("ray.io/v1", "RayJob", RAY_JOB),
}
files = pytest.mark.parametrize("name", KINDS)


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / "deploy" / name).read_text())


def problems(found: Any, expected: Any, place: str = "") -> Iterator[str]:
    """What is wrong with `found`: unknown keys, and values of other types."""
    if isinstance(expected, type):
        if type(found) is not expected:
            yield f"{place}: {found!r} is no {expected.__name__}"
    elif isinstance(expected, list):
        if not isinstance(found, list) or not found:
            yield f"{place}: no list"
            return
        for one in found:
            yield from problems(one, expected[0], place)
    elif not isinstance(found, dict):
        yield f"{place}: no mapping"
    else:
        for key, value in found.items():
            if expected == TEXTS:
                yield from problems(value, str, f"{place}.{key}")
            elif key in expected:
                yield from problems(value, expected[key], f"{place}.{key}")
            else:
                yield f"{place}: unknown key {key}"


def problems_of(name: str, manifest: Any) -> list[str]:
    version, kind, spec = KINDS[name]
    assert (manifest["apiVersion"], manifest["kind"]) == (version, kind)
    whole = {"apiVersion": str, "kind": str, "metadata": {"name": str, "labels": TEXTS}}
    return [*problems(manifest, whole | {"spec": spec})]


def mappings(found: Any) -> Iterator[dict[str, Any]]:
    """All mappings within a manifest."""
    inside = found.values() if isinstance(found, dict) else found
    if isinstance(found, dict):
        yield found
    if isinstance(found, (dict, list)):
        for one in inside:
            yield from mappings(one)


def pods(manifest: Any) -> list[dict[str, Any]]:
    return [one for one in mappings(manifest) if "containers" in one]


@files
def test_a_manifest_has_known_keys_and_a_misspelt_one_is_found(name: str) -> None:
    manifest = load(name)
    assert problems_of(name, manifest) == []
    for number, one in enumerate(mappings(manifest["spec"])):
        for key in one:
            if set(one) <= {"num-gpus", "nvidia.com/gpu", "cpu", "memory", "type", "status"}:
                continue  # of no fixed names
            other = deepcopy(manifest)
            place = [*mappings(other["spec"])][number]
            place[f"{key}s"] = place.pop(key)
            assert problems_of(name, other), f"{key} misspelt"


@files
def test_the_containers_of_a_manifest_agree_with_its_volumes(name: str) -> None:
    for pod in pods(load(name)):
        mounted = {m["name"] for c in pod["containers"] for m in c.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod.get("volumes", [])}


@files
def test_the_command_of_a_manifest_can_run(name: str) -> None:
    spec = load(name)["spec"]
    [container, *_] = pods(spec)[0]["containers"]
    words = shlex.split(spec["entrypoint"]) if "entrypoint" in spec else container["command"]
    assert words[:3] == ["python", "-m", "search.optuna_study"]
    settings = parse(SearchSettings, words[3:])
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert any(settings.checkpoints.startswith(f"{path}/") for path in mounts)
    assert {"MLFLOW_TRACKING_URI", "PGPASSWORD"} <= {one["name"] for one in container["env"]}


def test_the_ray_of_the_manifest_is_the_one_that_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cluster = load("kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]
    assert project["optional-dependencies"]["ray"] == [f"ray=={cluster['rayVersion']}"]
    [workers] = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
