"""Looking up addresses within a time, though the resolver takes as long as it likes: a thread waits for it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Hashable
from math import inf
from typing import Callable

from ..errors import ServerUnavailable
from .address import Address

_CHECK_EVERY = 0.05  # seconds
_under_way: dict[Hashable, LookUp] = {}


class LookUp:
    """One look-up, for all who want to know the same; it is `done` when `result` has an answer."""

    def __init__(self, key: Hashable, find: Callable[[], list[Address]]) -> None:
        self._key = key
        self._find = find
        self.done = threading.Event()
        self.found: list[Address] = []
        self.problem: Exception | None = None
        threading.Thread(target=self._run, name="ipclocker look-up", daemon=True).start()

    def _run(self) -> None:
        try:
            self.found = self._find()
        except Exception as problem:  # noqa: BLE001 -- it is raised by those who wait
            self.problem = problem
        finally:
            self.done.set()
            _under_way.pop(self._key, None)

    def result(self) -> list[Address]:
        """Return what was found. Raises what `find` has raised."""
        if self.problem is not None:
            raise self.problem
        return self.found


def look_up(host: str, key: Hashable, find: Callable[[], list[Address]]) -> LookUp:
    """Begin to find the addresses of a host; one that is still under way for the same key is joined.

    Raises ServerUnavailable if no thread can be started.
    """
    key = (os.getpid(), key)  # the thread of a parent is not in its fork
    under_way = _under_way.get(key)
    if under_way is None or under_way.done.is_set():  # one that is done may be noted still; what it found may be old
        try:
            under_way = _under_way[key] = LookUp(key, find)
        except RuntimeError as problem:
            raise ServerUnavailable(f"the host '{host}' can't be looked up: {problem}") from None
    return under_way


def find_by(
    deadline: float,
    host: str,
    key: Hashable,
    find: Callable[[], list[Address]],
    check: Callable[[], object] | None = None,
) -> list[Address]:
    """Return what `find` finds for the host by the deadline (monotonic seconds).

    One that is still under way for the same key is waited for, so a silent resolver costs one thread for each name.
    `check` is called again and again meanwhile, and ends the wait by an exception. Raises what `find` raises, and
    ServerUnavailable at the deadline or if no thread can be started.
    """
    if deadline == inf and check is None:
        return find()
    under_way = look_up(host, key, find)
    longest = threading.TIMEOUT_MAX if check is None else _CHECK_EVERY
    while not under_way.done.wait(max(0.0, min(deadline - time.monotonic(), longest))):
        if time.monotonic() >= deadline:
            why = "its look-up takes long; is a name server silent?"
            raise ServerUnavailable(f"the host '{host}' is not known yet: {why}")
        if check is not None:
            check()
    return under_way.result()
