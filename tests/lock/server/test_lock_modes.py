"""Locks that several hold together, and locks that are kept: rules that hold whatever is done, and examples."""

from __future__ import annotations

from collections import Counter
from copy import copy
from math import inf
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ipclocker.lock.model import Grant, HolderProcess, LockRequest, Owner, Record
from ipclocker.lock.server.effects import BeforeImages
from ipclocker.lock.server.grant_table import CONFIRM_WITHIN
from ipclocker.lock.server.lock_modes import overfull
from ipclocker.lock.server.table import RESERVED, RETURN_WITHIN

from .test_table import Client, Table, is_present

NAMES = [b"a", b"b", b"c"]
OWNERS = [(user, b"s") for user in (b"ann", b"bob", b"cy", b"dee", b"eve")]
PROCESS = HolderProcess(b"h", 7, 5, b"B", 4, "2.2.2.2")


def asks(
    user: bytes, slots: int = 1, min_hold: float = 0.0, names: tuple[bytes, ...] = (b"a",), confirms: bool = False
) -> Client:
    return Client((user, b"s"), names, confirms=confirms, slots=slots, min_hold=min_hold)


def without_times(record: Record) -> tuple[int, Record]:
    return record.token, record._replace(confirmed=True, keep_until=None)


class Modes(RuleBasedStateMachine):
    """Any requests of any slots and min-holds, for several names at once."""

    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.waiting: list[Client] = []
        self.kept_records: dict[int, Record] = {}

    @initialize(restored=st.booleans())
    def begin(self, restored: bool) -> None:
        self.table = Table(0, is_present)
        if restored:
            records = [Grant(b"a", token, asks(b"old%d" % token, 3), self.now).record(0.0) for token in (1, 2)]
            self.kept_records = {record.token: record for record in records}
            self.table.restore(records, self.now, 0.0)
            self.table.table.last_token = 2

    # What is done

    @rule(
        owner=st.sampled_from(OWNERS),
        names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).map(tuple),
        slots=st.sampled_from([1, 1, 2, 3, 0, 0]),
        min_hold=st.sampled_from([0.0, 0.0, 5.0]),
        hold=st.sampled_from([0.0, 0.0, 2.0]),
        confirms=st.booleans(),
        waits=st.booleans(),
        waited=st.sampled_from([0.0, 0.0, 30.0]),
    )
    def lock(
        self,
        owner: Owner,
        names: tuple[bytes, ...],
        slots: int,
        min_hold: float,
        hold: float,
        confirms: bool,
        waits: bool,
        waited: float,
    ) -> None:
        client = Client(owner, names, hold, confirms=confirms, slots=slots, min_hold=min_hold, waited=waited)
        own = self.held_by(owner, names)
        queues = {name: self.table.waiters(name) for name in names}
        grant = self.table.acquire(client, self.now)
        if own:
            assert grant is own[0], "who holds one of the names has that"
            assert grant.slots == slots or grant.owner == owner
        elif grant is not None:
            assert grant.owner == owner and not queues[grant.name], "nobody overtakes one who waits"
            assert (grant.slots, grant.min_hold) == (slots, min_hold)
            self.seen["joined"] += len(self.table.holders(grant.name)) > 1
        elif waits:
            self.waiting.append(client)
            self.table.enqueue(client, self.now)
        self.settle()

    @rule(which=st.integers(0, 5))
    def unlock_one_that_is_held(self, which: int) -> None:
        grants = [grant for grant in self.table.grants.values() if not grant.kept and grant.owner != RESERVED]
        if grants:
            grant = grants[which % len(grants)]
            self.unlock(grant.owner, grant.name)

    @rule(owner=st.sampled_from(OWNERS), name=st.sampled_from(NAMES))
    def unlock(self, owner: Owner, name: bytes) -> None:
        before = self.held_by(owner, (name,))
        self.table.release(Client(owner, (name,)), self.now)
        assert not self.held_by(owner, (name,))
        for grant in before:
            self.see_ended(grant)
        self.settle()

    @rule(client=st.runner().flatmap(lambda self: st.sampled_from(self.waiting) if self.waiting else st.none()))
    def hang_up(self, client: Client | None) -> None:
        if client is not None:
            client.is_present = False
            self.waiting.remove(client)
            self.table.leave(client, self.now)
            self.settle()

    @rule(client=st.runner().flatmap(lambda self: st.sampled_from(self.waiting) if self.waiting else st.none()))
    def vanish(self, client: Client | None) -> None:
        if client is not None:
            client.is_present = False

    @rule(name=st.sampled_from(NAMES), which=st.integers(0, 3))
    def break_one(self, name: bytes, which: int) -> None:
        grants = self.table.holders(name)[which : which + 1]
        self.table.take(self.table.break_grants(grants, self.now))
        assert all(grant.token not in self.table.grants for grant in grants)
        self.settle()

    @rule(name=st.sampled_from(NAMES))
    def break_all(self, name: bytes) -> None:
        broken = self.table.holders(name)
        self.table.take(self.table.break_grants(broken, self.now))
        assert not {grant.token for grant in broken} & set(self.table.grants)
        self.settle()

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 6.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        alive = [grant for grant in self.table.grants.values() if not grant.kept]
        for grant in self.table.expire(self.now):
            assert grant in alive
            self.see_ended(grant)
        kept = [grant for grant in self.table.grants.values() if grant.kept]
        assert all(grant.keep_until > self.now for grant in kept), "it was kept too long"
        self.settle()

    @rule(keep=st.booleans())
    def commit(self, keep: bool) -> None:
        """Write what has changed, or take it back, as if it could not be written."""
        if keep:
            self.write()
            return
        returned, stranded = self.table.table.rollback(self.table.before_images, self.now)
        self.table.before_images = {}
        assert self.records() == dict(map(without_times, self.kept_records.values())), "what stood before stands again"
        self.waiting = [client for client in self.waiting if client not in stranded]
        assert not set(returned) & set(stranded)
        for client in returned:
            assert isinstance(client, Client)
            self.waiting.append(client)
        self.settle()

    @rule()
    def start_again(self) -> None:
        self.write()
        self.waiting = []
        records = list(self.kept_records.values())
        assert overfull(record for record in records if record.session != RESERVED[1]) is None
        last = self.table.last_token
        self.table = Table(last, is_present)
        self.now += 1.0
        self.table.restore(records, self.now, 0.0)
        for grant in self.table.grants.values():
            assert grant.keep_until <= self.now + grant.min_hold
        self.pass_time(0.0)

    # What holds at all times

    @invariant()
    def those_who_hold_a_lock_agree(self) -> None:
        if not hasattr(self, "table"):
            return
        for name in NAMES:
            holders = [grant for grant in self.table.holders(name) if grant.owner != RESERVED]
            for grant in holders:
                assert not grant.slots or len(holders) <= grant.slots
            owners = [grant.owner for grant in holders if not grant.kept]
            assert len(set(owners)) == len(owners)
            assert (self.table.held.get(name) is None) == (not self.table.holders(name))

    @invariant()
    def nobody_waits_for_what_has_room(self) -> None:
        if not hasattr(self, "table"):
            return
        for name in NAMES:
            queue = self.table.waiters(name)
            if queue:
                assert not self.table._index.has_room(name, queue[0].slots)
                self.seen["waits though it would fit alone"] += self.table._index.has_room(name, 0)
        for client in self.waiting:
            if client.is_present:
                assert all(client in self.table.waiters(name) for name in client.names)

    # Help

    def held_by(self, owner: Owner, names: tuple[bytes, ...]) -> list[Grant]:
        return [grant for name in names for grant in self.table.holders(name) if grant.owner == owner]

    def see_ended(self, grant: Grant) -> None:
        if grant.keep_until > self.now:
            assert grant.kept and self.table.grants[grant.token] is grant, "its min-hold is not over"
            assert self.table.current(grant.name, grant.token) is None
            self.seen["kept"] += 1
        else:
            assert grant.token not in self.table.grants

    def settle(self) -> None:
        """Tell those who were granted what they waited for, and see that they were first."""
        table = self.table
        last: dict[bytes, tuple[float, int]] = {}
        for request, grant in table.granted:
            assert isinstance(request, Client) and request.is_present
            place = request.places[request.names.index(grant.name)]
            assert last.get(grant.name, (-inf, 0)) < place, "in the order of the queue"
            last[grant.name] = place
            self.waiting.remove(request)
            assert not any(request in table.waiters(name) for name in NAMES)
            self.seen["granted together"] += len(table.holders(grant.name)) > 1
        for name, place in last.items():
            for other in table.waiters(name):
                assert place < other.places[other.names.index(name)]
        for request, grant in table.granted:
            if table.grants.get(grant.token) is grant:
                table.mark_told(grant, self.now)
                if request.confirms and request.owner[0] != b"eve":  # who never confirms
                    table.confirm(grant.name, grant.token, self.now)
                    assert grant.keep_until == (self.now + grant.min_hold if grant.min_hold else -inf)
        for request, _ in table.woken:
            self.waiting.remove(request)  # type: ignore[arg-type]
        self.waiting = [client for client in self.waiting if client not in table.superseded]
        table.granted.clear()
        table.woken.clear()
        table.superseded.clear()

    def records(self) -> dict[int, Record]:
        return dict(without_times(grant.record(0.0)) for grant in self.table.grants.values())

    def write(self) -> None:
        images: BeforeImages = self.table.before_images
        for token in images:
            grant = self.table.grants.get(token)
            if grant is None:
                self.kept_records.pop(token, None)
            else:
                self.kept_records[token] = grant.record(0.0)
        self.table.before_images = {}


