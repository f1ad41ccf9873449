"""What is in ``deploy/`` loads, is valid, and says the same in each of its forms."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dagster_instance import instance_at
from google.cloud import storage
from instance_files import instance_yaml, production_yaml
from postgres import free_port, postgresql
from prometheus import program

from gardener_api.config import load_config
from gardener_dagster.run_queue import GardenerRunQueue

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES_VERSION = "1.31"
RULE = "prometheusrule.yaml"
"""No kind of Kubernetes' own, so there is no schema; promtool checks its rules."""
MANIFESTS = sorted(
    path for path in (DEPLOY / "kubernetes").rglob("*.yaml") if path.name != "kustomization.yaml"
)
Values = dict[str, Any]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def values() -> Values:
    loaded: Values = load(DEPLOY / "helm-values.yaml")
    return loaded


def manifests() -> dict[str, Values]:
    return {f"{m['kind']}/{m['metadata']['name']}": m for m in map(load, MANIFESTS)}


# -- Kubernetes


@pytest.mark.parametrize(
    "path", [p for p in MANIFESTS if p.name != RULE], ids=lambda path: path.name
)
def test_manifests_are_valid(path: Path) -> None:
    kubernetes_validate.validate(load(path), KUBERNETES_VERSION, strict=True)


def test_a_manifest_with_a_wrong_key_is_noticed() -> None:
    manifest = load(DEPLOY / "kubernetes/sidecar.yaml")
    manifest["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("folder", [DEPLOY / "kubernetes", DEPLOY / "kubernetes/migrate"])
def test_the_kustomization_names_every_file(folder: Path) -> None:
    kustomization = load(folder / "kustomization.yaml")
    named = {*kustomization["resources"]}
    named |= {f for g in kustomization.get("configMapGenerator", []) for f in g["files"]}
    assert named == {path.name for path in folder.iterdir() if path.is_file()} - {
        "kustomization.yaml"
    }


@pytest.mark.parametrize("folder", [DEPLOY / "kubernetes", DEPLOY / "kubernetes/migrate"])
def test_kustomize_builds_it(folder: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed, and is no package of Debian's")
    built = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    documents = list(yaml.safe_load_all(built.stdout))
    assert {d["metadata"].get("namespace") for d in documents} - {None} == {"gardener"}
    images = re.findall(r"image: (\S+)", built.stdout)
    assert set(images) == {"gardener:latest"}


def test_the_example_configuration_loads() -> None:
    assert len(load_config(DEPLOY / "kubernetes/config.yml").sources) == 2


def test_the_alerts_are_those_of_alerts_yml(tmp_path: Path) -> None:
    rule = load(DEPLOY / "kubernetes" / RULE)
    assert rule["spec"] == load(ROOT / "alerts.yml")
    promtool = program("promtool")
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule["spec"]))
    subprocess.run([promtool, "check", "rules", tmp_path / "rules.yml"], check=True)


