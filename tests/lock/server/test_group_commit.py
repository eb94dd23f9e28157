"""A server whose locks are kept: nobody hears of what is not, and what can't be kept has not happened."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ipclocker.errors import StateError
from ipclocker.lock.client.inspector import Inspector
from ipclocker.lock.client.settings import LockSettings
from ipclocker.lock.model import Record
from ipclocker.lock.server import table
from ipclocker.lock.server.group_commit import RETRY
from ipclocker.lock.storage.base import Freed, StoredState, TermLost

from ...support import PROJECT
from ...support.servers import Lockerd, Peer, ThreadServer
from ...support.waiting import DEADLINE, wait_for

ANN = "user ann; locks x; "
BOB = "user bob; locks x; "
REFUSED = ["error unwritable"]


class FakeDisk:
    """A store whose writes end when the test says so, and fail as long as `problem` is set."""

    location = "a fake disk"

    def __init__(self, slow: bool = False, is_shared: bool = False) -> None:
        self.is_shared = is_shared
        self.is_lost = False
        self.rounds = 0
        self.records: dict[int, Record] = {}  # by token
        self.last_token = 0
        self.problem: StateError | None = None
        self.batches = 0
        self._writes = threading.Semaphore(0)
        self.slow = slow
        self.waits = threading.Event()

    @property
    def grants(self) -> dict[bytes, Record]:
        """What is kept, by name."""
        grants = {record.name: record for record in self.records.values()}
        assert len(grants) == len(self.records), "a name is held twice on disk"
        return grants

    def let_write(self, times: int = 1) -> None:
        for _ in range(times):
            self._writes.release()

    def let_all_write(self) -> None:
        self.slow = False
        self.let_write()

    def load(self) -> StoredState:
        return StoredState(list(self.records.values()), self.last_token, 0.0, "ab" * 16)

    def commit(self, changed: Sequence[Record], freed: Sequence[Freed], last_token: int) -> None:
        self._take_time()
        if self.problem is not None:
            raise self.problem
        self.batches += 1
        self.records.update({record.token: record for record in changed})
        for name, token in freed:
            assert self.records.pop(token).name == name
        self.last_token = last_token

    def confirm_term(self) -> None:
        assert self.is_shared
        self.rounds += 1
        self._take_time()
        if self.is_lost:
            raise TermLost("another server leads")

    def _take_time(self) -> None:
        if self.slow:
            self.waits.set()
            self._writes.acquire()
            self.waits.clear()

    def touch(self) -> None:
        pass

    def close(self) -> None:
        pass


def serving(disk: FakeDisk) -> ThreadServer:
    return ThreadServer(state=disk)


def hears_nothing(server: ThreadServer, *peers: Peer) -> bool:
    """Whether none is told anything, though the server has dealt with all that was sent."""
    server.turn()  # the version has nothing to do with the disk
    return all(peer.hears_nothing() for peer in peers)


def test_nobody_is_told_of_a_change_before_it_is_kept() -> None:
    disk = FakeDisk(slow=True)
    with serving(disk) as server:
        ann, bob = server.connect(), server.connect()
        ann.say(ANN + "LOCK")
        assert disk.waits.wait(DEADLINE)
        bob.say(BOB + "STATUS; LOCK_LIST; LOCK_INFO; block 1; LOCK")
        assert hears_nothing(server, ann, bob)
        disk.let_write()
        assert ann.hear() == ["owner ann", "locked 1", "lockname x"]
        assert bob.hear() == ["owner ann", "locked 0"]
        assert bob.hear() == ["lock x ann"]
        assert bob.hear()[0].startswith("held x user ann")
        assert bob.hear_line() == "print_waiting ann"
        ann.say("UNLOCK")
        assert disk.waits.wait(DEADLINE)
        assert hears_nothing(server, ann, bob)
        assert disk.grants[b"x"].user == b"ann"
        disk.let_all_write()
        assert bob.hear_line() == "print_obtained"
        assert bob.hear() == ["owner bob", "locked 1", "lockname x"]
        assert ann.hear() == ["owner bob", "locked 0"]
        assert disk.grants[b"x"].user == b"bob"


# A store that several servers share

CLAIMS = ["LOCK", "RENEW x 1", "CHECK x 1", "STATUS", "UNLOCK x 9", "block 1; LOCK"]


def holding(disk: FakeDisk, server: ThreadServer) -> Peer:
    """A client that holds a lock by token 1."""
    server.server.term.service.table.last_token = 0
    ann = server.connect()
    assert ann.ask(ANN + "token 1; LOCK")[-1] == "token 1"
    return ann


@pytest.mark.parametrize("words", CLAIMS)
def test_who_is_told_that_he_holds_a_lock_waits_for_a_round_that_is_begun_after_he_asked(words: str) -> None:
    disk = FakeDisk(is_shared=True)
    with serving(disk) as server, contextlib.ExitStack() as stack:
        stack.callback(disk.let_all_write)  # or its end would wait, too
        ann = holding(disk, server)
        disk.slow = True
        bob = server.connect()
        bob.say("user bob; locks y; LOCK")
        assert disk.waits.wait(DEADLINE)  # this one does not count for ann
        ann.say(words)
        assert hears_nothing(server, ann)
        disk.let_write()
        assert bob.hear()[1] == "locked 1"
        assert hears_nothing(server, ann)
        wait_for(lambda: disk.rounds == 1 and disk.waits.is_set())
        assert hears_nothing(server, ann)
        disk.let_all_write()
        heard = ann.hear()
        assert {"locked 1", "renewed x 1", "current 1"} & set(heard)
    assert (disk.rounds, disk.batches) == (1, 2 + 1)  # the last one at the end of the server


@pytest.mark.parametrize("words", ["STATUS", "LOCK_LIST", "LOCK", "CHECK x 1", "RENEW x 9", "VERSION"])
def test_who_is_told_something_else_waits_for_no_round(words: str) -> None:
    disk = FakeDisk(is_shared=True)
    with serving(disk) as server:
        holding(disk, server)
        disk.is_lost = True
        if words.startswith("CHECK"):
            words = "CHECK x 9"
        assert server.ask("user bob; locks x; " + words if words != "VERSION" else "locks x; STATUS")
    assert disk.rounds == 0


def test_many_share_one_round() -> None:
    disk = FakeDisk(is_shared=True)
    with serving(disk) as server:
        holding(disk, server)
        disk.slow = True
        peers = [server.connect() for _ in range(30)]
        peers[0].say("CHECK x 1")
        assert disk.waits.wait(DEADLINE)
        for peer in peers[1:]:
            peer.say("CHECK x 1")
        server.turn()
        disk.let_all_write()
        assert [peer.hear() for peer in peers] == [["current 1"]] * 30
    assert disk.rounds <= 3


@pytest.mark.parametrize("words", CLAIMS)
def test_when_the_term_is_lost_nobody_is_told_that_he_holds_a_lock(words: str) -> None:
    disk = FakeDisk(is_shared=True)
    with serving(disk) as server:
        ann = holding(disk, server)
        disk.is_lost = True
        ann.say(words)
        wait_for(lambda: disk.rounds == 1)
        assert hears_nothing(server, ann)


def test_renewals_go_on_while_nothing_can_be_written() -> None:
    disk = FakeDisk(is_shared=True)
    with serving(disk) as server:
        ann = holding(disk, server)
        disk.problem = StateError("no space")
        assert server.ask("user bob; locks y; LOCK") == ["error unwritable"]
        assert ann.ask("RENEW x 1") == ["renewed x 1"]
        assert server.ask("user bob; locks y; LOCK") == ["error unwritable"]
        disk.problem = None
        wait_for(lambda: server.ask("user bob; locks y; LOCK") == ["owner bob", "locked 1", "lockname y"])


def test_a_state_in_which_a_lock_is_held_twice_is_refused() -> None:
    disk = FakeDisk()
    record = Record(
        1, b"x", b"ann", b"", 1.0, 0.0, False, False, True, False, None, b"", b"", 0, None, b"", None, "", b"", None
    )
    disk.records = {1: record, 2: record._replace(token=2, user=b"bob")}
    with pytest.raises(StateError, match="a fake disk is damaged, since the lock 'x' has more holders"):
        serving(disk)


@pytest.mark.parametrize("release", ["LOCKED", "UNLOCK", "BREAK_LOCK"])
def test_what_an_older_release_let_be_longer_is_shown_and_can_be_released(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a name made every list fail for every client, since it has no room in a line with all the rest."""
    monkeypatch.setattr(table, "RETURN_WITHIN", 0.0)
    disk = FakeDisk()
    name, host = b"n" * 65_480, b"h" * 65_480
    terms = (1.0, 0.0, False, False, True, False, None, b"")
    disk.records = {1: Record(1, name, b"ann", b"", *terms, host, 7, None, b"", None, "127.0.0.9", b"", None)}
    with serving(disk) as server:
        (held,) = Inspector(LockSettings(host="127.0.0.1", port=server.port)).look().locks
        assert (held.name, held.host, held.user) == (name, host, b"ann")
        peer = server.connect()
        if release == "LOCKED":
            assert peer.ask(f"user ann; locks {name.decode()}; LOCK") == ["error bad_locks"]
        else:
            assert peer.ask(f"user ann; locks {name.decode()}; {release}")[-2:] == ["owner ", "locked 0"]
            assert not disk.grants