def test_modes() -> None:
    Modes.seen.clear()
    run_state_machine_as_test(Modes, settings=settings(max_examples=200, stateful_step_count=30))  # type: ignore[no-untyped-call]
    assert set(Modes.seen) >= {"joined", "kept", "granted together"}, Modes.seen


# Examples


def test_four_licences() -> None:
    table = Table()
    users = [b"ann", b"bob", b"cy", b"dee"]
    for user in users:
        assert table.acquire(asks(user, 4), 0) is not None
    fifth = asks(b"eve", 4)
    assert table.acquire(fifth, 0) is None
    table.enqueue(fifth)
    table.release(asks(b"bob"), 1)
    assert [grant.owner[0] for grant in table.holders(b"a")] == [b"ann", b"cy", b"dee", b"eve"]


@pytest.mark.parametrize(
    ("there", "comes", "fits"),
    [
        ([1], 1, False),
        ([1], 0, False),
        ([0], 1, False),
        ([0], 0, True),
        ([0] * 9, 0, True),
        ([0] * 3, 4, True),
        ([0] * 4, 4, False),
        ([4, 2], 0, False),
        ([4, 0], 0, True),
        ([4], 2, True),
        ([4, 4], 2, False),
    ],
)
def test_who_gets_in(there: list[int], comes: int, fits: bool) -> None:
    table = Table()
    for number, slots in enumerate(there):
        assert table.acquire(asks(b"u%d" % number, slots), 0) is not None
    assert (table.acquire(asks(b"new", comes), 0) is not None) == fits


