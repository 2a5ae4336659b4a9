"""``neutroflag serve``: settings checked, doors opened, signals heard, everything drained at the end."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from engine.cli import FAILURE, NOT_READY, OK, USAGE
from engine.config import ConfigError, Settings, exposed, load

if TYPE_CHECKING:
    from engine.compose import Engine

__all__ = ["refusals", "serve_command"]


def serve_command(config: Path | None, *, stderr: TextIO) -> int:
    try:
        settings = load(config)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=stderr)
        return USAGE
    problems, warnings = refusals(settings)
    for line in (*problems, *(f"warning: {warning}" for warning in warnings)):
        print(line, file=stderr)
    if problems:
        return USAGE
    import uvloop

    from engine.observe import configure

    configure()
    return uvloop.run(_serve(settings, stderr))


def refusals(settings: Settings) -> tuple[list[str], list[str]]:
    """(what stops the engine before it starts, what somebody should see to): exposure, certificates, secrets."""
    from engine.body_keys import ring_for
    from engine.duty import faults
    from engine.keys import credential_problems
    from engine.sites import load_sites
    from engine.texts import wordings_of
    from engine.tls import inspect
    from engine.tokens import access_of

    found = inspect(settings)
    problems = [*exposed(settings), *faults(settings), *found.problems, *credential_problems(settings)]
    try:
        access_of(settings)
    except ConfigError as error:
        problems += error.problems
    if settings.console.oidc is not None:
        from engine.oidc import Oidc

        problems += Oidc(settings.console.oidc).problems()
    try:
        ring_for(settings)
    except ConfigError as error:
        problems += error.problems
    try:
        load_sites(settings.sites.files)
    except ConfigError as error:
        problems += error.problems
    try:
        wordings_of(settings)
    except ConfigError as error:
        problems += error.problems
    return problems, list(found.warnings)


async def _serve(settings: Settings, stderr: TextIO) -> int:
    from engine.compose import Engine, PortTaken
    from engine.heap import set_aside_what_stays
    from store import AlreadyRunning, SchemaOutdated, StoreUnavailable

    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    engine = Engine(settings, separate=True)
    engine.meters.attend(asyncio.get_running_loop())
    try:
        await engine.start()
    except (SchemaOutdated, AlreadyRunning, StoreUnavailable) as error:
        print(f"store: {error}", file=stderr)
        await engine.stop()
        return NOT_READY
    except PortTaken as error:
        print(f"cannot listen: {error}", file=stderr)
        return NOT_READY
    set_aside_what_stays()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _renew, engine, stderr)
    print(_faces(engine), file=stderr, flush=True)
    engine.failed.add_done_callback(lambda _: told.set())
    await told.wait()
    failed = engine.failed.result() if engine.failed.done() else ""
    await engine.stop()
    if failed:
        # Ending is the honest answer to a lost part: the supervisor starts the whole anew.
        print(f"{failed}: ended unexpectedly", file=stderr)
        return FAILURE
    return OK


def _renew(engine: Engine, stderr: TextIO) -> None:
    if not engine.renew_certificates():
        for problem in refusals(engine.settings)[0]:
            print(f"certificates stay as they were: {problem}", file=stderr, flush=True)


def _faces(engine: Engine) -> str:
    settings = engine.settings
    parts = [f"mode {settings.engine.mode}"]
    if engine.mllp is not None:
        host = settings.mllp.host
        parts += [f"mllp://{host}:{engine.mllp.port}"] if engine.mllp.port else []
        parts += [f"mllps://{host}:{engine.mllp.tls_port}"] if engine.mllp.tls_port else []
    if settings.http.enabled:
        scheme = "https" if settings.http.certificate else "http"
        parts.append(f"{scheme}://{settings.http.host}:{engine.http_port}")
    return "neutroflag: " + "  ".join(parts)
