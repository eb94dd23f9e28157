"""What clients did, and when: each client writes down that it calls, then what came of it.

The times are those of the monotonic clock, which is the same for all processes of a host. A client that was killed
has left a call without a return; whoever killed it has written that down, too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from math import inf, nextafter
from pathlib import Path
from typing import NamedTuple, Optional, Union

Result = tuple[Union[str, int, None], ...]

# Actions, with the results that they may have. A result of None is not known.
LOCK = "lock"  # ("granted", NAME, TOKEN), ("busy",), and where queues are looked at: ("queued",)
OBTAINED = "obtained"  # ("granted", NAME, TOKEN): the end of a wait that was ("queued",)
UNLOCK = "unlock"  # ("freed",), ("lost",) if it was not held any more
BREAK = "break"  # ("broke", OWNER...)
KEEPER = "server "  # what the names of servers begin with, that keep a lock for those who had waited
STATUS = "status"  # ("owner", OWNER or None)
CHECK = "check"  # ("current", TOKEN, 1 or 0)
GONE = "gone"  # whatever the client held or waited for is taken from it

_BEGUN_WITHIN = 10.0  # seconds after the end of a server; the next one has begun by then, and reserves nothing any more


class Operation(NamedTuple):
    """One operation of one client, between its call and its return."""

    client: str
    action: str
    names: tuple[str, ...]
    called: float
    returned: float = inf
    result: Optional[Result] = None
    certain: bool = True  # False: it may never have happened

    @property
    def ends(self) -> bool:
        """Whether there is a time by which it has happened or never will."""
        return self.returned < inf

    @property
    def token(self) -> int | None:
        """That of the grant which its client was told of."""
        if not self.result or self.result[0] != "granted":
            return None
        token = self.result[2]
        assert isinstance(token, int), self
        return token

    def __str__(self) -> str:
        result = "" if self.result is None else f" -> {' '.join(map(str, self.result))}"
        doubt = "" if self.certain else " (perhaps)"
        times = f"{self.called:.6f}..{self.returned:.6f}"
        return f"{times} {self.client}: {self.action} {' '.join(self.names)}{result}{doubt}"


class Recorder:
    """One client's diary: a line before each operation and one after it. What it is told is in the file at once."""

    def __init__(self, folder: Path, client: str) -> None:
        self.client = client
        self._file = os.open(folder / f"{client}.history", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def call(self, action: str, names: Iterable[str]) -> None:
        """An operation begins."""
        self._write(["call", time.monotonic(), action, *names])

    def returned(self, *result: str | int | None) -> None:
        """It has ended."""
        self._write(["returned", time.monotonic(), *result])

    def gave_up(self) -> None:
        """It has ended as not done; what was granted meanwhile was given back."""
        self._write(["gave up", time.monotonic()])

    def gone(self) -> None:
        """The client is killed now, as the one who does it writes; or it does not know any more what it has."""
        self._write(["gone", time.monotonic()])

    def close(self) -> None:
        """It has ended, or its end is told."""
        os.close(self._file)

    def _write(self, entry: list[str | int | float | None]) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")


def note_kill(folder: Path, lasting: float = 0.0, begin: float | None = None) -> None:
    """The server of these clients is killed now; or for so many seconds from now on, its answers may be lost."""
    with (folder / "kills").open("a") as file:
        begin = time.monotonic() if begin is None else begin
        print(begin, begin + lasting, file=file)


def read_histories(folder: Path) -> list[Operation]:
    """All that the clients of this folder did."""
    done = [operation for path in sorted(folder.glob("*.history")) for operation in _read_diary(path)]
    kills = folder / "kills"
    lines = kills.read_text().splitlines() if kills.exists() else []
    times = [(float(begin), float(end)) for begin, end in map(str.split, lines)]
    return [*done, *_lost_grants(done, times), *_reserved(done, times)]


def _lost_grants(operations: list[Operation], kills: list[tuple[float, float]]) -> Iterator[Operation]:
    """Within one call, a lock may be granted more than once, of which its client hears only the last time.

    A grant may be broken before it is heard of. And a client whose server is gone before it has answered does not know
    of a grant; if it looks for a server anew, it gives back what it may have.
    """
    locks = {(operation.client, operation.called): operation for operation in operations if operation.action == LOCK}
    breaks = [operation for operation in operations if operation.action == BREAK]
    for lock in locks.values():
        unheard = lock._replace(result=None, certain=False)
        for broken in breaks:
            at_once = lock.called < broken.returned and broken.called < lock.returned
            if at_once and set(broken.names) & set(lock.names):
                yield unheard
        for begin, end in kills:
            if lock.called < end and begin < lock.returned:
                yield unheard
                yield unheard._replace(action=GONE, called=max(begin, lock.called))


def _reserved(operations: list[Operation], kills: list[tuple[float, float]]) -> Iterator[Operation]:
    """What comes free soon after a server has begun with kept locks may be kept a moment for those who had waited.

    Then nobody has it, as STATUS says, and yet it is busy, as if the server had it; once for each begin and name.
    """
    names = dict.fromkeys(name for operation in operations for name in operation.names)
    for number, (begin, end) in enumerate(kills):
        for name in names:
            taken = Operation(f"{KEEPER}{number}", LOCK, (name,), begin, end + _BEGUN_WITHIN, certain=False)
            yield taken
            yield taken._replace(action=GONE)


def _read_diary(path: Path) -> Iterator[Operation]:
    client = path.stem
    call: Operation | None = None
    killed = inf
    used: dict[str, None] = {}
    for line in path.read_text().splitlines():
        try:
            what, moment, *rest = json.loads(line)
        except ValueError:
            continue  # it was killed while it wrote
        if what == "call":
            call = Operation(client, rest[0], tuple(rest[1:]), moment)
            used.update(dict.fromkeys(call.names))
        elif what == "returned" and call is not None:
            yield call._replace(returned=moment, result=tuple(rest) or None)
            call = None
        elif what == "gave up" and call is not None:
            yield call._replace(returned=moment, result=("busy",))
            # It may have been granted all the same. Then it was given back, so that it holds nothing at the end.
            before = nextafter(moment, 0.0)
            yield call._replace(returned=before, certain=False)
            yield call._replace(returned=before, certain=False, action=GONE)
            yield Operation(client, UNLOCK, call.names, moment, moment, ("lost",))
            call = None
        elif what == "gone":
            killed = moment
    if call is not None:
        yield call._replace(certain=False)
    if killed < inf:
        for name in used:  # of which it had one at most
            yield Operation(client, GONE, (name,), killed, certain=False)


def by_names(operations: Iterable[Operation]) -> list[list[Operation]]:
    """The histories of names that have nothing to do with each other, each for itself."""
    groups: list[tuple[set[str], list[Operation]]] = []
    for operation in operations:
        names = set(operation.names)
        touched = [group for group in groups if group[0] & names]
        groups = [group for group in groups if not group[0] & names]
        together = names.union(*(group[0] for group in touched))
        groups.append((together, [*(old for group in touched for old in group[1]), operation]))
    return [history for _, history in groups]


def check_tokens(operations: Iterable[Operation]) -> None:
    """Each grant has a token of its own, which is greater than that of every grant that was answered before its call.

    That holds for all names of a server together. Raises AssertionError.
    """
    first: dict[int, Operation] = {}  # a token that its client is told again is not a new one
    for operation in sorted(operations, key=lambda operation: operation.called):
        if operation.token is not None:
            known = first.setdefault(operation.token, operation)
            same = (known.client, known.result) == (operation.client, operation.result)
            assert same, f"two grants have one token:\n{known}\n{operation}"
    answered = sorted(first.items(), key=lambda grant: grant[1].returned)
    highest, before = 0, 0
    for token, grant in first.items():
        while answered[before][1].returned < grant.called:
            highest = max(highest, answered[before][0])
            before += 1
        assert token > highest, f"its token is not above {highest}: {grant}"