def test_a_writer_is_not_starved_by_readers() -> None:
    table = Table()
    readers = [asks(b"r%d" % number, 0) for number in range(100)]
    writer = asks(b"writer")
    assert table.acquire(readers[0], 0) is not None
    assert table.acquire(writer, 0) is None
    table.enqueue(writer)
    for old, new in zip(readers, readers[1:]):  # there is never a moment without a reader that would like to have it
        assert table.acquire(new, 0) is None
        table.enqueue(new)
        table.release(old, 0)
        if table.granted:
            break
    assert [request for request, _ in table.granted] == [writer]
    table.granted.clear()
    table.release(writer, 1)
    assert [request for request, _ in table.granted] == [readers[1]]


def test_those_behind_a_writer_that_gives_up_get_in_at_once() -> None:
    table = Table()
    table.acquire(asks(b"ann", 0), 0)
    for request in (writer := asks(b"bob"), asks(b"cy", 0), asks(b"dee", 0)):
        assert table.acquire(request, 0) is None
        table.enqueue(request)
    table.leave(writer)
    assert [grant.owner[0] for _, grant in table.granted] == [b"cy", b"dee"]


def test_those_behind_a_writer_that_gets_another_lock_get_in_at_once() -> None:
    table = Table()
    table.acquire(asks(b"ann", 0), 0)
    table.acquire(asks(b"eve", names=(b"b",)), 0)
    for request in (asks(b"bob", names=(b"a", b"b")), asks(b"cy", 0)):
        assert table.acquire(request, 0) is None
        table.enqueue(request)
    table.release(asks(b"eve", names=(b"b",)), 1)
    assert [(grant.owner[0], grant.name) for _, grant in table.granted] == [(b"bob", b"b"), (b"cy", b"a")]