def test_a_client_of_one_request_waits_for_the_disk_as_well() -> None:
    disk = FakeDisk(slow=True)
    with serving(disk) as server:
        one = server.connect()
        one.send(b"user ann\nlocks x\nLOCK\n\nEOF\n\n")
        assert disk.waits.wait(DEADLINE)
        assert hears_nothing(server, one)
        disk.let_all_write()
        assert one.hear_until_closed() == b"owner ann\nlocked 1\nlockname x\n\n\n"


def test_a_client_that_closes_its_half_still_gets_its_answer() -> None:
    disk = FakeDisk(slow=True)
    with serving(disk) as server:
        one = server.connect()
        one.say(ANN + "LOCK")
        one.sock.shutdown(socket.SHUT_WR)
        assert disk.waits.wait(DEADLINE)
        assert hears_nothing(server, one)
        disk.let_all_write()
        assert one.hear_until_closed() == b"owner ann\nlocked 1\nlockname x\n\n\n"


def test_all_that_comes_while_the_disk_is_busy_shares_the_next_write() -> None:
    disk = FakeDisk(slow=True)
    with serving(disk) as server:
        first = server.connect()
        first.say(ANN + "LOCK")
        assert disk.waits.wait(DEADLINE)
        peers = [server.connect() for _ in range(100)]
        for number, peer in enumerate(peers):
            peer.say(f"user u{number}; locks l{number}; LOCK")
        assert hears_nothing(server, first, *peers)
        disk.let_write(2)
        for number, peer in enumerate(peers):
            assert peer.hear() == [f"owner u{number}", "locked 1", f"lockname l{number}"]
        assert disk.batches == 2
        disk.let_all_write()


