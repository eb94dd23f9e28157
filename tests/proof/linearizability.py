"""Whether operations that overlapped in time can have been done one after the other: the search of Wing and Gong.

Each operation takes effect at one instant between its call and its return. The search walks along the calls and
returns in the order of time. An operation that the model allows next is taken out, call and return, and the walk
begins anew behind it; a return that is met must not be passed, since its operation has to be done by now, so if none
of those before it will do, the last choice is taken back. As Lowe found, a set of operations done together with the
state that they led to needs to be looked at once only. That keeps it fast for histories of some hundred operations.

What may never have happened (its client was killed, or gave up) is an operation that is not `certain`: it may be left
out. Such are tried last, and who came to the same with fewer of them spent has seen all that can come of it.

Of grants with tokens the order is known, so no other one is tried.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Callable, Optional, TypeVar

from .history import Operation

State = TypeVar("State", bound=Hashable)
Step = Callable[[State, Operation], Optional[State]]

MOST_TRIED = 100_000  # sets of operations with a state; some minutes
_SHOWN = 12


class NotLinearizable(AssertionError):
    """The operations can't have been done one after the other."""


class Undecided(Exception):
    """There is more to try than there is memory for: the history is too long, or too much of it overlaps."""


def find_order(operations: Sequence[Operation], start: State, step: Step[State]) -> list[Operation]:
    """An order in which the operations may have been done, without those that were left out.

    `step` gives the state after an operation, or None if it can't be done in that state or not with that result.
    Raises NotLinearizable, Undecided.
    """
    course, seen, tokens = _Course(operations), _Seen(operations), _Tokens(operations)
    taken: list[tuple[int, bool]] = []  # which operation, and whether it was done or left out
    ways: list[tuple[State, Iterator[tuple[int, bool]]]] = [(start, course.choices())]  # what is left to try at each
    deepest, why = taken[:], ""
    done = 0
    while not seen.is_all(done):
        state, choices = ways[-1]
        for number, is_done in choices:
            if not tokens.may_be_next(number, done):
                continue
            after = step(state, operations[number]) if is_done else state
            if after is not None and not seen.before(done | 1 << number, after, is_done):
                done |= 1 << number
                taken.append((number, is_done))
                course.take_out(number)
                ways.append((after, course.choices()))
                break
        else:
            if not why or len(taken) > len(deepest):
                deepest, why = taken[:], f"{operations[course.blocking]} is impossible by then, with {state}"
            ways.pop()
            if not taken:
                raise NotLinearizable(_explain(operations, deepest, why))
            number, _ = taken.pop()
            done ^= 1 << number
            course.put_back(number)
    return [operations[number] for number, is_done in taken if is_done]


class _Tokens:
    """The order in which grants were made, as their tokens tell."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        first: dict[int, int] = {}  # who is told the same token again has not got a new grant
        for number in sorted(range(len(operations)), key=lambda number: operations[number].called):
            token = operations[number].token
            if token is not None and operations[number].certain:
                first.setdefault(token, number)
        self._place = {number: place for place, (_, number) in enumerate(sorted(first.items()))}
        self._all = sum(1 << number for number in self._place)

    def may_be_next(self, number: int, done: int) -> bool:
        """Whether all grants with lower tokens have been made."""
        place = self._place.get(number)
        return place is None or place == bin(done & self._all).count("1")


class _Seen:
    """Which operations were done, or left out, with which state in the end."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._certain = sum(1 << number for number, operation in enumerate(operations) if operation.certain)
        self._spent: dict[tuple[int, object], list[int]] = {}  # of those that are not certain
        self._count = 0
        self._length = len(operations)

    def is_all(self, done: int) -> bool:
        """Whether all has been done that has to be."""
        return done & self._certain == self._certain

    def before(self, done: int, state: Hashable, or_better: bool) -> bool:
        """Whether that was seen, or (to be asked if something was done) the same with less spent.

        Leaving something out spends it and changes nothing else, so what was before that step is always better.
        """
        spent = done & ~self._certain
        others = self._spent.setdefault((done & self._certain, state), [])
        if any(other & ~spent == 0 for other in others) if or_better else spent in others:
            return True
        others.append(spent)
        self._count += 1
        if self._count > MOST_TRIED:
            raise Undecided(f"{self._length} operations in {self._count} ways")
        return False


class _Course:
    """The calls (even nodes) and returns (odd ones) in the order of time, as a chain that links are taken out of."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self._end = 2 * len(operations)
        events = []
        for number, operation in enumerate(operations):
            events.append((operation.called, 0, 2 * number))
            if operation.ends:  # in the same instant a call is first: that forbids less
                events.append((operation.returned, 1, 2 * number + 1))
        order = [node for _, _, node in sorted(events)]
        self._head = head = self._end + 1
        self._next = dict(zip([head, *order], [*order, self._end]))
        self._previous = dict(zip([*order, self._end], [head, *order]))

    def choices(self) -> Iterator[tuple[int, bool]]:
        """What may be next: the numbers of operations to do, and of one to leave out, if it can't come later."""
        operations, following = self._operations, self._next
        called = []
        node = following[self._head]
        while node != self._end and node % 2 == 0:
            called.append(node // 2)
            node = following[node]
        called.sort(key=lambda number: (not operations[number].certain, operations[number].returned))
        choices = [(number, True) for number in called]
        if node != self._end and not operations[node // 2].certain:
            choices.append((node // 2, False))
        return iter(choices)

    @property
    def blocking(self) -> int:
        """The number of the operation whose return is the first."""
        node = self._next[self._head]
        while node % 2 == 0:
            node = self._next[node]
        return node // 2

    def take_out(self, number: int) -> None:
        for node in (2 * number, 2 * number + 1):
            if node in self._next:
                before, behind = self._previous[node], self._next[node]
                self._next[before], self._previous[behind] = behind, before

    def put_back(self, number: int) -> None:
        """Undo the last `take_out` that was not undone: what was taken out still knows its neighbours."""
        for node in (2 * number + 1, 2 * number):
            if node in self._next:
                self._next[self._previous[node]] = self._previous[self._next[node]] = node


def _explain(operations: Sequence[Operation], taken: list[tuple[int, bool]], why: str) -> str:
    done = [operations[number] for number, is_done in taken if is_done]
    shown = [f"  {operation}" for operation in done[-_SHOWN:]]
    return "\n".join([f"after {len(done)} of {len(operations)} operations, the last of which were", *shown, why])
