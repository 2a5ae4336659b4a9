"""The tables, described once for SQLite and PostgreSQL.

Times are integers: milliseconds since 1970, UTC. Clinical values travel as JSON written by msgspec (decimals as strings),
because they are read whole or not at all; what is searched or ordered by has a column of its own.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)

__all__ = [
    "account",
    "alert",
    "answer",
    "assessment",
    "audit",
    "body",
    "body_key",
    "claim",
    "counter",
    "delivery",
    "feed",
    "finding",
    "identifier",
    "lease",
    "ledger",
    "message",
    "message_ids",
    "metadata",
    "patient",
    "publication",
    "result",
    "session",
    "step",
]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite's rowid tables want exactly INTEGER for the key; PostgreSQL needs 64 bits.
_Id = BigInteger().with_variant(Integer, "sqlite")

# On a server, where nobody can count on from the last one. SQLite's messages do: it has none of these.
message_ids = Sequence("message_ids", metadata=metadata, data_type=BigInteger)

message = Table(
    "message",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("received_at", BigInteger, nullable=False),
    Column("channel", String, nullable=False),
    Column("format", String, nullable=False),
    Column("peer", String, nullable=False),
    Column("sender", String, nullable=False),
    Column("control_id", String, nullable=False),
    Column("message_type", String, nullable=False),
    Column("dedupe_key", LargeBinary),
    Column("content_hash", LargeBinary, nullable=False),
    Column("duplicate_of", _Id),
    Column("conflicts_with", _Id),
    Column("replay_of", _Id),
    Column("disposition", String),
    Column("reason", String),
    Column("judged_at", BigInteger),
    Column("size", Integer, nullable=False),
    # Whether its bytes are in ``body``.
    Column("kept", Boolean, nullable=False),
    Index(
        "ix_message_pending",
        "id",
        sqlite_where=text("disposition IS NULL"),
        postgresql_where=text("disposition IS NULL"),
    ),
    Index(
        "ix_message_dedupe_key",
        "dedupe_key",
        sqlite_where=text("dedupe_key IS NOT NULL"),
        postgresql_where=text("dedupe_key IS NOT NULL"),
    ),
    # Without those that wait: each message would be put into it twice and taken out once.
    Index(
        "ix_message_disposition_id",
        "disposition",
        "id",
        sqlite_where=text("disposition IS NOT NULL"),
        postgresql_where=text("disposition IS NOT NULL"),
    ),
    # What could not be read or judged, by reason: few among many.
    Index(
        "ix_message_failed",
        "disposition",
        "reason",
        "id",
        sqlite_where=text("disposition IN ('set_aside', 'unassessable')"),
        postgresql_where=text("disposition IN ('set_aside', 'unassessable')"),
    ),
    # A first message stays as long as one that names it.
    Index(
        "ix_message_duplicate_of",
        "duplicate_of",
        sqlite_where=text("duplicate_of IS NOT NULL"),
        postgresql_where=text("duplicate_of IS NOT NULL"),
    ),
    Index(
        "ix_message_replay_of",
        "replay_of",
        sqlite_where=text("replay_of IS NOT NULL"),
        postgresql_where=text("replay_of IS NOT NULL"),
    ),
    # Bodies that wait for their removal: without it, each sweep would walk all that were removed in earlier years. For
    # SQLite in the very words of the query, else it is not used, and with ``kept``, else it is no better than the one above.
    Index(
        "ix_message_kept",
        "disposition",
        "kept",
        "id",
        sqlite_where=text("kept = 1 AND disposition IS NOT NULL"),
        postgresql_where=text("kept AND disposition IS NOT NULL"),
    ),
    Index(
        "ix_message_unenrolled_body",
        "disposition",
        "received_at",
        sqlite_where=text("disposition = 'unenrolled' AND kept = 1"),
        postgresql_where=text("disposition = 'unenrolled' AND kept"),
    ),
)

# The bytes of a message and what became of its observations, beside the row that its disposition is written into: SQLite
# writes a row anew as a whole, and the bytes of a blood count are twenty times the rest.
body = Table(
    "body",
    metadata,
    Column("message_id", _Id, primary_key=True, autoincrement=False),
    # Which key they are sealed with (store.seal); NULL: in the clear. Before the bytes, so that it is found without them.
    Column("key_id", String),
    Column("raw", LargeBinary, nullable=False),
)
# The keys that bodies are sealed with, each with something sealed by it, so that a wrong key is noticed at the start.
body_key = Table(
    "body_key",
    metadata,
    Column("id", String, primary_key=True),
    Column("proof", LargeBinary, nullable=False),
)
ledger = Table(
    "ledger",
    metadata,
    Column("message_id", _Id, primary_key=True, autoincrement=False),
    Column("entries", Text, nullable=False),
)

patient = Table(
    "patient",
    metadata,
    Column("id", String, primary_key=True),
    Column("enrolled", Boolean, nullable=False),
    Column("rev", Integer, nullable=False),
    Column("person", Text, nullable=False),
    # Family and given name, folded for searching by what a name begins with; compared byte by byte.
    Column(
        "sort_name",
        String().with_variant(String(collation="C"), "postgresql"),
        nullable=False,
        server_default=text("''"),
    ),
    Column("owner", String, nullable=False),
    Column("course", Text, nullable=False),
    Column("present", Text),
    Column("next_due", String),
    Column("recheck_by", String),
    Column("settle_at", BigInteger),
    # Since when the laboratory has a specimen whose count has not come.
    Column("pending_at", BigInteger),
    # ISO day on which the clock must look at this patient: the sweep is a range of its index. NULL: not by itself.
    Column("watch_on", String),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index(
        "ix_patient_settle_at",
        "settle_at",
        sqlite_where=text("settle_at IS NOT NULL"),
        postgresql_where=text("settle_at IS NOT NULL"),
    ),
    Index(
        "ix_patient_watch_on",
        "watch_on",
        "id",
        sqlite_where=text("watch_on IS NOT NULL"),
        postgresql_where=text("watch_on IS NOT NULL"),
    ),
    Index(
        "ix_patient_unenrolled", "updated_at", sqlite_where=text("enrolled = 0"), postgresql_where=text("NOT enrolled")
    ),
    Index("ix_patient_sort_name_id", "sort_name", "id"),
    # The day's list: who is due or overdue.
    Index(
        "ix_patient_next_due",
        "next_due",
        sqlite_where=text("next_due IS NOT NULL"),
        postgresql_where=text("next_due IS NOT NULL"),
    ),
    Index(
        "ix_patient_recheck_by",
        "recheck_by",
        sqlite_where=text("recheck_by IS NOT NULL"),
        postgresql_where=text("recheck_by IS NOT NULL"),
    ),
)

identifier = Table(
    "identifier",
    metadata,
    Column("value", String, primary_key=True),
    Column("authority", String, primary_key=True),
    Column("type", String, nullable=False),
    Column("patient_id", String, ForeignKey("patient.id", ondelete="CASCADE"), nullable=False, index=True),
)

result = Table(
    "result",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("patient_id", String, ForeignKey("patient.id", ondelete="CASCADE"), nullable=False),
    Column("message_id", _Id, nullable=False, index=True),
    Column("key", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("current", Boolean, nullable=False),
    Column("collected_at", BigInteger),
    Column("body", Text, nullable=False),
    Index("ix_result_patient_id_current", "patient_id", "current"),
)

assessment = Table(
    "assessment",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("patient_id", String, ForeignKey("patient.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("result_id", _Id),
    Column("message_id", _Id, index=True),
    Column("made_at", BigInteger, nullable=False),
    Column("protocol", String, nullable=False),
    Column("category", String, nullable=False),
    Column("action", String, nullable=False),
    Column("level", String, nullable=False),
    Column("body", Text, nullable=False),
    # The course as it was judged: with the versions of the counts filed until then, the verdict can be made again.
    Column("course", Text),
)

alert = Table(
    "alert",
    metadata,
    Column("id", String, primary_key=True),
    Column("patient_id", String, index=True),
    Column("family", String, nullable=False),
    Column("level", String, nullable=False),
    Column("state", String, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("result_id", _Id),
    Column("result_key", String, nullable=False),
    Column("raised_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    # When the next owner is asked. NULL: no answer is awaited.
    Column("answer_by", BigInteger),
    Column("escalation", Integer, nullable=False, server_default=text("0")),
    Column("seen_at", BigInteger),
    Column("body", Text, nullable=False),
    Index("ix_alert_state_level", "state", "level", "raised_at"),
    # Alerts that wait for an answer, by when the next owner is asked.
    Index(
        "ix_alert_open_answer_by",
        "state",
        "answer_by",
        "id",
        sqlite_where=text("state = 'open'"),
        postgresql_where=text("state = 'open'"),
    ),
    Index(
        "ix_alert_open_family",
        "family",
        "raised_at",
        sqlite_where=text("state = 'open'"),
        postgresql_where=text("state = 'open'"),
    ),
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("alert_id", String, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("patient_id", String),
    Column("destination", String, nullable=False),
    # "" = who must answer; else whom this copy is for.
    Column("recipient", String, nullable=False, server_default=text("''")),
    Column("control_id", String, nullable=False, unique=True),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("code", String),
    Column("words", String),
    Column("body", Text, nullable=False),
    UniqueConstraint("alert_id", "revision", "destination", "recipient"),
    Index(
        "ix_delivery_waiting",
        "destination",
        "id",
        sqlite_where=text("state = 'waiting'"),
        postgresql_where=text("state = 'waiting'"),
    ),
    Index(
        "ix_delivery_waiting_patient",
        "patient_id",
        "destination",
        sqlite_where=text("state = 'waiting'"),
        postgresql_where=text("state = 'waiting'"),
    ),
    Index("ix_delivery_state_id", "state", "id"),
    Index(
        "ix_delivery_dead",
        "destination",
        "code",
        "id",
        sqlite_where=text("state = 'dead'"),
        postgresql_where=text("state = 'dead'"),
    ),
)

# Versions of results that a topic is to have (store.publications). ``batch``: numbered, and perhaps there already.
publication = Table(
    "publication",
    metadata,
    Column("destination", String, primary_key=True),
    Column("result_id", _Id, ForeignKey("result.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("current", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("batch", String),
    Index("ix_publication_result_id", "result_id"),
    Index(
        "ix_publication_batch",
        "destination",
        "batch",
        sqlite_where=text("batch IS NOT NULL"),
        postgresql_where=text("batch IS NOT NULL"),
    ),
)

# Append-only and chained (store.trail): ``content`` is the row's own hash, ``link`` that of the chain up to it.
audit = Table(
    "audit",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("patient_id", String, index=True),
    Column("detail", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("link", LargeBinary, nullable=False),
)

# Kept rather than counted: a million messages must not be scanned to say how many there were.
counter = Table(
    "counter",
    metadata,
    Column("name", String, primary_key=True),
    Column("label", String, primary_key=True),
    # Several processes on a server count beside each other; what is counted is the sum.
    Column("slot", Integer, primary_key=True, autoincrement=False, server_default=text("0")),
    Column("value", BigInteger, nullable=False),
)

# On a server, where several processes work: who does what only one may do, and who judges which message, until when by the
# server's clock. ``names``: whom the message speaks of (JSON), NULL until it was read.
lease = Table(
    "lease",
    metadata,
    Column("name", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)
claim = Table(
    "claim",
    metadata,
    Column("message_id", _Id, primary_key=True, autoincrement=False),
    Column("owner", String, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("names", Text),
)
# Worth nothing after a crash of the server, and written with every message: not worth the server's log.
_unlogged: Any = DDL("ALTER TABLE claim SET UNLOGGED")  # type: ignore[no-untyped-call]
event.listen(claim, "after_create", _unlogged.execute_if(dialect="postgresql"))
# Compressed well and quickly, most bodies stay in their row. A server that was built without it keeps its own way.
_compressed: Any = DDL(  # type: ignore[no-untyped-call]
    "DO $$ BEGIN ALTER TABLE body ALTER COLUMN raw SET COMPRESSION lz4; "
    "EXCEPTION WHEN feature_not_supported THEN NULL; END $$"
)
event.listen(body, "after_create", _compressed.execute_if(dialect="postgresql"))

# What a named person decided about an alert. Never changed, never removed: a later decision is a row of its own.
answer = Table(
    "answer",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("alert_id", String, nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("patient_id", String, index=True),
    Column("at", BigInteger, nullable=False),
    Column("by", String, nullable=False),
    Column("decision", String, nullable=False),
    Column("reason", Text, nullable=False),
)

# What became of an alert, step by step (store/steps.py). Rows are added, never changed.
step = Table(
    "step",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("alert_id", String, nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("patient_id", String),
    Column("at", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    # Where it happened ("" = here), who or which role it concerns, and what shows it: never anything of a patient.
    Column("destination", String, nullable=False),
    Column("who", String, nullable=False),
    Column("evidence", Text, nullable=False),
)

# What the clock noticed: open while ``ended_at`` is NULL, and there is one open row at most for a thing (promise 7).
finding = Table(
    "finding",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("patient_id", String, index=True),
    Column("alert_id", String),
    Column("began_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("body", Text, nullable=False),
    Index(
        "uq_finding_open",
        "kind",
        "subject",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index("ix_finding_ended_at", "ended_at", "began_at"),
)

# One sender on one channel, and its own rhythm.
feed = Table(
    "feed",
    metadata,
    Column("channel", String, primary_key=True),
    Column("sender", String, primary_key=True),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)

account = Table(
    "account",
    metadata,
    Column("name", String, primary_key=True),
    Column("password_hash", String, nullable=False),
    Column("role", String, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    # Of an account that an identity provider vouches for; such a one has no password here.
    Column("issuer", String, nullable=False, server_default=""),
    Column("subject", String, nullable=False, server_default=""),
    Index(
        "ux_account_subject",
        "issuer",
        "subject",
        unique=True,
        sqlite_where=text("issuer <> ''"),
        postgresql_where=text("issuer <> ''"),
    ),
)

# Only a hash of the cookie is kept: who reads the database cannot log in with it.
session = Table(
    "session",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("account", String, ForeignKey("account.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("csrf", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

# PostgreSQL samples columns into its own catalogue, where no erasure of ours reaches: not those that hold a person's data.
# They are found by unique keys or not at all, so that its planner loses nothing.
_SAMPLED = {
    body: ("raw",),
    ledger: ("entries",),
    patient: ("person", "sort_name", "course", "present"),
    identifier: ("value",),
    result: ("key", "body"),
    assessment: ("body", "course"),
    alert: ("result_key", "body"),
    delivery: ("words", "body"),
    audit: ("detail",),
    answer: ("reason",),
    finding: ("body",),
}
for _table, _names in _SAMPLED.items():
    for _name in _names:
        _unsampled: Any = DDL(  # type: ignore[no-untyped-call]
            f"ALTER TABLE {_table.name} ALTER COLUMN {_name} SET STATISTICS 0"
        )
        event.listen(_table, "after_create", _unsampled.execute_if(dialect="postgresql"))
