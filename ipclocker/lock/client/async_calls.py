"""Calls that wait for a lock server, each made by a thread of its own while an asyncio event loop goes on.

A pool of threads would not do: those that wait for a lock could keep the release of that very lock from its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from functools import partial
from typing import Callable, TypeVar

from .connection import poll_until
from .connector import ServerConnector

Result = TypeVar("Result")
TAKE_BACK_WITHIN = 2.0  # seconds for taking back a request whose wait was cancelled
_LOOK_AGAIN = 5.0  # seconds; a loop that is closed tells nobody


async def call_in_thread(
    call: Callable[[], Result], connector: ServerConnector | None = None, undo: Callable[[], object] = lambda: None
) -> Result:
    """Return the result of the call, or raise what it raises; `undo` it if the event loop is closed by then.

    If the task is cancelled meanwhile, what the call waits for through the `connector` ends by an exception. Then, too,
    it is only over here when the call has ended, so that nothing of it is under way any more.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def run() -> None:
        try:
            result = call()
        except BaseException as problem:  # noqa: BLE001 -- it is raised in the task
            told = _tell(loop, partial(done.set_exception, problem))
        else:
            told = _tell(loop, partial(done.set_result, result))
        if not told:
            undo()

    with contextlib.ExitStack() as stack:
        interrupt = None if connector is None else stack.enter_context(_Interrupt(connector, loop))
        thread = threading.Thread(target=run, name="ipclocker async", daemon=True)
        thread.start()
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            if interrupt is not None:
                interrupt.set()
            while not done.done():
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await asyncio.wait([done])
            done.exception()  # it is taken note of: that of the interrupt is nothing new
            raise
        except GeneratorExit:
            if interrupt is not None:
                interrupt.set()
            with contextlib.suppress(RuntimeError):  # the garbage collector may have run in that very thread
                thread.join()
            raise


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> bool:
    """Have the loop do it; False if the loop was closed, so that nobody waits any more."""
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:
        return False
    return True


class _Cancelled(Exception):
    """The task that waits was cancelled."""


class _Interrupt:
    """Ends, once, what a thread waits for through a connector; what it has to do then it may wait for."""

    def __init__(self, connector: ServerConnector, loop: asyncio.AbstractEventLoop) -> None:
        self._connector = connector
        self._loop = loop
        self._woken, self._waker = os.pipe()
        self._is_set = False
        self._wait = connector.wait_by(self.wait)
        connector.check = self._check

    def __enter__(self) -> _Interrupt:
        return self

    def __exit__(self, *error: object) -> None:
        self._connector.check = None
        self._connector.wait_by(self._wait)
        os.close(self._woken)
        os.close(self._waker)

    def set(self) -> None:
        """End the wait that is under way, or the next one."""
        os.write(self._waker, b".")

    def _check(self) -> None:
        self.wait(None, 0, time.monotonic())

    def wait(self, sock: socket.socket | None, events: int, deadline: float) -> bool:
        """Wait as `connection.wait_ready` does. Raises _Cancelled once, after `set` or when the loop is closed."""
        if self._is_set:
            return self._wait(sock, events, deadline)
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        if sock is not None:
            poller.register(sock, events)
        while True:
            until = min(deadline, time.monotonic() + _LOOK_AGAIN)
            ready = poll_until(poller, until)
            is_cancelled = self._loop.is_closed() or any(descriptor == self._woken for descriptor, _ in ready)
            if ready or is_cancelled or until == deadline:
                break
        if is_cancelled:
            self._is_set = True
            self._connector.latest = min(self._connector.latest, time.monotonic() + TAKE_BACK_WITHIN)
            raise _Cancelled
        return bool(ready)