def test_a_reader_does_not_become_a_writer() -> None:
    table = Table()
    grant = table.acquire(asks(b"ann", 0), 0)
    assert table.acquire(asks(b"ann", 1), 1) is grant and grant is not None and grant.slots == 0


def test_after_a_restart_nobody_joins_before_those_who_had_waited_are_back() -> None:
    table = Table()
    table.restore([Grant(b"a", 1, asks(b"ann", 0), 5.0).record(0.0)], 10.0, 0.0)
    table.table.last_token = 1
    late = asks(b"late", 0)
    assert table.acquire(late, 10.1) is None
    table.enqueue(late, 10.1)
    writer = Client((b"writer", b"s"), (b"a",), waited=60.0)
    assert table.acquire(writer, 10.2) is None
    table.enqueue(writer, 10.2)
    assert table.expire(10.0 + RETURN_WITHIN) == [] and not table.granted
    table.release(asks(b"ann"), 13.0)
    assert [request for request, _ in table.granted] == [writer]


def test_a_reader_can_be_taken_back_to_a_lock_that_is_reserved_meanwhile() -> None:
    table = Table()
    table.restore(
        [Grant(b"a", token, asks(user, 0), 5.0).record(0.0) for token, user in enumerate([b"ann", b"bob"])], 10.0, 0.0
    )
    table.release(asks(b"ann"), 10.1)
    table.before_images.clear()
    table.release(asks(b"bob"), 10.2)
    table.rollback(table.before_images, 10.3)
    assert table.standing(asks(b"bob")) is not None
    table.release(asks(b"bob"), 10.4)
    assert table.standing(asks(b"bob")) is None


# Kept


def test_a_lock_is_kept_though_its_holder_is_done() -> None:
    table = Table()
    assert table.acquire(asks(b"ann", min_hold=60.0), 100.0) is not None
    table.release(asks(b"ann"), 101.0)
    assert table.acquire(asks(b"bob"), 159.9) is None
    assert table.acquire(asks(b"ann", min_hold=60.0), 159.9) is None, "it is nobody's"
    table.enqueue(asks(b"bob"), 159.9)
    assert table.expire(160.0) == [] and [grant.owner[0] for _, grant in table.granted] == [b"bob"]


def test_after_that_time_it_is_free_at_once() -> None:
    table = Table()
    table.acquire(asks(b"ann", min_hold=60.0), 100.0)
    assert table.expire(500.0) == [] and table.held, "a holder that lives has it"
    table.release(asks(b"ann"), 500.0)
    assert not table.held


def ends_by_unlock(table: Table) -> None:
    table.release(Client((b"ann", b"s"), (b"a",)), 1.0)


def ends_with_its_process(table: Table) -> None:
    assert [grant.owner[0] for grant in table.release_of(PROCESS, 1.0)] == [b"ann"]


def is_said_dead(table: Table) -> None:
    table.report_dead(b"h", 7, "2.2.2.2", 1.0)
    ends_with_its_process(table)


def ends_by_its_hold_time(table: Table) -> None:
    assert [grant.owner[0] for grant in table.expire(2.5)] == [b"ann"]


@pytest.mark.parametrize("end", [ends_by_unlock, ends_with_its_process, is_said_dead, ends_by_its_hold_time])
def test_nothing_shortens_it(end: object) -> None:
    table = Table()
    hold = 2.0 if end is ends_by_its_hold_time else 0.0
    grant = table.acquire(Client((b"ann", b"s"), (b"a",), hold, PROCESS, min_hold=60.0), 0.0)
    assert grant is not None
    end(table)  # type: ignore[operator]
    assert table.current(b"a", grant.token) is None
    assert table.renew(b"a", grant.token, 3.0) is None
    assert table.release_of(PROCESS, 3.0) == [] and grant.process is None
    assert table.expire(59.9) == [] and table.held
    assert table.expire(60.0) == [] and not table.held


