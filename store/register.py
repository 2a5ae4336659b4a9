"""The register's SQL: patients with their identifiers, counts and open alerts, whole and by identifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import (
    ARRAY,
    BindParameter,
    ColumnElement,
    Connection,
    String,
    Table,
    and_,
    bindparam,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from rules.decisions import UNDECIDED
from rules.model import AlertFamily, PatientIdentifier, Trust
from rules.silence import AT_ONCE, look_on
from store import answers, steps, trail
from store.inbox_server import hold
from store.port import ANYBODYS, CLOCK, AlertRecord, PatientRecord, ResultRecord, Work
from store.statement import Prepared, given, inserting
from store.tables import alert, assessment, delivery, identifier, patient, result
from store.values import (
    decode_alert,
    decode_assessment,
    decode_course,
    decode_person,
    decode_result,
    encode,
    from_ms,
    name_key,
    new_id,
    to_ms,
)

__all__ = [
    "alert_by_id",
    "alert_by_number",
    "alert_of_message",
    "by_id",
    "by_identifier",
    "moved",
    "park",
    "settling",
    "taken",
    "write",
]

_wanted: BindParameter[Any] = bindparam("wanted")
_owner = select(identifier.c.value, identifier.c.authority, identifier.c.patient_id)
_by_value = Prepared(_owner.where(identifier.c.value == _wanted))
_these: BindParameter[Any] = bindparam("wanted", type_=ARRAY(String))
# Who only reads has no way closed to his plans (store.database.NO_SCANS). By keys, one that was made when the tables were
# small must not be kept either.
_by_keys = Prepared(select(func.set_config("enable_seqscan", "off", literal_column("true"))))


_by_values = Prepared(_owner.where(identifier.c.value == func.any(_these)))


def _of_patients(
    key: ColumnElement[Any], *columns: ColumnElement[Any], **also: ColumnElement[bool]
) -> dict[str, Prepared]:
    """By one ``wanted`` at a time, or by all of them in one statement: rows begin with whose they are."""
    query = select(key, *columns).where(*also.values())
    return {
        "sqlite": Prepared(query.where(key == _wanted)),
        "postgresql": Prepared(query.where(key == func.any(_these))),
    }


_patient = _of_patients(
    patient.c.id,
    patient.c.enrolled,
    patient.c.rev,
    patient.c.person,
    patient.c.owner,
    patient.c.course,
    patient.c.present,
    patient.c.settle_at,
    patient.c.pending_at,
)
_settling = Prepared(
    select(patient.c.id)
    .where(patient.c.settle_at.is_not(None), patient.c.settle_at <= bindparam("now"))
    .order_by(patient.c.settle_at)
    .limit(bindparam("most"))
)
# Held to the end of the transaction, where several write at once (SQLite has one writer, and no such words).
_revs = {
    "sqlite": Prepared(select(patient.c.id, patient.c.rev).where(patient.c.id == _wanted)),
    # In one order everywhere: two batches that share patients must not wait for each other.
    "postgresql": Prepared(
        select(patient.c.id, patient.c.rev)
        .where(patient.c.id == func.any(_these))
        .order_by(patient.c.id)
        .with_for_update()
    ),
}
_identifiers = _of_patients(identifier.c.patient_id, identifier.c.value, identifier.c.authority, identifier.c.type)
_rehome = Prepared(
    update(identifier)
    .where(identifier.c.value == _wanted, identifier.c.authority == bindparam("wanted_authority"))
    .values(patient_id=bindparam("new_patient_id"))
)
_current = _of_patients(
    *(result.c.patient_id, result.c.id, result.c.message_id, result.c.key, result.c.version, result.c.body),
    current=result.c.current == bindparam("is_current", True),
)
_alerts = _of_patients(
    *(
        alert.c.patient_id,
        alert.c.id,
        alert.c.state,
        alert.c.result_id,
        alert.c.result_key,
        alert.c.seen_at,
        alert.c.body,
    )
)
_filed = Prepared(
    select(identifier.c.patient_id).where(
        identifier.c.value == _wanted, identifier.c.authority == bindparam("wanted_authority")
    )
)
_new = given(value=identifier.c.value, authority=identifier.c.authority)
_filed_of = Prepared(
    select(_new.c.value, _new.c.authority).join_from(
        _new,
        identifier,
        and_(identifier.c.value == _new.c.value, identifier.c.authority == _new.c.authority),
    )
)
_supersede = Prepared(update(result).where(result.c.id == _wanted).values(current=bindparam("is_current", False)))
_rewrite = Prepared(update(result).where(result.c.id == _wanted).values(body=bindparam("written")))
_CHANGING = (
    *("enrolled", "rev", "person", "sort_name", "owner", "course", "present", "next_due", "recheck_by", "settle_at"),
    *("pending_at", "watch_on", "updated_at"),
)
_changed = given(patient_id=patient.c.id, **{f"new_{name}": patient.c[name] for name in _CHANGING})
_update_patient = Prepared(
    update(patient)
    .where(patient.c.id == bindparam("patient_id"))
    .values({name: bindparam(f"new_{name}") for name in _CHANGING}),
    whole=update(patient)
    .where(patient.c.id == _changed.c.patient_id)
    .values({name: _changed.c[f"new_{name}"] for name in _CHANGING}),
)
_inserts = {table.name: inserting(table) for table in (patient, identifier, result, assessment, delivery)}


def _alert_upsert(dialect: Any) -> Prepared:
    statement = dialect.insert(alert).values({column.name: bindparam(column.name) for column in alert.columns})
    changing = (
        "level",
        "state",
        "revision",
        "result_id",
        "result_key",
        "raised_at",
        "updated_at",
        "answer_by",
        "escalation",
        "body",
    )
    return Prepared(
        statement.on_conflict_do_update(
            index_elements=["id"], set_={name: getattr(statement.excluded, name) for name in changing}
        )
    )


_upsert_alert = {"sqlite": _alert_upsert(sqlite), "postgresql": _alert_upsert(postgresql)}


def by_identifier(connection: Connection, identifiers: Iterable[PatientIdentifier]) -> list[PatientRecord]:
    """Records that carry one of the identifiers. With no authority on one side, the value alone is enough to be found:
    whether it is enough to be believed is the caller's question."""
    wanted: dict[str, set[str]] = {}
    for item in identifiers:
        wanted.setdefault(item.value, set()).add(item.authority)
    found: set[str] = set()
    for value, authority, patient_id in _owners(connection, list(wanted)):
        if authority in wanted[value] or _anybodys(authority) or any(map(_anybodys, wanted[value])):
            found.add(patient_id)
    return by_id(connection, sorted(found))


