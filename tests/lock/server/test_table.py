"""The lock table: a model that knows no heaps and no indexes, and an example for each rule."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from copy import copy
from math import inf
from typing import Any, Callable, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from ipclocker.lock.model import Grant, HolderProcess, LockRequest, Record
from ipclocker.lock.server import expiries
from ipclocker.lock.server import table as table_module
from ipclocker.lock.server.effects import BeforeImages, Effects
from ipclocker.lock.server.grant_table import CONFIRM_AGAIN_WITHIN, CONFIRM_WITHIN, NEXT_CONFIRMS_WITHIN
from ipclocker.lock.server.table import MOST_UNCONFIRMED, OVER_FOR, RETURN_WITHIN, LockTable

NAMES = [b"a", b"b", b"c", b"d"]
OWNERS = [(b"ann", b""), (b"ann", b"s1"), (b"ann", b"s2"), (b"bob", b""), (b"eve", b"s1")]
PROCESSES = [None, HolderProcess(b"h", 7, None, b"", None, "1.1.1.1"), HolderProcess(b"h", 8, 5, b"B", 4, "2.2.2.2")]
PROCESSES.append(HolderProcess(b"h", 7, None, b"", None, "2.2.2.2"))  # of another host with the same name


class Client(LockRequest):
    """A request whose client may vanish."""

    def __init__(
        self,
        owner: tuple[bytes, bytes] = (b"ann", b""),
        names: tuple[bytes, ...] = (b"a",),
        hold: float = 0.0,
        process: HolderProcess | None = None,
        confirms: bool = False,
        lease: bool = False,
        waited: float = 0.0,
        slots: int = 1,
        min_hold: float = 0.0,
    ) -> None:
        super().__init__(
            owner, names, hold, lease, process, confirms=confirms, waited=waited, slots=slots, min_hold=min_hold
        )
        self.is_present = True

    def __repr__(self) -> str:
        gone = "" if self.is_present else " (gone)"
        return f"<{self.owner} wants {self.names} for {self.hold} {self.process}{gone}>"


def is_present(request: LockRequest) -> bool:
    assert isinstance(request, Client)
    return request.is_present


class Table:
    """A table and the effects of all its calls so far, put together as a server does it."""

    def __init__(self, last_token: int = 0, is_present: Callable[[LockRequest], bool] = lambda request: True) -> None:
        self.table = LockTable(last_token, is_present)
        self.before_images: BeforeImages = {}
        self.granted: list[tuple[LockRequest, Grant]] = []
        self.woken: list[tuple[LockRequest, Grant]] = []
        self.superseded: list[LockRequest] = []
        self.overdue: list[Grant] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table, name)

    def take(self, effects: Effects) -> list[Grant]:
        for token, image in effects.before_images.items():
            self.before_images.setdefault(token, image)
        self.granted += effects.granted
        self.woken += effects.woken
        self.superseded += effects.superseded
        self.overdue += effects.overdue
        others = (effects.granted, effects.woken, effects.superseded, effects.ended, effects.overdue)
        assert effects.concerns_others == any(others)
        assert all(grant.token in effects.before_images for grant in effects.ended)
        now_there = (self.table.grants.get(token) for token in effects.before_images)
        concerned = [grant for grant in (*effects.before_images.values(), *now_there) if grant is not None]
        # Else nobody would watch a process that a lock has come to depend on.
        before = {token: grant and grant.process for token, grant in effects.before_images.items()}
        after = {grant.token: grant.process for grant in concerned if grant.token in self.table.grants}
        assert effects.concerns_processes or all(process == after.get(token) for token, process in before.items())
        return list(effects.ended)

    def acquire(self, client: LockRequest, now: float) -> Grant | None:
        grant, effects = self.table.acquire(client, now)
        assert self.take(effects) == []
        return grant

    def enqueue(self, client: LockRequest, now: float = 0) -> None:
        assert self.take(self.table.enqueue(client, now)) == [] and client.queued_at == now - client.waited

    def leave(self, client: LockRequest, now: float = 0) -> None:
        assert self.take(self.table.leave(client, now)) == []

    def release(self, client: LockRequest, now: float) -> None:
        assert self.take(self.table.release(client.owner, client.names, now)) == []

    def break_locks(self, names: Iterable[bytes], now: float) -> list[Grant]:
        return self.take(self.table.break_grants([grant for name in names for grant in self.table.holders(name)], now))

    def report_dead(self, host: bytes, pid: int, address: str, now: float) -> tuple[list[Grant], list[HolderProcess]]:
        effects, suspects = self.table.report_dead(host, pid, address, now)
        return self.take(effects), suspects

    def release_of(self, process: HolderProcess, now: float) -> list[Grant]:
        return self.take(self.table.release_of(process, now))

    def confirm(self, name: bytes, token: int, now: float = 0.0) -> None:
        assert self.take(self.table.confirm(name, token, now)) == []

    def renew(self, name: bytes, token: int, now: float) -> Grant | None:
        grant, effects = self.table.renew(name, token, now)
        assert self.take(effects) == []
        return grant

    def mark_holder_alive(self, grant: Grant) -> None:
        assert self.take(self.table.mark_holder_alive(grant)) == []

    def expire_overdue(self, grant: Grant, now: float) -> bool:
        ended = self.take(self.table.expire_overdue(grant, now))
        assert ended in ([], [grant])
        return bool(ended)

    def recall(self, names: Iterable[bytes]) -> list[Grant]:
        recalled, effects = self.table.recall(grant for name in names for grant in self.table.holders(name))
        assert self.take(effects) == []
        return recalled

    def mark_silent(self, process: HolderProcess, heard: float) -> None:
        assert self.take(self.table.mark_silent(process, heard)) == []

    def mark_heard(self, grant: Grant) -> None:
        assert self.take(self.table.mark_heard(grant)) == []

    def expire(self, now: float) -> list[Grant]:
        return self.take(self.table.expire(now))

    def standing(self, client: LockRequest) -> Grant | None:
        return self.table.standing(client.owner, client.names)


class Holding:
    """A grant, as the model sees it."""

    def __init__(self, client: Client, token: int, now: float) -> None:
        self.owner = client.owner
        self.token = token
        self.recalled = False
        self.passed_over = 0
        self.set_terms(client, now)

    def set_confirmed(self) -> None:
        self.confirm_by = inf
        self.untold = False
        self.request: Client | None = None  # that waited for it

    def set_terms(self, client: Client, now: float) -> None:
        if self.recalled:
            return
        self.set_confirmed()
        self.hold = client.hold
        self.lease = client.lease
        self.process = client.process
        self.is_overdue = self.outlived = False
        self.deadline = now + client.hold if client.hold else inf

    @property
    def outlasts(self) -> bool:
        """Whether what was started under it may live longer than the process."""
        return self.lease and self.confirm_by == inf and self.deadline < inf

    @property
    def due(self) -> float:
        return inf if self.untold else min(self.deadline, self.confirm_by)


clients_ = st.builds(
    Client,
    st.sampled_from(OWNERS),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).map(tuple),
    st.sampled_from([0.0, 0.0, 1.0, 5.0, 20.0]),
    st.sampled_from(PROCESSES),
    st.booleans(),
    st.booleans(),
)


leases_ = st.builds(
    Client,
    st.sampled_from(OWNERS),
    st.permutations(NAMES).map(tuple),
    st.sampled_from([1.0, 5.0]),
    st.sampled_from([process for process in PROCESSES if process]),
    lease=st.just(True),
)


class Model(RuleBasedStateMachine):
    """Each rule is done to the table and to a model made of plain lists; both have to come to the same."""

    waiting = Bundle("waiting")
    # How often something came about; looks at leases that ran out: overdue still, process lives.
    looks: ClassVar[Counter[tuple[bool, bool] | str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.sweep_above = expiries._COMPACT_ABOVE
        expiries._COMPACT_ABOVE = 3
        table_module.MOST_UNCONFIRMED = 2
        self.now = 0.0
        self.held: dict[bytes, Holding] = {}
        self.queues: dict[bytes, list[Client]] = {name: [] for name in NAMES}
        self.last_place = 0
        self.places: dict[Client, dict[bytes, int]] = {}
        self.kept_places: dict[tuple[bytes, bytes], dict[bytes, int]] = {}
        self.over: dict[tuple[bytes, bytes], float] = {}
        self.granted: list[tuple[Client, bytes]] = []
        self.woken: list[tuple[Client, bytes]] = []
        self.dropped: list[Client] = []
        self.outcomes: dict[Client, str] = {}  # of all that ever waited
        self.last_token = 0
        self.kept: dict[int, Record] = {}  # by token, what somebody who follows the before-images has put away
        self.kept_holdings: dict[bytes, Holding] = {}
        self.looked_at: set[bytes] = set()  # names of leases that have run out

    @initialize(last_token=st.sampled_from([0, 41, 10**15]))
    def begin(self, last_token: int) -> None:
        self.last_token = last_token
        self.table = Table(last_token, is_present)

    def teardown(self) -> None:
        expiries._COMPACT_ABOVE = self.sweep_above
        table_module.MOST_UNCONFIRMED = MOST_UNCONFIRMED

    # The model's own rules

    def model_grant(self, client: Client, name: bytes) -> None:
        self.last_token += 1
        assert name not in self.held
        self.held[name] = Holding(client, self.last_token, self.now)

    def model_leave(self, client: Client) -> None:
        for queue in self.queues.values():
            if client in queue:
                queue.remove(client)

    def model_insert(self, client: Client) -> None:
        for name in client.names:
            queue = self.queues[name]
            queue.append(client)
            queue.sort(key=lambda other: self.places[other][name])

    def model_keep_place(self, client: Client) -> None:
        self.kept_places[client.owner] = self.places[client]

    def model_free(self, name: bytes, passed_over: int = 0) -> None:
        del self.held[name]
        while self.queues[name]:
            first = self.queues[name][0]
            self.model_leave(first)
            if not first.is_present:
                self.outcomes[first] = "left"
            elif first.confirms and passed_over >= 2:
                self.last_token += 1
                self.model_keep_place(first)
                self.woken.append((first, name))
                self.outcomes[first] = "woken"
                self.looks["woken"] += 1
            else:
                self.model_grant(first, name)
                holding = self.held[name]
                holding.request, holding.untold, holding.passed_over = first, True, passed_over
                if first.confirms:
                    holding.confirm_by = self.now + CONFIRM_WITHIN
                self.granted.append((first, name))
                self.outcomes[first] = "granted"
                return

    # What is done

    @rule(target=waiting, client=clients_, waits=st.booleans())
    def lock(self, client: Client, waits: bool) -> Client:
        own = [name for name in client.names if name in self.held and self.held[name].owner == client.owner]
        free = [name for name in client.names if name not in self.held]
        grant = self.table.acquire(client, self.now)
        if own:
            assert grant is not None and (grant.name, grant.token) == (own[0], self.held[own[0]].token)
            self.held[own[0]].set_terms(client, self.now)
        elif free:
            self.model_grant(client, free[0])
            self.kept_places.pop(client.owner, None)
            assert grant is not None and (grant.name, grant.token) == (free[0], self.last_token)
        else:
            assert grant is None
            if waits:
                self.wait(client)
        return client

    def wait(self, client: Client) -> None:
        self.table.enqueue(client, self.now)
        self.outcomes[client] = "waiting"
        kept = self.kept_places.pop(client.owner, {})
        self.looks["place kept"] += bool(kept)
        self.last_place += 1
        places = self.places[client] = {}
        replaced = []
        for name in client.names:
            own = [other for other in self.queues[name] if other.owner == client.owner]
            assert len(own) <= 1
            replaced += own
            places[name] = self.places[own[0]][name] if own else kept.get(name, self.last_place)
        for old in dict.fromkeys(replaced):
            self.model_leave(old)
            self.dropped.append(old)
            self.outcomes[old] = "dropped"
        self.model_insert(client)

    @rule(client=clients_)
    def unlock(self, client: Client) -> None:
        self.table.release(client, self.now)
        self.kept_places.pop(client.owner, None)
        for name in client.names:
            if name in self.held and self.held[name].owner == client.owner:
                self.model_free(name)
                continue
            for other in self.queues[name]:
                if other.owner == client.owner:
                    self.model_leave(other)
                    self.dropped.append(other)
                    self.outcomes[other] = "dropped"
                    break

    @rule(name=st.sampled_from(NAMES), owner=st.sampled_from(OWNERS), right=st.booleans())
    def unlock_that_very_grant(self, name: bytes, owner: tuple[bytes, bytes], right: bool) -> None:
        """Nothing else is released, and no queue left."""
        token = self.held[name].token if name in self.held else 0
        self.table.take(self.table.release_grant(owner, name, token if right else token - 1, self.now))
        if right and name in self.held and self.held[name].owner == owner:
            self.model_free(name)

    @rule(owner=st.sampled_from(OWNERS))
    def end_session(self, owner: tuple[bytes, bytes]) -> None:
        self.table.end_session(owner, self.now)
        self.over[owner] = self.now + OVER_FOR

    @rule(client=waiting)
    def vanish(self, client: Client) -> None:
        """The client hangs up, and the server has not noticed yet."""
        client.is_present = False

    @rule(client=consumes(waiting))
    def leave(self, client: Client) -> None:
        """The server notices that the client has hung up."""
        client.is_present = False
        self.table.leave(client, self.now)
        self.model_leave(client)
        if self.outcomes.get(client) == "waiting":
            self.outcomes[client] = "left"

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    def break_locks(self, names: list[bytes]) -> None:
        held = [name for name in names if name in self.held]
        tokens = [self.held[name].token for name in held]
        broken = self.table.break_locks(names, self.now)
        assert [grant.token for grant in broken] == tokens
        for name in held:
            self.model_free(name)

    @rule(pid=st.sampled_from([7, 8, 9]), address=st.sampled_from(["1.1.1.1", "2.2.2.2"]))
    def said_dead(self, pid: int, address: str) -> None:
        dead = {
            name: holding.token
            for name, holding in self.held.items()
            if holding.process and (holding.process.pid, holding.process.address) == (pid, address)
            if not holding.process.boot and not holding.outlasts
        }
        doubtful = [
            holding.process
            for holding in self.held.values()
            if holding.process and holding.process.pid == pid
            if holding.process.address != address or holding.process.boot or holding.outlasts
        ]
        ended, to_look_at = self.table.report_dead(b"h", pid, address, self.now)
        assert sorted(map(repr, to_look_at)) == sorted(map(repr, doubtful))
        freed = [grant.name for grant in ended]
        assert {grant.name: grant.token for grant in ended} == dead
        for name in freed:  # the order among the locks of one process is the table's own affair
            self.model_free(name)

    @rule(process=st.sampled_from([process for process in PROCESSES if process]))
    def process_gone(self, process: HolderProcess) -> None:
        dead = {holding.token for holding in self.held.values() if holding.process == process and not holding.outlasts}
        ended = self.table.release_of(process, self.now)
        assert {grant.token for grant in ended} == dead
        for grant in ended:
            self.model_free(grant.name)

    @rule(name=st.sampled_from(NAMES), right=st.booleans())
    def confirm(self, name: bytes, right: bool) -> None:
        token = self.held[name].token if name in self.held else 0
        self.table.confirm(name, token if right else token - 1, self.now)
        if right and name in self.held and self.held[name].confirm_by < inf:
            self.held[name].set_confirmed()

    @rule(name=st.sampled_from(NAMES))
    def tell(self, name: bytes) -> None:
        """The client of a grant that was waited for could be told of it."""
        if name not in self.held:
            return
        self.table.mark_told(self.table.held[name], self.now)
        holding = self.held[name]
        if not holding.untold:
            return
        holding.untold = False
        if holding.confirm_by == inf:
            holding.request = None
        else:
            holding.confirm_by = self.now + (NEXT_CONFIRMS_WITHIN if holding.passed_over else CONFIRM_WITHIN)
        holding.deadline = self.now + holding.hold if holding.hold else inf

    @rule(name=st.sampled_from(NAMES))
    def nobody_confirms(self, name: bytes) -> None:
        """What is left to chance hardly comes about: several waiters in a row are told, and do not confirm."""
        for owner in OWNERS:
            self.lock(Client(owner, (name,), confirms=True), waits=True)
        self.break_locks([name])
        for _ in range(4):
            self.tell(name)
            self.expire(CONFIRM_WITHIN)

    @rule(name=st.sampled_from(NAMES))
    def the_client_goes_before_it_is_told(self, name: bytes) -> None:
        if name in self.held:
            grant = self.table.held[name]
            ended = self.table.take(self.table.end_untold(grant, self.now))
            assert ended == ([grant] if self.held[name].untold else [])
            if ended:
                self.model_free(name)

    @rule(name=st.sampled_from(NAMES), right=st.booleans())
    def renew(self, name: bytes, right: bool) -> None:
        token = self.held[name].token if name in self.held else 0
        grant = self.table.renew(name, token if right else token - 1, self.now)
        assert grant is (self.table.held.get(name) if right else None)
        if grant is not None and not grant.recalled:
            holding = self.held[name]
            holding.set_confirmed()
            holding.is_overdue = holding.outlived = False
            holding.deadline = self.now + holding.hold if holding.hold else inf

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0, 10.0, 30.0]))
    def expire(self, seconds: float) -> None:
        self.now += seconds
        due = {name: holding for name, holding in self.held.items() if holding.due <= self.now}
        ended = [grant.name for grant in self.table.expire(self.now)]
        ran_out = set()
        for name, holding in list(due.items()):
            if holding.lease and holding.process and holding.confirm_by == inf:
                holding.deadline = inf
                holding.is_overdue = True
                ran_out.add(name)
                del due[name]
        assert {grant.name for grant in self.table.overdue} == ran_out
        self.table.overdue.clear()
        self.looked_at |= ran_out
        assert sorted(ended) == sorted(due)
        for name in ended:  # in which order is the table's own affair, but once each, and none is forgotten
            holding = due[name]
            if holding.confirm_by < inf and holding.request is not None:
                self.model_keep_place(holding.request)
            self.model_free(name, holding.passed_over + 1 if holding.confirm_by < inf else 0)
        assert self.table.next_expiry > self.now

    @rule(client=leases_, renewed=st.booleans(), lives=st.sampled_from([True, False, None]))
    def let_a_lease_run_out(self, client: Client, renewed: bool, lives: bool | None) -> None:
        """What is left to chance hardly comes about; with `lives` None somebody looks only after other steps."""
        self.lock(client, waits=False)
        self.expire(client.hold)
        for name in sorted(self.looked_at):
            if renewed:
                self.renew(name, right=True)
            if lives is not None:
                self.look_at_process(name, lives)

    @precondition(lambda self: self.looked_at)
    @rule(data=st.data(), lives=st.booleans())
    def look_at_the_process_of_a_lease_that_ran_out(self, data: st.DataObject, lives: bool) -> None:
        self.look_at_process(data.draw(st.sampled_from(sorted(self.looked_at))), lives)

    def look_at_process(self, name: bytes, lives: bool) -> None:
        self.looked_at.discard(name)
        grant, holding = self.table.held.get(name), self.held.get(name)
        if grant is None or holding is None:
            return
        self.looks[holding.is_overdue, lives] += 1
        if lives:
            self.table.mark_holder_alive(grant)
            holding.outlived |= holding.is_overdue
            holding.is_overdue = False
        else:
            assert self.table.expire_overdue(grant, self.now) == holding.is_overdue
            if holding.is_overdue:
                self.model_free(name)

    @rule(name=st.sampled_from(NAMES))
    def recall(self, name: bytes) -> None:
        if name in self.held:
            recalled = self.table.recall([name])
            assert recalled == ([self.table.held[name]] if self.held[name].lease else [])
            self.held[name].recalled |= self.held[name].lease

    @rule(process=st.sampled_from([process for process in PROCESSES if process is not None]))
    def a_client_is_not_heard_of_any_more(self, process: HolderProcess) -> None:
        self.table.mark_silent(process, self.now)
        for grant in self.table.grants.values():
            assert grant.process != process or grant.heard == self.now

    @rule(name=st.sampled_from(NAMES))
    def a_client_is_heard_of_again(self, name: bytes) -> None:
        if name in self.held:
            self.table.mark_heard(self.table.held[name])
            assert self.table.held[name].heard is None

    # What is kept elsewhere

    @rule()
    def keep(self) -> None:
        for token, before in self.table.before_images.items():
            grant = self.table.grants.get(token)
            assert grant is None or before is None or before is not grant, "what stood before has changed since"
        self.table.before_images = {}
        self.kept = {grant.token: grant.record(0.0) for grant in self.table.held.values()}
        self.kept_holdings = {name: copy(holding) for name, holding in self.held.items()}

    @rule()
    def roll_back(self) -> None:
        images, self.table.before_images = self.table.before_images, {}
        changed = {grant.name for grant in map(self.table.grants.get, images) if grant is not None}
        changed |= {grant.name for grant in images.values() if grant is not None}
        was_granted = {holding.token: holding.request for holding in self.held.values() if holding.request is not None}
        returned, stranded = self.table.rollback(images, self.now)
        for name in changed:
            holding = copy(self.kept_holdings.get(name))
            if holding is None:
                self.held.pop(name, None)
            else:
                self.held[name] = holding
                holding.recalled = self.table.held[name].recalled
                holding.is_overdue = holding.untold = False
                holding.deadline = self.now + holding.hold if holding.hold and not holding.outlived else inf
                if holding.confirm_by < inf:
                    holding.confirm_by = self.now + CONFIRM_WITHIN
        self.model_take_back([was_granted[token] for token in images if images[token] is None and token in was_granted])
        expected = [client for name in NAMES if name not in self.held for client in self.queues[name]]
        expected += [client for client, outcome in self.outcomes.items() if outcome == "not put back"]
        assert len(stranded) == len(set(stranded)) and set(stranded) == set(expected)
        for client in stranded:
            assert isinstance(client, Client)
            self.model_leave(client)
            self.model_keep_place(client)
            self.outcomes[client] = "stranded"
        assert returned == [client for client in self.taken_back if self.outcomes[client] == "waiting"]
        assert {grant.token: grant.record(0.0) for grant in self.table.held.values()} == self.kept

    @rule(name=st.sampled_from(NAMES), waiters=st.lists(clients_, min_size=1, max_size=4))
    def a_release_can_not_be_kept(self, name: bytes, waiters: list[Client]) -> None:
        for client in waiters:
            self.lock(client, waits=True)
        self.keep()
        self.break_locks([name])
        self.roll_back()

    def model_take_back(self, clients: list[Client]) -> None:
        """Those to whom something was granted that could not be kept are in the queue again, where they were."""
        self.taken_back = clients
        for client in clients:
            if any(other.owner == client.owner for name in client.names for other in self.queues[name]):
                self.outcomes[client] = "not put back"
            else:
                self.model_insert(client)
                self.outcomes[client] = "waiting"
                self.looks["put back"] += 1

    @rule()
    def restart(self) -> None:
        """A new table begins with what was kept: the same grants, each with its time anew."""
        self.roll_back()
        records = [grant.record(1000.0) for grant in self.table.held.values()]
        again = Table(self.last_token)
        again.restore(records, self.now, 1000.0)
        assert [grant.record(1000.0) for grant in again.held.values()] == records
        for grant in again.held.values():
            assert grant.deadline == (self.now + grant.hold if grant.hold and not grant.outlived else inf)
            due = min(grant.deadline, grant.confirm_by)
            assert (grant.expiry is None) == (due == inf)

    @precondition(lambda self: any(holding.due < inf for holding in self.held.values()))
    @rule()
    def wake_when_told(self) -> None:
        """A server that sleeps until `next_expiry`, each time anew, ends every hold on time."""
        earliest = min(holding.due for holding in self.held.values())
        for _ in range(100):
            if self.table.next_expiry >= earliest:
                break
            self.now = max(self.now, self.table.next_expiry)
            assert not self.table.expire(self.now) and not self.table.overdue
        assert self.table.next_expiry == earliest

    # What holds at all times

    @invariant()
    def table_and_model_agree(self) -> None:
        assert [(ask, grant.name) for ask, grant in self.table.granted] == self.granted
        assert [(ask, grant.name) for ask, grant in self.table.woken] == self.woken
        assert self.table.superseded == self.dropped
        self.table.granted, self.table.woken, self.table.superseded = [], [], []
        self.granted, self.woken, self.dropped = [], [], []
        assert {name: holder_of(grant) for name, grant in self.table.held.items()} == {
            name: (holding.owner, holding.token, holding.hold, holding.deadline, holding.process)
            for name, holding in self.held.items()
        }

    @invariant()
    def a_free_name_has_no_queue(self) -> None:
        for name in NAMES:
            if name not in self.held:
                assert not self.queues[name]
                assert name not in self.table._queues.by_name

    @invariant()
    def queues_are_first_in_first_out(self) -> None:
        assert {name: self.table.waiters(name) for name in NAMES} == self.queues
        assert len(self.table._queues.by_name) == len([queue for queue in self.queues.values() if queue])

    @invariant()
    def no_waiter_is_lost(self) -> None:
        queued = {client for queue in self.queues.values() for client in queue}
        assert queued == {client for client, outcome in self.outcomes.items() if outcome == "waiting"}
        for client in queued:
            assert all(name in self.held and client in self.queues[name] for name in client.names)

    @invariant()
    def whoever_follows_the_changes_knows_all(self) -> None:
        images = self.table.before_images
        for token, before in images.items():
            assert self.kept.get(token) == (before and before.record(0.0)), "what stood before is not what was kept"
        unchanged = {token: grant.record(0.0) for token, grant in self.table.grants.items() if token not in images}
        assert unchanged == {token: record for token, record in self.kept.items() if token not in images}

    @invariant()
    def the_two_indexes_of_grants_agree(self) -> None:
        assert {grant.token: grant for grant in self.table.held.values()} == self.table.grants

    @invariant()
    def sessions_that_are_over_are_known_for_their_time(self) -> None:
        for owner in OWNERS:
            assert self.table.is_over(owner, self.now) == (self.over.get(owner, -inf) > self.now)

    @invariant()
    def the_list_has_each_lock_once(self) -> None:
        grants = list(self.table.walk())
        assert len(grants) == len(self.held) and all(self.table.held[grant.name] is grant for grant in grants)

    @invariant()
    def alarms_are_in_order_and_bounded(self) -> None:
        alarms = self.table._expiries.heap
        assert len(alarms) <= 2 * len(self.held) + 2 * expiries._COMPACT_ABOVE
        assert len(alarms) - self.table._expiries._stale == sum(
            grant.expiry is not None for grant in self.table.held.values()
        )
        for grant in self.table.held.values():
            due = min(grant.deadline, grant.confirm_by)
            if due < inf and not grant.untold:
                assert grant.expiry is not None and grant.expiry in alarms and grant.expiry[0] <= due

    @invariant()
    def the_index_of_processes_has_what_is_held(self) -> None:
        indexed = [grant for grants in self.table._index._by_process.values() for grant in grants.values()]
        assert sorted(grant.token for grant in indexed) == sorted(
            holding.token for holding in self.held.values() if holding.process
        )


def holder_of(grant: Grant) -> tuple[object, ...]:
    return grant.owner, grant.token, grant.hold, grant.deadline, grant.process


class TestModel(Model.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=150, stateful_step_count=60, deadline=None)

    def runTest(self) -> None:
        Model.looks.clear()
        super().runTest()
        for is_overdue in (True, False):
            for lives in (True, False):
                assert Model.looks[is_overdue, lives], "the model does not reach a lease that has run out"
        for what in ("woken", "place kept", "put back"):
            assert Model.looks[what], f"the model does not reach one that is {what}"


# Examples. In their names and in PROTOCOL.md the rules are told in words.


def granted(table: Table) -> list[tuple[LockRequest, bytes]]:
    told = [(ask, grant.name) for ask, grant in table.granted]
    table.granted = []
    return told


def tell(table: Table, now: float, name: bytes = b"a") -> Grant:
    """The client of a grant that was waited for is told of it; the grant."""
    grant: Grant = table.held[name]
    table.mark_told(grant, now)
    return grant


def holder(table: Table, name: bytes = b"a") -> tuple[bytes, bytes] | None:
    grant = table.held.get(name)
    return None if grant is None else grant.owner


ANN, BOB, EVE = (b"ann", b""), (b"bob", b""), (b"eve", b"")


def test_the_first_free_of_several_names_is_granted() -> None:
    table = Table()
    table.acquire(Client(ANN, (b"a",)), 0)
    grant = table.acquire(Client(BOB, (b"a", b"b", b"c")), 0)
    assert grant is not None and grant.name == b"b"
    assert set(table.held) == {b"a", b"b"}


def test_a_name_that_the_owner_holds_goes_before_one_that_is_free() -> None:
    table = Table()
    first = table.acquire(Client(ANN, (b"b",)), 0)
    assert table.acquire(Client(ANN, (b"a", b"b")), 1) is first
    assert holder(table, b"a") is None


def test_a_lock_asked_for_again_is_the_same_grant_under_new_terms() -> None:
    table = Table()
    first = table.acquire(Client(ANN, hold=5, process=PROCESSES[1]), 0)
    assert first is not None
    token = first.token
    assert table.acquire(Client(ANN, hold=7, process=PROCESSES[2]), 3) is first
    assert (first.token, first.deadline, first.process) == (token, 10, PROCESSES[2])
    assert table.expire(9.9) == []
    table.report_dead(b"h", 7, "1.1.1.1", 9.9)
    assert holder(table) == ANN
    assert table.expire(10) == [first]


@pytest.mark.parametrize(
    ("holds", "asks"), [((b"u", b"s"), (b"u", b"t")), ((b"u", b"s"), (b"u", b"")), ((b"u", b""), (b"u", b"s"))]
)
def test_another_session_of_the_same_user_is_another_owner(
    holds: tuple[bytes, bytes], asks: tuple[bytes, bytes]
) -> None:
    table = Table()
    table.acquire(Client(holds), 0)
    assert table.acquire(Client(asks), 0) is None
    table.release(Client(asks), 0)
    assert holder(table) == holds
    waiting = Client(asks)
    table.enqueue(waiting)
    table.enqueue(Client((b"u", b"third")))
    assert table.superseded == []
    table.release(Client((b"u", b"fourth")), 0)
    assert table.superseded == []
    table.release(Client(holds), 0)
    assert granted(table) == [(waiting, b"a")]


def test_waiters_are_served_in_their_order() -> None:
    table = Table()
    table.acquire(Client(ANN), 0)
    asks = [Client((b"w%d" % number, b"")) for number in range(20)]
    for ask in asks:
        table.enqueue(ask)
    served = []
    for owner in [ANN, *(ask.owner for ask in asks)]:
        table.release(Client(owner), 0)
        served += granted(table)
    assert served == [(ask, b"a") for ask in asks]
    assert not table.held


def test_a_waiter_on_several_names_gets_one_and_leaves_the_other_queues() -> None:
    table = Table()
    for name in (b"a", b"b"):
        table.acquire(Client(ANN, (name,)), 0)
    both, after = Client(BOB, (b"a", b"b")), Client(EVE, (b"a",))
    table.enqueue(both)
    table.enqueue(after)
    table.break_locks([b"b"], 0)
    assert granted(table) == [(both, b"b")]
    table.break_locks([b"a"], 0)
    assert granted(table) == [(after, b"a")]


def test_a_second_wait_of_an_owner_takes_the_place_of_the_first() -> None:
    table = Table()
    table.acquire(Client(ANN, (b"a",)), 0)
    table.acquire(Client(ANN, (b"b",)), 0)
    first, between, second = Client(BOB, (b"a", b"b")), Client(EVE), Client(BOB)
    for ask in (first, between, second):
        table.enqueue(ask)
    assert table.superseded == [first]
    table.release(Client(ANN, (b"b",)), 0)
    assert granted(table) == []  # the first one waited for b too, and has left
    table.release(Client(ANN), 0)
    assert granted(table) == [(second, b"a")]


def test_unlock_takes_a_waiter_off_all_its_queues() -> None:
    table = Table()
    table.acquire(Client(ANN, (b"a",)), 0)
    table.acquire(Client(ANN, (b"b",)), 0)
    waiting = Client(BOB, (b"a", b"b"))
    table.enqueue(waiting)
    table.release(Client(BOB, (b"b",)), 0)
    assert table.superseded == [waiting]
    table.break_locks([b"a", b"b"], 0)
    assert granted(table) == [] and not table.held


def test_breaking_frees_whoever_holds_it_and_the_next_gets_it() -> None:
    table = Table()
    first = table.acquire(Client((b"ann", b"session")), 0)
    waiting = Client(BOB)
    table.enqueue(waiting)
    assert table.break_locks([b"z", b"a"], 0) == [first]
    assert granted(table) == [(waiting, b"a")]
    assert holder(table) == BOB


def test_a_client_that_is_gone_is_passed_over() -> None:
    table = Table(is_present=is_present)
    table.acquire(Client(ANN), 0)
    gone, there = Client(BOB), Client(EVE)
    gone.is_present = False
    table.enqueue(gone)
    table.enqueue(there)
    table.release(Client(ANN), 0)
    assert granted(table) == [(there, b"a")]
    table.leave(gone)


def test_a_hold_ends_on_time_and_not_before() -> None:
    table = Table()
    table.acquire(Client(ANN, hold=1), 100)
    waiting = Client(BOB, hold=2)
    table.enqueue(waiting)
    assert table.next_expiry == 101
    assert table.expire(100.999) == []
    assert [grant.user for grant in table.expire(101)] == [b"ann"]
    assert granted(table) == [(waiting, b"a")]
    assert table.next_expiry == inf  # the hold of one that waited is counted from when its client could be told
    tell(table, 102)
    assert table.next_expiry == 104
    table.expire(104)
    assert not table.held and table.next_expiry == inf


def test_no_hold_time_is_for_ever() -> None:
    table = Table()
    table.acquire(Client(ANN), 0)
    assert table.next_expiry == inf and table.expire(1e12) == []


def test_a_waited_grant_that_is_not_confirmed_is_taken_back() -> None:
    table = Table()
    table.acquire(Client(ANN), 0)
    silent, next_one = Client(BOB, confirms=True), Client(EVE, confirms=True, hold=100)
    table.enqueue(silent)
    table.enqueue(next_one)
    table.release(Client(ANN), 50)
    tell(table, 50)
    assert table.expire(50 + CONFIRM_WITHIN - 0.01) == []
    table.expire(50 + CONFIRM_WITHIN)
    tell(table, 60)
    assert granted(table) == [(silent, b"a"), (next_one, b"a")]
    table.confirm(b"a", table.held[b"a"].token)
    assert table.expire(149.9) == []
    assert [grant.user for grant in table.expire(160)] == [b"eve"]


def queue_up(table: Table, count: int) -> list[Client]:
    """A lock a that Ann holds, and so many that wait for it and are to confirm."""
    table.acquire(Client(ANN), 0)
    waiters = [Client((b"w%d" % number, b"s"), confirms=True) for number in range(count)]
    for client in waiters:
        table.enqueue(client)
    return waiters


def test_a_lock_that_nobody_confirms_is_unused_for_15_seconds_at_most_however_many_they_are() -> None:
    """They are told of a grant that does not stand; who lives asks again."""
    table = Table()
    waiters = queue_up(table, 50)
    table.release(Client(ANN), 100)
    tell(table, 100)
    while table.held:
        now = table.next_expiry
        assert now <= 115
        table.expire(now)
        if table.held:
            tell(table, now)
    assert now > 113
    served = [request for request, _ in granted(table)]
    woken = [request for request, _ in table.woken]
    assert served + woken == waiters and len(served) == MOST_UNCONFIRMED
    assert all(grant.token > 0 and table.current(b"a", grant.token) is None for _, grant in table.woken)
    alive = Client(waiters[40].owner, confirms=True)
    assert table.acquire(alive, 114) is not None


def test_who_has_confirmed_ends_the_row() -> None:
    table = Table()
    queue_up(table, 4)
    table.release(Client(ANN), 0)
    tell(table, 0)
    assert len(table.expire(10)) == 1
    second = tell(table, 10)
    assert table.next_expiry == 11
    table.confirm(b"a", second.token)
    table.release(Client(second.owner), 50)
    tell(table, 50)
    assert table.expire(59.9) == [] and table.next_expiry == 50 + CONFIRM_WITHIN


@pytest.mark.parametrize("behind", ["not told", "told"])
def test_a_waiter_whose_confirmation_was_late_goes_back_to_its_place(behind: str) -> None:
    table = Table()
    waiters = queue_up(table, 4)
    table.release(Client(ANN), 0)
    tell(table, 0)
    table.expire(10)
    assert table.held[b"a"].owner == waiters[1].owner
    again = Client(waiters[0].owner, confirms=True)
    assert table.acquire(again, 10.5) is None
    table.enqueue(again, 10.5)
    assert table.waiters(b"a") == [again, waiters[2], waiters[3]]
    late = Client(waiters[1].owner, confirms=True)
    if behind == "told":
        tell(table, 10.5)
        table.expire(11.5)
        assert table.held[b"a"].owner == again.owner
        table.enqueue(late, 12)
        assert table.waiters(b"a") == [late, waiters[2], waiters[3]]


def test_who_gives_up_has_no_place_any_more() -> None:
    table = Table()
    first, second = queue_up(table, 2)
    table.release(Client(ANN), 0)
    tell(table, 0)
    table.expire(10)
    table.release(first, 10.5)
    again = Client(first.owner)
    third = Client(EVE)
    table.enqueue(third)
    table.enqueue(again)
    assert table.waiters(b"a") == [third, again] and table.held[b"a"].owner == second.owner


def test_a_place_is_that_of_each_name_by_itself() -> None:
    table = Table()
    for name in (b"a", b"b"):
        table.acquire(Client(ANN, (name,)), 0)
    first, second = Client(BOB, (b"a",)), Client(EVE, (b"a", b"b"))
    table.enqueue(first)
    table.enqueue(second)
    both = Client(BOB, (b"b", b"a"))
    table.enqueue(both)
    assert table.waiters(b"a") == [both, second] and table.waiters(b"b") == [second, both]


def test_a_grant_that_its_owner_has_heard_of_elsewhere_stays_when_the_first_connection_is_lost() -> None:
    table = Table()
    (waiter,) = queue_up(table, 1)
    table.release(Client(ANN), 0)
    grant = table.held[b"a"]
    assert table.acquire(Client(waiter.owner), 1) is grant
    assert table.take(table.end_untold(grant, 2)) == [] and table.held == {b"a": grant}
    tell(table, 3)
    assert table.expire(1e9) == []


# A lease that runs out


def lease(table: Table, now: float = 0, hold: float = 5, process: HolderProcess | None = PROCESSES[1]) -> Grant:
    """The lease that Ann has on the lock a from now on."""
    grant = table.acquire(Client(ANN, hold=hold, process=process, lease=True), now)
    assert grant is not None
    return grant


def overdue_lease(table: Table) -> Grant:
    """A lease that was taken at 0 and ran out at 5."""
    grant = lease(table)
    assert table.expire(5) == [] and table.overdue == [grant]
    table.overdue.clear()
    return grant


def test_a_lease_that_runs_out_is_overdue_once_and_stays_until_somebody_has_looked() -> None:
    table = Table()
    grant = lease(table)
    assert table.expire(4.9) == [] and table.overdue == []
    assert table.expire(5) == [] and table.overdue == [grant]
    assert table.expire(1e9) == [] and table.overdue == [grant]
    assert table.next_expiry == inf and table.held == {b"a": grant}


def test_a_lease_whose_process_nobody_knows_ends_when_it_runs_out() -> None:
    table = Table()
    grant = lease(table, process=None)
    assert table.expire(5) == [grant] and table.overdue == [] and not table.held


def test_an_overdue_lease_whose_process_is_not_known_to_live_goes_to_the_next() -> None:
    table = Table()
    grant = overdue_lease(table)
    waiting = Client(BOB, hold=2)
    table.enqueue(waiting)
    assert table.expire_overdue(grant, 7)
    assert granted(table) == [(waiting, b"a")] and table.held[b"a"].deadline == 9
    assert not table.expire_overdue(grant, 7)


def test_a_lease_whose_process_lives_stays_whatever_is_seen_later() -> None:
    table = Table()
    grant = overdue_lease(table)
    table.before_images = {}
    table.mark_holder_alive(grant)
    before = table.before_images[grant.token]
    assert before is not None and grant.outlived and not before.outlived
    assert not table.expire_overdue(grant, 7)
    assert table.expire(1e9) == [] and table.overdue == [] and table.held == {b"a": grant}


def test_a_lease_that_was_outlived_ends_with_its_process() -> None:
    table = Table()
    grant = overdue_lease(table)
    table.mark_holder_alive(grant)
    assert PROCESSES[1] is not None
    assert table.release_of(PROCESSES[1], 7) == [grant]


@pytest.mark.parametrize("lives", [True, False])
@pytest.mark.parametrize("how", ["renew", "lock", "lock for ever"])
def test_an_overdue_lease_that_is_renewed_before_somebody_has_looked_is_left_alone(how: str, lives: bool) -> None:
    table = Table()
    grant = overdue_lease(table)
    if how == "renew":
        table.renew(b"a", grant.token, 6)
    else:
        lease(table, 6, 0 if how == "lock for ever" else 5)
    table.before_images = {}
    if lives:
        table.mark_holder_alive(grant)
    else:
        assert not table.expire_overdue(grant, 7)
    assert table.before_images == {} and table.held == {b"a": grant}
    assert not grant.outlived and grant.deadline == (inf if how == "lock for ever" else 11)


@pytest.mark.parametrize("is_lease", [True, False])
@pytest.mark.parametrize("hold", [0, 5])
def test_a_lock_that_is_not_overdue_is_left_alone(is_lease: bool, hold: float) -> None:
    table = Table()
    grant = table.acquire(Client(ANN, hold=hold, process=PROCESSES[1], lease=is_lease), 0)
    assert grant is not None
    assert not table.expire_overdue(grant, 1)
    table.mark_holder_alive(grant)
    assert not grant.outlived and table.held == {b"a": grant}


def test_an_overdue_lease_that_was_given_back_does_not_take_the_next_grant_along() -> None:
    table = Table()
    old = overdue_lease(table)
    table.release(Client(ANN), 6)
    grant = overdue_lease(table)
    assert not table.expire_overdue(old, 7)
    table.mark_holder_alive(old)
    assert not old.outlived and table.held == {b"a": grant}


def test_a_lease_that_was_outlived_and_is_renewed_runs_out_again() -> None:
    table = Table()
    grant = overdue_lease(table)
    table.mark_holder_alive(grant)
    assert table.renew(b"a", grant.token, 100) is grant and not grant.outlived
    assert table.next_expiry == 105
    assert table.expire(105) == [] and table.overdue == [grant]
    assert table.expire_overdue(grant, 106)


def test_a_lease_that_is_recalled_can_not_be_renewed_and_is_overdue_in_time() -> None:
    table = Table()
    grant = lease(table)
    assert table.recall([b"z", b"a"]) == [grant]
    assert table.renew(b"a", grant.token, 3) is grant and lease(table, 3) is grant
    assert table.expire(5) == [] and table.overdue == [grant]
    assert table.renew(b"a", grant.token, 6) is grant and lease(table, 6) is grant  # nor behind that
    assert table.expire_overdue(grant, 7)


def test_a_lease_that_waits_for_its_confirmation_is_taken_back_when_that_does_not_come() -> None:
    table = Table()
    table.acquire(Client(EVE), 0)
    table.enqueue(Client(ANN, hold=5, process=PROCESSES[1], lease=True, confirms=True))
    table.release(Client(EVE), 0)
    grant = tell(table, 0)
    assert table.expire(5) == [grant] and table.overdue == []


@pytest.mark.parametrize("how", ["a hold time", "an unconfirmed lease", "an outlived lease", "no hold time"])
def test_of_a_process_that_is_gone_all_is_freed_but_leases_that_run(how: str) -> None:
    table = Table()
    process = PROCESSES[1]
    assert process is not None
    table.acquire(Client(EVE, (b"b",)), 0)
    running = lease(table, hold=100)
    if how == "an unconfirmed lease":
        table.enqueue(Client(ANN, (b"b",), 100, process, confirms=True, lease=True))
        table.release(Client(EVE, (b"b",)), 0)
    else:
        table.release(Client(EVE, (b"b",)), 0)
        hold = {"no hold time": 0, "an outlived lease": 5}.get(how, 100)
        other = table.acquire(Client(ANN, (b"b",), hold, process, lease=how == "an outlived lease"), 0)
        assert other is not None
        table.expire(5)
        table.mark_holder_alive(other)
        assert other.outlived == (how == "an outlived lease")
    ended, suspects = table.report_dead(process.host, process.pid, process.address, 6)
    assert [grant.name for grant in ended] == [b"b"] and suspects == [process]
    table.acquire(Client(ANN, (b"c",), process=process), 7)
    assert [grant.name for grant in table.release_of(process, 7)] == [b"c"]
    assert table.held == {b"a": running}


def test_a_process_that_is_gone_takes_no_lock_of_its_like_along() -> None:
    """On another host of the same name it may have the same number."""
    table = Table()
    mine, other = PROCESSES[1], PROCESSES[3]
    assert mine is not None and other is not None and mine[:2] == other[:2]
    gone = table.acquire(Client(ANN, (b"a",), process=mine), 0)
    stays = table.acquire(Client(ANN, (b"b",), process=other), 0)
    assert table.release_of(mine, 1) == [gone]
    assert table.held == {b"b": stays}


def test_what_is_no_lease_can_not_be_recalled() -> None:
    table = Table()
    grant = table.acquire(Client(ANN, hold=5), 0)
    assert grant is not None
    assert table.recall([b"a"]) == [] and not grant.recalled


# What is written, and what is taken back


def test_a_renewal_and_a_second_confirmation_write_nothing() -> None:
    table = Table()
    grant = lease(table)
    table.before_images = {}
    table.renew(b"a", grant.token, 1)
    lease(table, 2)
    table.confirm(b"a", grant.token)
    assert grant.deadline == 7 and table.before_images == {}


def test_each_grant_is_written_whoever_it_went_to() -> None:
    table = Table()
    table.acquire(Client(ANN), 0)
    assert table.before_images == {1: None}
    table.enqueue(Client(BOB))
    table.before_images = {}
    ann = table.held[b"a"]
    table.release(Client(ANN), 0)
    assert table.before_images == {1: ann, 2: None}


@pytest.mark.parametrize("how", ["renew", "lock"])
def test_a_renewal_is_written_when_it_is_the_first_sign_of_life(how: str) -> None:
    table = Table()
    grant = overdue_lease(table)
    table.mark_holder_alive(grant)
    table.before_images = {}
    table.renew(b"a", grant.token, 6) if how == "renew" else lease(table, 6)
    before = table.before_images[grant.token]
    assert before is not None and before.outlived and not grant.outlived


def test_what_was_outlived_before_a_change_is_so_again_when_that_is_taken_back() -> None:
    table = Table()
    grant = overdue_lease(table)
    table.mark_holder_alive(grant)
    table.before_images = {}
    table.renew(b"a", grant.token, 6)
    assert table.rollback(table.before_images, 7) == ([], [])
    assert table.held[b"a"].outlived and table.held[b"a"].deadline == inf
    assert table.expire(1e9) == [] and table.overdue == []


def test_the_waiters_for_what_is_free_by_a_rollback_wait_no_more_and_the_others_wait_on() -> None:
    table = Table()
    old = table.acquire(Client(EVE, (b"b",)), 0)
    table.before_images = {}
    table.acquire(Client(ANN, (b"a",)), 0)
    table.release(Client(EVE, (b"b",)), 0)
    table.acquire(Client(ANN, (b"b",)), 0)
    both, on_b = Client(BOB, (b"a", b"b")), Client(EVE, (b"b",))
    table.enqueue(both)
    table.enqueue(on_b)
    assert table.rollback(table.before_images, 1) == ([], [both])
    assert table.held == {b"b": old}
    assert table.waiters(b"a") == [] and table.waiters(b"b") == [on_b]


def test_a_hold_time_that_is_set_behind_a_rollback_ends_on_time() -> None:
    """The change that is taken back came when the lock had no end any more; an older end was not forgotten yet."""
    table = Table()
    table.acquire(Client(ANN, hold=100), 0)
    table.acquire(Client(ANN), 1)
    table.before_images = {}
    table.acquire(Client(ANN, process=PROCESSES[1]), 2)
    table.rollback(table.before_images, 3)
    assert table.held[b"a"].process is None
    table.acquire(Client(ANN, hold=200), 4)
    table.expire(203)
    assert [grant.user for grant in table.expire(204)] == [b"ann"]


def test_a_grant_that_was_kept_unconfirmed_has_its_time_again_to_be_confirmed() -> None:
    table = Table()
    for name in (b"a", b"b"):
        table.acquire(Client(EVE, (name,)), 0)
        table.enqueue(Client(ANN, (name,), confirms=True))
        table.release(Client(EVE, (name,)), 0)
    table.confirm(b"a", table.held[b"a"].token)
    again = Table(table.last_token)
    again.restore([grant.record(0.0) for grant in table.held.values()], 50, 0.0)
    assert again.expire(50 + CONFIRM_AGAIN_WITHIN - 0.1) == []
    assert [grant.name for grant in again.expire(50 + CONFIRM_AGAIN_WITHIN)] == [b"b"]
    assert again.expire(1e9) == []


def restarted(*holders: LockRequest) -> Table:
    """A table that begins, at 100, with locks that were kept."""
    before = Table()
    for holder in holders:
        before.acquire(holder, 0)
    after = Table(before.last_token)
    after.restore([grant.record(0.0) for grant in before.held.values()], 100, 0.0)
    return after


def test_after_a_restart_those_who_wait_are_served_in_the_order_of_how_long_they_have_waited() -> None:
    table = restarted(Client(ANN))
    late, early, new = Client(BOB, waited=5.0), Client(EVE, waited=60.0), Client((b"zoe", b""))
    for client in (new, late, early):
        table.enqueue(client, 101)
    assert table.waiters(b"a") == [early, late, new]
    table.release(Client(ANN), 110)
    assert table.held[b"a"].owner == early.owner


@pytest.mark.parametrize("way", ["release", "break", "process", "time"])
def test_what_comes_free_after_a_restart_waits_for_those_who_had_waited(way: str) -> None:
    process = HolderProcess(b"h", 7, None, b"", None, "1.1.1.1")
    table = restarted(Client(ANN, process=process, hold=1.0 if way == "time" else 0.0))
    table.enqueue(Client(EVE), 100)
    if way == "release":
        table.release(Client(ANN), 100.5)
    elif way == "break":
        assert [grant.user for grant in table.break_locks([b"a"], 100.5)] == [b"ann"]
    elif way == "process":
        assert [grant.user for grant in table.release_of(process, 100.5)] == [b"ann"]
    else:
        assert [grant.user for grant in table.expire(101)] == [b"ann"]
    table.enqueue(Client(BOB, waited=60.0), 101.5)
    assert table.acquire(Client((b"zoe", b"")), 101.5) is None and table.granted == []
    assert table.table.standing(ANN, [b"a"]) is None
    assert table.expire(100 + RETURN_WITHIN - 0.01) == [] and table.granted == []
    assert table.expire(100 + RETURN_WITHIN) == []
    assert [request.owner for request, _ in table.granted] == [Client(BOB).owner]


def test_what_comes_free_after_a_restart_is_free_at_last_if_nobody_comes_back() -> None:
    table = restarted(Client(ANN))
    table.release(Client(ANN), 100.5)
    assert table.acquire(Client(EVE), 101) is None
    assert table.expire(100 + RETURN_WITHIN) == []
    assert not table.held and table.next_expiry == inf
    assert table.acquire(Client(EVE), 103) is not None


def test_after_a_restart_a_free_lock_is_granted_at_once_and_a_new_grant_is_passed_on_at_once() -> None:
    table = restarted(Client(ANN))
    eve = Client(EVE, (b"b",))
    assert table.acquire(eve, 100.1) is not None
    table.enqueue(Client(BOB, (b"b",)), 100.2)
    table.release(eve, 100.3)
    assert table.held[b"b"].owner == Client(BOB).owner


def test_a_reservation_that_is_kept_over_a_second_restart_ends_as_well() -> None:
    table = restarted(Client(ANN))
    table.release(Client(ANN), 100.5)
    again = Table(table.last_token)
    again.restore([grant.record(0.0) for grant in table.held.values()], 200, 0.0)
    assert again.expire(201.5) == [] and again.expire(200 + RETURN_WITHIN) == []
    assert not again.held


def test_a_request_is_taken_off_its_queues_once() -> None:
    table = Table()
    table.acquire(Client(ANN), 0)
    waiting = Client(BOB)
    table.leave(waiting)
    table.enqueue(waiting)
    table.leave(waiting)
    table.leave(waiting)


# Confirmations and tokens


@pytest.mark.parametrize("sign_of_life", ["confirm", "renew", "lock"])
def test_any_sign_of_life_confirms_a_waited_grant(sign_of_life: str) -> None:
    table = Table()
    table.acquire(Client(ANN), 0)
    waiting = Client(BOB, confirms=True)
    table.enqueue(waiting)
    table.release(Client(ANN), 0)
    token = table.held[b"a"].token
    if sign_of_life == "lock":
        table.acquire(Client(BOB, confirms=True), 5)
    elif sign_of_life == "renew":
        table.renew(b"a", token, 5)
    else:
        table.confirm(b"a", token)
    assert table.expire(1e9) == []
    assert table.held[b"a"].token == token


def test_a_grant_at_once_and_one_without_the_extension_need_no_confirmation() -> None:
    table = Table()
    table.acquire(Client(ANN, (b"a",), confirms=True), 0)
    table.acquire(Client(ANN, (b"b",)), 0)
    table.enqueue(Client(BOB, (b"b",)))
    table.release(Client(ANN, (b"b",)), 0)
    assert table.expire(1e9) == []


def test_confirming_an_older_grant_does_not_confirm_the_present_one() -> None:
    table = Table()
    old = table.acquire(Client(ANN), 0)
    assert old is not None
    table.enqueue(Client(BOB, confirms=True))
    table.release(Client(ANN), 0)
    table.confirm(b"a", old.token)
    assert table.renew(b"a", old.token, 1) is None
    tell(table, 0)
    assert [grant.user for grant in table.expire(CONFIRM_WITHIN)] == [b"bob"]


def test_renewing_starts_the_hold_anew_and_keeps_the_token() -> None:
    table = Table()
    grant = table.acquire(Client(ANN, hold=10), 0)
    assert grant is not None
    token = grant.token
    for now in range(5, 100, 5):
        assert table.renew(b"a", token, now)
        assert table.expire(now) == []
    assert table.current(b"a", token) is grant
    assert table.expire(105) == [grant]
    assert not table.renew(b"a", token, 105)


def test_tokens_grow_from_the_last_one_whatever_the_name() -> None:
    table = Table(last_token=500)
    tokens = []
    for name in (b"a", b"b", b"a", b"c"):
        grant = table.acquire(Client(ANN, (name,)), 0)
        assert grant is not None
        tokens.append(grant.token)
        table.release(Client(ANN, (name,)), 0)
    assert tokens == [501, 502, 503, 504]


def test_a_death_is_believed_only_from_the_address_that_took_the_lock() -> None:
    table = Table()
    for name in (b"a", b"b"):
        table.acquire(Client(ANN, (name,), process=PROCESSES[1]), 0)
    table.acquire(Client(BOB, (b"c",), process=PROCESSES[2]), 0)
    table.acquire(Client(BOB, (b"d",)), 0)
    assert table.report_dead(b"h", 7, "9.9.9.9", 0) == ([], [PROCESSES[1], PROCESSES[1]])  # to be looked for
    assert table.report_dead(b"other", 7, "1.1.1.1", 0) == ([], [])
    assert len(table.held) == 4
    assert [grant.name for grant in table.report_dead(b"h", 7, "1.1.1.1", 0)[0]] == [b"a", b"b"]
    assert set(table.held) == {b"c", b"d"}


def test_a_death_is_not_believed_of_a_process_that_is_known_by_more_than_its_number() -> None:
    """Who says it may be in a container at the same address, where that number is nobody's."""
    table = Table()
    table.acquire(Client(ANN, (b"a",), process=PROCESSES[2]), 0)
    assert table.report_dead(b"h", 8, "2.2.2.2", 0) == ([], [PROCESSES[2]])
    assert set(table.held) == {b"a"}