def test_a_lease_that_ran_out_is_kept_too() -> None:
    table = Table()
    grant = table.acquire(Client((b"ann", b"s"), (b"a",), 2.0, PROCESS, lease=True, min_hold=60.0), 0.0)
    assert grant is not None
    table.expire(2.0)
    assert table.overdue == [grant] and table.expire_overdue(grant, 3.0)
    assert table.held and table.expire(60.0) == [] and not table.held


def test_only_who_breaks_it_shortens_it() -> None:
    table = Table()
    table.acquire(asks(b"ann", min_hold=60.0), 0.0)
    table.release(asks(b"ann"), 1.0)
    assert [grant.owner[0] for grant in table.break_locks([b"a"], 2.0)] == [b"ann"]
    assert not table.held


def test_it_counts_from_the_confirmation() -> None:
    table = Table()
    table.acquire(asks(b"ann"), 0.0)
    table.enqueue(asks(b"bob", min_hold=60.0, confirms=True))
    table.release(asks(b"ann"), 1.0)
    ((_, grant),) = table.granted
    table.mark_told(grant, 2.0)
    assert grant.keep_until == -inf
    table.confirm(b"a", grant.token, 5.0)
    assert grant.keep_until == 65.0


def test_one_that_does_not_confirm_keeps_nothing() -> None:
    table = Table()
    table.acquire(asks(b"ann"), 0.0)
    table.enqueue(asks(b"bob", min_hold=60.0, confirms=True))
    table.release(asks(b"ann"), 1.0)
    table.mark_told(table.held[b"a"], 2.0)
    table.expire(2.0 + CONFIRM_WITHIN)
    assert not table.held


@pytest.mark.parametrize(("stopped_for", "left"), [(0.0, 40.0), (30.0, 10.0), (100.0, 0.0), (-500.0, 60.0)])
def test_after_a_restart_what_is_left_of_it_counts(stopped_for: float, left: float) -> None:
    """By the wall clock, which may have been set back meanwhile; never more than was asked for."""
    table = Table()
    table.acquire(asks(b"ann", min_hold=60.0), 1000.0)
    table.release(asks(b"ann"), 1020.0)
    (record,) = (grant.record(5000.0) for grant in table.grants.values())
    table = Table()
    table.restore([copy(record)], 50.0, 6020.0 + stopped_for - 50.0)
    (grant,) = table.grants.values()
    assert max(grant.deadline - 50.0, 0.0) == pytest.approx(left) and grant.kept
    table.expire(50.0 + left)
    table.expire(50.0 + max(left, RETURN_WITHIN))
    assert not table.held


def test_a_living_holder_has_its_min_hold_after_a_restart_as_well() -> None:
    table = Table()
    table.acquire(asks(b"ann", min_hold=60.0), 1000.0)
    (record,) = (grant.record(0.0) for grant in table.grants.values())
    table = Table()
    table.restore([record], 1010.0, 0.0)
    table.release(asks(b"ann"), 1015.0)
    assert table.expire(1059.0) == [] and table.held
    table.expire(1060.0)
    assert not table.held


def test_more_min_hold_counts_from_when_it_was_obtained_and_less_changes_nothing() -> None:
    table = Table()
    grant = table.acquire(asks(b"ann", min_hold=10.0), 0.0)
    assert grant is not None
    table.acquire(asks(b"ann", min_hold=60.0), 5.0)
    assert (grant.min_hold, grant.keep_until) == (60.0, 60.0)
    table.acquire(asks(b"ann"), 6.0)
    assert (grant.min_hold, grant.keep_until) == (60.0, 60.0)


def record(name: bytes, token: int, slots: int) -> Record:
    return Grant(name, token, LockRequest((b"u", b""), (name,), slots=slots), 0.0).record(0.0)


def test_kept_grants_that_do_not_agree_are_noticed() -> None:
    assert overfull([record(b"a", 1, 2), record(b"a", 2, 0), record(b"b", 3, 1)]) is None
    assert overfull([record(b"b", 3, 1), record(b"a", 1, 2), record(b"a", 2, 0), record(b"a", 4, 3)]) == b"a"
    assert overfull([record(b"a", 1, 1), record(b"a", 2, 0)]) == b"a"
