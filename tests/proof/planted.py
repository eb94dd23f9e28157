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
            held = table.held[request.names[0]]
            table._expiries.drop(held)
            grant, effects = table._new_grant(held.name, request, now), Effects()
            table._index.take_out(held)
            table._index.add(grant, held)
            effects.before_images = {held.token: held, grant.token: None}
        return grant, effects

    _wrap(LockTable, "acquire", acquire)


@fault
def last_come_first_served() -> None:
    """The one who has waited for the shortest time is served."""
    from ipclocker.lock.server.table import LockTable

    def free(method: Any, table: Any, grant: Any, *words: Any) -> None:
        queue = table._queues.by_name.get(grant.name)
        if queue:
            queue.move_to_end(next(reversed(queue)), last=False)
        method(table, grant, *words)

    _wrap(LockTable, "_free", free)


@fault
def freed_to_nobody() -> None:
    """Now and then a lock that is given back is not passed on, and nobody else gets it either."""
    from ipclocker.lock.server.table import LockTable

    numbers = count()

    def free(method: Any, table: Any, grant: Any, *words: Any) -> None:
        queue = table._queues.by_name.get(grant.name)
        kept = table._queues.by_name.pop(grant.name) if queue and next(numbers) % 5 == 4 else None
        method(table, grant, *words)
        if kept:
            table._queues.by_name[grant.name] = kept

    _wrap(LockTable, "_free", free)


@fault
def boots_mistaken() -> None:
    """Another boot id is taken for the end of all processes before, whatever machine it is of."""
    from ipclocker.lock.server import holder_monitor
    from ipclocker.process.relation import GONE

    def relation(process: Any, view: Any, silent: float | None = None) -> str:
        return GONE if process.boot and process.boot != view.boot else related(process, view, silent)

    related = holder_monitor.relation  # type: ignore[attr-defined]
    holder_monitor.relation = relation  # type: ignore[attr-defined]


@fault
def tokens_begin_anew() -> None:
    """A restart forgets how many grants there were."""
    from ipclocker.lock.server.server import LockServer

    def open_state(method: Any, server: Any, *words: Any) -> None:
        method(server, *words)
        server.term.service.table.last_token = 0

    _wrap(LockServer, "_open_state", open_state)


@fault
def grants_forgotten() -> None:
    """A restart forgets who holds what."""
    from ipclocker.lock.storage.sqlite import SqliteStore

    _wrap(SqliteStore, "load", lambda method, store: method(store)._replace(grants=[]))


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

    _wrap(GroupCommit, "must_wait", lambda method, group_commit, client, reveals, claims: False)


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


# Of several lockerd on etcd


def _true_of(compare: str) -> str:
    """A compare of the same key that is always true, in the place of one with its creation."""
    always = compare.replace(
        '"CREATE","result":"EQUAL","create_revision":"0"', '"VERSION","result":"GREATER","version":"-1"'
    )
    assert always != compare
    return always


@fault
def term_not_compared() -> None:
    """A batch is written whoever leads."""
    from ipclocker.lock.storage import etcd
    from ipclocker.lock.storage.etcd_requests import created_at

    etcd.created_at = lambda key, revision: _true_of(created_at(key, 0))  # type: ignore[attr-defined]


@fault
def term_left_out() -> None:
    """The compare of the term has no number, which etcd takes for 0."""
    from ipclocker.lock.storage import etcd
    from ipclocker.lock.storage.etcd_requests import created_at

    def without(key: bytes, revision: int) -> str:
        return created_at(key, revision).replace(f',"create_revision":"{revision}"', "")

    etcd.created_at = without  # type: ignore[attr-defined]


@fault
def counter_not_compared() -> None:
    """A try of a batch that comes late is carried out once more."""
    from ipclocker.lock.storage import etcd
    from ipclocker.lock.storage.etcd_requests import created_at

    etcd.has_value = lambda key, value: _true_of(created_at(key, 0))  # type: ignore[attr-defined]


@fault
def round_in_flight_counts() -> None:
    """Who is told that he holds a lock waits for a batch that may have been begun before he asked."""
    from ipclocker.lock.server.group_commit import GroupCommit

    def must_wait(method: Any, group_commit: Any, client: Any, reveals: bool, claims: bool) -> bool:
        if group_commit._flushing is None:
            return bool(method(group_commit, client, reveals, claims))
        return bool(method(group_commit, client, reveals or claims, False))

    _wrap(GroupCommit, "must_wait", must_wait)


@fault
def no_round() -> None:
    """A leader says that somebody holds a lock without asking whether it still leads."""
    from ipclocker.lock.server.group_commit import GroupCommit

    def must_wait(method: Any, group_commit: Any, client: Any, reveals: bool, claims: bool) -> bool:
        return bool(method(group_commit, client, reveals, False))

    _wrap(GroupCommit, "must_wait", must_wait)


@fault
def time_not_restarted() -> None:
    """At the start of a term, and of a server, times of holding go on from where they were."""
    import time

    from ipclocker.lock.model import Grant

    def from_record(record: Any, now: float, clock: float) -> Any:
        grant = method(record, now, clock)
        grant.deadline -= time.time() - record.since
        return grant

    method = Grant.from_record
    Grant.from_record = from_record  # type: ignore[method-assign]


@fault
def no_last_word() -> None:
    """Nobody is told why his connection ends when the term does."""
    from ipclocker.lock.server.connection import ClientConnection

    def end(method: Any, client: Any, reason: bytes) -> None:
        if reason == b"not_leader":
            client.close()
        else:
            method(client, reason)

    _wrap(ClientConnection, "end", end)


@fault
def grants_forgotten_by_etcd() -> None:
    """A new leader does not know who holds what."""
    from ipclocker.lock.storage.etcd import EtcdStore

    _wrap(EtcdStore, "load", lambda method, store: method(store)._replace(grants=[]))


@fault
def tokens_forgotten_by_etcd() -> None:
    """A new leader counts grants by its own clock alone."""
    from ipclocker.lock.storage.etcd import EtcdStore

    _wrap(EtcdStore, "load", lambda method, store: method(store)._replace(last_token=0))


def main(words: Sequence[str]) -> None:
    """Be the tool with the fault."""
    from ipclocker.__main__ import main as be_the_tool

    if words[0]:
        plant(words[0])
    sys.argv = list(words[1:])
    be_the_tool()


if __name__ == "__main__":
    main(sys.argv[1:])
