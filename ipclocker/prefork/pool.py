"""The pool of workers that are wanted (pure: what happened and when comes in, what to do comes out).

There is a slot for each worker that is wanted. A slot is empty, or it has its worker, or in a rolling renewal it has
its worker and a successor that is being started. When the successor is up, it takes over the slot, and the worker is
told to stop; from then on only its end matters to the pool. One slot is renewed at a time, that of the oldest worker
first: so however often a renewal is asked for, none is left out.

A worker is up when it has said so. If the one that it follows has never said anything, the program is of a kind that
does not, and counts as up when it has lived for a while.

Deaths are answered as the restart policy says, each slot's by itself. A worker that was told to stop, or that ended
well after it had done something, did not die: its slot is filled at once. One that somebody else has told to stop
did not fail either, but nobody here knows how often that will happen: its slot is filled after the first pause.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import Callable

from ..process.restart_policy import RestartPolicy

# Seconds; a worker that ends sooner has failed, unless it has served or was told to. Most that can't run do.
GOOD_RUN = 1.0
READY_WITHIN = 60.0  # seconds after which a worker counts as up without saying so: a renewal has to end some time


class Worker:
    """A worker.

    started_at: when it was started
    generation: the number of renewals before its start
    is_ready: True if it has said that it is up
    is_stopping: True if it was told to stop
    """

    __slots__ = ("generation", "is_ready", "is_stopping", "pid", "started_at")

    def __init__(self, pid: int, started_at: float, generation: int) -> None:
        self.pid = pid
        self.started_at = started_at
        self.generation = generation
        self.is_ready = False
        self.is_stopping = False


class _Slot:
    __slots__ = ("not_before", "policy", "successor", "worker")

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.worker: Worker | None = None
        self.successor: Worker | None = None
        self.not_before = -inf  # when the next may be started here


class Pool:
    """The workers, in their slots. All times are seconds on a clock that does not go back."""

    def __init__(self, chance: Callable[[], float]) -> None:
        """Begin with no slots. `chance` returns a number from 0 up to but not including 1."""
        self.start_delay = 0.0  # the least time between two starts
        self.up_after = 0.0  # the time after which a worker counts as up that does not say so
        self.rolling = True  # a renewal starts the successor before the worker is told to stop, else when it has ended
        self._chance = chance
        self._slots: list[_Slot] = []
        self._generation = 0
        self._last_start = -inf

    def resize(self, size: int) -> list[int]:
        """Set the number of workers that are wanted; return the pids of those to tell to stop."""
        while len(self._slots) < size:
            self._slots.append(_Slot(RestartPolicy(self._chance, good_run=GOOD_RUN)))
        leaving: list[Worker] = []
        while len(self._slots) > size:
            slot = self._slots.pop()
            leaving += [worker for worker in (slot.worker, slot.successor) if worker is not None]
        return _mark_stopping(leaving)

    def renew(self) -> list[int]:
        """Let others replace all workers there are now; return the pids of those to tell to stop at once."""
        self._generation += 1
        return [] if self.rolling else self.stop()

    def stop(self) -> list[int]:
        """Let all workers stop; return the pids of those to tell."""
        return _mark_stopping(self._in_slots())

    def wants(self, now: float) -> bool:
        """Tell if a worker is to be started now. Then `started` or `start_failed` is to be called."""
        return self._due_slot(now) is not None

    def started(self, pid: int, now: float) -> None:
        """Take note that a worker was started, since one was wanted."""
        slot = self._due_slot(now)
        assert slot is not None
        worker = Worker(pid, now, self._generation)
        if slot.worker is None:
            slot.worker = worker
        else:
            slot.successor = worker
        slot.policy.started(now)
        self._last_start = now

    def start_failed(self, now: float) -> float:
        """Take note that a wanted worker can't be started; return the seconds until it is tried again."""
        slot = self._due_slot(now)
        assert slot is not None
        pause = slot.policy.died(now)
        slot.not_before = now + pause
        return pause

    def said_ready(self, pid: int) -> None:
        """Take note that a worker says that it is up."""
        for worker in self._in_slots():
            if worker.pid == pid:
                worker.is_ready = True

    def take_over(self, now: float) -> list[int]:
        """Give their slots to successors that are up by now; return the pids of those to tell to stop."""
        leaving = []
        for slot in self._slots:
            if slot.worker is not None and slot.successor is not None and self._up_at(slot) <= now:
                leaving.append(slot.worker)
                slot.worker, slot.successor = slot.successor, None
        return _mark_stopping(leaving)

    def ended(self, pid: int, now: float, *, well: bool, served: bool = False, asked: bool = False) -> float | None:
        """Take note that a worker has ended; return the seconds until its slot is filled if it failed, else None.

        `well`: with status 0; `served`: after it had done something; `asked`: since somebody else told it to stop.
        """
        for slot in self._slots:
            for worker in (slot.worker, slot.successor):
                if worker is not None and worker.pid == pid:
                    well = well and (served or now - worker.started_at >= GOOD_RUN)
                    return self._vacate(slot, worker, now, well, asked)
        return None

    def next_change(self) -> float:
        """Return when there is something to do if nothing happens before; infinity if there is not."""
        due = [self._up_at(slot) for slot in self._slots if slot.successor is not None]
        due += [self._start_at(slot) for slot in self._short()]
        return min(due, default=inf)

    def _vacate(self, slot: _Slot, worker: Worker, now: float, well: bool, asked: bool) -> float | None:
        successor, slot.successor = slot.successor, None
        if slot.worker is worker:
            slot.worker = successor
            if successor is not None:  # which takes over a little early
                return None
        if worker.is_stopping or well or asked:
            slot.policy.reset()
        if worker.is_stopping or well:
            slot.not_before = now
            return None
        pause = slot.policy.died(now)
        if asked:
            slot.policy.reset()
        slot.not_before = now + pause
        return pause

    def _up_at(self, slot: _Slot) -> float:
        assert slot.worker is not None and slot.successor is not None
        if slot.successor.is_ready:
            return -inf
        return slot.successor.started_at + (READY_WITHIN if slot.worker.is_ready else self.up_after)

    def _due_slot(self, now: float) -> _Slot | None:
        return next((slot for slot in self._short() if self._start_at(slot) <= now), None)

    def _start_at(self, slot: _Slot) -> float:
        return max(slot.not_before, self._last_start + self.start_delay)

    def _short(self) -> list[_Slot]:
        """Return the slots that need a worker, sooner or later: the empty ones before the one to renew."""
        renewed = self._to_renew()
        return [slot for slot in self._slots if slot.worker is None] + ([renewed] if renewed is not None else [])

    def _to_renew(self) -> _Slot | None:
        """Return the slot that gets a successor next; None if one is being renewed or none is out of date."""
        if not self.rolling or any(slot.successor is not None for slot in self._slots):
            return None
        return min(filter(self._is_out_of_date, self._slots), key=_started_at, default=None)

    def _is_out_of_date(self, slot: _Slot) -> bool:
        worker = slot.worker
        return worker is not None and worker.generation < self._generation and not worker.is_stopping

    def _in_slots(self) -> Iterator[Worker]:
        for slot in self._slots:
            if slot.worker is not None:
                yield slot.worker
            if slot.successor is not None:
                yield slot.successor


def _started_at(slot: _Slot) -> float:
    return slot.worker.started_at if slot.worker is not None else inf


def _mark_stopping(workers: Iterable[Worker]) -> list[int]:
    """Mark these as told to stop; return the pids of those that were not before."""
    new = [worker for worker in workers if not worker.is_stopping]
    for worker in new:
        worker.is_stopping = True
    return [worker.pid for worker in new]
