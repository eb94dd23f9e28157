"""Several calls at once, of which each may hang."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Thread
from time import monotonic
from typing import Callable, TypeVar

T = TypeVar("T")


def at_once(calls: Mapping[str, Callable[[], T]], patience: float) -> dict[str, T]:
    """Call all at once, and return the results of those that ended in time. The threads of the others are left."""
    returned: dict[str, T] = {}

    def call(name: str) -> None:
        returned[name] = calls[name]()

    threads = [Thread(target=call, args=(name,), daemon=True) for name in calls]
    for thread in threads:
        thread.start()
    until = monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, until - monotonic()))
    return dict(returned)