def _anybodys(authority: str) -> bool:
    return not authority or authority.startswith(ANYBODYS)


def _owners(connection: Connection, values: list[str]) -> Sequence[Any]:
    if connection.dialect.name != "sqlite":
        _by_keys.ask(connection, [{}])
        return _by_values.rows(connection, {"wanted": values})
    return [row for value in values for row in _by_value.rows(connection, {"wanted": value})]


def by_id(connection: Connection, ids: Sequence[str]) -> list[PatientRecord]:
    """In the order asked for; unknown ids are passed over. ``rev`` is read first: what moves meanwhile is noticed later."""
    asked = [_asked(connection, query, ids) for query in (_patient, _identifiers, _current, _alerts)]
    parts = [answers() for answers in asked]
    return [_whole(number, *(part.get(number, []) for part in parts)) for number in ids if number in parts[0]]


def _asked(
    connection: Connection, query: Mapping[str, Prepared], ids: Iterable[str]
) -> Callable[[], dict[str, list[Sequence[Any]]]]:
    """Rows without whose they are, by whose they are."""
    name = connection.dialect.name
    if name == "sqlite":
        found = query[name].ask(connection, [{"wanted": number} for number in ids])
    else:
        _by_keys.ask(connection, [{}])
        found = query[name].ask(connection, [{"wanted": list(ids)}])

    def answers() -> dict[str, list[Sequence[Any]]]:
        rows: dict[str, list[Sequence[Any]]] = {}
        for group in found():
            for row in group:
                rows.setdefault(row[0], []).append(row[1:])
        return rows

    return answers


def _whole(
    number: str, row: Sequence[Any], names: Sequence[Any], counts: Sequence[Any], alerts: Sequence[Any]
) -> PatientRecord:
    enrolled, rev, person, owner, course, present, settle_at, pending_at = row[0]
    record = PatientRecord(
        id=number,
        enrolled=bool(enrolled),
        rev=rev,
        person=decode_person(person),
        owner=owner,
        course=decode_course(course),
        present=decode_assessment(present) if present else None,
        settle_at=from_ms(settle_at) if settle_at is not None else None,
        pending_at=from_ms(pending_at) if pending_at is not None else None,
    )
    for value, authority, kind in names:
        record.identifiers.append(PatientIdentifier(value, authority, kind))
    for result_id, message_id, result_key, version, body in counts:
        record.results[result_key] = ResultRecord(
            id=result_id,
            patient_id=number,
            message_id=message_id,
            key=result_key,
            version=version,
            result=decode_result(body),
        )
    for alert_id, state, result_id, result_key, seen_at, body in alerts:
        record.alerts[alert_id] = AlertRecord(
            alert=decode_alert(body),
            patient_id=number,
            state=state,
            result_id=result_id,
            result_key=result_key,
            seen=seen_at is not None,
        )
    return record