def test_what_comes_and_goes_within_one_write_costs_none() -> None:
    disk = FakeDisk(slow=True)
    with serving(disk) as server:
        first, second = server.connect(), server.connect()
        first.say(ANN + "LOCK")
        assert disk.waits.wait(DEADLINE)
        second.say("user bob; locks y; LOCK; UNLOCK")
        disk.let_all_write()
        assert second.hear() == ["owner bob", "locked 1", "lockname y"]
        assert second.hear() == ["owner ", "locked 0"]
        assert set(disk.grants) == {b"x"}


def test_requests_without_end_on_one_connection_are_answered_in_order_and_bounded() -> None:
    disk = FakeDisk(slow=True)
    with serving(disk) as server:
        peer = server.connect()
        peer.say("user ann")
        for number in range(1000):
            peer.say(f"locks l{number}; LOCK; UNLOCK")
        assert disk.waits.wait(DEADLINE)
        disk.let_all_write()
        for number in range(1000):
            assert peer.hear() == ["owner ann", "locked 1", f"lockname l{number}"]
            assert peer.hear() == ["owner ", "locked 0"]


def test_a_waiter_that_hangs_up_while_its_grant_is_written_is_passed_over() -> None:
    disk = FakeDisk()
    with serving(disk) as server:
        ann, bob, eve = server.connect(), server.connect(), server.connect()
        ann.ask(ANN + "LOCK")
        bob.say(BOB + "token 1; block 1; LOCK")
        assert bob.hear_line() == "print_waiting ann"
        eve.say("user eve; locks x; block 1; LOCK")
        assert eve.hear_line() == "print_waiting ann"
        disk.slow = True
        ann.say("UNLOCK")
        assert disk.waits.wait(DEADLINE)
        bob.close()
        time.sleep(0.05)
        disk.let_all_write()
        assert eve.hear_line() == "print_obtained"
        assert eve.hear() == ["owner eve", "locked 1", "lockname x"]


