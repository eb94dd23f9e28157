"""A server whose locks are kept: nobody hears of what is not, and what can't be kept has not happened."""

from __future__ import annotations

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
from ipclocker.lock.model import Record
from ipclocker.lock.server.group_commit import RETRY
from ipclocker.lock.storage.base import StoredState

from ...support import PROJECT
from ...support.servers import Lockerd, Peer, ThreadServer
from ...support.waiting import DEADLINE, wait_for

ANN = "user ann; locks x; "
BOB = "user bob; locks x; "
REFUSED = ["error unwritable"]


class FakeDisk:
    """A store whose writes end when the test says so, and fail as long as `problem` is set."""

    location = "a fake disk"

    def __init__(self, slow: bool = False) -> None:
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
        return StoredState(list(self.records.values()), self.last_token)

    def commit(self, changed: Sequence[Record], freed: Sequence[int], last_token: int) -> None:
        if self.slow:
            self.waits.set()
            self._writes.acquire()
            self.waits.clear()
        if self.problem is not None:
            raise self.problem
        self.batches += 1
        self.records.update({record.token: record for record in changed})
        for token in freed:
            del self.records[token]
        self.last_token = last_token

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


def test_a_state_in_which_a_lock_is_held_twice_is_refused() -> None:
    disk = FakeDisk()
    record = Record(1, b"x", b"ann", b"", 1.0, 0.0, False, False, True, b"", b"", 0, None, b"", None, "")
    disk.records = {1: record, 2: record._replace(token=2, user=b"bob")}
    with pytest.raises(StateError, match="a fake disk is damaged, since a lock is held twice"):
        serving(disk)


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
        for peer in (ann, bob, eve):
            assert peer.hear_until_closed() == b"error unwritable\n\n\n"
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
        assert bob.hear_until_closed() == b"error unwritable\n\n\n"
        disk.problem = None
        wait_for(lambda: server.ask("user eve; locks z; LOCK") != REFUSED, "the server to write again")
        assert server.holders() == {"x": "ann", "z": "eve"}


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
        for name in ("start", "pidns"):
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
