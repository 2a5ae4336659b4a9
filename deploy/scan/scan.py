"""``make scan``: an SBOM of what is installed, secrets left in the repository, known vulnerabilities. Exit 1 on a find.

The SBOM (CycloneDX, ``dist/neutroflag.cdx.json``) is held against the hash-locked requirements. Where the advisory service
cannot be asked, that is said and counts as a failure: pip-audit alone would report nothing found. ``sbom`` makes that alone;
``--accept`` keeps what was found as looked at.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
LOCK, SBOM = ROOT / "requirements.lock", ROOT / "dist" / "neutroflag.cdx.json"
KNOWN = Path(__file__).with_name("known-secrets.json")
_LOCKED = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[\w,-]+\])?==([^\s;\\]+)", re.MULTILINE)


def main() -> int:
    problems = sbom() if "sbom" in sys.argv else [*sbom(), *secrets(), *advisories()]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def sbom() -> list[str]:
    SBOM.parent.mkdir(exist_ok=True)
    run(
        "cyclonedx-py", "requirements", str(LOCK), "--pyproject", str(ROOT / "pyproject.toml"),
        "--of", "JSON", "--output-reproducible", "--no-validate", "-o", str(SBOM),
    )  # fmt: skip
    problems = differences(json.loads(SBOM.read_text(encoding="utf-8")), LOCK.read_text(encoding="utf-8"))
    print(f"sbom: {SBOM.relative_to(ROOT)}")
    return [f"sbom: {problem}" for problem in problems]


def differences(document: dict[str, Any], lock: str) -> list[str]:
    """Where the SBOM is not what is locked: another package or version, or one without its hash."""
    told = {(item["name"].lower(), item["version"]) for item in document["components"]}
    locked = {(name.lower(), version) for name, version in _LOCKED.findall(lock)}
    bare = [item["name"] for item in document["components"] if "SHA-256" not in json.dumps(item)]
    return [
        *(f"{name} {version}: locked and not told" for name, version in sorted(locked - told)),
        *(f"{name} {version}: told and not locked" for name, version in sorted(told - locked)),
        *(f"{name}: without a hash" for name in bare),
    ]


def secrets() -> list[str]:
    """What looks like one and is not among those that a person has looked at (known-secrets.json, by file and hash)."""
    listed = run("git", "ls-files", where=None).split("\n")
    # Tests and fixtures are full of made-up ones, and what the console serves of others is minified.
    files = [
        name
        for name in listed
        if name
        and not name.endswith((".lock", "package-lock.json", ".png"))
        and not name.startswith(("tests/", "fixtures/", "console/static/"))
    ]
    # Not verified: the tool would send what it found to the services that it takes it for.
    found = json.loads(run("detect-secrets", "scan", "--no-verify", *files))["results"]
    known = set(json.loads(KNOWN.read_text(encoding="utf-8")))
    new = {
        f"{file}:{item['line_number']}: {item['type']}"
        for file, items in found.items()
        for item in items
        if f"{file} {item['hashed_secret']}" not in known
    }
    if "--accept" in sys.argv:
        kept = sorted({f"{file} {item['hashed_secret']}" for file, items in found.items() for item in items})
        KNOWN.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        new = set()
    print(f"secrets: {len(files)} files, {len(new)} new")
    return [f"secrets: {place}" for place in sorted(new)]


def advisories() -> list[str]:
    done = subprocess.run(  # noqa: S603  # our own command
        [
            BIN / "pip-audit",
            "-r",
            LOCK,
            "--require-hashes",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        listed = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return ["advisories: not asked; the service cannot be reached from here"]
    skipped = [item["name"] for item in listed if item.get("skip_reason")]
    print(f"advisories: {len(listed) - len(skipped)} packages asked about, {len(skipped)} not")
    found = [f"advisories: {item['name']}: {one['id']}" for item in listed for one in item.get("vulns", ())]
    return found + ([f"advisories: nothing is known of {len(skipped)} packages"] if skipped else [])


def run(*command: str, where: Path | None = BIN) -> str:
    program = str(where / command[0]) if where is not None else command[0]
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"scan: {command[0]}: {done.stderr.strip()[-500:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