def test_a_grant_that_its_owner_hears_of_over_a_second_connection_stays_though_the_first_is_lost() -> None:
    disk = FakeDisk()
    with serving(disk) as server:
        server.ask(ANN + "LOCK")
        asks = "user bob; session s; token 1; locks x; block 1; LOCK"
        first, second, eve, ann = server.connect(), server.connect(), server.connect(), server.connect()
        first.say(asks)
        assert first.hear_line() == "print_waiting ann"
        eve.say("user eve; locks x; block 1; LOCK")
        assert eve.hear_line() == "print_waiting ann"
        disk.slow = True
        ann.say(ANN + "UNLOCK")
        assert disk.waits.wait(DEADLINE)
        second.say(asks)
        assert hears_nothing(server, second)
        first.close()
        assert hears_nothing(server, second, eve)
        disk.let_all_write()
        assert second.hear()[:2] == ["owner bob", "locked 1"]
        assert server.holders() == {"x": "bob"} and eve.hears_nothing()


def test_what_could_not_be_kept_has_not_happened(caplog: pytest.LogCaptureFixture) -> None:
    disk = FakeDisk()
    with serving(disk) as server:
        ann, bob, eve = server.connect(), server.connect(), server.connect()
        ann.ask(ANN + "LOCK")
        bob.say(BOB + "block 1; LOCK")
        assert bob.hear_line() == "print_waiting ann"
        disk.slow = True
        ann.say("UNLOCK")  # and so a grant to bob
        assert disk.waits.wait(DEADLINE)
        eve.say("user eve; locks y z; LOCK")
        time.sleep(0.05)
        disk.problem = StateError("the state file can't be written: the disk is full")
        disk.let_all_write()
        for peer in (ann, eve):
            assert peer.hear_until_closed() == b"error unwritable\n\n\n"
        assert hears_nothing(server, bob)
        assert server.holders() == {"x": "ann"}
        assert "the disk is full; until it can be written nothing is granted or freed" in caplog.text


def failing_server(disk: FakeDisk, *begin: str) -> ThreadServer:
    """A server on which these requests were made, and that has since found out that it can't write."""
    server = serving(disk)
    for request in begin:
        server.ask(request)
    disk.problem = StateError("the disk is full")
    assert server.ask("user probe; locks probe; LOCK") == REFUSED
    return server


def test_while_it_cannot_write_it_grants_and_frees_nothing_and_says_so() -> None:
    disk = FakeDisk()
    with failing_server(disk, ANN + "timeout 0.2; LOCK", "user bob; locks y; LOCK") as server:
        for request in (
            "user eve; locks z; LOCK",
            ANN + "UNLOCK",
            ANN + "BREAK_LOCK",
            ANN + "timeout 9; LOCK",
            "user eve; locks x z; block 1; LOCK",
        ):
            assert server.ask(request) == REFUSED, request
        time.sleep(0.3)  # the hold time is over
        assert server.holders() == {"x": "ann", "y": "bob"}
        assert server.ask(BOB + "STATUS") == ["owner ann", "locked 0"]
        disk.problem = None
        wait_for(lambda: server.ask("user eve; locks z; LOCK") != REFUSED, "the server to write again")
        wait_for(lambda: "x" not in server.holders(), "the end of the hold time")
        assert server.ask("user bob; locks y; UNLOCK") == ["owner ", "locked 0"]
        assert set(disk.grants) == {b"z"}


def test_while_it_cannot_write_leases_are_renewed_and_waiters_wait() -> None:
    disk = FakeDisk()
    with serving(disk) as server:
        holder, waiter = server.connect(), server.connect()
        token = holder.ask("user ann; session s; locks x; token 1; lease 1; timeout 5; LOCK")[-1].split()[1]
        waiter.say("user bob; locks x; block 1; LOCK")
        assert waiter.hear_line() == "print_waiting ann"
        disk.problem = StateError("the disk is full")
        assert server.ask("user probe; locks probe; LOCK") == REFUSED
        assert holder.ask(f"RENEW x {token}") == [f"renewed x {token}"]
        assert holder.ask(f"CHECK x {token}") == ["current 1"]
        disk.problem = None
        wait_for(lambda: server.ask("user eve; locks z; LOCK") != REFUSED, "the server to write again")
        holder.say("UNLOCK")
        assert waiter.hear_line() == "print_obtained"