def test_status_speaks_of_the_askers_own_lock_first_then_of_the_first_held_name() -> None:
    table = Table()
    table.acquire(Client(ANN, (b"b",)), 0)
    own = table.acquire(Client(BOB, (b"c",)), 0)
    names = (b"a", b"b", b"c")
    assert table.standing(Client(BOB, names)) is own
    other = table.standing(Client(EVE, names))
    assert other is not None and other.name == b"b"
    assert table.standing(Client(EVE, (b"a",))) is None


def test_whoever_goes_through_the_locks_while_they_change_meets_each_that_is_held_all_the_while_once() -> None:
    table = Table()
    names = [b"n%d" % number for number in range(5000)]
    for name in names:
        table.acquire(Client(ANN, (name,)), 0)
        table.enqueue(Client(BOB, (name,)))
    walk = table.walk()
    met = [next(walk) for _ in range(100)]
    changed = {b"n50": BOB, b"n100": BOB, b"n4999": BOB, b"n1": None, b"n101": None, b"n4000": None}
    for name, after in changed.items():
        table.release(Client(ANN, (name,)), 0)
        if after is None:
            table.release(Client(BOB, (name,)), 0)
    met += list(walk)
    assert [grant.name for grant in met] == [name for name in names if name not in (b"n101", b"n4000")]
    assert {grant.name for grant in met if grant.owner == BOB} == {b"n100", b"n4999"}


def test_time_costs_nothing_however_often_locks_come_and_go() -> None:
    table = Table()
    table.acquire(Client(ANN, (b"kept",), hold=1e6), 0)
    for number in range(20_000):
        table.acquire(Client(BOB, hold=1000, process=PROCESSES[1]), number)
        table.acquire(Client(BOB, hold=500, process=PROCESSES[1]), number)
        table.release(Client(BOB), number)
        table.before_images.clear()
        assert len(table._expiries.heap) < 1500
    assert table.expire(1e6 - 1) == []
    assert len(table.expire(1e6)) == 1
    assert not table._expiries.heap and not table._index._by_process and not table._queues.by_name


def test_hold_times_end_on_time_whatever_was_given_back_before() -> None:
    table = Table()
    numbers = random.Random(1)
    times = numbers.sample(range(1, 100_000), 3000)
    grants = [table.acquire(Client(ANN, (b"n%d" % time,), hold=time), 0) for time in times]
    for grant in grants[:2500]:
        assert grant is not None
        table.release(Client(ANN, (grant.name,)), 0)
    for time in sorted(times[2500:]):
        assert table.next_expiry <= time and table.expire(time - 0.5) == []
        assert [grant.name for grant in table.expire(time)] == [b"n%d" % time]
