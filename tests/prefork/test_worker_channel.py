"""What a worker tells its manager, between two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from math import inf
from pathlib import Path

from ipclocker.prefork.worker_channel import ASKED, READY, TIMED, VARIABLE, ManagerEnd, WorkerEnd


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def test_a_worker_is_heard() -> None:
    before = descriptors()
    channel = ManagerEnd()
    assert (channel.deadline, channel.served) == (inf, 0)
    assert channel.read() == []
    worker = os.fork()
    if worker == 0:
        channel.worker.take()
        channel.worker.ready()
        channel.worker.begin(123.5)
        channel.worker.end(1)
        channel.worker.begin(456.5)
        channel.worker.ends_as_asked()
        os._exit(0)
    channel.worker.close()
    os.waitpid(worker, 0)
    assert channel.read() == [READY, TIMED, ASKED]
    assert (channel.deadline, channel.served) == (456.5, 1)
    assert channel.read() == []
    channel.close()
    assert descriptors() <= before  # idle connections of Lockers are closed at a fork


def test_a_program_finds_its_end_once() -> None:
    code = (
        "import os; from ipclocker.prefork.worker_channel import WorkerEnd; "
        "end = WorkerEnd.from_environment(os.environ); end.ready(); end.begin(7.0); end.end(3); "
        "assert WorkerEnd.from_environment(os.environ) is None"
    )
    channel = ManagerEnd()
    environment = dict(os.environ)
    channel.worker.pass_on(environment)
    subprocess.run([sys.executable, "-c", code], env=environment, close_fds=False, check=True)
    channel.worker.close()
    assert channel.read() == [READY, TIMED]
    assert (channel.deadline, channel.served) == (inf, 3)
    channel.close()


def test_what_is_not_such_an_end_is_left_alone(tmp_path: Path) -> None:
    channel = ManagerEnd()
    environment: dict[str, str] = {}
    channel.worker.pass_on(environment)
    described = environment[VARIABLE]
    channel.worker.close()
    # Another file has got the numbers meanwhile.
    with (tmp_path / "a").open("w+") as first, (tmp_path / "b").open("w+") as second:
        first.write("x" * 100)
        first.flush()
        for text in (described, "", "1", "1:2:3", "x:y", "-1/2:-3/4", f"{first.fileno()}/1:{second.fileno()}/1"):
            found = {VARIABLE: text}
            assert WorkerEnd.from_environment(found) is None
            assert found == {}
        assert (tmp_path / "a").read_text() == "x" * 100
    channel.close()


def test_a_manager_that_is_gone_harms_no_worker() -> None:
    channel = ManagerEnd()
    channel.worker.take()
    channel.close()
    channel.worker.ready()
    channel.worker.begin(1.0)
    channel.worker.end(1)
