"""The profiles of the senders that this engine hears, by the sender they are for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.config import ConfigError
from ingest.reading import Site, SiteError, parse_site

__all__ = ["load_sites"]


def load_sites(files: Iterable[Path]) -> dict[str, Site]:
    """Profiles by sender. Raises ConfigError naming file and place; two profiles for one sender are an error."""
    found: dict[str, Site] = {}
    problems: list[str] = []
    for path in files:
        try:
            site = parse_site(path.read_text(encoding="utf-8"))
        except SiteError as error:
            problems += [f"sites: {path}: {problem}" for problem in error.problems]
            continue
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"sites: {path}: {getattr(error, 'strerror', None) or 'cannot be read'}")
            continue
        if not site.sender:
            problems.append(f"sites: {path}: sender: must name whose messages it is for, as MSH-3|MSH-4")
        elif site.sender in found:
            problems.append(f"sites: {path}: a second profile for {site.sender!r}")
        else:
            found[site.sender] = site
    if problems:
        raise ConfigError(problems)
    return found
