"""``make bundle``: one archive with everything that a machine without a package index needs, tried out before it is kept.

Wheels come from the hash-locked requirements, for the Python and platform that this runs on. Nothing but the standard
library, pip and the build backend of the locks.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOYED = (
    "neutroflag.service",
    "neutroflag-backup.service",
    "neutroflag-backup.timer",
    "neutroflag.example.toml",
    "neutroflag.system.toml",
)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="neutroflag-bundle-") as scratch:
        folder = Path(scratch) / "staged"
        folder.mkdir()
        wheel = build_wheel(folder)
        download(folder / "wheels")
        name = f"{'-'.join(wheel.name.split('-')[:2])}-bundle"
        lay_out(folder, ROOT)
        archive = ROOT / "dist" / f"{name}.tar.gz"
        archive.parent.mkdir(exist_ok=True)
        partial = archive.with_suffix(".partial")
        pack(folder, name, partial)
        try:
            try_out(partial, name, Path(scratch))
            partial.replace(archive)
        finally:
            partial.unlink(missing_ok=True)
    print(f"{archive.relative_to(ROOT)}: {archive.stat().st_size // 1_000_000} MB, installed offline and tried")
    return 0


def build_wheel(folder: Path) -> Path:
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT)
    (wheel,) = folder.glob("neutroflag-*.whl")
    return wheel


def download(wheels: Path) -> None:
    run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes",
            "--only-binary", ":all:", "-r", str(ROOT / "requirements.lock"), "-d", str(wheels),
        ]
    )  # fmt: skip


def lay_out(folder: Path, root: Path) -> None:
    """Everything but the wheels, and the sums of all."""
    shutil.copy2(root / "deploy" / "bundle" / "install.sh", folder / "install.sh")
    shutil.copy2(root / "requirements.lock", folder / "requirements.lock")
    bill = root / "dist" / "neutroflag.cdx.json"
    if bill.exists():
        shutil.copy2(bill, folder / "sbom.cdx.json")
    (folder / "PYTHON").write_text(f"{sys.version_info[0]}.{sys.version_info[1]} {sysconfig.get_platform()}\n")
    deploy, docs = folder / "deploy", folder / "docs"
    deploy.mkdir()
    for name in DEPLOYED:
        shutil.copy2(root / "deploy" / name, deploy / name)
    shutil.copytree(root / "deploy" / "two-hosts", deploy / "two-hosts")
    shutil.copytree(root / "docs", docs)
    for name in ("README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy2(root / name, docs / name)
    (folder / "SHA256SUMS").write_text("".join(f"{total}  {name}\n" for name, total in sums(folder)))


def sums(folder: Path) -> Iterator[tuple[str, str]]:
    """(path, SHA-256) of every file but the list itself, in the order of the names."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != "SHA256SUMS":
            yield file.relative_to(folder).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest()


def pack(folder: Path, name: str, archive: Path) -> None:
    """The same files give the same archive: no owner, no time, names in order."""
    with (
        archive.open("wb") as out,
        gzip.GzipFile(fileobj=out, mode="wb", mtime=0, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                raw = file.read_bytes()
                entry = tarfile.TarInfo(f"{name}/{file.relative_to(folder).as_posix()}")
                entry.size, entry.mode = len(raw), 0o755 if file.name == "install.sh" else 0o644
                tar.addfile(entry, io.BytesIO(raw))


def try_out(archive: Path, name: str, scratch: Path) -> None:
    """Installs it where there is no index, and lets what was installed work: version, protocols, a database, its copy."""
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")
    prefix, home = scratch / "prefix", scratch / "home"
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "PYTHON": sys.executable,
        # Whatever is set up on this machine, there is no index to fall back to.
        "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip
    run([str(scratch / name / "install.sh"), str(prefix)], env=environment)
    program = str(prefix / "bin" / "neutroflag")
    for arguments in (
        ("version",),
        ("rules", "check"),
        ("config", "check", "--config", str(prefix / "share" / "deploy" / "neutroflag.example.toml")),
        ("db", "upgrade"),
        ("db", "backup", "copy.db"),
        ("db", "verify"),
    ):
        run([program, *arguments], env=environment, cwd=home, stdout=subprocess.DEVNULL)


def run(command: list[str], **options: Any) -> None:
    done = subprocess.run(command, check=False, **options)  # noqa: S603  # our own commands, no shell
    if done.returncode:
        raise SystemExit(f"bundle: {' '.join(command[:4])} ... failed with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
