"""PostgreSQL's own account of the hot queries on filled tables: none of them walks one from end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from store import browse, database, feeds, findings, inbox, inbox_server, leases, outbox, purge, register
from store.purge import Kind
from store.statement import Prepared

MESSAGES, PATIENTS = 30_000, 10_000

_FILL = f"""
INSERT INTO message (id, received_at, channel, format, peer, sender, control_id, message_type, dedupe_key, content_hash,
                     disposition, reason, judged_at, size, kept)
  SELECT n, n, 'mllp', 'hl7v2', '', 'SIL|LABO', 'M' || n, 'ORU^R01', decode(md5(n::text), 'hex'), decode(md5(n::text), 'hex'),
         CASE WHEN n > {MESSAGES} - 50 THEN NULL WHEN n % 500 = 0 THEN 'set_aside' ELSE 'judged' END, 'x', n, 1, n % 100 = 0
  FROM generate_series(1, {MESSAGES}) n;
INSERT INTO body (message_id, raw) SELECT id, 'MSH|' FROM message;
INSERT INTO patient (id, enrolled, rev, person, sort_name, owner, course, watch_on, created_at, updated_at, settle_at)
  SELECT 'p' || n, true, 1, '{{}}', 'name ' || n, '', '{{}}',
         CASE WHEN n % 100 = 0 THEN '2026-11-01' ELSE '2027-01-' || lpad((1 + n % 28)::text, 2, '0') END, 1, 1,
         CASE WHEN n % 1000 = 0 THEN 1 END
  FROM generate_series(1, {PATIENTS}) n;
INSERT INTO identifier SELECT n::text, 'urn:oid:1.2.3', 'PI', 'p' || n FROM generate_series(1, {PATIENTS}) n;
INSERT INTO result (id, patient_id, message_id, key, version, current, body)
  SELECT n, 'p' || (1 + n % {PATIENTS}), n, 'k' || n, 1, true, '{{}}' FROM generate_series(1, {MESSAGES}) n;
INSERT INTO alert (id, patient_id, family, level, state, revision, result_key, raised_at, updated_at, body)
  SELECT 'a' || n, 'p' || n, 'ANC-STOP', 'red', CASE WHEN n % 100 = 0 THEN 'open' ELSE 'answered' END, 1, '', n, n, '{{}}'
  FROM generate_series(1, {PATIENTS}) n;
INSERT INTO delivery (id, alert_id, revision, patient_id, destination, control_id, state, attempts, next_at, created_at, body)
  SELECT n, 'a' || n, 1, 'p' || n, 'ehr', 'c' || n, CASE WHEN n % 200 = 0 THEN 'waiting' ELSE 'delivered' END, 0, 1, 1, '{{}}'
  FROM generate_series(1, {PATIENTS}) n;
INSERT INTO finding (id, kind, subject, patient_id, began_at, ended_at, body)
  SELECT n, 'overdue', 's' || n, 'p' || n, 1, CASE WHEN n % 100 > 0 THEN 2 END, '{{}}' FROM generate_series(1, {PATIENTS}) n;
