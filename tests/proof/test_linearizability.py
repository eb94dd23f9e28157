"""The checker checked: on histories written by hand, and on random ones that are right and then made wrong."""

from __future__ import annotations

import random
from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .history import (
    BREAK,
    CHECK,
    GONE,
    LOCK,
    OBTAINED,
    STATUS,
    UNLOCK,
    Operation,
    Recorder,
    Result,
    by_names,
    check_tokens,
    note_kill,
    read_histories,
)
from .linearizability import NotLinearizable, find_order
from .models import Locks, Queue

BUSY, QUEUED, FREED = ("busy",), ("queued",), ("freed",)


def op(
    client: str, action: str, called: float, returned: float, *result: str | int | None, name: str = "x"
) -> Operation:
    """One operation; without a result it may never have happened."""
    return Operation(client, action, tuple(name.split()), called, returned, result or None, bool(result))


def got(token: int, name: str = "x") -> Result:
    return ("granted", name, token)


def accepts(model: type[Locks | Queue], *history: Operation) -> bool:
    try:
        order = find_order(history, model(), model.step)  # type: ignore[arg-type]
    except NotLinearizable:
        return False
    assert {operation for operation in history if operation.certain} <= set(order)
    return True


RIGHT = {
    "nothing": [],
    "one after the other": [
        op("a", LOCK, 0, 1, *got(1)),
        op("a", UNLOCK, 2, 3, *FREED),
        op("b", LOCK, 4, 5, *got(2)),
    ],
    "a wait": [
        op("a", LOCK, 0, 1, *got(1)),
        op("b", LOCK, 2, 6, *got(2)),
        op("a", UNLOCK, 3, 9, *FREED),
        op("b", UNLOCK, 7, 8, *FREED),
    ],
    "told no while it was held": [op("a", LOCK, 0, 1, *got(1)), op("b", LOCK, 2, 3, *BUSY)],
    "told no by one who was only about to hold it": [op("a", LOCK, 0, 9, *got(1)), op("b", LOCK, 2, 3, *BUSY)],
    "granted again to its owner": [op("a", LOCK, 0, 1, *got(7)), op("a", LOCK, 2, 3, *got(7))],
    "a killed holder": [
        op("a", LOCK, 0, 1, *got(1)),
        op("a", GONE, 2, inf),
        op("b", LOCK, 3, 4, *got(2)),
    ],
    "a killed client whose request was still granted": [
        op("a", LOCK, 0, inf),
        op("a", GONE, 1, inf),
        op("b", LOCK, 2, 3, *BUSY),
        op("b", LOCK, 4, 5, *got(2)),
    ],
    "given up, granted meanwhile, given back": [
        op("a", LOCK, 0, 1, *got(1)),
        op("b", LOCK, 2, 9, *BUSY),
        op("b", LOCK, 2, 9),
        op("b", GONE, 2, 9),
        op("b", UNLOCK, 10, 10, "lost"),
        op("a", UNLOCK, 3, 4, *FREED),
        op("c", STATUS, 5, 6, "owner", "b"),
        op("c", STATUS, 11, 12, "owner", None),
    ],
    "kept by a server that was started again, for those who had waited": [
        op("server 0", LOCK, 0, 20),
        op("server 0", GONE, 0, 20),
        op("a", LOCK, 1, 2, *BUSY),
        op("b", STATUS, 3, 4, "owner", None),
        op("a", LOCK, 5, 6, *BUSY),
        op("a", LOCK, 7, 8, *got(1)),
    ],
    "broken, and found out": [
        op("a", LOCK, 0, 1, *got(1)),
        op("b", BREAK, 2, 3, "broke", "a"),
        op("a", CHECK, 4, 5, "current", 1, 0),
        op("a", UNLOCK, 6, 7, "lost"),
        op("b", BREAK, 8, 9, "broke"),
    ],
}
WRONG = {
    "two at once": [op("a", LOCK, 0, 1, *got(1)), op("b", LOCK, 2, 3, *got(2))],
    "two at once, overlapping": [op("a", LOCK, 0, 4, *got(1)), op("b", LOCK, 1, 3, *got(2))],
    "told no while it was free": [
        op("a", LOCK, 0, 1, *got(1)),
        op("a", UNLOCK, 2, 3, *FREED),
        op("b", LOCK, 4, 5, *BUSY),
    ],
    "granted before it was free": [
        op("a", LOCK, 0, 1, *got(1)),
        op("b", LOCK, 2, 3, *got(2)),
        op("a", UNLOCK, 4, 5, *FREED),
    ],
    "a token that falls": [
        op("a", LOCK, 0, 1, *got(2)),
        op("a", UNLOCK, 2, 3, *FREED),
        op("b", LOCK, 4, 5, *got(1)),
    ],
    "one token twice": [
        op("a", LOCK, 0, 1, *got(2)),
        op("a", UNLOCK, 2, 3, *FREED),
        op("b", LOCK, 4, 5, *got(2)),
    ],
    "a lock that was lost": [op("a", LOCK, 0, 1, *got(1)), op("a", UNLOCK, 2, 3, "lost")],
    "freed before its holder was killed": [
        op("a", LOCK, 0, 1, *got(1)),
        op("b", LOCK, 2, 3, *got(2)),
        op("a", GONE, 4, inf),
    ],
    "given up, and held after": [
        op("a", LOCK, 0, 1, *got(1)),
        op("b", LOCK, 2, 9, *BUSY),
        op("b", LOCK, 2, 9),
        op("b", GONE, 2, 9),
        op("b", UNLOCK, 10, 10, "lost"),
        op("a", UNLOCK, 3, 4, *FREED),
        op("c", STATUS, 11, 12, "owner", "b"),
    ],
    "the holder is somebody who has given it back": [
        op("a", LOCK, 0, 1, *got(1)),
        op("a", UNLOCK, 2, 3, *FREED),
        op("b", STATUS, 4, 5, "owner", "a"),
    ],
    "held by nobody, while it was held all along": [
        op("a", LOCK, 0, 1, *got(1)),
        op("b", STATUS, 2, 3, "owner", None),
        op("a", UNLOCK, 4, 5, *FREED),
    ],
    "current, and broken before": [
        op("a", LOCK, 0, 1, *got(1)),
        op("b", BREAK, 2, 3, "broke", "a"),
        op("a", CHECK, 4, 5, "current", 1, 1),
    ],
    "its first name was free": [op("a", LOCK, 0, 1, *got(1, "y"), name="x y")],
}