def alert_by_id(connection: Connection, alert_id: str) -> AlertRecord | None:
    row = connection.execute(select(alert).where(alert.c.id == alert_id)).first()
    if row is None:
        return None
    return AlertRecord(
        alert=decode_alert(row.body),
        patient_id=row.patient_id,
        state=row.state,
        result_id=row.result_id,
        result_key=row.result_key,
        seen=row.seen_at is not None,
    )


def question_about(connection: Connection, alert_id: str) -> AlertRecord | None:
    """The open alert that asks for the decision on this one, which was closed without it or taken back; None: none does."""
    whose = select(alert.c.patient_id).where(alert.c.id == alert_id).scalar_subquery()
    keys = [f"{UNDECIDED}|{alert_id}", f"answered|{alert_id}"]
    query = select(alert.c.id).where(alert.c.patient_id == whose, alert.c.state == "open", alert.c.result_key.in_(keys))
    found = connection.scalars(query.limit(1)).first()
    return alert_by_id(connection, found) if found is not None else None


def alert_by_number(connection: Connection, number: str) -> AlertRecord | None:
    """By the 15 or 16 characters of its id that our order numbers hold (OBR-3); None where none or several have them."""
    first = "-".join((number[:8], number[8:12], number[12:16]))
    found = connection.scalars(select(alert.c.id).where(alert.c.id >= first, alert.c.id < f"{first}g").limit(2)).all()
    return alert_by_id(connection, found[0]) if len(found) == 1 else None


def alert_of_message(connection: Connection, control_id: str) -> tuple[AlertRecord | None, str]:
    """By the MSH-10 of one of its notifications; and the second recipient whom that one was for, "" for none."""
    query = select(delivery.c.alert_id, delivery.c.recipient).where(delivery.c.control_id == control_id)
    found = connection.execute(query).first()
    return (alert_by_id(connection, found.alert_id), found.recipient) if found is not None else (None, "")


def settling(connection: Connection, now_ms: int, limit: int) -> list[str]:
    """Patients whose present state is to be looked at now (loaded history has come to rest; the register changed)."""
    return [row[0] for row in _settling.rows(connection, {"now": now_ms, "most": limit})]


def park(connection: Connection, number: str) -> None:
    connection.execute(update(patient).where(patient.c.id == number).values(settle_at=None))


def moved(connection: Connection, records: Iterable[PatientRecord]) -> Callable[[], tuple[str, ...]]:
    """Of these working copies, the patients that somebody else has changed since they were loaded."""
    known = sorted((record for record in records if not record.new), key=lambda record: record.id)
    revs = _asked(connection, _revs, [record.id for record in known])

    def changed() -> tuple[str, ...]:
        found = revs()
        return tuple(record.id for record in known if found.get(record.id) != [(record.rev,)])

    return changed


def taken(connection: Connection, work: Work) -> Callable[[], tuple[str, ...]]:
    """New patients whose identifier another writer has filed meanwhile."""
    if not work.identifiers:
        return lambda: ()
    if connection.dialect.name == "sqlite":
        wanted = [{"wanted": item.value, "wanted_authority": item.authority} for _, item in work.identifiers]
        filed = _filed.ask(connection, wanted)
        return lambda: tuple(
            sorted(number for (number, _), rows in zip(work.identifiers, filed(), strict=True) if rows)
        )
    hold(connection, [f"{item.value}|{item.authority}".encode() for _, item in work.identifiers])
    items = [item for _, item in work.identifiers]
    named = {"value": [item.value for item in items], "authority": [item.authority for item in items]}
    found = _filed_of.ask(connection, [named])

    def theirs() -> tuple[str, ...]:
        known = {(value, authority) for value, authority in found()[0]}
        return tuple(sorted(number for number, item in work.identifiers if (item.value, item.authority) in known))

    return theirs


def write(connection: Connection, work: Work, at_ms: int) -> None:
    """Everything that a batch changed about patients, one statement a table."""
    _patients(connection, work, at_ms)
    _insert(
        connection,
        identifier,
        [
            {"value": item.value, "authority": item.authority, "type": item.type, "patient_id": number}
            for number, item in work.identifiers
        ],
    )
    _rehome.many(
        connection,
        [
            {"wanted": item.value, "wanted_authority": item.authority, "new_patient_id": number}
            for number, item in work.rehomed
        ],
    )
    _supersede.many(connection, [{"wanted": number} for number in work.superseded])
    _rewrite.many(connection, [{"wanted": item.id, "written": encode(item.result)} for item in work.known_as])
    _insert(
        connection,
        result,
        [_result_row(item, current=True) for item in work.results]
        + [_result_row(item, current=False) for item in work.late],
    )
    _insert(connection, assessment, [_assessment_row(entry, at_ms, work) for entry in work.assessments])
    _upsert_alerts(connection, work.alerts)
    _insert(
        connection,
        delivery,
        [
            {
                "id": item.id,
                "alert_id": item.alert.id,
                "revision": item.alert.revision,
                "patient_id": item.patient_id,
                "destination": item.destination,
                "recipient": item.alert.recipient,
                "control_id": item.control_id,
                "state": item.state,
                "attempts": 0,
                "next_at": at_ms,
                "created_at": at_ms,
                "ended_at": None if item.state == "waiting" else at_ms,
                "code": None,
                "words": None,
                "body": encode(item.alert),
            }
            for item in work.deliveries
        ],
    )
    for number, at in work.seen.items():
        connection.execute(
            update(alert).where(alert.c.id == number, alert.c.seen_at.is_(None)).values(seen_at=to_ms(at))
        )
    steps.add(connection, work.steps)
    answers.file(connection, work.answers)
    trail.append(
        connection,
        (
            trail.Entry(
                at_ms=to_ms(item.at),
                actor=item.actor,
                action=item.action,
                patient_id=item.patient_id,
                detail=item.detail.decode(),
            )
            for item in work.audits
        ),
    )


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    _inserts[table.name].many(connection, rows)


