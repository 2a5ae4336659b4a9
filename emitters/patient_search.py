"""Looks up the server's Patient for alerts: whatever came to wait during the last search is asked for in the next, as one.

Rule of the file: of a common search only a whole answer that holds exactly one patient for an alert is believed. Where it
does not, that alert is asked for by itself, and what its own search says is what holds.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from emitters.fhir_patients import choose
from emitters.fhir_terms import Resource
from emitters.sink import Refused

__all__ = ["PatientSearch"]

# Identifiers of one search, so that its URL stays short; searches under way at a time, so that a slow one holds not all.
_A_SEARCH: Final = 24
_AT_ONCE: Final = 2


class _Waiting(NamedTuple):
    asked: Sequence[Resource]
    found: asyncio.Future[str | Refused]


class PatientSearch:
    def __init__(
        self, search: Callable[[Sequence[Resource]], Awaitable[Resource | Refused]], *, most: int, keep_s: float
    ) -> None:
        """``search`` gives the searchset of Patients that carry any of these identifiers, or the server's refusal; what it
        raises is its callers' to have. ``most`` references are kept, each for ``keep_s``."""
        self._search = search
        self._most = most
        self._keep_s = keep_s
        self._known: OrderedDict[tuple[str, ...], tuple[float, str]] = OrderedDict()
        self._waiting: list[_Waiting] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def find(self, key: tuple[str, ...], asked: Sequence[Resource]) -> str | Refused:
        """``Patient/<id>``. ``key`` names the alert's patient for the next time."""
        now = asyncio.get_running_loop().time()
        known = self._known.get(key)
        if known is not None and now - known[0] < self._keep_s:
            self._known.move_to_end(key)
            return known[1]
        waiting = _Waiting(asked, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if len(self._under_way) < _AT_ONCE:
            task = asyncio.create_task(self._run(), name="patients")
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        found = await waiting.found
        if isinstance(found, str):
            self._known[key] = (now, found)
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return found

    def forget(self, key: tuple[str, ...]) -> None:
        """The patient may have been merged or removed since."""
        self._known.pop(key, None)

    async def close(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            batch = self._taken()
            try:
                await self._answer(batch)
            except asyncio.CancelledError:
                for one in batch:
                    one.found.cancel()
                raise
            except Exception as error:
                for one in batch:
                    if not one.found.done():
                        one.found.set_exception(error)

    def _taken(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        tokens = 0
        while self._waiting and (not batch or tokens + len(self._waiting[0].asked) <= _A_SEARCH):
            batch.append(self._waiting.pop(0))
            tokens += len(batch[-1].asked)
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        left = batch
        if len(batch) > 1:
            bundle = await self._search([one for waiting in batch for one in waiting.asked])
            left = [waiting for waiting in batch if not _found_among(bundle, waiting)]
        for waiting in left:
            alone = await self._search(waiting.asked)
            _give(waiting, alone if isinstance(alone, Refused) else choose(alone, waiting.asked))


def _found_among(bundle: Resource | Refused, waiting: _Waiting) -> bool:
    try:
        if isinstance(bundle, Refused) or not _is_whole(bundle):
            return False
        found = choose(bundle, waiting.asked)
    except (AttributeError, TypeError, KeyError):
        return False  # one odd resource is the matter of its own alert
    if isinstance(found, str):
        _give(waiting, found)
    return isinstance(found, str)


def _is_whole(bundle: Resource) -> bool:
    """A page of more would hide a second patient with the same identifier."""
    links = bundle.get("link") or ()
    more = any(link.get("relation") == "next" for link in links)
    total = bundle.get("total")
    return not more and (total is None or total <= len(bundle.get("entry") or ()))


def _give(waiting: _Waiting, found: str | Refused) -> None:
    if not waiting.found.done():  # whoever asked may have gone
        waiting.found.set_result(found)
