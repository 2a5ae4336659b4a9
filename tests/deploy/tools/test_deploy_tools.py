"""What is deployed, read by the programs that will read it: Helm, Prometheus, HAProxy, hadolint, yamllint, the API schemas.

Run by `make check-deploy`, which fetches them (deploy/dev/tools.sh). What is not there fails; nothing is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import trustme
import yaml

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "neutroflag"
EXAMPLES = sorted((DEPLOY / "helm" / "examples").glob("*.yaml"))
RENDERED = Path(__file__).parent.parent / "rendered"
# The oldest that the chart promises to take, and today's.
KUBERNETES = ("1.25", "1.33")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env=os.environ | environment,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture
def template(tools: Path) -> Any:
    def rendered(*options: str | Path, kubernetes: str = "1.33") -> subprocess.CompletedProcess[str]:
        given = ("--namespace", "results", "--kube-version", f"{kubernetes}.0", *options)
        return run(tools / "helm", "template", "neutroflag", CHART, *given)

    return rendered


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_helm_takes_the_chart_and_makes_of_it_what_the_other_tests_look_at(
    tools: Path, template: Any, example: Path
) -> None:
    linted = run(tools / "helm", "lint", "--strict", CHART, "--values", example)
    assert linted.returncode == 0, linted.stdout
    done = template("--values", example)
    assert done.returncode == 0, done.stderr
    # Another text? Then: helm template neutroflag deploy/helm/neutroflag -n results --kube-version 1.33.0 -f EXAMPLE > FILE
    assert done.stdout == (RENDERED / example.name).read_text(encoding="utf-8")


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_kubernetes_schemas_take_every_object(template: Any, example: Path, version: str) -> None:
    done = template("--values", example, "--set", "dashboard.enabled=true", kubernetes=version)
    seen = set()
    for one in yaml.safe_load_all(done.stdout):
        if one["apiVersion"].startswith("monitoring.coreos.com/"):
            continue  # of the Prometheus operator, whose schemas are not Kubernetes' own
        kubernetes_validate.validate(one, version, strict=True)
        seen.add(one["kind"])
    assert {"ConfigMap", "NetworkPolicy", "Service", "ServiceAccount"} < seen


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "in the clear"),
        (("--set", "allowPlaintext=true", "--set", "replicas=2"), "replicas: 2 on SQLite"),
        (
            ("--set", "allowPlaintext=true", "--set", "store.url=postgresql+psycopg://a:secret@db/n"),
            "store.url holds a password",
        ),
        (("--set", "allowPlaintext=true", "--set", 'settings=[store]\nurl = "x"'), "[store] stands in store.url"),
        (("--set", "allowPlaintext=true", "--set", "replica=3"), "replica"),
        (("--set", "allowPlaintext=true", "--set", "replicas=0"), "replicas"),
        (("--set", "allowPlaintext=true", "--set", "store.url=mysql://db"), "store/url"),
        (("--set", "allowPlaintext=true", "--set", "image.tag=latest"), "image"),
    ],
)
def test_what_must_not_be_installed_is_refused_in_words(template: Any, options: tuple[str, ...], said: str) -> None:
    done = template(*options)
    assert done.returncode != 0
    assert said in done.stderr.replace(".", "/") if "/" in said else said in done.stderr
    assert "secret@" not in done.stderr


def test_without_peers_the_policy_lets_nobody_in(template: Any) -> None:
    done = template("--set", "allowPlaintext=true", "--show-only", "templates/networkpolicy.yaml")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["spec"]["ingress"] == []


def test_the_chart_can_be_packed_with_the_files_that_it_points_to(tools: Path, tmp_path: Path) -> None:
    done = run(tools / "helm", "package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tgz")
    alone = run(
        tools / "helm", "template", "neutroflag", archive, "--kube-version", "1.33.0", "-f", EXAMPLES[-1],
        "--set", "dashboard.enabled=true",
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    assert "NeutroFlagAbsent" in alone.stdout
    assert '"uid": "neutroflag"' in alone.stdout


def test_prometheus_takes_the_rules_and_they_fire_when_they_should(tools: Path) -> None:
    folder = DEPLOY / "prometheus"
    checked = run(tools / "promtool", "check", "rules", "--lint=all", "--lint-fatal", folder / "neutroflag.rules.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tried = run(tools / "promtool", "test", "rules", folder / "neutroflag.rules.test.yaml")
    assert tried.returncode == 0, tried.stdout + tried.stderr
    rules = yaml.safe_load((folder / "neutroflag.rules.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    tests = (folder / "neutroflag.rules.test.yaml").read_text(encoding="utf-8")
    assert [rule["alert"] for rule in rules if f"alertname: {rule['alert']}," not in tests] == []


def test_prometheus_takes_every_query_of_the_dashboard(tools: Path, tmp_path: Path) -> None:
    panels = yaml.safe_load((DEPLOY / "grafana" / "neutroflag.dashboard.json").read_text(encoding="utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    as_rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m").replace("$job", ".*")}
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": as_rules}]}), encoding="utf-8")
    done = run(tools / "promtool", "check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("place", ["compose", "two-hosts"])
def test_haproxy_takes_its_settings(tools: Path, tmp_path: Path, place: str) -> None:
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(authority)
    text = (DEPLOY / place / "haproxy.cfg").read_text(encoding="utf-8")
    file = tmp_path / "haproxy.cfg"
    file.write_text(text.replace("/etc/haproxy/neutroflag-ca.pem", str(authority)), encoding="utf-8")
    done = run(tools / "haproxy", "-c", "-f", file, HOST_A="127.0.0.1", HOST_B="127.0.0.1")
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert hadolint is not None
    done = run(hadolint, ROOT / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_yamllint_has_nothing_to_say() -> None:
    # From here: what its settings pass over is named from the root.
    done = run("env", "-C", ROOT, sys.executable, "-m", "yamllint", "--strict", "deploy", "docs")
    assert (done.returncode, done.stdout) == (0, "")


def test_shell_scripts_are_shell() -> None:
    for script in (*DEPLOY.rglob("*.sh"),):
        done = run("bash", "-n", script)
        assert done.returncode == 0, done.stderr
