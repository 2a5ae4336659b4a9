"""An HL7 v2 receiver that none of us wrote takes our alerts: HAPI's listener, parser, classes of each version and default
validation (``deploy/dev/hapi-hl7v2``)."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emitters.hl7v2 import V2Profile
from emitters.mllp import MllpDestination, MllpSettings
from emitters.sink import Delivered
from rules.model import AlertKind

SCRIPT = Path(__file__).parents[3] / "deploy" / "dev" / "hapi-hl7v2"
VERSIONS = {"2.3.1": "v231", "2.4": "v24", "2.5": "v25", "2.5.1": "v251", "2.6": "v26", "2.7": "v27"}
_numbers = itertools.count(1)


class Receiver:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.lines = process.stdout
        first = self.lines.readline()
        assert first.startswith("READY "), first
        self.port = int(first.split()[1])

    def next(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lines.readline())
        return found


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    process = subprocess.Popen([SCRIPT, "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield Receiver(process)
    process.communicate("")
    assert process.returncode == 0


def notifications(make: Any) -> dict[str, Any]:
    return {
        "raised": make.alert(),
        "updated": make.later(),
        "withdrawn": make.later(kind=AlertKind.WITHDRAWN, reason="corrected"),
        "in error": make.later(kind=AlertKind.WITHDRAWN, reason="entered-in-error"),
        "answered": make.later(kind=AlertKind.ANSWERED, title="RÉPONDU : arrêter la clozapine"),
        "for the pharmacist": make.alert(recipient="pharmacist", title="POUR LE PHARMACIEN : arrêter la clozapine"),
        "unreadable": make.review(title="Résultat de PNN illisible : arrêter la clozapine ?"),
    }


@pytest.mark.parametrize("charset", ["UNICODE UTF-8", "8859/15"])
@pytest.mark.parametrize("version", list(VERSIONS))
@pytest.mark.parametrize("shape", ["ORU_R01", "MDM_T02"])
async def test_each_shape_in_each_version_is_taken_and_read_by_its_own_classes(
    receiver: Receiver, make: Any, shape: str, version: str, charset: str
) -> None:
    settings = MllpSettings(
        name="v2",
        host="127.0.0.1",
        port=receiver.port,
        timeout_s=60,
        profile=V2Profile(shape=shape, version=version, charset=charset),  # type: ignore[arg-type]
    )
    sink = MllpDestination(settings)
    try:
        for what, alert in notifications(make).items():
            control = f"c{next(_numbers)}"
            answer = await sink.send(replace(alert, text=f"{alert.title}\n{alert.text}"), control)
            read = receiver.next()
            assert answer == Delivered("MSA-1 AA"), (what, read)
            assert read["control"] == control
            assert read["read_as"] == f"{VERSIONS[version]}.message.{shape}", what
            assert read["no_place"] == [], what
            assert any("arrêter la clozapine" in line for line in read["texts"]), (what, read["texts"])
    finally:
        await sink.close()


async def test_in_enhanced_mode_it_acknowledges_at_the_commit(receiver: Receiver, make: Any) -> None:
    sink = MllpDestination(MllpSettings(name="v2", host="127.0.0.1", port=receiver.port, timeout_s=60, enhanced=True))
    answer = await sink.send(make.alert(), "enhanced")
    receiver.next()
    await sink.close()
    assert isinstance(answer, Delivered)
