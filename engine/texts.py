"""The site's own texts, read from the file that the settings name."""

from __future__ import annotations

from engine.config import ConfigError, Settings
from rules.texts import SHIPPED, TextsError, Wordings, parse

__all__ = ["wordings_of"]


def wordings_of(settings: Settings) -> Wordings:
    """The shipped texts, or the site's in their places. Raises ConfigError."""
    file = settings.locale.texts
    if file is None:
        return SHIPPED
    try:
        return parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"locale.texts: {file}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"locale.texts: {file}: not UTF-8"]) from error
    except TextsError as error:
        raise ConfigError([f"locale.texts: {file}: {problem}" for problem in error.problems]) from error