def test_a_process_that_ends_while_nothing_can_be_written_frees_its_lock_afterwards() -> None:
    disk = FakeDisk()
    with subprocess.Popen(["sleep", "100"]) as process:
        request = f"{ANN} autounlock 1; pid {process.pid}; hostname {socket.gethostname()}; LOCK"
        with failing_server(disk, request) as server:
            process.kill()
            process.wait()
            time.sleep(0.5)
            assert server.holders() == {"x": "ann"}
            disk.problem = None
            wait_for(lambda: not server.holders(), "the lock to be free")


def test_a_restart_finds_the_same_holders_with_their_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FakeDisk()
    with serving(disk) as server:
        token = int(server.ask("user ann; session s; token 1; locks x; timeout 30; LOCK")[-1].split()[1])
        server.ask("user bob; locks y; LOCK")
        server.ask("user eve; locks z; timeout 0.5; LOCK")
    monkeypatch.setattr(time, "time_ns", lambda: 0)  # a wall clock that was set back
    time.sleep(0.6)
    with serving(disk) as server:
        assert server.holders() == {"x": "ann", "y": "bob", "z": "eve"}
        assert server.ask(f"CHECK x {token}") == ["current 1"]
        left = float(server.ask("LOCK_INFO x")[0].split("left ")[1].split()[0])
        assert 25 < left <= 30
        again = server.ask("user ann; session s; token 1; locks x; LOCK")
        assert again == ["owner ann", "locked 1", "lockname x", f"token {token}"]
        assert int(server.ask("user u; token 1; locks new; LOCK")[-1].split()[1]) > token + 2
        wait_for(lambda: "z" not in server.holders(), "the end of the hold time")


def test_without_a_state_there_is_no_thread_and_no_sqlite() -> None:
    code = (
        "import sys, threading; from ipclocker.lock.server.server import LockServer; "
        "server = LockServer('127.0.0.1', 0); "
        "assert 'sqlite3' not in sys.modules and threading.active_count() == 1; server.close()"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, timeout=60, check=False).returncode == 0


# With a real file


def test_a_server_that_was_killed_comes_back_with_its_locks(tmp_path: Path) -> None:
    state = ["--state", str(tmp_path / "locks.db")]
    with Lockerd(*state) as server:
        server.ask("user ann; session s; locks x; LOCK")
        for number in range(100):
            server.ask(f"user u{number}; locks l{number}; LOCK")
        for number in range(0, 100, 2):
            server.ask(f"user u{number}; locks l{number}; UNLOCK")
        holders = server.holders()
        assert len(holders) == 51
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        with Lockerd(*state) as again:
            assert again.holders() == holders
            assert again.ask("user ann; session other; locks x; UNLOCK") == ["owner ann", "locked 0"]
            assert again.ask("user ann; session s; locks x; UNLOCK") == ["owner ", "locked 0"]


def test_a_full_disk_is_said_and_when_there_is_room_again_all_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "locks.db"
    with Lockerd("--state", str(state)) as server:
        assert server.ask(ANN + "LOCK")[1] == "locked 1"
        written = max(file.stat().st_size for file in tmp_path.iterdir())
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (written, resource.RLIM_INFINITY))
        answers = [server.ask(f"user u{number}; locks l{number}; LOCK") for number in range(50)]
        assert answers[-1] == REFUSED
        granted = {f"l{number}" for number, answer in enumerate(answers) if answer != REFUSED}
        assert set(server.holders()) == granted | {"x"}
        assert server.ask(ANN + "UNLOCK") == REFUSED
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, unlimited)
        wait_for(lambda: server.ask(ANN + "UNLOCK") != REFUSED, "the server to write again")
        assert set(server.holders()) == granted
        server.process.kill()
        server.process.wait()
        with Lockerd("--state", str(state)) as again:
            assert set(again.holders()) == granted