def _patients(connection: Connection, work: Work, at_ms: int) -> None:
    fresh, changed = [], []
    for record in work.patients.values():
        fields = {
            "enrolled": record.enrolled,
            "rev": record.rev + 1,
            "person": encode(record.person),
            "sort_name": name_key(record.person.family, record.person.given),
            "owner": record.owner,
            "course": encode(record.course),
            "present": encode(record.present) if record.present else None,
            "next_due": _iso(record.present.next_due if record.present else None),
            "recheck_by": _iso(record.present.recommended_recheck_by if record.present else None),
            "settle_at": to_ms(record.settle_at) if record.settle_at else None,
            "pending_at": to_ms(record.pending_at) if record.pending_at else None,
            "watch_on": _iso(_watch_on(record)),
            "updated_at": at_ms,
        }
        if record.new:
            fresh.append({"id": record.id, "created_at": at_ms, **fields})
        else:
            changed.append({"patient_id": record.id, **{f"new_{name}": value for name, value in fields.items()}})
    _insert(connection, patient, fresh)
    _update_patient.many(connection, changed)


def _watch_on(record: PatientRecord) -> date | None:
    """A reminder that stands is looked at anew with every change; nobody is missed who is not on the register."""
    for standing in record.alerts.values():
        if standing.state != "withdrawn" and (
            standing.alert.family is AlertFamily.OVERDUE or standing.result_key == CLOCK
        ):
            return AT_ONCE
    if not record.enrolled:
        return None
    doubtful = any(item.result.trust is Trust.PROVISIONAL for item in record.results.values())
    return look_on(record.course, record.present, doubtful=doubtful)


def _iso(day: Any) -> str | None:
    return day.isoformat() if day is not None else None


def _result_row(item: ResultRecord, *, current: bool) -> dict[str, Any]:
    collected = item.result.collected_at
    return {
        "id": item.id,
        "patient_id": item.patient_id,
        "message_id": item.message_id,
        "key": item.key,
        "version": item.version,
        "current": current,
        "collected_at": to_ms(collected) if collected is not None else None,
        "body": encode(item.result),
    }


def _assessment_row(entry: tuple[str, int | None, int | None, Any], at_ms: int, work: Work) -> dict[str, Any]:
    patient_id, result_id, message_id, verdict = entry
    record = work.patients.get(patient_id)
    return {
        "id": new_id(),
        "patient_id": patient_id,
        "result_id": result_id,
        "message_id": message_id,
        "made_at": at_ms,
        "protocol": verdict.protocol,
        "category": verdict.category,
        "action": verdict.action,
        "level": verdict.alert.value,
        "body": encode(verdict),
        "course": encode(record.course) if record is not None else None,
    }


def _upsert_alerts(connection: Connection, alerts: list[AlertRecord]) -> None:
    rows = [
        {
            "id": item.alert.id,
            "patient_id": item.patient_id,
            "family": item.alert.family.value,
            "level": item.alert.level.value,
            "state": item.state,
            "revision": item.alert.revision,
            "result_id": item.result_id,
            "result_key": item.result_key,
            "raised_at": to_ms(item.alert.raised_at),
            "updated_at": to_ms(item.alert.updated_at),
            "answer_by": _awaited(item),
            "escalation": item.alert.escalation,
            "seen_at": None,  # set where a person is seen to have it (answers.py), and kept by every later revision
            "body": encode(item.alert),
        }
        for item in alerts
    ]
    _upsert_alert[connection.dialect.name].many(connection, rows)


def _awaited(item: AlertRecord) -> int | None:
    """When the next owner is asked; nobody is, once it is answered or taken back."""
    return to_ms(item.alert.answer_by) if item.state == "open" and item.alert.answer_by is not None else None
