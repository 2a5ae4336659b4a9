"""Simulated laboratories: blood counts as French laboratories send them, and a bounded load of them over MLLP.

Rule of the file: nobody in these messages exists, and the load goes to loopback unless the caller says otherwise.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, TextIO, cast
from urllib.parse import urlsplit

from wire.mllp import Deframer, Frame, frame

__all__ = [
    "AUTHORITY",
    "LABORATORIES",
    "Laboratory",
    "LoadReport",
    "blood_count",
    "fast_run",
    "load",
    "other_analyses",
    "print_report",
    "problem_of",
    "simulate_command",
]

AUTHORITY: Final = "2.999.1"
"""2.999 is the OID arc set aside for examples: no hospital assigns identifiers under it."""

_MOST = 10_000_000
_ONE, _TENTH, _CENT = Decimal(1), Decimal("0.1"), Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Laboratory:
    """How one laboratory writes its counts. ``per_mm3``: what one of its units is in cells per mm3."""

    application: str
    facility: str
    version: str
    charset: str
    codec: str
    neutrophils: str
    unit: str
    per_mm3: int


LABORATORIES: Final = (
    Laboratory(
        application="SIMLAB-NORD", facility="LABO-EXEMPLE-1", version="2.5", charset="UNICODE UTF-8", codec="utf-8",
        neutrophils="26499-4^Polynucléaires neutrophiles [Nombre/Volume] Sang^LN^PNN^Polynucléaires neutrophiles^L",
        unit="10*9/L^10*9/L^UCUM", per_mm3=1000,
    ),
    Laboratory(
        application="SIMLAB-SUD", facility="LABO-EXEMPLE-2", version="2.3.1", charset="8859/1", codec="iso8859-1",
        neutrophils="751-8^Polynucléaires neutrophiles^LN^NEUT#^Poly. neutrophiles (val. abs.)^L",
        unit="G/L", per_mm3=1000,
    ),
    Laboratory(
        application="SIMLAB-EST", facility="LABO-EXEMPLE-3", version="2.4", charset="", codec="ascii",
        neutrophils="02PNP^POLYNUCLEAIRES NEUTROPHILES (MM3)^L", unit="/mm3", per_mm3=1,
    ),
    Laboratory(
        application="SIMLAB-WEST", facility="EXAMPLE-LAB-4", version="2.5.1", charset="UNICODE UTF-8", codec="utf-8",
        neutrophils="753-4^Neutrophils [#/volume] in Blood by Manual count^LN^ANC^Absolute neutrophil count^L",
        unit="10*3/uL^10*3/uL^UCUM", per_mm3=1000,
    ),
)  # fmt: skip


def blood_count(
    *,
    control_id: str,
    filler: str,
    patient_id: str,
    anc_per_mm3: Decimal | int,
    collected: datetime,
    sent: datetime | None = None,
    laboratory: Laboratory = LABORATORIES[0],
    authority: str = AUTHORITY,
    family: str = "EXEMPLE",
    given: str = "Personne",
    born: date = date(1980, 1, 1),
    sex: str = "U",
    status: str = "F",
    unit: str | None = None,
) -> bytes:
    """One ORU^R01 with 25 OBX (about 5.7 KB). ``collected`` and ``sent`` aware. ``unit`` replaces the neutrophils' own.

    The same arguments give the same bytes, but for MSH-7 when ``sent`` is not given.
    """
    lab = laboratory
    at, drawn = _stamp((sent or datetime.now(UTC)).replace(microsecond=0)), _stamp(collected)
    segments = (
        f"MSH|^~\\&|{lab.application}|{lab.facility}|NEUTROFLAG|HOPITAL-EXEMPLE|{at}||ORU^R01|{control_id}|P|{lab.version}"
        f"||||||{lab.charset}",
        f"PID|1||{patient_id}^^^HOPITAL-EXEMPLE&{authority}&ISO^PI||{family}^{given}^^^^^L||{born:%Y%m%d}|{sex}",
        "PV1|1|O|PSY-EXEMPLE^^^HOPITAL-EXEMPLE",
        f"ORC|RE|P{filler}|{filler}||CM",
        f"OBR|1|P{filler}|{filler}|58410-2^Numération formule sanguine^LN|||{drawn}||||||||^^Sang|||||||{at}|||{status}",
    )
    head = "\r".join(segments).encode(lab.codec, errors="replace")
    return head + b"\r" + _rows(lab, anc_per_mm3, status, lab.unit if unit is None else unit)


def other_analyses(
    *, control_id: str, filler: str, patient_id: str, collected: datetime, sent: datetime, laboratory: Laboratory
) -> bytes:
    """One ORU^R01 without a neutrophil count: an ionogram of 8 OBX (about 1.6 KB). The same arguments give the same bytes."""
    lab = laboratory
    at, drawn = _stamp(sent), _stamp(collected)
    head = (
        f"MSH|^~\\&|{lab.application}|{lab.facility}|NEUTROFLAG|HOPITAL-EXEMPLE|{at}||ORU^R01|{control_id}|P|{lab.version}"
        f"||||||{lab.charset}\r"
        f"PID|1||{patient_id}^^^HOPITAL-EXEMPLE&{AUTHORITY}&ISO^PI||EXEMPLE^Personne^^^^^L||19800101|U\r"
        f"PV1|1|O|MED-EXEMPLE^^^HOPITAL-EXEMPLE\rORC|RE|P{filler}|{filler}||CM\r"
        f"OBR|1|P{filler}|{filler}|24326-1^Ionogramme^LN|||{drawn}||||||||^^Serum|||||||{at}|||F\r"
    )
    return head.encode(lab.codec, errors="replace") + _ionogram(lab)


_IONOGRAM: Final = (
    ("2951-2", "Sodium", "NA", "139", "mmol/L", "136-145"),
    ("2823-3", "Potassium", "K", "4.2", "mmol/L", "3.5-5.1"),
    ("2075-0", "Chlorure", "CL", "103", "mmol/L", "98-107"),
    ("1963-8", "Bicarbonate", "CO2", "25", "mmol/L", "22-29"),
    ("2160-0", "Créatinine", "CREA", "78", "umol/L", "59-104"),
    ("3094-0", "Urée", "UREE", "5.1", "mmol/L", "2.8-8.1"),
    ("2345-7", "Glucose", "GLU", "5.0", "mmol/L", "3.9-6.1"),
    ("1988-5", "Protéine C réactive", "CRP", "3.1", "mg/L", "0.0-5.0"),
)


@lru_cache(maxsize=4096)
def _ionogram(lab: Laboratory) -> bytes:
    lines = [
        f"OBX|{number}|NM|{code}^{name}^LN^{short}^{name}^L|1|{value}|{unit}|{limits}||||F|||{_SIGNED}\r"
        for number, (code, name, short, value, unit, limits) in enumerate(_IONOGRAM, start=1)
    ]
    return "".join(lines).encode(lab.codec, errors="replace")


@lru_cache(maxsize=4096)
def _stamp(at: datetime) -> str:
    return at.strftime("%Y%m%d%H%M%S%z")


_ROWS: Final = (
    ("6690-2", "Leucocytes", "GB", "{wbc}", "10*9/L", "4.00-10.00"),
    ("789-8", "Hématies", "GR", "4.71", "10*12/L", "4.20-5.70"),
    ("718-7", "Hémoglobine", "HB", "13.9", "g/dL", "13.0-17.0"),
    ("4544-3", "Hématocrite", "HT", "41.8", "%", "40.0-52.0"),
    ("787-2", "Volume globulaire moyen", "VGM", "88.7", "fL", "80.0-100.0"),
    ("785-6", "Teneur corpusculaire moyenne en hémoglobine", "TCMH", "29.5", "pg", "27.0-32.0"),
    ("786-4", "Concentration corpusculaire moyenne en hémoglobine", "CCMH", "33.3", "g/dL", "32.0-36.0"),
    ("788-0", "Indice de distribution des hématies", "IDR", "13.1", "%", "11.5-14.5"),
    ("777-3", "Plaquettes", "PLT", "241", "10*9/L", "150-400"),
    ("32623-1", "Volume plaquettaire moyen", "VPM", "10.2", "fL", "7.5-11.5"),
    ("770-8", "Polynucléaires neutrophiles/100 leucocytes", "PNN%", "{percent}", "%", ""),
    ("", "", "PNN", "{anc}", "", ""),
    ("713-8", "Polynucléaires éosinophiles/100 leucocytes", "PNE%", "2.1", "%", ""),
    ("711-2", "Polynucléaires éosinophiles", "PNE", "0.20", "10*9/L", "0.04-0.50"),
    ("706-2", "Polynucléaires basophiles/100 leucocytes", "PNB%", "0.6", "%", ""),
    ("704-7", "Polynucléaires basophiles", "PNB", "0.05", "10*9/L", "0.00-0.10"),
    ("736-9", "Lymphocytes/100 leucocytes", "LY%", "27.4", "%", ""),
    ("731-0", "Lymphocytes", "LY", "1.80", "10*9/L", "1.00-4.00"),
    ("5905-5", "Monocytes/100 leucocytes", "MO%", "7.6", "%", ""),
    ("742-7", "Monocytes", "MO", "0.50", "10*9/L", "0.20-1.00"),
    ("60474-4", "Réticulocytes", "RETI", "52", "10*9/L", "20-120"),
    ("17849-1", "Réticulocytes/100 hématies", "RETI%", "1.1", "%", "0.5-2.5"),
    ("58413-6", "Érythroblastes/100 leucocytes", "ERB%", "0.0", "%", ""),
    ("4537-7", "Vitesse de sédimentation, 1re heure", "VS", "8", "mm", "0-20"),
    ("8251-1", "Commentaire de la numération", "COM", "Simulation : aucune personne ne correspond", "", ""),
)
_OTHER_LEUKOCYTES: Final = 2600
# OBX-14 is left to OBR-7; OBX-15 to OBX-18 are who measured, and by what.
_SIGNED: Final = "|LABO-EXEMPLE^Laboratoire simulé|TECH-EXEMPLE^Simulé|CYTOMETRIE^Cytométrie^99SIM|AUTOMATE-01^99SIM"


@lru_cache(maxsize=4096)
def _rows(lab: Laboratory, anc_per_mm3: Decimal | int, status: str, unit: str) -> bytes:
    """The 25 OBX: the percentage and the leukocytes agree with the neutrophils, so that nothing contradicts."""
    anc = Decimal(anc_per_mm3)
    wbc = anc + _OTHER_LEUKOCYTES
    values = {
        "{wbc}": _written(wbc, 1000),
        "{percent}": f"{(100 * anc / wbc).quantize(_TENTH):f}",
        "{anc}": _written(anc, lab.per_mm3),
    }
    lines = []
    for number, (code, name, short, value, own_unit, limits) in enumerate(_ROWS, start=1):
        coded, shown, range_ = f"{code}^{name}^LN^{short}^{name}^L", own_unit, limits
        if short == "PNN":
            coded, shown, range_ = (
                lab.neutrophils,
                unit,
                f"{_written(Decimal(1800), lab.per_mm3)}-{_written(Decimal(7500), lab.per_mm3)}",
            )
        kind = "ST" if short == "COM" else "NM"
        flag = "L" if short == "PNN" and anc < 1800 else ""
        shown_value = values.get(value, value)
        lines.append(f"OBX|{number}|{kind}|{coded}|1|{shown_value}|{shown}|{range_}|{flag}|||{status}|||{_SIGNED}\r")
    return "".join(lines).encode(lab.codec, errors="replace")


def _written(count: Decimal, per_mm3: int) -> str:
    """With two decimals in thousands, as analysers print it; more only where the value has more."""
    value = count / per_mm3
    rounded = value.quantize(_CENT if per_mm3 > 1 else _ONE)
    return f"{rounded if rounded == value else value:f}"


# The load


@dataclass(slots=True)
class LoadReport:
    """What came of a load. ``ack_s``: from the last byte handed over to the answer, one a message."""

    sent: int = 0
    seconds: float = 0.0
    ack_s: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        return len(self.ack_s)

    @property
    def rate(self) -> float:
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def accepted(self) -> int:
        return self.codes["AA"] + self.codes["CA"]

    def percentile_ms(self, percent: int) -> float:
        ordered = sorted(self.ack_s)
        if not ordered:
            return 0.0
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000


class _Load:
    """The next number for whichever connection is free; done when all are answered, or nothing more can be."""

    def __init__(self, build: Callable[[int], bytes], count: int, due_s: Callable[[int], float] | None) -> None:
        self.build, self.count, self.due_s = build, count, due_s
        self.report = LoadReport()
        self.next = 0
        self.open = 0
        self.started = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ended(self, error: str = "") -> None:
        if error:
            self.report.errors[error] += 1
        if not self.done.done():
            self.report.seconds = time.perf_counter() - self.started
            self.done.set_result(None)


class _Lane(asyncio.Protocol):
    """One connection with one message in flight."""

    def __init__(self, load_: _Load) -> None:
        self._load = load_
        self._deframer = Deframer()
        self._transport: asyncio.Transport | None = None
        self._waiting_for = b""
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._load.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.open -= 1
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting_for:
            self._load.report.errors["connection closed before the answer"] += 1
        if self._load.open == 0:
            self._load.ended()

    def begin(self) -> None:
        """Sends the next message when its time has come."""
        job = self._load
        if job.next >= job.count or self._transport is None:
            return
        number, job.next = job.next, job.next + 1
        wait_s = job.started + job.due_s(number) - time.perf_counter() if job.due_s is not None else 0.0
        if wait_s <= 0:
            self._send(number)
        else:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._send, number)

    def _send(self, number: int) -> None:
        self._timer = None
        if self._transport is None or self._transport.is_closing():
            return
        raw = self._load.build(number)
        self._waiting_for = raw.split(b"|", 10)[9]
        self._load.report.sent += 1
        block = frame(raw)
        self._sent_at = time.perf_counter()
        self._transport.write(block)

    def data_received(self, data: bytes) -> None:
        for event in self._deframer.feed(data):
            if isinstance(event, Frame):
                self._answered(event.payload)

    def _answered(self, payload: bytes) -> None:
        report = self._load.report
        took = time.perf_counter() - self._sent_at
        # A full parse of the answer would cost as much as the engine's own work on it.
        at = payload.find(b"\rMSA|") + 5
        code, _, rest = payload[at : payload.find(b"\r", at)].partition(b"|")
        if at < 5 or rest.split(b"|", 1)[0] != self._waiting_for:
            report.errors["answer to another message"] += 1
            return
        self._waiting_for = b""
        report.ack_s.append(took)
        report.codes[code.decode("ascii", "replace")] += 1
        if report.answered == self._load.count:
            self._load.ended()
        self.begin()


async def load(
    host: str,
    port: int,
    build: Callable[[int], bytes],
    *,
    count: int,
    connections: int = 4,
    rate: float = 0,
    due_s: Callable[[int], float] | None = None,
    limit_s: float = 600,
    tls: ssl.SSLContext | None = None,
) -> LoadReport:
    """Sends ``build(0)`` .. ``build(count - 1)``, one in flight a connection; ``rate`` 0: as fast as answered.

    ``due_s``, in place of a steady rate: when each is due, in seconds from the start.

    Raises OSError when no connection can be made. What is unanswered after ``limit_s`` stays unanswered.
    """
    loop = asyncio.get_running_loop()
    if due_s is None and rate:
        due_s = (1 / rate).__mul__
    job = _Load(build, count, due_s)
    lanes: list[_Lane] = []
    for _ in range(min(connections, count)):
        _, lane = await loop.create_connection(lambda: _Lane(job), host, port, ssl=tls)
        lanes.append(lane)
    job.started = time.perf_counter()
    for lane in lanes:
        lane.begin()
    try:
        async with asyncio.timeout(limit_s):
            await job.done
    except TimeoutError:
        job.ended(f"not finished after {limit_s:g} s")
    for lane in lanes:
        if lane._transport is not None:
            lane._transport.abort()
    return job.report


def laboratories(run: str, *, patients: int = 5000) -> Callable[[int], bytes]:
    """Counts of many invented people from all the simulated laboratories; ``run`` keeps control ids apart."""
    start = datetime.now(UTC) - timedelta(hours=1)

    def build(number: int) -> bytes:
        return blood_count(
            control_id=f"{run}-{number}",
            filler=f"{run}F{number}",
            patient_id=f"SIM{number % patients:06d}",
            anc_per_mm3=1200 + number % 40 * 150,
            collected=start + timedelta(seconds=number // patients),
            laboratory=LABORATORIES[number % len(LABORATORIES)],
        )

    return build


def simulate_command(
    to: str,
    *,
    rate: float,
    connections: int,
    count: int,
    stdout: TextIO,
    stderr: TextIO,
    allow_remote: bool = False,
    limit_s: float = 600,
) -> int:
    """0: every message accepted; 1: some were not, or nobody answers; 2: not a usable request."""
    host, port, problem = problem_of(to, rate=rate, connections=connections, count=count, allow_remote=allow_remote)
    if problem:
        print(problem, file=stderr)
        return 2
    run = secrets.token_hex(4)
    work = load(host, port, laboratories(run), count=count, connections=connections, rate=rate, limit_s=limit_s)
    try:
        report = fast_run(work)
    except OSError as error:
        print(f"{to}: {error.strerror or error}", file=stderr)
        return 1
    print_report(report, stdout)
    return 0 if report.accepted == count else 1


def problem_of(to: str, *, rate: float, connections: int, count: int, allow_remote: bool) -> tuple[str, int, str]:
    """(host, port, what is wrong with the request or "")."""
    parts = urlsplit(to)
    try:
        port = parts.port
    except ValueError:
        port = None
    host = parts.hostname or ""
    problem = ""
    if parts.scheme != "mllp" or not host or port is None:
        problem = "--to: write mllp://HOST:PORT"
    elif not allow_remote and not _loopback(host):
        problem = f"--to: {host} is not this machine; --allow-remote sends simulated patients there all the same"
    elif not 1 <= count <= _MOST or not 1 <= connections <= 4096 or rate < 0:
        problem = f"--count 1 to {_MOST}, --connections 1 to 4096, --rate 0 or more"
    return host, port or 0, problem


def fast_run(work: Coroutine[Any, Any, LoadReport]) -> LoadReport:
    """Runs it on uvloop where there is one: the generator must not be the bottleneck."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def print_report(report: LoadReport, out: TextIO) -> None:
    """Rate, answers and times, for a person."""
    codes = ", ".join(f"{code} {number}" for code, number in sorted(report.codes.items()))
    print(f"sent        {report.sent}", file=out)
    print(f"answered    {report.answered}   {codes}", file=out)
    print(f"rate        {report.rate:.0f}/s over {report.seconds:.2f} s", file=out)
    p50, p95, p99 = (report.percentile_ms(percent) for percent in (50, 95, 99))
    print(f"ack         p50 {p50:.2f} ms   p95 {p95:.2f} ms   p99 {p99:.2f} ms", file=out)
    for words, number in report.errors.items():
        print(f"problem     {words}: {number}", file=out)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