@pytest.mark.parametrize("options", [["--path", "a/lockerd"], ["--port", "0"]])
def test_the_file_is_named_after_where_the_server_listens(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "a").mkdir()
    options = [str(tmp_path / word) if "/" in word else word for word in options]
    with Lockerd("--state-dir", str(tmp_path / "new" / "folder"), *options) as server:
        where = server.address
        name = where.lstrip("/").replace("/", "%2F") if "/" in where else str(server.port)
        assert (tmp_path / "new" / "folder" / f"lockerd-{name}.db").exists()
        assert os.stat(tmp_path / "new" / "folder").st_mode & 0o777 == 0o700


@pytest.mark.parametrize("deleted", ["the file", "the file and its log"])
def test_a_state_file_that_is_deleted_is_written_again_and_a_restart_finds_what_is_held(
    tmp_path: Path, deleted: str
) -> None:
    state = tmp_path / "locks.db"
    quick = "from ipclocker.lock.server import group_commit; group_commit.TOUCH = 0.05"
    with Lockerd("--state", str(state), before=quick) as server:
        server.ask("user ann; session s; locks x; LOCK")
        token = int(server.ask("user bob; locks y; token 1; LOCK")[-1].split()[1])
        for file in tmp_path.iterdir():
            if file == state or deleted != "the file":
                file.unlink()
        wait_for(state.exists, "the new file")
        server.ask("user eve; locks z; LOCK")
        server.ask("user bob; locks y; UNLOCK")
        server.kill()
        assert server.stderr.count(b"was gone: what is held was written to a new one") == 1
        assert sorted(file.name for file in tmp_path.iterdir() if "wal" not in file.name) == ["locks.db"]
        assert state.stat().st_mode & 0o777 == 0o600
        behind = "import time; time.time_ns = lambda: 0"
        with Lockerd("--state", str(state), before=behind) as again:
            assert again.holders() == {"x": "ann", "z": "eve"}
            assert int(again.ask("user bob; locks y; token 1; LOCK")[-1].split()[1]) > token + 1


def test_a_file_that_somebody_has_put_in_the_place_of_the_state_is_left_alone_and_told_of(tmp_path: Path) -> None:
    state = tmp_path / "locks.db"
    quick = "from ipclocker.lock.server import group_commit; group_commit.TOUCH = 0.05"
    with Lockerd("--state", str(state), before=quick) as server:
        server.ask("user ann; locks x; LOCK")
        (tmp_path / "other").write_text("other")
        os.replace(tmp_path / "other", state)
        assert server.process.stderr is not None
        assert b"was replaced by another file" in server.process.stderr.readline()
        assert state.read_text() == "other"
        assert server.ask("user bob; locks y; LOCK")[1] == "locked 1"
        state.unlink()
        wait_for(state.exists, "the new file")
        assert b"was written to a new one" in server.process.stderr.readline()
        server.kill()
        with Lockerd("--state", str(state)) as again:
            assert again.holders() == {"x": "ann", "y": "bob"}


def test_a_recall_is_known_after_a_restart(tmp_path: Path) -> None:
    state = ["--state", str(tmp_path / "locks.db")]
    with Lockerd(*state) as server:
        terms = "user ann; session s; token 1; lease 1; timeout 60; locks x"
        token = server.ask(f"{terms}; LOCK")[-1].split()[1]
        assert server.ask("locks x; RECALL")[0] == "print_recalled ann"
        server.kill()
        with Lockerd(*state) as again:
            holder = again.connect()
            assert holder.ask(f"CHECK x {token}") == ["current 1"]
            assert holder.ask(f"RENEW x {token}") == ["error recalled"]
            assert holder.ask(f"{terms}; LOCK") == ["error recalled"]
            assert "recalled 1" in again.ask("LOCK_INFO x")[0]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--state", "/dev/null/x"], 74, "can't be made: Not a directory"),
        (["--state-dir", "/dev/null/x"], 74, "the state folder /dev/null/x can't be made: Not a directory"),
        (["--state", ""], 64, "--state is empty"),
        (["--state", "x", "--state-dir", "y"], 64, "choose one of them"),
    ],
)
def test_a_state_that_can_not_be_had_is_one_line_and_a_code(options: list[str], code: int, message: str) -> None:
    words = [sys.executable, "-m", "ipclocker", "lockerd", "--nofork", "--port", "0", *options]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


# What a disk that fails, or takes its time, must not do