ANALYZE;
"""  # noqa: S608  # our own names and numbers


@pytest.fixture(scope="module")
def filled(postgresql: Any) -> Iterator[str]:
    url = postgresql.fresh()
    postgresql.run(_FILL, url.rpartition("/")[2])
    yield url
    postgresql.drop(url)


HOT: list[tuple[str, Prepared, dict[str, Any]]] = [
    ("known names", inbox_server._known, {"keys": [b"x" * 16]}),
    ("pending of a batch", inbox._pending, {"message_id": 7}),
    ("the end of a message", inbox._finish, {
        "message_id": 7, "new_disposition": "judged", "new_reason": "", "new_judged_at": 1}),
    ("what is free to claim", leases._free, {"most": 32}),
    ("earlier ones of others", leases._earlier, {"before": MESSAGES, "of": "me"}),
    ("owners of identifiers", register._by_values, {"wanted": ["7", "8"]}),
    *((name, queries["postgresql"], {"wanted": ["p7", "p8"]}) for name, queries in {
        "patients": register._patient, "patients' revisions": register._revs, "patients' counts": register._current,
        "patients' alerts": register._alerts, "patients' identifiers": register._identifiers}.items()),
    ("who has new identifiers", register._filed_of, {"value": ["7"], "authority": ["urn:oid:1.2.3"]}),
    ("patients to settle", register._settling, {"now": 5, "most": 32}),
    ("what is due", outbox._due, {"destination": "ehr", "now": 5, "most": 40}),
    ("the sweep", findings._look, {"today": "2026-11-22", "after": "", "after_id": "", "most": 100}),
    ("unanswered alerts", findings._unanswered, {"now": 5, "after": -1, "after_id": "", "most": 10}),
    ("a patient's findings", findings._open_of, {"wanted": "p7"}),
    ("messages since the last look", feeds._arrived, {"after": MESSAGES - 100, "until": 2**62, "most": 2000}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "query", "given"), HOT, ids=[name for name, _, _ in HOT])
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_no_hot_query_walks_a_table(filled: str, name: str, query: Prepared, given: dict[str, Any], mode: str) -> None:
    """Also by the plan that a server makes once for all values: after some executions it may choose that."""
    engine = database.reader(filled)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SET plan_cache_mode = {mode}")
        walked = [node for node in _nodes(_plan(connection, query, given)) if node["Node Type"] == "Seq Scan"]
    engine.dispose()
    # The claims of the moment are a handful, and walked as such.
    assert [node["Relation Name"] for node in walked if node["Relation Name"] != "claim"] == [], name


_CHANGED = {"patient_id": ["p7"], **{f"new_{name}": [None] for name in register._CHANGING}}
WHOLE: list[tuple[str, Any, dict[str, Any]]] = [
    ("which of a batch wait", inbox_server._pending, {"numbers": [7, 8]}),
    ("the ends of a batch", inbox._finish._whole, {
        "message_id": [7, 8], "new_disposition": ["judged"] * 2, "new_reason": ["", ""], "new_judged_at": [1, 1]}),
    ("whom a batch speaks of", leases._announce, {"number": [7, 8], "new_names": ["[]", "[]"], "of": "me"}),
    ("claims that are over", leases._done, {"numbers": [7, 8]}),
    ("patients that changed", register._update_patient._whole, _CHANGED),
    ("patients' revisions", register._revs["postgresql"], {"wanted": ["p7", "p8"]}),
    ("the oldest of a backlog", leases._free, {"most": 32}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "query", "given"), WHOLE, ids=[name for name, _, _ in WHOLE])
def test_no_batch_walks_a_table_even_by_a_plan_that_was_made_when_all_were_empty(
    postgresql_url: str, name: str, query: Prepared, given: dict[str, Any]
) -> None:
    engine = database.writer(postgresql_url)
    with engine.connect() as connection:
        for setting in database.NO_SCANS:
            connection.exec_driver_sql(f"SET {setting} = off")
        connection.exec_driver_sql("SET plan_cache_mode = force_generic_plan")
        kinds = {node["Node Type"] for node in _nodes(_plan(connection, query, given))}
    engine.dispose()
    assert "Seq Scan" not in kinds, name
    # Only what is few may be sorted: for its oldest few a backlog is read in their order.
    assert "Sort" not in kinds or query is not leases._free, name
    assert kinds & {"Index Scan", "Bitmap Index Scan", "Index Only Scan"}, name


def _plan(connection: Connection, query: Prepared, given: dict[str, Any]) -> dict[str, Any]:
    from psycopg import sql

    text = query._text(connection)
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text.sql)))
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", text.sql).replace("%%", "%")
    values = {**text.bind(given), **given}  # lists as they are: here they are written into the text
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PREPARE asked AS {numbered}")
    literals = sql.SQL(", ").join(sql.Literal(values[name]) for name in names)
    row = driver.execute(sql.SQL("EXPLAIN (FORMAT JSON) EXECUTE asked({})").format(literals)).fetchone()
    driver.execute("DEALLOCATE asked")
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


@pytest.mark.parametrize(
    "look",
    [
        browse.standing,
        browse.failed,
        browse.dead_groups,
        lambda connection: browse.outgoing(connection, ["ehr"]),
        lambda connection: browse.messages(connection, browse.Wanted(disposition="pending")),
        lambda connection: browse.messages(connection, browse.Wanted(patient="7")),
        findings.oldest_pending,
        lambda connection: findings.oldest_waiting(connection, "ehr"),
    ],
)  # fmt: skip
def test_no_look_of_the_pages_walks_messages_or_deliveries(filled: str, look: Any) -> None:
    engine = database.reader(filled)
    with engine.connect() as connection:
        for statement, plan in _plans(engine, connection, look):
            walked = [node["Relation Name"] for node in _nodes(plan) if node["Node Type"] == "Seq Scan"]
            assert not {"message", "delivery", "body", "result", "patient"} & set(walked), statement
    engine.dispose()


def _plans(engine: Engine, connection: Connection, look: Any) -> list[tuple[str, dict[str, Any]]]:
    """Each statement of ``look`` with its plan."""
    asked: list[tuple[str, Any]] = []
    listener = lambda conn, cursor, statement, parameters, *_: asked.append((statement, parameters))  # noqa: E731
    event.listen(engine, "before_cursor_execute", listener)
    look(connection)
    event.remove(engine, "before_cursor_execute", listener)
    assert asked
    found = []
    for statement, parameters in asked:
        row = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
        found.append((statement, (row if isinstance(row, list) else json.loads(row))[0]["Plan"]))
    return found


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.value.endswith("_bodies")])
def test_what_was_let_go_in_earlier_years_is_not_walked_again(filled: str, kind: Kind) -> None:
    engine = database.reader(filled)
    with engine.connect() as connection:
        plans = _plans(engine, connection, lambda connection: purge.sweep(connection, kind, 0, 0, 200))
        [(_, plan)] = plans
        # Or that of those that could not be read, which are few.
        assert {node.get("Index Name") for node in _nodes(plan)} & {"ix_message_kept", "ix_message_failed"}
    engine.dispose()


def test_people_who_are_not_on_the_register_are_found_by_their_age(filled: str) -> None:
    engine = database.reader(filled)
    with engine.connect() as connection:
        plans = _plans(engine, connection, lambda connection: purge.unenrolled(connection, 0, 200))
        used = {node.get("Index Name") for _, plan in plans for node in _nodes(plan)}
        assert {"ix_patient_unenrolled", "ix_message_unenrolled_body"} <= used
    engine.dispose()
