"""Locks that several hold together, and locks that are kept: as Locker and lockersh take them, from real servers."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipclocker import LockBusy, Locker, ServerUnavailable, UsageError

from ...support.fake_servers import ClassicServer
from ...support.processes import run_ipclocker
from ...support.servers import Lockerd, ThreadServer
from ...support.waiting import in_thread, wait_for

pytestmark = pytest.mark.usefixtures("no_settings_of_the_user")


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with ThreadServer() as server:
        yield server


def locker(server: ThreadServer | ClassicServer | Lockerd, **parameters: object) -> Locker:
    return Locker("x", host="127.0.0.1", port=server.port, connect_tries=1, **parameters)  # type: ignore[arg-type]


def lockersh(server: ThreadServer | ClassicServer | Lockerd, *words: str) -> tuple[int, str, str]:
    done = run_ipclocker("lockersh", "--dhost", "127.0.0.1", "--port", str(server.port), "--lock", "x", *words)
    return done.returncode, done.stdout, done.stderr


def test_so_many_at_a_time_and_then_one_waits_for_the_first_that_is_done(server: ThreadServer) -> None:
    first, second, third = (locker(server, slots=2) for _ in range(3))
    assert first.acquire() and second.acquire() and not third.acquire(blocking=False)
    with in_thread(third.acquire) as waits:
        wait_for(lambda: server.waiters("x") == 1, "the third")
        second.release()
    assert waits == [True]
    first.release()
    third.unlock()
    assert locker(server).acquire(blocking=False)


def test_readers_share_it_and_a_writer_has_it_alone(server: ThreadServer) -> None:
    readers = [locker(server, shared=True) for _ in range(5)]
    assert all(reader.acquire(blocking=False) for reader in readers)
    writer = locker(server)
    with in_thread(writer.acquire) as waits:
        wait_for(lambda: server.waiters("x") == 1, "the writer")
        late = locker(server, shared=True)
        assert not late.acquire(blocking=False), "nobody overtakes the writer"
        for reader in readers:
            reader.release()
    assert waits == [True]
    assert not late.acquire(blocking=False)
    writer.unlock()
    assert late.acquire(blocking=False)


def test_a_holder_can_not_change_its_slots(server: ThreadServer) -> None:
    lock = locker(server, shared=True)
    assert lock.acquire()
    with pytest.raises(UsageError, match="the lock x is held with another number of slots"):
        lock.lock(shared=False)


@pytest.mark.parametrize("parameters", [{"slots": 4}, {"shared": True}, {"min_hold": 60}])
def test_a_server_that_does_not_know_it_gets_the_lock_back(parameters: dict[str, object]) -> None:
    with ClassicServer() as classic:
        with pytest.raises(ServerUnavailable, match=r"knows no (slots|min-hold).*: use one of this release"):
            locker(classic, user="me", **parameters).acquire()
        assert locker(classic, user="other").acquire(blocking=False), "it was given back"


def test_lockersh_runs_nothing_under_a_lock_of_a_server_that_does_not_know_it() -> None:
    with ClassicServer() as classic:
        for option in (["--slots", "2"], ["-s"], ["--min-hold", "60"]):
            code, out, error = lockersh(classic, *option, "--", "echo", "ran")
            assert (code, out, error.count("\n")) == (69, "", 1) and "use one of this release" in error


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"slots": 0}, "slots is 0"),
        ({"slots": 1.5}, "slots is 1.5"),
        ({"slots": True}, "slots is True"),
        ({"slots": 2, "shared": True}, "give one of them"),
        ({"shared": "yes"}, "shared is 'yes'"),
        ({"min_hold": -1}, "min_hold is '-1'"),
    ],
)
def test_values_that_mean_nothing(parameters: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Locker("x", **parameters)  # type: ignore[arg-type]


def test_lockersh_takes_one_or_the_other(server: ThreadServer) -> None:
    code, _, error = lockersh(server, "--slots", "2", "--shared", "--", "true")
    assert code == 64 and "give one of them" in error
    assert lockersh(server, "--slots", "0", "--", "true")[0] == 64


def test_a_cron_line_that_runs_once_though_three_hosts_start_it(server: ThreadServer) -> None:
    once = ["--min-hold", "60", "-nqE", "0", "--", "echo", "ran"]
    assert [lockersh(server, *once) for _ in range(3)] == [(0, "ran\n", ""), (0, "", ""), (0, "", "")]
    assert not server.waiters("x")
    shown = run_ipclocker("lockstat", "list", "--dhost", "127.0.0.1", "--port", str(server.port))
    assert "kept" in shown.stdout
    with pytest.raises(LockBusy):
        locker(server, wait=0).lock()
    done = run_ipclocker("lockstat", "break", "x", "--dhost", "127.0.0.1", "--port", str(server.port))
    assert done.returncode == 0, done.stderr
    assert locker(server).acquire(blocking=False)


def test_of_several_that_are_wanted_together_none_is_kept_if_one_is_busy(server: ThreadServer) -> None:
    with locker(server):
        both = Locker(["w", "x"], host="127.0.0.1", port=server.port, all=True, min_hold=60)
        assert not both.acquire(blocking=False)
    with Locker("w", host="127.0.0.1", port=server.port, block=False):
        pass
    both = Locker(["w", "x"], host="127.0.0.1", port=server.port, all=True, min_hold=60)
    assert both.acquire(blocking=False)
    both.release()
    assert not locker(server).acquire(blocking=False), "all are kept if all were obtained"
    assert not Locker("w", host="127.0.0.1", port=server.port).acquire(blocking=False)


def test_what_was_kept_and_who_shared_it_is_so_after_a_restart(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "s.db"))
    with Lockerd(*state) as server:
        assert lockersh(server, "--min-hold", "60", "--", "true")[0] == 0
        peer = server.connect()
        for user in ("ann", "bob"):
            assert "slots 3" in peer.ask(f"user {user}; session {user}; locks licence; slots 3; token 1; LOCK")
        port = int(server.port)
        server.kill(signal.SIGKILL)
    with Lockerd(*state, port=port) as server:
        assert "kept" in show(server, "x") and "2 of 3" in show(server, "licence")
        assert lockersh(server, "--timeout", "0", "--", "echo", "ran")[:2] == (75, "")


def show(server: Lockerd | ThreadServer, name: str) -> str:
    words = ("lockstat", "show", name, "--dhost", "127.0.0.1", "--port", str(server.port))
    return run_ipclocker(*words).stdout


def test_lockstat_shows_all_who_hold_it(server: ThreadServer) -> None:
    locks = [locker(server, slots=slots, user=user) for user, slots in (("ann", 4), ("bob", 0x7FFF), ("cy", 3))]
    assert all(lock.acquire() for lock in locks)
    with in_thread(locker(server, user="dee", shared=True, wait=30).lock):
        wait_for(lambda: server.waiters("x") == 1, "one that waits")
        text = show(server, "x")
        assert "3 of 3" in text and all(user in text for user in ("ann", "bob", "cy", "dee"))
        words = ("lockstat", "show", "x", "--json", "--dhost", "127.0.0.1", "--port", str(server.port))
        (lock,) = json.loads(run_ipclocker(*words).stdout)["locks"]
        assert (lock["holder"], lock["mode"], lock["slots"]) == ("ann", "slots", 4)
        assert [(held["holder"], held["slots"]) for held in lock["holders"]] == [("ann", 4), ("bob", 0x7FFF), ("cy", 3)]
        assert [(waiter["user"], waiter["mode"]) for waiter in lock["waiters"]] == [("dee", "shared")]
        locks[0].release()
        locks[1].release()
        locks[2].release()


def test_classic_clients_see_a_line_for_each_holder(server: ThreadServer) -> None:
    peer = server.connect()
    for user in ("ann", "bob"):
        assert peer.ask(f"user {user}; locks x; slots 0; LOCK") == [
            f"owner {user}",
            "locked 1",
            "lockname x",
            "slots 0",
        ]
    assert peer.ask("LOCK_LIST") == ["lock x ann", "lock x bob"]
    assert peer.ask("slots 1; LOCK") == ["error bad_slots"]
    (first, _) = (grant.token for grant in server.server.term.service.table.holders(b"x"))
    assert peer.ask(f"BREAK_LOCK x {first}")[0] == "print_broke ann"
    assert peer.ask("LOCK_LIST") == ["lock x bob"]