@pytest.mark.parametrize("history", RIGHT.values(), ids=list(RIGHT))
def test_what_can_be(history: list[Operation]) -> None:
    assert accepts(Locks, *history)
    assert accepts(Queue, *history)


@pytest.mark.parametrize("history", WRONG.values(), ids=list(WRONG))
def test_what_can_not_be(history: list[Operation]) -> None:
    assert not accepts(Locks, *history)
    if all(len(operation.names) == 1 for operation in history):
        assert not accepts(Queue, *history)


def test_the_first_of_several_names_that_is_free() -> None:
    held = op("a", LOCK, 0, 1, *got(1))
    assert accepts(Locks, held, op("b", LOCK, 2, 3, *got(2, "y"), name="x y"))
    assert accepts(Locks, held, op("b", LOCK, 2, 3, *got(2, "y"), name="x y"), op("c", LOCK, 4, 5, *BUSY, name="y x"))
    assert not accepts(Locks, held, op("c", LOCK, 4, 5, *BUSY, name="y x"))


def test_the_refusal_says_where_it_ends() -> None:
    with pytest.raises(NotLinearizable) as refused:
        find_order(WRONG["two at once"], Locks(), Locks.step)
    assert str(refused.value).startswith("after 1 of 2 operations, the last of which were")
    assert "b: lock x -> granted x 2 is impossible" in str(refused.value)


WAITERS = [
    op("a", LOCK, 0, 1, *got(1)),
    op("b", LOCK, 2, 3, *QUEUED),
    op("c", LOCK, 4, 5, *QUEUED),
    op("a", UNLOCK, 6, 7, *FREED),
]


