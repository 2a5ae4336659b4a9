"""The durable middle. Doors and engine see the port and the Store; tables and SQL stay inside."""

from store.port import Accepted, Envelope, Inbox, StoreUnavailable
from store.store import AlreadyRunning, SchemaOutdated, Snapshot, Store

__all__ = [
    "Accepted",
    "AlreadyRunning",
    "Envelope",
    "Inbox",
    "SchemaOutdated",
    "Snapshot",
    "Store",
    "StoreUnavailable",
]
