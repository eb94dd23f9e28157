"""What waits for a server, written so that the caller decides how: in the blocking way, or beside many others.

Steps are a generator. It yields what it waits for, a socket or None, READ and WRITE bits, and a deadline in seconds on
the monotonic clock; it is sent True when the socket is ready and False when the deadline has passed before. `run` takes
all steps at once, the background thread (background.py) those of many, each when it can go on, and an Attempt as many
as there is time for.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Generator
from typing import Callable, Generic, Optional, TypeVar

Result = TypeVar("Result")
Awaited = tuple[Optional[socket.socket], int, float]
Steps = Generator[Awaited, bool, Result]


def run(steps: Steps[Result], wait: Callable[[socket.socket | None, int, float], bool]) -> Result:
    """Take all steps, and wait with `wait` between them; what it raises is raised where the steps wait."""
    try:
        awaited = next(steps)
        while True:
            try:
                is_ready = wait(*awaited)
            except BaseException as problem:  # noqa: BLE001 - raised in the steps
                awaited = steps.throw(problem)
            else:
                awaited = steps.send(is_ready)
    except StopIteration as end:
        result: Result = end.value
        return result


class Attempt(Generic[Result]):
    """Steps that are taken piece by piece, while something else is done between two of them."""

    def __init__(self, steps: Steps[Result]) -> None:
        self.is_over = False
        self._steps = steps
        self._awaited: Awaited = (None, 0, 0.0)
        self._results: list[Result] = []
        self._problem: OSError | None = None
        self._advance(lambda: next(steps))

    def go_on(self, wait: Callable[[socket.socket | None, int, float], bool], until: float) -> bool:
        """Take steps until `until` (monotonic seconds) at the longest; return whether it is over."""
        while not self.is_over:
            sock, events, deadline = self._awaited
            is_ready = wait(sock, events, min(deadline, until))
            if not is_ready and time.monotonic() < deadline:
                break
            self._advance(lambda is_ready=is_ready: self._steps.send(is_ready))  # type: ignore[misc]
        return self.is_over

    def result(self) -> Result:
        """Return what came of it when it is over. Raises OSError."""
        if self._problem is not None:
            raise self._problem
        return self._results[0]

    def close(self) -> None:
        """Take no more steps, and close what they have open."""
        self.is_over = True
        self._steps.close()

    def _advance(self, take: Callable[[], Awaited]) -> None:
        try:
            self._awaited = take()
        except StopIteration as end:
            self._results.append(end.value)
            self.is_over = True
        except OSError as problem:
            self._problem = problem
            self.is_over = True
