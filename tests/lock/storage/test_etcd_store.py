"""Held locks in etcd: what was committed is there in the next term, and nothing is written out of its term or twice."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from ipclocker.errors import StateError
from ipclocker.lock.model import Record
from ipclocker.lock.storage.base import TermLost
from ipclocker.lock.storage.etcd import COMPACT, EtcdStore
from ipclocker.lock.storage.etcd_client import EtcdClient, EtcdSettings
from ipclocker.lock.storage.etcd_record import MAX_COMMAND

from ...support.etcd import Etcd, running_etcd
from ...support.etcd_gateway import (
    NO_SPACE,
    Answer,
    Behaviour,
    Delays,
    Exchange,
    Gateway,
    cuts_off_the_answer,
    error,
    loses_the_answer,
    loses_the_request,
    refuses,
    takes_the_last_room,
)
from ...support.waiting import DEADLINE

A_RECORD = Record(
    7, b"x", b"u", b"", 1.0, 0.0, False, False, True, False, None, b"", b"", 0, None, b"", None, "", b"", None
)
PERMISSION_DENIED = error(403, 7, "etcdserver: permission denied")
prefixes = (f"test{number}/" for number in itertools.count())


class Space:
    """A prefix of its own in a real etcd; each `store` is that of a new term, and goes through the gateway."""

    def __init__(self, etcd: Etcd, gateway: Gateway, prefix: str) -> None:
        self.etcd = etcd
        self.gateway = gateway
        self.prefix = prefix
        self.now = 0.0  # of the stores' clock
        self.valid_until = DEADLINE
        self._stores: list[EtcdStore] = []

    def begin_term(self) -> int:
        """Another leader; the term."""
        key = f"{self.prefix}leader"
        if self.etcd.keys(key):
            self.etcd.delete(key)
        self.etcd.put(key, "somebody")
        return int(self.etcd.entries(key)[0]["create_revision"])

    def store(self, **options: object) -> EtcdStore:
        store = EtcdStore(
            EtcdClient(EtcdSettings((self.gateway.url,))),
            self.prefix,
            self.begin_term(),
            lambda: self.valid_until,
            lambda: self.now,
            **options,  # type: ignore[arg-type]
        )
        self._stores.append(store)
        return store

    def loaded(self, **options: object) -> EtcdStore:
        store = self.store(**options)
        store.load()
        return store

    def grants(self) -> dict[int, Record]:
        """What another leader would load, by token."""
        grants = self.store().load().grants
        assert len({grant.token for grant in grants}) == len(grants)
        return {grant.token: grant for grant in grants}

    def keys(self) -> dict[str, str]:
        return {key[len(self.prefix) :]: value for key, value in self.etcd.keys(self.prefix).items()}

    def names(self) -> set[str]:
        """The locks that are held in etcd, as name and token."""
        return {key[5:] for key in self.keys() if key.startswith("lock/")}

    def close(self) -> None:
        for store in self._stores:
            store.close()


@pytest.fixture
def space(etcd: Etcd) -> Iterator[Space]:
    with Gateway(etcd.members[0].port).running() as gateway:
        space = Space(etcd, gateway, next(prefixes))
        yield space
        space.close()


def some(count: int, name: bytes = b"n", **others: object) -> list[Record]:
    return [A_RECORD._replace(name=b"%b%d" % (name, token), token=token, **others) for token in range(1, count + 1)]  # type: ignore[arg-type]


# What is kept


def test_a_page_may_take_longer_than_the_term_lasts_just_now(space: Space) -> None:
    """As with a million locks on a busy host, while the term is renewed again and again."""
    space.loaded().commit(some(3), [], 3)
    reads: list[float] = []

    def is_slow(exchange: Exchange) -> Answer:
        if b'"limit":"77"' in exchange.body:
            reads.append(time.monotonic())
            time.sleep(2.5)
            if len(reads) > 2:
                space.now = DEADLINE  # enough: the term is over
        return exchange.forward()

    space.valid_until = 2.0
    space.gateway.always = is_slow
    assert len(space.store(page=77).load().grants) == 3
    assert len(reads) == 1


def test_what_was_committed_is_there_in_the_next_term(space: Space) -> None:
    first = space.store()
    assert first.load()[:2] == ([], 0)
    assert first.space.isalnum() and len(first.space) == 32
    odd = [
        A_RECORD._replace(token=4, name=name, user=b"\xff/", session=b"s", lease=True, since=1.25)
        for name in (b"a/b", b"\xff\x01", b"%2F", b".")
    ]
    first.commit([*some(3), *odd], [], 5)
    first.commit([A_RECORD._replace(token=2, name=b"n2", recalled=True)], [(b"n1", 1), (b"a/b", 4)], 7)
    second = space.store()
    state = second.load()
    assert sorted(state.grants) == sorted(
        [A_RECORD._replace(token=2, name=b"n2", recalled=True), A_RECORD._replace(token=3, name=b"n3"), *odd[1:]]
    )
    assert state.last_token == 7
    assert second.space == first.space
    assert set(space.keys()) >= {"leader", "format", "space", "counter"} and space.keys()["format"] == "1"


def test_two_prefixes_are_two_spaces(space: Space, etcd: Etcd) -> None:
    other = Space(etcd, space.gateway, next(prefixes))
    one, two = space.loaded(), other.loaded()
    one.commit(some(2), [], 2)
    assert one.space != two.space and not other.grants() and set(space.grants()) == {1, 2}
    other.close()


@pytest.mark.parametrize("count", [1, 98, 99, 100, 101, 350])
def test_a_batch_of_any_number_of_changes_is_carried_out_in_transactions_that_etcd_takes(
    space: Space, count: int
) -> None:
    store = space.loaded()
    store.commit(some(count), [], count)
    store.commit(some(count, b"m"), [(b"n%d" % token, token) for token in range(1, count + 1)], 2 * count)
    state = space.store().load()
    assert sorted(state.grants) == sorted(some(count, b"m"))
    assert state.last_token == 2 * count


def test_a_batch_of_any_size_is_carried_out_and_long_commands_are_cut(space: Space) -> None:
    store = space.loaded()
    long = some(60, command=b"\xff" * 65_536, host=b"h" * 30_000)
    store.commit(long, [], 60)
    assert [len(body) < 1_500_000 for body in space.gateway.writes] == [True] * len(space.gateway.writes)
    assert len(space.gateway.writes) > 3
    assert sorted(space.grants().values()) == sorted(one._replace(command=b"\xff" * MAX_COMMAND) for one in long)


def test_what_is_freed_goes_before_what_is_granted_so_no_name_has_two_holders_at_any_moment(space: Space) -> None:
    readers = [A_RECORD._replace(token=token) for token in range(1, 251)]
    store = space.loaded()
    store.commit(readers, [], 250)
    del space.gateway.writes[:]
    store.commit([A_RECORD._replace(token=251)], [(b"x", token) for token in range(1, 251)], 251)
    held = 250
    for body in space.gateway.writes:
        operations = json.loads(body)["success"][1:]
        kinds = [next(iter(operation)) for operation in operations]
        held -= kinds.count("request_delete_range")
        assert "request_put" not in kinds or held == 0
    assert set(space.grants()) == {251}


def test_when_a_leader_was_there_is_noted_and_holders_count_as_silent_since_then(space: Space) -> None:
    before = time.time()
    store = space.loaded()
    with_process = some(2, pid=5)
    store.commit([*with_process, A_RECORD], [], 7)
    store.touch()
    after = time.time()
    space.etcd.put(f"{space.prefix}lock/n2/2", '{"user":"u","pid":5,"heard":12.5}')
    state = space.store().load()
    assert before - 0.001 <= state.served <= after
    assert {grant.token: grant.heard for grant in state.grants} == {1: state.served, 2: 12.5, 7: None}
    space.etcd.put(f"{space.prefix}served", "99999999999")  # of a host whose clock is ahead
    assert space.store().load().served <= time.time()


def test_locks_in_etcd_are_not_copied_to_a_file(space: Space, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="not copied"):
        space.loaded().copy_to(str(tmp_path / "copy"))


# Answers that are lost


@pytest.mark.parametrize("behaviour", [loses_the_answer, cuts_off_the_answer, loses_the_request])
def test_a_transaction_whose_answer_was_lost_is_carried_out_once(space: Space, behaviour: Behaviour) -> None:
    store = space.store()
    space.gateway.next_writes += [behaviour, behaviour]
    store.load()
    for number in range(3):
        space.gateway.next_writes += [behaviour] * (number + 1)
        store.commit([A_RECORD._replace(token=number + 1)], [(b"x", number)] if number else [], number + 1)
    store.commit([A_RECORD._replace(token=9)], [], 9)  # it knows where it stands
    assert set(space.grants()) == {3, 9}
    for key in ("counter", "lock/x/9"):
        (entry,) = space.etcd.entries(f"{space.prefix}{key}")
        assert entry["version"] == ("6" if key == "counter" else "1")


def test_a_try_that_comes_late_changes_nothing_any_more(space: Space) -> None:
    store = space.loaded()
    late = Delays()
    space.gateway.next_writes += [late]
    store.commit([A_RECORD], [], 7)
    store.commit([], [(b"x", 7)], 7)
    assert [json.loads(body).get("succeeded", False) for _, body in late.carry_out()] == [False]
    assert not space.names()
    store.commit([A_RECORD._replace(token=8)], [], 8)
    assert set(space.grants()) == {8}


def test_a_try_that_comes_after_the_start_of_another_term_changes_nothing(space: Space) -> None:
    store = space.loaded()
    late = Delays()

    def takes_over(exchange: Exchange) -> Answer:
        late(exchange)
        space.loaded()
        return refuses(exchange)

    space.gateway.next_writes += [takes_over]
    with pytest.raises(TermLost):
        store.commit([A_RECORD], [], 7)
    assert [json.loads(body).get("succeeded", False) for _, body in late.carry_out()] == [False]
    assert not space.names()


# The end of a term


def taken_over(space: Space) -> None:
    space.begin_term()


def gone(space: Space) -> None:
    """As when its lease was revoked behind its back."""
    space.etcd.delete(f"{space.prefix}leader")


def written_again(space: Space) -> None:
    """By the same lockerd, say: the key looks the same, but it is another term."""
    gone(space)
    space.begin_term()


@pytest.mark.parametrize("end", [taken_over, gone, written_again])
@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.commit([A_RECORD], [], 7),
        lambda store: store.commit([], [(b"n1", 1)], 7),
        lambda store: store.commit([], [], 7),
        lambda store: store.touch(),
        lambda store: store.load(),
    ],
    ids=["grant", "free", "empty", "touch", "load"],
)
def test_after_the_end_of_its_term_a_store_writes_nothing_and_confirms_nothing(
    space: Space, end: Callable[[Space], None], call: Callable[[EtcdStore], object]
) -> None:
    store = space.loaded()
    store.commit(some(1), [], 1)
    end(space)
    before = {key: value for key, value in space.keys().items() if key != "leader"}
    with pytest.raises(TermLost, match="another lockerd leads"):
        call(store)
    assert {key: value for key, value in space.keys().items() if key != "leader"} == before


def test_a_term_that_ends_while_an_answer_is_lost_is_lost_though_it_was_written(space: Space) -> None:
    store = space.loaded()

    def ends(exchange: Exchange) -> Answer:
        answer = loses_the_answer(exchange)
        space.begin_term()
        return answer

    space.gateway.next_writes += [ends]
    with pytest.raises(TermLost):
        store.commit([A_RECORD], [], 7)
    assert space.names() == {"x/7"}


def test_a_counter_that_another_program_has_written_ends_the_term(space: Space) -> None:
    store = space.loaded()
    space.etcd.put(f"{space.prefix}counter", "1 1 1")
    with pytest.raises(TermLost, match=r"another program has written .*counter"):
        store.commit([A_RECORD], [], 7)
    assert not space.names()


def test_after_its_lease_nothing_is_tried(space: Space) -> None:
    store = space.loaded()
    space.now = space.valid_until
    before = space.gateway.requests
    for call in (lambda: store.commit([A_RECORD], [], 7), store.confirm_term, store.touch, store.load):
        with pytest.raises(TermLost, match="its lease could not be renewed in time"):
            call()
    assert space.gateway.requests == before


@pytest.mark.parametrize("changed", [[A_RECORD], []])
def test_without_an_answer_it_is_tried_until_the_lease_is_over_and_longer_if_that_is_renewed(
    space: Space, changed: list[Record]
) -> None:
    store = space.loaded()
    space.valid_until = 0.3  # so long the client tries at once; by the store's clock no time goes by
    begun = time.monotonic()
    space.gateway.always = lambda exchange: (
        exchange.forward() if time.monotonic() > begun + 1 else loses_the_request(exchange)
    )
    store.commit(changed, [], 7)
    assert time.monotonic() > begun + 1

    def ends(exchange: Exchange) -> Answer:
        space.now = space.valid_until
        return loses_the_request(exchange)

    space.gateway.always = ends
    with pytest.raises(TermLost, match="gave no answer in time"):
        store.commit(changed, [], 8)


def test_nothing_is_written_after_a_batch_that_may_be_missing_though_the_lease_goes_on(space: Space) -> None:
    store = space.loaded()

    def ends(exchange: Exchange) -> Answer:
        space.valid_until = 0.0
        return refuses(exchange)

    space.gateway.next_writes += [loses_the_request, ends]
    with pytest.raises(TermLost):
        store.commit([A_RECORD], [], 7)
    space.valid_until = DEADLINE
    requests = space.gateway.requests
    for call in (lambda: store.commit(some(1), [], 8), store.confirm_term, store.touch, store.load):
        with pytest.raises(TermLost, match="its lease could not be renewed in time"):
            call()
    assert space.gateway.requests == requests and not space.names()


# Refusals


def test_what_is_refused_at_once_has_not_happened(space: Space) -> None:
    store = space.loaded()
    store.commit(some(1), [], 1)
    for refusal in (NO_SPACE, PERMISSION_DENIED, error(400, 3, "etcdserver: request is too large")):
        space.gateway.next_writes += [lambda exchange, refusal=refusal: refusal]  # type: ignore[misc]
        with pytest.raises(StateError, match=r"the locks can't be written: etcd at http.* refused"):
            store.commit([A_RECORD], [(b"n1", 1)], 7)
        assert space.names() == {"n1/1"}
        store.commit([], [], 1)
    store.commit([A_RECORD], [(b"n1", 1)], 7)
    assert set(space.grants()) == {7}


def test_an_empty_batch_shows_whether_it_can_be_written_and_a_look_at_the_term_does_not(space: Space) -> None:
    store = space.loaded()
    space.gateway.next_writes += [refuses, refuses]
    for changed in ([A_RECORD], []):
        with pytest.raises(StateError):
            store.commit(changed, [], 7)
        writes = len(space.gateway.writes)
        store.confirm_term()
        assert len(space.gateway.writes) == writes
    store.commit([], [], 7)
    assert len(space.gateway.writes) == writes + 1


def test_no_space_is_no_refusal_if_the_last_room_was_taken(space: Space) -> None:
    store = space.loaded()
    space.gateway.next_writes += [takes_the_last_room]
    store.commit([A_RECORD], [], 7)
    assert space.names() == {"x/7"}
    store.commit([], [(b"x", 7)], 7)
    assert not space.grants()


@pytest.mark.parametrize("behaviour", [loses_the_request, loses_the_answer])
def test_a_refusal_after_a_try_that_is_open_is_no_rollback(space: Space, behaviour: Behaviour) -> None:
    """It may have been carried out, or may be in a moment; if `counter` says that it was, all is well."""
    store = space.loaded()
    space.gateway.next_writes += [behaviour, refuses]
    if behaviour is loses_the_answer:
        store.commit([A_RECORD], [], 7)
        assert space.names() == {"x/7"}
    else:
        with pytest.raises(TermLost, match="space exceeded"):
            store.commit([A_RECORD], [], 7)


def test_a_refusal_of_a_later_part_is_no_rollback(space: Space) -> None:
    store = space.loaded()
    space.gateway.next_writes += [Exchange.forward, refuses]
    with pytest.raises(TermLost, match="in part"):
        store.commit(some(150), [], 150)
    assert len(space.names()) == 100


def test_a_refusal_after_which_nobody_can_look_is_no_rollback(space: Space) -> None:
    store = space.loaded()

    def falls_silent(exchange: Exchange) -> Answer:
        space.gateway.always = lambda exchange: PERMISSION_DENIED
        return NO_SPACE

    space.gateway.next_writes += [falls_silent]
    with pytest.raises(TermLost):
        store.commit([A_RECORD], [], 7)


@pytest.mark.parametrize(
    "answer",
    [
        b'{"header":{}}',
        b'{"header":{},"responses":[]}',
        b'{"header":{"revision":"x"},"succeeded":true}',
        b'{"header":{},"responses":[{"response_range":{"kvs":[{}]}},{"response_range":{}}]}',
        b'{"header":{},"responses":7}',
        b'{"header":7}',
    ],
)
def test_an_answer_like_none_of_etcds_ends_the_term_since_nobody_knows_what_it_means(
    space: Space, answer: bytes
) -> None:
    store = space.loaded()
    space.gateway.next_writes += [lambda exchange: (200, answer)]
    with pytest.raises(TermLost):
        store.commit([A_RECORD], [], 7)


def test_what_is_no_etcd_any_more_ends_the_term(space: Space) -> None:
    store = space.loaded()
    space.gateway.always = lambda exchange: (200, b"hello")
    for changed in ([A_RECORD], []):
        with pytest.raises(TermLost, match="is no etcd"):
            store.commit(changed, [], 7)


def test_a_real_etcd_without_space_takes_back_what_does_not_fit_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    options = ("--quota-backend-bytes", "3000000")
    with running_etcd(tmp_path / "etcd", 1, *options) as etcd, Gateway(etcd.members[0].port).running() as gateway:
        space = Space(etcd, gateway, "ipclocker/")
        store = space.loaded(compacts=False)
        kept: set[int] = set()
        for token in range(1, 1000):
            big = A_RECORD._replace(name=b"n%d" % token, token=token, host=b"h" * 100_000)
            try:
                store.commit([big], [], token)
            except StateError as problem:
                assert "database space exceeded" in str(problem)
                break
            kept.add(token)
        assert 5 < len(kept) < 100
        assert space.names() == {f"n{token}/{token}" for token in kept}
        for _ in range(2):
            with pytest.raises(StateError, match="database space exceeded"):
                store.commit([], [], max(kept))
        (revision,) = {entry["mod_revision"] for entry in etcd.entries("ipclocker/counter")}
        etcd.call("kv/compaction", {"revision": revision, "physical": True})
        for name in kept - {1}:
            etcd.delete(f"ipclocker/lock/n{name}/{name}")
        etcd.ctl("compact", etcd.call("kv/range", {"key": "AA=="})["header"]["revision"])
        etcd.ctl("defrag")
        etcd.ctl("alarm", "disarm")
        store.commit([], [], max(kept))
        store.commit([A_RECORD], [(b"n1", 1)], 2000)
        assert space.names() == {"x/7"}
        space.close()


# Loading


def test_a_load_goes_page_by_page_and_tells_of_each(space: Space) -> None:
    store = space.loaded()
    expected = some(1000)
    store.commit(expected, [], 1000)
    turns: list[int] = []
    state = space.store(page=300, on_page=turns.append).load()
    assert sorted(state.grants) == sorted(expected)
    assert turns == [300, 600, 900, 1000]
    turns.clear()
    assert len(space.store(page=500, on_page=turns.append).load().grants) == 1000  # the last page is full
    assert turns == [500, 1000]


def test_a_compaction_during_a_load_loses_nothing(space: Space) -> None:
    space.loaded().commit(some(30), [], 30)

    def compact(loaded: int) -> None:
        space.etcd.put("elsewhere", str(loaded))
        revision = space.etcd.call("kv/range", {"key": "AA=="})["header"]["revision"]
        space.etcd.call("kv/compaction", {"revision": revision, "physical": True})

    assert len(space.store(page=7, on_page=compact).load().grants) == 30


def test_a_load_that_is_overtaken_by_another_term_ends(space: Space) -> None:
    space.loaded().commit(some(30), [], 30)
    pages: list[int] = []

    def on_page(loaded: int) -> None:
        pages.append(loaded)
        if len(pages) == 2:
            space.begin_term()

    with pytest.raises(TermLost):
        space.store(page=7, on_page=on_page).load()
    assert pages == [7, 14]


def test_a_load_ends_what_a_former_leader_has_on_its_way_before_it_believes_anything(space: Space) -> None:
    former = space.loaded()
    late = Delays()

    def takes_over(exchange: Exchange) -> Answer:
        late(exchange)
        answers = []

        def on_page(loaded: int) -> None:
            answers.extend(late.carry_out())

        assert not space.store(on_page=on_page).load().grants
        assert [json.loads(body).get("succeeded", False) for _, body in answers] == [False]
        return refuses(exchange)

    space.gateway.next_writes += [takes_over]
    with pytest.raises(TermLost):
        former.commit([A_RECORD], [], 7)
    assert not space.names()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lock/x/7", "no JSON", "can't be read .*: look at it with etcdctl"),
        ("lock/x/7", '{"user":5}', r"can't be read \(its user is 5\)"),
        ("lock/x/seven", '{"user":"u"}', r"can't be read \(the key does not end in a name and a number\)"),
        ("lock/x", '{"user":"u"}', "can't be read"),
        ("counter", "1 2", r"can't be read \(it is b'1 2'\)"),
        ("counter", "", "can't be read"),
        ("format", "one", r"can't be read \(it is b'one'\)"),
        ("space", "two words", "can't be read"),
        ("space", "", "can't be read"),
        ("served", "noon", "can't be read"),
    ],
)
def test_a_key_that_cant_be_read_stops_the_load_and_is_named(space: Space, key: str, value: str, message: str) -> None:
    space.loaded().commit(some(3), [], 3)
    space.etcd.put(f"{space.prefix}{key}", value)
    with pytest.raises(StateError, match=f"the key '{space.prefix}{key}' in etcd at http.*{message}") as caught:
        space.store().load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("terms", [{"slots": 0}, {"slots": 4}, {"min_hold": 5.0}])
def test_an_older_lockerd_may_use_a_prefix_until_it_could_misread_what_is_there(
    space: Space, terms: dict[str, Any]
) -> None:
    store = space.loaded()
    store.commit(some(3), [], 3)
    assert space.keys()["format"] == "1"
    (record,) = some(1)
    store.commit([record._replace(token=4, **terms)], [], 4)
    assert space.keys()["format"] == "2"
    assert record._replace(token=4, **terms) in space.grants().values()
    space.loaded().commit([], [(record.name, 4)], 4)
    assert space.keys()["format"] == "2"


def test_a_prefix_that_a_newer_lockerd_uses_is_refused_and_left_as_it_is(space: Space) -> None:
    space.loaded().commit(some(3), [], 3)
    space.etcd.put(f"{space.prefix}format", "3")
    before = space.keys()
    with pytest.raises(StateError, match="are of format 3, and this lockerd knows 2: use a newer lockerd"):
        space.store().load()
    after = space.keys()
    assert {**before, "leader": ""} == {**after, "leader": ""}


def test_a_prefix_within_another_one_or_around_one_or_of_another_program_is_refused(space: Space, etcd: Etcd) -> None:
    space.etcd.put(f"{space.prefix}member/host1", "of a standby")
    space.loaded()
    for prefix in (f"{space.prefix}x/", f"{space.prefix}lock/x/"):
        inner = Space(etcd, space.gateway, prefix)
        with pytest.raises(StateError, match=f"within another one's prefix .'{space.prefix}format' is there"):
            inner.store().load()
        inner.close()
        etcd.delete(prefix)
    outer, inner, other = (Space(etcd, space.gateway, prefix) for prefix in ("around/", "around/it/", "config/"))
    inner.loaded()
    with pytest.raises(StateError, match=r"something else already .*around/it/counter.*--etcd-prefix"):
        outer.store().load()
    etcd.put("config/app", "blue")
    with pytest.raises(StateError, match=r"something else already .*config/app"):
        other.store().load()
    for each in (outer, inner, other):
        each.close()


def test_a_load_goes_on_when_answers_are_lost(space: Space) -> None:
    space.valid_until = 0.3  # so long the client tries at once; by the store's clock no time goes by
    paths: dict[str, float] = {}

    def loses_the_first(exchange: Exchange) -> Answer:
        since = paths.setdefault(exchange.path, time.monotonic())
        return exchange.forward() if time.monotonic() > since + 1 else loses_the_request(exchange)

    space.gateway.always = loses_the_first
    inner = Space(space.etcd, space.gateway, f"{space.prefix}inner/")
    inner.valid_until = 0.3
    inner.loaded()
    assert set(paths) == {"/v3/kv/txn", "/v3/kv/range"}
    inner.close()


def test_a_load_that_may_not_read_says_so(space: Space) -> None:
    store = space.store()
    space.gateway.always = lambda exchange: PERMISSION_DENIED
    with pytest.raises(StateError, match=r"can't be read: .*permission denied"):
        store.load()


# Compaction


def first_revision_is_there(etcd: Etcd, revision: str) -> bool:
    try:
        etcd.call("kv/range", {"key": "AA==", "revision": revision})
    except AssertionError as problem:
        assert "compacted" in str(problem)
        return False
    return True


@pytest.mark.parametrize("compacts", [True, False])
def test_old_revisions_are_dropped_each_minute_unless_that_is_off(space: Space, compacts: bool) -> None:
    space.valid_until = 10 * COMPACT
    store = space.loaded(compacts=compacts)
    store.commit(some(3), [], 3)
    old = space.etcd.entries(f"{space.prefix}counter")[0]["mod_revision"]
    store.commit([], [(b"n1", 1)], 3)
    store.touch()
    assert first_revision_is_there(space.etcd, old)
    space.now = COMPACT
    store.touch()
    assert first_revision_is_there(space.etcd, old) != compacts
    store.touch()
    space.now = 2 * COMPACT
    store.touch()  # nothing to drop, which is no trouble
    assert set(space.grants()) == {2, 3}


def test_a_touch_that_has_no_answer_is_a_problem_but_not_the_end(space: Space) -> None:
    store = space.loaded()
    space.gateway.next_writes += [refuses]
    with pytest.raises(StateError, match="it can't be noted when locks were last served"):
        store.touch()
    store.commit([A_RECORD], [], 7)
    store.touch()
    assert set(space.grants()) == {7}


# Real clusters


def test_a_batch_goes_on_with_another_member_when_one_is_killed(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "etcd", 3) as etcd:
        etcd.put("ipclocker/leader", "me")
        term = int(etcd.entries("ipclocker/leader")[0]["create_revision"])
        settings = EtcdSettings(tuple(etcd.urls))
        store = EtcdStore(EtcdClient(settings), "ipclocker/", term, lambda: time.monotonic() + DEADLINE)
        store.load()
        done = threading.Event()
        problems: list[BaseException] = []

        def work() -> None:
            try:
                token = 0
                while not done.is_set() or token < 50:
                    token += 1
                    store.commit([A_RECORD._replace(token=token)], [(b"x", token - 1)], token)
                    reached.append(token)
            except BaseException as problem:  # noqa: BLE001 - raised below
                problems.append(problem)

        reached: list[int] = [0]
        thread = threading.Thread(target=work)
        thread.start()
        for member in etcd.members:
            before = reached[-1]
            end = time.monotonic() + DEADLINE
            while reached[-1] < before + 20 and time.monotonic() < end and not problems:
                time.sleep(0.005)
            member.restart()
            etcd.wait_until_healthy()
        done.set()
        thread.join(DEADLINE)
        assert not problems and not thread.is_alive()
        token = reached[-1]
        assert set(etcd.keys("ipclocker/lock/")) == {f"ipclocker/lock/x/{token}"}
        assert etcd.keys("ipclocker/counter")["ipclocker/counter"] == f"{term} {token + 1} {token}"
        store.close()


def test_all_works_over_tls_for_a_user_that_may_use_its_prefix_alone_and_whose_token_ends(tmp_path: Path) -> None:
    options = ("--auth-token-ttl", "1")
    with running_etcd(tmp_path / "etcd", 1, *options, tls=True, client_certificates=True) as etcd:
        etcd.require_users(lockerd=("secret", "ipclocker/locks/"))
        (tmp_path / "password").write_text("secret\n")
        assert etcd.certificates is not None
        cert, key = map(str, etcd.certificates.issue("lockerd"))
        settings = EtcdSettings.from_text(
            etcd.urls[0],
            "ipclocker/locks",
            cacert=str(etcd.certificates.authority),
            cert=cert,
            key=key,
            user="lockerd",
            password_file=str(tmp_path / "password"),
        )
        etcd.put("ipclocker/locks/leader", "me")
        term = int(etcd.entries("ipclocker/locks/leader")[0]["create_revision"])
        now = 0.0
        store = EtcdStore(EtcdClient(settings), settings.prefix, term, lambda: now + DEADLINE, lambda: now)
        store.load()
        store.commit(some(3), [], 3)
        time.sleep(3)  # etcd looks each second which tokens have ended; more only makes it surer
        store.commit(some(150), [], 150)
        now = COMPACT
        time.sleep(3)
        store.touch()
        store.commit([], [], 150)
        assert len(store.load().grants) == 150
        store.close()


def test_after_a_touch_it_is_the_leading_member_that_is_written_to(space: Space) -> None:
    leader = space.etcd.call("maintenance/status", {})["leader"]
    follows = json.dumps({"header": {"member_id": "1"}, "leader": leader}).encode()

    def follower(exchange: Exchange) -> Answer:
        return (200, follows) if exchange.path == "/v3/maintenance/status" else exchange.forward()

    with Gateway(space.etcd.members[0].port, always=follower).running() as other:
        client = EtcdClient(EtcdSettings((other.url, space.gateway.url)))
        store = EtcdStore(client, space.prefix, space.begin_term(), lambda: space.valid_until, lambda: space.now)
        store.load()
        store.touch()
        assert not space.gateway.writes
        store.commit([A_RECORD], [], 7)
        assert len(space.gateway.writes) == 1
        store.close()
    assert set(space.grants()) == {7}