def test_all_parts_share_names() -> None:
    """What one file refers to is in another, or is a secret that docs/deploy.md has made."""
    found = manifests()
    text = "".join(path.read_text() for path in [*MANIFESTS, DEPLOY / "helm-values.yaml"])
    text += (DEPLOY / "dagster.yaml").read_text()
    maps = set(re.findall(r"(?:configMapRef|configMap): \{name: ([\w-]+)\}", text))
    maps |= set(re.findall(r"envConfigMaps: &\w+ \[\{name: ([\w-]+)\}\]", text))
    assert maps == {"gardener-environment", "gardener-config"}
    assert "ConfigMap/gardener-environment" in found
    guide = (ROOT / "docs/deploy.md").read_text()
    for secret in set(re.findall(r"secretRef: \{name: ([\w-]+)\}", text)) | {"dagster-postgresql"}:
        assert f"create secret generic {secret}" in guide
    labels = found["Deployment/gardener-sidecar"]["spec"]["template"]["metadata"]["labels"]
    for name in ("Service/gardener", "PodDisruptionBudget/gardener-sidecar"):
        selector = found[name]["spec"]["selector"]
        assert selector.get("matchLabels", selector) == labels
    policy = found["NetworkPolicy/gardener-sidecar"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    ports = found["Deployment/gardener-sidecar"]["spec"]["template"]["spec"]["containers"][0]
    assert {p["name"]: p["containerPort"] for p in ports["ports"]} == {
        "jobs": 8080, "status": 8081, "metrics": 9090,
    }  # fmt: skip
    # Between SIGTERM and SIGKILL there is time for open calls.
    spec = found["Deployment/gardener-sidecar"]["spec"]["template"]["spec"]
    arguments = spec["containers"][0]["args"]
    shutdown = int(arguments[arguments.index("--shutdown-timeout") + 1])
    [_, pause] = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert spec["terminationGracePeriodSeconds"] > shutdown + int(pause)


# -- Helm


def paths(value: object, before: str = "") -> Iterator[str]:
    """The keys of nested mappings and lists of them, as ``a.b[].c``."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from paths(inner, f"{before}.{key}" if before else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            yield from paths(inner, f"{before}[]")
    else:
        yield before


def unknown_keys(values: Values) -> set[str]:
    lines = (Path(__file__).parent / "chart_keys.txt").read_text().splitlines()
    known = [line for line in lines if line and not line.startswith("#")]
    return {path for path in paths(values) if not any(fnmatchcase(path, key) for key in known)}


def test_the_chart_documents_every_key(values: Values) -> None:
    assert unknown_keys(values) == set()


def test_a_key_that_the_chart_does_not_have_is_noticed(values: Values) -> None:
    wrong = json.loads(json.dumps(values))
    wrong["dagsterDaemon"]["runRetries"]["max_retries"] = 3
    wrong["runLauncher"]["config"]["k8sRunLauncher"]["envFrom"] = []
    assert unknown_keys(wrong) == {
        "dagsterDaemon.runRetries.max_retries",
        "runLauncher.config.k8sRunLauncher.envFrom",
    }


def test_dagster_yaml_is_what_the_chart_makes_of_the_values(values: Values) -> None:
    assert load(DEPLOY / "dagster.yaml") == instance_yaml(values)


# -- Dagster


def test_dagster_loads_the_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage_url: str
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "secret")
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    port = free_port()
    with postgresql("fsync=off", "listen_addresses=127.0.0.1", f"port={port}"):
        production = production_yaml(port=port, kubeconfig=tmp_path / "kubeconfig")
        storage.Client().create_bucket(production["compute_logs"]["config"]["bucket"])
        (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(production))
        with instance_at(tmp_path) as instance:
            assert isinstance(instance.run_coordinator, GardenerRunQueue)
            assert type(instance.run_launcher).__name__ == "K8sRunLauncher"
            assert type(instance.compute_log_manager).__name__ == "GCSComputeLogManager"
            assert instance.get_runs_count() == 0
            assert instance.run_retries_enabled
            assert instance.run_monitoring_enabled


KUBECONFIG = json.dumps(
    {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
)


def test_the_limits_are_those_of_the_laptop() -> None:
    """One place says why; the other file must not drift. Pods do not share two cores."""
    laptop, production = load(ROOT / "dagster.yaml"), load(DEPLOY / "dagster.yaml")
    limits, of_laptop = production["concurrency"]["runs"], laptop["concurrency"]["runs"]
    parse, tables = limits["tag_concurrency_limits"][:3], limits["tag_concurrency_limits"][3:]
    assert parse == of_laptop["tag_concurrency_limits"][:3]
    twice = [{**of, "limit": 2 * of["limit"]} for of in of_laptop["tag_concurrency_limits"][3:]]
    assert tables == twice
    for file in (limits, of_laptop):
        each = [of["limit"] for of in file["tag_concurrency_limits"][:-1]]
        assert file["max_concurrent_runs"] == sum(each) + 1
    assert production["run_retries"] == laptop["run_retries"]
    queue = dict(production["run_coordinator"]["config"])
    assert {"parse", "tables"} == queue.pop("kubernetes").keys()
    assert queue == laptop["run_coordinator"]["config"]


# -- systemd


def test_units_run_commands_that_exist() -> None:
    commands = set()
    for path in (DEPLOY / "systemd").glob("*.service"):
        text = path.read_text()
        commands |= set(re.findall(r"^ExecStart(?:Pre)?=/opt/gardener/bin/(\S+ \S+)", text, re.M))
    assert {c.split()[0] for c in commands} <= {
        "gardener", "dagster", "dagster-webserver", "dagster-daemon",
    }  # fmt: skip
    assert "gardener migrate" in commands
