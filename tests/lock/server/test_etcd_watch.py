"""A lockerd whose etcd was restored from a backup: it does not serve until somebody says that this is well."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipclocker.lock.storage.etcd_note import EtcdNote
from ipclocker.lock.storage.etcd_prefix import Mark

from ...support.etcd import Etcd, running_etcd
from ...support.replicas import Replica
from ...support.servers import Peer
from ...support.shared_lockerd import SharedLockerd, run_lockerd
from ...support.waiting import wait_for

PORT = 21793  # so that the note is known again; on addresses that no other test process has
ONE, TWO, THREE = (f"127.{os.getpid() >> 8 & 255}.{os.getpid() & 255}.{number}" for number in (61, 62, 63))


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with running_etcd(tmp_path / "e") as cluster:
        yield cluster


def lockerd(etcd: Etcd, folder: Path, host: str = ONE) -> SharedLockerd:
    return SharedLockerd(etcd, folder, host=host, port=PORT)


def note_of(folder: Path) -> Mark | None:
    return EtcdNote(str(folder), PORT, "ipclocker/").read()


def noted_beyond(revision: int, folder: Path, token: int = 0) -> Mark:
    """Wait until the note is of a later time, and of this token or a later one."""
    found: list[Mark] = []

    def noted() -> bool:
        found[:] = filter(None, [note_of(folder)])
        return bool(found) and found[0].revision > revision and found[0].last_token >= token

    wait_for(noted, "the note")
    return found[0]


def accept(etcd: Etcd, folder: Path) -> str:
    done = run_lockerd("--etcd", etcd.urls[0], "--port", str(PORT), "--state-dir", str(folder), "--accept-restored")
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def go_back(etcd: Etcd, data: Path) -> None:
    """Put the data of another time in the place of what etcd has."""
    [member] = etcd.members
    member.kill()
    shutil.rmtree(member.folder / "data")
    shutil.copytree(data, member.folder / "data")
    member.start()
    etcd.wait_until_healthy()


def backup(etcd: Etcd, to: Path) -> Path:
    [member] = etcd.members
    member.kill()
    shutil.copytree(member.folder / "data", to)
    member.start()
    etcd.wait_until_healthy()
    return to


def test_it_is_refused_until_it_is_accepted(etcd: Etcd, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    old = backup(etcd, tmp_path / "old")
    with lockerd(etcd, folder).serves() as one:
        token = int(one.ask("user u; locks a; token 1; LOCK")[3].split()[1])
        noted = noted_beyond(1, folder, token)
        one.terminate()
    go_back(etcd, old)
    for _ in range(2):  # not only the first time
        with lockerd(etcd, folder) as one:
            assert one.ended() == 74
            last = one.log().splitlines()[-1]
            assert last.endswith(", 'An etcd from a backup', and then lockerd --etcd ... --accept-restored")
            assert f"is not what it was (its revision is 1, and was {noted.revision})" in last
    assert etcd.keys("ipclocker/") == {}, "it has written nothing"
    said = accept(etcd, folder)
    last_token = note_of(folder)[2]  # type: ignore[index]
    assert last_token > token
    assert said == (
        f"etcd at {etcd.urls[0]}, under ipclocker/ is taken as it is (its last token is {last_token}); "
        f"noted in {folder}/lockerd-{PORT}-ipclocker%2F.etcd\n"
    )
    with lockerd(etcd, folder).serves() as one:
        assert one.ask("LOCK_LIST") == []


def test_no_token_is_given_twice(etcd: Etcd, tmp_path: Path) -> None:
    """Even where clocks are behind, so that tokens do not grow with the time."""
    folder, behind = tmp_path / "s", "import time; time.time_ns = lambda: 10**12"

    def replica(host: str = "s") -> Replica:
        return Replica(tmp_path, etcd.urls, "--state-dir", str(tmp_path / host), before=behind, port=PORT)

    def take(name: str, replica: Replica) -> int:
        peer = Peer(replica.address)
        try:
            return int(peer.ask(f"user u; locks {name}; token 1; LOCK")[3].split()[1])
        finally:
            peer.close()

    with replica() as one:
        first = take("a", one)
        assert first < 10**9 + 10, "its clock is behind"
        noted_beyond(1, folder, first)
        one.kill(signal.SIGTERM)
    old = backup(etcd, tmp_path / "old")
    with replica() as one:
        later = [take(name, one) for name in "bcd"]
        noted_beyond(1, folder, later[-1])
        one.kill(signal.SIGTERM)
    shutil.copytree(folder, tmp_path / "other")
    go_back(etcd, old)
    accept(etcd, folder)
    with replica() as one:
        assert take("e", one) > max(later)
        counter = etcd.keys("ipclocker/counter")
        accept(etcd, tmp_path / "other")  # of another host; it has to stop nobody
        assert etcd.keys("ipclocker/counter") == counter and one.serves()


def test_a_lockerd_that_gives_smaller_tokens_goes_on_above_them(etcd: Etcd, tmp_path: Path) -> None:
    """It knew nothing of what was before, so it served at once."""
    with lockerd(etcd, tmp_path / "s").serves() as one:
        one.ask("user u; locks a; token 1; LOCK")
        EtcdNote(str(tmp_path / "other"), PORT, "ipclocker/").write(Mark("1", 9**9, 10**17))
        accept(etcd, tmp_path / "other")

        def token() -> int:
            with contextlib.suppress(OSError, EOFError, IndexError):
                return int(one.ask("user u; locks b; token 1; LOCK")[3].split()[1])
            return 0

        wait_for(lambda: token() > 10**17, "it to serve with larger ones")


def test_a_prefix_that_others_use_is_left_alone(etcd: Etcd, tmp_path: Path) -> None:
    etcd.put("ipclocker/theirs", "1")
    EtcdNote(str(tmp_path), PORT, "ipclocker/").write(Mark("1", 9**9, 100))
    done = run_lockerd("--etcd", etcd.urls[0], "--port", str(PORT), "--state-dir", str(tmp_path), "--accept-restored")
    assert done.returncode == 74 and "there is something else already ('ipclocker/theirs')" in done.stderr
    assert etcd.keys("ipclocker/") == {"ipclocker/theirs": "1"}


def test_another_cluster_is_refused(etcd: Etcd, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with lockerd(etcd, folder).serves() as one:
        wait_for(lambda: note_of(folder), "the note")
        one.terminate()
    with running_etcd(tmp_path / "other") as other:
        for number in range(20):
            other.put("other", str(number))
        with lockerd(other, folder) as one:
            assert one.ended() == 74
        assert "(its cluster id is " in one.log()
        accept(other, folder)
        with lockerd(other, folder).serves():
            pass


def test_one_that_stands_by_keeps_a_note_and_is_refused_too(etcd: Etcd, tmp_path: Path) -> None:
    old = backup(etcd, tmp_path / "old")
    with lockerd(etcd, tmp_path / "a").serves(), lockerd(etcd, tmp_path / "b", TWO).stands_by() as second:
        noted_beyond(10, tmp_path / "b")
        second.terminate()
    go_back(etcd, old)
    with lockerd(etcd, tmp_path / "b", TWO) as second:
        assert second.ended() == 74
    with lockerd(etcd, tmp_path / "c", THREE).serves():
        pass  # it knows nothing of what was before


def test_one_that_runs_meanwhile_ends(etcd: Etcd, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    old = backup(etcd, tmp_path / "old")
    with lockerd(etcd, folder).serves() as one:
        for number in range(10):
            one.ask(f"user u; locks a{number}; LOCK")
        noted_beyond(10, folder)
        go_back(etcd, old)
        assert one.ended() == 74
    assert "is not what it was" in one.log().splitlines()[-1]


def test_the_note_grows_while_it_serves(etcd: Etcd, tmp_path: Path) -> None:
    with lockerd(etcd, tmp_path / "s").serves() as one:
        for name in "ab":
            token = int(one.ask(f"user u; locks {name}; token 1; LOCK")[3].split()[1])
            noted_beyond(0, tmp_path / "s", token)


def test_a_note_that_can_not_be_written_stops_nobody(etcd: Etcd, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    (folder / f"lockerd-{PORT}-ipclocker%2F.etcd.new").mkdir(parents=True)
    with lockerd(etcd, folder).serves() as one:
        one.says("can't be written: Is a directory; an etcd that is restored from a backup may not be noticed")
        assert one.ask("user u; locks a; LOCK")[0] == "owner u"


def test_a_damaged_note_is_refused(etcd: Etcd, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / f"lockerd-{PORT}-ipclocker%2F.etcd").write_text(json.dumps({"cluster": 1}))
    with lockerd(etcd, folder) as one:
        assert one.ended() == 74
    assert one.log().count("\n") == 1
    accept(etcd, folder)
    with lockerd(etcd, folder).serves():
        pass
