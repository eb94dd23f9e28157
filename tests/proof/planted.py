"""Faults that are put into the product while it is loaded, to see that the proofs find them.

`python -m tests.proof.planted FAULT TOOL WORDS...` is the tool with that fault.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import count
from math import inf
from typing import Any, Callable

FAULTS: dict[str, Callable[[], None]] = {}


def fault(plant_it: Callable[[], None]) -> Callable[[], None]:
    """A fault is known by its function's name."""
    FAULTS[plant_it.__name__] = plant_it
    return plant_it


def plant(name: str) -> None:
    """Put the fault in."""
    FAULTS[name]()


def before_main(name: str) -> str:
    """A line of Python that puts the fault in."""
    return f"from tests.proof.planted import plant; plant({name!r})"


def _wrap(owner: type, name: str, wrapper: Callable[..., Any]) -> None:
    """Let `wrapper` be called with the method that it stands for, and what that was called with."""
    method = getattr(owner, name)  # which has to be there, or there would be no fault

    def call(*words: Any, **more: Any) -> Any:
        return wrapper(method, *words, **more)

    setattr(owner, name, call)


@fault
def granted_twice() -> None:
    """Now and then, who asks for a busy lock gets it."""
    from ipclocker.lock.server.effects import Effects
    from ipclocker.lock.server.table import LockTable

    numbers = count()

    def acquire(method: Any, table: Any, request: Any, now: float) -> Any:
        grant, effects = method(table, request, now)
        if grant is None and next(numbers) % 3 == 2:
            held = table.grants.pop(table.held[request.names[0]].token)
            table._let_go(held)
            grant, effects = table._grant(held.name, request, now), Effects()
            effects.before_images = {held.token: held, grant.token: None}
        return grant, effects

    _wrap(LockTable, "acquire", acquire)


@fault
def last_come_first_served() -> None:
    """The one who has waited for the shortest time is served."""
    from ipclocker.lock.server.table import LockTable

    def free(method: Any, table: Any, grant: Any, now: float, effects: Any) -> None:
        queue = table._queues.get(grant.name)
        if queue:
            queue.move_to_end(next(reversed(queue)), last=False)
        method(table, grant, now, effects)

    _wrap(LockTable, "_free", free)


@fault
def freed_to_nobody() -> None:
    """Now and then a lock that is given back is not passed on, and nobody else gets it either."""
    from ipclocker.lock.server.table import LockTable

    numbers = count()

    def free(method: Any, table: Any, grant: Any, now: float, effects: Any) -> None:
        queue = table._queues.get(grant.name)
        kept = table._queues.pop(grant.name) if queue and next(numbers) % 5 == 4 else None
        method(table, grant, now, effects)
        if kept:
            table._queues[grant.name] = kept

    _wrap(LockTable, "_free", free)


@fault
def tokens_begin_anew() -> None:
    """A restart forgets how many grants there were."""
    from ipclocker.lock.server.server import LockServer

    def open_state(method: Any, server: Any, *words: Any) -> None:
        method(server, *words)
        server._service.table.last_token = 0

    _wrap(LockServer, "_open_state", open_state)


@fault
def grants_forgotten() -> None:
    """A restart forgets who holds what."""
    from ipclocker.lock.storage.base import StoredState
    from ipclocker.lock.storage.sqlite import SqliteStore

    _wrap(SqliteStore, "load", lambda method, store: StoredState([], method(store).last_token))


@fault
def releases_forgotten() -> None:
    """What is given back is not kept as such."""
    from ipclocker.lock.storage.sqlite import SqliteStore

    _wrap(SqliteStore, "commit", lambda method, store, changed, freed, last: method(store, changed, [], last))


@fault
def not_flushed() -> None:
    """What is written may stay in the machine's memory."""
    from ipclocker.lock.storage.sqlite import SqliteStore

    def open_file(method: Any, store: Any) -> None:
        method(store)
        store._file.execute("PRAGMA synchronous = OFF")

    _wrap(SqliteStore, "_open", open_file)


@fault
def not_awaited() -> None:
    """Answers do not wait until what they say is kept."""
    from ipclocker.lock.server.group_commit import GroupCommit

    _wrap(GroupCommit, "must_wait", lambda method, group_commit, client: False)


@fault
def silence_frees_at_once() -> None:
    """A lease that runs out is free, and nobody looks whether its holder lives."""
    from ipclocker.lock.server.holder_monitor import HolderMonitor

    def check_now(method: Any, holder_monitor: Any, process: Any, seen: Callable[[bool | None], None]) -> None:
        holder_monitor._loop.call_at(holder_monitor._loop.now, lambda: seen(None))

    _wrap(HolderMonitor, "check_now", check_now)


@fault
def lease_not_checked() -> None:
    """lockersh does not see that its lease runs out."""
    from ipclocker.lock.client.lease import Lease

    def start(method: Any, lease: Any, sent: float) -> None:
        method(lease, sent)
        lease.stop_at = lease.kill_at = lease.expires_at = inf

    _wrap(Lease, "_start", start)


def main(words: Sequence[str]) -> None:
    """Be the tool with the fault."""
    from ipclocker.__main__ import main as be_the_tool

    plant(words[0])
    sys.argv = list(words[1:])
    be_the_tool()


if __name__ == "__main__":
    main(sys.argv[1:])