def test_first_come_first_served() -> None:
    b, c = op("b", OBTAINED, 3, 9, *got(2)), op("c", OBTAINED, 5, 12, *got(3))
    assert accepts(Queue, *WAITERS, b)
    assert accepts(Queue, *WAITERS, b, op("b", UNLOCK, 10, 11, *FREED), c)
    assert not accepts(Queue, *WAITERS, c)
    assert not accepts(Queue, *WAITERS, op("d", LOCK, 8, 9, *got(2))), "nobody overtakes those who wait"


def test_who_leaves_the_queue_is_passed_over() -> None:
    c = op("c", OBTAINED, 5, 12, *got(2))
    assert accepts(Queue, *WAITERS, op("b", GONE, 4, inf), c)
    assert not accepts(Queue, *WAITERS, op("b", GONE, 13, inf), c), "it left only later"
    assert accepts(Queue, *WAITERS, op("b", UNLOCK, 4, 5, *FREED), c)


def test_two_that_ask_at_once_may_be_served_in_either_order() -> None:
    asked = [op("a", LOCK, 0, 1, *got(1)), op("b", LOCK, 2, 5, *QUEUED), op("c", LOCK, 3, 4, *QUEUED)]
    freed = op("a", UNLOCK, 6, 7, *FREED)
    for first in ("b", "c"):
        assert accepts(Queue, *asked, freed, op(first, OBTAINED, 5, 9, *got(2)))


def random_history(dice: random.Random, clients: int, steps: int) -> list[Operation]:
    """A right one: operations are done one after the other, and their calls and returns drawn around that."""
    state = Locks()
    token = 0
    free_at = [0.0] * clients
    history = []
    for moment in range(1, steps + 1):
        client = dice.randrange(clients)
        if free_at[client] >= moment:
            continue  # its last operation has not returned yet
        name = f"client{client}"
        action = dice.choice([LOCK, LOCK, UNLOCK, STATUS])
        results: dict[str, list[Result]] = {
            LOCK: [got(token + 1), BUSY, *(got(held.token or 0) for _, held in state.held)],
            UNLOCK: [FREED, ("lost",)],
            STATUS: [("owner", None), *(("owner", held.client) for _, held in state.held)],
        }
        called = dice.uniform(max(free_at[client], moment - 5), moment)
        returned = dice.uniform(moment, moment + 5)
        for result in results[action]:
            operation = Operation(name, action, ("x",), called, returned, result)
            after = state.step(operation)
            if after is not None:
                history.append(operation)
                state, token, free_at[client] = after, after.last, returned
                break
        else:
            raise AssertionError(f"no result is right: {operation}")
    return history


@settings(deadline=None, max_examples=100)
@given(st.randoms(use_true_random=False), st.integers(1, 8), st.integers(1, 120))
def test_what_was_one_after_the_other_is_accepted(dice: random.Random, clients: int, steps: int) -> None:
    history = random_history(dice, clients, steps)
    dice.shuffle(history)
    assert accepts(Locks, *history)
    assert accepts(Queue, *history)
    check_tokens(history)


@settings(deadline=None, max_examples=100)
@given(st.randoms(use_true_random=False))
def test_a_grant_too_many_is_refused(dice: random.Random) -> None:
    """One that lies within a time for which somebody else is known to have held the lock."""
    history = random_history(dice, 4, 60)
    for number, grant in enumerate(history):
        if grant.action != LOCK or grant.result == BUSY:
            continue
        later = [other for other in history[number + 1 :] if other.client == grant.client and other.action == UNLOCK]
        until = later[0].called if later else grant.returned + 1
        if until > grant.returned:
            width = until - grant.returned
            called = grant.returned + width / 4
            intruder = Operation("intruder", LOCK, ("x",), called, called + width / 4, got(1_000_000))
            assert not accepts(Locks, *history, intruder)
            assert not accepts(Queue, *history, intruder)


