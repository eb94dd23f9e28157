"""An event loop for descriptors, timers and signals, in one thread; nothing in it blocks but the wait itself.

Each turn runs the timers that are due, waits until the next timer is due or a descriptor is ready, and calls back
for each ready one. A callback whose descriptor was removed in the same turn is skipped, since the number may have
been given to another file meanwhile. Signal handlers only wake the loop up; their work is done in a turn.
"""

from __future__ import annotations

import contextlib
import heapq
import selectors
import signal
import socket
import time
from collections import deque
from math import inf
from types import FrameType
from typing import Callable, Union

Watchable = Union[int, socket.SocketType]  # a descriptor, or a socket
READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
_AFTER_FAULT = 1.0  # seconds until a tick that has failed is tried again; at once, it could fail for ever
_LONGEST_WAIT = 3600.0  # seconds; a selector takes no infinity and no huge number


class Timer:
    """A call that is due at some time, unless it is cancelled before; without one, nothing."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None] | None = None) -> None:
        self.call = call

    def cancel(self) -> None:
        """Cancel the call; for a timer that has called already this does nothing."""
        self.call = None


class Loop:
    """The loop; `tick` is called once a turn with the time, does what is due and returns when to call it next.

    All times are seconds on the monotonic clock; `now` is the time of this turn. An exception of a callback is logged,
    and the loop goes on.
    """

    def __init__(self, tick: Callable[[float], float] = lambda now: inf) -> None:
        self.now = time.monotonic()
        self._tick = tick
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_number = 0
        self._unwatched: set[int] = set()
        self._stopped = False
        self._calls: deque[Callable[[], None]] = deque()  # what other threads ask for
        self._signals: dict[int, Callable[[], None]] = {}
        self._handlers_before: dict[int, object] = {}
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)  # a full pipe is no harm, one byte is enough to wake
        self.watch(self._wake_receiver, READ, self._woken)

    def watch(self, sock: Watchable, events: int, ready: Callable[[int], None]) -> None:
        """Call `ready` with the events (READ, WRITE or both) whenever the descriptor is ready for one of them."""
        self._selector.register(sock, events, ready)

    def change(self, sock: Watchable, events: int, ready: Callable[[int], None]) -> None:
        """Wait for other events on a watched socket."""
        self._selector.modify(sock, events, ready)

    def unwatch(self, sock: Watchable) -> None:
        """Stop watching a socket; call it before the socket is closed."""
        self._unwatched.add(self._selector.unregister(sock).fd)

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        """Call once, in the first turn at or after `when`."""
        timer = Timer(call)
        self._timer_number += 1
        heapq.heappush(self._timers, (when, self._timer_number, timer))
        return timer

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        """Call in a turn of the loop after the process has got a signal. Only in the main thread."""
        if not self._signals:
            signal.set_wakeup_fd(self._wake_sender.fileno(), warn_on_full_buffer=False)
        self._signals[number] = call
        self._handlers_before.setdefault(number, signal.signal(number, _do_nothing))

    def run(self) -> None:
        """Run turns until `stop` is called; return at once if it was called before."""
        while not self._stopped:
            self.turn()
        self._stopped = False

    def turn(self, longest: float = inf) -> None:
        """Do what is due, wait for the next timer or descriptor, `longest` seconds at most, and call back."""
        self.now = now = time.monotonic()
        if self._timers:
            self._run_timers()
        due = min(self._guarded_tick(now), now + longest)
        if self._timers:  # the tick may have set some
            due = min(due, self._timers[0][0])
        if self._stopped:
            return
        ready = self._selector.select(None if due == inf else min(max(due - now, 0.0), _LONGEST_WAIT))
        self.now = time.monotonic()
        self._unwatched.clear()
        for key, events in ready:
            if key.fd not in self._unwatched:
                try:
                    key.data(events)
                except Exception:  # noqa: BLE001
                    _report_fault()

    def call_from_thread(self, call: Callable[[], None]) -> None:
        """Call once, in a turn of the loop. Another thread may use this and `stop`, and nothing else."""
        self._calls.append(call)
        with contextlib.suppress(OSError):  # a full pipe wakes as well
            self._wake_sender.send(b"\0")

    def run_calls(self) -> None:
        """Run what other threads have asked for, in the loop's own thread: for a time in which no turns are run."""
        while self._calls:
            try:
                self._calls.popleft()()
            except Exception:  # noqa: BLE001
                _report_fault()

    def fileno(self) -> int:
        """Return a descriptor for waiting elsewhere: it is readable when a turn has something to do."""
        return self._selector.fileno()

    @property
    def next_timer(self) -> float:
        """The time when the next timer is due; infinite if there is none."""
        return self._timers[0][0] if self._timers else inf

    def stop(self) -> None:
        """Return from `run` at the end of this turn. It may be called from any thread."""
        self._stopped = True
        with contextlib.suppress(OSError):
            self._wake_sender.send(b"\0")

    def close(self) -> None:
        """Close the loop's own descriptors and restore the signal handlers. Sockets that were watched stay open."""
        self._restore_handlers()
        # Signals that came after the last turn go to the handlers that count from now on.
        with contextlib.suppress(BlockingIOError):
            for number in self._signals.keys() & set(self._wake_receiver.recv(4096)):
                signal.raise_signal(number)
        self._close_descriptors()

    def detach_after_fork(self) -> None:
        """Let go of the parent's loop in a process that was forked.

        What its descriptors hold is for the parent: nothing is read. Signals have to be blocked since the fork.
        """
        self._restore_handlers()
        self._close_descriptors()

    def _restore_handlers(self) -> None:
        if self._signals:
            signal.set_wakeup_fd(-1)
            for number, handler in self._handlers_before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    def _close_descriptors(self) -> None:
        self._wake_sender.close()
        self._wake_receiver.close()
        self._selector.close()

    def _run_timers(self) -> None:
        """Call the timers that are due."""
        while self._timers:
            when, _, timer = self._timers[0]
            if timer.call is not None and when > self.now:
                return
            heapq.heappop(self._timers)
            if timer.call is not None:
                try:
                    timer.call()
                except Exception:  # noqa: BLE001
                    _report_fault()

    def _guarded_tick(self, now: float) -> float:
        try:
            return self._tick(now)
        except Exception:  # noqa: BLE001
            _report_fault()
            return now + _AFTER_FAULT

    def _woken(self, events: int) -> None:
        for number in dict.fromkeys(self._wake_receiver.recv(4096)):
            call = self._signals.get(number)
            if call is not None:
                call()
        self.run_calls()


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal, so that it is neither ignored nor ends the process; the wake-up byte does the work."""


def _report_fault() -> None:
    """Log what went wrong and go on: a fault of ours in one place must not end all that a server does."""
    import logging  # only here, for an import that tools which run a command do without

    logging.getLogger(__name__).exception("a fault of ours, which is passed over")
