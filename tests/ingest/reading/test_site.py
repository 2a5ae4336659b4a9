"""Site profiles: what a laboratory may settle, what it may not, and the draft of one."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ingest.reading import Reading, SiteError, parse_site, read_message
from ingest.reading.suggest import suggest
from rules.model import ResultStatus, Trust

MSH = "MSH|^~\\&|SIL|LABO|NF|CHX|20261122091500||ORU^R01|M1|P|2.5"
PID = "PID|1||405660^^^CHX^PI"
OBR = "OBR|1|D1|B1|58410-2^NFS^LN|||20261122080500|||||||||||||||||||F".replace("|||||||||||||||||||F", "|" * 18 + "F")
SIGNED = 'confirmed_by = "Dr A. Hoda"\nconfirmed_on = 2026-11-01\n'


def read(profile: str, *rows: str, head: str = MSH, codec: str = "utf-8") -> Reading:
    raw = "\r".join([head, PID, OBR, *rows]).encode(codec)
    return read_message(raw, format="hl7v2", site=parse_site(profile))


def row(code: str = "NEUT^Neutrophils^L", value: str = "1.25", unit: str = "10*9/L", status: str = "F") -> str:
    return f"OBX|1|NM|{code}||{value}|{unit}|||||{status}"


def counts(reading: Reading) -> list[str]:
    return [f"{r.anc.per_mm3.normalize():f}" for r in reading.results if r.anc is not None]


def test_a_code_that_no_table_knows_is_read_as_the_profile_says() -> None:
    unknown = row("G17^Granulozyten, reif^L")
    assert counts(read("", unknown)) == []
    found = read(SIGNED + '[codes]\nG17 = "neutrophils count"', unknown)
    assert counts(found) == ["1250"]
    assert found.results[0].trust is Trust.ESTABLISHED


def test_a_code_that_lies_is_settled_once_on_the_record() -> None:
    lying = row("770-8^Polynucléaires neutrophiles^LN", "5.1", "10*3/uL")
    assert read("", lying).results[0].doubts == ("code-unit-conflict",)
    found = read(SIGNED + '[codes]\n"770-8" = "neutrophils count"', lying).results[0]
    assert (found.doubts, found.trust) == ((), Trust.ESTABLISHED)


def test_a_code_may_be_named_as_none_of_ours() -> None:
    reading = read(SIGNED + '[codes]\nNEUT = "ignore"', row())
    assert reading.disposition == "not_relevant"
    assert reading.ledger[0].reason == "site-profile"


def test_a_unit_of_the_house_and_a_unit_that_is_never_sent() -> None:
    assert counts(read(SIGNED + '[units]\n"g/L" = "10*9/L"', row(unit="g/L"))) == ["1250"]
    bare = SIGNED + '[codes]\nNEUT = { measures = "neutrophils", dimension = "count", unit = "10*9/L" }'
    assert counts(read(bare, row(unit=""))) == ["1250"]
    assert read("", row(unit="")).disposition == "unassessable"


@pytest.mark.parametrize(
    ("decimal", "value", "unit", "count"),
    [
        (",", "1,250", "10*9/L", "1250"),
        (".", "1,250", "/mm3", "1250"),
        (",", "1.250", "/mm3", "1250"),
        (".", "1,850", "/mm3", "1850"),
    ],
)
def test_the_ambiguous_thousand_is_read_as_the_laboratory_writes(
    decimal: str, value: str, unit: str, count: str
) -> None:
    assert read("", row(value=value, unit=unit)).disposition == "unassessable"
    assert counts(read(f'{SIGNED}decimal = "{decimal}"', row(value=value, unit=unit))) == [count]


def test_the_wrong_decimal_mark_is_still_no_impossible_count() -> None:
    assert read(SIGNED + 'decimal = "."', row(value="1,250", unit="10*9/L")).disposition == "unassessable"


def test_a_missing_status_has_the_default_and_a_preliminary_one_stays() -> None:
    found = read(SIGNED + 'default_status = "final"', row(status="")).results[0]
    assert (found.status, found.trust) == (ResultStatus.FINAL, Trust.ESTABLISHED)
    assert read(SIGNED + 'default_status = "final"', row(status="P")).results[0].trust is Trust.PROVISIONAL


def test_zone_charset_and_authorities() -> None:
    profile = 'zone = "Europe/Paris"\ncharset = "CP850"\n[authorities]\nCHX = "urn:oid:1.2.250.1.999.3"\n'
    found = read(profile, row("X^Polynucléaires neutrophiles^L"), codec="cp850").results[0]
    assert found.display == "Polynucléaires neutrophiles"
    assert found.identifiers[0].authority == "urn:oid:1.2.250.1.999.3"
    assert found.collected_at is not None
    assert found.collected_at.tzinfo == ZoneInfo("Europe/Paris")


def test_a_profile_does_not_make_a_number_of_what_the_rules_refuse() -> None:
    generous = (
        SIGNED + 'default_status = "final"\n[trust]\nsettled = ["code-name-conflict"]\n[codes]\nNEUT = "neutrophils"'
    )
    clotted = [row(), "NTE|1||Prélèvement coagulé"]
    assert read(generous, *clotted).problems[0].code == "specimen-clotted"
    assert read(generous, row(value="3000")).problems[0].code == "magnitude-impossible"
    assert read(generous, row(), head=MSH.replace("|P|", "|T|")).results[0].trust is Trust.PROVISIONAL


@pytest.mark.parametrize(
    ("profile", "place"),
    [
        ("= 3", "not TOML"),
        ("zon = 'Europe/Paris'", "zon"),
        ("zone = 'Mars/Olympus'", "zone"),
        ("charset = 'klingon'", "charset"),
        ("[codes]\nA = 'neutrophils count'", "confirmed_by"),
        (SIGNED + "[codes]\nA = 'blood'", "codes.A"),
        (SIGNED + "[units]\n'g/L' = 'grams'", "units.'g/L'"),
        (SIGNED + "[units]\n'' = '10*9/L'", "units.''"),
        (SIGNED + "[trust]\nsettled = ['patient-missing']", "trust.settled"),
        (SIGNED + "default_status = 'corrected'", "default_status"),
    ],
)
def test_a_profile_that_cannot_be_used_says_where(profile: str, place: str) -> None:
    with pytest.raises(SiteError) as error:
        parse_site(profile)
    assert any(problem.startswith(place) for problem in error.value.problems)


def test_the_draft_is_a_profile_in_which_nothing_is_settled() -> None:
    rows = [row("PNN^Poly. neutro^L", unit="G/L"), row("NEUX^^L", unit="10*9/L"), row(unit="Gpl"), row(value="1,250")]
    samples = ["\r".join([MSH, PID, OBR, one]).encode() for one in rows]
    draft = suggest(samples)
    profile = parse_site(draft)
    assert profile.sender == "SIL|LABO"
    assert (profile.codes, profile.units, profile.authorities, profile.decimal) == ({}, {}, {}, "")
    for guess in (
        '# "PNN" = "neutrophils count"',
        '# "NEUX" = ',
        '# "Gpl" = "?"',
        '# "CHX" = "urn:oid:?"',
        "# decimal",
    ):
        assert guess in draft
    assert "405660" not in draft


def test_the_draft_knows_codes_that_lie_labels_for_two_and_values_of_another_day() -> None:
    wbc = row("6690-2^Leukocytes^LN", value="4.0")
    rows = [
        row("770-8^Neutrophils^LN"),
        f"{row('PNN^PNN^L')}\r{row('PNN^PNN^L', value='31', unit='%')}\r{wbc}",
        row("PNNA^PNN (résultat antérieur)^L"),
        row("751-8^Neutrophils^LN"),
    ]
    draft = suggest(["\r".join([MSH, PID, OBR, one]).encode() for one in rows])
    assert '# "770-8" = "neutrophils count"' in draft
    assert "code-unit-conflict" in draft
    assert '# "PNN" = "neutrophils"  #' in draft
    assert '# "PNNA" = "ignore"' in draft
    assert '"751-8"' not in draft


@pytest.mark.parametrize(
    ("folder", "file", "expected"),
    [
        (
            "hprim",
            "plain.hpr",
            ('sender = "LAB1|LABO EXEMPLE"', '# "PNN" = "neutrophils count"', '# "LAB1" = "urn:oid:?"'),
        ),
        ("fhir", "message-r5.json", ('sender = "urn:lab5"',)),
        ("fhir", "percent-code-count-unit.json", ('# "770-8" = "neutrophils count"',)),
    ],
)
def test_samples_of_every_format_give_a_draft(folder: str, file: str, expected: tuple[str, ...]) -> None:
    draft = suggest([(Path(__file__).parents[3] / "fixtures" / folder / file).read_bytes()])
    parse_site(draft)
    for line in expected:
        assert line in draft


def test_the_draft_takes_effect_when_a_person_takes_the_marks_away() -> None:
    draft = suggest(["\r".join([MSH, PID, OBR, row("NEUX^^L")]).encode()])
    signed = draft.replace('# confirmed_by = ""', 'confirmed_by = "Dr A. Hoda"').replace(
        "# confirmed_on", "confirmed_on"
    )
    assert counts(read(signed.replace('# "NEUX"', '"NEUX"'), row("NEUX^^L"))) == ["1250"]


def test_fixtures_of_every_format_are_read_with_a_profile() -> None:
    profile = parse_site(SIGNED + 'default_status = "final"\n[authorities]\nLAB1 = "urn:oid:1.2.250.1.999.4"')
    root = Path(__file__).parents[3] / "fixtures"
    found = read_message((root / "hprim" / "no-status.hpr").read_bytes(), format="hprim", site=profile)
    assert found.results[0].trust is Trust.ESTABLISHED
    assert found.results[0].identifiers[0].authority == "urn:oid:1.2.250.1.999.4"
    for folder, form in (("cda", "cda"), ("fhir", "fhir")):
        for path in (root / folder).glob("[a-d]*.*"):
            read_message(path.read_bytes(), format=form, site=profile)  # type: ignore[arg-type]
