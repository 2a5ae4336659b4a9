"""Codes and names, those that lie included."""

import pytest

from ingest.reading.codes import Coding
from ingest.reading.recognition import recognise

COUNT, PERCENT = ("neutrophils", "count"), ("neutrophils", "percent")


@pytest.mark.parametrize(
    ("coding", "claim"),
    [
        (Coding("751-8", "Neutrophils", "LN"), COUNT),
        (Coding("26499-4", "Neutrophiles [Nombre/Volume] Sang ; Numérique", "LN"), COUNT),
        (Coding("NPU02902", "B-Neutrophilocytter", "NPU"), COUNT),
        (Coding("770-8", "Neutrophils/100 leukocytes", "LN"), PERCENT),
        (Coding("71676-1", "Neutrophils/leukocytes", "LN"), ("neutrophils", "fraction")),
        (Coding("NEUT", "Neutrophils", "L"), ("neutrophils", None)),
        (Coding("NEU#", "", "L"), COUNT),
        (Coding("NE%", "", "L"), PERCENT),
        (Coding("X", "Neutro Auto", "L"), ("neutrophils", None)),
        (Coding("X", "Total neutrophil count", "L"), COUNT),
        (Coding("X", "Neutrofile", "L"), ("neutrophils", None)),
        (Coding("X", "Nøytrofile", "L"), ("neutrophils", None)),
        (Coding("X", "Polynucléaires neutrophiles", "L"), ("neutrophils", None)),
        (Coding("X", "POLYNUCLEAIRES NEUTROPHILES (mm3)", "L"), COUNT),
        (Coding("PNN", "PNN", "99SIL"), ("neutrophils", None)),
        (Coding("ASEGR", "", "L"), ("segs", "count")),
        (Coding("30451-9", "Segmented neutrophils", "LN"), ("segs", "count")),
        (Coding("26507-4", "Band form neutrophils", "LN"), ("bands", "count")),
        (Coding("6690-2", "Leukocytes [#/volume] in Blood", "LN"), ("wbc", "count")),
        (Coding("GB", "Leucocytes", "L"), ("wbc", None)),
    ],
)
def test_what_is_claimed(coding: Coding, claim: tuple[str, str | None]) -> None:
    found = recognise((coding,))
    assert found.claim == claim
    assert found.doubts == ()


@pytest.mark.parametrize(
    "coding",
    [
        Coding("30394-1", "Granulocytes", "LN"),
        Coding("GRAN#", "Granulocytes", "L"),
        Coding("X", "Anti-neutrophil cytoplasmic antibody", "L"),
        Coding("X", "SARS-CoV-2 neutralizing antibodies", "L"),
        Coding("X", "Neutrophil elastase", "L"),
        Coding("X", "Neutrophil/lymphocyte ratio", "L"),
        Coding("X", "Polynucléaires éosinophiles", "L"),
        Coding("26450-7", "Eosinophils/100 leukocytes", "LN"),
        Coding("NE", "Noradrenaline", "L"),
        Coding("2951-2", "Sodium", "LN"),
        Coding("11156-7", "LEUKOCYTES", "LN"),
        Coding("", "", ""),
    ],
)
def test_what_is_not_ours(coding: Coding) -> None:
    assert recognise((coding,)).claim is None


@pytest.mark.parametrize(
    ("coding", "doubt"),
    [
        (Coding("751-8", "Lymphocytes", "LN"), "code-name-conflict"),
        (Coding("751-8", "Gran#", "LN"), "code-name-conflict"),
        (Coding("731-0", "Neutrophils", "LN"), "code-name-conflict"),
        (Coding("751-8", "Neutrophils %", "LN"), "code-name-conflict"),
        (Coding("NEUT", "NEUT", "LN"), "code-system-conflict"),
        (Coding("32209-9", "Neutrophils %", "LN"), "code-unknown"),
    ],
)
def test_codes_that_lie_leave_a_doubt(coding: Coding, doubt: str) -> None:
    found = recognise((coding,))
    assert found.measures_neutrophils
    assert doubt in found.doubts


def test_the_alternate_triplet_counts_whatever_its_system_is_called() -> None:
    found = recognise((Coding("PNN", "Poly neutro", "99SIL"), Coding("751-8", "Neutrophils", "pCLOCD")))
    assert found.claim == COUNT
    assert found.coding.code == "751-8"


def test_a_fluid_in_the_name_is_seen() -> None:
    assert recognise((Coding("X", "Neutrophils in CSF", "L"),)).fluid
    assert recognise((Coding("X", "Neutrophiles LCR", "L"),)).fluid
    assert not recognise((Coding("751-8", "Neutrophils [#/volume] in Blood", "LN"),)).fluid
