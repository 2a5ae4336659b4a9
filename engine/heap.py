"""The interpreter's collector, told what it need not look at.

What was loaded by the start stays until the end: some hundred thousand objects that a full collection would walk again and
again, in the middle of a batch that senders wait for. What comes with the messages is few and mostly freed by its count.
"""

from __future__ import annotations

import gc

__all__ = ["keep_all", "set_aside_what_stays"]

# Objects made since the last collection, before the next; then younger collections before an older one.
_THRESHOLDS = (10_000, 20, 50)


def keep_all() -> None:
    """To be called first: nothing that is loaded will be let go, and looking for it takes a tenth of a start."""
    gc.disable()


def set_aside_what_stays() -> None:
    """To be called once, when a process has loaded what it runs with."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
