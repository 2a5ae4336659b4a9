"""Who may use the HTTP doors: tokens good, bad and missing, what stays open, and the headers of every answer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from engine.compose import Engine
from engine.config import ConfigError, exposed, load
from engine.tokens import access_of
from ingest.access import Senders, common_name
from tests.plain import PLAIN
from wire.er7 import peek

LAB, MONITOR = "k3y-of-lab1-0123456789", "k3y-of-the-monitor-456"


@pytest.fixture
def guarded(settings_file: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A settings file with two tokens: lab1 for both doors, monitor for the metrics."""

    def write(http: str = "", *, tokens: bool = True) -> Path:
        file = settings_file()
        lines = [http]
        if tokens:
            for name, secret, faces in (("lab1", LAB, ["fhir", "hl7"]), ("monitor", MONITOR, ["metrics"])):
                (tmp_path / name).write_text(f"{secret}\n", encoding="ascii")
                lines.append(f'[[http.token]]\nname = "{name}"\nfile = "{tmp_path / name}"\nfaces = {faces!r}')
        text = file.read_text(encoding="utf-8")
        file.write_text(
            text.replace("[http]\nport = 0\n", "[http]\nport = 0\n" + "\n".join(lines) + "\n"), encoding="utf-8"
        )
        return file

    return write


@contextlib.asynccontextmanager
async def client_of(file: Path) -> AsyncIterator[tuple[httpx2.AsyncClient, Engine]]:
    engine = Engine(load(file, {}))
    await engine.start()
    url = f"http://127.0.0.1:{engine.http_port}"
    try:
        async with httpx2.AsyncClient(base_url=url, verify=PLAIN, trust_env=False, timeout=20) as client:
            yield client, engine
    finally:
        await engine.stop()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def test_a_token_opens_both_doors_and_names_the_sender(
    guarded: Callable[..., Path], hl7: Any, fhir: Any, rows_of: Callable[[str], list[Any]]
) -> None:
    async with client_of(guarded()) as (client, _):
        by_hl7 = await client.post("/hl7", content=hl7.oru(), headers=bearer(LAB))
        by_fhir = await client.post("/fhir/Observation", json=fhir.observation(), headers=bearer(LAB))
        lower = await client.post("/hl7", content=hl7.oru("M2"), headers={"Authorization": f"bearer  {LAB}"})
        assert (by_hl7.status_code, by_fhir.status_code, lower.status_code) == (200, 201, 200)
        peers = rows_of("SELECT peer FROM message")
        assert len(peers) == 3
        assert all(peer.startswith("lab1@127.0.0.1:") for peer in peers)


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", f"Bearer {LAB}x", f"Bearer {LAB[:-1]}", f"Basic {LAB}", LAB, f"Bearer {MONITOR}"],
)
async def test_without_a_good_token_nothing_is_taken(
    guarded: Callable[..., Path], hl7: Any, fhir: Any, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with client_of(guarded()) as (client, engine):
        by_hl7 = await client.post("/hl7", content=hl7.oru(), headers=headers)
        by_fhir = await client.post("/fhir", json=fhir.bundle("batch", fhir.observation()), headers=headers)
        for answer in (by_hl7, by_fhir):
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Bearer realm="neutroflag"'
            assert LAB not in answer.text
        assert by_fhir.json()["resourceType"] == "OperationOutcome"
        assert by_fhir.json()["issue"][0]["code"] == "login"
        assert engine.store is not None
        assert (await engine.store.snapshot()).received == 0


async def test_off_loopback_numbers_are_for_the_holder_of_a_token(guarded: Callable[..., Path]) -> None:
    file = guarded('host = "0.0.0.0"\nallow_plaintext = true')
    assert exposed(load(file, {})) == []
    async with client_of(file) as (client, _):
        assert (await client.get("/livez")).status_code == 200
        ready = await client.get("/readyz")
        assert set(ready.json()) == {"judging"}
        assert "received" in (await client.get("/readyz", headers=bearer(MONITOR))).json()
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers=bearer(LAB))).status_code == 401
        assert b"neutroflag_build_info" in (await client.get("/metrics", headers=bearer(MONITOR))).content
        assert (await client.get("/console")).status_code == 503


