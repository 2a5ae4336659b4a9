"""What the Helm chart makes of its examples. Helm itself renders them again in tests/deploy/tools, and finds these files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

RENDERED = sorted((Path(__file__).parent / "rendered").glob("*.yaml"))
WORKLOADS = ("StatefulSet", "Deployment")
SECRET = re.compile(r"/run/secrets/[\w./-]+")


class Chart:
    """One rendering: its objects by kind."""

    def __init__(self, file: Path) -> None:
        self.objects = [one for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one]

    def all(self, *kinds: str) -> list[dict[str, Any]]:
        return [one for one in self.objects if one["kind"] in kinds]

    def one(self, *kinds: str) -> dict[str, Any]:
        (found,) = self.all(*kinds)
        return found

    @property
    def workload(self) -> dict[str, Any]:
        return self.one(*WORKLOADS)

    @property
    def pod(self) -> dict[str, Any]:
        found: dict[str, Any] = self.workload["spec"]["template"]["spec"]
        return found

    @property
    def engine(self) -> dict[str, Any]:
        (found,) = self.pod["containers"]
        return dict(found)

    @property
    def settings(self) -> str:
        return str(self.one("ConfigMap")["data"]["neutroflag.toml"])

    @property
    def variables(self) -> dict[str, str]:
        return {one["name"]: one["value"] for one in self.engine["env"] if "value" in one}


@pytest.fixture(params=RENDERED, ids=lambda file: file.stem)
def chart(request: Any) -> Chart:
    return Chart(request.param)


@pytest.fixture
def named() -> Callable[[str], Chart]:
    return lambda name: Chart(Path(__file__).parent / "rendered" / f"{name}.yaml")


def test_config_check_takes_the_settings_in_the_pods_environment(
    chart: Chart, secret_file: Callable[[str], Path], tmp_path: Path
) -> None:
    def placed(text: str) -> str:
        return SECRET.sub(lambda found: str(secret_file(found[0])), text)

    file = tmp_path / "neutroflag.toml"
    file.write_text(placed(chart.settings), encoding="utf-8")
    environment = {name: placed(value) for name, value in chart.variables.items()}
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", *chart.pod["initContainers"][0]["args"]],
        env={"PATH": os.environ["PATH"], "NEUTROFLAG_CONFIG": str(file)} | environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_file_that_the_settings_name_is_in_a_mounted_secret(chart: Chart) -> None:
    mounts = [one["mountPath"] for one in chart.engine["volumeMounts"]]
    volumes = {one["name"] for one in chart.pod["volumes"]} | {
        one["metadata"]["name"] for one in chart.workload["spec"].get("volumeClaimTemplates", [])
    }
    assert {one["name"] for one in chart.engine["volumeMounts"]} == volumes
    for path in SECRET.findall(chart.settings + " ".join(chart.variables.values())):
        assert any(Path(path).is_relative_to(mount) for mount in mounts), path


def test_its_command_is_that_of_the_image_of_compose_and_of_the_unit(chart: Chart, deployed: Path) -> None:
    compose = yaml.safe_load((deployed / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    unit = (deployed / "neutroflag.service").read_text(encoding="utf-8")
    (served,) = re.findall(r"^ExecStart=\S+/neutroflag (.+)$", unit, re.MULTILINE)
    (checked,) = re.findall(r"^ExecStartPre=\S+/neutroflag (.+)$", unit, re.MULTILINE)
    assert chart.engine["args"] == compose["services"]["neutroflag"]["command"] == served.split()
    assert chart.pod["initContainers"][0]["args"] == checked.split()
    assert "command" not in chart.engine  # the image's own entry point
    image = (deployed.parent / "Dockerfile").read_text(encoding="utf-8")
    (looked_at,) = re.findall(r"NEUTROFLAG_CONFIG=(\S+)", image)
    mounts = {one["name"]: one["mountPath"] for one in chart.engine["volumeMounts"]}
    assert (mounts["settings"], "neutroflag.toml") == tuple(looked_at.rsplit("/", 1))
    assert f"USER {chart.pod['securityContext']['runAsUser']}:" in image


def test_it_may_do_nothing_that_it_does_not_need(chart: Chart) -> None:
    pod = chart.pod
    assert pod["automountServiceAccountToken"] is False
    assert (
        pod["securityContext"] | {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        == pod["securityContext"]
    )
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert not any("hostPath" in volume for volume in pod["volumes"])


def test_it_is_asked_at_the_doors_that_it_has(chart: Chart) -> None:
    engine, tls = chart.engine, "NEUTROFLAG_HTTP__CERTIFICATE" in chart.variables
    paths = {kind: engine[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {kind: one["path"] for kind, one in paths.items()} == {
        "startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz",
    }  # fmt: skip
    assert {one["scheme"] for one in paths.values()} == {"HTTPS" if tls else "HTTP"}
    ports = {one["name"]: one["containerPort"] for one in engine["ports"]}
    assert ports["http"] == int(chart.variables["NEUTROFLAG_HTTP__PORT"])
    mllp = "TLS_PORT" if tls else "PORT"
    assert ports["mllps" if tls else "mllp"] == int(chart.variables[f"NEUTROFLAG_MLLP__{mllp}"])
    assert {one["targetPort"] for one in chart.one("Service")["spec"]["ports"]} == set(ports)


def test_a_drained_stop_has_its_time(chart: Chart, deployed: Path) -> None:
    unit = (deployed / "neutroflag.service").read_text(encoding="utf-8")
    (wanted_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    before_s = int(chart.engine["lifecycle"]["preStop"]["exec"]["command"][1])
    assert chart.pod["terminationGracePeriodSeconds"] >= int(wanted_s) + before_s


def test_nobody_gets_in_or_out_who_is_not_named(chart: Chart) -> None:
    policy = chart.one("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule["from"] for rule in policy["ingress"])
    dns, *others = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert all(rule["to"] and rule["ports"] for rule in others)
    ports = {one["name"] for one in chart.engine["ports"]}
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} <= ports


def test_one_file_has_one_engine_and_keeps_it(named: Callable[[str], Chart]) -> None:
    chart = named("one")
    assert (chart.workload["kind"], chart.workload["spec"]["replicas"]) == ("StatefulSet", 1)
    (claim,) = chart.workload["spec"]["volumeClaimTemplates"]
    mounts = {one["name"]: one["mountPath"] for one in chart.engine["volumeMounts"]}
    database = Path(chart.variables["NEUTROFLAG_STORE__URL"].removeprefix("sqlite:///"))
    assert str(database.parent) == mounts[claim["metadata"]["name"]]
    assert chart.all("PodDisruptionBudget") == []


def test_several_stand_on_postgresql_roll_one_by_one_and_never_all_go_at_once(named: Callable[[str], Chart]) -> None:
    chart = named("region")
    assert (chart.workload["kind"], chart.workload["spec"]["replicas"]) == ("Deployment", 3)
    assert chart.workload["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    budget = chart.one("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] < chart.workload["spec"]["replicas"]
    labels = chart.workload["spec"]["template"]["metadata"]["labels"]
    for selector in (
        budget["selector"]["matchLabels"],
        chart.one("Service")["spec"]["selector"],
        chart.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        chart.workload["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()


def test_no_secret_stands_in_the_chart(named: Callable[[str], Chart]) -> None:
    chart = named("region")
    (password,) = [one for one in chart.engine["env"] if one["name"] == "PGPASSWORD"]
    assert password["valueFrom"]["secretKeyRef"] == {"name": "neutroflag-db", "key": "password"}
    assert chart.all("Secret") == []
    tokens = tomllib.loads(chart.settings)["http"]["token"]
    assert all(set(token) == {"name", "file", "faces"} for token in tokens)


def test_the_rules_in_the_cluster_are_those_of_the_file(named: Callable[[str], Chart], deployed: Path) -> None:
    rules = yaml.safe_load((deployed / "prometheus" / "neutroflag.rules.yaml").read_text(encoding="utf-8"))
    assert named("region").one("PrometheusRule")["spec"] == rules
    monitor = named("region").one("ServiceMonitor")["spec"]["endpoints"][0]
    assert (monitor["path"], monitor["scheme"]) == ("/metrics", "https")