@pytest.mark.parametrize("waiter", [False, True])
@pytest.mark.parametrize("others", ["", "locks b; LOCK; locks x; "])
def test_an_answer_to_what_was_taken_back_is_never_sent(waiter: bool, others: str) -> None:
    """Though somebody else, to whom it mattered, was spoken to in between."""
    disk = FakeDisk()
    with serving(disk) as server:
        ann, bob = server.connect(), server.connect()
        token = ann.ask("user ann; tell 1; token 1; locks x; LOCK")[-1].split()[1]
        if waiter:
            bob.say(BOB + "block 1; LOCK")
            assert bob.hear_line() == "print_waiting ann"
        else:
            assert bob.ask(f"tell 1; CHECK x {token}") == ["current 1"]
        disk.problem = StateError("the disk is full")
        assert server.ask("user probe; locks probe; LOCK") == REFUSED
        ann.say(f"{others}{'UNLOCK' if waiter else 'locks x; BREAK_LOCK'}")
        assert ann.hear_until_closed() == b"error unwritable\n\n\n"
        if waiter:
            assert hears_nothing(server, bob)
        else:
            assert bob.hear_until_closed() == b"error unwritable\n\n\n"
        disk.problem = None
        wait_for(lambda: server.ask("user eve; locks z; LOCK") != REFUSED, "the server to write again")
        assert server.holders() == {"x": "ann", "z": "eve"}
        if waiter:
            assert ann_again(server).ask("UNLOCK") == ["owner bob", "locked 0"]
            assert bob.hear() == ["print_obtained", "owner bob", "locked 1", "lockname x"]


def ann_again(server: ThreadServer) -> Peer:
    """A new connection of the holder."""
    peer = server.connect()
    assert peer.ask(ANN + "STATUS")[1] == "locked 1"
    return peer


@pytest.mark.parametrize("while_failing", [False, True])
def test_a_release_that_can_not_be_kept_leaves_the_order_of_the_waiters_as_it_was(while_failing: bool) -> None:
    """However often it is tried: nobody was told of a grant, so all wait on."""
    disk = FakeDisk()
    with serving(disk) as server:
        server.ask(ANN + "LOCK")
        waiters = []
        for number in range(4):
            waiters.append(server.connect())
            waiters[-1].say(f"user w{number}; session s{number}; token 1; locks x; block 1; LOCK")
            assert waiters[-1].hear_line() == "print_waiting ann"
        disk.problem = StateError("the disk is full")
        if while_failing:
            assert server.ask("user probe; locks probe; LOCK") == REFUSED
        for _ in range(3):
            assert server.ask(ANN + "UNLOCK") == REFUSED
        assert hears_nothing(server, *waiters)
        disk.problem = None
        wait_for(lambda: server.ask("user eve; locks z; LOCK") != REFUSED, "the server to write again")
        server.ask(ANN + "UNLOCK")
        for number, peer in enumerate(waiters):
            assert peer.hear()[:2] == ["print_obtained", f"owner w{number}"]
            assert server.holders()["x"] == f"w{number}"
            peer.ask("UNLOCK")


def test_a_waiter_that_comes_back_after_what_it_was_told_could_not_be_kept_has_its_place() -> None:
    disk = FakeDisk()
    with serving(disk) as server:
        server.ask(ANN + "LOCK")
        asks = "session s; token 1; locks x; block 1; LOCK"
        disk.slow = True
        probe, first = server.connect(), server.connect()
        probe.say("user probe; locks probe; LOCK")
        assert disk.waits.wait(DEADLINE)
        first.say("user first; " + asks)
        assert hears_nothing(server, first)
        disk.problem = StateError("the disk is full")
        disk.let_all_write()
        assert first.hear_until_closed() == b"error unwritable\n\n\n"
        second, again = server.connect(), server.connect()
        second.say("user second; " + asks)
        assert second.hear_line() == "print_waiting ann"
        again.say("user first; " + asks)
        assert again.hear_line() == "print_waiting ann"
        disk.problem = None
        wait_for(lambda: server.ask("user eve; locks z; LOCK") != REFUSED, "the server to write again")
        server.ask(ANN + "UNLOCK")
        assert again.hear()[:2] == ["print_obtained", "owner first"]