async def test_on_loopback_without_tokens_all_is_open(guarded: Callable[..., Path], hl7: Any) -> None:
    async with client_of(guarded(tokens=False)) as (client, _):
        assert (await client.post("/hl7", content=hl7.oru())).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
        assert "received" in (await client.get("/readyz")).json()


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/fhir/metadata", "/nowhere", "/console", "/console/login", "/openapi.json"]
)
async def test_every_answer_carries_the_headers(guarded: Callable[..., Path], path: str) -> None:
    async with client_of(guarded(tokens=False)) as (client, _):
        headers = (await client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "no-store" in headers["cache-control"]
    assert "strict-transport-security" not in headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    if path.startswith("/console"):
        assert "script-src 'self'" in policy
        assert "form-action 'self'" in policy


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("", "needs 16 or more"),
        ("short", "needs 16 or more"),
        ("a secret with spaces in it", "needs 16 or more"),
        ("sécret-sécret-sécret", "needs 16 or more"),
        (f"{MONITOR}\n", "secret of another token"),
        (None, "No such file"),
    ],
)
def test_a_bad_token_file_is_named_and_its_content_is_not(
    guarded: Callable[..., Path], tmp_path: Path, secret: str | None, words: str
) -> None:
    settings = load(guarded(), {})
    if secret is None:
        (tmp_path / "lab1").unlink()
    else:
        (tmp_path / "lab1").write_text(secret, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        access_of(settings)
    assert words in str(caught.value)
    assert "http.token[" in str(caught.value)
    assert not secret or secret.strip() not in str(caught.value)


def test_two_tokens_of_one_name_and_unknown_faces_are_refused(guarded: Callable[..., Path]) -> None:
    file = guarded()
    text = file.read_text(encoding="utf-8")
    for bad in (
        text.replace('"monitor"', '"lab1"', 1),
        text.replace("'metrics'", "'metricz'"),
        text.replace("faces", "facez"),
    ):
        file.write_text(bad, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load(file, {})
        assert "http.token" in str(caught.value)


def test_a_facility_is_allowed_whole_or_by_its_first_component() -> None:
    header = peek(b"MSH|^~\\&|SIL|LAB1^1.2.3^ISO|N|C|20261122||ORU^R01|M1|P|2.5\rPID|1\r")
    assert Senders({}).refusal("anyone", header) is None
    assert Senders({"a": ("LAB1",)}).refusal("a", header) is None
    assert Senders({"a": ("LAB1^1.2.3^ISO",)}).refusal("a", header) is None
    for facilities in ({"a": ("LAB2",)}, {"a": ()}, {"b": ("LAB1",)}, {"a": ("lab1",)}, {"a": ("",)}):
        refusal = Senders(facilities).refusal("a", header)
        assert refusal is not None
        assert "LAB1" not in refusal.text
    assert common_name({}) == common_name(None) == ""


async def test_a_bundle_refused_at_a_wrong_address_is_no_duplicate_at_the_right_one(
    guarded: Callable[..., Path], fhir: Any, rows_of: Callable[[str], list[Any]]
) -> None:
    bundle = fhir.bundle("collection", fhir.observation(), identifier={"system": "urn:lab", "value": "7"})
    async with client_of(guarded(tokens=False)) as (client, _):
        assert (await client.post("/fhir/Observation", json=bundle)).status_code == 400
        assert (await client.post("/fhir", json=bundle)).status_code == 201
        assert rows_of("SELECT duplicate_of FROM message") == [None, None]


async def test_two_senders_who_both_call_somebody_patient_1_mean_two_people(
    guarded: Callable[..., Path], rows_of: Any, tmp_path: Path, eventually: Any
) -> None:
    """Each with its own token: what one calls Patient/1 is nobody the other has told us of."""
    config = guarded()
    text = config.read_text(encoding="utf-8")
    (tmp_path / "lab2").write_text("another-token-of-at-least-thirty-two-characters\n")
    (tmp_path / "lab2").chmod(0o600)
    config.write_text(text + f'[[http.token]]\nname = "lab2"\nfile = "{tmp_path / "lab2"}"\nfaces = ["fhir"]\n')
    tokens = {"lab1": (tmp_path / "lab1").read_text().strip(), "lab2": (tmp_path / "lab2").read_text().strip()}
    async with client_of(config) as (client, _):
        for sender, number in (("lab1", "111"), ("lab2", "222")):
            headers = {"Authorization": f"Bearer {tokens[sender]}", "Content-Type": "application/fhir+json"}
            for body in (
                {"resourceType": "Patient", "id": "1", "identifier": [{"system": "urn:oid:1.2.3", "value": number}]},
                {
                    "resourceType": "MedicationStatement",
                    "status": "active",
                    "medicationCodeableConcept": {"coding": [{"system": "http://www.whocc.no/atc", "code": "N05AH02"}]},
                    "subject": {"reference": "Patient/1"},
                    "effectivePeriod": {"start": "2026-07-01"},
                },
            ):
                answer = await client.request(
                    "PUT" if "id" in body else "POST",
                    f"/fhir/{body['resourceType']}" + ("/1" if "id" in body else ""),
                    content=json.dumps(body),
                    headers=headers,
                )
                assert answer.status_code == 201, answer.text
        await eventually(lambda: rows_of("SELECT count(*) FROM message WHERE disposition IS NULL") == [0])
    people = rows_of(
        "SELECT i.value FROM identifier i JOIN patient p ON p.id = i.patient_id WHERE p.enrolled AND i.authority LIKE"
        " '%1.2.3' ORDER BY 1"
    )
    assert people == ["111", "222"]
    assert rows_of("SELECT count(DISTINCT patient_id) FROM identifier WHERE value = 'Patient/1'") == [2]
