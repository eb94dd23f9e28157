"""lockerd --import: the locks of a state file are taken into etcd, all or none, and never over others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipclocker.errors import StateError
from ipclocker.lock.model import Record
from ipclocker.lock.server.client_place import own_place
from ipclocker.lock.server.importing import import_file
from ipclocker.lock.storage.base import TermLost
from ipclocker.lock.storage.etcd_import import EtcdImport
from ipclocker.lock.storage.etcd_settings import EtcdSettings
from ipclocker.lock.storage.open_store import open_store

from ...support.etcd import Etcd
from ...support.servers import Lockerd
from ...support.shared_lockerd import SharedLockerd, run_lockerd
from ...support.waiting import wait_for

TTL = 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return state_file(tmp_path / "state.db", 3)


def state_file(path: Path, locks: int) -> Path:
    """A state file with the locks n0, n1 and so on."""
    store = open_store(str(path))
    store.load()
    store.commit([record(f"n{number}", 100 + number) for number in range(locks)], [], 100 + locks)
    store.close()
    return path


def record(name: str, token: int) -> Record:
    word = name.encode()
    return Record(
        token, word, b"u_" + word, b"s", 1.0, 0.0, False, False, True, False, None, b"", b"h", 0, None, b"", None,
        "10.0.0.1", b"", None,
    )  # fmt: skip


def settings(etcd: Etcd) -> EtcdSettings:
    return EtcdSettings(tuple(etcd.urls))


def held(etcd: Etcd) -> set[str]:
    """The names that are held in etcd."""
    return {key.split("/")[2] for key in etcd.keys("ipclocker/lock/")}


def space_of(path: Path) -> str:
    store = open_store(str(path))
    try:
        return store.load().space
    finally:
        store.close()


def test_locks_counter_and_identity_go_over(etcd: Etcd, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with Lockerd("--state", str(path)) as alone:
        alone.ask("user u; session s; locks a; token 1; LOCK")
        token = alone.ask("user v; session t; locks b%; token 1; LOCK")[3].split()[1]
        lines = alone.ask("space 1; STATUS")
        alone.process.terminate()
        alone.process.wait()
    before = path.read_bytes()
    done = run_lockerd("--etcd", etcd.urls[0], "--import", str(path))
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout == (
        f"2 locks of {path} and its last token are in etcd at {etcd.urls[0]}, under ipclocker/ now; start no lockerd "
        "with that file any more\n"
    )
    assert path.read_bytes() == before
    assert etcd.leases() == [], "nothing of the import is left"
    with SharedLockerd(etcd, tmp_path / "s").serves() as shared:
        assert shared.ask("LOCK_LIST") == ["lock a u", "lock b% v"]
        assert shared.ask("space 1; STATUS")[0].split()[:2] == lines[0].split()[:2], "clients find their lock space"
        assert shared.ask(f"user v; session t; CHECK b% {token}") == ["current 1"]
        assert shared.ask(f"user v; session t; locks b%; UNLOCK b% {token}") == ["owner ", "locked 0"]
        new = shared.ask("user w; session w; locks c; token 1; LOCK")[3].split()[1]
        assert int(new) > int(token)


def test_many_locks(etcd: Etcd, tmp_path: Path) -> None:
    """They take many transactions."""
    path = state_file(tmp_path / "state.db", 1234)
    assert import_file(settings(etcd), str(path), TTL).startswith("1234 locks of ")
    assert held(etcd) == {f"n{number}" for number in range(1234)}
    assert etcd.keys("ipclocker/import") == {}
    assert etcd.keys("ipclocker/space") == {"ipclocker/space": space_of(path)}


def test_not_where_locks_are_held(etcd: Etcd, file: Path, tmp_path: Path) -> None:
    with SharedLockerd(etcd, tmp_path / "s").serves() as shared:
        shared.ask("user u; locks mine; LOCK")
        shared.terminate()
    before = etcd.keys("ipclocker/lock/"), etcd.keys("ipclocker/space")
    with pytest.raises(StateError, match=r"^locks are held in etcd at .* \('mine', for one\): import into an empty"):
        import_file(settings(etcd), str(file), TTL)
    assert (etcd.keys("ipclocker/lock/"), etcd.keys("ipclocker/space")) == before


def test_not_while_a_lockerd_serves(etcd: Etcd, file: Path, tmp_path: Path) -> None:
    with SharedLockerd(etcd, tmp_path / "s").serves() as shared:
        done = run_lockerd("--etcd", etcd.urls[0], "--leader-ttl", str(TTL), "--import", str(file))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (74, "", 1)
        assert f"({shared.address}) serves the locks in etcd at" in done.stderr
        assert shared.ask("LOCK_LIST") == [], "it serves on"


def test_a_leader_that_was_killed_is_waited_for(etcd: Etcd, file: Path, tmp_path: Path) -> None:
    with SharedLockerd(etcd, tmp_path / "s").serves():
        pass
    assert import_file(settings(etcd), str(file), TTL).startswith("3 locks of ")


def test_where_a_lockerd_has_been_and_no_lock_is_held(etcd: Etcd, file: Path, tmp_path: Path) -> None:
    with SharedLockerd(etcd, tmp_path / "s").serves() as shared:
        token = int(shared.ask("user u; locks a; token 1; LOCK")[3].split()[1])
        shared.ask("user u; locks a; UNLOCK")
        wait_for(lambda: not held(etcd), "the time for those who had waited to be over")
        shared.terminate()
    import_file(settings(etcd), str(file), TTL)
    assert etcd.keys("ipclocker/space") == {"ipclocker/space": space_of(file)}
    assert int(etcd.keys("ipclocker/counter")["ipclocker/counter"].split()[2]) >= token, "tokens only grow"


def test_the_same_file_twice(etcd: Etcd, file: Path, tmp_path: Path) -> None:
    """Its locks may have been released since."""
    import_file(settings(etcd), str(file), TTL)
    with SharedLockerd(etcd, tmp_path / "s").serves() as shared:
        for name in ("n0", "n1", "n2"):
            assert shared.ask(f"user u_{name}; session s; locks {name}; UNLOCK") == ["owner ", "locked 0"]
        wait_for(lambda: not held(etcd), "the time for those who had waited to be over")
        shared.terminate()
    with pytest.raises(StateError, match=f"{file} .*was imported into etcd at .* before"):
        import_file(settings(etcd), str(file), TTL)
    assert held(etcd) == set()


def test_one_that_was_broken_off_is_not_served_and_begins_again(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = state_file(tmp_path / "state.db", 250)
    written = EtcdImport._write

    def break_off(self: EtcdImport, operations: list[str], last_token: int, is_first: bool) -> None:
        if len(held(etcd)) >= 200:
            raise TermLost("the host was switched off")
        written(self, operations, last_token, is_first)

    monkeypatch.setattr(EtcdImport, "_write", break_off)
    with pytest.raises(StateError, match=f"the import of {path} was not finished: the host was switched off; do it"):
        import_file(settings(etcd), str(path), TTL)
    assert len(held(etcd)) == 200
    with SharedLockerd(etcd, tmp_path / "s") as shared:
        assert shared.ended() == 74
        assert f"was not finished ({path} of " in shared.log()
        assert shared.log().count("\n") == 1
    monkeypatch.undo()
    other = state_file(tmp_path / "other.db", 2)
    assert import_file(settings(etcd), str(other), TTL).startswith("2 locks of ")
    assert held(etcd) == {"n0", "n1"}, "nothing is left of the one before"
    with SharedLockerd(etcd, tmp_path / "s").serves():
        pass


def test_a_file_in_use(etcd: Etcd, file: Path) -> None:
    with Lockerd("--state", str(file)):
        done = run_lockerd("--etcd", etcd.urls[0], "--import", str(file))
    assert done.returncode == 74
    assert done.stderr == f"lockerd: the state file {file} is in use by a lockerd: end that one first\n"
    assert etcd.keys("ipclocker/") == {}


def test_an_etcd_that_does_not_answer(file: Path) -> None:
    with pytest.raises(StateError, match=r"^etcd at http://127.0.0.1:1, under ipclocker/ can't be used: .*refused"):
        import_file(EtcdSettings(("http://127.0.0.1:1",)), str(file), TTL, within=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--import", "x"], "--import 'x' is of no use without --etcd"),
        (["--accept-restored"], "--accept-restored is of no use without --etcd"),
        (["--etcd", "http://h", "--import", "x", "--accept-restored"], "choose one of them"),
        (["--etcd", "http://h", "--state", "x"], "choose one of them"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], said: str) -> None:
    done = run_lockerd(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (64, "", 1)
    assert said in done.stderr


def test_an_address_that_means_this_host_means_it_on_other_hosts_as_well(etcd: Etcd, tmp_path: Path) -> None:
    path = state_file(tmp_path / "state.db", 0)
    store = open_store(str(path))
    store.load()
    places = {"here": "127.0.0.1", "by_socket": "", "elsewhere": "10.0.0.9"}
    records = [record(name, number)._replace(pid=7, address=at) for number, (name, at) in enumerate(places.items(), 1)]
    store.commit(records, [], 9)
    store.close()
    import_file(settings(etcd), str(path), TTL)
    kept = {key.split("/")[2]: json.loads(value).get("address") for key, value in etcd.keys("ipclocker/lock/").items()}
    assert kept == {"here": own_place(), "by_socket": own_place(), "elsewhere": "10.0.0.9"}
