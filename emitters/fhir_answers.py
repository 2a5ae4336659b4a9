"""What an HTTP answer of a FHIR server means for the alert: delivered, try again, or a person must look.

A half or odd body is ambiguous: the transaction may well stand, and our ids make sending it again harmless. Of the
server's words only the status and the OperationOutcome's issue codes are kept: diagnostics may quote the patient.
"""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from emitters.fhir_terms import Resource
from emitters.sink import Delivered, Refused, TryAgain

__all__ = ["AUTH_PAUSE_S", "CHANGED", "OVERTAKEN", "failed", "read_json", "read_transaction_response", "retry_after"]

AUTH_PAUSE_S: Final = 60.0
"""401 and 403 heal when a person renews the credentials; the alert must leave soon after, so not longer than this."""

OVERTAKEN: Final = frozenset({409, 412})
"""Of a write with If-Match: somebody wrote the resource after it was read."""
CHANGED: Final = TryAgain("a Task of this alert is being changed by someone")

_LONGEST_PAUSE_S: Final = 3600.0
_TRANSIENT: Final = frozenset({408, 409, 421, 423, 425, 429})
_CODE: Final = re.compile(r"[a-z][a-z-]{0,39}")
_STATUS: Final = re.compile(r"[1-5]\d\d")
_PLACE: Final = re.compile(r"(?:Flag|Task)/[A-Za-z0-9.\-]{1,64}")


def failed(status: int, headers: Mapping[str, str], body: bytes) -> TryAgain | Refused:
    """The class of an answer outside 2xx."""
    words = _words(status, body)
    if status in (401, 403):
        # 401 concerns every alert to this server, 403 may concern one resource or patient.
        return TryAgain(words, after_s=retry_after(headers) or AUTH_PAUSE_S, down=status == 401)
    if status in _TRANSIENT or (status >= 500 and status != 501):
        # 409: another writer was in the way (FHIR R4 3.1.0.11.2); time heals it.
        return TryAgain(words, after_s=retry_after(headers))
    if status == 412:
        return Refused("several-matches", f"{words}: one of our identifiers stands on several resources")
    return Refused(f"http-{status}", words)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of Retry-After, at most an hour. A date is read against the answer's own Date: no clock is asked."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return min(float(value), _LONGEST_PAUSE_S)
    try:
        until = email.utils.parsedate_to_datetime(value)
        now = email.utils.parsedate_to_datetime(headers.get("date", ""))
        return min(max((until - now).total_seconds(), 0.0), _LONGEST_PAUSE_S)
    except (ValueError, TypeError, IndexError):
        return None


def read_transaction_response(body: bytes, entries: Sequence[Resource]) -> Delivered | TryAgain | Refused:
    """A 2xx answer to our POST of ``entries``: delivered only if it says so of each, CHANGED where somebody was quicker."""
    bundle = read_json(body)
    if bundle is None:
        return TryAgain("2xx with a body that is not a FHIR resource: ambiguous")
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") != "transaction-response":
        return TryAgain(f"2xx with {_kind(bundle)} where a transaction-response was due: ambiguous")
    answers = bundle.get("entry")
    if not isinstance(answers, list) or len(answers) != len(entries):
        return TryAgain("a transaction-response without an answer for every entry: ambiguous")
    statuses = [_entry_status(answer) for answer in answers]
    for status, entry in zip(statuses, entries, strict=True):
        if status is None:
            return TryAgain("a transaction-response with an entry without a status: ambiguous")
        # Against the standard (a transaction is all or nothing), but servers exist that do it.
        if status in OVERTAKEN and "ifMatch" in entry["request"]:
            return CHANGED
        if not 200 <= status < 300:
            return failed(status, {}, b"")
    places = [place for answer in answers if (place := _location(answer))]
    return Delivered("transaction-response " + " ".join([*map(str, statuses), *places]))


def read_json(body: bytes) -> Resource | None:
    """A JSON object with exact decimals, or None."""
    value: object
    try:
        value = _decoder.decode(body)
    except (ValueError, RecursionError):
        # The standard library reads some that the fast one refuses (UTF-16, lone surrogates): it has the last word.
        try:
            value = json.loads(body, parse_float=_decimal, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _decimal(text: str) -> Decimal:
    # 1e99999999 would print as 100 MB.
    number = Decimal(text)
    if len(text) > 60 or (number and abs(number.adjusted()) > 40):
        raise ValueError("a number beyond what is read")
    return number


_decoder: Final = msgspec.json.Decoder(float_hook=_decimal)


def _no_constant(text: str) -> Decimal:
    raise ValueError(f"{text} is not JSON")


def _entry_status(answer: object) -> int | None:
    response = answer.get("response") if isinstance(answer, dict) else None
    status = response.get("status") if isinstance(response, dict) else None
    head = status[:3] if isinstance(status, str) else ""
    return int(head) if _STATUS.fullmatch(head) else None


def _location(answer: object) -> str:
    """``Task/17`` of a location; the server's own id, which people look up."""
    response = answer.get("response") if isinstance(answer, dict) else None
    location = response.get("location") if isinstance(response, dict) else None
    found = _PLACE.search(location) if isinstance(location, str) else None
    return found[0] if found else ""


def _words(status: int, body: bytes) -> str:
    outcome = read_json(body) if body else None
    issues = outcome.get("issue") if outcome and outcome.get("resourceType") == "OperationOutcome" else None
    codes = [issue.get("code") for issue in issues if isinstance(issue, dict)] if isinstance(issues, list) else []
    known = [code for code in codes if isinstance(code, str) and _CODE.fullmatch(code)][:5]
    return f"HTTP {status} ({', '.join(known)})" if known else f"HTTP {status}"


def _kind(resource: Resource) -> str:
    kind = resource.get("resourceType")
    return kind if isinstance(kind, str) and re.fullmatch(r"[A-Za-z]{1,40}", kind) else "something else"
