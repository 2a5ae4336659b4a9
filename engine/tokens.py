"""The bearer tokens of the settings, read from their files, and the issuer of others."""

from __future__ import annotations

from engine.config import ConfigError, Settings
from ingest.access import Access, Token, digest

__all__ = ["access_of"]

_SHORTEST = 16


def access_of(settings: Settings) -> Access:
    """Raises ConfigError, each problem naming a setting and a file, never a secret."""
    problems: list[str] = []
    tokens: list[Token] = []
    for number, item in enumerate(settings.http.token):
        place = f"http.token[{number}].file: {item.file}"
        try:
            secret = item.file.read_text(encoding="utf-8").strip()
        except OSError as error:
            problems.append(f"{place}: {error.strerror}")
            continue
        except UnicodeDecodeError:
            problems.append(f"{place}: not text")
            continue
        if len(secret) < _SHORTEST or not secret.isascii() or not secret.isprintable() or " " in secret:
            problems.append(f"{place}: needs {_SHORTEST} or more ASCII characters on one line, without spaces")
            continue
        token = Token(item.name, digest(secret), frozenset(item.faces))
        if any(token.secret == other.secret for other in tokens):
            problems.append(f"{place}: holds the secret of another token")
        tokens.append(token)
    issuer = None
    if settings.http.issuer is not None:
        from engine.issuer import Jwts

        issuer = Jwts(settings.http.issuer)
        problems += issuer.problems()
    if problems:
        raise ConfigError(problems)
    return Access(tokens, issuer)
