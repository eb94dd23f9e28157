"""Runs of a lock server that a kill or a power cut ends, and whether the next one knows all that was answered."""

from __future__ import annotations

import itertools
import random
import shutil
import threading
from pathlib import Path

from ..support.servers import ThreadServer
from .disk import disks, may_hold
from .trace import Call, Request, Traced, requests

GRANTED = "user {client}; session {client}; token 1; locks {name}; LOCK"
FREED = "user {client}; session {client}; token 1; locks {name}; UNLOCK"


def use(traced: Traced, clients: int, rounds: int) -> None:
    """Some clients at once lock names that are not used a second time, and give half of them back."""

    def live(client: str) -> None:
        peer = traced.connect()
        try:
            for number in range(rounds):
                name = f"<{client}.{number}>"
                peer.ask(GRANTED.format(client=client, name=name))
                if number % 2:
                    peer.ask(FREED.format(client=client, name=name))
        finally:
            peer.close()

    threads = [threading.Thread(target=live, args=(f"c{number}",)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def traced_run(folder: Path, clients: int = 3, rounds: int = 12, before: str = "pass") -> tuple[Traced, list[Call]]:
    with Traced(folder, before) as traced:
        assert traced.await_it(), traced.said()
        use(traced, clients, rounds)
    return traced, traced.calls()


def look(state: Path) -> tuple[dict[str, int], int]:
    """The names and tokens that a server finds in a state, and the token that it gives next."""
    held = {}
    with ThreadServer("127.0.0.1", 0, state=str(state)) as server:
        peer = server.connect()
        names = [line.split()[1] for line in peer.ask("LOCK_LIST")]
        for line in peer.ask("LOCK_INFO"):
            words = line.split()
            held[words[1]] = int(words[words.index("token") + 1])
        assert sorted(held) == sorted(names), f"a lock that is held twice: {sorted(names)}"
        granted = peer.ask("user new; session new; token 1; locks new; LOCK")
    return held, int(granted[3].split()[1])


def check_kept(state: Path, asked: list[Request], line: int) -> None:
    """What was answered up to a line of the trace is in the state."""
    held, next_token = look(state)
    possible = may_hold(asked, line)
    assert set(held) <= set(possible), "nobody asked for that"
    for name, tokens in possible.items():
        found = held.get(name, 0)
        assert found in tokens or (found > 0 and -1 in tokens), f"{name}: {found} where there may be {tokens}"
    assert next_token > max([0, *(token for tokens in possible.values() for token in tokens)])


def cut_power(traced: Traced, calls: list[Call], folder: Path, dice: random.Random, cuts: int) -> None:
    """At some moments of a run, see what a server finds that is started on what may be left."""
    asked = requests(calls)
    end = max(call.ended for call in calls)
    lines = [dice.randrange(end + 1) for _ in range(cuts)]
    for line, disk in disks(calls, lines, traced.state.parent):
        left = folder / "left"
        disk.after_cut(left, dice)
        check_kept(left / traced.state.name, asked, line)
        shutil.rmtree(left)


def use_alone(traced: Traced) -> bool:
    """One client locks two names, one of them twice, and gives them back; whether the server lived to answer that."""
    peer = traced.connect()
    try:
        for request, name in ((GRANTED, "a"), (GRANTED, "b"), (FREED, "a"), (GRANTED, "a"), (FREED, "b")):
            peer.ask(request.format(client="c", name=name))
    except (EOFError, ConnectionError):
        return False
    finally:
        peer.close()
    return True


def kill_at_each(folder: Path, call: str, prepared: Path | None, before: str = "pass") -> int:
    """Kill a server at its first call of that kind, another at its second, and so on; how many there were.

    Each begins with a copy of `prepared`, or with nothing, and leaves what it had answered.
    """
    for number in itertools.count(1):
        run = folder / f"{call}{number}"
        run.mkdir(parents=True)
        if prepared is not None:
            shutil.copytree(prepared, run / "state")
        with Traced(run, before, ("-e", f"inject={call}:signal=KILL:when={number}")) as traced:
            lived = traced.await_it() and use_alone(traced)
        calls = traced.calls()
        check_kept(traced.state, requests(calls), max(call.ended for call in calls) + 1)
        if lived:
            return number - 1
    raise AssertionError
