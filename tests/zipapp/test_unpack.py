"""Where the built file keeps its modules: whole or not at all, whatever happens to a run or to the folder."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..support.site import VERSION_LINE, Run


class TestTheCache:
    def test_is_kept_and_used_again(self, run: Run) -> None:
        run.works()
        first = run.pack.stat()
        run.works()
        assert run.pack.stat().st_ino == first.st_ino
        assert (first.st_mode & 0o777, run.folder.stat().st_mode & 0o777) == (0o600, 0o700)

    def test_is_made_with_its_parents(self, run: Run) -> None:
        run.cache = run.cache / "not" / "yet"
        run.works()
        assert run.pack.exists()

    def test_that_is_named_but_can_not_be_is_done_without(self, run: Run) -> None:
        run.cache = Path("/dev/null/cache")
        run.works()

    @pytest.mark.parametrize("umask", [0, 0o777])
    def test_has_its_modes_whatever_the_umask(self, run: Run, umask: int) -> None:
        run.works(umask=umask)
        assert run.pack.stat().st_mode & 0o777 == 0o600
        assert run.folder.stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("damage", ["empty", "cut off", "half the index", "zeros", "gone", "a folder of that name"])
    def test_is_made_anew_if_it_is_damaged(self, run: Run, damage: str) -> None:
        run.works()
        path = run.pack
        whole = path.read_bytes()
        path.unlink()
        if damage == "a folder of that name":
            path.mkdir()
        elif damage != "gone":
            ends = {
                "empty": b"",
                "cut off": whole[:-1],
                "half the index": whole[:99],
                "zeros": bytes(len(whole)),
            }
            path.write_bytes(ends[damage])
        run.works()
        if damage != "a folder of that name":
            assert run.pack.read_bytes() == whole

    def test_is_not_needed_in_a_removed_folder(self, run: Run, tmp_path: Path) -> None:
        run.works()
        (tmp_path / "gone").mkdir()
        run.works("/bin/sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', tmp_path / "gone")

    def test_loses_old_builds_and_remains_but_not_new_ones(self, run: Run) -> None:
        run.works()
        hours_ago = time.time() - 7200
        for name, times in {
            "old": (hours_ago, hours_ago),
            "new-1234": (hours_ago, hours_ago),
            "young": None,
        }.items():
            (run.folder / name).touch()
            os.utime(run.folder / name, times)
        run.works()
        assert len(list(run.folder.iterdir())) == 4, "nothing is cleaned where nothing is written"
        for path in run.folder.glob("*cpython*"):
            path.unlink()
        run.works()
        assert sorted(path.name for path in run.folder.iterdir() if "cpython" not in path.name) == ["young"]

    @pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
    @pytest.mark.parametrize("call", ["mkdir,mkdirat", "flock", "write", "fsync", "rename,renameat,renameat2"])
    def test_may_be_killed_at_any_point(self, run: Run, call: str) -> None:
        killed = run("strace", "-qq", "-o/dev/null", f"-etrace={call}", f"-einject={call}:signal=KILL:when=1")
        if killed.returncode == 1 and "ptrace" in killed.stderr:
            pytest.skip("this system does not let strace trace")
        assert killed.returncode == -signal.SIGKILL
        run.works()
        assert len(list(run.folder.glob("*cpython*"))) == 1

    @pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
    def test_may_be_interrupted_from_the_keyboard(self, run: Run) -> None:
        interrupted = run("strace", "-qq", "-o/dev/null", "-etrace=flock", "-einject=flock:signal=INT:when=1")
        assert (interrupted.returncode, interrupted.stdout, interrupted.stderr) == (-signal.SIGINT, "", "")
        run.works()

    def test_two_hundred_first_runs_make_one_pack(self, run: Run) -> None:
        run.works()
        run.pack.unlink()
        renamed = Renamed(run.folder)
        command = [str(run.file), "lockersh", "--version"]
        crowd = [
            subprocess.Popen(
                command, env=run.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            for _ in range(200)
        ]
        outputs = [one.communicate(timeout=120)[0] for one in crowd]
        assert all(VERSION_LINE.fullmatch(output) for output in outputs)
        assert renamed.count() == 1
        assert run.pack.exists()


class Renamed:
    """Counts the files renamed into a folder."""

    IN_MOVED_TO, IN_NONBLOCK, EVENT_HEAD = 0x80, os.O_NONBLOCK, 16

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = libc.inotify_init1(self.IN_NONBLOCK)
        assert libc.inotify_add_watch(self.descriptor, os.fsencode(folder), self.IN_MOVED_TO) > 0

    def count(self) -> int:
        events = os.read(self.descriptor, 65536)
        os.close(self.descriptor)
        count = 0
        while events:
            events = events[self.EVENT_HEAD + int.from_bytes(events[12:16], sys.byteorder) :]
            count += 1
        return count
