"""Settings: what is misspelt is said, what is exposed is refused, the environment overrides the file."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from engine.cli_state import config_texts_command
from engine.config import ConfigError, Settings, exposed, load
from engine.serve import refusals
from engine.texts import wordings_of

# The settings file of the contract, without the sections that this version does not have.
EXAMPLE = """
[store]
url = "sqlite:///neutroflag.db"
[engine]
mode = "deliver"
[mllp]
host = "127.0.0.1"
port = 2575
[http]
host = "127.0.0.1"
port = 8080
[[destination]]
name = "ehr"
kind = "fhir"
url = "http://127.0.0.1:8090/fhir"
patient_search = "identifier"
[[destination]]
name = "ehr-v2"
kind = "mllp"
host = "127.0.0.1"
port = 2577
[locale]
language = "fr"
zone = "Europe/Paris"
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "neutroflag.toml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text), environment or {})
    return caught.value.problems


def test_the_contracts_example_loads_and_exposes_nothing(tmp_path: Path) -> None:
    settings = load(written(tmp_path, EXAMPLE), {})
    assert [item.name for item in settings.destination] == ["ehr", "ehr-v2"]
    assert exposed(settings) == []


def test_without_any_file_the_defaults_hold() -> None:
    settings = load(None, {})
    assert (settings.mllp.port, settings.http.port, settings.engine.mode) == (2575, 8080, "deliver")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mlpp]\nport = 1", "mlpp: unknown section; did you mean mllp?"),
        ("[mllp]\nprot = 1", "mllp.prot: unknown key; did you mean port?"),
        (
            '[[destination]]\nname = "a"\nkind = "mllp"\nhots = "x"',
            "destination[0].hots: unknown key; did you mean host?",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, text: str, said: str) -> None:
    assert problems(tmp_path, text) == [said]


def test_an_unknown_variable_names_the_nearest(tmp_path: Path) -> None:
    (said,) = problems(tmp_path, "", {"NEUTROFLAG_ENGINE__MOD": "observe"})
    assert said == "NEUTROFLAG_ENGINE__MOD: unknown variable; did you mean NEUTROFLAG_ENGINE__MODE?"


def test_the_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUTROFLAG_ENGINE__MODE", "observe")
    monkeypatch.setenv("NEUTROFLAG_MLLP__PORT", "4000")
    settings = load(written(tmp_path, EXAMPLE))
    assert (settings.engine.mode, settings.mllp.port, settings.mllp.host) == ("observe", 4000, "127.0.0.1")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[mllp]\nport = 70000", "mllp.port"),
        ('[engine]\nmode = "watch"', "engine.mode"),
        ('[store]\nurl = "mysql://x"', "store.url"),
        ('[locale]\nzone = "Europe/Nowhere"', "locale.zone"),
        ('[[destination]]\nname = "a"\nkind = "fhir"\nurl = "ftp://x"', "destination.0.url"),
    ],
)
def test_a_value_that_cannot_be_names_its_place(tmp_path: Path, text: str, place: str) -> None:
    assert [line.split(":")[0] for line in problems(tmp_path, text)] == [place]


def test_two_destinations_of_one_name_are_refused(tmp_path: Path) -> None:
    one = '[[destination]]\nname = "a"\nkind = "mllp"\nhost = "127.0.0.1"\nport = 1\n'
    assert "two destinations have one name" in problems(tmp_path, one + one)[0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[mllp]\nhost = "0.0.0.0"', 1),
        ('[mllp]\nhost = "0.0.0.0"\nallow_plaintext = true', 0),
        ('[http]\nhost = "10.0.0.1"', 2),
        ('[http]\nhost = "10.0.0.1"\nallow_plaintext = true\nallow_anonymous = true', 0),
        ('[http]\nhost = "::1"', 0),
        ('[[destination]]\nname = "a"\nkind = "fhir"\nurl = "http://ehr.example/fhir"', 1),
        ('[[destination]]\nname = "a"\nkind = "fhir"\nurl = "https://ehr.example/fhir"', 0),
        ('[[destination]]\nname = "a"\nkind = "mllp"\nhost = "ehr.example"\nport = 1', 1),
        ('[[destination]]\nname = "a"\nkind = "fhir"\nurl = "http://localhost.example.org/fhir"', 1),
    ],
)
def test_a_face_in_the_clear_off_loopback_is_refused_unless_allowed_by_name(
    tmp_path: Path, text: str, found: int
) -> None:
    assert len(exposed(load(written(tmp_path, text), {}))) == found


@pytest.mark.parametrize("text", ["", EXAMPLE, '[kafka]\nbootstrap = "127.0.0.1:9092"\n'])
def test_the_judging_process_is_told_what_was_set_and_nothing_else(tmp_path: Path, text: str) -> None:
    settings = load(written(tmp_path, text), {})
    assert Settings.model_validate_json(settings.model_dump_json(exclude_unset=True)) == settings


def test_texts_of_the_site_are_read_before_anything_starts(tmp_path: Path) -> None:
    texts = tmp_path / "texts.toml"
    settings = load(written(tmp_path, f'[locale]\ntexts = "{texts}"'), {})
    assert refusals(settings)[0] == [f"locale.texts: {texts}: No such file or directory"]
    texts.write_text('[fr]\ndue = "soon"', encoding="utf-8")
    assert refusals(settings)[0] == [f"locale.texts: {texts}: fr.due: {{day}} is missing: the alert would not say it"]
    texts.write_text('[fr]\ndue = "Le {day}."', encoding="utf-8")
    assert refusals(settings)[0] == []
    assert wordings_of(settings).words["fr"].due == "Le {day}."


def test_the_texts_are_listed_as_the_file_that_replaces_them(tmp_path: Path) -> None:
    texts = tmp_path / "texts.toml"
    file = written(tmp_path, f'[locale]\ntexts = "{texts}"')
    texts.write_text('[fr]\ndue = "Le {day}."', encoding="utf-8")
    out, err = io.StringIO(), io.StringIO()
    assert config_texts_command(file, "fr", stdout=out, stderr=err) == 0
    listed = out.getvalue()
    assert 'due = "Le {day}."' in listed
    texts.write_text(listed, encoding="utf-8")
    assert wordings_of(load(file, {})).words["fr"].due == "Le {day}."
    assert config_texts_command(file, "de", stdout=out, stderr=err) == 2
    assert err.getvalue() == "--language: none of fr, en: 'de'\n"
