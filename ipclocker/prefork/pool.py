"""Which workers there shall be (pure: what happened and when comes in, what to do comes out).

There is a place for each worker that is wanted. A place is empty, or it has its worker, or in a rolling renewal it has
its worker and a successor that is being started. When the successor is up, the worker gives it the place and is told
to stop; what becomes of it then is no matter of the pool's any more, but its end is. One place is renewed at a time,
that of the oldest worker first, so that however often a renewal is asked for, none is left out.

A worker is up when it has said so. If the one that it follows has never said anything, the program is of a kind that
does not, and is taken to be up when it has lived for a while.

Deaths are answered as the restart policy says, each place's by itself. A worker that was told to stop, or that ended
well after it had done something, did not die: its place is filled at once. One that somebody else has told to stop
did not fail either, but for how often that happens nobody here can answer: its place is filled after the first pause.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import Callable, NamedTuple, Optional

from ..process.restart_policy import RestartPolicy

GOOD_RUN = 1.0  # seconds; a worker that ends before has failed, unless it has served or was told to
READY_WITHIN = 60.0  # seconds in which a worker has to say that it is up; then it is taken to be


class Worker:
    """A worker: `born` is when it was started, `generation` before which renewal, `told` whether it shall stop."""

    __slots__ = ("born", "generation", "pid", "said", "told")

    def __init__(self, pid: int, born: float, generation: int) -> None:
        self.pid = pid
        self.born = born
        self.generation = generation
        self.said = False
        self.told = False


class _Slot:
    __slots__ = ("not_before", "policy", "successor", "worker")

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.worker: Worker | None = None
        self.successor: Worker | None = None
        self.not_before = -inf  # when the next may be started here


class Death(NamedTuple):
    """The end of a worker: whether it was told to stop; if it failed, the seconds until another takes its place."""

    told: bool
    pause: Optional[float]


class Pool:
    """The workers, in their places and on their way out. All times are seconds on a clock that does not go back.

    `start_delay` is the least time between two starts; `up_after`, after which a worker is up that does not say so;
    `rolling`, whether a renewal starts the successor before the worker is told to stop, or after it has ended.
    `chance` returns a number from 0 up to but not including 1.
    """

    def __init__(
        self, chance: Callable[[], float], *, start_delay: float = 0.0, up_after: float = 0.0, rolling: bool = True
    ) -> None:
        self.start_delay = start_delay
        self.up_after = up_after
        self.rolling = rolling
        self._chance = chance
        self._places: list[_Slot] = []
        self._leaving: dict[int, Worker] = {}
        self._generation = 0
        self._last_start = -inf

    def resize(self, size: int) -> list[int]:
        """So many workers shall there be; those that are to be told to stop."""
        while len(self._places) < size:
            self._places.append(_Slot(RestartPolicy(self._chance, good_run=GOOD_RUN)))
        leaving: list[Worker] = []
        while len(self._places) > size:
            place = self._places.pop()
            leaving += [worker for worker in (place.worker, place.successor) if worker is not None]
        self._leaving.update((worker.pid, worker) for worker in leaving)
        return _tell(leaving)

    def renew(self) -> list[int]:
        """Let others take the places of all workers there are now; those that are to be told to stop at once."""
        self._generation += 1
        return [] if self.rolling else self.stop()

    def stop(self) -> list[int]:
        """All that are to be told to stop, if all shall."""
        return _tell(self._in_place())

    def wants(self, now: float) -> bool:
        """Whether a worker is to be started now. Then `started` or `start_failed` is to be called."""
        return self._due_place(now) is not None

    def started(self, pid: int, now: float) -> None:
        """A worker was started, since one was wanted."""
        place = self._due_place(now)
        assert place is not None
        worker = Worker(pid, now, self._generation)
        if place.worker is None:
            place.worker = worker
        else:
            place.successor = worker
        place.policy.started(now)
        self._last_start = now

    def start_failed(self, now: float) -> float:
        """A worker that was wanted can't be started; the seconds until it is tried again."""
        place = self._due_place(now)
        assert place is not None
        pause = place.policy.died(now)
        place.not_before = now + pause
        return pause

    def said_ready(self, pid: int) -> None:
        """A worker says that it is up."""
        for worker in self._in_place():
            if worker.pid == pid:
                worker.said = True

    def take_over(self, now: float) -> list[int]:
        """Give their places to successors that are up by now; those that are to be told to stop."""
        leaving = []
        for place in self._places:
            if place.worker is not None and place.successor is not None and self._up_at(place) <= now:
                leaving.append(place.worker)
                place.worker, place.successor = place.successor, None
        self._leaving.update((worker.pid, worker) for worker in leaving)
        return _tell(leaving)

    def ended(self, pid: int, now: float, *, well: bool, served: bool = False, asked: bool = False) -> Death | None:
        """A process has ended: `well`, with status 0; `served`, after it had done something; `asked`, by somebody else.

        None if it is no worker.
        """
        worker = self._leaving.pop(pid, None)
        if worker is not None:
            return Death(True, None)
        for place in self._places:
            for worker in (place.worker, place.successor):
                if worker is not None and worker.pid == pid:
                    well = well and (served or now - worker.born >= GOOD_RUN)
                    return self._vacate(place, worker, now, well, asked)
        return None

    def next_change(self) -> float:
        """When there is something to do if nothing happens before; infinite if there is not."""
        due = [self._up_at(place) for place in self._places if place.successor is not None]
        due += [self._start_at(place) for place in self._short()]
        return min(due, default=inf)

    def _vacate(self, place: _Slot, worker: Worker, now: float, well: bool, asked: bool) -> Death:
        successor, place.successor = place.successor, None
        if place.worker is worker:
            place.worker = successor
            if successor is not None:  # which takes over a little early
                return Death(worker.told, None)
        if worker.told or well or asked:
            place.policy.reset()
        if worker.told or well:
            place.not_before = now
            return Death(worker.told, None)
        pause = place.policy.died(now)
        if asked:
            place.policy.reset()
        place.not_before = now + pause
        return Death(False, pause)

    def _up_at(self, place: _Slot) -> float:
        """When a place's successor is up."""
        assert place.worker is not None and place.successor is not None
        if place.successor.said:
            return -inf
        return place.successor.born + (READY_WITHIN if place.worker.said else self.up_after)

    def _due_place(self, now: float) -> _Slot | None:
        """The place for which a worker is to be started now."""
        return next((place for place in self._short() if self._start_at(place) <= now), None)

    def _start_at(self, place: _Slot) -> float:
        return max(place.not_before, self._last_start + self.start_delay)

    def _short(self) -> list[_Slot]:
        """The places for which a worker is to be started, sooner or later: the empty ones before the one to renew."""
        renewed = self._to_renew()
        return [place for place in self._places if place.worker is None] + ([renewed] if renewed is not None else [])

    def _to_renew(self) -> _Slot | None:
        """The place that gets a successor next; None if one is being renewed or none is out of date."""
        if not self.rolling or any(place.successor is not None for place in self._places):
            return None
        return min(filter(self._is_out_of_date, self._places), key=_born, default=None)

    def _is_out_of_date(self, place: _Slot) -> bool:
        worker = place.worker
        return worker is not None and worker.generation < self._generation and not worker.told

    def _in_place(self) -> Iterator[Worker]:
        for place in self._places:
            if place.worker is not None:
                yield place.worker
            if place.successor is not None:
                yield place.successor


def _born(place: _Slot) -> float:
    """When the worker in a place was started."""
    return place.worker.born if place.worker is not None else inf


def _tell(workers: Iterable[Worker]) -> list[int]:
    """Mark those as told that were not before; which ones."""
    pids = []
    for worker in workers:
        if not worker.told:
            worker.told = True
            pids.append(worker.pid)
    return pids
