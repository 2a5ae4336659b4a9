"""The compose file of a region: its parts name each other, and its services run as those that the tests start."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.config import Settings, exposed, load
from engine.destination_settings import FhirDestination, KafkaDestination


@pytest.fixture(scope="module")
def compose(deployed: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((deployed / "compose" / "region.yaml").read_text(encoding="utf-8"))
    for service in found["services"].values():
        if "extends" in service:
            other = yaml.safe_load((deployed / "compose" / service["extends"]["file"]).read_text(encoding="utf-8"))
            service.update(other["services"][service["extends"]["service"]])
    return found


@pytest.fixture(scope="module")
def settings(deployed: Path) -> Settings:
    return load(deployed / "compose" / "region.toml", {})


@pytest.fixture(scope="module")
def kafka_properties(deployed: Path) -> dict[str, str]:
    """What deploy/dev/kafka/kafka.sh writes for the broker of the tests."""
    script = (deployed / "dev" / "kafka" / "kafka.sh").read_text(encoding="utf-8")
    (text,) = re.findall(r'server\.properties" <<SETTINGS\n(process.*?)^SETTINGS', script, re.MULTILINE | re.DOTALL)
    return dict(line.split("=", 1) for line in text.splitlines())


def test_the_settings_expose_nothing_that_they_do_not_allow_by_name(settings: Settings) -> None:
    assert exposed(settings) == []


def test_the_engines_stand_on_services_of_the_file(compose: dict[str, Any], settings: Settings) -> None:
    services = compose["services"]
    hosts = [settings.store.url.rpartition("@")[2].split("/")[0], *settings.kafka.hosts]
    for item in settings.destination:
        if isinstance(item, FhirDestination):
            hosts.append(item.url.split("/")[2].split(":")[0])
        if isinstance(item, KafkaDestination):
            hosts += item.hosts
    assert set(hosts) <= set(services)
    assert services["engine-a"] == services["engine-b"]
    assert services["engine-a"]["command"] == ["serve"]
    assert set(services["engine-a"]["depends_on"]) <= set(services)


def test_the_broker_is_set_up_as_that_of_the_tests(
    compose: dict[str, Any], kafka_properties: dict[str, str], deployed: Path
) -> None:
    kafka = compose["services"]["kafka"]
    given = {
        name.removeprefix("KAFKA_").replace("_", ".").lower(): value for name, value in kafka["environment"].items()
    }
    same = set(kafka_properties) - {"listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"}
    assert {name: given[name] for name in same} == {name: kafka_properties[name] for name in same}
    pom = (deployed / "dev" / "kafka" / "pom.xml").read_text(encoding="utf-8")
    (version,) = re.findall(r"<artifactId>kafka_2.13</artifactId>\s*<version>(.+)</version>", pom)
    assert kafka["image"] == compose["services"]["topics"]["image"] == f"apache/kafka:{version}"


def test_the_topics_that_the_settings_name_are_made(compose: dict[str, Any], settings: Settings) -> None:
    (script,) = compose["services"]["topics"]["command"]
    (made,) = re.findall(r"for topic in (.+); do", script)
    named = set(settings.kafka.topics)
    for item in settings.destination:
        if isinstance(item, KafkaDestination):
            named |= {item.topic, item.results} - {""}
    assert named == set(made.split())


def test_the_database_is_set_up_as_that_of_the_tests(compose: dict[str, Any], deployed: Path) -> None:
    spec = importlib.util.spec_from_file_location("dev_postgresql", deployed / "dev" / "postgresql.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    database = compose["services"]["postgresql"]
    assert database["environment"]["POSTGRES_USER"] == module._USER
    made, started = inspect.getsource(module.Postgresql.create), inspect.getsource(module.Postgresql.start)
    words = database["environment"]["POSTGRES_INITDB_ARGS"].split()
    for option, value in zip(words[::2], words[1::2], strict=True):
        assert f'"{option}", "{value}"' in made
    for setting in database["command"][2::2]:
        assert f'"{setting}"' in started
    assert not re.search(r"fsync|synchronous_commit|full_page_writes", " ".join(database["command"]))


def test_no_password_stands_in_it_and_without_one_it_does_not_start(compose: dict[str, Any]) -> None:
    given = compose["services"]["postgresql"]["environment"]["POSTGRES_PASSWORD"]
    assert re.fullmatch(r"\$\{NEUTROFLAG_DB_PASSWORD:\?.+\}", given)
    assert compose["services"]["engine-a"]["environment"] == {"PGPASSWORD": given}


def test_each_service_is_pinned_and_published_on_loopback_alone(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.fullmatch(r"\S+:(v?\d+(\.\d+)+|local)", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source.startswith("./") or source in compose["volumes"], name


def test_the_balancer_sends_to_the_doors_of_both_engines(
    compose: dict[str, Any], settings: Settings, deployed: Path
) -> None:
    balancer = compose["services"]["balancer"]
    text = (deployed / "compose" / "haproxy.cfg").read_text(encoding="utf-8")
    for name, value in balancer["environment"].items():
        assert value in compose["services"]
        for port in (settings.mllp.port, settings.http.port):
            assert f'"${{{name}}}:{port}"' in text
    bound = set(re.findall(r"^  bind :(\d+)$", text, re.MULTILINE))
    assert bound == {entry.rpartition(":")[2] for entry in balancer["ports"]}
    assert text.count("uri /readyz") == 2
