"""PostgreSQL beside SQLite: the same intake through the same doors, and what the server does raw, in the same run."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.running import send, serve
from bench.scenes import Figures

__all__ = ["connected", "fresh", "intake", "raw_copy", "server"]

_ROW = b"OBX|1|NM|751-8^Neutrophils^LN||2.50|10*9/L|||||F|||\r" * 110  # as long as a blood count of 25 OBX
_GROUP = 64
_numbers = itertools.count(1)


@contextlib.contextmanager
def server() -> Iterator[Any]:
    """A PostgreSQL of this run alone, durable as it comes."""
    path = Path(__file__).resolve().parent.parent / "deploy" / "dev" / "postgresql.py"
    spec = importlib.util.spec_from_file_location("neutroflag_bench_postgresql", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.Postgresql.create()
    try:
        found.start()
        yield found
    finally:
        found.remove()


@contextlib.contextmanager
def connected(url: str) -> Iterator[Any]:
    """By the driver alone; each statement commits."""
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def fresh(found: Any, *, copied: str = "") -> str:
    """The address of a new database on it: an empty one, or a copy of the one at ``copied``, to which nobody is connected."""
    name = f"bench{next(_numbers)}"
    with connected(found.url()) as connection:
        template = f" TEMPLATE {copied.rpartition('/')[2]}" if copied else ""
        connection.execute(f"CREATE DATABASE {name}{template}")
    return str(found.url(name))


def raw_copy(url: str, seconds: float = 3.0) -> float:
    """Rows a second by COPY in committed groups of 64: an upper bound for one connection."""
    rows, group = 0, [(number, _ROW) for number in range(_GROUP)]
    with connected(url) as connection:
        connection.execute("CREATE TABLE raw (id bigint, body bytea)")
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            with connection.transaction(), connection.cursor() as cursor, cursor.copy("COPY raw FROM STDIN") as out:
                for row in group:
                    out.write_row(row)
            rows += _GROUP
        return rows / (time.monotonic() - started)


def intake(url: str, connections: int, count: int, judges: int = 1) -> Figures:
    """``judges`` engines on one database: one opens the door, the others only judge beside it. ``judged`` is the rate at
    which the messages had their dispositions."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        engine = stack.enter_context(serve(Path(folder) / "one", url=url))
        for number in range(1, judges):
            stack.enter_context(serve(Path(folder) / f"judge{number}", url=url, role="judge"))
        warm = send(engine, kind="strangers", run="warm", count=200, connections=connections)
        engine.drained()
        report = send(engine, kind="strangers", run="load", count=count, connections=connections)
        lost = engine.lost(warm["accepted"] + report["accepted"])
        judged = (time.monotonic() - report["started"]) or 1.0
        if report["accepted"] != count:
            lost = f"{count} asked for, {report['accepted']} accepted {report['errors']} {lost}"
        return Figures(report["rate"], report["p50_ms"], report["p99_ms"], count / judged, lost=lost)