def test_a_waiter_has_its_whole_time_to_confirm_however_slow_the_disk_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "CONFIRM_WITHIN", 1.0)
    disk = FakeDisk()
    with serving(disk) as server:
        server.ask(ANN + "LOCK")
        waiter = server.connect()
        waiter.say("user bob; session s; token 1; timeout 1; locks x; block 1; LOCK")
        assert waiter.hear_line() == "print_waiting ann"
        disk.slow = True
        ann = server.connect()
        ann.say(ANN + "UNLOCK")
        assert disk.waits.wait(DEADLINE)
        time.sleep(1.2)
        disk.let_all_write()
        token = waiter.hear()[-1].split()[1]
        assert waiter.ask(f"GOT x {token}; RENEW x {token}") == [f"renewed x {token}"]


def test_the_end_of_a_process_that_could_not_be_kept_is_reported_again() -> None:
    disk = FakeDisk()
    with subprocess.Popen(["sleep", "100"]) as process, serving(disk) as server:
        request = f"{ANN} autounlock 1; pid {process.pid}; hostname {socket.gethostname()}; LOCK"
        server.ask(request)
        server.turn()
        disk.problem = StateError("the disk is full")  # of which the server finds out by this very end
        process.kill()
        process.wait()
        time.sleep(0.5)
        assert server.holders() == {"x": "ann"}
        disk.problem = None
        wait_for(lambda: not server.holders(), "the lock to be free")


def test_whether_the_disk_takes_a_write_again_is_tried_by_a_write(tmp_path: Path) -> None:
    state = tmp_path / "locks.db"
    with Lockerd("--state", str(state)) as server:
        server.ask(ANN + "LOCK")
        written = max(file.stat().st_size for file in tmp_path.iterdir())
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (written, resource.RLIM_INFINITY))
        for number in range(50):
            server.ask(f"user u{number}; locks l{number}; LOCK")
        time.sleep(3 * RETRY)
        assert server.ask("user bob; locks y; LOCK") == REFUSED
        server.process.terminate()
        server.process.wait()
        assert server.process.stderr is not None
        assert b"can be written again" not in server.process.stderr.read()


def test_numbers_that_can_not_be_kept_are_refused() -> None:
    disk = FakeDisk()
    with serving(disk) as server:
        for name in ("start", "pidns", "timens"):
            request = f"{ANN} autounlock 1; pid 7; hostname h; {name} 99999999999999999999; LOCK"
            assert server.ask(request) == [f"error bad_{name}"]
        assert server.ask(ANN + "LOCK")[1] == "locked 1"


def test_a_slow_disk_holds_up_no_renewal_of_what_is_kept() -> None:
    disk = FakeDisk()
    with serving(disk) as server:
        holder, other = server.connect(), server.connect()
        token = holder.ask("user ann; token 1; lease 1; timeout 60; locks x; LOCK")[-1].split()[1]
        disk.slow = True
        other.say("user bob; locks y; LOCK")
        assert disk.waits.wait(DEADLINE)
        assert holder.ask(f"RENEW x {token}") == [f"renewed x {token}"]
        assert holder.ask(f"CHECK x {token}") == ["current 1"]
        assert server.version()
        assert other.hears_nothing()
        holder.say("locks y; STATUS")
        assert hears_nothing(server, holder)
        disk.let_all_write()
        assert other.hear()[1] == "locked 1"
        assert holder.hear() == ["owner bob", "locked 0"]


def test_a_renewal_that_is_what_has_to_be_kept_waits() -> None:
    """A waited grant is confirmed by it, which a restart has to know."""
    disk = FakeDisk()
    with serving(disk) as server:
        holder, waiter = server.connect(), server.connect()
        holder.ask(ANN + "LOCK")
        waiter.say("user bob; token 1; lease 1; timeout 60; locks x; block 1; LOCK")
        waiter.hear_line()
        holder.ask("UNLOCK")
        assert waiter.hear_line() == "print_obtained"
        token = waiter.hear()[-1].split()[1]
        disk.slow = True
        waiter.say(f"RENEW x {token}")
        assert disk.waits.wait(DEADLINE)
        assert hears_nothing(server, waiter)
        assert not disk.grants[b"x"].confirmed
        disk.let_all_write()
        assert waiter.hear() == [f"renewed x {token}"]
        assert disk.grants[b"x"].confirmed