def test_tokens_grow_over_all_names() -> None:
    first, second = op("a", LOCK, 0, 1, *got(5)), op("b", LOCK, 2, 3, *got(6, "y"), name="y")
    check_tokens([first, second, op("a", LOCK, 4, 5, *got(5))])
    with pytest.raises(AssertionError, match="one token"):
        check_tokens([first, second._replace(result=got(5, "y"))])
    with pytest.raises(AssertionError, match="not above 5"):
        check_tokens([first, second._replace(result=got(4, "y"))])
    check_tokens([first, second._replace(called=0.5, result=got(4, "y"))])


def test_names_apart() -> None:
    a, b, c = op("a", LOCK, 0, 1, name="x"), op("b", LOCK, 0, 1, name="y"), op("c", LOCK, 0, 1, name="z y")
    assert by_names([a, b]) == [[a], [b]]
    assert by_names([a, b, c]) == [[a], [b, c]]


def test_a_grant_that_is_broken_before_it_is_heard_of(tmp_path: Path) -> None:
    a, b, c = (Recorder(tmp_path, name) for name in "abc")
    a.call(LOCK, ["x"])
    b.call(STATUS, ["x"])
    b.returned("owner", "a")
    b.call(BREAK, ["x"])
    b.returned()
    c.call(LOCK, ["x"])
    c.returned("granted", "x", 2)
    c.call(UNLOCK, ["x"])
    c.returned("freed")
    a.returned("granted", "x", 3)
    for recorder in (a, b, c):
        recorder.close()
    operations = read_histories(tmp_path)
    assert accepts(Locks, *operations)
    assert not accepts(Locks, *(operation for operation in operations if operation.certain))


def test_a_grant_that_a_killed_server_has_told_nobody_of(tmp_path: Path) -> None:
    """Its client asks anew, and gives back what it may have before."""
    a, b = (Recorder(tmp_path, name) for name in "ab")
    a.call(LOCK, ["x"])
    b.call(STATUS, ["x"])
    b.returned("owner", "a")
    note_kill(tmp_path)
    b.call(LOCK, ["x"])
    b.returned("granted", "x", 2)
    b.call(UNLOCK, ["x"])
    b.returned("freed")
    a.returned("granted", "x", 3)
    for recorder in (a, b):
        recorder.close()
    assert accepts(Locks, *read_histories(tmp_path))
    (tmp_path / "kills").unlink()
    assert not accepts(Locks, *read_histories(tmp_path))


def test_a_lock_that_the_next_server_keeps_for_others(tmp_path: Path) -> None:
    a, b = (Recorder(tmp_path, name) for name in "ab")
    a.call(LOCK, ["x"])
    a.returned("granted", "x", 1)
    note_kill(tmp_path)
    a.call(UNLOCK, ["x"])
    a.returned("freed")
    b.call(LOCK, ["x"])
    b.returned("busy")
    b.call(LOCK, ["x"])
    b.returned("granted", "x", 3)
    for recorder in (a, b):
        recorder.close()
    assert accepts(Locks, *read_histories(tmp_path))
    (tmp_path / "kills").unlink()
    assert not accepts(Locks, *read_histories(tmp_path))


def test_a_diary_is_read_as_it_was_written(tmp_path: Path) -> None:
    a, b = Recorder(tmp_path, "a"), Recorder(tmp_path, "b")
    a.call(LOCK, ["x"])
    a.returned("granted", "x", 1)
    a.call(UNLOCK, ["x"])
    b.call(LOCK, ["x", "y"])
    b.gave_up()
    a.gone()
    one, two, three, *given_up = read_histories(tmp_path)
    for recorder in (a, b):
        recorder.close()
    assert (one.client, one.action, one.result, one.certain) == ("a", LOCK, ("granted", "x", 1), True)
    assert one.called <= one.returned <= two.called
    assert {two, three} == {
        Operation("a", UNLOCK, ("x",), max(two, three, key=lambda o: o.action).called, certain=False),
        Operation("a", GONE, ("x",), min(two, three, key=lambda o: o.action).called, certain=False),
    }
    assert [(o.action, o.result, o.certain, o.ends) for o in given_up] == [
        (LOCK, BUSY, True, True),
        (LOCK, None, False, True),
        (GONE, None, False, True),
        (UNLOCK, ("lost",), True, True),
    ]
